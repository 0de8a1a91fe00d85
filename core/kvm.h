/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hypervisor: everything that is asked of /dev/kvm.
 *
 * Only core/kvm*.c issue KVM ioctls.  A capability is asked
 * for before anything that depends on it is used.
 */
#ifndef CORE_KVM_H
#define CORE_KVM_H

#include <linux/kvm.h>

#include "core/dirty.h"
#include "core/err.h"

struct gmem;
struct kvm;
struct kvm_vcpu;
struct x86_vcpu_state;

enum {
    KVM_IOAPIC_PINS = 24, /* GSIs 0 to 23 belong to the IOAPIC; the rest is free */
};

/* kvmclock and the wall clock at one moment. */
struct kvm_clock_sample {
    uint64_t clock_ns;    /* guest's kvmclock */
    uint64_t realtime_ns; /* host's CLOCK_REALTIME; 0 where the kernel does not tell */
    uint64_t host_tsc;    /* 0 where the kernel does not tell */
};

/**
 * kvm_open() - open /dev/kvm and create a VM with a split irqchip.
 *
 * Return: 0 and *@ret_kvm, owned; -ENOENT or -EACCES with advice in @err where
 * /dev/kvm is missing or closed to us; -ENOTSUP for a kernel without a
 * capability that we cannot do without, named.
 * Threads: any.
 */
CHECKED int kvm_open(struct kvm **ret_kvm, struct err *err);

/**
 * kvm_close() - destroy the VM.
 * @kvm: taken, its vCPUs closed; NULL is allowed.
 *
 * Threads: control.
 */
void kvm_close(struct kvm *kvm);

/**
 * kvm_has() - whether the kernel has a capability (KVM_CAP_*), and how much of it.
 *
 * Return: what KVM_CHECK_EXTENSION says; 0 means no.
 * Threads: any.
 */
int kvm_has(const struct kvm *kvm, unsigned cap);

/**
 * kvm_max_vcpus() - most vCPUs of one VM on this host.
 *
 * Threads: any.
 */
unsigned kvm_max_vcpus(const struct kvm *kvm);

/**
 * kvm_map_memory() - give guest memory to the VM, one slot a region.
 * @gm: borrowed until kvm_close().
 *
 * Return: 0; the kernel's errno, with the region in @err.
 * Threads: one, which need not be the one of kvm_open().
 */
CHECKED int kvm_map_memory(struct kvm *kvm, struct gmem *gm, struct err *err);

/* The hypervisor's side of core/dirty.h; its argument is the struct kvm. */
extern const struct dirty_log_ops kvm_dirty_log_ops;

/**
 * kvm_supported_cpuid() - what the host and KVM can give a guest (KVM_GET_SUPPORTED_CPUID).
 *
 * Return: borrowed until kvm_close().
 * Threads: any.
 */
const struct kvm_cpuid2 *kvm_supported_cpuid(const struct kvm *kvm);

/**
 * kvm_msr_indices() - MSRs that hold guest state on this host (KVM_GET_MSR_INDEX_LIST).
 * @ret_list: heap, owned; free().
 *
 * Return: 0; -ENOMEM; the kernel's errno.
 * Threads: any.
 */
CHECKED int kvm_msr_indices(struct kvm *kvm, struct kvm_msr_list **ret_list, struct err *err);

/**
 * kvm_signal_msi() - deliver a message-signalled interrupt.
 *
 * An address or data that KVM does not accept is dropped, as on a PCI bus.
 * Threads: any.
 */
void kvm_signal_msi(struct kvm *kvm, uint64_t addr, uint32_t data);

/**
 * kvm_route_ioapic() - tell KVM which messages the IOAPIC's pins send.
 * @msis: one entry a pin; an address of 0 is a pin without a route.
 *
 * KVM needs them to report the end of a level-triggered interrupt.
 *
 * Return: 0; the kernel's errno.
 * Threads: any.
 */
struct kvm_ioapic_route {
    uint64_t addr;
    uint32_t data;
};
CHECKED int kvm_route_ioapic(struct kvm *kvm, const struct kvm_ioapic_route msis[KVM_IOAPIC_PINS]);

/**
 * kvm_ioeventfd() - have the kernel signal an eventfd on a guest write.
 * @len: bytes of the write, 1, 2, 4 or 8; 0 for any.
 *
 * Return: 0; the kernel's errno.
 * Threads: any.
 */
CHECKED int kvm_ioeventfd(struct kvm *kvm, int fd, uint64_t gpa, unsigned len, bool on);

/**
 * kvm_get_clock() - read kvmclock.
 *
 * Return: 0; the kernel's errno.
 * Threads: control, with the vCPUs stopped.
 */
CHECKED int kvm_get_clock(struct kvm *kvm, struct kvm_clock_sample *ret_sample, struct err *err);

/**
 * kvm_set_clock() - set kvmclock.
 * @clock_ns: nanoseconds.
 *
 * Return: 0; the kernel's errno.
 * Threads: control, with the vCPUs stopped.
 */
CHECKED int kvm_set_clock(struct kvm *kvm, uint64_t clock_ns, struct err *err);

/* --- vCPUs ----------------------------------------------------------------- */

/**
 * kvm_vcpu_open() - create a vCPU.
 * @id: APIC id.
 *
 * Return: 0 and *@ret_vcpu, owned; the kernel's errno.
 * Threads: control.
 */
CHECKED int kvm_vcpu_open(struct kvm *kvm, unsigned id, struct kvm_vcpu **ret_vcpu,
                          struct err *err);

/**
 * kvm_vcpu_close() - close a vCPU.
 * @vcpu: taken, not running; NULL is allowed.
 *
 * Threads: control.
 */
void kvm_vcpu_close(struct kvm_vcpu *vcpu);

