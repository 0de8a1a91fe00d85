/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "core/loop.h"
#include "migration/mig_channel_internal.h"

enum {
    DEAD_PEER_MS = 9000,       /* TCP_USER_TIMEOUT */
    KEEPALIVE_IDLE_S = 2,      /* before the first probe */
    KEEPALIVE_INTERVAL_S = 2,  /* between probes */
    KEEPALIVE_PROBES = 4,      /* unanswered: the connection is dead */
    UNIX_BUFFER = 1 << 20,     /* bytes asked for; the kernel caps it */
    READ_MAX = 1 << 30,        /* bytes of one read */
    IOV_BATCH = 256,           /* pieces of one system call */
    LINGER_BUFFER = 16 * 1024, /* bytes */
    LINGER_LOOK_MS = 5,        /* how often it is looked whether the peer has all */
    SPLICE_MIN = 64 * 1024,    /* bytes: what to copy costs more than two system calls */
    IDLE_PARTS = 8,            /* of idle_ms: how often a writer looks whether bytes go out */
};

/* --- Waiting ------------------------------------------------------------- */

/* Milliseconds until the earlier of the two limits; -1 for ever; 0 if one has passed. */
static int wait_ms(const struct mig_wait *w, uint64_t since_ns)
{
    uint64_t now = loop_now_ns(), end = w->deadline_ns ? w->deadline_ns : UINT64_MAX, ms;

    if (w->idle_ms && since_ns + (uint64_t)w->idle_ms * 1000000 < end)
        end = since_ns + (uint64_t)w->idle_ms * 1000000;
    if (end == UINT64_MAX)
        return -1;
    if (end <= now)
        return 0;
    ms = (end - now + 999999) / 1000000;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

int mig_channel_wait_fd(int fd, short events, const struct mig_wait *w, uint64_t since_ns)
{
    struct pollfd p[3] = {
        {.fd = fd,           .events = events},
        {.fd = w->cancel_fd, .events = POLLIN},
        {.fd = w->wake_fd,   .events = POLLIN},
    };

    for (;;) {
        int ms = wait_ms(w, since_ns);
        int n = poll(p, ARRAY_LEN(p), ms);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n < 0)
            continue;
        if (p[1].revents)
            return -ECANCELED;
        if (p[0].revents)
            return 0;
        if (p[2].revents)
            return -EAGAIN;
        if (ms == 0)
            return -ETIMEDOUT;
    }
}

static int explain_wait(int rc, const struct mig_wait *w, struct err *err)
{
    if (rc == -ETIMEDOUT && w->idle_ms && !(w->deadline_ns && loop_now_ns() >= w->deadline_ns))
        return err_set(err, rc, "no answer from the peer for %u ms", w->idle_ms);
    if (rc == -ETIMEDOUT)
        return err_set(err, rc, "no answer from the peer in time");
    if (rc == -ECANCELED)
        return err_set(err, rc, "cancelled");
    if (rc == -EAGAIN)
        return rc;
    return err_set(err, rc, "poll: %s", strerror(-rc));
}

/* --- The bare socket ----------------------------------------------------- */

static int64_t plain_result(ssize_t n, short want, short *ret_want, struct err *err)
{
    int rc = -errno;

    if (n >= 0)
        return n;
    if (rc == -EAGAIN || rc == -EINTR) {
        *ret_want = want;
        return -EAGAIN;
    }
    return err_set(err, rc, "%s", strerror(-rc));
}

static struct msghdr message_of(const struct iovec *iov, unsigned nr)
{
    struct msghdr msg = {.msg_iovlen = nr < IOV_BATCH ? nr : IOV_BATCH};

    memcpy(&msg.msg_iov, &iov, sizeof(iov)); /* the kernel does not write to it */
    return msg;
}

static int64_t plain_send(struct mig_stream *st, const struct iovec *iov, unsigned nr,
                          short *ret_want, struct err *err)
{
    struct msghdr msg = message_of(iov, nr);

    return plain_result(sendmsg(st->fd, &msg, MSG_NOSIGNAL), POLLOUT, ret_want, err);
}

static int plain_flush(struct mig_stream *st, short *ret_want, struct err *err)
{
    (void)st;
    (void)ret_want;
    (void)err;
    return 0;
}

static int64_t plain_recv(struct mig_stream *st, const struct iovec *iov, unsigned nr,
                          short *ret_want, struct err *err)
{
    struct msghdr msg = message_of(iov, nr);

    return plain_result(recvmsg(st->fd, &msg, 0), POLLIN, ret_want, err);
}

