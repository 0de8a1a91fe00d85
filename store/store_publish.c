/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a writer: manifests, device state and record go into the pack, the
 * pack is made durable, and one transaction makes everything visible.
 *
 * Spec: docs/store-format.md, "Order of writes".
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "store/store_writer_internal.h"

/* ---- manifests ---- */

/* Digests of the nodes of one level, in order; alg 0 where a subtree is zero. */
struct level {
    uint64_t nr;
    struct store_digest *d;
};

static int publish_node(struct store_writer *w, const struct store_node *n,
                        struct store_digest *ret, struct err *err)
{
    auto_free uint8_t *bytes = malloc(STORE_NODE_LEN_MAX + STORE_HINTS_LEN_MAX);
    uint8_t *hints;
    size_t len, hints_len = 0;
    uint64_t segment = 0;
    int rc;

    if (!bytes)
        return store_no_memory(err);
    hints = bytes + STORE_NODE_LEN_MAX;
    len = store_node_encode(n, bytes);
    rc = writer_put_object(w, &(struct writer_object){STORE_KIND_NODE, bytes, len}, ret, &segment,
                           err);
    if (rc <= 0)
        return rc;
    if (n->level == 0)
        hints_len = store_hints_encode(n, hints);
    return store_index_add_object(w->ix, ret, segment, hints, hints_len, err);
}

/* The parent's name of a whole leaf. */
static int publish_kept_leaf(struct store_writer *w, const struct writer_region *g, uint64_t i,
                             struct store_node *scratch, struct store_digest *ret, struct err *err)
{
    const struct store_record *rec = store_snapshot_info(w->parent)->rec;
    int rc;

    if (store_manifest_root_level(g->pages) == 0) {
        *ret = rec->regions[g->parent].root;
        return 0;
    }
    /* One lookup serves the 512 leaves below it. */
    if (scratch->level != 1 || (i & (STORE_NODE_ENTRIES - 1)) == 0) {
        memset(scratch, 0, sizeof(*scratch));
        rc = store_snapshot_node(w->parent, (unsigned)g->parent, 1, i >> STORE_NODE_SHIFT, scratch,
                                 err);
        if (rc < 0)
            return rc;
        scratch->level = 1;
    }
    *ret = scratch->digest[i & (STORE_NODE_ENTRIES - 1)];
    return 0;
}

static int publish_never_given(unsigned region, uint64_t page, struct err *err)
{
    return err_set(err, -EINVAL, "region %u, page %llu was never given", region,
                   (unsigned long long)page);
}

static int publish_check_told(const struct writer_leaf *leaf, unsigned region, uint64_t i,
                              struct err *err)
{
    for (unsigned at = 0; at < leaf->node.nr; at++)
        if (!(leaf->told[at / 64] >> at % 64 & 1))
            return publish_never_given(region, (i << STORE_NODE_SHIFT) + at, err);
    return 0;
}

static int publish_leaves(struct store_writer *w, unsigned region, struct level *lv,
                          struct err *err)
{
    struct writer_region *g = &w->regions[region];
    auto_free struct store_node *scratch = calloc(1, sizeof(*scratch));
    bool single = store_manifest_root_level(g->pages) == 0;
    int rc = 0;

    if (!scratch)
        return store_no_memory(err);
    for (uint64_t i = 0; i < g->nr_leaves && rc == 0; i++) {
        struct writer_leaf *leaf = writer_leaf_of(w, region, i);
        unsigned at = (unsigned)i & (STORE_NODE_ENTRIES - 1);

        if (at == 0)
            scratch->level = 0;
        if (g->state[i] == LEAF_UNTOLD) {
            rc = publish_never_given(region, i << STORE_NODE_SHIFT, err);
        } else if (g->state[i] == LEAF_KEPT) {
            rc = publish_kept_leaf(w, g, i, scratch, &lv->d[i], err);
        } else if (leaf) {
            rc = publish_check_told(leaf, region, i, err);
            if (rc == 0 && (single || !store_node_is_zero(&leaf->node)))
                rc = publish_node(w, &leaf->node, &lv->d[i], err);
        }
    }
    return rc;
}

