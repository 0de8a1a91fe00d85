/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <asm/bootparam.h>
#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/gmem.h"
#include "core/wire.h"
#include "core/x86/boot.h"
#include "core/x86/layout.h"

enum {
    SETUP_BYTES = 5 * 512, /* setup_sects 4 */
    PAYLOAD_BYTES = 64 << 10,
    BZIMAGE_BYTES = SETUP_BYTES + PAYLOAD_BYTES,
    ELF_TEXT_OFF = 0x1000,
    ELF_TEXT_BYTES = 0x1800,
    ELF_BYTES = ELF_TEXT_OFF + ELF_TEXT_BYTES,
    ELF_BSS_BYTES = 0x3000,
    ELF_NOTE_OFF = 0x200,
};

/* --- Files that are made here -------------------------------------------- */

static int file_of(const void *bytes, size_t len)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    return fd;
}

static void bzimage_make(uint8_t *img)
{
    struct setup_header h = {
        .setup_sects = 4,
        .syssize = PAYLOAD_BYTES / 16,
        .boot_flag = 0xaa55,
        .jump = 0x66eb, /* the header ends at 0x202 + 0x66 */
        .header = 0x53726448,
        .version = 0x20f,
        .loadflags = LOADED_HIGH,
        .code32_start = 0x100000,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .xloadflags = XLF_KERNEL_64,
        .cmdline_size = 2047,
        .pref_address = 0x1000000,
        .init_size = 0x400000,
    };

    memset(img, 0, SETUP_BYTES);
    for (unsigned i = 0; i < PAYLOAD_BYTES; i++)
        img[SETUP_BYTES + i] = (uint8_t)(i * 7 + (i >> 8));
    memcpy(img + 0x1f1, &h, sizeof(h));
}

struct elf_file {
    Elf64_Ehdr e;
    Elf64_Phdr p[3];
};

static void elf_make(uint8_t *img)
{
    const struct {
        Elf64_Nhdr h;
        char name[4];
        le32 desc;
    } note = {
        .h = {.n_namesz = 4, .n_descsz = 4, .n_type = 18},
        .name = "Xen",
        .desc = le32_make(0x200010),
    };
    struct elf_file f = {
        .e = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
              .e_type = ET_EXEC,
              .e_machine = EM_X86_64,
              .e_version = 1,
              .e_phoff = sizeof(Elf64_Ehdr),
              .e_ehsize = sizeof(Elf64_Ehdr),
              .e_phentsize = sizeof(Elf64_Phdr),
              .e_phnum = 2},
        .p = {{.p_type = PT_LOAD,
               .p_offset = ELF_TEXT_OFF,
               .p_paddr = 0x200000,
               .p_filesz = ELF_TEXT_BYTES,
               .p_memsz = ELF_TEXT_BYTES + ELF_BSS_BYTES},
              {.p_type = PT_NOTE,
               .p_offset = ELF_NOTE_OFF,
               .p_filesz = sizeof(note),
               .p_memsz = sizeof(note),
               .p_align = 4}},
    };

    memset(img, 0, ELF_BYTES);
    memcpy(img, &f, sizeof(f));
    memcpy(img + ELF_NOTE_OFF, &note, sizeof(note));
    for (unsigned i = 0; i < ELF_TEXT_BYTES; i++)
        img[ELF_TEXT_OFF + i] = (uint8_t)(i ^ (i >> 7));
}

/* --- A machine ----------------------------------------------------------- */

struct fixture {
    struct gmem *gm;
    struct x86_boot_in in;
    struct x86_boot_entry entry;
    struct err err;
};

static void ram_add(struct gmem *gm, uint64_t gpa, uint64_t len)
{
    struct gmem_backing backing = {.fd = -1};

    assert_true(gmem_add_region(gm, gpa, len, "ram", &backing, NULL) >= 0);
}

static void fixture_init(struct fixture *f, const void *kernel, size_t len)
{
    *f = (struct fixture){
        .in = {.initramfs_fd = -1, .rsdp_gpa = X86_EBDA_GPA}
    };
    assert_int_equal(gmem_new(&f->gm), 0);
    ram_add(f->gm, 0, MIB(64));
    f->in.kernel_fd = file_of(kernel, len);
}

