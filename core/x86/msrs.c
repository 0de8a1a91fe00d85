/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources: Intel SDM 4; AMD APM 2, appendix A; Linux,
 * Documentation/virt/kvm/x86/msr.rst (MSR_KVM_*).
 */
#include "core/x86/msrs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

enum {
    MSR_TSC = 0x10,
    MSR_KVM_WALL_CLOCK = 0x11,
    MSR_KVM_SYSTEM_TIME = 0x12,
    MSR_APIC_BASE = 0x1b,
    MSR_MTRR_VAR = 0x200, /* base and mask of 8 */
    MSR_MTRR_VAR_LAST = 0x20f,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K_80000 = 0x258,
    MSR_MTRR_FIX16K_A0000 = 0x259,
    MSR_MTRR_FIX4K = 0x268, /* 8 */
    MSR_MTRR_FIX4K_LAST = 0x26f,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_MC_BANKS = 0x400, /* CTL, STATUS, ADDR, MISC of each */
    MSR_MC_NR = 32 * 4,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
    MSR_X2APIC_LAST = 0x8ff,
};

#define MSR_EFER                UINT32_C(0xc0000080)
#define MSR_FS_BASE             UINT32_C(0xc0000100)
#define MSR_GS_BASE             UINT32_C(0xc0000101)
#define MSR_KVM_WALL_CLOCK_NEW  UINT32_C(0x4b564d00)
#define MSR_KVM_SYSTEM_TIME_NEW UINT32_C(0x4b564d01)

struct name {
    uint32_t index;
    const char *name;
};

/* clang-format off */
static const struct name names[] = {
    {0x10, "IA32_TSC"}, {0x11, "MSR_KVM_WALL_CLOCK"}, {0x12, "MSR_KVM_SYSTEM_TIME"},
    {0x1b, "IA32_APIC_BASE"}, {0x34, "MSR_SMI_COUNT"}, {0x3a, "IA32_FEATURE_CONTROL"},
    {0x3b, "IA32_TSC_ADJUST"}, {0x48, "IA32_SPEC_CTRL"}, {0x8b, "IA32_BIOS_SIGN_ID"},
    {0x9e, "IA32_SMBASE"}, {0xce, "MSR_PLATFORM_INFO"}, {0xe1, "IA32_UMWAIT_CONTROL"},
    {0xfe, "IA32_MTRRCAP"}, {0x10a, "IA32_ARCH_CAPABILITIES"}, {0x122, "IA32_TSX_CTRL"},
    {0x140, "MSR_MISC_FEATURES_ENABLES"}, {0x174, "IA32_SYSENTER_CS"},
    {0x175, "IA32_SYSENTER_ESP"}, {0x176, "IA32_SYSENTER_EIP"}, {0x179, "IA32_MCG_CAP"},
    {0x17a, "IA32_MCG_STATUS"}, {0x17b, "IA32_MCG_CTL"}, {0x1a0, "IA32_MISC_ENABLE"},
    {0x1c4, "IA32_XFD"}, {0x1c5, "IA32_XFD_ERR"}, {0x1d9, "IA32_DEBUGCTL"},
    {0x1db, "MSR_LASTBRANCHFROMIP"}, {0x1dc, "MSR_LASTBRANCHTOIP"}, {0x1dd, "MSR_LASTINTFROMIP"},
    {0x1de, "MSR_LASTINTTOIP"}, {0x1fc, "MSR_POWER_CTL"}, {0x277, "IA32_PAT"},
    {0x250, "IA32_MTRR_FIX64K_00000"}, {0x258, "IA32_MTRR_FIX16K_80000"},
    {0x259, "IA32_MTRR_FIX16K_A0000"}, {0x2ff, "IA32_MTRR_DEF_TYPE"},
    {0x345, "IA32_PERF_CAPABILITIES"}, {0x38d, "IA32_FIXED_CTR_CTRL"},
    {0x38e, "IA32_PERF_GLOBAL_STATUS"}, {0x38f, "IA32_PERF_GLOBAL_CTRL"},
    {0x390, "IA32_PERF_GLOBAL_OVF_CTRL"}, {0x4d0, "IA32_MCG_EXT_CTL"}, {0x6a0, "IA32_U_CET"},
    {0x6a2, "IA32_S_CET"}, {0x6e0, "IA32_TSC_DEADLINE"}, {0xd90, "IA32_BNDCFGS"},
    {0xda0, "IA32_XSS"},
    {0x4b564d00, "MSR_KVM_WALL_CLOCK_NEW"}, {0x4b564d01, "MSR_KVM_SYSTEM_TIME_NEW"},
    {0x4b564d02, "MSR_KVM_ASYNC_PF_EN"}, {0x4b564d03, "MSR_KVM_STEAL_TIME"},
    {0x4b564d04, "MSR_KVM_PV_EOI_EN"}, {0x4b564d05, "MSR_KVM_POLL_CONTROL"},
    {0x4b564d06, "MSR_KVM_ASYNC_PF_INT"}, {0x4b564d07, "MSR_KVM_ASYNC_PF_ACK"},
    {0x4b564d08, "MSR_KVM_MIGRATION_CONTROL"},
    {0xc0000080, "EFER"}, {0xc0000081, "STAR"}, {0xc0000082, "LSTAR"}, {0xc0000083, "CSTAR"},
    {0xc0000084, "SYSCALL_MASK"}, {0xc0000100, "FS_BASE"}, {0xc0000101, "GS_BASE"},
    {0xc0000102, "KERNEL_GS_BASE"}, {0xc0000103, "TSC_AUX"}, {0xc0000104, "TSC_RATIO"},
    {0xc0010015, "HWCR"}, {0xc0010117, "VM_HSAVE_PA"}, {0xc001011f, "VIRT_SPEC_CTRL"},
    {0xc0011029, "DE_CFG"},
};
/* clang-format on */

