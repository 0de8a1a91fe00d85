/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/vmm.h"

#include <errno.h>
#include <stdio.h>
#include <uuid/uuid.h>

#include "core/event_monitor.h"
#include "core/log.h"
#include "devices/board.h"
#include "snapshot/snap_track.h"
#include "tools/chvmm/job.h"
#include "tools/chvmm/landlock.h"
#include "tools/chvmm/leash.h"
#include "tools/chvmm/sandbox.h"

enum {
    ANNOUNCE_TIMES = 5,
    ANNOUNCE_MS = 100,
};

/* --- Events ------------------------------------------------------------------ */

void vmm_event(struct vmm *vmm, const char *event)
{
    log_info("vm: %s", event);
    if (vmm->events)
        event_monitor_emit(vmm->events, "vm", event, NULL, 0);
}

void vmm_event_with(struct vmm *vmm, const char *event, const char *key, const char *value)
{
    const struct event_property property = {key, value};

    log_info("vm: %s %s=%s", event, key, value);
    if (vmm->events)
        event_monitor_emit(vmm->events, "vm", event, &property, 1);
}

static void on_event(void *arg, const char *source, const char *event, const char *id)
{
    const struct vmm *vmm = arg;

    event_monitor_emit_guest(vmm->events, source, event, id);
}

/* --- What the guest asks for -------------------------------------------------- */

static void handle_requests(void *arg)
{
    vmm_handle_requests(arg);
}

static void post_request(struct vmm *vmm, enum vmm_request what)
{
    atomic_fetch_or(&vmm->requests, (unsigned)what);
    if (loop_post(vmm->loop, handle_requests, vmm) < 0)
        log_error("out of memory: the guest's request is carried out with the next one");
}

static void on_request(void *arg, enum machine_request what)
{
    post_request(arg, what == MACHINE_RESET ? VMM_REQUEST_RESET : VMM_REQUEST_SHUTDOWN);
}

static void on_stopped(void *arg, unsigned vcpu, enum vcpu_stop why, const char *what)
{
    struct vmm *vmm = arg;

    if (why != VCPU_STOP_SHUTDOWN || rate_limit_take(&vmm->guest_says))
        log_warn("vCPU %u stopped: %s", vcpu, what);
    post_request(vmm,
                 why == VCPU_STOP_SHUTDOWN ? VMM_REQUEST_TRIPLE_FAULT : VMM_REQUEST_VCPU_ERROR);
}

static void on_thread_start(void *arg, enum thread_role role)
{
    (void)arg;
    sandbox_enter(role);
}

/* A guest that reboots for ever is not told of for ever: @says. */
static int reboot(struct vmm *vmm, bool says, struct err *err)
{
    int rc = vmm_check(vmm, VM_ACTION_REBOOT, err);

    if (rc < 0)
        return rc;
    if (says)
        vmm_event(vmm, "rebooting");
    rc = vm_reset(vmm->vm, err);
    if (rc >= 0 && says)
        vmm_event(vmm, "rebooted");
    return rc;
}

static void guest_shut_down(struct vmm *vmm)
{
    struct err err = {0};

    if (vmm_shutdown(vmm, &err) < 0)
        log_error("shutting down: %s", err.msg);
    if (!vmm->no_shutdown)
        vmm_quit(vmm, 0);
}

/* A guest that ends or begins anew is not worth a move, which may last for hours yet. */
static void give_up_send(struct vmm *vmm)
{
    if (atomic_load(&vmm->requests) && job_cancel(vmm, NULL) >= 0)
        log_warn("migration: given up, as the guest reboots, powers off or cannot go on");
}

