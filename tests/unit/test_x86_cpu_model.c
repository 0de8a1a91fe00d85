/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/x86/cpu_model.h"
#include "core/x86/cpuid_names.h"
#include "tests/fakes/golden.h"

/* --- A host -------------------------------------------------------------- */

enum {
    HOST_LEAVES_MAX = 64,
    INDEXED = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
};

/* What KVM_GET_SUPPORTED_CPUID says on a made-up Intel machine with everything. */
static const struct kvm_cpuid_entry2 intel[] = {
  /* clang-format off */
    {.function = 0x0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
    {.function = 0x1, .eax = 0x806f8, .ebx = 0x07400800, .ecx = 0xfffa32af, .edx = 0x1f8bfbff},
    {.function = 0x4, .index = 0, .flags = INDEXED, .eax = 0x7c004121, .ebx = 0x01c0003f, .ecx = 0x3f},
    {.function = 0x4, .index = 2, .flags = INDEXED, .eax = 0x7c004143, .ebx = 0x03c0003f, .ecx = 0x7ff},
    {.function = 0x4, .index = 3, .flags = INDEXED, .eax = 0x7c0fc163, .ebx = 0x0380003f, .ecx = 0xffff},
    {.function = 0x4, .index = 4, .flags = INDEXED},
    {.function = 0x6, .eax = 0x4},
    {.function = 0x7, .index = 0, .flags = INDEXED, .eax = 2, .ebx = 0xf3bfbfef, .ecx = 0x5b417f7e, .edx = 0xbfc04412},
    {.function = 0x7, .index = 1, .flags = INDEXED, .eax = 0x00201c30},
    {.function = 0xa, .eax = 0x08300802},
    {.function = 0xb, .index = 0, .flags = INDEXED, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 7},
    {.function = 0xd, .index = 0, .flags = INDEXED, .eax = 0x602e7, .ebx = 0xa88, .ecx = 0x2b00},
    {.function = 0xd, .index = 1, .flags = INDEXED, .eax = 0x1f, .ebx = 0xa88},
    {.function = 0xd, .index = 2, .flags = INDEXED, .eax = 0x100, .ebx = 0x240},
    {.function = 0xd, .index = 5, .flags = INDEXED, .eax = 0x40, .ebx = 0x440},
    {.function = 0xd, .index = 6, .flags = INDEXED, .eax = 0x200, .ebx = 0x480},
    {.function = 0xd, .index = 7, .flags = INDEXED, .eax = 0x400, .ebx = 0x680},
    {.function = 0xd, .index = 9, .flags = INDEXED, .eax = 0x8, .ebx = 0xa80},
    {.function = 0xd, .index = 17, .flags = INDEXED, .eax = 0x40, .ebx = 0xac0, .ecx = 2},
    {.function = 0xd, .index = 18, .flags = INDEXED, .eax = 0x2000, .ebx = 0xb00, .ecx = 6},
    {.function = 0x12, .index = 0, .flags = INDEXED, .eax = 0x63},
    {.function = 0x14, .index = 0, .flags = INDEXED, .eax = 1, .ebx = 0xf},
    {.function = 0x1d, .index = 0, .flags = INDEXED, .eax = 1},
    {.function = 0x1d, .index = 1, .flags = INDEXED, .eax = 0x04002000, .ebx = 0x80040, .ecx = 0x10},
    {.function = 0x1e, .index = 0, .flags = INDEXED, .ebx = 0x4010},
    {.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b, .ecx = 0x564b4d56, .edx = 0x4d},
    {.function = 0x40000001, .eax = 0x01007efb},
    {.function = 0x80000000, .eax = 0x80000008},
    {.function = 0x80000001, .eax = 0, .ecx = 0x121, .edx = 0x2c100800},
    {.function = 0x80000007, .edx = 0x100},
    {.function = 0x80000008, .eax = 0x3934, .ebx = 0x0100d200},
  /* clang-format on */
};

struct host {
    struct kvm_cpuid2 *cpuid;
    struct cpu_model_in in;
};

static void host_init(struct host *h)
{
    h->cpuid = calloc(1, sizeof(*h->cpuid) + HOST_LEAVES_MAX * sizeof(h->cpuid->entries[0]));
    assert_non_null(h->cpuid);
    h->cpuid->nent = ARRAY_LEN(intel);
    memcpy(h->cpuid->entries, intel, sizeof(intel));
    h->in = (struct cpu_model_in){
        .supported = h->cpuid,
        .nr_vcpus = 4,
        .tsc_khz = 2000000,
        .tsc_deadline = true,
    };
}

static struct kvm_cpuid_entry2 *host_leaf(struct host *h, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < h->cpuid->nent; i++) {
        if (h->cpuid->entries[i].function == function && h->cpuid->entries[i].index == index)
            return &h->cpuid->entries[i];
    }
    fail_msg("no leaf %x.%x", function, index);
    return NULL;
}

