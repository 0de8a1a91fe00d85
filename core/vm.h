/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine: memory, processors, buses, devices and time, put together.
 *
 * The machine knows its devices only through core/device.h; which device sits
 * at which address is the board's business (struct vm_board_ops).
 *
 * Order of stop: vCPUs, clock, devices.  Order of start: clock, devices, vCPUs.
 */
#ifndef CORE_VM_H
#define CORE_VM_H

#include "core/device.h"
#include "core/dirty.h"
#include "core/state.h"
#include "core/vcpu.h"
#include "core/vm_life.h"

struct cpu_model;
struct kvm;
struct vm;
struct vm_config;
struct vm_ground;
struct x86_vcpu_state;

enum {
    VM_DEVICES_MAX = 1024,
    VM_ADVANCE_MAX_S = 60, /* longest absence that counts as guest time on another host */
    VM_QUIESCE_MS = 10000, /* longest wait for the devices' I/O in a pause */
};

/* What a thread is for; its sandbox follows from it. */
enum thread_role {
    THREAD_CONTROL,
    THREAD_VCPU,
    THREAD_IO,
    THREAD_WORKER,
    THREAD_API,
    THREAD_ROLE_NR,
};

/* What the machine tells its owner.  Called from any thread; must not block or call back. */
struct vm_hooks {
    void (*request)(void *arg, enum machine_request what);
    void (*stopped)(void *arg, unsigned vcpu, enum vcpu_stop why, const char *what);
    void (*event)(void *arg, const char *source, const char *event, const char *id);
    void (*thread_start)(void *arg, enum thread_role role);
    void *arg;
};

/* The board: which devices there are and where. */
struct vm_board_ops {
    /* Create every device with vm_add_device() and give it its windows. */
    CHECKED int (*build)(struct vm *vm, const struct vm_config *cfg, void **ret_board,
                         struct err *err);
    void (*destroy)(void *board);
    /* Level of an interrupt line. */
    void (*irq_set)(void *board, unsigned pin, bool level);
    void (*eoi)(void *board, uint8_t vector);
    /* Write ACPI and SMBIOS tables into guest memory; *@ret_rsdp_gpa is 0 without ACPI. */
    CHECKED int (*write_tables)(void *board, uint64_t *ret_rsdp_gpa, struct err *err);
    /* Exclusive use of disks and taps: taken before the first run, handed over in a migration. */
    CHECKED int (*acquire)(void *board, struct err *err);
    void (*release)(void *board);
    /* What the guest wrote to its disks until the last pause is on stable storage. */
    CHECKED int (*sync)(void *board, struct err *err);
    /* Everything is in place at a new host: tell the network. */
    void (*announce)(void *board);
    void (*power_button)(void *board);
    /*
     * What tells this machine from the one whose state it loaded: a new VM
     * generation id, and the UUID and MACs of its own configuration.
     */
    CHECKED int (*set_identity)(void *board, const uint8_t genid[16], struct err *err);
    /* Description of the machine's devices for vm.info; owned by the caller. */
    struct json_object *(*device_tree)(void *board);
};

/* A guest that began elsewhere. */
struct vm_origin {
    const struct cpu_model *model; /* what it saw there */
    bool accept_tsc;               /* run it although its TSC goes at another rate here */
};

/**
 * vm_check_origin() - whether this host's processors can go on with a guest from elsewhere.
 *
 * vm_new() asks the same; this asks before anything is built.
 *
 * Return: 0; -ENOTSUP with what is missing; -ENOMEM; the kernel's errno.
 * Threads: control.
 */
CHECKED int vm_check_origin(const struct vm_config *cfg, const struct vm_origin *from,
                            struct err *err);

/**
 * vm_new() - build a machine.
 * @cfg:   complete; borrowed for the life of the machine.
 * @from:  where the guest comes from; NULL: it begins here. Borrowed for the call.
 * @ground: begun for this @cfg, or for none yet; taken, also on failure. NULL: it is begun here.
 * @board: static.
 * @hooks: copied.
 *
 * Nothing runs and no disk is locked yet.
 *
 * Return: 0 and *@ret_vm, owned, in state VM_CREATED; a negative errno that
 * names the device or the option.
 * Threads: control.
 */
CHECKED int vm_new(const struct vm_config *cfg, const struct vm_origin *from,
                   struct vm_ground *ground, const struct vm_board_ops *board,
                   const struct vm_hooks *hooks, struct vm **ret_vm, struct err *err);

/**
 * vm_free() - stop and take apart.
 * @vm: taken, in any state; NULL is allowed.
 *
 * Threads: control.
 */
void vm_free(struct vm *vm);

/**
 * vm_boot() - load the payload and start: VM_CREATED to VM_RUNNING.
 *
 * Return: 0; -EPERM in another state; errors of the payload's files, named.
 * Threads: control.
 */
CHECKED int vm_boot(struct vm *vm, struct err *err);

