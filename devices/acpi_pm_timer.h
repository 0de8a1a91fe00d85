/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI power-management timer: a 32-bit counter at 3.579545 MHz.
 *
 * Machine interface:
 *  + ports: window 0, 4 bytes (0x608)
 *  + irq: none: the carry is not signalled (hardware-reduced ACPI has no SCI)
 *  + config: none
 *  + state section: "acpi-pm-timer", version 1
 */
#ifndef DEVICES_ACPI_PM_TIMER_H
#define DEVICES_ACPI_PM_TIMER_H

#include "core/device.h"

extern const struct device_ops acpi_pm_timer_ops;

#endif
