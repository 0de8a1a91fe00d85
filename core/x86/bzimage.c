/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux's bzImage.
 *
 * Source: Linux, Documentation/arch/x86/boot.rst (the boot protocol, 2.06 to
 * 2.15) and zero-page.rst.  The 64-bit entry is used where the kernel has one
 * (2.12 and xloadflags say so), the 32-bit entry otherwise.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/gmem.h"
#include "core/x86/boot_internal.h"
#include "core/x86/layout.h"

enum {
    SETUP_OFF = 0x1f1,      /* of struct setup_header in file and zero page */
    SETUP_JUMP_OFF = 0x201, /* the header ends this byte's value after 0x202 */
    SETUP_JUMP_BASE = 0x202,
    SETUP_MAX_END = 0x290, /* the zero page has other things from here on */
    SETUP_SECTS_DEFAULT = 4,
    SECTOR = 512,
    PARAGRAPH = 16,
    BOOT_FLAG = 0xaa55,
    ENTRY64_OFF = 0x200,
    LOADER_UNDEFINED = 0xff,
    CMDLINE_SIZE_DEFAULT = 255,
    E820_RAM = 1,
    E820_RESERVED = 2,
    PROTOCOL_MIN = 0x0206,        /* cmdline_size */
    PROTOCOL_INIT_SIZE = 0x020a,  /* pref_address, init_size */
    PROTOCOL_XLOADFLAGS = 0x020c, /* 64-bit entry */
};

#define SETUP_MAGIC UINT32_C(0x53726448) /* "HdrS" */

_Static_assert(sizeof(struct boot_params) == 4096, "boot.rst: the zero page");
_Static_assert(offsetof(struct boot_params, hdr) == SETUP_OFF, "boot.rst: the setup header");

struct bzimage {
    struct setup_header hdr;
    uint64_t payload_off; /* bytes in the file */
    uint64_t payload_len;
    uint64_t end_gpa; /* of the memory that the kernel uses before it reads its map */
};

bool x86_bzimage_is(const uint8_t *head, size_t len)
{
    uint32_t magic;
    uint16_t flag;

    if (len < SETUP_JUMP_BASE + sizeof(magic))
        return false;
    memcpy(&flag, head + offsetof(struct setup_header, boot_flag) + SETUP_OFF, sizeof(flag));
    memcpy(&magic, head + SETUP_JUMP_BASE, sizeof(magic));
    return flag == BOOT_FLAG && magic == SETUP_MAGIC;
}

/* The setup header: as long as the kernel says, the rest is zero. */
static int header_read(const struct x86_image *img, struct setup_header *hdr, struct err *err)
{
    uint8_t raw[SETUP_MAX_END] = {0};
    size_t end;
    int rc;

    rc = x86_image_read(img, 0, raw, SETUP_JUMP_BASE, "setup_header", err);
    if (rc < 0)
        return rc;
    end = (size_t)SETUP_JUMP_BASE + raw[SETUP_JUMP_OFF];
    if (end > SETUP_MAX_END)
        return err_set(err, -EBADMSG, "kernel.jump: the setup header ends at %#zx, past %#x", end,
                       SETUP_MAX_END);
    rc = x86_image_read(img, 0, raw, end, "setup_header", err);
    if (rc < 0)
        return rc;
    memset(raw + end, 0, sizeof(raw) - end);
    memcpy(hdr, raw + SETUP_OFF, sizeof(*hdr));
    return 0;
}

static int payload_find(const struct x86_image *img, struct bzimage *bz, struct err *err)
{
    unsigned sects = bz->hdr.setup_sects ? bz->hdr.setup_sects : SETUP_SECTS_DEFAULT;
    uint64_t want = (uint64_t)bz->hdr.syssize * PARAGRAPH;
    uint64_t left;

    bz->payload_off = (uint64_t)(sects + 1) * SECTOR;
    if (bz->payload_off >= img->size) {
        return err_set(err, -EBADMSG,
                       "kernel.setup_sects: %u sectors, but the file has %" PRIu64 " bytes", sects,
                       img->size);
    }
    left = img->size - bz->payload_off;
    if (want == 0)
        return err_set(err, -EBADMSG, "kernel.syssize: 0");
    /* syssize counts paragraphs: the last one need not be whole. */
    if (want > left && want - left >= PARAGRAPH) {
        return err_set(err, -EBADMSG,
                       "kernel.syssize: %" PRIu64 " bytes of kernel, but the file has %" PRIu64
                       " (is it truncated?)",
                       want, left);
    }
    bz->payload_len = want < left ? want : left;
    if (bz->payload_len <= ENTRY64_OFF)
        return err_set(err, -EBADMSG, "kernel.syssize: %" PRIu64 " bytes hold no entry point",
                       bz->payload_len);
    return 0;
}

/* Where the kernel will run: it moves itself there, and says how much memory it needs. */
static int start_find(const struct setup_header *h, uint64_t *ret_start, struct err *err)
{
    uint64_t align = h->relocatable_kernel ? h->kernel_alignment : 1;
    uint64_t start;

    if (align == 0 || (align & (align - 1)) != 0) {
        return err_set(err, -EBADMSG, "kernel.kernel_alignment: %#" PRIx64 " is not a power of two",
                       align);
    }
    start = (X86_HIGH_RAM_GPA + align - 1) & ~(align - 1);
    *ret_start = h->pref_address > start ? h->pref_address : start;
    return 0;
}