enum x86_msr_class x86_msr_class(uint32_t index)
{
    switch (index) {
    case MSR_TSC:
        return X86_MSR_TSC;
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_WALL_CLOCK_NEW:
    case MSR_KVM_SYSTEM_TIME_NEW:
        return X86_MSR_CLOCK;
    case MSR_TSC_DEADLINE:
        return X86_MSR_DEADLINE;
    case MSR_APIC_BASE: /* special registers */
    case MSR_EFER:
    case MSR_FS_BASE:
    case MSR_GS_BASE:
        return X86_MSR_SKIP;
    default:
        /* The x2APIC's registers are the LAPIC's. */
        if (index >= MSR_X2APIC && index <= MSR_X2APIC_LAST)
            return X86_MSR_SKIP;
        return X86_MSR_PLAIN;
    }
}

/* --- Selection ----------------------------------------------------------- */

struct selection {
    uint32_t *indices;
    unsigned nr;
    bool full;
};

static void select_one(struct selection *s, uint32_t index)
{
    for (unsigned i = 0; i < s->nr; i++) {
        if (s->indices[i] == index)
            return;
    }
    if (s->nr == X86_MSRS_MAX) {
        s->full = true;
        return;
    }
    s->indices[s->nr++] = index;
}

static void select_range(struct selection *s, uint32_t first, uint32_t last)
{
    for (uint32_t i = first; i <= last; i++)
        select_one(s, i);
}

static void select_class(struct selection *s, const struct kvm_msr_list *list,
                         enum x86_msr_class class)
{
    for (uint32_t i = 0; i < list->nmsrs; i++) {
        if (x86_msr_class(list->indices[i]) == class)
            select_one(s, list->indices[i]);
    }
}

/* NOLINTNEXTLINE(readability-non-const-parameter): written by the selection. */
int x86_msrs_select(const struct kvm_msr_list *list, uint32_t *ret_indices, struct err *err)
{
    struct selection s = {.indices = ret_indices};

    select_class(&s, list, X86_MSR_PLAIN);
    select_range(&s, MSR_MTRR_VAR, MSR_MTRR_VAR_LAST);
    select_one(&s, MSR_MTRR_FIX64K);
    select_one(&s, MSR_MTRR_FIX16K_80000);
    select_one(&s, MSR_MTRR_FIX16K_A0000);
    select_range(&s, MSR_MTRR_FIX4K, MSR_MTRR_FIX4K_LAST);
    select_one(&s, MSR_MTRR_DEF_TYPE);
    select_range(&s, MSR_MC_BANKS, MSR_MC_BANKS + MSR_MC_NR - 1);
    select_class(&s, list, X86_MSR_TSC);
    select_class(&s, list, X86_MSR_CLOCK);
    select_class(&s, list, X86_MSR_DEADLINE);
    if (s.full)
        return err_set(err, -E2BIG, "msrs: more than %d", X86_MSRS_MAX);
    return (int)s.nr;
}

/* --- Names and refusals -------------------------------------------------- */

const char *x86_msr_name(uint32_t index, char *buf)
{
    static const char *const parts[] = {"CTL", "STATUS", "ADDR", "MISC"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (names[i].index == index) {
            (void)snprintf(buf, X86_MSR_NAME_MAX, "%s", names[i].name);
            return buf;
        }
    }
    if (index >= MSR_MTRR_VAR && index <= MSR_MTRR_VAR_LAST) {
        (void)snprintf(buf, X86_MSR_NAME_MAX, "IA32_MTRR_PHYS%s%u", index & 1 ? "MASK" : "BASE",
                       (index - MSR_MTRR_VAR) / 2);
    } else if (index >= MSR_MTRR_FIX4K && index <= MSR_MTRR_FIX4K_LAST) {
        (void)snprintf(buf, X86_MSR_NAME_MAX, "IA32_MTRR_FIX4K_%05X",
                       0xc0000 + (index - MSR_MTRR_FIX4K) * 0x8000);
    } else if (index >= MSR_MC_BANKS && index < MSR_MC_BANKS + MSR_MC_NR) {
        (void)snprintf(buf, X86_MSR_NAME_MAX, "IA32_MC%u_%s", (index - MSR_MC_BANKS) / 4,
                       parts[index & 3]);
    } else {
        (void)snprintf(buf, X86_MSR_NAME_MAX, "msr %#x", index);
    }
    return buf;
}

int x86_msr_may_ignore(const struct x86_msr_refusal *r, struct err *err)
{
    char name[X86_MSR_NAME_MAX];

    if (r->readable && r->current == r->saved.value)
        return 0;
    if (!r->readable && r->saved.value == 0)
        return 0;
    (void)x86_msr_name(r->saved.index, name);
    if (!r->readable)
        return err_set(err, -ENOTSUP, "%s: %#" PRIx64 ", this host does not have it", name,
                       r->saved.value);
    return err_set(err, -ENOTSUP, "%s: %#" PRIx64 " is not accepted by this host, it has %#" PRIx64,
                   name, r->saved.value, r->current);
}
