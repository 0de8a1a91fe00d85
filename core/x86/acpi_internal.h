/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_X86_ACPI_INTERNAL_H
#define CORE_X86_ACPI_INTERNAL_H

#include "core/x86/acpi.h"
#include "core/x86/aml.h"

/**
 * acpi_dsdt_write() - the definition block: devices, methods, sleep states.
 *
 * Threads: any.
 */
void acpi_dsdt_write(struct aml *a, const struct acpi_config *cfg);

#endif
