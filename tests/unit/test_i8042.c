/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/i8042.h"
#include "tests/fakes/device_check.h"

static int setup(void **state)
{
    *state = device_pair_new(&i8042_ops, "i8042", NULL);
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

static const struct device_row rows[] = {
    {"timer 2's output is high",         'r', 0, 0, 1, 0x20, 0},
    {"opening its gate changes nothing", 'w', 0, 0, 1, 0x01, 0},
    {"still high",                       'r', 0, 0, 1, 0x20, 0},
    {"no data, ready for a command",     'r', 0, 3, 1, 0x00, 0},
    {"a command that we do not have",    'w', 0, 3, 1, 0xd4, 0},
    {"a pulse that leaves reset alone",  'w', 0, 3, 1, 0xff, 0},
    {"reset, to the wrong port",         'w', 0, 0, 1, 0xfe, 0},
    {"reset, too wide",                  'w', 0, 3, 2, 0xfe, 0},
};

static void test_guest_access(void **state)
{
    struct device_pair *p = *state;

    device_check_rows(p->dev, rows, ARRAY_LEN(rows));
    assert_int_equal(p->fe->nr_requests, 0);
}

static void test_pulse_on_the_reset_line_resets(void **state)
{
    struct device_pair *p = *state;

    device_check_write(p->dev, 0, 3, 1, 0xfe);
    assert_int_equal(p->fe->nr_requests, 1);
    assert_int_equal(p->fe->requests[0], MACHINE_RESET);
    device_check_write(p->dev, 0, 3, 1, 0xf0);
    assert_int_equal(p->fe->nr_requests, 2);
}

static void test_there_is_no_state_and_it_says_why(void **state)
{
    (void)state;
    assert_null(i8042_ops.state);
    assert_non_null(i8042_ops.stateless);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pulse_on_the_reset_line_resets, setup, teardown),
        cmocka_unit_test(test_there_is_no_state_and_it_says_why),
    };

    return cmocka_run_group_tests_name("i8042", tests, NULL, NULL);
}
