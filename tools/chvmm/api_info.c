/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/api_info.h"

#include <json-c/json.h>

#include "core/gmem.h"
#include "devices/board.h"

enum {
    COUNTERS_MAX = 64, /* of one device */
};

static void put(struct json_object *obj, const char *key, struct json_object *value)
{
    (void)json_object_object_add(obj, key, value);
}

/* A pty has a name only once it is open. */
static void put_pty(struct json_object *config, struct vm *vm, const char *key, const char *id)
{
    const char *path = board_pty_path(vm_board(vm), id);
    struct json_object *console = NULL;

    if (path && json_object_object_get_ex(config, key, &console))
        put(console, "file", json_object_new_string(path));
}

/* The machine is a job's to take apart while it is being received or restored. */
static bool is_being_made(const struct vmm *vmm)
{
    return vmm->busy == VMM_RECEIVE || vmm->busy == VMM_RESTORE;
}

struct json_object *api_info_vm(struct vmm *vmm)
{
    /* "Paused" and "Running" promise that the VM takes the actions of these states. */
    const enum vm_state state = is_being_made(vmm) ? VM_CREATED : vmm_state(vmm);
    struct json_object *o, *config = NULL;

    if (vm_config_to_json(&vmm->cfg, &config) < 0)
        return NULL;
    o = json_object_new_object();
    put(o, "config", config);
    put(o, "state", json_object_new_string(vm_state_name(state)));
    if (!vmm->vm || is_being_made(vmm)) {
        put(o, "memory_actual_size", json_object_new_uint64(vmm->cfg.memory.size));
        return o;
    }
    put_pty(config, vmm->vm, "serial", VM_ID_SERIAL);
    put_pty(config, vmm->vm, "console", VM_ID_CONSOLE);
    put_pty(config, vmm->vm, "debug_console", VM_ID_DEBUG_CONSOLE);
    put(o, "memory_actual_size", json_object_new_uint64(gmem_size(vm_gmem(vmm->vm))));
    put(o, "device_tree", board_ops.device_tree(vm_board(vmm->vm)));
    return o;
}

static struct json_object *device_counters(struct device *dev)
{
    struct device_counter counters[COUNTERS_MAX];
    struct json_object *o = json_object_new_object();
    unsigned n;

    device_lock(dev);
    n = dev->ops->counters ? dev->ops->counters(dev, counters, COUNTERS_MAX) : 0;
    put(o, "guest_errors", json_object_new_uint64(dev->guest_errors));
    device_unlock(dev);
    for (unsigned i = 0; i < n; i++)
        put(o, counters[i].name, json_object_new_uint64(counters[i].value));
    return o;
}

struct json_object *api_info_counters(struct vmm *vmm)
{
    struct json_object *o = json_object_new_object();

    if (!vmm->vm || is_being_made(vmm))
        return o;
    for (unsigned i = 0; i < vm_nr_devices(vmm->vm); i++) {
        struct device *dev = vm_device(vmm->vm, i);

        if (dev->ops->counters)
            put(o, dev->id, device_counters(dev));
    }
    return o;
}
