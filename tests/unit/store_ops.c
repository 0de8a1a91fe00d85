/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store_ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/store_pack.h"
#include "store/store_stream.h"

enum {
    PAGES = 700, /* two leaves */
    THIN = 5,    /* of so many pages one is not zero: what is stored is read thousands of times */
    STREAM_MAX = 8 << 20,
};

static struct fixture base, other;
static uint8_t *stream;
static size_t stream_len;
static struct image img_a, img_b, img_new;

static int sink(void *arg, const void *data, size_t len, struct err *err)
{
    (void)arg;
    if (len > STREAM_MAX - stream_len)
        return err_set(err, -E2BIG, "STREAM_MAX is too small");
    memcpy(stream + stream_len, data, len);
    stream_len += len;
    return 0;
}

/* Another store with "b" and "new", and "new" as a stream. */
static int make_other(struct err *err)
{
    static const struct store_stream_cfg plain;
    struct store_stream_result res;
    struct store_snapshot *snap;
    struct store *st;
    int rc;

    stream = malloc(STREAM_MAX);
    assert_non_null(stream);
    stream_len = 0;
    fixture_make(&other);
    tree_copy(base.path, other.path);
    rc = store_open(other.path, 0, &st, err);
    if (rc == 0)
        rc = image_put_alone(st, &img_new, "b", "new", NULL, err);
    if (rc == 0)
        rc = store_snapshot_open(st, "new", &snap, err);
    if (rc < 0)
        return rc;
    rc = store_export(snap, sink, NULL, &plain, &res, err);
    store_snapshot_close(snap);
    store_close(st);
    return rc;
}

/* Two leaves and little in them. */
static struct image image_make_thin(uint64_t seed, uint64_t of)
{
    struct image img = image_make(PAGES, seed);

    for (uint64_t i = 0; i < PAGES; i++)
        if (i % of)
            memset(img.p + i * PAGE_SIZE_4K, 0, PAGE_SIZE_4K);
    return img;
}

int operations_setup(void **state)
{
    struct store_gc_result gc;
    struct image gone;
    struct err err = {0};
    struct store *st;
    int rc;

    (void)state;
    fixture_make(&base);
    img_a = image_make_thin(1, THIN);
    img_b = image_copy(&img_a);
    for (uint64_t i = 0; i < 40; i++)
        image_touch(&img_b, i * 3, 1);
    gone = image_make_thin(2, 2);
    /* Of this one's pack a few pages survive, in "new" only: it is to be rewritten. */
    img_new = image_copy(&img_b);
    memcpy(img_b.p + 300 * PAGE_SIZE_4K, gone.p + 300 * PAGE_SIZE_4K, 30 * PAGE_SIZE_4K);
    for (uint64_t i = 0; i < 60; i++)
        image_touch(&img_new, 100 + i, 5);
    rc = store_open(base.path, STORE_CREATE, &st, &err);
    if (rc == 0)
        rc = image_put_alone(st, &gone, NULL, "gone", NULL, &err);
    if (rc == 0)
        rc = image_put_alone(st, &img_a, NULL, "a", NULL, &err);
    if (rc == 0)
        rc = image_put_alone(st, &img_b, "a", "b", NULL, &err);
    if (rc == 0)
        rc = store_remove(st, "gone", &err);
    if (rc == 0)
        rc = store_gc(st, STORE_GC_DRY_RUN, NULL, NULL, &gc, &err);
    /* A collection is to have both kinds of work. */
    assert_true(rc < 0 || (gc.packs_rewritten > 0 && gc.pages_dropped > 0));
    image_free(&gone);
    store_close(st);
    if (rc == 0)
        rc = make_other(&err);
    if (rc < 0)
        print_error("%s\n", err.msg);
    return rc;
}

int operations_teardown(void **state)
{
    (void)state;
    fixture_remove(&base);
    fixture_remove(&other);
    free(stream);
    image_free(&img_a);
    image_free(&img_b);
    image_free(&img_new);
    return 0;
}

/* ---- what may be interrupted ---- */

static int with_store(const char *path, unsigned flags, struct err *err,
                      int (*fn)(struct store *st, struct err *err))
{
    struct store *st;
    int rc = store_open(path, flags, &st, err);

    if (rc == 0) {
        rc = fn(st, err);
        store_close(st);
    }
    return rc;
}

static int do_put(struct store *st, struct err *err)
{
    return image_put_alone(st, &img_new, "b", "new", NULL, err);
}

static int do_remove(struct store *st, struct err *err)
{
    return store_remove(st, "a", err);
}

static int do_collect(struct store *st, struct err *err)
{
    struct store_gc_result r;

    return store_gc(st, 0, NULL, NULL, &r, err);
}

static int do_label(struct store *st, struct err *err)
{
    const struct store_relabel change = {.add = "tag"};

    return store_relabel(st, "a", &change, 1, err);
}

static int operation_put(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_put);
}

static int operation_remove(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_remove);
}

static int operation_collect(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_collect);
}

static int operation_label(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_label);
}

struct cursor {
    size_t at;
};

static ssize_t source(void *arg, void *data, size_t len, struct err *err)
{
    struct cursor *c = arg;
    size_t n = stream_len - c->at < len ? stream_len - c->at : len;

    (void)err;
    memcpy(data, stream + c->at, n);
    c->at += n;
    return (ssize_t)n;
}

