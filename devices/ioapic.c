/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC.
 *
 * Source: Intel 82093AA data sheet (1996), sections 3.0 to 3.2; interrupt
 * messages: Intel SDM volume 3, "Message Signalled Interrupts".
 *
 * Deviations: messages go out at once, so the delivery status reads idle;
 * lines are logical, so the polarity bit is kept and has no effect; bits 55:49
 * of an entry are the upper bits of the destination where the guest uses
 * extended destination ids, and go into bits 11:5 of the address.  There is no
 * EOI register, as the version says: EOIs come from the local APICs.
 */
#include "devices/ioapic.h"

#include <assert.h>
#include <errno.h>

#include "core/state.h"

/* --- Registers ----------------------------------------------------------- */

enum {
    IOAPIC_OFF_SELECT = 0x00,
    IOAPIC_OFF_WINDOW = 0x10,

    IOAPIC_REG_ID = 0x00,
    IOAPIC_REG_VERSION = 0x01,
    IOAPIC_REG_ARBITRATION = 0x02,
    IOAPIC_REG_ENTRIES = 0x10, /* two registers each, the low half first */

    IOAPIC_ID_SHIFT = 24,
    IOAPIC_ID_MASK = 0x0f,
    IOAPIC_VERSION = 0x11 | (IOAPIC_PINS - 1) << 16,

    IOAPIC_MODE_FIXED = 0,
    IOAPIC_MODE_LOWEST = 1,
    IOAPIC_MODE_EXTINT = 7,

    MSI_DATA_ASSERT = 1 << 14,
    MSI_DATA_LEVEL = 1 << 15,
    MSI_ADDR_LOGICAL = 1 << 2,
};

#define IOAPIC_ENTRY_VECTOR     UINT64_C(0xff)
#define IOAPIC_ENTRY_MODE       (UINT64_C(7) << 8)
#define IOAPIC_ENTRY_LOGICAL    (UINT64_C(1) << 11)
#define IOAPIC_ENTRY_REMOTE_IRR (UINT64_C(1) << 14) /* read-only */
#define IOAPIC_ENTRY_LEVEL      (UINT64_C(1) << 15)
#define IOAPIC_ENTRY_MASKED     (UINT64_C(1) << 16)
#define IOAPIC_ENTRY_EXT_DEST   (UINT64_C(0x7f) << 49)
#define IOAPIC_ENTRY_DEST       (UINT64_C(0xff) << 56)
/* Vector to destination mode, polarity, trigger mode, mask; destination. */
#define IOAPIC_ENTRY_WRITABLE (UINT64_C(0x1afff) | IOAPIC_ENTRY_EXT_DEST | IOAPIC_ENTRY_DEST)
#define MSI_ADDR_BASE         UINT64_C(0xfee00000)

struct ioapic {
    struct device dev;
    struct ioapic_config conf;

    /* Guest-visible state: exactly what ioapic_fields describes. */
    uint8_t id;
    uint8_t select;
    uint32_t lines; /* bit n: pin n is high */
    uint64_t entries[IOAPIC_PINS];

    /* Host state. */
    uint64_t messages;
};

static struct ioapic *to_ioapic(struct device *dev)
{
    assert(dev->ops == &ioapic_ops);
    return container_of(dev, struct ioapic, dev);
}

/* --- Delivery ------------------------------------------------------------ */

static struct ioapic_route route_of(uint64_t entry)
{
    struct ioapic_route r = {
        .masked = entry & IOAPIC_ENTRY_MASKED,
        .addr = MSI_ADDR_BASE | (entry & IOAPIC_ENTRY_DEST) >> 56 << 12 |
                (entry & IOAPIC_ENTRY_EXT_DEST) >> 49 << 5,
        .data = (uint32_t)(entry & (IOAPIC_ENTRY_VECTOR | IOAPIC_ENTRY_MODE)),
    };

    if (entry & IOAPIC_ENTRY_LOGICAL)
        r.addr |= MSI_ADDR_LOGICAL;
    if (entry & IOAPIC_ENTRY_LEVEL)
        r.data |= MSI_DATA_LEVEL | MSI_DATA_ASSERT;
    return r;
}

static void tell_route(struct ioapic *io, unsigned pin)
{
    struct ioapic_route r = route_of(io->entries[pin]);

    if (io->conf.route)
        io->conf.route(io->conf.arg, pin, &r);
}