static void plain_finish(struct mig_stream *st)
{
    (void)shutdown(st->fd, SHUT_WR);
}

static const struct mig_stream_ops plain_ops = {
    .send = plain_send,
    .flush = plain_flush,
    .recv = plain_recv,
    .finish = plain_finish,
};

/* --- Life cycle ---------------------------------------------------------- */

static void set_int(int fd, int level, int name, int value)
{
    /* Advice: a socket without the option works, and mig_wait's own limits hold. */
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

/* Return: whether it is a UNIX socket. */
static bool tune(int fd)
{
    struct sockaddr_storage ss = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof(ss);

    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
        return false;
    if (ss.ss_family == AF_UNIX) {
        set_int(fd, SOL_SOCKET, SO_SNDBUF, UNIX_BUFFER);
        return true;
    }
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_PEER_MS);
    return false;
}

int mig_channel_from_fd(int fd, struct mig_channel **ret_ch)
{
    int flags = fcntl(fd, F_GETFL);
    struct mig_channel *ch;

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        int rc = -errno;

        (void)close(fd);
        return rc;
    }
    ch = calloc(1, sizeof(*ch));
    if (!ch) {
        (void)close(fd);
        return -ENOMEM;
    }
    ch->is_unix = tune(fd);
    ch->fd = fd;
    ch->plain = (struct mig_stream){.ops = &plain_ops, .fd = fd};
    ch->stream = &ch->plain;
    ch->splice = MIG_SPLICE_NONE;
    *ret_ch = ch;
    return 0;
}

int mig_channel_begin_tls(struct mig_channel *ch, struct mig_tls *tls, const char *host,
                          struct err *err)
{
    struct mig_stream *st;
    int rc = mig_tls_stream_new(tls, ch->fd, host, &st, err);

    if (rc >= 0)
        ch->stream = st;
    return rc;
}

int mig_channel_shake_hands(struct mig_channel *ch, short *ret_want, struct err *err)
{
    int rc = mig_tls_stream_handshake(ch->stream, ret_want, err);

    ch->encrypted = rc >= 0;
    return rc;
}

int mig_channel_start_tls(struct mig_channel *ch, struct mig_tls *tls, const char *host,
                          const struct mig_wait *wait, struct err *err)
{
    uint64_t since = loop_now_ns();
    struct mig_wait w = *wait;
    short want = 0;
    int rc;

    w.wake_fd = -1; /* half a handshake cannot be taken up again */
    rc = mig_channel_begin_tls(ch, tls, host, err);
    if (rc < 0)
        return rc;
    while ((rc = mig_channel_shake_hands(ch, &want, err)) == -EAGAIN) {
        rc = mig_channel_wait_fd(ch->fd, want, &w, since);
        if (rc < 0)
            return explain_wait(rc, &w, err);
    }
    return rc;
}

void mig_channel_offer_resumption(struct mig_channel *ch)
{
    if (ch->stream->ops->offer_resumption)
        ch->stream->ops->offer_resumption(ch->stream);
}

void mig_channel_close(struct mig_channel *ch)
{
    if (!ch)
        return;
    if (ch->stream != &ch->plain)
        ch->stream->ops->free(ch->stream);
    mig_splice_close(&ch->splice);
    (void)close(ch->fd);
    free(ch);
}

void mig_channel_finish(struct mig_channel *ch)
{
    ch->stream->ops->finish(ch->stream);
    (void)shutdown(ch->fd, SHUT_WR);
}

