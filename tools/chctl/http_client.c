/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chctl/http_client.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    INTERIM_MAX = 16, /* responses with status 1xx */
};

/* What was read of a response, head first. */
struct reader {
    int fd;
    size_t len, head_len; /* head_len: 0 until the head is whole */
    char buf[HTTP_HEAD_MAX];
};

int http_client_connect(const char *socket_path, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
    if (strlen(socket_path) >= sizeof(addr.sun_path))
        return err_set(err, -ENAMETOOLONG, "a socket's path has at most %zu bytes: %.128s",
                       sizeof(addr.sun_path) - 1, socket_path);
    memcpy(addr.sun_path, socket_path, strlen(socket_path));
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
        return err_set(err, -errno, "cannot connect to %s: %s", socket_path, strerror(errno));
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* ---- request --------------------------------------------------------------- */

static int send_all(int fd, const char *data, size_t len, struct err *err)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "cannot send the request: %s", strerror(errno));
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int send_with_fds(int fd, char *data, size_t len, const int *fds, unsigned nr,
                         struct err *err)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(HTTP_FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = data, .iov_len = len};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = CMSG_SPACE(nr * sizeof(int)),
    };
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    ssize_t n;

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
    memcpy(CMSG_DATA(cmsg), fds, nr * sizeof(int));
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_set(err, -errno, "cannot send the file descriptors: %s", strerror(errno));
    return send_all(fd, data + n, len - (size_t)n, err);
}

