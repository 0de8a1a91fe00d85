/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every type of device that there is.
 *
 * The board takes what it needs by name; this list is for those who must see
 * all of them: the tests that hold for every device, and documentation.
 */
#ifndef DEVICES_REGISTRY_H
#define DEVICES_REGISTRY_H

#include "core/device.h"

/* In the order of docs/platform.md: ports, memory-mapped, PCI. */
extern const struct device_ops *const device_registry[];
extern const size_t device_registry_len;

/**
 * device_registry_find() - the device of a type.
 * @type: e.g. "virtio-blk"; also the type of its state section.
 *
 * Return: static; NULL if there is none.
 * Threads: any.
 */
const struct device_ops *device_registry_find(const char *type);

#endif
