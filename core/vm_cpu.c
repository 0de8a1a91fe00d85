/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's processors: model, power-on registers.
 */
#include <errno.h>
#include <string.h>

#include "core/vm_internal.h"

int vm_set_up_cpus(struct vm *vm, const struct cpu_model *model, struct err *err)
{
    struct kvm_cpuid2 *c = NULL;
    int rc = kvm_supported_cpuid(vm->kvm, &c, err);

    (void)model;
    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++) {
        for (unsigned k = 0; k < c->nent; k++) {
            if (c->entries[k].function == 1)
                c->entries[k].ebx = (c->entries[k].ebx & 0x00ffffff) | i << 24;
            if (c->entries[k].function == 0xb)
                c->entries[k].edx = i;
        }
        rc = kvm_vcpu_set_cpuid(vcpu_kvm(vm->vcpus[i]), c, err);
    }
    free(c);
    return rc;
}

int vm_reset_cpus(struct vm *vm, struct err *err)
{
    (void)vm;
    (void)err;
    return 0;
}

void vm_free_cpus(struct vm *vm)
{
    (void)vm;
}
