/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TCP connection that is never opened twice.  "keep" sends numbered messages and waits for
 * each to come back; "serve" sends back what it gets.  Either says in its status line whether the
 * connection broke, and the longest silence it saw.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "core/wire.h"
#include "tests/nested/agents/load_status.h"

enum {
    MESSAGE_LEN = 256,
    PAUSE_MS = 50,
};

struct tally {
    const char *path;
    uint64_t messages;
    uint64_t errors;
    int64_t last_ns;
    int64_t worst_ns;
};

static void tally_report(const struct tally *t, const char *broken)
{
    load_status(t->path, "messages=%lu worst_gap_ms=%ld errors=%lu broken=%s", t->messages,
                t->worst_ns / 1000000, t->errors, broken);
}

static void tally_count(struct tally *t)
{
    int64_t now_ns = load_now_ns(CLOCK_MONOTONIC);

    if (t->messages && now_ns - t->last_ns > t->worst_ns)
        t->worst_ns = now_ns - t->last_ns;
    t->last_ns = now_ns;
    t->messages++;
    tally_report(t, "no");
}

static void tally_break(const struct tally *t, const char *where)
{
    char why[128];

    (void)snprintf(why, sizeof(why), "%s:%s", where, errno ? strerrorname_np(errno) : "closed");
    tally_report(t, why);
    exit(1);
}

static void transfer(const struct tally *t, int fd, uint8_t *buf, bool in)
{
    for (size_t done = 0; done < MESSAGE_LEN;) {
        ssize_t n;

        errno = 0;
        n = in ? recv(fd, buf + done, MESSAGE_LEN - done, 0)
               : send(fd, buf + done, MESSAGE_LEN - done, MSG_NOSIGNAL);
        if (n <= 0 && errno != EINTR)
            tally_break(t, in ? "recv" : "send");
        done += n > 0 ? (size_t)n : 0;
    }
}

static void message_make(uint8_t *buf, uint64_t number)
{
    le64 n = le64_make(number);

    memcpy(buf, &n, sizeof(n));
    for (size_t i = sizeof(n); i < MESSAGE_LEN; i++)
        buf[i] = (uint8_t)(number + i);
}

static void keep(struct tally *t, int fd)
{
    uint8_t sent[MESSAGE_LEN];
    uint8_t got[MESSAGE_LEN];

    for (;;) {
        message_make(sent, t->messages);
        transfer(t, fd, sent, false);
        transfer(t, fd, got, true);
        t->errors += memcmp(sent, got, MESSAGE_LEN) != 0;
        tally_count(t);
        load_sleep_ms(PAUSE_MS);
    }
}

static void serve(struct tally *t, int fd)
{
    uint8_t want[MESSAGE_LEN];
    uint8_t got[MESSAGE_LEN];

    for (;;) {
        transfer(t, fd, got, true);
        message_make(want, t->messages);
        t->errors += memcmp(want, got, MESSAGE_LEN) != 0;
        transfer(t, fd, got, false);
        tally_count(t);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct tally t = {0};
    bool server = argc == 4 && !strcmp(argv[1], "serve");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    if (!server && !(argc == 5 && !strcmp(argv[1], "keep"))) {
        fprintf(stderr, "usage: load_tcp serve PORT STATUS | keep ADDRESS PORT STATUS\n");
        return 2;
    }
    t.path = argv[argc - 1];
    sin.sin_port = htons((uint16_t)strtoul(argv[argc - 2], NULL, 10));
    tally_report(&t, "no");
    if (server) {
        int listener = fd;

        (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (bind(listener, (struct sockaddr *)&sin, sizeof(sin)) || listen(listener, 1))
            tally_break(&t, "listen");
        fd = accept(listener, NULL, NULL);
        if (fd < 0)
            tally_break(&t, "accept");
    } else if (inet_pton(AF_INET, argv[2], &sin.sin_addr) != 1 ||
               connect(fd, (struct sockaddr *)&sin, sizeof(sin))) {
        tally_break(&t, "connect");
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (server)
        serve(&t, fd);
    keep(&t, fd);
}
