/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formats of the store one by one: segments, packs, manifests, records, URLs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "store/store_cache.h"
#include "store/store_manifest.h"
#include "store/store_map.h"
#include "store/store_pack.h"
#include "store/store_record.h"
#include "store/store_seen.h"
#include "store/store_url.h"
#include "tests/unit/store_fixture.h"

static struct store_codec_ctx *codec;

static int setup(void **state)
{
    (void)state;
    return store_codec_new(&codec, NULL);
}

static int teardown(void **state)
{
    (void)state;
    store_codec_free(codec);
    return 0;
}

/* ---- segments ---- */

static uint32_t pack_pages(const struct image *img, struct store_segment *seg, uint8_t *out)
{
    struct store_digest d[STORE_SEGMENT_SLOTS];

    *seg = (struct store_segment){.id = 77,
                                  .kind = STORE_KIND_PAGES,
                                  .raw_len = (uint32_t)(img->pages * PAGE_SIZE_4K),
                                  .nr_items = (unsigned)img->pages};
    for (uint64_t i = 0; i < img->pages; i++)
        store_hash(img->p + i * PAGE_SIZE_4K, PAGE_SIZE_4K, &d[i]);
    return store_segment_pack(codec, seg, img->p, d, out);
}

static void test_segment_comes_back(void **state)
{
    static uint8_t out[STORE_SEGMENT_LEN_MAX], raw[STORE_SEGMENT_RAW_MAX];
    struct store_digest d[STORE_SEGMENT_SLOTS];
    struct store_segment seg, got;

    (void)state;
    for (uint64_t nr = 1; nr <= STORE_SEGMENT_SLOTS; nr++) {
        struct image img = image_make(nr, nr);
        uint32_t n = pack_pages(&img, &seg, out);

        assert_int_equal(n, STORE_SEGMENT_HDR_LEN + seg.stored_len);
        assert_int_equal(store_segment_parse(out, &got, NULL), 0);
        assert_int_equal(got.id, 77);
        assert_int_equal(got.nr_items, nr);
        assert_int_equal(store_segment_unpack(codec, &got, out + STORE_SEGMENT_HDR_LEN, raw, NULL),
                         0);
        assert_memory_equal(raw, img.p, nr * PAGE_SIZE_4K);
        assert_int_equal(store_segment_check(&got, out, raw, d, NULL), 0);
        raw[7] ^= 1;
        assert_int_equal(store_segment_check(&got, out, raw, d, NULL), -EBADMSG);
        image_free(&img);
    }
}

static void test_noise_is_stored_raw(void **state)
{
    static uint8_t out[STORE_SEGMENT_LEN_MAX];
    struct image img = image_make(2, 1);
    struct store_segment seg;

    (void)state;
    image_touch(&img, 0, 1);
    image_touch(&img, 1, 1);
    assert_int_equal(pack_pages(&img, &seg, out), STORE_SEGMENT_HDR_LEN + 2 * 4096);
    assert_int_equal(seg.codec, STORE_CODEC_RAW);
    image_free(&img);
}

static void test_every_wrong_header_byte_is_refused_or_fails_the_check(void **state)
{
    static uint8_t out[STORE_SEGMENT_LEN_MAX], raw[STORE_SEGMENT_RAW_MAX];
    struct image img = image_make(5, 3);
    struct store_digest d[STORE_SEGMENT_SLOTS];
    struct store_segment seg, got;

    (void)state;
    assert_true(pack_pages(&img, &seg, out) > 0);
    for (size_t off = 0; off < STORE_SEGMENT_HDR_LEN; off++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            int rc;

            out[off] = (uint8_t)(out[off] ^ 1U << bit);
            rc = store_segment_parse(out, &got, NULL);
            if (rc == 0)
                rc = store_segment_unpack(codec, &got, out + STORE_SEGMENT_HDR_LEN, raw, NULL);
            if (rc == 0)
                rc = store_segment_check(&got, out, raw, d, NULL);
            assert_true(rc == -EBADMSG || rc == -ENOTSUP);
            out[off] = (uint8_t)(out[off] ^ 1U << bit);
        }
    }
    image_free(&img);
}

