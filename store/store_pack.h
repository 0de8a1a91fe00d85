/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs: append-only files of segments.
 *
 * Spec: docs/store-format.md, "Packs".
 */
#ifndef STORE_STORE_PACK_H
#define STORE_STORE_PACK_H

#include "store/store_backend.h"
#include "store/store_segment.h"

enum {
    STORE_PACK_VERSION = 1,
    STORE_PACK_HDR_LEN = 64,
    STORE_PACK_CHECK_LEN = 16,
    STORE_UUID_LEN = 16,
};

struct store_pack_wire {
    uint8_t magic[8];
    le16 version;
    le16 hdr_len;
    uint8_t zero[4];
    le64 id;
    uint8_t uuid[STORE_UUID_LEN]; /* of the store */
    uint8_t zero2[8];
    uint8_t check[STORE_PACK_CHECK_LEN]; /* first bytes of the SHA-256 of all before */
};
_Static_assert(sizeof(struct store_pack_wire) == STORE_PACK_HDR_LEN, "docs/store-format.md, Packs");

/**
 * store_pack_header_make() - the header of a new pack.
 * @ret: STORE_PACK_HDR_LEN bytes.
 *
 * Threads: any.
 */
void store_pack_header_make(uint64_t id, const uint8_t uuid[STORE_UUID_LEN], uint8_t *ret);

/**
 * store_pack_header_check() - whether some bytes are the header of that pack.
 * @bytes: STORE_PACK_HDR_LEN bytes; hostile.
 *
 * Return: 0; -EBADMSG; -ENOTSUP for a later version.
 * Threads: any.
 */
CHECKED int store_pack_header_check(const uint8_t *bytes, uint64_t id,
                                    const uint8_t uuid[STORE_UUID_LEN], struct err *err);

/**
 * store_pack_create() - a new pack with its header, under the first number that is free.
 * @from: the number to begin with.
 *
 * Return: 0 and *@ret_file, owned, STORE_PACK_HDR_LEN bytes long; or an errno.
 * Threads: any, of any number of processes.
 */
CHECKED int store_pack_create(struct store_backend *be, uint64_t from,
                              const uint8_t uuid[STORE_UUID_LEN], struct store_file **ret_file,
                              struct err *err);

/* One segment met by a scan; a negative return stops it. */
typedef int store_pack_scan_fn(void *arg, const struct store_segment *seg, uint64_t off);

/**
 * store_pack_scan() - walk the segments of a pack from header to header.
 * @f:       open pack; hostile.
 * @end:     bytes of it to walk, at most its size.
 * @cb:      called for each whole segment.
 * @ret_off: where the walk ended: @end if every byte belongs to a segment.
 *
 * A torn or broken segment ends the walk without an error: *@ret_off < @end,
 * and @why says what was met there.
 *
 * Return: 0; the negative return of @cb; or the errno of a failed read.
 * Threads: any.
 */
CHECKED int store_pack_scan(struct store_file *f, uint64_t end, store_pack_scan_fn *cb, void *arg,
                            uint64_t *ret_off, struct err *why);

#endif
