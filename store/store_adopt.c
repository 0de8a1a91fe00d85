/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a new snapshot by name instead of by contents: for copies between stores and
 * for streams.
 */
#include <errno.h>
#include <string.h>

#include "store/store_writer_internal.h"

static int adopt_check(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                       struct err *err)
{
    if (region >= w->nr_regions || first > w->regions[region].pages ||
        nr > w->regions[region].pages - first)
        return err_set(err, -EINVAL, "region %u has no pages %llu to %llu", region,
                       (unsigned long long)first, (unsigned long long)(first + nr - 1));
    return writer_check(w, err);
}

/* Where the store has some contents; 0 if nowhere. */
static int adopt_search(struct store_writer *w, const struct store_digest *d, uint64_t *ret_loc,
                        struct err *err)
{
    int rc = 0;

    *ret_loc = 0;
    if (store_seen_find(w->seen, d, ret_loc) || !w->ix_has_pages)
        return 0;
    (void)pthread_mutex_lock(&w->ix_lock);
    rc = store_index_page(w->ix, d, ret_loc, err);
    (void)pthread_mutex_unlock(&w->ix_lock);
    return rc < 0 ? rc : 0;
}

/* Enter a page whose contents lie at @loc; 0 looks for them. */
static int adopt_page(struct store_writer *w, struct writer_chunk *c, const struct store_digest *d,
                      uint64_t loc, bool *ret_missing, struct err *err)
{
    int rc = writer_leaf_offer(w, c, 0, d, err);

    *ret_missing = false;
    if (rc < 0 || rc == PAGE_DONE)
        return rc < 0 ? rc : 0;
    rc = loc ? 0 : adopt_search(w, d, &loc, err);
    if (rc < 0)
        return rc;
    *ret_missing = !loc;
    if (loc) {
        writer_leaf_apply(w, c, 0, d, loc);
        atomic_fetch_add(&w->known, 1);
    }
    return 0;
}

int store_writer_known(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                       const struct store_digest *d, bool *ret_missing, struct err *err)
{
    auto_free struct writer_chunk *c = malloc(sizeof(*c));
    int rc = adopt_check(w, region, first, nr, err);

    if (rc == 0 && !c)
        rc = store_no_memory(err);
    for (uint64_t i = 0; i < nr && rc == 0; i++) {
        ret_missing[i] = false;
        if (store_digest_is_zero(&d[i])) {
            rc = store_writer_zero(w, region, first + i, 1, err);
            continue;
        }
        c->nr = 1;
        c->at[0].region = region;
        c->at[0].page = first + i;
        c->at[0].seq = atomic_fetch_add(&w->seq, 1);
        rc = adopt_page(w, c, &d[i], 0, &ret_missing[i], err);
    }
    return rc;
}

/* What a page that was given before contains. */
static int twin_source(const struct store_writer *w, const struct store_twin *t,
                       struct store_digest *ret_d, uint64_t *ret_loc, struct err *err)
{
    const unsigned at = t->from_page & (STORE_NODE_ENTRIES - 1);
    const struct writer_leaf *leaf = NULL;

    if (t->from_region < w->nr_regions && t->from_page < w->regions[t->from_region].pages)
        leaf = w->regions[t->from_region].leaf[t->from_page >> STORE_NODE_SHIFT];
    if (!leaf || !leaf->node.loc[at] || store_digest_is_zero(&leaf->node.digest[at]))
        return err_set(err, -EINVAL, "region %u, page %llu: is to be the same as one not given",
                       t->region, (unsigned long long)t->page);
    *ret_d = leaf->node.digest[at];
    *ret_loc = leaf->node.loc[at];
    return 0;
}

int store_writer_same(struct store_writer *w, const struct store_twin *t, size_t nr,
                      struct err *err)
{
    auto_free struct writer_chunk *c = malloc(sizeof(*c));
    int rc = c ? 0 : store_no_memory(err);

    writer_pipeline_drain(w);
    for (size_t i = 0; i < nr && rc == 0; i++) {
        struct store_digest d;
        uint64_t loc = 0;
        bool missing;

        rc = adopt_check(w, t[i].region, t[i].page, 1, err);
        if (rc == 0)
            rc = twin_source(w, &t[i], &d, &loc, err);
        if (rc < 0)
            break;
        c->nr = 1;
        c->at[0].region = t[i].region;
        c->at[0].page = t[i].page;
        c->at[0].seq = atomic_fetch_add(&w->seq, 1);
        rc = adopt_page(w, c, &d, loc, &missing, err);
    }
    return rc;
}
