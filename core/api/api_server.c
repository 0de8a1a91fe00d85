/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/api_server.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "core/api/api_internal.h"
#include "core/json_get.h"
#include "core/log.h"

enum {
    STOP_TICK_MS = 2,
};

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

/* ---- requests, for their functions ----------------------------------------- */

const char *api_request_path(const struct api_request *req)
{
    return req->path;
}

const char *api_request_body(const struct api_request *req, size_t *ret_len)
{
    *ret_len = req->body_len;
    return req->body;
}

unsigned api_request_take_fds(struct api_request *req, int *fds)
{
    unsigned n = req->nr_fds;

    memcpy(fds, req->fds, n * sizeof(int));
    req->nr_fds = 0;
    return n;
}

/* ---- replies --------------------------------------------------------------- */

static void push_done_locked(struct api_server *srv, struct api_request *req)
{
    STAILQ_INSERT_TAIL(&srv->done, req, done_link);
    (void)eventfd_write(srv->wake_fd, 1);
}

static struct api_request *pop_done(struct api_server *srv)
{
    struct api_request *req;

    (void)pthread_mutex_lock(&srv->lock);
    req = STAILQ_FIRST(&srv->done);
    if (req)
        STAILQ_REMOVE_HEAD(&srv->done, done_link);
    (void)pthread_mutex_unlock(&srv->lock);
    return req;
}

/* Keep a reply, @text taken, unless there is one; wakes the server where the request is suspended. */
static void set_reply(struct api_request *req, unsigned status, char *text, size_t len)
{
    struct api_server *srv = req->srv;

    (void)pthread_mutex_lock(&srv->lock);
    if (req->replied || req->detached) {
        free(text);
    } else {
        req->status = status;
        req->reply = text;
        req->reply_len = len;
        req->replied = true;
        if (req->suspended)
            push_done_locked(srv, req);
    }
    (void)pthread_mutex_unlock(&srv->lock);
}

/* The owner is through with it. */
static void reply_text(struct api_request *req, unsigned status, char *text, size_t len)
{
    struct api_server *srv = req->srv;
    bool free_it;

    set_reply(req, status, text, len);
    (void)pthread_mutex_lock(&srv->lock);
    req->owned = false;
    free_it = req->detached;
    (void)pthread_mutex_unlock(&srv->lock);
    if (free_it)
        api_request_free(req);
}

void api_reply(struct api_request *req, unsigned status, const char *body, size_t len)
{
    char *copy = NULL;

    if (body && len) {
        copy = malloc(len);
        if (!copy) {
            reply_text(req, 500, NULL, 0);
            return;
        }
        memcpy(copy, body, len);
    }
    reply_text(req, status, copy, copy ? len : 0);
}

void api_reply_json(struct api_request *req, struct json_object *obj)
{
    char *text = NULL;
    size_t len = 0;
    int rc = obj ? json_print(obj, &text, &len) : -ENOMEM;

    json_object_put(obj);
    reply_text(req, rc ? 500 : 200, text, len);
}

void api_reply_done(struct api_request *req)
{
    reply_text(req, 204, NULL, 0);
}

unsigned api_status(int rc)
{
    switch (rc) {
    case -EINVAL:
    case -E2BIG:
    case -ENOTSUP:
    case -EBADMSG:
        return 400;
    case -ENOENT:
        return 404;
    case -EEXIST:
        return 409;
    default:
        return 500;
    }
}

void api_reply_error(struct api_request *req, unsigned status, int rc, const char *what,
                     const struct err *err)
{
    struct json_object *chain = json_object_new_array();
    const char *why = err && err->msg[0] ? err->msg : NULL;
    char *text = NULL;
    size_t len = 0;

    if (!why && !err)
        why = strerror(-rc);
    if (chain) {
        (void)json_object_array_add(chain, json_object_new_string("Error from API"));
        (void)json_object_array_add(chain, json_object_new_string(what));
        if (why)
            (void)json_object_array_add(chain, json_object_new_string(why));
        if (json_print(chain, &text, &len))
            text = NULL;
        json_object_put(chain);
    }
    reply_text(req, status ? status : api_status(rc), text, len);
}