static void fixture_release(struct fixture *f)
{
    gmem_free(f->gm);
    (void)close(f->in.kernel_fd);
    if (f->in.initramfs_fd >= 0)
        (void)close(f->in.initramfs_fd);
}

static int boot(struct fixture *f)
{
    f->err = (struct err){0};
    return x86_boot_load(f->gm, &f->in, &f->entry, &f->err);
}

static void guest_equal(struct gmem *gm, uint64_t gpa, const void *want, size_t len)
{
    uint8_t *got = malloc(len);

    assert_non_null(got);
    assert_int_equal(gmem_copy_in(gm, gpa, got, len), 0);
    assert_memory_equal(got, want, len);
    free(got);
}

static uint64_t guest_le64(struct gmem *gm, uint64_t gpa)
{
    le64 v;

    assert_int_equal(gmem_copy_in(gm, gpa, &v, sizeof(v)), 0);
    return le64_get(v);
}

static uint32_t guest_le32(struct gmem *gm, uint64_t gpa)
{
    return (uint32_t)guest_le64(gm, gpa);
}

/* --- bzImage ------------------------------------------------------------- */

static void test_bzimage_is_entered_at_its_64_bit_entry(void **state)
{
    static uint8_t img[BZIMAGE_BYTES];
    const char initramfs[] = "a small initramfs";
    struct boot_params bp;
    struct fixture f;

    (void)state;
    bzimage_make(img);
    fixture_init(&f, img, sizeof(img));
    ram_add(f.gm, X86_RAM64_GPA, MIB(16));
    f.in.initramfs_fd = file_of(initramfs, sizeof(initramfs));
    f.in.cmdline = "console=ttyS0";
    assert_int_equal(boot(&f), 0);
    assert_int_equal(f.entry.protocol, X86_BOOT_LINUX64);
    assert_int_equal(f.entry.rip, 0x100200);
    assert_int_equal(f.entry.rsi, X86_ZERO_PAGE_GPA);
    guest_equal(f.gm, 0x100000, img + SETUP_BYTES, PAYLOAD_BYTES);
    guest_equal(f.gm, X86_CMDLINE_GPA, "console=ttyS0", sizeof("console=ttyS0"));
    assert_int_equal(gmem_copy_in(f.gm, X86_ZERO_PAGE_GPA, &bp, sizeof(bp)), 0);
    assert_int_equal(bp.hdr.header, 0x53726448);
    assert_int_equal(bp.hdr.type_of_loader, 0xff);
    assert_int_equal(bp.hdr.cmd_line_ptr, X86_CMDLINE_GPA);
    assert_int_equal(bp.hdr.ramdisk_size, sizeof(initramfs));
    assert_int_equal(bp.hdr.ramdisk_image, MIB(64) - PAGE_SIZE_4K);
    assert_int_equal(bp.acpi_rsdp_addr, X86_EBDA_GPA);
    guest_equal(f.gm, bp.hdr.ramdisk_image, initramfs, sizeof(initramfs));
    assert_int_equal(bp.e820_entries, 4);
    assert_int_equal(bp.e820_table[0].addr, 0);
    assert_int_equal(bp.e820_table[0].size, 0xa0000);
    assert_int_equal(bp.e820_table[0].type, 1);
    assert_int_equal(bp.e820_table[1].addr, 0x100000);
    assert_int_equal(bp.e820_table[1].size, MIB(63));
    assert_int_equal(bp.e820_table[2].addr, X86_RAM64_GPA);
    assert_int_equal(bp.e820_table[2].size, MIB(16));
    assert_int_equal(bp.e820_table[3].addr, X86_ECAM_GPA);
    assert_int_equal(bp.e820_table[3].type, 2);
    fixture_release(&f);
}

