/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A serial port.
 *
 * Source: National Semiconductor PC16550D data sheet (1995), section 8,
 * "Registers": its names of registers and bits.
 *
 * Deviations: the line has no speed.  A byte written is sent at once, so the
 * transmitter is always empty; bytes below the trigger level count as timed
 * out at once.  OUT2 does not gate the interrupt, as on a PC card it would:
 * guests that forget it expect interrupts all the same.  Outside of loopback
 * the modem lines say that the other end is there and ready.
 */
#include "devices/serial.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* --- Registers ----------------------------------------------------------- */

enum {
    SERIAL_DATA = 0, /* RBR, THR; DLL with DLAB */
    SERIAL_IER = 1,  /* DLM with DLAB */
    SERIAL_IIR = 2,  /* FCR when written */
    SERIAL_LCR = 3,
    SERIAL_MCR = 4,
    SERIAL_LSR = 5,
    SERIAL_MSR = 6,
    SERIAL_SCR = 7,

    IER_RX = 1 << 0,
    IER_TX = 1 << 1,
    IER_LINE = 1 << 2,
    IER_MODEM = 1 << 3,
    IER_MASK = 0x0f,

    IIR_NONE = 0x01, /* table "Interrupt Control Functions" */
    IIR_LINE = 0x06,
    IIR_RX = 0x04,
    IIR_TIMEOUT = 0x0c,
    IIR_TX = 0x02,
    IIR_MODEM = 0x00,
    IIR_FIFO = 0xc0,

    FCR_ENABLE = 1 << 0,
    FCR_CLEAR_RX = 1 << 1,
    FCR_TRIGGER_SHIFT = 6,
    FCR_KEPT = 0xc9, /* enable, DMA mode, trigger */

    LCR_BREAK = 1 << 6,
    LCR_DLAB = 1 << 7,

    MCR_DTR = 1 << 0,
    MCR_RTS = 1 << 1,
    MCR_OUT1 = 1 << 2,
    MCR_OUT2 = 1 << 3,
    MCR_LOOP = 1 << 4,
    MCR_MASK = 0x1f,

    LSR_DATA = 1 << 0,
    LSR_OVERRUN = 1 << 1,
    LSR_BREAK = 1 << 4,
    LSR_TX_EMPTY = 0x60, /* THRE, TEMT */
    LSR_FIFO_ERROR = 1 << 7,
    LSR_KEPT = LSR_OVERRUN | LSR_BREAK,

    MSR_DELTA = 0x0f, /* DCTS, DDSR, TERI, DDCD */
    MSR_TERI = 1 << 2,
    MSR_CTS = 1 << 4,
    MSR_DSR = 1 << 5,
    MSR_RI = 1 << 6,
    MSR_DCD = 1 << 7,

    SERIAL_FIFO = 16,
    SERIAL_DIVISOR = 12, /* 9600 baud of 1.8432 MHz */
};

struct serial {
    struct device dev;
    unsigned irq;

    /* Exactly what serial_fields describes. */
    uint16_t divisor;
    uint8_t ier;
    uint8_t fcr;
    uint8_t lcr;
    uint8_t mcr;
    uint8_t errors; /* LSR: overrun, break */
    uint8_t msr;
    uint8_t scr;
    bool tx_interrupt; /* the transmitter's interrupt is pending */
    uint8_t rx[SERIAL_FIFO];
    uint8_t rx_len;
    struct char_port port; /* output that the host has not taken */

    /* Host state. */
    uint64_t in, out;
};

static struct serial *to_serial(struct device *dev)
{
    assert(dev->ops == &serial_ops);
    return container_of(dev, struct serial, dev);
}

/* --- Interrupts ---------------------------------------------------------- */

static bool has_fifo(const struct serial *s)
{
    return s->fcr & FCR_ENABLE;
}

