/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real-time clock and battery-backed RAM of the PC/AT.
 *
 * Source: Motorola MC146818A data sheet (1984), "Address map" and "Registers";
 * sizes of memory and the century: the PC/AT convention, docs/platform.md.
 *
 * The clock is the host's wall clock (UTC) plus whole seconds that the guest
 * chose by setting it; only the difference is state.  While SET stops the
 * clock the time lies in the RAM bytes, as the data sheet has it.
 *
 * Deviations: no interrupts, so register C reads 0, alarms do nothing and the
 * enable bits of register B are only kept; an update takes effect at once at
 * the full second.  Writing 0 while the index is exactly 0x8f asks for a
 * reset, which firmware for this machine does.
 */
#include "devices/cmos.h"

#include <assert.h>
#include <errno.h>

#include "core/civil.h"
#include "core/state.h"

/* --- Registers ----------------------------------------------------------- */

enum {
    CMOS_OFF_INDEX = 0,
    CMOS_OFF_DATA = 1,

    CMOS_SIZE = 128,
    CMOS_INDEX_MASK = 0x7f, /* bit 7 gates the NMI; we have none, and keep it */
    CMOS_INDEX_RESET = 0x8f,

    CMOS_SECONDS = 0x00,
    CMOS_MINUTES = 0x02,
    CMOS_HOURS = 0x04,
    CMOS_WEEKDAY = 0x06, /* 1 is Sunday */
    CMOS_DAY = 0x07,
    CMOS_MONTH = 0x08,
    CMOS_YEAR = 0x09,
    CMOS_REG_A = 0x0a,
    CMOS_REG_B = 0x0b,
    CMOS_REG_C = 0x0c,
    CMOS_REG_D = 0x0d,
    CMOS_BASE_MEM = 0x15,  /* two bytes each, low byte first: KiB below 640 KiB */
    CMOS_EXT_MEM = 0x17,   /* KiB above 1 MiB, below 64 MiB */
    CMOS_EXT_MEM_2 = 0x30, /* the same again */
    CMOS_CENTURY = 0x32,
    CMOS_MEM_16M = 0x34, /* 64 KiB units above 16 MiB, below 4 GiB */
    CMOS_MEM_4G = 0x5b,  /* three bytes: 64 KiB units above 4 GiB */

    CMOS_A_UIP = 1 << 7,
    CMOS_A_DEFAULT = 0x26, /* 32.768 kHz divider, 1024 Hz rate */
    CMOS_B_24H = 1 << 1,
    CMOS_B_BINARY = 1 << 2,
    CMOS_B_ENABLES = 7 << 4, /* PIE, AIE, UIE: cleared by reset */
    CMOS_B_SET = 1 << 7,
    CMOS_D_VRT = 1 << 7, /* RAM and time valid */
    CMOS_HOUR_PM = 1 << 7,

    CMOS_NS_PER_S = 1000000000,
    CMOS_UIP_NS = 244000, /* data sheet, "Update cycle": t(BUC) of 244 us before the update */
    CMOS_BASE_KIB = 640,
};

/* Farther than any two dates that the registers can hold lie apart. */
#define CMOS_OFFSET_MAX_S INT64_C(1000000000000)

struct cmos {
    struct device dev;

    /* Guest-visible state: exactly what cmos_fields describes. */
    uint8_t index;
    uint8_t ram[CMOS_SIZE];
    int64_t offset_s; /* what the clock shows, less the wall clock */
};

static struct cmos *to_cmos(struct device *dev)
{
    assert(dev->ops == &cmos_ops);
    return container_of(dev, struct cmos, dev);
}

/* --- Time ---------------------------------------------------------------- */

static int64_t wall_s(const struct cmos *c, int64_t *ret_ns)
{
    int64_t ns = c->dev.env->ops->wall_ns(c->dev.env->arg);
    int64_t s = (ns >= 0 ? ns : ns - (CMOS_NS_PER_S - 1)) / CMOS_NS_PER_S;

    *ret_ns = ns - s * CMOS_NS_PER_S;
    return s;
}

/* Between what a time register holds and a number: binary or BCD. */
static unsigned decode(const struct cmos *c, unsigned reg)
{
    return c->ram[CMOS_REG_B] & CMOS_B_BINARY ? reg : (reg >> 4) * 10 + (reg & 15);
}

static uint8_t encode(const struct cmos *c, unsigned val)
{
    return (uint8_t)(c->ram[CMOS_REG_B] & CMOS_B_BINARY ? val : val / 10 << 4 | val % 10);
}

