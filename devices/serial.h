/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A serial port.
 *
 * Machine interface:
 *  + ports: window 0, 8 bytes (0x3f8)
 *  + irq: serial_config.irq
 *  + config: struct serial_config
 *  + state section: "serial", version 1
 *  + counters: "in", "out", "dropped"
 *
 * The host's side is a char port (devices/char_port.h): what the other end of
 * the line may do to it, and what happens to output that nobody takes, is said
 * there.
 */
#ifndef DEVICES_SERIAL_H
#define DEVICES_SERIAL_H

#include "devices/char_port.h"

struct serial_config {
    unsigned irq;                 /* IOAPIC pin */
    struct char_port_config port; /* handles; taken on success */
};

extern const struct device_ops serial_ops;

#endif
