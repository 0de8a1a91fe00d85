/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are in the x86-64 machine: guest physical addresses, I/O ports
 * and interrupt pins.  docs/platform.md gives the same table with its sources.
 */
#ifndef CORE_X86_LAYOUT_H
#define CORE_X86_LAYOUT_H

#include "core/base.h"

/* Guest physical addresses, in ascending order. */
#define X86_EBDA_POINTER_GPA   UINT64_C(0x40e) /* le16: EBDA address >> 4 */
#define X86_BOOT_GDT_GPA       UINT64_C(0x500)
#define X86_BOOT_IDT_GPA       UINT64_C(0x520)
#define X86_PVH_INFO_GPA       UINT64_C(0x6000)
#define X86_PVH_MODLIST_GPA    UINT64_C(0x6040)
#define X86_ZERO_PAGE_GPA      UINT64_C(0x7000) /* Linux boot_params */
#define X86_PVH_MEMMAP_GPA     UINT64_C(0x7000) /* in place of the zero page */
#define X86_BOOT_STACK_GPA     UINT64_C(0x8ff0)
#define X86_BOOT_PML4_GPA      UINT64_C(0xa000)
#define X86_BOOT_PDPT_GPA      UINT64_C(0xb000)
#define X86_BOOT_PD_GPA        UINT64_C(0xc000) /* four pages: 4 GiB mapped one to one */
#define X86_CMDLINE_GPA        UINT64_C(0x20000)
#define X86_CMDLINE_SIZE       UINT64_C(0x10000)
#define X86_MP_POINTER_GPA     UINT64_C(0x9fc00) /* last KiB of base memory: the MP floating pointer */
#define X86_LOW_RAM_END_GPA    UINT64_C(0xa0000) /* end of RAM that the OS may use below 1 MiB */
#define X86_EBDA_GPA           UINT64_C(0xa0000) /* RSDP first, the ACPI tables follow */
#define X86_ACPI_GPA           X86_EBDA_GPA
#define X86_ACPI_SIZE          UINT64_C(0x4d000)
#define X86_MPTABLE_GPA        UINT64_C(0xed000) /* MP configuration table */
#define X86_MPTABLE_SIZE       UINT64_C(0x2000)
#define X86_GENID_GPA          UINT64_C(0xef000) /* VM generation id: 16 bytes, a page of its own */
#define X86_SMBIOS_GPA         UINT64_C(0xf0000)
#define X86_SMBIOS_SIZE        UINT64_C(0x10000)
#define X86_HIGH_RAM_GPA       UINT64_C(0x100000)   /* kernels are loaded here */
#define X86_MMIO32_GPA         UINT64_C(0xc0000000) /* end of RAM below 4 GiB; 32-bit PCI windows */
#define X86_MMIO32_SIZE        (UINT64_C(640) << 20)
#define X86_ECAM_GPA           UINT64_C(0xe8000000) /* PCI MMCONFIG */
#define X86_ECAM_SIZE          (UINT64_C(256) << 20)
#define X86_ECAM_SEGMENT_SIZE  (UINT64_C(1) << 20)  /* one bus in each segment */
#define X86_KVM_TSS_GPA        UINT64_C(0xf8000000) /* KVM_SET_TSS_ADDR: three pages */
#define X86_KVM_IDENTITY_GPA   UINT64_C(0xf8003000) /* KVM_SET_IDENTITY_MAP_ADDR: one page */
#define X86_IOAPIC_GPA         UINT64_C(0xfec00000)
#define X86_IOAPIC_SIZE        UINT64_C(0x20)
#define X86_LAPIC_GPA          UINT64_C(0xfee00000)
#define X86_RAM64_GPA          UINT64_C(0x100000000) /* RAM above the hole */
#define X86_MMIO64_ALIGN       (UINT64_C(128) << 20)
#define X86_MMIO64_TOP_RESERVE (UINT64_C(64) << 10) /* left free at the end of the address space */

/*
 * The platform's own registers are in the last MiB of the guest physical
 * address space (1 << phys_bits): x86_platform_gpa() plus these.
 */
