/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In which order a guest touched its memory after a restore.
 *
 * Kept beside the snapshot, so that the next restore brings those pages first.
 * Advice and nothing else: it decides about order, never about contents.
 *
 * Format: docs/store-format.md, "Order of first touch".
 */
#ifndef SNAPSHOT_SNAP_TOUCH_H
#define SNAPSHOT_SNAP_TOUCH_H

#include "core/err.h"
#include "store/store_digest.h"

enum {
    SNAP_TOUCH_MAX = 65536, /* runs */
    SNAP_TOUCH_HDR_LEN = 48,
    SNAP_TOUCH_RUN_LEN = 8,
    SNAP_TOUCH_SUM_LEN = 32,
    SNAP_TOUCH_BYTES_MAX =
        SNAP_TOUCH_HDR_LEN + SNAP_TOUCH_MAX * SNAP_TOUCH_RUN_LEN + SNAP_TOUCH_SUM_LEN,
};

/* Pages that were touched one after the other. */
struct snap_touch_run {
    uint8_t region;
    uint16_t nr;    /* pages, > 0 */
    uint64_t first; /* page in the region, below 2^40 */
};

/* All zero is an empty order. */
struct snap_touch {
    unsigned nr;
    size_t cap;
    struct snap_touch_run *runs; /* owned */
};

/**
 * snap_touch_release() - free what it owns; it is empty then.
 *
 * Threads: any, one at a time.
 */
void snap_touch_release(struct snap_touch *t);

/**
 * snap_touch_add() - note pages that were touched now; what is full takes no more.
 * @run: its pages follow those of the last run, or begin a new one.
 *
 * Threads: any, one at a time.
 */
void snap_touch_add(struct snap_touch *t, const struct snap_touch_run *run);

/**
 * snap_touch_encode() - as bytes.
 * @ram: digest that names the memory.
 *
 * Return: 0 and *@ret_bytes, owned, of *@ret_len; -ENOMEM.
 * Threads: any.
 */
CHECKED int snap_touch_encode(const struct snap_touch *t, const struct store_digest *ram,
                              uint8_t **ret_bytes, size_t *ret_len);

/**
 * snap_touch_decode() - from bytes.
 * @data, @len: hostile.
 * @ram:        whose order it has to be; NULL: anybody's.
 *
 * Return: 0 and *@ret_t, owned; -EBADMSG, -ENOTSUP with the field in @err; -ENOMEM.
 * Threads: any.
 */
CHECKED int snap_touch_decode(const uint8_t *data, size_t len, const struct store_digest *ram,
                              struct snap_touch *ret_t, struct err *err);

/**
 * snap_touch_load() - read it from a store.
 * @store: the store's directory.
 *
 * Return: 0 and *@ret_t, owned; -ENOENT; as snap_touch_decode(); the kernel's errno.
 * Threads: any.
 */
CHECKED int snap_touch_load(const char *store, const struct store_digest *ram,
                            struct snap_touch *ret_t, struct err *err);

/**
 * snap_touch_save() - keep it in a store, in place of what was there.
 *
 * Return: 0; the kernel's errno (a store that nobody may write keeps none).
 * Threads: any.
 */
CHECKED int snap_touch_save(const char *store, const struct store_digest *ram,
                            const struct snap_touch *t, struct err *err);

#endif
