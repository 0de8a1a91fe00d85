/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a destination says of a migration when it is over, in a form that a
 * person can carry to the source: "never:<migration>:<code>".
 *
 * The code is an HMAC-SHA-256 under the secret that the destination made for
 * this migration, cut to 16 bytes.  So a statement can be mistyped, be of
 * another migration, or be made up, and the source notices.  The secret itself
 * is not shown.
 *
 * Spec: docs/migration-protocol.md 6.1.
 */
#ifndef MIGRATION_MIG_STATEMENT_H
#define MIGRATION_MIG_STATEMENT_H

#include "migration/mig_wire.h"

enum {
    MIG_ID_SIZE = 17,        /* with the final 0 */
    MIG_STATEMENT_SIZE = 64, /* at least, with the final 0 */
};

enum mig_outcome {
    MIG_OUTCOME_TAKEN, /* the destination has started the guest */
    MIG_OUTCOME_NEVER, /* it has not, and never will */
};

/**
 * mig_outcome_name() - "taken", "never".
 *
 * Return: static.
 * Threads: any.
 */
const char *mig_outcome_name(enum mig_outcome outcome);

/**
 * mig_id() - what a migration is called at both ends; says nothing of the secret.
 * @secret: MIG_SECRET_SIZE bytes, from READY.
 * @ret_id: 16 hexadecimal digits.
 *
 * Threads: any.
 */
void mig_id(const uint8_t *secret, char ret_id[MIG_ID_SIZE]);

/**
 * mig_statement_make() - put an outcome into words.
 *
 * Threads: any.
 */
void mig_statement_make(const uint8_t *secret, enum mig_outcome outcome,
                        char ret_text[MIG_STATEMENT_SIZE]);

/**
 * mig_statement_check() - believe a statement, or not.
 * @text:   any string.
 * @secret: of the migration that it should be of.
 *
 * Return: 0 and *@ret_outcome; -EINVAL if it is no statement, or one of another
 * migration; -EACCES if the destination has not said that.
 * Threads: any.
 */
CHECKED int mig_statement_check(const char *text, const uint8_t *secret,
                                enum mig_outcome *ret_outcome, struct err *err);

#endif
