/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever a store is doing, it may be killed at any call that changes the disk,
 * and every such call may fail: what was published stays, bit for bit, and what
 * was not is not half there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "tests/unit/io_fault.h"
#include "tests/unit/store_fixture.h"

enum {
    PAGES = 700, /* two leaves */
    CALLS_MAX = 2000,
};

static struct fixture base; /* snapshots "a" and "b", and something for the collector */
static struct image img_a, img_b, img_new;

static void assert_ok(int rc, const struct err *err)
{
    if (rc < 0)
        print_error("%d: %s\n", rc, err->msg);
    assert_true(rc >= 0);
}

static int make_base(void **state)
{
    struct image gone;
    struct err err = {0};
    struct store *st;
    int rc;

    (void)state;
    fixture_make(&base);
    img_a = image_make(PAGES, 1);
    img_b = image_copy(&img_a);
    for (uint64_t i = 0; i < 40; i++)
        image_touch(&img_b, i * 3, 1);
    gone = image_make(PAGES, 2);
    /* Of this one's pack a few pages survive, in "new" only: it is to be rewritten. */
    img_new = image_copy(&img_b);
    memcpy(img_b.p + 300 * PAGE_SIZE_4K, gone.p + 300 * PAGE_SIZE_4K, 30 * PAGE_SIZE_4K);
    for (uint64_t i = 0; i < 60; i++)
        image_touch(&img_new, 100 + i, 5);
    rc = store_open(base.path, STORE_CREATE, &st, &err);
    if (rc == 0)
        rc = image_put_alone(st, &gone, NULL, "gone", NULL, &err);
    if (rc == 0)
        rc = image_put_alone(st, &img_a, NULL, "a", NULL, &err);
    if (rc == 0)
        rc = image_put_alone(st, &img_b, "a", "b", NULL, &err);
    if (rc == 0)
        rc = store_remove(st, "gone", &err);
    image_free(&gone);
    store_close(st);
    if (rc < 0)
        print_error("%s\n", err.msg);
    return rc;
}

static int drop_base(void **state)
{
    (void)state;
    fixture_remove(&base);
    image_free(&img_a);
    image_free(&img_b);
    image_free(&img_new);
    return 0;
}

/* ---- what may be interrupted ---- */

typedef int operation_fn(const char *path, struct err *err);

static int with_store(const char *path, unsigned flags, struct err *err,
                      int (*fn)(struct store *st, struct err *err))
{
    struct store *st;
    int rc = store_open(path, flags, &st, err);

    if (rc == 0) {
        rc = fn(st, err);
        store_close(st);
    }
    return rc;
}

static int do_put(struct store *st, struct err *err)
{
    return image_put_alone(st, &img_new, "b", "new", NULL, err);
}

static int do_remove(struct store *st, struct err *err)
{
    return store_remove(st, "a", err);
}

static int do_collect(struct store *st, struct err *err)
{
    struct store_gc_result r;

    return store_gc(st, 0, &r, err);
}

static int do_label(struct store *st, struct err *err)
{
    const struct store_relabel change = {.add = "tag"};

    return store_relabel(st, "a", &change, err);
}

static int operation_put(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_put);
}

static int operation_remove(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_remove);
}

static int operation_collect(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_collect);
}

static int operation_label(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_label);
}

static int operation_create(const char *path, struct err *err)
{
    struct store *st;
    int rc = store_open(path, STORE_CREATE, &st, err);

    if (rc == 0)
        store_close(st);
    return rc;
}

/* ---- what must hold afterwards ---- */

static bool has(struct store *st, const char *name)
{
    char id[STORE_DIGEST_HEX + 1];
    int rc = store_resolve(st, name, id, NULL);

    assert_true(rc == 0 || rc == -ENOENT);
    return rc == 0;
}

struct outcome {
    bool may_lose_a; /* the operation removes it */
    bool done;       /* it said that it was done */
    bool has_new;    /* expected then */
};

static void check_store(const char *path, const struct outcome *o)
{
    struct store_gc_result gc;
    struct store_stats stats;
    struct err err = {0};
    struct store *st;

    assert_ok(store_open(path, 0, &st, &err), &err);
    assert_int_equal(store_problems(st, true), 0);
    assert_int_equal(image_compare(st, "b", &img_b, &err), 0);
    assert_true(has(st, "a") || o->may_lose_a);
    if (has(st, "a"))
        assert_int_equal(image_compare(st, "a", &img_a, &err), 0);
    assert_true(has(st, "new") || !o->done || !o->has_new);
    if (has(st, "new"))
        assert_int_equal(image_compare(st, "new", &img_new, &err), 0);
    assert_ok(store_gc(st, 0, &gc, &err), &err);
    assert_int_equal(store_problems(st, true), 0);
    assert_int_equal(image_compare(st, "b", &img_b, &err), 0);
    assert_ok(store_stats(st, &stats, &err), &err);
    assert_int_equal(stats.bytes_others, 0);
    /* And it is as good as before. */
    assert_ok(image_put(st, &img_new, "b", "after", NULL, &err), &err);
    assert_int_equal(image_compare(st, "after", &img_new, &err), 0);
    store_close(st);
}

