/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a model, and the leaves of each vCPU from it.
 *
 * Sources: Intel SDM 2A, CPUID, and 3A 9.9 (topology); AMD APM 3, appendix E;
 * Linux, Documentation/virt/kvm/api.rst (KVM_GET_SUPPORTED_CPUID) and
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "core/x86/cpu_model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/x86/layout.h"

enum {
    LEAF_FEATURES = 0x1,
    LEAF_CACHE = 0x4,
    LEAF_EXT_FEATURES = 0x7,
    LEAF_PMU = 0xa,
    LEAF_TOPOLOGY = 0xb,
    LEAF_XSAVE = 0xd,
    LEAF_SGX = 0x12,
    LEAF_PT = 0x14,
    LEAF_TILE = 0x1d,
    LEAF_TMUL = 0x1e,
    LEAF_TOPOLOGY2 = 0x1f,
    XSAVE_TILECFG = 17,
    XSAVE_TILEDATA = 18,
};

#define LEAF_KVM          UINT32_C(0x40000000)
#define LEAF_KVM_FEATURES UINT32_C(0x40000001)
#define LEAF_TIMING       UINT32_C(0x40000010)
#define LEAF_EXT1         UINT32_C(0x80000001)
#define LEAF_ADDRESS      UINT32_C(0x80000008)
#define LEAF_SVM          UINT32_C(0x8000000a)
#define LEAF_AMD_CACHE    UINT32_C(0x8000001d)
#define LEAF_AMD_TOPOLOGY UINT32_C(0x8000001e)
#define LEAF_SEV          UINT32_C(0x8000001f)
#define LEAF_AMD_PMU      UINT32_C(0x80000022)

/* Bits that this file clears or sets. */
#define F1_ECX_VMX          (UINT32_C(1) << 5)
#define F1_ECX_PDCM         (UINT32_C(1) << 15)
#define F1_ECX_X2APIC       (UINT32_C(1) << 21)
#define F1_ECX_TSC_DEADLINE (UINT32_C(1) << 24)
#define F1_ECX_OSXSAVE      (UINT32_C(1) << 27)
#define F1_ECX_HYPERVISOR   (UINT32_C(1) << 31)
#define F1_EDX_HT           (UINT32_C(1) << 28)
#define F7_EBX_SGX          (UINT32_C(1) << 2)
#define F7_EBX_PT           (UINT32_C(1) << 25)
#define F7_ECX_OSPKE        (UINT32_C(1) << 4)
#define F7_ECX_SGX_LC       (UINT32_C(1) << 30)
#define F7_EDX_AMX          (UINT32_C(1) << 22 | UINT32_C(1) << 24 | UINT32_C(1) << 25)
#define F7_1_EAX_AMX        (UINT32_C(1) << 21)
#define F7_1_EDX_AMX        (UINT32_C(1) << 8)
#define XCR0_AMX            (UINT32_C(1) << XSAVE_TILECFG | UINT32_C(1) << XSAVE_TILEDATA)
#define FEXT1_ECX_LEGACY    (UINT32_C(1) << 1)
#define FEXT1_ECX_SVM       (UINT32_C(1) << 2)
#define FEXT1_ECX_PERFCTR   (UINT32_C(1) << 23 | UINT32_C(1) << 24 | UINT32_C(1) << 28)
#define FEXT1_ECX_TOPOEXT   (UINT32_C(1) << 22)
#define VENDOR_AMD_EBX      UINT32_C(0x68747541) /* "Auth" */
#define VENDOR_HYGON_EBX    UINT32_C(0x6f677948) /* "Hygo" */
#define CACHE_TYPE          UINT32_C(0x1f)
#define LAPIC_BUS_KHZ       UINT32_C(1000000) /* KVM's LAPIC timer counts nanoseconds */

/* --- Leaves -------------------------------------------------------------- */

static struct cpu_cpuid *leaf_find(struct cpu_model *m, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < m->nr_cpuid; i++) {
        if (m->cpuid[i].function == function && m->cpuid[i].index == index)
            return &m->cpuid[i];
    }
    return NULL;
}

