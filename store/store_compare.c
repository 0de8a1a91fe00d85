/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_compare.h"

#include <errno.h>
#include <string.h>

#include "store/store_reader_internal.h"

struct compare {
    struct store_snapshot *a, *b;
    unsigned region_a, region_b;
    uint64_t gpa;   /* of the region */
    uint64_t pages; /* of both regions where the trees are compared */
    store_difference_fn *fn;
    void *arg;
    struct store_compare_result res;
    struct store_difference run; /* not yet told; nr 0: none */
    struct err *err;
};

/* ---- runs ---- */

static int run_flush(struct compare *c)
{
    struct store_difference d = c->run;

    c->run.nr = 0;
    if (!d.nr)
        return 0;
    c->res.pages[d.change] += d.nr;
    return c->fn ? c->fn(c->arg, &d) : 0;
}

static int run_add(struct compare *c, enum store_change change, uint64_t first, uint64_t nr)
{
    int rc;

    if (c->run.nr && c->run.change == change && c->run.first + c->run.nr == first) {
        c->run.nr += nr;
        return 0;
    }
    rc = run_flush(c);
    c->run = (struct store_difference){
        .change = change,
        .region_a = c->region_a,
        .region_b = c->region_b,
        .gpa = c->gpa + first * PAGE_SIZE_4K,
        .first = first,
        .nr = nr,
    };
    return rc;
}

/* ---- nodes ---- */

static int compare_leaves(struct compare *c, const struct store_node *a, const struct store_node *b,
                          uint64_t first)
{
    unsigned nr = a->nr < b->nr ? a->nr : b->nr;
    int rc = 0;

    for (unsigned i = 0; i < nr && rc == 0; i++) {
        enum store_change change = STORE_CHANGE_CONTENT;

        if (store_digest_equal(&a->digest[i], &b->digest[i]))
            continue;
        if (store_digest_is_zero(&a->digest[i]))
            change = STORE_CHANGE_FILLED;
        else if (store_digest_is_zero(&b->digest[i]))
            change = STORE_CHANGE_CLEARED;
        rc = run_add(c, change, first + i, 1);
    }
    return rc;
}

/* A node, or one of zeroes where there is none. */
static int compare_load(struct compare *c, struct store_snapshot *snap,
                        const struct store_digest *d, const struct store_place *place,
                        struct store_node *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->level = place->level;
    ret->nr = store_manifest_node_nr(place->pages, place->level, place->i);
    if (store_digest_is_zero(d))
        return 0;
    c->res.nodes++;
    return store_load_node(store_snapshot_store(snap), d, place, ret, c->err);
}

static int compare_trees(struct compare *c, const struct store_digest *a,
                         const struct store_digest *b, unsigned level, uint64_t i)
{
    const struct store_place place = {c->pages, level, i};
    struct store_node *n;
    int rc;

    if (store_digest_equal(a, b))
        return 0;
    n = calloc(2, sizeof(*n));
    if (!n)
        return store_no_memory(c->err);
    rc = compare_load(c, c->a, a, &place, &n[0]);
    if (rc == 0)
        rc = compare_load(c, c->b, b, &place, &n[1]);
    if (rc == 0 && level == 0)
        rc = compare_leaves(c, &n[0], &n[1], i << STORE_NODE_SHIFT);
    for (unsigned e = 0; level && e < n[0].nr && rc == 0; e++)
        rc = compare_trees(c, &n[0].digest[e], &n[1].digest[e], level - 1,
                           (i << STORE_NODE_SHIFT) + e);
    free(n);
    return rc;
}

/* ---- regions ---- */

/* Regions of different sizes: leaf by leaf as far as both go, then the rest of the larger. */
static int compare_sizes(struct compare *c, uint64_t pages_a, uint64_t pages_b)
{
    uint64_t common = pages_a < pages_b ? pages_a : pages_b;
    struct store_node *n = calloc(2, sizeof(*n));
    int rc = n ? 0 : store_no_memory(c->err);

    for (uint64_t i = 0; i < store_manifest_nr_entries(common, 1) && rc == 0; i++) {
        memset(n, 0, 2 * sizeof(*n));
        n[0].nr = store_manifest_node_nr(pages_a, 0, i);
        n[1].nr = store_manifest_node_nr(pages_b, 0, i);
        rc = store_snapshot_node(c->a, c->region_a, 0, i, &n[0], c->err);
        if (rc >= 0)
            rc = store_snapshot_node(c->b, c->region_b, 0, i, &n[1], c->err);
        c->res.nodes += 2;
        if (rc >= 0)
            rc = compare_leaves(c, &n[0], &n[1], i << STORE_NODE_SHIFT);
    }
    free(n);
    if (rc == 0 && pages_a > common)
        rc = run_add(c, STORE_CHANGE_REMOVED, common, pages_a - common);
    if (rc == 0 && pages_b > common)
        rc = run_add(c, STORE_CHANGE_ADDED, common, pages_b - common);
    return rc;
}

static int region_find(const struct store_record *rec, uint64_t gpa)
{
    for (unsigned i = 0; i < rec->nr_regions; i++)
        if (rec->regions[i].gpa == gpa)
            return (int)i;
    return -1;
}

static int compare_region(struct compare *c, const struct store_record *a,
                          const struct store_record *b, unsigned i)
{
    const struct store_region *from = &a->regions[i], *to;
    int other = region_find(b, from->gpa);
    int rc;

    c->region_a = i;
    c->region_b = other < 0 ? 0 : (unsigned)other;
    c->gpa = from->gpa;
    c->pages = from->pages;
    if (other < 0) {
        rc = run_add(c, STORE_CHANGE_REMOVED, 0, from->pages);
    } else {
        to = &b->regions[other];
        rc = from->pages == to->pages ? compare_trees(c, &from->root, &to->root,
                                                      store_manifest_root_level(from->pages), 0)
                                      : compare_sizes(c, from->pages, to->pages);
    }
    return rc < 0 ? rc : run_flush(c);
}

int store_compare(struct store_snapshot *a, struct store_snapshot *b, store_difference_fn *fn,
                  void *arg, struct store_compare_result *ret_res, struct err *err)
{
    const struct store_record *rec_a = store_snapshot_info(a)->rec;
    const struct store_record *rec_b = store_snapshot_info(b)->rec;
    struct compare c = {.a = a, .b = b, .fn = fn, .arg = arg, .err = err};
    int rc = 0;

    for (unsigned i = 0; i < rec_a->nr_regions && rc == 0; i++)
        rc = compare_region(&c, rec_a, rec_b, i);
    for (unsigned i = 0; i < rec_b->nr_regions && rc == 0; i++) {
        if (region_find(rec_a, rec_b->regions[i].gpa) >= 0)
            continue;
        c.region_a = 0;
        c.region_b = i;
        c.gpa = rec_b->regions[i].gpa;
        rc = run_add(&c, STORE_CHANGE_ADDED, 0, rec_b->regions[i].pages);
        if (rc == 0)
            rc = run_flush(&c);
    }
    if (rc == 0)
        *ret_res = c.res;
    return rc;
}
