/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's engine: takes a guest in, or leaves no trace of it.
 *
 * mig_dest_run() works on the thread that calls it, until the move is over.
 *
 *     build                      machine and memory, before the guest stops at the source
 *     stage                      its state, as it arrives
 *     load
 *     -- COMMIT --
 *     acquire                    locks and taps
 *     start
 *
 * A failure after build() was called ends with discard(), and the guest never
 * runs here; so the source may be told that it is the source's again.  Before
 * start() the log says that the guest was taken.
 */
#ifndef MIGRATION_MIG_DEST_H
#define MIGRATION_MIG_DEST_H

#include "migration/mig_dial.h"
#include "migration/mig_progress.h"
#include "migration/mig_statement.h"
#include "migration/mig_wire.h"

/* All are called from the thread inside mig_dest_run(). */
struct mig_dest_ops {
    /* What the source tells before build(), if it does; borrowed for the call.  May be NULL. */
    CHECKED int (*facts)(void *arg, const char *text, size_t len, struct err *err);
    /*
     * Build everything that a stopped machine needs.  *ret_gm reads as zero
     * everywhere and stays until discard(), or for ever.  A refusal's reasons
     * go to @why with mig_refuse(), all of them at once; a failure without
     * one is a reason by its message.
     */
    CHECKED int (*build)(void *arg, const uint8_t *config, size_t len, struct gmem **ret_gm,
                         struct mig_refusal *why, struct err *err);
    /*
     * Decode and check what is whole at the front of the state, all of it if @last; *ret_used
     * bytes are not given again.  Memory is not in place, and nothing changes yet.
     */
    CHECKED int (*stage)(void *arg, const uint8_t *state, size_t len, bool last, size_t *ret_used,
                         struct err *err);
    /* Load what was staged; all of memory is in place. */
    CHECKED int (*load)(void *arg, struct err *err);
    /* Take what only one host may hold. */
    CHECKED int (*acquire)(void *arg, struct err *err);
    /* Let the guest run; on failure it has not run. */
    CHECKED int (*start)(void *arg, struct err *err);
    /* Forget all of it, what acquire() took too.  Also after a build() that failed. */
    void (*discard)(void *arg);
};

struct mig_dest_params {
    const struct mig_dest_ops *ops; /* static */
    void *arg;
    mig_open_fn *open; /* takes a connection, without a handshake */
    void *open_arg;
    int open_fd;         /* readable where there is one; borrowed */
    struct mig_tls *tls; /* borrowed; NULL: none */
    /* For tests, which have other times than people: all 0 is docs/migration-protocol.md 7. */
    unsigned lanes_max; /* 0: MIG_LANES_MAX */
    unsigned attempts;  /* connections that may fail before a HELLO is understood; 0: any number */
    uint32_t accept_ms; /* wait so long for a source; 0: for ever */
    uint32_t idle_ms;   /* 0: 9 s */
    uint32_t hello_ms;  /* for a connection to shake hands, and to say what it is; 0: 10 s each */
    unsigned keepalive_ms; /* 0: 1 s; UINT_MAX: none */
    uint32_t last_word_ms; /* for the reason of a source that goes; 0: 300 ms */
};

struct mig_dest;

/**
 * mig_dest_new() - prepare to take a guest in; nothing happens yet.
 * @params: copied.
 *
 * Return: 0 and *@ret_dst, owned; -ENOMEM; the kernel's errno.
 * Threads: any.
 */
CHECKED int mig_dest_new(const struct mig_dest_params *params, struct mig_dest **ret_dst,
                         struct err *err);

/**
 * mig_dest_free() - free.
 * @dst: taken, not running; NULL is allowed.
 *
 * Threads: the last user.
 */
void mig_dest_free(struct mig_dest *dst);

/**
 * mig_dest_run() - wait for a source and take its guest in; once.
 *
 * A peer that is turned away before it has said HELLO (no certificate, noise)
 * is counted in the progress and holds nobody up; nor does another source, which
 * is refused in words as long as this one is served.
 *
 * Return: 0: the guest runs here; -ECANCELED, -ETIMEDOUT, -ENOTSUP (refused),
 * -ECONNABORTED (the source gave up), or another failure: it does not and never will.
 * Threads: one.
 */
CHECKED int mig_dest_run(struct mig_dest *dst, struct err *err);

/**
 * mig_dest_cancel() - give up, if that is still possible.
 *
 * Return: 0: the guest will not run here; -EBUSY: COMMIT was received.
 * Threads: any.
 */
int mig_dest_cancel(struct mig_dest *dst);

/**
 * mig_dest_secret() - the secret of this migration, once mig_dest_run() has returned.
 *
 * With it mig_statement_make() says what became of the guest here: what
 * mig_dest_run() returned is final.
 *
 * Return: MIG_SECRET_SIZE bytes, borrowed; NULL if it did not come to READY.
 * Threads: any.
 */
const uint8_t *mig_dest_secret(const struct mig_dest *dst);

/**
 * mig_dest_may_be_asked() - whether the source may need to know what became of the guest here.
 *
 * It may be undecided as soon as LOADED was sent, unless it has given up in words.  Once
 * mig_dest_run() has returned.
 *
 * Threads: any.
 */
bool mig_dest_may_be_asked(const struct mig_dest *dst);

/**
 * mig_dest_progress() - the progress.
 *
 * Return: borrowed, valid until mig_dest_free().
 * Threads: any.
 */
struct mig_progress *mig_dest_progress(struct mig_dest *dst);

#endif
