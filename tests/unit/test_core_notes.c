/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/user.h>

#include "core/state.h"
#include "core/x86/vcpu_state.h"
#include "tools/chsnap/core_notes.h"

enum {
    MSR_STAR = 0xc0000081,
    MSR_KERNEL_GS_BASE = 0xc0000102,
};

/* struct QEMUCPUState of QEMU's target/i386/arch_dump.c, version 1. */
struct qemu_segment {
    uint32_t selector, limit, flags, pad;
    uint64_t base;
};

struct qemu_note {
    uint32_t version, size;
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rip, rflags;
    struct qemu_segment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
    uint64_t cr[5];
    uint64_t kernel_gs_base;
};

_Static_assert(sizeof(struct qemu_note) == 440, "as crash has it");
_Static_assert(sizeof(struct elf_prstatus) == 336, "as Linux has it on x86-64");

/* Both notes of one vCPU, names padded to 4 bytes; they follow without gaps. */
struct cpu_notes {
    Elf64_Nhdr core;
    char core_name[8];
    struct elf_prstatus prstatus;
    Elf64_Nhdr qemu;
    char qemu_name[8];
    struct qemu_note note;
};

static void take(const uint8_t **at, void *part, size_t len)
{
    memcpy(part, *at, len);
    *at += len;
}

static void take_notes(const uint8_t **at, struct cpu_notes *n)
{
    take(at, &n->core, sizeof(n->core));
    take(at, n->core_name, sizeof(n->core_name));
    take(at, &n->prstatus, sizeof(n->prstatus));
    take(at, &n->qemu, sizeof(n->qemu));
    take(at, n->qemu_name, sizeof(n->qemu_name));
    take(at, &n->note, sizeof(n->note));
}

/* What a 64-bit kernel has in CS. */
static const struct x86_segment code = {
    .limit = 0xffffffff,
    .selector = 0x10,
    .type = 11,
    .present = true,
    .s = true,
    .l = true,
    .g = true,
};

static void some_vcpu(struct x86_vcpu_state *s, uint64_t seed)
{
    uint64_t *r = (uint64_t *)&s->regs;

    memset(s, 0, sizeof(*s));
    for (size_t i = 0; i < sizeof(s->regs) / sizeof(*r); i++)
        r[i] = 0xffff888000000000 + (seed << 16) + i;
    s->sregs.cs = code;
    s->sregs.ss = (struct x86_segment){.selector = 0x18, .dpl = 3, .db = true, .avl = true};
    s->sregs.ds.selector = 0x2b;
    s->sregs.es.selector = 0x33;
    s->sregs.fs.base = 0x7f0000000000 + seed;
    s->sregs.gs.base = 0xffff888012340000 + seed;
    s->sregs.tr = (struct x86_segment){.base = 0xfffffe0000003000, .limit = 0x4087};
    s->sregs.ldt.selector = 0x48;
    s->sregs.gdt = (struct x86_dtable){.base = 0xfffffe0000001000, .limit = 0x7f};
    s->sregs.idt = (struct x86_dtable){.base = 0xfffffe0000000000, .limit = 0xfff};
    s->sregs.cr0 = 0x80050033;
    s->sregs.cr2 = 0x5a587c;
    s->sregs.cr3 = 0x382e000 + (seed << 12);
    s->sregs.cr4 = 0x3506b0;
    s->msrs[s->nr_msrs++] = (struct x86_msr){MSR_STAR, 1};
    if (seed)
        s->msrs[s->nr_msrs++] = (struct x86_msr){MSR_KERNEL_GS_BASE, 0xffffc90000000000 + seed};
}

static void save(struct state_buf *buf, const char *id, uint64_t seed)
{
    struct x86_vcpu_state s;

    some_vcpu(&s, seed);
    assert_int_equal(state_save(&x86_vcpu_state_desc, id, &s, buf, NULL), 0);
}

