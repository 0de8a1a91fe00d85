/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's processors: their model, their power-on registers.
 */
#include <errno.h>
#include <string.h>

#include "core/config/vm_config.h"
#include "core/vm_internal.h"
#include "core/x86/cpu_model.h"
#include "core/x86/vcpu_state.h"

/* What this host can give a guest of this configuration. */
static int host_model(struct vm *vm, struct cpu_model *ret_model, struct err *err)
{
    const struct cpus_config *c = &vm->cfg->cpus;
    struct cpu_model_in in = {
        .topology = {c->topology.threads_per_core, c->topology.cores_per_die,
                     c->topology.dies_per_package, c->topology.packages},
        .nr_vcpus = c->max_vcpus,
        .max_phys_bits = c->max_phys_bits,
        .tsc_khz = kvm_vcpu_tsc_khz(vcpu_kvm(vm->vcpus[0])),
        .tsc_deadline = kvm_has(vm->kvm, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
        .nested = !c->no_nested && kvm_has(vm->kvm, KVM_CAP_NESTED_STATE) > 0,
        .amx = c->amx,
    };
    struct kvm_cpuid2 *supported = NULL;
    int rc = kvm_supported_cpuid(vm->kvm, &supported, err);

    if (rc < 0)
        return rc;
    in.supported = supported;
    rc = cpu_model_build(&in, ret_model, err);
    free(supported);
    return rc;
}

/* A guest from elsewhere: refuse what this host cannot do, before anything is touched. */
static int adopt_model(struct vm *vm, const struct vm_origin *from, struct err *err)
{
    const struct cpu_model *model = from->model;
    const struct cpu_tsc_in tsc = {
        .src_khz = model->tsc_khz,
        .host_khz = vm->model->tsc_khz,
        .can_scale = kvm_has(vm->kvm, KVM_CAP_TSC_CONTROL) > 0,
        .accept = from->accept_tsc,
    };
    enum cpu_tsc_action action = CPU_TSC_KEEP;
    int rc = cpu_model_check(model, vm->model, err);

    if (rc >= 0)
        rc = cpu_tsc_check(&tsc, &action, err);
    for (unsigned i = 0; rc >= 0 && action == CPU_TSC_SCALE && i < vm->nr_vcpus; i++)
        rc = kvm_vcpu_set_tsc_khz(vcpu_kvm(vm->vcpus[i]), model->tsc_khz, err);
    if (rc >= 0)
        *vm->model = *model;
    return rc;
}

int vm_set_up_cpus(struct vm *vm, const struct vm_origin *from, struct err *err)
{
    int rc;

    vm->model = calloc(1, sizeof(*vm->model));
    if (!vm->model)
        return err_set(err, -ENOMEM, "CPU model: out of memory");
    rc = host_model(vm, vm->model, err);
    if (rc >= 0 && from)
        rc = adopt_model(vm, from, err);
    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++) {
        struct kvm_cpuid2 *cpuid = NULL;

        rc = cpu_model_vcpu(vm->model, i, &cpuid);
        if (rc >= 0)
            rc = kvm_vcpu_set_cpuid(vcpu_kvm(vm->vcpus[i]), cpuid, err);
        free(cpuid);
    }
    return rc;
}

int vm_note_power_on(struct vm *vm, struct err *err)
{
    int rc = 0;

    if (vm->power_on)
        return 0;
    vm->power_on = calloc(vm->nr_vcpus, sizeof(*vm->power_on));
    if (!vm->power_on)
        return err_set(err, -ENOMEM, "power-on state: out of memory");
    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++)
        rc = kvm_vcpu_save(vcpu_kvm(vm->vcpus[i]), &vm->power_on[i], err);
    return rc;
}

int vm_reset_cpus(struct vm *vm, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++)
        rc = kvm_vcpu_load(vcpu_kvm(vm->vcpus[i]), &vm->power_on[i], err);
    return rc;
}

void vm_free_cpus(struct vm *vm)
{
    for (unsigned i = 0; vm->power_on && i < vm->nr_vcpus; i++)
        state_release(&x86_vcpu_state_desc, &vm->power_on[i]);
    free(vm->power_on);
    free(vm->model);
}
