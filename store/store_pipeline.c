/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From pages to segments: chunks of copied pages go through a queue to benches,
 * where a thread hashes them, sorts out what is known, and fills a segment with
 * the rest.  The place of a page is known as soon as it enters a segment, before
 * that is compressed, so duplicates met meanwhile can refer to it.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "store/store_writer_internal.h"

enum {
    PIPE_CHUNKS_EXTRA = 8,
    PIPE_WRITE_BEHIND_SHIFT = 23, /* start writing back every 8 MiB */
    PIPE_LOOKS = 64,              /* chunks looked up in one view of the index */
};

/* ---- failure ---- */

/* Note a failure; the first one stays. */
static void writer_fail(struct store_writer *w, int rc, const struct err *err)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    if (!w->failure.code) {
        w->failure = *err;
        w->failure.code = rc;
    }
    atomic_store(&w->failed, true);
    (void)pthread_mutex_unlock(&w->queue_lock);
}

int writer_check(struct store_writer *w, struct err *err)
{
    int rc = 0;

    if (!atomic_load(&w->failed))
        return 0;
    (void)pthread_mutex_lock(&w->queue_lock);
    rc = err_set(err, w->failure.code, "%s", w->failure.msg);
    (void)pthread_mutex_unlock(&w->queue_lock);
    return rc;
}

/* ---- packs ---- */

/* A pack of its own for this writer. */
static int pack_new(struct store_writer *w, struct writer_pack **ret, struct err *err)
{
    struct writer_pack *p = calloc(1, sizeof(*p));
    uint8_t uuid[STORE_UUID_LEN];
    uint64_t last = 0;
    int rc;

    if (!p)
        return store_no_memory(err);
    (void)pthread_mutex_lock(&w->ix_lock);
    rc = store_index_identity(w->ix, uuid, &last, err);
    (void)pthread_mutex_unlock(&w->ix_lock);
    if (rc == 0)
        rc = store_pack_create(w->st->be, last + 1, uuid, &p->file, err);
    if (rc < 0) {
        free(p);
        return rc;
    }
    assert(p->file);
    p->id = p->file->id;
    p->end = STORE_PACK_HDR_LEN;
    *ret = p;
    return 0;
}

/* The pack that new segments go to, and a segment id in it. */
static int pack_take_id(struct store_writer *w, struct writer_place *ret, struct err *err)
{
    struct writer_pack *p = NULL;
    int rc = 0;

    (void)pthread_mutex_lock(&w->pack_lock);
    if (w->nr_packs)
        p = w->packs[w->nr_packs - 1];
    if (!p || p->end >= WRITER_PACK_TARGET || p->nr_ids >> STORE_SEQ_BITS) {
        if (w->nr_packs == WRITER_PACKS_MAX)
            rc = err_set(err, -E2BIG, "a snapshot over %u packs", WRITER_PACKS_MAX);
        if (rc == 0)
            rc = pack_new(w, &p, err);
        if (rc == 0) {
            w->packs[w->nr_packs++] = p;
            atomic_fetch_add(&w->stored, p->end);
        }
    }
    if (rc == 0) {
        assert(p);
        *ret = (struct writer_place){p, store_segment_id_make(p->id, p->nr_ids++)};
    }
    (void)pthread_mutex_unlock(&w->pack_lock);
    return rc;
}

/* Make room for so many more extents: at most WRITER_OUT_SEGMENTS. */
static int extents_reserve_locked(struct store_writer *w, size_t nr, struct err *err)
{
    void *p = array_grow(w->extents, w->nr_extents + nr, &w->cap_extents, sizeof(w->extents[0]));

    if (!p)
        return store_no_memory(err);
    w->extents = p;
    return 0;
}

/* Hand out space in a pack for what a bench has finished, and note who lies there. */
static int pack_take_space(struct store_writer *w, const struct writer_bench *b, uint64_t *ret_off,
                           struct err *err)
{
    uint64_t off;
    int rc;

