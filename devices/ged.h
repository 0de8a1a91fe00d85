/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI generic event device: one byte that says what happened, one interrupt.
 *
 * Machine interface:
 *  + MMIO: window 0, 1 byte; reading it takes all pending bits
 *  + irq: ged_config.irq, high while a bit is pending
 *  + config: struct ged_config
 *  + state section: "ged", version 1
 */
#ifndef DEVICES_GED_H
#define DEVICES_GED_H

#include "core/device.h"

struct ged_config {
    unsigned irq; /* IOAPIC pin */
};

extern const struct device_ops ged_ops;

/**
 * ged_raise() - events have happened: tell the guest.
 * @dev:  a ged.
 * @bits: what the guest's _EVT method tests, e.g. X86_GED_POWER_BUTTON.
 *
 * Bits that the guest has not yet taken stay pending.
 * Threads: any, without dev->lock.
 */
void ged_raise(struct device *dev, uint8_t bits);

#endif
