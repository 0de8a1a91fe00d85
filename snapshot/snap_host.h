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

#endif