#define X86_PLATFORM_SIZE       (UINT64_C(1) << 20)
#define X86_PLATFORM_GED_OFF    UINT64_C(0x0000)
#define X86_PLATFORM_GED_SIZE   UINT64_C(0x1)
#define X86_PLATFORM_CPUHP_OFF  UINT64_C(0x1000)
#define X86_PLATFORM_CPUHP_SIZE UINT64_C(0xc)
#define X86_PLATFORM_MEMHP_OFF  UINT64_C(0x2000)
#define X86_PLATFORM_MEMHP_SIZE UINT64_C(0x18)
#define X86_PLATFORM_PCIHP_OFF  UINT64_C(0x3000)
#define X86_PLATFORM_PCIHP_SIZE UINT64_C(0x10)

/* Guest physical addresses [gpa, gpa + len). */
struct x86_range {
    uint64_t gpa; /* bytes */
    uint64_t len; /* bytes */
};

/* I/O ports. */
enum x86_port {
    X86_PORT_I8042 = 0x61, /* 0x61-0x64 */
    X86_PORT_I8042_LEN = 4,
    X86_PORT_CMOS = 0x70, /* index, data */
    X86_PORT_CMOS_LEN = 2,
    X86_PORT_DEBUG = 0x80,
    X86_PORT_DEBUG_LEN = 1,
    X86_PORT_DEBUG_CONSOLE = 0xe9,
    X86_PORT_DEBUG_CONSOLE_LEN = 1,
    X86_PORT_COM1 = 0x3f8,
    X86_PORT_COM1_LEN = 8,
    X86_PORT_FW_DEBUG = 0x402,
    X86_PORT_FW_DEBUG_LEN = 1,
    X86_PORT_ACPI_SHUTDOWN = 0x600, /* write 1: reset; SLP_TYP 5 and SLP_EN: off */
    X86_PORT_ACPI_SHUTDOWN_LEN = 1,
    X86_PORT_ACPI_PM_TIMER = 0x608, /* 3.579545 MHz, 32 bits */
    X86_PORT_ACPI_PM_TIMER_LEN = 4,
    X86_PORT_PCI_CONFIG = 0xcf8, /* mechanism 1: address, data */
    X86_PORT_PCI_CONFIG_LEN = 8,
};

/* What is written to the ACPI shutdown port. */
enum {
    X86_ACPI_RESET_VALUE = 1,
    X86_ACPI_S5_SLP_TYP = 5,
    X86_ACPI_S5_VALUE = (X86_ACPI_S5_SLP_TYP << 2) | (1 << 5), /* 0x34 */
};

/* IOAPIC pins; global system interrupt numbers are the same. */
enum x86_irq {
    X86_IRQ_COM1 = 4,
    X86_IRQ_GED = 5,
    X86_IRQ_RTC = 8,
    X86_IRQ_PCI_FIRST = 16, /* INTx of slot n is X86_IRQ_PCI_FIRST + n % X86_IRQ_PCI_NR */
    X86_IRQ_PCI_NR = 8,
};

/* Bits of the event byte that the generic event device shows at its register. */
enum x86_ged_event {
    X86_GED_CPU = 1 << 0,
    X86_GED_MEMORY = 1 << 1,
    X86_GED_PCI = 1 << 2,
    X86_GED_POWER_BUTTON = 1 << 3,
    X86_GED_GENID = 1 << 4, /* the VM generation id has changed */
};

enum {
    X86_PHYS_BITS_MAX = 46, /* default of cpus.max_phys_bits */
    X86_PHYS_BITS_MIN = 36,
    X86_VCPUS_MAX = 8192,
    X86_PCI_SEGMENTS_MAX = 96,
    X86_PCI_SLOTS = 32,
};

/* First byte of the platform's registers; the machine has @phys_bits address bits. */
static inline uint64_t x86_platform_gpa(unsigned phys_bits)
{
    return (UINT64_C(1) << phys_bits) - X86_PLATFORM_SIZE;
}

/* First byte of the 64-bit PCI window: RAM (hotplug included) ends at @ram_end_gpa. */
static inline uint64_t x86_mmio64_gpa(uint64_t ram_end_gpa)
{
    uint64_t end = ram_end_gpa > X86_RAM64_GPA ? ram_end_gpa : X86_RAM64_GPA;

    return (end + X86_MMIO64_ALIGN - 1) & ~(X86_MMIO64_ALIGN - 1);
}

/* First byte after the 64-bit PCI window. */
static inline uint64_t x86_mmio64_end(unsigned phys_bits)
{
    return x86_platform_gpa(phys_bits) - X86_MMIO64_TOP_RESERVE;
}

#endif
