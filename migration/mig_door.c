/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_door.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "core/loop.h"
#include "core/thread_slice.h"
#include "migration/mig_fsm.h"

enum {
    CALLERS_MAX = 128, /* connections that have not said what they are */
    LET_IN_MAX = 1 + MIG_LANES_MAX,
    SMALL_TALK_MAX = 16, /* messages before the first that says something */
    LEAVE_MS = 500,      /* for our last word to be read */
    REST_MS = 100,       /* before one is taken again, where there was no room for one */
    RESTS_MAX = 100,     /* one after the other, before nobody can come any more */
    TLS_HANDSHAKE = 22,  /* RFC 8446, section 5.1: the first byte of a client's */
};

/* Not let in yet. */
struct caller {
    enum {
        CALLER_SILENT, /* its first byte tells whether it speaks TLS */
        CALLER_SHAKES, /* hands */
        CALLER_SPEAKS, /* its first message arrives */
        CALLER_LEAVES, /* it was refused, and may read why */
    } at;
    short want;           /* POLLIN or POLLOUT */
    uint64_t deadline_ns; /* it has as long as that for this */
    struct mig_visitor v;
    size_t hdr_got, body_got;
    unsigned nr_small_talk; /* messages before */
};

struct mig_door {
    struct mig_door_params p;
    pthread_t thread;
    int quit_fd;  /* owned; readable: the door closes */
    int ready_fd; /* owned; a semaphore: what mig_door_await() may fetch */

    pthread_mutex_t lock; /* below; a leaf */
    struct mig_visitor let_in[LET_IN_MAX];
    unsigned nr_let_in, nr_fetched;
    bool has_secret;
    unsigned nr_lanes; /* that may come with it */
    uint8_t secret[MIG_SECRET_SIZE];
    int rc; /* nobody comes any more */
    struct err err;

    unsigned nr_callers; /* the door's thread alone writes it */

    /* Of the door's thread. */
    struct caller callers[CALLERS_MAX]; /* the oldest first */
    unsigned nr_turned_away;
    unsigned nr_rests;      /* since a connection was taken */
    uint64_t rest_until_ns; /* none is taken before; 0: no rest */
};

/* --- Letting in ---------------------------------------------------------- */

void mig_visitor_release(struct mig_visitor *v)
{
    mig_channel_close(v->ch);
    free(v->body);
    *v = (struct mig_visitor){0};
}

static bool has_source(struct mig_door *door)
{
    bool yes;

    (void)pthread_mutex_lock(&door->lock);
    yes = door->nr_let_in > 0;
    (void)pthread_mutex_unlock(&door->lock);
    return yes;
}

static void say_ready(struct mig_door *door)
{
    (void)eventfd_write(door->ready_fd, 1);
}

static int let_in(struct mig_door *door, struct caller *c, struct err *err)
{
    unsigned most;
    bool fits;

    (void)pthread_mutex_lock(&door->lock);
    most = 1 + door->nr_lanes;
    fits = door->nr_let_in < most;
    if (fits)
        door->let_in[door->nr_let_in++] = c->v;
    (void)pthread_mutex_unlock(&door->lock);
    if (!fits)
        return err_set(err, -EACCES, "a lane came when all %u were there", most - 1);
    c->v = (struct mig_visitor){0};
    say_ready(door);
    return 0;
}

/* Nobody comes any more. */
static void give_up(struct mig_door *door, int rc, const struct err *why)
{
    (void)pthread_mutex_lock(&door->lock);
    door->rc = rc;
    door->err = *why;
    (void)pthread_mutex_unlock(&door->lock);
    say_ready(door);
}

static void turn_away(struct mig_door *door, int rc, const struct err *why)
{
    struct err said = *why;

    if (!said.code)
        (void)err_set(&said, rc, "%s", strerror(-rc));
    door->p.turned_away(door->p.arg, &said);
    if (++door->nr_turned_away == door->p.attempts && !has_source(door))
        give_up(door, rc, &said);
}

/*
 * The last word to somebody who understands it.  A word is shorter than what a socket takes at
 * once, or it is not said.
 */
