/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio network device (type 1) over a tap interface.
 *
 * Machine interface:
 *  + PCI function 1af4:1041, class 02/00; see devices/virtio_pci.h
 *  + queues: receive and transmit for each pair, one for control, of queue_size each
 *  + config: struct vnet_config
 *  + state section: "virtio-net", version 1
 *
 * The tap may be missing: frames are lost then.  That is how the destination
 * of a migration builds the device before the source gives the interface up.
 */
#ifndef DEVICES_VIRTIO_NET_H
#define DEVICES_VIRTIO_NET_H

#include "core/device.h"
#include "devices/pci_bus.h"
#include "devices/tap.h"

struct vnet_config {
    struct pci_place place;
    struct tap *tap; /* NULL: vnet_set_tap() later; taken on success */
    uint8_t mac[TAP_MAC_LEN];
    uint16_t mtu;        /* told to the driver; 0: not told */
    uint16_t nr_pairs;   /* 0: 1; as many as the tap has */
    uint16_t queue_size; /* 0: 256 */
    bool no_tso;
    bool no_ufo;
    bool no_csum;
};

extern const struct device_ops vnet_ops;

/**
 * vnet_set_tap() - give the device its interface.
 * @tap: taken on success; as many pairs as the device has.  The one before is closed.
 *
 * Return: 0; -EINVAL for another number of pairs; -ENOTSUP if the interface
 * cannot do what was agreed with the driver.
 * Threads: control, without dev->lock.
 */
CHECKED int vnet_set_tap(struct device *dev, struct tap *tap, struct err *err);

/**
 * vnet_drop_tap() - close the interface's descriptors, so that another process can have it.
 *
 * Threads: control, without dev->lock.
 */
void vnet_drop_tap(struct device *dev);

/**
 * vnet_announce() - the guest is at another place: tell the network.
 *
 * Sends a RARP frame in the guest's name, and asks a driver that can do it to
 * announce itself.  Worth repeating after some 100 ms: frames get lost while
 * switches learn.
 * Threads: control, without dev->lock.
 */
void vnet_announce(struct device *dev);

/**
 * vnet_set_link() - plug the cable in or pull it out.
 *
 * Threads: control, without dev->lock.
 */
void vnet_set_link(struct device *dev, bool up);

/**
 * vnet_set_mac() - another address, for a clone; a driver reads it when it starts.
 * @mac: TAP_MAC_LEN bytes; copied.
 *
 * Threads: control, without dev->lock.
 */
void vnet_set_mac(struct device *dev, const uint8_t *mac);

#endif