static bool is_high(const struct ioapic *io, unsigned pin)
{
    return io->lines >> pin & 1;
}

static void deliver(struct ioapic *io, unsigned pin)
{
    struct ioapic_route r = route_of(io->entries[pin]);
    unsigned mode = (unsigned)(io->entries[pin] & IOAPIC_ENTRY_MODE) >> 8;

    /* There is no 8259A whose vector could be asked for. */
    if (mode == IOAPIC_MODE_EXTINT)
        return;
    /* 82093AA 3.2.4: remote IRR is "set to 1 when local APIC(s) accept the level interrupt". */
    if (io->entries[pin] & IOAPIC_ENTRY_LEVEL)
        io->entries[pin] |= IOAPIC_ENTRY_REMOTE_IRR;
    io->messages++;
    io->dev.env->ops->msi_send(io->dev.env->arg, r.addr, r.data);
}

/* A level-triggered pin interrupts while it is high, once for each EOI. */
static void deliver_level(struct ioapic *io, unsigned pin)
{
    uint64_t entry = io->entries[pin];

    if (!(entry & IOAPIC_ENTRY_LEVEL) || entry & (IOAPIC_ENTRY_MASKED | IOAPIC_ENTRY_REMOTE_IRR))
        return;
    if (is_high(io, pin))
        deliver(io, pin);
}

static void set_line(struct ioapic *io, unsigned pin, bool level)
{
    bool rising = level && !is_high(io, pin);

    if (level)
        io->lines |= UINT32_C(1) << pin;
    else
        io->lines &= ~(UINT32_C(1) << pin);
    if (io->entries[pin] & IOAPIC_ENTRY_LEVEL)
        deliver_level(io, pin);
    else if (rising && !(io->entries[pin] & IOAPIC_ENTRY_MASKED))
        /* 82093AA 3.2.4: edges "signaled on a masked interrupt pin are ignored" */
        deliver(io, pin);
}

void ioapic_set_line(struct device *dev, unsigned pin, bool level)
{
    if (pin >= IOAPIC_PINS)
        return;
    device_lock(dev);
    set_line(to_ioapic(dev), pin, level);
    device_unlock(dev);
}

void ioapic_eoi(struct device *dev, uint8_t vector)
{
    struct ioapic *io = to_ioapic(dev);

    device_lock(dev);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (!(io->entries[pin] & IOAPIC_ENTRY_REMOTE_IRR) ||
            (io->entries[pin] & IOAPIC_ENTRY_VECTOR) != vector)
            continue;
        io->entries[pin] &= ~IOAPIC_ENTRY_REMOTE_IRR;
        deliver_level(io, pin);
    }
    device_unlock(dev);
}

/* --- Life cycle ---------------------------------------------------------- */

static int ioapic_realize(struct device *dev, const void *cfg, struct err *err)
{
    const struct ioapic_config *conf = cfg;

    (void)err;
    to_ioapic(dev)->conf = *conf;
    return 0;
}

static void ioapic_resume(struct device *dev)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        tell_route(to_ioapic(dev), pin);
}

/* The lines belong to the devices, which lower or keep them in their own reset. */
static void ioapic_reset(struct device *dev)
{
    struct ioapic *io = to_ioapic(dev);

    io->id = 0;
    io->select = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->entries[pin] = IOAPIC_ENTRY_MASKED;
    ioapic_resume(dev);
}

/* --- Guest access -------------------------------------------------------- */

static uint32_t read_reg(struct ioapic *io)
{
    unsigned n = io->select - IOAPIC_REG_ENTRIES;

    if (io->select == IOAPIC_REG_ID || io->select == IOAPIC_REG_ARBITRATION)
        return (uint32_t)io->id << IOAPIC_ID_SHIFT;
    if (io->select == IOAPIC_REG_VERSION)
        return IOAPIC_VERSION;
    if (io->select < IOAPIC_REG_ENTRIES || n / 2 >= IOAPIC_PINS) {
        device_guest_error(&io->dev, "read of register 0x%02x", io->select);
        return UINT32_MAX;
    }
    return (uint32_t)(io->entries[n / 2] >> (n % 2 ? 32 : 0));
}

