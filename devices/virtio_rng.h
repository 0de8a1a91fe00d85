/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio entropy device (type 4).
 *
 * Machine interface:
 *  + PCI function 1af4:1044, class ff/ff; see devices/virtio_pci.h
 *  + queues: one, of 256
 *  + config: struct vrng_config
 *  + state section: "virtio-rng", version 1
 */
#ifndef DEVICES_VIRTIO_RNG_H
#define DEVICES_VIRTIO_RNG_H

#include "core/device.h"
#include "devices/pci_bus.h"

struct vrng_config {
    struct pci_place place;
    int fd; /* where random bytes come from, made non-blocking; -1: the kernel's own; taken on success */
};

extern const struct device_ops vrng_ops;

#endif
