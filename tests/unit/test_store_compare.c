/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "store/store_census.h"
#include "store/store_compare.h"
#include "tests/unit/store_fixture.h"

enum {
    PAGES = 300000, /* three levels */
    RUNS_MAX = 16,
};

struct runs {
    unsigned nr;
    struct store_difference at[RUNS_MAX];
};

static int take(void *arg, const struct store_difference *d)
{
    struct runs *r = arg;

    assert_true(r->nr < RUNS_MAX);
    r->at[r->nr++] = *d;
    return 0;
}

static struct store_compare_result compare(struct store *st, const char *a, const char *b,
                                           struct runs *runs)
{
    struct store_compare_result res;
    struct store_snapshot *x, *y;
    struct err err = {0};

    assert_ok(store_snapshot_open(st, a, &x, &err), &err);
    assert_ok(store_snapshot_open(st, b, &y, &err), &err);
    runs->nr = 0;
    assert_ok(store_compare(x, y, take, runs, &res, &err), &err);
    store_snapshot_close(x);
    store_snapshot_close(y);
    return res;
}

/* A snapshot of @parent with a page of @value at each of some places; 0 is a page of zeroes. */
static void put(struct store *st, const char *parent, const char *name, const uint64_t *at,
                const int *value, unsigned nr)
{
    const struct store_writer_region region = {.gpa = FIXTURE_GPA, .pages = PAGES};
    const struct store_writer_cfg cfg = {
        .parent = parent, .name = name, .nr_regions = 1, .regions = &region};
    const struct store_publish what = {.config = "{}"};
    char id[STORE_DIGEST_HEX + 1];
    uint8_t page[PAGE_SIZE_4K];
    struct store_writer *w;
    struct err err = {0};

    assert_ok(store_writer_begin(st, &cfg, &w, &err), &err);
    assert_ok(parent ? store_writer_keep(w, 0, 0, PAGES, &err)
                     : store_writer_zero(w, 0, 0, PAGES, &err),
              &err);
    for (unsigned i = 0; i < nr; i++) {
        memset(page, value[i], sizeof(page));
        assert_ok(store_writer_pages(w, 0, at[i], 1, page, &err), &err);
    }
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
}

static void test_differences_are_found_and_cost_what_they_are(void **state)
{
    static const uint64_t first[] = {0, 5, 100000, 299999}, second[] = {5, 6, 7, 100000, 250000};
    static const int values[] = {1, 2, 3, 4}, changes[] = {9, 9, 9, 0, 7};
    struct store_compare_result res;
    struct runs runs;
    struct fixture fx;
    struct err err = {0};
    struct store *st;

    (void)state;
    fixture_make(&fx);
    assert_ok(store_open(fx.path, STORE_CREATE, &st, &err), &err);
    put(st, NULL, "a", first, values, 4);
    put(st, "a", "b", second, changes, 5);
    put(st, "a", "same", NULL, NULL, 0);

    res = compare(st, "a", "same", &runs);
    assert_int_equal(runs.nr, 0);
    assert_int_equal(res.nodes, 0); /* equal roots: nothing is read */

    res = compare(st, "a", "b", &runs);
    assert_int_equal(runs.nr, 4);
    assert_int_equal(runs.at[0].change, STORE_CHANGE_CONTENT);
    assert_int_equal(runs.at[0].first, 5);
    assert_int_equal(runs.at[0].nr, 1);
    assert_int_equal(runs.at[0].gpa, FIXTURE_GPA + 5 * PAGE_SIZE_4K);
    assert_int_equal(runs.at[1].change, STORE_CHANGE_FILLED);
    assert_int_equal(runs.at[1].first, 6);
    assert_int_equal(runs.at[1].nr, 2);
    assert_int_equal(runs.at[2].change, STORE_CHANGE_CLEARED);
    assert_int_equal(runs.at[2].first, 100000);
    assert_int_equal(runs.at[3].change, STORE_CHANGE_FILLED);
    assert_int_equal(runs.at[3].first, 250000);
    assert_int_equal(res.pages[STORE_CHANGE_FILLED], 3);
    /* Two roots, a node above the changed leaf of each third, the leaves: of 588 leaves, 3. */
    assert_in_range(res.nodes, 6, 12);

    res = compare(st, "b", "a", &runs);
    assert_int_equal(res.pages[STORE_CHANGE_CLEARED], 3);
    assert_int_equal(res.pages[STORE_CHANGE_FILLED], 1);
    store_close(st);
    fixture_remove(&fx);
}