static struct cpu_model build(const struct host *h)
{
    static struct cpu_model m;
    struct err err = {0};

    if (cpu_model_build(&h->in, &m, &err) < 0)
        fail_msg("%s", err.msg);
    return m;
}

static const struct cpu_cpuid *leaf(const struct cpu_model *m, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < m->nr_cpuid; i++) {
        if (m->cpuid[i].function == function && m->cpuid[i].index == index)
            return &m->cpuid[i];
    }
    return NULL;
}

static struct kvm_cpuid_entry2 vcpu_leaf(const struct cpu_model *m, unsigned vcpu,
                                         uint32_t function, uint32_t index)
{
    struct kvm_cpuid_entry2 e = {0};
    struct kvm_cpuid2 *c;
    bool found = false;

    assert_int_equal(cpu_model_vcpu(m, vcpu, &c), 0);
    for (uint32_t i = 0; i < c->nent; i++) {
        if (c->entries[i].function == function && c->entries[i].index == index) {
            assert_false(found); /* KVM takes the first of several */
            e = c->entries[i];
            found = true;
        }
    }
    free(c);
    return e;
}

/* --- Masks --------------------------------------------------------------- */

static void test_what_cannot_be_moved_is_left_out(void **state)
{
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    m = build(&h);
    assert_null(leaf(&m, 0xa, 0));
    assert_null(leaf(&m, 0x12, 0));
    assert_null(leaf(&m, 0x14, 0));
    assert_null(leaf(&m, 0x1d, 0));
    assert_null(leaf(&m, 0xd, 18));
    assert_int_equal(leaf(&m, 0x1, 0)->ecx & (1 << 5 | 1 << 15 | 1 << 27), 0);
    assert_int_equal(leaf(&m, 0x7, 0)->ebx & (1 << 2 | 1 << 25), 0);
    assert_int_equal(leaf(&m, 0x7, 0)->ecx & (1 << 4 | 1 << 30), 0);
    assert_int_equal(leaf(&m, 0x7, 0)->edx & (1 << 22 | 1 << 24 | 1 << 25), 0);
    assert_int_equal(leaf(&m, 0x7, 1)->eax, 0x1c30);
    assert_int_equal(leaf(&m, 0xd, 0)->eax, 0x2e7);
    assert_int_equal(leaf(&m, 0xd, 0)->ecx, 0xa88);
    free(h.cpuid);
}

static void test_options_bring_features_back(void **state)
{
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    h.in.amx = true;
    h.in.nested = true;
    m = build(&h);
    assert_non_null(leaf(&m, 0x1d, 1));
    assert_int_equal(leaf(&m, 0xd, 0)->eax, 0x602e7);
    assert_int_equal(leaf(&m, 0xd, 0)->ecx, 0x2b00);
    assert_int_equal(leaf(&m, 0x7, 0)->edx, 0xbfc04412);
    assert_true(leaf(&m, 0x1, 0)->ecx & 1 << 5);
    h.in.tsc_deadline = false;
    m = build(&h);
    assert_false(leaf(&m, 0x1, 0)->ecx & 1 << 24);
    free(h.cpuid);
}

