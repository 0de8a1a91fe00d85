/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "store/store_verify_internal.h"

/* Where in which snapshot a walk is. */
struct walk {
    struct verify *v;
    const char *id;
    struct store_snapshot *snap;
    unsigned region;
    uint64_t pages;
    uint64_t lost_first, lost_nr; /* a run that has not been reported yet */
};

static void walk_report(struct walk *w)
{
    struct store_problem p = {
        .severity = STORE_WRONG,
        .what = "pages are lost",
        .snapshot = w->id,
        .has_pages = true,
        .region = w->region,
        .first = w->lost_first,
        .nr = w->lost_nr,
    };

    if (!w->lost_nr)
        return;
    w->lost_nr = 0;
    w->v->res->problems++;
    if (w->v->cfg->problem)
        w->v->cfg->problem(w->v->cfg->arg, &p);
}

static void walk_lose(struct walk *w, uint64_t first, uint64_t nr)
{
    if (w->lost_nr && w->lost_first + w->lost_nr == first) {
        w->lost_nr += nr;
        return;
    }
    walk_report(w);
    w->lost_first = first;
    w->lost_nr = nr;
}

/* Would a restore get this page?  Asked only when its row is not true. */
static bool walk_page_reads(struct walk *w, uint64_t page)
{
    uint8_t buf[PAGE_SIZE_4K];

    return store_snapshot_read(w->snap, w->region, page, 1, buf, NULL) == 0;
}

/* 1 if all pages of a leaf are there, 0 if some are lost, or an errno. */
static int walk_leaf(struct walk *w, const struct store_node *leaf, uint64_t first)
{
    bool good = true;

    for (unsigned i = 0; i < leaf->nr; i++) {
        uint64_t loc = 0;
        int rc;

        if (store_digest_is_zero(&leaf->digest[i]))
            continue;
        rc = store_index_page(w->v->ix, &leaf->digest[i], &loc, NULL);
        if (rc > 0 && verify_loc_is_true(w->v, loc) && !verify_row_lies(w->v, &leaf->digest[i]))
            continue;
        if (rc == 0 && good) {
            unsigned long long page = first + i;

            verify_say(w->v, STORE_WRONG, w->id, "region %u, page %llu: is not in the index",
                       w->region, page);
        }
        good = false;
        if (!walk_page_reads(w, first + i))
            walk_lose(w, first + i, 1);
    }
    return good;
}

/* What is remembered of a node under which everything is true: it is so only in such a place. */
static uint64_t walk_shape(const struct walk *w, unsigned level, uint64_t i)
{
    return (uint64_t)store_manifest_node_nr(w->pages, level, i) << 8 | (level + 1);
}

static int walk_tree(struct walk *w, const struct store_digest *d, unsigned level, uint64_t i)
{
    const uint64_t first = i << STORE_NODE_SHIFT * (level + 1);
    const uint64_t *known = store_digest_map_find(&w->v->trees, d);
    struct store_node *n;
    struct err why = {0};
    int good = 1;

    if (store_digest_is_zero(d) || (known && *known == walk_shape(w, level, i)))
        return 1;
    n = calloc(1, sizeof(*n));
    if (!n)
        return verify_no_memory(w->v);
    if (store_load_node(w->v->st, d, &(struct store_place){w->pages, level, i}, n, &why) < 0) {
        uint64_t nr = (uint64_t)STORE_NODE_ENTRIES << STORE_NODE_SHIFT * level;

        verify_say(w->v, STORE_WRONG, w->id, "region %u: manifest: %s", w->region, why.msg);
        walk_lose(w, first, nr < w->pages - first ? nr : w->pages - first);
        good = 0;
    } else if (level == 0) {
        good = walk_leaf(w, n, first);
    } else {
        for (unsigned e = 0; e < n->nr && good >= 0; e++) {
            int rc = walk_tree(w, &n->digest[e], level - 1, (i << STORE_NODE_SHIFT) + e);

            good = rc <= 0 ? rc : good;
        }
    }
    free(n);
    if (good > 0 && store_digest_map_put(&w->v->trees, d, walk_shape(w, level, i)) < 0)
        return verify_no_memory(w->v);
    return good;
}

static int verify_open_snapshot(struct verify *v, const struct store_found *found)
{
    const struct store_record *rec = found->rec;
    struct walk w = {.v = v, .id = found->info.id};
    uint8_t *state = NULL;
    struct err why = {0};
    size_t len;
    int rc = store_snapshot_open(v->st, found->info.id, &w.snap, &why);

    if (rc < 0) {
        /* Removed since the walk began: nothing is wrong with that. */
        if (rc != -ENOENT)
            verify_say(v, STORE_WRONG, found->info.id, "%s", why.msg);
        return 0;
    }
    for (unsigned i = 0; i < rec->nr_regions && rc >= 0; i++) {
        w.region = i;
        w.pages = rec->regions[i].pages;
        rc = walk_tree(&w, &rec->regions[i].root, store_manifest_root_level(w.pages), 0);
        walk_report(&w);
    }
    if (rc >= 0 && store_snapshot_state(w.snap, &state, &len, &why) < 0)
        verify_say(v, STORE_WRONG, found->info.id, "%s", why.msg);
    free(state);
    store_snapshot_close(w.snap);
    return rc < 0 ? rc : 0;
}

struct row_list {
    struct verify *v;
    size_t nr, cap;
    struct store_found *found;
};

static int verify_take_row(void *arg, const struct store_snap_row *row)
{
    struct row_list *l = arg;
    struct store_found found;
    struct err why = {0};
    void *p;

    l->v->res->snapshots++;
    if (store_row_read(row, &found, &why) < 0) {
        verify_say(l->v, STORE_WRONG, found.info.id, "%s", why.msg);
        l->v->res->snapshots_bad++;
        store_found_release(&found);
        return 0;
    }
    p = array_grow(l->found, l->nr, &l->cap, sizeof(l->found[0]));
    if (!p) {
        store_found_release(&found);
        return verify_no_memory(l->v);
    }
    l->found = p;
    l->found[l->nr++] = found;
    return 0;
}

int verify_snapshots(struct verify *v)
{
    struct row_list l = {.v = v};
    int rc = store_index_each_snapshot(v->ix, verify_take_row, &l, v->err);

    for (size_t i = 0; i < l.nr && rc == 0; i++) {
        uint64_t before = v->res->problems;

        rc = verify_open_snapshot(v, &l.found[i]);
        v->res->snapshots_bad += v->res->problems != before;
    }
    for (size_t i = 0; i < l.nr; i++)
        store_found_release(&l.found[i]);
    free(l.found);
    return rc;
}
