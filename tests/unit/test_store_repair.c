/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repair: what can be read stays, what cannot is told, and comes back with its contents.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/store_pack.h"
#include "store/store_stream.h"
#include "tests/unit/store_fixture.h"

enum {
    PAGES = 1100,
};

static struct fixture fx;
static struct image img;

static int setup(void **state)
{
    struct err err = {0};
    struct store *st;
    int rc;

    (void)state;
    fixture_make(&fx);
    img = image_make(PAGES, 1);
    rc = store_open(fx.path, STORE_CREATE, &st, &err);
    if (rc == 0)
        rc = image_put_alone(st, &img, NULL, "a", NULL, &err);
    store_close(st);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(&fx);
    image_free(&img);
    return 0;
}

/* ---- damage ---- */

static int pack_fd(void)
{
    char path[2 * FIXTURE_PATH_MAX];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/packs/00000001.pack", fx.path);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    return fd;
}

static void flip(int fd, uint64_t off)
{
    uint8_t b;

    assert_int_equal(pread(fd, &b, 1, (off_t)off), 1);
    b ^= 0x10;
    assert_int_equal(pwrite(fd, &b, 1, (off_t)off), 1);
}

/* Offset of the first segment of a kind, and its header. */
static uint64_t find_segment(int fd, enum store_segment_kind kind, struct store_segment *seg)
{
    uint64_t off = STORE_PACK_HDR_LEN;
    uint8_t hdr[STORE_SEGMENT_HDR_LEN];

    for (;;) {
        assert_int_equal(pread(fd, hdr, sizeof(hdr), (off_t)off), sizeof(hdr));
        assert_int_equal(store_segment_parse(hdr, seg, NULL), 0);
        if (seg->kind == kind)
            return off;
        off += STORE_SEGMENT_HDR_LEN + seg->stored_len;
    }
}

struct findings {
    uint64_t lost; /* pages */
    char snapshot[STORE_DIGEST_HEX + 1];
};

static void take_problem(void *arg, const struct store_problem *p)
{
    struct findings *f = arg;

    if (!p->has_pages)
        return;
    f->lost += p->nr;
    (void)snprintf(f->snapshot, sizeof(f->snapshot), "%s", p->snapshot);
}

static struct store_verify_result verify(struct store *st, bool repair, struct findings *f)
{
    const struct store_verify_cfg cfg = {
        .data = true, .repair = repair, .problem = take_problem, .arg = f};
    struct store_verify_result res;
    struct err err = {0};

    *f = (struct findings){0};
    assert_ok(store_verify(st, &cfg, &res, &err), &err);
    return res;
}

/* ---- what a repair does ---- */

static void test_lost_pages_are_told_and_come_back_with_their_contents(void **state)
{
    struct store_verify_result res;
    struct store_segment seg;
    struct findings f;
    struct err err = {0};
    struct store *st;
    int fd = pack_fd();
    char id[STORE_DIGEST_HEX + 1];

    (void)state;
    flip(fd, find_segment(fd, STORE_KIND_PAGES, &seg) + STORE_SEGMENT_HDR_LEN + 20);
    (void)close(fd);
    st = fixture_open(&fx);
    assert_ok(store_resolve(st, "a", id, &err), &err);
    res = verify(st, true, &f);
    assert_true(res.problems > 0);
    assert_int_equal(res.segments_dropped, 1);
    assert_true(res.pages_dropped > 0);
    assert_int_equal(res.pages_moved + res.pages_dropped, seg.nr_items);
    assert_true(f.lost >= res.pages_dropped); /* a page may be at several places */
    assert_string_equal(f.snapshot, id);
    /* The index is sound now; the snapshot is known to be damaged, and only it. */
    res = verify(st, false, &f);
    assert_true(res.problems > 0);
    assert_int_equal(res.snapshots_bad, 1);
    assert_true(f.lost > 0);
    assert_true(image_compare(st, "a", &img, NULL) < 0);
    /* Any snapshot with the same contents brings them back, to all that lost them. */
    assert_ok(image_put(st, &img, NULL, "b", NULL, &err), &err);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_int_equal(image_compare(st, "b", &img, &err), 0);
    res = verify(st, false, &f);
    assert_int_equal(res.problems, 0);
    store_close(st);
}