static void write_entry(struct ioapic *io, unsigned n, uint32_t val)
{
    unsigned pin = n / 2;
    uint64_t mask = n % 2 ? UINT64_C(0xffffffff) << 32 : UINT64_C(0xffffffff);
    uint64_t bits = n % 2 ? (uint64_t)val << 32 : val;
    uint64_t entry = io->entries[pin];

    mask &= IOAPIC_ENTRY_WRITABLE;
    entry = (entry & ~mask) | (bits & mask);
    /* 82093AA 3.2.4: remote IRR's "meaning is undefined for edge triggered interrupts" */
    if (!(entry & IOAPIC_ENTRY_LEVEL))
        entry &= ~IOAPIC_ENTRY_REMOTE_IRR;
    if (entry == io->entries[pin])
        return;
    io->entries[pin] = entry;
    tell_route(io, pin);
    deliver_level(io, pin);
}

static void write_reg(struct ioapic *io, uint32_t val)
{
    unsigned n = io->select - IOAPIC_REG_ENTRIES;

    if (io->select == IOAPIC_REG_ID)
        io->id = (uint8_t)(val >> IOAPIC_ID_SHIFT & IOAPIC_ID_MASK);
    else if (io->select < IOAPIC_REG_ENTRIES || n / 2 >= IOAPIC_PINS)
        device_guest_error(&io->dev, "write of register 0x%02x", io->select);
    else
        write_entry(io, n, val);
}

static uint64_t ioapic_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    struct ioapic *io = to_ioapic(dev);

    (void)win;
    if (size == 4 && off == IOAPIC_OFF_SELECT)
        return io->select;
    if (size == 4 && off == IOAPIC_OFF_WINDOW)
        return read_reg(io);
    device_guest_error(dev, "read of %u at 0x%llx", size, (unsigned long long)off);
    return UINT64_MAX;
}

static void ioapic_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                         uint64_t val)
{
    struct ioapic *io = to_ioapic(dev);

    (void)win;
    if ((size == 4 || size == 1) && off == IOAPIC_OFF_SELECT)
        io->select = (uint8_t)val;
    else if (size == 4 && off == IOAPIC_OFF_WINDOW)
        write_reg(io, (uint32_t)val);
    else
        device_guest_error(dev, "write of %u at 0x%llx", size, (unsigned long long)off);
}

static unsigned ioapic_counters(struct device *dev, struct device_counter *out, unsigned cap)
{
    if (!cap)
        return 0;
    out[0] = (struct device_counter){.name = "messages", .value = to_ioapic(dev)->messages};
    return 1;
}

/* --- State --------------------------------------------------------------- */

static const struct state_field ioapic_fields[] = {
    /* clang-format off */
    /*                  since  kind  member */
    STATE(struct ioapic,  1,   U8,   id),
    STATE(struct ioapic,  1,   U8,   select),
    STATE(struct ioapic,  1,   U32,  lines),
    STATE(struct ioapic,  1,   U64,  entries),
    /* clang-format on */
};

static int ioapic_check(const void *scratch, const void *live, struct err *err)
{
    const struct ioapic *io = scratch;

    (void)live;
    if (io->id > IOAPIC_ID_MASK)
        return err_set(err, -EBADMSG, "id: %u is over 15", io->id);
    if (io->lines >> IOAPIC_PINS)
        return err_set(err, -EBADMSG, "lines: 0x%x has more than 24 pins", io->lines);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = io->entries[pin];
        uint64_t known = IOAPIC_ENTRY_WRITABLE | IOAPIC_ENTRY_REMOTE_IRR;

        if (entry & ~known || (entry & IOAPIC_ENTRY_REMOTE_IRR && !(entry & IOAPIC_ENTRY_LEVEL)))
            return err_set(err, -EBADMSG, "entries[%u]: 0x%llx", pin, (unsigned long long)entry);
    }
    return 0;
}

static const struct state_desc ioapic_state = {
    .name = "ioapic",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct ioapic),
    .fields = ioapic_fields,
    .nr_fields = ARRAY_LEN(ioapic_fields),
    .check = ioapic_check,
};

const struct device_ops ioapic_ops = {
    .type = "ioapic",
    .size = sizeof(struct ioapic),
    .realize = ioapic_realize,
    .reset = ioapic_reset,
    .resume = ioapic_resume,
    .read = ioapic_read,
    .write = ioapic_write,
    .state = &ioapic_state,
    .counters = ioapic_counters,
};
