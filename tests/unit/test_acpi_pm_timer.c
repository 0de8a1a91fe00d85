/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/acpi_pm_timer.h"
#include "tests/fakes/device_check.h"

static int setup(void **state)
{
    *state = device_pair_new(&acpi_pm_timer_ops, "pm-timer", NULL);
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

/* Guest time, and what ACPI 6.5, 4.8.2.1 makes of it: 3.579545 MHz, 32 bits. */
static const struct {
    uint64_t now_ns;
    uint32_t ticks;
} times[] = {
  /* clang-format off */
    {0,                             0},
    {279,                           0},
    {280,                           1},
    {UINT64_C(1000000),             3579},
    {UINT64_C(1000000000),          3579545},
    {UINT64_C(1199864031881),       UINT32_MAX}, /* the last nanosecond before it wraps */
    {UINT64_C(1199864031882),       0},
    {UINT64_C(9223372036000000000), 1520709476}, /* 292 years */
  /* clang-format on */
};

static void test_counter_follows_guest_time(void **state)
{
    struct device_pair *p = *state;

    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        p->fe->now_ns = times[i].now_ns;
        assert_int_equal(device_check_read(p->dev, 0, 0, 4), times[i].ticks);
    }
}

static void test_parts_of_the_counter_can_be_read(void **state)
{
    struct device_pair *p = *state;

    p->fe->now_ns = UINT64_C(1000000000);
    assert_int_equal(device_check_read(p->dev, 0, 0, 4), 0x369e99);
    assert_int_equal(device_check_read(p->dev, 0, 0, 2), 0x9e99);
    assert_int_equal(device_check_read(p->dev, 0, 2, 1), 0x36);
    assert_int_equal(device_check_read(p->dev, 0, 3, 1), 0);
}

static void test_writes_are_counted_and_ignored(void **state)
{
    struct device_pair *p = *state;

    p->fe->now_ns = UINT64_C(1000000000);
    device_check_write(p->dev, 0, 0, 4, 0);
    assert_int_equal(p->dev->guest_errors, 1);
    assert_int_equal(device_check_read(p->dev, 0, 0, 4), 3579545);
}

static void test_reset_starts_from_zero(void **state)
{
    struct device_pair *p = *state;

    p->fe->now_ns = 12345678;
    acpi_pm_timer_ops.reset(p->dev);
    assert_int_equal(device_check_read(p->dev, 0, 0, 4), 0);
    p->fe->now_ns += 1000000000;
    assert_int_equal(device_check_read(p->dev, 0, 0, 4), 3579545);
}

static void test_counter_does_not_jump_when_it_moves(void **state)
{
    struct device_pair *p = *state;
    uint64_t before;

    p->fe->now_ns = 777;
    acpi_pm_timer_ops.reset(p->dev);
    p->fe->now_ns = UINT64_C(5000000000);
    acpi_pm_timer_ops.reset(p->fresh); /* a machine that was built later */
    before = device_check_read(p->dev, 0, 0, 4);
    device_check_round_trip(p->dev, p->fresh);
    assert_int_equal(device_check_read(p->fresh, 0, 0, 4), before);
    assert_int_equal(before, 17897722);
}

static void test_bad_state_is_refused(void **state)
{
    struct device_pair *p = *state;

    p->fe->now_ns = 777;
    acpi_pm_timer_ops.reset(p->dev);
    device_check_bad_state(p->dev, p->fresh);
    device_check_refused(p->dev, "zero_ns", "\x20", 1, "zero_ns: not an integer of this kind");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counter_follows_guest_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parts_of_the_counter_can_be_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writes_are_counted_and_ignored, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_starts_from_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(test_counter_does_not_jump_when_it_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_state_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("acpi_pm_timer", tests, NULL, NULL);
}
