/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both boot protocols share: RAM, initramfs, command line, descriptor
 * tables, page tables and registers.
 */
#include "core/x86/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/gmem.h"
#include "core/wire.h"
#include "core/x86/boot_internal.h"
#include "core/x86/layout.h"

/* Selectors that Linux's 32-bit and 64-bit entries ask for (boot.rst); PVH does not care. */
enum {
    BOOT_TR = 0x08,
    BOOT_CS = 0x10,
    BOOT_DS = 0x18,
    BOOT_GDT_ENTRIES = 4,
    BOOT_PD_PAGES = 4,
};

enum {
    CR0_PE = 1 << 0,
    CR0_ET = 1 << 4,
    CR4_PAE = 1 << 5,
    EFER_LME = 1 << 8,
    EFER_LMA = 1 << 10,
    PTE_PRESENT = 1 << 0,
    PTE_WRITE = 1 << 1,
    PTE_LARGE = 1 << 7,
};

#define CR0_PG (UINT64_C(1) << 31)

enum {
    MSR_MISC_ENABLE = 0x1a0,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MISC_ENABLE_FAST_STRING = 1 << 0,
    MTRR_ENABLE = 1 << 11,
    MTRR_WRITE_BACK = 6,
};

/* --- RAM ----------------------------------------------------------------- */

/* End of the RAM that reaches from address 0 without a gap, below the hole. */
static uint64_t low_ram_end(const struct gmem *gm)
{
    uint64_t end = 0;

    /* Regions are in ascending order. */
    for (unsigned i = 0; i < gmem_nr_regions(gm) && gmem_region(gm, i)->gpa == end; i++)
        end += gmem_region(gm, i)->len;
    return end < X86_MMIO32_GPA ? end : X86_MMIO32_GPA;
}

/* The OS gets a range but for what lies between the end of low RAM and 1 MiB. */
static int ram_add(struct x86_boot *b, uint64_t gpa, uint64_t len, struct err *err)
{
    uint64_t end = gpa + len;

    if (len == 0 || end < gpa)
        return err_set(err, -EINVAL, "memory: bad range %#" PRIx64 "+%#" PRIx64, gpa, len);
    if (gpa < X86_LOW_RAM_END_GPA) {
        uint64_t cut = end < X86_LOW_RAM_END_GPA ? end : X86_LOW_RAM_END_GPA;

        if (b->nr_ram == X86_BOOT_RAM_MAX)
            return err_set(err, -E2BIG, "memory: more than %d ranges", X86_BOOT_RAM_MAX);
        b->ram[b->nr_ram++] = (struct x86_range){gpa, cut - gpa};
    }
    if (gpa < X86_HIGH_RAM_GPA)
        gpa = X86_HIGH_RAM_GPA;
    if (gpa >= end)
        return 0;
    if (b->nr_ram > 0) {
        struct x86_range *last = &b->ram[b->nr_ram - 1];

        if (last->gpa + last->len == gpa) {
            last->len += end - gpa;
            return 0;
        }
    }
    if (b->nr_ram == X86_BOOT_RAM_MAX)
        return err_set(err, -E2BIG, "memory: more than %d ranges", X86_BOOT_RAM_MAX);
    b->ram[b->nr_ram++] = (struct x86_range){gpa, end - gpa};
    return 0;
}

int x86_boot_prepare(struct gmem *gm, const struct x86_boot_in *in, struct x86_boot *ret_boot,
                     struct err *err)
{
    struct x86_boot *b = ret_boot;
    int rc;

    *b = (struct x86_boot){.gm = gm, .in = in};
    rc = x86_image_init(&b->kernel, in->kernel_fd, "kernel", err);
    if (rc == 0 && in->initramfs_fd >= 0)
        rc = x86_image_init(&b->initramfs, in->initramfs_fd, "initramfs", err);
    for (unsigned i = 0; rc == 0 && in->ram && i < in->nr_ram; i++)
        rc = ram_add(b, in->ram[i].gpa, in->ram[i].len, err);
    for (unsigned i = 0; rc == 0 && !in->ram && i < gmem_nr_regions(gm); i++)
        rc = ram_add(b, gmem_region(gm, i)->gpa, gmem_region(gm, i)->len, err);
    if (rc < 0)
        return rc;
    b->low_end_gpa = low_ram_end(gm);
    if (b->low_end_gpa <= X86_HIGH_RAM_GPA)
        return err_set(err, -EINVAL, "memory: no RAM at 1 MiB to load a kernel");
    return 0;
}

/* --- Initramfs and command line ------------------------------------------ */

