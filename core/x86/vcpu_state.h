/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that a vCPU is, as it is saved, moved and set again.
 *
 * The structs mirror those of <linux/kvm.h> with names that can stay the same
 * for ever; conversions are here, ioctls in core/kvm_vcpu.c.  CPUID is not
 * here: it is the machine's CPU model (core/x86/cpu_model.h).
 *
 * Order of setting: CPUID, special registers, general registers, XCRs, XSAVE,
 * MSRs of class PLAIN, TSC, CLOCK, debug registers, LAPIC, MSR of class
 * DEADLINE, MP state, events.
 *
 * Threads, of all functions: any; the vCPU is stopped.
 */
#ifndef CORE_X86_VCPU_STATE_H
#define CORE_X86_VCPU_STATE_H

#include <linux/kvm.h>

#include "core/state.h"
#include "core/x86/msrs.h"

enum {
    X86_XSAVE_MIN = 4096,      /* bytes that KVM_GET_XSAVE gives */
    X86_XSAVE_MAX = 64 << 10,  /* bytes; KVM_CAP_XSAVE2 says how many */
    X86_NESTED_MAX = 64 << 10, /* bytes; KVM_CAP_NESTED_STATE says how many */
    X86_XCRS_MAX = 16,
    X86_LAPIC_SIZE = 1024,
};

struct x86_regs {
    uint64_t rax, rbx, rcx, rdx;
    uint64_t rsi, rdi, rsp, rbp;
    uint64_t r8, r9, r10, r11;
    uint64_t r12, r13, r14, r15;
    uint64_t rip, rflags;
};

struct x86_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint8_t type;
    uint8_t dpl;
    bool present;
    bool db;
    bool s;
    bool l;
    bool g;
    bool avl;
    bool unusable;
};

struct x86_dtable {
    uint64_t base;
    uint16_t limit;
};

struct x86_sregs {
    struct x86_segment cs, ds, es, fs, gs, ss, tr, ldt;
    struct x86_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t efer;
    uint64_t apic_base;
    uint64_t interrupt_bitmap[4]; /* KVM_GET_SREGS: the vector that is being injected */
    bool pdptrs_valid;            /* KVM_GET_SREGS2 */
    uint64_t pdptrs[4];
};

struct x86_xcr {
    uint32_t index;
    uint64_t value;
};

struct x86_debugregs {
    uint64_t db[4];
    uint64_t dr6;
    uint64_t dr7;
};

struct x86_events {
    uint32_t flags; /* KVM_VCPUEVENT_VALID_*, as KVM gave them */
    bool exception_injected;
    bool exception_pending;
    uint8_t exception_nr;
    bool exception_has_error_code;
    uint32_t exception_error_code;
    bool exception_has_payload;
    uint64_t exception_payload;
    bool interrupt_injected;
    uint8_t interrupt_nr;
    bool interrupt_soft;
    uint8_t interrupt_shadow; /* KVM_X86_SHADOW_INT_* */
    bool nmi_injected;
    uint8_t nmi_pending; /* how many */
    bool nmi_masked;
    uint32_t sipi_vector;
    bool smi_smm;
    bool smi_pending;
    bool smi_inside_nmi;
    bool smi_latched_init;
    bool triple_fault_pending;
};

struct x86_vcpu_state {
    uint32_t apic_id;
    uint32_t mp_state; /* KVM_MP_STATE_* */
    struct x86_regs regs;
    struct x86_sregs sregs;
    struct x86_debugregs debugregs;
    struct x86_events events;
    uint8_t lapic[X86_LAPIC_SIZE]; /* the register page */
    uint32_t nr_xcrs;
    struct x86_xcr xcrs[X86_XCRS_MAX];
    uint8_t *xsave; /* owned */
    uint32_t xsave_len;
    uint8_t *nested; /* KVM_GET_NESTED_STATE; owned */
    uint32_t nested_len;
    uint32_t tsc_khz;      /* 0: not known */
    bool tsc_offset_valid; /* KVM_VCPU_TSC_OFFSET is there */
    uint64_t tsc_offset;   /* guest TSC - host TSC, modulo 2^64 */
    uint64_t host_tsc;     /* of the source, at the moment of saving; 0: not known */
    uint32_t nr_msrs;
    struct x86_msr msrs[X86_MSRS_MAX]; /* in the order of restoring; TSC is one of them */
};

