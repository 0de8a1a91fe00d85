/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The power may be cut after any call that changes the disk: whatever the disk then has of
 * what was not synced, what was published is there, bit for bit, and what an operation said
 * was done stays done.
 *
 * CHRYSALIS_TEST_SEEDS: how many outcomes of each cut are looked at (2 unless told), and
 * CHRYSALIS_TEST_STRIDE: after every how many calls (8 unless told).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/io_log.h"
#include "tests/unit/store_ops.h"

enum {
    SEEDS = 2,
    STRIDE = 8,
};

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t n = text ? strtoull(text, NULL, 10) : otherwise;

    return n ? n : otherwise;
}

static void cut_once(const struct operation *op, const char *base, size_t nr, size_t total,
                     uint64_t seed)
{
    struct outcome o = op->expect;
    struct fixture fx;

    o.done = nr == total;
    fixture_make(&fx);
    io_log_replay(base, fx.path, nr, seed);
    operation_check(fx.path, &o);
    fixture_remove(&fx);
}

static void cut_everywhere(const char *name)
{
    uint64_t seeds = from_environment("CHRYSALIS_TEST_SEEDS", SEEDS);
    size_t stride = from_environment("CHRYSALIS_TEST_STRIDE", STRIDE), total = 0, cuts = 0;
    const struct operation *op = NULL;
    struct fixture before, fx;
    struct err err = {0};
    int rc;

    for (size_t i = 0; i < OPERATIONS; i++)
        if (strcmp(operations[i].name, name) == 0)
            op = &operations[i];
    assert_non_null(op);
    fixture_make(&before);
    fixture_make(&fx);
    operation_prepare(op, before.path);
    tree_copy(before.path, fx.path);
    io_log_start(fx.path);
    rc = op->fn(fx.path, &err);
    total = io_log_stop();
    if (rc < 0)
        print_error("%s\n", err.msg);
    assert_int_equal(rc, 0);
    assert_true(total > 5);
    for (size_t nr = 0; nr <= total;
         nr += nr + stride <= total || nr == total ? stride : total - nr) {
        for (uint64_t seed = 0; seed <= seeds; seed++, cuts++) {
            uint64_t s = seed ? nr * 1000 + seed : 0;

            cut_once(op, before.path, nr, total, s);
        }
    }
    print_message("%s: %zu calls, %zu cuts\n", name, total, cuts);
    fixture_remove(&before);
    fixture_remove(&fx);
}

static void test_a_snapshot_survives(void **state)
{
    (void)state;
    cut_everywhere("put");
}

static void test_a_removal_survives(void **state)
{
    (void)state;
    cut_everywhere("remove");
}

static void test_a_collection_survives(void **state)
{
    (void)state;
    cut_everywhere("collect");
}

static void test_an_import_survives(void **state)
{
    (void)state;
    cut_everywhere("import");
}

static void test_a_copy_survives(void **state)
{
    (void)state;
    cut_everywhere("copy");
}

static void test_a_prune_survives(void **state)
{
    (void)state;
    cut_everywhere("prune");
}

static void test_a_repair_survives(void **state)
{
    (void)state;
    cut_everywhere("repair");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_snapshot_survives),   cmocka_unit_test(test_a_removal_survives),
        cmocka_unit_test(test_a_collection_survives), cmocka_unit_test(test_an_import_survives),
        cmocka_unit_test(test_a_copy_survives),       cmocka_unit_test(test_a_prune_survives),
        cmocka_unit_test(test_a_repair_survives),
    };

    return cmocka_run_group_tests_name("store_powercut", tests, operations_setup,
                                       operations_teardown);
}
