/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <time.h>

#include "core/civil.h"
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
    prune_decide(&policy, UINT64_MAX, items, 5);
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
    prune_decide(&policy, UINT64_MAX, items, 6);
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
    prune_decide(&policy, UINT64_MAX, items, 4);
    assert_int_equal(kept(items, 4, 1), 1U << PRUNE_WEEKLY | 1U << PRUNE_HOURLY);
    assert_int_equal(kept(items, 4, 2), 0);                  /* Monday at 0:00:01 */
    assert_int_equal(kept(items, 4, 3), 1U << PRUNE_WEEKLY); /* Sunday */
    assert_int_equal(kept(items, 4, 4), 0);
}

static struct prune_item taken(int64_t s, uint64_t seq)
{
    return (struct prune_item){.group = "a", .time_ns = (uint64_t)s * 1000000000U, .seq = seq};
}

static int64_t utc(int year, unsigned month, unsigned day, int hour, int minute)
{
    return civil_days(year, month, day) * DAY + hour * HOUR + minute * 60;
}

/* How many a rule keeps of snapshots at these moments, if it may keep all; in a time zone. */
static unsigned periods(const char *zone, enum prune_rule rule, const int64_t *moments, size_t nr)
{
    struct prune_policy policy = {0};
    struct prune_item items[64];
    unsigned n = 0;

    assert_true(nr <= ARRAY_LEN(items));
    assert_int_equal(setenv("TZ", zone, 1), 0);
    tzset();
    for (size_t i = 0; i < nr; i++)
        items[i] = taken(moments[i], i);
    policy.keep[rule] = (unsigned)nr;
    prune_decide(&policy, UINT64_MAX, items, nr);
    for (size_t i = 0; i < nr; i++)
        n += items[i].kept == 1U << rule;
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    tzset();
    return n;
}

/* Rules of POSIX, so that no files of zones are needed. */
#define BERLIN             "CET-1CEST,M3.5.0,M10.5.0/3"
#define LORD_HOWE          "LHST-10:30LHDT-11,M10.1.0,M4.1.0" /* half an hour */
#define BACK_OVER_MIDNIGHT "NST3:30NDT2:30,M4.1.0/0:01,M10.5.0/0:01"

static void test_an_hour_that_a_clock_shows_twice_is_two(void **state)
{
    int64_t half_hours[10], minutes[8];

    (void)state;
    /* 2026-10-25, 3:00 of summer, 1:00 UTC: it is 2:00 once more. */
    for (unsigned i = 0; i < 10; i++)
        half_hours[i] = utc(2026, 10, 24, 23, 0) + i * HOUR / 2;
    assert_int_equal(periods(BERLIN, PRUNE_HOURLY, half_hours, 10), 5);
    assert_int_equal(periods(BERLIN, PRUNE_DAILY, half_hours, 10), 1);
    /* 2026-04-05, 2:00 of summer, 15:00 UTC: it is 1:30 once more, for half an hour. */
    for (unsigned i = 0; i < 8; i++)
        minutes[i] = utc(2026, 4, 4, 14, 0) + i * 900;
    assert_int_equal(periods(LORD_HOWE, PRUNE_HOURLY, minutes, 8), 3);
    /* Where there is no 2:00, on 2026-03-29, no hour is missing. */
    for (unsigned i = 0; i < 10; i++)
        half_hours[i] = utc(2026, 3, 29, 0, 0) + i * HOUR / 2;
    assert_int_equal(periods(BERLIN, PRUNE_HOURLY, half_hours, 10), 5);
}

static void test_days_of_23_and_25_hours_are_days(void **state)
{
    int64_t hours[60];

    (void)state;
    /* From midnight to midnight of Berlin: Saturday, 25 hours, 11 hours of Monday. */
    for (unsigned i = 0; i < 60; i++)
        hours[i] = utc(2026, 10, 23, 22, 0) + i * HOUR;
    assert_int_equal(periods(BERLIN, PRUNE_DAILY, hours, 60), 3);
    assert_int_equal(periods(BERLIN, PRUNE_DAILY, hours, 49), 2);
    assert_int_equal(periods(BERLIN, PRUNE_DAILY, hours, 50), 3);
    assert_int_equal(periods(BERLIN, PRUNE_WEEKLY, hours, 49), 1);
    assert_int_equal(periods(BERLIN, PRUNE_WEEKLY, hours, 50), 2);
    /* The same moments are of other days elsewhere. */
    assert_int_equal(periods("UTC", PRUNE_DAILY, hours, 50), 3);
    assert_int_equal(periods("UTC", PRUNE_DAILY, hours, 2), 1);
    assert_int_equal(periods("UTC", PRUNE_DAILY, hours, 3), 2);
}

