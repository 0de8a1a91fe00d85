/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that are read before there is memory to put them into.
 *
 * While a machine is built nobody else needs the store: what an earlier run touched first is read
 * and verified then, and put in place as soon as the memory is there (snapshot/snap_lazy.h).
 */
#ifndef SNAPSHOT_SNAP_AHEAD_H
#define SNAPSHOT_SNAP_AHEAD_H

#include "core/base.h"

struct snap_ahead;
struct snap_lazy_source;
struct snap_touch;

enum {
    SNAP_BLOCK_PAGES = 16,      /* a segment of the store: brought together */
    SNAP_AHEAD_BLOCKS_MAX = 16, /* 1 MiB */
    SNAP_AHEAD_RUNS_MAX = SNAP_BLOCK_PAGES / 2,
};

/* Pages of one block; those that are in no run are zero. */
struct snap_ahead_block {
    unsigned region;
    uint64_t block;
    const uint8_t *data; /* SNAP_BLOCK_PAGES pages, as far as they are in a run */
    unsigned nr_runs;
    struct {
        uint8_t at, nr; /* pages of the block */
    } runs[SNAP_AHEAD_RUNS_MAX];
};

/**
 * snap_ahead_read() - read what was touched first.
 * @order:  of an earlier run: advice.
 * @enough: asked before each block; true ends the reading.
 *
 * A block that cannot be read is left out: whoever touches it learns why.
 *
 * Return: owned; NULL without memory for it.
 * Threads: any that may use @source.
 */
struct snap_ahead *snap_ahead_read(const struct snap_lazy_source *source,
                                   const struct snap_touch *order, bool (*enough)(void *arg),
                                   void *arg);

/**
 * snap_ahead_block() - one of the blocks.
 *
 * Return: borrowed from @ahead; NULL behind the last, and for no @ahead.
 * Threads: any.
 */
const struct snap_ahead_block *snap_ahead_block(const struct snap_ahead *ahead, unsigned i);

/**
 * snap_ahead_free() - let the pages go.
 * @ahead: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void snap_ahead_free(struct snap_ahead *ahead);

#endif
