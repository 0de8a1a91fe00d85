/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include "core/loop.h"
#include "migration/mig_wire.h"

enum {
    CHUNK = 64 * 1024,  /* bytes forwarded at once */
    TLS_HEAD = 5,       /* RFC 8446, 5.1: the length is the last two bytes, in network order */
    DELAY_OCTAVES = 16, /* pause_ms: pauses are as often in each half of what is left */
};

/* One direction of one connection, with a thread of its own: no way holds up another. */
struct pipe_way {
    struct fake_link *link;
    unsigned conn;
    enum fake_dir dir;
    int from, to; /* our ends of the socket pairs; borrowed from conn.fd */
    pthread_t thread;
    unsigned long long x; /* of the random delays */
    uint64_t bytes;       /* under the link's lock, as the record */
    uint8_t *record;      /* owned */
    size_t record_cap;
    /* Where pieces are forwarded: of the message that passes, or the TLS record. */
    uint8_t head[sizeof(struct mig_msg_hdr)];
    size_t head_got, body_left;
};

struct conn {
    int fd[2]; /* our ends: towards the source, towards the destination */
    struct pipe_way way[2];
};

struct fake_link {
    struct fake_link_config cfg;
    struct mig_tls *tls; /* borrowed; NULL: none */
    int arrived_fd;      /* semaphore: connections to be accepted */

    pthread_mutex_t lock; /* below */
    pthread_cond_t cond;
    struct conn conns[FAKE_LINK_CONNECTIONS];
    int pending[FAKE_LINK_CONNECTIONS]; /* the destination's ends, or -1 */
    unsigned nr_conns, nr_accepted;
    bool cut, quit, deaf;
};

/* --- Forwarding ---------------------------------------------------------- */

/* All waiting is in poll(), which tests/fakes/fake_time.h knows. */
static void await(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};

    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
}

static void record_locked(struct pipe_way *w, const uint8_t *data, size_t n)
{
    if (w->bytes + n > w->record_cap) {
        w->record_cap = 2 * (w->bytes + n);
        w->record = realloc(w->record, w->record_cap);
        if (!w->record)
            abort();
    }
    memcpy(w->record + w->bytes, data, n);
}

static void cut_locked(struct fake_link *l)
{
    l->cut = true;
    for (unsigned i = 0; i < l->nr_conns && !l->cfg.stall; i++)
        for (unsigned k = 0; k < 2; k++)
            (void)shutdown(l->conns[i].fd[k], SHUT_RDWR);
}

static bool is_cut_here(const struct fake_link_config *cfg, const struct pipe_way *w)
{
    return cfg->cut && cfg->cut_conn == w->conn && cfg->cut_dir == w->dir;
}

/* How much may be forwarded of what is there; 0: nothing any more. */
static size_t allowance(struct fake_link *l, struct pipe_way *w)
{
    size_t n = CHUNK;

    if (l->cfg.delay_seed) {
        w->x = w->x * 6364136223846793005ULL + 1442695040888963407ULL;
        n = 1 + (w->x >> 33) % (w->x >> 62 ? 700 : CHUNK);
    }
    (void)pthread_mutex_lock(&l->lock);
    while (l->cut && !l->quit)
        (void)pthread_cond_wait(&l->cond, &l->lock);
    if (l->quit)
        n = 0;
    else if (is_cut_here(&l->cfg, w) && !l->cfg.cut_at_record && w->bytes + n > l->cfg.cut_at)
        n = (size_t)(l->cfg.cut_at - w->bytes);
    (void)pthread_mutex_unlock(&l->lock);
    return n;
}

/* Descriptors that came with some bytes. */
struct cargo {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MIG_FDS_MAX * sizeof(int))];
    } space;
    size_t len; /* bytes of it */
};

static size_t head_size(const struct pipe_way *w)
{
    return w->link->tls ? (size_t)TLS_HEAD : sizeof(struct mig_msg_hdr);
}

static size_t body_size(const struct pipe_way *w)
{
    struct mig_msg_hdr hdr;

    if (w->link->tls)
        return (size_t)w->head[TLS_HEAD - 2] << 8 | w->head[TLS_HEAD - 1];
    memcpy(&hdr, w->head, sizeof(hdr));
    return le32_get(hdr.len);
}

/*
 * A piece of one message: its head, or of its body.  So the bytes that
 * descriptors came with are never glued to those before them, and a record is
 * not to the next one.
 */
