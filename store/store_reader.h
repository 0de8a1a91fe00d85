/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting a snapshot out.
 *
 * Every page is compared with its SHA-256 before it is delivered.  While a
 * snapshot is open it cannot be removed, and what it needs cannot be collected.
 */
#ifndef STORE_STORE_READER_H
#define STORE_STORE_READER_H

#include "store/store.h"

struct store_snapshot;

/**
 * store_snapshot_open() - open a snapshot for reading.
 * @st:  borrowed, outlives it.
 * @ref: as store_resolve().
 *
 * Return: 0 and *@ret_snap, owned, for store_snapshot_close(); as store_resolve();
 * -EBADMSG if its record is damaged.
 * Threads: any; the object may be used by several at once.
 */
CHECKED int store_snapshot_open(struct store *st, const char *ref, struct store_snapshot **ret_snap,
                                struct err *err);

/**
 * store_snapshot_close() - close it.
 * @snap: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void store_snapshot_close(struct store_snapshot *snap);

/**
 * store_snapshot_info() - what it is.
 *
 * Return: borrowed from @snap, with its record.
 * Threads: any.
 */
const struct store_info *store_snapshot_info(const struct store_snapshot *snap);

/**
 * store_snapshot_state() - the device state, whole.
 * @ret_state: owned by the caller, for free(); one byte more than @ret_len is
 *             allocated and zero.
 *
 * Return: 0; -EBADMSG if it is damaged; -ESTALE if a part is missing; -ENOMEM.
 * Threads: any.
 */
CHECKED int store_snapshot_state(struct store_snapshot *snap, uint8_t **ret_state, size_t *ret_len,
                                 struct err *err);

/**
 * store_snapshot_read() - read pages.
 * @region: index into the record's regions.
 * @first:  page within the region.
 * @nr:     pages; 0 is allowed.
 * @dst:    @nr * 4 KiB.
 *
 * Fastest for ranges of 512 pages and more, in order; several threads may each
 * read another part.  On failure the pages before the bad one are delivered, the
 * bad one and those behind it are not written.
 *
 * Return: 0; -EINVAL for pages that are not there; -EBADMSG or -ESTALE for a page
 * that is damaged or lost, which @err names; or the kernel's errno.
 * Threads: any.
 */
CHECKED int store_snapshot_read(struct store_snapshot *snap, unsigned region, uint64_t first,
                                uint64_t nr, void *dst, struct err *err);

/**
 * store_snapshot_read_sparse() - read pages to where all is zero already.
 *
 * As store_snapshot_read(), but pages of zeroes are not written, so that fresh
 * memory stays untouched where there is nothing; pages are verified where they
 * are going to be, so nobody may look at @dst before it returns, and on failure
 * what is there is undefined.
 *
 * Return: as store_snapshot_read().
 * Threads: any.
 */
CHECKED int store_snapshot_read_sparse(struct store_snapshot *snap, unsigned region, uint64_t first,
                                       uint64_t nr, void *dst, struct err *err);

/* A run of pages that all are zero or all are not. */
struct store_run {
    uint64_t first;
    uint64_t nr; /* 0: there is none */
};

/**
 * store_snapshot_next() - the next run of pages that are not zero.
 * @from: page to begin looking at.
 *
 * A run ends at a leaf's end at the latest, so two runs may touch.
 * Return: 0 and *@ret_run; -EINVAL; else as store_snapshot_read().
 * Threads: any.
 */
CHECKED int store_snapshot_next(struct store_snapshot *snap, unsigned region, uint64_t from,
                                struct store_run *ret_run, struct err *err);

#endif
