/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/debug_port.h"
#include "tests/fakes/device_check.h"

static int setup(void **state)
{
    *state = device_pair_new(&debug_port_ops, "debug-port", NULL);
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

static const struct device_row rows[] = {
    {"nothing yet",                'r', 0, 0, 1, 0,      0},
    {"the kernel was entered",     'w', 0, 0, 1, 0x40,   0},
    {"the last code reads back",   'r', 0, 0, 1, 0x40,   0},
    {"only the low byte is there", 'w', 0, 0, 2, 0x1241, 0},
    {"the low byte",               'r', 0, 0, 2, 0x41,   0},
};

static void test_guest_access(void **state)
{
    struct device_pair *p = *state;
    struct device_counter c;

    device_check_rows(p->dev, rows, ARRAY_LEN(rows));
    assert_int_equal(debug_port_ops.counters(p->dev, &c, 1), 1);
    assert_string_equal(c.name, "writes");
    assert_int_equal(c.value, 2);
}

static void test_reset_forgets_the_code(void **state)
{
    struct device_pair *p = *state;

    device_check_write(p->dev, 0, 0, 1, 0x40);
    debug_port_ops.reset(p->dev);
    assert_int_equal(device_check_read(p->dev, 0, 0, 1), 0);
}

static void test_state_survives(void **state)
{
    struct device_pair *p = *state;

    device_check_write(p->dev, 0, 0, 1, 0x99);
    device_check_round_trip(p->dev, p->fresh);
    assert_int_equal(device_check_read(p->fresh, 0, 0, 1), 0x99);
}

static void test_bad_state_is_refused(void **state)
{
    struct device_pair *p = *state;

    device_check_write(p->dev, 0, 0, 1, 0x99);
    device_check_bad_state(p->dev, p->fresh);
    device_check_refused(p->dev, "code", "\x19\x01\x00", 3, "code: 256 is over 255");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_forgets_the_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_survives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_state_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("debug_port", tests, NULL, NULL);
}