    (void)pthread_mutex_lock(&w->pack_lock);
    rc = extents_reserve_locked(w, b->nr_out, err);
    off = *ret_off = b->out_pack->end;
    for (unsigned i = 0; i < b->nr_out && rc == 0; i++) {
        struct store_extent e = b->out_at[i];

        e.off = off;
        off += e.len;
        w->extents[w->nr_extents++] = e;
    }
    b->out_pack->end = off;
    (void)pthread_mutex_unlock(&w->pack_lock);
    return rc;
}

/* ---- segments ---- */

/* Append the finished segments of a bench to their pack. */
static int bench_write(struct store_writer *w, struct writer_bench *b, struct err *err)
{
    const struct store_backend_ops *ops = w->st->be->ops;
    const size_t len = b->out_len;
    struct store_file *file;
    uint64_t off = 0;
    int rc;

    if (!b->nr_out)
        return 0;
    file = b->out_pack->file;
    rc = pack_take_space(w, b, &off, err);
    b->nr_out = 0;
    b->out_len = 0;
    if (rc == 0)
        rc = ops->write(file, b->out, len, off, err);
    if (rc < 0)
        return rc;
    if (ops->write_behind &&
        (off + len) >> PIPE_WRITE_BEHIND_SHIFT != off >> PIPE_WRITE_BEHIND_SHIFT)
        ops->write_behind(file, off >> PIPE_WRITE_BEHIND_SHIFT << PIPE_WRITE_BEHIND_SHIFT,
                          (uint64_t)1 << PIPE_WRITE_BEHIND_SHIFT);
    return 0;
}

/* What becomes a segment. */
struct contents {
    enum store_segment_kind kind;
    const uint8_t *raw;
    uint32_t raw_len;
    const struct store_digest *digests;
    unsigned nr; /* items */
};

/* Compress a segment; it is written with those that the same bench makes next. */
static int bench_add_segment(struct store_writer *w, struct writer_bench *b,
                             const struct writer_place *at, const struct contents *c,
                             struct err *err)
{
    struct store_segment seg = {
        .id = at->segment, .kind = c->kind, .raw_len = c->raw_len, .nr_items = c->nr};
    uint32_t n;
    int rc = 0;

    if (b->out_pack != at->pack || b->nr_out == WRITER_OUT_SEGMENTS ||
        sizeof(b->out) - b->out_len < STORE_SEGMENT_LEN_MAX)
        rc = bench_write(w, b, err);
    if (rc < 0)
        return rc;
    n = store_segment_pack(b->codec, &seg, c->raw, c->digests, b->out + b->out_len);
    b->out_pack = at->pack;
    b->out_at[b->nr_out++] =
        (struct store_extent){.id = at->segment, .pack = at->pack->id, .len = n};
    b->out_len += n;
    atomic_fetch_add(&w->stored, n);
    return 0;
}

static int bench_flush_pages(struct store_writer *w, struct writer_bench *b, struct err *err)
{
    const struct writer_place at = b->open;
    const struct contents c = {STORE_KIND_PAGES, b->raw, (uint32_t)(b->nr * PAGE_SIZE_4K),
                               b->digests, b->nr};

    if (!at.pack || !b->nr)
        return 0;
    b->open.pack = NULL;
    b->nr = 0;
    return bench_add_segment(w, b, &at, &c, err);
}

/* A page becomes known by its digest, at @mine unless another thread was faster. */
static uint64_t claim(struct store_writer *w, const struct store_digest *d, uint64_t mine)
{
    uint64_t loc = store_seen_claim(w->seen, d, mine);

    atomic_fetch_add(loc == mine ? &w->fresh : &w->known, 1);
    return loc;
}

/* Put a page that nobody has into the open segment, unless another thread is faster. */
static int bench_add_page(struct store_writer *w, struct writer_bench *b, const uint8_t *page,
                          const struct store_digest *d, uint64_t *ret_loc, struct err *err)
{
    uint64_t mine;
    int rc = 0;

    if (!b->open.pack)
        rc = pack_take_id(w, &b->open, err);
    if (rc < 0)
        return rc;
    mine = store_loc_make(b->open.segment, b->nr);
    *ret_loc = claim(w, d, mine);
    if (*ret_loc != mine)
        return 0;
    memcpy(b->raw + b->nr * PAGE_SIZE_4K, page, PAGE_SIZE_4K);
    b->digests[b->nr++] = *d;
    return b->nr == STORE_SEGMENT_SLOTS ? bench_flush_pages(w, b, err) : 0;
}

