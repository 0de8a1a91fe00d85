/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What core/kvm.c and core/kvm_vcpu.c share.
 */
#ifndef CORE_KVM_INTERNAL_H
#define CORE_KVM_INTERNAL_H

#include "core/kvm.h"
#include "core/x86/msrs.h"

struct kvm {
    int dev_fd; /* /dev/kvm */
    int fd;     /* the VM */
    size_t run_size;
    struct kvm_cpuid2 *supported; /* what a guest can be given */
    struct gmem *gm;              /* borrowed; NULL before kvm_map_memory() */
    bool dirty_manual;            /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, initially set */
    uint32_t events_allowed;      /* KVM_VCPUEVENT_VALID_* that this kernel takes */
    unsigned nr_msrs;             /* 0: not found out yet */
    uint32_t msrs[X86_MSRS_MAX];  /* those that can be read, in the order of restoring */
};

struct kvm_vcpu {
    struct kvm *kvm; /* borrowed */
    int fd;
    unsigned id;         /* APIC id */
    struct kvm_run *run; /* shared with the kernel, kvm->run_size bytes */
};

#endif