static void test_a_day_that_comes_twice_is_kept_once(void **state)
{
    const int64_t moments[] = {
        utc(2026, 10, 25, 2, 0),  /* Saturday 23:30 */
        utc(2026, 10, 25, 2, 30), /* Sunday 0:00, for one minute */
        utc(2026, 10, 25, 2, 40), /* Saturday 23:10 once more */
        utc(2026, 10, 25, 4, 0),  /* Sunday */
    };

    (void)state;
    assert_int_equal(periods(BACK_OVER_MIDNIGHT, PRUNE_DAILY, moments, 4), 2);
    /* The hour of one minute is the first of the one that follows. */
    assert_int_equal(periods(BACK_OVER_MIDNIGHT, PRUNE_HOURLY, moments, 4), 3);
}

static void test_weeks_do_not_end_with_the_year(void **state)
{
    int64_t days[28];

    (void)state;
    /* 2026-12-28 is the Monday of week 53, 2027-01-04 that of week 1. */
    for (unsigned i = 0; i < 28; i++)
        days[i] = utc(2026, 12, 21, 12, 0) + i * DAY;
    assert_int_equal(periods("UTC", PRUNE_WEEKLY, days, 28), 4);
    assert_int_equal(periods("UTC", PRUNE_WEEKLY, days + 7, 7), 1);
    assert_int_equal(periods("UTC", PRUNE_WEEKLY, days + 6, 2), 2);
    /* The last days of 2024 are of 2025's first week. */
    for (unsigned i = 0; i < 14; i++)
        days[i] = utc(2024, 12, 30, 12, 0) + i * DAY;
    assert_int_equal(periods("UTC", PRUNE_WEEKLY, days, 7), 1);
    assert_int_equal(periods("UTC", PRUNE_WEEKLY, days, 14), 2);
    /* And 1970 began on a Thursday. */
    for (unsigned i = 0; i < 14; i++)
        days[i] = i * DAY;
    assert_int_equal(periods("UTC", PRUNE_WEEKLY, days, 4), 1);
    assert_int_equal(periods("UTC", PRUNE_WEEKLY, days, 5), 2);
}

static void test_what_is_of_the_future_is_kept_and_takes_nobody_s_place(void **state)
{
    const struct prune_policy policy = {
        .keep = {[PRUNE_LAST] = 1, [PRUNE_DAILY] = 1}
    };
    struct prune_item items[] = {
        item("a", -HOUR, 1),
        item("a", 400 * DAY, 2), /* the clock was wrong, and was put right since */
        item("a", 0, 3),
        item("b", 1, 4),
    };

    (void)state;
    prune_decide(&policy, (uint64_t)NOON * 1000000000U, items, 4);
    assert_int_equal(kept(items, 4, 1), 0);
    assert_int_equal(kept(items, 4, 2), PRUNE_KEPT_OF_FUTURE);
    assert_int_equal(kept(items, 4, 3), 1U << PRUNE_LAST | 1U << PRUNE_DAILY);
    assert_int_equal(kept(items, 4, 4), PRUNE_KEPT_OF_FUTURE);
}

static void test_nothing_is_kept_by_no_rule(void **state)
{
    const struct prune_policy policy = {0};
    struct prune_item items[] = {item("a", 0, 1)};

    (void)state;
    items[0].kept = PRUNE_KEPT_BY_TAG;
    prune_decide(&policy, UINT64_MAX, items, 1);
    assert_int_equal(items[0].kept, PRUNE_KEPT_BY_TAG); /* what the caller decided stays */
    prune_decide(&policy, UINT64_MAX, items, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_are_the_newest_of_each_group),
        cmocka_unit_test(test_a_period_keeps_its_newest_and_empty_ones_do_not_count),
        cmocka_unit_test(test_weeks_begin_on_monday_and_hours_at_the_hour),
        cmocka_unit_test(test_an_hour_that_a_clock_shows_twice_is_two),
        cmocka_unit_test(test_days_of_23_and_25_hours_are_days),
        cmocka_unit_test(test_a_day_that_comes_twice_is_kept_once),
        cmocka_unit_test(test_weeks_do_not_end_with_the_year),
        cmocka_unit_test(test_what_is_of_the_future_is_kept_and_takes_nobody_s_place),
        cmocka_unit_test(test_nothing_is_kept_by_no_rule),
    };

    (void)setenv("TZ", "UTC", 1);
    tzset();
    return cmocka_run_group_tests_name("prune_policy", tests, NULL, NULL);
}
