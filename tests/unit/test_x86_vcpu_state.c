/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/x86/vcpu_state.h"
#include "tests/fakes/golden.h"

/* Different bytes everywhere, so that a member taken for another shows. */
static void scramble(void *p, size_t len, unsigned seed)
{
    uint8_t *b = p;

    for (size_t i = 0; i < len; i++)
        b[i] = (uint8_t)((i + seed) * 2654435761U >> 13);
}

static struct kvm_segment segment(unsigned n)
{
    return (struct kvm_segment){
        .base = 0x1000000000 + n,
        .limit = 0xfff00000 + n,
        .selector = (uint16_t)(n * 8),
        .type = (uint8_t)(n & 15),
        .present = n & 1,
        .dpl = n & 3,
        .db = n >> 1 & 1,
        .s = n >> 2 & 1,
        .l = !(n & 1),
        .g = !(n >> 1 & 1),
        .avl = !(n >> 2 & 1),
        .unusable = n % 3 == 0,
    };
}

static struct kvm_sregs2 some_sregs2(void)
{
    struct kvm_sregs2 k = {
        .cr0 = 0x80050033,
        .cr2 = 0x1234,
        .cr3 = 0x2000,
        .cr4 = 0x20,
        .cr8 = 5,
        .efer = 0xd01,
        .apic_base = 0xfee00d00,
        .flags = KVM_SREGS2_FLAGS_PDPTRS_VALID,
    };
    struct kvm_segment *const segs[] = {&k.cs, &k.ds, &k.es, &k.fs, &k.gs, &k.ss, &k.tr, &k.ldt};

    for (unsigned i = 0; i < ARRAY_LEN(segs); i++)
        *segs[i] = segment(i + 1);
    for (unsigned i = 0; i < ARRAY_LEN(k.pdptrs); i++)
        k.pdptrs[i] = 0x1001 + 0x1000 * i;
    k.gdt = (struct kvm_dtable){.base = 0xaaaa, .limit = 0x7f};
    k.idt = (struct kvm_dtable){.base = 0xbbbb, .limit = 0xfff};
    return k;
}

static void some_state(struct x86_vcpu_state *s)
{
    struct kvm_sregs2 sregs = some_sregs2();
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = 7};
    struct kvm_regs regs;

    *s = (struct x86_vcpu_state){.apic_id = 3, .mp_state = KVM_MP_STATE_HALTED};
    scramble(&regs, sizeof(regs), 1);
    regs.rflags = 0x246;
    x86_regs_from_kvm(&s->regs, &regs);
    x86_sregs_from_kvm2(&s->sregs, &sregs);
    x86_xcrs_from_kvm(s, &xcrs);
    s->debugregs = (struct x86_debugregs){
        .db = {1, 2, 3, 4},
          .dr6 = 0xffff0ff0, .dr7 = 0x400
    };
    s->events = (struct x86_events){
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        .interrupt_injected = true,
        .interrupt_nr = 0xec,
        .interrupt_shadow = KVM_X86_SHADOW_INT_STI,
        .nmi_pending = 2,
    };
    scramble(s->lapic, sizeof(s->lapic), 2);
    s->xsave = malloc(X86_XSAVE_MIN);
    assert_non_null(s->xsave);
    s->xsave_len = X86_XSAVE_MIN;
    scramble(s->xsave, s->xsave_len, 3);
    s->tsc_khz = 2100000;
    s->tsc_offset_valid = true;
    s->tsc_offset = UINT64_MAX - 1000;
    s->host_tsc = 123456789;
    s->nr_msrs = 3;
    s->msrs[0] = (struct x86_msr){0xc0000082, 0xffffffff81000000};
    s->msrs[1] = (struct x86_msr){0x10, 987654321};
    s->msrs[2] = (struct x86_msr){0x6e0, 999999999};
}

/* --- Conversions --------------------------------------------------------- */

static void test_general_registers_come_back(void **state)
{
    struct kvm_regs k;
    struct kvm_regs back;
    struct x86_regs r;

    (void)state;
    scramble(&k, sizeof(k), 9);
    x86_regs_from_kvm(&r, &k);
    x86_regs_to_kvm(&r, &back);
    assert_memory_equal(&back, &k, sizeof(k));
    assert_int_equal(r.r15, k.r15);
}