static bool leaf_is_zero(const struct cpu_cpuid *e)
{
    return (e->eax | e->ebx | e->ecx | e->edx) == 0;
}

static int leaf_order(const struct cpu_cpuid *a, const struct cpu_cpuid *b)
{
    if (a->function != b->function)
        return a->function < b->function ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Into its place; the first of several with the same number stays. */
static int leaf_insert(struct cpu_model *m, const struct cpu_cpuid *e, struct err *err)
{
    uint32_t at = m->nr_cpuid;

    while (at > 0 && leaf_order(&m->cpuid[at - 1], e) > 0)
        at--;
    if (at > 0 && leaf_order(&m->cpuid[at - 1], e) == 0)
        return 0;
    if (m->nr_cpuid == CPU_MODEL_CPUID_MAX)
        return err_set(err, -E2BIG, "cpuid: more than %d leaves", CPU_MODEL_CPUID_MAX);
    memmove(&m->cpuid[at + 1], &m->cpuid[at], (m->nr_cpuid - at) * sizeof(m->cpuid[0]));
    m->cpuid[at] = *e;
    m->nr_cpuid++;
    return 0;
}

/* --- Topology ------------------------------------------------------------ */

static int topology_complete(const struct cpu_model_in *in, struct cpu_topology *ret,
                             struct err *err)
{
    struct cpu_topology t = in->topology;
    uint64_t product;

    if (in->nr_vcpus == 0 || in->nr_vcpus > X86_VCPUS_MAX)
        return err_set(err, -EINVAL, "cpus.max_vcpus: %u, not 1 to %d", in->nr_vcpus,
                       X86_VCPUS_MAX);
    if (!t.threads_per_core && !t.cores_per_die && !t.dies_per_package && !t.packages)
        t = (struct cpu_topology){1, in->nr_vcpus, 1, 1};
    if (t.threads_per_core > X86_VCPUS_MAX || t.cores_per_die > X86_VCPUS_MAX ||
        t.dies_per_package > X86_VCPUS_MAX || t.packages > X86_VCPUS_MAX)
        return err_set(err, -EINVAL, "cpus.topology: more than %d vCPUs", X86_VCPUS_MAX);
    product = (uint64_t)t.threads_per_core * t.cores_per_die;
    product = product > X86_VCPUS_MAX ? 0 : product * t.dies_per_package;
    product = product > X86_VCPUS_MAX ? 0 : product * t.packages;
    if (product != in->nr_vcpus) {
        return err_set(err, -EINVAL, "cpus.topology: %u:%u:%u:%u is not %u vCPUs",
                       t.threads_per_core, t.cores_per_die, t.dies_per_package, t.packages,
                       in->nr_vcpus);
    }
    *ret = t;
    return 0;
}

/* Bits that number @n things. */
static unsigned width(uint32_t n)
{
    unsigned bits = 0;

    while (n > UINT32_C(1) << bits)
        bits++;
    return bits;
}

/* Bits below the core, the die and the package in an APIC id. */
struct shifts {
    unsigned core;
    unsigned die;
    unsigned package;
};

static struct shifts shifts_of(const struct cpu_topology *t)
{
    struct shifts s;

    s.core = width(t->threads_per_core);
    s.die = s.core + width(t->cores_per_die);
    s.package = s.die + width(t->dies_per_package);
    return s;
}

uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned index)
{
    struct shifts s = shifts_of(t);
    uint32_t thread, core, die, package;

    if (!t->threads_per_core || !t->cores_per_die || !t->dies_per_package)
        return index;
    thread = index % t->threads_per_core;
    core = index / t->threads_per_core % t->cores_per_die;
    die = index / t->threads_per_core / t->cores_per_die % t->dies_per_package;
    package = index / t->threads_per_core / t->cores_per_die / t->dies_per_package;
    return package << s.package | die << s.die | core << s.core | thread;
}

uint32_t cpu_model_apic_id(const struct cpu_model *model, unsigned index)
{
    return cpu_topology_apic_id(&model->topology, index);
}

