/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store as a whole, through its public headers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/store_internal.h"
#include "store/store_pack.h"
#include "store/store_segment.h"
#include "tests/unit/store_fixture.h"

static struct fixture fx;
static struct store *st;

static int setup(void **state)
{
    (void)state;
    fixture_make(&fx);
    st = fixture_open(&fx);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(st);
    st = NULL;
    fixture_remove(&fx);
    return 0;
}

static void reopen(void)
{
    struct err err = {0};

    store_close(st);
    assert_ok(store_open(fx.path, 0, &st, &err), &err);
}

static struct store_counts counts_of(const char *ref)
{
    struct store_snapshot *snap;
    struct store_counts c;
    struct err err = {0};

    assert_ok(store_snapshot_open(st, ref, &snap, &err), &err);
    c = store_snapshot_info(snap)->rec->counts;
    store_snapshot_close(snap);
    return c;
}

/* ---- what goes in comes out ---- */

static void test_image_comes_back_bit_for_bit(void **state)
{
    static const uint64_t sizes[] = {1, 2, 511, 512, 513, 1024, 3000};
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct image img = image_make(sizes[i], i);
        char id[STORE_DIGEST_HEX + 1];

        assert_ok(image_put(st, &img, NULL, NULL, id, &err), &err);
        assert_int_equal(image_compare(st, id, &img, &err), 0);
        reopen();
        assert_int_equal(image_compare(st, id, &img, &err), 0);
        image_free(&img);
    }
    assert_int_equal(store_problems(st, false), 0);
    assert_int_equal(store_problems(st, true), 0);
}

static void test_region_of_zeroes_stores_no_page(void **state)
{
    struct image img = {.p = calloc(2000, PAGE_SIZE_4K), .pages = 2000};
    struct store_stats stats;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "zero", NULL, &err), &err);
    assert_int_equal(image_compare(st, "zero", &img, &err), 0);
    assert_ok(store_stats(st, &stats, &err), &err);
    assert_int_equal(stats.pages, 0);
    assert_int_equal(counts_of("zero").pages_zero, 2000);
    assert_int_equal(store_problems(st, true), 0);
    image_free(&img);
}

static void test_state_and_texts_come_back(void **state)
{
    const size_t len = 200000;
    uint8_t *in = malloc(len), *out = NULL;
    const struct store_publish what = {
        .state = in, .state_len = len, .config = "{\"a\":1}", .disks = "[{}]"};
    const struct store_writer_cfg cfg = {.name = "s", .tags = "x,y", .vm = "vm1"};
    char id[STORE_DIGEST_HEX + 1];
    const struct store_info *info;
    struct store_snapshot *snap;
    struct store_writer *w;
    struct err err = {0};
    size_t got;

    (void)state;
    for (size_t i = 0; i < len; i++)
        in[i] = (uint8_t)(i * i >> 7);
    assert_ok(store_writer_begin(st, &cfg, &w, &err), &err);
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    assert_ok(store_snapshot_open(st, "y", &snap, &err), &err);
    info = store_snapshot_info(snap);
    assert_string_equal(info->id, id);
    assert_string_equal(info->name, "s");
    assert_int_equal(info->nr_tags, 2);
    assert_string_equal(info->tags[1], "y");
    assert_string_equal(info->rec->vm, "vm1");
    assert_string_equal(info->rec->config, "{\"a\":1}");
    assert_string_equal(info->rec->disks, "[{}]");
    assert_ok(store_snapshot_state(snap, &out, &got, &err), &err);
    assert_int_equal(got, len);
    assert_memory_equal(out, in, len);
    store_snapshot_close(snap);
    free(out);
    free(in);
}

static void test_several_regions_with_odd_sizes(void **state)
{
    const struct store_writer_region regions[] = {
        {.gpa = 0,        .pages = 160},
        {.gpa = 0x100000, .pages = 777},
        {.gpa = GIB(4),   .pages = 1  },
    };
    const struct store_writer_cfg cfg = {.name = "r", .nr_regions = 3, .regions = regions};
    const struct store_publish what = {0};
    char id[STORE_DIGEST_HEX + 1];
    struct store_snapshot *snap;
    struct store_writer *w;
    struct image img[3];
    struct err err = {0};

    (void)state;
    assert_ok(store_writer_begin(st, &cfg, &w, &err), &err);
    for (unsigned i = 0; i < 3; i++) {
        img[i] = image_make(regions[i].pages, 100 + i);
        assert_ok(store_writer_pages(w, i, 0, img[i].pages, img[i].p, &err), &err);
    }
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    assert_ok(store_snapshot_open(st, "r", &snap, &err), &err);
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *got = malloc(img[i].pages * PAGE_SIZE_4K);

        assert_ok(store_snapshot_read(snap, i, 0, img[i].pages, got, &err), &err);
        assert_memory_equal(got, img[i].p, img[i].pages * PAGE_SIZE_4K);
        free(got);
        image_free(&img[i]);
    }
    assert_int_equal(store_snapshot_read(snap, 3, 0, 1, NULL, &err), -EINVAL);
    assert_int_equal(store_snapshot_read(snap, 1, 777, 1, NULL, &err), -EINVAL);
    assert_int_equal(store_snapshot_read(snap, 1, 770, UINT64_MAX, NULL, &err), -EINVAL);
    store_snapshot_close(snap);
}

