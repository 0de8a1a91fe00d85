/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_reader.h"

#include <errno.h>
#include <string.h>

#include "store/store_cache.h"
#include "store/store_reader_internal.h"
#include "store/store_record.h"

enum {
    READER_NODES = 48,    /* decoded nodes kept: 1 MiB */
    READER_FINDS_MAX = 8, /* snapshots removed while one is looked for */
    READER_LEVEL_SHIFT = 48,
    READER_REGION_SHIFT = 56,
};

struct store_snapshot {
    struct store *st; /* borrowed */
    struct store_found found;
    struct store_lock *lock;   /* shared, on this snapshot */
    struct store_cache *nodes; /* of struct store_node, by region, level and place */
};

/* ---- life cycle ---- */

static int snapshot_lock(struct store_snapshot *snap, struct err *err)
{
    struct store_backend *be = snap->st->be;
    struct store_found again;
    int rc;

    rc = be->ops->lock(be, STORE_LOCK_SNAPSHOTS + snap->found.info.seq, STORE_LOCK_SHARED, true,
                       &snap->lock, be->readonly ? NULL : err);
    /* On a medium that nobody can write there need be nothing to lock, and nobody to lock out. */
    if (rc < 0)
        return be->readonly ? 0 : rc;
    /* It may have been removed before the lock was ours. */
    rc = store_find(snap->st, snap->found.info.id, &again, err);
    if (rc < 0)
        return rc;
    /* Or removed and brought again, and then it is another lock's. */
    if (again.info.seq != snap->found.info.seq)
        rc = err_set(err, -ENOENT, "snapshot %.*s was removed meanwhile", STORE_ID_SHORT,
                     snap->found.info.id);
    store_found_release(&again);
    return rc;
}

/* A name or a tag whose snapshot was removed just now may mean another one. */
static int snapshot_find_and_lock(struct store_snapshot *snap, const char *ref, struct err *err)
{
    for (unsigned left = READER_FINDS_MAX;; left--) {
        struct err gone = {0};
        int rc = store_find(snap->st, ref, &snap->found, err);

        if (rc == 0)
            rc = snapshot_lock(snap, &gone);
        if (rc == 0 || !gone.code)
            return rc;
        if (rc != -ENOENT || !left || strcmp(ref, snap->found.info.id) == 0)
            return err_set(err, rc, "%s", gone.msg);
        snap->st->be->ops->unlock(snap->st->be, steal_ptr(snap->lock));
        store_found_release(&snap->found);
    }
}

int store_snapshot_open(struct store *st, const char *ref, struct store_snapshot **ret_snap,
                        struct err *err)
{
    struct store_snapshot *snap = calloc(1, sizeof(*snap));
    int rc;

    if (!snap)
        return store_no_memory(err);
    snap->st = st;
    rc = snapshot_find_and_lock(snap, ref, err);
    if (rc == 0 && store_cache_new(READER_NODES, sizeof(struct store_node), &snap->nodes) < 0)
        rc = store_no_memory(err);
    if (rc < 0) {
        store_snapshot_close(snap);
        return rc;
    }
    *ret_snap = snap;
    return 0;
}

void store_snapshot_close(struct store_snapshot *snap)
{
    if (!snap)
        return;
    store_cache_free(snap->nodes);
    snap->st->be->ops->unlock(snap->st->be, snap->lock);
    store_found_release(&snap->found);
    free(snap);
}

const struct store_info *store_snapshot_info(const struct store_snapshot *snap)
{
    return &snap->found.info;
}

struct store *store_snapshot_store(const struct store_snapshot *snap)
{
    return snap->st;
}

/* ---- state ---- */

int store_snapshot_state(struct store_snapshot *snap, uint8_t **ret_state, size_t *ret_len,
                         struct err *err)
{
    const struct store_record *rec = snap->found.rec;
    auto_free struct store_object *piece = malloc(sizeof(*piece));
    auto_free uint8_t *state = NULL;
    struct store_digest got;
    size_t len = 0;

    state = calloc(1, rec->state_len + 1);
    if (!piece || !state)
        return store_no_memory(err);
    for (unsigned i = 0; i < rec->nr_chunks; i++) {
        int rc = store_fetch_object(snap->st->fetch, &rec->chunks[i], STORE_KIND_BLOB, piece, err);

        if (rc < 0)
            return err_prefix(err, rc, "device state");
        if (piece->len > rec->state_len - len)
            return err_set(err, -EBADMSG, "device state: is longer than recorded");
        memcpy(state + len, piece->raw, piece->len);
        len += piece->len;
    }
    store_hash(state, len, &got);
    if (len != rec->state_len || !store_digest_equal(&got, &rec->state))
        return err_set(err, -EBADMSG, "device state: does not match its digest");
    *ret_len = len;
    *ret_state = steal_ptr(state);
    return 0;
}

