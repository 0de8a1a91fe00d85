/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The register behind ACPI's RESET_REG and SLEEP_CONTROL_REG.
 *
 * Source: ACPI 6.5, 4.8.3.6 "Reset Register", 4.8.3.7 "Sleep Control and
 * Status Registers"; the two values that the FADT and \_S5 of this machine
 * announce.
 *
 * It reads 0: as a sleep status register it never says that the machine woke,
 * because S5 is the only sleep there is.
 */
#include "devices/acpi_shutdown.h"

/* --- Registers ----------------------------------------------------------- */

enum {
    ACPI_RESET_VALUE = 1,                          /* FADT RESET_VALUE */
    ACPI_SLP_TYP_S5 = 5,                           /* \_S5 */
    ACPI_SLEEP_S5 = ACPI_SLP_TYP_S5 << 2 | 1 << 5, /* SLP_TYPx, SLP_EN */
};

struct acpi_shutdown {
    struct device dev;
};

/* --- Life cycle ---------------------------------------------------------- */

static int acpi_shutdown_realize(struct device *dev, const void *cfg, struct err *err)
{
    (void)dev;
    (void)cfg;
    (void)err;
    return 0;
}

static void acpi_shutdown_reset(struct device *dev)
{
    (void)dev;
}

/* --- Guest access -------------------------------------------------------- */

static uint64_t acpi_shutdown_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    (void)dev;
    (void)win;
    (void)off;
    (void)size;
    return 0;
}

static void acpi_shutdown_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                                uint64_t val)
{
    (void)win;
    (void)off;
    (void)size;
    if (val == ACPI_RESET_VALUE)
        dev->env->ops->request(dev->env->arg, MACHINE_RESET);
    else if (val == ACPI_SLEEP_S5)
        dev->env->ops->request(dev->env->arg, MACHINE_SHUTDOWN);
    else
        device_guest_error(dev, "0x%llx is neither reset nor S5", (unsigned long long)val);
}

const struct device_ops acpi_shutdown_ops = {
    .type = "acpi-shutdown",
    .size = sizeof(struct acpi_shutdown),
    .realize = acpi_shutdown_realize,
    .reset = acpi_shutdown_reset,
    .read = acpi_shutdown_read,
    .write = acpi_shutdown_write,
    .stateless = "it remembers nothing: what is written acts at once",
};
