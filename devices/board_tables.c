/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI, MP and SMBIOS tables for this board.
 */
#include <errno.h>
#include <uuid/uuid.h>

#include "core/x86/acpi.h"
#include "core/x86/cpu_model.h"
#include "core/x86/mptable.h"
#include "core/x86/smbios.h"
#include "devices/board_internal.h"

int board_write_smbios(const struct board *b, struct err *err)
{
    const struct platform_config *p = &b->cfg->platform;
    struct smbios_config smbios = {
        .manufacturer = p->system_manufacturer,
        .product_name = p->system_product_name,
        .version = p->system_version,
        .serial_number = p->system_serial_number,
        .sku_number = p->system_sku_number,
        .family = p->system_family,
        .chassis_asset_tag = p->chassis_asset_tag,
        .oem_strings = (const char *const *)p->oem_strings,
        .nr_oem_strings = p->nr_oem_strings,
    };

    if (p->system_uuid && uuid_parse(p->system_uuid, smbios.uuid) < 0)
        return err_set(err, -EINVAL, "platform.system_uuid: %s is no UUID", p->system_uuid);
    return smbios_write(vm_gmem(b->vm), &smbios, err);
}

static int write_mptable(const struct board *b, struct err *err)
{
    unsigned n = b->cfg->cpus.boot_vcpus; /* 1 at least */
    uint32_t *apic_ids = calloc(n + 1U, sizeof(*apic_ids));
    int rc;

    if (!apic_ids)
        return err_set(err, -ENOMEM, "MP table: out of memory");
    for (unsigned i = 0; i < n; i++)
        apic_ids[i] = cpu_model_apic_id(vm_cpu_model(b->vm), i);
    rc = mptable_write(vm_gmem(b->vm), apic_ids, n, err);
    free(apic_ids);
    return rc;
}

int board_write_tables(void *board, uint64_t *ret_rsdp_gpa, struct err *err)
{
    struct board *b = board;
    const struct cpu_model *model = vm_cpu_model(b->vm);
    struct pci_window mmio64 = board_mmio64(b);
    const struct acpi_pci_segment segment = {
        .mmio32 = {X86_MMIO32_GPA, X86_MMIO32_SIZE},
        .mmio64 = {mmio64.base,    mmio64.len     },
    };
    struct acpi_config acpi = {
        .nr_cpus = b->cfg->cpus.max_vcpus,
        .segments = &segment,
        .nr_segments = 1,
        .platform_gpa = x86_platform_gpa(b->phys_bits),
        .genid_gpa = X86_GENID_GPA,
        .serial = b->cfg->serial.mode != CONSOLE_OFF,
        .rtc = true,
    };
    struct acpi_cpu *cpus = calloc(acpi.nr_cpus, sizeof(*cpus));
    int rc;

    if (!cpus)
        return err_set(err, -ENOMEM, "ACPI tables: out of memory");
    for (unsigned i = 0; i < acpi.nr_cpus; i++)
        cpus[i] = (struct acpi_cpu){.apic_id = cpu_model_apic_id(model, i),
                                    .enabled = i < b->cfg->cpus.boot_vcpus};
    acpi.cpus = cpus;
    rc = acpi_write(vm_gmem(b->vm), &acpi, ret_rsdp_gpa, err);
    free(cpus);
    if (rc == 0)
        rc = write_mptable(b, err);
    return rc < 0 ? rc : board_write_smbios(b, err);
}
