/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting segments out of packs: places, open packs, scratch, and a cache of
 * what was decompressed.  One per store, shared by all its readers and writers.
 */
#ifndef STORE_STORE_FETCH_H
#define STORE_STORE_FETCH_H

#include <pthread.h>

#include "store/store_index.h"
#include "store/store_segment.h"

/* A decompressed segment; whether its items are the wanted ones is for the reader to compare. */
struct store_unpacked {
    struct store_segment seg;
    struct store_digest digests[STORE_SEGMENT_SLOTS]; /* of each item */
    uint8_t raw[STORE_SEGMENT_RAW_MAX];
};

struct store_fetch;

/**
 * store_fetch_new() - the readers' end of a store.
 * @be: borrowed, outlives it.
 * @ix: borrowed, outlives it; used under @ix_lock only.
 *
 * Return: 0 and *@ret_f, owned, for store_fetch_free(); -ENOMEM.
 * Threads: any.
 */
CHECKED int store_fetch_new(struct store_backend *be, struct store_index *ix,
                            pthread_mutex_t *ix_lock, struct store_fetch **ret_f);

/**
 * store_fetch_free() - close packs, free caches.
 * @f: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void store_fetch_free(struct store_fetch *f);

/**
 * store_fetch_codec_get() - scratch for segments.
 *
 * Return: 0 and *@ret_ctx, to be given back by store_fetch_codec_put(); -ENOMEM.
 * Threads: any.
 */
CHECKED int store_fetch_codec_get(struct store_fetch *f, struct store_codec_ctx **ret_ctx,
                                  struct err *err);

/**
 * store_fetch_codec_put() - give scratch back.
 * @ctx: taken; NULL is allowed.
 *
 * Threads: any.
 */
void store_fetch_codec_put(struct store_fetch *f, struct store_codec_ctx *ctx);

/**
 * store_fetch_segment() - a segment by id, from the cache or from its pack.
 *
 * A segment that has moved since its place was learnt is found again.
 * Return: 0 and *@ret_u, borrowed until store_fetch_put(); -ESTALE if there is no
 * such segment; -EBADMSG if it is damaged; or the kernel's errno.
 * Threads: any; each holds at most one segment.
 */
CHECKED int store_fetch_segment(struct store_fetch *f, uint64_t id,
                                const struct store_unpacked **ret_u, struct err *err);

/**
 * store_fetch_full() - unpack a segment of STORE_SEGMENT_SLOTS pages, not remembering it.
 * @ctx: scratch of the caller.
 * @dst: STORE_SEGMENT_RAW_MAX bytes; undefined on failure.
 *
 * The pages are not verified: that is up to the caller.
 *
 * Return: 0; -ESTALE if it is nowhere; -EBADMSG, also if it is another kind of segment; or an errno.
 * Threads: one at a time for one @ctx.
 */
CHECKED int store_fetch_full(struct store_fetch *f, struct store_codec_ctx *ctx, uint64_t id,
                             uint8_t *dst, struct err *err);

/**
 * store_fetch_put() - the segment is no longer used.
 *
 * Threads: any.
 */
void store_fetch_put(struct store_fetch *f, const struct store_unpacked *u);

/* A node or a piece of state, as it was stored. */
struct store_object {
    size_t len;
    size_t hints_len;
    uint8_t raw[STORE_SEGMENT_RAW_MAX];
    uint8_t hints[STORE_HINTS_LEN_MAX]; /* of a leaf */
};

/**
 * store_fetch_object() - a node or a piece of state, verified.
 * @d:    its name.
 * @kind: what it has to be.
 *
 * Return: 0 and *@ret_obj; -ESTALE if the store does not have it; -EBADMSG if it is
 * damaged; or another errno.
 * Threads: any.
 */
CHECKED int store_fetch_object(struct store_fetch *f, const struct store_digest *d,
                               enum store_segment_kind kind, struct store_object *ret_obj,
                               struct err *err);

/**
 * store_fetch_file_get() - an open pack.
 *
 * Return: 0 and *@ret_file, to be given back by store_fetch_file_put(); an errno.
 * Threads: any.
 */
CHECKED int store_fetch_file_get(struct store_fetch *f, uint64_t pack, struct store_file **ret_file,
                                 struct err *err);

/**
 * store_fetch_file_put() - the pack is no longer used.
 *
 * Threads: any.
 */
void store_fetch_file_put(struct store_fetch *f, struct store_file *file);

/**
 * store_fetch_forget() - forget all places and close all packs that nobody uses.
 *
 * Threads: any.
 */
void store_fetch_forget(struct store_fetch *f);

#endif
