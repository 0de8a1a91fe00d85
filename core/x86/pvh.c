/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF files with the PVH entry note: uncompressed Linux, firmware, small
 * payloads.
 *
 * Source: Xen, docs/misc/pvh.pandoc (register state), public/elfnote.h (the
 * note), public/arch-x86/hvm/start_info.h (the start info, version 1).
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/gmem.h"
#include "core/wire.h"
#include "core/x86/boot_internal.h"
#include "core/x86/layout.h"

enum {
    PVH_PHDRS_MAX = 64,
    PVH_NOTES_MAX = 64 << 10, /* bytes of one PT_NOTE segment */
    PVH_NOTE_ENTRY = 18,      /* XEN_ELFNOTE_PHYS32_ENTRY */
    PVH_VERSION = 1,
    PVH_MEM_RAM = 1,
    PVH_MEM_RESERVED = 2,
    PVH_CMDLINE_MAX = X86_CMDLINE_SIZE - 1,
};

#define PVH_MAGIC UINT32_C(0x336ec578)

struct pvh_start_info {
    le32 magic;
    le32 version;
    le32 flags;
    le32 nr_modules;
    le64 modlist_paddr;
    le64 cmdline_paddr;
    le64 rsdp_paddr;
    le64 memmap_paddr;
    le32 memmap_entries;
    le32 reserved;
};

struct pvh_module {
    le64 paddr;
    le64 size;
    le64 cmdline_paddr;
    le64 reserved;
};

struct pvh_memmap {
    le64 addr;
    le64 size;
    le32 type;
    le32 reserved;
};

_Static_assert(sizeof(struct pvh_start_info) == 56, "start_info.h: hvm_start_info");
_Static_assert(sizeof(struct pvh_module) == 32, "start_info.h: hvm_modlist_entry");
_Static_assert(sizeof(struct pvh_memmap) == 24, "start_info.h: hvm_memmap_table_entry");
_Static_assert((X86_BOOT_RAM_MAX + 1) * sizeof(struct pvh_memmap) <= PAGE_SIZE_4K,
               "the memory map has a page");

struct pvh {
    Elf64_Phdr phdrs[PVH_PHDRS_MAX];
    unsigned nr_phdrs;
    bool has_entry;
    uint64_t entry_gpa;
    uint64_t end_gpa; /* of the highest segment */
};

bool x86_pvh_is(const uint8_t *head, size_t len)
{
    return len >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0;
}

/* --- The file ------------------------------------------------------------ */

static int ehdr_read(const struct x86_image *img, struct pvh *pvh, struct err *err)
{
    Elf64_Ehdr e;
    int rc;

    rc = x86_image_read(img, 0, &e, sizeof(e), "ehdr", err);
    if (rc < 0)
        return rc;
    if (memcmp(e.e_ident, ELFMAG, SELFMAG) != 0)
        return err_set(err, -EBADMSG, "kernel.e_ident: not an ELF file");
    if (e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_ident[EI_DATA] != ELFDATA2LSB)
        return err_set(err, -ENOTSUP, "kernel.e_ident: not a 64-bit little-endian ELF file");
    if (e.e_machine != EM_X86_64)
        return err_set(err, -ENOTSUP, "kernel.e_machine: %u, not x86-64", e.e_machine);
    if (e.e_type != ET_EXEC && e.e_type != ET_DYN)
        return err_set(err, -ENOTSUP, "kernel.e_type: %u, not an executable", e.e_type);
    if (e.e_phentsize != sizeof(Elf64_Phdr))
        return err_set(err, -EBADMSG, "kernel.e_phentsize: %u, not %zu", e.e_phentsize,
                       sizeof(Elf64_Phdr));
    if (e.e_phnum == 0 || e.e_phnum > PVH_PHDRS_MAX)
        return err_set(err, -EBADMSG, "kernel.e_phnum: %u, not 1 to %d", e.e_phnum, PVH_PHDRS_MAX);
    pvh->nr_phdrs = e.e_phnum;
    return x86_image_read(img, e.e_phoff, pvh->phdrs, e.e_phnum * sizeof(Elf64_Phdr), "e_phoff",
                          err);
}

