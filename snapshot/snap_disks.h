/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of a snapshot: what they were, and whether they still are.
 *
 * A snapshot holds no disk contents.  It records each image's path, size,
 * inode and time of change, so that a restore can tell a disk that has changed.
 */
#ifndef SNAPSHOT_SNAP_DISKS_H
#define SNAPSHOT_SNAP_DISKS_H

#include "core/config/vm_config.h"

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
 * snap_disks_check() - whether every disk is as the snapshot recorded it.
 * @json: from snap_disks_describe(); hostile; "" for none.
 * @what: called with one sentence for each disk that is not; may be NULL.
 *
 * Return: number of disks that differ, >= 0; -EBADMSG for bad JSON.
 * Threads: any.
 */
CHECKED int snap_disks_check(const char *json, void (*what)(void *arg, const char *sentence),
                             void *arg, struct err *err);

#endif
