/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/migrate.h"

#include <errno.h>
#include <json-c/json.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "core/gmem.h"
#include "core/log.h"
#include "core/x86/cpu_model.h"
#include "migration/mig_dest.h"
#include "migration/mig_source.h"
#include "tools/chvmm/facts.h"
#include "tools/chvmm/job.h"
#include "tools/chvmm/options.h"
#include "tools/chvmm/progress.h"
#include "tools/chvmm/resolve.h"

enum {
    LANES_DEFAULT_MAX = 8,
};

struct migration {
    struct vmm *vmm;
    struct mig_tls *tls;
    struct mig_dial dial;
    struct mig_listener *listener;
    struct mig_url_text listens_at; /* with the port that it got */
    struct mig_source *src;         /* one of these two */
    struct mig_dest *dst;
    vmm_done_fn *done; /* NULL: was called */
    void *done_arg;

    bool has_begun; /* send: nothing refuses it any more */
    bool paused_by_us;
    unsigned throttle;          /* percent, as was told last */
    bool local;                 /* memory is to be handed over */
    struct disk_stamps *stamps; /* when the disks were let go; NULL: not yet */

    /* Receive: what the machine is built from; used on the control thread. */
    struct vm_config cfg;
    struct cpu_model *model;
    bool accept_tsc;
    bool exits; /* the process does, if none comes of it */
    struct net_fds_config *net_fds;
    unsigned nr_net_fds;
    struct facts *facts;      /* NULL: the source has told none */
    struct mig_refusal *why;  /* borrowed while the machine is built */
    struct vm_loader *loader; /* from then until its state is loaded */
    int build_rc;
    struct err *build_err;
};

static void migration_free(struct migration *m)
{
    if (!m)
        return;
    mig_source_free(m->src);
    mig_dest_free(m->dst);
    mig_listener_close(m->listener);
    mig_tls_free(m->tls);
    net_fds_free(m->net_fds, m->nr_net_fds);
    vm_config_close_fds(&m->cfg);
    disk_stamps_free(m->stamps);
    vm_config_release(&m->cfg);
    free(m->model);
    free(m->facts);
    free(m);
}

void vmm_forget_migration(struct vmm *vmm)
{
    migration_free(vmm->last_migration);
    vmm->last_migration = NULL;
}

static int migration_new(struct vmm *vmm, const char *url, const char *tls_dir,
                         enum mig_tls_role role, struct migration **ret_m, struct err *err)
{
    struct migration *m = calloc(1, sizeof(*m));
    int rc;

    if (!m)
        return err_set(err, -ENOMEM, "migration: out of memory");
    m->vmm = vmm;
    rc = mig_url_parse(url, &m->dial.url, err);
    if (rc >= 0 && tls_dir)
        rc = mig_tls_new(tls_dir, role, &m->tls, err);
    if (rc < 0) {
        migration_free(m);
        return rc;
    }
    m->dial.tls = m->tls;
    *ret_m = m;
    return 0;
}

/* --- The source's machine -------------------------------------------------------- */

static int src_describe(void *arg, struct state_buf *config, struct err *err)
{
    const struct migration *m = arg;

    return vm_describe(m->vmm->vm, config, err);
}

static int src_facts(void *arg, char **ret_text, size_t *ret_len, struct err *err)
{
    const struct migration *m = arg;

    return facts_make(m->vmm->vm, ret_text, ret_len, err);
}

/* What the guest wants that is no use to move it with; NULL: nothing. */
static const char *guest_wants(const struct vmm *vmm)
{
    unsigned requests = atomic_load(&vmm->requests);

    if (requests & VMM_REQUEST_VCPU_ERROR)
        return "a vCPU cannot go on";
    return requests ? "the guest reboots or powers off" : NULL;
}

