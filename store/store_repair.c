/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_repair.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "store/store_reader_internal.h"
#include "store/store_whole.h"

/* What has a row that leads to nothing true, or has none, and what becomes of it. */
struct broken {
    struct store_digest d;
    uint64_t at; /* loc or segment, as the row or the hint says; then the new one */
    bool found;  /* @at is true now */
    size_t hints_len;
    uint8_t *hints; /* of a leaf; owned */
};

struct broken_list {
    size_t nr, cap;
    struct broken *b;
};

struct repair {
    const struct store_repair *in;
    struct err *err;
    struct broken_list pages, objects;
    struct store_file *file; /* new pack; NULL until something has to be moved */
    uint64_t end;
    uint32_t nr_ids;
    size_t nr_moved, cap_moved;
    struct store_extent *moved; /* segments of the new pack */
    unsigned nr;                /* pages waiting in @raw */
    struct store_digest digests[STORE_SEGMENT_SLOTS];
    uint8_t raw[STORE_SEGMENT_RAW_MAX];
    uint8_t out[STORE_SEGMENT_LEN_MAX];
    struct store_object object;
    struct broken_list leaves; /* not broken: all that have hints, and their segments */
    struct store_node leaf;
    uint8_t hints[STORE_HINTS_LEN_MAX];
};

static int list_add(struct repair *r, struct broken_list *l, const struct store_digest *d,
                    uint64_t at)
{
    void *p = array_grow(l->b, l->nr, &l->cap, sizeof(l->b[0]));

    if (!p)
        return store_no_memory(r->err);
    l->b = p;
    l->b[l->nr++] = (struct broken){.d = *d, .at = at};
    return 0;
}

static int look_page(void *arg, const struct store_digest *d, uint64_t loc)
{
    struct repair *r = arg;

    return r->in->page_is_true(r->in->arg, d, loc) ? 0 : list_add(r, &r->pages, d, loc);
}

static int look_object(void *arg, const struct store_digest *d, uint64_t segment)
{
    struct repair *r = arg;

    return r->in->object_is_true(r->in->arg, d, segment) ? 0 : list_add(r, &r->objects, d, segment);
}

/* ---- leaves ---- */

static int take_leaf(void *arg, const struct store_digest *d, uint64_t segment)
{
    struct repair *r = arg;
    size_t len = 0;
    int rc = store_index_object(r->in->ix, d, &segment, r->hints, &len, r->err);

    return rc > 0 && len ? list_add(r, &r->leaves, d, segment) : rc < 0 ? rc : 0;
}

/* Into @leaf, with its hints; false if it is no leaf. */
static bool load_leaf(struct repair *r, const struct store_digest *d)
{
    struct store_object *o = &r->object;
    struct store_node_wire w;

    if (store_fetch_object(r->in->st->fetch, d, STORE_KIND_NODE, o, NULL) < 0 || o->len < sizeof(w))
        return false;
    memcpy(&w, o->raw, sizeof(w));
    if (le16_get(w.nr) > STORE_NODE_ENTRIES ||
        store_node_decode(o->raw, o->len, 0, le16_get(w.nr), &r->leaf, NULL) < 0)
        return false;
    (void)store_hints_decode(o->hints, o->hints_len, &r->leaf);
    return true;
}

/* A page that a leaf names, and that has no row: it may be where the hint says. */
static int look_rowless(struct repair *r, const struct store_digest *d, uint64_t hint,
                        struct store_digest_map *seen)
{
    uint64_t loc;
    int rc;

