/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The payload: tables, kernel and initramfs into memory, registers into the boot vCPU.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/config/vm_config.h"
#include "core/gmem.h"
#include "core/vm_internal.h"
#include "core/x86/boot.h"

static int open_file(const char *what, const char *path, struct err *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for its other end. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_set(err, -errno, "%s: %s: %s", what, path, strerror(errno));
    return fd;
}

static int set_registers(struct vm *vm, const struct x86_boot_entry *entry, struct err *err)
{
    struct kvm_vcpu *boot_cpu = vcpu_kvm(vm->vcpus[0]);
    struct kvm_msr_entry msrs[X86_BOOT_MSRS_MAX];
    unsigned nr_msrs = x86_boot_msrs(msrs);
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    int rc = kvm_vcpu_get_sregs(boot_cpu, &sregs, err);

    if (rc < 0)
        return rc;
    x86_boot_sregs(entry, &sregs);
    x86_boot_regs(entry, &regs);
    rc = kvm_vcpu_set_boot_regs(boot_cpu, &regs, &sregs, err);
    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++)
        rc = kvm_vcpu_set_msrs(vcpu_kvm(vm->vcpus[i]), msrs, nr_msrs, err);
    return rc;
}

int vm_load_payload(struct vm *vm, bool fresh, struct err *err)
{
    const struct payload_config *p = &vm->cfg->payload;
    auto_close int kernel = -1;
    auto_close int initramfs = -1;
    struct x86_boot_in in = {.cmdline = p->cmdline, .ram_is_zero = fresh};
    struct x86_boot_entry entry;
    int rc;

    if (!p->kernel)
        return err_set(err, -EINVAL, "payload.kernel: there is nothing to boot");
    rc = kernel = open_file("payload.kernel", p->kernel, err);
    if (rc >= 0 && p->initramfs)
        rc = initramfs = open_file("payload.initramfs", p->initramfs, err);
    if (rc >= 0)
        rc = vm->board_ops->write_tables(vm->board, &in.rsdp_gpa, err);
    if (rc < 0)
        return rc;
    if (fresh)
        gmem_set_thp(vm->gm, true);
    in.kernel_fd = kernel;
    in.initramfs_fd = initramfs;
    rc = x86_boot_load(vm->gm, &in, &entry, err);
    if (rc < 0)
        return rc;
    return set_registers(vm, &entry, err);
}
