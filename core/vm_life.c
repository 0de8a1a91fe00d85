/* SPDX-License-Identifier: Apache-2.0 */
#include "core/vm_life.h"

#include <errno.h>

enum {
    IN_NONE = 1 << VM_NONE,
    IN_CREATED = 1 << VM_CREATED,
    IN_RUNNING = 1 << VM_RUNNING,
    IN_PAUSED = 1 << VM_PAUSED,
    IN_SHUTDOWN = 1 << VM_SHUTDOWN,
};

static const struct {
    const char *name;
    unsigned allowed;
} actions[VM_ACTION_NR] = {
  /* clang-format off */
    [VM_ACTION_CREATE]            = {"created",        IN_NONE},
    [VM_ACTION_DELETE]            = {"deleted",        IN_NONE | IN_CREATED | IN_RUNNING | IN_PAUSED | IN_SHUTDOWN},
    [VM_ACTION_BOOT]              = {"booted",         IN_CREATED | IN_PAUSED | IN_SHUTDOWN},
    [VM_ACTION_PAUSE]             = {"paused",         IN_RUNNING},
    [VM_ACTION_RESUME]            = {"resumed",        IN_PAUSED},
    [VM_ACTION_SHUTDOWN]          = {"shut down",      IN_RUNNING | IN_PAUSED},
    [VM_ACTION_REBOOT]            = {"rebooted",       IN_RUNNING | IN_PAUSED},
    [VM_ACTION_POWER_BUTTON]      = {"sent a power button press", IN_RUNNING},
    [VM_ACTION_NMI]               = {"sent an NMI",    IN_RUNNING},
    [VM_ACTION_SNAPSHOT]          = {"snapshotted",    IN_RUNNING | IN_PAUSED},
    [VM_ACTION_RESTORE]           = {"restored",       IN_NONE},
    [VM_ACTION_SEND_MIGRATION]    = {"migrated",       IN_RUNNING | IN_PAUSED},
    [VM_ACTION_RECEIVE_MIGRATION] = {"received",       IN_NONE},
  /* clang-format on */
};

const char *vm_state_name(enum vm_state state)
{
    static const char *const names[] = {
        [VM_NONE] = "NotCreated", [VM_CREATED] = "Created",   [VM_RUNNING] = "Running",
        [VM_PAUSED] = "Paused",   [VM_SHUTDOWN] = "Shutdown",
    };

    return names[state];
}

int vm_life_check(enum vm_state state, enum vm_action action, struct err *err)
{
    if (actions[action].allowed & 1U << state)
        return 0;
    if (state == VM_NONE)
        return err_set(err, -ENOENT, "the VM cannot be %s: no VM has been created",
                       actions[action].name);
    if (actions[action].allowed == IN_NONE)
        return err_set(err, -EEXIST, "a VM cannot be %s: there is one already, and it is %s",
                       actions[action].name, vm_state_name(state));
    return err_set(err, -EPERM, "the VM cannot be %s while it is %s", actions[action].name,
                   vm_state_name(state));
}