/**
 * vm_pause() - VM_RUNNING to VM_PAUSED: no vCPU runs, no device touches guest memory.
 *
 * Return: 0; -EPERM in another state; -ETIMEDOUT names the device whose I/O did
 * not end, and the VM runs on.
 * Threads: control, or the worker that control gave the VM to.
 */
CHECKED int vm_pause(struct vm *vm, struct err *err);

/* What a guest notices of the time that it stood still. */
enum vm_clock {
    VM_CLOCK_CONTINUE, /* nothing: its clocks go on from where they stopped */
    VM_CLOCK_ADVANCE,  /* all of it: its clocks keep step with the world */
};

/**
 * vm_resume() - VM_PAUSED to VM_RUNNING.
 * @clock: an operator's pause and a snapshot's restore continue; the blackout of
 *         a migration and the pause for a snapshot advance (at most
 *         VM_ADVANCE_MAX_S on another host, whose clock may be wrong).
 *
 * Return: 0; -EPERM in another state; the kernel's errno.
 * Threads: as vm_pause().
 */
CHECKED int vm_resume(struct vm *vm, enum vm_clock clock, struct err *err);

/**
 * vm_reset() - power-on values everywhere and boot again; VM_RUNNING or VM_PAUSED to VM_RUNNING.
 *
 * Return: as vm_pause() and vm_boot().
 * Threads: control.
 */
CHECKED int vm_reset(struct vm *vm, struct err *err);

/**
 * vm_nap() - keep the vCPUs of a running VM out of the guest until some time; does not wait.
 * @until_ns: CLOCK_MONOTONIC; 0 ends the nap.
 *
 * Devices and clocks go on.  vm_pause() does not wait for the end of a nap.
 * Threads: any, while the VM exists.
 */
void vm_nap(struct vm *vm, uint64_t until_ns);

/**
 * vm_state() - where the machine is in its life.
 *
 * Threads: any.
 */
enum vm_state vm_state(const struct vm *vm);

/**
 * vm_stay_paused() - this pause was asked for: whoever takes the VM over is to keep it paused.
 * @vm: paused, by vm_pause(); vm_was_running() is false from now on.
 *
 * Threads: as vm_pause().
 */
void vm_stay_paused(struct vm *vm);

/**
 * vm_was_running() - whether a paused VM ran before its pause, here or where its state is from.
 *
 * Threads: as vm_pause().
 */
bool vm_was_running(const struct vm *vm);

/**
 * vm_nmi() - an NMI for every vCPU.
 *
 * Return: 0; -EPERM unless running; the kernel's errno.
 * Threads: control.
 */
CHECKED int vm_nmi(struct vm *vm, struct err *err);

/**
 * vm_power_button() - press it.
 *
 * Return: 0; -EPERM unless running.
 * Threads: control.
 */
CHECKED int vm_power_button(struct vm *vm, struct err *err);

/* --- Parts, for those who build, move and freeze --------------------------- */

/**
 * vm_gmem() - guest memory; borrowed.
 *
 * Threads: any.
 */
struct gmem *vm_gmem(struct vm *vm);

/**
 * vm_dirty() - the account of dirty memory; borrowed.
 *
 * Threads: any.
 */
struct dirty *vm_dirty(struct vm *vm);

/**
 * vm_kvm() - the hypervisor; borrowed.  For the board.
 *
 * Threads: any.
 */
struct kvm *vm_kvm(struct vm *vm);

/**
 * vm_board() - what the board's build gave; borrowed.
 *
 * Threads: any.
 */
void *vm_board(struct vm *vm);

/**
 * vm_config() - as given to vm_new(); borrowed.
 *
 * Threads: any.
 */
const struct vm_config *vm_config(const struct vm *vm);

/**
 * vm_cpu_model() - what the guest's processors are; borrowed.
 *
 * Threads: any.
 */
const struct cpu_model *vm_cpu_model(const struct vm *vm);

/**
 * vm_env() - the environment that devices get; borrowed.  For the board.
 *
 * Threads: any.
 */
const struct dev_env *vm_env(struct vm *vm);

/**
 * vm_add_device() - create a device and make it part of the machine.
 * @id, @ops, @cfg: as device_new().
 *
 * Devices are quiesced in the order in which they were added and resumed in
 * the opposite one.
 *
 * Return: 0 and *@ret_dev, borrowed from the machine; -EEXIST for an id that is
 * taken; -E2BIG past VM_DEVICES_MAX; or what device_new() returned.
 * Threads: control, while building.
 */
CHECKED int vm_add_device(struct vm *vm, const struct device_ops *ops, const char *id,
                          const void *cfg, struct device **ret_dev, struct err *err);

/**
 * vm_nr_devices(), vm_device() - the machine's devices, in order of addition.
 *
 * Threads: any.
 */
unsigned vm_nr_devices(const struct vm *vm);
struct device *vm_device(struct vm *vm, unsigned i);

/**
 * vm_acquire() - take exclusive use of disks and taps; harmless when held.
 *
 * Return: 0; -EAGAIN names the disk that somebody else has locked.
 * Threads: as vm_pause().
 */
CHECKED int vm_acquire(struct vm *vm, struct err *err);

