/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs commands and opens streams for a driver at the other end of a byte channel: a virtio
 * serial port (the emulated host) or a TCP connection (the guest inside it).
 *
 * The channel carries frames: le16 stream, le16 type, le32 length, then the payload.  A stream is
 * opened by the driver with EXEC (a shell command) or CONNECT ("unix:PATH", "tcp:ADDR:PORT" or
 * "file:PATH"), carries DATA both ways, EOF towards the command's input, and ends with one CLOSED
 * from here: the exit status, 128 + signal, or a negative errno.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "core/base.h"
#include "core/wire.h"

enum {
    STREAM_MAX = 64,
    PAYLOAD_MAX = 32 << 10,
    QUEUE_MAX = 64 << 20,
    HDR_LEN = 8,
};

enum frame_type {
    FRAME_EXEC = 1,
    FRAME_DATA = 2,
    FRAME_EOF = 3,
    FRAME_KILL = 4,
    FRAME_CONNECT = 5,
    FRAME_CLOSED = 6,
    FRAME_PING = 7,
};

struct stream {
    bool used;
    uint16_t id;
    pid_t pid;   /* 0 for CONNECT */
    int in;      /* to the command; -1 when closed */
    int out;     /* from the command; -1 when closed */
    bool eof;    /* close @in when @queue is empty */
    bool exited; /* the command was waited for */
    int status;  /* what CLOSED will say */
    uint8_t *queue;
    size_t queue_len;
};

struct server {
    int fd;
    int sig;
    struct stream streams[STREAM_MAX];
    uint8_t rx[HDR_LEN + PAYLOAD_MAX];
    size_t rx_len;
};

static struct server server;

static void die(const char *what)
{
    fprintf(stderr, "command_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static bool write_all(int fd, const void *buf, size_t len)
{
    const uint8_t *p = buf;

    while (len) {
        ssize_t n = write(fd, p, len);

        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd pfd = {.fd = fd, .events = POLLOUT};

            (void)poll(&pfd, 1, 1000);
        } else if (n == 0 || errno != EINTR) {
            return false;
        }
    }
    return true;
}

static void send_frame(struct server *s, uint16_t id, enum frame_type type, const void *data,
                       size_t len)
{
    uint8_t buf[HDR_LEN + PAYLOAD_MAX];
    struct wr w = {.p = buf, .left = sizeof(buf)};

    wr_le16(&w, id);
    wr_le16(&w, (uint16_t)type);
    wr_le32(&w, (uint32_t)len);
    wr_bytes(&w, data, len);
    if (w.bad || !write_all(s->fd, buf, HDR_LEN + len))
        die("channel write");
}

static void send_closed(struct server *s, uint16_t id, int status)
{
    le32 v = le32_make((uint32_t)status);

    send_frame(s, id, FRAME_CLOSED, &v, sizeof(v));
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static struct stream *stream_find(struct server *s, uint16_t id)
{
    for (size_t i = 0; i < STREAM_MAX; i++) {
        if (s->streams[i].used && s->streams[i].id == id)
            return &s->streams[i];
    }
    return NULL;
}

static struct stream *stream_new(struct server *s, uint16_t id)
{
    for (size_t i = 0; i < STREAM_MAX; i++) {
        if (!s->streams[i].used) {
            s->streams[i] = (struct stream){.used = true, .id = id, .in = -1, .out = -1};
            return &s->streams[i];
        }
    }
    return NULL;
}

static void stream_free(struct server *s, struct stream *st)
{
    send_closed(s, st->id, st->status);
    close_fd(&st->in);
    close_fd(&st->out);
    free(st->queue);
    *st = (struct stream){.in = -1, .out = -1};
}

static void child_exec(const char *command, int in, int out)
{
    sigset_t none;

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)setsid();
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(126);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

static int stream_exec(struct stream *st, const char *command)
{
    int to[2];
    int from[2];

    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
        return -errno;
    st->pid = fork();
    if (st->pid < 0)
        return -errno;
    if (st->pid == 0)
        child_exec(command, to[0], from[1]);
    (void)close(to[0]);
    (void)close(from[1]);
    st->in = to[1];
    st->out = from[0];
    (void)fcntl(st->in, F_SETFL, O_NONBLOCK);
    (void)fcntl(st->out, F_SETFL, O_NONBLOCK);
    return 0;
}

static int connect_tcp(char *where)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    char *colon = strrchr(where, ':');
    int fd;

    if (!colon)
        return -EINVAL;
    *colon = '\0';
    sin.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, where, &sin.sin_addr) != 1)
        return -EINVAL;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&sin, sizeof(sin))) {
        int rc = -errno;

        (void)close(fd);
        return rc;
    }
    return fd;
}

