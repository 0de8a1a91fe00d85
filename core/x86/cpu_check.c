/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model as state, and the question whether a host can stand in for another.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/x86/cpu_model.h"
#include "core/x86/cpuid_names.h"
#include "core/x86/layout.h"

/* --- State --------------------------------------------------------------- */

static const struct state_field cpuid_fields[] = {
    /* clang-format off */
    STATE(struct cpu_cpuid, 1, U32, function),
    STATE(struct cpu_cpuid, 1, U32, index),
    STATE(struct cpu_cpuid, 1, U32, flags),
    STATE(struct cpu_cpuid, 1, U32, eax),
    STATE(struct cpu_cpuid, 1, U32, ebx),
    STATE(struct cpu_cpuid, 1, U32, ecx),
    STATE(struct cpu_cpuid, 1, U32, edx),
    /* clang-format on */
};

static const struct state_desc cpuid_desc = {
    .name = "cpuid",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct cpu_cpuid),
    .fields = cpuid_fields,
    .nr_fields = ARRAY_LEN(cpuid_fields),
};

static const struct state_field topology_fields[] = {
    /* clang-format off */
    STATE(struct cpu_topology, 1, U32, threads_per_core),
    STATE(struct cpu_topology, 1, U32, cores_per_die),
    STATE(struct cpu_topology, 1, U32, dies_per_package),
    STATE(struct cpu_topology, 1, U32, packages),
    /* clang-format on */
};

static const struct state_desc topology_desc = {
    .name = "cpu-topology",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct cpu_topology),
    .fields = topology_fields,
    .nr_fields = ARRAY_LEN(topology_fields),
};

static const struct state_field model_fields[] = {
    /* clang-format off */
    STATE_LIST(struct cpu_model,   1, &cpuid_desc,    cpuid, nr_cpuid),
    STATE_STRUCT(struct cpu_model, 1, &topology_desc, topology),
    STATE(struct cpu_model,        1, U32,            nr_vcpus),
    STATE(struct cpu_model,        1, U32,            tsc_khz),
    /* clang-format on */
};

static bool topology_is_sane(const struct cpu_topology *t, uint32_t nr_vcpus)
{
    const uint32_t parts[] = {t->threads_per_core, t->cores_per_die, t->dies_per_package,
                              t->packages};
    uint64_t product = 1;

    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i] == 0 || parts[i] > X86_VCPUS_MAX)
            return false;
        product *= parts[i];
        if (product > X86_VCPUS_MAX)
            return false;
    }
    return product == nr_vcpus;
}

static int model_state_check(const void *scratch, const void *live, struct err *err)
{
    const struct cpu_model *m = scratch;

    (void)live;
    if (!topology_is_sane(&m->topology, m->nr_vcpus)) {
        return err_set(err, -EBADMSG, "cpu-model.topology: %u:%u:%u:%u is not %u vCPUs",
                       m->topology.threads_per_core, m->topology.cores_per_die,
                       m->topology.dies_per_package, m->topology.packages, m->nr_vcpus);
    }
    for (uint32_t i = 0; i < m->nr_cpuid; i++) {
        const struct cpu_cpuid *e = &m->cpuid[i];
        const struct cpu_cpuid *last = i > 0 ? e - 1 : NULL;

        if (e->flags & ~(uint32_t)KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
            return err_set(err, -EBADMSG, "cpu-model.cpuid[%u].flags: %#x", i, e->flags);
        if (last && (last->function > e->function ||
                     (last->function == e->function && last->index >= e->index)))
            return err_set(err, -EBADMSG, "cpu-model.cpuid[%u]: %x.%x is out of order", i,
                           e->function, e->index);
        if (e->function == 0x80000008 && (e->eax & 0xff) > 52)
            return err_set(err, -EBADMSG, "cpu-model.cpuid[%u].eax: %u address bits", i,
                           e->eax & 0xff);
    }
    return 0;
}

const struct state_desc cpu_model_state = {
    .name = "cpu-model",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct cpu_model),
    .fields = model_fields,
    .nr_fields = ARRAY_LEN(model_fields),
    .check = model_state_check,
};

/* --- Comparison ---------------------------------------------------------- */

static uint32_t reg_get(const struct cpu_cpuid *e, enum cpuid_reg reg)
{
    const uint32_t regs[] = {e->eax, e->ebx, e->ecx, e->edx};

    return regs[reg];
}

static const struct cpu_cpuid *leaf_find(const struct cpu_model *m, uint32_t function,
                                         uint32_t index)
{
    for (uint32_t i = 0; i < m->nr_cpuid; i++) {
        if (m->cpuid[i].function == function && m->cpuid[i].index == index)
            return &m->cpuid[i];
    }
    return NULL;
}

/* A comparison under way. */
struct compare {
    cpu_model_lack_fn fn;
    void *arg;
    unsigned nr;
    const struct cpuid_check *last; /* a field in several registers is reported once */
};