static void test_bzimage_page_tables_map_4_gib(void **state)
{
    static uint8_t img[BZIMAGE_BYTES];
    struct kvm_sregs sregs = {.apic_base = 0xfee00900};
    struct kvm_regs regs;
    struct fixture f;

    (void)state;
    bzimage_make(img);
    fixture_init(&f, img, sizeof(img));
    assert_int_equal(boot(&f), 0);
    x86_boot_regs(&f.entry, &regs);
    x86_boot_sregs(&f.entry, &sregs);
    assert_int_equal(regs.rip, 0x100200);
    assert_int_equal(regs.rsi, 0x7000);
    assert_int_equal(regs.rflags, 2);
    assert_int_equal(sregs.apic_base, 0xfee00900);
    assert_int_equal(sregs.cs.l, 1);
    assert_int_equal(sregs.cs.db, 0);
    assert_int_equal(sregs.cs.selector, 0x10);
    assert_int_equal(sregs.ss.selector, 0x18);
    assert_int_equal(sregs.efer, 0x500);
    assert_int_equal(sregs.cr0, 0x80000011);
    assert_int_equal(sregs.cr4, 0x20);
    for (uint64_t va = 0; va < GIB(4); va += MIB(2)) {
        uint64_t pml4e = guest_le64(f.gm, sregs.cr3 + 8 * (va >> 39));
        uint64_t pdpte = guest_le64(f.gm, (pml4e & ~0xfffU) + 8 * ((va >> 30) & 511));
        uint64_t pde = guest_le64(f.gm, (pdpte & ~0xfffU) + 8 * ((va >> 21) & 511));

        assert_int_equal(pml4e & 0xfff, 3);
        assert_int_equal(pdpte & 0xfff, 3);
        assert_int_equal(pde, va | 0x83);
    }
    /* The GDT says what the segment registers say. */
    assert_int_equal(guest_le64(f.gm, sregs.gdt.base), 0);
    assert_int_equal(guest_le64(f.gm, sregs.gdt.base + 0x08), 0x00008b0000000067);
    assert_int_equal(guest_le64(f.gm, sregs.gdt.base + 0x10), 0x00af9b000000ffff);
    assert_int_equal(guest_le64(f.gm, sregs.gdt.base + 0x18), 0x00cf93000000ffff);
    assert_int_equal(sregs.gdt.limit, 31);
    assert_int_equal(guest_le32(f.gm, 0x40e) & 0xffff, 0xa000);
    fixture_release(&f);
}

static void test_bzimage_without_64_bit_entry_uses_the_32_bit_one(void **state)
{
    static uint8_t img[BZIMAGE_BYTES];
    struct kvm_sregs sregs = {0};
    struct fixture f;

    (void)state;
    bzimage_make(img);
    img[0x236] = 0; /* xloadflags */
    fixture_init(&f, img, sizeof(img));
    assert_int_equal(boot(&f), 0);
    assert_int_equal(f.entry.protocol, X86_BOOT_LINUX32);
    assert_int_equal(f.entry.rip, 0x100000);
    x86_boot_sregs(&f.entry, &sregs);
    assert_int_equal(sregs.cr0, 0x11);
    assert_int_equal(sregs.cs.db, 1);
    assert_int_equal(guest_le64(f.gm, sregs.gdt.base + 0x10), 0x00cf9b000000ffff);
    fixture_release(&f);
}

/* One field of the image changed: what is said of it. */
struct bad_row {
    const char *why;
    unsigned off;
    unsigned size;
    uint64_t value;
    int rc;
    const char *field;
};

static void bad_rows_run(const struct bad_row *rows, size_t nr, const uint8_t *good, size_t len)
{
    uint8_t *img = malloc(len);

    assert_non_null(img);
    for (size_t i = 0; i < nr; i++) {
        const struct bad_row *r = &rows[i];
        struct fixture f;
        int rc;

        memcpy(img, good, len);
        memcpy(img + r->off, &r->value, r->size);
        fixture_init(&f, img, len);
        rc = boot(&f);
        if (rc != r->rc || strncmp(f.err.msg, r->field, strlen(r->field)) != 0)
            fail_msg("%s: %d \"%s\", not %d \"%s...\"", r->why, rc, f.err.msg, r->rc, r->field);
        fixture_release(&f);
    }
    free(img);
}

