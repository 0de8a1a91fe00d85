/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing a VM back from a store.
 *
 *     snap_open -> snap_describe -> (build the machine: vm_new) -> snap_load -> snap_close
 */
#ifndef SNAPSHOT_SNAP_RESTORE_H
#define SNAPSHOT_SNAP_RESTORE_H

#include "core/vm.h"
#include "snapshot/snap_progress.h"

struct snap;
struct vm_config;

/**
 * snap_open() - open a snapshot.
 * @url: "store:/path#name" or "file:///dir"; without a name, the newest.
 *
 * Return: 0 and *@ret_snap, owned; -EINVAL, -ENOENT, -EBADMSG and others with @err.
 * Threads: any.
 */
CHECKED int snap_open(const char *url, struct snap **ret_snap, struct err *err);

/**
 * snap_close() - close it; the store is let go.
 * @snap: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void snap_close(struct snap *snap);

/**
 * snap_describe() - what is needed to build the machine.
 * @ret_cfg:   owned, to be given to vm_config_release().
 * @ret_model: owned; free().
 *
 * Return: 0; as vm_parse_description().
 * Threads: any.
 */
CHECKED int snap_describe(struct snap *snap, struct vm_config *ret_cfg,
                          struct cpu_model **ret_model, struct err *err);

/**
 * snap_disks() - what the machine's disks were, as JSON (snapshot/snap_disks.h).
 *
 * Return: borrowed from @snap.
 * Threads: any.
 */
const char *snap_disks(const struct snap *snap);

/**
 * snap_load() - memory and state into a machine that was just built: VM_CREATED to VM_PAUSED.
 * @vm: built from snap_describe(); its memory is zero.
 * @p:  zeroed.
 *
 * Every page is verified against its digest before it is delivered.
 *
 * Return: 0; -EBADMSG or -ESTALE for a page that is damaged or lost, named;
 * -EINVAL for another memory layout; as vm_load().  On failure @vm is good only
 * for vm_free().
 * Threads: a worker that the VM was lent to.
 */
CHECKED int snap_load(struct snap *snap, struct vm *vm, struct snap_progress *p, struct err *err);

#endif
