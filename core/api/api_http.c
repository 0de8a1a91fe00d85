/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP by libmicrohttpd: requests gathered, routed, suspended and answered.
 *
 * libmicrohttpd runs without threads, with its epoll descriptor in the server's
 * loop.  All its calls are made on the server's thread.
 */
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "core/api/api_internal.h"

enum {
    BODY_FIRST = 4096,
    RUNS_MAX = 32, /* without a look at the other events of the loop */
    MHD_POOL_SIZE = 32 << 10,
};

/* ---- requests -------------------------------------------------------------- */

void api_server_put(struct api_server *srv)
{
    bool last;

    (void)pthread_mutex_lock(&srv->lock);
    last = !--srv->refs;
    (void)pthread_mutex_unlock(&srv->lock);
    if (!last)
        return;
    (void)pthread_mutex_destroy(&srv->lock);
    free(srv);
}

void api_request_free(struct api_request *req)
{
    for (unsigned i = 0; i < req->nr_fds; i++)
        (void)close(req->fds[i]);
    free(req->path);
    free(req->body);
    free(req->reply);
    api_server_put(req->srv);
    free(req);
}

static struct api_request *request_new(struct api_server *srv, struct api_conn *conn,
                                       struct MHD_Connection *mhd, const char *path)
{
    struct api_request *req = calloc(1, sizeof(*req));

    if (!req)
        return NULL;
    req->path = strdup(path);
    req->body = strdup("");
    if (!req->path || !req->body) {
        free(req->path);
        free(req->body);
        free(req);
        return NULL;
    }
    req->srv = srv;
    req->conn = conn;
    req->mhd = mhd;
    (void)pthread_mutex_lock(&srv->lock);
    srv->refs++;
    (void)pthread_mutex_unlock(&srv->lock);
    return req;
}

static void refuse(struct api_request *req, unsigned status, const char *why)
{
    if (req->refuse)
        return;
    req->refuse = status;
    req->refuse_why = why;
}

/* Cloud Hypervisor's endpoints that may be asked for and are not there. */
static const char *const not_yet[] = {
    "vm.add-device",  "vm.add-disk",    "vm.add-fs",   "vm.add-generic-vhost-user",
    "vm.add-net",     "vm.add-pmem",    "vm.add-vdpa", "vm.add-user-device",
    "vm.add-vsock",   "vm.coredump",    "vm.resize",   "vm.remove-device",
    "vm.resize-disk", "vm.resize-zone",
};

static void request_route(struct api_request *req, const char *method)
{
    const struct api_server *srv = req->srv;

    for (unsigned i = 0; i < srv->nr_routes; i++) {
        const struct api_route *route = &srv->routes[i];

        if (strcmp(route->path, req->path) != 0)
            continue;
        req->route = route;
        if (route->method == API_GET && strcmp(method, MHD_HTTP_METHOD_GET) != 0)
            refuse(req, MHD_HTTP_BAD_REQUEST, "The method must be GET");
        if (route->method == API_PUT && strcmp(method, MHD_HTTP_METHOD_PUT) != 0)
            refuse(req, MHD_HTTP_BAD_REQUEST, "The method must be PUT");
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(not_yet); i++)
        if (!strcmp(not_yet[i], req->path))
            refuse(req, MHD_HTTP_NOT_FOUND, "Not supported yet by this version");
    refuse(req, MHD_HTTP_NOT_FOUND, "There is no such endpoint");
}

/* Return: false where memory ran out or the body is too large. */
static bool body_append(struct api_request *req, const char *data, size_t len)
{
    size_t cap = req->body_cap ? req->body_cap : BODY_FIRST;
    char *grown;

    if (len > API_BODY_MAX - req->body_len)
        return false;
    while (cap < req->body_len + len + 1)
        cap *= 2;
    if (cap != req->body_cap) {
        grown = realloc(req->body, cap);
        if (!grown)
            return false;
        req->body = grown;
        req->body_cap = cap;
    }
    memcpy(req->body + req->body_len, data, len);
    req->body_len += len;
    req->body[req->body_len] = 0;
    return true;
}

