/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual CPU and the thread that runs it.
 *
 * The thread is parked, running, or ended.  Parking drains: when a vCPU is
 * parked, no port or memory access of the guest is half done, so its registers
 * are the whole truth.
 */
#ifndef CORE_VCPU_H
#define CORE_VCPU_H

#include "core/err.h"

struct bus;
struct kvm;
struct kvm_vcpu;
struct vcpu;

/* Why a vCPU cannot go on by itself. */
enum vcpu_stop {
    VCPU_STOP_SHUTDOWN, /* triple fault */
    VCPU_STOP_ERROR,    /* the hypervisor gave up; @what says why */
};

struct vcpu_hooks {
    /* The guest ended a level-triggered interrupt. */
    void (*eoi)(void *arg, uint8_t vector);
    /* The vCPU parks after this call, until vcpu_resume(). */
    void (*stopped)(void *arg, unsigned index, enum vcpu_stop why, const char *what);
    /* After each exit: whether the vCPU shall park (the guest asked for a reset, say). */
    bool (*should_park)(void *arg);
    /* On the new thread, before the guest runs: its sandbox. */
    void (*thread_start)(void *arg, unsigned index);
    void *arg;
};

struct vcpu_params {
    struct kvm *kvm;  /* borrowed */
    unsigned index;   /* 0 for the boot processor */
    uint32_t apic_id; /* of its local APIC */
    struct bus *pio;  /* borrowed */
    struct bus *mmio; /* borrowed */
    struct vcpu_hooks hooks;
};

/**
 * vcpu_new() - create a vCPU and its thread, parked.
 * @params: copied.
 *
 * Return: 0 and *@ret_vcpu, owned; the kernel's errno.
 * Threads: control.
 */
CHECKED int vcpu_new(const struct vcpu_params *params, struct vcpu **ret_vcpu, struct err *err);

/**
 * vcpu_free() - end the thread and close the vCPU.
 * @v: taken; running or parked; NULL is allowed.
 *
 * Threads: control.
 */
void vcpu_free(struct vcpu *v);

/**
 * vcpu_resume() - let the guest run.
 *
 * Threads: control.
 */
void vcpu_resume(struct vcpu *v);

/**
 * vcpu_pause_begin() - ask a vCPU to park; does not wait.
 *
 * Threads: any.
 */
void vcpu_pause_begin(struct vcpu *v);

/**
 * vcpu_pause_wait() - wait until a vCPU that was asked to park has parked.
 *
 * Threads: any but the vCPU's own.
 */
void vcpu_pause_wait(struct vcpu *v);

/**
 * vcpu_nmi() - let a vCPU take a non-maskable interrupt as soon as it can.
 * @v: running; it takes it before it parks.
 *
 * Threads: any.
 */
void vcpu_nmi(struct vcpu *v);

/**
 * vcpu_nap() - keep a running vCPU out of the guest until some time; does not wait.
 * @until_ns: CLOCK_MONOTONIC; 0 ends a nap.
 *
 * A vCPU that is to park does so at once, and one that does not run has no nap.
 * Threads: any but the vCPU's own.
 */
void vcpu_nap(struct vcpu *v, uint64_t until_ns);

/**
 * vcpu_kvm() - the hypervisor's side, for its registers.
 *
 * Return: borrowed; to be used only while the vCPU is parked.
 * Threads: any.
 */
struct kvm_vcpu *vcpu_kvm(struct vcpu *v);

/**
 * vcpu_init_signals() - make the signal that interrupts a vCPU harmless elsewhere.
 *
 * Threads: once, before the first vcpu_new().
 */
void vcpu_init_signals(void);

#endif