static void test_every_guest_is_told_of_a_hypervisor(void **state)
{
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    host_leaf(&h, 0x1, 0)->ecx = 0;
    m = build(&h);
    assert_int_equal(leaf(&m, 0x1, 0)->ecx, 1U << 31 | 1 << 24 | 1 << 21);
    assert_int_equal(leaf(&m, 0x40000000, 0)->eax, 0x40000010);
    assert_int_equal(leaf(&m, 0x40000010, 0)->eax, 2000000);
    assert_int_equal(leaf(&m, 0x40000010, 0)->ebx, 1000000);
    h.in.tsc_khz = 0;
    m = build(&h);
    assert_null(leaf(&m, 0x40000010, 0));
    assert_int_equal(leaf(&m, 0x40000000, 0)->eax, 0x40000001);
    free(h.cpuid);
}

static void test_address_bits_are_limited(void **state)
{
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    m = build(&h);
    assert_int_equal(cpu_model_phys_bits(&m), 46);
    h.in.max_phys_bits = 40;
    m = build(&h);
    assert_int_equal(cpu_model_phys_bits(&m), 40);
    h.in.max_phys_bits = 52;
    m = build(&h);
    assert_int_equal(cpu_model_phys_bits(&m), 52);
    assert_int_equal(leaf(&m, 0x80000008, 0)->eax, 0x3934);
    free(h.cpuid);
}

static void test_too_many_leaves_are_refused(void **state)
{
    struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 300 * sizeof(c->entries[0]));
    struct cpu_model_in in = {.supported = c, .nr_vcpus = 1};
    static struct cpu_model m;

    (void)state;
    assert_non_null(c);
    c->nent = 300;
    /* Descending, zero but for one: kept once, in order. */
    for (uint32_t i = 0; i < 300; i++)
        c->entries[i] = (struct kvm_cpuid_entry2){.function = 0x80001000 - i, .eax = i == 7};
    assert_int_equal(cpu_model_build(&in, &m, NULL), 0);
    assert_int_equal(m.nr_cpuid, 1);
    for (uint32_t i = 0; i < 300; i++)
        c->entries[i].eax = 1;
    assert_int_equal(cpu_model_build(&in, &m, NULL), -E2BIG);
    c->nent = CPU_MODEL_CPUID_MAX;
    assert_int_equal(cpu_model_build(&in, &m, NULL), 0);
    for (uint32_t i = 1; i < m.nr_cpuid; i++)
        assert_true(m.cpuid[i - 1].function < m.cpuid[i].function);
    free(c);
}

/* --- Topology ------------------------------------------------------------ */

static void test_topology_must_multiply_to_the_vcpus(void **state)
{
    static const struct cpu_topology bad[] = {
        {1,          3,          1, 1},
        {0,          4,          1, 1},
        {4,          1,          1, 0},
        {UINT32_MAX, UINT32_MAX, 1, 1},
        {65536,      65536,      1, 4},
    };
    static struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = {0};

        h.in.topology = bad[i];
        assert_int_equal(cpu_model_build(&h.in, &m, &err), -EINVAL);
        assert_int_equal(strncmp(err.msg, "cpus.topology: ", 15), 0);
    }
    h.in.topology = (struct cpu_topology){2, 2, 1, 1};
    assert_int_equal(cpu_model_build(&h.in, &m, NULL), 0);
    h.in.nr_vcpus = 0;
    assert_int_equal(cpu_model_build(&h.in, &m, NULL), -EINVAL);
    free(h.cpuid);
}