int x86_boot_initramfs(struct x86_boot *b, uint64_t floor_gpa, uint64_t max_gpa, struct err *err)
{
    uint64_t top = b->low_end_gpa;
    uint64_t gpa;

    if (b->initramfs.size == 0)
        return 0;
    if (max_gpa < top)
        top = max_gpa + 1;
    if (b->initramfs.size > top) {
        return err_set(err, -EINVAL, "initramfs: %" PRIu64 " bytes do not fit below %#" PRIx64,
                       b->initramfs.size, top);
    }
    gpa = (top - b->initramfs.size) & ~(uint64_t)(PAGE_SIZE_4K - 1);
    if (gpa < floor_gpa) {
        return err_set(err, -EINVAL,
                       "initramfs: %" PRIu64 " bytes do not fit between the kernel (to %#" PRIx64
                       ") and %#" PRIx64,
                       b->initramfs.size, floor_gpa, top);
    }
    b->initramfs_gpa = gpa;
    return x86_image_load(&b->initramfs, 0, b->initramfs.size, b->gm, gpa, err);
}

int x86_boot_cmdline(struct x86_boot *b, uint64_t max_len, struct err *err)
{
    const char *s = b->in->cmdline ? b->in->cmdline : "";
    size_t len = strlen(s);

    if (max_len > X86_CMDLINE_SIZE - 1)
        max_len = X86_CMDLINE_SIZE - 1;
    if (len > max_len) {
        return err_set(err, -EINVAL, "cmdline: %zu bytes, this kernel takes %" PRIu64, len,
                       max_len);
    }
    if (gmem_copy_out(b->gm, X86_CMDLINE_GPA, s, len + 1) < 0)
        return err_set(err, -EINVAL, "cmdline: no RAM for it");
    return 0;
}

/* --- Tables of the processor --------------------------------------------- */

/* Intel SDM 3A, 3.4.5: a descriptor.  @flags: type, S, DPL, P, then AVL, L, D/B, G. */
static uint64_t gdt_entry(uint16_t flags, uint32_t base, uint32_t limit)
{
    return ((uint64_t)(base & 0xff000000) << 32) | ((uint64_t)(flags & 0xf0ff) << 40) |
           ((uint64_t)(limit & 0x000f0000) << 32) | ((uint64_t)(base & 0x00ffffff) << 16) |
           (limit & 0x0000ffff);
}

static struct kvm_segment segment(uint16_t selector, uint16_t flags, uint32_t limit)
{
    return (struct kvm_segment){
        .selector = selector,
        .limit = limit,
        .type = flags & 0xf,
        .s = (flags >> 4) & 1,
        .dpl = (flags >> 5) & 3,
        .present = (flags >> 7) & 1,
        .avl = (flags >> 12) & 1,
        .l = (flags >> 13) & 1,
        .db = (flags >> 14) & 1,
        .g = (flags >> 15) & 1,
    };
}

enum {
    SEG_CODE32 = 0xc09b, /* G, D, present, code, execute/read, accessed */
    SEG_CODE64 = 0xa09b, /* G, L, present, code, execute/read, accessed */
    SEG_DATA = 0xc093,   /* G, B, present, data, read/write, accessed */
    SEG_TSS = 0x008b,    /* present, busy TSS */
    SEG_LIMIT = 0xfffff, /* in pages */
    SEG_TSS_LIMIT = 0x67,
};

static int tables_write(struct gmem *gm, enum x86_boot_protocol protocol)
{
    uint16_t code = protocol == X86_BOOT_LINUX64 ? SEG_CODE64 : SEG_CODE32;
    le64 gdt[BOOT_GDT_ENTRIES] = {
        [BOOT_TR / 8] = le64_make(gdt_entry(SEG_TSS, 0, SEG_TSS_LIMIT)),
        [BOOT_CS / 8] = le64_make(gdt_entry(code, 0, SEG_LIMIT)),
        [BOOT_DS / 8] = le64_make(gdt_entry(SEG_DATA, 0, SEG_LIMIT)),
    };
    _Static_assert(X86_BOOT_GDT_GPA + sizeof(gdt) <= X86_BOOT_IDT_GPA, "core/x86/layout.h");
    le16 ebda = le16_make(X86_EBDA_GPA >> 4);
    le64 idt = {{0}};
    int rc;

    rc = gmem_copy_out(gm, X86_BOOT_GDT_GPA, gdt, sizeof(gdt));
    if (rc == 0)
        rc = gmem_copy_out(gm, X86_BOOT_IDT_GPA, &idt, sizeof(idt));
    if (rc == 0)
        rc = gmem_copy_out(gm, X86_EBDA_POINTER_GPA, &ebda, sizeof(ebda));
    return rc;
}

