/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's connection: bytes to and from libmicrohttpd, descriptors kept.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "core/api/api_internal.h"

enum {
    ROUNDS_MAX = 64, /* before the other connections have their turn */
};

/* ---- life ------------------------------------------------------------------ */

static void on_client(void *arg, uint32_t events);
static void on_inner(void *arg, uint32_t events);

int api_conn_new(struct api_server *srv, int fd, struct api_conn **ret_conn, int *ret_mhd_fd)
{
    struct api_conn *conn = calloc(1, sizeof(*conn));
    int pair[2] = {-1, -1};
    int rc;

    if (!conn) {
        (void)close(fd);
        return -ENOMEM;
    }
    conn->srv = srv;
    conn->refs = 1;
    conn->client_fd = fd;
    conn->inner_fd = -1;
    conn->idle_ns = loop_now_ns();
    LIST_INSERT_HEAD(&srv->conns, conn, link);
    srv->nr_conns++;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        rc = -errno;
    else
        rc = 0;
    conn->inner_fd = pair[0];
    if (!rc)
        rc = loop_add_fd(srv->loop, fd, EPOLLIN, on_client, conn, &conn->client_src);
    if (!rc)
        rc = loop_add_fd(srv->loop, pair[0], EPOLLIN, on_inner, conn, &conn->inner_src);
    if (rc) {
        if (pair[1] >= 0)
            (void)close(pair[1]);
        api_conn_close(conn);
        return rc;
    }
    *ret_conn = conn;
    *ret_mhd_fd = pair[1];
    return 0;
}

void api_conn_close(struct api_conn *conn)
{
    if (conn->client_fd < 0)
        return;
    loop_remove(conn->client_src);
    loop_remove(conn->inner_src);
    (void)close(conn->client_fd);
    if (conn->inner_fd >= 0)
        (void)close(conn->inner_fd);
    conn->client_fd = conn->inner_fd = -1;
    conn->client_src = conn->inner_src = NULL;
    LIST_REMOVE(conn, link);
    conn->srv->nr_conns--;
    api_conn_put(conn);
}

void api_conn_put(struct api_conn *conn)
{
    if (--conn->refs)
        return;
    for (unsigned i = 0; i < conn->nr_fds; i++)
        (void)close(conn->fds[i]);
    free(conn);
}

/* ---- from the client ------------------------------------------------------- */

static void keep_fd(struct api_conn *conn, int fd)
{
    if (conn->nr_fds < API_FDS_MAX) {
        conn->fds[conn->nr_fds++] = fd;
        return;
    }
    conn->too_many_fds = true;
    (void)close(fd);
}

static void keep_fds(struct api_conn *conn, struct msghdr *msg)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        int fd;

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
            keep_fd(conn, fd);
        }
    }
    if (msg->msg_flags & MSG_CTRUNC)
        conn->too_many_fds = true;
}

/* Return: true if bytes came or the end was seen; false to wait or, closed, to give up. */
static bool read_client(struct api_conn *conn)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(API_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = conn->up.buf, .iov_len = sizeof(conn->up.buf)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    ssize_t n = recvmsg(conn->client_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n >= 0)
        keep_fds(conn, &msg);
    conn->up.off = 0;
    conn->up.len = n > 0 ? (size_t)n : 0;
    conn->up_ended = n <= 0;
    conn->idle_ns = loop_now_ns();
    if (n > 0 && !conn->request_ns && !conn->busy)
        conn->request_ns = conn->idle_ns;
    return true;
}

/* ---- both ways ------------------------------------------------------------- */

/* Return: true if bytes went or must be dropped; false if the other side takes none now. */
static bool write_pump(struct api_pump *pump, int fd)
{
    ssize_t n = send(fd, pump->buf + pump->off, pump->len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n < 0) {
        pump->len = 0; /* nobody there any more */
        return true;
    }
    pump->off += (size_t)n;
    pump->len -= (size_t)n;
    return n > 0;
}

static bool pump_up(struct api_conn *conn)
{
    if (conn->up.len)
        return write_pump(&conn->up, conn->inner_fd);
    return !conn->up_ended && read_client(conn);
}

/*
 * The client will send no more: libmicrohttpd gets to know after it has read
 * what came before.  Of bytes and an end that arrive together its edge-triggered
 * epoll shows it the bytes alone, and it would wait for more of them.
 */
static void pass_end(struct api_conn *conn)
{
    conn->end_passed = true;
    api_http_run(conn->srv);
    (void)shutdown(conn->inner_fd, SHUT_WR);
}

static bool pump_down(struct api_conn *conn)
{
    ssize_t n;

    if (conn->down.len)
        return write_pump(&conn->down, conn->client_fd);
    if (conn->down_ended)
        return false;
    n = recv(conn->inner_fd, conn->down.buf, sizeof(conn->down.buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    conn->down.off = 0;
    conn->down.len = n > 0 ? (size_t)n : 0;
    conn->idle_ns = loop_now_ns();
    if (n > 0)
        return true;
    conn->down_ended = true;
    /* Its hang-up would be reported for ever. */
    loop_remove(steal_ptr(conn->inner_src));
    return true;
}

static void want_events(const struct api_conn *conn)
{
    uint32_t client = 0, inner = 0;

    if (!conn->up.len && !conn->up_ended)
        client |= EPOLLIN;
    if (conn->up.len)
        inner |= EPOLLOUT;
    if (conn->down.len)
        client |= EPOLLOUT;
    else if (!conn->down_ended)
        inner |= EPOLLIN;
    loop_set_events(conn->client_src, client);
    if (conn->inner_src)
        loop_set_events(conn->inner_src, inner);
}

bool api_conn_pump(struct api_conn *conn)
{
    bool moved = true;

    for (int i = 0; moved && i < ROUNDS_MAX; i++) {
        moved = pump_up(conn);
        moved = pump_down(conn) || moved;
        if (conn->down_ended && !conn->down.len) {
            api_conn_close(conn);
            return false;
        }
    }
    if (conn->up_ended && !conn->up.len && !conn->end_passed)
        pass_end(conn);
    want_events(conn);
    return true;
}

static void on_inner(void *arg, uint32_t events)
{
    (void)events;
    (void)api_conn_pump(arg);
}

static void on_client(void *arg, uint32_t events)
{
    struct api_conn *conn = arg;

    if (!api_conn_pump(conn))
        return;
    if (!(events & (EPOLLHUP | EPOLLERR)))
        return;
    /*
     * A client that is gone, both ways, takes no answer: close as soon as what
     * it sent is carried, or cannot be while an earlier request is at work.
     * libmicrohttpd reads what was carried first: once our end is closed it
     * gives the connection up and the request with it.
     */
    if (conn->up_ended && !conn->busy)
        api_http_run(conn->srv);
    if (conn->up_ended || conn->busy)
        api_conn_close(conn);
}