static void test_runs_lead_to_every_page_that_is_not_zero(void **state)
{
    struct image img = image_make(1500, 7);
    struct store_snapshot *snap;
    struct store_run run;
    struct err err = {0};
    uint64_t from = 0, nr = 0;
    uint8_t *got;

    (void)state;
    memset(img.p + 600 * PAGE_SIZE_4K, 0, 500 * PAGE_SIZE_4K);
    got = calloc(img.pages, PAGE_SIZE_4K);
    assert_ok(image_put(st, &img, NULL, "r", NULL, &err), &err);
    assert_ok(store_snapshot_open(st, "r", &snap, &err), &err);
    for (;;) {
        assert_ok(store_snapshot_next(snap, 0, from, &run, &err), &err);
        if (!run.nr)
            break;
        assert_true(run.first >= from);
        assert_ok(store_snapshot_read_sparse(snap, 0, run.first, run.nr,
                                             got + run.first * PAGE_SIZE_4K, &err),
                  &err);
        from = run.first + run.nr;
        nr += run.nr;
    }
    assert_int_equal(nr, image_nonzero(&img));
    assert_memory_equal(got, img.p, img.pages * PAGE_SIZE_4K);
    store_snapshot_close(snap);
    image_free(&img);
    free(got);
}

/* ---- nothing is stored twice ---- */

static void test_equal_pages_are_stored_once(void **state)
{
    struct image img = image_make(2000, 1);
    struct store_counts c;
    struct store_stats stats;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    c = counts_of("a");
    assert_int_equal(c.pages_new, image_unique(&img));
    assert_int_equal(c.pages_known, image_nonzero(&img) - image_unique(&img));
    assert_int_equal(c.pages_zero, img.pages - image_nonzero(&img));
    assert_ok(store_stats(st, &stats, &err), &err);
    assert_int_equal(stats.pages, image_unique(&img));
    assert_int_equal(stats.bytes_packs, c.bytes_stored);
    image_free(&img);
}

static void test_second_snapshot_costs_what_changed(void **state)
{
    struct image img = image_make(4096, 2);
    struct store_counts c;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    for (uint64_t i = 1000; i < 1020; i++)
        image_touch(&img, i, 9);
    assert_ok(image_put(st, &img, "a", "b", NULL, &err), &err);
    c = counts_of("b");
    assert_int_equal(c.pages_new, 20);
    assert_int_equal(c.pages_known, 0);
    assert_int_equal(image_compare(st, "b", &img, &err), 0);
    /* Without a parent everything is found in the index. */
    assert_ok(image_put(st, &img, NULL, "c", NULL, &err), &err);
    c = counts_of("c");
    assert_int_equal(c.pages_new, 0);
    assert_int_equal(c.pages_same, 0);
    assert_int_equal(c.pages_known, image_nonzero(&img));
    assert_int_equal(c.bytes_stored, 0);
    assert_int_equal(image_compare(st, "c", &img, &err), 0);
    assert_int_equal(store_problems(st, true), 0);
    image_free(&img);
}

static void test_equal_memory_has_the_same_name(void **state)
{
    struct image img = image_make(1000, 3);
    struct store_snapshot *a, *b;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    assert_ok(image_put(st, &img, "a", "b", NULL, &err), &err);
    assert_ok(store_snapshot_open(st, "a", &a, &err), &err);
    assert_ok(store_snapshot_open(st, "b", &b, &err), &err);
    assert_true(
        store_digest_equal(&store_snapshot_info(a)->rec->ram, &store_snapshot_info(b)->rec->ram));
    assert_string_not_equal(store_snapshot_info(a)->id, store_snapshot_info(b)->id);
    store_snapshot_close(a);
    store_snapshot_close(b);
    image_free(&img);
}

