/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/event_monitor.h"
#include "core/log.h"
#include "core/vm_ground.h"
#include "snapshot/snap_capture.h"
#include "snapshot/snap_disks.h"
#include "snapshot/snap_host.h"
#include "snapshot/snap_identity.h"
#include "snapshot/snap_restore.h"
#include "snapshot/snap_sizes.h"
#include "store/store_url.h"
#include "tools/chvmm/job.h"
#include "tools/chvmm/json_put.h"
#include "tools/chvmm/options.h"

struct snapshot_job {
    struct vmm *vmm;
    char *url;
    bool resume;
    bool clone;
    bool accept_tsc;
    bool changed_disks;
    char **sets;
    unsigned nr_sets;
    struct net_fds_config *net_fds;
    unsigned nr_net_fds;
    enum snap_mode mode;
    bool track;
    bool prefault;
    enum snap_memory_mode memory_mode;
    struct snap_loaded loaded;
    struct snap_problems why;
    vmm_done_fn *done;
    void *done_arg;
    struct snap_progress progress;
    struct snap_result result;

    /* Restore: what the machine is built from; used by build() on the control thread. */
    struct vm_config cfg;
    struct cpu_model *model;
    struct snap_copies copies; /* of a clone that has not come to life */
    int build_rc;
    struct err *build_err;
};

/* What came of the last snapshot. */
struct snapshot_status {
    struct snap_result result;
    uint64_t pages;
    struct err err; /* code 0: it was taken */
};

static struct snapshot_job *new_job(struct vmm *vmm, const char *url, vmm_done_fn *done, void *arg)
{
    struct snapshot_job *j = calloc(1, sizeof(*j));

    if (!j)
        return NULL;
    j->vmm = vmm;
    j->done = done;
    j->done_arg = arg;
    snap_progress_begin(&j->progress, SNAP_PHASE_OPEN, 0);
    j->url = strdup(url);
    if (!j->url) {
        free(j);
        return NULL;
    }
    return j;
}

static void free_job(struct snapshot_job *j)
{
    net_fds_free(j->net_fds, j->nr_net_fds);
    vm_config_close_fds(&j->cfg);
    vm_config_release(&j->cfg);
    free(j->model);
    snap_copies_release(&j->copies);
    for (unsigned i = 0; i < j->nr_sets; i++)
        free(j->sets[i]);
    free(j->sets);
    free(j->url);
    free(j);
}

static int cancel(void *arg)
{
    struct snapshot_job *j = arg;

    snap_cancel(&j->progress);
    return 0;
}

/* Known before anything begins. */
static int check_url(const char *field, const char *text, struct err *err)
{
    struct store_url url;
    int rc = store_url_parse(text, &url, err);

    return rc < 0 ? err_prefix(err, rc, "%s", field) : 0;
}

/* --- Snapshot --------------------------------------------------------------------- */

static void end_snapshot(void *arg)
{
    snap_capture_end(arg);
}

static int run_snapshot(void *arg, struct err *err)
{
    struct snapshot_job *j = arg;
    const struct snap_capture_cfg cfg = {
        .url = j->url, .mode = j->mode, .keep_track = j->track, .track = &j->vmm->track};
    struct store *st = NULL;
    int rc = snap_capture(j->vmm->vm, &cfg, &j->progress, &j->result, &st, err);

    if (rc < 0)
        return rc;
    job_defer(j->vmm, end_snapshot, st);
    snap_sizes_note(j->url, vm_ground_guess(vm_config(j->vmm->vm)));
    return rc;
}

static void keep_status(struct vmm *vmm, const struct snapshot_job *j, int rc,
                        const struct err *err)
{
    if (!vmm->last_snapshot)
        vmm->last_snapshot = calloc(1, sizeof(*vmm->last_snapshot));
    if (!vmm->last_snapshot)
        return; /* nobody will learn of it */
    *vmm->last_snapshot = (struct snapshot_status){.result = j->result,
                                                   .pages = atomic_load(&j->progress.pages_done)};
    if (rc < 0)
        vmm->last_snapshot->err = *err;
}

static void snapshot_done(struct vmm *vmm, void *arg, int rc, const struct err *err)
{
    struct snapshot_job *j = arg;

    keep_status(vmm, j, rc, err);
    if (rc >= 0) {
        log_info("snapshot %.12s: guest stood still %llu us, %llu bytes stored in %llu ms",
                 j->result.id, (unsigned long long)j->result.pause_ns / 1000,
                 (unsigned long long)j->result.bytes_stored,
                 (unsigned long long)j->result.total_ns / 1000000);
        vmm_event(vmm, "snapshotted");
    } else {
        log_error("snapshot: %s", err->msg);
    }
    if (j->done)
        j->done(j->done_arg, rc, err, "The VM could not be snapshotted");
    free_job(j);
}

