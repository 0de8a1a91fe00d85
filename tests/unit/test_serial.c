/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/serial.h"
#include "tests/fakes/device_check.h"

enum {
    PIN = 4,
    DATA = 0,
    IER = 1,
    IIR = 2, /* FCR when written */
    LCR = 3,
    MCR = 4,
    LSR = 5,
    MSR = 6,
    SCR = 7,
};

static int setup(void **state)
{
    const struct serial_config cfg = {.irq = PIN, .port = CHAR_PORT_NONE};

    *state = device_pair_new(&serial_ops, "__serial", &cfg);
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

static uint8_t get(struct device_pair *p, unsigned reg)
{
    return (uint8_t)device_check_read(p->dev, 0, reg, 1);
}

static void put(struct device_pair *p, unsigned reg, uint8_t val)
{
    device_check_write(p->dev, 0, reg, 1, val);
}

static const struct device_row reset_rows[] = {
    {"no data",                'r', 0, DATA, 1, 0x00, 0},
    {"no interrupt enabled",   'r', 0, IER,  1, 0x00, 0},
    {"none pending, no FIFO",  'r', 0, IIR,  1, 0x01, 0},
    {"line control",           'r', 0, LCR,  1, 0x00, 0},
    {"modem control",          'r', 0, MCR,  1, 0x00, 0},
    {"transmitter empty",      'r', 0, LSR,  1, 0x60, 0},
    {"the other end is ready", 'r', 0, MSR,  1, 0xb0, 0},
    {"scratch",                'r', 0, SCR,  1, 0x00, 0},
};

static const struct device_row rows[] = {
    {"scratch is a byte",            'w', 0, SCR,  1, 0xa5,   0},
    {"that stays",                   'r', 0, SCR,  1, 0xa5,   0},
    {"open the divisor",             'w', 0, LCR,  1, 0x83,   0},
    {"9600 baud",                    'r', 0, DATA, 1, 12,     0},
    {"high byte",                    'r', 0, IER,  1, 0,      0},
    {"another speed",                'w', 0, DATA, 1, 0x34,   0},
    {"high byte",                    'w', 0, IER,  1, 0x12,   0},
    {"reads back",                   'r', 0, DATA, 1, 0x34,   0},
    {"high byte",                    'r', 0, IER,  1, 0x12,   0},
    {"close it",                     'w', 0, LCR,  1, 0x03,   0},
    {"8N1",                          'r', 0, LCR,  1, 0x03,   0},
    {"the divisor was not the IER",  'r', 0, IER,  1, 0x00,   0},
    {"four enable bits",             'w', 0, IER,  1, 0xf0,   0},
    {"no others",                    'r', 0, IER,  1, 0x00,   0},
    {"five modem control bits",      'w', 0, MCR,  1, 0xe3,   0},
    {"no others",                    'r', 0, MCR,  1, 0x03,   0},
    {"the FIFO",                     'w', 0, IIR,  1, 0xc1,   0},
    {"is a 16550A's",                'r', 0, IIR,  1, 0xc1,   0},
    {"without it",                   'w', 0, IIR,  1, 0xc0,   0},
    {"the trigger is not kept",      'r', 0, IIR,  1, 0x01,   0},
    {"the line status is read-only", 'w', 0, LSR,  1, 0xff,   0},
    {"unchanged",                    'r', 0, LSR,  1, 0x60,   0},
    {"so is the modem status",       'w', 0, MSR,  1, 0x00,   0},
    {"unchanged",                    'r', 0, MSR,  1, 0xb0,   0},
    {"bytes only",                   'r', 0, DATA, 2, 0xffff, 1},
    {"in both directions",           'w', 0, DATA, 4, 0,      2},
};

static void test_guest_access(void **state)
{
    struct device_pair *p = *state;

    device_check_rows(p->dev, reset_rows, ARRAY_LEN(reset_rows));
    device_check_rows(p->dev, rows, ARRAY_LEN(rows));
}

static void test_reset_values(void **state)
{
    struct device_pair *p = *state;

    put(p, MCR, 0x10);
    put(p, IIR, 0x01);
    put(p, DATA, 'x');
    put(p, IER, 0x0f);
    put(p, SCR, 0x11);
    assert_true(p->fe->irq_level[PIN]);
    serial_ops.reset(p->dev);
    assert_false(p->fe->irq_level[PIN]);
    device_check_rows(p->dev, reset_rows, ARRAY_LEN(reset_rows));
}

static void test_transmitter_interrupt_is_cleared_by_reading_iir(void **state)
{
    struct device_pair *p = *state;

    put(p, IER, 0x02);
    assert_true(p->fe->irq_level[PIN]);
    assert_int_equal(get(p, IIR), 0x02);
    assert_false(p->fe->irq_level[PIN]);
    assert_int_equal(get(p, IIR), 0x01);
    put(p, DATA, 'a');
    assert_true(p->fe->irq_level[PIN]);
    put(p, IER, 0x00);
    assert_false(p->fe->irq_level[PIN]);
}

static void test_interrupts_have_priorities(void **state)
{
    struct device_pair *p = *state;

    put(p, MCR, 0x10); /* modem lines go low: deltas */
    put(p, IER, 0x0f); /* transmitter */
    put(p, DATA, 'a'); /* data */
    put(p, DATA, 'b'); /* overrun */
    assert_int_equal(get(p, IIR), 0x06);
    assert_int_equal(get(p, LSR), 0x63);
    assert_int_equal(get(p, IIR), 0x04);
    assert_int_equal(get(p, DATA), 'b'); /* without a FIFO the last one wins */
    assert_int_equal(get(p, IIR), 0x02);
    assert_int_equal(get(p, IIR), 0x00);
    assert_true(p->fe->irq_level[PIN]);
    assert_int_equal(get(p, MSR), 0x0b);
    assert_int_equal(get(p, IIR), 0x01);
    assert_false(p->fe->irq_level[PIN]);
}

static void test_fifo_triggers_and_times_out(void **state)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    struct device_pair *p = *state;

    put(p, MCR, 0x10);
    put(p, IER, 0x01);
    for (unsigned i = 0; i < ARRAY_LEN(levels); i++) {
        put(p, IIR, (uint8_t)(i << 6 | 0x03));
        for (unsigned n = 1; n <= 16; n++) {
            put(p, DATA, (uint8_t)n);
            assert_int_equal(get(p, IIR), n >= levels[i] ? 0xc4 : 0xcc);
        }
        assert_int_equal(get(p, LSR), 0x61);
        put(p, DATA, 99); /* the FIFO keeps what it has */
        assert_int_equal(get(p, LSR), 0x63);
        for (unsigned n = 1; n <= 16; n++)
            assert_int_equal(get(p, DATA), n);
        assert_int_equal(get(p, LSR), 0x60);
        assert_int_equal(get(p, IIR), 0xc1);
    }
}