static void test_apic_ids_leave_gaps_where_groups_are_odd(void **state)
{
    static const uint32_t want[12] = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13};
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    h.in.nr_vcpus = 12;
    h.in.topology = (struct cpu_topology){2, 3, 1, 2};
    m = build(&h);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(cpu_model_apic_id(&m, i), want[i]);
    h.in.topology = (struct cpu_topology){0};
    m = build(&h);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(cpu_model_apic_id(&m, i), i);
        assert_int_equal(cpu_topology_apic_id(&h.in.topology, i), i);
    }
    free(h.cpuid);
}

static void test_leaves_tell_each_vcpu_its_place(void **state)
{
    struct kvm_cpuid_entry2 e;
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    h.in.nr_vcpus = 16;
    h.in.topology = (struct cpu_topology){2, 2, 2, 2};
    m = build(&h);
    for (unsigned i = 0; i < 16; i++) {
        e = vcpu_leaf(&m, i, 0x1, 0);
        assert_int_equal(e.ebx >> 24, i);
        assert_int_equal(e.ebx >> 16 & 0xff, 8);
        assert_true(e.edx & 1 << 28);
        e = vcpu_leaf(&m, i, 0xb, 0);
        assert_true(e.eax == 1 && e.ebx == 2 && e.ecx == 0x100 && e.edx == i);
        e = vcpu_leaf(&m, i, 0xb, 1);
        assert_true(e.eax == 3 && e.ebx == 8 && e.ecx == 0x201 && e.edx == i);
        e = vcpu_leaf(&m, i, 0xb, 2);
        assert_true(e.eax == 0 && e.ebx == 0 && e.ecx == 2 && e.edx == i);
        e = vcpu_leaf(&m, i, 0x1f, 1);
        assert_true(e.eax == 2 && e.ebx == 4 && e.ecx == 0x201 && e.edx == i);
        e = vcpu_leaf(&m, i, 0x1f, 2);
        assert_true(e.eax == 3 && e.ebx == 8 && e.ecx == 0x502 && e.edx == i);
    }
    e = vcpu_leaf(&m, 0, 0x4, 0); /* L1: the threads of a core, 4 cores in a package */
    assert_int_equal(e.eax, 0x121 | 1 << 14 | 3 << 26);
    e = vcpu_leaf(&m, 0, 0x4, 3); /* L3: a die */
    assert_int_equal(e.eax, 0x163 | 3 << 14 | 3 << 26);
    e = vcpu_leaf(&m, 0, 0x80000008, 0); /* AMD's */
    assert_int_equal(e.ecx, 0);
    free(h.cpuid);
}

static void test_amd_has_its_own_leaves(void **state)
{
    struct kvm_cpuid_entry2 e;
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    host_leaf(&h, 0, 0)->ebx = 0x68747541;
    host_leaf(&h, 0x80000001, 0)->ecx = 1 << 22 | 1 << 23 | 1 << 2;
    *host_leaf(&h, 0x1e, 0) = (struct kvm_cpuid_entry2){
        .function = 0x8000001d, .index = 3, .flags = INDEXED, .eax = 0x3c163};
    h.in.nr_vcpus = 8;
    h.in.topology = (struct cpu_topology){2, 2, 1, 2};
    m = build(&h);
    e = vcpu_leaf(&m, 7, 0x8000001e, 0);
    assert_true(e.eax == 7 && e.ebx == (3 | 1 << 8) && e.ecx == 1);
    e = vcpu_leaf(&m, 7, 0x8000001d, 3);
    assert_int_equal(e.eax, 0x163 | 3 << 14);
    e = vcpu_leaf(&m, 7, 0x80000008, 0);
    assert_int_equal(e.ecx, 3 | 2 << 12);
    e = vcpu_leaf(&m, 7, 0x80000001, 0);
    assert_int_equal(e.ecx, 1 << 22 | 1 << 1);
    free(h.cpuid);
}

static void test_one_vcpu_is_no_hyper_threading(void **state)
{
    struct kvm_cpuid_entry2 e;
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    h.in.nr_vcpus = 1;
    m = build(&h);
    e = vcpu_leaf(&m, 0, 0x1, 0);
    assert_int_equal(e.ebx, 0x0800);
    assert_false(e.edx & 1 << 28);
    free(h.cpuid);
}

