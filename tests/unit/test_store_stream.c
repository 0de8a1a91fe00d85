/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/store_stream.h"
#include "tests/unit/store_fixture.h"

enum {
    PAGES = 1300,
};

static const struct store_stream_cfg plain;

static struct store_stream_result export(struct store *st, const char *ref, struct bytes *b)
{
    struct store_stream_result res;
    struct store_snapshot *snap;
    struct err err = {0};

    assert_ok(store_snapshot_open(st, ref, &snap, &err), &err);
    assert_ok(store_export(snap, bytes_sink, b, &plain, &res, &err), &err);
    store_snapshot_close(snap);
    return res;
}

static uint64_t snapshots_of(struct store *st)
{
    struct store_stats s;
    struct err err = {0};

    assert_ok(store_stats(st, &s, &err), &err);
    return s.snapshots;
}

/* ---- a store to begin with ---- */

static struct fixture fx;
static struct store *st;
static struct image img_a, img_b;
static char id_a[STORE_DIGEST_HEX + 1], id_b[STORE_DIGEST_HEX + 1];

static int setup(void **state)
{
    const struct store_relabel tag = {.add = "green"};
    struct err err = {0};
    int rc;

    (void)state;
    fixture_make(&fx);
    img_a = image_make(PAGES, 1);
    img_b = image_copy(&img_a);
    for (uint64_t i = 0; i < 12; i++)
        image_touch(&img_b, 700 + i, 1);
    memset(img_b.p + 3 * PAGE_SIZE_4K, 0, PAGE_SIZE_4K);
    rc = store_open(fx.path, STORE_CREATE, &st, &err);
    if (rc == 0)
        rc = image_put(st, &img_a, NULL, "a", id_a, &err);
    if (rc == 0)
        rc = image_put(st, &img_b, "a", "b", id_b, &err);
    return rc < 0 ? rc : store_relabel(st, "b", &tag, 1, &err);
}

static int teardown(void **state)
{
    (void)state;
    store_close(st);
    fixture_remove(&fx);
    image_free(&img_a);
    image_free(&img_b);
    return 0;
}

/* ---- streams ---- */

static void test_a_stream_carries_a_snapshot_whole(void **state)
{
    struct store_stream_result sent, got;
    struct bytes b = {0};
    struct fixture other;
    struct store *to;
    struct err err = {0};
    char id[STORE_DIGEST_HEX + 1];

    (void)state;
    sent = export(st, "b", &b);
    assert_int_equal(sent.bytes, b.len);
    assert_int_equal(sent.pages_sent, image_unique(&img_b));
    assert_int_equal(sent.pages_sent + sent.pages_known, image_nonzero(&img_b));
    fixture_make(&other);
    to = fixture_open(&other);
    assert_int_equal(store_import(to, bytes_source, &b, &plain, &got, &err), 1);
    assert_string_equal(got.id, id_b);
    assert_int_equal(got.pages_sent, sent.pages_sent);
    assert_int_equal(image_compare(to, "b", &img_b, &err), 0);
    assert_ok(store_resolve(to, "green", id, &err), &err);
    assert_string_equal(id, id_b);
    assert_int_equal(store_problems(to, true), 0);
    /* The end of the source is no stream and no failure. */
    assert_int_equal(store_import(to, bytes_source, &b, &plain, &got, &err), 0);
    store_close(to);
    fixture_remove(&other);
    free(b.p);
}

static void test_streams_follow_each_other_and_known_ones_are_stepped_over(void **state)
{
    const struct store_stream_cfg renamed = {.name = "c"}, nameless = {.name = ""};
    struct store_stream_result res;
    struct bytes b = {0};
    struct fixture other;
    struct store *to;
    struct err err = {0}, why = {0}, taken = {0};
    char id[STORE_DIGEST_HEX + 1];

    (void)state;
    (void)export(st, "a", &b);
    (void)export(st, "a", &b);
    (void)export(st, "b", &b);
    fixture_make(&other);
    to = fixture_open(&other);
    assert_int_equal(store_import(to, bytes_source, &b, &renamed, &res, &err), 1);
    assert_int_equal(store_import(to, bytes_source, &b, &plain, &res, &why), -EEXIST);
    assert_string_equal(res.id, id_a);
    assert_non_null(strstr(why.msg, "is there already"));
    assert_int_equal(store_import(to, bytes_source, &b, &renamed, &res, &taken), -EEXIST);
    assert_string_equal(res.id, id_b);
    assert_non_null(strstr(taken.msg, "\"c\""));
    assert_int_equal(snapshots_of(to), 1);
    assert_int_equal(image_compare(to, "c", &img_a, &err), 0);
    b.at = 0;
    b.len = 0;
    (void)export(st, "b", &b);
    assert_int_equal(store_import(to, bytes_source, &b, &nameless, &res, &err), 1);
    assert_int_equal(store_resolve(to, "b", id, NULL), -ENOENT);
    assert_int_equal(image_compare(to, id_b, &img_b, &err), 0);
    /* What both have in common is there once. */
    assert_int_equal(store_problems(to, true), 0);
    store_close(to);
    fixture_remove(&other);
    free(b.p);
}

/* Import what is in @b into @to; it must be refused, explained, and without effect. */
static void assert_refused(struct store *to, struct bytes *b, const char *what, size_t at)
{
    struct store_stream_result res;
    struct store_stats before, after;
    struct err err = {0};
    int rc;

    assert_ok(store_stats(to, &before, &err), &err);
    b->at = 0;
    rc = store_import(to, bytes_source, b, &plain, &res, &err);
    if (rc >= 0)
        print_error("%s at %zu: %d\n", what, at, rc);
    assert_true(rc < 0);
    assert_true(err.msg[0]);
    err = (struct err){0};
    assert_ok(store_stats(to, &after, &err), &err);
    assert_int_equal(after.snapshots, before.snapshots);
    assert_int_equal(after.pages, before.pages);
    assert_int_equal(after.bytes_others, 0);
}

