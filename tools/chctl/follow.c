/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration's progress, shown until it is over.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json_object.h>
#include <poll.h>
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

static void clear_line(void)
{
    if (isatty(STDERR_FILENO))
        (void)fputs("\r\033[K", stderr);
}

static int follow_end(const struct http_response *res, const struct progress *p)
{
    int code;

    clear_line();
    code = chctl_report(res);
    return strcmp(p->result, "completed") != 0 ? CHCTL_FAILED : code;
}

/*
 * Ask for the end, which the VMM answers when it has come (and before it ends itself, as a source
 * does once its VM runs elsewhere).  Until then a terminal is shown how far it is.
 */
static int wait_for_end(const struct chctl_call *call, const char *socket_path,
                        struct http_response *ret_res, struct err *err)
{
    const struct http_request req = {.method = "GET", .path = "/api/v1/vm.migration-wait"};
    auto_close int fd = -1;
    struct pollfd pfd = {.events = POLLIN};
    int rc = http_client_connect(socket_path, &fd, err);

    if (!rc)
        rc = http_client_send(fd, &req, err);
    if (rc)
        return rc;
    pfd.fd = fd;
    while (poll(&pfd, 1, isatty(STDERR_FILENO) ? FOLLOW_EVERY_MS : -1) <= 0) {
        struct http_response res = {0};
        struct progress p;

        if (!chctl_call_send(call, socket_path, &res, NULL) && res.status == 200 &&
            !read_progress(&res, &p))
            show(&p);
        http_response_release(&res);
    }
    return http_client_receive(fd, ret_res, err);
}

int chctl_follow(const struct chctl_call *call, const char *socket_path)
{
    for (unsigned idle = 0;; idle++) {
        struct http_response res = {0};
        struct progress p = {0};
        struct err err = {0};
        int code = -1;

        if (wait_for_end(call, socket_path, &res, &err)) {
            clear_line();
            return chctl_complain(CHCTL_FAILED, &err);
        }
        if (res.status != 200 || read_progress(&res, &p))
            code = res.status == 200 ? CHCTL_FAILED : chctl_report(&res);
        else if (strcmp(p.phase, "idle") != 0 || idle == FOLLOW_IDLE_MAX)
            code = follow_end(&res, &p);
        http_response_release(&res);
        if (code >= 0)
            return code;
        wait_a_little();
    }
}