static void test_kept_pages_need_not_be_given(void **state)
{
    const struct store_publish what = {0};
    struct image img = image_make(2000, 4), part;
    char id[STORE_DIGEST_HEX + 1];
    struct store_counts c;
    struct store_writer *w;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    part = image_copy(&img);
    image_touch(&part, 700, 1);
    image_touch(&part, 1999, 1);
    memset(part.p + 5 * PAGE_SIZE_4K, 0, 3 * PAGE_SIZE_4K);
    assert_ok(image_begin(st, &part, "a", "b", false, &w, &err), &err);
    assert_true(store_writer_keeps(w, 0));
    assert_ok(store_writer_keep(w, 0, 0, 2000, &err), &err);
    assert_ok(store_writer_pages(w, 0, 700, 1, part.p + 700 * PAGE_SIZE_4K, &err), &err);
    assert_ok(store_writer_pages(w, 0, 1999, 1, part.p + 1999 * PAGE_SIZE_4K, &err), &err);
    assert_ok(store_writer_zero(w, 0, 5, 3, &err), &err);
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    c = counts_of("b");
    assert_int_equal(c.pages_new, 2);
    assert_int_equal(image_compare(st, "b", &part, &err), 0);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_int_equal(store_problems(st, true), 0);
    image_free(&part);
    image_free(&img);
}

static void test_page_that_was_never_given_is_refused(void **state)
{
    const struct store_publish what = {0};
    struct image img = image_make(1200, 4);
    char id[STORE_DIGEST_HEX + 1];
    struct store_writer *w;
    struct err err = {0};

    (void)state;
    assert_ok(image_begin(st, &img, NULL, "b", false, &w, &err), &err);
    assert_ok(store_writer_pages(w, 0, 0, 1100, img.p, &err), &err);
    assert_ok(store_writer_pages(w, 0, 1101, 99, img.p, &err), &err);
    assert_int_equal(store_writer_publish(w, &what, id, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "page 1100"));
    assert_int_equal(store_resolve(st, "b", id, NULL), -ENOENT);
    image_free(&img);
}

static void test_keep_without_a_parent_is_refused(void **state)
{
    struct image img = image_make(10, 4);
    struct store_writer *w;
    struct err err = {0};

    (void)state;
    assert_ok(image_begin(st, &img, NULL, "b", false, &w, &err), &err);
    assert_int_equal(store_writer_keep(w, 0, 0, 10, &err), -EINVAL);
    assert_int_equal(store_writer_pages(w, 0, 5, 6, img.p, NULL), -EINVAL);
    assert_int_equal(store_writer_pages(w, 1, 0, 1, img.p, NULL), -EINVAL);
    store_writer_abort(w);
    image_free(&img);
}

static void test_last_copy_of_a_page_counts(void **state)
{
    const struct store_publish what = {0};
    struct image img = image_make(600, 5), last = image_copy(&img);
    char id[STORE_DIGEST_HEX + 1];
    struct store_writer *w;
    struct err err = {0};

    (void)state;
    assert_ok(image_begin(st, &img, NULL, "a", false, &w, &err), &err);
    for (unsigned round = 0; round < 30; round++) {
        for (uint64_t i = 0; i < 600; i += 1 + round % 3)
            image_touch(&last, i, round);
        if (round % 5 == 4)
            memset(last.p + (round * 7 + 1) * PAGE_SIZE_4K, 0, 40 * PAGE_SIZE_4K);
        assert_ok(store_writer_pages(w, 0, 0, 600, last.p, &err), &err);
    }
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    assert_int_equal(image_compare(st, "a", &last, &err), 0);
    image_free(&img);
    image_free(&last);
}