bool mig_channel_drain(struct mig_channel *ch)
{
    char sink[LINGER_BUFFER];
    ssize_t n = recv(ch->fd, sink, sizeof(sink), 0);

    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Bytes that the peer's kernel has not taken; INT_MAX where this one does not say. */
static int bytes_out(int fd)
{
    int n;

    return ioctl(fd, SIOCOUTQ, &n) < 0 ? INT_MAX : n;
}

void mig_channel_linger(struct mig_channel *ch, unsigned ms)
{
    uint64_t end = loop_now_ns() + (uint64_t)ms * 1000000;
    int rc = 0;

    mig_channel_finish(ch);
    while (mig_channel_drain(ch) && !ch->is_unix && bytes_out(ch->fd) > 0) {
        uint64_t now = loop_now_ns();
        struct mig_wait wait = {.cancel_fd = -1,
                                .wake_fd = -1,
                                .deadline_ns = now + (uint64_t)LINGER_LOOK_MS * 1000000};

        if ((rc < 0 && rc != -ETIMEDOUT) || now >= end)
            return;
        rc = mig_channel_wait_fd(ch->fd, POLLIN, &wait, 0);
    }
}

bool mig_channel_is_encrypted(const struct mig_channel *ch)
{
    return ch->encrypted;
}

int mig_channel_fd(const struct mig_channel *ch)
{
    return ch->fd;
}

/* --- Bytes --------------------------------------------------------------- */

/* Step over bytes that were moved, and over empty pieces. */
static void advance(struct iovec **iov, unsigned *nr, size_t n)
{
    while (*nr && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        (*nr)--;
    }
    if (*nr) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

/*
 * Wait until bytes can be written.  The kernel says so only when a third of the
 * buffer is free, and that can take a peer on a slow link or processor longer
 * than idle_ms: as long as it takes any bytes, it is alive.
 */
static int wait_to_write(int fd, short want, const struct mig_wait *w)
{
    uint64_t since = loop_now_ns();
    struct mig_wait part = *w;
    int out = bytes_out(fd);

    part.idle_ms = w->idle_ms / IDLE_PARTS;
    if (!part.idle_ms)
        return mig_channel_wait_fd(fd, want, w, since);
    for (;;) {
        uint64_t now = loop_now_ns();
        int rc = mig_channel_wait_fd(fd, want, &part, now), left = bytes_out(fd);

        now = loop_now_ns();
        if (rc != -ETIMEDOUT || (w->deadline_ns && now >= w->deadline_ns))
            return rc;
        if (left < out) {
            out = left;
            since = now;
        } else if (now - since >= (uint64_t)w->idle_ms * 1000000) {
            return rc;
        }
    }
}

/* As mig_stream_ops.send. */
static int64_t send_by_reference(struct mig_channel *ch, const struct iovec *iov, unsigned nr,
                                 short *ret_want, struct err *err)
{
    int64_t n = mig_splice_send(&ch->splice, ch->fd, iov, nr);

    *ret_want = POLLOUT;
    return n >= 0 || n == -EAGAIN ? n : err_set(err, (int)n, "%s", strerror((int)-n));
}

static int write_all(struct mig_channel *ch, struct iovec *iov, unsigned nr, bool by_reference,
                     const struct mig_wait *wait, struct err *err)
{
    struct mig_wait w = *wait;
    struct mig_stream *st = ch->stream;
    int64_t n;

    w.wake_fd = -1; /* only reads are woken */
    advance(&iov, &nr, 0);
    for (;;) {
        short want = POLLOUT;

        if (nr && by_reference)
            n = send_by_reference(ch, iov, nr, &want, err);
        else
            n = nr ? st->ops->send(st, iov, nr, &want, err) : st->ops->flush(st, &want, err);
        if (n >= 0 && nr == 0)
            return 0;
        if (n >= 0) {
            advance(&iov, &nr, (size_t)n);
            continue;
        }
        if (n != -EAGAIN)
            return (int)n;
        n = wait_to_write(ch->fd, want, &w);
        if (n < 0)
            return explain_wait((int)n, &w, err);
    }
}

int mig_channel_writev(struct mig_channel *ch, struct iovec *iov, unsigned nr,
                       const struct mig_wait *wait, struct err *err)
{
    return write_all(ch, iov, nr, false, wait, err);
}

static bool can_splice(struct mig_channel *ch)
{
    if (ch->stream != &ch->plain || ch->no_splice)
        return false;
    if (ch->splice.in < 0)
        ch->no_splice = mig_splice_open(&ch->splice) < 0;
    return !ch->no_splice;
}

int mig_channel_write_pages(struct mig_channel *ch, struct iovec *iov, unsigned nr, size_t len,
                            const struct mig_wait *wait, struct err *err)
{
    int rc;

    if (len < SPLICE_MIN || !can_splice(ch))
        return write_all(ch, iov, nr, false, wait, err);
    rc = write_all(ch, iov, 1, false, wait, err);
    return rc < 0 ? rc : write_all(ch, iov + 1, nr - 1, true, wait, err);
}

int mig_channel_write(struct mig_channel *ch, const void *data, size_t len,
                      const struct mig_wait *wait, struct err *err)
{
    struct iovec iov = {.iov_len = len};

    memcpy(&iov.iov_base, &data, sizeof(data));
    return mig_channel_writev(ch, &iov, 1, wait, err);
}

/* One read of at least a byte. */
static int64_t read_once(struct mig_channel *ch, const struct iovec *iov, unsigned nr,
                         const struct mig_wait *wait, struct err *err)
{
    struct mig_stream *st = ch->stream;
    uint64_t since = 0;
    int64_t n;

    for (;;) {
        short want = POLLIN;

        n = st->ops->recv(st, iov, nr, &want, err);
        if (n == 0)
            return err_set(err, -ECONNRESET, "the peer closed the connection");
        if (n != -EAGAIN)
            return n;
        if (!since)
            since = loop_now_ns();
        n = mig_channel_wait_fd(ch->fd, want, wait, since);
        if (n < 0)
            return explain_wait((int)n, wait, err);
    }
}

int mig_channel_read_some(struct mig_channel *ch, void *buf, size_t len,
                          const struct mig_wait *wait, struct err *err)
{
    struct iovec iov = {buf, len < READ_MAX ? len : READ_MAX};

    return (int)read_once(ch, &iov, 1, wait, err);
}

int mig_channel_readv(struct mig_channel *ch, struct iovec *iov, unsigned nr,
                      const struct mig_wait *wait, struct err *err)
{
    struct mig_wait w = *wait;

    w.wake_fd = -1;
    advance(&iov, &nr, 0);
    while (nr) {
        int64_t n = read_once(ch, iov, nr, &w, err);

        if (n < 0)
            return (int)n;
        advance(&iov, &nr, (size_t)n);
    }
    return 0;
}

int mig_channel_read(struct mig_channel *ch, void *buf, size_t len, const struct mig_wait *wait,
                     struct err *err)
{
    struct iovec iov = {buf, len};

    return mig_channel_readv(ch, &iov, 1, wait, err);
}

/* --- Descriptors ---------------------------------------------------------- */

union fd_space {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(MIG_FDS_MAX * sizeof(int))];
};

static bool can_pass_fds(const struct mig_channel *ch)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);

    return ch->stream == &ch->plain && getsockname(ch->fd, (struct sockaddr *)&ss, &len) == 0 &&
           ss.ss_family == AF_UNIX;
}