static void lack(struct compare *c, const struct cpuid_check *k, uint32_t index, const char *field,
                 const char *why)
{
    char name[CPU_MODEL_NAME_MAX];

    c->nr++;
    if (!c->fn)
        return;
    if (k->function == 0x7 || k->function == 0xd || k->function == 0x1d) {
        (void)snprintf(name, sizeof(name), "cpuid.%x.%x.%s.%s", k->function, index,
                       cpuid_reg_name(k->reg), field);
    } else {
        (void)snprintf(name, sizeof(name), "cpuid.%x.%s.%s", k->function, cpuid_reg_name(k->reg),
                       field);
    }
    c->fn(c->arg, name, why);
}

static void compare_bits(struct compare *c, const struct cpuid_check *k, uint32_t index,
                         uint32_t missing)
{
    for (unsigned bit = 0; bit < 32; bit++) {
        char number[8];

        if (!(missing >> bit & 1))
            continue;
        (void)snprintf(number, sizeof(number), "bit%u", bit);
        lack(c, k, index, k->names[bit] ? k->names[bit] : number, "not offered by this host");
    }
}

static void compare_field(struct compare *c, const struct cpuid_check *k, uint32_t index,
                          const uint32_t vals[2])
{
    char why[64];

    if (k->rule == CPUID_EQUAL ? vals[0] == vals[1] : vals[0] <= vals[1])
        return;
    if (c->last && c->last->function == k->function && strcmp(c->last->what, k->what) == 0)
        return;
    c->last = k;
    (void)snprintf(why, sizeof(why), "%#x, this host has %#x", vals[0], vals[1]);
    lack(c, k, index, k->what, why);
}

unsigned cpu_model_lacks(const struct cpu_model *src, const struct cpu_model *host,
                         cpu_model_lack_fn fn, void *arg)
{
    struct compare c = {.fn = fn, .arg = arg};
    const struct cpuid_check *checks;
    size_t nr;

    checks = cpuid_checks(&nr);
    for (size_t i = 0; i < nr; i++) {
        const struct cpuid_check *k = &checks[i];

        for (uint32_t index = k->index; index <= k->index_last; index++) {
            const struct cpu_cpuid *s = leaf_find(src, k->function, index);
            const struct cpu_cpuid *h = leaf_find(host, k->function, index);
            uint32_t vals[2] = {s ? reg_get(s, k->reg) & k->mask : 0,
                                h ? reg_get(h, k->reg) & k->mask : 0};

            if (!s)
                continue;
            if (k->rule == CPUID_SUBSET)
                compare_bits(&c, k, index, vals[0] & ~vals[1]);
            else
                compare_field(&c, k, index, vals);
        }
    }
    return c.nr;
}

/* As many names as fit into an error. */
struct message {
    char text[ERR_MSG_SIZE - 64];
    size_t len;
    unsigned left_out;
};

static void message_add(void *arg, const char *name, const char *why)
{
    struct message *m = arg;
    size_t len = strlen(name);

    (void)why;
    if (m->left_out || len + 3 > sizeof(m->text) - m->len) {
        m->left_out++;
        return;
    }
    m->len += (size_t)snprintf(m->text + m->len, sizeof(m->text) - m->len, "%s%s",
                               m->len ? ", " : "", name);
}

int cpu_model_check(const struct cpu_model *src, const struct cpu_model *host, struct err *err)
{
    const struct cpu_topology *st = &src->topology;
    const struct cpu_topology *ht = &host->topology;
    struct message m = {.len = 0};

    if (src->nr_vcpus != host->nr_vcpus)
        return err_set(err, -EBADMSG, "cpu-model.nr_vcpus: %u, the configuration says %u",
                       src->nr_vcpus, host->nr_vcpus);
    if (memcmp(st, ht, sizeof(*st)) != 0) {
        return err_set(err, -EBADMSG,
                       "cpu-model.topology: %u:%u:%u:%u, the configuration says %u:%u:%u:%u",
                       st->threads_per_core, st->cores_per_die, st->dies_per_package, st->packages,
                       ht->threads_per_core, ht->cores_per_die, ht->dies_per_package, ht->packages);
    }
    if (cpu_model_lacks(src, host, message_add, &m) == 0)
        return 0;
    if (m.left_out)
        return err_set(err, -ENOTSUP, "this host lacks %s, and %u more", m.text, m.left_out);
    return err_set(err, -ENOTSUP, "this host lacks %s", m.text);
}

int cpu_tsc_check(const struct cpu_tsc_in *in, enum cpu_tsc_action *ret_action, struct err *err)
{
    uint64_t src = in->src_khz;
    uint64_t host = in->host_khz;
    uint64_t diff = src > host ? src - host : host - src;

    if (src != 0 && host != 0 && src != host && in->can_scale) {
        *ret_action = CPU_TSC_SCALE;
        return 0;
    }
    /* KVM takes frequencies this near for the same (its module parameter tsc_tolerance_ppm). */
    if (src == 0 || host == 0 || in->accept || diff * 1000000 <= host * CPU_TSC_TOLERANCE_PPM) {
        *ret_action = CPU_TSC_KEEP;
        return 0;
    }
    return err_set(err, -ENOTSUP,
                   "tsc: the guest's runs at %" PRIu64 " kHz, this host's at %" PRIu64
                   " kHz, and it cannot scale (accept_tsc=on runs it all the same)",
                   src, host);
}