/* ---- connections ----------------------------------------------------------- */

/* Room for one more: close the connection that did nothing for longest. */
static bool make_room(struct api_server *srv)
{
    struct api_conn *conn, *idle = NULL;

    if (srv->nr_conns < API_CONNECTIONS_MAX)
        return true;
    LIST_FOREACH(conn, &srv->conns, link)
    if (!conn->busy && (!idle || conn->idle_ns < idle->idle_ns))
        idle = conn;
    if (!idle)
        return false;
    api_conn_close(idle);
    return true;
}

static void on_listen(void *arg, uint32_t events)
{
    struct api_server *srv = arg;
    struct api_conn *conn = NULL;
    int mhd_fd = -1;
    int fd = accept4(srv->sock.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0) {
        /* Out of descriptors or memory: try again at the next tick. */
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            loop_set_events(srv->listen_src, 0);
        loop_arm_timer(srv->timer_src, loop_now_ns() + NS_PER_S);
        return;
    }
    loop_arm_timer(srv->timer_src, loop_now_ns() + NS_PER_S);
    if (!make_room(srv)) {
        (void)close(fd);
        return;
    }
    if (api_conn_new(srv, fd, &conn, &mhd_fd))
        return;
    if (api_http_add(srv, conn, mhd_fd)) {
        api_conn_close(conn);
        return;
    }
    (void)api_conn_pump(conn);
    api_http_run(srv);
}

static void drop_slow(struct api_server *srv)
{
    uint64_t now = loop_now_ns();
    struct api_conn *conn = LIST_FIRST(&srv->conns);

    while (conn) {
        struct api_conn *next = LIST_NEXT(conn, link);

        if (conn->request_ns && now - conn->request_ns > srv->request_timeout_ns)
            api_conn_close(conn);
        conn = next;
    }
}

/* ---- the end --------------------------------------------------------------- */

static bool is_anyone_busy(const struct api_server *srv)
{
    const struct api_conn *conn;

    LIST_FOREACH(conn, &srv->conns, link)
    if (conn->busy || conn->down.len)
        return true;
    return false;
}

static void reply_stopping(struct api_request *req)
{
    static const char text[] = "[\"Error from API\",\"The VMM is shutting down\"]";
    char *copy = strdup(text);

    /* Without memory for words the status says it alone. */
    set_reply(req, 503, copy, copy ? sizeof(text) - 1 : 0);
}

static void begin_stop(struct api_server *srv)
{
    struct api_request *req;

    srv->stopping = true;
    srv->stop_deadline_ns = loop_now_ns() + API_STOP_TIMEOUT_MS * NS_PER_MS;
    loop_remove(steal_ptr(srv->listen_src));
    LIST_FOREACH(req, &srv->waiting, link)
    reply_stopping(req);
}

static void end_stop(struct api_server *srv)
{
    while (!LIST_EMPTY(&srv->conns)) {
        struct api_conn *conn = LIST_FIRST(&srv->conns);

        if (api_conn_pump(conn))
            api_conn_close(conn);
    }
    loop_stop(srv->loop);
}

/* ---- in the loop ----------------------------------------------------------- */

static void on_timer(void *arg)
{
    struct api_server *srv = arg;
    uint64_t now = loop_now_ns();

    if (srv->stopping) {
        if (!is_anyone_busy(srv) || now >= srv->stop_deadline_ns)
            end_stop(srv);
        else
            loop_arm_timer(srv->timer_src, now + STOP_TICK_MS * NS_PER_MS);
        return;
    }
    drop_slow(srv);
    loop_set_events(srv->listen_src, EPOLLIN);
    if (srv->nr_conns)
        loop_arm_timer(srv->timer_src, now + NS_PER_S);
}

static void on_wake(void *arg, uint32_t events)
{
    struct api_server *srv = arg;
    struct api_request *req;
    eventfd_t count;
    bool stop;

    (void)events;
    (void)eventfd_read(srv->wake_fd, &count);
    (void)pthread_mutex_lock(&srv->lock);
    stop = srv->stop && !srv->stopping;
    (void)pthread_mutex_unlock(&srv->lock);
    if (stop)
        begin_stop(srv);
    while ((req = pop_done(srv)))
        api_http_resume(req);
    api_http_run(srv);
    if (stop)
        on_timer(srv);
}

