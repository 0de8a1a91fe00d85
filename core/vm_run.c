/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting and stopping a machine.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "core/vm_internal.h"
#include "core/x86/cpu_model.h"

static uint64_t wall_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

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

void vm_nap(struct vm *vm, uint64_t until_ns)
{
    for (unsigned i = 0; i < vm->nr_vcpus; i++)
        vcpu_nap(vm->vcpus[i], until_ns);
}

/* --- Clocks ------------------------------------------------------------------ */

/* kvmclock, wall clock and TSC of one moment. */
static int read_clocks(struct vm *vm, struct kvm_clock_sample *ret_now, struct err *err)
{
    int rc = kvm_get_clock(vm->kvm, ret_now, err);

    if (rc < 0)
        return rc;
    if (!ret_now->realtime_ns)
        ret_now->realtime_ns = wall_ns();
    if (!ret_now->host_tsc)
        ret_now->host_tsc = __rdtsc();
    return 0;
}

/* Note the moment of the pause in every clock that the guest has. */
static int note_clocks(struct vm *vm, struct err *err)
{
    int rc = read_clocks(vm, &vm->clock, err);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < vm->nr_vcpus; i++)
        vm->tsc[i] = kvm_vcpu_tsc_at(vcpu_kvm(vm->vcpus[i]), vm->clock.host_tsc);
    vm->loaded = false;
    return 0;
}

/* How long the guest was away, as far as it shall notice on this host. */
static uint64_t away_ns(const struct vm *vm, enum vm_clock clock)
{
    uint64_t now = wall_ns(), then = vm->clock.realtime_ns;

    if (clock == VM_CLOCK_CONTINUE || !then || now < then)
        return 0;
    return now - then <= UINT64_C(1000000000) * VM_ADVANCE_MAX_S ? now - then : 0;
}

/*
 * kvmclock and TSC must have gone on by the same time, or the guest's clocksource watchdog finds
 * them apart: kvmclock is set, read back with the host's TSC of that moment, and the processors'
 * TSCs follow what it shows.
 */
static int set_kvm_clocks(struct vm *vm, uint64_t away, struct err *err)
{
    struct kvm_clock_sample now;
    uint64_t cycles;
    int rc;

    rc = kvm_set_clock(vm->kvm, vm->clock.clock_ns + away, err);
    if (rc >= 0)
        rc = read_clocks(vm, &now, err);
    if (rc < 0)
        return rc;
    if (now.clock_ns < vm->clock.clock_ns)
        now.clock_ns = vm->clock.clock_ns;
    cycles =
        (uint64_t)((__uint128_t)(now.clock_ns - vm->clock.clock_ns) * vm->model->tsc_khz / 1000000);
    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++)
        rc = kvm_vcpu_set_tsc_at(vcpu_kvm(vm->vcpus[i]), vm->tsc[i] + cycles, now.host_tsc, err);
    return rc;
}

static int set_clocks(struct vm *vm, enum vm_clock clock, struct err *err)
{
    uint64_t away = away_ns(vm, clock);
    int rc = 0;

    /* On the host where it was paused, the processors' clocks have gone on by themselves. */
    if (vm->loaded || clock != VM_CLOCK_ADVANCE)
        rc = set_kvm_clocks(vm, away, err);
    /* Not before: who fails may be asked again. */
    if (rc >= 0)
        atomic_store(&vm->time_ns, atomic_load(&vm->time_ns) + away);
    return rc;
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
        return vm_resume(vm, VM_CLOCK_CONTINUE, err);
    rc = vm_acquire(vm, err);
    if (rc >= 0)
        rc = vm_load_payload(vm, true, err);
    if (rc >= 0)
        rc = vm_settle(vm, err);
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
    rc = note_clocks(vm, err);
    if (rc >= 0)
        rc = vm_quiesce_devices(vm, err);
    if (rc < 0) {
        run_vcpus(vm);
        return rc;
    }
    vm_time_stop(vm);
    vm->was_running = true;
    atomic_store(&vm->state, VM_PAUSED);
    return 0;
}

int vm_resume(struct vm *vm, enum vm_clock clock, struct err *err)
{
    int rc = vm_life_check(vm->state, VM_ACTION_RESUME, err);

    if (rc < 0)
        return rc;
    rc = vm_acquire(vm, err);
    if (rc >= 0)
        rc = set_clocks(vm, clock, err);
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

    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++)
        vcpu_nmi(vm->vcpus[i]);
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
