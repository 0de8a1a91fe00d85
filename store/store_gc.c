/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collector: mark what snapshots reach, sweep the rest.
 *
 * It marks, and copies what is alive of packs that are to be rewritten, beside
 * writers.  Then it waits for them to end, holds the writers' lock alone, marks
 * what they have published meanwhile, and sweeps.  Packs that are to go are
 * removed after the transaction that forgets them is durable; a pack that is
 * rewritten exists twice until then.
 *
 * On a full disk it gives the reserve back, copies nothing, and forgets in slices, each
 * a transaction as large as the disk takes.
 *
 * Spec: docs/store-format.md, "Collection".
 */
#include <errno.h>
#include <string.h>

#include "store/store_map.h"
#include "store/store_reader_internal.h"
#include "store/store_record.h"

enum {
    GC_OBJECT = 1U << 16, /* in the mask of a segment: its one object is alive */
    GC_SLICE_FIRST = 64,  /* rows that a transaction changes on a full disk */
    GC_SLICE_MAX = 1 << 16,
};

struct gc_pack {
    uint64_t id;
    uint64_t len;
    uint64_t live; /* bytes of segments that are alive */
    bool remove;
    bool rewrite;
};

struct gc_snapshot {
    struct store_found found;
};

/* A leaf that names lost pages, and its hints without their places; owned. */
struct gc_hurt {
    struct store_digest d;
    size_t len;
    uint8_t *hints;
};

struct gc {
    struct store *st;
    struct store_index *ix; /* its own connection */
    struct store_gc_result *res;
    struct err *err;
    bool alone;                     /* no writer can be at work */
    bool no_rewrite;                /* there is no room for copies */
    store_gc_progress_fn *progress; /* may be NULL */
    void *progress_arg;
    uint64_t marked, to_mark;        /* bytes of memory of snapshots */
    uint64_t to_copy;                /* bytes of packs that are rewritten */
    size_t slice;                    /* rows of a transaction; 0: all */
    struct store_digest_map objects; /* nodes and pieces that are reached */
    struct store_id_map segments;    /* masks of slots that are reached */

    size_t nr_snaps, cap_snaps;
    struct gc_snapshot *snaps;
    size_t nr_hurt, cap_hurt;
    struct gc_hurt *hurt;
    size_t nr_packs, cap_packs;
    struct gc_pack *packs; /* in order of id */
    size_t nr_extents, cap_extents;
    struct store_extent *extents; /* all, in order of id */
    size_t nr_dead, cap_dead;
    struct store_digest *dead; /* rows to delete, of one table at a time */
    size_t nr_moved, cap_moved;
    struct store_extent *moved;    /* new places */
    struct store_id_map rewriting; /* packs being copied: 1 */
    struct store_id_map copied;    /* segments in @moved: 1 */
    struct store_file *file;       /* the pack that is being written */
    uint64_t file_end;
};

static int gc_no_memory(struct gc *g)
{
    return err_set(g->err, -ENOMEM, "out of memory");
}

static void gc_step(struct gc *g, enum store_gc_phase phase, uint64_t done, uint64_t total)
{
    if (g->progress)
        g->progress(g->progress_arg, phase, done, total);
}

/* ---- mark ---- */

static int gc_mark_object(struct gc *g, const struct store_digest *d)
{
    uint64_t segment = 0;
    int rc = store_index_object(g->ix, d, &segment, NULL, NULL, g->err);

    if (rc <= 0)
        return rc; /* a missing one is for the verifier to report */
    if (store_digest_map_put(&g->objects, d, 1) < 0 ||
        store_id_map_or(&g->segments, segment, GC_OBJECT) < 0)
        return gc_no_memory(g);
    return 0;
}

static int gc_has_segment(struct gc *g, uint64_t id)
{
    struct store_extent e;
    int n = store_index_extents(g->ix, id, &e, 1, g->err);

    return n > 0 ? e.id == id : n;
}