static int refuse(struct caller *c, const char *reason, struct err *err)
{
    const struct mig_wait at_once = {.cancel_fd = -1, .wake_fd = -1, .deadline_ns = 1};
    struct mig_refusal *why = calloc(1, sizeof(*why));
    uint8_t buf[sizeof(struct mig_msg_hdr) + 2 * (size_t)MIG_REASON_MAX];
    struct wr w = {buf + sizeof(struct mig_msg_hdr), sizeof(buf) - sizeof(struct mig_msg_hdr),
                   false};
    struct mig_msg_hdr hdr;

    if (!why)
        return -ENOMEM;
    (void)mig_refuse(why, "%s", reason);
    mig_refusal_put(why, &w);
    free(why);
    hdr = mig_hdr_make(MIG_MSG_REFUSE, sizeof(buf) - sizeof(hdr) - w.left);
    memcpy(buf, &hdr, sizeof(hdr));
    if (mig_channel_write(c->v.ch, buf, sizeof(buf) - w.left, &at_once, NULL) < 0)
        log_debug("migration: who was refused cannot be told why: %s", reason);
    mig_channel_finish(c->v.ch);
    c->at = CALLER_LEAVES;
    c->want = POLLIN;
    c->deadline_ns = loop_now_ns() + (uint64_t)LEAVE_MS * 1000000;
    return err_set(err, -EACCES, "%s", reason);
}

/* --- What it says -------------------------------------------------------- */

/* In a time that does not tell where the difference is. */
static bool has_the_secret(struct mig_door *door, const struct mig_lane_wire *lane)
{
    unsigned diff = 0;
    bool is_known;

    (void)pthread_mutex_lock(&door->lock);
    is_known = door->has_secret;
    for (unsigned i = 0; i < MIG_SECRET_SIZE; i++)
        diff |= (unsigned)(door->secret[i] ^ lane->secret[i]);
    (void)pthread_mutex_unlock(&door->lock);
    return is_known && diff == 0;
}

/* Whole is its first message. */
static int judge(struct mig_door *door, struct caller *c, struct err *err)
{
    unsigned type = le16_get(c->v.hdr.type), state = MIG_DST_START;
    struct mig_hello hello;
    struct mig_lane_wire lane;
    int rc;

    if (type == MIG_MSG_LANE) {
        rc = mig_lane_get(c->v.body, c->body_got, &lane, err);
        if (rc >= 0 && !has_the_secret(door, &lane))
            rc = err_set(err, -EACCES, "a lane came without the secret of this migration");
        return rc < 0 ? rc : let_in(door, c, err);
    }
    if (!mig_msg_is_known(type))
        return err_set(err, -ENOTSUP, "message type %u is not known here", type);
    rc = mig_fsm_step(&mig_dest_fsm, &state, MIG_IN, type, err);
    if (rc >= 0)
        rc = mig_hello_get(c->v.body, c->body_got, &hello, err);
    if (rc < 0)
        return rc;
    if (has_source(door))
        return refuse(c, "another VM is moving to this destination already", err);
    return let_in(door, c, err);
}

/* Some bytes of its first message; -EAGAIN as long as it is not whole. */
static int hear(struct caller *c, void *buf, size_t len, size_t *got, struct err *err)
{
    const struct mig_wait at_once = {.cancel_fd = -1, .wake_fd = -1, .deadline_ns = 1};
    struct err why = {0};
    int n;

    while (*got < len) {
        n = mig_channel_read_some(c->v.ch, (uint8_t *)buf + *got, len - *got, &at_once, &why);
        if (n == -ETIMEDOUT)
            return -EAGAIN;
        if (n < 0)
            return err_set(err, n, "%s", why.msg);
        *got += (size_t)n;
    }
    return 0;
}

/* One whole message; -EAGAIN as long as it is not whole. */
static int hear_message(struct caller *c, struct err *err)
{
    size_t len;
    int rc = hear(c, &c->v.hdr, sizeof(c->v.hdr), &c->hdr_got, err);

    if (rc < 0)
        return rc;
    len = le32_get(c->v.hdr.len);
    /* No first message is longer, whatever its type's own limit is. */
    rc = len > MIG_SMALL_MAX ? err_set(err, -E2BIG, "%zu bytes come before HELLO", len)
                             : mig_hdr_check(le16_get(c->v.hdr.type), (uint32_t)len, err);
    if (rc >= 0 && len && !c->v.body) {
        c->v.body = malloc(len);
        rc = c->v.body ? 0 : -ENOMEM;
    }
    return rc < 0 ? rc : hear(c, c->v.body, len, &c->body_got, err);
}

