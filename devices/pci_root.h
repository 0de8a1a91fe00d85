/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI host bridge 8086:0d57: the two ways to configuration space, and itself
 * as function 00.0 of its bus.
 *
 * Machine interface:
 *  + window PCI_ROOT_WIN_PORTS: configuration mechanism 1, 8 ports, for the
 *    first segment
 *  + window PCI_ROOT_WIN_ECAM: memory-mapped configuration, 1 MiB a segment
 *  + irq: none
 *  + config: struct pci_root_config
 *  + state section: "pci-root", version 1
 */
#ifndef DEVICES_PCI_ROOT_H
#define DEVICES_PCI_ROOT_H

#include "core/device.h"
#include "devices/pci_bus.h"

enum {
    PCI_ROOT_WIN_PORTS = 0,
    PCI_ROOT_WIN_ECAM = 1,

    PCI_ROOT_PORTS = 8,           /* length of the windows */
    PCI_ROOT_ECAM_SIZE = 1 << 20, /* one bus */
};

struct pci_root_config {
    struct pci_bus *bus; /* borrowed; outlives the device */
};

extern const struct device_ops pci_root_ops;

#endif
