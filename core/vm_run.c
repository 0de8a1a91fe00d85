/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting and stopping a machine.
 */
#include <errno.h>
#include <string.h>

#include "core/vm_internal.h"

/* --- Devices --------------------------------------------------------------- */

static void resume_devices(struct vm *vm, unsigned nr)
{
    while (nr--) {
        struct device *dev = vm->devices[nr];

        if (!dev->ops->resume)
            continue;
        device_lock(dev);
        dev->ops->resume(dev);
        device_unlock(dev);
    }
}

int vm_quiesce_devices(struct vm *vm, struct err *err)
{
    uint64_t deadline = loop_now_ns() + (uint64_t)VM_QUIESCE_MS * 1000000;

    for (unsigned i = 0; i < vm->nr_devices; i++) {
        struct device *dev = vm->devices[i];
        int rc = dev->ops->quiesce ? dev->ops->quiesce(dev, deadline, err) : 0;

        if (rc < 0) {
            resume_devices(vm, i);
            return rc;
        }
    }
    return 0;
}

static void reset_devices(struct vm *vm)
{
    for (unsigned i = 0; i < vm->nr_devices; i++) {
        struct device *dev = vm->devices[i];

        device_lock(dev);
        dev->ops->reset(dev);
        device_unlock(dev);
    }
}

/* --- vCPUs ------------------------------------------------------------------ */

static void park_vcpus(struct vm *vm)
{
    for (unsigned i = 0; i < vm->nr_vcpus; i++)
        vcpu_pause_begin(vm->vcpus[i]);
    for (unsigned i = 0; i < vm->nr_vcpus; i++)
        vcpu_pause_wait(vm->vcpus[i]);
}

static void run_vcpus(struct vm *vm)
{
    atomic_store(&vm->park, false);
    for (unsigned i = 0; i < vm->nr_vcpus; i++)
        vcpu_resume(vm->vcpus[i]);
}

/* --- Life cycle --------------------------------------------------------------- */

/* Everything is in place: let it run. */
static void go(struct vm *vm)
{
    vm_time_start(vm);
    resume_devices(vm, vm->nr_devices);
    atomic_store(&vm->state, VM_RUNNING);
    run_vcpus(vm);
}

int vm_boot(struct vm *vm, struct err *err)
{
    int rc = vm_life_check(vm->state, VM_ACTION_BOOT, err);

    if (rc < 0)
        return rc;
    if (vm->state == VM_PAUSED)
        return vm_resume(vm, err);
    rc = vm_acquire(vm, err);
    if (rc >= 0)
        rc = vm_load_payload(vm, true, err);
    if (rc < 0) {
        vm_release(vm);
        return rc;
    }
    go(vm);
    return 0;
}

int vm_pause(struct vm *vm, struct err *err)
{
    int rc = vm_life_check(vm->state, VM_ACTION_PAUSE, err);

    if (rc < 0)
        return rc;
    park_vcpus(vm);
    rc = kvm_get_clock(vm->kvm, &vm->clock, err);
    if (rc >= 0)
        rc = vm_quiesce_devices(vm, err);
    if (rc < 0) {
        run_vcpus(vm);
        return rc;
    }
    vm_time_stop(vm);
    atomic_store(&vm->state, VM_PAUSED);
    return 0;
}

int vm_resume(struct vm *vm, struct err *err)
{
    int rc = vm_life_check(vm->state, VM_ACTION_RESUME, err);

    if (rc < 0)
        return rc;
    rc = vm_acquire(vm, err);
    if (rc >= 0)
        rc = kvm_set_clock(vm->kvm, vm->clock.clock_ns, err);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < vm->nr_vcpus; i++)
        kvm_vcpu_clock_paused(vcpu_kvm(vm->vcpus[i]));
    go(vm);
    return 0;
}

int vm_reset(struct vm *vm, struct err *err)
{
    int rc = vm_life_check(vm->state, VM_ACTION_REBOOT, err);

    if (rc >= 0 && vm->state == VM_RUNNING)
        rc = vm_pause(vm, err);
    if (rc < 0)
        return rc;
    reset_devices(vm);
    rc = vm_reset_cpus(vm, err);
    if (rc >= 0)
        rc = vm_load_payload(vm, false, err);
    if (rc < 0)
        return rc;
    go(vm);
    return 0;
}

int vm_nmi(struct vm *vm, struct err *err)
{
    int rc = vm_life_check(vm->state, VM_ACTION_NMI, err);

    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++) {
        rc = kvm_vcpu_nmi(vcpu_kvm(vm->vcpus[i]));
        if (rc < 0)
            (void)err_set(err, rc, "vCPU %u: KVM_NMI: %s", i, strerror(-rc));
    }
    return rc;
}

int vm_power_button(struct vm *vm, struct err *err)
{
    int rc = vm_life_check(vm->state, VM_ACTION_POWER_BUTTON, err);

    if (rc >= 0)
        vm->board_ops->power_button(vm->board);
    return rc;
}

int vm_acquire(struct vm *vm, struct err *err)
{
    int rc = vm->acquired ? 0 : vm->board_ops->acquire(vm->board, err);

    if (rc >= 0)
        vm->acquired = true;
    return rc;
}

void vm_release(struct vm *vm)
{
    if (vm->acquired)
        vm->board_ops->release(vm->board);
    vm->acquired = false;
}