/* --- Comparison ---------------------------------------------------------- */

struct lacks {
    char text[4096];
};

static void lacks_add(void *arg, const char *name, const char *why)
{
    struct lacks *l = arg;
    size_t n = strlen(l->text);

    (void)snprintf(l->text + n, sizeof(l->text) - n, "%s: %s\n", name, why);
}

static void test_a_model_runs_where_it_was_made_and_on_more(void **state)
{
    struct err err = {0};
    struct cpu_model m;
    struct cpu_model host;
    struct host h;

    (void)state;
    host_init(&h);
    m = build(&h);
    assert_int_equal(cpu_model_check(&m, &m, NULL), 0);
    host_leaf(&h, 0x7, 0)->ecx |= 1 << 8;
    host_leaf(&h, 0x1, 0)->eax = 0xc06f2;
    h.in.max_phys_bits = 52;
    host = build(&h);
    assert_int_equal(cpu_model_check(&m, &host, NULL), 0);
    assert_int_equal(cpu_model_check(&host, &m, NULL), -ENOTSUP);
    /* Another configuration is no question of features. */
    host = m;
    host.topology = (struct cpu_topology){2, 2, 1, 1};
    assert_int_equal(cpu_model_check(&m, &host, NULL), -EBADMSG);
    host.nr_vcpus = 8;
    assert_int_equal(cpu_model_check(&m, &host, &err), -EBADMSG);
    assert_string_equal(err.msg, "cpu-model.nr_vcpus: 4, the configuration says 8");
    free(h.cpuid);
}

static void test_every_missing_feature_is_named(void **state)
{
    static const struct {
        uint32_t function;
        uint32_t index;
        enum cpuid_reg reg;
        uint32_t clear;
        const char *want;
    } rows[] = {
  /* clang-format off */
        {0x7, 0, CPUID_EBX, 1 << 16, "cpuid.7.0.ebx.avx512f: not offered by this host\n"},
        {0x7, 0, CPUID_EDX, 1 << 4, "cpuid.7.0.edx.fsrm: not offered by this host\n"},
        {0x1, 0, CPUID_ECX, 1 << 25, "cpuid.1.ecx.aes: not offered by this host\n"},
        {0xd, 0, CPUID_EAX, 1 << 5, "cpuid.d.0.eax.opmask: not offered by this host\n"},
        {0xd, 2, CPUID_EBX, 0x200, "cpuid.d.2.ebx.offset: 0x240, this host has 0x40\n"},
        {0x40000001, 0, CPUID_EAX, 1 << 6, "cpuid.40000001.eax.kvm_pv_eoi: not offered by this host\n"},
        {0x80000001, 0, CPUID_EDX, 1 << 27, "cpuid.80000001.edx.rdtscp: not offered by this host\n"},
        {0x80000008, 0, CPUID_EAX, 0x14, "cpuid.80000008.eax.phys_bits: 0x2e, this host has 0x20\n"},
        {0x80000008, 0, CPUID_EBX, 1 << 9, "cpuid.80000008.ebx.wbnoinvd: not offered by this host\n"},
        {0x7, 1, CPUID_EAX, 0x30,
         "cpuid.7.1.eax.avx_vnni: not offered by this host\n"
         "cpuid.7.1.eax.avx512_bf16: not offered by this host\n"},
        {0x0, 0, CPUID_EBX, 0x6, "cpuid.0.ebx.vendor: 0x756e6547, this host has 0x756e6541\n"},
        {0x7, 0, CPUID_EDX, UINT32_C(1) << 31, "cpuid.7.0.edx.spec_ctrl_ssbd: not offered by this host\n"},
  /* clang-format on */
    };
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    m = build(&h);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct kvm_cpuid_entry2 *e = host_leaf(&h, rows[i].function, rows[i].index);
        uint32_t *regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};
        uint32_t old = *regs[rows[i].reg];
        struct lacks l = {.text = ""};
        struct cpu_model host;
        unsigned nr;

        *regs[rows[i].reg] &= ~rows[i].clear;
        host = build(&h);
        nr = cpu_model_lacks(&m, &host, lacks_add, &l);
        assert_string_equal(l.text, rows[i].want);
        assert_true(nr > 0);
        assert_int_equal(cpu_model_lacks(&m, &host, NULL, NULL), nr);
        *regs[rows[i].reg] = old;
    }
    free(h.cpuid);
}