/* --- Building ------------------------------------------------------------ */

/* Whole leaves that are not for guests, or are made anew. */
static bool leaf_is_left_out(const struct cpu_model_in *in, uint32_t function, uint32_t index)
{
    switch (function) {
    case LEAF_PMU:       /* counters differ from CPU to CPU and cannot be moved */
    case LEAF_AMD_PMU:   /* likewise */
    case LEAF_SGX:       /* enclaves cannot be saved */
    case LEAF_PT:        /* traces belong to the host's memory layout */
    case LEAF_SEV:       /* memory that we cannot read cannot be saved */
    case LEAF_TOPOLOGY:  /* made for each vCPU */
    case LEAF_TOPOLOGY2: /* likewise */
    case LEAF_AMD_TOPOLOGY:
    case LEAF_TIMING:
        return true;
    case LEAF_TILE:
    case LEAF_TMUL:
        return !in->amx;
    case LEAF_XSAVE:
        return !in->amx && (index == XSAVE_TILECFG || index == XSAVE_TILEDATA);
    case LEAF_SVM:
        return !in->nested;
    default:
        return false;
    }
}

static void basic_mask(const struct cpu_model_in *in, struct cpu_cpuid *e)
{
    if (e->function == LEAF_FEATURES) {
        e->ebx &= 0x0000ffff; /* APIC id and count: per vCPU */
        e->ecx &= ~(F1_ECX_OSXSAVE | F1_ECX_PDCM);
        e->ecx |= F1_ECX_HYPERVISOR | F1_ECX_X2APIC;
        e->edx &= ~F1_EDX_HT;
        if (!in->nested)
            e->ecx &= ~F1_ECX_VMX;
        if (in->tsc_deadline)
            e->ecx |= F1_ECX_TSC_DEADLINE;
        else
            e->ecx &= ~F1_ECX_TSC_DEADLINE;
    }
    if (e->function == LEAF_EXT_FEATURES && e->index == 0) {
        e->ebx &= ~(F7_EBX_SGX | F7_EBX_PT);
        e->ecx &= ~(F7_ECX_OSPKE | F7_ECX_SGX_LC);
        if (!in->amx)
            e->edx &= ~F7_EDX_AMX;
    }
    if (e->function == LEAF_EXT_FEATURES && e->index == 1 && !in->amx) {
        e->eax &= ~F7_1_EAX_AMX;
        e->edx &= ~F7_1_EDX_AMX;
    }
    if (e->function == LEAF_XSAVE && e->index == 0 && !in->amx)
        e->eax &= ~XCR0_AMX;
}

static void extended_mask(const struct cpu_model_in *in, struct cpu_cpuid *e)
{
    uint32_t max_bits = in->max_phys_bits ? in->max_phys_bits : X86_PHYS_BITS_MAX;

    if (e->function == LEAF_EXT1) {
        e->ecx &= ~(FEXT1_ECX_PERFCTR | FEXT1_ECX_LEGACY);
        if (!in->nested)
            e->ecx &= ~FEXT1_ECX_SVM;
    }
    if (e->function == LEAF_ADDRESS) {
        uint32_t bits = e->eax & 0xff;

        e->eax = (e->eax & 0xff00) | (bits < max_bits ? bits : max_bits);
        e->ecx = 0; /* number of cores: per vCPU */
    }
}

static void kvm_mask(const struct cpu_model_in *in, struct cpu_cpuid *e)
{
    /* KVM's own leaves end where ours end. */
    if (e->function == LEAF_KVM)
        e->eax = in->tsc_khz ? LEAF_TIMING : LEAF_KVM_FEATURES;
}

/* Sizes of the XSAVE area as KVM gives them count the components that were taken out. */
static void xsave_resize(struct cpu_model *m)
{
    struct cpu_cpuid *main = leaf_find(m, LEAF_XSAVE, 0);
    uint32_t size = 512 + 64;

    if (!main)
        return;
    for (uint32_t i = 0; i < m->nr_cpuid; i++) {
        const struct cpu_cpuid *e = &m->cpuid[i];

        if (e->function != LEAF_XSAVE || e->index < 2 || e->index > 31)
            continue;
        if ((main->eax >> e->index & 1) && e->ebx <= UINT32_MAX - e->eax && e->ebx + e->eax > size)
            size = e->ebx + e->eax;
    }
    main->ecx = size;
    if (main->ebx > size)
        main->ebx = size; /* KVM replaces it when XCR0 changes */
}