static int listen_to(struct mig_door *door, struct caller *c, struct err *err)
{
    for (; c->nr_small_talk <= SMALL_TALK_MAX; c->nr_small_talk++) {
        int rc = hear_message(c, err);

        if (rc < 0)
            return rc;
        if (!mig_hdr_is_skipped(&c->v.hdr))
            return judge(door, c, err);
        free(steal_ptr(c->v.body));
        c->hdr_got = c->body_got = 0;
    }
    return err_set(err, -EPROTO, "%d messages came, and no HELLO", SMALL_TALK_MAX);
}

/* --- How it speaks ------------------------------------------------------- */

static uint64_t hello_deadline(const struct mig_door *door)
{
    return loop_now_ns() + (uint64_t)door->p.hello_ms * 1000000;
}

static int shake_hands(struct mig_door *door, struct caller *c, struct err *err)
{
    int rc = mig_channel_shake_hands(c->v.ch, &c->want, err);

    if (rc == -EACCES) { /* TLS has told it so */
        mig_channel_finish(c->v.ch);
        c->at = CALLER_LEAVES;
        c->want = POLLIN;
        c->deadline_ns = loop_now_ns() + (uint64_t)LEAVE_MS * 1000000;
    }
    if (rc < 0)
        return rc;
    c->at = CALLER_SPEAKS;
    c->want = POLLIN;
    c->deadline_ns = hello_deadline(door);
    return listen_to(door, c, err);
}

/* An end with tls_dir and one without do not understand each other: both are to hear it. */
static int look_at_first_byte(struct mig_door *door, struct caller *c, struct err *err)
{
    uint8_t first = 0;
    ssize_t n = recv(mig_channel_fd(c->v.ch), &first, sizeof(first), MSG_PEEK | MSG_DONTWAIT);
    int rc;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (n < 0)
        return err_set(err, -errno, "%s", strerror(errno));
    if (n > 0 && first == TLS_HANDSHAKE && !door->p.tls)
        return refuse(c, "the source speaks TLS, and this destination has no tls_dir", err);
    if (n > 0 && first != TLS_HANDSHAKE && door->p.tls)
        return refuse(c, "this destination speaks TLS, and the source has no tls_dir", err);
    c->at = door->p.tls ? CALLER_SHAKES : CALLER_SPEAKS;
    if (!door->p.tls)
        return listen_to(door, c, err);
    rc = mig_channel_begin_tls(c->v.ch, door->p.tls, NULL, err);
    return rc < 0 ? rc : shake_hands(door, c, err);
}

static int too_late(const struct mig_door *door, const struct caller *c, struct err *err)
{
    if (c->at == CALLER_SHAKES)
        return err_set(err, -ETIMEDOUT, "the TLS handshake was not over within %u ms",
                       door->p.hello_ms);
    return err_set(err, -ECONNRESET, "the peer did not say HELLO within %u ms", door->p.hello_ms);
}

/* Go on with one of them: false where it is no caller any more. */
static bool attend(struct mig_door *door, struct caller *c, bool is_ready)
{
    struct err why = {0};
    int rc = -EAGAIN;

    if (c->at == CALLER_LEAVES)
        return (!is_ready || mig_channel_drain(c->v.ch)) && loop_now_ns() < c->deadline_ns;
    if (is_ready && c->at == CALLER_SILENT)
        rc = look_at_first_byte(door, c, &why);
    else if (is_ready && c->at == CALLER_SHAKES)
        rc = shake_hands(door, c, &why);
    else if (is_ready)
        rc = listen_to(door, c, &why);
    if (rc == -EAGAIN && loop_now_ns() >= c->deadline_ns)
        rc = too_late(door, c, &why);
    if (rc == -EAGAIN)
        return true;
    if (rc < 0)
        turn_away(door, rc, &why);
    return c->at == CALLER_LEAVES;
}

