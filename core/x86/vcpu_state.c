/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State tables of a vCPU.
 */
#include "core/x86/vcpu_state.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define DR_HIGH UINT64_C(0xffffffff00000000) /* must be zero in DR6 and DR7 */

/* --- Parts --------------------------------------------------------------- */

static const struct state_field regs_fields[] = {
    /* clang-format off */
    STATE(struct x86_regs, 1, U64, rax),
    STATE(struct x86_regs, 1, U64, rbx),
    STATE(struct x86_regs, 1, U64, rcx),
    STATE(struct x86_regs, 1, U64, rdx),
    STATE(struct x86_regs, 1, U64, rsi),
    STATE(struct x86_regs, 1, U64, rdi),
    STATE(struct x86_regs, 1, U64, rsp),
    STATE(struct x86_regs, 1, U64, rbp),
    STATE(struct x86_regs, 1, U64, r8),
    STATE(struct x86_regs, 1, U64, r9),
    STATE(struct x86_regs, 1, U64, r10),
    STATE(struct x86_regs, 1, U64, r11),
    STATE(struct x86_regs, 1, U64, r12),
    STATE(struct x86_regs, 1, U64, r13),
    STATE(struct x86_regs, 1, U64, r14),
    STATE(struct x86_regs, 1, U64, r15),
    STATE(struct x86_regs, 1, U64, rip),
    STATE(struct x86_regs, 1, U64, rflags),
    /* clang-format on */
};

static const struct state_field segment_fields[] = {
    /* clang-format off */
    STATE(struct x86_segment, 1, U64,  base),
    STATE(struct x86_segment, 1, U32,  limit),
    STATE(struct x86_segment, 1, U16,  selector),
    STATE(struct x86_segment, 1, U8,   type),
    STATE(struct x86_segment, 1, U8,   dpl),
    STATE(struct x86_segment, 1, BOOL, present),
    STATE(struct x86_segment, 1, BOOL, db),
    STATE(struct x86_segment, 1, BOOL, s),
    STATE(struct x86_segment, 1, BOOL, l),
    STATE(struct x86_segment, 1, BOOL, g),
    STATE(struct x86_segment, 1, BOOL, avl),
    STATE(struct x86_segment, 1, BOOL, unusable),
    /* clang-format on */
};

static const struct state_field dtable_fields[] = {
    /* clang-format off */
    STATE(struct x86_dtable, 1, U64, base),
    STATE(struct x86_dtable, 1, U16, limit),
    /* clang-format on */
};

#define PART(name_, type_, fields_)                                             \
    {                                                                           \
        .name = (name_), .version = 1, .version_min = 1, .size = sizeof(type_), \
        .fields = (fields_), .nr_fields = ARRAY_LEN(fields_),                   \
    }

static const struct state_desc regs_desc = PART("x86-regs", struct x86_regs, regs_fields);
static const struct state_desc segment_desc =
    PART("x86-segment", struct x86_segment, segment_fields);
static const struct state_desc dtable_desc = PART("x86-dtable", struct x86_dtable, dtable_fields);

static const struct state_field sregs_fields[] = {
    /* clang-format off */
    STATE_STRUCT(struct x86_sregs, 1, &segment_desc, cs),
    STATE_STRUCT(struct x86_sregs, 1, &segment_desc, ds),
    STATE_STRUCT(struct x86_sregs, 1, &segment_desc, es),
    STATE_STRUCT(struct x86_sregs, 1, &segment_desc, fs),
    STATE_STRUCT(struct x86_sregs, 1, &segment_desc, gs),
    STATE_STRUCT(struct x86_sregs, 1, &segment_desc, ss),
    STATE_STRUCT(struct x86_sregs, 1, &segment_desc, tr),
    STATE_STRUCT(struct x86_sregs, 1, &segment_desc, ldt),
    STATE_STRUCT(struct x86_sregs, 1, &dtable_desc,  gdt),
    STATE_STRUCT(struct x86_sregs, 1, &dtable_desc,  idt),
    STATE(struct x86_sregs,        1, U64,           cr0),
    STATE(struct x86_sregs,        1, U64,           cr2),
    STATE(struct x86_sregs,        1, U64,           cr3),
    STATE(struct x86_sregs,        1, U64,           cr4),
    STATE(struct x86_sregs,        1, U64,           cr8),
    STATE(struct x86_sregs,        1, U64,           efer),
    STATE(struct x86_sregs,        1, U64,           apic_base),
    STATE(struct x86_sregs,        1, U64,           interrupt_bitmap),
    STATE(struct x86_sregs,        1, BOOL,          pdptrs_valid),
    STATE(struct x86_sregs,        1, U64,           pdptrs),
    /* clang-format on */
};

static const struct state_field xcr_fields[] = {
    /* clang-format off */
    STATE(struct x86_xcr, 1, U32, index),
    STATE(struct x86_xcr, 1, U64, value),
    /* clang-format on */
};

