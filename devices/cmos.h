/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real-time clock and battery-backed RAM of the PC/AT (MC146818A).
 *
 * Machine interface:
 *  + ports: window 0, 2 bytes (0x70 index, 0x71 data)
 *  + irq: none
 *  + config: struct cmos_config
 *  + state section: "cmos", version 1
 */
#ifndef DEVICES_CMOS_H
#define DEVICES_CMOS_H

#include "core/device.h"

struct cmos_config {
    uint64_t ram_below_4g; /* bytes from address 0 */
    uint64_t ram_above_4g; /* bytes from 4 GiB */
};

extern const struct device_ops cmos_ops;

#endif
