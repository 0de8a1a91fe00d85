/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verifier: from the packs up to the snapshots.
 *
 * First every segment that the index names is looked at, and with it which rows
 * of the index are true.  Then the snapshots are held against that (store_verify_walk.c).
 */
#include <stdarg.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/store_verify_internal.h"

enum {
    SEG_HEADER_OK = 1U << 16, /* in the value of a segment, above a bit per slot */
    SEG_OBJECT = 1U << 17,    /* it holds a node or a piece of state */
    ROWS_SAID_MAX = 16,       /* rows that lie are told one by one up to here */
};

/* ---- reporting ---- */

void verify_say(struct verify *v, enum store_severity severity, const char *snapshot,
                const char *fmt, ...)
{
    struct store_problem p = {.severity = severity, .snapshot = snapshot};
    char text[2 * ERR_MSG_SIZE];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    p.what = text;
    v->res->problems += severity == STORE_WRONG;
    if (v->cfg->problem)
        v->cfg->problem(v->cfg->arg, &p);
}

static void verify_say_index(void *arg, const char *what)
{
    struct verify *v = arg;

    verify_say(v, STORE_WRONG, NULL, "store.db: %s", what);
}

int verify_no_memory(struct verify *v)
{
    return err_set(v->err, -ENOMEM, "out of memory");
}

/* ---- packs ---- */

static int verify_take_pack(void *arg, uint64_t id, uint64_t len)
{
    struct verify *v = arg;
    void *p = array_grow(v->packs, v->nr_packs, &v->cap_packs, sizeof(v->packs[0]));

    if (!p)
        return verify_no_memory(v);
    v->packs = p;
    v->packs[v->nr_packs++] = (struct store_verified_pack){.id = id, .len = len};
    return 0;
}

