/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory a snapshot's machine has, told before the store is opened.
 *
 * KVM takes a millisecond a GiB to learn of memory, so a restore begins with that before it knows
 * what it restores (core/vm_ground.h).  Advice and nothing else: a size that is wrong costs time.
 *
 * Format: docs/store-format.md, "Sizes of memory".
 */
#ifndef SNAPSHOT_SNAP_SIZES_H
#define SNAPSHOT_SNAP_SIZES_H

#include "core/base.h"

enum {
    SNAP_SIZES_SLOTS = 64, /* the last noted of those that share one stays */
};

/**
 * snap_sizes_find() - what was noted for a URL.
 * @url: as for snap_open().
 *
 * Return: bytes, a multiple of a page; 0: nothing.
 * Threads: any.
 */
uint64_t snap_sizes_find(const char *url);

/**
 * snap_sizes_note() - note it, where the store may be written.
 * @bytes: as vm_ground_guess(); 0: nothing is noted.
 *
 * Threads: any.
 */
void snap_sizes_note(const char *url, uint64_t bytes);

#endif