/* A frame that declares 2 GiB, in a segment that declares 64 KiB. */
static void test_frame_with_a_huge_declared_size_is_refused(void **state)
{
    static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0,
                                    0x80, 0x01, 0,    0,    0,    0, 0, 0};
    static uint8_t raw[STORE_SEGMENT_RAW_MAX];
    const struct store_segment seg = {.id = 1,
                                      .kind = STORE_KIND_PAGES,
                                      .codec = STORE_CODEC_ZSTD,
                                      .raw_len = STORE_SEGMENT_RAW_MAX,
                                      .stored_len = sizeof(frame),
                                      .nr_items = 16};

    (void)state;
    assert_int_equal(store_segment_unpack(codec, &seg, frame, raw, NULL), -EBADMSG);
}

/* ---- packs ---- */

static void test_pack_header_names_store_and_number(void **state)
{
    uint8_t uuid[STORE_UUID_LEN] = {1, 2, 3}, other[STORE_UUID_LEN] = {1, 2, 4};
    uint8_t hdr[STORE_PACK_HDR_LEN];

    (void)state;
    store_pack_header_make(5, uuid, hdr);
    assert_int_equal(store_pack_header_check(hdr, 5, uuid, NULL), 0);
    assert_int_equal(store_pack_header_check(hdr, 6, uuid, NULL), -EBADMSG);
    assert_int_equal(store_pack_header_check(hdr, 5, other, NULL), -EBADMSG);
    for (size_t off = 0; off < sizeof(hdr); off++) {
        hdr[off] ^= 0x10;
        assert_true(store_pack_header_check(hdr, 5, uuid, NULL) < 0);
        hdr[off] ^= 0x10;
    }
}

static int count_segment(void *arg, const struct store_segment *seg, uint64_t off)
{
    (void)seg;
    (void)off;
    ++*(unsigned *)arg;
    return 0;
}