static unsigned rx_trigger(const struct serial *s)
{
    static const uint8_t levels[] = {1, 4, 8, 14};

    return has_fifo(s) ? levels[s->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

/* Table "Interrupt Control Functions": the pending interrupt of the highest priority. */
static uint8_t interrupt(const struct serial *s)
{
    if (s->ier & IER_LINE && s->errors)
        return IIR_LINE;
    if (s->ier & IER_RX && s->rx_len >= rx_trigger(s))
        return IIR_RX;
    if (s->ier & IER_RX && s->rx_len)
        return IIR_TIMEOUT;
    if (s->ier & IER_TX && s->tx_interrupt)
        return IIR_TX;
    if (s->ier & IER_MODEM && s->msr & MSR_DELTA)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(const struct serial *s)
{
    const struct dev_env *env = s->dev.env;

    env->ops->irq_set(env->arg, s->irq, interrupt(s) != IIR_NONE);
}

/* --- Receiver ------------------------------------------------------------ */

static unsigned rx_capacity(const struct serial *s)
{
    return has_fifo(s) ? SERIAL_FIFO : 1;
}

static void receive(struct serial *s, uint8_t byte)
{
    if (s->rx_len < rx_capacity(s)) {
        s->rx[s->rx_len++] = byte;
        return;
    }
    /* LSR bit 1: "The character in the shift register is overwritten", the FIFO is not. */
    s->errors |= LSR_OVERRUN;
    if (!has_fifo(s))
        s->rx[0] = byte;
}

static uint8_t take_byte(struct serial *s)
{
    uint8_t byte = s->rx[0];

    if (!s->rx_len)
        return 0;
    s->rx_len--;
    memmove(s->rx, s->rx + 1, s->rx_len);
    memset(s->rx + s->rx_len, 0, SERIAL_FIFO - s->rx_len);
    char_port_has_room(&s->port);
    return byte;
}

static void clear_rx(struct serial *s)
{
    s->rx_len = 0;
    memset(s->rx, 0, sizeof(s->rx));
    char_port_has_room(&s->port);
}

/* In loopback the line's input is not connected: it waits. */
static size_t serial_room(struct device *dev)
{
    const struct serial *s = to_serial(dev);

    return s->mcr & MCR_LOOP ? 0 : rx_capacity(s) - s->rx_len;
}

static void serial_input(struct device *dev, const uint8_t *data, size_t len)
{
    struct serial *s = to_serial(dev);

    for (size_t i = 0; i < len; i++)
        receive(s, data[i]);
    s->in += len;
    update_irq(s);
}

static const struct char_port_ops serial_port_ops = {
    .room = serial_room,
    .input = serial_input,
};

/* --- Life cycle ---------------------------------------------------------- */

static int serial_realize(struct device *dev, const void *cfg, struct err *err)
{
    const struct serial_config *conf = cfg;
    struct serial *s = to_serial(dev);

    s->irq = conf->irq;
    return char_port_init(&s->port, dev, &conf->port, &serial_port_ops, err);
}

static void serial_destroy(struct device *dev)
{
    char_port_release(&to_serial(dev)->port);
}

/* Table "UART Reset Configuration". */
static void serial_reset(struct device *dev)
{
    struct serial *s = to_serial(dev);

    s->divisor = SERIAL_DIVISOR;
    s->ier = 0;
    s->fcr = 0;
    s->lcr = 0;
    s->mcr = 0;
    s->errors = 0;
    s->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    s->scr = 0;
    s->tx_interrupt = false;
    clear_rx(s);
    update_irq(s);
}

static int serial_quiesce(struct device *dev, uint64_t deadline_ns, struct err *err)
{
    (void)deadline_ns;
    (void)err;
    char_port_stop(&to_serial(dev)->port);
    return 0;
}

static void serial_resume(struct device *dev)
{
    struct serial *s = to_serial(dev);

    update_irq(s);
    char_port_start(&s->port);
}

/* --- Guest access -------------------------------------------------------- */

static uint8_t read_lsr(struct serial *s)
{
    uint8_t val = LSR_TX_EMPTY | s->errors;

    if (s->rx_len)
        val |= LSR_DATA;
    if (has_fifo(s) && s->errors & LSR_BREAK)
        val |= LSR_FIFO_ERROR;
    s->errors = 0;
    return val;
}

static uint64_t serial_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    struct serial *s = to_serial(dev);
    uint8_t val = 0;

    (void)win;
    if (size != 1) {
        device_guest_error(dev, "read of %u at %llu", size, (unsigned long long)off);
        return UINT64_MAX;
    }
    switch (off) {
    case SERIAL_DATA:
        val = s->lcr & LCR_DLAB ? (uint8_t)s->divisor : take_byte(s);
        break;
    case SERIAL_IER:
        val = s->lcr & LCR_DLAB ? (uint8_t)(s->divisor >> 8) : s->ier;
        break;
    case SERIAL_IIR:
        val = interrupt(s);
        /* Reset control: "Reading the IIR Register (if source of interrupt)" */
        if (val == IIR_TX)
            s->tx_interrupt = false;
        if (has_fifo(s))
            val |= IIR_FIFO;
        break;
    case SERIAL_LCR:
        val = s->lcr;
        break;
    case SERIAL_MCR:
        val = s->mcr;
        break;
    case SERIAL_LSR:
        val = read_lsr(s);
        break;
    case SERIAL_MSR:
        val = s->msr;
        s->msr &= (uint8_t)~MSR_DELTA;
        break;
    case SERIAL_SCR:
        val = s->scr;
        break;
    default:
        break;
    }
    update_irq(s);
    return val;
}

static void send(struct serial *s, uint8_t byte)
{
    if (s->mcr & MCR_LOOP) {
        receive(s, byte);
    } else {
        s->out++;
        char_port_write(&s->port, &byte, 1);
    }
    s->tx_interrupt = true;
}

static void write_fcr(struct serial *s, uint8_t val)
{
    /* FCR bit 0: changing it clears the FIFOs; the other bits need it set. */
    if ((val ^ s->fcr) & FCR_ENABLE || val & FCR_CLEAR_RX)
        clear_rx(s);
    s->fcr = val & FCR_ENABLE ? val & FCR_KEPT : 0;
}

/* MCR bit 4: in loopback the four outputs are the four inputs. */
static uint8_t modem_lines(const struct serial *s)
{
    uint8_t lines = 0;

    if (!(s->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    if (s->mcr & MCR_RTS)
        lines |= MSR_CTS;
    if (s->mcr & MCR_DTR)
        lines |= MSR_DSR;
    if (s->mcr & MCR_OUT1)
        lines |= MSR_RI;
    if (s->mcr & MCR_OUT2)
        lines |= MSR_DCD;
    return lines;
}

static void write_mcr(struct serial *s, uint8_t val)
{
    uint8_t lines, changed;

    s->mcr = val & MCR_MASK;
    lines = modem_lines(s);
    changed = (uint8_t)((s->msr ^ lines) >> 4);
    /* MSR bit 2: "Trailing Edge of Ring Indicator" */
    if (lines & MSR_RI)
        changed &= (uint8_t)~MSR_TERI;
    s->msr = (uint8_t)(lines | (s->msr & MSR_DELTA) | changed);
    char_port_has_room(&s->port);
}

static void write_lcr(struct serial *s, uint8_t val)
{
    /* LCR bit 6: a break of the line; in loopback it is our own. */
    if (val & LCR_BREAK && !(s->lcr & LCR_BREAK) && s->mcr & MCR_LOOP) {
        receive(s, 0);
        s->errors |= LSR_BREAK;
    }
    s->lcr = val;
}

static void write_ier(struct serial *s, uint8_t val)
{
    /* The transmitter is empty: enabling its interrupt raises it. */
    if (val & IER_TX && !(s->ier & IER_TX))
        s->tx_interrupt = true;
    s->ier = val & IER_MASK;
}

static void write_divisor(struct serial *s, uint64_t off, uint8_t val)
{
    if (off == SERIAL_DATA)
        s->divisor = (uint16_t)((s->divisor & 0xff00) | val);
    else
        s->divisor = (uint16_t)((s->divisor & 0xff) | val << 8);
}

static void write_reg(struct serial *s, uint64_t off, uint8_t val)
{
    if (off <= SERIAL_IER && s->lcr & LCR_DLAB) {
        write_divisor(s, off, val);
        return;
    }
    switch (off) {
    case SERIAL_DATA:
        send(s, val);
        break;
    case SERIAL_IER:
        write_ier(s, val);
        break;
    case SERIAL_IIR:
        write_fcr(s, val);
        break;
    case SERIAL_LCR:
        write_lcr(s, val);
        break;
    case SERIAL_MCR:
        write_mcr(s, val);
        break;
    case SERIAL_SCR:
        s->scr = val;
        break;
    default: /* LSR and MSR are written in factory tests only */
        break;
    }
}

static void serial_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                         uint64_t val)
{
    struct serial *s = to_serial(dev);

    (void)win;
    if (size != 1) {
        device_guest_error(dev, "write of %u at %llu", size, (unsigned long long)off);
        return;
    }
    write_reg(s, off, (uint8_t)val);
    update_irq(s);
}

static unsigned serial_counters(struct device *dev, struct device_counter *out, unsigned cap)
{
    const struct serial *s = to_serial(dev);

    if (cap < 3)
        return 0;
    out[0] = (struct device_counter){.name = "in", .value = s->in};
    out[1] = (struct device_counter){.name = "out", .value = s->out};
    out[2] = (struct device_counter){.name = "dropped", .value = s->port.dropped};
    return 3;
}

/* --- State --------------------------------------------------------------- */

static const struct state_field serial_fields[] = {
    /* clang-format off */
    /*                  since  kind    member */
    STATE(struct serial,  1,   U16,    divisor),
    STATE(struct serial,  1,   U8,     ier),
    STATE(struct serial,  1,   U8,     fcr),
    STATE(struct serial,  1,   U8,     lcr),
    STATE(struct serial,  1,   U8,     mcr),
    STATE(struct serial,  1,   U8,     errors),
    STATE(struct serial,  1,   U8,     msr),
    STATE(struct serial,  1,   U8,     scr),
    STATE(struct serial,  1,   BOOL,   tx_interrupt),
    STATE(struct serial,  1,   BYTES,  rx),
    STATE(struct serial,  1,   U8,     rx_len),
    STATE_STRUCT(struct serial, 1, &char_port_state, port),
    /* clang-format on */
};

static int check_bits(const char *name, uint8_t val, unsigned allowed, struct err *err)
{
    if (val & ~allowed)
        return err_set(err, -EBADMSG, "%s: 0x%02x has bits that are always 0", name, val);
    return 0;
}

static int check_rx(const struct serial *s, struct err *err)
{
    if (s->rx_len > rx_capacity(s))
        return err_set(err, -EBADMSG, "rx_len: %u, room for %u", s->rx_len, rx_capacity(s));
    for (unsigned i = s->rx_len; i < SERIAL_FIFO; i++)
        if (s->rx[i])
            return err_set(err, -EBADMSG, "rx: byte %u is past rx_len", i);
    return 0;
}

static int serial_check(const void *scratch, const void *live, struct err *err)
{
    const struct serial *s = scratch;
    int rc;

    (void)live;
    rc = check_bits("ier", s->ier, IER_MASK, err);
    if (rc >= 0)
        rc = check_bits("fcr", s->fcr, FCR_KEPT, err);
    if (rc >= 0)
        rc = check_bits("mcr", s->mcr, MCR_MASK, err);
    if (rc >= 0)
        rc = check_bits("errors", s->errors, LSR_KEPT, err);
    if (rc < 0)
        return rc;
    if (s->fcr && !has_fifo(s))
        return err_set(err, -EBADMSG, "fcr: 0x%02x without its first bit", s->fcr);
    if ((s->msr & ~MSR_DELTA) != modem_lines(s))
        return err_set(err, -EBADMSG, "msr: 0x%02x is not what mcr makes of it", s->msr);
    return check_rx(s, err);
}

static const struct state_desc serial_state = {
    .name = "serial",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct serial),
    .fields = serial_fields,
    .nr_fields = ARRAY_LEN(serial_fields),
    .check = serial_check,
};

const struct device_ops serial_ops = {
    .type = "serial",
    .size = sizeof(struct serial),
    .realize = serial_realize,
    .destroy = serial_destroy,
    .reset = serial_reset,
    .quiesce = serial_quiesce,
    .resume = serial_resume,
    .read = serial_read,
    .write = serial_write,
    .state = &serial_state,
    .counters = serial_counters,
};