static void test_pages_kept_aside_are_found_and_sorted_in(void **state)
{
    enum {
        ROUNDS = 40
    };
    struct image img = image_make(3000, 21);
    struct store_gc_result gc;
    struct store_stats s;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "base", NULL, &err), &err);
    /* Few pages each, so that some rounds keep them aside and some sort them in. */
    for (uint64_t i = 0; i < ROUNDS; i++) {
        char name[16];

        for (uint64_t k = 0; k < 30; k++)
            image_touch(&img, (i * 31 + k) % 3000, i + 50);
        (void)snprintf(name, sizeof(name), "r%u", (unsigned)i);
        assert_ok(image_put(st, &img, "base", name, NULL, &err), &err);
        if (i % 7 == 0)
            reopen();
    }
    assert_ok(image_put(st, &img, NULL, "again", NULL, &err), &err);
    assert_int_equal(counts_of("again").pages_new, 0);
    assert_int_equal(store_problems(st, true), 0);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "r%u", (unsigned)i);
        assert_ok(store_remove(st, name, &err), &err);
    }
    assert_ok(store_remove(st, "base", &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_ok(store_stats(st, &s, &err), &err);
    assert_int_equal(s.pages, image_unique(&img));
    assert_int_equal(image_compare(st, "again", &img, &err), 0);
    assert_int_equal(store_problems(st, true), 0);
    image_free(&img);
}

/* ---- names ---- */

static void test_names_ids_and_tags_resolve(void **state)
{
    const struct store_relabel tag = {.add = "nightly"}, name = {.name = "kept"},
                               untag = {.del = "nightly"}, bad = {.name = "-x"};
    struct image img = image_make(10, 6);
    char a[STORE_DIGEST_HEX + 1], b[STORE_DIGEST_HEX + 1], id[STORE_DIGEST_HEX + 1];
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "one", a, &err), &err);
    assert_ok(image_put(st, &img, NULL, "two", b, &err), &err);
    assert_int_equal(image_put(st, &img, NULL, "two", id, NULL), -EEXIST);
    assert_ok(store_resolve(st, "one", id, &err), &err);
    assert_string_equal(id, a);
    b[8] = 0;
    assert_ok(store_resolve(st, b, id, &err), &err);
    assert_memory_equal(id, b, 8);
    assert_int_equal(store_resolve(st, "nightly", id, NULL), -ENOENT);
    assert_ok(store_relabel(st, "one", &tag, 1, &err), &err);
    assert_ok(store_resolve(st, "nightly", id, &err), &err);
    assert_string_equal(id, a);
    assert_ok(store_relabel(st, "two", &tag, 1, &err), &err);
    assert_ok(store_resolve(st, "nightly", id, &err), &err);
    assert_memory_equal(id, b, 8);
    assert_ok(store_relabel(st, "two", &untag, 1, &err), &err);
    assert_int_equal(store_relabel(st, "two", &untag, 1, NULL), -ENOENT);
    assert_ok(store_relabel(st, "one", &name, 1, &err), &err);
    assert_int_equal(store_relabel(st, "two", &name, 1, NULL), -EEXIST);
    assert_int_equal(store_relabel(st, "two", &bad, 1, NULL), -EINVAL);
    assert_ok(store_resolve(st, "kept", id, &err), &err);
    assert_string_equal(id, a);
    assert_int_equal(store_resolve(st, "one", id, NULL), -ENOENT);
    assert_int_equal(store_problems(st, false), 0);
    image_free(&img);
}

static void test_newest_is_the_last_published(void **state)
{
    struct image img = image_make(10, 6);
    char a[STORE_DIGEST_HEX + 1], id[STORE_DIGEST_HEX + 1];
    struct err err = {0};

    (void)state;
    assert_int_equal(store_newest(st, NULL, id, NULL), -ENOENT);
    assert_ok(image_put(st, &img, NULL, "one", NULL, &err), &err);
    assert_ok(image_put(st, &img, NULL, "two", a, &err), &err);
    assert_ok(store_newest(st, NULL, id, &err), &err);
    assert_string_equal(id, a);
    assert_ok(store_newest(st, "test-vm", id, &err), &err);
    assert_int_equal(store_newest(st, "other", id, NULL), -ENOENT);
    image_free(&img);
}

/* ---- leaving no trace ---- */

static uint64_t files_in_packs(void)
{
    struct store_stats s;
    struct err err = {0};

    assert_ok(store_stats(st, &s, &err), &err);
    return s.bytes_packs + s.bytes_others;
}

static void test_abort_leaves_the_store_as_it_was(void **state)
{
    struct image img = image_make(2000, 8), other = image_make(2000, 9);
    struct store_writer *w;
    struct err err = {0};
    uint64_t before;

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    before = files_in_packs();
    assert_ok(image_begin(st, &other, "a", "b", false, &w, &err), &err);
    assert_ok(store_writer_pages(w, 0, 0, 2000, other.p, &err), &err);
    store_writer_abort(w);
    assert_int_equal(files_in_packs(), before);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_int_equal(store_problems(st, true), 0);
    image_free(&img);
    image_free(&other);
}

static void test_what_went_into_a_store_that_is_gone_is_not_published(void **state)
{
    struct image img = image_make(50, 3);
    const struct store_publish what = {.state = "s", .state_len = 1, .config = "{}", .disks = "[]"};
    char id[STORE_DIGEST_HEX + 1];
    struct store_writer *w;
    struct err err = {0};

    (void)state;
    assert_ok(image_begin(st, &img, NULL, "gone", false, &w, &err), &err);
    assert_ok(store_writer_pages(w, 0, 0, 50, img.p, &err), &err);
    tree_remove(fx.path);
    assert_int_equal(store_writer_publish(w, &what, id, &err), -ESTALE);
    assert_non_null(strstr(err.msg, "the store has been removed"));
    image_free(&img);
}

