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

#include "snapshot/snap_progress.h"
#include "snapshot/snap_sets.h"

/* Disks that were made: their paths, owned. */
struct snap_copies {
    char *paths[VM_CONFIG_DISKS_MAX];
    unsigned nr;
};

/**
 * snap_identity_renew() - turn the configuration of a snapshot into a clone's.
 * @from: the snapshot's.
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
CHECKED int snap_identity_renew(const struct vm_config *from, struct vm_config *cfg,
                                const struct snap_sets *sets, struct snap_problems *why,
                                struct err *err);

/**
 * snap_identity_copy_disks() - make the clone's own copy of each writable disk.
 * @from: the snapshot's configuration.
 * @to:   the clone's, from snap_identity_renew().
 * @recorded: the disks as they were, from snap_disks_describe(); NULL: they may have changed.
 * @p: by which it can be cancelled; NULL: it cannot.
 * @ret:  zeroed; for snap_copies_remove() or snap_copies_release().
 *
 * A copy has its name once it is whole, and only of a disk that did not change meanwhile.  Where there
 * are no files without a name it is PATH.chvmm-copying until then; what was left there is replaced.
 * By reference where the file system can (reflink), else sparsely.  A disk whose
 * path in @to is there already is left as it is: it is the clone's own.  On
 * failure the copies made so far are removed.
 *
 * Return: 0; -ESTALE for a disk that changed; -EBUSY while another copies to there; -ECANCELED; the kernel's errno, with the disk in @err.
 * Threads: a worker: it may take long.
 */
CHECKED int snap_identity_copy_disks(const struct vm_config *from, const struct vm_config *to,
                                     const char *recorded, struct snap_progress *p,
                                     struct snap_copies *ret, struct err *err);

/**
 * snap_copies_remove() - the clone never ran: remove its disks.  Empties the list.
 *
 * Threads: a worker.
 */
void snap_copies_remove(struct snap_copies *copies);

/**
 * snap_copies_release() - keep the disks, free the list.
 *
 * Threads: any.
 */
void snap_copies_release(struct snap_copies *copies);

#endif
