/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever a store is doing, it may be killed at any call that changes the disk,
 * and every such call may fail: what was published stays, bit for bit, and what
 * was not is not half there.
 *
 * CHRYSALIS_TEST_STRIDE: take only every so many calls (3 unless told; 1 takes each).
 *
 *     test_store_crash [PATTERN]     only tests whose names match, e.g. "*killed*"
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/store_stream.h"
#include "tests/unit/io_fault.h"
#include "tests/unit/store_ops.h"

enum {
    PAGES = 700,
    CALLS_MAX = 4000,
    STRIDE = 3,
};

static const struct operation *operation_named(const char *name)
{
    for (size_t i = 0; i < OPERATIONS; i++)
        if (strcmp(operations[i].name, name) == 0)
            return &operations[i];
    fail();
    return NULL;
}

static long stride(void)
{
    const char *text = getenv("CHRYSALIS_TEST_STRIDE");
    long n = text ? strtol(text, NULL, 10) : STRIDE;

    return n > 0 ? n : STRIDE;
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

static void kill_everywhere(const char *name)
{
    static const enum io_fault_mode modes[] = {IO_FAULT_KILL, IO_FAULT_TORN};
    const struct operation *op = operation_named(name);

    for (size_t m = 0; m < ARRAY_LEN(modes); m++) {
        bool ended = false;
        long n;

        for (n = 1; !ended && n < CALLS_MAX; n += stride()) {
            struct outcome o = op->expect;
            struct fixture fx;

            fixture_make(&fx);
            operation_prepare(op, fx.path);
            ended = o.done = run_killed(op->fn, fx.path, modes[m], n);
            operation_check(fx.path, &o);
            fixture_remove(&fx);
        }
        assert_true(ended);
        print_message("%s: %ld calls, killed at each %ld.\n", name, n - stride(), stride());
        assert_true(n > 5);
    }
}

static void test_put_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere("put");
}

static void test_remove_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere("remove");
}

static void test_collector_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere("collect");
}

static void test_label_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere("label");
}

static void test_import_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere("import");
}

static void test_copy_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere("copy");
}

static void test_prune_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere("prune");
}

static void test_repair_killed_at_every_call(void **state)
{
    (void)state;
    kill_everywhere("repair");
}

static int operation_create(const char *path, struct err *err)
{
    struct store *st;
    int rc = store_open(path, STORE_CREATE, &st, err);

    if (rc == 0)
        store_close(st);
    return rc;
}

static void test_creation_killed_at_every_call(void **state)
{
    struct image img = image_make(PAGES, 1);
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
        assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
        assert_int_equal(image_compare(st, "a", &img, &err), 0);
        assert_int_equal(store_problems(st, true), 0);
        store_close(st);
        fixture_remove(&fx);
    }
    assert_true(ended);
    print_message("killed at %ld calls\n", n - 2);
    assert_true(n > 5);
    image_free(&img);
}

/* ---- failures ---- */

static bool names_a_file(const char *text)
{
    return strstr(text, "pack ") || strstr(text, "packs") || strstr(text, "store.db");
}

static void fail_everywhere(const char *name, enum io_fault_mode mode)
{
    const struct operation *op = operation_named(name);
    long calls = 0, failed = 0;

    for (long n = 1; n == 1 || n <= calls + stride(); n += stride()) {
        struct outcome o = op->expect;
        struct err err = {0};
        struct fixture fx;
        int rc;

        fixture_make(&fx);
        operation_prepare(op, fx.path);
        io_fault_arm(mode, n);
        rc = op->fn(fx.path, &err);
        calls = io_fault_disarm();
        o.done = rc == 0;
        if (rc < 0) {
            failed++;
            assert_true(err.msg[0]);
            assert_true(mode != IO_FAULT_READ || names_a_file(err.msg));
        }
        operation_check(fx.path, &o);
        fixture_remove(&fx);
        assert_true(n < CALLS_MAX);
    }
    print_message("%s: %ld calls, %ld failures came through\n", name, calls, failed);
    assert_true(mode == IO_FAULT_SHORT ? failed == 0 : failed > 0);
}

