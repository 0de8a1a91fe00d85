/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources: Intel SDM 2A, CPUID; AMD APM 3, appendix E; Linux,
 * arch/x86/include/asm/cpufeatures.h (the names in /proc/cpuinfo) and
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "core/x86/cpuid_names.h"

/* clang-format off */
static const char *const names_1_ecx[32] = {
    [0] = "sse3", [1] = "pclmulqdq", [2] = "dtes64", [3] = "monitor", [4] = "ds_cpl", [5] = "vmx",
    [6] = "smx", [7] = "est", [8] = "tm2", [9] = "ssse3", [10] = "cnxt_id", [11] = "sdbg",
    [12] = "fma", [13] = "cx16", [14] = "xtpr", [15] = "pdcm", [17] = "pcid", [18] = "dca",
    [19] = "sse4_1", [20] = "sse4_2", [21] = "x2apic", [22] = "movbe", [23] = "popcnt",
    [24] = "tsc_deadline_timer", [25] = "aes", [26] = "xsave", [27] = "osxsave", [28] = "avx",
    [29] = "f16c", [30] = "rdrand", [31] = "hypervisor",
};
static const char *const names_1_edx[32] = {
    [0] = "fpu", [1] = "vme", [2] = "de", [3] = "pse", [4] = "tsc", [5] = "msr", [6] = "pae",
    [7] = "mce", [8] = "cx8", [9] = "apic", [11] = "sep", [12] = "mtrr", [13] = "pge", [14] = "mca",
    [15] = "cmov", [16] = "pat", [17] = "pse36", [18] = "pn", [19] = "clflush", [21] = "dts",
    [22] = "acpi", [23] = "mmx", [24] = "fxsr", [25] = "sse", [26] = "sse2", [27] = "ss",
    [28] = "ht", [29] = "tm", [30] = "ia64", [31] = "pbe",
};
static const char *const names_6_eax[32] = {
    [0] = "dtherm", [1] = "ida", [2] = "arat", [4] = "pln", [6] = "pts", [7] = "hwp",
};
static const char *const names_7_0_ebx[32] = {
    [0] = "fsgsbase", [1] = "tsc_adjust", [2] = "sgx", [3] = "bmi1", [4] = "hle", [5] = "avx2",
    [6] = "fdp_excptn_only", [7] = "smep", [8] = "bmi2", [9] = "erms", [10] = "invpcid",
    [11] = "rtm", [12] = "cqm", [13] = "zero_fcs_fds", [14] = "mpx", [15] = "rdt_a",
    [16] = "avx512f", [17] = "avx512dq", [18] = "rdseed", [19] = "adx", [20] = "smap",
    [21] = "avx512ifma", [23] = "clflushopt", [24] = "clwb", [25] = "intel_pt", [26] = "avx512pf",
    [27] = "avx512er", [28] = "avx512cd", [29] = "sha_ni", [30] = "avx512bw", [31] = "avx512vl",
};
static const char *const names_7_0_ecx[32] = {
    [0] = "prefetchwt1", [1] = "avx512vbmi", [2] = "umip", [3] = "pku", [4] = "ospke",
    [5] = "waitpkg", [6] = "avx512_vbmi2", [7] = "shstk", [8] = "gfni", [9] = "vaes",
    [10] = "vpclmulqdq", [11] = "avx512_vnni", [12] = "avx512_bitalg", [13] = "tme",
    [14] = "avx512_vpopcntdq", [16] = "la57", [22] = "rdpid", [23] = "key_locker",
    [24] = "bus_lock_detect", [25] = "cldemote", [27] = "movdiri", [28] = "movdir64b",
    [29] = "enqcmd", [30] = "sgx_lc", [31] = "pks",
};
static const char *const names_7_0_edx[32] = {
    [1] = "sgx_keys", [2] = "avx512_4vnniw", [3] = "avx512_4fmaps", [4] = "fsrm", [5] = "uintr",
    [8] = "avx512_vp2intersect", [9] = "srbds_ctrl", [10] = "md_clear", [11] = "rtm_always_abort",
    [13] = "tsx_force_abort", [14] = "serialize", [15] = "hybrid_cpu", [16] = "tsxldtrk",
    [18] = "pconfig", [19] = "arch_lbr", [20] = "ibt", [22] = "amx_bf16", [23] = "avx512_fp16",
    [24] = "amx_tile", [25] = "amx_int8", [26] = "spec_ctrl", [27] = "intel_stibp",
    [28] = "flush_l1d", [29] = "arch_capabilities", [30] = "core_capabilities",
    [31] = "spec_ctrl_ssbd",
};
static const char *const names_7_1_eax[32] = {
    [0] = "sha512", [1] = "sm3", [2] = "sm4", [4] = "avx_vnni", [5] = "avx512_bf16", [6] = "lass",
    [7] = "cmpccxadd", [8] = "arch_perfmon_ext", [10] = "fzrm", [11] = "fsrs", [12] = "fsrc",
    [17] = "fred", [18] = "lkgs", [19] = "wrmsrns", [21] = "amx_fp16", [22] = "hreset",
    [23] = "avx_ifma", [26] = "lam",
};
static const char *const names_7_1_edx[32] = {
    [4] = "avx_vnni_int8", [5] = "avx_ne_convert", [8] = "amx_complex", [10] = "avx_vnni_int16",
    [14] = "prefetchiti", [18] = "cet_sss", [19] = "avx10",
};
static const char *const names_7_2_edx[32] = {
    [0] = "intel_psfd", [1] = "ipred_ctrl", [2] = "rrsba_ctrl", [3] = "ddpd_u", [4] = "bhi_ctrl",
    [5] = "mcdt_no",
};
static const char *const names_d_xcr0[32] = {
    [0] = "x87", [1] = "sse", [2] = "avx", [3] = "bndregs", [4] = "bndcsr", [5] = "opmask",
    [6] = "zmm_hi256", [7] = "hi16_zmm", [9] = "pkru", [17] = "xtilecfg", [18] = "xtiledata",
    [19] = "apx",
};
static const char *const names_d_1_eax[32] = {
    [0] = "xsaveopt", [1] = "xsavec", [2] = "xgetbv1", [3] = "xsaves", [4] = "xfd",
};
static const char *const names_d_xss[32] = {
    [8] = "pt", [10] = "pasid", [11] = "cet_user", [12] = "cet_supervisor", [13] = "hdc",
    [14] = "uintr", [15] = "lbr", [16] = "hwp",
};
static const char *const names_kvm_eax[32] = {
    [0] = "kvm_clocksource", [1] = "kvm_nop_io_delay", [2] = "kvm_mmu_op", [3] = "kvm_clocksource2",
    [4] = "kvm_async_pf", [5] = "kvm_steal_time", [6] = "kvm_pv_eoi", [7] = "kvm_pv_unhalt",
    [9] = "kvm_pv_tlb_flush", [10] = "kvm_async_pf_vmexit", [11] = "kvm_pv_send_ipi",
    [12] = "kvm_poll_control", [13] = "kvm_pv_sched_yield", [14] = "kvm_async_pf_int",
    [15] = "kvm_msi_ext_dest_id", [16] = "kvm_hc_map_gpa_range", [17] = "kvm_migration_control",
    [24] = "kvm_clocksource_stable",
};
static const char *const names_ext1_ecx[32] = {
    [0] = "lahf_lm", [1] = "cmp_legacy", [2] = "svm", [3] = "extapic", [4] = "cr8_legacy",
    [5] = "abm", [6] = "sse4a", [7] = "misalignsse", [8] = "3dnowprefetch", [9] = "osvw",
    [10] = "ibs", [11] = "xop", [12] = "skinit", [13] = "wdt", [15] = "lwp", [16] = "fma4",
    [17] = "tce", [19] = "nodeid_msr", [21] = "tbm", [22] = "topoext", [23] = "perfctr_core",
    [24] = "perfctr_nb", [26] = "bpext", [27] = "ptsc", [28] = "perfctr_llc", [29] = "mwaitx",
};
static const char *const names_ext1_edx[32] = {
    [0] = "fpu", [1] = "vme", [2] = "de", [3] = "pse", [4] = "tsc", [5] = "msr", [6] = "pae",
    [7] = "mce", [8] = "cx8", [9] = "apic", [11] = "syscall", [12] = "mtrr", [13] = "pge",
    [14] = "mca", [15] = "cmov", [16] = "pat", [17] = "pse36", [19] = "mp", [20] = "nx",
    [22] = "mmxext", [23] = "mmx", [24] = "fxsr", [25] = "fxsr_opt", [26] = "pdpe1gb",
    [27] = "rdtscp", [29] = "lm", [30] = "3dnowext", [31] = "3dnow",
};
static const char *const names_ext7_edx[32] = {
    [8] = "invtsc",
};
static const char *const names_ext8_ebx[32] = {
    [0] = "clzero", [1] = "irperf", [2] = "xsaveerptr", [4] = "rdpru", [9] = "wbnoinvd",
    [12] = "amd_ibpb", [14] = "amd_ibrs", [15] = "amd_stibp", [17] = "amd_stibp_always_on",
    [23] = "amd_ppin", [24] = "amd_ssbd", [25] = "virt_ssbd", [26] = "amd_ssb_no", [27] = "cppc",
    [28] = "amd_psfd", [29] = "btc_no", [30] = "ibpb_ret",
};
static const char *const names_svm_edx[32] = {
    [0] = "npt", [1] = "lbrv", [2] = "svm_lock", [3] = "nrip_save", [4] = "tsc_scale",
    [5] = "vmcb_clean", [6] = "flushbyasid", [7] = "decodeassists", [10] = "pausefilter",
    [12] = "pfthreshold", [13] = "avic", [15] = "v_vmsave_vmload", [16] = "vgif", [18] = "x2avic",
    [20] = "v_spec_ctrl", [25] = "vnmi",
};
static const char *const names_ext21_eax[32] = {
    [0] = "no_nested_data_bp", [2] = "lfence_rdtsc", [3] = "smm_page_cfg_lock",
    [6] = "null_sel_clr_base", [8] = "autoibrs", [9] = "no_smm_ctl_msr", [17] = "amd_fsrs",
    [18] = "amd_fsrc", [27] = "sbpb", [28] = "ibpb_brtype", [29] = "srso_no",
    [30] = "srso_user_kernel_no",
};

