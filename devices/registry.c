/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/registry.h"

#include <string.h>

#include "devices/acpi_pm_timer.h"
#include "devices/acpi_shutdown.h"
#include "devices/cmos.h"
#include "devices/debug_port.h"
#include "devices/debugcon.h"
#include "devices/ged.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/pci_root.h"
#include "devices/serial.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_console.h"
#include "devices/virtio_net.h"
#include "devices/virtio_rng.h"
#include "devices/vmgenid.h"

const struct device_ops *const device_registry[] = {
    &i8042_ops,         /* 0x61 */
    &cmos_ops,          /* 0x70 */
    &debug_port_ops,    /* 0x80 */
    &debugcon_ops,      /* 0xe9, 0x402 */
    &serial_ops,        /* 0x3f8 */
    &acpi_shutdown_ops, /* 0x600 */
    &acpi_pm_timer_ops, /* 0x608 */
    &ioapic_ops,        /* 0xfec00000 */
    &ged_ops,           /* the platform's page */
    &vmgenid_ops,       /* a page of RAM */
    &pci_root_ops,      /* 0xcf8, 0xe8000000 */
    &vblk_ops,          /* PCI */
    &vnet_ops,          /* PCI */
    &vrng_ops,          /* PCI */
    &vcon_ops,          /* PCI */
};

const size_t device_registry_len = ARRAY_LEN(device_registry);

const struct device_ops *device_registry_find(const char *type)
{
    for (size_t i = 0; i < device_registry_len; i++)
        if (!strcmp(device_registry[i]->type, type))
            return device_registry[i];
    return NULL;
}