/**
 * kvm_vcpu_run() - run the guest until it needs us.
 *
 * Return: 0 and the exit is in kvm_vcpu_exit(); -EINTR after a signal or with
 * kvm_vcpu_set_immediate_exit(), and then every access that the guest had
 * pending is complete; the kernel's errno.
 * Threads: the vCPU's own.
 */
CHECKED int kvm_vcpu_run(struct kvm_vcpu *vcpu);

/**
 * kvm_vcpu_exit() - the page shared with KVM.
 *
 * Return: borrowed; valid until kvm_vcpu_close().
 * Threads: the vCPU's own.
 */
struct kvm_run *kvm_vcpu_exit(struct kvm_vcpu *vcpu);

/**
 * kvm_vcpu_set_immediate_exit() - have the next kvm_vcpu_run() return at once.
 *
 * Threads: any; pairs with a signal to the vCPU's thread.
 */
void kvm_vcpu_set_immediate_exit(struct kvm_vcpu *vcpu, bool on);

/**
 * kvm_vcpu_nmi() - queue a non-maskable interrupt.
 *
 * Return: 0; the kernel's errno.
 * Threads: any.
 */
CHECKED int kvm_vcpu_nmi(struct kvm_vcpu *vcpu);

/**
 * kvm_vcpu_set_cpuid() - what CPUID answers.
 *
 * Return: 0; the kernel's errno.
 * Threads: control, before the vCPU runs.
 */
CHECKED int kvm_vcpu_set_cpuid(struct kvm_vcpu *vcpu, const struct kvm_cpuid2 *cpuid,
                               struct err *err);

/**
 * kvm_vcpu_set_boot_regs() - registers at the first instruction of a boot.
 * @sregs: complete; NULL leaves them as they are.
 *
 * Return: 0; the kernel's errno.
 * Threads: control, with the vCPU stopped.
 */
CHECKED int kvm_vcpu_set_boot_regs(struct kvm_vcpu *vcpu, const struct kvm_regs *regs,
                                   const struct kvm_sregs *sregs, struct err *err);

/**
 * kvm_vcpu_get_sregs() - special registers, to be patched for boot.
 *
 * Return: 0; the kernel's errno.
 * Threads: control, with the vCPU stopped.
 */
CHECKED int kvm_vcpu_get_sregs(struct kvm_vcpu *vcpu, struct kvm_sregs *ret_sregs, struct err *err);

/**
 * kvm_vcpu_clock_paused() - tell a guest with kvmclock that it stood still (KVM_KVMCLOCK_CTRL).
 *
 * A guest without kvmclock, or a kernel without the call, is not told.
 * Threads: control, with the vCPU stopped.
 */
void kvm_vcpu_clock_paused(struct kvm_vcpu *vcpu);

/**
 * kvm_vcpu_set_msrs() - write a few MSRs.
 * @nr: at most KVM_VCPU_MSRS_MAX.
 *
 * Return: 0; -E2BIG for too many; -EINVAL names the MSR that KVM did not take; the
 * kernel's errno.
 * Threads: control, with the vCPU stopped.
 */
enum {
    KVM_VCPU_MSRS_MAX = 256,
};
CHECKED int kvm_vcpu_set_msrs(struct kvm_vcpu *vcpu, const struct kvm_msr_entry *msrs, unsigned nr,
                              struct err *err);

/**
 * kvm_vcpu_tsc_khz() - frequency of the guest's TSC.
 *
 * Return: kHz; 0 where the kernel does not tell.
 * Threads: any.
 */
uint32_t kvm_vcpu_tsc_khz(struct kvm_vcpu *vcpu);

/**
 * kvm_vcpu_set_tsc_khz() - scale the guest's TSC.
 *
 * Return: 0; the kernel's errno.
 * Threads: control, with the vCPU stopped.
 */
CHECKED int kvm_vcpu_set_tsc_khz(struct kvm_vcpu *vcpu, uint32_t khz, struct err *err);

/**
 * kvm_vcpu_save() - read everything that KVM gives of a vCPU.
 * @ret_state: zeroed; owns blobs afterwards: state_release() with x86_vcpu_state_desc.
 *
 * Return: 0; -ENOMEM; -E2BIG for more than the state has room for; the kernel's
 * errno, with the ioctl in @err.
 * Threads: any, with the vCPU parked.
 */
CHECKED int kvm_vcpu_save(struct kvm_vcpu *vcpu, struct x86_vcpu_state *ret_state, struct err *err);

/**
 * kvm_vcpu_load() - put everything back.
 *
 * Return: 0; -EBADMSG for the state of another APIC id; -ENOTSUP names the MSR
 * that this host does not have; the kernel's errno, with the ioctl in @err.  After
 * a failure the vCPU is in between.
 * Threads: any, with the vCPU parked.
 */
CHECKED int kvm_vcpu_load(struct kvm_vcpu *vcpu, const struct x86_vcpu_state *state,
                          struct err *err);

/**
 * kvm_vcpu_tsc_at() - the guest's TSC at a moment of the host's.
 * @host_tsc: a recent value of the host's TSC.
 *
 * Threads: any, with the vCPU parked.
 */
uint64_t kvm_vcpu_tsc_at(struct kvm_vcpu *vcpu, uint64_t host_tsc);

/**
 * kvm_vcpu_set_tsc_at() - have the guest's TSC be @tsc when the host's is @host_tsc.
 *
 * A timer armed by TSC deadline goes off at the same guest TSC as before.
 *
 * Return: 0; the kernel's errno.
 * Threads: any, with the vCPU parked.
 */
CHECKED int kvm_vcpu_set_tsc_at(struct kvm_vcpu *vcpu, uint64_t tsc, uint64_t host_tsc,
                                struct err *err);

#endif