/* Flip a byte of pages, of the device state or of a manifest, and repair what can be. */
static struct store *damage_and_repair(enum store_segment_kind kind)
{
    struct store_segment seg;
    struct findings f;
    struct store *st;
    int fd = pack_fd();

    flip(fd, find_segment(fd, kind, &seg) + STORE_SEGMENT_HDR_LEN + 20);
    (void)close(fd);
    st = fixture_open(&fx);
    assert_true(verify(st, true, &f).problems > 0);
    assert_true(verify(st, false, &f).problems > 0);
    assert_true(image_compare(st, "a", &img, NULL) < 0);
    return st;
}

/* What the parent has lost is not taken for known because it has not changed. */
static void test_a_snapshot_on_a_damaged_parent_is_whole_and_heals_it(void **state)
{
    static const enum store_segment_kind kinds[] = {STORE_KIND_PAGES, STORE_KIND_NODE};
    struct err err = {0};

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct store *st = damage_and_repair(kinds[i]);
        struct findings f;

        assert_ok(image_put(st, &img, "a", "b", NULL, &err), &err);
        assert_int_equal(image_compare(st, "b", &img, &err), 0);
        assert_int_equal(image_compare(st, "a", &img, &err), 0);
        assert_int_equal(verify(st, false, &f).problems, 0);
        store_close(st);
        (void)teardown(state);
        assert_int_equal(setup(state), 0);
    }
}

/* Where nothing is given, nothing can be kept of a parent that has lost some. */
static void test_nothing_is_kept_of_a_damaged_parent(void **state)
{
    struct store *st = damage_and_repair(STORE_KIND_PAGES);
    struct store_writer *w;
    struct err err = {0};

    (void)state;
    assert_ok(image_begin(st, &img, "a", "b", true, &w, &err), &err);
    assert_false(store_writer_keeps(w, 0));
    assert_int_equal(store_writer_keep(w, 0, 0, img.pages, NULL), -EINVAL);
    store_writer_abort(w);
    store_close(st);
}

static struct bytes export_a(void)
{
    struct store *st = fixture_open(&fx);
    const struct store_stream_cfg cfg = {0};
    struct store_stream_result res;
    struct store_snapshot *snap;
    struct bytes b = {0};
    struct err err = {0};

    assert_ok(store_snapshot_open(st, "a", &snap, &err), &err);
    assert_ok(store_export(snap, bytes_sink, &b, &cfg, &res, &err), &err);
    store_snapshot_close(snap);
    store_close(st);
    return b;
}

/* A backup of the very snapshot brings back what it lost; while it is whole, nothing happens. */
static void test_an_import_of_the_same_snapshot_heals_it(void **state)
{
    static const enum store_segment_kind kinds[] = {STORE_KIND_PAGES, STORE_KIND_NODE};
    const struct store_stream_cfg cfg = {.name = "other"};
    struct store_stream_result res;
    struct err err = {0};

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct bytes b = export_a();
        struct store *st = damage_and_repair(kinds[i]);
        char id[STORE_DIGEST_HEX + 1];
        struct findings f;

        assert_int_equal(store_import(st, bytes_source, &b, &cfg, &res, &err), 1);
        assert_true(res.healed);
        assert_int_equal(image_compare(st, "a", &img, &err), 0);
        assert_int_equal(store_resolve(st, "other", id, NULL), -ENOENT);
        assert_int_equal(verify(st, false, &f).problems, 0);
        b.at = 0;
        assert_int_equal(store_import(st, bytes_source, &b, &cfg, &res, NULL), -EEXIST);
        assert_false(res.healed);
        store_close(st);
        free(b.p);
        (void)teardown(state);
        assert_int_equal(setup(state), 0);
    }
}

