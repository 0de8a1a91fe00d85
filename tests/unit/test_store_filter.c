/* SPDX-License-Identifier: Apache-2.0 */
/* The filter before the tree of pages: it never hides a page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"
#include "store/store_filter.h"
#include "store_fixture.h"

enum {
    MANY = 40000,
    PAGES = 12288, /* of a tree that gets a filter */
};

static const uint8_t uuid[16] = "a store's number";

static struct store_digest digest_of(uint64_t n)
{
    struct store_digest d;

    store_hash(&n, sizeof(n), &d);
    return d;
}

static struct store_backend *backend_make(struct fixture *f)
{
    struct store_backend *be;
    struct err err = {0};

    fixture_make(f);
    store_close(fixture_open(f));
    assert_ok(store_dir_open(f->path, 0, &be, &err), &err);
    return be;
}

static void put_range(struct store_filter_maker *m, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n < to; n++) {
        const struct store_digest d = digest_of(n);

        store_filter_put(m, &d);
    }
}

/* How many of a range the filter says are not there. */
static unsigned nr_lacked(const struct store_filter *f, uint64_t from, uint64_t to)
{
    unsigned nr = 0;

    for (uint64_t n = from; n < to; n++) {
        const struct store_digest d = digest_of(n);

        nr += store_filter_lacks(f, &d);
    }
    return nr;
}

static void make(struct store_backend *be, uint64_t nr)
{
    struct store_filter_maker *m;

    assert_int_equal(store_filter_make(be, uuid, nr, &m), 0);
    put_range(m, 0, nr);
    assert_int_equal(store_filter_end(m, (int64_t)nr), 0);
}

static void test_what_is_there_is_never_lacked(void **state)
{
    struct fixture fx;
    struct store_backend *be = backend_make(&fx);

    (void)state;
    for (uint64_t nr = 1; nr <= MANY; nr *= 200) {
        struct store_filter *f;

        make(be, nr);
        f = store_filter_open(be, uuid, nr);
        assert_non_null(f);
        assert_int_equal(nr_lacked(f, 0, nr), 0);
        assert_true(nr_lacked(f, MANY, MANY + 10000) > 9500);
        store_filter_close(f);
    }
    be->ops->free(be);
    fixture_remove(&fx);
}

static void test_it_grows_with_its_tree_until_it_is_full(void **state)
{
    struct fixture fx;
    struct store_backend *be = backend_make(&fx);
    struct store_filter_maker *m;
    struct store_filter *f;
    uint64_t nr = MANY / 8, more = MANY / 4;

    (void)state;
    make(be, nr);
    assert_int_equal(store_filter_extend(be, uuid, nr + 1, 1, &m), -ENOENT);
    assert_int_equal(store_filter_extend(be, uuid, nr, (uint64_t)1 << 20, &m), -ENOENT);
    assert_int_equal(store_filter_extend(be, uuid, nr, more - nr, &m), 0);
    /* While it changes it is nobody's. */
    assert_null(store_filter_open(be, uuid, nr));
    put_range(m, nr, more);
    assert_int_equal(store_filter_end(m, (int64_t)more), 0);
    assert_null(store_filter_open(be, uuid, nr));
    f = store_filter_open(be, uuid, more);
    assert_non_null(f);
    assert_int_equal(nr_lacked(f, 0, more), 0);
    assert_true(nr_lacked(f, MANY, MANY + 10000) > 9000);
    store_filter_close(f);
    be->ops->free(be);
    fixture_remove(&fx);
}

static void test_what_was_in_vain_leaves_none(void **state)
{
    struct fixture fx;
    struct store_backend *be = backend_make(&fx);
    struct store_filter_maker *m;

    (void)state;
    assert_int_equal(store_filter_make(be, uuid, 100, &m), 0);
    assert_int_equal(store_filter_end(m, -1), -ECANCELED);
    assert_null(store_filter_open(be, uuid, 100));
    assert_int_equal(be->ops->cache_open(be, "filter.new", O_RDONLY), -ENOENT);
    make(be, 100);
    assert_int_equal(store_filter_extend(be, uuid, 100, 10, &m), 0);
    assert_int_equal(store_filter_end(m, -1), -ECANCELED);
    assert_null(store_filter_open(be, uuid, 100));
    make(be, 100);
    assert_int_equal(store_filter_forget(be, NULL), 0);
    assert_int_equal(store_filter_forget(be, NULL), 0);
    assert_null(store_filter_open(be, uuid, 100));
    be->ops->free(be);
    fixture_remove(&fx);
}