static unsigned decode_hour(const struct cmos *c, unsigned reg)
{
    unsigned hour;

    if (c->ram[CMOS_REG_B] & CMOS_B_24H)
        return decode(c, reg);
    hour = decode(c, reg & ~(unsigned)CMOS_HOUR_PM) % 12;
    return reg & CMOS_HOUR_PM ? hour + 12 : hour;
}

static uint8_t encode_hour(const struct cmos *c, unsigned hour)
{
    uint8_t reg;

    if (c->ram[CMOS_REG_B] & CMOS_B_24H)
        return encode(c, hour);
    reg = encode(c, hour % 12 ? hour % 12 : 12);
    return hour >= 12 ? reg | CMOS_HOUR_PM : reg;
}

/* Put the running time into the bytes that hold it. */
static void latch_time(struct cmos *c)
{
    int64_t ns, s = wall_s(c, &ns) + c->offset_s;
    struct civil_time t = civil_time(s);
    /* Two digits each: the years 0 to 9999 are all that the bytes can show. */
    unsigned year = (unsigned)(((t.year % 10000) + 10000) % 10000);

    c->ram[CMOS_SECONDS] = encode(c, t.second);
    c->ram[CMOS_MINUTES] = encode(c, t.minute);
    c->ram[CMOS_HOURS] = encode_hour(c, t.hour);
    c->ram[CMOS_WEEKDAY] = encode(c, civil_weekday(s));
    c->ram[CMOS_DAY] = encode(c, t.day);
    c->ram[CMOS_MONTH] = encode(c, t.month);
    c->ram[CMOS_YEAR] = encode(c, year % 100);
    c->ram[CMOS_CENTURY] = encode(c, year / 100);
}

/* Let the clock run from the time in the bytes; digits that are none are taken as they add up. */
static void set_time(struct cmos *c)
{
    unsigned month = decode(c, c->ram[CMOS_MONTH]);
    int64_t year = (int64_t)decode(c, c->ram[CMOS_CENTURY]) * 100 + decode(c, c->ram[CMOS_YEAR]);
    int64_t days, minutes, ns;

    if (month < 1 || month > 12)
        month = 1;
    days = civil_days(year, month, decode(c, c->ram[CMOS_DAY]));
    minutes = INT64_C(60) * decode_hour(c, c->ram[CMOS_HOURS]) + decode(c, c->ram[CMOS_MINUTES]);
    c->offset_s = days * 86400 + minutes * 60 + decode(c, c->ram[CMOS_SECONDS]) - wall_s(c, &ns);
}

static bool is_stopped(const struct cmos *c)
{
    return c->ram[CMOS_REG_B] & CMOS_B_SET;
}

static bool is_time(unsigned reg)
{
    return reg == CMOS_SECONDS || reg == CMOS_MINUTES || reg == CMOS_HOURS ||
           (reg >= CMOS_WEEKDAY && reg <= CMOS_YEAR) || reg == CMOS_CENTURY;
}

/* --- Life cycle ---------------------------------------------------------- */

static void put_le(struct cmos *c, unsigned reg, unsigned bytes, uint64_t val)
{
    for (unsigned i = 0; i < bytes; i++)
        c->ram[reg + i] = (uint8_t)(val >> 8 * i);
}

static uint64_t above(uint64_t ram, uint64_t base)
{
    return ram > base ? ram - base : 0;
}

static uint64_t at_most(uint64_t val, uint64_t max)
{
    return val < max ? val : max;
}

static int cmos_realize(struct device *dev, const void *cfg, struct err *err)
{
    const struct cmos_config *conf = cfg;
    struct cmos *c = to_cmos(dev);
    uint64_t ext_kib = at_most(above(conf->ram_below_4g, MIB(1)) >> 10, 63 << 10);

    if (conf->ram_below_4g > GIB(4))
        return err_set(err, -EINVAL, "%s: ram_below_4g %llu is over 4 GiB", dev->id,
                       (unsigned long long)conf->ram_below_4g);
    c->ram[CMOS_REG_A] = CMOS_A_DEFAULT;
    c->ram[CMOS_REG_B] = CMOS_B_24H;
    c->ram[CMOS_REG_D] = CMOS_D_VRT;
    put_le(c, CMOS_BASE_MEM, 2, at_most(conf->ram_below_4g >> 10, CMOS_BASE_KIB));
    put_le(c, CMOS_EXT_MEM, 2, ext_kib);
    put_le(c, CMOS_EXT_MEM_2, 2, ext_kib);
    put_le(c, CMOS_MEM_16M, 2, at_most(above(conf->ram_below_4g, MIB(16)) >> 16, UINT16_MAX));
    put_le(c, CMOS_MEM_4G, 3, at_most(conf->ram_above_4g >> 16, 0xffffff));
    return 0;
}

