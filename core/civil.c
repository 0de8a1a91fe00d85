/* SPDX-License-Identifier: Apache-2.0 */
#include "core/civil.h"

/*
 * Years begin in March, so that the leap day is their last, and come in eras of 400, each of
 * 146097 days; the first era's first day is 719468 days before 1970-01-01.
 */

static int64_t days_since_epoch(int64_t s)
{
    return (s >= 0 ? s : s - 86399) / 86400;
}

int64_t civil_days(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + (int64_t)day - 1;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

struct civil_time civil_time(int64_t s)
{
    int64_t days = days_since_epoch(s);
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    unsigned rest = (unsigned)(s - days * 86400);
    struct civil_time t;

    t.day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
    t.month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
    t.year = yoe + era * 400 + (t.month <= 2);
    t.hour = rest / 3600;
    t.minute = rest / 60 % 60;
    t.second = rest % 60;
    return t;
}

unsigned civil_weekday(int64_t s)
{
    /* 1970-01-01 was a Thursday. */
    return (unsigned)(((days_since_epoch(s) + 4) % 7 + 7) % 7) + 1;
}