static void test_bzimage_with_a_bad_field_is_refused_by_name(void **state)
{
    static uint8_t img[BZIMAGE_BYTES];
    /* clang-format off */
    static const struct bad_row rows[] = {
        {"no boot flag", 0x1fe, 2, 0, -ENOTSUP, "kernel: neither"},
        {"no magic", 0x202, 4, 0, -ENOTSUP, "kernel: neither"},
        {"old protocol", 0x206, 2, 0x205, -ENOTSUP, "kernel.version"},
        {"zImage", 0x211, 1, 0, -ENOTSUP, "kernel.loadflags"},
        {"header into the EDD area", 0x201, 1, 0x8f, -EBADMSG, "kernel.jump"},
        {"more setup than file", 0x1f1, 1, 255, -EBADMSG, "kernel.setup_sects"},
        {"no size", 0x1f4, 4, 0, -EBADMSG, "kernel.syssize"},
        {"truncated", 0x1f4, 4, PAYLOAD_BYTES / 16 + 1, -EBADMSG, "kernel.syssize"},
        {"size beyond 4 GiB", 0x1f4, 4, 0xffffffff, -EBADMSG, "kernel.syssize"},
        {"no entry inside", 0x1f4, 4, 0x20, -EBADMSG, "kernel.syssize"},
        {"alignment 0", 0x230, 4, 0, -EBADMSG, "kernel.kernel_alignment"},
        {"alignment 3", 0x230, 4, 3, -EBADMSG, "kernel.kernel_alignment"},
        {"alignment 2 GiB", 0x230, 4, 0x80000000, -EINVAL, "kernel.init_size"},
        {"needs all memory", 0x260, 4, 0xffffffff, -EINVAL, "kernel.init_size"},
        {"starts nowhere", 0x258, 8, UINT64_MAX, -EINVAL, "kernel.init_size"},
    };
    /* clang-format on */

    (void)state;
    bzimage_make(img);
    bad_rows_run(rows, ARRAY_LEN(rows), img, sizeof(img));
}

static void test_bzimage_every_truncation_is_refused(void **state)
{
    static uint8_t img[BZIMAGE_BYTES];

    (void)state;
    bzimage_make(img);
    for (size_t len = 1; len < sizeof(img) - 16; len += len < 0x300 ? 1 : 997) {
        struct fixture f;

        fixture_init(&f, img, len);
        assert_true(boot(&f) < 0);
        assert_int_equal(strncmp(f.err.msg, "kernel", 6), 0);
        fixture_release(&f);
    }
}

static void test_cmdline_longer_than_the_kernel_takes_is_refused(void **state)
{
    static uint8_t img[BZIMAGE_BYTES];
    char cmdline[2049];
    struct fixture f;

    (void)state;
    bzimage_make(img);
    memset(cmdline, 'x', sizeof(cmdline));
    cmdline[2048] = 0;
    fixture_init(&f, img, sizeof(img));
    f.in.cmdline = cmdline;
    assert_int_equal(boot(&f), -EINVAL);
    assert_string_equal(f.err.msg, "cmdline: 2048 bytes, this kernel takes 2047");
    cmdline[2047] = 0;
    assert_int_equal(boot(&f), 0);
    fixture_release(&f);
}

static void test_initramfs_finds_room_or_says_so(void **state)
{
    static uint8_t img[BZIMAGE_BYTES];
    struct fixture f;

    (void)state;
    bzimage_make(img);
    fixture_init(&f, img, sizeof(img));
    f.in.initramfs_fd = memfd_create("initramfs", MFD_CLOEXEC);
    /* The kernel ends at 20 MiB: 44 MiB are left. */
    assert_int_equal(ftruncate(f.in.initramfs_fd, (off_t)MIB(44)), 0);
    assert_int_equal(boot(&f), 0);
    assert_int_equal(guest_le32(f.gm, X86_ZERO_PAGE_GPA + 0x218), MIB(20));
    assert_int_equal(ftruncate(f.in.initramfs_fd, (off_t)MIB(44) + 1), 0);
    assert_int_equal(boot(&f), -EINVAL);
    assert_int_equal(strncmp(f.err.msg, "initramfs: ", 11), 0);
    assert_int_equal(ftruncate(f.in.initramfs_fd, (off_t)GIB(100)), 0);
    assert_int_equal(boot(&f), -EINVAL);
    assert_int_equal(ftruncate(f.in.initramfs_fd, 0), 0);
    assert_int_equal(boot(&f), -EINVAL);
    assert_string_equal(f.err.msg, "initramfs: the file is empty");
    /* initrd_addr_max */
    img[0x22f] = 2; /* 0x02ffffff */
    (void)close(f.in.kernel_fd);
    f.in.kernel_fd = file_of(img, sizeof(img));
    assert_int_equal(ftruncate(f.in.initramfs_fd, 5000), 0);
    assert_int_equal(boot(&f), 0);
    assert_int_equal(guest_le32(f.gm, X86_ZERO_PAGE_GPA + 0x218), 0x3000000 - 2 * PAGE_SIZE_4K);
    fixture_release(&f);
}

