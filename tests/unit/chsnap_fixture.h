/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines, by what they say and their exit status.
 */
#ifndef TESTS_UNIT_CHSNAP_FIXTURE_H
#define TESTS_UNIT_CHSNAP_FIXTURE_H

#include "tests/unit/store_fixture.h"

enum {
    OUTPUT_MAX = 1 << 20,
};

/* What the last command line said. */
extern char output[OUTPUT_MAX];

/* Run a command line; its exit status, and what it says in @output. */
int run(const char *fmt, ...) PRINTF(1, 2);

/* Fails the test unless the last command line said this. */
void assert_says(const char *text);

/* A store with snapshots "a" and "b", which has every second page of @pages anew; @img is "b". */
void snapshots_make(struct fixture *fx, struct image *img, uint64_t pages);
void snapshots_remove(struct fixture *fx, struct image *img);

#endif
