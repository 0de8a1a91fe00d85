/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The diagnostic port of the PC/AT.
 *
 * Source: IBM PC/AT Technical Reference (1984), "manufacturing port" 0x80; on
 * the chip sets since, a spare DMA page register that reads back what was
 * written.
 */
#include "devices/debug_port.h"

#include "core/state.h"

/* --- Registers ----------------------------------------------------------- */

struct debug_port {
    struct device dev;

    /* Guest-visible state: exactly what debug_port_fields describes. */
    uint8_t code;

    /* Host state. */
    uint64_t writes;
};

static struct debug_port *to_port(struct device *dev)
{
    return container_of(dev, struct debug_port, dev);
}

/* --- Life cycle ---------------------------------------------------------- */

static int debug_port_realize(struct device *dev, const void *cfg, struct err *err)
{
    (void)dev;
    (void)cfg;
    (void)err;
    return 0;
}

static void debug_port_reset(struct device *dev)
{
    to_port(dev)->code = 0;
}

/* --- Guest access -------------------------------------------------------- */

static uint64_t debug_port_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    (void)win;
    (void)off;
    (void)size;
    return to_port(dev)->code;
}

static void debug_port_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                             uint64_t val)
{
    struct debug_port *p = to_port(dev);

    (void)win;
    (void)off;
    (void)size;
    p->code = (uint8_t)val;
    p->writes++;
}

static unsigned debug_port_counters(struct device *dev, struct device_counter *out, unsigned cap)
{
    if (!cap)
        return 0;
    out[0] = (struct device_counter){.name = "writes", .value = to_port(dev)->writes};
    return 1;
}

/* --- State --------------------------------------------------------------- */

static const struct state_field debug_port_fields[] = {
    /* clang-format off */
    /*                      since  kind  member */
    STATE(struct debug_port,  1,   U8,   code),
    /* clang-format on */
};

static const struct state_desc debug_port_state = {
    .name = "debug-port",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct debug_port),
    .fields = debug_port_fields,
    .nr_fields = ARRAY_LEN(debug_port_fields),
};

const struct device_ops debug_port_ops = {
    .type = "debug-port",
    .size = sizeof(struct debug_port),
    .realize = debug_port_realize,
    .reset = debug_port_reset,
    .read = debug_port_read,
    .write = debug_port_write,
    .state = &debug_port_state,
    .counters = debug_port_counters,
};