static void test_put_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("put", IO_FAULT_EIO);
}

static void test_put_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("put", IO_FAULT_FULL);
}

static void test_remove_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("remove", IO_FAULT_EIO);
}

static void test_remove_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("remove", IO_FAULT_FULL);
}

static void test_collector_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("collect", IO_FAULT_EIO);
}

static void test_collector_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("collect", IO_FAULT_FULL);
}

static void test_label_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("label", IO_FAULT_EIO);
}

static void test_label_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("label", IO_FAULT_FULL);
}

static void test_import_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("import", IO_FAULT_EIO);
}

static void test_import_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("import", IO_FAULT_FULL);
}

static void test_copy_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("copy", IO_FAULT_EIO);
}

static void test_copy_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("copy", IO_FAULT_FULL);
}

static void test_prune_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("prune", IO_FAULT_EIO);
}

static void test_prune_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("prune", IO_FAULT_FULL);
}

static void test_repair_survives_an_io_error_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("repair", IO_FAULT_EIO);
}

static void test_repair_survives_a_full_disk_at_every_call(void **state)
{
    (void)state;
    fail_everywhere("repair", IO_FAULT_FULL);
}

static void test_quotas_are_survived_at_every_call(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPERATIONS; i++)
        fail_everywhere(operations[i].name, IO_FAULT_QUOTA);
}

static void test_reads_that_fail_are_survived_at_every_call(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPERATIONS; i++)
        fail_everywhere(operations[i].name, IO_FAULT_READ);
}

/* Does not change a store; 0, what it is to be told by, or an errno. */
typedef int look_fn(struct store *st, struct err *err);

enum {
    LOOK_TOLD = 1, /* a verifier goes on, and tells */
};

static int look_restore(struct store *st, struct err *err)
{
    int rc = operation_compare(st, err);

    assert_true(rc <= 0); /* nothing but the truth */
    return rc;
}

static int look_export(struct store *st, struct err *err)
{
    static const struct store_stream_cfg plain;
    struct store_stream_result res;
    struct store_snapshot *snap;
    struct bytes out = {0};
    int rc = store_snapshot_open(st, "b", &snap, err);

    if (rc == 0) {
        rc = store_export(snap, bytes_sink, &out, &plain, &res, err);
        store_snapshot_close(snap);
    }
    free(out.p);
    return rc;
}

static void take_file(void *arg, const struct store_problem *p)
{
    struct err *err = arg;

    if (p->severity == STORE_WRONG && names_a_file(p->what))
        (void)err_set(err, -EIO, "%s", p->what);
}

static int look_verify(struct store *st, struct err *err)
{
    struct err told = {0};
    const struct store_verify_cfg cfg = {.data = true, .problem = take_file, .arg = &told};
    struct store_verify_result res;
    int rc = store_verify(st, &cfg, &res, err);

    if (rc < 0 || !res.problems)
        return rc;
    *err = told;
    return LOOK_TOLD;
}

/* Opened anew, so that opening reads, too. */
static int look_with(look_fn *fn, const char *path, struct err *err)
{
    struct store *st;
    int rc = store_open(path, STORE_RDONLY, &st, err);

    if (rc == 0) {
        rc = fn(st, err);
        store_close(st);
    }
    return rc;
}

static void test_readers_name_the_file_and_read_it_later(void **state)
{
    static look_fn *const looks[] = {look_restore, look_export, look_verify};
    struct fixture fx;

    (void)state;
    fixture_make(&fx);
    operation_prepare(operation_named("put"), fx.path);
    for (size_t i = 0; i < ARRAY_LEN(looks); i++) {
        long n = 1, failed = 0;

        for (bool more = true; more; n++) {
            struct err err = {0}, ok = {0};
            int rc;

            io_fault_arm(IO_FAULT_READ, n);
            rc = look_with(looks[i], fx.path, &err);
            more = io_fault_disarm() >= n;
            if (rc != 0 && !names_a_file(err.msg))
                fail_msg("read %ld: \"%s\" names no file", n, err.msg);
            failed += rc != 0;
            assert_ok(look_with(looks[i], fx.path, &ok), &ok);
        }
        print_message("look %zu: %ld reads, %ld failures came through\n", i, n - 2, failed);
        assert_true(failed > 10 && failed > n / 2);
    }
    fixture_remove(&fx);
}