int vmm_start_snapshot(struct vmm *vmm, const struct snapshot_config *cfg, vmm_done_fn *done,
                       void *arg, struct err *err)
{
    static const struct job_ops ops = {run_snapshot, cancel, snapshot_done};
    static const enum snap_mode modes[] = {
        [SNAPSHOT_AUTO] = SNAP_MODE_AUTO,
        [SNAPSHOT_MOMENT] = SNAP_MODE_MOMENT,
        [SNAPSHOT_ROUNDS] = SNAP_MODE_ROUNDS,
    };
    struct snapshot_job *j;
    int rc = check_url("destination_url", cfg->destination_url, err);

    if (rc < 0)
        return rc;
    j = new_job(vmm, cfg->destination_url, done, arg);
    if (!j)
        return err_set(err, -ENOMEM, "snapshot: out of memory");
    j->mode = modes[cfg->mode];
    j->track = cfg->track;
    vmm_event(vmm, "snapshotting");
    rc = job_start(vmm, VMM_SNAPSHOT, "snapshot", &ops, j, err);
    if (rc < 0)
        free_job(j);
    return rc;
}

/* --- Progress ---------------------------------------------------------------------- */

static void put_running(struct json_object *o, struct snap_progress *p)
{
    uint64_t done = atomic_load(&p->pages_done), total = atomic_load(&p->pages_total);
    uint64_t elapsed = loop_now_ns() - atomic_load(&p->started_ns);

    json_put_text(o, "phase", snap_phase_name(atomic_load(&p->phase)));
    json_put_text(o, "result", "none");
    json_put_u64(o, "pages_done", done);
    json_put_u64(o, "pages_total", total);
    json_put_u64(o, "elapsed_ns", elapsed);
    json_put_u64(o, "pause_ns", atomic_load(&p->pause_ns));
    json_put_u64(o, "time_left_ns",
                 done && total > done
                     ? (uint64_t)((double)elapsed / (double)done * (double)(total - done))
                     : 0);
}

static void put_ended(struct json_object *o, const struct snapshot_status *s)
{
    json_put_text(o, "phase", "done");
    json_put_text(o, "result",
                  !s->err.code                ? "completed"
                  : s->err.code == -ECANCELED ? "cancelled"
                                              : "failed");
    json_put_u64(o, "pages_done", s->pages);
    if (s->err.code) {
        json_put_text(o, "error", s->err.msg);
        return;
    }
    json_put_text(o, "id", s->result.id);
    json_put_u64(o, "elapsed_ns", s->result.total_ns);
    json_put_u64(o, "pause_ns", s->result.pause_ns);
    json_put_u64(o, "bytes_stored", s->result.bytes_stored);
}

struct json_object *vmm_snapshot_json(struct vmm *vmm)
{
    struct json_object *o = json_object_new_object();

    if (vmm->busy == VMM_SNAPSHOT)
        put_running(o, &((struct snapshot_job *)job_arg(vmm))->progress);
    else if (vmm->last_snapshot)
        put_ended(o, vmm->last_snapshot);
    else
        json_put_text(o, "phase", "idle");
    return o;
}

int vmm_cancel_snapshot(struct vmm *vmm, struct err *err)
{
    if (vmm->busy != VMM_SNAPSHOT)
        return err_set(err, -ENOENT, "no snapshot is being taken");
    return job_cancel(vmm, err);
}

/* --- Restore ---------------------------------------------------------------------- */

/* Disks that are not what the guest knows: refused, or said where that was asked for. */
static int check_disks(struct snapshot_job *j, struct snap *snap, struct err *err)
{
    const struct snap_sets sets = {j->sets, j->nr_sets};
    const struct snap_disks_use use = {&j->cfg, &sets, j->clone};
    struct snap_problems changed = {0};
    int rc = snap_disks_check(snap_disks(snap), &use, &changed, err);

    for (unsigned i = 0; rc >= 0 && i < changed.nr; i++) {
        if (j->changed_disks)
            log_warn("restore: %s", changed.text[i]);
        else
            snap_problem(&j->why, "%s", changed.text[i]);
    }
    return rc;
}

/* Disks that another process has: only said if the guest is to run later, with disks that are no clone's. */
static void check_locks(struct snapshot_job *j)
{
    struct snap_problems locked = {0};

    snap_host_check_locks(&j->cfg, j->resume || j->clone ? &j->why : &locked);
    for (unsigned i = 0; i < locked.nr; i++)
        log_warn("restore: %s: it cannot run on before that ends", locked.text[i]);
}

static bool is_prefaulted(const struct memory_config *m)
{
    bool any = m->prefault;

    for (unsigned i = 0; i < m->nr_zones; i++)
        any |= m->zones[i].prefault;
    return any;
}

