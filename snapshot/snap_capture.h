/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking a snapshot of a VM into a store, while it runs.
 *
 * Two ways (docs/decisions/0040):
 *
 * moment: the guest stands still for its state, and while its memory is protected
 * against writing; then it runs, and its pages are read as they were.  Each is
 * stored once, however often it is written.
 *
 * rounds: memory is copied while it changes, as in a migration; the guest stands
 * still for its state and the pages that it wrote last.  Works everywhere.
 */
#ifndef SNAPSHOT_SNAP_CAPTURE_H
#define SNAPSHOT_SNAP_CAPTURE_H

#include "core/vm.h"
#include "snapshot/snap_progress.h"
#include "snapshot/snap_track.h"
#include "store/store_digest.h"

struct store;

enum snap_mode {
    SNAP_MODE_AUTO, /* moment, or where that cannot be, rounds */
    SNAP_MODE_MOMENT,
    SNAP_MODE_ROUNDS,
};

struct snap_capture_cfg {
    const char *url; /* "store:/path#name", made if it is not there, or "file:///dir" */
    enum snap_mode mode;
    /*
     * Log what is written from this snapshot on, so that the next one looks at nothing else; false
     * ends that.
     */
    bool keep_track;
    struct snap_track **track; /* of this VM: what the last snapshot left, and where to leave it */
};

struct snap_result {
    char id[STORE_DIGEST_HEX + 1];
    uint64_t pause_ns;
    uint64_t total_ns;
    uint64_t bytes_stored; /* that the snapshot added to the store */
};

/**
 * snap_capture() - take a snapshot.
 * @vm:  running, and runs again when its state is safe; or paused, and stays so.
 * @cfg: borrowed; the track that it leads to is NULL or owned by the caller.
 * @p:   zeroed.
 * @ret_store: for snap_capture_end(): the snapshot is there and durable, and nobody needs to wait
 *       until its store is tidy.
 *
 * The parent is found by itself: the newest snapshot of the same VM (its UUID)
 * in the store, or where memory was tracked the snapshot since which it was.  A track
 * is dropped when the capture fails.
 *
 * Return: 0, *@ret_result and *@ret_store; -EINVAL for a bad URL; -EEXIST if the name is taken;
 * -ECANCELED; -ENOTSUP, -EPERM or -EBUSY where @cfg->mode is SNAP_MODE_MOMENT and that
 * cannot be; failures of store and devices.  On failure the VM is as it was and so
 * is the store.
 * Threads: a worker that the VM was lent to.
 */
CHECKED int snap_capture(struct vm *vm, const struct snap_capture_cfg *cfg, struct snap_progress *p,
                         struct snap_result *ret_result, struct store **ret_store, struct err *err);

/**
 * snap_capture_end() - close the store of a snapshot, which writes its log back, and give memory back.
 * @st: taken; NULL is allowed.
 *
 * Threads: any.
 */
void snap_capture_end(struct store *st);

#endif