/* --- PVH ----------------------------------------------------------------- */

static void test_pvh_start_info_describes_the_machine(void **state)
{
    static uint8_t img[ELF_BYTES];
    static const uint8_t zeroes[ELF_BSS_BYTES];
    const char initramfs[] = "modules";
    struct kvm_sregs sregs = {0};
    struct kvm_regs regs;
    struct fixture f;

    (void)state;
    elf_make(img);
    fixture_init(&f, img, sizeof(img));
    f.in.initramfs_fd = file_of(initramfs, sizeof(initramfs));
    f.in.cmdline = "quiet";
    /* What was in RAM before must not be seen in the zeroed part. */
    assert_int_equal(gmem_fill(f.gm, 0x200000, 0xee, MIB(1)), 0);
    assert_int_equal(boot(&f), 0);
    assert_int_equal(f.entry.protocol, X86_BOOT_PVH);
    guest_equal(f.gm, 0x200000, img + ELF_TEXT_OFF, ELF_TEXT_BYTES);
    guest_equal(f.gm, 0x200000 + ELF_TEXT_BYTES, zeroes, sizeof(zeroes));
    x86_boot_regs(&f.entry, &regs);
    x86_boot_sregs(&f.entry, &sregs);
    assert_int_equal(regs.rip, 0x200010);
    assert_int_equal(regs.rbx, 0x6000);
    assert_int_equal(sregs.cr0, 0x11);
    assert_int_equal(sregs.cr4, 0);
    assert_int_equal(sregs.efer, 0);
    assert_int_equal(guest_le32(f.gm, 0x6000), 0x336ec578);
    assert_int_equal(guest_le32(f.gm, 0x6004), 1);
    assert_int_equal(guest_le32(f.gm, 0x600c), 1);
    assert_int_equal(guest_le64(f.gm, 0x6010), 0x6040);
    assert_int_equal(guest_le64(f.gm, 0x6018), X86_CMDLINE_GPA);
    assert_int_equal(guest_le64(f.gm, 0x6020), X86_EBDA_GPA);
    assert_int_equal(guest_le64(f.gm, 0x6028), 0x7000);
    assert_int_equal(guest_le32(f.gm, 0x6030), 3);
    assert_int_equal(guest_le64(f.gm, 0x6040), MIB(64) - PAGE_SIZE_4K);
    assert_int_equal(guest_le64(f.gm, 0x6048), sizeof(initramfs));
    assert_int_equal(guest_le64(f.gm, 0x7000), 0);
    assert_int_equal(guest_le64(f.gm, 0x7008), 0xa0000);
    assert_int_equal(guest_le64(f.gm, 0x7018), 0x100000);
    assert_int_equal(guest_le64(f.gm, 0x7020), MIB(63));
    assert_int_equal(guest_le32(f.gm, 0x7028), 1);
    assert_int_equal(guest_le64(f.gm, 0x7030), X86_ECAM_GPA);
    assert_int_equal(guest_le32(f.gm, 0x7040), 2);
    fixture_release(&f);
}

#define EHDR(m)    offsetof(struct elf_file, e.m), sizeof(((Elf64_Ehdr *)0)->m)
#define PHDR(n, m) offsetof(struct elf_file, p[n].m), sizeof(((Elf64_Phdr *)0)->m)

