/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/job.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "tools/chvmm/sandbox.h"

struct job {
    struct vmm *vmm;
    const struct job_ops *ops;
    void *arg;
    char name[16];
    pthread_t thread;
    bool joined;
    struct job *before;          /* owned: ends before this one begins; NULL */
    void (*deferred)(void *arg); /* NULL: nothing */
    void *deferred_arg;
    atomic_bool over; /* the thread does nothing any more */
    int rc;
    struct err err;
};

static void job_join(struct job *job)
{
    if (!job->joined)
        (void)pthread_join(job->thread, NULL);
    job->joined = true;
}

static void job_free(struct job *job)
{
    if (job)
        job_join(job);
    free(job);
}

/* Tell the end of a job, whose thread may have something to do yet. */
static void finish(struct job *job)
{
    struct vmm *vmm = job->vmm;

    vmm->busy = VMM_IDLE;
    vmm->job = NULL;
    vmm->job_before = job;
    job->ops->done(vmm, job->arg, job->rc, &job->err);
    vmm_handle_requests(vmm);
}

static void on_done(void *arg)
{
    struct vmm *vmm = arg;

    /* Nothing to do if job_finish() was quicker. */
    if (vmm->job)
        finish(vmm->job);
}

static void on_over(void *arg)
{
    struct vmm *vmm = arg;

    /* The next job has waited for it, or it is the next one that is at work. */
    if (vmm->job_before && atomic_load(&vmm->job_before->over))
        job_free(steal_ptr(vmm->job_before));
}

static void *job_main(void *arg)
{
    struct job *job = arg;
    struct vmm *vmm = job->vmm;

    log_thread_name(job->name);
    sandbox_enter(THREAD_WORKER);
    job_free(steal_ptr(job->before));
    job->rc = job->ops->run(job->arg, &job->err);
    if (loop_post(vmm->loop, on_done, vmm) < 0)
        log_error("out of memory: the end of %s is noticed late", job->name);
    if (job->deferred)
        job->deferred(job->deferred_arg);
    atomic_store(&job->over, true);
    (void)!loop_post(vmm->loop, on_over, vmm); /* or the next job finds it */
    return NULL;
}

int job_start(struct vmm *vmm, enum vmm_busy what, const char *name, const struct job_ops *ops,
              void *arg, struct err *err)
{
    struct job *job;
    int rc;

    if (vmm->job)
        return err_set(err, -EBUSY, "the VM is busy");
    job = calloc(1, sizeof(*job));
    if (!job)
        return err_set(err, -ENOMEM, "out of memory");
    job->vmm = vmm;
    job->ops = ops;
    job->arg = arg;
    job->before = steal_ptr(vmm->job_before);
    /* A snapshot or another host will name its disks. */
    if (what != VMM_RESTORE)
        vmm_use(vmm);
    (void)snprintf(job->name, sizeof(job->name), "%s", name);
    vmm->busy = what;
    vmm->job = job;
    rc = -pthread_create(&job->thread, NULL, job_main, job);
    if (rc < 0) {
        vmm->busy = VMM_IDLE;
        vmm->job = NULL;
        vmm->job_before = job->before;
        free(job);
        return err_set(err, rc, "thread for %s: %s", name, strerror(-rc));
    }
    return 0;
}

void job_defer(struct vmm *vmm, void (*fn)(void *arg), void *arg)
{
    vmm->job->deferred = fn;
    vmm->job->deferred_arg = arg;
}

int job_cancel(struct vmm *vmm, struct err *err)
{
    int rc;

    if (!vmm->job)
        return err_set(err, -ENOENT, "there is nothing to cancel");
    rc = vmm->job->ops->cancel(vmm->job->arg);
    if (rc < 0)
        return err_set(err, rc, "it is too late to cancel: the VM has been handed over");
    return 0;
}

void *job_arg(const struct vmm *vmm)
{
    return vmm->job ? vmm->job->arg : NULL;
}

void job_finish(struct vmm *vmm)
{
    struct job *job = vmm->job;

    if (job) {
        (void)job->ops->cancel(job->arg);
        job_join(job);
        finish(job);
    }
    job_free(steal_ptr(vmm->job_before));
}