static ssize_t receive_piece(struct pipe_way *w, uint8_t *buf, size_t room, struct cargo *cargo)
{
    size_t want = w->body_left ? w->body_left : head_size(w) - w->head_got;
    struct iovec iov = {buf, want < room ? want : room};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = cargo->space.bytes,
                         .msg_controllen = sizeof(cargo->space.bytes)};
    ssize_t n = recvmsg(w->from, &msg, MSG_CMSG_CLOEXEC);

    if (n <= 0)
        return n;
    cargo->len = msg.msg_controllen;
    if (w->body_left) {
        w->body_left -= (size_t)n;
        return n;
    }
    memcpy(w->head + w->head_got, buf, (size_t)n);
    w->head_got += (size_t)n;
    if (w->head_got == head_size(w)) {
        w->head_got = 0;
        w->body_left = body_size(w);
    }
    return n;
}

/* Send the descriptors, with the first of the bytes; returns how many bytes went with them. */
static size_t send_cargo(int fd, const uint8_t *p, struct cargo *cargo)
{
    uint8_t first = p[0];
    struct iovec iov = {&first, 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = cargo->space.bytes,
                         .msg_controllen = cargo->len};
    ssize_t n;

    await(fd, POLLOUT);
    n = sendmsg(fd, &msg, MSG_NOSIGNAL);

    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int one;

            memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(one));
            (void)close(one);
        }
    }
    return n == 1;
}

static void write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (k < 0 && errno == EAGAIN)
            await(fd, POLLOUT);
        if (k < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (k <= 0)
            return; /* that end closed: the rest goes nowhere */
        p += k;
        n -= (size_t)k;
    }
}

static void count(struct fake_link *l, struct pipe_way *w, const uint8_t *data, size_t n)
{
    (void)pthread_mutex_lock(&l->lock);
    if (l->cfg.record)
        record_locked(w, data, n);
    w->bytes += n;
    (void)pthread_mutex_unlock(&l->lock);
}

static void cut_if_due(struct fake_link *l, const struct pipe_way *w)
{
    bool is_border = w->head_got == 0 && w->body_left == 0;

    (void)pthread_mutex_lock(&l->lock);
    if (is_cut_here(&l->cfg, w) &&
        (l->cfg.cut_at_record ? is_border && w->bytes >= l->cfg.cut_at : w->bytes == l->cfg.cut_at))
        cut_locked(l);
    (void)pthread_mutex_unlock(&l->lock);
}

static void nap_ns(uint64_t ns)
{
    const struct timespec nap = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
}

/* Drawn before with w->x: for how many bytes. */
static uint64_t pause_ns(const struct pipe_way *w)
{
    uint64_t part = w->x >> 50;

    if (!w->link->cfg.pause_ms)
        return part * 20;
    return ((uint64_t)w->link->cfg.pause_ms * 1000000 >> (w->x >> 46) % DELAY_OCTAVES) * part >> 14;
}

static void *way_main(void *arg)
{
    struct pipe_way *w = arg;
    struct fake_link *l = w->link;
    uint8_t *buf = malloc(CHUNK);
    struct cargo cargo = {.len = 0};
    size_t room, went;
    ssize_t n;

    if (!buf)
        abort();
    for (;;) {
        await(w->from, POLLIN);
        room = allowance(l, w);
        if (room == 0)
            break;
        cargo.len = 0;
        n = l->cfg.pass_fds || l->cfg.cut_at_record ? receive_piece(w, buf, room, &cargo)
                                                    : recv(w->from, buf, room, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (l->cfg.delay_ms)
            nap_ns((uint64_t)l->cfg.delay_ms * 1000000);
        /* Counted first: who has received a byte finds it counted. */
        count(l, w, buf, (size_t)n);
        went = cargo.len ? send_cargo(w->to, buf, &cargo) : 0;
        write_all(w->to, buf + went, (size_t)n - went);
        cut_if_due(l, w);
        if (l->cfg.delay_seed)
            nap_ns(pause_ns(w));
    }
    (void)shutdown(w->to, SHUT_WR);
    free(buf);
    return NULL;
}

/* --- Connections --------------------------------------------------------- */

static int shake_hands(const struct fake_link *l, struct mig_channel **ret_ch,
                       const struct mig_wait *wait, struct err *err)
{
    int rc = mig_channel_start_tls(*ret_ch, l->tls, "localhost", wait, err);

    if (rc < 0)
        mig_channel_close(steal_ptr(*ret_ch));
    return rc;
}

int fake_link_connect(void *arg, const struct mig_wait *wait, struct mig_channel **ret_ch,
                      struct err *err)
{
    struct fake_link *l = arg;
    int a[2], b[2], rc;
    struct conn *c;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b) < 0)
        abort();
    (void)pthread_mutex_lock(&l->lock);
    if (l->cut || l->deaf || l->nr_conns == FAKE_LINK_CONNECTIONS) {
        (void)pthread_mutex_unlock(&l->lock);
        for (unsigned i = 0; i < 2; i++) {
            (void)close(a[i]);
            (void)close(b[i]);
        }
        return err_set(err, -ECONNREFUSED, "the network is cut");
    }
    c = &l->conns[l->nr_conns];
    c->fd[0] = a[1];
    c->fd[1] = b[1];
    for (unsigned i = 0; i < 2; i++) {
        struct pipe_way *w = &c->way[i];

        *w = (struct pipe_way){.link = l,
                               .conn = l->nr_conns,
                               .dir = i == 0 ? FAKE_TO_DEST : FAKE_TO_SOURCE,
                               .from = c->fd[i],
                               .to = c->fd[1 - i],
                               .x = l->cfg.delay_seed + l->nr_conns};
        if (pthread_create(&w->thread, NULL, way_main, w) != 0)
            abort();
    }
    l->pending[l->nr_conns++] = b[0];
    if (l->cfg.cut && l->cfg.cut_at == 0 && l->cfg.cut_conn == l->nr_conns - 1)
        cut_locked(l);
    (void)pthread_mutex_unlock(&l->lock);
    (void)eventfd_write(l->arrived_fd, 1);
    rc = mig_channel_from_fd(a[0], ret_ch);
    return rc < 0 || !l->tls ? rc : shake_hands(l, ret_ch, wait, err);
}