int writer_put_object(struct store_writer *w, const struct writer_object *obj,
                      struct store_digest *ret_digest, uint64_t *ret_segment, struct err *err)
{
    const struct contents c = {obj->kind, obj->raw, (uint32_t)obj->len, ret_digest, 1};
    struct writer_bench *b = w->benches[0];
    struct writer_place at;
    uint64_t there;
    int rc;

    store_hash(obj->raw, obj->len, ret_digest);
    rc = store_index_object(w->ix, ret_digest, &there, NULL, NULL, err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (store_seen_find(w->objects, ret_digest, &there))
        return 0;
    rc = pack_take_id(w, &at, err);
    if (rc < 0)
        return rc;
    *ret_segment = at.segment;
    (void)store_seen_claim(w->objects, ret_digest, at.segment);
    rc = bench_add_segment(w, b, &at, &c, err);
    return rc < 0 ? rc : 1;
}

/* ---- chunks ---- */

/*
 * A view of the index costs as much as several questions.  What others publish after it was taken may
 * be stored twice, as what they publish after a question may anyway.
 */
static int index_look_locked(struct store_writer *w, struct err *err)
{
    int rc = 0;

    if (w->looks == PIPE_LOOKS)
        writer_look_end(w);
    if (!w->looks)
        rc = store_index_look_begin(w->ix, err);
    if (rc == 0)
        w->looks++;
    return rc;
}

void writer_look_end(struct store_writer *w)
{
    if (w->looks)
        store_index_look_end(w->ix);
    w->looks = 0;
}

/* Look up in the index what is needed and has no place yet; 0 stays unknown. */
static int index_search(struct store_writer *w, unsigned nr, const struct store_digest *d,
                        const bool *needed, uint64_t *loc, struct err *err)
{
    int rc;

    (void)pthread_mutex_lock(&w->ix_lock);
    rc = index_look_locked(w, err);
    for (unsigned i = 0; i < nr && rc >= 0; i++)
        if (needed[i] && !loc[i])
            rc = store_index_page(w->ix, &d[i], &loc[i], err);
    (void)pthread_mutex_unlock(&w->ix_lock);
    return rc < 0 ? rc : 0;
}

/* Look up what this writer has stored, then what others have. */
static int chunk_search(struct store_writer *w, unsigned nr, const struct store_digest *d,
                        const bool *needed, uint64_t *loc, struct err *err)
{
    bool any = false;

    for (unsigned i = 0; i < nr; i++)
        if (needed[i] && !store_seen_find(w->seen, &d[i], &loc[i]))
            any = true;
    return any && w->ix_has_pages ? index_search(w, nr, d, needed, loc, err) : 0;
}

static bool chunk_has_twice(const struct store_digest *d, unsigned i)
{
    for (unsigned j = 0; j < i; j++)
        if (store_digest_equal(&d[i], &d[j]))
            return true;
    return false;
}

/* Whether a chunk is a segment as it stands: full, and all of its pages are new. */
static bool chunk_is_segment(const struct writer_chunk *c, const struct store_digest *d,
                             const bool *needed, const uint64_t *loc)
{
    unsigned n = 0;

    _Static_assert((int)WRITER_CHUNK_PAGES == (int)STORE_SEGMENT_SLOTS,
                   "a full chunk is a segment");
    while (n < c->nr && needed[n] && !loc[n] && !chunk_has_twice(d, n))
        n++;
    return n == STORE_SEGMENT_SLOTS;
}

/*
 * Such a chunk is not copied, and its pages, which most often follow each other in memory, lie in one
 * segment.  One that somebody else has claimed meanwhile is stored a second time.
 */
static int chunk_store(struct store_writer *w, struct writer_bench *b, const struct writer_chunk *c,
                       const struct store_digest *d, uint64_t *loc, struct err *err)
{
    const struct contents what = {STORE_KIND_PAGES, c->data, sizeof(c->data), d, c->nr};
    struct writer_place at;
    int rc = pack_take_id(w, &at, err);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < c->nr; i++)
        loc[i] = claim(w, &d[i], store_loc_make(at.segment, i));
    return bench_add_segment(w, b, &at, &what, err);
}

