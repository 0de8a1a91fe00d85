/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a client sends to the API's server, in up to three pieces.
 * What comes back is HTTP/1.1 or nothing, a handler sees no more body than
 * was sent, and the server still answers the next client.
 *
 * The first two bytes choose where the pieces end.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/api/api_server.h"

enum {
    WAIT_MS = 20000,
    ANSWER_MAX = 256 << 10,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct sockaddr_un addr = {.sun_family = AF_UNIX};
static socklen_t addr_len;
static _Atomic size_t body_most; /* that a handler may see */

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void fn_take(void *arg, struct api_request *req)
{
    size_t len;
    const char *body = api_request_body(req, &len);

    (void)arg;
    must(body && len <= body_most && !body[len]);
    must(api_request_path(req)[0]);
    api_reply_done(req);
}

static const struct api_route routes[] = {
    {"vmm.ping",   API_GET, 0,                 fn_take},
    {"vm.create",  API_PUT, API_BODY,          fn_take},
    {"vm.boot",    API_PUT, API_BODY_OPTIONAL, fn_take},
    {"vm.add-net", API_PUT, API_BODY,          fn_take},
};

/* One server for all inputs, on a socket without a file. */
static void serve(void)
{
    struct api_server_config config = {.routes = routes, .nr_routes = ARRAY_LEN(routes)};
    struct api_server *srv;

    config.socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    addr_len = (socklen_t)sizeof(sa_family_t);
    /* An address of two bytes only: the kernel chooses the name. */
    must(bind(config.socket_fd, (struct sockaddr *)&addr, addr_len) == 0);
    addr_len = sizeof(addr);
    must(getsockname(config.socket_fd, (struct sockaddr *)&addr, &addr_len) == 0);
    must(listen(config.socket_fd, 16) == 0);
    must(api_server_open(&config, &srv, NULL) == 0);
    must(api_server_start(srv, NULL) == 0);
}

static int client(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    must(fd >= 0 && connect(fd, (struct sockaddr *)&addr, addr_len) == 0);
    return fd;
}

/* The server may close at any time. */
static void say(int fd, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        data += n;
        len -= (size_t)n;
    }
}

static size_t hear(int fd, char *buf)
{
    size_t got = 0;
    ssize_t n = 1;

    while (n > 0 && got < ANSWER_MAX) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        int ready = poll(&p, 1, WAIT_MS);

        /* libFuzzer's alarm. */
        if (ready < 0 && errno == EINTR)
            continue;
        must(ready == 1);
        n = recv(fd, buf + got, ANSWER_MAX - got, MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
    }
    return got;
}

static void check_alive(char *buf)
{
    static const char ping[] = "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: x\r\n"
                               "Connection: close\r\n\r\n";
    int fd = client();

    say(fd, (const uint8_t *)ping, sizeof(ping) - 1);
    must(hear(fd, buf) > 12 && memcmp(buf, "HTTP/1.1 204", 12) == 0);
    (void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static char buf[ANSWER_MAX];
    size_t first, second;
    int fd;

    if (len < 2)
        return 0;
    if (!addr_len)
        serve();
    first = data[0];
    second = data[1];
    data += 2;
    len -= 2;
    first = first < len ? first : len;
    second = second < len - first ? second : len - first;
    body_most = len;
    fd = client();
    say(fd, data, first);
    say(fd, data + first, second);
    say(fd, data + first + second, len - first - second);
    (void)shutdown(fd, SHUT_WR);
    len = hear(fd, buf);
    must(!len || (len >= 9 && memcmp(buf, "HTTP/1.1 ", 9) == 0));
    (void)close(fd);
    check_alive(buf);
    return 0;
}