static int verify_pack_compare(const void *a, const void *b)
{
    const struct store_verified_pack *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static struct store_verified_pack *verify_pack_find(const struct verify *v, uint64_t id)
{
    const struct store_verified_pack key = {.id = id};

    if (!v->nr_packs)
        return NULL;
    return bsearch(&key, v->packs, v->nr_packs, sizeof(v->packs[0]), verify_pack_compare);
}

static int verify_pack_header(struct verify *v, struct store_verified_pack *p, struct err *why)
{
    const struct store_backend_ops *ops = v->st->be->ops;
    uint8_t hdr[STORE_PACK_HDR_LEN];
    struct store_file *file = NULL;
    uint64_t size = 0;
    int rc = store_fetch_file_get(v->st->fetch, p->id, &file, why);

    if (rc < 0)
        return rc;
    rc = ops->read(file, hdr, sizeof(hdr), 0, why);
    if (rc == 0)
        rc = store_pack_header_check(hdr, p->id, v->st->uuid, why);
    if (rc == 0)
        rc = ops->size(file, &size, why);
    if (rc == 0 && size < p->len) {
        /* Cut off, or its row lies: the segments tell, and where they end. */
        verify_say(v, STORE_WRONG, NULL, "pack %llu: is %llu bytes long instead of %llu",
                   (unsigned long long)p->id, (unsigned long long)size, (unsigned long long)p->len);
        p->fix = true;
    }
    if (rc == 0 && size > p->len)
        verify_say(v, STORE_NOTE, NULL, "pack %llu: %llu bytes behind its end",
                   (unsigned long long)p->id, (unsigned long long)(size - p->len));
    store_fetch_file_put(v->st->fetch, file);
    return rc;
}

static int verify_look_file(void *arg, uint64_t id, uint64_t len)
{
    struct verify *v = arg;

    if (!verify_pack_find(v, id))
        verify_say(v, STORE_NOTE, NULL, "pack %llu: %llu bytes that no snapshot needs",
                   (unsigned long long)id, (unsigned long long)len);
    return 0;
}

static int verify_packs(struct verify *v)
{
    uint8_t uuid[STORE_UUID_LEN];
    uint64_t last = 0;
    int rc = store_index_each_pack(v->ix, verify_take_pack, v, v->err);

    for (size_t i = 0; i < v->nr_packs && rc == 0; i++) {
        struct err why = {0};

        v->packs[i].good = verify_pack_header(v, &v->packs[i], &why) == 0;
        if (!v->packs[i].good)
            verify_say(v, STORE_WRONG, NULL, "pack %llu: %s", (unsigned long long)v->packs[i].id,
                       why.msg);
    }
    if (rc == 0)
        rc = store_index_identity(v->ix, uuid, &last, v->err);
    if (rc == 0 && v->nr_packs && v->packs[v->nr_packs - 1].id > last) {
        verify_say(v, STORE_WRONG, NULL, "store.db: last_pack is less than a pack's number");
        v->packs[v->nr_packs - 1].fix = true;
    }
    if (rc == 0)
        rc = v->st->be->ops->pack_list(v->st->be, verify_look_file, v, v->err);
    return rc;
}

/* ---- segments ---- */

static int verify_take_extent(void *arg, const struct store_extent *e)
{
    struct verify *v = arg;
    void *p = array_grow(v->extents, v->nr_extents, &v->cap_extents, sizeof(v->extents[0]));

    if (!p)
        return verify_no_memory(v);
    v->extents = p;
    v->extents[v->nr_extents++] = *e;
    v->bytes_total += e->len;
    return 0;
}

static int verify_extent_compare(const void *a, const void *b)
{
    const struct store_extent *x = a, *y = b;

    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    return x->off < y->off ? -1 : x->off > y->off;
}

/* Which items are where the index says they are; a bit each. */
static int verify_items(struct verify *v, const struct store_segment *seg,
                        const struct store_digest *d, uint32_t *ret, struct err *err)
{
    uint32_t mask = 0;

    for (unsigned i = 0; i < seg->nr_items; i++) {
        uint64_t at = 0;
        int rc = seg->kind == STORE_KIND_PAGES
                     ? store_index_page(v->ix, &d[i], &at, err)
                     : store_index_object(v->ix, &d[i], &at, NULL, NULL, err);

        if (rc < 0)
            return rc;
        if (rc > 0 && at == (seg->kind == STORE_KIND_PAGES ? store_loc_make(seg->id, i) : seg->id))
            mask |= 1U << i;
        else if (v->cfg->repair && v->pack_good &&
                 store_digest_map_put(&v->spares, &d[i], store_loc_make(seg->id, i)) < 0)
            return store_no_memory(err);
    }
    *ret = mask;
    return 0;
}

/* Look at one segment: its header, and with cfg->data every byte of it. */
static int verify_segment(struct verify *v, const struct store_extent *e, uint32_t *ret,
                          struct err *why)
{
    const bool data = v->cfg->data || v->cfg->repair;
    const size_t len = data ? e->len : STORE_SEGMENT_HDR_LEN;
    struct store_digest d[STORE_SEGMENT_SLOTS];
    struct store_segment *seg = &v->unpacked.seg;
    struct store_file *file = NULL;
    uint32_t mask;
    int rc = store_fetch_file_get(v->st->fetch, e->pack, &file, why);

    if (rc < 0)
        return rc;
    rc = v->st->be->ops->read(file, v->bytes, len, e->off, why);
    store_fetch_file_put(v->st->fetch, file);
    v->res->bytes += len;
    if (rc == 0)
        rc = store_segment_parse(v->bytes, seg, why);
    if (rc == 0 && (seg->id != e->id || seg->stored_len != e->len - STORE_SEGMENT_HDR_LEN))
        rc = err_set(why, -EBADMSG, "segment.id: is not the segment that belongs there");
    if (rc < 0)
        return rc;
    mask = (1U << seg->nr_items) - 1;
    if (data) {
        rc = store_segment_unpack(v->codec, seg, v->bytes + STORE_SEGMENT_HDR_LEN, v->unpacked.raw,
                                  why);
        if (rc == 0)
            rc = store_segment_check(seg, v->bytes, v->unpacked.raw, d, why);
        if (rc == 0)
            rc = verify_items(v, seg, d, &mask, why);
        if (rc == 0 && seg->kind == STORE_KIND_PAGES)
            v->res->pages += seg->nr_items;
    }
    *ret = mask | SEG_HEADER_OK | (seg->kind == STORE_KIND_PAGES ? 0 : SEG_OBJECT);
    return rc;
}

/* ---- what is elsewhere ---- */

static int verify_scan(struct verify *v)
{
    if (v->scan)
        return 0;
    return store_scan_new(v->st, &v->scan, v->err);
}

static int verify_mend(struct verify *v, const struct store_extent *e)
{
    void *p = array_grow(v->mended, v->nr_mended, &v->cap_mended, sizeof(v->mended[0]));

    if (!p)
        return verify_no_memory(v);
    v->mended = p;
    v->mended[v->nr_mended++] = *e;
    return 0;
}

/* The pack of a segment that was found, whose row lacks or is too short, gets one. */
static int verify_mend_pack(struct verify *v, const struct store_extent *e)
{
    struct store_verified_pack *p = verify_pack_find(v, e->pack);

    if (p && e->off + e->len <= p->len)
        return 0;
    verify_say(v, STORE_WRONG, NULL, "store.db: pack %llu: %s", (unsigned long long)e->pack,
               p ? "its row says that it is shorter than it is" : "has no row");
    if (!p) {
        int rc = verify_take_pack(v, e->pack, 0);

        if (rc < 0)
            return rc;
        p = &v->packs[v->nr_packs - 1];
    }
    p->good = p->fix = true;
    p->len = store_scan_pack_len(v->scan, e->pack);
    qsort(v->packs, v->nr_packs, sizeof(v->packs[0]), verify_pack_compare);
    return 0;
}

/*
 * A segment that is not where its row says: find it.  1 if it is sound elsewhere, and in a
 * repair *@e and *@value are those of that place now.
 */
static int verify_elsewhere(struct verify *v, struct store_extent *e, uint32_t *value,
                            const struct err *what)
{
    struct store_extent real;
    struct err why = {0};
    int rc = verify_scan(v);

    if (rc < 0 || !store_scan_find(v->scan, e->id, &real))
        return rc;
    v->pack_good = true;
    if (verify_segment(v, &real, value, &why) < 0) {
        *value = 0;
        return 0;
    }
    if (real.pack != e->pack || real.off != e->off || real.len != e->len) {
        verify_say(v, STORE_WRONG, NULL,
                   "store.db: segment %llu: %s; it is in pack %llu at %llu, %u bytes long",
                   (unsigned long long)e->id, what->msg, (unsigned long long)real.pack,
                   (unsigned long long)real.off, real.len);
    }
    rc = verify_mend_pack(v, &real);
    if (!v->cfg->repair)
        *value = 0;
    else if (rc == 0)
        rc = verify_mend(v, &real);
    if (v->cfg->repair)
        *e = real;
    return rc < 0 ? rc : 1;
}

static bool verify_reads_all(const struct verify *v)
{
    return v->cfg->data || v->cfg->repair;
}

/* ---- all segments ---- */

static int verify_extent(struct verify *v, struct store_extent *e, uint32_t *value)
{
    const struct store_verified_pack *p = verify_pack_find(v, e->pack);
    struct err why = {0};
    int rc, found = 0;

    v->pack_good = p && p->good;
    if (!p)
        rc = err_set(&why, -EBADMSG, "the index knows no such pack");
    else if (e->len > p->len || e->off > p->len - e->len)
        rc = err_set(&why, -EBADMSG, "lies behind the end of the pack");
    else
        rc = verify_segment(v, e, value, &why);
    if (rc < 0 && verify_reads_all(v))
        found = verify_elsewhere(v, e, value, &why);
    if (rc < 0 && found == 0) {
        verify_say(v, STORE_WRONG, NULL, "pack %llu, segment %llu at %llu: %s",
                   (unsigned long long)e->pack, (unsigned long long)e->id,
                   (unsigned long long)e->off, why.msg);
    }
    return found < 0 ? found : 0;
}

static int verify_miss(struct verify *v, uint64_t segment)
{
    const uint32_t *known = store_id_map_find(&v->missing, segment);

    return known || store_id_map_or(&v->missing, segment, 1) == 0 ? 0 : verify_no_memory(v);
}

static int verify_miss_page(void *arg, const struct store_digest *d, uint64_t loc)
{
    (void)d;
    return verify_miss(arg, store_loc_segment(loc));
}

static int verify_miss_object(void *arg, const struct store_digest *d, uint64_t segment)
{
    (void)d;
    return verify_miss(arg, segment);
}

/* Segments that have lost their rows are taken in; a repair writes these anew. */
static int verify_find_missing(struct verify *v)
{
    int rc = 0;

    for (size_t i = 0; i < v->nr_extents && rc == 0; i++)
        if (store_id_map_or(&v->missing, v->extents[i].id, 2) < 0)
            rc = verify_no_memory(v);
    if (rc == 0)
        rc = store_index_each_page(v->ix, verify_miss_page, v, v->err);
    if (rc == 0)
        rc = store_index_each_object(v->ix, verify_miss_object, v, v->err);
    for (size_t i = 0; i < v->missing.cap && rc == 0; i++) {
        struct store_extent real;

        if (!v->missing.e[i].used || v->missing.e[i].value != 1)
            continue;
        rc = verify_scan(v);
        if (rc < 0 || !store_scan_find(v->scan, v->missing.e[i].id, &real))
            continue;
        verify_say(v, STORE_WRONG, NULL, "store.db: segment %llu: has no row; it is in pack %llu",
                   (unsigned long long)real.id, (unsigned long long)real.pack);
        if (v->cfg->repair)
            rc = verify_mend(v, &real);
        if (v->cfg->repair && rc == 0)
            rc = verify_take_extent(v, &real);
    }
    return rc;
}

static int verify_segments(struct verify *v)
{
    int rc = store_index_each_extent(v->ix, verify_take_extent, v, v->err);
    uint64_t done = 0;

    if (rc == 0 && verify_reads_all(v))
        rc = verify_find_missing(v);
    if (rc == 0 && v->nr_extents)
        qsort(v->extents, v->nr_extents, sizeof(v->extents[0]), verify_extent_compare);
    for (size_t i = 0; i < v->nr_extents && rc == 0; i++) {
        struct store_extent *e = &v->extents[i];
        struct store_verified_pack *p;
        uint32_t value = 0;

        v->res->segments++;
        done += e->len;
        rc = verify_extent(v, e, &value);
        p = verify_pack_find(v, e->pack);
        if ((value & SEG_HEADER_OK) && p && e->off + e->len > p->end)
            p->end = e->off + e->len;
        /* What lies in a pack that is not sound is to be moved out of it. */
        if (v->cfg->repair && !v->pack_good)
            value = 0;
        if (rc == 0 && store_id_map_or(&v->segments, e->id, value) < 0)
            rc = verify_no_memory(v);
        if (v->cfg->progress)
            v->cfg->progress(v->cfg->arg, done, v->bytes_total);
    }
    return rc;
}

/* ---- rows ---- */

bool verify_loc_is_true(const struct verify *v, uint64_t loc)
{
    const uint32_t *value = store_id_map_find(&v->segments, store_loc_segment(loc));

    return value && (*value & SEG_HEADER_OK) && !(*value & SEG_OBJECT) &&
           *value >> store_loc_slot(loc) & 1;
}

static bool verify_object_is_true(const struct verify *v, uint64_t segment)
{
    const uint32_t *value = store_id_map_find(&v->segments, segment);

    return value && (*value & SEG_HEADER_OK) && (*value & SEG_OBJECT) && (*value & 1);
}

static void verify_say_row(struct verify *v, const char *what, const struct store_digest *d,
                           uint64_t segment, unsigned slot)
{
    char hex[STORE_DIGEST_HEX + 1];

    if (v->rows_said++ >= ROWS_SAID_MAX)
        return;
    store_digest_hex(d, hex);
    verify_say(v, STORE_WRONG, NULL,
               "store.db: %s %.*s: its row leads to segment %llu, slot %u, where another is", what,
               STORE_ID_SHORT, hex, (unsigned long long)segment, slot);
}

/* A place that looks true for the row at hand: whether another row has it as well is noted. */
static int verify_claim(struct verify *v, uint64_t segment, uint32_t bits)
{
    const uint32_t *seen = store_id_map_find(&v->seen, segment);
    int rc = 0;

    if (seen && (*seen & bits))
        rc = store_id_map_or(&v->contested, segment, bits);
    if (rc == 0)
        rc = store_id_map_or(&v->seen, segment, bits);
    return rc < 0 ? verify_no_memory(v) : 0;
}

static int verify_page_row(void *arg, const struct store_digest *d, uint64_t loc)
{
    struct verify *v = arg;
    const uint64_t segment = store_loc_segment(loc);
    const uint32_t *value = store_id_map_find(&v->segments, segment);

    v->nr_pages++;
    if (verify_loc_is_true(v, loc))
        return verify_claim(v, segment, 1U << store_loc_slot(loc));
    v->bad_pages++;
    if (value && (*value & SEG_HEADER_OK))
        verify_say_row(v, "page", d, segment, store_loc_slot(loc));
    return 0;
}

static int verify_object_row(void *arg, const struct store_digest *d, uint64_t segment)
{
    struct verify *v = arg;
    const uint32_t *value = store_id_map_find(&v->segments, segment);

    if (verify_object_is_true(v, segment))
        return verify_claim(v, segment, SEG_OBJECT);
    v->bad_objects++;
    if (value && (*value & SEG_HEADER_OK))
        verify_say_row(v, "object", d, segment, 0);
    return 0;
}

/*
 * Of rows that lead to one place all but one lie: what is there, is there for the one that it
 * is the contents of.  What cannot be read now is not judged.
 */
static int verify_judge(struct verify *v, const struct store_digest *d, uint64_t segment,
                        unsigned slot, const char *what)
{
    const struct store_unpacked *u = NULL;
    bool lies;

    if (store_fetch_segment(v->st->fetch, segment, &u, NULL) < 0)
        return 0;
    lies = slot >= u->seg.nr_items || !store_digest_equal(&u->digests[slot], d);
    store_fetch_put(v->st->fetch, u);
    if (!lies)
        return 0;
    verify_say_row(v, what, d, segment, slot);
    *(*store_id_map_find(&v->segments, segment) & SEG_OBJECT ? &v->bad_objects : &v->bad_pages) +=
        1;
    return store_digest_map_put(&v->liars, d, 1) < 0 ? verify_no_memory(v) : 0;
}

static int verify_judge_page(void *arg, const struct store_digest *d, uint64_t loc)
{
    struct verify *v = arg;
    const uint32_t *bits = store_id_map_find(&v->contested, store_loc_segment(loc));
    unsigned slot = store_loc_slot(loc);

    if (!bits || !(*bits >> slot & 1) || !verify_loc_is_true(v, loc))
        return 0;
    return verify_judge(v, d, store_loc_segment(loc), slot, "page");
}

static int verify_judge_object(void *arg, const struct store_digest *d, uint64_t segment)
{
    struct verify *v = arg;
    const uint32_t *bits = store_id_map_find(&v->contested, segment);

    if (!bits || !(*bits & SEG_OBJECT) || !verify_object_is_true(v, segment))
        return 0;
    return verify_judge(v, d, segment, 0, "object");
}

static int verify_rows(struct verify *v)
{
    uint64_t nr = 0;
    int rc = store_index_each_page(v->ix, verify_page_row, v, v->err);

    if (rc == 0)
        rc = store_index_nr_pages(v->ix, &nr, v->err);
    if (rc == 0 && nr != v->nr_pages)
        verify_say(v, STORE_WRONG, NULL, "store.db: counts %llu pages and has %llu",
                   (unsigned long long)nr, (unsigned long long)v->nr_pages);
    if (rc == 0)
        rc = store_index_each_object(v->ix, verify_object_row, v, v->err);
    if (rc == 0 && v->contested.nr)
        rc = store_index_each_page(v->ix, verify_judge_page, v, v->err);
    if (rc == 0 && v->contested.nr)
        rc = store_index_each_object(v->ix, verify_judge_object, v, v->err);
    if (v->bad_pages)
        verify_say(v, STORE_WRONG, NULL, "store.db: %llu rows of pages lead to nothing or wrong",
                   (unsigned long long)v->bad_pages);
    if (v->bad_objects)
        verify_say(v, STORE_WRONG, NULL, "store.db: %llu rows of objects lead to nothing or wrong",
                   (unsigned long long)v->bad_objects);
    return rc;
}

bool verify_row_lies(const struct verify *v, const struct store_digest *d)
{
    return store_digest_map_find(&v->liars, d) != NULL;
}

/* ---- life cycle ---- */

/*
 * Run a part.  One that meets damage in the database itself ends early; that is
 * a finding, and the other parts still run.
 */
static int verify_part(struct verify *v, int (*part)(struct verify *v), struct err *err)
{
    struct err why = {0};
    int rc;

    v->err = &why;
    rc = part(v);
    v->err = NULL;
    if (rc == -EBADMSG) {
        verify_say(v, STORE_WRONG, NULL, "%s", why.msg);
        rc = 0;
    }
    return rc < 0 ? err_set(err, rc, "%s", why.msg) : 0;
}

static int verify_index(struct verify *v)
{
    return store_index_check(v->ix, verify_say_index, v, v->err);
}

static bool repair_page_is_true(void *arg, const struct store_digest *d, uint64_t loc)
{
    return verify_loc_is_true(arg, loc) && !verify_row_lies(arg, d);
}

static bool repair_object_is_true(void *arg, const struct store_digest *d, uint64_t segment)
{
    return verify_object_is_true(arg, segment) && !verify_row_lies(arg, d);
}

static bool repair_segment_is_sound(void *arg, const struct store_extent *e)
{
    const struct verify *v = arg;
    const struct store_verified_pack *p = verify_pack_find(v, e->pack);
    const uint32_t *value = store_id_map_find(&v->segments, e->id);

    return p && p->good && value && (*value & SEG_HEADER_OK);
}

static int verify_repair(struct verify *v, struct err *err)
{
    const struct store_repair r = {
        .st = v->st,
        .ix = v->ix,
        .codec = v->codec,
        .extents = v->extents,
        .nr_extents = v->nr_extents,
        .mended = v->mended,
        .nr_mended = v->nr_mended,
        .packs = v->packs,
        .nr_packs = v->nr_packs,
        .spares = &v->spares,
        .page_is_true = repair_page_is_true,
        .object_is_true = repair_object_is_true,
        .segment_is_sound = repair_segment_is_sound,
        .arg = v,
        .res = v->res,
    };

    store_index_rollback(v->ix); /* the end of seeing one state */
    return v->res->problems ? store_repair(&r, err) : 0;
}

static int verify_all(struct verify *v, struct err *err)
{
    int (*const parts[])(struct verify *) = {verify_index, verify_packs, verify_segments,
                                             verify_rows, verify_snapshots};
    int rc = store_index_begin_read(v->ix, err);

    for (size_t i = 0; i < ARRAY_LEN(parts) && rc == 0; i++)
        rc = verify_part(v, parts[i], err);
    return rc;
}

static void verify_free(struct verify *v)
{
    if (!v)
        return;
    store_codec_free(v->codec);
    store_index_close(v->ix);
    store_id_map_release(&v->segments);
    store_digest_map_release(&v->trees);
    store_digest_map_release(&v->spares);
    store_digest_map_release(&v->liars);
    store_id_map_release(&v->missing);
    store_id_map_release(&v->seen);
    store_id_map_release(&v->contested);
    store_scan_free(v->scan);
    free(v->mended);
    free(v->packs);
    free(v->extents);
    free(v);
}

/* Who is kept out while the verifier is at work. */
struct verify_locks {
    struct store_lock *writers, *collector, *settler;
};

/* Writers are welcome beside a verifier, the collector's sweep is not; a repair wants neither. */
static int verify_lock(struct store *st, bool repair, struct verify_locks *ret, struct err *err)
{
    struct store_backend *be = st->be;
    int rc;

    if (!repair)
        return be->readonly ? 0 : store_lock_as_writer(st, true, &ret->writers, err);
    rc = store_write_check(st, err);
    if (rc == 0)
        rc = be->ops->lock(be, STORE_LOCK_COLLECTOR, STORE_LOCK_EXCLUSIVE, false, &ret->collector,
                           err);
    if (rc == -EAGAIN)
        return err_set(err, -EBUSY, "a collection or another repair is at work");
    if (rc == 0)
        rc = be->ops->lock(be, STORE_LOCK_WRITERS, STORE_LOCK_EXCLUSIVE, false, &ret->writers, err);
    if (rc == -EAGAIN)
        return err_set(err, -EBUSY, "a snapshot is being written, or the store is being verified");
    if (rc == 0)
        rc = be->ops->lock(be, STORE_LOCK_SETTLER, STORE_LOCK_EXCLUSIVE, true, &ret->settler, err);
    return rc;
}

int store_verify(struct store *st, const struct store_verify_cfg *cfg,
                 struct store_verify_result *ret_res, struct err *err)
{
    struct store_verify_result res = {0};
    struct verify *v = calloc(1, sizeof(*v));
    struct verify_locks locks = {0};
    int rc;

    if (!v)
        return store_no_memory(err);
    v->st = st;
    v->cfg = cfg;
    v->res = &res;
    rc = verify_lock(st, cfg->repair, &locks, err);
    if (rc == 0)
        rc = store_codec_new(&v->codec, err);
    if (rc == 0)
        rc = store_index_open(st->be, 0, &v->ix, err);
    if (rc == 0)
        rc = verify_all(v, err);
    if (rc == 0 && cfg->repair)
        rc = verify_repair(v, err);
    verify_free(v);
    st->be->ops->unlock(st->be, locks.settler);
    st->be->ops->unlock(st->be, locks.writers);
    st->be->ops->unlock(st->be, locks.collector);
    if (rc == 0)
        *ret_res = res;
    return rc;
}