static void test_a_stream_cut_anywhere_or_with_a_changed_byte_is_refused(void **state)
{
    struct bytes b = {0}, cut;
    struct fixture other;
    struct store *to;

    (void)state;
    (void)export(st, "a", &b);
    fixture_make(&other);
    to = fixture_open(&other);
    for (size_t len = 1; len < b.len; len += len < 700 ? 7 : b.len / 40) {
        cut = (struct bytes){.p = b.p, .len = len};
        assert_refused(to, &cut, "cut", len);
    }
    for (size_t at = 0; at < b.len; at += at < 700 ? 3 : b.len / 60) {
        b.p[at] ^= 0x40;
        assert_refused(to, &b, "changed", at);
        b.p[at] ^= 0x40;
    }
    store_close(to);
    fixture_remove(&other);
    free(b.p);
}

/* ---- copies ---- */

static struct store_stream_result copy(struct store *to, const char *ref, int want)
{
    struct store_stream_result res;
    struct store_snapshot *snap;
    struct err err = {0};
    int rc;

    assert_ok(store_snapshot_open(st, ref, &snap, &err), &err);
    rc = store_copy(snap, to, &plain, &res, &err);
    if (rc != want)
        print_error("%s\n", err.msg);
    assert_int_equal(rc, want);
    store_snapshot_close(snap);
    return res;
}

static void test_a_copy_sends_what_the_other_lacks(void **state)
{
    struct store_stream_result res;
    struct fixture other;
    struct store *to;
    struct err err = {0};

    (void)state;
    fixture_make(&other);
    to = fixture_open(&other);
    res = copy(to, "a", 0);
    assert_string_equal(res.id, id_a);
    /* A page that is met twice at once may go twice. */
    assert_in_range(res.pages_sent, image_unique(&img_a), image_nonzero(&img_a));
    res = copy(to, "b", 0);
    assert_string_equal(res.id, id_b);
    assert_int_equal(res.pages_sent, 12);
    assert_int_equal(res.pages_known, 0); /* only what differs was looked at */
    (void)copy(to, "b", -EEXIST);
    assert_int_equal(image_compare(to, "a", &img_a, &err), 0);
    assert_int_equal(image_compare(to, "b", &img_b, &err), 0);
    assert_int_equal(store_problems(to, true), 0);
    store_close(to);
    fixture_remove(&other);
}

static void test_a_copy_finds_contents_wherever_they_are(void **state)
{
    struct store_stream_result res;
    struct image shifted = image_make(PAGES + 512, 9);
    struct fixture other;
    struct store *to;
    struct err err = {0};

    (void)state;
    /* Another machine whose memory holds all the same pages elsewhere. */
    memcpy(shifted.p + 512 * PAGE_SIZE_4K, img_a.p, PAGES * PAGE_SIZE_4K);
    fixture_make(&other);
    to = fixture_open(&other);
    assert_ok(image_put(to, &shifted, NULL, "shifted", NULL, &err), &err);
    res = copy(to, "a", 0);
    assert_int_equal(res.pages_sent, 0);
    assert_true(res.pages_known >= image_nonzero(&img_a));
    assert_int_equal(image_compare(to, "a", &img_a, &err), 0);
    assert_int_equal(store_problems(to, true), 0);
    store_close(to);
    image_free(&shifted);
    fixture_remove(&other);
}

/* ---- golden ---- */

static void test_a_stream_of_version_1_imports(void **state)
{
    struct store_stream_result res;
    struct bytes b = {.p = malloc(1 << 20)};
    struct store_snapshot *snap;
    struct fixture other;
    struct store *to;
    uint8_t page[PAGE_SIZE_4K], want[PAGE_SIZE_4K];
    struct err err = {0};
    FILE *f = fopen(CHRYSALIS_SOURCE_DIR "/tests/golden/store/stream-v1.bin", "rb");

    (void)state;
    assert_non_null(f);
    assert_non_null(b.p);
    b.len = fread(b.p, 1, 1 << 20, f);
    (void)fclose(f);
    fixture_make(&other);
    to = fixture_open(&other);
    assert_int_equal(store_import(to, bytes_source, &b, &plain, &res, &err), 1);
    assert_int_equal(b.at, b.len);
    /* The second snapshot of tests/golden/store/v1. */
    assert_memory_equal(res.id, "2c531db7", 8);
    assert_ok(store_snapshot_open(to, "second", &snap, &err), &err);
    assert_ok(store_snapshot_read(snap, 1, 5, 1, page, &err), &err);
    memset(want, 0x55, sizeof(want));
    assert_memory_equal(page, want, sizeof(page));
    store_snapshot_close(snap);
    assert_int_equal(store_problems(to, true), 0);
    store_close(to);
    fixture_remove(&other);
    free(b.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_carries_a_snapshot_whole),
        cmocka_unit_test(test_streams_follow_each_other_and_known_ones_are_stepped_over),
        cmocka_unit_test(test_a_stream_cut_anywhere_or_with_a_changed_byte_is_refused),
        cmocka_unit_test(test_a_copy_sends_what_the_other_lacks),
        cmocka_unit_test(test_a_copy_finds_contents_wherever_they_are),
        cmocka_unit_test(test_a_stream_of_version_1_imports),
    };

    return cmocka_run_group_tests_name("store_stream", tests, setup, teardown);
}