void vmm_handle_requests(struct vmm *vmm)
{
    struct err err = {0};
    unsigned what;

    /* The job that has the VM deals with it first; it calls here when it is done. */
    if (vmm->busy == VMM_SEND)
        give_up_send(vmm);
    if (vmm->busy != VMM_IDLE)
        return;
    what = atomic_exchange(&vmm->requests, 0);
    if (!what || !vmm->vm)
        return;
    if (what & VMM_REQUEST_VCPU_ERROR) {
        log_error("a vCPU cannot go on; the VM is paused for inspection");
        if (vm_state(vmm->vm) == VM_RUNNING && vm_pause(vmm->vm, &err) < 0)
            log_error("pausing: %s", err.msg);
        vmm_event(vmm, "panic");
    } else if (what & VMM_REQUEST_SHUTDOWN) {
        guest_shut_down(vmm);
    } else if (reboot(vmm, rate_limit_take(&vmm->guest_says), &err) < 0) {
        log_error("rebooting: %s", err.msg);
        guest_shut_down(vmm);
    }
}

/* --- Actions -------------------------------------------------------------------- */

enum vm_state vmm_state(const struct vmm *vmm)
{
    if (vmm->vm)
        return vm_state(vmm->vm);
    if (!vmm->has_cfg)
        return VM_NONE;
    return vmm->was_shut_down ? VM_SHUTDOWN : VM_CREATED;
}

int vmm_check(const struct vmm *vmm, enum vm_action action, struct err *err)
{
    static const char *const busy[] = {
        [VMM_IDLE] = NULL,
        [VMM_SNAPSHOT] = "a snapshot is being taken",
        [VMM_RESTORE] = "it is being restored",
        [VMM_SEND] = "it is being migrated away",
        [VMM_RECEIVE] = "it is being received",
        [VMM_UNDECIDED] = "its migration is undecided: see migration-resolve",
    };

    if (busy[vmm->busy])
        return err_set(err, -EBUSY, "the VM is busy: %s", busy[vmm->busy]);
    return vm_life_check(vmm_state(vmm), action, err);
}

/* Every VM has a UUID: its snapshots are found by it. */
static int give_uuid(struct vm_config *cfg)
{
    char text[37];
    uuid_t uuid;

    if (cfg->platform.system_uuid)
        return 0;
    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, text);
    return vm_config_set_string(&cfg->platform.system_uuid, text);
}

int vmm_create(struct vmm *vmm, struct vm_config *cfg, struct err *err)
{
    int rc = vmm_check(vmm, VM_ACTION_CREATE, err);

    if (rc < 0)
        return rc;
    rc = give_uuid(cfg);
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    vmm->cfg = *cfg;
    *cfg = (struct vm_config){0};
    vmm->has_cfg = true;
    vmm->was_shut_down = false;
    return 0;
}

static void report_vcpus(struct vmm *vmm)
{
    char id[12];

    for (unsigned i = 0; i < vmm->cfg.cpus.boot_vcpus; i++) {
        (void)snprintf(id, sizeof(id), "%u", i);
        event_monitor_emit_id(vmm->events, "cpu_manager", "create_vcpu", id);
    }
}

int vmm_build(struct vmm *vmm, const struct vm_origin *from, struct err *err)
{
    const struct vm_hooks hooks = {
        .request = on_request,
        .stopped = on_stopped,
        .event = on_event,
        .thread_start = on_thread_start,
        .arg = vmm,
    };

    int rc;

    /* The control thread builds nothing any more, and what a job may do does not suffice. */
    if (atomic_load(&vmm->ending))
        return err_set(err, -ECANCELED, "cancelled: the process ends");
    if (vmm->cfg.landlock_enable && !vmm->is_landlocked) {
        rc = landlock_enter(&vmm->cfg, vmm->api_socket_path, err);
        if (rc < 0)
            return rc;
        vmm->is_landlocked = true;
    }
    atomic_store(&vmm->requests, 0);
    rc = vm_new(&vmm->cfg, from, steal_ptr(vmm->ground), &board_ops, &hooks, &vmm->vm, err);
    if (rc == 0)
        report_vcpus(vmm);
    return rc;
}

static void drop_vm(struct vmm *vmm)
{
    snap_track_free(steal_ptr(vmm->track));
    vm_free(vmm->vm);
    vmm->vm = NULL;
}

void vmm_use(struct vmm *vmm)
{
    snap_copies_release(&vmm->copies);
    leash_drop(vmm);
}