/* The same by a copy; a damaged snapshot that both have is no base for another. */
static void test_a_copy_heals_and_does_not_build_on_what_is_damaged(void **state)
{
    const struct store_stream_cfg cfg = {0};
    struct image changed = image_copy(&img);
    struct store_stream_result res;
    struct store_snapshot *snap;
    struct err err = {0};
    struct fixture good;
    struct store *st, *from;
    struct findings f;

    (void)state;
    fixture_make(&good);
    tree_copy(fx.path, good.path);
    assert_ok(store_open(good.path, 0, &from, &err), &err);
    image_touch(&changed, 3, 7);
    assert_ok(image_put(from, &changed, "a", "c", NULL, &err), &err);
    st = damage_and_repair(STORE_KIND_PAGES);
    assert_ok(store_snapshot_open(from, "c", &snap, &err), &err);
    assert_ok(store_copy(snap, st, &cfg, &res, &err), &err);
    assert_false(res.healed);
    store_snapshot_close(snap);
    assert_int_equal(image_compare(st, "c", &changed, &err), 0);
    store_close(st);
    (void)teardown(state);
    assert_int_equal(setup(state), 0);

    fixture_remove(&good);
    fixture_make(&good);
    tree_copy(fx.path, good.path);
    store_close(from);
    assert_ok(store_open(good.path, 0, &from, &err), &err);
    st = damage_and_repair(STORE_KIND_PAGES);
    assert_ok(store_snapshot_open(from, "a", &snap, &err), &err);
    assert_ok(store_copy(snap, st, &cfg, &res, &err), &err);
    assert_true(res.healed);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_int_equal(verify(st, false, &f).problems, 0);
    assert_int_equal(store_copy(snap, st, &cfg, &res, NULL), -EEXIST);
    store_snapshot_close(snap);
    store_close(st);
    store_close(from);
    fixture_remove(&good);
    image_free(&changed);
}

static void test_without_repair_damage_is_not_healed_by_chance(void **state)
{
    struct store_segment seg;
    struct err err = {0};
    struct store *st;
    int fd = pack_fd();

    (void)state;
    flip(fd, find_segment(fd, STORE_KIND_PAGES, &seg) + STORE_SEGMENT_HDR_LEN + 20);
    (void)close(fd);
    st = fixture_open(&fx);
    /* A writer believes the index: this is why there is a repair. */
    assert_ok(image_put(st, &img, NULL, "b", NULL, &err), &err);
    assert_true(image_compare(st, "b", &img, NULL) < 0);
    store_close(st);
}

static void test_what_can_be_read_is_kept(void **state)
{
    struct store_verify_result res;
    struct store_segment seg;
    struct findings f;
    struct err err = {0};
    struct store *st;
    uint64_t nodes;
    int fd = pack_fd();

    (void)state;
    /* The digest in a header: the segment is broken, each of its pages is not. */
    flip(fd, find_segment(fd, STORE_KIND_PAGES, &seg) + 40);
    nodes = find_segment(fd, STORE_KIND_NODE, &(struct store_segment){0});
    flip(fd, nodes + 40);
    (void)close(fd);
    st = fixture_open(&fx);
    res = verify(st, true, &f);
    assert_int_equal(res.segments_dropped, 2);
    assert_int_equal(res.pages_moved, seg.nr_items);
    assert_int_equal(res.pages_dropped, 0);
    assert_int_equal(res.objects_dropped, 0);
    res = verify(st, false, &f);
    assert_int_equal(res.problems, 0);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    store_close(st);
}

static void test_a_pack_without_a_header_is_emptied(void **state)
{
    struct store_verify_result res;
    struct store_gc_result gc;
    struct findings f;
    struct err err = {0};
    struct store *st;
    int fd = pack_fd();

    (void)state;
    flip(fd, 3);
    (void)close(fd);
    st = fixture_open(&fx);
    res = verify(st, true, &f);
    assert_true(res.problems > 0);
    assert_int_equal(res.pages_moved, image_unique(&img));
    assert_int_equal(res.pages_dropped, 0);
    res = verify(st, false, &f);
    assert_int_equal(res.problems, 0);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_int_equal(gc.packs_removed, 1);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    store_close(st);
}