/* ---- answers --------------------------------------------------------------- */

/* The answer of req is there; its text moves to libmicrohttpd. */
static enum MHD_Result queue_answer(struct api_request *req)
{
    struct MHD_Response *res;
    enum MHD_Result ok;
    unsigned status;

    (void)pthread_mutex_lock(&req->srv->lock);
    status = req->status;
    res = MHD_create_response_from_buffer(req->reply_len, req->reply, MHD_RESPMEM_MUST_FREE);
    if (res)
        req->reply = NULL;
    (void)pthread_mutex_unlock(&req->srv->lock);
    if (!res)
        return MHD_NO;
    (void)MHD_add_response_header(res, MHD_HTTP_HEADER_SERVER, "Chrysalis API");
    if (req->reply_len)
        (void)MHD_add_response_header(res, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
    ok = MHD_queue_response(req->mhd, status, res);
    MHD_destroy_response(res);
    return ok;
}

static enum MHD_Result refuse_now(struct api_request *req)
{
    const struct err err = {.code = -EINVAL};
    char what[ERR_MSG_SIZE];

    (void)snprintf(what, sizeof(what), "%s: %s", req->path, req->refuse_why);
    api_reply_error(req, req->refuse, -EINVAL, what, &err);
    return queue_answer(req);
}

/* Everything of the request is there. */
static enum MHD_Result dispatch(struct api_request *req)
{
    struct api_server *srv = req->srv;
    struct api_conn *conn = req->conn;
    bool replied;

    conn->busy = true;
    conn->request_ns = 0;
    memcpy(req->fds, conn->fds, conn->nr_fds * sizeof(int));
    req->nr_fds = conn->nr_fds;
    conn->nr_fds = 0;
    if (conn->too_many_fds)
        refuse(req, MHD_HTTP_BAD_REQUEST, "Too many file descriptors");
    conn->too_many_fds = false;
    if (!req->refuse && req->body_len && !(req->route->flags & (API_BODY | API_BODY_OPTIONAL)))
        refuse(req, MHD_HTTP_BAD_REQUEST, "A body is not expected");
    if (!req->refuse && !req->body_len && (req->route->flags & API_BODY))
        refuse(req, MHD_HTTP_BAD_REQUEST, "A body is missing");
    if (srv->stopping)
        refuse(req, MHD_HTTP_SERVICE_UNAVAILABLE, "The VMM is shutting down");
    if (req->refuse)
        return refuse_now(req);
    req->owned = true;
    req->route->fn(srv->arg, req);
    (void)pthread_mutex_lock(&srv->lock);
    replied = req->replied;
    if (!replied) {
        MHD_suspend_connection(req->mhd);
        req->suspended = true;
        LIST_INSERT_HEAD(&srv->waiting, req, link);
    }
    (void)pthread_mutex_unlock(&srv->lock);
    return replied ? queue_answer(req) : MHD_YES;
}

void api_http_resume(struct api_request *req)
{
    LIST_REMOVE(req, link);
    MHD_resume_connection(req->mhd);
}

/* ---- libmicrohttpd's callbacks --------------------------------------------- */

static struct api_conn *conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

static enum MHD_Result first_call(struct api_server *srv, struct MHD_Connection *mhd,
                                  const char *url, const char *method, struct api_request **ret_req)
{
    const char *length =
        MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    bool below = !strncmp(url, API_BASE, sizeof(API_BASE) - 1);
    struct api_request *req =
        request_new(srv, conn_of(mhd), mhd, below ? url + sizeof(API_BASE) - 1 : url);

    if (!req)
        return MHD_NO;
    *ret_req = req;
    if (!below)
        refuse(req, MHD_HTTP_NOT_FOUND, "There is no such endpoint");
    request_route(req, method);
    /* libmicrohttpd has checked that it is a number. */
    if (!length || strtoull(length, NULL, 10) <= API_BODY_MAX)
        return MHD_YES;
    req->refuse = MHD_HTTP_CONTENT_TOO_LARGE;
    req->refuse_why = "The body is larger than 4 MiB";
    return refuse_now(req);
}

/* As libmicrohttpd calls it.  NOLINTNEXTLINE(readability-function-size) */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_len, void **ctx)
{
    struct api_request *req = *ctx;

    (void)version;
    if (!req) {
        enum MHD_Result ok = first_call(arg, mhd, url, method, &req);

        *ctx = req;
        return ok;
    }
    if (*data_len) {
        size_t len = *data_len;

        *data_len = 0;
        return body_append(req, data, len) ? MHD_YES : MHD_NO;
    }
    return req->suspended ? queue_answer(req) : dispatch(req);
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **ctx,
                         enum MHD_RequestTerminationCode why)
{
    struct api_request *req = *ctx;
    struct api_server *srv = arg;
    bool free_it;