static const struct state_field debugregs_fields[] = {
    /* clang-format off */
    STATE(struct x86_debugregs, 1, U64, db),
    STATE(struct x86_debugregs, 1, U64, dr6),
    STATE(struct x86_debugregs, 1, U64, dr7),
    /* clang-format on */
};

static const struct state_field events_fields[] = {
    /* clang-format off */
    STATE(struct x86_events, 1, U32,  flags),
    STATE(struct x86_events, 1, BOOL, exception_injected),
    STATE(struct x86_events, 1, BOOL, exception_pending),
    STATE(struct x86_events, 1, U8,   exception_nr),
    STATE(struct x86_events, 1, BOOL, exception_has_error_code),
    STATE(struct x86_events, 1, U32,  exception_error_code),
    STATE(struct x86_events, 1, BOOL, exception_has_payload),
    STATE(struct x86_events, 1, U64,  exception_payload),
    STATE(struct x86_events, 1, BOOL, interrupt_injected),
    STATE(struct x86_events, 1, U8,   interrupt_nr),
    STATE(struct x86_events, 1, BOOL, interrupt_soft),
    STATE(struct x86_events, 1, U8,   interrupt_shadow),
    STATE(struct x86_events, 1, BOOL, nmi_injected),
    STATE(struct x86_events, 1, U8,   nmi_pending),
    STATE(struct x86_events, 1, BOOL, nmi_masked),
    STATE(struct x86_events, 1, U32,  sipi_vector),
    STATE(struct x86_events, 1, BOOL, smi_smm),
    STATE(struct x86_events, 1, BOOL, smi_pending),
    STATE(struct x86_events, 1, BOOL, smi_inside_nmi),
    STATE(struct x86_events, 1, BOOL, smi_latched_init),
    STATE(struct x86_events, 1, BOOL, triple_fault_pending),
    /* clang-format on */
};

static const struct state_field msr_fields[] = {
    /* clang-format off */
    STATE(struct x86_msr, 1, U32, index),
    STATE(struct x86_msr, 1, U64, value),
    /* clang-format on */
};

static const struct state_desc sregs_desc = PART("x86-sregs", struct x86_sregs, sregs_fields);
static const struct state_desc xcr_desc = PART("x86-xcr", struct x86_xcr, xcr_fields);
static const struct state_desc debugregs_desc =
    PART("x86-debugregs", struct x86_debugregs, debugregs_fields);
static const struct state_desc events_desc = PART("x86-events", struct x86_events, events_fields);
static const struct state_desc msr_desc = PART("x86-msr", struct x86_msr, msr_fields);

/* --- The whole ----------------------------------------------------------- */

static const struct state_field vcpu_fields[] = {
    /* clang-format off */
    STATE(struct x86_vcpu_state,        1, U32,             apic_id),
    STATE(struct x86_vcpu_state,        1, U32,             mp_state),
    STATE_STRUCT(struct x86_vcpu_state, 1, &regs_desc,      regs),
    STATE_STRUCT(struct x86_vcpu_state, 1, &sregs_desc,     sregs),
    STATE_STRUCT(struct x86_vcpu_state, 1, &debugregs_desc, debugregs),
    STATE_STRUCT(struct x86_vcpu_state, 1, &events_desc,    events),
    STATE(struct x86_vcpu_state,        1, BYTES,           lapic),
    STATE_LIST(struct x86_vcpu_state,   1, &xcr_desc,       xcrs, nr_xcrs),
    STATE_BLOB(struct x86_vcpu_state,   1, xsave,           xsave_len, X86_XSAVE_MAX),
    STATE_BLOB(struct x86_vcpu_state,   1, nested,          nested_len, X86_NESTED_MAX),
    STATE(struct x86_vcpu_state,        1, U32,             tsc_khz),
    STATE(struct x86_vcpu_state,        1, BOOL,            tsc_offset_valid),
    STATE(struct x86_vcpu_state,        1, U64,             tsc_offset),
    STATE(struct x86_vcpu_state,        1, U64,             host_tsc),
    STATE_LIST(struct x86_vcpu_state,   1, &msr_desc,       msrs, nr_msrs),
    /* clang-format on */
};

static int segments_check(const struct x86_sregs *r, struct err *err)
{
    const struct {
        const char *name;
        const struct x86_segment *seg;
    } segs[] = {
        {"cs",  &r->cs },
        {"ds",  &r->ds },
        {"es",  &r->es },
        {"fs",  &r->fs },
        {"gs",  &r->gs },
        {"ss",  &r->ss },
        {"tr",  &r->tr },
        {"ldt", &r->ldt},
    };

    for (size_t i = 0; i < ARRAY_LEN(segs); i++) {
        if (segs[i].seg->type > 15 || segs[i].seg->dpl > 3)
            return err_set(err, -EBADMSG, "x86-vcpu.sregs.%s: type %u, dpl %u", segs[i].name,
                           segs[i].seg->type, segs[i].seg->dpl);
    }
    return 0;
}