static void test_a_bit_without_a_name_has_its_number(void **state)
{
    struct cpu_model m;
    struct cpu_model host;
    struct err err = {0};
    struct host h;

    (void)state;
    host_init(&h);
    host = build(&h);
    host_leaf(&h, 0x1, 0)->edx |= 1 << 20;
    m = build(&h);
    assert_int_equal(cpu_model_check(&m, &host, &err), -ENOTSUP);
    assert_string_equal(err.msg, "this host lacks cpuid.1.edx.bit20");
    free(h.cpuid);
}

static void test_a_long_list_is_cut_and_counted(void **state)
{
    static const struct cpu_model none = {
        .nr_vcpus = 4,
        .topology = {1, 4, 1, 1},
    };
    struct cpu_model m;
    struct err err = {0};
    unsigned long rest;
    unsigned named = 1;
    struct host h;

    (void)state;
    host_init(&h);
    m = build(&h);
    assert_int_equal(cpu_model_check(&m, &none, &err), -ENOTSUP);
    assert_true(strlen(err.msg) < ERR_MSG_SIZE - 1);
    for (const char *p = err.msg; (p = strstr(p, ", cpuid")); p++)
        named++;
    rest = strtoul(strstr(err.msg, ", and ") + strlen(", and "), NULL, 10);
    assert_int_equal(named + rest, cpu_model_lacks(&m, &none, NULL, NULL));
    assert_true(rest > 100);
    free(h.cpuid);
}

static void test_tsc_frequencies(void **state)
{
    static const struct {
        uint32_t src;
        uint32_t host;
        bool scale;
        bool accept;
        int rc;
        enum cpu_tsc_action action;
    } rows[] = {
        {2000000,    2000000, false, false, 0,        CPU_TSC_KEEP },
        {2000000,    2000000, true,  false, 0,        CPU_TSC_KEEP },
        {2000500,    2000000, false, false, 0,        CPU_TSC_KEEP },
        {2000501,    2000000, false, false, -ENOTSUP, CPU_TSC_KEEP },
        {1999500,    2000000, false, false, 0,        CPU_TSC_KEEP },
        {1999499,    2000000, false, false, -ENOTSUP, CPU_TSC_KEEP },
        {2000501,    2000000, true,  false, 0,        CPU_TSC_SCALE},
        {2000501,    2000000, false, true,  0,        CPU_TSC_KEEP },
        {0,          2000000, false, false, 0,        CPU_TSC_KEEP },
        {2000000,    0,       true,  false, 0,        CPU_TSC_KEEP },
        {UINT32_MAX, 1,       false, false, -ENOTSUP, CPU_TSC_KEEP },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct cpu_tsc_in in = {rows[i].src, rows[i].host, rows[i].scale, rows[i].accept};
        enum cpu_tsc_action action = CPU_TSC_KEEP;

        assert_int_equal(cpu_tsc_check(&in, &action, NULL), rows[i].rc);
        assert_int_equal(action, rows[i].action);
    }
}

/* --- State --------------------------------------------------------------- */

static int load(const uint8_t *data, size_t len, struct cpu_model *m, struct err *err)
{
    struct state_section sec;
    void *scratch;
    int rc = state_section_next(&data, &len, &sec, err);

    if (rc <= 0)
        return rc < 0 ? rc : -EBADMSG;
    rc = state_stage(&sec, &cpu_model_state, m, &scratch, err);
    if (rc == 0)
        state_commit(&cpu_model_state, scratch, m);
    return rc;
}

