/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM has written since its last snapshot.
 *
 * With it the next snapshot looks at nothing else.  It costs the guest a fault
 * for the first write to each page after every snapshot.
 */
#ifndef SNAPSHOT_SNAP_TRACK_H
#define SNAPSHOT_SNAP_TRACK_H

#include "core/dirty.h"
#include "store/store_digest.h"

struct snap_track {
    struct dirty_consumer *dirty;     /* owned; pages written since */
    char since[STORE_DIGEST_HEX + 1]; /* id of that snapshot; "" before the first */
};

/**
 * snap_track_new() - begin to log: at first every page counts as written.
 * @d: borrowed until snap_track_free().
 *
 * Return: 0 and *@ret_track, owned; -ENOMEM; the hypervisor's errno.
 * Threads: a worker that the VM was lent to.
 */
CHECKED int snap_track_new(struct dirty *d, struct snap_track **ret_track, struct err *err);

/**
 * snap_track_free() - log no longer.
 * @t: taken; NULL is allowed.
 *
 * Threads: as snap_track_new(), or the one that frees the VM, before it does.
 */
void snap_track_free(struct snap_track *t);

#endif
