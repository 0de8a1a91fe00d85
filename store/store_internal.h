/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder know of each other's objects.
 *
 * Locks of the folder, in order of precedence: a writer's queue; a writer's
 * leaf stripe; a writer's index; the store's index; the caches (leaf locks).
 */
#ifndef STORE_STORE_INTERNAL_H
#define STORE_STORE_INTERNAL_H

#include <stdatomic.h>

#include "store/store.h"
#include "store/store_fetch.h"
#include "store/store_pack.h"

struct store {
    struct store_backend *be;
    pthread_mutex_t ix_lock;
    struct store_index *ix; /* under ix_lock; never in a transaction for long */
    struct store_fetch *fetch;
    uint8_t uuid[STORE_UUID_LEN];
    bool readonly;         /* as the caller asked */
    atomic_bool unsettled; /* something was published */
};

/* A snapshot's row, copied out of the index and checked. */
struct store_found {
    struct store_info info;
    struct store_record *rec; /* owned */
};

/**
 * store_find() - resolve a reference and fetch the row, checked.
 * @ref: as store_resolve().
 *
 * Return: 0, and store_found_release(@ret) is owed; else as store_resolve().
 * Threads: any.
 */
CHECKED int store_find(struct store *st, const char *ref, struct store_found *ret, struct err *err);

/**
 * store_found_release() - free what is inside.
 *
 * Threads: any.
 */
void store_found_release(struct store_found *found);

/**
 * store_row_read() - as store_row_decode(), without naming the snapshot in @err.
 *
 * Return: as store_row_decode(); the id is in @ret even if it fails.
 * Threads: any.
 */
CHECKED int store_row_read(const struct store_snap_row *row, struct store_found *ret,
                           struct err *err);

/**
 * store_row_decode() - check a row against its digests and decode it.
 * @row: hostile.
 *
 * Return: 0, and store_found_release(@ret) is owed; -EBADMSG and the like.
 * Threads: any.
 */
CHECKED int store_row_decode(const struct store_snap_row *row, struct store_found *ret,
                             struct err *err);

/**
 * store_tags_join() - tags as the index keeps them, separated by commas.
 * @out: STORE_TAGS_MAX * (STORE_NAME_MAX + 1) + 1 bytes.
 *
 * Threads: any.
 */
void store_tags_join(const struct store_info *info, char *out, size_t cap);

/**
 * store_lock_as_writer() - keep the collector from sweeping.
 *
 * @wait: while it does.
 *
 * Lets one that waits go first.
 * Return: 0 and *@ret, to be given back to the back end's unlock(); -EAGAIN, without a text in
 * @err, if it would have to wait; or an errno.
 * Threads: any.
 */
CHECKED int store_lock_as_writer(struct store *st, bool wait, struct store_lock **ret,
                                 struct err *err);

/**
 * store_make_room() - what to do about a failure, if it was that the disk is full.
 * @rc: what the attempt returned.
 *
 * Gives the reserve back, which another process may have done just before.
 * Return: true if it is worth trying once more.
 * Threads: any.
 */
bool store_make_room(struct store_backend *be, int rc);

/**
 * store_write_check() - refuse to change a store opened for reading.
 *
 * Return: 0; -EROFS.
 * Threads: any.
 */
CHECKED int store_write_check(const struct store *st, struct err *err);

#endif
