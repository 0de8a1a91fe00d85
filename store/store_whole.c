/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_whole.h"

#include <errno.h>

#include "core/wire.h"
#include "store/store_reader_internal.h"

enum {
    HINT_LEN = 9, /* docs/store-format.md 4: a place and a count */
};

struct whole {
    struct store_snapshot *snap;
    struct store *st;
    struct err *err;
    struct store_node above, leaf;
    uint8_t hints[STORE_HINTS_LEN_MAX];
};

int store_leaf_lost(struct store_index *ix, struct store_node *leaf, struct err *err)
{
    int lost = 0;

    for (unsigned i = 0; i < leaf->nr; i++) {
        uint64_t loc = 0;
        int rc;

        if (store_digest_is_zero(&leaf->digest[i]))
            continue;
        rc = store_index_page(ix, &leaf->digest[i], &loc, err);
        if (rc < 0)
            return rc;
        if (rc > 0)
            continue;
        leaf->loc[i] = 0;
        lost++;
    }
    return lost;
}

/* Whether hints have a place for every page. */
static bool hints_are_full(const uint8_t *hints, size_t len)
{
    struct rd r = {.p = hints, .left = len};

    while (r.left >= HINT_LEN) {
        if (!rd_le64(&r))
            return false;
        (void)rd_u8(&r);
    }
    return len && !r.left;
}

/* 1 if an object is stored; its hints into @w. */
static int whole_object(struct whole *w, const struct store_digest *d, size_t *ret_hints_len)
{
    uint64_t segment;
    int rc;

    (void)pthread_mutex_lock(&w->st->ix_lock);
    rc = store_index_object(w->st->ix, d, &segment, w->hints, ret_hints_len, w->err);
    (void)pthread_mutex_unlock(&w->st->ix_lock);
    return rc;
}

static int whole_leaf(struct whole *w, unsigned region, uint64_t i, const struct store_digest *d)
{
    size_t len = 0;
    int rc = whole_object(w, d, &len);

    if (rc <= 0 || hints_are_full(w->hints, len))
        return rc;
    rc = store_snapshot_node(w->snap, region, 0, i, &w->leaf, w->err);
    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&w->st->ix_lock);
    rc = store_leaf_lost(w->st->ix, &w->leaf, w->err);
    (void)pthread_mutex_unlock(&w->st->ix_lock);
    return rc < 0 ? rc : rc == 0;
}

static int whole_region(struct whole *w, unsigned region, const struct store_region *g)
{
    const uint64_t leaves = store_manifest_nr_entries(g->pages, 1);
    int rc = 1;

    if (store_manifest_root_level(g->pages) == 0)
        return whole_leaf(w, region, 0, &g->root);
    for (uint64_t i = 0; i < leaves && rc > 0; i++) {
        const unsigned at = (unsigned)i & (STORE_NODE_ENTRIES - 1);

        if (at == 0)
            rc = store_snapshot_node(w->snap, region, 1, i >> STORE_NODE_SHIFT, &w->above, w->err);
        if (rc == 0) { /* 1 GiB of zeroes */
            i |= STORE_NODE_ENTRIES - 1;
            rc = 1;
        } else if (rc > 0 && !store_digest_is_zero(&w->above.digest[at])) {
            rc = whole_leaf(w, region, i, &w->above.digest[at]);
        }
    }
    return rc;
}

static int whole_state(struct whole *w, const struct store_record *rec)
{
    size_t len = 0;
    int rc = 1;

    for (unsigned i = 0; i < rec->nr_chunks && rc > 0; i++)
        rc = whole_object(w, &rec->chunks[i], &len);
    return rc;
}

/* One view of the index for all questions: each costs half a dozen calls of the kernel otherwise. */
static int whole_look(struct whole *w, bool on)
{
    int rc = 0;

    (void)pthread_mutex_lock(&w->st->ix_lock);
    if (on)
        rc = store_index_look_begin(w->st->ix, w->err);
    else
        store_index_look_end(w->st->ix);
    (void)pthread_mutex_unlock(&w->st->ix_lock);
    return rc;
}

int store_snapshot_is_whole(struct store_snapshot *snap, struct err *err)
{
    const struct store_record *rec = store_snapshot_info(snap)->rec;
    auto_free struct whole *w = calloc(1, sizeof(*w));
    struct err why = {0};
    int rc;

    if (!w)
        return store_no_memory(err);
    w->snap = snap;
    w->st = store_snapshot_store(snap);
    w->err = &why;
    rc = whole_look(w, true);
    if (rc >= 0)
        rc = whole_state(w, rec);
    for (unsigned i = 0; i < rec->nr_regions && rc > 0; i++)
        rc = whole_region(w, i, &rec->regions[i]);
    (void)whole_look(w, false);
    /* A node that is gone, or is not what it should be, is what is looked for. */
    if (rc == -ESTALE || rc == -EBADMSG)
        return 0;
    return rc < 0 ? err_set(err, rc, "%s", why.msg) : rc;
}

int store_find_hurt(struct store *st, const char *id, struct store_snapshot **ret_snap,
                    struct err *err)
{
    char found[STORE_DIGEST_HEX + 1];
    int rc;

    if (store_resolve(st, id, found, NULL) < 0)
        return 0;
    rc = store_snapshot_open(st, found, ret_snap, err);
    if (rc == 0)
        rc = store_snapshot_is_whole(*ret_snap, err);
    if (rc <= 0)
        return rc;
    return err_set(err, -EEXIST, "snapshot %.*s is there already", STORE_ID_SHORT, found);
}
