/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that was made for something that came to nothing goes again, and no other does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/store_fixture.h"

enum {
    PAGES = 40,
};

static struct fixture fx;
static struct image img;

static int setup(void **state)
{
    (void)state;
    fixture_make(&fx);
    img = image_make(PAGES, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    image_free(&img);
    fixture_remove(&fx);
    return 0;
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

/* It opens, and holds so many snapshots and no damage. */
static void assert_store(uint64_t snapshots)
{
    struct store_stats stats;
    struct err err = {0};
    struct store *st;

    assert_ok(store_open(fx.path, 0, &st, &err), &err);
    assert_ok(store_stats(st, &stats, &err), &err);
    assert_int_equal(stats.snapshots, snapshots);
    assert_int_equal(store_problems(st, true), 0);
    store_close(st);
}

static void test_a_store_that_was_made_goes(void **state)
{
    (void)state;
    store_abandon(NULL);
    store_abandon(fixture_open(&fx));
    assert_false(is_there(fx.path));
    /* With what a writer left, too. */
    {
        struct store *st = fixture_open(&fx);
        struct store_writer *w;
        struct err err = {0};

        assert_ok(image_begin(st, &img, NULL, "a", true, &w, &err), &err);
        assert_ok(store_writer_pages(w, 0, 0, PAGES, img.p, &err), &err);
        store_writer_abort(w);
        store_abandon(st);
    }
    assert_false(is_there(fx.path));
}

static void test_a_directory_that_was_there_is_empty_again(void **state)
{
    (void)state;
    assert_int_equal(mkdir(fx.path, 0750), 0);
    store_abandon(fixture_open(&fx));
    assert_true(is_there(fx.path));
    assert_int_equal(rmdir(fx.path), 0);
}

static void test_a_store_that_was_there_stays(void **state)
{
    (void)state;
    store_close(fixture_open(&fx));
    store_abandon(fixture_open(&fx));
    assert_store(0);
}

static void test_what_was_published_stays(void **state)
{
    struct store *st = fixture_open(&fx);
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    store_abandon(st);
    assert_store(1);
    tree_remove(fx.path);
    /* Whoever has taken it out again has made use of the store all the same. */
    st = fixture_open(&fx);
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    assert_ok(store_remove(st, "a", &err), &err);
    store_abandon(st);
    assert_store(0);
}

static void test_a_store_that_another_writes_to_stays(void **state)
{
    struct store *st = fixture_open(&fx), *other = fixture_open(&fx);
    const struct store_publish what = {.config = "{}"};
    char id[STORE_DIGEST_HEX + 1];
    struct store_writer *w;
    struct err err = {0};

    (void)state;
    assert_ok(image_begin(other, &img, NULL, "a", true, &w, &err), &err);
    store_abandon(st);
    assert_ok(store_writer_pages(w, 0, 0, PAGES, img.p, &err), &err);
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    store_close(other);
    assert_store(1);
}

/* What is begun in a store that has gone is not lost in silence. */
static void test_who_has_it_open_is_told(void **state)
{
    struct store *st = fixture_open(&fx), *other = fixture_open(&fx);
    struct err err = {0};

    (void)state;
    store_abandon(st);
    assert_false(is_there(fx.path));
    assert_int_equal(image_put(other, &img, NULL, "a", NULL, &err), -ESTALE);
    assert_string_equal(err.msg, "the store has been removed");
    store_close(other);
    assert_false(is_there(fx.path));
}

/* No more can be written to any file than there is already: a disk that is full. */
static void test_a_store_that_cannot_be_made_is_not_there(void **state)
{
    struct rlimit none, before;
    struct err err = {0};
    struct store *st;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_true(store_open(fx.path, STORE_CREATE, &st, &err) < 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(is_there(fx.path));
}

/* docs/store-format.md 7: "creating it again completes it". */
static void test_a_creation_that_was_interrupted_is_completed(void **state)
{
    char path[2 * FIXTURE_PATH_MAX];
    FILE *f;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/store.db", fx.path);
    assert_int_equal(mkdir(fx.path, 0700), 0);
    f = fopen(path, "w");
    assert_non_null(f);
    (void)fclose(f);
    store_close(fixture_open(&fx));
    assert_store(0);
}

#define abandon_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        abandon_test(test_a_store_that_was_made_goes),
        abandon_test(test_a_directory_that_was_there_is_empty_again),
        abandon_test(test_a_store_that_was_there_stays),
        abandon_test(test_what_was_published_stays),
        abandon_test(test_a_store_that_another_writes_to_stays),
        abandon_test(test_who_has_it_open_is_told),
        abandon_test(test_a_store_that_cannot_be_made_is_not_there),
        abandon_test(test_a_creation_that_was_interrupted_is_completed),
    };

    return cmocka_run_group_tests_name("store abandon", tests, NULL, NULL);
}
