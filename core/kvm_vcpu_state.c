/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving and loading a vCPU, register file by register file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "core/kvm.h"
#include "core/kvm_internal.h"
#include "core/x86/vcpu_state.h"

static int failed(const struct kvm_vcpu *v, const char *what, struct err *err)
{
    return err_set(err, -errno, "vCPU %u: %s: %s", v->id, what, strerror(errno));
}

/* --- MSRs ------------------------------------------------------------------ */

struct msr_batch {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[X86_MSRS_MAX];
};

/* The MSRs that this host can read: found out once, by the first save. */
static int find_msrs(struct kvm *kvm, struct err *err)
{
    struct kvm_msr_list *list = NULL;
    int rc;

    if (kvm->nr_msrs)
        return 0;
    rc = kvm_msr_indices(kvm, &list, err);
    if (rc >= 0)
        rc = x86_msrs_select(list, kvm->msrs, err);
    free(list);
    if (rc < 0)
        return rc;
    kvm->nr_msrs = (unsigned)rc;
    return 0;
}

static void forget_msr(struct kvm *kvm, unsigned i)
{
    kvm->nr_msrs--;
    memmove(&kvm->msrs[i], &kvm->msrs[i + 1], (kvm->nr_msrs - i) * sizeof(kvm->msrs[0]));
}

static int save_msrs(struct kvm_vcpu *v, struct x86_vcpu_state *s, struct err *err)
{
    struct kvm *kvm = v->kvm;
    struct msr_batch *b;
    int rc = find_msrs(kvm, err);

    if (rc < 0)
        return rc;
    b = calloc(1, sizeof(*b));
    if (!b)
        return err_set(err, -ENOMEM, "vCPU %u: MSRs: out of memory", v->id);
    s->nr_msrs = 0;
    while (s->nr_msrs < kvm->nr_msrs) {
        unsigned left = kvm->nr_msrs - s->nr_msrs;
        int n;

        b->head.nmsrs = left;
        for (unsigned i = 0; i < left; i++)
            b->entries[i] = (struct kvm_msr_entry){.index = kvm->msrs[s->nr_msrs + i]};
        n = ioctl(v->fd, KVM_GET_MSRS, b);
        if (n < 0) {
            rc = failed(v, "KVM_GET_MSRS", err);
            break;
        }
        for (int i = 0; i < n; i++)
            s->msrs[s->nr_msrs++] = (struct x86_msr){b->entries[i].index, b->entries[i].data};
        if ((unsigned)n < left)
            forget_msr(kvm, s->nr_msrs); /* KVM lists it but cannot read it here */
    }
    free(b);
    return rc;
}

static int load_msr(struct kvm_vcpu *v, const struct x86_msr *m, struct err *err)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {
        .head = {.nmsrs = 1       },
          .entry = { .index = m->index, .data = m->value}
    };
    struct x86_msr_refusal refusal = {.saved = *m};
    int rc;

    if (ioctl(v->fd, KVM_SET_MSRS, &one) == 1)
        return 0;
    one.entry.data = 0;
    refusal.readable = ioctl(v->fd, KVM_GET_MSRS, &one) == 1;
    refusal.current = one.entry.data;
    rc = x86_msr_may_ignore(&refusal, err);
    return rc < 0 ? err_prefix(err, rc, "vCPU %u", v->id) : 0;
}

static int load_msrs(struct kvm_vcpu *v, const struct x86_vcpu_state *s, enum x86_msr_class class,
                     struct err *err)
{
    struct msr_batch *b = calloc(1, sizeof(*b));
    unsigned done = 0;
    int rc = 0;

    if (!b)
        return err_set(err, -ENOMEM, "vCPU %u: MSRs: out of memory", v->id);
    for (unsigned i = 0; i < s->nr_msrs; i++) {
        const struct x86_msr *m = &s->msrs[i];

        if (x86_msr_class(m->index) == class)
            b->entries[b->head.nmsrs++] =
                (struct kvm_msr_entry){.index = m->index, .data = m->value};
    }
    /* Usually all at once; where KVM stops, that one alone is looked at. */
    while (rc >= 0 && done < b->head.nmsrs) {
        struct msr_batch *rest = (struct msr_batch *)(void *)b;
        unsigned left = b->head.nmsrs - done;
        int n;

        memmove(rest->entries, rest->entries + done, left * sizeof(rest->entries[0]));
        rest->head.nmsrs = left;
        n = ioctl(v->fd, KVM_SET_MSRS, rest);
        done = n < 0 ? 0 : (unsigned)n;
        if (done < left) {
            const struct x86_msr m = {rest->entries[done].index, rest->entries[done].data};

            rc = load_msr(v, &m, err);
            done++;
        }
    }
    free(b);
    return rc;
}

