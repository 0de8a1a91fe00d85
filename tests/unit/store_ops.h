/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that changes a store, as functions that can be interrupted, and what must hold
 * afterwards.
 *
 * The base store has snapshots "a" and "b"; dead pages of "gone", so that the collector has
 * a pack to rewrite; and, beside it, another store and a stream that have "new".
 */
#ifndef TESTS_UNIT_STORE_OPS_H
#define TESTS_UNIT_STORE_OPS_H

#include "tests/unit/store_fixture.h"

/* Does it to the store at a path; 0 or an errno. */
typedef int operation_fn(const char *path, struct err *err);

/* What may and what must have happened. */
struct outcome {
    bool may_lose_a; /* the operation removes it */
    bool done;       /* it said that it was done */
    bool has_new;    /* expected then */
    bool damaged;    /* the store was damaged before: pages may be lost, until they come again */
};

struct operation {
    const char *name;
    operation_fn *fn;
    struct outcome expect;
};

enum {
    OPERATIONS = 8, /* the last one repairs */
};

extern const struct operation operations[OPERATIONS];

/* For cmocka_run_group_tests_name(). */
int operations_setup(void **state);
int operations_teardown(void **state);

/* Make the store that an operation is done to. */
void operation_prepare(const struct operation *op, const char *path);

/* 0 if "b" is what it was; 1 if it is not; or an errno. */
int operation_compare(struct store *st, struct err *err);

/* Fail the test unless the store is as it may be; collects and writes to it. */
void operation_check(const char *path, const struct outcome *o);

#endif