static int load_check(const struct x86_boot *b, struct pvh *pvh, unsigned i, struct err *err)
{
    const Elf64_Phdr *p = &pvh->phdrs[i];

    if (p->p_filesz > p->p_memsz) {
        return err_set(err, -EBADMSG,
                       "kernel.phdr[%u].p_filesz: %" PRIu64 ", more than p_memsz %" PRIu64, i,
                       (uint64_t)p->p_filesz, (uint64_t)p->p_memsz);
    }
    if (p->p_offset > b->kernel.size || p->p_filesz > b->kernel.size - p->p_offset) {
        return err_set(err, -EBADMSG,
                       "kernel.phdr[%u].p_offset: %" PRIu64 " bytes at %#" PRIx64
                       " reach past the end of the file (%" PRIu64 " bytes)",
                       i, (uint64_t)p->p_filesz, (uint64_t)p->p_offset, b->kernel.size);
    }
    if (p->p_paddr < X86_HIGH_RAM_GPA) {
        return err_set(err, -ENOTSUP, "kernel.phdr[%u].p_paddr: %#" PRIx64 " is below 1 MiB", i,
                       (uint64_t)p->p_paddr);
    }
    if (p->p_paddr > b->low_end_gpa || p->p_memsz > b->low_end_gpa - p->p_paddr) {
        return err_set(err, -EINVAL,
                       "kernel.phdr[%u].p_memsz: %" PRIu64 " bytes at %#" PRIx64
                       " are not in RAM, which ends at %#" PRIx64,
                       i, (uint64_t)p->p_memsz, (uint64_t)p->p_paddr, b->low_end_gpa);
    }
    if (p->p_paddr + p->p_memsz > pvh->end_gpa)
        pvh->end_gpa = p->p_paddr + p->p_memsz;
    return 0;
}

static size_t note_align(size_t n, uint64_t p_align)
{
    size_t a = p_align == 8 ? 8 : 4;

    return (n + a - 1) & ~(a - 1);
}

/* Look through one PT_NOTE segment for the entry. */
static int notes_scan(struct pvh *pvh, const uint8_t *bytes, size_t len, uint64_t p_align,
                      struct err *err)
{
    struct rd r = {.p = bytes, .left = len};

    while (r.left >= sizeof(Elf64_Nhdr)) {
        uint32_t namesz = rd_le32(&r);
        uint32_t descsz = rd_le32(&r);
        uint32_t type = rd_le32(&r);
        const uint8_t *name = r.p;
        /* The descriptor is aligned, counted from the note's start. */
        size_t name_len =
            note_align(sizeof(Elf64_Nhdr) + (size_t)namesz, p_align) - sizeof(Elf64_Nhdr);
        size_t desc_len = note_align(descsz, p_align);
        const uint8_t *desc;

        if (name_len > r.left || descsz > r.left - name_len)
            return err_set(err, -EBADMSG, "kernel.note: a note of %u + %u bytes, %zu are left",
                           namesz, descsz, r.left);
        (void)rd_bytes(&r, name_len);
        desc = rd_bytes(&r, desc_len < r.left ? desc_len : r.left);
        if (type != PVH_NOTE_ENTRY || namesz != sizeof("Xen") || memcmp(name, "Xen", namesz) != 0)
            continue;
        if (descsz == sizeof(le32))
            pvh->entry_gpa = le32_get(*(const le32 *)desc);
        else if (descsz == sizeof(le64))
            pvh->entry_gpa = le64_get(*(const le64 *)desc);
        else
            return err_set(err, -EBADMSG, "kernel.note.phys32_entry: %u bytes, not 4 or 8", descsz);
        pvh->has_entry = true;
    }
    return 0;
}

static int notes_read(const struct x86_image *img, struct pvh *pvh, unsigned i, struct err *err)
{
    const Elf64_Phdr *p = &pvh->phdrs[i];
    auto_free uint8_t *bytes = NULL;
    int rc;

    if (p->p_filesz > PVH_NOTES_MAX) {
        return err_set(err, -E2BIG, "kernel.phdr[%u].p_filesz: %" PRIu64 " bytes of notes", i,
                       (uint64_t)p->p_filesz);
    }
    if (p->p_filesz == 0)
        return 0;
    bytes = malloc(p->p_filesz);
    if (!bytes)
        return -ENOMEM;
    rc = x86_image_read(img, p->p_offset, bytes, p->p_filesz, "note", err);
    if (rc < 0)
        return rc;
    return notes_scan(pvh, bytes, p->p_filesz, p->p_align, err);
}

static int entry_check(const struct pvh *pvh, struct err *err)
{
    if (!pvh->has_entry)
        return err_set(err, -ENOTSUP,
                       "kernel.note: an ELF file without a PVH entry (XEN_ELFNOTE_PHYS32_ENTRY)");
    for (unsigned i = 0; i < pvh->nr_phdrs; i++) {
        const Elf64_Phdr *p = &pvh->phdrs[i];

        if (p->p_type == PT_LOAD && pvh->entry_gpa >= p->p_paddr &&
            pvh->entry_gpa - p->p_paddr < p->p_memsz)
            return 0;
    }
    return err_set(err, -EBADMSG, "kernel.note.phys32_entry: %#" PRIx64 " is in no segment",
                   pvh->entry_gpa);
}