int cpu_model_build(const struct cpu_model_in *in, struct cpu_model *ret_model, struct err *err)
{
    struct cpu_model m = {.nr_vcpus = in->nr_vcpus, .tsc_khz = in->tsc_khz};
    const struct cpu_cpuid timing = {
        .function = LEAF_TIMING,
        .eax = in->tsc_khz,
        .ebx = LAPIC_BUS_KHZ,
    };
    int rc;

    rc = topology_complete(in, &m.topology, err);
    for (uint32_t i = 0; rc == 0 && i < in->supported->nent; i++) {
        const struct kvm_cpuid_entry2 *k = &in->supported->entries[i];
        struct cpu_cpuid e = {
            .function = k->function,
            .index = k->index,
            .flags = k->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = k->eax,
            .ebx = k->ebx,
            .ecx = k->ecx,
            .edx = k->edx,
        };

        if (leaf_is_left_out(in, e.function, e.index))
            continue;
        basic_mask(in, &e);
        extended_mask(in, &e);
        kvm_mask(in, &e);
        if (!leaf_is_zero(&e))
            rc = leaf_insert(&m, &e, err);
    }
    if (rc == 0 && in->tsc_khz)
        rc = leaf_insert(&m, &timing, err);
    if (rc < 0)
        return rc;
    xsave_resize(&m);
    *ret_model = m;
    return 0;
}

unsigned cpu_model_phys_bits(const struct cpu_model *model)
{
    for (uint32_t i = 0; i < model->nr_cpuid; i++) {
        if (model->cpuid[i].function == LEAF_ADDRESS && (model->cpuid[i].eax & 0xff))
            return model->cpuid[i].eax & 0xff;
    }
    return X86_PHYS_BITS_MIN;
}

/* --- One vCPU ------------------------------------------------------------ */

struct place {
    const struct cpu_model *model;
    uint32_t apic_id;
    uint32_t threads; /* in a core */
    uint32_t per_die; /* logical processors */
    uint32_t logical; /* in a package */
    struct shifts shift;
    bool amd; /* has AMD's leaves for the number of cores */
};

static void put(struct kvm_cpuid2 *c, const struct cpu_cpuid *e)
{
    c->entries[c->nent++] = (struct kvm_cpuid_entry2){
        .function = e->function,
        .index = e->index,
        .flags = e->flags,
        .eax = e->eax,
        .ebx = e->ebx,
        .ecx = e->ecx,
        .edx = e->edx,
    };
}

static uint32_t at_most(uint32_t v, uint32_t max)
{
    return v < max ? v : max;
}

/* Who shares a cache: threads of a core up to level 2, the die at level 3. */
static uint32_t cache_sharing(const struct place *p, uint32_t eax)
{
    uint32_t level = eax >> 5 & 7;
    uint32_t shared = level >= 3 ? UINT32_C(1) << p->shift.die : UINT32_C(1) << p->shift.core;

    return at_most(shared - 1, 0xfff) << 14;
}