static int chunk_place(struct store_writer *w, struct writer_bench *b, const struct writer_chunk *c,
                       const struct store_digest *d, const bool *needed, struct err *err)
{
    uint64_t loc[WRITER_CHUNK_PAGES] = {0};
    int rc = chunk_search(w, c->nr, d, needed, loc, err);
    bool whole = rc >= 0 && chunk_is_segment(c, d, needed, loc);

    if (whole)
        rc = chunk_store(w, b, c, d, loc, err);
    for (unsigned i = 0; i < c->nr && rc >= 0; i++) {
        if (!needed[i])
            continue;
        if (!loc[i])
            rc = bench_add_page(w, b, c->data + i * PAGE_SIZE_4K, &d[i], &loc[i], err);
        else if (!whole)
            atomic_fetch_add(&w->known, 1);
        if (rc >= 0)
            writer_leaf_apply(w, c, i, &d[i], loc[i]);
    }
    return rc;
}

static int chunk_process(struct store_writer *w, struct writer_bench *b,
                         const struct writer_chunk *c, struct err *err)
{
    struct store_digest d[WRITER_CHUNK_PAGES];
    bool needed[WRITER_CHUNK_PAGES] = {false};
    bool any = false;
    int rc;

    store_hash_items(c->data, PAGE_SIZE_4K, c->nr, d);
    for (unsigned i = 0; i < c->nr; i++) {
        rc = writer_leaf_offer(w, c, i, &d[i], err);
        if (rc < 0)
            return rc;
        needed[i] = rc == PAGE_STORE;
        any = any || needed[i];
    }
    return any ? chunk_place(w, b, c, d, needed, err) : 0;
}

/* ---- queue ---- */

static struct writer_chunk *queue_pop_locked(struct store_writer *w)
{
    struct writer_chunk *c = w->head;

    if (!c)
        return NULL;
    w->head = c->next;
    if (!w->head)
        w->tail = &w->head;
    return c;
}

static struct writer_bench *bench_take_locked(struct store_writer *w)
{
    for (unsigned i = 0; i < w->nr_benches; i++) {
        if (w->benches[i]->busy)
            continue;
        w->benches[i]->busy = true;
        return w->benches[i];
    }
    return NULL;
}

/* Process one chunk; called and returns with the lock held, which it drops meanwhile. */
static void queue_work_locked(struct store_writer *w, struct writer_bench *b,
                              struct writer_chunk *c)
{
    struct err err = {0};
    int rc = 0;

    (void)pthread_mutex_unlock(&w->queue_lock);
    if (!atomic_load(&w->failed) && !atomic_load(&w->cancelled))
        rc = chunk_process(w, b, c, &err);
    if (rc < 0)
        writer_fail(w, rc, &err);
    (void)pthread_mutex_lock(&w->queue_lock);
    c->next = w->free;
    w->free = c;
    w->nr_free++;
    b->busy = false;
    (void)pthread_cond_broadcast(&w->relief);
    if (w->head)
        (void)pthread_cond_signal(&w->work);
}

/* Take a chunk off the queue and process it here, if there is one and a bench is free. */
static bool queue_help_locked(struct store_writer *w)
{
    struct writer_bench *b = w->head ? bench_take_locked(w) : NULL;

    if (!b)
        return false;
    queue_work_locked(w, b, queue_pop_locked(w));
    return true;
}

struct writer_chunk *store_writer_chunk(struct store_writer *w)
{
    struct writer_chunk *c;

    (void)pthread_mutex_lock(&w->queue_lock);
    while (!w->free)
        if (!queue_help_locked(w))
            (void)pthread_cond_wait(&w->relief, &w->queue_lock);
    c = w->free;
    w->free = c->next;
    w->nr_free--;
    (void)pthread_mutex_unlock(&w->queue_lock);
    c->nr = 0;
    return c;
}

