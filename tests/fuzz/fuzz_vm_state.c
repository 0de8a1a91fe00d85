/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what describes a machine, and as the state of its processors.
 * Refused: explained, and nothing changed.  Accepted: saved and read again, it
 * is the same.
 */
#include <string.h>

#include "core/config/vm_config.h"
#include "core/vm.h"
#include "core/x86/cpu_model.h"
#include "core/x86/vcpu_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void must_explain(int rc, const struct err *err)
{
    must(rc < 0 && err->code == rc && err->msg[0]);
}

/* @obj as a section, into a fresh object, as a section: the same bytes. */
static void round_trip(const struct state_desc *desc, const char *id, const void *obj)
{
    struct state_buf first = {0}, second = {0};
    void *fresh = calloc(1, desc->size), *scratch = NULL;
    struct state_section sec;
    struct err err = {0};
    const uint8_t *p;
    size_t left;

    must(fresh && state_save(desc, id, obj, &first, &err) == 0);
    p = first.data;
    left = first.len;
    must(state_section_next(&p, &left, &sec, &err) == 1 && left == 0);
    must(state_stage(&sec, desc, fresh, &scratch, &err) == 0);
    state_commit(desc, scratch, fresh);
    must(state_save(desc, id, fresh, &second, &err) == 0);
    must(first.len == second.len && !memcmp(first.data, second.data, first.len));
    state_buf_release(&first);
    state_buf_release(&second);
    state_release(desc, fresh);
    free(fresh);
}

static void try_section(const struct state_section *sec, const struct state_desc *desc)
{
    void *live = calloc(1, desc->size), *before = calloc(1, desc->size), *scratch = NULL;
    struct err err = {0};
    int rc;

    must(live && before);
    rc = state_stage(sec, desc, live, &scratch, &err);
    must(!memcmp(live, before, desc->size));
    if (rc < 0) {
        must_explain(rc, &err);
    } else {
        state_commit(desc, scratch, live);
        round_trip(desc, sec->id, live);
    }
    state_release(desc, live);
    free(live);
    free(before);
}

/* What is made of a model that was accepted. */
static void use_model(const struct cpu_model *model)
{
    struct cpu_model *host = malloc(sizeof(*host));
    struct err err = {0};
    uint32_t nr = model->nr_vcpus < 4 ? model->nr_vcpus : 4;

    must(host);
    memcpy(host, model, sizeof(*host));
    must(cpu_model_lacks(model, host, NULL, NULL) == 0);
    must(cpu_model_check(model, host, &err) == 0);
    must(cpu_model_phys_bits(model) > 0);
    for (uint32_t i = 0; i < nr; i++) {
        struct kvm_cpuid2 *cpuid = NULL;

        must(cpu_model_vcpu(model, i, &cpuid) == 0);
        must(cpuid->nent <= CPU_MODEL_VCPU_CPUID_MAX);
        free(cpuid);
    }
    free(host);
}

static void try_description(const uint8_t *data, size_t len)
{
    struct vm_config cfg = {0};
    struct cpu_model *model = NULL;
    struct err err = {0};
    size_t left = len;
    int rc = vm_parse_description(&data, &left, &cfg, &model, &err);

    must(left <= len);
    if (rc < 0) {
        must_explain(rc, &err);
        must(!model);
        return;
    }
    use_model(model);
    round_trip(&cpu_model_state, "cpu-model", model);
    vm_config_release(&cfg);
    free(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const uint8_t *p = data;
    size_t left = len;
    struct state_section sec;
    struct err err = {0};
    int rc;

    try_description(data, len);
    while ((rc = state_section_next(&p, &left, &sec, &err)) > 0) {
        try_section(&sec, &cpu_model_state);
        try_section(&sec, &x86_vcpu_state_desc);
    }
    must(!rc || (err.code == rc && err.msg[0]));
    return 0;
}