int vmm_boot(struct vmm *vmm, struct err *err)
{
    int rc = vmm_check(vmm, VM_ACTION_BOOT, err);

    if (rc < 0)
        return rc;
    if (vmm_state(vmm) == VM_PAUSED)
        return vmm_resume(vmm, err);
    vmm_event(vmm, "booting");
    vmm_use(vmm);
    rc = vmm_build(vmm, NULL, err);
    if (rc >= 0)
        rc = vm_boot(vmm->vm, err);
    if (rc < 0) {
        drop_vm(vmm);
        return rc;
    }
    vmm_event(vmm, "booted");
    return 0;
}

int vmm_pause(struct vmm *vmm, struct err *err)
{
    int rc = vmm_check(vmm, VM_ACTION_PAUSE, err);

    if (rc < 0)
        return rc;
    vmm_event(vmm, "pausing");
    rc = vm_pause(vmm->vm, err);
    if (rc < 0)
        return rc;
    vm_stay_paused(vmm->vm);
    vmm_event(vmm, "paused");
    return 0;
}

int vmm_resume(struct vmm *vmm, struct err *err)
{
    int rc = vmm_check(vmm, VM_ACTION_RESUME, err);

    if (rc < 0)
        return rc;
    vmm_event(vmm, "resuming");
    rc = vm_resume(vmm->vm, VM_CLOCK_CONTINUE, err);
    if (rc < 0)
        return rc;
    vmm_use(vmm);
    vmm_event(vmm, "resumed");
    return rc;
}

int vmm_shutdown(struct vmm *vmm, struct err *err)
{
    int rc = vmm_check(vmm, VM_ACTION_SHUTDOWN, err);

    if (rc < 0)
        return rc;
    drop_vm(vmm);
    vmm->was_shut_down = true;
    vmm_event(vmm, "shutdown");
    return 0;
}

int vmm_reboot(struct vmm *vmm, struct err *err)
{
    return reboot(vmm, true, err);
}

int vmm_delete(struct vmm *vmm, struct err *err)
{
    if (vmm->busy != VMM_IDLE)
        return vmm_check(vmm, VM_ACTION_DELETE, err);
    if (!vmm->has_cfg)
        return 0;
    vmm_release(vmm);
    vmm_event(vmm, "deleted");
    return 0;
}

int vmm_power_button(struct vmm *vmm, struct err *err)
{
    int rc = vmm_check(vmm, VM_ACTION_POWER_BUTTON, err);

    return rc < 0 ? rc : vm_power_button(vmm->vm, err);
}

int vmm_nmi(struct vmm *vmm, struct err *err)
{
    int rc = vmm_check(vmm, VM_ACTION_NMI, err);

    return rc < 0 ? rc : vm_nmi(vmm->vm, err);
}

/* --- Announcing ------------------------------------------------------------------ */

static void announce(void *arg)
{
    struct vmm *vmm = arg;

    if (!vmm->announces_left || !vmm->vm || vmm->busy != VMM_IDLE)
        return;
    vmm->announces_left--;
    vm_announce(vmm->vm);
    loop_arm_timer(vmm->announce_timer, loop_now_ns() + (uint64_t)ANNOUNCE_MS * 1000000);
}

void vmm_announce(struct vmm *vmm)
{
    if (!vmm->announce_timer &&
        loop_add_timer(vmm->loop, announce, vmm, &vmm->announce_timer) < 0) {
        vm_announce(vmm->vm); /* once is what can be had */
        return;
    }
    vmm->announces_left = ANNOUNCE_TIMES;
    announce(vmm);
}

void vmm_quit(struct vmm *vmm, int exit_code)
{
    vmm->exit_code = exit_code;
    atomic_store(&vmm->ending, true);
    loop_stop(vmm->loop);
}

void vmm_release(struct vmm *vmm)
{
    loop_remove(vmm->announce_timer);
    vmm->announce_timer = NULL;
    drop_vm(vmm);
    snap_copies_remove(&vmm->copies);
    vm_ground_free(steal_ptr(vmm->ground));
    vm_config_close_fds(&vmm->cfg);
    vm_config_release(&vmm->cfg);
    vmm->has_cfg = false;
    vmm->was_shut_down = false;
}