static int connect_unix(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    (void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
        int rc = -errno;

        (void)close(fd);
        return rc;
    }
    return fd;
}

static int stream_connect(struct stream *st, char *where)
{
    int fd;

    if (!strncmp(where, "tcp:", 4)) {
        fd = connect_tcp(where + 4);
    } else if (!strncmp(where, "unix:", 5)) {
        fd = connect_unix(where + 5);
    } else if (!strncmp(where, "file:", 5)) {
        fd = open(where + 5, O_RDWR | O_NOCTTY | O_CLOEXEC);
        fd = fd < 0 ? -errno : fd;
    } else {
        fd = -EINVAL;
    }
    if (fd < 0)
        return fd;
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    st->out = fd;
    st->in = dup(fd);
    return st->in < 0 ? -errno : 0;
}

/* Commands end with their process, not with their output: a daemon they leave may hold that. */
static bool stream_is_done(const struct stream *st)
{
    return st->pid ? st->exited : st->out < 0;
}

static void stream_read(struct server *s, struct stream *st)
{
    uint8_t buf[PAYLOAD_MAX];
    ssize_t n = read(st->out, buf, sizeof(buf));

    if (n > 0)
        send_frame(s, st->id, FRAME_DATA, buf, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_fd(&st->out);
}

static void stream_drain(struct server *s, struct stream *st)
{
    struct pollfd pfd = {.fd = st->out, .events = POLLIN};

    while (st->out >= 0 && poll(&pfd, 1, 0) > 0)
        stream_read(s, st);
}

static void stream_flush(struct stream *st)
{
    while (st->in >= 0 && st->queue_len) {
        ssize_t n = write(st->in, st->queue, st->queue_len);

        if (n > 0) {
            st->queue_len -= (size_t)n;
            memmove(st->queue, st->queue + n, st->queue_len);
        } else if (n < 0 && errno == EAGAIN) {
            return;
        } else if (n == 0 || errno != EINTR) {
            close_fd(&st->in);
        }
    }
    if (st->eof && !st->queue_len && st->in >= 0) {
        if (!st->pid)
            (void)shutdown(st->in, SHUT_WR);
        close_fd(&st->in);
    }
}

static void stream_enqueue(struct stream *st, const uint8_t *data, size_t len)
{
    uint8_t *bigger;

    if (st->in < 0)
        return;
    if (st->queue_len + len > QUEUE_MAX) {
        close_fd(&st->in);
        return;
    }
    bigger = realloc(st->queue, st->queue_len + len);
    if (!bigger)
        die("out of memory");
    st->queue = bigger;
    memcpy(st->queue + st->queue_len, data, len);
    st->queue_len += len;
    stream_flush(st);
}

static void stream_open(struct server *s, uint16_t id, unsigned type, const uint8_t *data,
                        size_t len)
{
    char *text = strndup((const char *)data, len);
    struct stream *st = stream_new(s, id);
    int rc;

    if (!text || !st) {
        free(text);
        send_closed(s, id, -ENOMEM);
        return;
    }
    rc = type == FRAME_EXEC ? stream_exec(st, text) : stream_connect(st, text);
    free(text);
    if (rc) {
        st->status = rc;
        stream_free(s, st);
    }
}

static void handle_frame(struct server *s, uint16_t id, unsigned type, const uint8_t *data,
                         size_t len)
{
    struct stream *st = stream_find(s, id);

    if (type == FRAME_PING) {
        send_frame(s, id, FRAME_PING, data, len);
    } else if (type == FRAME_EXEC || type == FRAME_CONNECT) {
        stream_open(s, id, type, data, len);
    } else if (!st) {
        return; /* a stream that has just ended by itself */
    } else if (type == FRAME_DATA) {
        stream_enqueue(st, data, len);
    } else if (type == FRAME_EOF) {
        st->eof = true;
        stream_flush(st);
    } else if (type == FRAME_KILL) {
        if (st->pid)
            (void)kill(-st->pid, SIGKILL);
        else
            close_fd(&st->out);
    }
}

static void channel_read(struct server *s)
{
    ssize_t n = read(s->fd, s->rx + s->rx_len, sizeof(s->rx) - s->rx_len);

    if (n == 0) {
        /* A serial port without a reader at the other end; a TCP peer that went away ends us. */
        int type;
        socklen_t len = sizeof(type);

        if (!getsockopt(s->fd, SOL_SOCKET, SO_TYPE, &type, &len))
            exit(0);
        (void)usleep(20000);
        return;
    }
    if (n < 0 && errno != EINTR && errno != EAGAIN)
        die("channel read");
    s->rx_len += n > 0 ? (size_t)n : 0;
    for (;;) {
        struct rd r = {.p = s->rx, .left = s->rx_len};
        uint16_t id = rd_le16(&r);
        unsigned type = rd_le16(&r);
        uint32_t len = rd_le32(&r);

        if (r.bad)
            return;
        if (len > PAYLOAD_MAX) {
            errno = EBADMSG;
            die("frame too long");
        }
        if (r.left < len)
            return;
        handle_frame(s, id, type, r.p, len);
        s->rx_len -= HDR_LEN + len;
        memmove(s->rx, s->rx + HDR_LEN + len, s->rx_len);
    }
}

static void reap(struct server *s)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    (void)!read(s->sig, &info, sizeof(info));
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (size_t i = 0; i < STREAM_MAX; i++) {
            struct stream *st = &s->streams[i];

            if (!st->used || st->pid != pid)
                continue;
            st->exited = true;
            st->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    }
}

