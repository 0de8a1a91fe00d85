/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots and restores of the process's VM, as jobs.
 */
#ifndef TOOLS_CHVMM_SNAPSHOT_H
#define TOOLS_CHVMM_SNAPSHOT_H

#include "core/config/action_config.h"
#include "tools/chvmm/vmm.h"

/* The end of a job, on the control thread; @what is a sentence about what was wanted. */
typedef void vmm_done_fn(void *arg, int rc, const struct err *err, const char *what);

/**
 * vmm_start_snapshot() - take a snapshot; vmm_check() has allowed it.
 * @cfg:  borrowed for the call.
 * @done: called once at the end, unless this fails; NULL: nobody waits.
 *
 * Return: 0; -ENOMEM; the kernel's errno.
 * Threads: control.
 */
CHECKED int vmm_start_snapshot(struct vmm *vmm, const struct snapshot_config *cfg,
                               vmm_done_fn *done, void *arg, struct err *err);

/**
 * vmm_snapshot_json() - how far the snapshot is that is being taken, or what came of the last.
 *
 * Return: owned by the caller (docs/api.md, vm.snapshot-progress).
 * Threads: control.
 */
struct json_object *vmm_snapshot_json(struct vmm *vmm);

/**
 * vmm_cancel_snapshot() - give up the snapshot that is being taken; the VM goes on.
 *
 * Return: 0; -ENOENT if there is none.
 * Threads: control.
 */
CHECKED int vmm_cancel_snapshot(struct vmm *vmm, struct err *err);

/**
 * vmm_start_restore() - bring a VM back; vmm_check() has allowed it.
 *
 * Where nobody waits, a failure ends the process.
 *
 * Return: as vmm_start_snapshot().
 * Threads: control.
 */
CHECKED int vmm_start_restore(struct vmm *vmm, struct restore_config *cfg, vmm_done_fn *done,
                              void *arg, struct err *err);

#endif
