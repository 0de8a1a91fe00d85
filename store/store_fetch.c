/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_fetch.h"

#include <errno.h>
#include <string.h>

#include "store/store_cache.h"

enum {
    FETCH_PLACES = 8192,   /* places remembered */
    FETCH_AHEAD = 64,      /* places asked for at once: segments are read in order */
    FETCH_SEGMENTS = 64,   /* decompressed segments kept: 4 MiB */
    FETCH_FILES = 64,      /* packs kept open */
    FETCH_CODECS_MAX = 64, /* scratch kept */
};

struct fetch_file {
    struct store_file *file;
    unsigned users;
    uint64_t stamp;
};

struct store_fetch {
    struct store_backend *be;  /* borrowed */
    struct store_index *ix;    /* borrowed; under ix_lock */
    pthread_mutex_t *ix_lock;  /* borrowed; taken before none of the below */
    struct store_cache *cache; /* of struct store_unpacked, by segment id */

    pthread_mutex_t lock; /* leaf; the rest is under it */
    uint64_t clock;
    struct store_extent places[FETCH_PLACES];
    struct fetch_file files[FETCH_FILES];
    unsigned nr_codecs;
    struct store_codec_ctx *codecs[FETCH_CODECS_MAX];
};

int store_fetch_new(struct store_backend *be, struct store_index *ix, pthread_mutex_t *ix_lock,
                    struct store_fetch **ret_f)
{
    struct store_fetch *f = calloc(1, sizeof(*f));

    if (!f)
        return -ENOMEM;
    f->be = be;
    f->ix = ix;
    f->ix_lock = ix_lock;
    (void)pthread_mutex_init(&f->lock, NULL);
    if (store_cache_new(FETCH_SEGMENTS, sizeof(struct store_unpacked), &f->cache) < 0) {
        store_fetch_free(f);
        return -ENOMEM;
    }
    *ret_f = f;
    return 0;
}

void store_fetch_free(struct store_fetch *f)
{
    if (!f)
        return;
    store_cache_free(f->cache);
    for (unsigned i = 0; i < FETCH_FILES; i++)
        f->be->ops->close(f->files[i].file);
    while (f->nr_codecs)
        store_codec_free(f->codecs[--f->nr_codecs]);
    (void)pthread_mutex_destroy(&f->lock);
    free(f);
}

/* ---- scratch ---- */

int store_fetch_codec_get(struct store_fetch *f, struct store_codec_ctx **ret_ctx, struct err *err)
{
    struct store_codec_ctx *ctx = NULL;

    (void)pthread_mutex_lock(&f->lock);
    if (f->nr_codecs)
        ctx = f->codecs[--f->nr_codecs];
    (void)pthread_mutex_unlock(&f->lock);
    if (!ctx)
        return store_codec_new(ret_ctx, err);
    *ret_ctx = ctx;
    return 0;
}

void store_fetch_codec_put(struct store_fetch *f, struct store_codec_ctx *ctx)
{
    if (!ctx)
        return;
    (void)pthread_mutex_lock(&f->lock);
    if (f->nr_codecs < FETCH_CODECS_MAX) {
        f->codecs[f->nr_codecs++] = ctx;
        ctx = NULL;
    }
    (void)pthread_mutex_unlock(&f->lock);
    store_codec_free(ctx);
}

/* ---- open packs ---- */

/* An open pack by id, or the slot to open it in; NULL if all are in use. */
static struct fetch_file *fetch_file_find_locked(struct store_fetch *f, uint64_t pack)
{
    struct fetch_file *best = NULL;

    for (unsigned i = 0; i < FETCH_FILES; i++) {
        struct fetch_file *s = &f->files[i];

        if (s->file && s->file->id == pack)
            return s;
        if (!s->users && (!best || !s->file || (best->file && s->stamp < best->stamp)))
            best = s;
    }
    return best;
}

int store_fetch_file_get(struct store_fetch *f, uint64_t pack, struct store_file **ret_file,
                         struct err *err)
{
    struct store_file *file = NULL, *old = NULL;
    struct fetch_file *s;
    int rc;