/*
 * boot.rst, init_size: the kernel needs this much memory, without a gap, from
 * its run-time start address on, before it can look at its memory map.
 */
static int extent_find(struct bzimage *bz, uint64_t low_end, struct err *err)
{
    uint64_t start = X86_HIGH_RAM_GPA;
    uint64_t need = bz->payload_len;
    int rc = 0;

    bz->end_gpa = X86_HIGH_RAM_GPA + bz->payload_len;
    if (bz->hdr.version >= PROTOCOL_INIT_SIZE) {
        need = bz->hdr.init_size;
        rc = start_find(&bz->hdr, &start, err);
    }
    if (rc < 0)
        return rc;
    if (start > low_end || need > low_end - start) {
        return err_set(err, -EINVAL,
                       "kernel.init_size: the kernel needs %" PRIu64 " bytes at %#" PRIx64
                       ", RAM ends at %#" PRIx64,
                       need, start, low_end);
    }
    if (start + need > bz->end_gpa)
        bz->end_gpa = start + need;
    if (bz->end_gpa > low_end) {
        return err_set(err, -EINVAL,
                       "kernel: %" PRIu64 " bytes do not fit in RAM, which ends at %#" PRIx64,
                       bz->payload_len, low_end);
    }
    return 0;
}

static int bzimage_parse(const struct x86_boot *b, struct bzimage *bz, struct err *err)
{
    struct setup_header *h = &bz->hdr;
    int rc;

    rc = header_read(&b->kernel, h, err);
    if (rc < 0)
        return rc;
    if (h->boot_flag != BOOT_FLAG || h->header != SETUP_MAGIC)
        return err_set(err, -EBADMSG, "kernel.header: no setup header");
    if (h->version < PROTOCOL_MIN) {
        return err_set(err, -ENOTSUP, "kernel.version: boot protocol %u.%02u, need %u.%02u",
                       h->version >> 8, h->version & 0xff, PROTOCOL_MIN >> 8, PROTOCOL_MIN & 0xff);
    }
    if (!(h->loadflags & LOADED_HIGH))
        return err_set(err, -ENOTSUP, "kernel.loadflags: a zImage, not a bzImage");
    rc = payload_find(&b->kernel, bz, err);
    if (rc == 0)
        rc = extent_find(bz, b->low_end_gpa, err);
    return rc;
}

static void e820_fill(const struct x86_boot *b, struct boot_params *bp)
{
    unsigned n = 0;

    _Static_assert(X86_BOOT_RAM_MAX + 1 <= E820_MAX_ENTRIES_ZEROPAGE, "zero-page.rst: e820_table");
    for (unsigned i = 0; i < b->nr_ram; i++) {
        bp->e820_table[n++] = (struct boot_e820_entry){
            .addr = b->ram[i].gpa,
            .size = b->ram[i].len,
            .type = E820_RAM,
        };
    }
    bp->e820_table[n++] = (struct boot_e820_entry){
        .addr = X86_ECAM_GPA,
        .size = X86_ECAM_SIZE,
        .type = E820_RESERVED,
    };
    bp->e820_entries = (uint8_t)n;
}

static int zero_page_write(const struct x86_boot *b, const struct bzimage *bz, struct err *err)
{
    struct boot_params bp = {0};

    bp.hdr = bz->hdr;
    bp.hdr.type_of_loader = LOADER_UNDEFINED;
    bp.hdr.code32_start = X86_HIGH_RAM_GPA;
    bp.hdr.cmd_line_ptr = X86_CMDLINE_GPA;
    bp.hdr.ramdisk_image = (uint32_t)b->initramfs_gpa;
    bp.hdr.ramdisk_size = (uint32_t)b->initramfs.size;
    bp.hdr.setup_data = 0;
    bp.acpi_rsdp_addr = b->in->rsdp_gpa;
    e820_fill(b, &bp);
    if (gmem_copy_out(b->gm, X86_ZERO_PAGE_GPA, &bp, sizeof(bp)) < 0)
        return err_set(err, -EINVAL, "memory: no RAM for the zero page");
    return 0;
}

int x86_bzimage_load(struct x86_boot *b, struct x86_boot_entry *ret_entry, struct err *err)
{
    struct bzimage bz = {0};
    bool entry64;
    int rc;

    rc = bzimage_parse(b, &bz, err);
    if (rc < 0)
        return rc;
    rc = x86_boot_cmdline(b, bz.hdr.cmdline_size ? bz.hdr.cmdline_size : CMDLINE_SIZE_DEFAULT, err);
    if (rc == 0)
        rc = x86_image_load(&b->kernel, bz.payload_off, bz.payload_len, b->gm, X86_HIGH_RAM_GPA,
                            err);
    if (rc == 0)
        rc = x86_boot_initramfs(b, bz.end_gpa,
                                bz.hdr.initrd_addr_max ? bz.hdr.initrd_addr_max : INT32_MAX, err);
    if (rc == 0)
        rc = zero_page_write(b, &bz, err);
    if (rc < 0)
        return rc;
    entry64 = bz.hdr.version >= PROTOCOL_XLOADFLAGS && (bz.hdr.xloadflags & XLF_KERNEL_64);
    *ret_entry = (struct x86_boot_entry){
        .protocol = entry64 ? X86_BOOT_LINUX64 : X86_BOOT_LINUX32,
        .rip = X86_HIGH_RAM_GPA + (entry64 ? ENTRY64_OFF : 0),
        .rsi = X86_ZERO_PAGE_GPA,
    };
    return 0;
}