/* --- TSC ------------------------------------------------------------------- */

static int tsc_offset(struct kvm_vcpu *v, unsigned long request, uint64_t *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uint64_t)(uintptr_t)offset,
    };

    return ioctl(v->fd, request, &attr) < 0 ? -errno : 0;
}

static uint64_t get_msr(struct kvm_vcpu *v, uint32_t index)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head = {.nmsrs = 1}, .entry = {.index = index}};

    return ioctl(v->fd, KVM_GET_MSRS, &one) == 1 ? one.entry.data : 0;
}

enum {
    MSR_TSC = 0x10,
    MSR_TSC_DEADLINE = 0x6e0,
};

uint64_t kvm_vcpu_tsc_at(struct kvm_vcpu *v, uint64_t host_tsc)
{
    uint64_t offset;

    if (tsc_offset(v, KVM_GET_DEVICE_ATTR, &offset) >= 0)
        return host_tsc + offset;
    return get_msr(v, MSR_TSC) - (__rdtsc() - host_tsc);
}

int kvm_vcpu_set_tsc_at(struct kvm_vcpu *v, uint64_t tsc, uint64_t host_tsc, struct err *err)
{
    uint64_t offset = tsc - host_tsc;
    /* KVM does not move the timer when the TSC under it moves: arm it again. */
    struct x86_msr deadline = {MSR_TSC_DEADLINE, get_msr(v, MSR_TSC_DEADLINE)};
    struct x86_msr now = {MSR_TSC, 0};
    int rc = 0;

    if (tsc_offset(v, KVM_SET_DEVICE_ATTR, &offset) < 0) {
        now.value = tsc + (__rdtsc() - host_tsc);
        rc = load_msr(v, &now, err);
    }
    if (rc >= 0 && deadline.value)
        rc = load_msr(v, &deadline, err);
    return rc;
}

/* --- The rest ---------------------------------------------------------------- */

static int save_sregs(struct kvm_vcpu *v, struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_sregs2 k2;
    struct kvm_sregs k;

    if (ioctl(v->fd, KVM_GET_SREGS, &k) < 0)
        return failed(v, "KVM_GET_SREGS", err);
    x86_sregs_from_kvm(&s->sregs, &k);
    if (kvm_has(v->kvm, KVM_CAP_SREGS2) <= 0)
        return 0;
    if (ioctl(v->fd, KVM_GET_SREGS2, &k2) < 0)
        return failed(v, "KVM_GET_SREGS2", err);
    x86_sregs_from_kvm2(&s->sregs, &k2);
    /* Only the first form tells which interrupt was being injected. */
    memcpy(s->sregs.interrupt_bitmap, k.interrupt_bitmap, sizeof(s->sregs.interrupt_bitmap));
    return 0;
}

static int load_sregs(struct kvm_vcpu *v, const struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_sregs2 k2;
    struct kvm_sregs k;

    x86_sregs_to_kvm(&s->sregs, &k);
    if (ioctl(v->fd, KVM_SET_SREGS, &k) < 0)
        return failed(v, "KVM_SET_SREGS", err);
    if (!s->sregs.pdptrs_valid || kvm_has(v->kvm, KVM_CAP_SREGS2) <= 0)
        return 0;
    x86_sregs_to_kvm2(&s->sregs, &k2);
    return ioctl(v->fd, KVM_SET_SREGS2, &k2) < 0 ? failed(v, "KVM_SET_SREGS2", err) : 0;
}

static int save_xsave(struct kvm_vcpu *v, struct x86_vcpu_state *s, struct err *err)
{
    int len = kvm_has(v->kvm, KVM_CAP_XSAVE2);
    unsigned long request = len > X86_XSAVE_MIN ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
    struct kvm_xcrs xcrs = {0};

    if (len < X86_XSAVE_MIN)
        len = X86_XSAVE_MIN;
    if (len > X86_XSAVE_MAX)
        return err_set(err, -E2BIG, "vCPU %u: XSAVE area of %d bytes", v->id, len);
    s->xsave = calloc(1, (size_t)len);
    if (!s->xsave)
        return err_set(err, -ENOMEM, "vCPU %u: XSAVE: out of memory", v->id);
    s->xsave_len = (uint32_t)len;
    if (ioctl(v->fd, request, s->xsave) < 0)
        return failed(v, "KVM_GET_XSAVE", err);
    if (kvm_has(v->kvm, KVM_CAP_XCRS) <= 0)
        return 0;
    if (ioctl(v->fd, KVM_GET_XCRS, &xcrs) < 0)
        return failed(v, "KVM_GET_XCRS", err);
    x86_xcrs_from_kvm(s, &xcrs);
    return 0;
}