static void *server_thread(void *arg)
{
    struct api_server *srv = arg;
    sigset_t all;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL);
    log_thread_name("api");
    if (srv->thread_start)
        srv->thread_start(srv->thread_start_arg);
    if (loop_run(srv->loop))
        log_error("api: the event loop failed; the API is gone");
    return NULL;
}

/* ---- life ------------------------------------------------------------------ */

static void server_release(struct api_server *srv)
{
    if (srv->loop)
        api_http_stop(srv);
    while (!LIST_EMPTY(&srv->conns))
        api_conn_close(LIST_FIRST(&srv->conns));
    loop_remove(srv->listen_src);
    loop_remove(srv->wake_src);
    loop_remove(srv->timer_src);
    loop_free(srv->loop);
    if (srv->wake_fd >= 0)
        (void)close(srv->wake_fd);
    api_socket_close(&srv->sock);
    api_server_put(srv);
}

static int server_add_sources(struct api_server *srv)
{
    int rc = loop_new(&srv->loop);

    if (!rc)
        rc = loop_add_fd(srv->loop, srv->sock.fd, EPOLLIN, on_listen, srv, &srv->listen_src);
    if (!rc)
        rc = loop_add_timer(srv->loop, on_timer, srv, &srv->timer_src);
    if (rc)
        return rc;
    srv->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (srv->wake_fd < 0)
        return -errno;
    return loop_add_fd(srv->loop, srv->wake_fd, EPOLLIN, on_wake, srv, &srv->wake_src);
}

static struct api_server *server_new(const struct api_server_config *config)
{
    struct api_server *srv = calloc(1, sizeof(*srv));

    if (!srv)
        return NULL;
    srv->routes = config->routes;
    srv->nr_routes = config->nr_routes;
    srv->arg = config->arg;
    srv->request_timeout_ns = config->request_timeout_ms ? config->request_timeout_ms * NS_PER_MS
                                                         : API_REQUEST_TIMEOUT_S * NS_PER_S;
    srv->thread_start = config->thread_start;
    srv->thread_start_arg = config->thread_start_arg;
    srv->sock = (struct api_socket){.fd = -1, .lock_fd = -1};
    srv->wake_fd = -1;
    srv->refs = 1;
    LIST_INIT(&srv->conns);
    LIST_INIT(&srv->waiting);
    STAILQ_INIT(&srv->done);
    (void)pthread_mutex_init(&srv->lock, NULL);
    return srv;
}

int api_server_open(const struct api_server_config *config, struct api_server **ret_srv,
                    struct err *err)
{
    struct api_server *srv = server_new(config);
    int rc;

    if (!srv) {
        if (!config->socket_path)
            (void)close(config->socket_fd);
        return err_set(err, -ENOMEM, "out of memory");
    }
    if (config->socket_path)
        rc = api_socket_open(config->socket_path, &srv->sock, err);
    else
        rc = api_socket_adopt(config->socket_fd, &srv->sock, err);
    if (!rc) {
        rc = server_add_sources(srv);
        if (rc)
            (void)err_set(err, rc, "API: cannot start: %s", strerror(-rc));
    }
    if (!rc)
        rc = api_http_start(srv, err);
    if (rc) {
        server_release(srv);
        return rc;
    }
    *ret_srv = srv;
    return 0;
}

int api_server_start(struct api_server *srv, struct err *err)
{
    int rc = -pthread_create(&srv->thread, NULL, server_thread, srv);

    if (rc < 0)
        return err_set(err, rc, "API: cannot start a thread: %s", strerror(-rc));
    srv->started = true;
    return 0;
}

void api_server_stop(struct api_server *srv)
{
    if (!srv)
        return;
    (void)pthread_mutex_lock(&srv->lock);
    srv->stop = true;
    (void)pthread_mutex_unlock(&srv->lock);
    (void)eventfd_write(srv->wake_fd, 1);
    if (srv->started)
        (void)pthread_join(srv->thread, NULL);
    server_release(srv);
}