/* ---- manifest ---- */

int store_load_node(struct store *st, const struct store_digest *d, const struct store_place *place,
                    struct store_node *ret_node, struct err *err)
{
    auto_free struct store_object *obj = malloc(sizeof(*obj));
    int rc;

    if (!obj)
        return store_no_memory(err);
    rc = store_fetch_object(st->fetch, d, STORE_KIND_NODE, obj, err);
    if (rc < 0)
        return rc;
    rc = store_node_decode(obj->raw, obj->len, place->level,
                           store_manifest_node_nr(place->pages, place->level, place->i), ret_node,
                           err);
    if (rc == 0 && place->level == 0)
        (void)store_hints_decode(obj->hints, obj->hints_len, ret_node);
    return rc;
}

struct node_want {
    struct store_snapshot *snap;
    const struct store_digest *digest;
    struct store_place place;
};

static int node_load(void *arg, uint64_t key, void *obj, struct err *err)
{
    struct node_want *w = arg;

    (void)key;
    return store_load_node(w->snap->st, w->digest, &w->place, obj, err);
}

/*
 * A node, borrowed from the cache until it is put back; NULL if the subtree is
 * zero.  Walks down from the root, holding one node at a time.
 */
static int node_get(struct store_snapshot *snap, unsigned region, unsigned level, uint64_t i,
                    const struct store_node **ret, struct err *err)
{
    const struct store_region *g = &snap->found.rec->regions[region];
    struct store_digest d = g->root;
    unsigned at = store_manifest_root_level(g->pages);

    for (;; at--) {
        unsigned down = (at - level) * STORE_NODE_SHIFT;
        struct node_want w = {
            .snap = snap, .digest = &d, .place = {g->pages, at, i >> down}
        };
        uint64_t key = (uint64_t)region << READER_REGION_SHIFT |
                       (uint64_t)at << READER_LEVEL_SHIFT | w.place.i;
        const struct store_node *n;
        const void *obj = NULL;
        int rc;

        *ret = NULL;
        if (store_digest_is_zero(&d))
            return 0;
        rc = store_cache_get(snap->nodes, key, node_load, &w, &obj, err);
        if (rc < 0)
            return err_prefix(err, rc, "manifest of region %u, level %u, node %llu", region, at,
                              (unsigned long long)w.place.i);
        n = obj;
        if (at == level) {
            *ret = n;
            return 0;
        }
        d = n->digest[(i >> (down - STORE_NODE_SHIFT)) & (STORE_NODE_ENTRIES - 1)];
        store_cache_put(snap->nodes, n);
    }
}

int store_snapshot_node(struct store_snapshot *snap, unsigned region, unsigned level, uint64_t i,
                        struct store_node *ret_node, struct err *err)
{
    const struct store_node *n;
    int rc = node_get(snap, region, level, i, &n, err);

    if (rc < 0 || !n)
        return rc;
    *ret_node = *n;
    store_cache_put(snap->nodes, n);
    return 1;
}

/* ---- pages ---- */

/* A thread on its way through pages: it keeps the segment it took the last one from. */
struct page_cursor {
    struct store_snapshot *snap;
    struct store_codec_ctx *ctx;
    const struct store_unpacked *u; /* NULL: none held */
    bool sparse;                    /* the destination is zero already */
};

static void cursor_drop(struct page_cursor *c)
{
    if (c->u)
        store_fetch_put(c->snap->st->fetch, c->u);
    c->u = NULL;
}

/* The right pages: @nr of them, which should have digests @d and have digests @got. */
static int pages_check(const struct store_digest *got, unsigned nr, const struct store_digest *d,
                       uint64_t loc, struct err *err)
{
    for (unsigned i = 0; i < nr; i++) {
        if (!store_digest_equal(&got[i], &d[i]))
            return err_set(err, -EBADMSG, "segment %llu: page %u does not match its digest",
                           (unsigned long long)store_loc_segment(loc), store_loc_slot(loc) + i);
    }
    return 0;
}