/* Memory cannot be there at once and come later; one of the two has to be asked for. */
static void check_mode(struct snapshot_job *j)
{
    if ((j->memory_mode == SNAP_MEMORY_LAZY || j->memory_mode == SNAP_MEMORY_MAPPED) &&
        is_prefaulted(&j->cfg.memory)) {
        snap_problem(&j->why,
                     "memory_restore_mode %s: the machine has prefault=on; set "
                     "memory.prefault=off, or that of its zones, or use copy",
                     snap_memory_mode_name(j->memory_mode));
    }
}

/* The machine as it shall be on this host; everything that is wrong with that at once. */
static int plan(struct snapshot_job *j, struct snap *snap, struct err *err)
{
    const struct snap_sets sets = {j->sets, j->nr_sets};
    struct vm_config original;
    struct err fds = {0};
    int rc = vm_config_copy(&j->cfg, &original);

    if (rc < 0)
        return err_set(err, rc, "out of memory");
    rc = snap_sets_apply(&sets, &j->cfg, &j->why, err);
    if (rc >= 0 && net_fds_give(j->net_fds, j->nr_net_fds, &j->cfg, &fds) < 0)
        snap_problem(&j->why, "%s", fds.msg);
    if (rc >= 0)
        rc = check_disks(j, snap, err);
    if (rc >= 0 && j->clone)
        rc = snap_identity_renew(&original, &j->cfg, &sets, &j->why, err);
    if (rc >= 0) {
        check_mode(j);
        snap_host_check(&j->cfg, j->clone, &j->why);
        check_locks(j);
        for (unsigned i = 0; i < j->why.nr; i++)
            log_error("restore: %s", j->why.text[i]);
        rc = snap_problems_err(&j->why, -EINVAL, err);
    }
    if (rc >= 0 && j->clone) {
        rc =
            snap_identity_copy_disks(&original, &j->cfg, j->changed_disks ? NULL : snap_disks(snap),
                                     &j->progress, &j->copies, err);
    }
    vm_config_release(&original);
    return rc;
}

static void prefault(struct memory_config *m)
{
    m->prefault = true;
    for (unsigned i = 0; i < m->nr_zones; i++)
        m->zones[i].prefault = true;
}

/* On the control thread. */
static void build(void *arg)
{
    struct snapshot_job *j = arg;
    struct vmm *vmm = j->vmm;
    const struct vm_origin from = {.model = j->model, .accept_tsc = j->accept_tsc};

    vmm->cfg = j->cfg;
    j->cfg = (struct vm_config){0};
    vmm->has_cfg = true;
    j->build_rc = vmm_build(vmm, &from, j->build_err);
}

/* All memory is in place; from a thread of the snapshot's. */
static void memory_whole(void *arg, const struct snap_lazy_figures *f)
{
    struct vmm *vmm = arg;

    log_info(
        "memory is whole after %llu ms: %llu faults brought %llu pages, %llu came by the order "
        "of an earlier run, %llu in the background",
        (unsigned long long)f->total_ns / 1000000, (unsigned long long)f->faults,
        (unsigned long long)f->fetched, (unsigned long long)f->ahead,
        (unsigned long long)f->filled);
    vmm_event(vmm, "memory-whole");
}

/*
 * A page cannot be had: the guest cannot go on, nor can a thread that waits for the page be
 * stopped in order.  Ends the process; from a thread of the snapshot's.
 */
static void memory_lost(void *arg, const struct err *why)
{
    struct vmm *vmm = arg;
    const struct event_property reason = {"reason", why->msg};

    log_error("memory of the VM is lost, it is stopped: %s", why->msg);
    if (vmm->events)
        event_monitor_emit(vmm->events, "vm", "memory-lost", &reason, 1);
    _exit(CHVMM_EXIT_FAILED);
}

static int load(struct snapshot_job *j, struct snap *snap, struct err *err)
{
    const struct snap_load_params how = {
        .mode = j->memory_mode, .whole = memory_whole, .lost = memory_lost, .arg = j->vmm};
    int rc = snap_load(snap, j->vmm->vm, &how, &j->progress, &j->loaded, err);

    if (rc >= 0)
        log_info("restore: memory_restore_mode %s%s%s", snap_memory_mode_name(j->loaded.mode),
                 j->loaded.why[0] ? ": " : "", j->loaded.why);
    return rc;
}

/* What look_ahead() is beside. */
struct building {
    struct loop *loop;
    struct loop_call *call;
};

static bool is_built(void *arg)
{
    const struct building *b = arg;

    return loop_call_is_done(b->loop, b->call);
}

/* By the control thread; meanwhile this one reads what the guest will ask for first. */
static int build_beside(struct snapshot_job *j, struct snap *snap, struct err *err)
{
    struct building b = {.loop = j->vmm->loop};
    int rc;

    j->build_err = err;
    rc = loop_call_begin(b.loop, build, j, &b.call);
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    snap_look_ahead(snap, j->memory_mode, is_built, &b);
    loop_call_end(b.loop, b.call);
    return j->build_rc;
}

