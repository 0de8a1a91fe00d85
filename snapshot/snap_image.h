/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a snapshot as a file that every clone maps.
 *
 * Expanded once from verified pages into the store's cache/, for this boot of
 * this host: its name holds the digest of the memory and the kernel's boot id.
 * So it needs no sync, a store that was carried here brings none, and what a
 * power cut leaves of one is never used.
 */
#ifndef SNAPSHOT_SNAP_IMAGE_H
#define SNAPSHOT_SNAP_IMAGE_H

#include "snapshot/snap_progress.h"

struct gmem;
struct store;
struct store_snapshot;

/**
 * snap_image_open() - the image of a snapshot, if there is one.
 * @store: the store's directory.
 *
 * Return: a descriptor for reading, owned; -ENOENT; -EPERM for a file that others could
 * have written; -EBADMSG for one of another length; the kernel's errno.
 * Threads: any.
 */
CHECKED int snap_image_open(const char *store, struct store_snapshot *snapshot, struct err *err);

/**
 * snap_image_make() - the image of a snapshot, expanded if need be.
 * @st: the store that the snapshot is in.
 *
 * Who expands makes the others wait, and removes images that nobody can use any
 * more: of snapshots that are gone and of earlier boots.
 *
 * Return: as snap_image_open(); -ENOSPC, -EROFS, -EOPNOTSUPP and others where it
 * cannot be made; -EBADMSG or -ESTALE for a page that is damaged or lost, named;
 * -ECANCELED.
 * Threads: a worker.
 */
CHECKED int snap_image_make(const char *store, struct store *st, struct store_snapshot *snapshot,
                            struct snap_progress *p, struct err *err);

/**
 * snap_image_check() - whether this memory can be a mapping of an image.
 *
 * Return: 0; -ENOTSUP naming the region and why.
 * Threads: any.
 */
CHECKED int snap_image_check(const struct gmem *gm, struct err *err);

/**
 * snap_image_map() - put private mappings of the image in place of all memory.
 * @fd: from snap_image_open(); borrowed.
 *
 * Return: 0; as gmem_map_image().
 * Threads: whoever builds the machine.
 */
CHECKED int snap_image_map(struct gmem *gm, int fd, struct err *err);

#endif