static int pvh_parse(const struct x86_boot *b, struct pvh *pvh, struct err *err)
{
    int rc = ehdr_read(&b->kernel, pvh, err);

    for (unsigned i = 0; rc == 0 && i < pvh->nr_phdrs; i++) {
        if (pvh->phdrs[i].p_type == PT_LOAD && pvh->phdrs[i].p_memsz != 0)
            rc = load_check(b, pvh, i, err);
        else if (pvh->phdrs[i].p_type == PT_NOTE)
            rc = notes_read(&b->kernel, pvh, i, err);
    }
    return rc < 0 ? rc : entry_check(pvh, err);
}

/* --- Guest memory -------------------------------------------------------- */

static int segments_load(const struct x86_boot *b, const struct pvh *pvh, struct err *err)
{
    for (unsigned i = 0; i < pvh->nr_phdrs; i++) {
        const Elf64_Phdr *p = &pvh->phdrs[i];
        int rc;

        if (p->p_type != PT_LOAD || p->p_memsz == 0)
            continue;
        rc = x86_image_load(&b->kernel, p->p_offset, p->p_filesz, b->gm, p->p_paddr, err);
        if (rc < 0)
            return rc;
        if (b->in->ram_is_zero)
            continue;
        if (gmem_fill(b->gm, p->p_paddr + p->p_filesz, 0, p->p_memsz - p->p_filesz) < 0)
            return err_set(err, -EINVAL, "kernel.phdr[%u].p_memsz: not in RAM", i);
    }
    return 0;
}

static int start_info_write(const struct x86_boot *b, struct err *err)
{
    struct pvh_memmap map[X86_BOOT_RAM_MAX + 1] = {0};
    bool has_module = b->initramfs.size != 0;
    struct pvh_module module = {
        .paddr = le64_make(b->initramfs_gpa),
        .size = le64_make(b->initramfs.size),
    };
    struct pvh_start_info info = {
        .magic = le32_make(PVH_MAGIC),
        .version = le32_make(PVH_VERSION),
        .nr_modules = le32_make(has_module),
        .modlist_paddr = le64_make(has_module ? X86_PVH_MODLIST_GPA : 0),
        .cmdline_paddr = le64_make(X86_CMDLINE_GPA),
        .rsdp_paddr = le64_make(b->in->rsdp_gpa),
        .memmap_paddr = le64_make(X86_PVH_MEMMAP_GPA),
        .memmap_entries = le32_make(b->nr_ram + 1),
    };
    int rc;

    for (unsigned i = 0; i < b->nr_ram; i++) {
        map[i].addr = le64_make(b->ram[i].gpa);
        map[i].size = le64_make(b->ram[i].len);
        map[i].type = le32_make(PVH_MEM_RAM);
    }
    map[b->nr_ram].addr = le64_make(X86_ECAM_GPA);
    map[b->nr_ram].size = le64_make(X86_ECAM_SIZE);
    map[b->nr_ram].type = le32_make(PVH_MEM_RESERVED);
    rc = gmem_copy_out(b->gm, X86_PVH_MEMMAP_GPA, map, (b->nr_ram + 1) * sizeof(map[0]));
    if (rc == 0 && has_module)
        rc = gmem_copy_out(b->gm, X86_PVH_MODLIST_GPA, &module, sizeof(module));
    if (rc == 0)
        rc = gmem_copy_out(b->gm, X86_PVH_INFO_GPA, &info, sizeof(info));
    return rc < 0 ? err_set(err, -EINVAL, "memory: no RAM for the start info") : 0;
}

int x86_pvh_load(struct x86_boot *b, struct x86_boot_entry *ret_entry, struct err *err)
{
    struct pvh pvh = {0};
    int rc;

    rc = pvh_parse(b, &pvh, err);
    if (rc == 0)
        rc = x86_boot_cmdline(b, PVH_CMDLINE_MAX, err);
    if (rc == 0)
        rc = segments_load(b, &pvh, err);
    if (rc == 0)
        rc = x86_boot_initramfs(b, pvh.end_gpa, X86_MMIO32_GPA - 1, err);
    if (rc == 0)
        rc = start_info_write(b, err);
    if (rc < 0)
        return rc;
    *ret_entry = (struct x86_boot_entry){
        .protocol = X86_BOOT_PVH,
        .rip = pvh.entry_gpa,
        .rbx = X86_PVH_INFO_GPA,
    };
    return 0;
}
