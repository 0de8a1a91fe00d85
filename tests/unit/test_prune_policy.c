/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <time.h>

#include "tools/chsnap/prune_policy.h"

enum {
    HOUR = 3600,
    DAY = 24 * HOUR,
    NOON = 1767610800, /* Monday 2026-01-05, 11:00 UTC */
};

static struct prune_item item(const char *group, int64_t seconds, uint64_t seq)
{
    return (struct prune_item){
        .group = group, .time_ns = (uint64_t)(NOON + seconds) * 1000000000U, .seq = seq};
}

static unsigned kept(const struct prune_item *items, size_t nr, uint64_t seq)
{
    for (size_t i = 0; i < nr; i++)
        if (items[i].seq == seq)
            return items[i].kept;
    fail();
    return 0;
}

static void test_the_last_are_the_newest_of_each_group(void **state)
{
    const struct prune_policy policy = {.keep = {[PRUNE_LAST] = 2}};
    struct prune_item items[] = {
        item("a", 0, 1), item("a", 10, 2), item("b", 5, 3), item("a", 10, 4), item("a", -5, 5),
    };

    (void)state;
    prune_decide(&policy, items, 5);
    assert_int_equal(kept(items, 5, 4), 1U << PRUNE_LAST); /* of equal times the later one */
    assert_int_equal(kept(items, 5, 2), 1U << PRUNE_LAST);
    assert_int_equal(kept(items, 5, 3), 1U << PRUNE_LAST);
    assert_int_equal(kept(items, 5, 1), 0);
    assert_int_equal(kept(items, 5, 5), 0);
}

static void test_a_period_keeps_its_newest_and_empty_ones_do_not_count(void **state)
{
    const struct prune_policy policy = {.keep = {[PRUNE_DAILY] = 3}};
    struct prune_item items[] = {
        item("a", 0, 1),          item("a", -HOUR, 2),     item("a", -DAY, 3),
        item("a", -DAY - 600, 4), item("a", -10 * DAY, 5), item("a", -11 * DAY, 6),
    };

    (void)state;
    prune_decide(&policy, items, 6);
    assert_int_equal(kept(items, 6, 1), 1U << PRUNE_DAILY);
    assert_int_equal(kept(items, 6, 2), 0);
    assert_int_equal(kept(items, 6, 3), 1U << PRUNE_DAILY);
    assert_int_equal(kept(items, 6, 4), 0);
    assert_int_equal(kept(items, 6, 5), 1U << PRUNE_DAILY);
    assert_int_equal(kept(items, 6, 6), 0);
}

static void test_weeks_begin_on_monday_and_hours_at_the_hour(void **state)
{
    const struct prune_policy policy = {
        .keep = {[PRUNE_WEEKLY] = 2, [PRUNE_HOURLY] = 1}
    };
    struct prune_item items[] = {
        item("a", 0, 1),
        item("a", -11 * HOUR + 1, 2),
        item("a", -11 * HOUR - 1, 3),
        item("a", -3 * DAY, 4),
    };

    (void)state;
    prune_decide(&policy, items, 4);
    assert_int_equal(kept(items, 4, 1), 1U << PRUNE_WEEKLY | 1U << PRUNE_HOURLY);
    assert_int_equal(kept(items, 4, 2), 0);                  /* Monday at 0:00:01 */
    assert_int_equal(kept(items, 4, 3), 1U << PRUNE_WEEKLY); /* Sunday */
    assert_int_equal(kept(items, 4, 4), 0);
}

static void test_nothing_is_kept_by_no_rule(void **state)
{
    const struct prune_policy policy = {0};
    struct prune_item items[] = {item("a", 0, 1)};

    (void)state;
    items[0].kept = PRUNE_KEPT_BY_TAG;
    prune_decide(&policy, items, 1);
    assert_int_equal(items[0].kept, PRUNE_KEPT_BY_TAG); /* what the caller decided stays */
    prune_decide(&policy, items, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_are_the_newest_of_each_group),
        cmocka_unit_test(test_a_period_keeps_its_newest_and_empty_ones_do_not_count),
        cmocka_unit_test(test_weeks_begin_on_monday_and_hours_at_the_hour),
        cmocka_unit_test(test_nothing_is_kept_by_no_rule),
    };

    (void)setenv("TZ", "UTC", 1);
    tzset();
    return cmocka_run_group_tests_name("prune_policy", tests, NULL, NULL);
}