/* A level of nodes above @below; the root is stored even if all of it is zero. */
static int publish_level(struct store_writer *w, uint64_t pages, unsigned level,
                         const struct level *below, struct level *lv, struct err *err)
{
    auto_free struct store_node *n = calloc(1, sizeof(*n));
    bool root = store_manifest_root_level(pages) == level;
    int rc = 0;

    if (!n)
        return store_no_memory(err);
    for (uint64_t i = 0; i < lv->nr && rc == 0; i++) {
        n->level = level;
        n->nr = store_manifest_node_nr(pages, level, i);
        memcpy(n->digest, below->d + (i << STORE_NODE_SHIFT), n->nr * sizeof(n->digest[0]));
        if (root || !store_node_is_zero(n))
            rc = publish_node(w, n, &lv->d[i], err);
    }
    return rc;
}

/* A region that was zeroed as a whole leaf and has no more than that one. */
static int publish_zero_root(struct store_writer *w, uint64_t pages, struct store_digest *root,
                             struct err *err)
{
    auto_free struct store_node *n = calloc(1, sizeof(*n));

    if (!store_digest_is_zero(root))
        return 0;
    if (!n)
        return store_no_memory(err);
    n->level = store_manifest_root_level(pages);
    n->nr = store_manifest_node_nr(pages, n->level, 0);
    return publish_node(w, n, root, err);
}

static int publish_region(struct store_writer *w, unsigned region, struct store_region *ret,
                          struct err *err)
{
    struct writer_region *g = &w->regions[region];
    unsigned top = store_manifest_root_level(g->pages);
    struct level below = {.nr = g->nr_leaves};
    int rc;

    below.d = calloc(below.nr, sizeof(below.d[0]));
    if (!below.d)
        return store_no_memory(err);
    rc = publish_leaves(w, region, &below, err);
    for (unsigned level = 1; level <= top && rc == 0; level++) {
        struct level lv = {.nr = store_manifest_nr_entries(g->pages, level + 1)};

        lv.d = calloc(lv.nr, sizeof(lv.d[0]));
        rc = lv.d ? publish_level(w, g->pages, level, &below, &lv, err) : store_no_memory(err);
        free(below.d);
        below = lv;
    }
    if (rc == 0 && below.d)
        rc = publish_zero_root(w, g->pages, &below.d[0], err);
    if (rc == 0) {
        ret->gpa = g->gpa;
        ret->pages = g->pages;
        ret->root = below.d[0];
    }
    free(below.d);
    return rc;
}

/* ---- state and record ---- */

static int publish_state(struct store_writer *w, const struct store_publish *what,
                         struct store_record *rec, struct err *err)
{
    const uint8_t *p = what->state ? what->state : (const uint8_t *)"";
    size_t left = what->state ? what->state_len : 0;

    rec->state_len = left;
    if (left > STORE_STATE_MAX)
        return err_set(err, -E2BIG, "device state: %zu bytes, at most %u", left, STORE_STATE_MAX);
    rec->chunks = calloc(left / STORE_CHUNK_LEN + 1, sizeof(rec->chunks[0]));
    if (!rec->chunks)
        return store_no_memory(err);
    store_hash(p, left, &rec->state);
    while (left) {
        size_t n = left < STORE_CHUNK_LEN ? left : STORE_CHUNK_LEN;
        struct store_digest *d = &rec->chunks[rec->nr_chunks++];
        uint64_t segment = 0;
        int rc =
            writer_put_object(w, &(struct writer_object){STORE_KIND_BLOB, p, n}, d, &segment, err);

        if (rc > 0)
            rc = store_index_add_object(w->ix, d, segment, NULL, 0, err);
        if (rc < 0)
            return rc;
        p += n;
        left -= n;
    }
    return 0;
}

static int publish_fill_record(struct store_writer *w, const struct store_publish *what,
                               struct store_record *rec, struct err *err)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_REALTIME, &now);
    rec->time_ns = (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
    if (getrandom(rec->uuid, sizeof(rec->uuid), 0) != sizeof(rec->uuid))
        return err_set(err, -EIO, "no random numbers");
    memcpy(rec->vm, w->vm, sizeof(rec->vm));
    memcpy(rec->parent, w->parent_id, sizeof(rec->parent));
    rec->config = strdup(what->config ? what->config : "");
    rec->disks = strdup(what->disks ? what->disks : "");
    if (!rec->config || !rec->disks)
        return store_no_memory(err);
    store_writer_counts(w, &rec->counts);
    return 0;
}