static int src_pause(void *arg, struct err *err)
{
    struct migration *m = arg;
    const char *wants;
    int rc;

    if (vm_state(m->vmm->vm) == VM_PAUSED)
        return 0;
    rc = vm_pause(m->vmm->vm, err);
    if (rc < 0)
        return rc;
    m->paused_by_us = true;
    /* A guest that is about to end is not worth a move, and its wish must not get lost. */
    wants = guest_wants(m->vmm);
    if (!wants)
        return 0;
    /* One that is to be inspected stays as it is: KVM would have it run into an exception. */
    if (!(atomic_load(&m->vmm->requests) & VMM_REQUEST_VCPU_ERROR)) {
        rc = vm_resume(m->vmm->vm, VM_CLOCK_ADVANCE, err);
        m->paused_by_us = rc < 0;
    }
    return err_set(err, -EINTR, "%s", wants);
}

static int src_save(void *arg, const struct state_sink *sink, struct err *err)
{
    const struct migration *m = arg;

    return vm_save_to(m->vmm->vm, sink, err);
}

static int src_release(void *arg, struct err *err)
{
    struct migration *m = arg;

    (void)err;
    /* Before anybody else can write to them. */
    disk_stamps_free(m->stamps);
    m->stamps = disk_stamps_take(vm_config(m->vmm->vm));
    vm_release(m->vmm->vm);
    return 0;
}

static int src_reclaim(void *arg, struct err *err)
{
    const struct migration *m = arg;

    return vm_acquire(m->vmm->vm, err);
}

static int src_resume(void *arg, struct err *err)
{
    struct migration *m = arg;
    int rc = m->paused_by_us ? vm_resume(m->vmm->vm, VM_CLOCK_ADVANCE, err) : 0;

    if (rc >= 0)
        m->paused_by_us = false;
    return rc;
}

static void src_committed(void *arg)
{
    (void)arg; /* the machine is taken apart on the control thread */
}

static void src_nap(void *arg, uint64_t until_ns)
{
    const struct migration *m = arg;

    vm_nap(m->vmm->vm, until_ns);
}

/* On the worker. */
static void src_round(void *arg, uint32_t round, unsigned throttle)
{
    struct migration *m = arg;
    char number[16];

    (void)snprintf(number, sizeof(number), "%u", round);
    vmm_event_with(m->vmm, "migration-memory-iteration", "id", number);
    if (throttle == m->throttle)
        return;
    m->throttle = throttle;
    (void)snprintf(number, sizeof(number), "%u", throttle);
    vmm_event_with(m->vmm, "migration-throttled", "percent", number);
}

static void tell_waiters(struct vmm *vmm);

/* --- Afterwards ---------------------------------------------------------------------- */

/* The history that stays lies above what was freed, and would hold the heap up there. */
static void give_memory_back(void)
{
    (void)malloc_trim(0);
}

/* --- Sending ---------------------------------------------------------------------- */

static int run_send(void *arg, struct err *err)
{
    struct migration *m = arg;
    struct mig_refusal *why = calloc(1, sizeof(*why));
    /* Here: to ask for a name may take long. */
    int rc = mig_dial_check(&m->dial, err);

    if (rc < 0) {
        free(why);
        return rc;
    }
    if (m->done)
        m->done(m->done_arg, 0, NULL, NULL);
    m->done = NULL;
    m->has_begun = true;
    vmm_event(m->vmm, "migration-started"); /* before any other that is its own */
    rc = mig_source_run(m->src, why, err);
    for (unsigned i = 0; why && i < why->nr; i++)
        log_error("migration: refused: %s", why->reasons[i]);
    free(why);
    return rc;
}

static int cancel_send(void *arg)
{
    const struct migration *m = arg;

    return mig_source_cancel(m->src, guest_wants(m->vmm));
}

static void log_blackout(struct mig_progress *p)
{
    struct mig_status s;

    mig_progress_read(p, &s);
    log_info("migration %s after %llu ms, blackout %llu us (pause %llu, harvest %llu, save %llu, "
             "send %llu, load %llu, commit %llu), %u rounds, %llu pages, %llu zero, %llu ms of "
             "processor time",
             mig_result_name(s.result), (unsigned long long)s.took.total / 1000000,
             (unsigned long long)s.took.blackout / 1000, (unsigned long long)s.took.pause / 1000,
             (unsigned long long)s.took.harvest / 1000, (unsigned long long)s.took.save / 1000,
             (unsigned long long)s.took.send / 1000, (unsigned long long)s.took.load / 1000,
             (unsigned long long)s.took.commit / 1000, s.round, (unsigned long long)s.data_pages,
             (unsigned long long)s.zero_pages, (unsigned long long)s.cpu_ns / 1000000);
}

