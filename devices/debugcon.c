/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug console.
 *
 * Source: Bochs' port_e9_hack, which QEMU and others follow: a read answers
 * 0xe9, by which a guest knows that the port is there.
 */
#include "devices/debugcon.h"

#include "core/state.h"
#include "devices/char_port.h"

/* --- Registers ----------------------------------------------------------- */

enum {
    DEBUGCON_PRESENT = 0xe9,
};

struct debugcon {
    struct device dev;

    /* Exactly what debugcon_fields describes: output that the host has not taken. */
    struct char_port port;

    /* Host state. */
    uint64_t bytes;
};

static struct debugcon *to_con(struct device *dev)
{
    return container_of(dev, struct debugcon, dev);
}

/* --- Life cycle ---------------------------------------------------------- */

static int debugcon_realize(struct device *dev, const void *cfg, struct err *err)
{
    const struct debugcon_config *conf = cfg;
    struct char_port_config port = CHAR_PORT_NONE;

    port.out_fd = conf->out_fd;
    return char_port_init(&to_con(dev)->port, dev, &port, NULL, err);
}

static void debugcon_destroy(struct device *dev)
{
    char_port_release(&to_con(dev)->port);
}

/* What was said before a reset was said. */
static void debugcon_reset(struct device *dev)
{
    (void)dev;
}

static int debugcon_quiesce(struct device *dev, uint64_t deadline_ns, struct err *err)
{
    (void)deadline_ns;
    (void)err;
    char_port_stop(&to_con(dev)->port);
    return 0;
}

static void debugcon_resume(struct device *dev)
{
    char_port_start(&to_con(dev)->port);
}

/* --- Guest access -------------------------------------------------------- */

static uint64_t debugcon_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    (void)dev;
    (void)win;
    (void)off;
    (void)size;
    return DEBUGCON_PRESENT;
}

static void debugcon_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                           uint64_t val)
{
    struct debugcon *d = to_con(dev);
    uint8_t byte = (uint8_t)val;

    (void)win;
    (void)off;
    (void)size;
    d->bytes++;
    char_port_write(&d->port, &byte, 1);
}

static unsigned debugcon_counters(struct device *dev, struct device_counter *out, unsigned cap)
{
    const struct debugcon *d = to_con(dev);

    if (cap < 2)
        return 0;
    out[0] = (struct device_counter){.name = "bytes", .value = d->bytes};
    out[1] = (struct device_counter){.name = "dropped", .value = d->port.dropped};
    return 2;
}

/* --- State --------------------------------------------------------------- */

static const struct state_field debugcon_fields[] = {
    /* clang-format off */
    STATE_STRUCT(struct debugcon, 1, &char_port_state, port),
    /* clang-format on */
};

static const struct state_desc debugcon_state = {
    .name = "debugcon",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct debugcon),
    .fields = debugcon_fields,
    .nr_fields = ARRAY_LEN(debugcon_fields),
};

const struct device_ops debugcon_ops = {
    .type = "debugcon",
    .size = sizeof(struct debugcon),
    .realize = debugcon_realize,
    .destroy = debugcon_destroy,
    .reset = debugcon_reset,
    .quiesce = debugcon_quiesce,
    .resume = debugcon_resume,
    .read = debugcon_read,
    .write = debugcon_write,
    .state = &debugcon_state,
    .counters = debugcon_counters,
};