static void test_fifo_is_cleared_when_asked_or_switched(void **state)
{
    static const uint8_t fcr[] = {0x03, 0x00, 0x01};
    struct device_pair *p = *state;

    put(p, MCR, 0x10);
    put(p, IIR, 0x01);
    for (unsigned i = 0; i < ARRAY_LEN(fcr); i++) {
        put(p, DATA, 'x');
        assert_int_equal(get(p, LSR), 0x61);
        put(p, IIR, fcr[i]);
        assert_int_equal(get(p, LSR), 0x60);
    }
    put(p, DATA, 'x');
    put(p, IIR, 0x05); /* the transmitter's FIFO alone */
    assert_int_equal(get(p, LSR), 0x61);
}

/* MCR bit 4: in loopback the four outputs are the four inputs. */
static void test_loopback_turns_the_modem_lines_around(void **state)
{
    static const struct {
        uint8_t mcr, msr;
    } lines[] = {
  /* clang-format off */
        {0x10, 0x0b}, /* CTS, DSR, DCD fell */
        {0x11, 0x22}, /* DTR is DSR */
        {0x12, 0x13}, /* RTS is CTS, DSR fell */
        {0x14, 0x41}, /* OUT1 is RI; no bit for its rise; CTS fell */
        {0x18, 0x8c}, /* OUT2 is DCD; RI fell: TERI */
        {0x1f, 0xf3},
        {0x1f, 0xf0}, /* nothing changed */
        {0x0f, 0xb4}, /* back to the line: only RI fell */
  /* clang-format on */
    };
    struct device_pair *p = *state;

    for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
        put(p, MCR, lines[i].mcr);
        assert_int_equal(get(p, MSR), lines[i].msr);
    }
}