/**
 * vm_release() - give up exclusive use of disks and taps; harmless when not held.
 *
 * Threads: as vm_pause().
 */
void vm_release(struct vm *vm);

/**
 * vm_sync_disks() - have what the guest wrote to its disks until the last pause be durable.
 *
 * Return: 0; the kernel's errno, naming the disk.
 * Threads: control, or a worker that the VM was lent to; it may run.
 */
CHECKED int vm_sync_disks(struct vm *vm, struct err *err);

/**
 * vm_announce() - tell the network that the VM is here now.
 *
 * Threads: any.
 */
void vm_announce(struct vm *vm);

/**
 * vm_set_identity() - make a machine that loaded a snapshot's state itself.
 * @genid: new VM generation id.
 *
 * The UUID and the MACs are those of its configuration; the guest is notified.
 *
 * Return: 0; -EPERM unless paused; what the tables' builders return.
 * Threads: control or worker.
 */
CHECKED int vm_set_identity(struct vm *vm, const uint8_t genid[16], struct err *err);

/* --- State (core/vm_state.c) ------------------------------------------------ */

/**
 * vm_save() - append the state of clock, vCPUs and all devices as sections.
 * @buf: grows; unchanged on failure.
 *
 * Changes guest memory through devices only as their own dirty bits tell: drain
 * once more afterwards.
 *
 * Return: 0; -EPERM unless VM_PAUSED; the kernel's errno; -ENOMEM.
 * Threads: as vm_pause().
 */
CHECKED int vm_save(struct vm *vm, struct state_buf *buf, struct err *err);

/**
 * vm_save_to() - the same, each section as soon as it is there.
 * @sink: may have taken some when a later one fails.
 *
 * Return: as vm_save(), or what @sink returned.
 * Threads: as vm_pause().
 */
CHECKED int vm_save_to(struct vm *vm, const struct state_sink *sink, struct err *err);

/**
 * vm_load() - load a machine's state: VM_CREATED to VM_PAUSED.
 * @data, @len: hostile bytes, as from vm_save().
 *
 * Every section is parsed and checked before any part of the machine changes.
 * A failure after that (KVM refuses a register) leaves the machine good only
 * for vm_free().
 *
 * Return: 0; -EPERM unless VM_CREATED; -EBADMSG, -ENOTSUP, -E2BIG with the section and
 * field in @err; -ENOMEM; as kvm_vcpu_load().
 * Threads: control or worker.
 */
CHECKED int vm_load(struct vm *vm, const uint8_t *data, size_t len, struct err *err);

/* A state that is loaded as it arrives. */
struct vm_loader;

/**
 * vm_loader_new() - expect the state of a machine; vm_load() in three steps.
 * @vm: VM_CREATED; borrowed until vm_loader_free().
 *
 * Return: 0 and *@ret_loader, owned; -EPERM; -ENOMEM; the kernel's errno.
 * Threads: control or worker, one at a time.
 */
CHECKED int vm_loader_new(struct vm *vm, struct vm_loader **ret_loader, struct err *err);

/**
 * vm_loader_stage() - decode and check the sections that are whole; the machine does not change.
 * @data, @len: hostile bytes, from where the last call stopped.
 * @last:       nothing follows: what is not whole is an error.
 * @ret_used:   bytes taken in; the rest is to be given again, with more.
 *
 * Return: 0; -EBADMSG, -ENOTSUP, -E2BIG with the section and field in @err.
 * Threads: as vm_loader_new().
 */
CHECKED int vm_loader_stage(struct vm_loader *loader, const uint8_t *data, size_t len, bool last,
                            size_t *ret_used, struct err *err);

/**
 * vm_loader_apply() - put everything into place: VM_CREATED to VM_PAUSED; once.
 *
 * Return: 0; -EBADMSG where a section is missing, with nothing changed; after another failure the
 * machine is good only for vm_free().
 * Threads: as vm_loader_new().
 */
CHECKED int vm_loader_apply(struct vm_loader *loader, struct err *err);

/**
 * vm_loader_free() - free, with what was staged and not applied.
 * @loader: taken, before its machine; NULL is allowed.
 *
 * Threads: as vm_loader_new().
 */
void vm_loader_free(struct vm_loader *loader);

/**
 * vm_describe() - what a host needs to build the same machine: config and CPU model.
 * @buf: grows; sections "config" and "cpu-model".
 *
 * Return: 0; -ENOMEM.
 * Threads: any.
 */
CHECKED int vm_describe(struct vm *vm, struct state_buf *buf, struct err *err);

/**
 * vm_parse_description() - read what vm_describe() wrote.
 * @data, @len: hostile bytes; advanced past the two sections.
 * @ret_cfg:    complete; owned, to be given to vm_config_release().
 * @ret_model:  owned; free().
 *
 * Return: 0; -EBADMSG, -ENOTSUP, -EINVAL with the field in @err.
 * Threads: any.
 */
CHECKED int vm_parse_description(const uint8_t **data, size_t *len, struct vm_config *ret_cfg,
                                 struct cpu_model **ret_model, struct err *err);

#endif
