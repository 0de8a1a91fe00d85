/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_census.h"

#include <errno.h>
#include <string.h>

#include "store/store_compare.h"
#include "store/store_map.h"
#include "store/store_reader_internal.h"

struct census {
    struct store *st;
    struct store_snapshot *snap;
    struct store_digest_map nodes; /* of other snapshots, walked */
    struct store_digest_map pages; /* of other snapshots */
    uint8_t *changed;              /* a bit for each page of the region at hand */
    unsigned region;
    store_census_fn *fn;
    void *arg;
    struct store_census_result res;
    struct err *err;
};

/* ---- what the others have ---- */

static int others_walk(struct census *c, const struct store_digest *d, uint64_t pages,
                       unsigned level, uint64_t i, struct err *err)
{
    struct store_node *n;
    int rc;

    if (store_digest_is_zero(d) || store_digest_map_find(&c->nodes, d))
        return 0;
    n = calloc(1, sizeof(*n));
    if (!n || store_digest_map_put(&c->nodes, d, 1) < 0) {
        free(n);
        return store_no_memory(err);
    }
    rc = store_load_node(c->st, d, &(struct store_place){pages, level, i}, n, err);
    for (unsigned e = 0; e < n->nr && rc == 0; e++) {
        if (level)
            rc = others_walk(c, &n->digest[e], pages, level - 1, (i << STORE_NODE_SHIFT) + e, err);
        else if (!store_digest_is_zero(&n->digest[e]) &&
                 store_digest_map_put(&c->pages, &n->digest[e], 1) < 0)
            rc = store_no_memory(err);
    }
    free(n);
    return rc;
}

/* One that is damaged is counted, and what can be read of it is known. */
static int others_add(struct census *c, const char *id)
{
    struct store_snapshot *other = NULL;
    struct err why = {0};
    int rc = store_snapshot_open(c->st, id, &other, &why);

    if (rc == -ENOENT)
        return 0; /* removed meanwhile */
    if (rc >= 0) {
        const struct store_record *rec = store_snapshot_info(other)->rec;

        for (unsigned i = 0; i < rec->nr_regions && rc == 0; i++)
            rc = others_walk(c, &rec->regions[i].root, rec->regions[i].pages,
                             store_manifest_root_level(rec->regions[i].pages), 0, &why);
    }
    store_snapshot_close(other);
    if (rc == -ENOMEM)
        return err_set(c->err, rc, "%s", why.msg);
    c->res.unread += rc < 0;
    return 0;
}

static int others_collect(struct census *c)
{
    const char *own = store_snapshot_info(c->snap)->id;
    char(*ids)[STORE_DIGEST_HEX + 1] = NULL;
    size_t nr = 0;
    int rc = store_list_ids(c->st, &ids, &nr, c->err);

    for (size_t i = 0; i < nr && rc == 0; i++)
        if (strcmp(ids[i], own) != 0)
            rc = others_add(c, ids[i]);
    free(ids);
    return rc;
}

/* ---- what has changed since the parent ---- */

static int changed_note(void *arg, const struct store_difference *d)
{
    struct census *c = arg;

    if (d->region_b != c->region || d->change == STORE_CHANGE_REMOVED)
        return 0;
    for (uint64_t page = d->first; page < d->first + d->nr; page++)
        c->changed[page / 8] = (uint8_t)(c->changed[page / 8] | 1U << page % 8);
    return 0;
}

static int changed_find(struct census *c, struct store_snapshot *parent)
{
    struct store_compare_result res;

    return parent ? store_compare(parent, c->snap, changed_note, c, &res, c->err) : 0;
}

/* ---- the pages ---- */

static int census_leaf(struct census *c, const struct store_node *leaf, uint64_t first)
{
    uint8_t flags[STORE_NODE_ENTRIES] = {0};

    for (unsigned i = 0; i < leaf->nr; i++) {
        const uint64_t page = first + i;
        unsigned f = 0;

        if (!store_digest_is_zero(&leaf->digest[i]))
            f |= STORE_PAGE_PRESENT;
        if (f && store_digest_map_find(&c->pages, &leaf->digest[i]))
            f |= STORE_PAGE_SHARED;
        if (c->changed[page / 8] >> page % 8 & 1)
            f |= STORE_PAGE_CHANGED;
        c->res.zero += !(f & STORE_PAGE_PRESENT);
        c->res.shared += f & STORE_PAGE_SHARED ? 1 : 0;
        c->res.unique += (f & (STORE_PAGE_PRESENT | STORE_PAGE_SHARED)) == STORE_PAGE_PRESENT;
        c->res.changed += f & STORE_PAGE_CHANGED ? 1 : 0;
        flags[i] = (uint8_t)f;
    }
    c->res.pages += leaf->nr;
    return c->fn ? c->fn(c->arg, c->region, first, flags, leaf->nr) : 0;
}

static int census_region(struct census *c, struct store_snapshot *parent)
{
    const struct store_region *g = &store_snapshot_info(c->snap)->rec->regions[c->region];
    auto_free struct store_node *leaf = malloc(sizeof(*leaf));
    int rc;

    c->changed = calloc(1, g->pages / 8 + 1);
    rc = leaf && c->changed ? changed_find(c, parent) : store_no_memory(c->err);
    for (uint64_t i = 0; i < store_manifest_nr_entries(g->pages, 1) && rc == 0; i++) {
        memset(leaf, 0, sizeof(*leaf));
        rc = store_snapshot_node(c->snap, c->region, 0, i, leaf, c->err);
        leaf->nr = store_manifest_node_nr(g->pages, 0, i);
        if (rc >= 0)
            rc = census_leaf(c, leaf, i << STORE_NODE_SHIFT);
    }
    free(c->changed);
    c->changed = NULL;
    return rc;
}

int store_census(struct store_snapshot *snap, store_census_fn *fn, void *arg,
                 struct store_census_result *ret_res, struct err *err)
{
    const struct store_record *rec = store_snapshot_info(snap)->rec;
    struct census c = {
        .st = store_snapshot_store(snap), .snap = snap, .fn = fn, .arg = arg, .err = err};
    struct store_snapshot *parent = NULL;
    int rc;

    if (rec->parent[0] && store_snapshot_open(c.st, rec->parent, &parent, NULL) == 0)
        c.res.has_parent = true;
    rc = others_collect(&c);
    for (c.region = 0; c.region < rec->nr_regions && rc == 0; c.region++)
        rc = census_region(&c, parent);
    store_snapshot_close(parent);
    store_digest_map_release(&c.nodes);
    store_digest_map_release(&c.pages);
    if (rc == 0)
        *ret_res = c.res;
    return rc;
}
