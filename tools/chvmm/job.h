/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Long work on a worker thread, to which the control thread lends the VM.
 */
#ifndef TOOLS_CHVMM_JOB_H
#define TOOLS_CHVMM_JOB_H

#include "tools/chvmm/vmm.h"

struct job;

struct job_ops {
    /* On the worker. */
    CHECKED int (*run)(void *arg, struct err *err);
    /* Ask run() to end early; from the control thread while run() goes on.  Return: 0; -EBUSY. */
    int (*cancel)(void *arg);
    /* Back on the control thread, the VM is its own again; frees @arg. */
    void (*done)(struct vmm *vmm, void *arg, int rc, const struct err *err);
};

/**
 * job_start() - lend the VM and start.
 * @what: what for; vmm->busy until the job is done.
 * @name: of the thread, at most 15 characters.
 * @arg:  taken on success: done() frees it.
 *
 * Return: 0; -EBUSY with a job already; -ENOMEM; the kernel's errno.
 * Threads: control.
 */
CHECKED int job_start(struct vmm *vmm, enum vmm_busy what, const char *name,
                      const struct job_ops *ops, void *arg, struct err *err);

/**
 * job_defer() - what need not be waited for: done on the worker after the job's end was told.
 * @fn:  knows nothing of the VM, which is no longer lent; called once.
 * @arg: taken.
 *
 * A job that is started meanwhile begins when that is done.
 * Threads: the worker, once in run().
 */
void job_defer(struct vmm *vmm, void (*fn)(void *arg), void *arg);

/**
 * job_cancel() - cancel the running job.
 *
 * Return: 0; -ENOENT without a job; -EBUSY past the point of no return.
 * Threads: control.
 */
CHECKED int job_cancel(struct vmm *vmm, struct err *err);

/**
 * job_arg() - what the running job was started with.
 *
 * Return: borrowed; NULL without a job.
 * Threads: control.
 */
void *job_arg(const struct vmm *vmm);

/**
 * job_finish() - cancel the running job, if there is one, and wait for its end, and for what was deferred.
 *
 * Threads: control, after its loop.
 */
void job_finish(struct vmm *vmm);

#endif