static void check_prstatus(const struct cpu_notes *n, uint64_t seed)
{
    struct x86_vcpu_state s;
    struct user_regs_struct r;

    some_vcpu(&s, seed);
    memcpy(&r, &n->prstatus.pr_reg, sizeof(r));
    assert_int_equal(n->core.n_type, NT_PRSTATUS);
    assert_int_equal(n->core.n_namesz, 5);
    assert_int_equal(n->core.n_descsz, sizeof(n->prstatus));
    assert_memory_equal(n->core_name, "CORE\0\0\0", 8);
    assert_int_equal(n->prstatus.pr_pid, seed + 1);
    assert_true(r.r15 == s.regs.r15 && r.r14 == s.regs.r14 && r.r13 == s.regs.r13 &&
                r.r12 == s.regs.r12 && r.r11 == s.regs.r11 && r.r10 == s.regs.r10 &&
                r.r9 == s.regs.r9 && r.r8 == s.regs.r8);
    assert_true(r.rax == s.regs.rax && r.rbx == s.regs.rbx && r.rcx == s.regs.rcx &&
                r.rdx == s.regs.rdx && r.rsi == s.regs.rsi && r.rdi == s.regs.rdi &&
                r.rbp == s.regs.rbp && r.rsp == s.regs.rsp);
    assert_true(r.rip == s.regs.rip && r.eflags == s.regs.rflags && r.orig_rax == 0);
    assert_true(r.cs == 0x10 && r.ss == 0x18 && r.ds == 0x2b && r.es == 0x33 && r.fs == 0);
    assert_true(r.fs_base == s.sregs.fs.base && r.gs_base == s.sregs.gs.base);
}

static void check_qemu(const struct cpu_notes *n, uint64_t seed)
{
    const struct qemu_note *q = &n->note;
    struct x86_vcpu_state s;

    some_vcpu(&s, seed);
    assert_int_equal(n->qemu.n_type, 0);
    assert_int_equal(n->qemu.n_namesz, 5);
    assert_int_equal(n->qemu.n_descsz, sizeof(n->note));
    assert_memory_equal(n->qemu_name, "QEMU\0\0\0", 8);
    assert_int_equal(q->version, 1);
    assert_int_equal(q->size, sizeof(*q));
    assert_memory_equal(&q->rax, &s.regs, sizeof(s.regs)); /* the same order */
    assert_true(q->cs.selector == 0x10 && q->cs.limit == 0xffffffff && q->cs.flags == 0xa09b00);
    assert_true(q->ss.selector == 0x18 && q->ss.flags == 0x506000);
    assert_true(q->ds.selector == 0x2b && q->es.selector == 0x33 && q->ldt.selector == 0x48);
    assert_true(q->fs.base == s.sregs.fs.base && q->gs.base == s.sregs.gs.base);
    assert_true(q->tr.base == s.sregs.tr.base && q->tr.limit == 0x4087);
    assert_true(q->gdt.base == s.sregs.gdt.base && q->gdt.limit == 0x7f && q->gdt.flags == 0);
    assert_true(q->idt.base == s.sregs.idt.base && q->idt.limit == 0xfff);
    assert_true(q->cr[0] == s.sregs.cr0 && q->cr[1] == 0 && q->cr[2] == s.sregs.cr2);
    assert_true(q->cr[3] == s.sregs.cr3 && q->cr[4] == s.sregs.cr4);
    assert_true(q->kernel_gs_base == (seed ? 0xffffc90000000000 + seed : 0));
}

static void test_each_vcpu_has_both_notes(void **state)
{
    struct state_buf buf = {0};
    struct cpu_notes got;
    uint8_t *notes = NULL;
    const uint8_t *at;
    unsigned cpus = 0;
    size_t len = 0;

    (void)state;
    save(&buf, "vcpu0", 0);
    save(&buf, "vcpu1", 1);
    assert_int_equal(core_notes_make(buf.data, buf.len, &notes, &len, &cpus, NULL), 0);
    assert_int_equal(cpus, 2);
    assert_int_equal(len, 2 * (20 + sizeof(got.prstatus) + 20 + sizeof(got.note)));
    at = notes;
    for (unsigned i = 0; i < cpus; i++) {
        take_notes(&at, &got);
        check_prstatus(&got, i);
        check_qemu(&got, i);
    }
    free(notes);
    state_buf_release(&buf);
}

static void test_state_that_is_none_is_refused(void **state)
{
    struct state_buf buf = {0};
    uint8_t *notes = NULL;
    struct err err = {0};
    unsigned cpus;
    size_t len;

    (void)state;
    assert_int_equal(core_notes_make(NULL, 0, &notes, &len, &cpus, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "no processor"));
    save(&buf, "vcpu0", 0);
    for (size_t cut = 1; cut < buf.len; cut++)
        assert_int_equal(core_notes_make(buf.data, cut, &notes, &len, &cpus, NULL), -EBADMSG);
    assert_null(notes);
    state_buf_release(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_vcpu_has_both_notes),
        cmocka_unit_test(test_state_that_is_none_is_refused),
    };

    return cmocka_run_group_tests_name("core_notes", tests, NULL, NULL);
}
