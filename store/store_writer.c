/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_writer.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "store/store_whole.h"
#include "store/store_writer_internal.h"

/* ---- leaves ---- */

static pthread_mutex_t *leaf_stripe(struct store_writer *w, unsigned region, uint64_t i)
{
    return &w->stripes[(i + (uint64_t)region * 17) % WRITER_STRIPES];
}

static void leaf_tell(struct writer_leaf *leaf, unsigned at)
{
    leaf->told[at / 64] |= (uint64_t)1 << at % 64;
}

/* Copies may be processed out of order: a later one of this page was here already. */
static bool leaf_is_past(const struct writer_leaf *leaf, unsigned at, uint64_t seq)
{
    return (leaf->told[at / 64] >> at % 64 & 1) && leaf->seq[at] > seq;
}

struct writer_leaf *writer_leaf_of(struct store_writer *w, unsigned region, uint64_t i)
{
    return w->regions[region].leaf[i];
}

/* Make room for single pages of a leaf; keeps what was said of it as a whole. */
static int leaf_load_locked(struct store_writer *w, unsigned region, uint64_t i,
                            struct writer_leaf **ret, struct err *err)
{
    struct writer_region *g = &w->regions[region];
    struct writer_leaf *leaf = g->leaf[i];
    int rc = 0;

    if (leaf) {
        *ret = leaf;
        return 0;
    }
    leaf = calloc(1, sizeof(*leaf));
    if (!leaf)
        return store_no_memory(err);
    if (g->parent >= 0 && g->state[i] != LEAF_ZERO)
        rc = store_snapshot_node(w->parent, (unsigned)g->parent, 0, i, &leaf->node, err);
    if (rc < 0) {
        free(leaf);
        (void)err_prefix(err, rc, "parent %.*s", STORE_ID_SHORT, w->parent_id);
        return rc;
    }
    leaf->node.level = 0;
    leaf->node.nr = store_manifest_node_nr(g->pages, 0, i);
    if (g->state[i] != LEAF_UNTOLD)
        memset(leaf->told, 0xff, sizeof(leaf->told));
    for (unsigned at = 0; at < leaf->node.nr; at++)
        leaf->seq[at] = g->seq[i];
    g->state[i] = LEAF_LOADED;
    g->leaf[i] = leaf;
    *ret = leaf;
    return 0;
}

int writer_leaf_offer(struct store_writer *w, const struct writer_chunk *c, unsigned i,
                      const struct store_digest *d, struct err *err)
{
    unsigned region = c->at[i].region, at = c->at[i].page & (STORE_NODE_ENTRIES - 1);
    uint64_t number = c->at[i].page >> STORE_NODE_SHIFT;
    pthread_mutex_t *lock = leaf_stripe(w, region, number);
    struct writer_leaf *leaf = NULL;
    int rc;

    (void)pthread_mutex_lock(lock);
    rc = leaf_load_locked(w, region, number, &leaf, err);
    if (rc == 0 && leaf_is_past(leaf, at, c->at[i].seq)) {
        rc = PAGE_DONE;
    } else if (rc == 0 && store_digest_equal(&leaf->node.digest[at], d)) {
        leaf->seq[at] = c->at[i].seq;
        leaf_tell(leaf, at);
        atomic_fetch_add(&w->same, 1);
        rc = PAGE_DONE;
    } else if (rc == 0) {
        rc = PAGE_STORE;
    }
    (void)pthread_mutex_unlock(lock);
    return rc;
}

void writer_leaf_apply(struct store_writer *w, const struct writer_chunk *c, unsigned i,
                       const struct store_digest *d, uint64_t loc)
{
    unsigned region = c->at[i].region, at = c->at[i].page & (STORE_NODE_ENTRIES - 1);
    uint64_t number = c->at[i].page >> STORE_NODE_SHIFT;
    pthread_mutex_t *lock = leaf_stripe(w, region, number);
    struct writer_leaf *leaf;

    (void)pthread_mutex_lock(lock);
    leaf = w->regions[region].leaf[number];
    if (!leaf_is_past(leaf, at, c->at[i].seq)) {
        leaf->node.digest[at] = *d;
        leaf->node.loc[at] = loc;
        leaf->seq[at] = c->at[i].seq;
        leaf_tell(leaf, at);
    }
    (void)pthread_mutex_unlock(lock);
}

