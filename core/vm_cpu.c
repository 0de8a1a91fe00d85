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

/* What this host can give a guest of this configuration; @vcpu is any. */
static int host_model(struct kvm *kvm, struct kvm_vcpu *vcpu, const struct cpus_config *c,
                      struct cpu_model *ret_model, struct err *err)
{
    const struct cpu_model_in in = {
        .supported = kvm_supported_cpuid(kvm),
        .topology = {c->topology.threads_per_core, c->topology.cores_per_die,
                     c->topology.dies_per_package, c->topology.packages},
        .nr_vcpus = c->max_vcpus,
        .max_phys_bits = c->max_phys_bits,
        .tsc_khz = kvm_vcpu_tsc_khz(vcpu),
        .tsc_deadline = kvm_has(kvm, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
        .nested = !c->no_nested && kvm_has(kvm, KVM_CAP_NESTED_STATE) > 0,
        .amx = c->amx,
    };

    return cpu_model_build(&in, ret_model, err);
}

/* Whether a guest from elsewhere can run on a host with this model. */
static int check_origin(struct kvm *kvm, const struct vm_origin *from, const struct cpu_model *host,
                        enum cpu_tsc_action *ret_action, struct err *err)
{
    const struct cpu_tsc_in tsc = {
        .src_khz = from->model->tsc_khz,
        .host_khz = host->tsc_khz,
        .can_scale = kvm_has(kvm, KVM_CAP_TSC_CONTROL) > 0,
        .accept = from->accept_tsc,
    };
    int rc = cpu_model_check(from->model, host, err);

    return rc < 0 ? rc : cpu_tsc_check(&tsc, ret_action, err);
}

int vm_check_origin(const struct vm_config *cfg, const struct vm_origin *from, struct err *err)
{
    struct cpu_model *host = calloc(1, sizeof(*host));
    enum cpu_tsc_action action;
    struct kvm_vcpu *vcpu = NULL;
    struct kvm *kvm = NULL;
    int rc = host ? kvm_open(&kvm, err) : -ENOMEM;

    if (rc >= 0)
        rc = kvm_vcpu_open(kvm, 0, &vcpu, err);
    if (rc >= 0)
        rc = host_model(kvm, vcpu, &cfg->cpus, host, err);
    if (rc >= 0)
        rc = check_origin(kvm, from, host, &action, err);
    if (vcpu)
        kvm_vcpu_close(vcpu);
    if (kvm)
        kvm_close(kvm);
    free(host);
    return rc;
}

/* A guest from elsewhere: refuse what this host cannot do, before anything is touched. */
static int adopt_model(struct vm *vm, const struct vm_origin *from, struct err *err)
{
    const struct cpu_model *model = from->model;
    enum cpu_tsc_action action = CPU_TSC_KEEP;
    int rc = check_origin(vm->kvm, from, vm->model, &action, err);

    for (unsigned i = 0; rc >= 0 && action == CPU_TSC_SCALE && i < vm->nr_vcpus; i++)
        rc = kvm_vcpu_set_tsc_khz(vcpu_kvm(vm->vcpus[i]), model->tsc_khz, err);
    if (rc >= 0)
        *vm->model = *model;
    return rc;
}

/* The registers that a reset brings back. */
static int note_power_on(struct vm *vm, struct err *err)
{
    int rc = 0;

    vm->power_on = vm->nr_vcpus ? calloc(vm->nr_vcpus, sizeof(*vm->power_on)) : NULL;
    if (!vm->power_on)
        return err_set(err, -ENOMEM, "power-on state: out of memory");
    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++)
        rc = kvm_vcpu_save(vcpu_kvm(vm->vcpus[i]), &vm->power_on[i], err);
    return rc;
}

int vm_set_up_cpus(struct vm *vm, const struct vm_origin *from, struct err *err)
{
    int rc;

    vm->model = calloc(1, sizeof(*vm->model));
    if (!vm->model)
        return err_set(err, -ENOMEM, "CPU model: out of memory");
    rc = host_model(vm->kvm, vcpu_kvm(vm->vcpus[0]), &vm->cfg->cpus, vm->model, err);
    if (rc >= 0 && from)
        rc = adopt_model(vm, from, err);
    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++) {
        struct kvm_cpuid2 *cpuid = NULL;

        rc = cpu_model_vcpu(vm->model, i, &cpuid);
        if (rc >= 0)
            rc = kvm_vcpu_set_cpuid(vcpu_kvm(vm->vcpus[i]), cpuid, err);
        free(cpuid);
    }
    return rc < 0 ? rc : note_power_on(vm, err);
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