#define ALL UINT32_MAX
#define BITS(fn, ix, r, n) {fn, ix, ix, CPUID_##r, CPUID_SUBSET, ALL, NULL, n}
#define FIELD(fn, ix, last, r, rule, mask, what) {fn, ix, last, CPUID_##r, CPUID_##rule, mask, what, NULL}

/*
 * CPUID is always intercepted: brand strings, caches and topology are what the
 * guest was first told, on any host.  What is compared is what hardware and
 * KVM must really do.
 */
static const struct cpuid_check checks[] = {
    FIELD(0x0, 0, 0, EBX, EQUAL, ALL, "vendor"),
    FIELD(0x0, 0, 0, ECX, EQUAL, ALL, "vendor"),
    FIELD(0x0, 0, 0, EDX, EQUAL, ALL, "vendor"),
    FIELD(0x1, 0, 0, EBX, EQUAL, 0x0000ff00, "clflush_size"),
    BITS(0x1, 0, ECX, names_1_ecx),
    BITS(0x1, 0, EDX, names_1_edx),
    BITS(0x6, 0, EAX, names_6_eax),
    BITS(0x7, 0, EBX, names_7_0_ebx),
    BITS(0x7, 0, ECX, names_7_0_ecx),
    BITS(0x7, 0, EDX, names_7_0_edx),
    BITS(0x7, 1, EAX, names_7_1_eax),
    BITS(0x7, 1, EDX, names_7_1_edx),
    BITS(0x7, 2, EDX, names_7_2_edx),
    BITS(0xd, 0, EAX, names_d_xcr0),
    BITS(0xd, 1, EAX, names_d_1_eax),
    BITS(0xd, 1, ECX, names_d_xss),
    FIELD(0xd, 2, 63, EAX, EQUAL, ALL, "size"),
    FIELD(0xd, 2, 63, EBX, EQUAL, ALL, "offset"),
    FIELD(0xd, 2, 63, ECX, EQUAL, 0x00000007, "flags"),
    FIELD(0x1d, 0, 0, EAX, LE, ALL, "max_palette"),
    FIELD(0x1d, 1, 1, EAX, EQUAL, ALL, "tile_bytes"),
    FIELD(0x1d, 1, 1, EBX, EQUAL, ALL, "tile_row"),
    FIELD(0x1d, 1, 1, ECX, EQUAL, ALL, "tile_rows"),
    FIELD(0x1e, 0, 0, EBX, EQUAL, ALL, "tmul"),
    FIELD(0x24, 0, 0, EBX, LE, 0x000000ff, "avx10_version"),
    FIELD(0x40000000, 0, 0, EBX, EQUAL, ALL, "hypervisor"),
    FIELD(0x40000000, 0, 0, ECX, EQUAL, ALL, "hypervisor"),
    FIELD(0x40000000, 0, 0, EDX, EQUAL, ALL, "hypervisor"),
    BITS(0x40000001, 0, EAX, names_kvm_eax),
    BITS(0x80000001, 0, ECX, names_ext1_ecx),
    BITS(0x80000001, 0, EDX, names_ext1_edx),
    BITS(0x80000007, 0, EDX, names_ext7_edx),
    FIELD(0x80000008, 0, 0, EAX, LE, 0x000000ff, "phys_bits"),
    FIELD(0x80000008, 0, 0, EAX, LE, 0x0000ff00, "linear_bits"),
    BITS(0x80000008, 0, EBX, names_ext8_ebx),
    FIELD(0x8000000a, 0, 0, EBX, LE, ALL, "asids"),
    BITS(0x8000000a, 0, EDX, names_svm_edx),
    BITS(0x80000021, 0, EAX, names_ext21_eax),
};
/* clang-format on */

const struct cpuid_check *cpuid_checks(size_t *ret_nr)
{
    *ret_nr = ARRAY_LEN(checks);
    return checks;
}

const char *cpuid_reg_name(enum cpuid_reg reg)
{
    static const char *const names[] = {"eax", "ebx", "ecx", "edx"};

    return names[reg];
}
