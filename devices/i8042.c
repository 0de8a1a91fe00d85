/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left of the 8042 keyboard controller.
 *
 * Source: Intel UPI-41/8042 in the IBM PC/AT Technical Reference (1984):
 * commands 0xf0 to 0xff pulse bits of the output port whose bit 0, when low,
 * resets the CPU; port 0x61 bit 5 is the output of timer 2.
 *
 * Deviations: there is no timer 2, its output reads high, so that a loop that
 * waits for it ends at once.  The status register reads 0: no data, and the
 * controller takes commands.
 */
#include "devices/i8042.h"

/* --- Registers ----------------------------------------------------------- */

enum {
    I8042_OFF_PORT_B = 0,  /* 0x61 */
    I8042_OFF_COMMAND = 3, /* 0x64: status when read */

    I8042_PORT_B_TIMER2 = 1 << 5,

    I8042_CMD_PULSE = 0xf0, /* the low four bits say which lines stay high */
    I8042_CMD_PULSE_RESET = 1 << 0,
};

struct i8042 {
    struct device dev;
};

/* --- Life cycle ---------------------------------------------------------- */

static int i8042_realize(struct device *dev, const void *cfg, struct err *err)
{
    (void)dev;
    (void)cfg;
    (void)err;
    return 0;
}

static void i8042_reset(struct device *dev)
{
    (void)dev;
}

/* --- Guest access -------------------------------------------------------- */

static uint64_t i8042_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    (void)dev;
    (void)win;
    (void)size;
    return off == I8042_OFF_PORT_B ? I8042_PORT_B_TIMER2 : 0;
}

static void i8042_write(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val)
{
    uint8_t cmd = (uint8_t)val;

    (void)win;
    if (off != I8042_OFF_COMMAND || size != 1)
        return;
    if ((cmd & 0xf0) == I8042_CMD_PULSE && !(cmd & I8042_CMD_PULSE_RESET))
        dev->env->ops->request(dev->env->arg, MACHINE_RESET);
}

const struct device_ops i8042_ops = {
    .type = "i8042",
    .size = sizeof(struct i8042),
    .realize = i8042_realize,
    .reset = i8042_reset,
    .read = i8042_read,
    .write = i8042_write,
    .stateless = "every register reads as a constant, and a write acts at once or not at all",
};