/* Say that entries [@from, @to) of a leaf are zero, or are what the parent has. */
struct leaf_range {
    unsigned region;
    uint64_t number;
    unsigned from, to;
    bool keep;
};

static int leaf_mark_locked(struct store_writer *w, const struct leaf_range *r, struct err *err)
{
    struct writer_region *g = &w->regions[r->region];
    uint64_t seq = atomic_fetch_add(&w->seq, 1);
    struct store_node *parent = NULL;
    struct writer_leaf *leaf;
    int rc;

    /* A whole leaf that nobody has touched costs nothing. */
    if (!g->leaf[r->number] && r->from == 0 &&
        r->to == store_manifest_node_nr(g->pages, 0, r->number)) {
        g->state[r->number] = r->keep ? LEAF_KEPT : LEAF_ZERO;
        g->seq[r->number] = seq;
        return 0;
    }
    rc = leaf_load_locked(w, r->region, r->number, &leaf, err);
    if (rc < 0)
        return rc;
    if (r->keep) {
        parent = calloc(1, sizeof(*parent));
        if (!parent)
            return store_no_memory(err);
        rc = store_snapshot_node(w->parent, (unsigned)g->parent, 0, r->number, parent, err);
    }
    for (unsigned at = r->from; at < r->to && rc >= 0; at++) {
        static const struct store_digest zero;

        leaf->node.digest[at] = parent ? parent->digest[at] : zero;
        leaf->node.loc[at] = parent ? parent->loc[at] : 0;
        leaf->seq[at] = seq;
        leaf_tell(leaf, at);
    }
    free(parent);
    return rc < 0 ? rc : 0;
}

/* A range of pages that are zero or kept, leaf by leaf. */
static int writer_mark(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                       bool keep, struct err *err)
{
    uint64_t end = first + nr;
    int rc = 0;

    while (first < end && rc == 0) {
        const uint64_t number = first >> STORE_NODE_SHIFT;
        const uint64_t stop = (number + 1) << STORE_NODE_SHIFT;
        const uint64_t to = end < stop ? end : stop;
        const struct leaf_range r = {
            .region = region,
            .number = number,
            .from = (unsigned)first & (STORE_NODE_ENTRIES - 1),
            .to = (unsigned)(to - (number << STORE_NODE_SHIFT)),
            .keep = keep,
        };
        pthread_mutex_t *lock = leaf_stripe(w, region, number);

        (void)pthread_mutex_lock(lock);
        rc = leaf_mark_locked(w, &r, err);
        (void)pthread_mutex_unlock(lock);
        first = to;
    }
    atomic_fetch_add(keep ? &w->same : &w->zero, nr);
    return rc;
}

/* ---- giving pages ---- */

static int writer_check_range(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                              struct err *err)
{
    if (region >= w->nr_regions)
        return err_set(err, -EINVAL, "region %u: there are %u", region, w->nr_regions);
    if (first > w->regions[region].pages || nr > w->regions[region].pages - first) {
        return err_set(err, -EINVAL, "region %u: %llu pages from %llu: it has %llu", region,
                       (unsigned long long)nr, (unsigned long long)first,
                       (unsigned long long)w->regions[region].pages);
    }
    return writer_check(w, err);
}

static bool page_is_zero(const uint8_t *p)
{
    static const uint8_t zero[8];

    return memcmp(p, zero, sizeof(zero)) == 0 &&
           memcmp(p, p + sizeof(zero), PAGE_SIZE_4K - sizeof(zero)) == 0;
}

uint8_t *store_writer_chunk_at(struct writer_chunk *c, uint64_t *ret_left)
{
    *ret_left = WRITER_CHUNK_PAGES - c->nr;
    return c->data + c->nr * PAGE_SIZE_4K;
}

/* As store_writer_filled(), for pages that are known to be there. */
static int chunk_filled(struct store_writer *w, struct writer_chunk **ref, unsigned region,
                        uint64_t first, uint64_t nr, struct err *err)
{
    struct writer_chunk *c = *ref;

    for (uint64_t i = 0; i < nr; i++, c->nr++) {
        c->at[c->nr].region = region;
        c->at[c->nr].page = first + i;
        c->at[c->nr].seq = atomic_fetch_add(&w->seq, 1);
    }
    if (c->nr < WRITER_CHUNK_PAGES)
        return 0;
    store_writer_chunk_give(w, steal_ptr(*ref));
    return atomic_load(&w->failed) ? writer_check(w, err) : 0;
}