static bool is_handed_over(const struct migration *m)
{
    struct mig_status s;

    mig_progress_read(mig_source_progress(m->src), &s);
    return s.handed;
}

/* It was refused before anything happened: there was no migration. */
static void send_refused(struct vmm *vmm, struct migration *m, int rc, const struct err *err)
{
    tell_waiters(vmm);
    if (m->done)
        m->done(m->done_arg, rc, err, "The VM could not be migrated");
    migration_free(m);
}

static void send_done(struct vmm *vmm, void *arg, int rc, const struct err *err)
{
    struct migration *m = arg;

    if (!m->has_begun) {
        send_refused(vmm, m, rc, err);
        return;
    }
    vmm_forget_migration(vmm);
    vmm->last_migration = m;
    vmm_progress_keep(vmm);
    tell_waiters(vmm);
    log_blackout(mig_source_progress(m->src));
    if (rc == 0 && m->local && !is_handed_over(m))
        log_info("local: not all of the memory is shared=on, or it was not whole yet: it was "
                 "copied");
    if (rc == 0) {
        vmm_event(vmm, "migration-finished");
        vmm_release(vmm);
        vmm_quit(vmm, 0);
        return;
    }
    give_memory_back();
    log_error("migration: %s", err->msg);
    if (m->throttle)
        vmm_event_with(vmm, "migration-throttled", "percent", "0");
    vmm_event(vmm, "migration-failed");
    if (rc == -EINPROGRESS) {
        vmm->busy = VMM_UNDECIDED;
        log_error("migration: the destination was told to start and has not answered; this VM "
                  "stays paused until somebody runs migration-resolve there, and then here");
    }
}

int vmm_switch_over(struct vmm *vmm, struct err *err)
{
    struct migration *m = vmm->busy == VMM_SEND ? job_arg(vmm) : NULL;

    if (!m)
        return err_set(err, -ENOENT, "no VM is being moved away");
    mig_source_switch_now(m->src);
    return 0;
}

/* What Cloud Hypervisor has and this version has not: said, not ignored. */
static int check_send(const struct send_migration_config *cfg, struct err *err)
{
    if (cfg->preserve_source)
        return err_set(err, -ENOTSUP, "preserve_source: is not supported yet");
    if (cfg->memory_mode == MIGRATION_POSTCOPY)
        return err_set(err, -ENOTSUP, "memory_mode: postcopy is not supported yet");
    return 0;
}

/*
 * As many as there are processors, up to what one link can use; a lane more
 * costs a thread and a handshake, and a lane less leaves a processor idle.
 */
static unsigned default_lanes(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : CPU_COUNT(&set);

    return n < 1 ? 1 : n > LANES_DEFAULT_MAX ? LANES_DEFAULT_MAX : (unsigned)n;
}