static int open_file(const struct fixture *fx)
{
    char path[2 * FIXTURE_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/cache/filter", fx->path);
    return open(path, O_RDWR);
}

static void test_another_file_is_no_filter(void **state)
{
    struct fixture fx;
    struct store_backend *be = backend_make(&fx);
    uint8_t other[16] = {1};
    struct store_filter *f;
    int fd;

    (void)state;
    make(be, 1000);
    assert_null(store_filter_open(be, other, 1000));
    assert_null(store_filter_open(be, uuid, 1001));
    fd = open_file(&fx);
    /* Every bit of the header but its last, reserved bytes counts. */
    for (off_t at = 0; at < 40; at++) {
        uint8_t was, is;

        assert_int_equal(pread(fd, &was, 1, at), 1);
        is = was ^ 0x40;
        assert_int_equal(pwrite(fd, &is, 1, at), 1);
        assert_null(store_filter_open(be, uuid, 1000));
        assert_int_equal(pwrite(fd, &was, 1, at), 1);
    }
    f = store_filter_open(be, uuid, 1000);
    assert_non_null(f);
    /* Cut off under who reads it: nothing is said to be lacking. */
    assert_int_equal(ftruncate(fd, 64), 0);
    assert_int_equal(nr_lacked(f, 0, 5000), 0);
    store_filter_close(f);
    assert_null(store_filter_open(be, uuid, 1000));
    (void)close(fd);
    be->ops->free(be);
    fixture_remove(&fx);
}

/* Equal bytes are made of equal digests, for ever. */
static void test_the_golden_one_is_made_and_read(void **state)
{
    uint8_t golden[64 * 65], made[sizeof(golden) + 1];
    struct fixture fx;
    struct store_backend *be = backend_make(&fx);
    struct store_filter *f;
    int fd = open(CHRYSALIS_SOURCE_DIR "/tests/golden/store/filter-v1.bin", O_RDONLY);

    (void)state;
    assert_int_equal(read(fd, golden, sizeof(golden)), sizeof(golden));
    (void)close(fd);
    make(be, 100);
    fd = open_file(&fx);
    assert_int_equal(read(fd, made, sizeof(made)), sizeof(golden));
    assert_memory_equal(made, golden, sizeof(golden));
    memset(made, 0, sizeof(golden));
    assert_int_equal(pwrite(fd, made, sizeof(golden), 0), sizeof(golden));
    assert_null(store_filter_open(be, uuid, 100));
    assert_int_equal(pwrite(fd, golden, sizeof(golden), 0), sizeof(golden));
    (void)close(fd);
    f = store_filter_open(be, uuid, 100);
    assert_non_null(f);
    assert_int_equal(nr_lacked(f, 0, 100), 0);
    assert_true(nr_lacked(f, 1000, 2000) > 950);
    store_filter_close(f);
    be->ops->free(be);
    fixture_remove(&fx);
}

/* ---- with a store ---- */

static uint64_t stored_pages(struct store *st)
{
    struct store_stats stats;
    struct err err = {0};

    assert_ok(store_stats(st, &stats, &err), &err);
    return stats.pages;
}

static void put(const struct fixture *fx, const struct image *img, const char *name)
{
    struct store *st = fixture_open(fx);
    char id[STORE_DIGEST_HEX + 1];
    struct err err = {0};

    assert_ok(image_put(st, img, NULL, name, id, &err), &err);
    assert_int_equal(image_compare(st, name, img, &err), 0);
    store_close(st);
}

static bool has_filter(const struct fixture *fx)
{
    int fd = open_file(fx);

    if (fd >= 0)
        (void)close(fd);
    return fd >= 0;
}

static void test_a_store_has_one_from_its_first_publication_on(void **state)
{
    struct image a = image_numbered(PAGES, 0), b = image_numbered(PAGES, PAGES / 2);
    struct fixture fx;
    struct store *st;

    (void)state;
    fixture_make(&fx);
    put(&fx, &a, "a");
    assert_true(has_filter(&fx));
    put(&fx, &b, "b"); /* half of it is known */
    st = fixture_open(&fx);
    assert_int_equal(stored_pages(st), PAGES + PAGES / 2);
    assert_int_equal(store_problems(st, true), 0);
    store_close(st);
    image_free(&a);
    image_free(&b);
    fixture_remove(&fx);
}

/* Four times as many as are sorted in behind an answer: they are in the tree then, and in the filter. */
static void test_it_follows_what_is_sorted_in(void **state)
{
    struct fixture fx;
    struct store *st;

    (void)state;
    fixture_make(&fx);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < 6; i++) {
            struct image img = image_numbered(PAGES, i * PAGES);
            char name[16];

            (void)snprintf(name, sizeof(name), "%u.%llu", round, (unsigned long long)i);
            put(&fx, &img, name);
            image_free(&img);
        }
    }
    assert_true(index_change(fx.path, "UPDATE fresh SET segment = segment") < 32768 / 16);
    st = fixture_open(&fx);
    assert_int_equal(stored_pages(st), 6 * PAGES);
    store_close(st);
    fixture_remove(&fx);
}

