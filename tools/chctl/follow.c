/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration's progress, shown until it is over.
 */
#include <errno.h>
#include <json-c/json_object.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "core/json_get.h"
#include "tools/chctl/chctl.h"
#include "tools/chctl/plot.h"
#include "tools/chctl/progress_view.h"

enum {
    FOLLOW_EVERY_MS = 100,
    FOLLOW_IDLE_MAX = 50, /* times without a migration at first: it may be about to begin */
    FOLLOW_QUIET_S = 5,   /* a line at least so often where there is no terminal */
    COLUMNS_DEFAULT = 80,
};

/* What was shown last. */
struct shown {
    char phase[PROGRESS_TEXT_MAX];
    uint64_t round;
    time_t at_s;
};

static bool is_terminal(void)
{
    return isatty(STDERR_FILENO);
}

static time_t now_s(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec;
}

static int read_progress(const struct http_response *res, struct progress_view *ret_v)
{
    struct json_object *obj = NULL;
    int rc = json_parse(res->body, res->body_len, &obj, NULL);

    if (rc)
        return rc;
    progress_view_get(obj, ret_v);
    json_object_put(obj);
    return 0;
}

static void show(const struct progress_view *v, struct shown *shown)
{
    struct winsize size = {0};
    char line[PROGRESS_LINE_MAX];

    if (is_terminal()) {
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col)
            size.ws_col = COLUMNS_DEFAULT;
        /* The last column stays free: some terminals go on in the next line. */
        progress_view_line(v, size.ws_col - 1U, line);
        (void)fprintf(stderr, "\r\033[K%s", line);
        return;
    }
    if (!strcmp(v->phase, "idle") || (!strcmp(v->phase, shown->phase) && v->round == shown->round &&
                                      now_s() < shown->at_s + FOLLOW_QUIET_S))
        return;
    memcpy(shown->phase, v->phase, sizeof(shown->phase));
    shown->round = v->round;
    shown->at_s = now_s();
    progress_view_line(v, 0, line);
    (void)fprintf(stderr, "%s\n", line);
}

static void wait_a_little(void)
{
    const struct timespec ts = {.tv_nsec = FOLLOW_EVERY_MS * 1000000L};

    (void)nanosleep(&ts, NULL);
}

static void clear_line(void)
{
    if (is_terminal())
        (void)fputs("\r\033[K", stderr);
}

static int write_file(const char *path, const char *data, size_t len, struct err *err)
{
    FILE *out = fopen(path, "we");
    size_t n = out ? fwrite(data, 1, len, out) : 0;

    if (!out || fclose(out) != 0 || n != len)
        return err_set(err, -errno, "%s", strerror(errno));
    return 0;
}

int chctl_plot(const char *path, const struct http_response *res)
{
    struct json_object *obj = NULL;
    auto_free char *svg = NULL;
    struct err err = {0};
    size_t len = 0;
    FILE *out;
    int rc = json_parse(res->body, res->body_len, &obj, &err);

    if (rc)
        return chctl_complain(CHCTL_FAILED, &err);
    /* Drawn first: where nothing can be, a file of before stays as it is. */
    out = open_memstream(&svg, &len);
    rc = out ? plot_write(obj, out, &err) : err_set(&err, -ENOMEM, "out of memory");
    if (out && fclose(out) && !rc)
        rc = err_set(&err, -ENOMEM, "out of memory");
    if (!rc)
        rc = write_file(path, svg, len, &err);
    json_object_put(obj);
    if (!rc)
        return CHCTL_OK;
    (void)err_prefix(&err, rc, "--plot: %.160s", path);
    return chctl_complain(CHCTL_FAILED, &err);
}

static int follow_end(const struct chctl_call *call, const struct http_response *res,
                      const struct progress_view *v)
{
    int code;

    clear_line();
    code = chctl_report(res);
    if (call->plot && chctl_plot(call->plot, res) != CHCTL_OK)
        code = CHCTL_FAILED;
    return strcmp(v->result, "completed") != 0 ? CHCTL_FAILED : code;
}

/*
 * Ask for the end, which the VMM answers when it has come (and before it ends itself, as a source
 * does once its VM runs elsewhere).  Until then a terminal is shown how far it is.
 */
static int wait_for_end(const struct chctl_call *call, const char *socket_path, struct shown *shown,
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
    while (poll(&pfd, 1, FOLLOW_EVERY_MS) <= 0) {
        struct http_response res = {0};
        struct progress_view v;

        if (!chctl_call_send(call, socket_path, &res, NULL) && res.status == 200 &&
            !read_progress(&res, &v))
            show(&v, shown);
        http_response_release(&res);
    }
    return http_client_receive(fd, ret_res, err);
}

int chctl_follow(const struct chctl_call *call, const char *socket_path)
{
    struct shown shown = {0};

    for (unsigned idle = 0;; idle++) {
        struct http_response res = {0};
        struct progress_view v = {0};
        struct err err = {0};
        int code = -1;

        if (wait_for_end(call, socket_path, &shown, &res, &err)) {
            clear_line();
            return chctl_complain(CHCTL_FAILED, &err);
        }
        if (res.status != 200 || read_progress(&res, &v))
            code = res.status == 200 ? CHCTL_FAILED : chctl_report(&res);
        else if (strcmp(v.phase, "idle") != 0 || idle == FOLLOW_IDLE_MAX)
            code = follow_end(call, &res, &v);
        http_response_release(&res);
        if (code >= 0)
            return code;
        wait_a_little();
    }
}
