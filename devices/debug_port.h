/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The diagnostic port of the PC/AT: firmware writes how far it has come.
 *
 * Machine interface:
 *  + ports: window 0, 1 byte (0x80)
 *  + irq: none
 *  + config: none
 *  + state section: "debug-port", version 1
 *  + counters: "writes"
 */
#ifndef DEVICES_DEBUG_PORT_H
#define DEVICES_DEBUG_PORT_H

#include "core/device.h"

extern const struct device_ops debug_port_ops;

#endif
