/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new identity for a clone, decided before its machine is built.
 *
 * A clone gets its own UUID, MAC addresses, interfaces of the host, disks and
 * files; its VM generation id is new in any case.  What cannot be made unique
 * is refused by name, all of it at once, and never shared in silence.
 */
#ifndef SNAPSHOT_SNAP_IDENTITY_H
#define SNAPSHOT_SNAP_IDENTITY_H

#include "snapshot/snap_sets.h"

/**
 * snap_identity_renew() - turn the configuration of a snapshot into a clone's.
 * @cfg:  complete, with @sets applied; changed in place.
 * @sets: what it was told to be stays.
 * @why:  zeroed, or with problems of others; gets every reason why it cannot be done.
 *
 * UUID and MACs are random; the kernel names the taps; files and sockets of
 * serial port and console get ".<first digits of the UUID>" at their end.
 * Writable disks are not copied here: each gets the path that
 * snap_identity_copy_disks() will make.
 *
 * Return: 0, whatever is in @why; -ENOMEM.
 * Threads: any.
 */
CHECKED int snap_identity_renew(struct vm_config *cfg, const struct snap_sets *sets,
                                struct snap_problems *why, struct err *err);

/**
 * snap_identity_copy_disks() - make the clone's own copy of each writable disk.
 * @from: the snapshot's configuration.
 * @to:   the clone's, from snap_identity_renew().
 *
 * By reference where the file system can (reflink), else sparsely.  A disk whose
 * path in @to is there already is left as it is: it is the clone's own.  On
 * failure the copies made so far are removed.
 *
 * Return: 0; the kernel's errno, with the disk in @err.
 * Threads: a worker: it may take long.
 */
CHECKED int snap_identity_copy_disks(const struct vm_config *from, const struct vm_config *to,
                                     struct err *err);

#endif
