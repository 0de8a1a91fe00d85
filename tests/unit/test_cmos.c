/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <time.h>

#include "devices/cmos.h"
#include "tests/fakes/device_check.h"

#define SECOND_NS INT64_C(1000000000)

/* 2024-02-29 23:59:58 UTC, a Thursday */
#define LEAP_DAY_S INT64_C(1709251198)

static int setup(void **state)
{
    const struct cmos_config cfg = {.ram_below_4g = MIB(512), .ram_above_4g = GIB(5)};
    struct device_pair *p = device_pair_new(&cmos_ops, "cmos", &cfg);

    p->fe->wall_ns = LEAP_DAY_S * SECOND_NS;
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

static uint8_t get(struct device *dev, uint8_t reg)
{
    device_check_write(dev, 0, 0, 1, reg);
    return (uint8_t)device_check_read(dev, 0, 1, 1);
}

static void put(struct device *dev, uint8_t reg, uint8_t val)
{
    device_check_write(dev, 0, 0, 1, reg);
    device_check_write(dev, 0, 1, 1, val);
}

static const struct device_row rows[] = {
    {"select low byte of memory above 16 MiB", 'w', 0, 0, 1, 0x34,       0},
    {"496 MiB in 64 KiB units is 0x1f00",      'r', 0, 1, 1, 0x00,       0},
    {"bit 7 of the index is the NMI gate",     'w', 0, 0, 1, 0xb5,       0},
    {"high byte",                              'r', 0, 1, 1, 0x1f,       0},
    {"low byte of memory above 4 GiB",         'w', 0, 0, 1, 0x5b,       0},
    {"5 GiB in 64 KiB units is 0x14000",       'r', 0, 1, 1, 0x00,       0},
    {"middle byte",                            'w', 0, 0, 1, 0x5c,       0},
    {"of 0x14000",                             'r', 0, 1, 1, 0x40,       0},
    {"high byte",                              'w', 0, 0, 1, 0x5d,       0},
    {"of 0x14000",                             'r', 0, 1, 1, 0x01,       0},
    {"base memory",                            'w', 0, 0, 1, 0x16,       0},
    {"640 KiB is 0x280",                       'r', 0, 1, 1, 0x02,       0},
    {"extended memory",                        'w', 0, 0, 1, 0x31,       0},
    {"is cut at 63 MiB, 0xfc00 KiB",           'r', 0, 1, 1, 0xfc,       0},
    {"select register D",                      'w', 0, 0, 1, 0x0d,       0},
    {"register D is read-only",                'w', 0, 1, 1, 0x00,       0},
    {"VRT still set",                          'r', 0, 1, 1, 0x80,       0},
    {"select register C",                      'w', 0, 0, 1, 0x0c,       0},
    {"register C is read-only",                'w', 0, 1, 1, 0xff,       0},
    {"no interrupt flags",                     'r', 0, 1, 1, 0x00,       0},
    {"select register A",                      'w', 0, 0, 1, 0x0a,       0},
    {"divider and rate",                       'r', 0, 1, 1, 0x26,       0},
    {"UIP is read-only",                       'w', 0, 1, 1, 0xa7,       0},
    {"the rest was written",                   'r', 0, 1, 1, 0x27,       0},
    {"a byte of RAM",                          'w', 0, 0, 1, 0x7f,       0},
    {"is written",                             'w', 0, 1, 1, 0x5a,       0},
    {"and read",                               'r', 0, 1, 1, 0x5a,       0},
    {"the index port cannot be read",          'r', 0, 0, 1, 0xff,       1},
    {"no 16-bit access",                       'w', 0, 0, 2, 0x1234,     2},
    {"nor reads of it",                        'r', 0, 1, 2, UINT16_MAX, 3},
};

static void test_guest_access(void **state)
{
    struct device_pair *p = *state;

    device_check_rows(p->dev, rows, ARRAY_LEN(rows));
    assert_int_equal(p->fe->nr_requests, 0);
}

static void test_shutdown_byte_with_nmi_gate_resets(void **state)
{
    struct device_pair *p = *state;

    put(p->dev, 0x8f, 1);
    put(p->dev, 0x0f, 0);
    assert_int_equal(p->fe->nr_requests, 0);
    put(p->dev, 0x8f, 0);
    assert_int_equal(p->fe->nr_requests, 1);
    assert_int_equal(p->fe->requests[0], MACHINE_RESET);
}

/* What the time registers read: second, minute, hour, weekday, day, month, year, century. */
static void assert_time(struct device *dev, const uint8_t want[8])
{
    static const uint8_t regs[8] = {0, 2, 4, 6, 7, 8, 9, 0x32};

    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(get(dev, regs[i]), want[i]);
}

static void test_clock_shows_the_wall_clock_in_bcd(void **state)
{
    struct device_pair *p = *state;

    assert_time(p->dev, (uint8_t[]){0x58, 0x59, 0x23, 5, 0x29, 2, 0x24, 0x20});
    p->fe->wall_ns += 2 * SECOND_NS;
    assert_time(p->dev, (uint8_t[]){0, 0, 0, 6, 1, 3, 0x24, 0x20});
    p->fe->wall_ns = -SECOND_NS / 2;
    assert_time(p->dev, (uint8_t[]){0x59, 0x59, 0x23, 4, 0x31, 0x12, 0x69, 0x19});
}

static void test_clock_in_binary_and_with_twelve_hours(void **state)
{
    struct device_pair *p = *state;

    put(p->dev, 0x0b, 0x06);
    assert_time(p->dev, (uint8_t[]){58, 59, 23, 5, 29, 2, 24, 20});
    put(p->dev, 0x0b, 0x04);
    assert_int_equal(get(p->dev, 4), 0x80 | 11);
    put(p->dev, 0x0b, 0x00);
    assert_int_equal(get(p->dev, 4), 0x80 | 0x11);
    p->fe->wall_ns += 2 * SECOND_NS;
    assert_int_equal(get(p->dev, 4), 0x12); /* midnight */
    p->fe->wall_ns += 12 * 3600 * SECOND_NS;
    assert_int_equal(get(p->dev, 4), 0x80 | 0x12); /* noon */
}

static void test_update_in_progress_is_shown_before_the_second(void **state)
{
    struct device_pair *p = *state;

    p->fe->wall_ns += SECOND_NS - 244001;
    assert_int_equal(get(p->dev, 0x0a), 0x26);
    p->fe->wall_ns += 1;
    assert_int_equal(get(p->dev, 0x0a), 0xa6);
    p->fe->wall_ns += 243999;
    assert_int_equal(get(p->dev, 0x0a), 0xa6);
    p->fe->wall_ns += 1;
    assert_int_equal(get(p->dev, 0x0a), 0x26);
    /* Not while SET stops the clock. */
    put(p->dev, 0x0b, 0x82);
    p->fe->wall_ns += SECOND_NS - 1;
    assert_int_equal(get(p->dev, 0x0a), 0x26);
}

static void set_clock(struct device *dev, const uint8_t time[8])
{
    static const uint8_t regs[8] = {0, 2, 4, 6, 7, 8, 9, 0x32};

    for (unsigned i = 0; i < 8; i++)
        put(dev, regs[i], time[i]);
}

static void test_guest_sets_the_clock_as_linux_does(void **state)
{
    static const uint8_t past[] = {0x30, 0x15, 0x08, 2, 0x17, 0x07, 0x95, 0x19};
    struct device_pair *p = *state;

    put(p->dev, 0x0b, 0x82);
    set_clock(p->dev, past);
    p->fe->wall_ns += 100 * SECOND_NS;
    assert_time(p->dev, past); /* it stands still */
    put(p->dev, 0x0b, 0x02);
    assert_time(p->dev, past);
    p->fe->wall_ns += 31 * SECOND_NS;
    assert_time(p->dev, (uint8_t[]){0x01, 0x16, 0x08, 2, 0x17, 0x07, 0x95, 0x19});
}

static void test_registers_can_be_set_while_the_clock_runs(void **state)
{
    struct device_pair *p = *state;

    put(p->dev, 0x04, 0x07);
    assert_time(p->dev, (uint8_t[]){0x58, 0x59, 0x07, 5, 0x29, 2, 0x24, 0x20});
}

static void test_any_bytes_make_some_time(void **state)
{
    struct device_pair *p = *state;
    struct state_buf buf;

    for (unsigned b = 0; b < 256; b++) {
        uint8_t time[8];

        for (unsigned i = 0; i < 8; i++)
            time[i] = (uint8_t)b;
        put(p->dev, 0x0b, 0x80);
        set_clock(p->dev, time);
        put(p->dev, 0x0b, b & 4 ? 0x06 : 0x02);
        assert_true(get(p->dev, 8) >= 1 && get(p->dev, 8) <= 0x12);
        /* What the guest can bring about can be loaded. */
        buf = device_check_save(p->dev);
        assert_int_equal(device_check_load(p->fresh, buf.data, buf.len, NULL), 0);
        state_buf_release(&buf);
    }
}

/* Against the C library, every 97 days and some seconds over 3000 years. */
static void test_calendar_is_that_of_the_c_library(void **state)
{
    struct device_pair *p = *state;

    put(p->dev, 0x0b, 0x06);
    for (int64_t s = INT64_C(-9000000000); s < INT64_C(9000000000); s += 97 * 86400 + 12347) {
        time_t when = (time_t)s;
        struct tm tm;
        unsigned year;

        p->fe->wall_ns = s * SECOND_NS;
        assert_non_null(gmtime_r(&when, &tm));
        year = (unsigned)tm.tm_year + 1900;
        assert_time(p->dev, (uint8_t[]){(uint8_t)tm.tm_sec, (uint8_t)tm.tm_min, (uint8_t)tm.tm_hour,
                                        (uint8_t)(tm.tm_wday + 1), (uint8_t)tm.tm_mday,
                                        (uint8_t)(tm.tm_mon + 1), (uint8_t)(year % 100),
                                        (uint8_t)(year / 100)});
        /* Setting it to what it shows changes nothing. */
        put(p->dev, 0x00, (uint8_t)tm.tm_sec);
        assert_int_equal(get(p->dev, 0x07), tm.tm_mday);
    }
}

static void test_reset_keeps_ram_and_time(void **state)
{
    struct device_pair *p = *state;

    put(p->dev, 0x40, 0x77);
    put(p->dev, 0x04, 0x07);
    put(p->dev, 0x0b, 0x72);
    cmos_ops.reset(p->dev);
    assert_int_equal(device_check_read(p->dev, 0, 1, 1), 0x58); /* index 0: seconds */
    assert_int_equal(get(p->dev, 0x40), 0x77);
    assert_int_equal(get(p->dev, 0x04), 0x07);
    assert_int_equal(get(p->dev, 0x0b), 0x02);
}

static void test_state_survives_in_the_middle_of_setting_the_clock(void **state)
{
    struct device_pair *p = *state;

    put(p->dev, 0x0b, 0x82);
    put(p->dev, 0x09, 0x95);
    device_check_write(p->dev, 0, 0, 1, 0x32); /* the index is chosen, the byte to come */
    device_check_round_trip(p->dev, p->fresh);
    device_check_write(p->fresh, 0, 1, 1, 0x19);
    put(p->fresh, 0x0b, 0x02);
    assert_time(p->fresh, (uint8_t[]){0x58, 0x59, 0x23, 4, 1, 3, 0x95, 0x19}); /* no leap year */
    device_check_round_trip(p->fresh, p->dev);
    assert_int_equal(get(p->dev, 0x09), 0x95);
}

static void test_bad_state_is_refused(void **state)
{
    struct device_pair *p = *state;
    char ram[130] = "\x58\x80";

    put(p->dev, 0x04, 0x07);
    device_check_bad_state(p->dev, p->fresh);
    ram[2 + 0x0d] = (char)0x80;
    ram[2 + 0x0a] = (char)0x80;
    device_check_refused(p->dev, "ram", ram, sizeof(ram), "ram: register A is 0x80");
    ram[2 + 0x0a] = 0;
    ram[2 + 0x0c] = 0x10;
    device_check_refused(p->dev, "ram", ram, sizeof(ram), "ram: register C is 0x10");
    ram[2 + 0x0c] = 0;
    ram[2 + 0x0d] = 0;
    device_check_refused(p->dev, "ram", ram, sizeof(ram), "ram: register D is 0x00");
    device_check_refused(p->dev, "offset_s", "\x1b\x7f\xff\xff\xff\xff\xff\xff\xff", 9,
                         "offset_s: 9223372036854775807");
}

static void test_memory_that_cannot_be_is_refused(void **state)
{
    struct device_pair *p = *state;
    const struct cmos_config cfg = {.ram_below_4g = GIB(4) + 1};
    struct device *dev;
    struct err err = {0};

    assert_int_equal(device_new(&cmos_ops, &p->fe->env, "c", &cfg, &dev, &err), -EINVAL);
    assert_string_equal(err.msg, "c: ram_below_4g 4294967297 is over 4 GiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shutdown_byte_with_nmi_gate_resets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_shows_the_wall_clock_in_bcd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_in_binary_and_with_twelve_hours, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_update_in_progress_is_shown_before_the_second, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_guest_sets_the_clock_as_linux_does, setup, teardown),
        cmocka_unit_test_setup_teardown(test_registers_can_be_set_while_the_clock_runs, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_any_bytes_make_some_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calendar_is_that_of_the_c_library, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_keeps_ram_and_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_survives_in_the_middle_of_setting_the_clock,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_state_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_that_cannot_be_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("cmos", tests, NULL, NULL);
}