/* The first 4 GiB one to one, in 2 MiB pages. */
static int page_tables_write(struct gmem *gm)
{
    le64 page[512] = {0};
    int rc;

    page[0] = le64_make(X86_BOOT_PDPT_GPA | PTE_PRESENT | PTE_WRITE);
    rc = gmem_copy_out(gm, X86_BOOT_PML4_GPA, page, sizeof(page));
    for (unsigned i = 0; i < BOOT_PD_PAGES; i++)
        page[i] = le64_make((X86_BOOT_PD_GPA + i * PAGE_SIZE_4K) | PTE_PRESENT | PTE_WRITE);
    if (rc == 0)
        rc = gmem_copy_out(gm, X86_BOOT_PDPT_GPA, page, sizeof(page));
    for (unsigned i = 0; rc == 0 && i < BOOT_PD_PAGES; i++) {
        for (unsigned j = 0; j < ARRAY_LEN(page); j++) {
            uint64_t gpa = (uint64_t)(i * ARRAY_LEN(page) + j) << 21;

            page[j] = le64_make(gpa | PTE_PRESENT | PTE_WRITE | PTE_LARGE);
        }
        rc = gmem_copy_out(gm, X86_BOOT_PD_GPA + i * PAGE_SIZE_4K, page, sizeof(page));
    }
    return rc;
}

/* --- Entry --------------------------------------------------------------- */

int x86_boot_load(struct gmem *gm, const struct x86_boot_in *in, struct x86_boot_entry *ret_entry,
                  struct err *err)
{
    enum {
        HEAD = 0x210, /* enough to tell the formats apart */
    };
    struct x86_boot_entry entry = {.rip = 0};
    struct x86_boot boot;
    uint8_t head[HEAD];
    size_t len;
    int rc;

    rc = x86_boot_prepare(gm, in, &boot, err);
    if (rc < 0)
        return rc;
    len = boot.kernel.size < sizeof(head) ? (size_t)boot.kernel.size : sizeof(head);
    rc = x86_image_read(&boot.kernel, 0, head, len, "magic", err);
    if (rc < 0)
        return rc;
    if (x86_pvh_is(head, len))
        rc = x86_pvh_load(&boot, &entry, err);
    else if (x86_bzimage_is(head, len))
        rc = x86_bzimage_load(&boot, &entry, err);
    else
        rc = err_set(err, -ENOTSUP, "kernel: neither an ELF file nor a bzImage");
    if (rc < 0)
        return rc;
    rc = tables_write(gm, entry.protocol);
    if (rc == 0 && entry.protocol == X86_BOOT_LINUX64)
        rc = page_tables_write(gm);
    if (rc < 0)
        return err_set(err, -EINVAL, "memory: no RAM for the boot tables");
    *ret_entry = entry;
    return 0;
}

void x86_boot_regs(const struct x86_boot_entry *entry, struct kvm_regs *regs)
{
    *regs = (struct kvm_regs){
        .rflags = 2, /* the bit that is always one */
        .rip = entry->rip,
        .rsp = X86_BOOT_STACK_GPA,
        .rbx = entry->rbx,
        .rsi = entry->rsi,
    };
}

void x86_boot_sregs(const struct x86_boot_entry *entry, struct kvm_sregs *sregs)
{
    bool long_mode = entry->protocol == X86_BOOT_LINUX64;
    struct kvm_segment data = segment(BOOT_DS, SEG_DATA, UINT32_MAX);

    sregs->cs = segment(BOOT_CS, long_mode ? SEG_CODE64 : SEG_CODE32, UINT32_MAX);
    sregs->ds = data;
    sregs->es = data;
    sregs->fs = data;
    sregs->gs = data;
    sregs->ss = data;
    sregs->tr = segment(BOOT_TR, SEG_TSS, SEG_TSS_LIMIT);
    sregs->gdt = (struct kvm_dtable){
        .base = X86_BOOT_GDT_GPA,
        .limit = BOOT_GDT_ENTRIES * sizeof(uint64_t) - 1,
    };
    sregs->idt = (struct kvm_dtable){.base = X86_BOOT_IDT_GPA, .limit = 0};
    sregs->cr0 = CR0_PE | CR0_ET;
    sregs->cr3 = 0;
    sregs->cr4 = 0;
    sregs->efer = 0;
    if (long_mode) {
        sregs->cr0 |= CR0_PG;
        sregs->cr3 = X86_BOOT_PML4_GPA;
        sregs->cr4 = CR4_PAE;
        sregs->efer = EFER_LME | EFER_LMA;
    }
}

unsigned x86_boot_msrs(struct kvm_msr_entry msrs[X86_BOOT_MSRS_MAX])
{
    const struct kvm_msr_entry list[] = {
        {.index = MSR_MISC_ENABLE,   .data = MISC_ENABLE_FAST_STRING      },
        {.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE | MTRR_WRITE_BACK},
    };

    _Static_assert(ARRAY_LEN(list) <= X86_BOOT_MSRS_MAX, "room in the caller's array");
    memcpy(msrs, list, sizeof(list));
    return ARRAY_LEN(list);
}
