/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every load has in common: one line of key=value that always shows a whole state, because
 * it is renamed into place, and the clock that the line is paced by.
 */
#ifndef TESTS_NESTED_AGENTS_LOAD_STATUS_H
#define TESTS_NESTED_AGENTS_LOAD_STATUS_H

#include <stdarg.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"

static inline int64_t load_now_ns(clockid_t clock)
{
    struct timespec ts;

    if (clock_gettime(clock, &ts)) {
        perror("clock_gettime");
        exit(1);
    }
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* LOAD_SLOWER times as long, where many guests share a processor. */
static inline void load_sleep_ms(int64_t ms)
{
    const char *slower = getenv("LOAD_SLOWER");
    int64_t all = ms * (slower ? strtol(slower, NULL, 10) : 1);
    struct timespec ts = {.tv_sec = all / 1000, .tv_nsec = (all % 1000) * 1000000};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

PRINTF(2, 3) static inline void load_status(const char *path, const char *fmt, ...)
{
    char tmp[256];
    va_list ap;
    FILE *f;

    (void)snprintf(tmp, sizeof(tmp), "%s.new", path);
    f = fopen(tmp, "w");
    if (!f) {
        perror(tmp);
        exit(1);
    }
    va_start(ap, fmt);
    (void)vfprintf(f, fmt, ap);
    va_end(ap);
    (void)fputc('\n', f);
    if (fclose(f) || rename(tmp, path)) {
        perror(path);
        exit(1);
    }
}

#endif