void store_writer_chunk_give(struct store_writer *w, struct writer_chunk *c)
{
    if (!c)
        return;
    (void)pthread_mutex_lock(&w->queue_lock);
    if (c->nr) {
        c->next = NULL;
        *w->tail = c;
        w->tail = &c->next;
        (void)pthread_cond_signal(&w->work);
    } else {
        c->next = w->free;
        w->free = c;
        w->nr_free++;
    }
    (void)pthread_cond_broadcast(&w->relief);
    (void)pthread_mutex_unlock(&w->queue_lock);
}

static void *pipeline_thread(void *arg)
{
    struct store_writer *w = arg;

    (void)pthread_mutex_lock(&w->queue_lock);
    while (!w->stop || w->head)
        if (!queue_help_locked(w))
            (void)pthread_cond_wait(&w->work, &w->queue_lock);
    (void)pthread_mutex_unlock(&w->queue_lock);
    return NULL;
}

/* ---- life cycle ---- */

static int pipeline_add_chunk(struct store_writer *w)
{
    struct writer_chunk *c = malloc(sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->nr = 0;
    c->next = w->free;
    w->free = c;
    w->nr_free++;
    w->nr_chunks++;
    return 0;
}

static int pipeline_add_bench(struct store_writer *w, struct err *err)
{
    struct writer_bench *b = calloc(1, sizeof(*b));

    if (!b)
        return store_no_memory(err);
    w->benches[w->nr_benches++] = b;
    return store_codec_new(&b->codec, err);
}

int writer_pipeline_start(struct store_writer *w, unsigned threads, struct err *err)
{
    int rc = 0;

    w->benches = calloc(threads + 1, sizeof(struct writer_bench *));
    if (!w->benches)
        return store_no_memory(err);
    for (unsigned i = 0; i < threads + 1 && rc == 0; i++)
        rc = pipeline_add_bench(w, err);
    for (unsigned i = 0; i < 2 * threads + PIPE_CHUNKS_EXTRA && rc == 0; i++)
        if (pipeline_add_chunk(w) < 0)
            rc = store_no_memory(err);
    for (unsigned i = 0; i < threads && rc == 0; i++) {
        rc = -pthread_create(&w->threads[i], NULL, pipeline_thread, w);
        if (rc < 0)
            return err_set(err, rc, "cannot start a thread");
        w->nr_threads++;
    }
    return rc;
}

static void pipeline_join(struct store_writer *w)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    w->stop = true;
    (void)pthread_cond_broadcast(&w->work);
    (void)pthread_mutex_unlock(&w->queue_lock);
    while (w->nr_threads)
        (void)pthread_join(w->threads[--w->nr_threads], NULL);
}

void writer_pipeline_drain(struct store_writer *w)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    while (w->head || w->nr_free < w->nr_chunks)
        if (!queue_help_locked(w))
            (void)pthread_cond_wait(&w->relief, &w->queue_lock);
    (void)pthread_mutex_unlock(&w->queue_lock);
}

int writer_pipeline_stop(struct store_writer *w, struct err *err)
{
    int rc;

    writer_pipeline_drain(w);
    pipeline_join(w);
    rc = writer_check(w, err);
    for (unsigned i = 0; i < w->nr_benches && rc == 0; i++)
        rc = bench_flush_pages(w, w->benches[i], err);
    return rc < 0 ? rc : writer_pipeline_write(w, err);
}

int writer_pipeline_write(struct store_writer *w, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < w->nr_benches && rc == 0; i++)
        rc = bench_write(w, w->benches[i], err);
    return rc;
}

static void chunks_free(struct writer_chunk *c)
{
    while (c) {
        struct writer_chunk *next = c->next;

        free(c);
        c = next;
    }
}

void writer_pipeline_free(struct store_writer *w)
{
    atomic_store(&w->cancelled, true); /* what is queued is dropped, not processed */
    pipeline_join(w);
    chunks_free(w->head);
    chunks_free(w->free);
    for (unsigned i = 0; i < w->nr_benches; i++) {
        store_codec_free(w->benches[i]->codec);
        free(w->benches[i]);
    }
    free(w->benches);
}