/* --- The door's thread --------------------------------------------------- */

static void forget(struct mig_door *door, unsigned i)
{
    mig_visitor_release(&door->callers[i].v);
    (void)pthread_mutex_lock(&door->lock);
    door->nr_callers--;
    (void)pthread_mutex_unlock(&door->lock);
    memmove(&door->callers[i], &door->callers[i + 1],
            (door->nr_callers - i) * sizeof(door->callers[0]));
}

/* Somebody has to make room, and that is who has been here for longest. */
static void make_room(struct mig_door *door)
{
    struct err why = {0};

    if (door->callers[0].at != CALLER_LEAVES) {
        (void)err_set(&why, -ECONNRESET, "the peer did not say what it is while %u others came",
                      door->nr_callers);
        turn_away(door, -ECONNRESET, &why);
    }
    forget(door, 0);
}

/* Whether somebody may yet come after a failure to take a connection. */
static bool is_passing(int rc)
{
    return rc != -EBADF && rc != -EINVAL && rc != -ENOTSOCK;
}

/* The connection stays where it is, and is asked for again. */
static bool is_out_of_room(int rc)
{
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS;
}

static void rest(struct mig_door *door, int rc, const struct err *why)
{
    if (door->nr_rests++ == RESTS_MAX)
        give_up(door, rc, why);
    door->rest_until_ns = loop_now_ns() + (uint64_t)REST_MS * 1000000;
}

/* Take a connection; it is never in between, for mig_door_is_idle(). */
static int take(struct mig_door *door, struct err *err)
{
    const struct mig_wait at_once = {.cancel_fd = -1, .wake_fd = -1, .deadline_ns = 1};
    struct caller *c = &door->callers[door->nr_callers];
    int rc;

    *c = (struct caller){.want = POLLIN, .deadline_ns = hello_deadline(door)};
    (void)pthread_mutex_lock(&door->lock);
    rc = door->p.open(door->p.open_arg, &at_once, &c->v.ch, err);
    if (rc >= 0)
        door->nr_callers++;
    (void)pthread_mutex_unlock(&door->lock);
    return rc;
}

static void answer_the_door(struct mig_door *door)
{
    struct err why = {0};
    int rc;

    if (door->nr_callers == CALLERS_MAX)
        make_room(door);
    rc = take(door, &why);
    if (rc >= 0)
        door->nr_rests = 0;
    if (rc >= 0 || rc == -ETIMEDOUT)
        return;
    if (is_out_of_room(rc) && door->nr_callers)
        make_room(door);
    else if (is_out_of_room(rc))
        rest(door, rc, &why);
    else if (is_passing(rc))
        turn_away(door, rc, &why);
    else
        give_up(door, rc, &why);
}

static int next_deadline_ms(const struct mig_door *door)
{
    uint64_t now = loop_now_ns(), first = door->rest_until_ns ? door->rest_until_ns : UINT64_MAX;

    for (unsigned i = 0; i < door->nr_callers; i++)
        if (door->callers[i].deadline_ns < first)
            first = door->callers[i].deadline_ns;
    if (first == UINT64_MAX)
        return -1;
    return first <= now ? 0 : (int)((first - now + 999999) / 1000000);
}

static bool is_given_up(struct mig_door *door)
{
    bool yes;

    (void)pthread_mutex_lock(&door->lock);
    yes = door->rc < 0;
    (void)pthread_mutex_unlock(&door->lock);
    return yes;
}

