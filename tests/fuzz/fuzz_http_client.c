/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a server's answer to chctl.  Refused: explained.  Accepted: a
 * body of the length that it says, with a NUL behind it.
 */
#include <string.h>
#include <sys/socket.h>

#include "tools/chctl/http_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct http_request req = {.method = "GET", .path = "/api/v1/vm.info"};
    struct http_response res = {0};
    struct err err = {0};
    ssize_t sent = 0;
    int fds[2], rc;

    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    /* All of it fits the socket's buffer, or only the start of it comes. */
    if (len)
        sent = send(fds[1], data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    must(shutdown(fds[1], SHUT_WR) == 0);
    rc = http_client_call(fds[0], &req, &res, &err);
    if (rc < 0) {
        must(err.code == rc && err.msg[0] && !res.body);
    } else {
        must(res.body && res.status >= 200 && res.status <= 999);
        must(res.body_len <= (size_t)sent && !res.body[res.body_len]);
        must(!res.body_len || memmem(data, len, res.body, res.body_len));
    }
    http_response_release(&res);
    (void)close(fds[0]);
    (void)close(fds[1]);
    return 0;
}
