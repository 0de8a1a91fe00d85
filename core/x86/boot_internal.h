/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loaders behind x86_boot_load(); also for their tests and fuzz targets.
 */
#ifndef CORE_X86_BOOT_INTERNAL_H
#define CORE_X86_BOOT_INTERNAL_H

#include "core/x86/boot.h"
#include "core/x86/image.h"

/* What the loaders share. */
struct x86_boot {
    struct gmem *gm;
    const struct x86_boot_in *in;
    struct x86_image kernel;
    struct x86_image initramfs; /* size 0: none */
    uint64_t low_end_gpa;       /* end of the RAM that begins at 0, below the hole */
    uint64_t initramfs_gpa;
    struct x86_range ram[X86_BOOT_RAM_MAX]; /* usable by the OS */
    unsigned nr_ram;
};

/**
 * x86_boot_prepare() - look at the files and find the RAM.
 * @in: borrowed by @ret_boot.
 *
 * Return: 0; -EINVAL for files that are none, or too little RAM; -E2BIG for more than
 * X86_BOOT_RAM_MAX ranges; fstat()'s errno.
 * Threads: control.
 */
CHECKED int x86_boot_prepare(struct gmem *gm, const struct x86_boot_in *in,
                             struct x86_boot *ret_boot, struct err *err);

/**
 * x86_boot_initramfs() - put the initramfs at the top of low RAM.
 * @floor_gpa: end of what the kernel needs.
 * @max_gpa:   highest address of its last byte.
 *
 * Return: 0; -EINVAL if there is no room; an errno of reading.
 * Threads: control.
 */
CHECKED int x86_boot_initramfs(struct x86_boot *boot, uint64_t floor_gpa, uint64_t max_gpa,
                               struct err *err);

/**
 * x86_boot_cmdline() - put the command line in its place.
 * @max_len: most bytes that the kernel takes, without the final zero.
 *
 * Return: 0; -EINVAL if it is longer.
 * Threads: control.
 */
CHECKED int x86_boot_cmdline(struct x86_boot *boot, uint64_t max_len, struct err *err);

/**
 * x86_bzimage_is() - does the file begin like a bzImage?
 * @head: the first @len bytes of it.
 *
 * Threads: any.
 */
bool x86_bzimage_is(const uint8_t *head, size_t len);

/**
 * x86_bzimage_load() - load a bzImage, its initramfs, command line and zero page.
 *
 * Return: as x86_boot_load().
 * Threads: control.  Spec: Linux, Documentation/arch/x86/boot.rst.
 */
CHECKED int x86_bzimage_load(struct x86_boot *boot, struct x86_boot_entry *ret_entry,
                             struct err *err);

/**
 * x86_pvh_is() - does the file begin like an ELF file?
 *
 * Threads: any.
 */
bool x86_pvh_is(const uint8_t *head, size_t len);

/**
 * x86_pvh_load() - load an ELF file with a PVH entry, and its start info.
 *
 * Return: as x86_boot_load().
 * Threads: control.  Spec: Xen, docs/misc/pvh.pandoc; public/arch-x86/hvm/start_info.h.
 */
CHECKED int x86_pvh_load(struct x86_boot *boot, struct x86_boot_entry *ret_entry, struct err *err);

#endif