/* Copy pages of one segment, from @loc on, if they all are the right ones. */
static int pages_take(struct page_cursor *c, uint64_t loc, unsigned nr,
                      const struct store_digest *d, uint8_t *dst, struct err *err)
{
    uint64_t id = store_loc_segment(loc);
    unsigned slot = store_loc_slot(loc);
    int rc;

    if (c->u && c->u->seg.id != id)
        cursor_drop(c);
    if (!c->u) {
        rc = store_fetch_segment(c->snap->st->fetch, id, &c->u, err);
        if (rc < 0) {
            c->u = NULL;
            return rc;
        }
    }
    if (c->u->seg.kind != STORE_KIND_PAGES || slot + nr > c->u->seg.nr_items)
        return err_set(err, -EBADMSG, "segment %llu: has no page %u", (unsigned long long)id,
                       slot + nr - 1);
    rc = pages_check(c->u->digests + slot, nr, d, loc, err);
    if (rc == 0)
        memcpy(dst, c->u->raw + slot * PAGE_SIZE_4K, nr * PAGE_SIZE_4K);
    return rc;
}

/* A page by what the index says, for when the hint is missing or wrong. */
static int page_search(struct page_cursor *c, uint64_t tried, const struct store_digest *d,
                       uint8_t *dst, struct err *err)
{
    struct store *st = c->snap->st;
    uint64_t loc = 0;
    int rc;

    (void)pthread_mutex_lock(&st->ix_lock);
    rc = store_index_page(st->ix, d, &loc, err);
    (void)pthread_mutex_unlock(&st->ix_lock);
    if (rc < 0)
        return rc;
    if (rc == 0) {
        char hex[STORE_DIGEST_HEX + 1];

        store_digest_hex(d, hex);
        return err_set(err, -ESTALE, "content %.16s is not in the store", hex);
    }
    if (loc == tried)
        return -EBADMSG;
    return pages_take(c, loc, 1, d, dst, err);
}

static int page_read(struct page_cursor *c, const struct store_node *leaf, unsigned i, uint8_t *dst,
                     struct err *err)
{
    const struct store_digest *d = &leaf->digest[i];
    struct err hinted = {0}, searched = {0};
    int rc = -ESTALE;

    if (leaf->loc[i])
        rc = pages_take(c, leaf->loc[i], 1, d, dst, &hinted);
    if (rc >= 0)
        return 0;
    rc = page_search(c, leaf->loc[i], d, dst, &searched);
    if (rc >= 0)
        return 0;
    return err_set(err, rc, "%s", searched.msg[0] ? searched.msg : hinted.msg);
}

/* How many entries from @i on, below @to, lie one behind the other in one segment by their hints. */
static unsigned hinted_run(const struct store_node *leaf, unsigned i, unsigned to)
{
    uint64_t loc = leaf->loc[i];
    unsigned n = 1, room = STORE_SEGMENT_SLOTS - store_loc_slot(loc);

    if (!loc)
        return 1;
    while (n < room && i + n < to && leaf->loc[i + n] == loc + n)
        n++;
    return n;
}

/*
 * Entries that lie in one segment, all of them or none.  A whole segment is unpacked where it
 * belongs and verified there, if @c->sparse says that nobody looks meanwhile.
 */
static bool run_read(struct page_cursor *c, const struct store_node *leaf, unsigned i, unsigned nr,
                     uint8_t *dst)
{
    const struct store_digest *d = &leaf->digest[i];
    struct store_digest got[STORE_SEGMENT_SLOTS];
    uint64_t loc = leaf->loc[i];
    struct err err = {0};

    if (!c->sparse || nr < STORE_SEGMENT_SLOTS)
        return pages_take(c, loc, nr, d, dst, &err) >= 0;
    if (store_fetch_full(c->snap->st->fetch, c->ctx, store_loc_segment(loc), dst, &err) < 0)
        return false;
    store_hash_items(dst, PAGE_SIZE_4K, nr, got);
    return pages_check(got, nr, d, loc, &err) >= 0;
}

/* Read entries [@from, @to) of one leaf; *@ret_at: where it stopped if it failed. */
struct leaf_part {
    const struct store_node *leaf; /* NULL: all zero */
    unsigned from, to;
};

static int leaf_read(struct page_cursor *c, const struct leaf_part *part, uint8_t *dst,
                     unsigned *ret_at, struct err *err)
{
    const struct store_node *leaf = part->leaf;
    int rc = 0;

    for (unsigned i = part->from, n; i < part->to && rc == 0; i += n, dst += n * PAGE_SIZE_4K) {
        *ret_at = i;
        n = 1;
        if (!leaf || store_digest_is_zero(&leaf->digest[i])) {
            if (!c->sparse)
                memset(dst, 0, PAGE_SIZE_4K);
            continue;
        }
        n = hinted_run(leaf, i, part->to);
        if (n > 1 && run_read(c, leaf, i, n, dst))
            continue;
        /* Whichever of them it is. */
        n = 1;
        rc = page_read(c, leaf, i, dst, err);
    }
    cursor_drop(c);
    return rc;
}

