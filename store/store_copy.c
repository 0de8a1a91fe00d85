/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "store/store_compare.h"
#include "store/store_reader_internal.h"
#include "store/store_record.h"
#include "store/store_stream.h"
#include "store/store_whole.h"
#include "store/store_writer.h"

struct copy {
    struct store_snapshot *snap;
    struct store *to;
    const struct store_stream_cfg *cfg;
    struct store_stream_result res;
    struct err *err;
    char base_id[STORE_DIGEST_HEX + 1]; /* a snapshot that both stores have; "" if none */
    struct store_snapshot *hurt;        /* the same in @to, which has lost something; or NULL */
    struct store_writer *w;
    uint64_t done, total; /* pages */
    struct store_node leaf;
    bool missing[STORE_NODE_ENTRIES];
    uint8_t data[STORE_NODE_ENTRIES * PAGE_SIZE_4K];
};

/* ---- a snapshot that both have ---- */

struct base_walk {
    struct store *from;
    const struct store_record *rec;
    char *id;
};

static bool same_shape(const struct store_record *a, const struct store_record *b)
{
    if (a->nr_regions != b->nr_regions)
        return false;
    for (unsigned i = 0; i < a->nr_regions; i++)
        if (a->regions[i].gpa != b->regions[i].gpa || a->regions[i].pages != b->regions[i].pages)
            return false;
    return true;
}

/* The newest of the same VM, and before any other the parent. */
static int base_look(void *arg, const struct store_info *info)
{
    struct base_walk *b = arg;
    char id[STORE_DIGEST_HEX + 1];

    if (!same_shape(info->rec, b->rec) || strcmp(info->rec->vm, b->rec->vm) != 0 ||
        (b->id[0] && strcmp(b->id, b->rec->parent) == 0) ||
        store_resolve(b->from, info->id, id, NULL) < 0)
        return 0;
    memcpy(b->id, info->id, sizeof(info->id));
    return 0;
}

/* ---- pages ---- */

static void copy_step(struct copy *c, uint64_t pages)
{
    c->done += pages;
    if (c->cfg->progress)
        c->cfg->progress(c->cfg->arg, c->done * PAGE_SIZE_4K, c->total * PAGE_SIZE_4K);
}

/* Send what is missing of pages [@at, @at + @nr) of the leaf that begins at page @first. */
static int copy_missing(struct copy *c, unsigned region, uint64_t first, unsigned at, unsigned nr)
{
    unsigned from, to;
    int rc = 0;

    for (from = 0; from < nr && rc == 0; from = to) {
        for (to = from; to < nr && c->missing[to] == c->missing[from]; to++)
            ;
        if (!c->missing[from]) {
            for (unsigned i = from; i < to; i++)
                c->res.pages_known += !store_digest_is_zero(&c->leaf.digest[at + i]);
            continue;
        }
        rc = store_snapshot_read(c->snap, region, first + at + from, to - from, c->data, c->err);
        if (rc == 0)
            rc = store_writer_pages(c->w, region, first + at + from, to - from, c->data, c->err);
        c->res.pages_sent += to - from;
        c->res.bytes += (to - from) * PAGE_SIZE_4K;
    }
    return rc;
}

/* Pages of one leaf. */
static int copy_part(struct copy *c, unsigned region, uint64_t i, unsigned at, unsigned nr)
{
    const uint64_t first = i << STORE_NODE_SHIFT;
    int rc = store_snapshot_node(c->snap, region, 0, i, &c->leaf, c->err);

    if (rc == 0)
        rc = store_writer_zero(c->w, region, first + at, nr, c->err);
    else if (rc > 0) {
        rc = store_writer_known(c->w, region, first + at, nr, c->leaf.digest + at, c->missing,
                                c->err);
        if (rc == 0)
            rc = copy_missing(c, region, first, at, nr);
    }
    copy_step(c, nr);
    return rc;
}

static int copy_pages(struct copy *c, unsigned region, uint64_t first, uint64_t nr)
{
    int rc = 0;

    while (nr && rc == 0) {
        const unsigned at = (unsigned)first & (STORE_NODE_ENTRIES - 1);
        const unsigned room = STORE_NODE_ENTRIES - at;
        const unsigned n = nr < room ? (unsigned)nr : room;

        rc = copy_part(c, region, first >> STORE_NODE_SHIFT, at, n);
        first += n;
        nr -= n;
    }
    return rc;
}

static int copy_difference(void *arg, const struct store_difference *d)
{
    return copy_pages(arg, d->region_b, d->first, d->nr);
}

