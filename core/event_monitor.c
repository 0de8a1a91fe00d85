/* SPDX-License-Identifier: Apache-2.0 */
#include "core/event_monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/rate_limit.h"

struct event_monitor {
    int fd;
    uint64_t start_ns;
    pthread_mutex_t lock; /* one event at a time; a leaf */
    uint64_t dropped;
    struct rate_limit guest; /* what it may cause */
};

/* A text that grows in place and remembers that it did not fit. */
struct text {
    size_t len;
    bool full;
    char buf[EVENT_BYTES_MAX];
};

static uint64_t now_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

int event_monitor_open(const char *path, int fd, struct event_monitor **ret_em, struct err *err)
{
    auto_close int target = fd;
    struct event_monitor *em;
    int flags;

    if (path)
        target =
            open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    if (target < 0)
        return err_set(err, path ? -errno : -EBADF, "event monitor: cannot open %s: %s",
                       path ? path : "it", strerror(path ? errno : EBADF));
    flags = fcntl(target, F_GETFL);
    if (flags < 0 || fcntl(target, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(target, F_SETFD, FD_CLOEXEC) < 0)
        return err_set(err, -errno, "event monitor: descriptor %d: %s", target, strerror(errno));
    if ((flags & O_ACCMODE) == O_RDONLY)
        return err_set(err, -EBADF, "event monitor: descriptor %d is only for reading", target);
    em = calloc(1, sizeof(*em));
    if (!em)
        return err_set(err, -ENOMEM, "out of memory");
    em->fd = steal_fd(&target);
    em->start_ns = now_ns();
    em->guest.burst = EVENT_GUEST_BURST;
    em->guest.per_s = EVENT_GUEST_PER_S;
    (void)pthread_mutex_init(&em->lock, NULL);
    *ret_em = em;
    return 0;
}

void event_monitor_close(struct event_monitor *em)
{
    if (!em)
        return;
    (void)close(em->fd);
    (void)pthread_mutex_destroy(&em->lock);
    free(em);
}

static void add(struct text *text, const char *s, size_t len)
{
    if (text->full || len > sizeof(text->buf) - text->len) {
        text->full = true;
        return;
    }
    memcpy(text->buf + text->len, s, len);
    text->len += len;
}

static void add_text(struct text *text, const char *s)
{
    add(text, s, strlen(s));
}

static void add_string(struct text *text, const char *s)
{
    char escape[8];

    add_text(text, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\' || (unsigned char)*s < 0x20) {
            (void)snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)(unsigned char)*s);
            add_text(text, escape);
        } else {
            add(text, s, 1);
        }
    }
    add_text(text, "\"");
}

static void add_properties(struct text *text, const struct event_property *props, unsigned nr)
{
    if (!nr) {
        add_text(text, "null");
        return;
    }
    add_text(text, "{");
    for (unsigned i = 0; i < nr; i++) {
        add_text(text, i ? ",\n    " : "\n    ");
        add_string(text, props[i].key);
        add_text(text, ": ");
        add_string(text, props[i].value);
    }
    add_text(text, "\n  }");
}

static void format(struct text *text, uint64_t ns, const char *source, const char *event,
                   const struct event_property *props, unsigned nr)
{
    char stamp[128];

    text->len = 0;
    text->full = false;
    (void)snprintf(stamp, sizeof(stamp),
                   "{\n  \"timestamp\": {\n    \"secs\": %" PRIu64 ",\n    \"nanos\": %" PRIu64
                   "\n  },\n  \"source\": ",
                   ns / UINT64_C(1000000000), ns % UINT64_C(1000000000));
    add_text(text, stamp);
    add_string(text, source);
    add_text(text, ",\n  \"event\": ");
    add_string(text, event);
    add_text(text, ",\n  \"properties\": ");
    add_properties(text, props, nr);
    add_text(text, "\n}\n\n");
}

void event_monitor_emit(struct event_monitor *em, const char *source, const char *event,
                        const struct event_property *props, unsigned nr_props)
{
    struct text text;
    uint64_t ns;

    if (!em)
        return;
    (void)pthread_mutex_lock(&em->lock);
    ns = now_ns() - em->start_ns;
    format(&text, ns, source, event, props, nr_props);
    if (text.full)
        format(&text, ns, source, event, NULL, 0);
    if (text.full || write(em->fd, text.buf, text.len) != (ssize_t)text.len)
        em->dropped++;
    (void)pthread_mutex_unlock(&em->lock);
}

void event_monitor_emit_id(struct event_monitor *em, const char *source, const char *event,
                           const char *id)
{
    const struct event_property prop = {"id", id};

    event_monitor_emit(em, source, event, &prop, id ? 1 : 0);
}

void event_monitor_emit_guest(struct event_monitor *em, const char *source, const char *event,
                              const char *id)
{
    if (!em)
        return;
    if (rate_limit_take(&em->guest)) {
        event_monitor_emit_id(em, source, event, id);
        return;
    }
    (void)pthread_mutex_lock(&em->lock);
    em->dropped++;
    (void)pthread_mutex_unlock(&em->lock);
}

uint64_t event_monitor_dropped(struct event_monitor *em)
{
    uint64_t n;

    (void)pthread_mutex_lock(&em->lock);
    n = em->dropped;
    (void)pthread_mutex_unlock(&em->lock);
    return n;
}