static int run_restore(void *arg, struct err *err)
{
    struct snapshot_job *j = arg;
    struct vmm *vmm = j->vmm;
    struct snap *snap = NULL;
    uint8_t genid[16];
    int rc = snap_open(j->url, &snap, err);

    if (rc >= 0)
        rc = snap_describe(snap, &j->cfg, &j->model, err);
    if (rc >= 0)
        rc = plan(j, snap, err);
    if (rc >= 0 && j->prefault)
        prefault(&j->cfg.memory);
    /* Whoever wants memory to be there at once does not wait for it later. */
    if (rc >= 0 && j->memory_mode == SNAP_MEMORY_AUTO && is_prefaulted(&j->cfg.memory))
        j->memory_mode = SNAP_MEMORY_COPY;
    if (rc >= 0)
        rc = build_beside(j, snap, err);
    if (rc >= 0)
        rc = load(j, snap, err);
    if (rc >= 0 && getrandom(genid, sizeof(genid), 0) != (ssize_t)sizeof(genid))
        rc = err_set(err, -errno, "generation id: %s", strerror(errno));
    if (rc >= 0)
        rc = vm_set_identity(vmm->vm, genid, err);
    if (rc >= 0 && j->resume)
        rc = vm_resume(vmm->vm, VM_CLOCK_CONTINUE, err);
    if (rc >= 0)
        snap_sizes_note(j->url, vm_ground_guess(vm_config(vmm->vm)));
    snap_close(snap);
    if (rc < 0)
        snap_copies_remove(&j->copies);
    return rc;
}

static void restore_done(struct vmm *vmm, void *arg, int rc, const struct err *err)
{
    static const char title[] = "The VM could not be restored";
    struct snapshot_job *j = arg;
    char problems[SNAP_PROBLEMS_TEXT], what[sizeof(problems) + sizeof(title) + 2];

    snap_problems_text(&j->why, problems);
    (void)snprintf(what, sizeof(what), "%s%s%s", title, problems[0] ? ": " : "", problems);
    if (rc >= 0) {
        log_info("restored in %llu us", (unsigned long long)j->progress.total_ns / 1000);
        if (j->resume) {
            vmm_use(vmm);
        } else {
            vmm->copies = j->copies;
            j->copies = (struct snap_copies){0};
        }
        vmm_event(vmm, "restored");
        if (j->resume)
            vmm_announce(vmm);
    } else {
        log_error("restore: %s", err->msg);
        vmm_release(vmm);
    }
    if (j->done) {
        j->done(j->done_arg, rc, err, what);
    } else if (rc < 0) {
        (void)fprintf(stderr,
                      "Error: chvmm exited with the following chain of errors:\n"
                      "  0: %s\n  1: %s\n",
                      what, err->msg);
        vmm_quit(vmm, 1);
    }
    free_job(j);
}

int vmm_start_restore(struct vmm *vmm, struct restore_config *cfg, vmm_done_fn *done, void *arg,
                      struct err *err)
{
    static const struct job_ops ops = {run_restore, cancel, restore_done};
    static const enum snap_memory_mode modes[] = {
        [MEMORY_RESTORE_AUTO] = SNAP_MEMORY_AUTO,
        [MEMORY_RESTORE_COPY] = SNAP_MEMORY_COPY,
        [MEMORY_RESTORE_ON_DEMAND] = SNAP_MEMORY_LAZY,
        [MEMORY_RESTORE_MAPPED] = SNAP_MEMORY_MAPPED,
    };
    struct snapshot_job *j;
    int rc = check_url("source_url", cfg->source_url, err);

    if (rc < 0)
        return rc;
    j = new_job(vmm, cfg->source_url, done, arg);
    if (!j)
        return err_set(err, -ENOMEM, "restore: out of memory");
    j->resume = cfg->resume;
    j->clone = cfg->clone;
    j->accept_tsc = cfg->accept_tsc;
    j->changed_disks = cfg->changed_disks;
    j->sets = steal_ptr(cfg->sets);
    j->nr_sets = cfg->nr_sets;
    cfg->nr_sets = 0;
    j->net_fds = steal_ptr(cfg->net_fds);
    j->nr_net_fds = cfg->nr_net_fds;
    cfg->nr_net_fds = 0;
    j->prefault = cfg->prefault;
    j->memory_mode = cfg->prefault ? SNAP_MEMORY_COPY : modes[cfg->memory_restore_mode];
    vmm_event(vmm, "restoring");
    rc = job_start(vmm, VMM_RESTORE, "restore", &ops, j, err);
    if (rc < 0)
        free_job(j);
    return rc;
}