int store_writer_filled(struct store_writer *w, struct writer_chunk **ref, unsigned region,
                        uint64_t first, uint64_t nr, struct err *err)
{
    int rc = writer_check_range(w, region, first, nr, err);

    return rc < 0 ? rc : chunk_filled(w, ref, region, first, nr, err);
}

int store_writer_pages(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                       const void *data, struct err *err)
{
    const uint8_t *p = data;
    struct writer_chunk *c = NULL;
    uint64_t zero_from = first, left;
    int rc = writer_check_range(w, region, first, nr, err);

    for (uint64_t page = first; page < first + nr && rc == 0; page++, p += PAGE_SIZE_4K) {
        if (page_is_zero(p))
            continue;
        if (zero_from < page)
            rc = writer_mark(w, region, zero_from, page - zero_from, false, err);
        zero_from = page + 1;
        if (!c)
            c = store_writer_chunk(w);
        memcpy(store_writer_chunk_at(c, &left), p, PAGE_SIZE_4K);
        if (rc == 0)
            rc = chunk_filled(w, &c, region, page, 1, err);
    }
    if (rc == 0 && zero_from < first + nr)
        rc = writer_mark(w, region, zero_from, first + nr - zero_from, false, err);
    store_writer_chunk_give(w, c);
    return rc;
}

int store_writer_zero(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                      struct err *err)
{
    int rc = writer_check_range(w, region, first, nr, err);

    return rc < 0 ? rc : writer_mark(w, region, first, nr, false, err);
}

bool store_writer_keeps(const struct store_writer *w, unsigned region)
{
    return region < w->nr_regions && w->regions[region].parent >= 0;
}

int store_writer_keep(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                      struct err *err)
{
    int rc = writer_check_range(w, region, first, nr, err);

    if (rc < 0)
        return rc;
    if (!store_writer_keeps(w, region))
        return err_set(err, -EINVAL, "region %u: the parent has no such region", region);
    return writer_mark(w, region, first, nr, true, err);
}

void store_writer_counts(const struct store_writer *w, struct store_counts *ret_counts)
{
    *ret_counts = (struct store_counts){
        .pages_zero = atomic_load(&w->zero),
        .pages_same = atomic_load(&w->same),
        .pages_known = atomic_load(&w->known),
        .pages_new = atomic_load(&w->fresh),
        .bytes_stored = atomic_load(&w->stored),
    };
}

/* ---- begin ---- */

static int begin_regions(struct store_writer *w, const struct store_writer_cfg *cfg,
                         struct err *err)
{
    uint64_t floor = 0, pages = 0;

    if (cfg->nr_regions > STORE_REGIONS_MAX)
        return err_set(err, -E2BIG, "%u regions, at most %u", cfg->nr_regions, STORE_REGIONS_MAX);
    for (unsigned i = 0; i < cfg->nr_regions; i++) {
        const struct store_writer_region *from = &cfg->regions[i];
        struct writer_region *g = &w->regions[i];

        if (from->pages == 0 || from->pages > STORE_REGION_PAGES_MAX)
            return err_set(err, -EINVAL, "region %u: %llu pages", i,
                           (unsigned long long)from->pages);
        if (from->gpa < floor || from->gpa % PAGE_SIZE_4K ||
            from->pages * PAGE_SIZE_4K > UINT64_MAX - from->gpa)
            return err_set(err, -EINVAL, "region %u: address 0x%llx", i,
                           (unsigned long long)from->gpa);
        floor = from->gpa + from->pages * PAGE_SIZE_4K;
        pages += from->pages;
        if (pages > STORE_REGION_PAGES_MAX)
            return err_set(err, -E2BIG, "regions: over 16 TiB of memory");
        g->gpa = from->gpa;
        g->pages = from->pages;
        g->parent = -1;
        g->nr_leaves = store_manifest_nr_entries(from->pages, 1);
        w->nr_regions = i + 1;
        g->state = calloc(g->nr_leaves, sizeof(g->state[0]));
        g->seq = calloc(g->nr_leaves, sizeof(g->seq[0]));
        g->leaf = calloc(g->nr_leaves, sizeof(struct writer_leaf *));
        if (!g->state || !g->seq || !g->leaf)
            return store_no_memory(err);
    }
    return 0;
}

