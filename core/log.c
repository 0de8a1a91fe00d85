/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"

#include <stdarg.h>

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "core/civil.h"

enum {
    LOG_LINE_MAX = 1024,
    LOG_NAME_MAX = 16,
};

static int log_fd = STDERR_FILENO;
static enum log_level log_max = LOG_WARN;
static _Thread_local char log_name[LOG_NAME_MAX] = "main";

void log_init(int fd, enum log_level level)
{
    log_fd = fd;
    log_max = level;
}

bool log_enabled(enum log_level level)
{
    return level <= log_max;
}

void log_thread_name(const char *name)
{
    (void)snprintf(log_name, sizeof(log_name), "%s", name);
    (void)prctl(PR_SET_NAME, log_name);
}

static size_t log_head(char *line, size_t cap, enum log_level level)
{
    static const char names[][6] = {"error", "warn ", "info ", "debug"};
    struct timespec ts = {0};
    struct civil_time t;
    int n;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    t = civil_time(ts.tv_sec);
    n = snprintf(line, cap, "%04lld-%02u-%02uT%02u:%02u:%02u.%06ldZ %s %s ", (long long)t.year,
                 t.month, t.day, t.hour, t.minute, t.second, ts.tv_nsec / 1000, names[level],
                 log_name);
    return n < 0 ? 0 : (size_t)n;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    char line[LOG_LINE_MAX];
    size_t n, head;
    va_list ap;
    int m;

    if (!log_enabled(level))
        return;
    n = head = log_head(line, sizeof(line), level);
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
    va_end(ap);
    if (m > 0)
        n += (size_t)m < sizeof(line) - n - 1 ? (size_t)m : sizeof(line) - n - 2;
    for (size_t i = head; i < n; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[n++] = '\n';
    /* A log that cannot be written must not stop the VM. */
    if (write(log_fd, line, n) < 0)
        return;
}
