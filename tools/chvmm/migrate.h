/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving the process's VM away, and taking one in, as jobs.
 */
#ifndef TOOLS_CHVMM_MIGRATE_H
#define TOOLS_CHVMM_MIGRATE_H

#include "core/config/action_config.h"
#include "tools/chvmm/snapshot.h"
#include "tools/chvmm/vmm.h"

/**
 * vmm_start_send() - move the VM away; vmm_check() has allowed it.
 * @cfg:  borrowed for the call.
 * @done: called once the move has begun, as Cloud Hypervisor answers, from the
 *        job's thread; its outcome is in the events and in vmm_progress_json().
 *        With a failure, on the control thread, where it cannot begin: then there
 *        was no move.
 *
 * Return: 0; -EINVAL for a bad URL or certificate; -ENOTSUP; -ENOMEM; the kernel's
 * errno.
 * Threads: control.
 */
CHECKED int vmm_start_send(struct vmm *vmm, const struct send_migration_config *cfg,
                           vmm_done_fn *done, void *arg, struct err *err);

/**
 * vmm_start_receive() - wait for a VM and take it in; vmm_check() has allowed it.
 * @done: called when the VM runs here, or never will.
 *
 * Return: as vmm_start_send().
 * Threads: control.
 */
CHECKED int vmm_start_receive(struct vmm *vmm, struct receive_migration_config *cfg,
                              vmm_done_fn *done, void *arg, struct err *err);

/**
 * vmm_resolve() - decide an undecided migration, or say what became of one that came here.
 * @cfg: with statement or lost: the former.
 *
 * After a statement that the VM was taken the process ends.
 *
 * Return: 0 and *@ret_answer, owned; -EPERM if nothing is undecided here;
 * -EINVAL, -EACCES for a statement that is not of this migration's destination;
 * -EBUSY if a disk was written since, or a migration is under way; -ENOENT;
 * what hinders the VM from going on.  Nothing has changed then.
 * Threads: control.
 */
CHECKED int vmm_resolve(struct vmm *vmm, const struct resolve_config *cfg,
                        struct json_object **ret_answer, struct err *err);

/**
 * vmm_switch_over() - stop the guest of the move that is going on after this round.
 *
 * Return: 0; -ENOENT if none is.
 * Threads: control.
 */
CHECKED int vmm_switch_over(struct vmm *vmm, struct err *err);

struct mig_progress;

/**
 * vmm_progress() - the progress of the migration that is going on, or of the last one.
 * @ret_url: where a destination waits, or waited; NULL: this end is the source; borrowed likewise.
 *
 * Return: borrowed, until the next migration; NULL if there was none.
 * Threads: control.
 */
struct mig_progress *vmm_progress(const struct vmm *vmm, const char **ret_url);

/**
 * vmm_await_migration() - be told when the migration that is going on is over.
 * @fn: called on the control thread, before the process ends; at once where nothing is going on.
 *
 * Return: 0; -E2BIG with VMM_WAITERS_MAX of them.
 * Threads: control.
 */
CHECKED int vmm_await_migration(struct vmm *vmm, void (*fn)(struct vmm *vmm, void *arg), void *arg,
                                struct err *err);

/**
 * vmm_forget_migration() - free what is kept of the last migration.
 *
 * Threads: control, at the end.
 */
void vmm_forget_migration(struct vmm *vmm);

#endif
