/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct boot: a kernel, an initramfs and a command line put into guest
 * memory, and the registers that the first vCPU starts with.
 *
 * Two kinds of kernel: Linux's bzImage, and an ELF file with the PVH entry
 * note.  Memory map: core/x86/layout.h.  Every byte of the files is hostile.
 */
#ifndef CORE_X86_BOOT_H
#define CORE_X86_BOOT_H

#include <linux/kvm.h>

#include "core/err.h"
#include "core/x86/layout.h"

struct gmem;

enum {
    X86_BOOT_RAM_MAX = 100, /* ranges of RAM that the memory map can hold */
    X86_BOOT_MSRS_MAX = 4,
};

/* What to boot.  Zero-initialised but for the fds: nothing optional is there. */
struct x86_boot_in {
    int kernel_fd;               /* regular file; borrowed */
    int initramfs_fd;            /* regular file; borrowed; -1: none */
    const char *cmdline;         /* NULL: empty; borrowed */
    const struct x86_range *ram; /* RAM that the OS is told of; NULL: all regions of the gmem */
    unsigned nr_ram;
    uint64_t rsdp_gpa; /* ACPI root pointer; 0: no ACPI */
    bool ram_is_zero;  /* RAM was never written: no need to clear what is to be zero */
};

enum x86_boot_protocol {
    X86_BOOT_LINUX64, /* bzImage, entered in long mode at its 64-bit entry point */
    X86_BOOT_LINUX32, /* bzImage without one: protected mode, paging off */
    X86_BOOT_PVH,     /* protected mode, paging off */
};

/* How the first vCPU starts. */
struct x86_boot_entry {
    enum x86_boot_protocol protocol;
    uint64_t rip;
    uint64_t rbx; /* PVH: hvm_start_info */
    uint64_t rsi; /* Linux: boot_params */
};

/**
 * x86_boot_load() - put everything into guest memory that a boot needs.
 * @gm: holds the RAM; the machine's memory map is derived from it.
 *
 * Kernel, initramfs, command line, boot parameters with the memory map, GDT,
 * page tables.  ACPI tables and SMBIOS are the caller's: they do not depend on
 * the kernel.  The same call boots again after a reset.
 *
 * Return: 0 and *@ret_entry; -EBADMSG for a file that breaks its format,
 * -ENOTSUP for a kernel of a kind that cannot be booted, -EINVAL for what does
 * not fit this machine's RAM, -E2BIG for more than X86_BOOT_RAM_MAX ranges or notes
 * beyond reason, -ENOMEM, or an errno of reading, with the field in @err
 * ("kernel.setup_sects: ...").  On failure guest memory may hold a part.
 * Threads: control, with no vCPU running.
 */
CHECKED int x86_boot_load(struct gmem *gm, const struct x86_boot_in *in,
                          struct x86_boot_entry *ret_entry, struct err *err);

/**
 * x86_boot_regs() - general registers at the entry.
 * @regs: written whole.
 *
 * Threads: any.
 */
void x86_boot_regs(const struct x86_boot_entry *entry, struct kvm_regs *regs);

/**
 * x86_boot_sregs() - segments, control registers and EFER at the entry.
 * @sregs: as read from the vCPU in its reset state; changed where the entry
 *         asks for something else (the APIC base is kept).
 *
 * Threads: any.
 */
void x86_boot_sregs(const struct x86_boot_entry *entry, struct kvm_sregs *sregs);

/**
 * x86_boot_msrs() - MSRs that firmware would have set, for every vCPU.
 * @msrs: X86_BOOT_MSRS_MAX entries.
 *
 * Return: how many were written.
 * Threads: any.
 */
unsigned x86_boot_msrs(struct kvm_msr_entry msrs[X86_BOOT_MSRS_MAX]);

#endif
