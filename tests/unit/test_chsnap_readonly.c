/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chsnap on stores that can only be read: by permission, and by mount.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/store_stream.h"
#include "tests/unit/chsnap_fixture.h"

enum {
    PAGES = 700,
};

/* Root may do everything; without these it is a user like any other, and still the owner. */
#define WITHOUT_RIGHTS "setpriv --bounding-set=-dac_override,-dac_read_search "

static struct fixture fx;
static struct image img;

static const char *chsnap(void)
{
    return geteuid() == 0 ? WITHOUT_RIGHTS CHSNAP : CHSNAP;
}

static void writable(bool yes)
{
    assert_int_equal(run("chmod %s %s %s/packs %s/store.db*", yes ? "u+w" : "a-w", fx.path, fx.path,
                         fx.path),
                     0);
}

static int setup(void **state)
{
    (void)state;
    snapshots_make(&fx, &img, PAGES);
    return run(CHSNAP " rm %s a", fx.path); /* for a collection to find */
}

static int teardown(void **state)
{
    (void)state;
    writable(true);
    snapshots_remove(&fx, &img);
    return 0;
}

/* A command and what follows the store. */
struct line {
    const char *command, *rest;
};

/* Everything that only looks, by this way to the program. */
static void assert_reads(const char *program)
{
    /* clang-format off */
    static const struct line looks[] = {
        {"list", ""}, {"show", "b"}, {"verify -r", ""}, {"diff", "b b"}, {"map", "b"},
        {"stats", ""}, {"gc -n", ""}, {"prune -n --keep-last 1", ""}, {"rm -n", "b"},
        {"dump --raw", "b >/dev/null"}, {"export", "b >/dev/null"},
    };
    /* clang-format on */

    for (size_t i = 0; i < ARRAY_LEN(looks); i++) {
        int rc = run("%s %s %s %s 2>&1", program, looks[i].command, fx.path, looks[i].rest);

        if (rc)
            print_error("%s: %s\n", looks[i].command, output);
        assert_int_equal(rc, 0);
    }
    assert_int_equal(run("%s copy %s %s/copy 2>&1", program, fx.path, fx.dir), 0);
    assert_int_equal(run(CHSNAP " list %s/copy", fx.dir), 0);
    assert_int_equal(run("rm -r %s/copy", fx.dir), 0);
}

/* Everything that writes names the store, what was wanted and the cause. */
static void assert_no_writes(const char *program, const char *why)
{
    /* clang-format off */
    static const struct line writes[] = {
        {"rm", "b"}, {"gc", ""}, {"verify --repair", ""}, {"prune --keep-last 1", ""},
        {"tag -a t", "b"}, {"import", "</dev/null"},
    };
    /* clang-format on */
    char said[600];

    (void)snprintf(said, sizeof(said), "chsnap: error: store %s: cannot be written: %s\n", fx.path,
                   why);
    for (size_t i = 0; i < ARRAY_LEN(writes); i++) {
        assert_int_equal(
            run("%s %s %s %s 2>&1", program, writes[i].command, fx.path, writes[i].rest), 1);
        assert_string_equal(output, said);
    }
}

static void test_a_store_without_permission_is_read(void **state)
{
    (void)state;
    writable(false);
    assert_reads(chsnap());
    assert_no_writes(chsnap(), "the directory: Permission denied");
    assert_int_equal(run("chmod u+w %s", fx.path), 0);
    assert_reads(chsnap());
    assert_no_writes(chsnap(), "store.db: Permission denied");
    assert_int_equal(run("chmod u+w %s/store.db*", fx.path), 0);
    assert_no_writes(chsnap(), "packs: Permission denied");
    assert_int_equal(run("ls %s", fx.path), 0);
    assert_null(strstr(output, "-wal")); /* reading left nothing */
}

static void test_a_store_is_not_made_where_nothing_can_be(void **state)
{
    char said[600];

    (void)state;
    writable(false);
    assert_int_equal(run("%s import %s/new </dev/null 2>&1", chsnap(), fx.path), 1);
    (void)snprintf(said, sizeof(said),
                   "chsnap: error: store %s/new: cannot be made: Permission denied\n", fx.path);
    assert_string_equal(output, said);
}

static void test_a_store_that_is_missing_is_named_once(void **state)
{
    char said[600];

    (void)state;
    assert_int_equal(run(CHSNAP " list %s/none 2>&1", fx.dir), 1);
    (void)snprintf(said, sizeof(said), "chsnap: error: store %s/none: No such file or directory\n",
                   fx.dir);
    assert_string_equal(output, said);
    assert_int_equal(run(CHSNAP " list %s 2>&1", fx.dir), 1);
    (void)snprintf(said, sizeof(said),
                   "chsnap: error: store %s: not a store: store.db: No such file or directory\n",
                   fx.dir);
    assert_string_equal(output, said);
}

static void test_a_store_on_a_read_only_mount_is_read(void **state)
{
    char program[512];

    (void)state;
    (void)snprintf(program, sizeof(program),
                   "unshare -m -- sh -c 'mount --bind %s %s && mount -o remount,bind,ro %s && "
                   "exec \"$@\"' sh " CHSNAP,
                   fx.path, fx.path, fx.path);
    if (run("%s --version 2>&1", program) != 0)
        skip(); /* who may not mount */
    assert_reads(program);
    assert_no_writes(program, "the directory: Read-only file system");
}

/* A process that has published snapshot "c" and ends without a word: the log has what is new. */
static void publish_and_die(void)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct store *st = NULL;

        if (store_open(fx.path, 0, &st, NULL) < 0 ||
            image_put_alone(st, &img, "b", "c", NULL, NULL) < 0)
            _exit(1);
        (void)kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void test_what_is_only_in_the_log_is_read(void **state)
{
    (void)state;
    publish_and_die();
    writable(false);
    assert_reads(chsnap());
    assert_int_equal(run("%s show %s c 2>&1", chsnap(), fx.path), 0);
    /* And said where it cannot be, rather than an older state shown. */
    assert_int_equal(
        run("chmod u+w %s && rm %s/store.db-shm && chmod a-w %s", fx.path, fx.path, fx.path), 0);
    assert_int_equal(run("%s list %s 2>&1", chsnap(), fx.path), 1);
    assert_says("store.db-wal holds what store.db lacks");
    writable(true);
    assert_int_equal(run("%s show %s c 2>&1", chsnap(), fx.path), 0);
}

/* Whoever may only read sees what one who may write does meanwhile. */
static void test_a_reader_without_permission_beside_a_writer(void **state)
{
    struct err err = {0};
    struct store *st = NULL;

    (void)state;
    st = fixture_open(&fx);
    assert_ok(image_put(st, &img, "b", "c", NULL, &err), &err);
    writable(false);
    assert_reads(chsnap());
    assert_int_equal(run("%s show %s c 2>&1", chsnap(), fx.path), 0);
    writable(true);
    store_close(st);
}

#define readonly_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        readonly_test(test_a_store_without_permission_is_read),
        readonly_test(test_a_store_is_not_made_where_nothing_can_be),
        readonly_test(test_a_store_that_is_missing_is_named_once),
        readonly_test(test_a_store_on_a_read_only_mount_is_read),
        readonly_test(test_what_is_only_in_the_log_is_read),
        readonly_test(test_a_reader_without_permission_beside_a_writer),
    };

    return cmocka_run_group_tests_name("chsnap readonly", tests, NULL, NULL);
}
