/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a machine, for core/vm*.c.
 *
 * Locks of the machine and its devices, in order of precedence: never take an
 * earlier one while holding a later one.
 *
 *  1. dev->lock          a device's state; one at a time, except that the PCI
 *                        root takes the lock of the device whose registers it
 *                        forwards to, and any device may raise an interrupt,
 *                        which takes the IOAPIC's
 *  2. the PCI bus's      who is in which slot, where BARs are decoded
 *  3. bus->lock          the table of windows; never held while a handler runs
 *  4. dirty->lock        the epochs' bitmaps
 *  5. loop->lock, vcpu->lock, those of events, of the API's server and of a
 *     disk's threads: leaves
 *
 * No lock is held across KVM_RUN or blocking I/O.
 */
#ifndef CORE_VM_INTERNAL_H
#define CORE_VM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/kvm.h"
#include "core/loop.h"
#include "core/vm.h"
#include "core/vm_ground.h"

struct vm {
    const struct vm_config *cfg; /* borrowed */
    const struct vm_board_ops *board_ops;
    void *board;
    struct vm_hooks hooks;

    struct kvm *kvm;
    struct gmem *gm;
    struct vm_ground *ground; /* NULL: it is all there */
    struct dirty *dirty;
    struct bus *pio;
    struct bus *mmio;
    struct cpu_model *model;

    struct vcpu **vcpus;
    unsigned nr_vcpus;
    struct x86_vcpu_state *power_on; /* of every vCPU, for reset */

    struct loop *io_loop;
    pthread_t io_thread;
    bool io_started;

    struct dev_env env;
    struct device *devices[VM_DEVICES_MAX];
    unsigned nr_devices;

    _Atomic enum vm_state state;
    bool acquired;
    bool was_running;  /* stopped by vm_pause(); what a load says: shall run */
    _Atomic bool park; /* the guest asked for a reset or to power off */

    /* Guest time: ns of CLOCK_MONOTONIC at its zero while running; else the time itself. */
    _Atomic uint64_t time_ns;
    _Atomic bool time_runs;
    struct kvm_clock_sample clock; /* taken at the last pause, here or at the source */
    uint64_t *tsc;                 /* of each vCPU at the same moment */
    bool loaded;                   /* the two above are from vm_load() */
};

/**
 * vm_build_memory() - RAM as the configuration asks, around the hole below 4 GiB.
 *
 * Return: 0 and *@ret_gm, owned; as gmem_add_region().
 * Threads: any.
 */
CHECKED int vm_build_memory(const struct vm_config *cfg, struct gmem **ret_gm, struct err *err);

/**
 * vm_ground_take() - wait until the ground is there, and have it.
 * @ground: NULL, or one that was begun for something else, is replaced by another.
 * @cfg: as for vm_ground_begin(), in case it was not known then.
 *
 * Until vm_ground_end() KVM does not know all of the memory yet.
 *
 * Return: 0 and *@ret_kvm, *@ret_gm, owned, to be freed after vm_ground_end(); as kvm_open(),
 * vm_build_memory().
 * Threads: control, while building.
 */
CHECKED int vm_ground_take(struct vm_ground **ground, const struct vm_config *cfg,
                           struct kvm **ret_kvm, struct gmem **ret_gm, struct err *err);

/**
 * vm_ground_end() - wait for the thread that makes the ground; once more is the same.
 *
 * Return: 0; what went wrong in it.
 * Threads: as vm_settle().
 */
CHECKED int vm_ground_end(struct vm_ground *ground, struct err *err);

/**
 * vm_settle() - all of the machine's memory is KVM's from here on.
 *
 * Return: 0, also when it was before; as vm_ground_end().
 * Threads: control, or the worker that control gave the VM to, before the first vCPU runs.
 */
CHECKED int vm_settle(struct vm *vm, struct err *err);

/**
 * vm_load_payload() - tables, kernel, initramfs, and the boot vCPU's registers.
 * @fresh: RAM was never written.
 *
 * Return: 0; the loader's errors.
 * Threads: control, with the vCPUs parked.
 */
CHECKED int vm_load_payload(struct vm *vm, bool fresh, struct err *err);

/**
 * vm_time_ns() - guest time.
 *
 * Threads: any.
 */
uint64_t vm_time_ns(const struct vm *vm);

/**
 * vm_time_start(), vm_time_stop() - let guest time run, hold it.
 *
 * Threads: control or worker.
 */
void vm_time_start(struct vm *vm);
void vm_time_stop(struct vm *vm);

/**
 * vm_quiesce_devices() - stop every device; on failure they all run on.
 *
 * Return: 0; -ETIMEDOUT names the device.
 * Threads: control or worker, with the vCPUs parked.
 */
CHECKED int vm_quiesce_devices(struct vm *vm, struct err *err);

/**
 * vm_set_up_cpus() - decide the CPU model, give it to every vCPU, and note with which registers
 * each is powered on (core/vm_cpu.c).
 * @from: another host, or NULL.
 *
 * Return: 0; -ENOTSUP names every feature that this host lacks; the kernel's errno.
 * Threads: control, while building.
 */
CHECKED int vm_set_up_cpus(struct vm *vm, const struct vm_origin *from, struct err *err);

/**
 * vm_reset_cpus() - power-on registers for every vCPU.
 *
 * Return: 0; the kernel's errno.
 * Threads: control, with the vCPUs parked.
 */
CHECKED int vm_reset_cpus(struct vm *vm, struct err *err);

/**
 * vm_free_cpus() - free what vm_set_up_cpus() allocated.
 *
 * Threads: control.
 */
void vm_free_cpus(struct vm *vm);

#endif