/* What cannot be read now may be read later: a repair must not set it aside. */
static void test_a_repair_loses_nothing_to_reads_that_fail(void **state)
{
    const struct operation whole = {"repair", operation_named("repair")->fn, {0}};
    long calls = 0;

    (void)state;
    for (long n = 1; n == 1 || n <= calls + stride(); n += stride()) {
        struct err err = {0};
        struct fixture fx;

        fixture_make(&fx);
        operation_prepare(&whole, fx.path);
        io_fault_arm(IO_FAULT_READ, n);
        (void)whole.fn(fx.path, &err);
        calls = io_fault_disarm();
        operation_check(fx.path, &whole.expect);
        fixture_remove(&fx);
    }
    assert_true(calls > 10);
}

static void test_short_writes_are_completed(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPERATIONS; i++)
        fail_everywhere(operations[i].name, IO_FAULT_SHORT);
}

/* ---- a disk that is really full ---- */

enum {
    DISK_PAGES = 40000, /* of the large image: rows for more log than the reserve has */
    FILLED = 5,         /* snapshots that fill the small disk */
};

/* A file system of its own below a fixture; false if none can be had. */
static bool disk_mount(struct fixture *fx, const char *options)
{
    fixture_make(fx);
    if (mkdir(fx->path, 0700) == 0 && mount("tmpfs", fx->path, "tmpfs", 0, options) == 0)
        return true;
    print_message("cannot mount a small file system here\n");
    fixture_remove(fx);
    return false;
}

static void disk_unmount(struct fixture *fx)
{
    (void)umount(fx->path);
    fixture_remove(fx);
}

/* Fill what is free but @left bytes.  The file is none of the store's. */
static void disk_fill(const struct fixture *fx, off_t left)
{
    static const uint8_t page[PAGE_SIZE_4K] = {1};
    char name[2 * FIXTURE_PATH_MAX];
    off_t len = 0;
    int fd;

    (void)snprintf(name, sizeof(name), "%s/packs/filler", fx->path);
    fd = open(name, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    while (pwrite(fd, page, sizeof(page), len) == (ssize_t)sizeof(page))
        len += (off_t)sizeof(page);
    assert_int_equal(errno, ENOSPC);
    assert_true(len >= left);
    assert_int_equal(ftruncate(fd, len - left), 0);
    (void)close(fd);
}

static void disk_empty(const struct fixture *fx)
{
    char name[2 * FIXTURE_PATH_MAX];

    (void)snprintf(name, sizeof(name), "%s/packs/filler", fx->path);
    assert_int_equal(unlink(name), 0);
}

static void fill_once(struct fixture *fx, off_t left, bool reopen)
{
    struct image first = image_make(PAGES, 1);
    struct store_gc_result gc;
    struct err err = {0}, full = {0};
    struct store *st;
    char ref[32];

    assert_ok(store_open(fx->path, STORE_CREATE, &st, &err), &err);
    assert_ok(image_put(st, &first, NULL, "first", NULL, &err), &err);
    for (unsigned i = 0; i < FILLED; i++) {
        struct image img = image_make(PAGES, 10 + i);

        memcpy(img.p, first.p, 30 * PAGE_SIZE_4K); /* each pack is needed a little */
        (void)snprintf(ref, sizeof(ref), "n%u", i);
        assert_ok(image_put(st, &img, NULL, ref, NULL, &err), &err);
        image_free(&img);
    }
    if (reopen)
        store_close(st);
    disk_fill(fx, left);
    if (reopen)
        assert_ok(store_open(fx->path, 0, &st, &err), &err);
    for (unsigned i = 0; i < FILLED; i++) {
        (void)snprintf(ref, sizeof(ref), "n%u", i);
        assert_ok(store_remove(st, ref, &err), &err);
    }
    /* What removing needs is not taken by a writer. */
    if (left == 0)
        assert_int_equal(image_put(st, &first, NULL, "more", NULL, &full), -ENOSPC);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_true(gc.bytes_freed > MIB(2));
    assert_ok(image_put(st, &first, NULL, "again", NULL, &err), &err);
    assert_int_equal(image_compare(st, "first", &first, &err), 0);
    assert_int_equal(store_problems(st, true), 0);
    store_close(st);
    image_free(&first);
}

static void test_a_full_disk_frees_itself_by_rm_and_gc(void **state)
{
    static const off_t left[] = {0, 4 << 10, 16 << 10, 64 << 10, 256 << 10};

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(left); i++) {
        struct fixture fx;

        if (!disk_mount(&fx, "size=32m"))
            skip();
        fill_once(&fx, left[i / 2], i % 2);
        disk_unmount(&fx);
    }
}

