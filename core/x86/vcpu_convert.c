/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the saved form of a vCPU and the structs of <linux/kvm.h>.
 */
#include <errno.h>
#include <string.h>

#include "core/x86/vcpu_state.h"

/* --- General registers --------------------------------------------------- */

/* Every member that both structs have. */
#define REGS_COPY(to, from)                                                              \
    do {                                                                                 \
        (to)->rax = (from)->rax, (to)->rbx = (from)->rbx, (to)->rcx = (from)->rcx;       \
        (to)->rdx = (from)->rdx, (to)->rsi = (from)->rsi, (to)->rdi = (from)->rdi;       \
        (to)->rsp = (from)->rsp, (to)->rbp = (from)->rbp, (to)->r8 = (from)->r8;         \
        (to)->r9 = (from)->r9, (to)->r10 = (from)->r10, (to)->r11 = (from)->r11;         \
        (to)->r12 = (from)->r12, (to)->r13 = (from)->r13, (to)->r14 = (from)->r14;       \
        (to)->r15 = (from)->r15, (to)->rip = (from)->rip, (to)->rflags = (from)->rflags; \
    } while (0)

void x86_regs_from_kvm(struct x86_regs *r, const struct kvm_regs *k)
{
    REGS_COPY(r, k);
}

void x86_regs_to_kvm(const struct x86_regs *r, struct kvm_regs *k)
{
    REGS_COPY(k, r);
}

/* --- Special registers --------------------------------------------------- */

static struct x86_segment segment_from(const struct kvm_segment *k)
{
    return (struct x86_segment){
        .base = k->base,
        .limit = k->limit,
        .selector = k->selector,
        .type = k->type,
        .dpl = k->dpl,
        .present = k->present,
        .db = k->db,
        .s = k->s,
        .l = k->l,
        .g = k->g,
        .avl = k->avl,
        .unusable = k->unusable,
    };
}

static struct kvm_segment segment_to(const struct x86_segment *r)
{
    return (struct kvm_segment){
        .base = r->base,
        .limit = r->limit,
        .selector = r->selector,
        .type = r->type,
        .dpl = r->dpl,
        .present = r->present,
        .db = r->db,
        .s = r->s,
        .l = r->l,
        .g = r->g,
        .avl = r->avl,
        .unusable = r->unusable,
    };
}

/* What kvm_sregs and kvm_sregs2 both have. */
#define SREGS_FROM(r, k)                                                      \
    do {                                                                      \
        (r)->cs = segment_from(&(k)->cs), (r)->ds = segment_from(&(k)->ds);   \
        (r)->es = segment_from(&(k)->es), (r)->fs = segment_from(&(k)->fs);   \
        (r)->gs = segment_from(&(k)->gs), (r)->ss = segment_from(&(k)->ss);   \
        (r)->tr = segment_from(&(k)->tr), (r)->ldt = segment_from(&(k)->ldt); \
        (r)->gdt = (struct x86_dtable){(k)->gdt.base, (k)->gdt.limit};        \
        (r)->idt = (struct x86_dtable){(k)->idt.base, (k)->idt.limit};        \
        (r)->cr0 = (k)->cr0, (r)->cr2 = (k)->cr2, (r)->cr3 = (k)->cr3;        \
        (r)->cr4 = (k)->cr4, (r)->cr8 = (k)->cr8;                             \
        (r)->efer = (k)->efer, (r)->apic_base = (k)->apic_base;               \
    } while (0)

#define SREGS_TO(r, k)                                                                  \
    do {                                                                                \
        (k)->cs = segment_to(&(r)->cs), (k)->ds = segment_to(&(r)->ds);                 \
        (k)->es = segment_to(&(r)->es), (k)->fs = segment_to(&(r)->fs);                 \
        (k)->gs = segment_to(&(r)->gs), (k)->ss = segment_to(&(r)->ss);                 \
        (k)->tr = segment_to(&(r)->tr), (k)->ldt = segment_to(&(r)->ldt);               \
        (k)->gdt = (struct kvm_dtable){.base = (r)->gdt.base, .limit = (r)->gdt.limit}; \
        (k)->idt = (struct kvm_dtable){.base = (r)->idt.base, .limit = (r)->idt.limit}; \
        (k)->cr0 = (r)->cr0, (k)->cr2 = (r)->cr2, (k)->cr3 = (r)->cr3;                  \
        (k)->cr4 = (r)->cr4, (k)->cr8 = (r)->cr8;                                       \
        (k)->efer = (r)->efer, (k)->apic_base = (r)->apic_base;                         \
    } while (0)