static int do_import(struct store *st, struct err *err)
{
    static const struct store_stream_cfg plain;
    struct store_stream_result res;
    struct cursor c = {0};
    int rc = store_import(st, source, &c, &plain, &res, err);

    return rc > 0 ? 0 : rc;
}

static int do_copy(struct store *st, struct err *err)
{
    static const struct store_stream_cfg plain;
    struct store_stream_result res;
    struct store_snapshot *snap;
    struct store *from;
    int rc = store_open(other.path, STORE_RDONLY, &from, err);

    if (rc < 0)
        return rc;
    rc = store_snapshot_open(from, "new", &snap, err);
    if (rc == 0) {
        rc = store_copy(snap, st, &plain, &res, err);
        store_snapshot_close(snap);
    }
    store_close(from);
    return rc;
}

/* As chsnap prune --keep-last 1, and gc. */
static int do_prune(struct store *st, struct err *err)
{
    int rc = do_remove(st, err);

    return rc < 0 ? rc : do_collect(st, err);
}

static int do_repair(struct store *st, struct err *err)
{
    const struct store_verify_cfg cfg = {.repair = true};
    struct store_verify_result res;

    return store_verify(st, &cfg, &res, err);
}

static int operation_import(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_import);
}

static int operation_copy(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_copy);
}

static int operation_prune(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_prune);
}

static int operation_repair(const char *path, struct err *err)
{
    return with_store(path, 0, err, do_repair);
}

const struct operation operations[OPERATIONS] = {
    {"put",     operation_put,     {.has_new = true}   },
    {"remove",  operation_remove,  {.may_lose_a = true}},
    {"collect", operation_collect, {0}                 },
    {"label",   operation_label,   {0}                 },
    {"import",  operation_import,  {.has_new = true}   },
    {"copy",    operation_copy,    {.has_new = true}   },
    {"prune",   operation_prune,   {.may_lose_a = true}},
    {"repair",  operation_repair,  {.damaged = true}   },
};

/* Break two segments of the pack of "a": one past reading, one in its header's digest only. */
static void damage(const char *path)
{
    char name[2 * FIXTURE_PATH_MAX];
    uint64_t off = STORE_PACK_HDR_LEN;
    uint8_t hdr[STORE_SEGMENT_HDR_LEN];
    unsigned left = 2;
    int fd;

    (void)snprintf(name, sizeof(name), "%s/packs/00000002.pack", path);
    fd = open(name, O_RDWR);
    assert_true(fd >= 0);
    while (left) {
        struct store_segment seg;
        uint64_t at;
        uint8_t b;

        assert_int_equal(pread(fd, hdr, sizeof(hdr), (off_t)off), sizeof(hdr));
        assert_int_equal(store_segment_parse(hdr, &seg, NULL), 0);
        at = off + (left == 2 ? STORE_SEGMENT_HDR_LEN + 30 : 40);
        assert_int_equal(pread(fd, &b, 1, (off_t)at), 1);
        b ^= 0x08;
        assert_int_equal(pwrite(fd, &b, 1, (off_t)at), 1);
        off += STORE_SEGMENT_HDR_LEN + seg.stored_len;
        left--;
    }
    (void)close(fd);
}

void operation_prepare(const struct operation *op, const char *path)
{
    tree_copy(base.path, path);
    if (op->expect.damaged)
        damage(path);
}

/* ---- what must hold afterwards ---- */

static bool has(struct store *st, const char *name)
{
    char id[STORE_DIGEST_HEX + 1];
    int rc = store_resolve(st, name, id, NULL);

    assert_true(rc == 0 || rc == -ENOENT);
    return rc == 0;
}

/* A damaged store: a repair goes to its end now, and the contents heal it. */
static void mend(struct store *st)
{
    struct err err = {0};

    assert_ok(do_repair(st, &err), &err);
    assert_ok(image_put_alone(st, &img_a, NULL, NULL, NULL, &err), &err);
    assert_ok(image_put_alone(st, &img_b, NULL, NULL, NULL, &err), &err);
}

int operation_compare(struct store *st, struct err *err)
{
    return image_compare(st, "b", &img_b, err);
}

void operation_check(const char *path, const struct outcome *o)
{
    struct store_gc_result gc;
    struct store_stats stats;
    struct err err = {0};
    struct store *st;

    assert_ok(store_open(path, 0, &st, &err), &err);
    if (o->damaged)
        mend(st);
    assert_int_equal(store_problems(st, true), 0);
    assert_int_equal(image_compare(st, "b", &img_b, &err), 0);
    assert_true(has(st, "a") ? !(o->done && o->may_lose_a) : o->may_lose_a);
    if (has(st, "a"))
        assert_int_equal(image_compare(st, "a", &img_a, &err), 0);
    assert_true(has(st, "new") || !o->done || !o->has_new);
    if (has(st, "new"))
        assert_int_equal(image_compare(st, "new", &img_new, &err), 0);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_int_equal(store_problems(st, true), 0);
    assert_int_equal(image_compare(st, "b", &img_b, &err), 0);
    assert_ok(store_stats(st, &stats, &err), &err);
    assert_int_equal(stats.bytes_others, 0);
    /* And it is as good as before. */
    assert_ok(image_put(st, &img_new, "b", "after", NULL, &err), &err);
    assert_int_equal(image_compare(st, "after", &img_new, &err), 0);
    store_close(st);
}