static int snapshot_check_range(const struct store_snapshot *snap, unsigned region, uint64_t first,
                                uint64_t nr, struct err *err)
{
    const struct store_record *rec = snap->found.rec;

    if (region >= rec->nr_regions)
        return err_set(err, -EINVAL, "region %u: the snapshot has %u", region, rec->nr_regions);
    if (first > rec->regions[region].pages || nr > rec->regions[region].pages - first) {
        return err_set(err, -EINVAL, "region %u: %llu pages from %llu: it has %llu", region,
                       (unsigned long long)nr, (unsigned long long)first,
                       (unsigned long long)rec->regions[region].pages);
    }
    return 0;
}

static int snapshot_read(struct page_cursor *c, unsigned region, uint64_t first, uint64_t nr,
                         uint8_t *dst, struct err *err)
{
    struct store_snapshot *snap = c->snap;
    int rc = 0;

    while (rc == 0 && nr) {
        const unsigned at = (unsigned)first & (STORE_NODE_ENTRIES - 1);
        const unsigned room = STORE_NODE_ENTRIES - at;
        const unsigned n = nr < room ? (unsigned)nr : room;
        struct leaf_part part = {.from = at, .to = at + n};
        unsigned stopped = at;

        rc = node_get(snap, region, 0, first >> STORE_NODE_SHIFT, &part.leaf, err);
        if (rc < 0)
            break;
        rc = leaf_read(c, &part, dst, &stopped, err);
        if (part.leaf)
            store_cache_put(snap->nodes, part.leaf);
        if (rc < 0) {
            unsigned long long page = first + stopped - at;

            (void)err_prefix(err, rc, "region %u, page %llu", region, page);
        }
        first += n;
        dst += n * PAGE_SIZE_4K;
        nr -= n;
    }
    return rc;
}

static int snapshot_read_checked(struct page_cursor *c, unsigned region, uint64_t first,
                                 uint64_t nr, uint8_t *dst, struct err *err)
{
    int rc = snapshot_check_range(c->snap, region, first, nr, err);

    if (rc == 0)
        rc = store_fetch_codec_get(c->snap->st->fetch, &c->ctx, err);
    if (rc < 0)
        return rc;
    rc = snapshot_read(c, region, first, nr, dst, err);
    store_fetch_codec_put(c->snap->st->fetch, c->ctx);
    return rc;
}

int store_snapshot_read(struct store_snapshot *snap, unsigned region, uint64_t first, uint64_t nr,
                        void *dst, struct err *err)
{
    struct page_cursor c = {.snap = snap};

    return snapshot_read_checked(&c, region, first, nr, dst, err);
}

int store_snapshot_read_sparse(struct store_snapshot *snap, unsigned region, uint64_t first,
                               uint64_t nr, void *dst, struct err *err)
{
    struct page_cursor c = {.snap = snap, .sparse = true};

    return snapshot_read_checked(&c, region, first, nr, dst, err);
}

/* The next level-0 place at or behind @page that lies in a subtree which is not zero. */
static int leaf_skip(struct store_snapshot *snap, unsigned region, uint64_t *page,
                     const struct store_node **ret, struct err *err)
{
    const struct store_region *g = &snap->found.rec->regions[region];

    *ret = NULL;
    while (*page < g->pages) {
        int rc = node_get(snap, region, 0, *page >> STORE_NODE_SHIFT, ret, err);

        if (rc < 0 || *ret)
            return rc;
        *page = ((*page >> STORE_NODE_SHIFT) + 1) << STORE_NODE_SHIFT;
    }
    return 0;
}

int store_snapshot_next(struct store_snapshot *snap, unsigned region, uint64_t from,
                        struct store_run *ret_run, struct err *err)
{
    struct store_run run = {0};
    int rc = snapshot_check_range(snap, region, from, 0, err);

    while (rc == 0 && !run.nr) {
        const struct store_node *leaf;
        unsigned i;

        rc = leaf_skip(snap, region, &from, &leaf, err);
        if (rc < 0 || !leaf)
            break;
        i = (unsigned)from & (STORE_NODE_ENTRIES - 1);
        for (; i < leaf->nr && store_digest_is_zero(&leaf->digest[i]); i++)
            from++;
        run.first = from;
        for (; i < leaf->nr && !store_digest_is_zero(&leaf->digest[i]); i++)
            from++;
        run.nr = from - run.first;
        store_cache_put(snap->nodes, leaf);
    }
    if (rc == 0)
        *ret_run = run;
    return rc;
}
