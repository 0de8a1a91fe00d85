/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration's progress, asked for until it is over.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json_object.h>
#include <string.h>
#include <time.h>

#include "core/json_get.h"
#include "tools/chctl/chctl.h"

enum {
    FOLLOW_EVERY_MS = 100,
    FOLLOW_TEXT_MAX = 32,
    FOLLOW_IDLE_MAX = 50, /* times without a migration at first: it may be about to begin */
};

struct progress {
    char phase[FOLLOW_TEXT_MAX], result[FOLLOW_TEXT_MAX];
    uint64_t round, total, remaining, rate, time_left_ns, blackout_ns;
};

static const char *show_size(uint64_t bytes, char *buf)
{
    static const char units[][4] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t i = 0;

    for (; v >= 1024 && i + 1 < ARRAY_LEN(units); i++)
        v /= 1024;
    (void)snprintf(buf, FOLLOW_TEXT_MAX, i ? "%.1f %s" : "%.0f %s", v, units[i]);
    return buf;
}

/* Fields that are not there, or are of another type, stay 0: this is only shown. */
static uint64_t get(struct json_object *obj, const char *key)
{
    uint64_t v = 0;

    return json_get_u64(obj, key, 0, UINT64_MAX - 1, &v, NULL) == 1 ? v : 0;
}

static void get_text(struct json_object *obj, const char *key, char *text)
{
    const char *s = "";

    if (json_get_string(obj, key, FOLLOW_TEXT_MAX - 1, &s, NULL) != 1)
        s = "";
    (void)snprintf(text, FOLLOW_TEXT_MAX, "%s", s);
}

static int read_progress(const struct http_response *res, struct progress *ret_p)
{
    struct json_object *obj = NULL;
    int rc = json_parse(res->body, res->body_len, &obj, NULL);

    if (rc)
        return rc;
    *ret_p = (struct progress){
        .round = get(obj, "round"),
        .total = get(obj, "total_bytes"),
        .remaining = get(obj, "remaining_bytes"),
        .rate = get(obj, "rate_bytes_per_s"),
        .time_left_ns = get(obj, "time_left_ns"),
        .blackout_ns = get(obj, "expected_blackout_ns"),
    };
    get_text(obj, "phase", ret_p->phase);
    get_text(obj, "result", ret_p->result);
    json_object_put(obj);
    return 0;
}

static void show(const struct progress *p)
{
    char left[FOLLOW_TEXT_MAX], total[FOLLOW_TEXT_MAX], rate[FOLLOW_TEXT_MAX];

    if (!isatty(STDERR_FILENO))
        return;
    (void)fprintf(stderr, "\r\033[K%s", p->phase);
    if (p->total) {
        (void)fprintf(stderr, ", round %" PRIu64 ", %s of %s to go, %s/s", p->round,
                      show_size(p->remaining, left), show_size(p->total, total),
                      show_size(p->rate, rate));
    }
    if (p->time_left_ns)
        (void)fprintf(stderr, ", %" PRIu64 " s left", p->time_left_ns / UINT64_C(1000000000) + 1);
    if (p->blackout_ns)
        (void)fprintf(stderr, ", the guest will stand still for about %" PRIu64 " ms",
                      p->blackout_ns / UINT64_C(1000000));
}

static void wait_a_little(void)
{
    const struct timespec ts = {.tv_nsec = FOLLOW_EVERY_MS * 1000000L};

    (void)nanosleep(&ts, NULL);
}

static int follow_end(const struct http_response *res, const struct progress *p)
{
    int code;

    if (isatty(STDERR_FILENO))
        (void)fputs("\r\033[K", stderr);
    code = chctl_report(res);
    return strcmp(p->result, "completed") != 0 ? CHCTL_FAILED : code;
}

/* The VMM is gone.  A source ends once its VM runs elsewhere, but it may also have been killed. */
static int follow_lost(const struct progress *p, const struct err *err)
{
    struct err why = {0};

    if (isatty(STDERR_FILENO))
        (void)fputs("\r\033[K", stderr);
    if (!p->phase[0])
        return chctl_complain(CHCTL_FAILED, err);
    (void)err_set(
        &why, -ECONNRESET,
        "the VMM has ended, as a source does once its VM runs elsewhere; the migration was "
        "last seen in phase %s: look at the destination",
        p->phase);
    return chctl_complain(CHCTL_FAILED, &why);
}

int chctl_follow(const struct chctl_call *call, const char *socket_path)
{
    struct progress p = {0};
    unsigned idle = 0;

    for (;;) {
        struct http_response res = {0};
        struct err err = {0};
        int code = -1;

        if (chctl_call_send(call, socket_path, &res, &err))
            return follow_lost(&p, &err);
        if (res.status != 200 || read_progress(&res, &p))
            code = res.status == 200 ? CHCTL_FAILED : chctl_report(&res);
        else if (!strcmp(p.phase, "done") ||
                 (!strcmp(p.phase, "idle") && idle++ == FOLLOW_IDLE_MAX))
            code = follow_end(&res, &p);
        http_response_release(&res);
        if (code >= 0)
            return code;
        show(&p);
        wait_a_little();
    }
}
