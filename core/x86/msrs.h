/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers: which hold guest state, in which order they are
 * restored, what they are called, and what to make of one that KVM refuses.
 */
#ifndef CORE_X86_MSRS_H
#define CORE_X86_MSRS_H

#include <linux/kvm.h>

#include "core/err.h"

enum {
    X86_MSRS_MAX = 640,
    X86_MSR_NAME_MAX = 32,
};

struct x86_msr {
    uint32_t index;
    uint64_t value;
};

/* When a register is written at a restore. */
enum x86_msr_class {
    X86_MSR_PLAIN,    /* first, in the order of the list */
    X86_MSR_TSC,      /* IA32_TSC: only without a TSC offset to set */
    X86_MSR_CLOCK,    /* kvmclock: after KVM_SET_CLOCK and the TSC */
    X86_MSR_DEADLINE, /* after the TSC and the LAPIC (its timer's mode decides) */
    X86_MSR_SKIP,     /* belongs to other state, or holds none */
};

/**
 * x86_msr_class() - when a register is written.
 *
 * Threads: any.
 */
enum x86_msr_class x86_msr_class(uint32_t index);

/**
 * x86_msrs_select() - the registers to save, in the order of restoring.
 * @list:        KVM_GET_MSR_INDEX_LIST.
 * @ret_indices: X86_MSRS_MAX entries; each index once.
 *
 * Adds what KVM can read and write but does not list: the MTRRs and the
 * machine-check banks.  Some may turn out not to be readable on a host.
 *
 * Return: how many; -E2BIG for more than X86_MSRS_MAX.
 * Threads: any.
 */
CHECKED int x86_msrs_select(const struct kvm_msr_list *list, uint32_t *ret_indices,
                            struct err *err);

/**
 * x86_msr_name() - "IA32_TSC", or "msr 0x10" where there is no name.
 * @buf: X86_MSR_NAME_MAX bytes.
 *
 * Return: @buf.
 * Threads: any.
 */
const char *x86_msr_name(uint32_t index, char *buf);

/* What KVM said of a register at a restore. */
struct x86_msr_refusal {
    struct x86_msr saved;
    bool readable;    /* it can be read on this host */
    uint64_t current; /* and then holds this */
};

/**
 * x86_msr_may_ignore() - a register could not be written: does the guest lose anything?
 *
 * It loses nothing if the register already has the value, or if it is not
 * there at all and was zero.
 *
 * Return: 0 if it may be ignored; -ENOTSUP, with the name and the values in @err.
 * Threads: any.
 */
CHECKED int x86_msr_may_ignore(const struct x86_msr_refusal *r, struct err *err);

#endif