static void test_pvh_with_a_bad_field_is_refused_by_name(void **state)
{
    static uint8_t img[ELF_BYTES];
    /* clang-format off */
    static const struct bad_row rows[] = {
        {"32-bit", 4, 1, ELFCLASS32, -ENOTSUP, "kernel.e_ident"},
        {"big-endian", 5, 1, ELFDATA2MSB, -ENOTSUP, "kernel.e_ident"},
        {"arm", EHDR(e_machine), EM_AARCH64, -ENOTSUP, "kernel.e_machine"},
        {"object file", EHDR(e_type), ET_REL, -ENOTSUP, "kernel.e_type"},
        {"other headers", EHDR(e_phentsize), 32, -EBADMSG, "kernel.e_phentsize"},
        {"no headers", EHDR(e_phnum), 0, -EBADMSG, "kernel.e_phnum"},
        {"too many headers", EHDR(e_phnum), 65, -EBADMSG, "kernel.e_phnum"},
        {"headers past the end", EHDR(e_phoff), ELF_BYTES - 1, -EBADMSG, "kernel.e_phoff"},
        {"headers far past the end", EHDR(e_phoff), UINT64_MAX, -EBADMSG, "kernel.e_phoff"},
        {"segment past the end", PHDR(0, p_offset), ELF_TEXT_OFF + 1, -EBADMSG, "kernel.phdr[0].p_offset"},
        {"segment far past the end", PHDR(0, p_offset), UINT64_MAX, -EBADMSG, "kernel.phdr[0].p_offset"},
        {"more file than memory", PHDR(0, p_memsz), 1, -EBADMSG, "kernel.phdr[0].p_filesz"},
        {"in low memory", PHDR(0, p_paddr), 0x6000, -ENOTSUP, "kernel.phdr[0].p_paddr"},
        {"past RAM", PHDR(0, p_paddr), MIB(64), -EINVAL, "kernel.phdr[0].p_memsz"},
        {"wraps around", PHDR(0, p_paddr), UINT64_MAX, -EINVAL, "kernel.phdr[0].p_memsz"},
        {"huge", PHDR(0, p_memsz), UINT64_MAX, -EINVAL, "kernel.phdr[0].p_memsz"},
        {"no note segment", PHDR(1, p_type), PT_NULL, -ENOTSUP, "kernel.note"},
        {"note segment too big", PHDR(1, p_filesz), UINT64_MAX, -E2BIG, "kernel.phdr[1].p_filesz"},
        {"note segment past the end", PHDR(1, p_offset), ELF_BYTES, -EBADMSG, "kernel.note"},
        {"long name", ELF_NOTE_OFF, 4, UINT32_MAX, -EBADMSG, "kernel.note"},
        {"long desc", ELF_NOTE_OFF + 4, 4, UINT32_MAX - 2, -EBADMSG, "kernel.note"},
        {"empty desc", ELF_NOTE_OFF + 4, 4, 0, -EBADMSG, "kernel.note.phys32_entry"},
        {"another note", ELF_NOTE_OFF + 8, 4, 1, -ENOTSUP, "kernel.note"},
        {"another owner", ELF_NOTE_OFF + 12, 1, 'x', -ENOTSUP, "kernel.note"},
        {"entry nowhere", ELF_NOTE_OFF + 16, 4, 0x100000, -EBADMSG, "kernel.note.phys32_entry"},
    };
    /* clang-format on */

    (void)state;
    elf_make(img);
    bad_rows_run(rows, ARRAY_LEN(rows), img, sizeof(img));
}

static void test_pvh_every_truncation_is_refused(void **state)
{
    static uint8_t img[ELF_BYTES];

    (void)state;
    elf_make(img);
    for (size_t len = 1; len < sizeof(img); len += len < 0x300 ? 1 : 61) {
        struct fixture f;

        fixture_init(&f, img, len);
        assert_true(boot(&f) < 0);
        assert_int_equal(strncmp(f.err.msg, "kernel", 6), 0);
        fixture_release(&f);
    }
}

/* --- Both ---------------------------------------------------------------- */