    (void)why;
    (void)mhd;
    if (!req)
        return;
    *ctx = NULL;
    if (req->conn) {
        req->conn->busy = false;
        req->conn->request_ns = 0;
    }
    (void)pthread_mutex_lock(&srv->lock);
    free_it = !req->owned;
    req->detached = true;
    (void)pthread_mutex_unlock(&srv->lock);
    if (free_it)
        api_request_free(req);
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct api_server *srv = arg;

    (void)mhd;
    if (what == MHD_CONNECTION_NOTIFY_STARTED && srv->adding) {
        *socket_context = srv->adding;
        srv->adding->refs++;
        srv->adding = NULL;
    } else if (what == MHD_CONNECTION_NOTIFY_CLOSED && *socket_context) {
        api_conn_put(*socket_context);
        *socket_context = NULL;
    }
}

/* ---- in the loop ----------------------------------------------------------- */

void api_http_run(struct api_server *srv)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;

    for (int i = 0; i < RUNS_MAX; i++) {
        (void)MHD_run(srv->mhd);
        if (MHD_get_timeout(srv->mhd, &ms) != MHD_YES || ms)
            return;
    }
    /* More to do at once: after the other events. */
    (void)eventfd_write(srv->wake_fd, 1);
}

static void on_mhd(void *arg, uint32_t events)
{
    (void)events;
    api_http_run(arg);
}

int api_http_add(struct api_server *srv, struct api_conn *conn, int mhd_fd)
{
    const struct sockaddr addr = {.sa_family = AF_UNIX};
    enum MHD_Result ok;

    srv->adding = conn;
    /* Closes the descriptor if it fails. */
    ok = MHD_add_connection(srv->mhd, mhd_fd, &addr, sizeof(addr));
    srv->adding = NULL;
    return ok == MHD_YES ? 0 : -EIO;
}

int api_http_start(struct api_server *srv, struct err *err)
{
    const union MHD_DaemonInfo *info;

    srv->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET |
                                    MHD_ALLOW_SUSPEND_RESUME | MHD_USE_SUPPRESS_DATE_NO_CLOCK,
                                0, NULL, NULL, on_request, srv, MHD_OPTION_NOTIFY_COMPLETED,
                                on_completed, srv, MHD_OPTION_NOTIFY_CONNECTION, on_connection, srv,
                                MHD_OPTION_CONNECTION_LIMIT, (unsigned)(2 * API_CONNECTIONS_MAX),
                                MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MHD_POOL_SIZE,
                                MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!srv->mhd)
        return err_set(err, -ENOMEM, "API: libmicrohttpd does not start");
    info = MHD_get_daemon_info(srv->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return err_set(err, -EIO, "API: libmicrohttpd has no epoll");
    return loop_add_fd(srv->loop, info->epoll_fd, EPOLLIN, on_mhd, srv, &srv->mhd_src);
}

void api_http_stop(struct api_server *srv)
{
    loop_remove(srv->mhd_src);
    srv->mhd_src = NULL;
    if (srv->mhd)
        MHD_stop_daemon(srv->mhd);
    srv->mhd = NULL;
}