void x86_sregs_from_kvm(struct x86_sregs *r, const struct kvm_sregs *k)
{
    *r = (struct x86_sregs){.pdptrs_valid = false};
    SREGS_FROM(r, k);
    for (size_t i = 0; i < ARRAY_LEN(r->interrupt_bitmap); i++)
        r->interrupt_bitmap[i] = k->interrupt_bitmap[i];
}

void x86_sregs_to_kvm(const struct x86_sregs *r, struct kvm_sregs *k)
{
    *k = (struct kvm_sregs){.cr0 = 0};
    SREGS_TO(r, k);
    for (size_t i = 0; i < ARRAY_LEN(r->interrupt_bitmap); i++)
        k->interrupt_bitmap[i] = r->interrupt_bitmap[i];
}

void x86_sregs_from_kvm2(struct x86_sregs *r, const struct kvm_sregs2 *k)
{
    *r = (struct x86_sregs){.pdptrs_valid = k->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID};
    SREGS_FROM(r, k);
    for (size_t i = 0; r->pdptrs_valid && i < ARRAY_LEN(r->pdptrs); i++)
        r->pdptrs[i] = k->pdptrs[i];
}

void x86_sregs_to_kvm2(const struct x86_sregs *r, struct kvm_sregs2 *k)
{
    *k = (struct kvm_sregs2){.flags = r->pdptrs_valid ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0};
    SREGS_TO(r, k);
    for (size_t i = 0; r->pdptrs_valid && i < ARRAY_LEN(r->pdptrs); i++)
        k->pdptrs[i] = r->pdptrs[i];
}

/* --- The rest ------------------------------------------------------------ */

void x86_xcrs_from_kvm(struct x86_vcpu_state *s, const struct kvm_xcrs *k)
{
    s->nr_xcrs = k->nr_xcrs < X86_XCRS_MAX ? k->nr_xcrs : X86_XCRS_MAX;
    for (uint32_t i = 0; i < s->nr_xcrs; i++)
        s->xcrs[i] = (struct x86_xcr){.index = k->xcrs[i].xcr, .value = k->xcrs[i].value};
}

void x86_xcrs_to_kvm(const struct x86_vcpu_state *s, struct kvm_xcrs *k)
{
    _Static_assert(KVM_MAX_XCRS >= X86_XCRS_MAX, "linux/kvm.h: kvm_xcrs");
    *k = (struct kvm_xcrs){.nr_xcrs = s->nr_xcrs};
    for (uint32_t i = 0; i < s->nr_xcrs && i < X86_XCRS_MAX; i++)
        k->xcrs[i] = (struct kvm_xcr){.xcr = s->xcrs[i].index, .value = s->xcrs[i].value};
}

void x86_debugregs_from_kvm(struct x86_debugregs *r, const struct kvm_debugregs *k)
{
    for (size_t i = 0; i < ARRAY_LEN(r->db); i++)
        r->db[i] = k->db[i];
    r->dr6 = k->dr6;
    r->dr7 = k->dr7;
}

void x86_debugregs_to_kvm(const struct x86_debugregs *r, struct kvm_debugregs *k)
{
    *k = (struct kvm_debugregs){.dr6 = r->dr6, .dr7 = r->dr7};
    for (size_t i = 0; i < ARRAY_LEN(r->db); i++)
        k->db[i] = r->db[i];
}

