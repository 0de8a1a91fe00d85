/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM generation id: 16 bytes of guest memory that change when the guest is a
 * copy, so that it makes new random numbers and new names.
 *
 * Machine interface:
 *  + ports, MMIO: none; guest memory at vmgenid_config.gpa
 *  + irq: none: the owner tells the guest by an event of the GED
 *  + config: struct vmgenid_config
 *  + state section: "vmgenid", version 1
 */
#ifndef DEVICES_VMGENID_H
#define DEVICES_VMGENID_H

#include "core/device.h"

enum {
    VMGENID_LEN = 16,
};

struct vmgenid_config {
    uint64_t gpa;            /* a page of RAM that the OS is told not to use */
    uint8_t id[VMGENID_LEN]; /* of the first start */
};

extern const struct device_ops vmgenid_ops;

/**
 * vmgenid_set() - give the guest another id; the caller raises the event.
 * @dev: a vmgenid.
 *
 * Writes guest memory, marked dirty.
 * Threads: any, without dev->lock; the guest may run.
 */
void vmgenid_set(struct device *dev, const uint8_t id[VMGENID_LEN]);

/**
 * vmgenid_get() - the id that the guest has.
 * @dev: a vmgenid.
 *
 * Threads: any, without dev->lock.
 */
void vmgenid_get(struct device *dev, uint8_t ret_id[VMGENID_LEN]);

#endif
