/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done behind a publication may be killed at any call that changes the disk, and any such
 * call may fail: every snapshot stays, and no page gets a second row.
 *
 * CHRYSALIS_TEST_STRIDE: take only every so many calls (601 unless told).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/store.h"
#include "tests/unit/io_fault.h"
#include "tests/unit/store_fixture.h"

enum {
    PAGES = 12288,
    IMAGES = 4, /* the last one makes the list of fresh pages long enough to be sorted in */
    CALLS_MAX = 20000,
    STRIDE = 601,
};

static struct fixture base; /* with all images but the last one */
static struct image images[IMAGES];

static void put(const char *path, unsigned i, struct store **ret_st)
{
    char name[8], id[STORE_DIGEST_HEX + 1];
    struct err err = {0};

    (void)snprintf(name, sizeof(name), "s%u", i);
    assert_ok(store_open(path, STORE_CREATE, ret_st, &err), &err);
    assert_ok(image_put(*ret_st, &images[i], NULL, name, id, &err), &err);
}

static int make_base(void **state)
{
    struct store *st;

    (void)state;
    fixture_make(&base);
    for (unsigned i = 0; i < IMAGES; i++)
        images[i] = image_numbered(PAGES, (uint64_t)i * PAGES);
    for (unsigned i = 0; i < IMAGES - 1; i++) {
        put(base.path, i, &st);
        store_close(st);
    }
    return 0;
}

static int remove_base(void **state)
{
    (void)state;
    for (unsigned i = 0; i < IMAGES; i++)
        image_free(&images[i]);
    fixture_remove(&base);
    return 0;
}

static long stride(void)
{
    const char *text = getenv("CHRYSALIS_TEST_STRIDE");
    long n = text ? strtol(text, NULL, 10) : STRIDE;

    return n > 0 ? n : STRIDE;
}

/* Publish the last image in a child, in which call @n behind that goes wrong.  Return: whether there was one. */
static bool settle_in_child(const char *path, enum io_fault_mode mode, long n)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct store *st;

        put(path, IMAGES - 1, &st);
        io_fault_arm(mode, n);
        store_close(st);
        _exit(io_fault_disarm() >= n);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        assert_int_equal(WTERMSIG(status), SIGKILL);
    return WIFSIGNALED(status) || WEXITSTATUS(status);
}

/* All is there once; who stores half of the last image and as much that is new finds what is known. */
static void check(const struct fixture *fx)
{
    struct image half = image_numbered(PAGES, IMAGES * PAGES - PAGES / 2);
    struct store_stats stats;
    struct err err = {0};
    struct store *st;

    st = fixture_open(fx);
    assert_int_equal(image_compare(st, "s3", &images[IMAGES - 1], &err), 0);
    assert_int_equal(store_problems(st, true), 0);
    assert_ok(image_put(st, &half, NULL, "half", NULL, &err), &err);
    store_close(st);
    st = fixture_open(fx);
    assert_ok(store_stats(st, &stats, &err), &err);
    assert_int_equal(stats.pages, IMAGES * PAGES + PAGES / 2);
    store_close(st);
    image_free(&half);
}

static void go_wrong_everywhere(enum io_fault_mode mode)
{
    bool again = true;
    long n;

    for (n = 1; again && n < CALLS_MAX; n += stride()) {
        struct fixture fx;

        fixture_make(&fx);
        tree_copy(base.path, fx.path);
        again = settle_in_child(fx.path, mode, n);
        check(&fx);
        fixture_remove(&fx);
    }
    assert_false(again);
    print_message("%ld calls, each %ld.\n", n - stride(), stride());
    assert_true(n > 1000); /* pages were sorted in */
}

static void test_killed_behind_a_publication(void **state)
{
    (void)state;
    go_wrong_everywhere(IO_FAULT_KILL);
}

static void test_torn_behind_a_publication(void **state)
{
    (void)state;
    go_wrong_everywhere(IO_FAULT_TORN);
}

static void test_a_call_behind_a_publication_fails(void **state)
{
    (void)state;
    go_wrong_everywhere(IO_FAULT_EIO);
}

static void test_a_disk_that_is_full_behind_a_publication(void **state)
{
    (void)state;
    go_wrong_everywhere(IO_FAULT_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_behind_a_publication),
        cmocka_unit_test(test_torn_behind_a_publication),
        cmocka_unit_test(test_a_call_behind_a_publication_fails),
        cmocka_unit_test(test_a_disk_that_is_full_behind_a_publication),
    };

    return cmocka_run_group_tests(tests, make_base, remove_base);
}