int vmm_start_send(struct vmm *vmm, const struct send_migration_config *cfg, vmm_done_fn *done,
                   void *arg, struct err *err)
{
    static const struct mig_source_ops src_ops = {
        .describe = src_describe,
        .facts = src_facts,
        .nap = src_nap,
        .round = src_round,
        .pause = src_pause,
        .save = src_save,
        .release = src_release,
        .reclaim = src_reclaim,
        .resume = src_resume,
        .committed = src_committed,
    };
    static const enum mig_compression compressions[] = {
        [MIGRATION_COMPRESSION_AUTO] = MIG_COMPRESSION_AUTO,
        [MIGRATION_COMPRESSION_OFF] = MIG_COMPRESSION_OFF,
        [MIGRATION_COMPRESSION_ZSTD] = MIG_COMPRESSION_ZSTD,
    };
    static const struct job_ops job = {run_send, cancel_send, send_done};
    struct mig_source_params params = {
        .ops = &src_ops,
        .gm = vm_gmem(vmm->vm),
        .dirty = vm_dirty(vmm->vm),
        .open = mig_open_by_connect,
        .lanes = cfg->connections ? cfg->connections : default_lanes(),
        .compression = compressions[cfg->compression],
        .local = cfg->local,
        .bandwidth = cfg->bandwidth,
        .limits = {.downtime_ns = (uint64_t)cfg->downtime_ms * 1000000,
                   .timeout_ns = (uint64_t)cfg->timeout_s * 1000000000,
                   .strategy = cfg->timeout_strategy == MIGRATION_TIMEOUT_IGNORE
                                   ? MIG_TIMEOUT_IGNORE
                                   : MIG_TIMEOUT_CANCEL},
    };
    struct migration *m = NULL;
    int rc = check_send(cfg, err);

    if (rc >= 0)
        rc = migration_new(vmm, cfg->destination_url, cfg->tls_dir, MIG_TLS_CLIENT, &m, err);
    if (rc < 0)
        return rc;
    m->dial.insecure = cfg->insecure;
    m->local = cfg->local;
    m->done = done;
    m->done_arg = arg;
    params.arg = m;
    params.open_arg = &m->dial;
    rc = mig_source_new(&params, &m->src, err);
    if (rc >= 0)
        rc = job_start(vmm, VMM_SEND, "migration", &job, m, err);
    if (rc < 0) {
        migration_free(m);
        return rc;
    }
    return 0;
}

/* --- The destination's machine ------------------------------------------------------ */

static int dst_facts(void *arg, const char *text, size_t len, struct err *err)
{
    struct migration *m = arg;

    free(m->facts);
    m->facts = NULL;
    return facts_parse(text, len, &m->facts, err);
}

static void refuse(void *arg, const char *reason)
{
    (void)mig_refuse(arg, "%s", reason);
}

/*
 * On the control thread.  All that can be known before a page is sent is a
 * reason of its own; only who has none gets a machine.
 */
static void build(void *arg)
{
    struct migration *m = arg;
    struct vmm *vmm = m->vmm;
    const struct vm_origin from = {.model = m->model, .accept_tsc = m->accept_tsc};

    m->build_rc = vm_check_origin(&m->cfg, &from, m->build_err);
    if (m->build_rc < 0 && m->why->nr)
        (void)mig_refuse(m->why, "%s", m->build_err->msg);
    if (m->build_rc >= 0 && m->why->nr)
        m->build_rc = -ENOTSUP;
    if (m->build_rc < 0)
        return;
    vmm->cfg = m->cfg;
    m->cfg = (struct vm_config){0};
    vmm->has_cfg = true;
    m->build_rc = vmm_build(vmm, &from, m->build_err);
    if (m->build_rc >= 0 && facts_check_state(m->facts, vmm->vm, refuse, m->why))
        m->build_rc = -ENOTSUP;
    if (m->build_rc >= 0)
        m->build_rc = vm_loader_new(vmm->vm, &m->loader, m->build_err);
}

static int dst_build(void *arg, const uint8_t *config, size_t len, struct gmem **ret_gm,
                     struct mig_refusal *why, struct err *err)
{
    struct migration *m = arg;
    int rc = vm_parse_description(&config, &len, &m->cfg, &m->model, err);

    if (rc >= 0 && len)
        rc = err_set(err, -EBADMSG, "the description of the VM goes on after its end");
    if (rc >= 0)
        rc = net_fds_give(m->net_fds, m->nr_net_fds, &m->cfg, err);
    if (rc < 0)
        return rc;
    vmm_event(m->vmm, "migration-receive-started");
    (void)facts_check_host(m->facts, &m->cfg, refuse, why);
    m->build_err = err;
    m->why = why;
    loop_call(m->vmm->loop, build, m);
    rc = m->build_rc;
    if (rc >= 0)
        *ret_gm = vm_gmem(m->vmm->vm);
    if (rc >= 0)
        gmem_set_thp(*ret_gm, true);
    return rc;
}