static void test_removed_snapshot_is_collected(void **state)
{
    struct image img = image_make(3000, 10), other = image_copy(&img);
    struct store_gc_result gc;
    struct store_stats s;
    struct err err = {0};

    (void)state;
    for (uint64_t i = 0; i < 2000; i++)
        image_touch(&other, i, 3);
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    assert_ok(image_put(st, &other, "a", "b", NULL, &err), &err);
    assert_ok(store_remove(st, "a", &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_int_equal(image_compare(st, "b", &other, &err), 0);
    assert_ok(store_stats(st, &s, &err), &err);
    assert_int_equal(s.pages, image_unique(&other));
    assert_true(gc.pages_dropped > 0);
    assert_true(gc.bytes_freed > 0);
    assert_int_equal(gc.packs_rewritten, 1);
    assert_int_equal(s.bytes_others, 0);
    assert_int_equal(store_problems(st, true), 0);
    assert_ok(store_remove(st, "b", &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_ok(store_stats(st, &s, &err), &err);
    assert_int_equal(s.pages + s.objects + s.segments + s.packs + s.bytes_packs + s.bytes_others,
                     0);
    image_free(&img);
    image_free(&other);
}

/* A pack of pages and that much device state, of which only the state stays alive; its length. */
static uint64_t pack_with_state(size_t state_len)
{
    static const struct store_writer_region region = {.gpa = FIXTURE_GPA, .pages = 8};
    const struct store_writer_cfg cfg = {.name = "gone", .nr_regions = 1, .regions = &region};
    struct image noise = image_make(8, 1), state = image_make(20, 2);
    struct store_publish what = {.state = state.p, .state_len = state_len};
    char id[STORE_DIGEST_HEX + 1];
    struct store_writer *w;
    struct store_stats s;
    struct err err = {0};

    for (uint64_t i = 0; i < 8; i++)
        image_touch(&noise, i, i);
    for (uint64_t i = 0; i < 20; i++)
        image_touch(&state, i, 100 + i);
    assert_ok(store_writer_begin(st, &cfg, &w, &err), &err);
    assert_ok(store_writer_pages(w, 0, 0, 8, noise.p, &err), &err);
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    assert_ok(store_stats(st, &s, &err), &err);
    assert_ok(store_writer_begin(st, &(struct store_writer_cfg){0}, &w, &err), &err);
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    assert_ok(store_remove(st, "gone", &err), &err);
    image_free(&noise);
    image_free(&state);
    return s.bytes_packs;
}

static void test_a_pack_that_is_half_alive_is_left_alone(void **state)
{
    /* All that is dead, without a state: then as much state is half of the pack. */
    const uint64_t dead = pack_with_state(0) - STORE_PACK_HDR_LEN;
    struct store_gc_result gc;
    struct err err = {0};

    for (int less = 1; less >= -1; less--) {
        uint64_t len;

        (void)teardown(state);
        assert_int_equal(setup(state), 0);
        len = pack_with_state(dead - (uint64_t)less);
        assert_int_equal(len,
                         STORE_PACK_HDR_LEN + dead + STORE_SEGMENT_HDR_LEN + dead - (uint64_t)less);
        assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
        assert_int_equal(gc.packs_rewritten, less > 0);
        assert_int_equal(store_problems(st, true), 0);
    }
}

static void test_dry_run_changes_nothing_and_tells_the_same(void **state)
{
    struct image img = image_make(1000, 10);
    struct store_gc_result dry, wet;
    struct store_stats a, b;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    assert_ok(store_remove(st, "a", &err), &err);
    assert_ok(store_stats(st, &a, &err), &err);
    assert_ok(store_gc(st, STORE_GC_DRY_RUN, NULL, NULL, &dry, &err), &err);
    assert_ok(store_stats(st, &b, &err), &err);
    assert_int_equal(a.pages, b.pages);
    assert_int_equal(a.bytes_packs, b.bytes_packs);
    assert_ok(store_gc(st, 0, NULL, NULL, &wet, &err), &err);
    assert_memory_equal(&dry, &wet, sizeof(dry));
    image_free(&img);
}

static void test_snapshot_in_use_is_not_removed(void **state)
{
    struct image img = image_make(100, 11);
    struct store_snapshot *snap;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    assert_ok(store_snapshot_open(st, "a", &snap, &err), &err);
    assert_int_equal(store_remove(st, "a", NULL), -EBUSY);
    store_snapshot_close(snap);
    assert_ok(store_remove(st, "a", &err), &err);
    image_free(&img);
}

/* As by a mount that is read-only, while others can write. */
static void test_snapshot_in_use_is_not_removed_though_its_reader_cannot_write(void **state)
{
    struct image img = image_make(100, 11);
    struct store_snapshot *snap;
    struct store *reader = fixture_open(&fx);
    struct err err = {0};

    (void)state;
    reader->be->readonly = true;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    assert_ok(store_snapshot_open(reader, "a", &snap, &err), &err);
    assert_int_equal(store_remove(st, "a", NULL), -EBUSY);
    store_snapshot_close(snap);
    store_close(reader);
    assert_ok(store_remove(st, "a", &err), &err);
    image_free(&img);
}

static void test_collector_keeps_away_from_writers(void **state)
{
    struct image img = image_make(100, 11);
    struct store_gc_result gc;
    struct store_writer *w;
    struct err err = {0};

    (void)state;
    assert_ok(image_begin(st, &img, NULL, "a", false, &w, &err), &err);
    assert_int_equal(store_gc(st, 0, NULL, NULL, &gc, NULL), -EBUSY);
    store_writer_abort(w);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    image_free(&img);
}

static void test_reader_goes_on_while_packs_are_rewritten(void **state)
{
    struct image img = image_make(3000, 12), other = image_copy(&img);
    struct store_gc_result gc;
    struct store_snapshot *snap;
    struct store *again;
    struct err err = {0};
    uint8_t page[PAGE_SIZE_4K];

    (void)state;
    for (uint64_t i = 0; i < 2500; i++)
        image_touch(&other, i, 3);
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    assert_ok(image_put(st, &other, "a", "b", NULL, &err), &err);
    assert_ok(store_open(fx.path, 0, &again, &err), &err);
    assert_ok(store_snapshot_open(again, "b", &snap, &err), &err);
    assert_ok(store_snapshot_read(snap, 0, 2600, 1, page, &err), &err);
    assert_ok(store_remove(st, "a", &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_int_equal(gc.packs_rewritten, 1);
    for (uint64_t i = 0; i < 3000; i++) {
        assert_ok(store_snapshot_read(snap, 0, i, 1, page, &err), &err);
        assert_memory_equal(page, other.p + i * PAGE_SIZE_4K, PAGE_SIZE_4K);
    }
    store_snapshot_close(snap);
    store_close(again);
    image_free(&img);
    image_free(&other);
}

/* ---- several at once ---- */

struct feeder {
    struct store_writer *w;
    struct image *img;
    uint64_t first, nr;
};

static void *feed(void *arg)
{
    struct feeder *f = arg;

    for (uint64_t i = f->first; i < f->first + f->nr; i += 7) {
        uint64_t n = f->first + f->nr - i < 7 ? f->first + f->nr - i : 7;

        if (store_writer_pages(f->w, 0, i, n, f->img->p + i * PAGE_SIZE_4K, NULL) < 0)
            return f;
    }
    return NULL;
}

static void test_several_threads_feed_one_writer(void **state)
{
    const struct store_publish what = {0};
    struct image img = image_make(8000, 13);
    struct feeder f[4];
    pthread_t t[4];
    char id[STORE_DIGEST_HEX + 1];
    struct store_writer *w;
    struct err err = {0};
    void *bad;

    (void)state;
    assert_ok(image_begin(st, &img, NULL, "a", false, &w, &err), &err);
    for (unsigned i = 0; i < 4; i++) {
        f[i] = (struct feeder){.w = w, .img = &img, .first = i * 2000, .nr = 2000};
        assert_int_equal(pthread_create(&t[i], NULL, feed, &f[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(t[i], &bad), 0);
        assert_null(bad);
    }
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_int_equal(counts_of("a").pages_new, image_unique(&img));
    image_free(&img);
}

struct fetcher {
    struct store_snapshot *snap;
    struct image *img;
    uint64_t step;
};

static void *fetch_pages(void *arg)
{
    struct fetcher *f = arg;
    uint8_t page[PAGE_SIZE_4K];

    for (uint64_t i = 0, at = 0; i < 3000; i++) {
        at = (at + f->step) % f->img->pages;
        if (store_snapshot_read(f->snap, 0, at, 1, page, NULL) < 0 ||
            memcmp(page, f->img->p + at * PAGE_SIZE_4K, PAGE_SIZE_4K) != 0)
            return f;
    }
    return NULL;
}

static void test_several_threads_read_one_snapshot(void **state)
{
    static const uint64_t steps[] = {1, 17, 1009, 2503};
    struct image img = image_make(5003, 14);
    struct fetcher f[4];
    pthread_t t[4];
    struct store_snapshot *snap;
    struct err err = {0};
    void *bad;

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    assert_ok(store_snapshot_open(st, "a", &snap, &err), &err);
    for (unsigned i = 0; i < 4; i++) {
        f[i] = (struct fetcher){.snap = snap, .img = &img, .step = steps[i]};
        assert_int_equal(pthread_create(&t[i], NULL, fetch_pages, &f[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(t[i], &bad), 0);
        assert_null(bad);
    }
    store_snapshot_close(snap);
    image_free(&img);
}

static void test_two_processes_write_at_once(void **state)
{
    enum {
        ROUNDS = 6
    };
    struct image common = image_make(1500, 15);
    struct err err = {0};
    pid_t pid[2];

    (void)state;
    store_close(st);
    st = NULL;
    for (unsigned p = 0; p < 2; p++) {
        pid[p] = fork();
        assert_true(pid[p] >= 0);
        if (pid[p])
            continue;
        for (unsigned i = 0; i < ROUNDS; i++) {
            struct image mine = image_copy(&common);
            struct store *s;
            char name[32];

            image_touch(&mine, i, p + 1);
            (void)snprintf(name, sizeof(name), "p%u-%u", p, i);
            if (store_open(fx.path, 0, &s, NULL) < 0 ||
                image_put(s, &mine, NULL, name, NULL, NULL) < 0)
                _exit(1);
            store_close(s);
            image_free(&mine);
        }
        _exit(0);
    }
    for (unsigned p = 0; p < 2; p++) {
        int status = 0;

        assert_int_equal(waitpid(pid[p], &status, 0), pid[p]);
        assert_int_equal(status, 0);
    }
    assert_ok(store_open(fx.path, 0, &st, &err), &err);
    for (unsigned n = 0; n < 2 * ROUNDS; n++) {
        struct image want = image_copy(&common);
        char name[32];

        image_touch(&want, n / 2, n % 2 + 1);
        (void)snprintf(name, sizeof(name), "p%u-%u", n % 2, n / 2);
        assert_int_equal(image_compare(st, name, &want, &err), 0);
        image_free(&want);
    }
    assert_int_equal(store_problems(st, true), 0);
    image_free(&common);
}

/* ---- what is not a store ---- */

static void test_more_memory_than_a_writer_takes_is_refused(void **state)
{
    const struct store_writer_region regions[] = {
        {.gpa = 0,                 .pages = (uint64_t)1 << 31      },
        {.gpa = (uint64_t)1 << 44, .pages = ((uint64_t)1 << 31) + 1},
    };
    const struct store_writer_cfg cfg = {.nr_regions = 2, .regions = regions};
    struct store_writer *w = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(store_writer_begin(st, &cfg, &w, &err), -E2BIG);
    assert_non_null(strstr(err.msg, "over 16 TiB"));
}

static void test_missing_and_foreign_directories_are_refused(void **state)
{
    char path[2 * FIXTURE_PATH_MAX];
    struct err err = {0};
    struct store *s;
    FILE *f;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/none", fx.dir);
    assert_int_equal(store_open(path, 0, &s, &err), -ENOENT);
    assert_int_equal(store_open(fx.dir, 0, &s, NULL), -EINVAL);
    assert_int_equal(store_open(fx.dir, STORE_CREATE, &s, NULL), -ENOTEMPTY);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_ok(store_open(path, STORE_CREATE, &s, &err), &err);
    store_close(s);
    (void)snprintf(path, sizeof(path), "%s/none/store.db", fx.dir);
    f = fopen(path, "w");
    assert_non_null(f);
    (void)fprintf(f, "this is not a database, but it is longer than a header is, by far, "
                     "and so has to be looked at to be refused");
    (void)fclose(f);
    (void)snprintf(path, sizeof(path), "%s/none", fx.dir);
    assert_int_equal(store_open(path, 0, &s, NULL), -EBADMSG);
}

static void test_later_format_is_refused_with_its_number(void **state)
{
    struct err err = {0};

    (void)state;
    store_close(st);
    st = NULL;
    (void)index_change(fx.path, "PRAGMA user_version = 7");
    assert_int_equal(store_open(fx.path, 0, &st, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "format version 7"));
}

static void test_foreign_tables_and_triggers_are_refused(void **state)
{
    struct err err = {0};

    (void)state;
    store_close(st);
    st = NULL;
    (void)index_change(fx.path,
                       "CREATE TRIGGER t AFTER INSERT ON packs BEGIN DELETE FROM snapshots; END");
    assert_int_equal(store_open(fx.path, 0, &st, &err), -EBADMSG);
    (void)index_change(fx.path, "DROP TRIGGER t; CREATE VIEW v AS SELECT 1");
    assert_int_equal(store_open(fx.path, 0, &st, NULL), -EBADMSG);
    (void)index_change(fx.path, "DROP VIEW v; DROP TABLE objects");
    assert_int_equal(store_open(fx.path, 0, &st, NULL), -EBADMSG);
}

static void test_store_is_readable_without_permission_to_write(void **state)
{
    struct image img = image_make(300, 16);
    struct store_gc_result gc;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "a", NULL, &err), &err);
    store_close(st);
    assert_ok(store_open(fx.path, STORE_RDONLY, &st, &err), &err);
    assert_int_equal(image_compare(st, "a", &img, &err), 0);
    assert_int_equal(store_remove(st, "a", NULL), -EROFS);
    assert_int_equal(store_gc(st, 0, NULL, NULL, &gc, NULL), -EROFS);
    assert_int_equal(image_put(st, &img, NULL, "b", NULL, NULL), -EROFS);
    image_free(&img);
}

#define store_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

struct gc_seen {
    bool seen[STORE_GC_FORGET + 1];
    uint64_t done, total; /* of the memory of snapshots */
};

static void see_collection(void *arg, enum store_gc_phase phase, uint64_t done, uint64_t total)
{
    struct gc_seen *s = arg;

    assert_true(done <= total);
    s->seen[phase] = true;
    if (phase != STORE_GC_MARK)
        return;
    assert_true(done > s->done);
    s->done = done;
    s->total = total;
}

static void test_a_collection_says_how_far_it_is(void **state)
{
    struct image a = image_make(1500, 1), b = image_make(1500, 2);
    struct gc_seen seen = {0};
    struct store_gc_result res;
    struct err err = {0};

    (void)state;
    memcpy(b.p, a.p, 300 * PAGE_SIZE_4K); /* less than half of what is in the pack of "a" */
    assert_int_equal(image_put(st, &a, NULL, "a", NULL, &err), 0);
    assert_int_equal(image_put(st, &b, NULL, "b", NULL, &err), 0);
    assert_int_equal(store_remove(st, "a", &err), 0);
    assert_int_equal(store_gc(st, 0, see_collection, &seen, &res, &err), 0);
    for (size_t i = 0; i < ARRAY_LEN(seen.seen); i++)
        assert_true(seen.seen[i]);
    assert_int_equal(seen.done, 1500 * PAGE_SIZE_4K);
    assert_int_equal(seen.total, seen.done);
    assert_int_equal(res.packs_rewritten, 1);
    image_free(&a);
    image_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(test_image_comes_back_bit_for_bit),
        store_test(test_region_of_zeroes_stores_no_page),
        store_test(test_state_and_texts_come_back),
        store_test(test_several_regions_with_odd_sizes),
        store_test(test_runs_lead_to_every_page_that_is_not_zero),
        store_test(test_equal_pages_are_stored_once),
        store_test(test_second_snapshot_costs_what_changed),
        store_test(test_equal_memory_has_the_same_name),
        store_test(test_kept_pages_need_not_be_given),
        store_test(test_page_that_was_never_given_is_refused),
        store_test(test_keep_without_a_parent_is_refused),
        store_test(test_last_copy_of_a_page_counts),
        store_test(test_pages_kept_aside_are_found_and_sorted_in),
        store_test(test_names_ids_and_tags_resolve),
        store_test(test_newest_is_the_last_published),
        store_test(test_abort_leaves_the_store_as_it_was),
        store_test(test_what_went_into_a_store_that_is_gone_is_not_published),
        store_test(test_removed_snapshot_is_collected),
        store_test(test_a_pack_that_is_half_alive_is_left_alone),
        store_test(test_dry_run_changes_nothing_and_tells_the_same),
        store_test(test_snapshot_in_use_is_not_removed),
        store_test(test_snapshot_in_use_is_not_removed_though_its_reader_cannot_write),
        store_test(test_collector_keeps_away_from_writers),
        store_test(test_reader_goes_on_while_packs_are_rewritten),
        store_test(test_several_threads_feed_one_writer),
        store_test(test_several_threads_read_one_snapshot),
        store_test(test_two_processes_write_at_once),
        store_test(test_more_memory_than_a_writer_takes_is_refused),
        store_test(test_missing_and_foreign_directories_are_refused),
        store_test(test_later_format_is_refused_with_its_number),
        store_test(test_foreign_tables_and_triggers_are_refused),
        store_test(test_store_is_readable_without_permission_to_write),
        store_test(test_a_collection_says_how_far_it_is),
    };

    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