static void test_special_registers_come_back(void **state)
{
    struct kvm_sregs2 k2 = some_sregs2();
    struct kvm_sregs2 back2;
    struct kvm_sregs back;
    struct kvm_sregs k;
    struct x86_sregs r;

    (void)state;
    x86_sregs_from_kvm2(&r, &k2);
    x86_sregs_to_kvm2(&r, &back2);
    assert_memory_equal(&back2, &k2, sizeof(k2));
    k2.flags = 0;
    x86_sregs_from_kvm2(&r, &k2);
    assert_false(r.pdptrs_valid);
    x86_sregs_to_kvm2(&r, &back2);
    assert_int_equal(back2.flags, 0);
    assert_int_equal(back2.pdptrs[0], 0);
    /* The older call: the same but for the ends of the structs. */
    memset(&k, 0, sizeof(k));
    memcpy(&k, &k2, offsetof(struct kvm_sregs, interrupt_bitmap));
    k.interrupt_bitmap[3] = 1ULL << 44;
    x86_sregs_from_kvm(&r, &k);
    x86_sregs_to_kvm(&r, &back);
    assert_memory_equal(&back, &k, sizeof(k));
}

static void test_debug_registers_and_xcrs_come_back(void **state)
{
    struct kvm_debugregs d = {
        .db = {1, 2, 3, 4},
          .dr6 = 5, .dr7 = 6
    };
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0].value = 0xe7};
    static struct x86_vcpu_state s;
    struct kvm_debugregs dback;
    struct kvm_xcrs xback;

    (void)state;
    x86_debugregs_from_kvm(&s.debugregs, &d);
    x86_debugregs_to_kvm(&s.debugregs, &dback);
    assert_memory_equal(&dback, &d, sizeof(d));
    x86_xcrs_from_kvm(&s, &x);
    x86_xcrs_to_kvm(&s, &xback);
    assert_memory_equal(&xback, &x, sizeof(x));
    x.nr_xcrs = UINT32_MAX;
    x86_xcrs_from_kvm(&s, &x);
    assert_int_equal(s.nr_xcrs, X86_XCRS_MAX);
}

enum {
    EVENTS_ALL = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                 KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |
                 KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT,
    EVENTS_BASIC = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                   KVM_VCPUEVENT_VALID_SHADOW,
};

static void test_events_come_back(void **state)
{
    const struct kvm_vcpu_events k = {
        .exception = {.injected = 1,        .nr = 14, .has_error_code = 1, .pending = 1, .error_code = 6},
        .exception_has_payload = 1,
        .exception_payload = 0xdeadbeef,
        .interrupt = {.injected = 1, .nr = 0x30, .soft = 1, .shadow = 2},
        .nmi = {.injected = 1,     .pending = 2, .masked = 1},
        .sipi_vector = 0x9f,
        .smi = {.smm = 1,        .pending = 1, .smm_inside_nmi = 1, .latched_init = 1},
        .triple_fault = {.pending = 1          },
        .flags = EVENTS_ALL,
    };
    struct kvm_vcpu_events back;
    struct x86_events e;

    (void)state;
    x86_events_from_kvm(&e, &k);
    assert_int_equal(x86_events_to_kvm(&e, EVENTS_ALL, &back, NULL), 0);
    assert_memory_equal(&back, &k, sizeof(k));
}

static void test_events_that_a_kernel_cannot_take_are_not_lost_silently(void **state)
{
    static const struct {
        const char *name;
        struct x86_events e;
    } rows[] = {
  /* clang-format off */
        {"exception_payload", {.exception_pending = true}},
        {"exception_payload", {.exception_has_payload = true}},
        {"triple_fault_pending", {.triple_fault_pending = true}},
        {"smi_smm", {.smi_pending = true}},
  /* clang-format on */
    };
    struct kvm_vcpu_events back;
    struct x86_events e;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err err = {0};

        assert_int_equal(x86_events_to_kvm(&rows[i].e, EVENTS_BASIC, &back, &err), -ENOTSUP);
        assert_non_null(strstr(err.msg, rows[i].name));
    }
    /* Flags alone are no loss. */
    e = (struct x86_events){.flags = EVENTS_ALL};
    assert_int_equal(x86_events_to_kvm(&e, EVENTS_BASIC, &back, NULL), 0);
    assert_int_equal(back.flags, EVENTS_BASIC);
    /* Without the flag the member is noise. */
    back = (struct kvm_vcpu_events){
        .exception = {.pending = 1},
        .exception_has_payload = 1,
        .triple_fault = {.pending = 1},
    };
    x86_events_from_kvm(&e, &back);
    assert_false(e.exception_pending || e.exception_has_payload || e.triple_fault_pending);
}

