/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/1.1 request over a UNIX socket, file descriptors included.
 *
 * The server is the operator's own; still no answer of it makes the client
 * read without bound or past an end.
 */
#ifndef TOOLS_CHCTL_HTTP_CLIENT_H
#define TOOLS_CHCTL_HTTP_CLIENT_H

#include "core/err.h"

enum http_client_limits {
    HTTP_HEAD_MAX = 16 << 10, /* bytes of a response's status line and headers */
    HTTP_BODY_MAX = 64 << 20,
    HTTP_FDS_MAX = 128,
};

struct http_request {
    const char *method;
    const char *path; /* from "/" on */
    const char *body; /* NULL: none */
    size_t body_len;
    const int *fds; /* go with the first bytes; borrowed */
    unsigned nr_fds;
};

struct http_response {
    unsigned status;
    char *body; /* owned; NUL-terminated; never NULL after success */
    size_t body_len;
};

/**
 * http_client_connect() - connect to a server.
 *
 * Return: 0 and *@ret_fd, owned; -ENAMETOOLONG; the kernel's errno, named.
 * Threads: any.
 */
CHECKED int http_client_connect(const char *socket_path, int *ret_fd, struct err *err);

/**
 * http_client_call() - send a request, wait for its response.
 * @fd: connected, blocking; borrowed; good for no second call if it fails.
 *
 * Return: 0 and *@ret_res, to be freed by http_response_release(), whatever the
 * status; -EBADMSG for what is not HTTP; -E2BIG over a limit; -ECONNRESET if
 * the server left before the answer was whole; the kernel's errno.
 * Threads: any.
 */
CHECKED int http_client_call(int fd, const struct http_request *req, struct http_response *ret_res,
                             struct err *err);

/**
 * http_client_send() - the first half of http_client_call(), for who waits in a way of their own.
 *
 * Return: 0; as http_client_call().
 * Threads: any.
 */
CHECKED int http_client_send(int fd, const struct http_request *req, struct err *err);

/**
 * http_client_receive() - the second half; waits.
 *
 * Return: as http_client_call().
 * Threads: any.
 */
CHECKED int http_client_receive(int fd, struct http_response *ret_res, struct err *err);

/**
 * http_response_release() - free what the response owns.
 *
 * Threads: any.
 */
void http_response_release(struct http_response *res);

#endif
