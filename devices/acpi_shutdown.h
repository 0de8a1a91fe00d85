/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The register behind ACPI's RESET_REG and SLEEP_CONTROL_REG.
 *
 * Machine interface:
 *  + ports: window 0, 1 byte (0x600)
 *  + irq: none
 *  + config: none
 *  + stateless
 */
#ifndef DEVICES_ACPI_SHUTDOWN_H
#define DEVICES_ACPI_SHUTDOWN_H

#include "core/device.h"

extern const struct device_ops acpi_shutdown_ops;

#endif