    (void)pthread_mutex_lock(&f->lock);
    s = fetch_file_find_locked(f, pack);
    if (s && s->file && s->file->id == pack) {
        s->users++;
        s->stamp = ++f->clock;
        file = s->file;
    }
    (void)pthread_mutex_unlock(&f->lock);
    if (file) {
        *ret_file = file;
        return 0;
    }
    rc = f->be->ops->pack_open(f->be, pack, &file, err);
    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&f->lock);
    s = fetch_file_find_locked(f, pack);
    /* Not kept if all slots are busy, or if another thread has just opened it too. */
    if (s && !(s->file && s->file->id == pack)) {
        old = s->file;
        *s = (struct fetch_file){.file = file, .users = 1, .stamp = ++f->clock};
    }
    (void)pthread_mutex_unlock(&f->lock);
    f->be->ops->close(old);
    *ret_file = file;
    return 0;
}

void store_fetch_file_put(struct store_fetch *f, struct store_file *file)
{
    bool kept = false;

    (void)pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < FETCH_FILES && !kept; i++) {
        if (f->files[i].file != file)
            continue;
        f->files[i].users--;
        kept = true;
    }
    (void)pthread_mutex_unlock(&f->lock);
    if (!kept)
        f->be->ops->close(file);
}

void store_fetch_forget(struct store_fetch *f)
{
    (void)pthread_mutex_lock(&f->lock);
    memset(f->places, 0, sizeof(f->places));
    for (unsigned i = 0; i < FETCH_FILES; i++) {
        if (f->files[i].users)
            continue;
        f->be->ops->close(f->files[i].file);
        f->files[i].file = NULL;
    }
    (void)pthread_mutex_unlock(&f->lock);
}

/* ---- places ---- */

static struct store_extent *fetch_place_slot(struct store_fetch *f, uint64_t id)
{
    return &f->places[(id + (id >> STORE_SEQ_BITS) * 1021) % FETCH_PLACES];
}

/* Where a segment is; with @again asks the index even if we think we know. */
static int fetch_place(struct store_fetch *f, uint64_t id, bool again, struct store_extent *ret,
                       struct err *err)
{
    struct store_extent found[FETCH_AHEAD];
    bool known;
    int n;

    (void)pthread_mutex_lock(&f->lock);
    *ret = *fetch_place_slot(f, id);
    (void)pthread_mutex_unlock(&f->lock);
    known = ret->id == id && ret->len;
    if (known && !again)
        return 0;
    (void)pthread_mutex_lock(f->ix_lock);
    n = store_index_extents(f->ix, id, found, FETCH_AHEAD, err);
    (void)pthread_mutex_unlock(f->ix_lock);
    if (n < 0)
        return n;
    if (n == 0 || found[0].id != id)
        return err_set(err, -ESTALE, "segment %llu: is not in the store", (unsigned long long)id);
    (void)pthread_mutex_lock(&f->lock);
    for (int i = 0; i < n; i++)
        *fetch_place_slot(f, found[i].id) = found[i];
    (void)pthread_mutex_unlock(&f->lock);
    *ret = found[0];
    return 0;
}

/* ---- segments ---- */

/* Where a segment is to be unpacked to. */
struct fetch_target {
    uint64_t id;
    unsigned pages; /* it must hold so many; 0: whatever it holds */
    struct store_segment *seg;
    uint8_t *raw; /* STORE_SEGMENT_RAW_MAX bytes */
};

static int fetch_check(const struct fetch_target *t, const struct store_extent *e, struct err *err)
{
    if (t->seg->id != e->id || t->seg->stored_len != e->len - STORE_SEGMENT_HDR_LEN)
        return err_set(err, -EBADMSG, "segment.id: is not the segment that belongs there");
    if (t->pages && (t->seg->kind != STORE_KIND_PAGES || t->seg->nr_items != t->pages))
        return err_set(err, -EBADMSG, "segment.nr_items: not %u pages", t->pages);
    return 0;
}

static int fetch_read_at(struct store_fetch *f, struct store_codec_ctx *ctx,
                         const struct store_extent *e, const struct fetch_target *t,
                         struct err *err)
{
    auto_free uint8_t *bytes = malloc(e->len);
    struct store_file *file;
    int rc;

    if (!bytes)
        return store_no_memory(err);
    rc = store_fetch_file_get(f, e->pack, &file, err);
    if (rc < 0)
        return rc;
    rc = f->be->ops->read(file, bytes, e->len, e->off, err);
    store_fetch_file_put(f, file);
    if (rc < 0)
        return rc;
    rc = store_segment_parse(bytes, t->seg, err);
    if (rc == 0)
        rc = fetch_check(t, e, err);
    if (rc == 0)
        rc = store_segment_unpack(ctx, t->seg, bytes + STORE_SEGMENT_HDR_LEN, t->raw, err);
    if (rc < 0)
        return err_prefix(err, rc, "pack %llu at %llu", (unsigned long long)e->pack,
                          (unsigned long long)e->off);
    return 0;
}