/*
 * A page is alive where the index has it; if it has lost it, where the hint says.  If there is
 * nothing either the place becomes 0, and @ret_lost true.
 */
static int gc_mark_page(struct gc *g, struct store_node *leaf, unsigned i, bool *ret_lost)
{
    uint64_t loc = 0;
    int rc = store_index_page(g->ix, &leaf->digest[i], &loc, g->err);

    if (rc == 0 && leaf->loc[i]) {
        rc = gc_has_segment(g, store_loc_segment(leaf->loc[i]));
        loc = rc > 0 ? leaf->loc[i] : 0;
        if (rc == 0) {
            leaf->loc[i] = 0;
            *ret_lost = true;
        }
    }
    if (rc < 0)
        return rc;
    if (loc && store_id_map_or(&g->segments, store_loc_segment(loc), 1U << store_loc_slot(loc)) < 0)
        return gc_no_memory(g);
    return 0;
}

static int gc_mark_leaf(struct gc *g, const struct store_digest *d, struct store_node *leaf)
{
    uint8_t hints[STORE_HINTS_LEN_MAX];
    bool lost = false;
    int rc = 0;
    void *p;

    for (unsigned e = 0; e < leaf->nr && rc == 0; e++)
        if (!store_digest_is_zero(&leaf->digest[e]))
            rc = gc_mark_page(g, leaf, e, &lost);
    if (rc < 0 || !lost)
        return rc;
    p = array_grow(g->hurt, g->nr_hurt, &g->cap_hurt, sizeof(g->hurt[0]));
    if (!p)
        return gc_no_memory(g);
    g->hurt = p;
    g->hurt[g->nr_hurt] = (struct gc_hurt){.d = *d, .len = store_hints_encode(leaf, hints)};
    g->hurt[g->nr_hurt].hints = malloc(g->hurt[g->nr_hurt].len + 1);
    if (!g->hurt[g->nr_hurt].hints)
        return gc_no_memory(g);
    memcpy(g->hurt[g->nr_hurt].hints, hints, g->hurt[g->nr_hurt].len);
    g->nr_hurt++;
    return 0;
}

/* Node @i of a level of a region, with all below it, is done. */
static void gc_marked(struct gc *g, uint64_t pages, unsigned level, uint64_t i)
{
    uint64_t nr = (uint64_t)STORE_NODE_ENTRIES << STORE_NODE_SHIFT * level;
    uint64_t first = i << STORE_NODE_SHIFT * (level + 1);

    g->marked += (nr < pages - first ? nr : pages - first) * PAGE_SIZE_4K;
    gc_step(g, STORE_GC_MARK, g->marked, g->to_mark);
}

static int gc_mark_tree(struct gc *g, const struct store_digest *d, uint64_t pages, unsigned level,
                        uint64_t i)
{
    struct store_node *n;
    int rc;

    if (store_digest_is_zero(d) || store_digest_map_find(&g->objects, d)) {
        gc_marked(g, pages, level, i);
        return 0;
    }
    n = calloc(1, sizeof(*n));
    if (!n)
        return gc_no_memory(g);
    rc = store_load_node(g->st, d, &(struct store_place){pages, level, i}, n, g->err);
    if (rc == 0)
        rc = gc_mark_object(g, d);
    if (rc == 0 && level == 0)
        rc = gc_mark_leaf(g, d, n);
    for (unsigned e = 0; level && e < n->nr && rc == 0; e++)
        rc = gc_mark_tree(g, &n->digest[e], pages, level - 1, (i << STORE_NODE_SHIFT) + e);
    if (rc == 0 && level == 0)
        gc_marked(g, pages, level, i);
    free(n);
    return rc;
}