static int dst_stage(void *arg, const uint8_t *state, size_t len, bool last, size_t *ret_used,
                     struct err *err)
{
    const struct migration *m = arg;

    return vm_loader_stage(m->loader, state, len, last, ret_used, err);
}

static int dst_load(void *arg, struct err *err)
{
    struct migration *m = arg;
    int rc = vm_loader_apply(m->loader, err);

    vm_loader_free(steal_ptr(m->loader));
    return rc;
}

static int dst_acquire(void *arg, struct err *err)
{
    const struct migration *m = arg;

    return vm_acquire(m->vmm->vm, err);
}

static int dst_start(void *arg, struct err *err)
{
    const struct migration *m = arg;
    int rc;

    /* A VM that was moved while paused stays so. */
    if (!vm_was_running(m->vmm->vm))
        return 0;
    rc = vm_resume(m->vmm->vm, VM_CLOCK_ADVANCE, err);
    if (rc >= 0)
        vm_announce(m->vmm->vm);
    return rc;
}

static void release(void *arg)
{
    struct migration *m = arg;

    vm_loader_free(steal_ptr(m->loader));
    vmm_release(m->vmm);
}

/* Nothing may keep it: the source is about to hear that no machine is here. */
static void dst_discard(void *arg)
{
    const struct migration *m = arg;

    loop_call(m->vmm->loop, release, arg);
}

/* --- Receiving ------------------------------------------------------------------------ */

static int run_receive(void *arg, struct err *err)
{
    const struct migration *m = arg;

    vmm_event_with(m->vmm, "migration-receive-ready", "url", m->listens_at.s);
    return mig_dest_run(m->dst, err);
}

static int cancel_receive(void *arg)
{
    const struct migration *m = arg;

    return mig_dest_cancel(m->dst);
}

/* Unless somebody has ended it already, or a source may have to ask it. */
static void end_after_failure(struct vmm *vmm, const struct err *err)
{
    if (atomic_load(&vmm->ending))
        return;
    if (resolve_may_be_asked(vmm)) {
        log_warn("failure_strategy=exit: this process stays, as a source may be undecided: "
                 "migration-resolve here says what became of the VM");
        return;
    }
    log_error("failure_strategy=exit: this process ends without a VM: %s", err->msg);
    vmm_quit(vmm, CHVMM_EXIT_FAILED);
}

static void receive_done(struct vmm *vmm, void *arg, int rc, const struct err *err)
{
    struct migration *m = arg;

    /* What is kept of this one is how it ended; its address is the next one's. */
    mig_listener_close(steal_ptr(m->listener));
    vm_ground_free(steal_ptr(vmm->ground)); /* no machine took it */
    vmm_forget_migration(vmm);
    vmm->last_migration = m;
    vmm_progress_keep(vmm);
    tell_waiters(vmm);
    give_memory_back();
    if (rc < 0)
        log_error("migration: %s", err->msg);
    else
        log_blackout(mig_dest_progress(m->dst));
    if (mig_dest_secret(m->dst)) {
        resolve_remember(vmm, mig_dest_secret(m->dst),
                         rc < 0 ? MIG_OUTCOME_NEVER : MIG_OUTCOME_TAKEN,
                         mig_dest_may_be_asked(m->dst));
    }
    if (rc < 0)
        vmm_event_with(vmm, "migration-receive-failed", "error", err->msg);
    else
        vmm_event(vmm, "migration-receive-finished");
    if (rc >= 0 && vm_state(vmm->vm) == VM_RUNNING)
        vmm_announce(vmm);
    if (m->done)
        m->done(m->done_arg, rc, err, "The VM could not be received");
    m->done = NULL;
    if (rc < 0 && m->exits)
        end_after_failure(vmm, err);
}

static void tell_memory_ready(void *arg)
{
    vmm_event(arg, "migration-memory-ready");
}