/* Pages of which each is another and all are small in a pack. */
static struct image image_of_numbers(uint64_t first)
{
    struct image img = {.p = calloc(DISK_PAGES, PAGE_SIZE_4K), .pages = DISK_PAGES};

    assert_non_null(img.p);
    for (uint64_t i = 0; i < DISK_PAGES; i++) {
        uint64_t v = first + i;

        memcpy(img.p + i * PAGE_SIZE_4K, &v, sizeof(v));
    }
    return img;
}

static void test_a_collection_larger_than_the_reserve_goes_in_slices(void **state)
{
    struct image keep = image_of_numbers(1), gone = image_of_numbers(1 + DISK_PAGES);
    struct store_gc_result gc;
    struct fixture fx;
    struct err err = {0};
    struct store *st;

    (void)state;
    if (!disk_mount(&fx, "size=64m")) {
        image_free(&keep);
        image_free(&gone);
        skip();
    }
    assert_ok(store_open(fx.path, STORE_CREATE, &st, &err), &err);
    assert_ok(image_put(st, &keep, NULL, "keep", NULL, &err), &err);
    assert_ok(image_put(st, &gone, NULL, "gone", NULL, &err), &err);
    store_close(st); /* and the log is gone */
    disk_fill(&fx, 0);
    assert_ok(store_open(fx.path, 0, &st, &err), &err);
    assert_ok(store_remove(st, "gone", &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_int_equal(gc.pages_dropped, DISK_PAGES);
    assert_int_equal(gc.packs_removed, 1);
    assert_int_equal(store_problems(st, true), 0);
    assert_int_equal(image_compare(st, "keep", &keep, &err), 0);
    disk_empty(&fx);
    assert_ok(image_put(st, &gone, NULL, "again", NULL, &err), &err);
    assert_int_equal(image_compare(st, "again", &gone, &err), 0);
    store_close(st);
    disk_unmount(&fx);
    image_free(&keep);
    image_free(&gone);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_killed_at_every_call),
        cmocka_unit_test(test_remove_killed_at_every_call),
        cmocka_unit_test(test_collector_killed_at_every_call),
        cmocka_unit_test(test_label_killed_at_every_call),
        cmocka_unit_test(test_import_killed_at_every_call),
        cmocka_unit_test(test_copy_killed_at_every_call),
        cmocka_unit_test(test_prune_killed_at_every_call),
        cmocka_unit_test(test_repair_killed_at_every_call),
        cmocka_unit_test(test_creation_killed_at_every_call),
        cmocka_unit_test(test_put_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_put_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_remove_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_remove_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_collector_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_collector_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_label_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_label_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_import_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_import_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_copy_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_copy_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_prune_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_prune_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_repair_survives_an_io_error_at_every_call),
        cmocka_unit_test(test_repair_survives_a_full_disk_at_every_call),
        cmocka_unit_test(test_quotas_are_survived_at_every_call),
        cmocka_unit_test(test_reads_that_fail_are_survived_at_every_call),
        cmocka_unit_test(test_readers_name_the_file_and_read_it_later),
        cmocka_unit_test(test_a_repair_loses_nothing_to_reads_that_fail),
        cmocka_unit_test(test_short_writes_are_completed),
        cmocka_unit_test(test_a_full_disk_frees_itself_by_rm_and_gc),
        cmocka_unit_test(test_a_collection_larger_than_the_reserve_goes_in_slices),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("store_crash", tests, operations_setup, operations_teardown);
}
