/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All pages of a snapshot at once, by several threads.
 */
#ifndef SNAPSHOT_SNAP_EAGER_H
#define SNAPSHOT_SNAP_EAGER_H

#include "snapshot/snap_progress.h"

struct gmem;
struct store_record;
struct store_snapshot;

enum {
    SNAP_CHUNK_PAGES = 2048, /* four leaves, 8 MiB */
};

/* Part of a region, at most SNAP_CHUNK_PAGES. */
struct snap_chunk {
    unsigned region;
    uint64_t first;
    uint64_t nr;
};

/* Deal with a chunk; called by several threads at once. */
typedef int snap_chunk_fn(void *arg, const struct snap_chunk *chunk, struct err *err);

/**
 * snap_for_chunks() - have threads go through all memory of a snapshot.
 * @p: counted, and asked whether to go on.
 *
 * Return: 0; the first failure of @fn; -ECANCELED.
 * Threads: any.
 */
CHECKED int snap_for_chunks(const struct store_record *rec, snap_chunk_fn *fn, void *arg,
                            struct snap_progress *p, struct err *err);

/**
 * snap_check_layout() - whether memory is laid out as the snapshot's.
 *
 * Return: 0; -EINVAL naming what differs.
 * Threads: any.
 */
CHECKED int snap_check_layout(const struct store_record *rec, const struct gmem *gm,
                              struct err *err);

/**
 * snap_read_memory() - bring all pages into place.
 * @gm: laid out as the snapshot's; nobody uses it.
 *
 * Fresh memory stays untouched where the snapshot has zeroes.
 *
 * Return: 0; as store_snapshot_read(); -ECANCELED.
 * Threads: any.
 */
CHECKED int snap_read_memory(struct store_snapshot *snapshot, struct gmem *gm,
                             struct snap_progress *p, struct err *err);

#endif
