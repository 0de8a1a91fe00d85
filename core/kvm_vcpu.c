/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "core/kvm.h"
#include "core/kvm_internal.h"

int kvm_vcpu_open(struct kvm *kvm, unsigned id, struct kvm_vcpu **ret_vcpu, struct err *err)
{
    struct kvm_vcpu *v = calloc(1, sizeof(*v));
    int rc = 0;

    if (!v)
        return -ENOMEM;
    *v = (struct kvm_vcpu){.kvm = kvm, .id = id, .run = MAP_FAILED};
    v->fd = ioctl(kvm->fd, KVM_CREATE_VCPU, (unsigned long)id);
    if (v->fd < 0)
        rc = err_set(err, -errno, "KVM_CREATE_VCPU %u: %s", id, strerror(errno));
    if (rc >= 0) {
        v->run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
        if (v->run == MAP_FAILED)
            rc = err_set(err, -errno, "vCPU %u: mmap: %s", id, strerror(errno));
    }
    if (rc < 0) {
        kvm_vcpu_close(v);
        return rc;
    }
    *ret_vcpu = v;
    return 0;
}

void kvm_vcpu_close(struct kvm_vcpu *v)
{
    if (!v)
        return;
    if (v->run != MAP_FAILED)
        (void)munmap(v->run, v->kvm->run_size);
    if (v->fd >= 0)
        (void)close(v->fd);
    free(v);
}

int kvm_vcpu_run(struct kvm_vcpu *v)
{
    return ioctl(v->fd, KVM_RUN, 0) < 0 ? -errno : 0;
}

struct kvm_run *kvm_vcpu_exit(struct kvm_vcpu *v)
{
    return v->run;
}

void kvm_vcpu_set_immediate_exit(struct kvm_vcpu *v, bool on)
{
    /* The kernel reads it after the signal, or on entry: order does not matter. */
    __atomic_store_n(&v->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

int kvm_vcpu_nmi(struct kvm_vcpu *v)
{
    return ioctl(v->fd, KVM_NMI, 0) < 0 ? -errno : 0;
}

int kvm_vcpu_set_cpuid(struct kvm_vcpu *v, const struct kvm_cpuid2 *cpuid, struct err *err)
{
    if (ioctl(v->fd, KVM_SET_CPUID2, cpuid) < 0)
        return err_set(err, -errno, "vCPU %u: KVM_SET_CPUID2: %s", v->id, strerror(errno));
    return 0;
}

int kvm_vcpu_set_boot_regs(struct kvm_vcpu *v, const struct kvm_regs *regs,
                           const struct kvm_sregs *sregs, struct err *err)
{
    if (sregs && ioctl(v->fd, KVM_SET_SREGS, sregs) < 0)
        return err_set(err, -errno, "vCPU %u: KVM_SET_SREGS: %s", v->id, strerror(errno));
    if (ioctl(v->fd, KVM_SET_REGS, regs) < 0)
        return err_set(err, -errno, "vCPU %u: KVM_SET_REGS: %s", v->id, strerror(errno));
    return 0;
}

int kvm_vcpu_get_sregs(struct kvm_vcpu *v, struct kvm_sregs *ret_sregs, struct err *err)
{
    if (ioctl(v->fd, KVM_GET_SREGS, ret_sregs) < 0)
        return err_set(err, -errno, "vCPU %u: KVM_GET_SREGS: %s", v->id, strerror(errno));
    return 0;
}

void kvm_vcpu_clock_paused(struct kvm_vcpu *v)
{
    /* EINVAL: the guest has not switched kvmclock on. */
    (void)ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0);
}

int kvm_vcpu_set_msrs(struct kvm_vcpu *v, const struct kvm_msr_entry *msrs, unsigned nr,
                      struct err *err)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[KVM_VCPU_MSRS_MAX];
    } set = {.head = {.nmsrs = nr}};
    int n;

    if (nr > KVM_VCPU_MSRS_MAX)
        return err_set(err, -E2BIG, "vCPU %u: %u MSRs at once", v->id, nr);
    memcpy(set.entries, msrs, nr * sizeof(*msrs));
    n = ioctl(v->fd, KVM_SET_MSRS, &set);
    if (n < 0)
        return err_set(err, -errno, "vCPU %u: KVM_SET_MSRS: %s", v->id, strerror(errno));
    if ((unsigned)n < nr)
        return err_set(err, -EINVAL, "vCPU %u: KVM does not take MSR %#x = %#llx", v->id,
                       msrs[n].index, (unsigned long long)msrs[n].data);
    return 0;
}

uint32_t kvm_vcpu_tsc_khz(struct kvm_vcpu *v)
{
    int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

    return khz > 0 ? (uint32_t)khz : 0;
}

int kvm_vcpu_set_tsc_khz(struct kvm_vcpu *v, uint32_t khz, struct err *err)
{
    if (ioctl(v->fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
        return err_set(err, -errno, "vCPU %u: KVM_SET_TSC_KHZ %u: %s", v->id, khz, strerror(errno));
    return 0;
}