/* What can be made of the machine while nothing of it has come. */
static int make_ready(struct vmm *vmm, uint64_t size, struct err *err)
{
    const struct vm_ground_hint hint = {size, true, tell_memory_ready, vmm};
    int rc = facts_check_size(size, err);

    if (rc < 0)
        return err_prefix(err, rc, "memory_size");
    vm_ground_free(steal_ptr(vmm->ground));
    return vm_ground_begin(NULL, &hint, &vmm->ground, err);
}

int vmm_start_receive(struct vmm *vmm, struct receive_migration_config *cfg, vmm_done_fn *done,
                      void *arg, struct err *err)
{
    static const struct mig_dest_ops dst_ops = {
        .facts = dst_facts,
        .build = dst_build,
        .stage = dst_stage,
        .load = dst_load,
        .acquire = dst_acquire,
        .start = dst_start,
        .discard = dst_discard,
    };
    static const struct job_ops job = {run_receive, cancel_receive, receive_done};
    struct mig_dest_params params = {.ops = &dst_ops, .open = mig_open_by_accept};
    struct migration *m = NULL;
    int rc;

    if (cfg->memory_mode == MIGRATION_POSTCOPY)
        return err_set(err, -ENOTSUP, "memory_mode: postcopy is not supported yet");
    rc = migration_new(vmm, cfg->receiver_url, cfg->tls_dir, MIG_TLS_SERVER, &m, err);
    if (rc < 0)
        return rc;
    m->dial.insecure = cfg->insecure;
    m->accept_tsc = cfg->accept_tsc;
    m->exits = cfg->failure_strategy == MIGRATION_FAILURE_EXIT;
    m->net_fds = steal_ptr(cfg->net_fds);
    m->nr_net_fds = cfg->nr_net_fds;
    cfg->nr_net_fds = 0;
    m->done = done;
    m->done_arg = arg;
    rc = mig_listen(&m->dial, &m->listener, err);
    if (rc >= 0) {
        m->listens_at = mig_listener_url(m->listener);
        params.arg = m;
        params.open_arg = m->listener;
        params.open_fd = mig_listener_fd(m->listener);
        params.tls = m->tls;
        rc = mig_dest_new(&params, &m->dst, err);
    }
    if (rc >= 0 && cfg->memory_size)
        rc = make_ready(vmm, cfg->memory_size, err);
    if (rc >= 0)
        rc = job_start(vmm, VMM_RECEIVE, "migration", &job, m, err);
    if (rc < 0) {
        vm_ground_free(steal_ptr(vmm->ground));
        migration_free(m);
        return rc;
    }
    return 0;
}

/* --- Resolving --------------------------------------------------------------------------- */

/* What the operator knows of the destination: a statement, or that it is gone. */
static int judge_resolve(const struct migration *m, const struct resolve_config *cfg,
                         enum mig_outcome *ret_outcome, struct err *err)
{
    const uint8_t *secret = mig_source_secret(m->src);
    char id[MIG_ID_SIZE];

    if (cfg->statement)
        return mig_statement_check(cfg->statement, secret, ret_outcome, err);
    mig_id(secret, id);
    if (strcmp(cfg->lost, id) != 0)
        return err_set(err, -EINVAL, "lost: '%.64s' is not the migration that is undecided here",
                       cfg->lost);
    *ret_outcome = MIG_OUTCOME_NEVER;
    return disk_stamps_check(m->stamps, err);
}

static int resolve_source(struct vmm *vmm, const struct resolve_config *cfg,
                          struct json_object *ret_answer, struct err *err)
{
    const struct migration *m = vmm->last_migration;
    enum mig_outcome outcome;
    int rc;