    if (!hint || store_digest_is_zero(d) || store_digest_map_find(seen, d))
        return 0;
    rc = store_index_page(r->in->ix, d, &loc, r->err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (store_digest_map_put(seen, d, hint) < 0)
        return store_no_memory(r->err);
    return list_add(r, &r->pages, d, hint);
}

static int look_leaves(struct repair *r)
{
    struct store_digest_map seen = {0};
    int rc = store_index_each_object(r->in->ix, take_leaf, r, r->err);

    for (size_t i = 0; i < r->leaves.nr && rc == 0; i++) {
        if (!load_leaf(r, &r->leaves.b[i].d))
            continue;
        for (unsigned e = 0; e < r->leaf.nr && rc == 0; e++)
            rc = look_rowless(r, &r->leaf.digest[e], r->leaf.loc[e], &seen);
    }
    store_digest_map_release(&seen);
    r->leaves.nr = 0;
    return rc;
}

/* ---- the new pack ---- */

static int pack_open(struct repair *r)
{
    struct store_backend *be = r->in->st->be;
    uint8_t uuid[STORE_UUID_LEN];
    uint64_t last = 0;
    int rc = store_index_identity(r->in->ix, uuid, &last, r->err);

    if (rc == 0)
        rc = store_pack_create(be, last + 1, uuid, &r->file, r->err);
    r->end = STORE_PACK_HDR_LEN;
    return rc;
}

/* Append a segment made of @raw and @digests. */
static int pack_append(struct repair *r, enum store_segment_kind kind, unsigned items,
                       uint32_t raw_len)
{
    struct store_segment seg = {.kind = kind, .nr_items = items, .raw_len = raw_len};
    void *p = array_grow(r->moved, r->nr_moved, &r->cap_moved, sizeof(r->moved[0]));
    uint32_t n;
    int rc;

    if (!p)
        return store_no_memory(r->err);
    r->moved = p;
    seg.id = store_segment_id_make(r->file->id, r->nr_ids++);
    n = store_segment_pack(r->in->codec, &seg, r->raw, r->digests, r->out);
    rc = r->in->st->be->ops->write(r->file, r->out, n, r->end, r->err);
    if (rc < 0)
        return rc;
    r->moved[r->nr_moved++] =
        (struct store_extent){.id = seg.id, .pack = r->file->id, .off = r->end, .len = n};
    r->end += n;
    return 0;
}

static int pack_flush_pages(struct repair *r)
{
    unsigned nr = r->nr;

    r->nr = 0;
    return nr ? pack_append(r, STORE_KIND_PAGES, nr, (uint32_t)(nr * PAGE_SIZE_4K)) : 0;
}

/* ---- keeping what can be read ---- */

/* Whether the page can still be read where its row says; into the next slot of @raw. */
static bool page_reads(struct repair *r, const struct broken *b)
{
    const struct store_unpacked *u = NULL;
    unsigned slot = store_loc_slot(b->at);
    bool good = false;

    if (store_fetch_segment(r->in->st->fetch, store_loc_segment(b->at), &u, NULL) < 0)
        return false;
    if (u->seg.kind == STORE_KIND_PAGES && slot < u->seg.nr_items) {
        good = store_digest_equal(&u->digests[slot], &b->d);
        if (good)
            memcpy(r->raw + r->nr * PAGE_SIZE_4K, u->raw + slot * PAGE_SIZE_4K, PAGE_SIZE_4K);
    }
    store_fetch_put(r->in->st->fetch, u);
    return good;
}

static int save_page(struct repair *r, struct broken *b)
{
    const uint64_t *spare = store_digest_map_find(r->in->spares, &b->d);
    int rc = 0;

    if (spare) {
        b->at = *spare;
        b->found = true;
        return 0;
    }
    b->found = page_reads(r, b);
    /* It had no row, and is sound where it is. */
    if (!b->found || r->in->page_is_true(r->in->arg, &b->d, b->at))
        return 0;
    if (!r->file)
        rc = pack_open(r);
    if (rc < 0)
        return rc;
    assert(r->file);
    b->at = store_loc_make(store_segment_id_make(r->file->id, r->nr_ids), r->nr);
    r->digests[r->nr++] = b->d;
    return r->nr == STORE_SEGMENT_SLOTS ? pack_flush_pages(r) : 0;
}

static int save_object(struct repair *r, struct broken *b)
{
    static const enum store_segment_kind kinds[] = {STORE_KIND_NODE, STORE_KIND_BLOB};
    const uint64_t *spare = store_digest_map_find(r->in->spares, &b->d);
    size_t k;
    int rc = 0;

    for (k = 0; k < ARRAY_LEN(kinds); k++)
        if (store_fetch_object(r->in->st->fetch, &b->d, kinds[k], &r->object, NULL) == 0)
            break;
    if (k == ARRAY_LEN(kinds)) {
        b->found = spare != NULL;
        b->at = spare ? store_loc_segment(*spare) : 0;
        return 0;
    }
    if (!r->file)
        rc = pack_open(r);
    if (rc < 0)
        return rc;
    assert(r->file);
    b->hints_len = r->object.hints_len;
    b->hints = malloc(b->hints_len + 1);
    if (!b->hints)
        return store_no_memory(r->err);
    memcpy(b->hints, r->object.hints, b->hints_len);
    b->at = store_segment_id_make(r->file->id, r->nr_ids);
    b->found = true;
    memcpy(r->raw, r->object.raw, r->object.len);
    r->digests[0] = b->d;
    return pack_append(r, kinds[k], 1, (uint32_t)r->object.len);
}

static int save_all(struct repair *r)
{
    struct store_backend *be = r->in->st->be;
    int rc = 0;

    for (size_t i = 0; i < r->pages.nr && rc == 0; i++)
        rc = save_page(r, &r->pages.b[i]);
    if (rc == 0)
        rc = pack_flush_pages(r);
    for (size_t i = 0; i < r->objects.nr && rc == 0; i++)
        rc = save_object(r, &r->objects.b[i]);
    if (rc == 0 && r->file)
        rc = be->ops->sync(r->file, r->err);
    if (rc == 0 && r->file)
        rc = be->ops->packs_sync(be, r->err);
    return rc;
}

/* ---- the index ---- */

static int change_pages(struct repair *r)
{
    struct store_index *ix = r->in->ix;
    size_t nr = 0;
    struct store_page_at *p = calloc(r->pages.nr + 1, sizeof(*p));
    int rc = p ? 0 : store_no_memory(r->err);

    for (size_t i = 0; i < r->pages.nr && rc == 0; i++) {
        const struct broken *b = &r->pages.b[i];

        rc = store_index_del_page(ix, &b->d, r->err);
        if (b->found)
            p[nr++] = (struct store_page_at){.d = &b->d, .loc = b->at};
    }
    if (rc == 0)
        rc = store_index_add_pages(ix, p, nr, r->err);
    if (rc == 0)
        rc = store_index_recount(ix, r->err);
    r->in->res->pages_moved = nr;
    r->in->res->pages_dropped = r->pages.nr - nr;
    free(p);
    return rc;
}

static int change_objects(struct repair *r)
{
    int rc = 0;

    for (size_t i = 0; i < r->objects.nr && rc == 0; i++) {
        const struct broken *b = &r->objects.b[i];

        rc = store_index_del_object(r->in->ix, &b->d, r->err);
        if (rc == 0 && b->found)
            rc = store_index_add_object(r->in->ix, &b->d, b->at, b->hints, b->hints_len, r->err);
        r->in->res->objects_dropped += !b->found;
    }
    return rc;
}

/* ---- what is lost ---- */

/* Hints that lead to what is lost say from now on that it is. */
static int mark_leaf(struct repair *r, const struct broken *b)
{
    struct store_index *ix = r->in->ix;
    const struct store_object *o = &r->object;
    size_t len;
    int rc;

    if (!load_leaf(r, &b->d))
        return 0;
    rc = store_leaf_lost(ix, &r->leaf, r->err);
    if (rc <= 0)
        return rc;
    len = store_hints_encode(&r->leaf, r->hints);
    if (len == o->hints_len && memcmp(r->hints, o->hints, len) == 0)
        return 0;
    rc = store_index_del_object(ix, &b->d, r->err);
    return rc < 0 ? rc : store_index_add_object(ix, &b->d, b->at, r->hints, len, r->err);
}

static int mark_lost(struct repair *r)
{
    int rc = store_index_each_object(r->in->ix, take_leaf, r, r->err);

    for (size_t i = 0; i < r->leaves.nr && rc == 0; i++)
        rc = mark_leaf(r, &r->leaves.b[i]);
    return rc;
}

/* ---- segments and packs ---- */

/* A pack of which nothing is left goes; one whose row lies gets a true one. */
static int change_pack(struct repair *r, const struct store_verified_pack *p, bool alive, bool dead)
{
    struct store_index *ix = r->in->ix;

    if (!alive)
        return dead || !p->good ? store_index_del_pack(ix, p->id, r->err) : 0;
    if (!p->fix || !p->good)
        return 0;
    r->in->res->rows_mended++;
    return store_index_put_pack(ix, p->id, p->end, r->err);
}

static int change_rows(struct repair *r)
{
    const struct store_repair *in = r->in;
    int rc = 0;

    for (size_t i = 0; i < in->nr_mended && rc == 0; i++)
        rc = store_index_put_extent(in->ix, &in->mended[i], r->err);
    in->res->rows_mended += in->nr_mended;
    if (rc == 0 && r->file)
        rc = store_index_add_pack(in->ix, r->file->id, r->end, r->err);
    for (size_t i = 0; i < r->nr_moved && rc == 0; i++)
        rc = store_index_put_extent(in->ix, &r->moved[i], r->err);
    return rc;
}

/* Segments that are not sound go; so do packs of which none is left. */
static int change_segments(struct repair *r)
{
    const struct store_repair *in = r->in;
    struct store_id_map alive = {0}, dead = {0};
    int rc = 0;

    for (size_t i = 0; i < in->nr_extents && rc == 0; i++) {
        const struct store_extent *e = &in->extents[i];
        bool sound = in->segment_is_sound(in->arg, e);

        if (store_id_map_or(sound ? &alive : &dead, e->pack, 1) < 0)
            rc = store_no_memory(r->err);
        if (rc == 0 && !sound)
            rc = store_index_del_extent(in->ix, e->id, r->err);
        in->res->segments_dropped += !sound;
    }
    for (size_t i = 0; i < in->nr_packs && rc == 0; i++) {
        const struct store_verified_pack *p = &in->packs[i];

        rc = change_pack(r, p, store_id_map_find(&alive, p->id), store_id_map_find(&dead, p->id));
    }
    if (rc == 0)
        rc = change_rows(r);
    store_id_map_release(&alive);
    store_id_map_release(&dead);
    return rc;
}

static int repair_run(struct repair *r)
{
    struct store_index *ix = r->in->ix;
    int rc = store_index_each_page(ix, look_page, r, r->err);

    if (rc == 0)
        rc = store_index_each_object(ix, look_object, r, r->err);
    if (rc == 0)
        rc = look_leaves(r);
    if (rc == 0)
        rc = save_all(r);
    if (rc == 0)
        rc = store_index_begin(ix, r->err);
    if (rc < 0)
        return rc;
    rc = store_index_fold(ix, r->err);
    if (rc == 0)
        rc = change_segments(r);
    if (rc == 0)
        rc = change_pages(r);
    if (rc == 0)
        rc = change_objects(r);
    if (rc == 0)
        rc = mark_lost(r);
    if (rc == 0)
        rc = store_index_commit(ix, r->err);
    else
        store_index_rollback(ix);
    return rc;
}

int store_repair(const struct store_repair *in, struct err *err)
{
    struct repair *r = calloc(1, sizeof(*r));
    int rc;

    if (!r)
        return store_no_memory(err);
    r->in = in;
    r->err = err;
    rc = repair_run(r);
    /* What was remembered of places and packs is past. */
    store_fetch_forget(in->st->fetch);
    in->st->be->ops->close(r->file);
    for (size_t i = 0; i < r->objects.nr; i++)
        free(r->objects.b[i].hints);
    free(r->pages.b);
    free(r->objects.b);
    free(r->leaves.b);
    free(r->moved);
    free(r);
    return rc;
}
