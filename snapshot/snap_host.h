/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether this host has what a machine needs, before anything is built.
 */
#ifndef SNAPSHOT_SNAP_HOST_H
#define SNAPSHOT_SNAP_HOST_H

#include "snapshot/snap_sets.h"

/**
 * snap_host_check() - find what this host cannot offer.
 * @cfg:    complete.
 * @copied: clone: writable disks that are not there will be made.
 * @why:    gets a sentence for each: disks, files of memory zones, huge pages, directories of
 *          files and sockets, /dev/net/tun, the source of random numbers.
 *
 * What is free now may be taken a moment later: building the machine looks again.
 *
 * Threads: any.
 */
void snap_host_check(const struct vm_config *cfg, bool copied, struct snap_problems *why);

/**
 * snap_host_check_locks() - find the disks that the machine could not have if it ran now.
 * @cfg: complete; of none of its disks this process has the lock.
 * @why: gets a sentence for each disk that is locked.
 *
 * Looks, and takes no lock: a machine gets its disks when it runs on.
 *
 * Threads: any.
 */
void snap_host_check_locks(const struct vm_config *cfg, struct snap_problems *why);

#endif
