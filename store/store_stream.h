/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots on the move: as a stream of bytes through a pipe, and from store to store.
 *
 * A snapshot keeps its record and so its id: it is the same one in both places.
 *
 * Spec: docs/store-format.md, "Streams".
 */
#ifndef STORE_STORE_STREAM_H
#define STORE_STORE_STREAM_H

#include "core/wire.h"
#include "store/store_reader.h"
#include "store/store_segment.h"

enum {
    STORE_STREAM_VERSION = 1,
    STORE_STREAM_HDR_LEN = 32,
    STORE_STREAM_CHECK_LEN = 16,
    STORE_FRAME_HDR_LEN = 24,
    STORE_FRAME_MAX = 4 * 1024 * 1024, /* bytes of payload */
    STORE_FRAME_TWINS_MAX = 4096,
    STORE_PLACE_BITS = 40,
};

enum store_frame_type {
    STORE_FRAME_RECORD = 1,
    STORE_FRAME_LABELS = 2,
    STORE_FRAME_STATE = 3,
    STORE_FRAME_PAGES = 4,
    STORE_FRAME_SAME = 5,
    STORE_FRAME_END = 6,
};

struct store_stream_wire {
    uint8_t magic[8];
    le16 version;
    le16 hdr_len;
    uint8_t zero[4];
    uint8_t check[STORE_STREAM_CHECK_LEN]; /* first bytes of the SHA-256 of all before */
};
_Static_assert(sizeof(struct store_stream_wire) == STORE_STREAM_HDR_LEN,
               "docs/store-format.md, Streams");

struct store_frame_wire {
    uint8_t type;
    uint8_t zero[3];
    le32 len;
    uint8_t check[STORE_STREAM_CHECK_LEN]; /* of the 8 bytes before and the payload */
};
_Static_assert(sizeof(struct store_frame_wire) == STORE_FRAME_HDR_LEN,
               "docs/store-format.md, Streams");

/* Takes all of @len bytes; 0 or a negative errno with @err set. */
typedef int store_sink_fn(void *arg, const void *data, size_t len, struct err *err);

/* Gives up to @len bytes; how many, 0 at the end, or a negative errno with @err set. */
typedef ssize_t store_source_fn(void *arg, void *data, size_t len, struct err *err);

struct store_stream_cfg {
    store_progress_fn *progress; /* bytes of memory; may be NULL */
    void *arg;                   /* for it */
    const char *name;            /* import, copy: instead of the one it has; "" for none */
};

struct store_stream_result {
    char id[STORE_DIGEST_HEX + 1];
    uint64_t pages_sent;  /* whose contents went over */
    uint64_t pages_known; /* that the other end had, or that came before */
    uint64_t bytes;       /* of the stream, or of contents copied */
    bool healed;          /* it was there, and got back what it had lost */
};

/**
 * store_export() - write a snapshot as a stream.
 *
 * Each different page is sent once, of at most 262144 that it remembers.
 * Return: 0; what @sink returned; else as store_snapshot_read().
 * Threads: any.
 */
CHECKED int store_export(struct store_snapshot *snap, store_sink_fn *sink, void *sink_arg,
                         const struct store_stream_cfg *cfg, struct store_stream_result *ret_res,
                         struct err *err);

/**
 * store_import() - take a snapshot out of a stream.
 * @source: hostile bytes; left right behind the stream.
 *
 * A snapshot that is there, but is known to have lost something, gets that back and keeps
 * its name and tags.
 * Return: 1; 0 if the source was at its end (nothing happened); -EEXIST if the snapshot
 * is there already (@ret_res->id says which) or its name is taken; -EBADMSG for a stream
 * that is cut off, damaged, or not what its record names; -ENOTSUP for a later version;
 * -E2BIG; else as store_writer_publish().
 * Threads: any.
 */
CHECKED int store_import(struct store *st, store_source_fn *source, void *source_arg,
                         const struct store_stream_cfg *cfg, struct store_stream_result *ret_res,
                         struct err *err);

/**
 * store_copy() - put a snapshot of one store into another.
 *
 * Reads only pages that @to does not have.  Where both have another snapshot of the same
 * shape, only what differs from that is looked at.  Heals as store_import() does.
 * Return: 0; -EEXIST as store_import(); else as store_snapshot_read() and
 * store_writer_publish().
 * Threads: any.
 */
CHECKED int store_copy(struct store_snapshot *snap, struct store *to,
                       const struct store_stream_cfg *cfg, struct store_stream_result *ret_res,
                       struct err *err);

#endif
