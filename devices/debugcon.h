/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug console: a port whose bytes go to a file, and which reads as itself.
 * Firmware writes to 0x402, kernels and boot loaders to 0xe9.
 *
 * Machine interface:
 *  + ports: window 0, 1 byte (0xe9 or 0x402)
 *  + irq: none
 *  + config: struct debugcon_config
 *  + state section: "debugcon", version 1
 *  + counters: "bytes", "dropped"
 */
#ifndef DEVICES_DEBUGCON_H
#define DEVICES_DEBUGCON_H

#include "core/device.h"

struct debugcon_config {
    int out_fd; /* taken on success; -1: the bytes are thrown away */
};

extern const struct device_ops debugcon_ops;

#endif
