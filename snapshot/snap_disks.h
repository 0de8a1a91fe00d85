/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of a snapshot: what they were, and whether they still are.
 *
 * A snapshot holds no disk contents.  It records each image's path, size,
 * inode and time of change, so that a restore can tell a disk that has changed.
 */
#ifndef SNAPSHOT_SNAP_DISKS_H
#define SNAPSHOT_SNAP_DISKS_H

#include "snapshot/snap_sets.h"

/**
 * snap_disks_describe() - the machine's disks as JSON: an array of
 * {id, path, readonly, size, device, inode, mtime_ns}.
 * @ret_json: owned; free().
 *
 * Return: 0; -ENOMEM; the kernel's errno for an image that cannot be looked at.
 * Threads: any.
 */
CHECKED int snap_disks_describe(const struct vm_config *cfg, char **ret_json, struct err *err);

/**
 * snap_is_same_file() - whether two paths lead to one file.
 *
 * Return: true if so; false also if one leads nowhere.
 * Threads: any.
 */
CHECKED bool snap_is_same_file(const char *a, const char *b);

/**
 * snap_disks_mark() - note on a copy what it was made of, as an extended attribute.
 * @copy:     whole, open for writing.
 * @original: what it was copied from, open.
 *
 * By it snap_disks_check() tells an image that a clone has written to from one that is as it was
 * copied.  Nothing happens where a file system has no such attributes.
 * Threads: any.
 */
void snap_disks_mark(int copy, int original);

/* How a disk is going to be used. */
struct snap_disks_use {
    const struct vm_config *cfg;  /* with @sets applied */
    const struct snap_sets *sets; /* disks.<id>.path: another image, of the same size, and no copy
                                     of this one that was written to since */
    bool copied;                  /* clone: writable disks are copied, to where none is yet */
};

/**
 * snap_disks_check() - whether every disk is as the snapshot recorded it.
 * @json: from snap_disks_describe(); hostile; "" for none.
 * @why:  gets one sentence for each disk that is not.
 *
 * Return: 0; -EBADMSG for bad JSON.
 * Threads: any.
 */
CHECKED int snap_disks_check(const char *json, const struct snap_disks_use *use,
                             struct snap_problems *why, struct err *err);

/**
 * snap_disks_still() - whether one disk is as it was recorded.
 * @json: from snap_disks_describe(); hostile; "" for none.
 * @d:    of the snapshot's configuration.
 *
 * Return: 0, also for one that is not recorded; -ESTALE with why; -EBADMSG for bad JSON.
 * Threads: any.
 */
CHECKED int snap_disks_still(const char *json, const struct disk_config *d, struct err *err);

#endif
