/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI power-management timer.
 *
 * Source: ACPI 6.5, 4.8.2.1 "Power Management Timer".
 *
 * The counter is a function of guest time, which stands still while the VM is
 * paused and goes on where it was in another process; all that there is to
 * save is when it read zero.
 */
#include "devices/acpi_pm_timer.h"

#include <errno.h>

#include "core/state.h"

/* --- Registers ----------------------------------------------------------- */

enum {
    PM_TIMER_HZ = 3579545, /* ACPI 6.5, 4.8.2.1: "a fixed 3.579545 MHz clock" */
    PM_TIMER_NS_PER_S = 1000000000,
};

struct acpi_pm_timer {
    struct device dev;

    /* Guest-visible state: exactly what pm_timer_fields describes. */
    uint64_t zero_ns; /* guest time at which the counter read zero */
};

static struct acpi_pm_timer *to_timer(struct device *dev)
{
    return container_of(dev, struct acpi_pm_timer, dev);
}

static uint64_t now_ns(const struct device *dev)
{
    return dev->env->ops->now_ns(dev->env->arg);
}

/* --- Life cycle ---------------------------------------------------------- */

static int pm_timer_realize(struct device *dev, const void *cfg, struct err *err)
{
    (void)dev;
    (void)cfg;
    (void)err;
    return 0;
}

static void pm_timer_reset(struct device *dev)
{
    to_timer(dev)->zero_ns = now_ns(dev);
}

/* --- Guest access -------------------------------------------------------- */

/* Whole seconds apart, so that the product fits at any age. */
static uint32_t ticks_after(uint64_t ns)
{
    uint64_t s = ns / PM_TIMER_NS_PER_S, rest = ns % PM_TIMER_NS_PER_S;

    return (uint32_t)(s * PM_TIMER_HZ + rest * PM_TIMER_HZ / PM_TIMER_NS_PER_S);
}

static uint64_t pm_timer_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    (void)win;
    (void)size;
    return off < 4 ? ticks_after(now_ns(dev) - to_timer(dev)->zero_ns) >> 8 * off : 0;
}

static void pm_timer_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                           uint64_t val)
{
    (void)win;
    (void)val;
    device_guest_error(dev, "write of %u at %llu: the counter is read-only", size,
                       (unsigned long long)off);
}

/* --- State --------------------------------------------------------------- */

static const struct state_field pm_timer_fields[] = {
    /* clang-format off */
    /*                         since  kind  member */
    STATE(struct acpi_pm_timer,  1,   U64,  zero_ns),
    /* clang-format on */
};

static const struct state_desc pm_timer_state = {
    .name = "acpi-pm-timer",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct acpi_pm_timer),
    .fields = pm_timer_fields,
    .nr_fields = ARRAY_LEN(pm_timer_fields),
};

const struct device_ops acpi_pm_timer_ops = {
    .type = "acpi-pm-timer",
    .size = sizeof(struct acpi_pm_timer),
    .realize = pm_timer_realize,
    .reset = pm_timer_reset,
    .read = pm_timer_read,
    .write = pm_timer_write,
    .state = &pm_timer_state,
};
