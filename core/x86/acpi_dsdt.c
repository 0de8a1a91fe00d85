/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DSDT: every device that a guest finds by ACPI.
 *
 * Hotplug controllers (PHPR, PRES, MHPC) are not here yet: their registers
 * have their place in the platform's MMIO, their events in the event device's
 * byte, their methods are to be called from GEC_.ESCN.
 */
#include <stdio.h>

#include "core/x86/acpi_internal.h"

enum {
    STA_ABSENT = 0,
    NOTIFY_BUTTON = 0x80,
    NOTIFY_GENID = 0x80,
    PCI_DSM_FUNCTIONS = 1 << 0 | 1 << 5,
    COM1_IO_LEN = 8,
    CF8_LAST = 0xcff,
};

/* PCI Firmware Specification 3.3, 4.6: _DSM for PCI. */
static const char pci_dsm_uuid[] = "E5C937D0-3553-4D7A-9117-EA4D19C3434D";

/* --- Motherboard --------------------------------------------------------- */

static void mbrd_write(struct aml *a)
{
    aml_device_begin(a, "\\_SB_.MBRD");
    aml_name_eisa_id(a, "_HID", "PNP0C02");
    aml_name_int(a, "_UID", 0);
    aml_name(a, "_CRS");
    aml_resources_begin(a);
    aml_res_memory32(a, X86_ECAM_GPA, X86_ECAM_SIZE);
    aml_end(a);
    aml_end(a);
}

static void com1_write(struct aml *a)
{
    aml_device_begin(a, "\\_SB_.COM1");
    aml_name_eisa_id(a, "_HID", "PNP0501");
    aml_name_int(a, "_UID", 0);
    aml_name_string(a, "_DDN", "COM1");
    aml_name(a, "_CRS");
    aml_resources_begin(a);
    aml_res_irq(a, AML_IRQ_EDGE_HIGH, X86_IRQ_COM1);
    aml_res_io(a, X86_PORT_COM1, COM1_IO_LEN);
    aml_end(a);
    aml_end(a);
}

static void rtc_write(struct aml *a)
{
    aml_device_begin(a, "\\_SB_.RTC_");
    aml_name_eisa_id(a, "_HID", "PNP0B00");
    aml_name(a, "_CRS");
    aml_resources_begin(a);
    aml_res_io(a, X86_PORT_CMOS, X86_PORT_CMOS_LEN);
    aml_end(a);
    aml_end(a);
}

static void power_write(struct aml *a)
{
    aml_device_begin(a, "\\_SB_.PWRB");
    aml_name_eisa_id(a, "_HID", "PNP0C0C");
    aml_name_int(a, "_UID", 0);
    aml_end(a);
    aml_name(a, "\\_S5_");
    aml_package_begin(a, 1);
    aml_int(a, X86_ACPI_S5_SLP_TYP);
    aml_end(a);
}

/* --- VM generation id ---------------------------------------------------- */

/*
 * Microsoft, "Virtual Machine Generation ID", 2012: a device whose _CID and
 * _DDN are VM_Gen_Counter, whose ADDR gives the address of 16 bytes in two
 * halves, and which is notified with 0x80 after they changed.
 */
static void genid_write(struct aml *a, uint64_t gpa)
{
    aml_device_begin(a, "\\_SB_.VGEN");
    aml_name_string(a, "_HID", "CHRY0001");
    aml_name_string(a, "_CID", "VM_Gen_Counter");
    aml_name_string(a, "_DDN", "VM_Gen_Counter");
    aml_name_int(a, "_UID", 0);
    aml_name(a, "ADDR");
    aml_package_begin(a, 2);
    aml_int(a, gpa & UINT32_MAX);
    aml_int(a, gpa >> 32);
    aml_end(a);
    aml_end(a);
}

/* --- Events -------------------------------------------------------------- */

/* If (Local0 & bit) { Notify (path, value) } */
static void event_write(struct aml *a, unsigned bit, const char *path, unsigned value)
{
    aml_if_begin(a);
    aml_op(a, AML_AND);
    aml_local(a, 0);
    aml_int(a, bit);
    aml_null(a);
    aml_notify(a, path, value);
    aml_end(a);
}

/* GEC_ has the register and the method, GED_ the interrupt. */
static void ged_write(struct aml *a, const struct acpi_config *cfg)
{
    aml_device_begin(a, "\\_SB_.GEC_");
    aml_name_eisa_id(a, "_HID", "PNP0A06");
    aml_name_string(a, "_UID", "Generic Event Controller");
    aml_region(a, "GDST", AML_SYSTEM_MEMORY, cfg->platform_gpa + X86_PLATFORM_GED_OFF,
               X86_PLATFORM_GED_SIZE);
    aml_field_begin(a, "GDST", AML_FIELD_BYTE | AML_FIELD_WRITE_AS_ZEROS);
    aml_field_unit(a, "GDAT", 8);
    aml_end(a);
    aml_method_begin(a, "ESCN", 0, true);
    aml_op(a, AML_STORE);
    aml_path(a, "GDAT");
    aml_local(a, 0);
    event_write(a, X86_GED_POWER_BUTTON, "\\_SB_.PWRB", NOTIFY_BUTTON);
    if (cfg->genid_gpa)
        event_write(a, X86_GED_GENID, "\\_SB_.VGEN", NOTIFY_GENID);
    aml_end(a);
    aml_end(a);

    aml_device_begin(a, "\\_SB_.GED_");
    aml_name_string(a, "_HID", "ACPI0013");
    aml_name_int(a, "_UID", 0);
    aml_name(a, "_CRS");
    aml_resources_begin(a);
    aml_res_irq(a, AML_IRQ_EDGE_HIGH, X86_IRQ_GED);
    aml_end(a);
    aml_method_begin(a, "_EVT", 1, true);
    aml_path(a, "\\_SB_.GEC_.ESCN");
    aml_end(a);
    aml_end(a);
}

