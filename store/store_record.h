/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of a snapshot: everything about it that never changes.
 *
 * The id of a snapshot is the SHA-256 of its record, so that neither can be
 * changed without the other; name and tags, which may change, lie beside it.
 *
 * Spec: docs/store-format.md, "Records".
 */
#ifndef STORE_STORE_RECORD_H
#define STORE_STORE_RECORD_H

#include "store/store.h"
#include "store/store_segment.h"

enum {
    STORE_RECORD_VERSION = 1,
    STORE_CHUNK_LEN = STORE_SEGMENT_RAW_MAX, /* pieces of the device state */
    STORE_CHUNKS_MAX = STORE_STATE_MAX / STORE_CHUNK_LEN,
    STORE_RECORD_LEN_MAX = 4 * 1024 * 1024,
};

/**
 * store_record_encode() - the bytes of a record, of which its id is taken.
 * @ret_bytes: owned by the caller, for free().
 *
 * Return: 0; -E2BIG if a part is over its limit; -EINVAL; -ENOMEM.
 * Threads: any.
 */
CHECKED int store_record_encode(const struct store_record *rec, uint8_t **ret_bytes,
                                size_t *ret_len, struct err *err);

/**
 * store_record_decode() - check and decode a record.
 * @bytes: @len of them; hostile.
 *
 * Return: 0 and *@ret_rec, owned, for store_record_free(); -EBADMSG; -ENOTSUP for
 * a later version; -E2BIG; -ENOMEM.
 * Threads: any.
 */
CHECKED int store_record_decode(const uint8_t *bytes, size_t len, struct store_record **ret_rec,
                                struct err *err);

/**
 * store_record_free() - free a decoded record.
 * @rec: taken; NULL is allowed.
 *
 * Threads: any.
 */
void store_record_free(struct store_record *rec);

#endif