int mig_channel_send_fds(struct mig_channel *ch, const void *data, size_t len, const int *fds,
                         unsigned nr, const struct mig_wait *wait, struct err *err)
{
    union fd_space space = {0};
    struct iovec iov = {.iov_len = len};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = space.bytes,
                         .msg_controllen = CMSG_SPACE(nr * sizeof(int))};
    uint64_t since = loop_now_ns();
    ssize_t n;

    if (!can_pass_fds(ch) || nr == 0 || nr > MIG_FDS_MAX)
        return err_set(err, -ENOTSUP, "this channel hands no descriptors over");
    memcpy(&iov.iov_base, &data, sizeof(data));
    space.align = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(nr * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&space.align), fds, nr * sizeof(int));
    while ((n = sendmsg(ch->fd, &msg, MSG_NOSIGNAL)) < 0) {
        int rc = -errno;

        if (rc == -EAGAIN)
            rc = mig_channel_wait_fd(ch->fd, POLLOUT, wait, since);
        if (rc < 0 && rc != -EINTR)
            return err_set(err, rc, "%s", strerror(-rc));
    }
    return mig_channel_write(ch, (const char *)data + n, len - (size_t)n, wait, err);
}

/* Take the descriptors out of a message; those that have no place are closed. */
static void take_fds(struct msghdr *msg, int *fds)
{
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (n < MIG_FDS_MAX)
                fds[n++] = fd;
            else
                (void)close(fd);
        }
    }
}

int mig_channel_recv_fds(struct mig_channel *ch, void *data, size_t len, int *fds,
                         const struct mig_wait *wait, struct err *err)
{
    union fd_space space = {0};
    struct iovec iov = {data, len};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = space.bytes,
                         .msg_controllen = sizeof(space.bytes)};
    uint64_t since = loop_now_ns();
    ssize_t n;

    for (unsigned i = 0; i < MIG_FDS_MAX; i++)
        fds[i] = -1;
    if (!can_pass_fds(ch))
        return err_set(err, -ENOTSUP, "this channel hands no descriptors over");
    while ((n = recvmsg(ch->fd, &msg, MSG_CMSG_CLOEXEC)) < 0) {
        int rc = -errno;

        if (rc == -EAGAIN)
            rc = mig_channel_wait_fd(ch->fd, POLLIN, wait, since);
        if (rc < 0 && rc != -EINTR)
            return explain_wait(rc, wait, err);
    }
    if (n == 0)
        return err_set(err, -ECONNRESET, "the peer closed the connection");
    take_fds(&msg, fds);
    return mig_channel_read(ch, (char *)data + n, len - (size_t)n, wait, err);
}