/* Memory and state are what a record from elsewhere names. */
static int publish_check_record(const struct store_publish *what, const struct store_record *got,
                                struct err *err)
{
    struct store_record *want = NULL;
    int rc = store_record_decode(what->record, what->record_len, &want, err);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < want->nr_regions && i < got->nr_regions; i++) {
        const struct store_region *a = &want->regions[i], *b = &got->regions[i];

        if (a->gpa != b->gpa || a->pages != b->pages || !store_digest_equal(&a->root, &b->root))
            rc = err_set(err, -EBADMSG, "region %u: is not what the record names", i);
    }
    if (want->nr_regions != got->nr_regions)
        rc = err_set(err, -EBADMSG, "%u regions, the record has %u", got->nr_regions,
                     want->nr_regions);
    if (want->state_len != got->state_len || !store_digest_equal(&want->state, &got->state) ||
        want->nr_chunks != got->nr_chunks ||
        memcmp(want->chunks, got->chunks, want->nr_chunks * sizeof(want->chunks[0])) != 0)
        rc = err_set(err, -EBADMSG, "device state: is not what the record names");
    store_record_free(want);
    return rc;
}

static int publish_row(struct store_writer *w, const uint8_t *bytes, size_t len,
                       struct store_digest *ret_id, struct err *err)
{
    struct store_snap_row row = {
        .name = w->name[0] ? w->name : NULL, .tags = w->tags, .record = bytes, .record_len = len};
    struct err why = {0};
    int rc;

    store_hash(bytes, len, &row.id);
    *ret_id = row.id;
    rc = store_index_add_snapshot(w->ix, &row, &why);
    if (rc == -EEXIST)
        return err_set(err, rc, "another snapshot has the name \"%s\", or it is there already",
                       w->name);
    return rc < 0 ? err_set(err, rc, "%s", why.msg) : 0;
}

static int publish_record(struct store_writer *w, const struct store_publish *what,
                          struct store_record *rec, struct store_digest *ret_id, struct err *err)
{
    auto_free uint8_t *bytes = NULL;
    size_t len = 0;
    int rc;

    if (what->record) {
        rc = publish_check_record(what, rec, err);
        if (rc < 0 || !what->heal)
            return rc < 0 ? rc : publish_row(w, what->record, what->record_len, ret_id, err);
        store_hash(what->record, what->record_len, ret_id);
        return 0;
    }
    rc = publish_fill_record(w, what, rec, err);
    if (rc == 0)
        rc = store_record_encode(rec, &bytes, &len, err);
    return rc < 0 ? rc : publish_row(w, bytes, len, ret_id, err);
}

/* ---- index ---- */

/* Pages that this writer has stored. */
struct fresh_pages {
    size_t nr;
    struct store_page_at *p;
};

static bool loc_is_ours(const struct store_writer *w, uint64_t loc)
{
    uint64_t pack = store_loc_segment(loc) >> STORE_SEQ_BITS;

    for (unsigned i = 0; i < w->nr_packs; i++)
        if (w->packs[i]->id == pack)
            return true;
    return false;
}

/* Takes the pages of a leaf that are this writer's; only counts them while there is no room. */
static void fresh_collect_leaf(const struct store_writer *w, const struct writer_leaf *leaf,
                               struct fresh_pages *f)
{
    for (unsigned i = 0; i < leaf->node.nr; i++) {
        const struct store_digest *d = &leaf->node.digest[i];
        uint64_t loc = leaf->node.loc[i];

        if (!loc || store_digest_is_zero(d) || !loc_is_ours(w, loc))
            continue;
        if (f->p)
            f->p[f->nr] = (struct store_page_at){.d = d, .loc = loc};
        f->nr++;
    }
}

static void fresh_collect(const struct store_writer *w, struct fresh_pages *f)
{
    f->nr = 0;
    for (unsigned r = 0; r < w->nr_regions; r++) {
        for (uint64_t i = 0; i < w->regions[r].nr_leaves; i++) {
            const struct writer_leaf *leaf = w->regions[r].leaf[i];

            if (leaf)
                fresh_collect_leaf(w, leaf, f);
        }
    }
}

static int fresh_compare(const void *a, const void *b)
{
    const struct store_page_at *x = a, *y = b;

    return x->loc < y->loc ? -1 : x->loc > y->loc;
}

/* A page that several places of the memory have is one page. */
static void fresh_unify(struct fresh_pages *f)
{
    size_t nr = 0;

    if (f->nr)
        qsort(f->p, f->nr, sizeof(f->p[0]), fresh_compare);
    for (size_t i = 0; i < f->nr; i++)
        if (nr == 0 || f->p[i].loc != f->p[nr - 1].loc)
            f->p[nr++] = f->p[i];
    f->nr = nr;
}

