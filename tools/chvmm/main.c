/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chvmm: one virtual machine a process.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "core/event_monitor.h"
#include "core/log.h"
#include "core/std_fds.h"
#include "core/vm_ground.h"
#include "snapshot/snap_sizes.h"
#include "tools/chvmm/api.h"
#include "tools/chvmm/job.h"
#include "tools/chvmm/leash.h"
#include "tools/chvmm/migrate.h"
#include "tools/chvmm/options.h"
#include "tools/chvmm/progress.h"
#include "tools/chvmm/resolve.h"
#include "tools/chvmm/sandbox.h"
#include "tools/chvmm/snapshot.h"
#include "tools/chvmm/vmm.h"

enum {
    HEAP_STEP = 256 << 10,
};

/* The process: its one VM and what surrounds it. */
struct process {
    struct chvmm_options opts;
    struct vmm vmm;
    struct vmm_api *api;
    int signal_fd;
    struct loop_source *signal_src;
};

static int open_log(const struct chvmm_options *opts, struct err *err)
{
    int fd = STDERR_FILENO;

    if (opts->log_file) {
        fd = open(opts->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_set(err, -errno, "--log-file %s: %s", opts->log_file, strerror(errno));
    }
    log_init(fd, opts->log_level);
    return 0;
}

static int open_events(struct process *p, struct err *err)
{
    const struct chvmm_options *o = &p->opts;

    if (!o->event_monitor_path && o->event_monitor_fd < 0)
        return 0;
    return event_monitor_open(o->event_monitor_path, o->event_monitor_fd, &p->vmm.events, err);
}

/* SIGTERM and SIGINT end the VM in order; the loop is told through a descriptor. */
static void on_signal(void *arg, uint32_t events)
{
    struct process *p = arg;
    struct signalfd_siginfo si;

    (void)events;
    if (read(p->signal_fd, &si, sizeof(si)) != (ssize_t)sizeof(si))
        return;
    log_info("signal %u: ending", si.ssi_signo);
    /* What has not come back yet does not: as if the signal had ended the process. */
    vmm_quit(&p->vmm, p->vmm.busy == VMM_RESTORE ? 128 + (int)si.ssi_signo : 0);
}

/* Before there is a thread: one that does not block them would end the process, not in order. */
static void block_signals(sigset_t *ret_set)
{
    (void)sigemptyset(ret_set);
    (void)sigaddset(ret_set, SIGTERM);
    (void)sigaddset(ret_set, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, ret_set, NULL);
}

static int watch_signals(struct process *p, const sigset_t *set, struct err *err)
{
    int rc;

    (void)signal(SIGPIPE, SIG_IGN);
    vcpu_init_signals();
    p->signal_fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (p->signal_fd < 0)
        return err_set(err, -errno, "signalfd: %s", strerror(errno));
    rc = loop_add_fd(p->vmm.loop, p->signal_fd, EPOLLIN, on_signal, p, &p->signal_src);
    return rc < 0 ? err_set(err, rc, "signals: %s", strerror(-rc)) : 0;
}

/* The chain of causes, outermost first, as Cloud Hypervisor prints it. */
static int fail(const struct err *err, int rc)
{
    (void)fprintf(stderr,
                  "Error: chvmm exited with the following chain of errors:\n"
                  "  0: The VM could not be started\n"
                  "  1: %s\n",
                  err->msg[0] ? err->msg : strerror(-rc));
    return CHVMM_EXIT_FAILED;
}

/* From inside the loop: the job builds its machine by a call to the control thread. */
static void start_restore(void *arg)
{
    struct process *p = arg;
    struct err err = {0};
    int rc = vmm_start_restore(&p->vmm, &p->opts.restore, NULL, NULL, &err);

    if (rc >= 0 && p->api)
        rc = vmm_api_start(p->api, &err);
    if (rc >= 0)
        return;
    (void)fail(&err, rc);
    vmm_quit(&p->vmm, CHVMM_EXIT_FAILED);
}

/* What takes the kernel longest goes on while the rest of the process starts. */
static int begin_vm(struct process *p, struct err *err)
{
    const struct restore_config *r = &p->opts.restore;
    struct vm_ground_hint hint = {0};
    int rc;

    if (p->opts.has_vm) {
        rc = vmm_create(&p->vmm, &p->opts.config, err);
        return rc < 0 ? rc : vm_ground_begin(&p->vmm.cfg, NULL, &p->vmm.ground, err);
    }
    if (!p->opts.has_restore)
        return 0;
    if (!r->prefault)
        hint.size = snap_sizes_find(r->source_url);
    return vm_ground_begin(NULL, &hint, &p->vmm.ground, err);
}

static int start_vm(struct process *p, struct err *err)
{
    if (p->opts.has_vm)
        return vmm_boot(&p->vmm, err);
    if (p->opts.has_restore)
        return loop_post(p->vmm.loop, start_restore, p);
    return 0;
}

static int start(struct process *p, struct err *err)
{
    const struct chvmm_options *o = &p->opts;
    int rc = open_log(o, err);
    sigset_t signals;

    (void)umask(077);
    block_signals(&signals);
    if (rc >= 0)
        rc = begin_vm(p, err);
    if (rc >= 0)
        rc = loop_new(&p->vmm.loop);
    if (rc >= 0)
        rc = watch_signals(p, &signals, err);
    if (rc >= 0 && o->end_with_fd >= 0)
        rc = leash_take(&p->vmm, o->end_with_fd, err);
    if (rc >= 0)
        rc = open_events(p, err);
    if (rc < 0)
        return rc;
    if (p->vmm.events)
        event_monitor_emit(p->vmm.events, "vmm", "starting", NULL, 0);
    sandbox_enter(THREAD_CONTROL);
    if (o->api_socket_path || o->api_socket_fd >= 0)
        rc = vmm_api_open(&p->vmm, o->api_socket_path, o->api_socket_fd, &p->api, err);
    if (rc >= 0)
        rc = start_vm(p, err);
    /* Its thread is made beside a guest that runs, or a store that is opened. */
    return rc >= 0 && p->api && !o->has_restore ? vmm_api_start(p->api, err) : rc;
}

static void stop(struct process *p)
{
    job_finish(&p->vmm);
    vmm_api_stop(p->api);
    leash_drop(&p->vmm);
    vmm_release(&p->vmm);
    vmm_forget_migration(&p->vmm);
    free(p->vmm.last_snapshot);
    resolve_forget(&p->vmm);
    vmm_progress_forget(&p->vmm);
    if (p->vmm.events) {
        event_monitor_emit(p->vmm.events, "vmm", "shutdown", NULL, 0);
        event_monitor_close(p->vmm.events);
    }
    loop_remove(p->signal_src);
    loop_free(p->vmm.loop);
    chvmm_options_release(&p->opts);
}

int main(int argc, char **argv)
{
    static const enum sandbox_mode modes[] = {
        [CHVMM_SECCOMP_KILL] = SANDBOX_KILL,
        [CHVMM_SECCOMP_OFF] = SANDBOX_OFF,
        [CHVMM_SECCOMP_LOG] = SANDBOX_LOG,
        [CHVMM_SECCOMP_ERRNO] = SANDBOX_ERRNO,
    };
    struct process p = {.signal_fd = -1};
    struct err err = {0};
    int rc;

    if (std_fds_fill() < 0)
        return CHVMM_EXIT_FAILED;
    /* A heap of a thread grows by a page a call otherwise. */
    (void)mallopt(M_TOP_PAD, HEAP_STEP);
    rc = chvmm_options_parse(argc, argv, stdout, &p.opts, &err);

    if (rc > 0)
        return CHVMM_EXIT_OK;
    if (rc < 0) {
        (void)fprintf(stderr, "chvmm: %s\nTry 'chvmm --help'.\n", err.msg);
        return CHVMM_EXIT_USAGE;
    }
    sandbox_set_mode(modes[p.opts.seccomp]);
    p.vmm.no_shutdown = p.opts.no_shutdown;
    p.vmm.guest_says.burst = GUEST_SAYS_BURST;
    p.vmm.guest_says.per_s = GUEST_SAYS_PER_S;
    p.vmm.api_socket_path = p.opts.api_socket_path;
    rc = start(&p, &err);
    if (rc >= 0)
        rc = loop_run(p.vmm.loop);
    rc = rc < 0 ? fail(&err, rc) : p.vmm.exit_code;
    stop(&p);
    return rc;
}