/* The same region in the parent; -1 if it has none. */
static int begin_find_region(const struct store_record *rec, const struct writer_region *g)
{
    for (unsigned i = 0; i < rec->nr_regions; i++)
        if (rec->regions[i].gpa == g->gpa && rec->regions[i].pages == g->pages)
            return (int)i;
    return -1;
}

static int begin_parent(struct store_writer *w, const struct store_writer_cfg *cfg, struct err *err)
{
    const struct store_info *info;
    int rc;

    if (!cfg->parent)
        return 0;
    rc = store_snapshot_open(w->st, cfg->parent, &w->parent, err);
    if (rc < 0)
        return err_prefix(err, rc, "parent");
    info = store_snapshot_info(w->parent);
    memcpy(w->parent_id, info->id, sizeof(w->parent_id));
    /* What the parent has lost must be given and stored again, not taken for known. */
    rc = store_snapshot_is_whole(w->parent, err);
    if (rc <= 0)
        return rc;
    for (unsigned i = 0; i < w->nr_regions; i++)
        w->regions[i].parent = begin_find_region(info->rec, &w->regions[i]);
    return 0;
}

static int begin_tags(struct store_writer *w, const char *tags, struct err *err)
{
    auto_free char *copy = strdup(tags ? tags : "");
    char *save = NULL;
    unsigned nr = 0;

    w->tags = strdup(tags ? tags : "");
    if (!copy || !w->tags)
        return store_no_memory(err);
    if (!copy[0])
        return 0;
    if (copy[0] == ',' || copy[strlen(copy) - 1] == ',' || strstr(copy, ",,"))
        return err_set(err, -EINVAL, "tags: \"%.64s\" has an empty one", tags);
    for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
        if (!store_name_is_good(t))
            return err_set(err, -EINVAL, "\"%.64s\" cannot be a tag", t);
        if (++nr > STORE_TAGS_MAX)
            return err_set(err, -E2BIG, "more than %u tags", STORE_TAGS_MAX);
    }
    return 0;
}

struct name_walk {
    const char *name;
    bool taken;
};

static int name_row(void *arg, const struct store_snap_row *row)
{
    struct name_walk *n = arg;

    n->taken = n->taken || (row->name && strcmp(row->name, n->name) == 0);
    return 0;
}

static int begin_labels(struct store_writer *w, const struct store_writer_cfg *cfg, struct err *err)
{
    struct name_walk n = {.name = cfg->name};
    int rc;

    if (cfg->vm && !store_name_is_good(cfg->vm))
        return err_set(err, -EINVAL, "\"%.64s\" cannot be the identity of a VM", cfg->vm);
    if (cfg->vm)
        memcpy(w->vm, cfg->vm, strlen(cfg->vm) + 1);
    rc = begin_tags(w, cfg->tags, err);
    if (rc < 0 || !cfg->name)
        return rc;
    if (!store_name_is_good(cfg->name))
        return err_set(err, -EINVAL, "\"%.64s\" cannot be a name", cfg->name);
    memcpy(w->name, cfg->name, strlen(cfg->name) + 1);
    rc = store_index_each_snapshot(w->ix, name_row, &n, err);
    if (rc == 0 && n.taken)
        rc = err_set(err, -EEXIST, "another snapshot has the name \"%s\"", cfg->name);
    return rc;
}

static int begin_index(struct store_writer *w, struct err *err)
{
    uint64_t pages = 0;
    int rc = store_index_open(w->st->be, 0, &w->ix, err);

    if (rc < 0)
        return rc;
    /* Whoever waits for the snapshot does not wait for that; store_close() does it. */
    rc = store_index_put_off(w->ix, err);
    if (rc == 0)
        rc = store_index_pin(w->ix, err);
    if (rc == 0)
        rc = store_index_nr_pages(w->ix, &pages, err);
    if (rc == 0)
        store_index_use_filter(w->ix);
    w->ix_has_pages = pages > 0;
    return rc;
}

/* A collection may take long: whoever wants to give up meanwhile can. */
static int begin_lock(struct store_writer *w, const struct store_writer_cfg *cfg, struct err *err)
{
    const struct timespec pause = {.tv_nsec = WRITER_LOCK_POLL_NS};
    int rc;

    while ((rc = store_lock_as_writer(w->st, !cfg->give_up, &w->lock, err)) == -EAGAIN &&
           cfg->give_up) {
        if (cfg->give_up(cfg->arg))
            return err_set(err, -ECANCELED, "cancelled");
        (void)nanosleep(&pause, NULL);
    }
    return rc;
}