static void test_a_lost_pack_leaves_a_store_that_goes_on(void **state)
{
    char path[2 * FIXTURE_PATH_MAX];
    struct store_verify_result res;
    struct findings f;
    struct err err = {0};
    struct store *st;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/packs/00000001.pack", fx.path);
    assert_int_equal(unlink(path), 0);
    st = fixture_open(&fx);
    res = verify(st, true, &f);
    assert_int_equal(res.pages_dropped, image_unique(&img));
    assert_int_equal(f.lost, PAGES); /* with its root, all of it */
    assert_ok(image_put(st, &img, NULL, "b", NULL, &err), &err);
    assert_int_equal(image_compare(st, "b", &img, &err), 0);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    res = verify(st, false, &f);
    assert_int_equal(res.problems, 0);
    store_close(st);
}

static void test_a_sound_store_is_left_alone_and_a_busy_one_refused(void **state)
{
    const struct store_verify_cfg cfg = {.repair = true};
    struct store_verify_result res;
    struct store_stats before, after;
    struct store_writer *w;
    struct findings f;
    struct err err = {0}, busy = {0};
    struct store *st = fixture_open(&fx);

    (void)state;
    assert_ok(store_stats(st, &before, &err), &err);
    res = verify(st, true, &f);
    assert_int_equal(res.problems, 0);
    assert_ok(store_stats(st, &after, &err), &err);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_ok(image_begin(st, &img, NULL, NULL, true, &w, &err), &err);
    assert_int_equal(store_verify(st, &cfg, &res, &busy), -EBUSY);
    assert_non_null(strstr(busy.msg, "being written"));
    store_writer_abort(w);
    store_close(st);
}

/* ---- rows that lie ---- */

/* What was sound before the index was changed, and what is to be said about it. */
struct lie {
    const char *name;
    const char *sql;
    const char *say;
    uint64_t rows_mended;
};

static const struct lie lies[] = {
    {"page at the place of another",
     "UPDATE pages SET loc = (SELECT loc FROM pages ORDER BY digest LIMIT 1 OFFSET 3)"
     " WHERE digest = (SELECT digest FROM pages ORDER BY digest LIMIT 1 OFFSET 7)",                               "where another is",   0},
    {"two pages in each other's place",
     "CREATE TEMP TABLE t AS SELECT digest, loc FROM pages ORDER BY digest LIMIT 2;"
     "UPDATE pages SET loc = (SELECT sum(loc) FROM t) - loc WHERE digest IN (SELECT digest FROM t)",              "where another is",   0},
    {"object at the place of another",
     "UPDATE objects SET segment = (SELECT segment FROM objects ORDER BY digest LIMIT 1)"
     " WHERE digest = (SELECT digest FROM objects ORDER BY digest LIMIT 1 OFFSET 2)",                             "where another is",   0},
    {"segment somewhere else",
     "UPDATE segments SET off = off + 1 WHERE id = (SELECT min(id) + 2 FROM segments)",                           "it is in pack 1 at", 1},
    {"segment behind the end",
     "UPDATE segments SET off = off + 100000000 WHERE id = (SELECT min(id) + 2 FROM segments)",                   "it is in pack 1 at", 1},
    {"segment of another length",
     "UPDATE segments SET len = len - 1 WHERE id = (SELECT min(id) + 1 FROM segments)",                           "it is in pack 1 at", 1},
    {"two segments in each other's place",
     "CREATE TEMP TABLE t AS SELECT * FROM segments ORDER BY id LIMIT 2;"
     "UPDATE segments SET off = (SELECT off FROM t WHERE t.id != segments.id),"
     " len = (SELECT len FROM t WHERE t.id != segments.id) WHERE id IN (SELECT id FROM t)",                       "it is in pack 1 at", 2},
    {"segment in a pack that there is not",
     "UPDATE segments SET pack = 77 WHERE id = (SELECT min(id) FROM segments)",                                   "it is in pack 1 at", 1},
    {"segment without a row",               "DELETE FROM segments WHERE id = (SELECT min(id) + 3 FROM segments)",
     "has no row; it is in pack 1",                                                                                                     1},
    {"pack that is longer than its row",    "UPDATE packs SET len = len / 2",                                     "shorter than it is", 0},
    {"pack that is shorter than its row",   "UPDATE packs SET len = len * 2",                                     "bytes long instead",
     1                                                                                                                                   },
    {"pack without a row",                  "DELETE FROM packs",                                                  "pack 1: has no row", 0},
    {"pack under another number",           "UPDATE packs SET id = 9; UPDATE store SET last_pack = 9",
     "pack 1: has no row",                                                                                                              0},
};

