/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left of the 8042 keyboard controller: the pulse that resets the CPU,
 * and the system control port beside it.  No keyboard.
 *
 * Machine interface:
 *  + ports: window 0, 4 bytes (0x61 to 0x64)
 *  + irq: none
 *  + config: none
 *  + stateless
 */
#ifndef DEVICES_I8042_H
#define DEVICES_I8042_H

#include "core/device.h"

extern const struct device_ops i8042_ops;

#endif