static void serve(struct server *s)
{
    for (;;) {
        struct pollfd pfds[2 + 2 * STREAM_MAX];

        pfds[0] = (struct pollfd){.fd = s->fd, .events = POLLIN};
        pfds[1] = (struct pollfd){.fd = s->sig, .events = POLLIN};
        for (size_t i = 0; i < STREAM_MAX; i++) {
            struct stream *st = &s->streams[i];

            pfds[2 + 2 * i] = (struct pollfd){.fd = st->used ? st->out : -1, .events = POLLIN};
            pfds[3 + 2 * i] =
                (struct pollfd){.fd = st->used && st->queue_len ? st->in : -1, .events = POLLOUT};
        }
        if (poll(pfds, ARRAY_LEN(pfds), -1) < 0 && errno != EINTR)
            die("poll");
        for (size_t i = 0; i < STREAM_MAX; i++) {
            struct stream *st = &s->streams[i];

            if (pfds[2 + 2 * i].revents)
                stream_read(s, st);
            if (pfds[3 + 2 * i].revents)
                stream_flush(st);
        }
        if (pfds[1].revents)
            reap(s);
        for (size_t i = 0; i < STREAM_MAX; i++) {
            struct stream *st = &s->streams[i];

            if (st->used && stream_is_done(st)) {
                stream_drain(s, st);
                stream_free(s, st);
            }
        }
        if (pfds[0].revents)
            channel_read(s);
    }
}

static void serve_fd(int fd)
{
    sigset_t mask;

    for (size_t i = 0; i < STREAM_MAX; i++)
        server.streams[i] = (struct stream){.in = -1, .out = -1};
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &mask, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    server.fd = fd;
    server.sig = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (server.sig < 0)
        die("signalfd");
    serve(&server);
}

static void listen_forever(uint16_t port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        bind(fd, (struct sockaddr *)&sin, sizeof(sin)) || listen(fd, 16))
        die("listen");
    (void)signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

        if (peer < 0)
            continue;
        if (fork() == 0) {
            (void)signal(SIGCHLD, SIG_DFL);
            serve_fd(peer);
        }
        (void)close(peer);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "listen")) {
        listen_forever((uint16_t)strtoul(argv[2], NULL, 10));
    } else if (argc == 3 && !strcmp(argv[1], "device")) {
        int fd = open(argv[2], O_RDWR | O_NOCTTY | O_CLOEXEC);

        if (fd < 0)
            die(argv[2]);
        serve_fd(fd);
    }
    fprintf(stderr, "usage: command_server device PATH | listen PORT\n");
    return 2;
}