int fake_link_accept(void *arg, const struct mig_wait *wait, struct mig_channel **ret_ch,
                     struct err *err)
{
    struct mig_wait w = *wait;
    struct fake_link *l = arg;
    eventfd_t v;
    int rc, fd;

    w.idle_ms = 0;
    rc = mig_channel_wait_fd(l->arrived_fd, POLLIN, &w, 0);
    if (rc < 0)
        return err_set(err, rc, "waiting for a connection: %s", strerror(-rc));
    (void)eventfd_read(l->arrived_fd, &v);
    (void)pthread_mutex_lock(&l->lock);
    fd = l->pending[l->nr_accepted];
    l->pending[l->nr_accepted++] = -1;
    (void)pthread_mutex_unlock(&l->lock);
    return mig_channel_from_fd(fd, ret_ch);
}

int fake_link_fd(const struct fake_link *l)
{
    return l->arrived_fd;
}

void fake_link_stop_listening(void *arg)
{
    struct fake_link *l = arg;

    (void)pthread_mutex_lock(&l->lock);
    l->deaf = true;
    for (unsigned i = 0; i < l->nr_conns; i++) {
        if (l->pending[i] >= 0)
            (void)close(l->pending[i]);
        l->pending[i] = -1;
    }
    (void)pthread_mutex_unlock(&l->lock);
}

void fake_link_cut(void *arg)
{
    struct fake_link *l = arg;

    (void)pthread_mutex_lock(&l->lock);
    cut_locked(l);
    (void)pthread_mutex_unlock(&l->lock);
}

/* --- Life cycle ---------------------------------------------------------- */

struct fake_link *fake_link_new(const struct fake_link_config *cfg)
{
    struct fake_link *l = calloc(1, sizeof(*l));

    if (!l)
        abort();
    l->cfg = *cfg;
    l->arrived_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)pthread_cond_init(&l->cond, NULL);
    if (l->arrived_fd < 0)
        abort();
    return l;
}

void fake_link_speak_tls(struct fake_link *l, struct mig_tls *tls)
{
    l->tls = tls;
}

void fake_link_free(struct fake_link *l)
{
    (void)pthread_mutex_lock(&l->lock);
    l->quit = true;
    (void)pthread_cond_broadcast(&l->cond);
    (void)pthread_mutex_unlock(&l->lock);
    for (unsigned i = 0; i < 2 * l->nr_conns; i++)
        (void)shutdown(l->conns[i / 2].fd[i % 2], SHUT_RDWR);
    for (unsigned i = 0; i < 2 * l->nr_conns; i++) {
        (void)pthread_join(l->conns[i / 2].way[i % 2].thread, NULL);
        free(l->conns[i / 2].way[i % 2].record);
    }
    for (unsigned i = 0; i < l->nr_conns; i++) {
        (void)close(l->conns[i].fd[0]);
        (void)close(l->conns[i].fd[1]);
        if (l->pending[i] >= 0)
            (void)close(l->pending[i]);
    }
    (void)close(l->arrived_fd);
    (void)pthread_mutex_destroy(&l->lock);
    (void)pthread_cond_destroy(&l->cond);
    free(l);
}

uint64_t fake_link_bytes(struct fake_link *l, unsigned conn, enum fake_dir dir)
{
    uint64_t n;

    (void)pthread_mutex_lock(&l->lock);
    n = l->conns[conn].way[dir].bytes;
    (void)pthread_mutex_unlock(&l->lock);
    return n;
}

const uint8_t *fake_link_record(struct fake_link *l, unsigned conn, enum fake_dir dir,
                                size_t *ret_len)
{
    *ret_len = (size_t)fake_link_bytes(l, conn, dir);
    return l->conns[conn].way[dir].record;
}
