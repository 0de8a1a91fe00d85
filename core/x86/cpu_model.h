/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor that a guest sees: its CPUID leaves and its TSC frequency.
 *
 * A model is made from what the host and KVM offer, with everything taken out
 * that cannot be saved and moved.  It travels with the guest; another host is
 * asked, before anything is touched, whether it offers all of it.  Leaves that
 * differ from vCPU to vCPU (APIC id, place in the topology) are made from the
 * model for each vCPU.  Policy, leaf by leaf: docs/platform.md.
 *
 * All functions are pure.
 */
#ifndef CORE_X86_CPU_MODEL_H
#define CORE_X86_CPU_MODEL_H

#include <linux/kvm.h>

#include "core/state.h"

enum {
    CPU_MODEL_CPUID_MAX = 200,
    CPU_MODEL_VCPU_CPUID_MAX = CPU_MODEL_CPUID_MAX + 16, /* with the leaves of the topology */
    CPU_MODEL_NAME_MAX = 64, /* bytes of a dotted name, "cpuid.7.0.ebx.avx512f" */
    CPU_TSC_TOLERANCE_PPM = 250,
};

/* One leaf. */
struct cpu_cpuid {
    uint32_t function;
    uint32_t index;
    uint32_t flags; /* KVM_CPUID_FLAG_SIGNIFCANT_INDEX or 0 */
    uint32_t eax;
    uint32_t ebx;
    uint32_t ecx;
    uint32_t edx;
};

/* How vCPUs are grouped; all zero: each is a core, all in one package. */
struct cpu_topology {
    uint32_t threads_per_core;
    uint32_t cores_per_die;
    uint32_t dies_per_package;
    uint32_t packages;
};

struct cpu_model {
    uint32_t nr_cpuid;
    struct cpu_cpuid
        cpuid[CPU_MODEL_CPUID_MAX]; /* ascending by function, index; none is all zero */
    struct cpu_topology topology;   /* complete */
    uint32_t nr_vcpus;              /* most that there can be */
    uint32_t tsc_khz;               /* 0: not known */
};

/* What a model is made from. */
struct cpu_model_in {
    const struct kvm_cpuid2 *supported; /* KVM_GET_SUPPORTED_CPUID; borrowed */
    struct cpu_topology topology;       /* cpus.topology; all zero: not given */
    uint32_t nr_vcpus;                  /* cpus.max_vcpus */
    uint32_t max_phys_bits;             /* cpus.max_phys_bits; 0: the default */
    uint32_t tsc_khz;                   /* KVM_GET_TSC_KHZ; 0: not known */
    bool tsc_deadline;                  /* KVM_CAP_TSC_DEADLINE_TIMER */
    bool nested;                        /* cpus.nested, and KVM_CAP_NESTED_STATE is there */
    bool amx;                           /* cpus.features=amx */
};

/* The state table of struct cpu_model, section type "cpu-model". */
extern const struct state_desc cpu_model_state;

/**
 * cpu_model_build() - the model that this host offers.
 *
 * Return: 0 and *@ret_model; -EINVAL for a topology that does not multiply to
 * the number of vCPUs; -E2BIG for more leaves than CPU_MODEL_CPUID_MAX.
 * Threads: any.
 */
CHECKED int cpu_model_build(const struct cpu_model_in *in, struct cpu_model *ret_model,
                            struct err *err);

/**
 * cpu_topology_apic_id() - the APIC id of a vCPU, before there is a model.
 * @t: all zero: not given; else complete.
 *
 * KVM makes it the id of the local APIC if it is given to KVM_CREATE_VCPU.
 * Threads: any.
 */
uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned index);

/**
 * cpu_model_apic_id() - the APIC id of a vCPU.
 * @index: below model->nr_vcpus.
 *
 * Equal to @index where every group of the topology has a power of two of members.
 * Threads: any.
 */
uint32_t cpu_model_apic_id(const struct cpu_model *model, unsigned index);

/**
 * cpu_model_phys_bits() - bits of a guest physical address.
 *
 * Threads: any.
 */
unsigned cpu_model_phys_bits(const struct cpu_model *model);

/**
 * cpu_model_vcpu() - the leaves of one vCPU, for KVM_SET_CPUID2.
 * @index:     below model->nr_vcpus.
 * @ret_cpuid: heap, owned; free().
 *
 * Return: 0; -ENOMEM.
 * Threads: any.
 */
CHECKED int cpu_model_vcpu(const struct cpu_model *model, unsigned index,
                           struct kvm_cpuid2 **ret_cpuid);

/* Called once for each thing that a host lacks; @name as in "cpuid.7.0.ebx.avx512f". */
typedef void (*cpu_model_lack_fn)(void *arg, const char *name, const char *why);

/**
 * cpu_model_lacks() - everything in @src that @host does not offer.
 * @fn: called for each, in ascending order of leaves; may be NULL.
 *
 * Return: how many.
 * Threads: any.
 */
unsigned cpu_model_lacks(const struct cpu_model *src, const struct cpu_model *host,
                         cpu_model_lack_fn fn, void *arg);

/**
 * cpu_model_check() - can a guest with model @src run on a host that offers @host?
 * @host: made for the same configuration.
 *
 * Return: 0; -EBADMSG if @src is of another configuration (its number of vCPUs
 * or its topology differ); -ENOTSUP with the names of what is missing, as many
 * as fit, and the number of the rest.
 * Threads: any.
 */
CHECKED int cpu_model_check(const struct cpu_model *src, const struct cpu_model *host,
                            struct err *err);

/* What to do about the TSC of a guest that comes from another host. */
enum cpu_tsc_action {
    CPU_TSC_KEEP,  /* near enough, not known, or accepted: nothing */
    CPU_TSC_SCALE, /* KVM_SET_TSC_KHZ with the source's frequency */
};

/* How the two hosts stand. */
struct cpu_tsc_in {
    uint32_t src_khz;  /* the guest's; 0: not known */
    uint32_t host_khz; /* this host's; 0: not known */
    bool can_scale;    /* KVM_CAP_TSC_CONTROL */
    bool accept;       /* the operator takes any frequency */
};

/**
 * cpu_tsc_check() - does the guest's TSC run at its speed on this host?
 *
 * Return: 0 and *@ret_action; -ENOTSUP if they differ by more than
 * CPU_TSC_TOLERANCE_PPM, the host cannot scale and the operator did not accept.
 * Threads: any.
 */
CHECKED int cpu_tsc_check(const struct cpu_tsc_in *in, enum cpu_tsc_action *ret_action,
                          struct err *err);

#endif