static int sregs_check(const struct x86_sregs *r, struct err *err)
{
    unsigned vectors = 0;

    if (r->cr8 > 15)
        return err_set(err, -EBADMSG, "x86-vcpu.sregs.cr8: %#" PRIx64, r->cr8);
    for (size_t i = 0; i < ARRAY_LEN(r->interrupt_bitmap); i++)
        vectors += (unsigned)__builtin_popcountll(r->interrupt_bitmap[i]);
    if (vectors > 1)
        return err_set(err, -EBADMSG, "x86-vcpu.sregs.interrupt_bitmap: %u vectors", vectors);
    return segments_check(r, err);
}

static int events_check(const struct x86_events *e, struct err *err)
{
    if (e->exception_injected || e->exception_pending) {
        /* KVM: an NMI is no exception, and there are 32 of them. */
        if (e->exception_nr > 31 || e->exception_nr == 2)
            return err_set(err, -EBADMSG, "x86-vcpu.events.exception_nr: %u", e->exception_nr);
    }
    if (e->interrupt_shadow & ~(KVM_X86_SHADOW_INT_MOV_SS | KVM_X86_SHADOW_INT_STI))
        return err_set(err, -EBADMSG, "x86-vcpu.events.interrupt_shadow: %#x", e->interrupt_shadow);
    if (e->nmi_pending > 2)
        return err_set(err, -EBADMSG, "x86-vcpu.events.nmi_pending: %u", e->nmi_pending);
    return 0;
}

static int msrs_check(const struct x86_vcpu_state *s, struct err *err)
{
    char name[X86_MSR_NAME_MAX];

    for (uint32_t i = 0; i < s->nr_msrs; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (s->msrs[i].index == s->msrs[j].index)
                return err_set(err, -EBADMSG, "x86-vcpu.msrs[%u]: %s twice", i,
                               x86_msr_name(s->msrs[i].index, name));
        }
        /* Written by special registers and LAPIC only. */
        if (x86_msr_class(s->msrs[i].index) == X86_MSR_SKIP)
            return err_set(err, -EBADMSG, "x86-vcpu.msrs[%u]: %s does not belong here", i,
                           x86_msr_name(s->msrs[i].index, name));
        /* KVM is told of classes in this order. */
        if (i > 0 && x86_msr_class(s->msrs[i].index) < x86_msr_class(s->msrs[i - 1].index))
            return err_set(err, -EBADMSG, "x86-vcpu.msrs[%u]: %s is out of order", i,
                           x86_msr_name(s->msrs[i].index, name));
    }
    return 0;
}

static int vcpu_check(const void *scratch, const void *live, struct err *err)
{
    const struct x86_vcpu_state *s = scratch;
    const struct x86_vcpu_state *l = live;
    int rc;

    if (l && l->apic_id != s->apic_id)
        return err_set(err, -EBADMSG, "x86-vcpu.apic_id: %u, this vCPU's is %u", s->apic_id,
                       l->apic_id);
    if (s->mp_state > KVM_MP_STATE_SIPI_RECEIVED)
        return err_set(err, -EBADMSG, "x86-vcpu.mp_state: %u", s->mp_state);
    if (!(s->regs.rflags & 2))
        return err_set(err, -EBADMSG, "x86-vcpu.regs.rflags: %#" PRIx64, s->regs.rflags);
    if ((s->debugregs.dr6 | s->debugregs.dr7) & DR_HIGH)
        return err_set(err, -EBADMSG, "x86-vcpu.debugregs: dr6 %#" PRIx64 ", dr7 %#" PRIx64,
                       s->debugregs.dr6, s->debugregs.dr7);
    if (s->xsave_len < X86_XSAVE_MIN || s->xsave_len % 4 != 0)
        return err_set(err, -EBADMSG, "x86-vcpu.xsave: %u bytes", s->xsave_len);
    for (uint32_t i = 0; i < s->nr_xcrs; i++) {
        /* Intel SDM 1, 13.3: XCR0 is the only one, and x87 state is always on. */
        if (s->xcrs[i].index != 0 || i > 0 || !(s->xcrs[i].value & 1))
            return err_set(err, -EBADMSG, "x86-vcpu.xcrs[%u]: number %u, value %#" PRIx64, i,
                           s->xcrs[i].index, s->xcrs[i].value);
    }
    rc = sregs_check(&s->sregs, err);
    if (rc == 0)
        rc = events_check(&s->events, err);
    if (rc == 0)
        rc = msrs_check(s, err);
    return rc;
}

const struct state_desc x86_vcpu_state_desc = {
    .name = "x86-vcpu",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct x86_vcpu_state),
    .fields = vcpu_fields,
    .nr_fields = ARRAY_LEN(vcpu_fields),
    .check = vcpu_check,
};

const struct x86_msr *x86_vcpu_msr(const struct x86_vcpu_state *s, uint32_t index)
{
    for (uint32_t i = 0; i < s->nr_msrs; i++) {
        if (s->msrs[i].index == index)
            return &s->msrs[i];
    }
    return NULL;
}