static void test_break_comes_back_in_loopback(void **state)
{
    struct device_pair *p = *state;

    put(p, MCR, 0x10);
    put(p, IIR, 0x01);
    put(p, IER, 0x04);
    put(p, LCR, 0x43);
    put(p, LCR, 0x43); /* it is one break */
    assert_int_equal(get(p, IIR), 0xc6);
    assert_int_equal(get(p, LSR), 0xf1);
    assert_int_equal(get(p, DATA), 0);
    assert_int_equal(get(p, LSR), 0x60);
}

static void test_state_survives_in_the_middle_of_everything(void **state)
{
    struct device_pair *p = *state;

    put(p, LCR, 0x83);
    put(p, DATA, 0x01);
    device_check_round_trip(p->dev, p->fresh); /* half a divisor */
    put(p, LCR, 0x03);
    put(p, IIR, 0x81);
    put(p, MCR, 0x1b);
    put(p, IER, 0x0f);
    put(p, SCR, 0x5a);
    for (unsigned i = 0; i < 17; i++)
        put(p, DATA, (uint8_t)('a' + i));
    device_check_round_trip(p->dev, p->fresh);
    p->fe->irq_level[PIN] = false;
    device_check_resume(p->fresh);
    assert_true(p->fe->irq_level[PIN]);
    assert_int_equal(device_check_read(p->fresh, 0, IIR, 1), 0xc6);
    assert_int_equal(device_check_read(p->fresh, 0, LSR, 1), 0x63);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(device_check_read(p->fresh, 0, DATA, 1), 'a' + i);
    assert_int_equal(device_check_read(p->fresh, 0, IIR, 1), 0xc2);
}

static void test_bad_state_is_refused(void **state)
{
    struct device_pair *p = *state;

    put(p, IIR, 0x81);
    put(p, MCR, 0x10);
    put(p, DATA, 'a');
    put(p, DATA, 'b');
    device_check_bad_state(p->dev, p->fresh);
    device_check_refused(p->dev, "ier", "\x10", 1, "ier: 0x10 has bits that are always 0");
    device_check_refused(p->dev, "fcr", "\x02", 1, "fcr: 0x02 has bits that are always 0");
    device_check_refused(p->dev, "fcr", "\x18\xc0", 2, "fcr: 0xc0 without its first bit");
    device_check_refused(p->dev, "mcr", "\x18\x20", 2, "mcr: 0x20 has bits that are always 0");
    device_check_refused(p->dev, "mcr", "\x00", 1, "msr: 0x0b is not what mcr makes of it");
    device_check_refused(p->dev, "errors", "\x01", 1, "errors: 0x01 has bits that are always 0");
    device_check_refused(p->dev, "rx_len", "\x11", 1, "rx_len: 17, room for 16");
    device_check_refused(p->dev, "rx_len", "\x01", 1, "rx: byte 1 is past rx_len");
    device_check_refused(p->dev, "fcr", "\x00", 1, "rx_len: 2, room for 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transmitter_interrupt_is_cleared_by_reading_iir, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_interrupts_have_priorities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fifo_triggers_and_times_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fifo_is_cleared_when_asked_or_switched, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_loopback_turns_the_modem_lines_around, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_break_comes_back_in_loopback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_survives_in_the_middle_of_everything, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_bad_state_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("serial", tests, NULL, NULL);
}