struct said {
    const char *text;
    bool yes;
};

static void take_text(void *arg, const struct store_problem *p)
{
    struct said *s = arg;

    s->yes = s->yes || strstr(p->what, s->text);
}

static void change_index(const char *sql)
{
    assert_true(index_change(fx.path, sql) > 0);
}

static void check_lie(const struct lie *l)
{
    struct said said = {.text = l->say};
    const struct store_verify_cfg cfg = {
        .data = true, .repair = true, .problem = take_text, .arg = &said};
    struct store_verify_result res;
    struct store_gc_result gc;
    struct findings f;
    struct err err = {0};
    struct store *st;

    print_message("%s\n", l->name);
    change_index(l->sql);
    st = fixture_open(&fx);
    res = verify(st, false, &f);
    assert_true(res.problems > 0);
    assert_ok(store_verify(st, &cfg, &res, &err), &err);
    assert_true(res.problems > 0);
    assert_true(said.yes);
    assert_true(res.rows_mended >= l->rows_mended);
    assert_int_equal(res.pages_dropped, 0);
    assert_int_equal(res.objects_dropped, 0);
    assert_int_equal(res.segments_dropped, 0);
    res = verify(st, false, &f);
    assert_int_equal(res.problems, 0);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_ok(image_put(st, &img, NULL, "b", NULL, &err), &err);
    assert_ok(store_remove(st, "a", &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_int_equal(image_compare(st, "b", &img, &err), 0);
    res = verify(st, false, &f);
    assert_int_equal(res.problems, 0);
    store_close(st);
}

static void test_rows_that_lie_are_told_and_put_right(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        assert_int_equal(setup(state), 0);
        check_lie(&lies[i]);
        (void)teardown(state);
    }
}

/* A row that lies and whose contents are nowhere: it goes, and they heal it. */
static void test_a_row_of_a_page_that_is_lost_goes(void **state)
{
    static const char lie[] =
        "UPDATE pages SET loc = (SELECT loc FROM pages WHERE loc >> 4 != "
        "(SELECT min(id) FROM segments) LIMIT 1) WHERE loc = (SELECT min(id) << 4 FROM segments)";
    struct store_verify_result res;
    struct store_segment seg;
    struct findings f;
    struct err err = {0};
    struct store *st;
    int fd = pack_fd();

    (void)state;
    change_index(lie);
    flip(fd, find_segment(fd, STORE_KIND_PAGES, &seg) + STORE_SEGMENT_HDR_LEN + 20);
    (void)close(fd);
    st = fixture_open(&fx);
    res = verify(st, true, &f);
    assert_int_equal(res.pages_dropped, seg.nr_items);
    assert_int_equal(res.segments_dropped, 1);
    assert_ok(image_put(st, &img, NULL, "b", NULL, &err), &err);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    res = verify(st, false, &f);
    assert_int_equal(res.problems, 0);
    store_close(st);
}

/* Builds before told nobody what they had given up for lost: hints still had its places. */
static void repair_as_once(void)
{
    char sql[512];

    (void)snprintf(sql, sizeof(sql),
                   "ATTACH '%s/hints' AS once; CREATE TABLE once.h(d, hints); "
                   "INSERT INTO once.h SELECT digest, hints FROM objects",
                   fx.dir);
    change_index(sql);
    store_close(damage_and_repair(STORE_KIND_PAGES));
    (void)snprintf(sql, sizeof(sql),
                   "ATTACH '%s/hints' AS once; "
                   "UPDATE objects SET hints = (SELECT hints FROM once.h WHERE d = digest)",
                   fx.dir);
    change_index(sql);
}

static void test_a_collection_tells_what_an_old_repair_did_not(void **state)
{
    struct store_gc_result gc;
    struct store_writer *w;
    struct findings f;
    struct err err = {0};
    struct store *st;

    (void)state;
    repair_as_once();
    st = fixture_open(&fx);
    assert_ok(image_begin(st, &img, "a", "b", true, &w, &err), &err);
    assert_true(store_writer_keeps(w, 0)); /* it is not seen: what this is about */
    store_writer_abort(w);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_ok(image_begin(st, &img, "a", "b", true, &w, &err), &err);
    assert_false(store_writer_keeps(w, 0));
    store_writer_abort(w);
    assert_ok(image_put(st, &img, "a", "b", NULL, &err), &err);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_int_equal(verify(st, false, &f).problems, 0);
    store_close(st);
}

/* What has lost its row only is still where its hint says, for readers: no collection forgets it. */
static void test_a_collection_leaves_places_that_lead_somewhere(void **state)
{
    struct store_gc_result gc;
    struct err err = {0};
    struct store *st;

    (void)state;
    change_index("DELETE FROM pages WHERE loc & 3 = 1");
    st = fixture_open(&fx);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    store_close(st);
    st = fixture_open(&fx);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    store_close(st);
}

/* Pages that have lost their rows, and nothing else, are where the hints say. */
static void test_rows_that_are_gone_come_back(void **state)
{
    struct store_verify_result res;
    struct findings f;
    struct err err = {0};
    struct store *st;

    (void)state;
    change_index("DELETE FROM pages WHERE loc & 3 = 1");
    st = fixture_open(&fx);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_true(verify(st, false, &f).problems > 0);
    res = verify(st, true, &f);
    assert_true(res.pages_moved > 0);
    assert_int_equal(res.pages_dropped, 0);
    assert_int_equal(verify(st, false, &f).problems, 0);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    store_close(st);

    /* Those that are not there any more are lost, and counted once. */
    change_index("DELETE FROM pages WHERE loc = (SELECT min(loc) FROM pages)");
    {
        struct store_segment seg;
        int fd = pack_fd();

        flip(fd, find_segment(fd, STORE_KIND_PAGES, &seg) + STORE_SEGMENT_HDR_LEN + 20);
        (void)close(fd);
    }
    st = fixture_open(&fx);
    res = verify(st, true, &f);
    assert_true(res.pages_dropped > 0);
    assert_true(image_compare(st, "a", &img, NULL) < 0);
    assert_int_equal(verify(st, true, &f).snapshots_bad, 1);
    assert_int_equal(verify(st, true, &f).pages_moved, 0);
    assert_ok(image_put(st, &img, "a", "b", NULL, &err), &err);
    assert_int_equal(verify(st, false, &f).problems, 0);
    store_close(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lost_pages_are_told_and_come_back_with_their_contents,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_snapshot_on_a_damaged_parent_is_whole_and_heals_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_kept_of_a_damaged_parent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_import_of_the_same_snapshot_heals_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_copy_heals_and_does_not_build_on_what_is_damaged,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_repair_damage_is_not_healed_by_chance, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_can_be_read_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_pack_without_a_header_is_emptied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_lost_pack_leaves_a_store_that_goes_on, setup,
                                        teardown),
        cmocka_unit_test(test_rows_that_lie_are_told_and_put_right),
        cmocka_unit_test_setup_teardown(test_a_row_of_a_page_that_is_lost_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_collection_tells_what_an_old_repair_did_not, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_collection_leaves_places_that_lead_somewhere, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_rows_that_are_gone_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_sound_store_is_left_alone_and_a_busy_one_refused,
                                        setup, teardown),
    };

    return cmocka_run_group_tests_name("store_repair", tests, NULL, NULL);
}
