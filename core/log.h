/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process log: one line a message, to standard error or to a file.
 *
 *     2026-11-22T19:17:26.123456Z info  vcpu0 vm: running
 *
 * Library code reports failures by struct err, and logs for debugging, or what it
 * goes on after and no caller is told; tools/ print each failure once.
 */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include "core/base.h"

enum log_level {
    LOG_ERROR,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG,
};

/**
 * log_init() - choose where lines go and which.
 * @fd:    file descriptor; borrowed, stays open for the life of the process.
 * @level: lines above it are dropped.
 *
 * Before the call: standard error, LOG_WARN.
 * Threads: before the process has a second thread.
 */
void log_init(int fd, enum log_level level);

/**
 * log_enabled() - whether a line of this level would be written.
 *
 * Return: true if so.
 * Threads: any.
 */
bool log_enabled(enum log_level level);

/**
 * log_thread_name() - name the calling thread in its lines and in /proc.
 * @name: at most 15 characters; copied.
 *
 * Threads: any, for itself.
 */
void log_thread_name(const char *name);

/**
 * log_write() - write one line; use the macros below.
 *
 * A line longer than 1 KiB is cut.  Control characters become '?', so that
 * nothing a guest or a peer sent can forge a line.
 * Threads: any; one write(2) per line.
 */
void log_write(enum log_level level, const char *fmt, ...) PRINTF(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                         \
    do {                                       \
        if (log_enabled(LOG_DEBUG))            \
            log_write(LOG_DEBUG, __VA_ARGS__); \
    } while (0)

#endif
