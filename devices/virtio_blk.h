/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio block device (type 2) over a raw image.
 *
 * Machine interface:
 *  + PCI function 1af4:1042, class 01/80; see devices/virtio_pci.h
 *  + queues: num_queues requests
 *  + config: struct vblk_config
 *  + state section: "virtio-blk", version 1
 */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include "core/device.h"
#include "devices/disk.h"
#include "devices/pci_bus.h"

enum {
    VBLK_DEPTH_MAX = 256, /* requests in flight; the depth that the disk should be opened with */
    VBLK_SERIAL_MAX = 20, /* bytes */
};

struct vblk_config {
    struct pci_place place;
    struct disk *disk;   /* opened with vblk_depth(); taken on success */
    const char *serial;  /* what GET_ID answers; NULL: the device's id; borrowed for the call */
    uint16_t num_queues; /* 0: 1 */
    uint16_t queue_size; /* 0: 128 */
    bool readonly;
    bool no_sparse; /* offer neither discard nor write zeroes */
};

extern const struct device_ops vblk_ops;

/**
 * vblk_depth() - how many requests a device of this configuration has in flight at most.
 *
 * Return: 1 to VBLK_DEPTH_MAX: the depth for disk_open().
 * Threads: any.
 */
unsigned vblk_depth(uint16_t num_queues, uint16_t queue_size);

/**
 * vblk_disk() - the image, to lock and unlock it.
 *
 * Return: borrowed.
 * Threads: control.
 */
struct disk *vblk_disk(struct device *dev);

/**
 * vblk_resized() - the image has another size: look, and tell the driver.
 *
 * Return: 0; the kernel's errno.
 * Threads: control, without dev->lock.
 */
CHECKED int vblk_resized(struct device *dev, struct err *err);

#endif
