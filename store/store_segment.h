/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: what packs are made of.
 *
 * A segment is a header of 64 bytes and a payload of at most 64 KiB, stored as
 * one zstd frame, or raw where that is not smaller.  It holds up to 16 pages,
 * or one node of a manifest, or one piece of a blob.  Its id names it for ever,
 * wherever it is moved; id and slot together are a `loc`, the place of a page.
 *
 * Spec: docs/store-format.md, "Segments".
 */
#ifndef STORE_STORE_SEGMENT_H
#define STORE_STORE_SEGMENT_H

#include "core/wire.h"
#include "store/store_digest.h"

enum {
    STORE_SEGMENT_VERSION = 1,
    STORE_SEGMENT_HDR_LEN = 64,
    STORE_SEGMENT_SLOTS = 16,
    STORE_SEGMENT_RAW_MAX = 64 * 1024,
    STORE_SEGMENT_LEN_MAX = STORE_SEGMENT_HDR_LEN + STORE_SEGMENT_RAW_MAX,
    STORE_SLOT_BITS = 4,
    STORE_SEQ_BITS = 24, /* segments of one pack */
    STORE_PACK_BITS = 35,
};

#define STORE_SEGMENT_ID_MAX (((uint64_t)1 << (STORE_SEQ_BITS + STORE_PACK_BITS)) - 1)
#define STORE_PACK_ID_MAX    (((uint64_t)1 << STORE_PACK_BITS) - 1)

enum store_segment_kind {
    STORE_KIND_PAGES = 1,
    STORE_KIND_NODE = 2,
    STORE_KIND_BLOB = 3,
};

enum store_codec {
    STORE_CODEC_RAW = 0,
    STORE_CODEC_ZSTD = 1,
};

/* The header as it stands in the pack. */
struct store_segment_wire {
    uint8_t magic[4];
    uint8_t version;
    uint8_t kind;
    uint8_t codec;
    uint8_t alg;
    le64 id;
    le32 raw_len;
    le32 stored_len;
    uint8_t nr_items;
    uint8_t zero[7];
    uint8_t digest[STORE_DIGEST_LEN];
};
_Static_assert(sizeof(struct store_segment_wire) == STORE_SEGMENT_HDR_LEN,
               "docs/store-format.md, Segments");

/* The header checked and decoded. */
struct store_segment {
    uint64_t id;
    enum store_segment_kind kind;
    enum store_codec codec;
    uint32_t raw_len;    /* bytes */
    uint32_t stored_len; /* bytes of payload behind the header */
    unsigned nr_items;
    struct store_digest digest; /* of the header's first half and the items' digests */
};

static inline uint64_t store_loc_make(uint64_t segment, unsigned slot)
{
    return segment << STORE_SLOT_BITS | slot;
}

static inline uint64_t store_loc_segment(uint64_t loc)
{
    return loc >> STORE_SLOT_BITS;
}

static inline unsigned store_loc_slot(uint64_t loc)
{
    return (unsigned)loc & (STORE_SEGMENT_SLOTS - 1);
}

static inline uint64_t store_segment_id_make(uint64_t pack, uint32_t seq)
{
    return pack << STORE_SEQ_BITS | seq;
}

/* Scratch for packing and unpacking; one thread at a time. */
struct store_codec_ctx;

/**
 * store_codec_new() - scratch for segments: zstd contexts.
 *
 * Return: 0 and *@ret_ctx, owned, for store_codec_free(); -ENOMEM or -ENOTSUP.
 * Threads: any.
 */
CHECKED int store_codec_new(struct store_codec_ctx **ret_ctx, struct err *err);

/**
 * store_codec_free() - free it.
 * @ctx: taken; NULL is allowed.
 *
 * Threads: any.
 */
void store_codec_free(struct store_codec_ctx *ctx);

/**
 * store_segment_pack() - compress items into a segment.
 * @seg:     id, kind, nr_items and raw_len are given; the rest is filled in.
 * @raw:     @seg->raw_len bytes, the items one behind the other.
 * @digests: one per item.
 * @out:     STORE_SEGMENT_LEN_MAX bytes, for header and payload.
 *
 * Return: bytes in @out, which say all: what cannot be compressed is stored as it is.
 * Threads: one at a time for one @ctx.
 */
uint32_t store_segment_pack(struct store_codec_ctx *ctx, struct store_segment *seg,
                            const uint8_t *raw, const struct store_digest *digests, uint8_t *out);

/**
 * store_segment_parse() - check and decode a header.
 * @bytes: STORE_SEGMENT_HDR_LEN bytes; hostile.
 *
 * Return: 0; -EBADMSG; -ENOTSUP for a later version or an unknown algorithm.
 * Threads: any.
 */
CHECKED int store_segment_parse(const uint8_t *bytes, struct store_segment *ret_seg,
                                struct err *err);

/**
 * store_segment_unpack() - decompress the payload.
 * @seg:     from store_segment_parse().
 * @payload: @seg->stored_len bytes; hostile.
 * @dst:     at least @seg->raw_len bytes.
 *
 * Allocates nothing, whatever sizes the frame declares.  The items are not
 * verified: see store_segment_check(), or verify what is taken out of it.
 *
 * Return: 0; -EBADMSG (then the contents of @dst are undefined).
 * Threads: one at a time for one @ctx.
 */
CHECKED int store_segment_unpack(struct store_codec_ctx *ctx, const struct store_segment *seg,
                                 const uint8_t *payload, uint8_t *dst, struct err *err);

/**
 * store_segment_digests() - what the items of an unpacked segment hash to.
 * @raw:         @seg->raw_len bytes.
 * @ret_digests: one per item, STORE_SEGMENT_SLOTS of them.
 *
 * Threads: any.
 */
void store_segment_digests(const struct store_segment *seg, const uint8_t *raw,
                           struct store_digest *ret_digests);

/**
 * store_segment_check() - verify a whole unpacked segment against its header.
 * @hdr:         the STORE_SEGMENT_HDR_LEN bytes that @seg came from.
 * @raw:         @seg->raw_len bytes.
 * @ret_digests: one per item, STORE_SEGMENT_SLOTS of them.
 *
 * Return: 0; -EBADMSG.
 * Threads: any.
 */
CHECKED int store_segment_check(const struct store_segment *seg, const uint8_t *hdr,
                                const uint8_t *raw, struct store_digest *ret_digests,
                                struct err *err);

#endif
