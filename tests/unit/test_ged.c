/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/x86/layout.h"
#include "devices/ged.h"
#include "tests/fakes/device_check.h"

enum {
    PIN = 5,
};

static int setup(void **state)
{
    const struct ged_config cfg = {.irq = PIN};
    struct device_pair *p = device_pair_new(&ged_ops, "ged", &cfg);

    fake_env_clear(p->fe);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

static void test_guest_takes_all_events_at_once(void **state)
{
    struct device_pair *p = *state;

    ged_raise(p->dev, 0);
    assert_int_equal(p->fe->nr_irqs, 0);
    ged_raise(p->dev, X86_GED_POWER_BUTTON);
    assert_true(p->fe->irq_level[PIN]);
    ged_raise(p->dev, X86_GED_GENID);
    assert_int_equal(device_check_read(p->dev, 0, 0, 1), X86_GED_POWER_BUTTON | X86_GED_GENID);
    assert_false(p->fe->irq_level[PIN]);
    assert_int_equal(device_check_read(p->dev, 0, 0, 1), 0);
}

static void test_every_event_is_an_edge(void **state)
{
    struct device_pair *p = *state;

    ged_raise(p->dev, X86_GED_POWER_BUTTON);
    assert_int_equal(p->fe->nr_irqs, 1);
    /* The first was lost on a masked pin: the second is down, then up. */
    ged_raise(p->dev, X86_GED_POWER_BUTTON);
    assert_int_equal(p->fe->nr_irqs, 3);
    assert_false(p->fe->irqs[1].level);
    assert_true(p->fe->irqs[2].level);
}

static void test_writes_are_counted_and_ignored(void **state)
{
    struct device_pair *p = *state;

    ged_raise(p->dev, 2);
    device_check_write(p->dev, 0, 0, 1, 0);
    assert_int_equal(p->dev->guest_errors, 1);
    assert_int_equal(device_check_read(p->dev, 0, 0, 1), 2);
}

static void test_reset_drops_what_is_pending(void **state)
{
    struct device_pair *p = *state;

    ged_raise(p->dev, 2);
    ged_ops.reset(p->dev);
    assert_false(p->fe->irq_level[PIN]);
    assert_int_equal(device_check_read(p->dev, 0, 0, 1), 0);
}

static void test_pending_events_survive_a_move(void **state)
{
    struct device_pair *p = *state;

    ged_raise(p->dev, X86_GED_POWER_BUTTON);
    device_check_round_trip(p->dev, p->fresh);
    p->fe->irq_level[PIN] = false;
    device_check_resume(p->fresh);
    assert_true(p->fe->irq_level[PIN]);
    assert_int_equal(device_check_read(p->fresh, 0, 0, 1), X86_GED_POWER_BUTTON);
}

static void test_bad_state_is_refused(void **state)
{
    struct device_pair *p = *state;

    ged_raise(p->dev, 3);
    device_check_bad_state(p->dev, p->fresh);
    device_check_refused(p->dev, "pending", "\xf4", 1, "pending: not an integer of this kind");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_takes_all_events_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_event_is_an_edge, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writes_are_counted_and_ignored, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_drops_what_is_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pending_events_survive_a_move, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_state_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("ged", tests, NULL, NULL);
}
