/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/x86/layout.h"
#include "devices/acpi_shutdown.h"
#include "tests/fakes/device_check.h"

static int setup(void **state)
{
    *state = device_pair_new(&acpi_shutdown_ops, "acpi-shutdown", NULL);
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

static const struct device_row rows[] = {
    {"it never says that it woke", 'r', 0, 0, 1, 0,    0},
    {"nothing",                    'w', 0, 0, 1, 0,    1},
    {"S5 without SLP_EN",          'w', 0, 0, 1, 0x14, 2},
    {"S3",                         'w', 0, 0, 1, 0x2c, 3},
};

static void test_guest_access(void **state)
{
    struct device_pair *p = *state;

    device_check_rows(p->dev, rows, ARRAY_LEN(rows));
    assert_int_equal(p->fe->nr_requests, 0);
}

static void test_what_the_acpi_tables_announce_is_what_acts(void **state)
{
    struct device_pair *p = *state;

    device_check_write(p->dev, 0, 0, 1, X86_ACPI_RESET_VALUE);
    device_check_write(p->dev, 0, 0, 1, X86_ACPI_S5_VALUE);
    assert_int_equal(p->fe->nr_requests, 2);
    assert_int_equal(p->fe->requests[0], MACHINE_RESET);
    assert_int_equal(p->fe->requests[1], MACHINE_SHUTDOWN);
    assert_int_equal(p->dev->guest_errors, 0);
}

static void test_there_is_no_state_and_it_says_why(void **state)
{
    (void)state;
    assert_null(acpi_shutdown_ops.state);
    assert_non_null(acpi_shutdown_ops.stateless);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_the_acpi_tables_announce_is_what_acts, setup,
                                        teardown),
        cmocka_unit_test(test_there_is_no_state_and_it_says_why),
    };

    return cmocka_run_group_tests_name("acpi_shutdown", tests, NULL, NULL);
}