static void test_regions_of_another_size_are_compared_as_far_as_both_go(void **state)
{
    struct image small = image_make(700, 1), large = image_make(1500, 1);
    struct store_compare_result res;
    struct runs runs;
    struct fixture fx;
    struct err err = {0};
    struct store *st;

    (void)state;
    memcpy(large.p, small.p, 700 * PAGE_SIZE_4K);
    image_touch(&large, 650, 3);
    fixture_make(&fx);
    assert_ok(store_open(fx.path, STORE_CREATE, &st, &err), &err);
    assert_ok(image_put(st, &small, NULL, "small", NULL, &err), &err);
    assert_ok(image_put(st, &large, NULL, "large", NULL, &err), &err);
    res = compare(st, "small", "large", &runs);
    assert_int_equal(runs.nr, 2);
    assert_int_equal(runs.at[0].first, 650);
    assert_int_equal(runs.at[1].change, STORE_CHANGE_ADDED);
    assert_int_equal(runs.at[1].first, 700);
    assert_int_equal(runs.at[1].nr, 800);
    res = compare(st, "large", "small", &runs);
    assert_int_equal(res.pages[STORE_CHANGE_REMOVED], 800);
    store_close(st);
    image_free(&small);
    image_free(&large);
    fixture_remove(&fx);
}

struct flags {
    uint8_t at[1000];
};

static int take_flags(void *arg, unsigned region, uint64_t first, const uint8_t *flags, unsigned nr)
{
    struct flags *f = arg;

    assert_int_equal(region, 0);
    memcpy(f->at + first, flags, nr);
    return 0;
}

static void test_a_census_tells_what_every_page_is(void **state)
{
    struct image a = {.p = calloc(1000, PAGE_SIZE_4K), .pages = 1000}, b;
    struct store_census_result res;
    struct store_snapshot *snap;
    struct flags f;
    struct fixture fx;
    struct err err = {0};
    struct store *st;

    (void)state;
    assert_non_null(a.p);
    for (uint64_t i = 10; i < 20; i++)
        image_touch(&a, i, 1);
    b = image_copy(&a);
    image_touch(&b, 12, 2);                                                  /* changed */
    memset(b.p + 15 * PAGE_SIZE_4K, 0, PAGE_SIZE_4K);                        /* cleared */
    memcpy(b.p + 900 * PAGE_SIZE_4K, a.p + 10 * PAGE_SIZE_4K, PAGE_SIZE_4K); /* a copy */
    fixture_make(&fx);
    assert_ok(store_open(fx.path, STORE_CREATE, &st, &err), &err);
    assert_ok(image_put(st, &a, NULL, "a", NULL, &err), &err);
    assert_ok(image_put(st, &b, "a", "b", NULL, &err), &err);
    assert_ok(store_snapshot_open(st, "b", &snap, &err), &err);
    assert_ok(store_census(snap, take_flags, &f, &res, &err), &err);
    assert_true(res.has_parent);
    assert_int_equal(res.pages, 1000);
    assert_int_equal(res.zero, 990);
    assert_int_equal(res.unique, 1);
    assert_int_equal(res.shared, 9);
    assert_int_equal(res.changed, 3);
    assert_int_equal(f.at[9], 0);
    assert_int_equal(f.at[10], STORE_PAGE_PRESENT | STORE_PAGE_SHARED);
    assert_int_equal(f.at[12], STORE_PAGE_PRESENT | STORE_PAGE_CHANGED);
    assert_int_equal(f.at[15], STORE_PAGE_CHANGED);
    assert_int_equal(f.at[900], STORE_PAGE_PRESENT | STORE_PAGE_SHARED | STORE_PAGE_CHANGED);
    store_snapshot_close(snap);
    /* Without its parent. */
    assert_ok(store_remove(st, "a", &err), &err);
    assert_ok(store_snapshot_open(st, "b", &snap, &err), &err);
    assert_ok(store_census(snap, NULL, NULL, &res, &err), &err);
    assert_false(res.has_parent);
    assert_int_equal(res.unique, 10);
    store_snapshot_close(snap);
    store_close(st);
    image_free(&a);
    image_free(&b);
    fixture_remove(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_differences_are_found_and_cost_what_they_are),
        cmocka_unit_test(test_regions_of_another_size_are_compared_as_far_as_both_go),
        cmocka_unit_test(test_a_census_tells_what_every_page_is),
    };

    return cmocka_run_group_tests_name("store_compare", tests, NULL, NULL);
}