/* ---- kills ---- */

/* Run in a child that is killed at call @n; true if it came to its end. */
static bool run_killed(operation_fn *fn, const char *path, enum io_fault_mode mode, long n)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct err err = {0};
        int rc;

        io_fault_arm(mode, n);
        rc = fn(path, &err);
        (void)io_fault_disarm();
        _exit(rc == 0 ? 0 : 3);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        assert_int_equal(WTERMSIG(status), SIGKILL);
        return false;
    }
    assert_int_equal(WEXITSTATUS(status), 0);
    return true;
}

static void kill_everywhere(operation_fn *fn, const struct outcome *expect)
{
    static const enum io_fault_mode modes[] = {IO_FAULT_KILL, IO_FAULT_TORN};

    for (size_t m = 0; m < ARRAY_LEN(modes); m++) {
        bool ended = false;
        long n;

        for (n = 1; !ended && n < CALLS_MAX; n++) {
            struct outcome o = *expect;
            struct fixture fx;

            fixture_make(&fx);
            tree_copy(base.path, fx.path);
            ended = o.done = run_killed(fn, fx.path, modes[m], n);
            check_store(fx.path, &o);
            fixture_remove(&fx);
        }
        assert_true(ended);
        print_message("killed at %ld calls\n", n - 2);
        assert_true(n > 5);
    }
}

static void test_put_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere(operation_put, &(struct outcome){.has_new = true});
}

static void test_remove_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere(operation_remove, &(struct outcome){.may_lose_a = true});
}

static void test_collector_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere(operation_collect, &(struct outcome){0});
}

static void test_label_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere(operation_label, &(struct outcome){0});
}

static void test_creation_killed_at_every_call(void **state)
{
    bool ended = false;
    long n;

    (void)state;
    for (n = 1; !ended && n < CALLS_MAX; n++) {
        struct err err = {0};
        struct fixture fx;
        struct store *st;

        fixture_make(&fx);
        ended = run_killed(operation_create, fx.path, IO_FAULT_KILL, n);
        assert_ok(store_open(fx.path, STORE_CREATE, &st, &err), &err);
        assert_ok(image_put(st, &img_a, NULL, "a", NULL, &err), &err);
        assert_int_equal(image_compare(st, "a", &img_a, &err), 0);
        assert_int_equal(store_problems(st, true), 0);
        store_close(st);
        fixture_remove(&fx);
    }
    assert_true(ended);
    print_message("killed at %ld calls\n", n - 2);
    assert_true(n > 5);
}

/* ---- failures ---- */

static void fail_everywhere(operation_fn *fn, enum io_fault_mode mode, const struct outcome *expect)
{
    long calls = 0, failed = 0;

    for (long n = 1; n == 1 || n <= calls + 1; n++) {
        struct outcome o = *expect;
        struct err err = {0};
        struct fixture fx;
        int rc;

        fixture_make(&fx);
        tree_copy(base.path, fx.path);
        io_fault_arm(mode, n);
        rc = fn(fx.path, &err);
        calls = io_fault_disarm();
        o.done = rc == 0;
        if (rc < 0) {
            failed++;
            assert_true(err.msg[0]);
        }
        check_store(fx.path, &o);
        fixture_remove(&fx);
        assert_true(n < CALLS_MAX);
    }
    print_message("%ld calls, %ld failures came through\n", calls, failed);
    assert_true(mode == IO_FAULT_SHORT ? failed == 0 : failed > 0);
}

static void test_put_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere(operation_put, IO_FAULT_EIO, &(struct outcome){.has_new = true});
}

static void test_put_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere(operation_put, IO_FAULT_FULL, &(struct outcome){.has_new = true});
}

static void test_put_completes_short_writes(void **state)
{
    (void)state;
    fail_everywhere(operation_put, IO_FAULT_SHORT, &(struct outcome){.has_new = true});
}

static void test_collector_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere(operation_collect, IO_FAULT_EIO, &(struct outcome){0});
}

static void test_collector_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere(operation_collect, IO_FAULT_FULL, &(struct outcome){0});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_killed_at_every_call),
        cmocka_unit_test(test_remove_killed_at_every_call),
        cmocka_unit_test(test_collector_killed_at_every_call),
        cmocka_unit_test(test_label_killed_at_every_call),
        cmocka_unit_test(test_creation_killed_at_every_call),
        cmocka_unit_test(test_put_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_put_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_put_completes_short_writes),
        cmocka_unit_test(test_collector_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_collector_survives_a_full_disk_at_every_call),
    };

    return cmocka_run_group_tests_name("store_crash", tests, make_base, drop_base);
}