/* The battery keeps time and RAM.  Data sheet, "RESET": clears PIE, AIE and UIE. */
static void cmos_reset(struct device *dev)
{
    struct cmos *c = to_cmos(dev);

    c->index = 0;
    c->ram[CMOS_REG_B] &= (uint8_t)~CMOS_B_ENABLES;
}

/* --- Guest access -------------------------------------------------------- */

static uint8_t read_reg_a(const struct cmos *c)
{
    int64_t ns;

    (void)wall_s(c, &ns);
    /* Data sheet, register A: SET in register B inhibits updates and clears UIP. */
    if (!is_stopped(c) && ns >= CMOS_NS_PER_S - CMOS_UIP_NS)
        return c->ram[CMOS_REG_A] | CMOS_A_UIP;
    return c->ram[CMOS_REG_A];
}

static uint64_t cmos_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    struct cmos *c = to_cmos(dev);
    unsigned reg = c->index & CMOS_INDEX_MASK;

    (void)win;
    if (size != 1 || off != CMOS_OFF_DATA) {
        device_guest_error(dev, "read of %u at %llu", size, (unsigned long long)off);
        return UINT64_MAX;
    }
    if (reg == CMOS_REG_A)
        return read_reg_a(c);
    if (is_time(reg) && !is_stopped(c))
        latch_time(c);
    return c->ram[reg];
}

static void write_reg_b(struct cmos *c, uint8_t val)
{
    bool was_stopped = is_stopped(c);

    if (!was_stopped)
        latch_time(c);
    c->ram[CMOS_REG_B] = val;
    if (was_stopped && !is_stopped(c))
        set_time(c);
}

static void write_reg(struct cmos *c, unsigned reg, uint8_t val)
{
    bool running = !is_stopped(c);

    switch (reg) {
    case CMOS_REG_A:
        c->ram[reg] = val & (uint8_t)~CMOS_A_UIP;
        return;
    case CMOS_REG_B:
        write_reg_b(c, val);
        return;
    case CMOS_REG_C:
    case CMOS_REG_D:
        return; /* read-only */
    default:
        break;
    }
    if (is_time(reg) && running)
        latch_time(c);
    c->ram[reg] = val;
    if (is_time(reg) && running)
        set_time(c);
}

static void cmos_write(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val)
{
    struct cmos *c = to_cmos(dev);

    (void)win;
    if (size != 1 || off > CMOS_OFF_DATA) {
        device_guest_error(dev, "write of %u at %llu", size, (unsigned long long)off);
        return;
    }
    if (off == CMOS_OFF_INDEX)
        c->index = (uint8_t)val;
    else if (c->index == CMOS_INDEX_RESET && !val)
        dev->env->ops->request(dev->env->arg, MACHINE_RESET);
    else
        write_reg(c, c->index & CMOS_INDEX_MASK, (uint8_t)val);
}

/* --- State --------------------------------------------------------------- */

static const struct state_field cmos_fields[] = {
    /* clang-format off */
    /*                since  kind    member */
    STATE(struct cmos,  1,   U8,     index),
    STATE(struct cmos,  1,   BYTES,  ram),
    STATE(struct cmos,  1,   I64,    offset_s),
    /* clang-format on */
};

static int cmos_check(const void *scratch, const void *live, struct err *err)
{
    const struct cmos *c = scratch;

    (void)live;
    if (c->ram[CMOS_REG_A] & CMOS_A_UIP)
        return err_set(err, -EBADMSG, "ram: register A is 0x%02x", c->ram[CMOS_REG_A]);
    if (c->ram[CMOS_REG_C])
        return err_set(err, -EBADMSG, "ram: register C is 0x%02x", c->ram[CMOS_REG_C]);
    if (c->ram[CMOS_REG_D] != CMOS_D_VRT)
        return err_set(err, -EBADMSG, "ram: register D is 0x%02x", c->ram[CMOS_REG_D]);
    if (c->offset_s > CMOS_OFFSET_MAX_S || c->offset_s < -CMOS_OFFSET_MAX_S)
        return err_set(err, -EBADMSG, "offset_s: %lld", (long long)c->offset_s);
    return 0;
}

static const struct state_desc cmos_state = {
    .name = "cmos",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct cmos),
    .fields = cmos_fields,
    .nr_fields = ARRAY_LEN(cmos_fields),
    .check = cmos_check,
};

const struct device_ops cmos_ops = {
    .type = "cmos",
    .size = sizeof(struct cmos),
    .realize = cmos_realize,
    .reset = cmos_reset,
    .read = cmos_read,
    .write = cmos_write,
    .state = &cmos_state,
};