    if (vmm->busy != VMM_UNDECIDED)
        return err_set(err, -EPERM, "%s: no migration away from here is undecided",
                       cfg->statement ? "statement" : "lost");
    rc = judge_resolve(m, cfg, &outcome, err);
    if (rc >= 0)
        rc = mig_source_resolve(m->src, outcome, err);
    if (rc < 0)
        return rc;
    vmm->busy = VMM_IDLE;
    log_warn("migration: resolved by %s: %s", cfg->statement ? "a statement" : "an operator",
             outcome == MIG_OUTCOME_TAKEN ? "the VM is the destination's" : "the VM goes on here");
    vmm_event(vmm, outcome == MIG_OUTCOME_TAKEN ? "migration-finished" : "migration-resolved");
    (void)json_object_object_add(ret_answer, "role", json_object_new_string("source"));
    (void)json_object_object_add(ret_answer, "outcome",
                                 json_object_new_string(mig_outcome_name(outcome)));
    (void)json_object_object_add(ret_answer, "state",
                                 json_object_new_string(vm_state_name(vm_state(vmm->vm))));
    if (outcome == MIG_OUTCOME_TAKEN) {
        vmm_release(vmm);
        vmm_quit(vmm, 0);
    } else {
        vmm_handle_requests(vmm);
    }
    return 0;
}

static int resolve_dest(struct vmm *vmm, const struct resolve_config *cfg,
                        struct json_object *ret_answer, struct err *err)
{
    char text[MIG_STATEMENT_SIZE];
    enum mig_outcome outcome;
    int rc;

    if (vmm->busy == VMM_UNDECIDED && !cfg->migration) {
        return err_set(err, -EINVAL,
                       "statement: is missing: run migration-resolve at the "
                       "destination and give here what it answers");
    }
    if (vmm->busy == VMM_RECEIVE && !cfg->migration)
        return err_set(err, -EBUSY, "the migration to here is not over: wait, or cancel it");
    rc = resolve_state(vmm, cfg->migration, &outcome, text, err);
    if (rc < 0)
        return rc;
    (void)json_object_object_add(ret_answer, "role", json_object_new_string("destination"));
    (void)json_object_object_add(ret_answer, "outcome",
                                 json_object_new_string(mig_outcome_name(outcome)));
    (void)json_object_object_add(ret_answer, "statement", json_object_new_string(text));
    return 0;
}

int vmm_resolve(struct vmm *vmm, const struct resolve_config *cfg, struct json_object **ret_answer,
                struct err *err)
{
    struct json_object *o = json_object_new_object();
    int rc = o ? 0 : -ENOMEM;

    if (rc >= 0)
        rc = cfg->statement || cfg->lost ? resolve_source(vmm, cfg, o, err)
                                         : resolve_dest(vmm, cfg, o, err);
    if (rc < 0) {
        json_object_put(o);
        return rc;
    }
    *ret_answer = o;
    return 0;
}

/* --- Waiting for the end ------------------------------------------------------------------ */

int vmm_await_migration(struct vmm *vmm, void (*fn)(struct vmm *vmm, void *arg), void *arg,
                        struct err *err)
{
    if (vmm->busy != VMM_SEND && vmm->busy != VMM_RECEIVE) {
        fn(vmm, arg);
        return 0;
    }
    if (vmm->nr_waiters == VMM_WAITERS_MAX)
        return err_set(err, -E2BIG, "more than %d wait for the end of the migration already",
                       VMM_WAITERS_MAX);
    vmm->waiters[vmm->nr_waiters++] = (struct vmm_waiter){fn, arg};
    return 0;
}

static void tell_waiters(struct vmm *vmm)
{
    while (vmm->nr_waiters) {
        const struct vmm_waiter w = vmm->waiters[--vmm->nr_waiters];

        w.fn(vmm, w.arg);
    }
}

/* --- Progress --------------------------------------------------------------------------- */

struct mig_progress *vmm_progress(const struct vmm *vmm, const char **ret_url)
{
    const struct migration *m =
        vmm->busy == VMM_SEND || vmm->busy == VMM_RECEIVE ? job_arg(vmm) : vmm->last_migration;

    if (!m)
        return NULL;
    *ret_url = m->src ? NULL : m->listens_at.s;
    return m->src ? mig_source_progress(m->src) : mig_dest_progress(m->dst);
}