static int begin_all(struct store_writer *w, const struct store_writer_cfg *cfg, struct err *err)
{
    uint64_t pages = 0, leaves = 0;
    int rc = store_write_check(w->st, err);

    if (rc == 0)
        rc = begin_lock(w, cfg, err);
    /* The last room of a disk is for removing things. */
    if (rc == 0)
        rc = w->st->be->ops->reserve_make(w->st->be, err);
    if (rc == 0)
        rc = begin_index(w, err);
    if (rc == 0)
        rc = begin_labels(w, cfg, err);
    if (rc == 0)
        rc = begin_regions(w, cfg, err);
    if (rc == 0)
        rc = begin_parent(w, cfg, err);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < w->nr_regions; i++) {
        pages += w->regions[i].pages;
        leaves += w->regions[i].nr_leaves;
    }
    if (store_seen_new(pages, &w->seen) < 0 || store_seen_new(leaves, &w->objects) < 0)
        return store_no_memory(err);
    return 0;
}

int store_writer_begin(struct store *st, const struct store_writer_cfg *cfg,
                       struct store_writer **ret_w, struct err *err)
{
    struct store_writer *w = calloc(1, sizeof(*w));
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = cfg->threads;
    int rc;

    if (!w)
        return store_no_memory(err);
    if (!threads && !cfg->callers_only)
        threads = processors > 0 ? (unsigned)processors : 1;
    if (threads > STORE_THREADS_MAX)
        threads = STORE_THREADS_MAX;
    w->st = st;
    w->tail = &w->head;
    (void)pthread_mutex_init(&w->ix_lock, NULL);
    (void)pthread_mutex_init(&w->pack_lock, NULL);
    (void)pthread_mutex_init(&w->queue_lock, NULL);
    (void)pthread_cond_init(&w->work, NULL);
    (void)pthread_cond_init(&w->relief, NULL);
    for (unsigned i = 0; i < WRITER_STRIPES; i++)
        (void)pthread_mutex_init(&w->stripes[i], NULL);
    rc = begin_all(w, cfg, err);
    if (rc == 0)
        rc = writer_pipeline_start(w, threads, err);
    if (rc < 0) {
        writer_free(w, false);
        return rc;
    }
    *ret_w = w;
    return 0;
}

/* ---- end ---- */

static void writer_free_packs(struct store_writer *w, bool keep_packs)
{
    struct store_backend *be = w->st->be;

    for (unsigned i = 0; i < w->nr_packs; i++) {
        struct writer_pack *p = w->packs[i];

        be->ops->close(p->file);
        /* A pack that cannot be removed now is removed by the collector. */
        if (!keep_packs && be->ops->pack_remove(be, p->id, NULL) < 0)
            keep_packs = true;
        free(p);
    }
}

void writer_free(struct store_writer *w, bool keep_packs)
{
    writer_pipeline_free(w);
    writer_free_packs(w, keep_packs);
    for (unsigned i = 0; i < w->nr_regions; i++) {
        struct writer_region *g = &w->regions[i];

        for (uint64_t j = 0; g->leaf && j < g->nr_leaves; j++)
            free(g->leaf[j]);
        free(g->leaf);
        free(g->state);
        free(g->seq);
    }
    free(w->extents);
    free(w->tags);
    store_seen_free(w->seen);
    store_seen_free(w->objects);
    store_index_close(w->ix);
    store_snapshot_close(w->parent);
    w->st->be->ops->unlock(w->st->be, w->lock);
    for (unsigned i = 0; i < WRITER_STRIPES; i++)
        (void)pthread_mutex_destroy(&w->stripes[i]);
    (void)pthread_cond_destroy(&w->work);
    (void)pthread_cond_destroy(&w->relief);
    (void)pthread_mutex_destroy(&w->queue_lock);
    (void)pthread_mutex_destroy(&w->pack_lock);
    (void)pthread_mutex_destroy(&w->ix_lock);
    free(w);
}

void store_writer_abort(struct store_writer *w)
{
    if (w)
        writer_free(w, false);
}
