/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life cycle of a VM: which action is allowed in which state.
 */
#ifndef CORE_VM_LIFE_H
#define CORE_VM_LIFE_H

#include "core/err.h"

enum vm_state {
    VM_NONE, /* no configuration yet */
    VM_CREATED,
    VM_RUNNING,
    VM_PAUSED,
    VM_SHUTDOWN,
};

enum vm_action {
    VM_ACTION_CREATE,
    VM_ACTION_DELETE,
    VM_ACTION_BOOT,
    VM_ACTION_PAUSE,
    VM_ACTION_RESUME,
    VM_ACTION_SHUTDOWN,
    VM_ACTION_REBOOT,
    VM_ACTION_POWER_BUTTON,
    VM_ACTION_NMI,
    VM_ACTION_SNAPSHOT,
    VM_ACTION_RESTORE,
    VM_ACTION_SEND_MIGRATION,
    VM_ACTION_RECEIVE_MIGRATION,
    VM_ACTION_NR,
};

/**
 * vm_state_name() - as the API spells it: "Created", "Running", "Paused", "Shutdown";
 * for VM_NONE, of which the API says nothing, "NotCreated".
 *
 * Return: static.
 * Threads: any.
 */
const char *vm_state_name(enum vm_state state);

/**
 * vm_life_check() - whether an action is allowed in a state.
 *
 * Return: 0; -ENOENT where there is no VM; -EEXIST where there is one already;
 * -EPERM otherwise, with @err naming the action and the state.
 * Threads: any.
 */
CHECKED int vm_life_check(enum vm_state state, enum vm_action action, struct err *err);

#endif