static void test_scan_walks_whole_segments_and_stops_at_a_torn_one(void **state)
{
    static uint8_t out[STORE_SEGMENT_LEN_MAX];
    const uint8_t uuid[STORE_UUID_LEN] = {0};
    struct image img = image_make(4, 3);
    struct store_backend *be;
    struct store_segment seg;
    struct store_file *f;
    struct err why = {0};
    struct fixture fx;
    uint64_t end = 0;
    unsigned nr = 0;
    uint32_t n;

    (void)state;
    fixture_make(&fx);
    n = pack_pages(&img, &seg, out);
    assert_int_equal(store_dir_open(fx.path, STORE_DIR_CREATE, &be, NULL), 0);
    assert_int_equal(store_pack_create(be, 1, uuid, &f, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            be->ops->write(f, out, (size_t)n, STORE_PACK_HDR_LEN + (uint64_t)i * n, NULL), 0);
    assert_int_equal(store_pack_scan(f, STORE_PACK_HDR_LEN + 3 * (uint64_t)n, count_segment, &nr,
                                     &end, &why),
                     0);
    assert_int_equal(nr, 3);
    assert_int_equal(end, STORE_PACK_HDR_LEN + 3 * (uint64_t)n);
    nr = 0;
    assert_int_equal(store_pack_scan(f, STORE_PACK_HDR_LEN + 3 * (uint64_t)n - 1, count_segment,
                                     &nr, &end, &why),
                     0);
    assert_int_equal(nr, 2);
    assert_int_equal(end, STORE_PACK_HDR_LEN + 2 * (uint64_t)n);
    assert_true(why.msg[0]);
    be->ops->close(f);
    be->ops->free(be);
    image_free(&img);
    fixture_remove(&fx);
}

/* ---- manifests ---- */

static void test_tree_has_the_shape_that_the_pages_demand(void **state)
{
    (void)state;
    assert_int_equal(store_manifest_root_level(1), 0);
    assert_int_equal(store_manifest_root_level(512), 0);
    assert_int_equal(store_manifest_root_level(513), 1);
    assert_int_equal(store_manifest_root_level(512 * 512), 1);
    assert_int_equal(store_manifest_root_level(512 * 512 + 1), 2);
    assert_int_equal(store_manifest_root_level(STORE_REGION_PAGES_MAX), STORE_LEVELS_MAX - 1);
    assert_int_equal(store_manifest_node_nr(1000, 0, 1), 488);
    assert_int_equal(store_manifest_node_nr(1000, 1, 0), 2);
    assert_int_equal(store_manifest_nr_entries(512 * 512 + 1, 2), 2);
}

static struct store_node *make_leaf(unsigned nr, unsigned skip)
{
    struct store_node *n = calloc(1, sizeof(*n));

    n->nr = nr;
    for (unsigned i = 0; i < nr; i++) {
        if (i % skip == 0)
            continue;
        n->digest[i].alg = STORE_ALG_SHA256;
        n->digest[i].b[0] = (uint8_t)i;
        n->digest[i].b[1] = (uint8_t)(i >> 8);
        n->loc[i] = 1000 + i + i / 40 * 100;
    }
    return n;
}

static void test_nodes_and_hints_come_back(void **state)
{
    static uint8_t bytes[STORE_NODE_LEN_MAX], hints[STORE_HINTS_LEN_MAX];
    struct store_node *got = calloc(1, sizeof(*got));

    (void)state;
    for (unsigned nr = 1; nr <= STORE_NODE_ENTRIES; nr += 73) {
        struct store_node *n = make_leaf(nr, 5);
        size_t len = store_node_encode(n, bytes);
        size_t hints_len = store_hints_encode(n, hints);

        assert_int_equal(store_node_decode(bytes, len, 0, nr, got, NULL), 0);
        assert_true(store_hints_decode(hints, hints_len, got));
        assert_memory_equal(got->digest, n->digest, nr * sizeof(n->digest[0]));
        assert_memory_equal(got->loc, n->loc, nr * sizeof(n->loc[0]));
        assert_int_equal(store_node_decode(bytes, len, 1, nr, got, NULL), -EBADMSG);
        assert_int_equal(store_node_decode(bytes, len, 0, nr + 1, got, NULL), -EBADMSG);
        for (size_t cut = 0; cut < len; cut += 1 + cut / 3)
            assert_int_equal(store_node_decode(bytes, cut, 0, nr, got, NULL), -EBADMSG);
        if (hints_len) {
            assert_int_equal(store_node_decode(bytes, len, 0, nr, got, NULL), 0);
            assert_false(store_hints_decode(hints, hints_len - 1, got));
            assert_false(store_hints_decode(hints, hints_len - STORE_HINT_LEN, got));
            hints[8] = 17;
            assert_false(store_hints_decode(hints, hints_len, got));
            for (unsigned i = 0; i < nr; i++)
                assert_int_equal(got->loc[i], 0);
        }
        free(n);
    }
    free(got);
}

/* ---- records ---- */

static void test_records_come_back_and_cuts_are_refused(void **state)
{
    struct store_digest chunk = {.alg = STORE_ALG_SHA256, .b = {9}};
    char config[] = "{\"x\":1}", disks[] = "";
    struct store_record in = {
        .time_ns = 5,
        .vm = "vm",
        .config = config,
        .disks = disks,
        .nr_regions = 2,
        .regions = {{.gpa = 0, .pages = 10}, {.gpa = MIB(1), .pages = 20}},
        .state_len = 100,
        .nr_chunks = 1,
        .chunks = &chunk,
        .counts = {.pages_new = 4                      },
    };
    struct store_record *out;
    uint8_t *bytes;
    size_t len;

    (void)state;
    assert_int_equal(store_record_encode(&in, &bytes, &len, NULL), 0);
    assert_int_equal(store_record_decode(bytes, len, &out, NULL), 0);
    assert_string_equal(out->vm, "vm");
    assert_string_equal(out->config, config);
    assert_int_equal(out->nr_regions, 2);
    assert_int_equal(out->regions[1].pages, 20);
    assert_int_equal(out->nr_chunks, 1);
    assert_int_equal(out->chunks[0].b[0], 9);
    assert_int_equal(out->counts.pages_new, 4);
    store_record_free(out);
    for (size_t cut = 0; cut < len; cut++)
        assert_true(store_record_decode(bytes, cut, &out, NULL) < 0);
    free(bytes);
    in.regions[1].gpa = 9 * PAGE_SIZE_4K; /* overlaps */
    assert_int_equal(store_record_encode(&in, &bytes, &len, NULL), 0);
    assert_int_equal(store_record_decode(bytes, len, &out, NULL), -EBADMSG);
    free(bytes);
}

/* ---- tables ---- */

static void test_maps_find_what_was_put(void **state)
{
    struct store_digest_map m = {0};
    struct store_id_map ids = {0};
    struct store_seen *seen;
    uint64_t loc;

    (void)state;
    assert_int_equal(store_seen_new(100, &seen), 0);
    for (unsigned i = 0; i < 5000; i++) {
        struct store_digest d = {.alg = STORE_ALG_SHA256};

        d.b[0] = (uint8_t)(i * 7);
        d.b[3] = (uint8_t)(i >> 8);
        d.b[9] = (uint8_t)i;
        assert_null(store_digest_map_find(&m, &d));
        assert_int_equal(store_digest_map_put(&m, &d, i), 0);
        assert_int_equal(*store_digest_map_find(&m, &d), i);
        assert_int_equal(store_id_map_or(&ids, i * 64, 1), 0);
        assert_int_equal(store_id_map_or(&ids, i * 64, 4), 0);
        assert_int_equal(*store_id_map_find(&ids, i * 64), 5);
        assert_null(store_id_map_find(&ids, i * 64 + 1));
        assert_false(store_seen_find(seen, &d, &loc));
        assert_int_equal(store_seen_claim(seen, &d, i + 1), i + 1);
        assert_int_equal(store_seen_claim(seen, &d, i + 9), i + 1);
        assert_true(store_seen_find(seen, &d, &loc));
        assert_int_equal(loc, i + 1);
    }
    store_digest_map_release(&m);
    store_id_map_release(&ids);
    store_seen_free(seen);
}

enum {
    CHOSEN = 1 << 16, /* keys of one family */
    RUN_MAX = 512,    /* of slots in use, one behind the other; by chance there are a hundred */
};

/* A digest whose four words are chosen, as whoever writes a store may. */
static struct store_digest chosen(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    const uint64_t w[] = {a, b, c, d};
    struct store_digest digest = {.alg = STORE_ALG_SHA256};

    _Static_assert(sizeof(w) == STORE_DIGEST_LEN, "all of a digest");
    memcpy(digest.b, w, sizeof(w));
    return digest;
}

static struct store_digest of_family(unsigned family, uint64_t i)
{
    switch (family) {
    case 0:
        return chosen(0, 0, 0, i + 1);
    case 1:
        return chosen(0, 0, i + 1, 0);
    case 2:
        return chosen(0, i + 1, 0, 0);
    case 3:
        return chosen(i + 1, 0, 0, 0);
    case 4:
        return chosen(i << 48, 1, 0, 0);
    case 5:
        return chosen(7, i << 48, 7, i << 32);
    case 6:
        return chosen(i, i, i, i);
    default:
        return chosen(i, ~i, 0 - i, i << 20);
    }
}

/* The most slots that a search looks at before it comes to a free one. */
static size_t longest_digest_run(const struct store_digest_map *m)
{
    size_t longest = 0, run = 0;

    for (size_t i = 0; i < m->cap; i++) {
        run = m->e[i].d.alg ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest;
}

static void test_digests_that_were_chosen_do_not_pile_up(void **state)
{
    (void)state;
    for (unsigned family = 0; family < 8; family++) {
        struct store_digest_map m = {0};

        for (uint64_t i = 0; i < CHOSEN; i++) {
            struct store_digest d = of_family(family, i);

            assert_int_equal(store_digest_map_put(&m, &d, i), 0);
            /* Before they cost hours. */
            if (i % 4096 == 4095 && longest_digest_run(&m) > RUN_MAX)
                fail_msg("family %u: %zu slots in a row", family, longest_digest_run(&m));
        }
        assert_int_equal(m.nr, CHOSEN);
        store_digest_map_release(&m);
    }
}

static size_t longest_id_run(const struct store_id_map *m)
{
    size_t longest = 0, run = 0;

    for (size_t i = 0; i < m->cap; i++) {
        run = m->e[i].used ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest;
}

static void test_ids_that_were_chosen_do_not_pile_up(void **state)
{
    /* times 0x9e3779b97f4a7c15 is 1: ids that a hash by the golden ratio puts in one place */
    const uint64_t golden_inverse = 0xf1de83e19937733d;

    (void)state;
    assert_true(golden_inverse * 0x9e3779b97f4a7c15 == 1);
    for (unsigned shift = 0; shift < 48; shift += 16) {
        for (unsigned family = 0; family < 2; family++) {
            struct store_id_map m = {0};

            for (uint64_t i = 0; i < CHOSEN; i++) {
                uint64_t id = (i << shift) * (family ? golden_inverse : 1);

                assert_int_equal(store_id_map_or(&m, id, 1), 0);
                if (i % 4096 == 4095 && longest_id_run(&m) > RUN_MAX)
                    fail_msg("family %u, shift %u: %zu slots in a row", family, shift,
                             longest_id_run(&m));
            }
            assert_int_equal(m.nr, CHOSEN);
            store_id_map_release(&m);
        }
    }
}

/* Who could say where a key lies could choose those that lie in one place. */
static void test_no_two_maps_have_the_same_places(void **state)
{
    struct store_digest_map a = {0}, b = {0};
    struct store_id_map x = {0}, y = {0};

    (void)state;
    for (uint64_t i = 0; i < 100; i++) {
        struct store_digest d = of_family(0, i);

        assert_int_equal(store_digest_map_put(&a, &d, i), 0);
        assert_int_equal(store_digest_map_put(&b, &d, i), 0);
        assert_int_equal(store_id_map_or(&x, i, 1), 0);
        assert_int_equal(store_id_map_or(&y, i, 1), 0);
    }
    assert_int_equal(a.cap, b.cap);
    assert_memory_not_equal(a.e, b.e, a.cap * sizeof(a.e[0]));
    assert_int_equal(x.cap, y.cap);
    assert_memory_not_equal(x.e, y.e, x.cap * sizeof(x.e[0]));
    store_digest_map_release(&a);
    store_digest_map_release(&b);
    store_id_map_release(&x);
    store_id_map_release(&y);
}

static int load_key(void *arg, uint64_t key, void *obj, struct err *err)
{
    ++*(unsigned *)arg;
    if (key == 13)
        return err_set(err, -EIO, "thirteen");
    *(uint64_t *)obj = key;
    return 0;
}

static void test_cache_keeps_what_was_used_last(void **state)
{
    struct store_cache *c;
    const void *obj;
    unsigned loads = 0;
    struct err err = {0};

    (void)state;
    assert_int_equal(store_cache_new(3, sizeof(uint64_t), &c), 0);
    for (uint64_t key = 0; key < 3; key++) {
        assert_int_equal(store_cache_get(c, key, load_key, &loads, &obj, NULL), 0);
        assert_int_equal(*(const uint64_t *)obj, key);
        store_cache_put(c, obj);
    }
    assert_int_equal(store_cache_get(c, 0, load_key, &loads, &obj, NULL), 0);
    store_cache_put(c, obj);
    assert_int_equal(loads, 3);
    assert_int_equal(store_cache_get(c, 9, load_key, &loads, &obj, NULL), 0);
    store_cache_put(c, obj);
    assert_int_equal(store_cache_get(c, 0, load_key, &loads, &obj, NULL), 0);
    store_cache_put(c, obj);
    assert_int_equal(loads, 4);
    assert_int_equal(store_cache_get(c, 13, load_key, &loads, &obj, &err), -EIO);
    assert_int_equal(store_cache_get(c, 13, load_key, &loads, &obj, &err), -EIO);
    assert_int_equal(loads, 6);
    store_cache_free(c);
}

/* ---- URLs ---- */

static void test_urls_are_taken_apart(void **state)
{
    static const struct {
        const char *text, *path, *snapshot;
        bool self_contained;
        int rc;
    } rows[] = {
        {"store:/a/b#c",   "/a/b",     "c",  false, 0      },
        {"store:///a/b#c", "/a/b",     "c",  false, 0      },
        {"store:/a#b#c",   "/a#b",     "c",  false, 0      },
        {"store:/a",       "/a",       "",   false, 0      },
        {"store:a/b",      "a/b",      "",   false, 0      },
        {"file:///a/b",    "/a/b",     "",   true,  0      },
        {"file:/a/b#c",    "/a/b#c",   "",   true,  0      },
        {"/a/b#c",         "/a/b#c",   "",   false, 0      },
        {"rel/path",       "rel/path", "",   false, 0      },
        {"store:/a#",      NULL,       NULL, false, -EINVAL},
        {"store://host/a", NULL,       NULL, false, -EINVAL},
        {"file://host/a",  NULL,       NULL, false, -EINVAL},
        {"file:a",         NULL,       NULL, false, -EINVAL},
        {"store:",         NULL,       NULL, false, -EINVAL},
        {"store:#x",       NULL,       NULL, false, -EINVAL},
        {"tcp:1.2.3.4:5",  NULL,       NULL, false, -EINVAL},
        {"",               NULL,       NULL, false, -EINVAL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct store_url url;
        struct err err = {0};

        assert_int_equal(store_url_parse(rows[i].text, &url, &err), rows[i].rc);
        if (rows[i].rc < 0) {
            assert_true(err.msg[0]);
            continue;
        }
        assert_string_equal(url.path, rows[i].path);
        assert_string_equal(url.snapshot, rows[i].snapshot);
        assert_int_equal(url.self_contained, rows[i].self_contained);
    }
}

static void test_names_keep_to_the_rules(void **state)
{
    char longest[STORE_NAME_MAX + 2];

    (void)state;
    memset(longest, 'a', sizeof(longest));
    longest[STORE_NAME_MAX + 1] = 0;
    assert_false(store_name_is_good(longest));
    longest[STORE_NAME_MAX] = 0;
    assert_true(store_name_is_good(longest));
    assert_true(store_name_is_good("a.b_c:d@e+f=g-h"));
    assert_false(store_name_is_good(""));
    assert_false(store_name_is_good("-a"));
    assert_false(store_name_is_good("a,b"));
    assert_false(store_name_is_good("a/b"));
    assert_false(store_name_is_good("a b"));
    assert_false(store_name_is_good("\033[31m"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_comes_back),
        cmocka_unit_test(test_noise_is_stored_raw),
        cmocka_unit_test(test_every_wrong_header_byte_is_refused_or_fails_the_check),
        cmocka_unit_test(test_frame_with_a_huge_declared_size_is_refused),
        cmocka_unit_test(test_pack_header_names_store_and_number),
        cmocka_unit_test(test_scan_walks_whole_segments_and_stops_at_a_torn_one),
        cmocka_unit_test(test_tree_has_the_shape_that_the_pages_demand),
        cmocka_unit_test(test_nodes_and_hints_come_back),
        cmocka_unit_test(test_records_come_back_and_cuts_are_refused),
        cmocka_unit_test(test_maps_find_what_was_put),
        cmocka_unit_test(test_digests_that_were_chosen_do_not_pile_up),
        cmocka_unit_test(test_ids_that_were_chosen_do_not_pile_up),
        cmocka_unit_test(test_no_two_maps_have_the_same_places),
        cmocka_unit_test(test_cache_keeps_what_was_used_last),
        cmocka_unit_test(test_urls_are_taken_apart),
        cmocka_unit_test(test_names_keep_to_the_rules),
    };

    return cmocka_run_group_tests_name("store_formats", tests, setup, teardown);
}
