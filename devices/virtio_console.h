/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio console (type 3), one port.
 *
 * Machine interface:
 *  + PCI function 1af4:1043, class ff/ff; see devices/virtio_pci.h
 *  + queues: receive, transmit, of 256 each
 *  + config: struct vcon_config
 *  + state section: "virtio-console", version 1
 */
#ifndef DEVICES_VIRTIO_CONSOLE_H
#define DEVICES_VIRTIO_CONSOLE_H

#include "core/device.h"
#include "devices/char_port.h"
#include "devices/pci_bus.h"

struct vcon_config {
    struct pci_place place;
    struct char_port_config port; /* handles; taken on success */
    uint16_t cols;                /* size of the terminal; 0: not told */
    uint16_t rows;
};

extern const struct device_ops vcon_ops;

/**
 * vcon_resize() - the terminal has another size: tell the driver.
 *
 * Without effect where the size was not told from the start.
 * Threads: control, without dev->lock.
 */
void vcon_resize(struct device *dev, uint16_t cols, uint16_t rows);

#endif
