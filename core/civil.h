/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dates of UTC, in the proleptic Gregorian calendar.
 *
 * gmtime_r() reads the time zone's file at its first use, which takes a start's time and a sandbox
 * forbids.
 */
#ifndef CORE_CIVIL_H
#define CORE_CIVIL_H

#include "core/base.h"

struct civil_time {
    int64_t year;
    unsigned month, day, hour, minute, second; /* month and day from 1 */
};

/**
 * civil_time() - what clocks and calendars show.
 * @s: seconds since 1970-01-01, within 10^15 of it.
 *
 * Threads: any.
 */
struct civil_time civil_time(int64_t s);

/**
 * civil_days() - days from 1970-01-01 to a date.
 * @year:  within 10^12 of 1970.
 * @month: from 1 to 12.
 * @day:   any: days beyond a month's last are of the next.
 *
 * Threads: any.
 */
int64_t civil_days(int64_t year, unsigned month, unsigned day);

/**
 * civil_weekday() - the day of the week.
 * @s: as for civil_time().
 *
 * Return: 1 (Sunday) to 7.
 * Threads: any.
 */
unsigned civil_weekday(int64_t s);

#endif
