/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI generic event device.
 *
 * Source: ACPI 6.5, 5.6.9 "Interrupt-signaled ACPI events".  The byte that the
 * _EVT method reads is this machine's own, as the DSDT declares it.
 *
 * The line is high while a bit is pending.  Every event makes a new edge, also
 * while the line is high: a guest with the pin as an edge that was masked at
 * the first event hears of both with the second.
 */
#include "devices/ged.h"

#include <assert.h>
#include <errno.h>

#include "core/state.h"

/* --- Registers ----------------------------------------------------------- */

struct ged {
    struct device dev;
    unsigned irq;

    /* Guest-visible state: exactly what ged_fields describes. */
    uint8_t pending;
};

static struct ged *to_ged(struct device *dev)
{
    assert(dev->ops == &ged_ops);
    return container_of(dev, struct ged, dev);
}

static void ged_set_line(struct ged *g, bool level)
{
    const struct dev_env *env = g->dev.env;

    env->ops->irq_set(env->arg, g->irq, level);
}

/* --- Life cycle ---------------------------------------------------------- */

static int ged_realize(struct device *dev, const void *cfg, struct err *err)
{
    const struct ged_config *conf = cfg;

    (void)err;
    to_ged(dev)->irq = conf->irq;
    return 0;
}

static void ged_reset(struct device *dev)
{
    struct ged *g = to_ged(dev);

    g->pending = 0;
    ged_set_line(g, false);
}

static void ged_resume(struct device *dev)
{
    struct ged *g = to_ged(dev);

    ged_set_line(g, g->pending != 0);
}

void ged_raise(struct device *dev, uint8_t bits)
{
    struct ged *g = to_ged(dev);

    if (!bits)
        return;
    device_lock(dev);
    if (g->pending)
        ged_set_line(g, false);
    g->pending |= bits;
    ged_set_line(g, true);
    device_unlock(dev);
}

/* --- Guest access -------------------------------------------------------- */

static uint64_t ged_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    struct ged *g = to_ged(dev);
    uint8_t bits = g->pending;

    (void)win;
    (void)off;
    (void)size;
    g->pending = 0;
    ged_set_line(g, false);
    return bits;
}

static void ged_write(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val)
{
    (void)win;
    (void)off;
    (void)size;
    device_guest_error(dev, "write of 0x%llx: the register is read-only", (unsigned long long)val);
}

/* --- State --------------------------------------------------------------- */

static const struct state_field ged_fields[] = {
    /* clang-format off */
    /*               since  kind  member */
    STATE(struct ged,  1,   U8,   pending),
    /* clang-format on */
};

static const struct state_desc ged_state = {
    .name = "ged",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct ged),
    .fields = ged_fields,
    .nr_fields = ARRAY_LEN(ged_fields),
};

const struct device_ops ged_ops = {
    .type = "ged",
    .size = sizeof(struct ged),
    .realize = ged_realize,
    .reset = ged_reset,
    .resume = ged_resume,
    .read = ged_read,
    .write = ged_write,
    .state = &ged_state,
};
