/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over PCI, modern only: vendor 1af4, device 1040 + type, revision 1.
 *
 * Everything is in BAR 0, 512 KiB, 64-bit unless the place says otherwise:
 *
 *     0x00000  common configuration, 56 bytes
 *     0x02000  ISR status
 *     0x04000  device configuration, 4 KiB
 *     0x06000  notification, 4 bytes a queue
 *     0x08000  MSI-X table
 *     0x48000  MSI-X pending bits
 *
 * MSI-X has one vector more than there are queues; there is no INTx.
 *
 * A device type embeds struct virtio_pci as its first member, calls
 * virtio_pci_realize() at the end of its realize and VPCI_DEVICE_OPS in
 * its ops table, and puts STATE_STRUCT(..., &virtio_pci_state, vp) first into its
 * state table.
 */
#ifndef DEVICES_VIRTIO_PCI_H
#define DEVICES_VIRTIO_PCI_H

#include "devices/msix.h"
#include "devices/pci_bus.h"
#include "devices/virtio_device.h"

enum {
    VPCI_BAR_SIZE = 0x80000,
    VPCI_COMMON = 0x0,
    VPCI_COMMON_SIZE = 56,
    VPCI_ISR = 0x2000,
    VPCI_ISR_SIZE = 1,
    VPCI_CONFIG = 0x4000,
    VPCI_CONFIG_SIZE = 0x1000,
    VPCI_NOTIFY = 0x6000,
    VPCI_NOTIFY_SIZE = 0x1000,
    VPCI_NOTIFY_STRIDE = 4,
    VPCI_MSIX_TABLE = 0x8000,
    VPCI_MSIX_PBA = 0x48000,
};

struct virtio_pci {
    struct virtio_device vd;

    /* State. */
    struct pci_func pci;
    struct msix msix;
    uint8_t isr;
    uint32_t device_feature_select;
    uint32_t driver_feature_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint8_t window_bar; /* the PCI_CFG capability */
    uint32_t window_offset;
    uint32_t window_length;

    /* Fixed. */
    unsigned msix_cap; /* offsets in configuration space */
    unsigned window_cap;
};

extern const struct state_desc virtio_pci_state;

/**
 * virtio_pci_realize() - everything below the device type.
 * @vp:    zeroed but for its struct device and vd.features, the type's own bits.
 * @sizes: largest size of each queue.
 * @nr:    queues.
 *
 * Return: 0; -EINVAL, -EEXIST, -ENOSPC and others, explained in @err.
 * virtio_pci_destroy() is owed in any case.
 * Threads: control, with dev->lock held.
 */
CHECKED int virtio_pci_realize(struct virtio_pci *vp, const struct virtio_type *type,
                               const struct pci_place *place, const uint16_t *sizes, unsigned nr,
                               struct err *err);

/**
 * virtio_pci_destroy() - undo virtio_pci_realize(), also a failed one or none.
 *
 * Threads: control, the device is quiet and dev->lock is not held.
 */
void virtio_pci_destroy(struct virtio_pci *vp);

/**
 * virtio_pci_reset() - device_ops.reset.
 *
 * Threads: with dev->lock held.
 */
void virtio_pci_reset(struct device *dev);

/**
 * virtio_pci_resume() - device_ops.resume.
 *
 * Threads: with dev->lock held.
 */
void virtio_pci_resume(struct device *dev);

/**
 * virtio_pci_read() - device_ops.read.
 *
 * Return: the value; all ones for an access that the layout does not allow.
 * Threads: with dev->lock held.
 */
uint64_t virtio_pci_read(struct device *dev, unsigned win, uint64_t off, unsigned size);

/**
 * virtio_pci_write() - device_ops.write.
 *
 * Threads: with dev->lock held.
 */
void virtio_pci_write(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val);

/* The part of a type's ops table that is the same for all. */
#define VPCI_DEVICE_OPS                                                                       \
    .reset = virtio_pci_reset, .quiesce = virtio_device_quiesce, .resume = virtio_pci_resume, \
    .read = virtio_pci_read, .write = virtio_pci_write

#endif