static int load_xsave(struct kvm_vcpu *v, const struct x86_vcpu_state *s, struct err *err)
{
    int len = kvm_has(v->kvm, KVM_CAP_XSAVE2);
    struct kvm_xcrs xcrs = {0};
    auto_free uint8_t *area = NULL;

    if (len < X86_XSAVE_MIN)
        len = X86_XSAVE_MIN;
    /* A longer area than this host's ends in components that it lacks: CPUID was compared. */
    area = calloc(1, (size_t)len > s->xsave_len ? (size_t)len : s->xsave_len);
    if (!area)
        return err_set(err, -ENOMEM, "vCPU %u: XSAVE: out of memory", v->id);
    memcpy(area, s->xsave, s->xsave_len);
    x86_xcrs_to_kvm(s, &xcrs);
    if (s->nr_xcrs && ioctl(v->fd, KVM_SET_XCRS, &xcrs) < 0)
        return failed(v, "KVM_SET_XCRS", err);
    return ioctl(v->fd, KVM_SET_XSAVE, area) < 0 ? failed(v, "KVM_SET_XSAVE", err) : 0;
}

static int save_debug(struct kvm_vcpu *v, struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_debugregs k = {0};

    if (ioctl(v->fd, KVM_GET_DEBUGREGS, &k) < 0)
        return failed(v, "KVM_GET_DEBUGREGS", err);
    x86_debugregs_from_kvm(&s->debugregs, &k);
    return 0;
}

static int save_events(struct kvm_vcpu *v, struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_vcpu_events k = {0};

    if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &k) < 0)
        return failed(v, "KVM_GET_VCPU_EVENTS", err);
    x86_events_from_kvm(&s->events, &k);
    return 0;
}

static int load_events(struct kvm_vcpu *v, const struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_vcpu_events k = {0};
    int rc = x86_events_to_kvm(&s->events, v->kvm->events_allowed, &k, err);

    if (rc < 0)
        return err_prefix(err, rc, "vCPU %u", v->id);
    return ioctl(v->fd, KVM_SET_VCPU_EVENTS, &k) < 0 ? failed(v, "KVM_SET_VCPU_EVENTS", err) : 0;
}

static int save_nested(struct kvm_vcpu *v, struct x86_vcpu_state *s, struct err *err)
{
    int len = kvm_has(v->kvm, KVM_CAP_NESTED_STATE);
    struct kvm_nested_state *n;

    /* Without the capability the ioctl fails: there is no such state on this host. */
    if (len <= 0)
        return 0;
    if (len > X86_NESTED_MAX)
        return err_set(err, -E2BIG, "vCPU %u: nested state of %d bytes", v->id, len);
    n = calloc(1, (size_t)len);
    if (!n)
        return err_set(err, -ENOMEM, "vCPU %u: nested state: out of memory", v->id);
    n->size = (uint32_t)len;
    s->nested = (uint8_t *)n;
    if (ioctl(v->fd, KVM_GET_NESTED_STATE, n) < 0)
        return failed(v, "KVM_GET_NESTED_STATE", err);
    s->nested_len = n->size < (uint32_t)len ? n->size : (uint32_t)len;
    return 0;
}

static int load_nested(struct kvm_vcpu *v, const struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_nested_state head;

    if (!s->nested_len)
        return 0;
    if (s->nested_len < sizeof(head))
        return err_set(err, -EBADMSG, "vCPU %u: nested state of %u bytes", v->id, s->nested_len);
    memcpy(&head, s->nested, sizeof(head));
    if (head.size > s->nested_len)
        return err_set(err, -EBADMSG, "vCPU %u: nested state says %u bytes, has %u", v->id,
                       head.size, s->nested_len);
    if (kvm_has(v->kvm, KVM_CAP_NESTED_STATE) <= 0) {
        /* Nothing but the header: the guest does not use it. */
        if (s->nested_len == sizeof(head) && !head.flags)
            return 0;
        return err_set(err, -ENOTSUP,
                       "vCPU %u: the guest runs guests of its own, and this host's "
                       "KVM lacks KVM_CAP_NESTED_STATE",
                       v->id);
    }
    return ioctl(v->fd, KVM_SET_NESTED_STATE, s->nested) < 0
               ? failed(v, "KVM_SET_NESTED_STATE", err)
               : 0;
}

