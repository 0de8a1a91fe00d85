/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables: RSDP, XSDT, FADT (hardware-reduced), MADT, MCFG, DSDT, and SRAT
 * and SLIT where there are NUMA nodes.
 *
 * The tables are in guest RAM: a guest that is restored or moved keeps those
 * that it was booted with.  Objects and their names: docs/platform.md.
 * Spec: ACPI 6.5.
 */
#ifndef CORE_X86_ACPI_H
#define CORE_X86_ACPI_H

#include "core/err.h"
#include "core/x86/layout.h"

struct gmem;

enum {
    ACPI_CPUS_MAX = 4096, /* names C000 to CFFF */
    ACPI_NODES_MAX = 64,
};

/* A processor, there or (not @enabled) with a place kept for it. */
struct acpi_cpu {
    uint32_t apic_id;
    uint32_t node; /* NUMA node */
    bool enabled;
};

/* RAM of a NUMA node. */
struct acpi_memory {
    uint64_t gpa; /* bytes */
    uint64_t len; /* bytes */
    uint32_t node;
    bool hotplug;
};

/* A PCI segment with one bus; its configuration space is at X86_ECAM_GPA + segment MiB. */
struct acpi_pci_segment {
    uint16_t segment;
    uint32_t node;
    struct x86_range mmio32; /* windows for BARs; len 0: none */
    struct x86_range mmio64;
};

/* Zero-initialised: a machine without the thing. */
struct acpi_config {
    const struct acpi_cpu *cpus; /* borrowed, as are all arrays */
    unsigned nr_cpus;
    const struct acpi_pci_segment *segments;
    unsigned nr_segments;
    unsigned nr_nodes; /* 0: no NUMA */
    const struct acpi_memory *memory;
    unsigned nr_memory;
    const uint8_t *distances; /* nr_nodes * nr_nodes, row by row; NULL: no SLIT */
    uint64_t platform_gpa;    /* x86_platform_gpa() */
    uint64_t genid_gpa;       /* VM generation id; 0: none */
    bool serial;              /* COM1 */
    bool rtc;                 /* the guest may use the CMOS clock */
    bool i8042;               /* the guest may look for a keyboard controller */
};

/* The tables as they lie in guest memory. */
struct acpi_tables {
    uint8_t *data; /* owned; the RSDP first */
    size_t len;
    uint64_t gpa; /* of the first byte */
};

/**
 * acpi_build() - make the tables.
 * @gpa: where they will lie, a multiple of 16.
 * @cap: most bytes.
 *
 * Return: 0 and *@ret_tables, to be given to acpi_tables_release(); -EINVAL
 * for a configuration that contradicts itself, -E2BIG if it has too many
 * processors for @cap, -ENOMEM.
 * Threads: any.
 */
CHECKED int acpi_build(const struct acpi_config *cfg, uint64_t gpa, size_t cap,
                       struct acpi_tables *ret_tables, struct err *err);

/**
 * acpi_tables_release() - free the tables.
 *
 * Threads: any.
 */
void acpi_tables_release(struct acpi_tables *tables);

/**
 * acpi_write() - make the tables and put them into guest memory at X86_ACPI_GPA.
 * @ret_rsdp_gpa: where the RSDP is.
 *
 * Return: 0; as acpi_build(); -EINVAL if there is no RAM.
 * Threads: control, with no vCPU running.
 */
CHECKED int acpi_write(struct gmem *gm, const struct acpi_config *cfg, uint64_t *ret_rsdp_gpa,
                       struct err *err);

#endif