/* Keep all from the common snapshot but what differs. */
static int copy_from_base(struct copy *c)
{
    const struct store_record *rec = store_snapshot_info(c->snap)->rec;
    struct store_snapshot *base;
    struct store_compare_result res;
    int rc = store_snapshot_open(store_snapshot_store(c->snap), c->base_id, &base, c->err);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < rec->nr_regions && rc == 0; i++)
        rc = store_writer_keep(c->w, i, 0, rec->regions[i].pages, c->err);
    if (rc == 0)
        rc = store_compare(base, c->snap, NULL, NULL, &res, c->err);
    for (unsigned k = 0; k < STORE_CHANGE_MAX && rc == 0; k++)
        c->total += res.pages[k];
    if (rc == 0)
        rc = store_compare(base, c->snap, copy_difference, c, &res, c->err);
    store_snapshot_close(base);
    return rc;
}

static int copy_all_pages(struct copy *c)
{
    const struct store_record *rec = store_snapshot_info(c->snap)->rec;
    int rc = 0;

    for (unsigned i = 0; i < rec->nr_regions; i++)
        c->total += rec->regions[i].pages;
    for (unsigned i = 0; i < rec->nr_regions && rc == 0; i++)
        rc = copy_pages(c, i, 0, rec->regions[i].pages);
    return rc;
}

/* ---- the whole ---- */

static int copy_begin(struct copy *c)
{
    const struct store_info *info = store_snapshot_info(c->snap);
    char tags[STORE_TAGS_MAX * (STORE_NAME_MAX + 1) + 1];
    struct store_writer_region regions[STORE_REGIONS_MAX];
    const char *name = c->cfg->name ? c->cfg->name : info->name;
    const struct store_writer_cfg cfg = {
        .parent = c->base_id[0] ? c->base_id : NULL,
        .name = name[0] && !c->hurt ? name : NULL,
        .tags = info->nr_tags && !c->hurt ? tags : NULL,
        .nr_regions = info->rec->nr_regions,
        .regions = regions,
    };

    store_tags_join(info, tags, sizeof(tags));
    for (unsigned i = 0; i < info->rec->nr_regions; i++)
        regions[i] = (struct store_writer_region){.gpa = info->rec->regions[i].gpa,
                                                  .pages = info->rec->regions[i].pages};
    return store_writer_begin(c->to, &cfg, &c->w, c->err);
}

static int copy_publish(struct copy *c)
{
    const struct store_record *rec = store_snapshot_info(c->snap)->rec;
    auto_free uint8_t *record = NULL;
    auto_free uint8_t *state = NULL;
    struct store_publish what = {0};
    int rc = store_record_encode(rec, &record, &what.record_len, c->err);

    if (rc == 0)
        rc = store_snapshot_state(c->snap, &state, &what.state_len, c->err);
    if (rc < 0)
        return rc;
    what.record = record;
    what.state = state;
    what.heal = c->hurt != NULL;
    rc = store_writer_publish(steal_ptr(c->w), &what, c->res.id, c->err);
    c->res.healed = rc == 0 && c->hurt;
    return rc;
}

/* Find what both have; one of the other store that cannot be read is not it. */
static int copy_find_base(struct copy *c)
{
    struct base_walk b = {.from = store_snapshot_store(c->snap),
                          .rec = store_snapshot_info(c->snap)->rec,
                          .id = c->base_id};
    int rc = c->hurt ? 0 : store_list(c->to, base_look, &b, NULL);

    if (rc == -EBADMSG)
        return 0;
    return rc < 0 ? err_set(c->err, rc, "the other store's snapshots cannot be listed") : 0;
}

static bool copy_keeps(const struct copy *c)
{
    const struct store_record *rec = store_snapshot_info(c->snap)->rec;

    for (unsigned i = 0; i < rec->nr_regions; i++)
        if (!store_writer_keeps(c->w, i))
            return false;
    return c->base_id[0];
}

static int copy_all(struct copy *c)
{
    const struct store_info *info = store_snapshot_info(c->snap);
    int rc = store_write_check(c->to, c->err);

    memcpy(c->res.id, info->id, sizeof(info->id));
    if (rc == 0)
        rc = store_find_hurt(c->to, c->res.id, &c->hurt, c->err);
    if (rc == 0)
        rc = copy_find_base(c);
    if (rc == 0)
        rc = copy_begin(c);
    if (rc == 0)
        rc = copy_keeps(c) ? copy_from_base(c) : copy_all_pages(c);
    return rc < 0 ? rc : copy_publish(c);
}

int store_copy(struct store_snapshot *snap, struct store *to, const struct store_stream_cfg *cfg,
               struct store_stream_result *ret_res, struct err *err)
{
    struct copy *c = calloc(1, sizeof(*c));
    int rc;

    if (!c)
        return store_no_memory(err);
    c->snap = snap;
    c->to = to;
    c->cfg = cfg;
    c->err = err;
    rc = copy_all(c);
    store_writer_abort(c->w);
    store_snapshot_close(c->hurt);
    *ret_res = c->res;
    free(c);
    return rc;
}