static int gc_mark_snapshot(struct gc *g, const struct store_found *found)
{
    const struct store_record *rec = found->rec;
    int rc = 0;

    for (unsigned i = 0; i < rec->nr_regions && rc == 0; i++)
        rc = gc_mark_tree(g, &rec->regions[i].root, rec->regions[i].pages,
                          store_manifest_root_level(rec->regions[i].pages), 0);
    for (unsigned i = 0; i < rec->nr_chunks && rc == 0; i++)
        rc = gc_mark_object(g, &rec->chunks[i]);
    if (rc < 0)
        return err_prefix(g->err, rc, "snapshot %.*s", STORE_ID_SHORT, found->info.id);
    return 0;
}

static bool gc_knows_snapshot(const struct gc *g, uint64_t seq)
{
    for (size_t i = 0; i < g->nr_snaps; i++)
        if (g->snaps[i].found.info.seq == seq)
            return true;
    return false;
}

static int gc_take_snapshot(void *arg, const struct store_snap_row *row)
{
    struct gc *g = arg;
    void *p;
    int rc;

    if (gc_knows_snapshot(g, row->seq))
        return 0;
    p = array_grow(g->snaps, g->nr_snaps, &g->cap_snaps, sizeof(g->snaps[0]));
    if (!p)
        return gc_no_memory(g);
    g->snaps = p;
    rc = store_row_decode(row, &g->snaps[g->nr_snaps].found, g->err);
    if (rc < 0)
        store_found_release(&g->snaps[g->nr_snaps].found);
    else
        g->nr_snaps++;
    return rc;
}

/* Snapshots that are new since the last time, and what they reach. */
static int gc_mark(struct gc *g)
{
    size_t from = g->nr_snaps;
    int rc = store_index_each_snapshot(g->ix, gc_take_snapshot, g, g->err);

    for (size_t i = from; i < g->nr_snaps && rc == 0; i++)
        for (unsigned r = 0; r < g->snaps[i].found.rec->nr_regions; r++)
            g->to_mark += g->snaps[i].found.rec->regions[r].pages * PAGE_SIZE_4K;
    for (size_t i = from; i < g->nr_snaps && rc == 0; i++)
        rc = gc_mark_snapshot(g, &g->snaps[i].found);
    return rc;
}

/* ---- count ---- */

static int gc_take_pack(void *arg, uint64_t id, uint64_t len)
{
    struct gc *g = arg;
    void *p = array_grow(g->packs, g->nr_packs, &g->cap_packs, sizeof(g->packs[0]));

    if (!p)
        return gc_no_memory(g);
    g->packs = p;
    g->packs[g->nr_packs++] = (struct gc_pack){.id = id, .len = len};
    return 0;
}

static int gc_take_extent(void *arg, const struct store_extent *e)
{
    struct gc *g = arg;
    void *p = array_grow(g->extents, g->nr_extents, &g->cap_extents, sizeof(g->extents[0]));

    if (!p)
        return gc_no_memory(g);
    g->extents = p;
    g->extents[g->nr_extents++] = *e;
    return 0;
}