/* --- Processors ---------------------------------------------------------- */

static void cpus_write(struct aml *a, const struct acpi_config *cfg)
{
    char name[8];

    aml_device_begin(a, "\\_SB_.CPUS");
    aml_name_string(a, "_HID", "ACPI0010");
    aml_name_eisa_id(a, "_CID", "PNP0A05");
    for (unsigned i = 0; i < cfg->nr_cpus; i++) {
        (void)snprintf(name, sizeof(name), "C%03X", i);
        aml_device_begin(a, name);
        aml_name_string(a, "_HID", "ACPI0007");
        aml_name_int(a, "_UID", i);
        if (!cfg->cpus[i].enabled)
            aml_name_int(a, "_STA", STA_ABSENT);
        if (cfg->nr_nodes > 0)
            aml_name_int(a, "_PXM", cfg->cpus[i].node);
        aml_end(a);
    }
    aml_end(a);
}

/* --- PCI ----------------------------------------------------------------- */

/*
 * Function 0 says which functions there are; function 5 with the answer 0:
 * the OS keeps the addresses that were given to the BARs.
 */
static void pci_dsm_write(struct aml *a)
{
    static const uint8_t functions[] = {PCI_DSM_FUNCTIONS};
    static const uint8_t none[] = {0};

    aml_method_begin(a, "_DSM", 4, true);
    aml_if_begin(a);
    aml_op(a, AML_LEQUAL);
    aml_arg(a, 0);
    aml_uuid(a, pci_dsm_uuid);
    aml_if_begin(a);
    aml_op(a, AML_LEQUAL);
    aml_arg(a, 2);
    aml_int(a, 0);
    aml_op(a, AML_RETURN);
    aml_buffer(a, functions, sizeof(functions));
    aml_end(a);
    aml_if_begin(a);
    aml_op(a, AML_LEQUAL);
    aml_arg(a, 2);
    aml_int(a, 5);
    aml_op(a, AML_RETURN);
    aml_int(a, 0);
    aml_end(a);
    aml_end(a);
    aml_op(a, AML_RETURN);
    aml_buffer(a, none, sizeof(none));
    aml_end(a);
}

static void pci_crs_write(struct aml *a, const struct acpi_pci_segment *seg)
{
    aml_name(a, "_CRS");
    aml_resources_begin(a);
    aml_res_bus(a, 0, 0);
    if (seg->segment == 0) {
        aml_res_io(a, X86_PORT_PCI_CONFIG, X86_PORT_PCI_CONFIG_LEN);
        aml_res_io_window(a, 0, X86_PORT_PCI_CONFIG - 1);
        aml_res_io_window(a, CF8_LAST + 1, UINT16_MAX);
    }
    if (seg->mmio32.len)
        aml_res_memory_window(a, (uint32_t)seg->mmio32.gpa, (uint32_t)seg->mmio32.len);
    if (seg->mmio64.len)
        aml_res_memory64_window(a, seg->mmio64.gpa, seg->mmio64.len);
    aml_end(a);
}

/* INTA of every slot; no device has another pin. */
static void pci_prt_write(struct aml *a)
{
    aml_name(a, "_PRT");
    aml_package_begin(a, X86_PCI_SLOTS);
    for (unsigned slot = 0; slot < X86_PCI_SLOTS; slot++) {
        aml_package_begin(a, 4);
        aml_int(a, (uint64_t)slot << 16 | 0xffff);
        aml_int(a, 0);
        aml_int(a, 0);
        aml_int(a, X86_IRQ_PCI_FIRST + slot % X86_IRQ_PCI_NR);
        aml_end(a);
    }
    aml_end(a);
}

static void pci_segment_write(struct aml *a, const struct acpi_config *cfg,
                              const struct acpi_pci_segment *seg)
{
    char path[16];

    (void)snprintf(path, sizeof(path), "\\_SB_.PC%02X", seg->segment);
    aml_device_begin(a, path);
    aml_name_eisa_id(a, "_HID", "PNP0A08");
    aml_name_eisa_id(a, "_CID", "PNP0A03");
    aml_name_int(a, "_SEG", seg->segment);
    aml_name_int(a, "_UID", seg->segment);
    aml_name_int(a, "_BBN", 0);
    aml_name_int(a, "_CCA", 1);
    if (cfg->nr_nodes > 0)
        aml_name_int(a, "_PXM", seg->node);
    pci_dsm_write(a);
    pci_crs_write(a, seg);
    pci_prt_write(a);
    aml_end(a);
}

void acpi_dsdt_write(struct aml *a, const struct acpi_config *cfg)
{
    mbrd_write(a);
    for (unsigned i = 0; i < cfg->nr_segments; i++)
        pci_segment_write(a, cfg, &cfg->segments[i]);
    if (cfg->serial)
        com1_write(a);
    if (cfg->rtc)
        rtc_write(a);
    power_write(a);
    if (cfg->genid_gpa)
        genid_write(a, cfg->genid_gpa);
    ged_write(a, cfg);
    cpus_write(a, cfg);
}