static int send_request(int fd, const struct http_request *req, struct err *err)
{
    auto_free char *head = NULL;
    int len, rc;

    if (req->nr_fds > HTTP_FDS_MAX)
        return err_set(err, -E2BIG, "more than %d file descriptors", HTTP_FDS_MAX);
    len = req->body ? asprintf(&head,
                               "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
                               "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                               req->method, req->path, req->body_len)
                    : asprintf(&head, "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
                               req->method, req->path);
    if (len < 0) {
        head = NULL;
        return err_set(err, -ENOMEM, "out of memory");
    }
    rc = req->nr_fds ? send_with_fds(fd, head, (size_t)len, req->fds, req->nr_fds, err)
                     : send_all(fd, head, (size_t)len, err);
    if (!rc && req->body)
        rc = send_all(fd, req->body, req->body_len, err);
    return rc;
}

/* ---- response -------------------------------------------------------------- */

static ssize_t read_some(int fd, char *buf, size_t len, struct err *err)
{
    ssize_t n;

    do
        n = recv(fd, buf, len, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_set(err, -errno, "cannot read the answer: %s", strerror(errno));
    return n;
}

/* Until the buffer holds a whole head. */
static int read_head(struct reader *r, struct err *err)
{
    for (;;) {
        const char *end = memmem(r->buf, r->len, "\r\n\r\n", 4);
        ssize_t n;

        if (end) {
            r->head_len = (size_t)(end - r->buf) + 4;
            return 0;
        }
        if (r->len == sizeof(r->buf))
            return err_set(err, -E2BIG, "the answer's headers are longer than %d bytes",
                           HTTP_HEAD_MAX);
        n = read_some(r->fd, r->buf + r->len, sizeof(r->buf) - r->len, err);
        if (n < 0)
            return (int)n;
        if (!n)
            return err_set(err, -ECONNRESET, "the VMM closed the connection without an answer");
        r->len += (size_t)n;
    }
}

static int parse_status(const struct reader *r, unsigned *ret_status, struct err *err)
{
    static const char http[] = "HTTP/1.";
    const char *s = r->buf;

    /* "HTTP/1.x nnn": the head has at least 4 bytes, and these end in CR LF CR LF. */
    if (r->head_len < 16 || memcmp(s, http, sizeof(http) - 1) != 0 || s[8] != ' ' ||
        !isdigit((unsigned char)s[9]) || !isdigit((unsigned char)s[10]) ||
        !isdigit((unsigned char)s[11]))
        return err_set(err, -EBADMSG, "the answer is not HTTP/1.1");
    *ret_status = (unsigned)((s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0'));
    return 0;
}

/* Return: 1 and *ret_len; 0 if there is no such header; -EBADMSG. */
static int parse_length(const struct reader *r, size_t *ret_len, struct err *err)
{
    static const char name[] = "\r\ncontent-length:";
    const char *end = r->buf + r->head_len;
    uint64_t len = 0;

    for (const char *s = r->buf; (size_t)(end - s) > sizeof(name); s++) {
        if (strncasecmp(s, name, sizeof(name) - 1) != 0)
            continue;
        s += sizeof(name) - 1;
        s += strspn(s, " \t"); /* ends at the CR at the latest */
        if (!isdigit((unsigned char)*s))
            return err_set(err, -EBADMSG, "the answer's Content-Length is no number");
        for (; isdigit((unsigned char)*s) && len <= HTTP_BODY_MAX; s++)
            len = len * 10 + (uint64_t)(*s - '0');
        if (len > HTTP_BODY_MAX)
            return err_set(err, -E2BIG, "the answer is longer than %d bytes", HTTP_BODY_MAX);
        *ret_len = (size_t)len;
        return 1;
    }
    return 0;
}

static int read_body(struct reader *r, size_t len, struct http_response *res, struct err *err)
{
    auto_free char *body = malloc(len + 1);
    size_t got = r->len - r->head_len;

    if (!body)
        return err_set(err, -ENOMEM, "out of memory");
    if (got > len)
        got = len;
    memcpy(body, r->buf + r->head_len, got);
    while (got < len) {
        ssize_t n = read_some(r->fd, body + got, len - got, err);

        if (n < 0)
            return (int)n;
        if (!n)
            return err_set(err, -ECONNRESET, "the answer ends too early");
        got += (size_t)n;
    }
    body[len] = 0;
    res->body = steal_ptr(body);
    res->body_len = len;
    return 0;
}

static int read_response(struct reader *r, struct http_response *ret_res, struct err *err)
{
    struct http_response res = {0};
    size_t len = 0;
    int rc;

    for (unsigned i = 0; res.status < 200; i++) {
        if (i == INTERIM_MAX)
            return err_set(err, -E2BIG, "the answer does not come to an end");
        if (i) {
            /* An interim one: the next follows it. */
            memmove(r->buf, r->buf + r->head_len, r->len - r->head_len);
            r->len -= r->head_len;
        }
        rc = read_head(r, err);
        if (!rc)
            rc = parse_status(r, &res.status, err);
        if (rc)
            return rc;
    }
    rc = parse_length(r, &len, err);
    if (rc < 0)
        return rc;
    if (!rc && res.status != 204 && res.status != 304)
        return err_set(err, -EBADMSG, "the answer has no Content-Length");
    rc = read_body(r, len, &res, err);
    if (!rc)
        *ret_res = res;
    return rc;
}

int http_client_send(int fd, const struct http_request *req, struct err *err)
{
    return send_request(fd, req, err);
}

int http_client_receive(int fd, struct http_response *ret_res, struct err *err)
{
    struct reader r = {.fd = fd};

    return read_response(&r, ret_res, err);
}

int http_client_call(int fd, const struct http_request *req, struct http_response *ret_res,
                     struct err *err)
{
    struct err send_err = {0}, read_err = {0};
    int rc = send_request(fd, req, &send_err);
    int read_rc;

    if (rc && rc != -EPIPE && rc != -ECONNRESET)
        return err_set(err, rc, "%s", send_err.msg);
    /* A server that took not all of a body may still have said why. */
    read_rc = http_client_receive(fd, ret_res, &read_err);
    if (!read_rc)
        return 0;
    return rc ? err_set(err, rc, "%s", send_err.msg) : err_set(err, read_rc, "%s", read_err.msg);
}

void http_response_release(struct http_response *res)
{
    free(res->body);
    *res = (struct http_response){0};
}
