/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process's one VM and everything that may be asked of it.
 *
 * The control thread owns the VM.  Long work (a snapshot, a migration) runs on
 * a worker to which the control thread lends the VM; until it comes back, every
 * action that would change the VM is refused by name, and reading goes on.
 */
#ifndef TOOLS_CHVMM_VMM_H
#define TOOLS_CHVMM_VMM_H

#include <stdatomic.h>

#include "core/config/vm_config.h"
#include "core/loop.h"
#include "core/rate_limit.h"
#include "core/vm.h"
#include "core/vm_ground.h"
#include "snapshot/snap_identity.h"

struct event_monitor;
struct job;
struct json_object;
struct migration;
struct vmm;
struct snap_track;
struct snapshot_status;

/* What the VM is lent for. */
enum vmm_busy {
    VMM_IDLE,
    VMM_SNAPSHOT,
    VMM_RESTORE,
    VMM_SEND,
    VMM_RECEIVE,
    VMM_UNDECIDED, /* to nobody: the destination of its migration may have it */
};

enum {
    VMM_WAITERS_MAX = 32,  /* half of what the API has connections */
    GUEST_SAYS_BURST = 64, /* reports of a guest that reboots and reboots */
    GUEST_SAYS_PER_S = 1,
};

/* Who is told when a migration is over. */
struct vmm_waiter {
    void (*fn)(struct vmm *vmm, void *arg);
    void *arg;
};

struct vmm {
    struct loop *loop;            /* the control thread's */
    struct event_monitor *events; /* NULL: none */
    bool no_shutdown;             /* stay when the guest powers off */
    const char *api_socket_path;  /* borrowed; NULL: none */
    bool is_landlocked;           /* for ever */

    struct vm_config cfg;
    bool has_cfg;
    struct vm_ground *ground; /* of the first machine; NULL: none is begun */
    struct vm *vm;            /* NULL: not built */
    struct snap_track *track; /* of the VM, for its next snapshot; NULL: none */
    bool was_shut_down;       /* built once, then shut down */

    enum vmm_busy busy;
    struct job *job;                            /* NULL unless lent to one */
    struct job *job_before;                     /* has told its end, and may be at work yet; NULL */
    struct migration *last_migration;           /* NULL: none yet */
    struct snapshot_status *last_snapshot;      /* likewise */
    struct vmm_waiter waiters[VMM_WAITERS_MAX]; /* for the end of the migration */
    unsigned nr_waiters;
    struct resolve_memory *resolve;      /* NULL: no migration came here yet */
    struct json_object *past_migrations; /* owned: vmm_progress_keep(); NULL: none yet */

    struct loop_source *announce_timer; /* NULL: never needed yet */
    unsigned announces_left;

    struct rate_limit guest_says; /* reports of what the guest does to itself */
    _Atomic unsigned requests;    /* bits of enum vmm_request, set by any thread */
    struct snap_copies copies;    /* disks of a clone that has done nothing yet: they go with it */
    struct loop_source *leash;    /* leash_take(); NULL: it was used, or nobody has plans for it */
    int leash_fd;
    atomic_bool ending; /* vmm_quit() was called */
    int exit_code;
};

/* What the guest, or a vCPU that cannot go on, asked for. */
enum vmm_request {
    VMM_REQUEST_RESET = 1 << 0,
    VMM_REQUEST_SHUTDOWN = 1 << 1,
    VMM_REQUEST_TRIPLE_FAULT = 1 << 2,
    VMM_REQUEST_VCPU_ERROR = 1 << 3,
};

/**
 * vmm_state() - the VM's state, also where it is not built.
 *
 * Threads: control.
 */
enum vm_state vmm_state(const struct vmm *vmm);

/**
 * vmm_check() - whether an action is allowed now.
 *
 * Return: 0; -EBUSY while the VM is lent to a job; as vm_life_check().
 * Threads: control.
 */
CHECKED int vmm_check(const struct vmm *vmm, enum vm_action action, struct err *err);

/**
 * vmm_create() - take a configuration.
 * @cfg: complete; taken on success.
 *
 * Return: 0; as vmm_check().
 * Threads: control.
 */
CHECKED int vmm_create(struct vmm *vmm, struct vm_config *cfg, struct err *err);

/**
 * vmm_delete() - stop the VM and forget its configuration.
 *
 * Return: 0, also without a VM; -EBUSY.
 * Threads: control.
 */
CHECKED int vmm_delete(struct vmm *vmm, struct err *err);

/* vm.boot, vm.pause, ...: Return 0, or a negative errno with the cause.  Threads: control. */
CHECKED int vmm_boot(struct vmm *vmm, struct err *err);
CHECKED int vmm_pause(struct vmm *vmm, struct err *err);
CHECKED int vmm_resume(struct vmm *vmm, struct err *err);
CHECKED int vmm_shutdown(struct vmm *vmm, struct err *err);
CHECKED int vmm_reboot(struct vmm *vmm, struct err *err);
CHECKED int vmm_power_button(struct vmm *vmm, struct err *err);
CHECKED int vmm_nmi(struct vmm *vmm, struct err *err);

/**
 * vmm_use() - the VM runs, is saved or moves: it no longer goes as if it had not been there.
 *
 * Threads: control.
 */
void vmm_use(struct vmm *vmm);

/**
 * vmm_build() - build the machine of vmm->cfg without starting it.
 * @from: another host or a snapshot; NULL: the guest begins here.
 *
 * Return: 0 and vmm->vm is there; -ECANCELED once the process ends; as vm_new().
 * Threads: control, or the job that the VM is lent to.
 */
CHECKED int vmm_build(struct vmm *vmm, const struct vm_origin *from, struct err *err);

/**
 * vmm_event() - report an event of source "vm".
 *
 * Threads: any.
 */
void vmm_event(struct vmm *vmm, const char *event);

/**
 * vmm_event_with() - the same, with one property.
 *
 * Threads: any.
 */
void vmm_event_with(struct vmm *vmm, const char *event, const char *key, const char *value);

/**
 * vmm_announce() - tell the network that the VM is here, and again while switches learn.
 *
 * Threads: control.
 */
void vmm_announce(struct vmm *vmm);

/**
 * vmm_quit() - end the process after the current callback.
 *
 * Threads: any.
 */
void vmm_quit(struct vmm *vmm, int exit_code);

/**
 * vmm_handle_requests() - do what the guest asked for, now that the VM is ours again.
 *
 * Threads: control.
 */
void vmm_handle_requests(struct vmm *vmm);

/**
 * vmm_release() - free the VM and the configuration.
 *
 * Threads: control, after the loop.
 */
void vmm_release(struct vmm *vmm);

#endif
