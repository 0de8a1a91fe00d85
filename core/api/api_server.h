/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API's HTTP/1.1 server on a UNIX socket.
 *
 * It has a thread of its own and knows no VM: requests that fit a route are
 * handed to its function, which answers at once or keeps the request and
 * answers later, from any thread.  While one request waits for its answer all
 * others go on.
 *
 * Who may connect may do everything; still nothing that a client sends or
 * leaves out stops the server, makes it grow without bound or delays others.
 *
 * Spec: docs/api.md.
 */
#ifndef CORE_API_API_SERVER_H
#define CORE_API_API_SERVER_H

#include "core/err.h"

struct api_request;
struct api_server;
struct json_object;

enum api_limits {
    API_BODY_MAX = 4 << 20,     /* bytes of a request's body */
    API_FDS_MAX = 128,          /* file descriptors that travel with one request */
    API_CONNECTIONS_MAX = 64,   /* at once; one that does nothing makes room for a new one */
    API_REQUEST_TIMEOUT_S = 30, /* for a client to send its request, from first byte to last */
    API_STOP_TIMEOUT_MS = 1000, /* for the last answers to leave, when the server stops */
};

enum api_method {
    API_GET,
    API_PUT,
};

enum api_route_flags {
    API_BODY = 1 << 0,          /* a body must be there; without this and the next: must not */
    API_BODY_OPTIONAL = 1 << 1, /* a body may be there */
};

/*
 * Answer with one of the api_reply functions, exactly once, before returning or
 * later.  Runs on the server's thread: must not block.
 */
typedef void api_fn(void *arg, struct api_request *req);

struct api_route {
    const char *path; /* below API_BASE, "vm.info" */
    enum api_method method;
    unsigned flags; /* enum api_route_flags */
    api_fn *fn;
};

#define API_BASE "/api/v1/"

struct api_server_config {
    const char *socket_path;        /* NULL: socket_fd */
    int socket_fd;                  /* a listening UNIX socket, taken; -1: socket_path */
    const struct api_route *routes; /* borrowed for the life of the server */
    unsigned nr_routes;
    unsigned request_timeout_ms;     /* 0: API_REQUEST_TIMEOUT_S */
    void *arg;                       /* of the routes' functions */
    void (*thread_start)(void *arg); /* runs first on the server's thread; may be NULL */
    void *thread_start_arg;
};

/**
 * api_server_open() - listen.
 * @config: borrowed for the call, except where said.
 *
 * socket_path is guarded by a lock on <socket_path>.lock; a socket that a dead
 * server left there is replaced.  Only the owner may connect.
 *
 * Return: 0 and *@ret_srv, owned, to be given to api_server_stop(); -EADDRINUSE
 * if another server has the path; -EEXIST if something else is there; the
 * kernel's errno.
 * Threads: any.
 */
CHECKED int api_server_open(const struct api_server_config *config, struct api_server **ret_srv,
                            struct err *err);

/**
 * api_server_start() - answer, on a new thread; who has connected before has waited.
 *
 * Return: 0; the kernel's errno.
 * Threads: any; once.
 */
CHECKED int api_server_start(struct api_server *srv, struct err *err);

/**
 * api_server_stop() - let the last answers leave, end the thread, remove the socket.
 * @srv: taken, started or not; NULL is allowed.
 *
 * Requests not yet answered get status 503; api_reply() stays allowed, and
 * needed, for them.  Takes at most API_STOP_TIMEOUT_MS.
 * Threads: any but the server's.
 */
void api_server_stop(struct api_server *srv);

/**
 * api_request_path() - what was asked for, below API_BASE.
 *
 * Return: borrowed until the reply.
 * Threads: any.
 */
const char *api_request_path(const struct api_request *req);

/**
 * api_request_body() - the body, any bytes.
 * @ret_len: bytes; 0 without a body.
 *
 * Return: borrowed until the reply; with a NUL after the last byte; never NULL.
 * Threads: any.
 */
const char *api_request_body(const struct api_request *req, size_t *ret_len);

/**
 * api_request_take_fds() - the file descriptors that came with the request.
 * @fds: room for API_FDS_MAX; the caller owns what is put there.
 *
 * Those never taken are closed by the reply.
 *
 * Return: how many, 0 at a second call.
 * Threads: the one that will reply.
 */
unsigned api_request_take_fds(struct api_request *req, int *fds);

/**
 * api_reply() - answer.
 * @req:    taken.
 * @status: of HTTP.
 * @body:   @len bytes of JSON, copied; NULL without a body.
 *
 * Threads: any.
 */
void api_reply(struct api_request *req, unsigned status, const char *body, size_t len);

/**
 * api_reply_json() - answer 200 with a value.
 * @req: taken.
 * @obj: taken; NULL (memory ran out while it was made) answers 500.
 *
 * Threads: any.
 */
void api_reply_json(struct api_request *req, struct json_object *obj);

/**
 * api_reply_done() - answer 204, there is nothing to say.
 * @req: taken.
 *
 * Threads: any.
 */
void api_reply_done(struct api_request *req);

/**
 * api_reply_error() - answer with the chain of what went wrong.
 * @req:    taken.
 * @status: of HTTP; 0: api_status(@rc).
 * @what:   what could not be done, a sentence without full stop.
 * @err:    why; may be empty, then @rc says it.
 *
 * Body: ["Error from API", what, why].
 * Threads: any.
 */
void api_reply_error(struct api_request *req, unsigned status, int rc, const char *what,
                     const struct err *err);

/**
 * api_status() - the HTTP status for a failure.
 * @rc: negative errno.
 *
 * Return: 400 for what the client asked wrongly (-EINVAL, -E2BIG, -ENOTSUP,
 * -EBADMSG); 404 for -ENOENT; 409 for -EEXIST; else 500.
 * Threads: any.
 */
unsigned api_status(int rc);

#endif