static void test_state_is_the_golden_one(void **state)
{
    static struct cpu_model back;
    struct state_buf buf = {0};
    struct cpu_model m;
    struct host h;

    (void)state;
    host_init(&h);
    m = build(&h);
    assert_int_equal(state_save(&cpu_model_state, "cpu-model", &m, &buf, NULL), 0);
    golden_check("state/cpu-model-v1.cbor", buf.data, buf.len);
    assert_int_equal(load(buf.data, buf.len, &back, NULL), 0);
    assert_int_equal(back.nr_cpuid, m.nr_cpuid);
    assert_memory_equal(back.cpuid, m.cpuid, m.nr_cpuid * sizeof(m.cpuid[0]));
    assert_int_equal(back.tsc_khz, 2000000);
    assert_int_equal(back.topology.cores_per_die, 4);
    state_buf_release(&buf);
    free(h.cpuid);
}

static void test_impossible_state_is_refused_by_name(void **state)
{
    static struct cpu_model back;
    struct cpu_model good;
    struct host h;

    (void)state;
    host_init(&h);
    good = build(&h);
    for (unsigned i = 0; i < 6; i++) {
        static const char *const want[] = {
            "cpu-model.topology: ",      "cpu-model.topology: ",       "cpu-model.topology: ",
            "cpu-model.cpuid[1].flags:", "cpu-model.cpuid[3]: 4.0 is", "cpu-model.cpuid[",
        };
        struct cpu_model m = good;
        struct cpu_model before = back;
        struct state_buf buf = {0};
        struct err err = {0};

        if (i == 0)
            m.nr_vcpus = 5;
        if (i == 1)
            m.topology.packages = 0;
        if (i == 2)
            m.topology = (struct cpu_topology){UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
        if (i == 3)
            m.cpuid[1].flags = 2;
        if (i == 4)
            m.cpuid[3] = m.cpuid[2];
        if (i == 5)
            m.cpuid[m.nr_cpuid - 1].eax = 53;
        assert_int_equal(state_save(&cpu_model_state, "cpu-model", &m, &buf, NULL), 0);
        assert_int_equal(load(buf.data, buf.len, &back, &err), -EBADMSG);
        if (!strstr(err.msg, want[i]))
            fail_msg("%u: %s", i, err.msg);
        assert_memory_equal(&back, &before, sizeof(back));
        state_buf_release(&buf);
    }
    free(h.cpuid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_cannot_be_moved_is_left_out),
        cmocka_unit_test(test_options_bring_features_back),
        cmocka_unit_test(test_every_guest_is_told_of_a_hypervisor),
        cmocka_unit_test(test_address_bits_are_limited),
        cmocka_unit_test(test_too_many_leaves_are_refused),
        cmocka_unit_test(test_topology_must_multiply_to_the_vcpus),
        cmocka_unit_test(test_apic_ids_leave_gaps_where_groups_are_odd),
        cmocka_unit_test(test_leaves_tell_each_vcpu_its_place),
        cmocka_unit_test(test_amd_has_its_own_leaves),
        cmocka_unit_test(test_one_vcpu_is_no_hyper_threading),
        cmocka_unit_test(test_a_model_runs_where_it_was_made_and_on_more),
        cmocka_unit_test(test_every_missing_feature_is_named),
        cmocka_unit_test(test_a_bit_without_a_name_has_its_number),
        cmocka_unit_test(test_a_long_list_is_cut_and_counted),
        cmocka_unit_test(test_tsc_frequencies),
        cmocka_unit_test(test_state_is_the_golden_one),
        cmocka_unit_test(test_impossible_state_is_refused_by_name),
    };

    return cmocka_run_group_tests_name("x86/cpu_model", tests, NULL, NULL);
}