/* The state table of struct x86_vcpu_state, section type "x86-vcpu". */
extern const struct state_desc x86_vcpu_state_desc;

/**
 * x86_vcpu_msr() - a saved MSR.
 *
 * Return: borrowed; NULL if it was not saved.
 * Threads: any; the vCPU is stopped.
 */
const struct x86_msr *x86_vcpu_msr(const struct x86_vcpu_state *s, uint32_t index);

/**
 * x86_lapic_from_kvm() - the local APIC's registers.
 *
 * The processor priority follows from the task priority and the interrupts in service; KVM brings
 * it up to date only when it needs it.  What is kept is what it follows to be.
 *
 * Threads: any; the vCPU is stopped.  Spec: Intel SDM 3A, 10.8.3.1.
 */
void x86_lapic_from_kvm(uint8_t lapic[X86_LAPIC_SIZE], const struct kvm_lapic_state *k);

/**
 * x86_regs_from_kvm() - general registers.
 * x86_regs_to_kvm() - general registers.
 * x86_sregs_from_kvm() - special registers, where there is no KVM_CAP_SREGS2.
 * x86_sregs_to_kvm() - special registers, where there is no KVM_CAP_SREGS2.
 * x86_sregs_from_kvm2() - special registers with the PDPTRs.
 * x86_sregs_to_kvm2() - special registers with the PDPTRs, if they were saved.
 * x86_xcrs_from_kvm() - extended control registers.
 * x86_xcrs_to_kvm() - extended control registers.
 * x86_debugregs_from_kvm() - debug registers.
 * x86_debugregs_to_kvm() - debug registers.
 * x86_events_from_kvm() - exceptions, interrupts, NMIs and SMIs under way.
 *
 * Threads: any; the vCPU is stopped.
 */
void x86_regs_from_kvm(struct x86_regs *r, const struct kvm_regs *k);
void x86_regs_to_kvm(const struct x86_regs *r, struct kvm_regs *k);
void x86_sregs_from_kvm(struct x86_sregs *r, const struct kvm_sregs *k);
void x86_sregs_to_kvm(const struct x86_sregs *r, struct kvm_sregs *k);
void x86_sregs_from_kvm2(struct x86_sregs *r, const struct kvm_sregs2 *k);
void x86_sregs_to_kvm2(const struct x86_sregs *r, struct kvm_sregs2 *k);
void x86_xcrs_from_kvm(struct x86_vcpu_state *s, const struct kvm_xcrs *k);
void x86_xcrs_to_kvm(const struct x86_vcpu_state *s, struct kvm_xcrs *k);
void x86_debugregs_from_kvm(struct x86_debugregs *r, const struct kvm_debugregs *k);
void x86_debugregs_to_kvm(const struct x86_debugregs *r, struct kvm_debugregs *k);
void x86_events_from_kvm(struct x86_events *e, const struct kvm_vcpu_events *k);

/**
 * x86_events_to_kvm() - exceptions, interrupts, NMIs and SMIs under way.
 * @allowed: KVM_VCPUEVENT_VALID_* that this kernel takes: NMI_PENDING,
 *           SIPI_VECTOR and SHADOW always, SMM with KVM_CAP_X86_SMM, PAYLOAD and
 *           TRIPLE_FAULT with their capabilities enabled.
 *
 * Return: 0; -ENOTSUP for an event under way that cannot be told to this kernel.
 * Threads: any; the vCPU is stopped.
 */
CHECKED int x86_events_to_kvm(const struct x86_events *e, uint32_t allowed,
                              struct kvm_vcpu_events *k, struct err *err);

#endif