static void *door_main(void *arg)
{
    struct mig_door *door = arg;
    struct pollfd p[2 + CALLERS_MAX] = {
        {.fd = door->quit_fd,   .events = POLLIN},
        {.fd = door->p.open_fd, .events = POLLIN},
    };

    log_thread_name("mig-door");
    thread_be_patient(); /* who knocks is not to keep the guest from running */
    while (!p[0].revents) {
        unsigned nr = door->nr_callers;

        if (door->rest_until_ns && loop_now_ns() >= door->rest_until_ns)
            door->rest_until_ns = 0;
        p[1].fd = is_given_up(door) || door->rest_until_ns ? -1 : door->p.open_fd;
        for (unsigned i = 0; i < nr; i++)
            p[2 + i] = (struct pollfd){.fd = mig_channel_fd(door->callers[i].v.ch),
                                       .events = door->callers[i].want};
        if (poll(p, 2 + nr, next_deadline_ms(door)) < 0)
            continue;
        /* From the youngest on: who goes moves none that is still to be looked at. */
        for (unsigned i = nr; i > 0; i--)
            if (!attend(door, &door->callers[i - 1], p[1 + i].revents))
                forget(door, i - 1);
        if (p[1].revents)
            answer_the_door(door);
    }
    return NULL;
}

/* --- Interface ----------------------------------------------------------- */

static void door_free(struct mig_door *door)
{
    for (; door->nr_callers; forget(door, 0)) {
        /* Bytes that nobody has read would take our last word with them. */
        if (door->callers[0].at == CALLER_LEAVES)
            (void)mig_channel_drain(door->callers[0].v.ch);
    }
    for (unsigned i = door->nr_fetched; i < door->nr_let_in; i++)
        mig_visitor_release(&door->let_in[i]);
    if (door->quit_fd >= 0)
        (void)close(door->quit_fd);
    if (door->ready_fd >= 0)
        (void)close(door->ready_fd);
    (void)pthread_mutex_destroy(&door->lock);
    explicit_bzero(door->secret, sizeof(door->secret));
    free(door);
}

int mig_door_open(const struct mig_door_params *params, struct mig_door **ret_door, struct err *err)
{
    struct mig_door *door = calloc(1, sizeof(*door));
    int rc;

    if (!door)
        return -ENOMEM;
    door->p = *params;
    (void)pthread_mutex_init(&door->lock, NULL);
    door->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    door->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    rc = door->quit_fd < 0 || door->ready_fd < 0 ? -errno : 0;
    if (rc >= 0)
        rc = -pthread_create(&door->thread, NULL, door_main, door);
    if (rc < 0) {
        door_free(door);
        return err_set(err, rc, "waiting for a source: %s", strerror(-rc));
    }
    *ret_door = door;
    return 0;
}

void mig_door_close(struct mig_door *door)
{
    if (!door)
        return;
    (void)eventfd_write(door->quit_fd, 1);
    (void)pthread_join(door->thread, NULL);
    door_free(door);
}

void mig_door_let_lanes_in(struct mig_door *door, const uint8_t *secret, unsigned nr)
{
    (void)pthread_mutex_lock(&door->lock);
    memcpy(door->secret, secret, sizeof(door->secret));
    door->nr_lanes = nr < MIG_LANES_MAX ? nr : MIG_LANES_MAX;
    door->has_secret = true;
    (void)pthread_mutex_unlock(&door->lock);
}

bool mig_door_is_idle(struct mig_door *door)
{
    struct pollfd p = {.fd = door->p.open_fd, .events = POLLIN};
    bool yes;

    (void)pthread_mutex_lock(&door->lock);
    yes = door->nr_callers == 0 && door->nr_fetched == door->nr_let_in && poll(&p, 1, 0) == 0;
    (void)pthread_mutex_unlock(&door->lock);
    return yes;
}

int mig_door_await(struct mig_door *door, const struct mig_wait *wait,
                   struct mig_visitor *ret_visitor, struct err *err)
{
    int rc = mig_channel_wait_fd(door->ready_fd, POLLIN, wait, 0);
    eventfd_t one;

    if (rc < 0) {
        return err_set(err, rc, "%s",
                       rc == -ETIMEDOUT   ? "nobody connected in time"
                       : rc == -ECANCELED ? "cancelled"
                                          : strerror(-rc));
    }
    (void)pthread_mutex_lock(&door->lock);
    if (door->nr_fetched < door->nr_let_in) {
        (void)eventfd_read(door->ready_fd, &one);
        *ret_visitor = door->let_in[door->nr_fetched++];
    } else {
        rc = err_set(err, door->rc, "%s", door->err.msg);
    }
    (void)pthread_mutex_unlock(&door->lock);
    return rc;
}