static void test_what_is_no_regular_file_is_refused(void **state)
{
    struct fixture f;
    int pipefd[2];

    (void)state;
    fixture_init(&f, "x", 1);
    (void)close(f.in.kernel_fd);
    assert_int_equal(pipe(pipefd), 0);
    f.in.kernel_fd = pipefd[0];
    (void)close(pipefd[1]);
    assert_int_equal(boot(&f), -EINVAL);
    assert_string_equal(f.err.msg, "kernel: not a regular file");
    fixture_release(&f);
}

static void test_all_written_pages_are_marked(void **state)
{
    static uint8_t img[BZIMAGE_BYTES];
    static uint64_t bits[MIB(64) / 4096 / 64];
    static const uint8_t zero_page[4096];
    const struct gmem_region *r;
    struct fixture f;

    (void)state;
    bzimage_make(img);
    fixture_init(&f, img, sizeof(img));
    f.in.initramfs_fd = file_of(img, sizeof(img));
    memset(bits, 0, sizeof(bits));
    assert_int_equal(boot(&f), 0);
    gmem_dirty_drain(f.gm, 0, bits);
    r = gmem_region(f.gm, 0);
    for (size_t i = 0; i < r->len / 4096; i++) {
        if (memcmp(r->hva + i * 4096, zero_page, 4096) != 0)
            assert_true(bits[i / 64] >> (i % 64) & 1);
    }
    fixture_release(&f);
}

static void test_second_boot_gives_the_same_memory(void **state)
{
    static uint8_t img[ELF_BYTES];
    uint8_t *first = malloc(MIB(64));
    struct fixture f;

    (void)state;
    assert_non_null(first);
    elf_make(img);
    fixture_init(&f, img, sizeof(img));
    assert_int_equal(boot(&f), 0);
    assert_int_equal(gmem_copy_in(f.gm, 0x1000, first, MIB(8)), 0);
    assert_int_equal(gmem_fill(f.gm, 0x200000, 0x55, ELF_TEXT_BYTES + ELF_BSS_BYTES), 0);
    assert_int_equal(boot(&f), 0);
    guest_equal(f.gm, 0x1000, first, MIB(8));
    fixture_release(&f);
    free(first);
}

static void test_a_machine_without_ram_at_1_mib_is_refused(void **state)
{
    static uint8_t img[ELF_BYTES];
    struct fixture f;

    (void)state;
    elf_make(img);
    fixture_init(&f, img, sizeof(img));
    gmem_free(f.gm);
    assert_int_equal(gmem_new(&f.gm), 0);
    assert_int_equal(boot(&f), -EINVAL);
    ram_add(f.gm, 0, MIB(1));
    ram_add(f.gm, MIB(2), MIB(1));
    assert_int_equal(boot(&f), -EINVAL);
    assert_int_equal(strncmp(f.err.msg, "memory: ", 8), 0);
    /* Two regions side by side are as good as one. */
    ram_add(f.gm, MIB(1), MIB(1));
    assert_int_equal(boot(&f), 0);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bzimage_is_entered_at_its_64_bit_entry),
        cmocka_unit_test(test_bzimage_page_tables_map_4_gib),
        cmocka_unit_test(test_bzimage_without_64_bit_entry_uses_the_32_bit_one),
        cmocka_unit_test(test_bzimage_with_a_bad_field_is_refused_by_name),
        cmocka_unit_test(test_bzimage_every_truncation_is_refused),
        cmocka_unit_test(test_cmdline_longer_than_the_kernel_takes_is_refused),
        cmocka_unit_test(test_initramfs_finds_room_or_says_so),
        cmocka_unit_test(test_pvh_start_info_describes_the_machine),
        cmocka_unit_test(test_pvh_with_a_bad_field_is_refused_by_name),
        cmocka_unit_test(test_pvh_every_truncation_is_refused),
        cmocka_unit_test(test_what_is_no_regular_file_is_refused),
        cmocka_unit_test(test_all_written_pages_are_marked),
        cmocka_unit_test(test_second_boot_gives_the_same_memory),
        cmocka_unit_test(test_a_machine_without_ram_at_1_mib_is_refused),
    };

    return cmocka_run_group_tests_name("x86/boot", tests, NULL, NULL);
}
