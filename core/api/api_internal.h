/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the API server: connections, requests, libmicrohttpd.
 *
 * libmicrohttpd reads with recv(), which drops file descriptors.  So it never
 * sees a client's socket: each connection has a socket pair, one end of which
 * is libmicrohttpd's, and the server's thread carries bytes between the client
 * and the other end, keeping the descriptors that arrive with them:
 *
 *     client <-> api_conn (recvmsg, SCM_RIGHTS) <-> socket pair <-> libmicrohttpd
 *
 * Everything but struct api_request's answer belongs to the server's thread.
 */
#ifndef CORE_API_API_INTERNAL_H
#define CORE_API_API_INTERNAL_H

#include <pthread.h>
#include <sys/queue.h>

#include "core/api/api_server.h"
#include "core/api/api_socket.h"
#include "core/loop.h"

enum {
    API_PUMP_SIZE = 8192, /* bytes carried at a time, each way */
};

struct MHD_Connection;
struct MHD_Daemon;

/* Bytes on their way in one direction. */
struct api_pump {
    size_t off, len;
    char buf[API_PUMP_SIZE];
};

struct api_conn {
    struct api_server *srv;
    LIST_ENTRY(api_conn) link; /* in srv->conns, until it is closed */
    unsigned refs;             /* the pump, libmicrohttpd */
    int client_fd, inner_fd;   /* -1 once closed */
    struct loop_source *client_src, *inner_src;
    struct api_pump up;   /* client to libmicrohttpd */
    struct api_pump down; /* libmicrohttpd to client */
    bool up_ended;        /* the client will send no more */
    bool end_passed;      /* and libmicrohttpd has been told */
    bool down_ended;      /* libmicrohttpd will answer no more */
    bool busy;            /* libmicrohttpd is inside a request */
    uint64_t request_ns;  /* first byte of the request that is arriving; 0: none */
    uint64_t idle_ns;     /* since when nothing happened */
    int fds[API_FDS_MAX]; /* arrived, and not yet part of a request */
    unsigned nr_fds;
    bool too_many_fds;
};

struct api_request {
    struct api_server *srv; /* a reference */
    struct api_conn *conn;  /* of libmicrohttpd's side; valid while !detached */
    struct MHD_Connection *mhd;
    const struct api_route *route;
    char *path;
    char *body;
    size_t body_len, body_cap;
    unsigned refuse; /* status, where no route's function may run; 0: none */
    const char *refuse_why;
    int fds[API_FDS_MAX];
    unsigned nr_fds;
    bool suspended;
    LIST_ENTRY(api_request) link; /* in srv->waiting, while suspended */

    /* Under srv->lock; freed when it is neither owned nor libmicrohttpd's. */
    STAILQ_ENTRY(api_request) done_link; /* in srv->done, from the reply to the resumption */
    bool owned;                          /* a route's function has it and will reply */
    bool detached;                       /* libmicrohttpd has forgotten it */
    bool replied;
    unsigned status;
    char *reply; /* owned */
    size_t reply_len;
};

struct api_server {
    const struct api_route *routes;
    unsigned nr_routes;
    void *arg;
    uint64_t request_timeout_ns;
    void (*thread_start)(void *arg);
    void *thread_start_arg;
    struct api_socket sock;
    struct loop *loop;
    struct loop_source *listen_src, *mhd_src, *wake_src, *timer_src;
    struct MHD_Daemon *mhd;
    int wake_fd;
    pthread_t thread;
    bool started; /* the thread is to be joined */
    LIST_HEAD(, api_conn) conns;
    unsigned nr_conns;
    LIST_HEAD(, api_request) waiting;
    struct api_conn *adding;
    bool stopping;
    uint64_t stop_deadline_ns;

    pthread_mutex_t lock; /* below, and the replies of requests; a leaf */
    bool stop;            /* asked for */
    STAILQ_HEAD(, api_request) done;
    unsigned refs; /* the owner, every request */
};

/**
 * api_conn_new() - carry bytes for a client.
 * @fd: of the client; taken, also on failure.
 *
 * Return: 0 and *@ret_mhd_fd, owned, for libmicrohttpd; the connection is in
 * srv->conns and has one reference; -ENOMEM; the kernel's errno.
 * Threads: the server's.
 */
CHECKED int api_conn_new(struct api_server *srv, int fd, struct api_conn **ret_conn,
                         int *ret_mhd_fd);

/**
 * api_conn_close() - stop carrying; drops the pump's reference.
 * @conn: open.
 *
 * Threads: the server's.
 */
void api_conn_close(struct api_conn *conn);

/**
 * api_conn_put() - drop a reference.
 *
 * Threads: the server's.
 */
void api_conn_put(struct api_conn *conn);

/**
 * api_conn_pump() - carry what can be carried now, both ways.
 * @conn: open.
 *
 * Return: true; false if it was closed and may be gone.
 * Threads: the server's.
 */
bool api_conn_pump(struct api_conn *conn);

/**
 * api_http_start() - start libmicrohttpd on the server's loop.
 *
 * Return: 0; -ENOMEM; the kernel's errno.
 * Threads: before the server's thread runs.
 */
CHECKED int api_http_start(struct api_server *srv, struct err *err);

/**
 * api_http_stop() - end libmicrohttpd; connections are closed.
 *
 * Threads: after the server's thread ended.
 */
void api_http_stop(struct api_server *srv);

/**
 * api_http_add() - give libmicrohttpd a connection.
 * @mhd_fd: taken, also on failure.
 *
 * Return: 0; -EIO.
 * Threads: the server's.
 */
CHECKED int api_http_add(struct api_server *srv, struct api_conn *conn, int mhd_fd);

/**
 * api_http_run() - let libmicrohttpd do what it can do now.
 *
 * Threads: the server's.
 */
void api_http_run(struct api_server *srv);

/**
 * api_http_resume() - have a request's reply sent.
 * @req: replied to and suspended.
 *
 * Threads: the server's.
 */
void api_http_resume(struct api_request *req);

/**
 * api_request_free() - free a request that is neither owned nor libmicrohttpd's.
 *
 * Threads: any.
 */
void api_request_free(struct api_request *req);

/**
 * api_server_put() - drop a reference.
 *
 * Threads: any.
 */
void api_server_put(struct api_server *srv);

#endif
