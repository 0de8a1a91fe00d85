/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC in user space: 24 pins that become interrupt messages.
 *
 * Machine interface:
 *  + MMIO: window 0, 32 bytes (0xfec00000)
 *  + irq: raises none on lines; sends messages
 *  + config: struct ioapic_config
 *  + state section: "ioapic", version 1
 *  + counters: "messages"
 */
#ifndef DEVICES_IOAPIC_H
#define DEVICES_IOAPIC_H

#include "core/device.h"

enum {
    IOAPIC_PINS = 24,
};

/* What a pin sends. */
struct ioapic_route {
    bool masked;
    uint64_t addr;
    uint32_t data;
};

struct ioapic_config {
    /*
     * A redirection entry has changed, so that whoever sends for the pin
     * (KVM's routes, which also choose the EOIs it reports) can follow.
     * Called with the device locked; also for every pin in reset and resume.
     * May be NULL.
     */
    void (*route)(void *arg, unsigned pin, const struct ioapic_route *route);
    void *arg;
};

extern const struct device_ops ioapic_ops;

/**
 * ioapic_set_line() - level of an input pin.
 * @dev: an ioapic.
 * @pin: below IOAPIC_PINS; others are ignored.
 *
 * Threads: any, without dev->lock.  Takes no lock but that.
 */
void ioapic_set_line(struct device *dev, unsigned pin, bool level);

/**
 * ioapic_eoi() - a local APIC has finished with a vector.
 * @dev: an ioapic.
 *
 * Level-triggered pins with that vector may interrupt again, and do so at once
 * while their line is high.
 * Threads: any, without dev->lock.
 */
void ioapic_eoi(struct device *dev, uint8_t vector);

#endif