void x86_events_from_kvm(struct x86_events *e, const struct kvm_vcpu_events *k)
{
    *e = (struct x86_events){
        .flags = k->flags,
        .exception_injected = k->exception.injected,
        .exception_pending = k->exception.pending,
        .exception_nr = k->exception.nr,
        .exception_has_error_code = k->exception.has_error_code,
        .exception_error_code = k->exception.error_code,
        .exception_has_payload = k->exception_has_payload,
        .exception_payload = k->exception_payload,
        .interrupt_injected = k->interrupt.injected,
        .interrupt_nr = k->interrupt.nr,
        .interrupt_soft = k->interrupt.soft,
        .interrupt_shadow = k->interrupt.shadow,
        .nmi_injected = k->nmi.injected,
        .nmi_pending = k->nmi.pending,
        .nmi_masked = k->nmi.masked,
        .sipi_vector = k->sipi_vector,
        .smi_smm = k->smi.smm,
        .smi_pending = k->smi.pending,
        .smi_inside_nmi = k->smi.smm_inside_nmi,
        .smi_latched_init = k->smi.latched_init,
        .triple_fault_pending = k->triple_fault.pending,
    };
    /* Without the capability the member is not the kernel's word. */
    if (!(k->flags & KVM_VCPUEVENT_VALID_PAYLOAD)) {
        e->exception_pending = false;
        e->exception_has_payload = false;
        e->exception_payload = 0;
    }
    if (!(k->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT))
        e->triple_fault_pending = false;
}

/* An event under way that needs a flag this kernel does not take. */
static const char *events_lost(const struct x86_events *e, uint32_t allowed)
{
    if (!(allowed & KVM_VCPUEVENT_VALID_PAYLOAD) &&
        (e->exception_pending || e->exception_has_payload))
        return "exception_payload";
    if (!(allowed & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) && e->triple_fault_pending)
        return "triple_fault_pending";
    if (!(allowed & KVM_VCPUEVENT_VALID_SMM) && (e->smi_smm || e->smi_pending || e->smi_inside_nmi))
        return "smi_smm";
    return NULL;
}

int x86_events_to_kvm(const struct x86_events *e, uint32_t allowed, struct kvm_vcpu_events *k,
                      struct err *err)
{
    const char *lost = events_lost(e, allowed);

    if (lost)
        return err_set(err, -ENOTSUP, "x86-vcpu.events.%s: this kernel cannot take it", lost);
    *k = (struct kvm_vcpu_events){
        .exception = {.injected = e->exception_injected,
                      .nr = e->exception_nr,
                      .has_error_code = e->exception_has_error_code,
                      .pending = e->exception_pending,
                      .error_code = e->exception_error_code},
        .exception_has_payload = e->exception_has_payload,
        .exception_payload = e->exception_payload,
        .interrupt = {.injected = e->interrupt_injected,
                      .nr = e->interrupt_nr,
                      .soft = e->interrupt_soft,
                      .shadow = e->interrupt_shadow},
        .nmi = {.injected = e->nmi_injected,         .pending = e->nmi_pending, .masked = e->nmi_masked},
        .sipi_vector = e->sipi_vector,
        .smi = {.smm = e->smi_smm,
                      .pending = e->smi_pending,
                      .smm_inside_nmi = e->smi_inside_nmi,
                      .latched_init = e->smi_latched_init},
        .triple_fault = {.pending = e->triple_fault_pending                    },
        .flags = e->flags & allowed,
    };
    /* KVM never sets the flag when it is read, but holds a vector that a SIPI brought. */
    if (e->sipi_vector)
        k->flags |= allowed & KVM_VCPUEVENT_VALID_SIPI_VECTOR;
    return 0;
}

enum {
    LAPIC_TPR = 0x80,
    LAPIC_PPR = 0xa0,
    LAPIC_ISR = 0x100, /* 8 registers of 32 bits, 16 bytes apart */
    LAPIC_ISR_REGS = 8,
};

void x86_lapic_from_kvm(uint8_t lapic[X86_LAPIC_SIZE], const struct kvm_lapic_state *k)
{
    unsigned tpr, in_service = 0;

    memcpy(lapic, k->regs, X86_LAPIC_SIZE);
    for (unsigned i = 0; i < LAPIC_ISR_REGS * 32; i++)
        if (lapic[LAPIC_ISR + i / 32 * 16 + i % 32 / 8] >> i % 8 & 1)
            in_service = i;
    tpr = lapic[LAPIC_TPR];
    memset(&lapic[LAPIC_PPR], 0, 4);
    lapic[LAPIC_PPR] = (uint8_t)((tpr & 0xf0) >= (in_service & 0xf0) ? tpr : in_service & 0xf0);
}