/* A page that is there is never said to be lacking, whatever byte of the file has changed. */
static void test_a_block_that_is_not_whole_lacks_nothing(void **state)
{
    struct fixture fx;
    struct store_backend *be = backend_make(&fx);
    struct store_filter_maker *m;
    struct store_filter *f;
    struct stat file;
    int fd;

    (void)state;
    make(be, 500);
    fd = open_file(&fx);
    assert_int_equal(fstat(fd, &file), 0);
    f = store_filter_open(be, uuid, 500);
    assert_non_null(f);
    for (off_t at = 64; at < file.st_size; at++) {
        uint8_t was, is;

        assert_int_equal(pread(fd, &was, 1, at), 1);
        is = was & (uint8_t)(was - 1); /* without its lowest bit */
        is = is == was ? 0xff : is;
        assert_int_equal(pwrite(fd, &is, 1, at), 1);
        assert_int_equal(nr_lacked(f, 0, 500), 0);
        assert_int_equal(pwrite(fd, &was, 1, at), 1);
    }
    store_filter_close(f);
    /* Nor is it made whole by who adds to it. */
    assert_int_equal(pwrite(fd, "broken", 6, 64 + 8), 6);
    assert_int_equal(store_filter_extend(be, uuid, 500, 10, &m), 0);
    put_range(m, 500, 510);
    assert_int_equal(store_filter_end(m, 510), -EIO);
    assert_null(store_filter_open(be, uuid, 510));
    (void)close(fd);
    be->ops->free(be);
    fixture_remove(&fx);
}

static void test_a_collection_forgets_it(void **state)
{
    struct image a = image_numbered(PAGES, 0), b = image_numbered(PAGES, PAGES);
    struct store_gc_result res;
    struct err err = {0};
    struct fixture fx;
    struct store *st;

    (void)state;
    fixture_make(&fx);
    put(&fx, &a, "a");
    put(&fx, &b, "b");
    assert_true(has_filter(&fx));
    st = fixture_open(&fx);
    assert_ok(store_remove(st, "a", &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &res, &err), &err);
    assert_false(has_filter(&fx));
    store_close(st);
    put(&fx, &a, "a");
    assert_true(has_filter(&fx));
    st = fixture_open(&fx);
    assert_int_equal(stored_pages(st), 2 * PAGES);
    store_close(st);
    image_free(&a);
    image_free(&b);
    fixture_remove(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_there_is_never_lacked),
        cmocka_unit_test(test_it_grows_with_its_tree_until_it_is_full),
        cmocka_unit_test(test_what_was_in_vain_leaves_none),
        cmocka_unit_test(test_another_file_is_no_filter),
        cmocka_unit_test(test_the_golden_one_is_made_and_read),
        cmocka_unit_test(test_a_store_has_one_from_its_first_publication_on),
        cmocka_unit_test(test_it_follows_what_is_sorted_in),
        cmocka_unit_test(test_a_block_that_is_not_whole_lacks_nothing),
        cmocka_unit_test(test_a_collection_forgets_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