static int publish_pages(struct store_writer *w, struct err *err)
{
    struct fresh_pages f = {0};
    int rc;

    fresh_collect(w, &f);
    f.p = calloc(f.nr + 1, sizeof(f.p[0]));
    if (!f.p)
        return store_no_memory(err);
    fresh_collect(w, &f);
    fresh_unify(&f);
    rc = store_index_add_pages(w->ix, f.p, f.nr, err);
    free(f.p);
    return rc;
}

static int extent_compare(const void *a, const void *b)
{
    const struct store_extent *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static int publish_index(struct store_writer *w, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < w->nr_packs && rc == 0; i++)
        rc = store_index_add_pack(w->ix, w->packs[i]->id, w->packs[i]->end, err);
    if (rc == 0 && w->nr_extents)
        qsort(w->extents, w->nr_extents, sizeof(w->extents[0]), extent_compare);
    for (size_t i = 0; i < w->nr_extents && rc == 0; i++)
        rc = store_index_put_extent(w->ix, &w->extents[i], err);
    return rc < 0 ? rc : publish_pages(w, err);
}

/* ---- durability ---- */

/* Packs durable, in a thread beside the filling of the index. */
struct pack_syncer {
    struct store_writer *w;
    int rc;
    struct err err;
};

static void *pack_sync_thread(void *arg)
{
    struct pack_syncer *s = arg;
    struct store_backend *be = s->w->st->be;

    for (unsigned i = 0; i < s->w->nr_packs && s->rc == 0; i++)
        s->rc = be->ops->sync(s->w->packs[i]->file, &s->err);
    if (s->rc == 0 && s->w->nr_packs)
        s->rc = be->ops->packs_sync(be, &s->err);
    return NULL;
}

/* Fill the index while the packs become durable; both are done when it returns. */
static int publish_sync(struct store_writer *w, struct err *err)
{
    struct pack_syncer s = {.w = w};
    pthread_t thread;
    bool alone = w->benches[0] && w->nr_benches == 1;
    int rc;

    if (!alone)
        alone = pthread_create(&thread, NULL, pack_sync_thread, &s) != 0;
    if (alone)
        (void)pack_sync_thread(&s);
    rc = publish_index(w, err);
    if (!alone)
        (void)pthread_join(thread, NULL);
    if (s.rc < 0)
        return err_set(err, s.rc, "%s", s.err.msg);
    return rc;
}

/* Everything of the one transaction but its commit. */
static int publish_content(struct store_writer *w, const struct store_publish *what,
                           struct store_record *rec, struct store_digest *ret_id, struct err *err)
{
    int rc = 0;

    rec->nr_regions = w->nr_regions;
    for (unsigned i = 0; i < w->nr_regions && rc == 0; i++)
        rc = publish_region(w, i, &rec->regions[i], err);
    if (rc == 0)
        rc = publish_state(w, what, rec, err);
    if (rc == 0)
        rc = publish_record(w, what, rec, ret_id, err);
    if (rc == 0)
        rc = writer_pipeline_write(w, err);
    if (rc == 0)
        rc = publish_sync(w, err);
    return rc;
}

int store_writer_publish(struct store_writer *w, const struct store_publish *what, char *ret_id,
                         struct err *err)
{
    struct store_record *rec = calloc(1, sizeof(*rec));
    struct store_digest id = {0};
    bool committing = false;
    int rc;

    if (!rec) {
        writer_free(w, false);
        return store_no_memory(err);
    }
    rc = writer_pipeline_stop(w, err);
    /* No page comes any more, and what follows needs memory of its own. */
    store_seen_free(steal_ptr(w->seen));
    writer_look_end(w);
    if (rc == 0)
        rc = store_index_begin(w->ix, err);
    if (rc == 0)
        rc = publish_content(w, what, rec, &id, err);
    if (rc == 0)
        rc = writer_check(w, err);
    if (rc == 0) {
        /* A commit that fails may yet be found in the log after a crash: packs stay. */
        committing = true;
        rc = store_index_commit(w->ix, err);
        if (rc == 0)
            atomic_store(&w->st->unsettled, true);
        if (rc == 0)
            rc = w->st->be->ops->is_there(w->st->be, err);
    } else {
        store_index_rollback(w->ix);
    }
    if (rc == 0)
        store_digest_hex(&id, ret_id);
    if (rc == 0 && what->ret_counts)
        *what->ret_counts = rec->counts;
    store_record_free(rec);
    writer_free(w, committing);
    return rc;
}
