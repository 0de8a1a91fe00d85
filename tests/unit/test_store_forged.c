/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests that no writer makes: nodes that lead to their own level, upwards, or to a tree of another
 * shape, each under its true digest.  Whoever walks them comes to an end and refuses them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "store/store_compare.h"
#include "store/store_internal.h"
#include "store/store_pack.h"
#include "store/store_reader_internal.h"
#include "store/store_record.h"
#include "tests/unit/store_fixture.h"

enum {
    LEAF = STORE_NODE_ENTRIES,
    PAGES = 2 * LEAF, /* two leaves and a root */
};

static struct fixture fx;
static struct store *st;
static struct image img;
static struct store_digest root, leaf; /* of the sound snapshot "good" */

/* ---- forging ---- */

/* Into a pack of its own, as a writer does. */
static void forge_segment(const struct store_digest *d, const uint8_t *raw, size_t len)
{
    struct store_segment seg = {.kind = STORE_KIND_NODE, .raw_len = (uint32_t)len, .nr_items = 1};
    auto_free uint8_t *out = malloc(STORE_SEGMENT_LEN_MAX);
    struct store_codec_ctx *codec = NULL;
    struct store_file *file = NULL;
    uint8_t uuid[STORE_UUID_LEN];
    struct err err = {0};
    uint64_t last;
    uint32_t n;

    assert_non_null(out);
    assert_ok(store_codec_new(&codec, &err), &err);
    assert_ok(store_index_identity(st->ix, uuid, &last, &err), &err);
    assert_ok(store_pack_create(st->be, last + 1, uuid, &file, &err), &err);
    seg.id = store_segment_id_make(file->id, 0);
    n = store_segment_pack(codec, &seg, raw, d, out);
    assert_ok(st->be->ops->write(file, out, n, STORE_PACK_HDR_LEN, &err), &err);
    assert_ok(store_index_add_pack(st->ix, file->id, STORE_PACK_HDR_LEN + n, &err), &err);
    assert_ok(store_index_put_extent(
                  st->ix, &(struct store_extent){seg.id, file->id, STORE_PACK_HDR_LEN, n}, &err),
              &err);
    assert_ok(store_index_add_object(st->ix, d, seg.id, NULL, 0, &err), &err);
    st->be->ops->close(file);
    store_codec_free(codec);
}

/* A node of two entries. */
static struct store_digest forge_node(unsigned level, const struct store_digest *first,
                                      const struct store_digest *second)
{
    auto_free struct store_node *n = calloc(1, sizeof(*n));
    auto_free uint8_t *raw = malloc(STORE_NODE_LEN_MAX);
    struct store_digest d;
    size_t len;

    assert_true(n && raw);
    n->level = level;
    n->nr = 2;
    n->digest[0] = *first;
    n->digest[1] = *second;
    len = store_node_encode(n, raw);
    store_hash(raw, len, &d);
    forge_segment(&d, raw, len);
    return d;
}

/* Publishes "forged"; a second region is one that has pages. */
static void forge_snapshot(const struct store_region *a, const struct store_region *b)
{
    auto_free struct store_record *rec = calloc(1, sizeof(*rec));
    auto_free uint8_t *bytes = NULL;
    struct store_snap_row row = {.name = "forged", .tags = ""};
    struct err err = {0};
    char none[] = "";

    assert_non_null(rec);
    rec->config = rec->disks = none;
    rec->nr_regions = b->pages ? 2 : 1;
    rec->regions[0] = *a;
    rec->regions[1] = *b;
    store_hash("", 0, &rec->state);
    assert_ok(store_record_encode(rec, &bytes, &row.record_len, &err), &err);
    row.record = bytes;
    store_hash(bytes, row.record_len, &row.id);
    assert_ok(store_index_add_snapshot(st->ix, &row, &err), &err);
}

static void read_node(unsigned level, struct store_digest *ret_first)
{
    auto_free struct store_node *n = calloc(1, sizeof(*n));
    struct store_snapshot *snap;
    struct err err = {0};

    assert_non_null(n);
    assert_ok(store_snapshot_open(st, "good", &snap, &err), &err);
    assert_ok(store_snapshot_node(snap, 0, level, 0, n, &err), &err);
    *ret_first = n->digest[0];
    root = store_snapshot_info(snap)->rec->regions[0].root;
    store_snapshot_close(snap);
}