/* --- State --------------------------------------------------------------- */

static int load(const struct state_buf *buf, struct x86_vcpu_state *live, struct err *err)
{
    const uint8_t *data = buf->data;
    struct state_section sec;
    size_t len = buf->len;
    void *scratch;
    int rc;

    rc = state_section_next(&data, &len, &sec, err);
    if (rc <= 0)
        return rc < 0 ? rc : -EBADMSG;
    rc = state_stage(&sec, &x86_vcpu_state_desc, live, &scratch, err);
    if (rc == 0)
        state_commit(&x86_vcpu_state_desc, scratch, live);
    return rc;
}

static void test_state_is_the_golden_one(void **state)
{
    static struct x86_vcpu_state s;
    static struct x86_vcpu_state back;
    struct state_buf again = {0};
    struct state_buf buf = {0};
    struct err err = {0};

    (void)state;
    some_state(&s);
    back = (struct x86_vcpu_state){.apic_id = 3};
    assert_int_equal(state_save(&x86_vcpu_state_desc, "vcpu3", &s, &buf, NULL), 0);
    golden_check("state/x86-vcpu-v1.cbor", buf.data, buf.len);
    if (load(&buf, &back, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(state_save(&x86_vcpu_state_desc, "vcpu3", &back, &again, NULL), 0);
    assert_int_equal(again.len, buf.len);
    assert_memory_equal(again.data, buf.data, buf.len);
    assert_int_equal(x86_vcpu_msr(&back, 0x10)->value, 987654321);
    assert_null(x86_vcpu_msr(&back, 0x11));
    state_buf_release(&buf);
    state_buf_release(&again);
    state_release(&x86_vcpu_state_desc, &s);
    state_release(&x86_vcpu_state_desc, &back);
}

typedef void (*spoil_fn)(struct x86_vcpu_state *s);

static void spoil_apic_id(struct x86_vcpu_state *s)
{
    s->apic_id = 4;
}

static void spoil_mp_state(struct x86_vcpu_state *s)
{
    s->mp_state = 9;
}

static void spoil_rflags(struct x86_vcpu_state *s)
{
    s->regs.rflags = 0;
}

static void spoil_dr7(struct x86_vcpu_state *s)
{
    s->debugregs.dr7 = 1ULL << 32;
}

static void spoil_xsave(struct x86_vcpu_state *s)
{
    s->xsave_len = 576;
}

static void spoil_xcr0(struct x86_vcpu_state *s)
{
    s->xcrs[0].value = 6;
}

static void spoil_xcrs(struct x86_vcpu_state *s)
{
    s->xcrs[1] = s->xcrs[0];
    s->nr_xcrs = 2;
}

static void spoil_cr8(struct x86_vcpu_state *s)
{
    s->sregs.cr8 = 16;
}

static void spoil_bitmap(struct x86_vcpu_state *s)
{
    s->sregs.interrupt_bitmap[0] = 3;
}

static void spoil_segment(struct x86_vcpu_state *s)
{
    s->sregs.tr.type = 16;
}

static void spoil_exception(struct x86_vcpu_state *s)
{
    s->events.exception_injected = true;
    s->events.exception_nr = 2;
}

static void spoil_shadow(struct x86_vcpu_state *s)
{
    s->events.interrupt_shadow = 4;
}

static void spoil_nmi(struct x86_vcpu_state *s)
{
    s->events.nmi_pending = 3;
}

static void spoil_msr_twice(struct x86_vcpu_state *s)
{
    s->msrs[1] = s->msrs[0];
}

static void spoil_msr_order(struct x86_vcpu_state *s)
{
    s->msrs[0] = s->msrs[1];
    s->msrs[1] = (struct x86_msr){0x174, 0};
}

static void spoil_msr_foreign(struct x86_vcpu_state *s)
{
    s->msrs[2].index = 0x1b;
}

static void test_impossible_state_is_refused_by_name(void **state)
{
    static const struct {
        spoil_fn spoil;
        const char *name;
    } rows[] = {
        {spoil_apic_id,     "x86-vcpu.apic_id: 4"                                  },
        {spoil_mp_state,    "x86-vcpu.mp_state: 9"                                 },
        {spoil_rflags,      "x86-vcpu.regs.rflags"                                 },
        {spoil_dr7,         "x86-vcpu.debugregs"                                   },
        {spoil_xsave,       "x86-vcpu.xsave: 576"                                  },
        {spoil_xcr0,        "x86-vcpu.xcrs[0]"                                     },
        {spoil_xcrs,        "x86-vcpu.xcrs[1]"                                     },
        {spoil_cr8,         "x86-vcpu.sregs.cr8"                                   },
        {spoil_bitmap,      "x86-vcpu.sregs.interrupt_bitmap"                      },
        {spoil_segment,     "x86-vcpu.sregs.tr"                                    },
        {spoil_exception,   "x86-vcpu.events.exception_nr"                         },
        {spoil_shadow,      "x86-vcpu.events.interrupt_shadow"                     },
        {spoil_nmi,         "x86-vcpu.events.nmi_pending"                          },
        {spoil_msr_twice,   "x86-vcpu.msrs[1]: LSTAR twice"                        },
        {spoil_msr_order,   "x86-vcpu.msrs[1]: IA32_SYSENTER_CS is out of order"   },
        {spoil_msr_foreign, "x86-vcpu.msrs[2]: IA32_APIC_BASE does not belong here"},
    };
    static struct x86_vcpu_state live;
    static struct x86_vcpu_state before;
    static struct x86_vcpu_state s;

    (void)state;
    live = (struct x86_vcpu_state){.apic_id = 3};
    before = live;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct state_buf buf = {0};
        struct err err = {0};

        some_state(&s);
        rows[i].spoil(&s);
        assert_int_equal(state_save(&x86_vcpu_state_desc, "vcpu3", &s, &buf, NULL), 0);
        assert_int_equal(load(&buf, &live, &err), -EBADMSG);
        if (!strstr(err.msg, rows[i].name))
            fail_msg("%zu: \"%s\" does not say \"%s\"", i, err.msg, rows[i].name);
        assert_memory_equal(&live, &before, sizeof(live));
        state_buf_release(&buf);
        state_release(&x86_vcpu_state_desc, &s);
    }
}

static void test_every_truncation_is_refused(void **state)
{
    static struct x86_vcpu_state live;
    static struct x86_vcpu_state s;
    struct state_buf buf = {0};
    struct state_buf cut;

    (void)state;
    live = (struct x86_vcpu_state){.apic_id = 3};
    some_state(&s);
    assert_int_equal(state_save(&x86_vcpu_state_desc, "vcpu3", &s, &buf, NULL), 0);
    for (size_t len = 0; len < buf.len; len += len < 64 ? 1 : 7) {
        cut = (struct state_buf){.data = buf.data, .len = len};
        assert_true(load(&cut, &live, NULL) < 0);
        assert_null(live.xsave);
    }
    state_buf_release(&buf);
    state_release(&x86_vcpu_state_desc, &s);
}

static void test_the_processor_priority_is_what_it_follows_from(void **state)
{
    static const struct {
        uint8_t tpr;
        unsigned in_service; /* 0: none */
        uint8_t ppr;
    } rows[] = {
        {0,    0,    0   },
        {0x35, 0,    0x35},
        {0,    0x24, 0x20},
        {0x25, 0x24, 0x25},
        {0x15, 0xff, 0xf0},
        {0x42, 0x24, 0x42},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct kvm_lapic_state k = {0};
        uint8_t lapic[X86_LAPIC_SIZE];
        unsigned v = rows[i].in_service;

        k.regs[0x80] = (char)rows[i].tpr;
        k.regs[0xa0] = 0x77; /* out of date */
        if (v)
            k.regs[0x100 + v / 32 * 16 + v % 32 / 8] = (char)(1 << v % 8);
        x86_lapic_from_kvm(lapic, &k);
        assert_int_equal(lapic[0xa0], rows[i].ppr);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_general_registers_come_back),
        cmocka_unit_test(test_special_registers_come_back),
        cmocka_unit_test(test_debug_registers_and_xcrs_come_back),
        cmocka_unit_test(test_events_come_back),
        cmocka_unit_test(test_events_that_a_kernel_cannot_take_are_not_lost_silently),
        cmocka_unit_test(test_state_is_the_golden_one),
        cmocka_unit_test(test_impossible_state_is_refused_by_name),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_the_processor_priority_is_what_it_follows_from),
    };

    return cmocka_run_group_tests_name("x86/vcpu_state", tests, NULL, NULL);
}