static int save_basics(struct kvm_vcpu *v, struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_mp_state mp;
    struct kvm_lapic_state lapic;
    struct kvm_regs regs;

    /* First: it settles pending INIT and SIPI, which other registers depend on. */
    if (ioctl(v->fd, KVM_GET_MP_STATE, &mp) < 0)
        return failed(v, "KVM_GET_MP_STATE", err);
    if (ioctl(v->fd, KVM_GET_REGS, &regs) < 0)
        return failed(v, "KVM_GET_REGS", err);
    if (ioctl(v->fd, KVM_GET_LAPIC, &lapic) < 0)
        return failed(v, "KVM_GET_LAPIC", err);
    s->apic_id = v->id;
    s->mp_state = mp.mp_state;
    x86_regs_from_kvm(&s->regs, &regs);
    x86_lapic_from_kvm(s->lapic, &lapic);
    s->tsc_khz = kvm_vcpu_tsc_khz(v);
    s->tsc_offset_valid = tsc_offset(v, KVM_GET_DEVICE_ATTR, &s->tsc_offset) >= 0;
    s->host_tsc = __rdtsc();
    return 0;
}

int kvm_vcpu_save(struct kvm_vcpu *v, struct x86_vcpu_state *s, struct err *err)
{
    int rc = save_basics(v, s, err);

    if (rc >= 0)
        rc = save_sregs(v, s, err);
    if (rc >= 0)
        rc = save_xsave(v, s, err);
    if (rc >= 0)
        rc = save_debug(v, s, err);
    if (rc >= 0)
        rc = save_events(v, s, err);
    if (rc >= 0)
        rc = save_nested(v, s, err);
    if (rc >= 0)
        rc = save_msrs(v, s, err);
    if (rc < 0)
        state_release(&x86_vcpu_state_desc, s);
    return rc;
}

/* What must come after the TSC and the LAPIC. */
static int load_late(struct kvm_vcpu *v, const struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_mp_state mp = {.mp_state = s->mp_state};
    struct kvm_debugregs debug = {0};
    struct kvm_lapic_state lapic;
    int rc;

    x86_debugregs_to_kvm(&s->debugregs, &debug);
    if (ioctl(v->fd, KVM_SET_DEBUGREGS, &debug) < 0)
        return failed(v, "KVM_SET_DEBUGREGS", err);
    memcpy(lapic.regs, s->lapic, sizeof(s->lapic));
    if (ioctl(v->fd, KVM_SET_LAPIC, &lapic) < 0)
        return failed(v, "KVM_SET_LAPIC", err);
    rc = load_msrs(v, s, X86_MSR_DEADLINE, err);
    if (rc >= 0)
        rc = load_nested(v, s, err);
    if (rc < 0)
        return rc;
    if (ioctl(v->fd, KVM_SET_MP_STATE, &mp) < 0)
        return failed(v, "KVM_SET_MP_STATE", err);
    return load_events(v, s, err);
}

/* The guest's TSC goes on from where it was; vm_resume() makes it exact. */
static int load_tsc(struct kvm_vcpu *v, const struct x86_vcpu_state *s, struct err *err)
{
    uint64_t offset = s->tsc_offset + s->host_tsc - __rdtsc();

    if (s->tsc_offset_valid && tsc_offset(v, KVM_SET_DEVICE_ATTR, &offset) >= 0)
        return 0;
    return load_msrs(v, s, X86_MSR_TSC, err);
}

int kvm_vcpu_load(struct kvm_vcpu *v, const struct x86_vcpu_state *s, struct err *err)
{
    struct kvm_regs regs;
    int rc;

    if (s->apic_id != v->id)
        return err_set(err, -EBADMSG, "vCPU %u: state of APIC id %u", v->id, s->apic_id);
    rc = load_sregs(v, s, err);
    if (rc < 0)
        return rc;
    x86_regs_to_kvm(&s->regs, &regs);
    if (ioctl(v->fd, KVM_SET_REGS, &regs) < 0)
        return failed(v, "KVM_SET_REGS", err);
    rc = load_xsave(v, s, err);
    if (rc >= 0)
        rc = load_msrs(v, s, X86_MSR_PLAIN, err);
    if (rc >= 0)
        rc = load_tsc(v, s, err);
    if (rc >= 0)
        rc = load_msrs(v, s, X86_MSR_CLOCK, err);
    return rc < 0 ? rc : load_late(v, s, err);
}