static int setup(void **state)
{
    struct err err = {0};

    (void)state;
    fixture_make(&fx);
    st = fixture_open(&fx);
    img = image_make(PAGES, 1);
    assert_ok(image_put(st, &img, NULL, "good", NULL, &err), &err);
    read_node(1, &leaf);
    assert_ok(store_index_begin(st->ix, &err), &err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(st);
    image_free(&img);
    fixture_remove(&fx);
    return 0;
}

/* ---- what must hold ---- */

static int read_all(struct store_snapshot *snap, struct err *err)
{
    const struct store_record *rec = store_snapshot_info(snap)->rec;
    int rc = 0;

    for (unsigned r = 0; r < rec->nr_regions && rc == 0; r++) {
        auto_free uint8_t *got = malloc(rec->regions[r].pages * PAGE_SIZE_4K);

        assert_non_null(got);
        rc = store_snapshot_read(snap, r, 0, rec->regions[r].pages, got, err);
    }
    return rc;
}

static int take_difference(void *arg, const struct store_difference *d)
{
    (void)arg;
    (void)d;
    return 0;
}

/* "forged" is refused as @why by whoever reads it, and is gone without a trace once it is removed. */
static void check_refused(const char *why)
{
    struct store_snapshot *snap, *good;
    struct store_compare_result diff;
    struct store_gc_result gc;
    struct err err = {0}, ignored = {0};

    assert_ok(store_index_commit(st->ix, &err), &err);
    assert_ok(store_snapshot_open(st, "forged", &snap, &err), &err);
    assert_int_equal(read_all(snap, &err), -EBADMSG);
    if (!strstr(err.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, why);
    assert_ok(store_snapshot_open(st, "good", &good, &ignored), &ignored);
    (void)!store_compare(good, snap, take_difference, NULL, &diff, &ignored);
    store_snapshot_close(good);
    store_snapshot_close(snap);
    assert_true(store_problems(st, false) > 0);
    assert_true(store_problems(st, true) > 0);
    (void)!store_gc(st, 0, NULL, NULL, &gc, &ignored);
    assert_int_equal(image_compare(st, "good", &img, &ignored), 0);
    err = (struct err){0};
    assert_ok(store_remove(st, "forged", &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_int_equal(store_problems(st, true), 0);
    assert_int_equal(image_compare(st, "good", &img, &err), 0);
}

static void check_one_region(uint64_t pages, const struct store_digest *of, const char *why)
{
    forge_snapshot(&(struct store_region){.gpa = FIXTURE_GPA, .pages = pages, .root = *of},
                   &(struct store_region){0});
    check_refused(why);
}

/* ---- tests ---- */

static void test_a_node_that_leads_to_its_own_level_is_refused(void **state)
{
    struct store_digest d = forge_node(1, &root, &leaf);

    (void)state;
    check_one_region(PAGES, &d, "node.level: 1 instead of 0");
}

static void test_a_node_that_leads_upwards_is_refused(void **state)
{
    struct store_digest up = forge_node(2, &root, &root);
    struct store_digest d = forge_node(1, &leaf, &up);

    (void)state;
    check_one_region(PAGES, &d, "node.level: 2 instead of 0");
}

static void test_a_leaf_in_the_place_of_a_root_is_refused(void **state)
{
    (void)state;
    check_one_region(PAGES, &leaf, "node.level: 0 instead of 1");
}

static void test_a_root_of_a_smaller_region_is_refused(void **state)
{
    (void)state;
    check_one_region(PAGES + LEAF, &root, "node.nr: 2 instead of 3");
}

/* Whoever remembers a tree as sound remembers where it was. */
static void test_a_tree_that_is_sound_elsewhere_is_refused(void **state)
{
    const uint64_t behind = FIXTURE_GPA + (uint64_t)PAGES * PAGE_SIZE_4K;

    (void)state;
    forge_snapshot(&(struct store_region){.gpa = FIXTURE_GPA, .pages = PAGES, .root = root},
                   &(struct store_region){.gpa = behind, .pages = LEAF, .root = root});
    check_refused("node.level: 1 instead of 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_node_that_leads_to_its_own_level_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_node_that_leads_upwards_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_leaf_in_the_place_of_a_root_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_root_of_a_smaller_region_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_tree_that_is_sound_elsewhere_is_refused, setup,
                                        teardown),
    };

    return cmocka_run_group_tests_name("store_forged", tests, NULL, NULL);
}