static int fetch_unpack(struct store_fetch *f, struct store_codec_ctx *ctx,
                        const struct fetch_target *t, struct err *err)
{
    struct store_extent e, again;
    struct err first = {0};
    int rc = fetch_place(f, t->id, false, &e, &first);

    if (rc == 0)
        rc = fetch_read_at(f, ctx, &e, t, &first);
    /* It may have moved since: ask again, and try again if the answer is another. */
    if (rc < 0 && rc != -ESTALE && fetch_place(f, t->id, true, &again, NULL) == 0 &&
        (again.pack != e.pack || again.off != e.off || again.len != e.len)) {
        first = (struct err){0};
        rc = fetch_read_at(f, ctx, &again, t, &first);
    }
    return rc < 0 ? err_set(err, rc, "%s", first.msg) : 0;
}

static int fetch_load(void *arg, uint64_t id, void *obj, struct err *err)
{
    struct store_fetch *f = arg;
    struct store_unpacked *u = obj;
    const struct fetch_target t = {.id = id, .seg = &u->seg, .raw = u->raw};
    struct store_codec_ctx *ctx = NULL;
    int rc = store_fetch_codec_get(f, &ctx, err);

    if (rc < 0)
        return rc;
    rc = fetch_unpack(f, ctx, &t, err);
    if (rc == 0)
        store_segment_digests(&u->seg, u->raw, u->digests);
    store_fetch_codec_put(f, ctx);
    return rc;
}

int store_fetch_full(struct store_fetch *f, struct store_codec_ctx *ctx, uint64_t id, uint8_t *dst,
                     struct err *err)
{
    struct store_segment seg;
    const struct fetch_target t = {.id = id, .pages = STORE_SEGMENT_SLOTS, .seg = &seg, .raw = dst};

    return fetch_unpack(f, ctx, &t, err);
}

int store_fetch_segment(struct store_fetch *f, uint64_t id, const struct store_unpacked **ret_u,
                        struct err *err)
{
    const void *obj = NULL;
    int rc = store_cache_get(f->cache, id, fetch_load, f, &obj, err);

    if (rc == 0)
        *ret_u = obj;
    return rc;
}

void store_fetch_put(struct store_fetch *f, const struct store_unpacked *u)
{
    store_cache_put(f->cache, u);
}

/* ---- objects ---- */

static int fetch_verify_object(const struct store_unpacked *u, const struct store_digest *d,
                               enum store_segment_kind kind, struct err *err)
{
    if (u->seg.kind != kind)
        return err_set(err, -EBADMSG, "segment %llu: is not of the kind that was looked for",
                       (unsigned long long)u->seg.id);
    if (!store_digest_equal(&u->digests[0], d))
        return err_set(err, -EBADMSG, "segment %llu: content does not match its digest",
                       (unsigned long long)u->seg.id);
    return 0;
}

int store_fetch_object(struct store_fetch *f, const struct store_digest *d,
                       enum store_segment_kind kind, struct store_object *ret_obj, struct err *err)
{
    const struct store_unpacked *u = NULL;
    uint64_t segment = 0;
    int rc;

    (void)pthread_mutex_lock(f->ix_lock);
    rc = store_index_object(f->ix, d, &segment, ret_obj->hints, &ret_obj->hints_len, err);
    (void)pthread_mutex_unlock(f->ix_lock);
    if (rc == 0) {
        char hex[STORE_DIGEST_HEX + 1];

        store_digest_hex(d, hex);
        return err_set(err, -ESTALE, "%s %.16s is not in the store",
                       kind == STORE_KIND_NODE ? "node" : "piece of state", hex);
    }
    if (rc < 0)
        return rc;
    rc = store_fetch_segment(f, segment, &u, err);
    if (rc)
        return rc;
    rc = fetch_verify_object(u, d, kind, err);
    if (rc == 0) {
        ret_obj->len = u->seg.raw_len;
        memcpy(ret_obj->raw, u->raw, u->seg.raw_len);
    }
    store_fetch_put(f, u);
    return rc;
}