static void patch(const struct place *p, struct cpu_cpuid *e)
{
    uint32_t ids = UINT32_C(1) << p->shift.package; /* APIC ids that a package takes */

    switch (e->function) {
    case LEAF_FEATURES:
        e->ebx |= (p->apic_id & 0xff) << 24;
        if (p->logical > 1) {
            e->ebx |= at_most(ids, 0xff) << 16;
            e->edx |= F1_EDX_HT;
        }
        break;
    case LEAF_CACHE:
        if (e->eax & CACHE_TYPE) {
            uint32_t cores = UINT32_C(1) << (p->shift.package - p->shift.core);

            e->eax = (e->eax & 0x3fff) | cache_sharing(p, e->eax) | at_most(cores - 1, 0x3f) << 26;
        }
        break;
    case LEAF_AMD_CACHE:
        if (e->eax & CACHE_TYPE)
            e->eax = (e->eax & 0x3fff) | cache_sharing(p, e->eax);
        break;
    case LEAF_EXT1:
        if (p->amd && p->logical > 1)
            e->ecx |= FEXT1_ECX_LEGACY;
        break;
    case LEAF_ADDRESS:
        if (p->amd)
            e->ecx = at_most(p->logical - 1, 0xff) | at_most(p->shift.package, 0xf) << 12;
        break;
    default:
        break;
    }
}

/* Intel SDM 2A, leaves 0BH and 1FH: a sub-leaf for each level. */
static void topology_put(struct kvm_cpuid2 *c, const struct place *p, uint32_t function,
                         const uint32_t types[], unsigned nr)
{
    for (unsigned i = 0; i <= nr; i++) {
        struct cpu_cpuid e = {
            .function = function,
            .index = i,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .ecx = i,
            .edx = p->apic_id,
        };

        if (i < nr)
            e.ecx |= types[i] << 8;
        if (i < nr && types[i] == 1) {
            e.eax = p->shift.core;
            e.ebx = p->threads;
        } else if (i + 1 < nr) {
            e.eax = p->shift.die;
            e.ebx = p->per_die;
        } else if (i < nr) {
            e.eax = p->shift.package;
            e.ebx = p->logical;
        }
        put(c, &e);
    }
}

/* AMD APM 3, E.4.17: CPUID Fn8000_001E. */
static void amd_topology_put(struct kvm_cpuid2 *c, const struct place *p)
{
    uint32_t dies = p->model->topology.dies_per_package;
    const struct cpu_cpuid e = {
        .function = LEAF_AMD_TOPOLOGY,
        .eax = p->apic_id,
        .ebx = (p->apic_id >> p->shift.core & 0xff) | at_most(p->threads - 1, 0xff) << 8,
        .ecx = (p->apic_id >> p->shift.die & 0xff) | at_most(dies - 1, 7) << 8,
    };

    put(c, &e);
}

int cpu_model_vcpu(const struct cpu_model *model, unsigned index, struct kvm_cpuid2 **ret_cpuid)
{
    static const uint32_t types[] = {1, 2};     /* thread, core */
    static const uint32_t types2[] = {1, 2, 5}; /* thread, core, die */
    const struct cpu_topology *t = &model->topology;
    struct place p = {
        .model = model,
        .apic_id = cpu_model_apic_id(model, index),
        .threads = t->threads_per_core,
        .per_die = t->threads_per_core * t->cores_per_die,
        .logical = t->threads_per_core * t->cores_per_die * t->dies_per_package,
        .shift = shifts_of(t),
    };
    struct kvm_cpuid2 *c;
    uint32_t max = 0;
    bool topoext = false;

    c = calloc(1, sizeof(*c) + CPU_MODEL_VCPU_CPUID_MAX * sizeof(c->entries[0]));
    if (!c)
        return -ENOMEM;
    for (uint32_t i = 0; i < model->nr_cpuid; i++) {
        struct cpu_cpuid e = model->cpuid[i];

        if (e.function == 0) {
            max = e.eax;
            p.amd = e.ebx == VENDOR_AMD_EBX || e.ebx == VENDOR_HYGON_EBX;
        }
        if (e.function == LEAF_EXT1)
            topoext = e.ecx & FEXT1_ECX_TOPOEXT;
        patch(&p, &e);
        put(c, &e);
    }
    if (max >= LEAF_TOPOLOGY)
        topology_put(c, &p, LEAF_TOPOLOGY, types, ARRAY_LEN(types));
    if (max >= LEAF_TOPOLOGY2)
        topology_put(c, &p, LEAF_TOPOLOGY2, types2, ARRAY_LEN(types2));
    if (p.amd && topoext)
        amd_topology_put(c, &p);
    *ret_cpuid = c;
    return 0;
}