static int gc_pack_compare(const void *a, const void *b)
{
    const struct gc_pack *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static struct gc_pack *gc_pack_find(const struct gc *g, uint64_t id)
{
    const struct gc_pack key = {.id = id};

    if (!g->nr_packs)
        return NULL;
    return bsearch(&key, g->packs, g->nr_packs, sizeof(g->packs[0]), gc_pack_compare);
}

static int gc_count_extents(struct gc *g)
{
    int rc;

    g->nr_packs = g->nr_extents = 0;
    g->res->segments_dropped = 0;
    rc = store_index_each_pack(g->ix, gc_take_pack, g, g->err);
    if (rc == 0)
        rc = store_index_each_extent(g->ix, gc_take_extent, g, g->err);
    for (size_t i = 0; i < g->nr_extents && rc == 0; i++) {
        struct gc_pack *p = gc_pack_find(g, g->extents[i].pack);

        if (store_id_map_find(&g->segments, g->extents[i].id)) {
            if (p)
                p->live += g->extents[i].len;
        } else {
            g->res->segments_dropped++;
        }
    }
    return rc;
}

/*
 * What is alive in each pack, and so what is to become of it.  What is to be rewritten
 * is decided while marking: later it may only turn out that more of it is alive.
 */
static int gc_count(struct gc *g)
{
    int rc = gc_count_extents(g);

    g->res->packs_removed = g->res->packs_rewritten = g->res->bytes_freed = 0;
    g->to_copy = STORE_PACK_HDR_LEN;
    for (size_t i = 0; i < g->nr_packs && rc == 0; i++) {
        struct gc_pack *p = &g->packs[i];

        p->remove = p->live == 0;
        p->rewrite = p->live && !g->no_rewrite &&
                     (g->alone ? store_id_map_find(&g->rewriting, p->id) != NULL
                               : p->live < p->len - p->live);
        if (p->rewrite && store_id_map_or(&g->rewriting, p->id, 1) < 0)
            rc = gc_no_memory(g);
        g->to_copy += p->rewrite ? p->live : 0;
        g->res->packs_removed += p->remove;
        g->res->packs_rewritten += p->rewrite;
        if (p->remove || p->rewrite)
            g->res->bytes_freed += p->len - p->live;
    }
    return rc;
}

/* ---- rewrite ---- */

static int gc_open_file(struct gc *g)
{
    uint8_t uuid[STORE_UUID_LEN];
    uint64_t last = 0;
    int rc = store_index_identity(g->ix, uuid, &last, g->err);

    if (rc == 0)
        rc = store_pack_create(g->st->be, last + 1, uuid, &g->file, g->err);
    g->file_end = STORE_PACK_HDR_LEN;
    return rc;
}

/* Copy a segment as it is to the end of the new pack. */
static int gc_move(struct gc *g, const struct store_extent *e)
{
    struct store_backend *be = g->st->be;
    auto_free uint8_t *bytes = malloc(e->len);
    struct store_file *from = NULL;
    struct store_segment seg;
    void *p;
    int rc;

    p = array_grow(g->moved, g->nr_moved, &g->cap_moved, sizeof(g->moved[0]));
    if (!bytes || !p)
        return gc_no_memory(g);
    g->moved = p;
    rc = store_fetch_file_get(g->st->fetch, e->pack, &from, g->err);
    if (rc < 0)
        return rc;
    rc = be->ops->read(from, bytes, e->len, e->off, g->err);
    store_fetch_file_put(g->st->fetch, from);
    if (rc == 0)
        rc = store_segment_parse(bytes, &seg, g->err);
    if (rc == 0 && (seg.id != e->id || seg.stored_len != e->len - STORE_SEGMENT_HDR_LEN))
        rc = err_set(g->err, -EBADMSG, "segment %llu: is not where it should be",
                     (unsigned long long)e->id);
    if (rc == 0)
        rc = be->ops->write(g->file, bytes, e->len, g->file_end, g->err);
    if (rc < 0)
        return err_prefix(g->err, rc, "pack %llu", (unsigned long long)e->pack);
    g->moved[g->nr_moved++] =
        (struct store_extent){.id = e->id, .pack = g->file->id, .off = g->file_end, .len = e->len};
    g->file_end += e->len;
    return store_id_map_or(&g->copied, e->id, 1) < 0 ? gc_no_memory(g) : 0;
}

/* Copy what has not been copied yet. */
static int gc_rewrite(struct gc *g)
{
    struct store_backend *be = g->st->be;
    size_t before = g->nr_moved;
    int rc = 0;

    for (size_t i = 0; i < g->nr_extents && rc == 0; i++) {
        const struct store_extent *e = &g->extents[i];
        const struct gc_pack *p = gc_pack_find(g, e->pack);

        if (!p || !p->rewrite || !store_id_map_find(&g->segments, e->id) ||
            store_id_map_find(&g->copied, e->id))
            continue;
        if (!g->file)
            rc = gc_open_file(g);
        if (rc == 0)
            rc = gc_move(g, e);
        if (rc == 0)
            gc_step(g, STORE_GC_COPY, g->file_end, g->to_copy);
    }
    if (rc == 0 && g->nr_moved > before)
        rc = be->ops->sync(g->file, g->err);
    if (rc == 0 && g->nr_moved > before)
        rc = be->ops->packs_sync(be, g->err);
    return rc;
}

/* There is no room for copies: without those that were begun. */
static int gc_forget_copies(struct gc *g)
{
    struct store_backend *be = g->st->be;

    if (g->file) {
        uint64_t id = g->file->id;

        be->ops->close(g->file);
        g->file = NULL;
        (void)be->ops->pack_remove(be, id, NULL);
    }
    g->nr_moved = 0;
    g->no_rewrite = true;
    return gc_count(g);
}

/*
 * Copy; on a full disk do without: what is dead as a whole can still go, and the next
 * collection finds room then.
 */
static int gc_rewrite_if_room(struct gc *g)
{
    struct err *err = g->err, why = {0};
    int rc;

    g->err = &why;
    rc = gc_rewrite(g);
    g->err = err;
    if (rc != -ENOSPC && rc != -EDQUOT)
        return rc < 0 ? err_set(err, rc, "%s", why.msg) : 0;
    return gc_forget_copies(g);
}

/* ---- sweep ---- */

static int gc_add_dead(struct gc *g, const struct store_digest *d)
{
    void *p = array_grow(g->dead, g->nr_dead, &g->cap_dead, sizeof(g->dead[0]));

    if (!p)
        return gc_no_memory(g);
    g->dead = p;
    g->dead[g->nr_dead++] = *d;
    return 0;
}

static int gc_look_page(void *arg, const struct store_digest *d, uint64_t loc)
{
    struct gc *g = arg;
    const uint32_t *mask = store_id_map_find(&g->segments, store_loc_segment(loc));

    return mask && *mask >> store_loc_slot(loc) & 1 ? 0 : gc_add_dead(g, d);
}

static int gc_look_object(void *arg, const struct store_digest *d, uint64_t segment)
{
    struct gc *g = arg;

    (void)segment;
    return store_digest_map_find(&g->objects, d) ? 0 : gc_add_dead(g, d);
}

/* One change of the index: what is to be done about element @i of an array. */
typedef int gc_change_fn(struct gc *g, size_t i);

static int gc_change_range(struct gc *g, size_t from, size_t to, gc_change_fn *change)
{
    int rc = 0;

    for (size_t i = from; i < to && rc == 0; i++)
        rc = change(g, i);
    return rc;
}

/* A transaction of its own for a few changes. */
static int gc_change_slice(struct gc *g, size_t from, size_t to, gc_change_fn *change)
{
    int rc = store_index_begin(g->ix, g->err);

    if (rc == 0)
        rc = gc_change_range(g, from, to, change);
    if (rc == 0)
        rc = store_index_commit(g->ix, g->err);
    else
        store_index_rollback(g->ix);
    return rc;
}

/*
 * Change elements 0 to @nr - 1: in the transaction that is open, or in slices.  A slice
 * for which the log has no room is tried again smaller, with the log emptied.
 */
static int gc_change(struct gc *g, size_t nr, gc_change_fn *change)
{
    struct err *err = g->err, why = {0};
    size_t from = 0;
    int rc = 0;

    if (!g->slice)
        return gc_change_range(g, 0, nr, change);
    g->err = &why; /* cppcheck-suppress autoVariables ; until the end of this function */
    while (from < nr) {
        size_t n = nr - from < g->slice ? nr - from : g->slice;

        why = (struct err){0};
        rc = gc_change_slice(g, from, from + n, change);
        if (rc == 0) {
            from += n;
            g->slice = g->slice < GC_SLICE_MAX ? 2 * g->slice : g->slice;
        } else if (g->slice > 1 && store_make_room(g->st->be, rc)) {
            size_t fewer = n / (store_index_checkpoint(g->ix, NULL) < 0 ? 4 : 2);

            g->slice = fewer ? fewer : 1;
        } else {
            break;
        }
    }
    g->err = err;
    return rc < 0 ? err_set(err, rc, "%s", why.msg) : 0;
}

static int gc_change_nothing(struct gc *g, size_t i)
{
    (void)i;
    return store_index_touch(g->ix, g->err);
}

static int gc_drop_page(struct gc *g, size_t i)
{
    gc_step(g, STORE_GC_FORGET, i * PAGE_SIZE_4K, g->nr_dead * PAGE_SIZE_4K);
    return store_index_del_page(g->ix, &g->dead[i], g->err);
}

/* A repair says so as well.  Without it a writer takes for known what the leaf names. */
static int gc_tell_lost(struct gc *g, size_t i)
{
    const struct gc_hurt *h = &g->hurt[i];
    uint64_t segment = 0;
    int rc = store_index_object(g->ix, &h->d, &segment, NULL, NULL, g->err);

    if (rc > 0)
        rc = store_index_del_object(g->ix, &h->d, g->err);
    return rc < 0 || !segment
               ? rc
               : store_index_add_object(g->ix, &h->d, segment, h->hints, h->len, g->err);
}

static int gc_drop_object(struct gc *g, size_t i)
{
    return store_index_del_object(g->ix, &g->dead[i], g->err);
}

/* What is still listed as fresh of a segment goes with it. */
static int gc_drop_extent(struct gc *g, size_t i)
{
    int rc = 0;

    if (store_id_map_find(&g->segments, g->extents[i].id))
        return 0;
    if (g->slice)
        rc = store_index_del_fresh(g->ix, g->extents[i].id, g->err);
    return rc < 0 ? rc : store_index_del_extent(g->ix, g->extents[i].id, g->err);
}

static int gc_move_extent(struct gc *g, size_t i)
{
    return store_index_put_extent(g->ix, &g->moved[i], g->err);
}

static int gc_drop_pack(struct gc *g, size_t i)
{
    if (!g->packs[i].remove && !g->packs[i].rewrite)
        return 0;
    return store_index_del_pack(g->ix, g->packs[i].id, g->err);
}

/* Pages before their segments: no row may lead to nothing, whenever this ends. */
static int gc_sweep_rows(struct gc *g)
{
    int rc = gc_change(g, 1, gc_change_nothing);

    /* To sort pages in takes more room than there may be. */
    if (rc == 0 && !g->slice)
        rc = store_index_fold(g->ix, g->err);
    g->nr_dead = 0;
    if (rc == 0)
        rc = store_index_each_page(g->ix, gc_look_page, g, g->err);
    g->res->pages_dropped = g->nr_dead;
    if (rc == 0)
        rc = gc_change(g, g->nr_dead, gc_drop_page);
    g->nr_dead = 0;
    if (rc == 0)
        rc = store_index_each_object(g->ix, gc_look_object, g, g->err);
    g->res->objects_dropped = g->nr_dead;
    if (rc == 0)
        rc = gc_change(g, g->nr_dead, gc_drop_object);
    if (rc == 0 && !g->slice)
        rc = gc_change(g, g->nr_hurt, gc_tell_lost);
    return rc;
}

static int gc_sweep_packs(struct gc *g)
{
    int rc = gc_change(g, g->nr_extents, gc_drop_extent);

    if (rc == 0 && g->file)
        rc = store_index_add_pack(g->ix, g->file->id, g->file_end, g->err);
    if (rc == 0)
        rc = gc_change(g, g->nr_moved, gc_move_extent);
    if (rc == 0)
        rc = gc_change(g, g->nr_packs, gc_drop_pack);
    return rc;
}

/* What a sweep would forget. */
static int gc_count_rows(struct gc *g)
{
    int rc;

    g->nr_dead = 0;
    rc = store_index_each_page(g->ix, gc_look_page, g, g->err);
    g->res->pages_dropped = g->nr_dead;
    g->nr_dead = 0;
    if (rc == 0)
        rc = store_index_each_object(g->ix, gc_look_object, g, g->err);
    g->res->objects_dropped = g->nr_dead;
    return rc;
}

/* In one transaction. */
static int gc_sweep_at_once(struct gc *g)
{
    int rc = store_index_begin(g->ix, g->err);

    /*
     * Written even if there is nothing to forget: a commit of a writer that
     * failed half-way may lie in the log, naming packs that are about to go, and
     * a crash would bring it back unless another commit takes its place.
     */
    if (rc == 0)
        rc = gc_sweep_rows(g);
    if (rc == 0)
        rc = gc_sweep_packs(g);
    if (rc == 0)
        rc = store_index_commit(g->ix, g->err);
    else
        store_index_rollback(g->ix);
    return rc;
}

static int gc_sweep(struct gc *g)
{
    struct err *err = g->err, why = {0};
    int rc;

    g->err = &why;
    rc = gc_sweep_at_once(g);
    g->err = err;
    if (!store_make_room(g->st->be, rc))
        return rc < 0 ? err_set(err, rc, "%s", why.msg) : 0;
    g->slice = GC_SLICE_FIRST;
    rc = gc_forget_copies(g);
    if (rc == 0)
        rc = gc_sweep_rows(g);
    return rc < 0 ? rc : gc_sweep_packs(g);
}

/* ---- packs that no row names any more ---- */

struct gc_stray {
    struct gc *g;
    bool remove;
    size_t nr, cap;
    uint64_t *ids;
};

static int gc_look_file(void *arg, uint64_t id, uint64_t len)
{
    struct gc_stray *s = arg;
    const struct gc_pack *p = gc_pack_find(s->g, id);
    void *more;

    if ((p && !p->remove && !p->rewrite) || (s->g->file && s->g->file->id == id))
        return 0;
    if (!p) {
        s->g->res->packs_removed++;
        s->g->res->bytes_freed += len;
    }
    more = array_grow(s->ids, s->nr, &s->cap, sizeof(s->ids[0]));
    if (!more)
        return gc_no_memory(s->g);
    s->ids = more;
    s->ids[s->nr++] = id;
    return 0;
}

static int gc_remove_files(struct gc *g, bool dry)
{
    struct gc_stray s = {.g = g};
    struct store_backend *be = g->st->be;
    int rc = be->ops->pack_list(be, gc_look_file, &s, g->err);

    for (size_t i = 0; i < s.nr && rc == 0 && !dry; i++)
        rc = be->ops->pack_remove(be, s.ids[i], g->err);
    if (rc == 0 && s.nr && !dry)
        rc = be->ops->packs_sync(be, g->err);
    free(s.ids);
    return rc;
}

/* ---- life cycle ---- */

/* Mark and copy, beside writers. */
static int gc_prepare(struct gc *g, bool dry)
{
    int rc = store_index_begin_read(g->ix, g->err);

    if (rc == 0)
        rc = store_index_pin(g->ix, g->err);
    if (rc == 0)
        rc = gc_mark(g);
    if (rc == 0)
        rc = gc_count(g);
    if (rc == 0 && !dry)
        rc = gc_rewrite_if_room(g);
    store_index_rollback(g->ix);
    return rc;
}

/* With no writer at work: what has come meanwhile, then the sweep. */
static int gc_finish(struct gc *g, bool dry)
{
    struct err why = {0};
    int rc = store_index_pin(g->ix, g->err);

    g->alone = true;
    if (rc == 0)
        rc = gc_mark(g);
    if (rc == 0)
        rc = gc_count(g);
    if (rc == 0 && !dry)
        rc = gc_rewrite_if_room(g);
    if (rc == 0)
        rc = dry ? gc_count_rows(g) : gc_sweep(g);
    if (rc == 0)
        rc = gc_remove_files(g, dry);
    if (rc < 0 || dry)
        return rc;
    store_fetch_forget(g->st->fetch);
    rc = store_index_trim(g->ix, &why);
    if (rc < 0 && rc != -ENOSPC && rc != -EDQUOT)
        return err_set(g->err, rc, "%s", why.msg);
    /* What is not there now is made by the next writer, or tells it that the disk is full. */
    (void)g->st->be->ops->reserve_make(g->st->be, NULL);
    return 0;
}

static void gc_release(struct gc *g)
{
    for (size_t i = 0; i < g->nr_snaps; i++)
        store_found_release(&g->snaps[i].found);
    g->st->be->ops->close(g->file);
    store_digest_map_release(&g->objects);
    store_id_map_release(&g->segments);
    store_id_map_release(&g->rewriting);
    store_id_map_release(&g->copied);
    free(g->snaps);
    for (size_t i = 0; i < g->nr_hurt; i++)
        free(g->hurt[i].hints);
    free(g->hurt);
    free(g->packs);
    free(g->extents);
    free(g->dead);
    free(g->moved);
    store_index_close(g->ix);
}

/* A dry run where nothing can be written: to keep others out takes a file that can be. */
static enum store_lock_mode gc_lock_mode(const struct store *st)
{
    return st->be->readonly ? STORE_LOCK_SHARED : STORE_LOCK_EXCLUSIVE;
}

/* Who is kept out of a sweep. */
struct gc_locks {
    struct store_lock *writers, *settler;
};

/*
 * The writers' lock alone; those that would begin now wait behind the gate.  What is settled behind
 * a publication takes a moment, and nobody is refused for it.
 */
static int gc_lock_writers(struct store *st, bool wait, struct gc_locks *ret, struct err *err)
{
    struct store_backend *be = st->be;
    struct store_lock *gate = NULL;
    int rc = be->ops->lock(be, STORE_LOCK_GATE, gc_lock_mode(st), wait, &gate, err);

    if (rc == 0)
        rc = be->ops->lock(be, STORE_LOCK_WRITERS, gc_lock_mode(st), wait, &ret->writers, err);
    be->ops->unlock(be, gate);
    if (rc == -EAGAIN)
        return err_set(err, -EBUSY, "a snapshot is being written, or the store is being verified");
    return rc < 0
               ? rc
               : be->ops->lock(be, STORE_LOCK_SETTLER, gc_lock_mode(st), true, &ret->settler, err);
}

static int gc_run(struct gc *g, unsigned flags)
{
    struct store_backend *be = g->st->be;
    bool dry = flags & STORE_GC_DRY_RUN;
    struct gc_locks locks = {0};
    int rc = gc_prepare(g, dry);

    if (rc == 0)
        rc = gc_lock_writers(g->st, flags & STORE_GC_WAIT, &locks, g->err);
    if (rc == 0)
        rc = gc_finish(g, dry);
    /* A copy that nobody will refer to; the next collection removes it if this cannot. */
    if (rc == -EBUSY && g->file)
        (void)be->ops->pack_remove(be, g->file->id, NULL);
    be->ops->unlock(be, locks.settler);
    be->ops->unlock(be, locks.writers);
    return rc;
}

int store_gc(struct store *st, unsigned flags, store_gc_progress_fn *fn, void *arg,
             struct store_gc_result *ret, struct err *err)
{
    struct store_gc_result res = {0};
    struct gc g = {.st = st, .res = &res, .err = err, .progress = fn, .progress_arg = arg};
    struct store_lock *lock = NULL;
    int rc = flags & STORE_GC_DRY_RUN ? 0 : store_write_check(st, err);

    if (rc < 0)
        return rc;
    rc = st->be->ops->lock(st->be, STORE_LOCK_COLLECTOR, gc_lock_mode(st), flags & STORE_GC_WAIT,
                           &lock, err);
    if (rc == -EAGAIN)
        return err_set(err, -EBUSY, "another collection is at work");
    if (rc < 0)
        return rc;
    rc = store_index_open(st->be, 0, &g.ix, err);
    if (rc == 0)
        rc = gc_run(&g, flags);
    gc_release(&g);
    st->be->ops->unlock(st->be, lock);
    if (rc == 0)
        *ret = res;
    return rc;
}
