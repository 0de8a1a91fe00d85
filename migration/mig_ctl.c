/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_ctl.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/loop.h"

enum {
    PARTS_MAX = 3,
    BODY_STEP = 1 << 20, /* bytes believed of a length before the bytes are there */
    ABORT_MS = 200,      /* longest that the last word may take */
    ENOUGH_MS = 20,      /* between questions whether the peer's is still waited for */
};

struct mig_ctl {
    struct mig_channel *ch; /* owned */
    struct mig_ctl_params p;
    unsigned state;
    atomic_int cancel_fd;
    uint64_t send_by_ns; /* for messages of the engine; 0: no limit */

    pthread_mutex_t tx_lock; /* one message at a time, and below */
    bool tx_broken;          /* a message was cut: nothing may follow */

    /* The message that is arriving. */
    struct mig_msg_hdr hdr;
    size_t hdr_got;
    uint8_t *body; /* owned */
    size_t body_cap, body_got;
    uint64_t last_rx_ns;
    uint32_t idle_ms; /* silence that is allowed now */

    pthread_mutex_t ka_lock; /* below */
    pthread_cond_t ka_cond;
    bool ka_stop;
    bool ka_running;
    pthread_t ka_thread;
};

/* --- Sending ------------------------------------------------------------- */

static int send_locked(struct mig_ctl *ctl, enum mig_msg type, const struct iovec *parts,
                       unsigned nr, const struct mig_wait *wait, struct err *err)
{
    struct iovec iov[1 + PARTS_MAX];
    struct mig_msg_hdr hdr;
    size_t len = 0;
    int rc;

    if (nr > PARTS_MAX)
        return -EINVAL;
    if (ctl->tx_broken)
        return err_set(err, -EPIPE, "the connection is broken");
    for (unsigned i = 0; i < nr; i++) {
        iov[1 + i] = parts[i];
        len += parts[i].iov_len;
    }
    rc = mig_hdr_check(type, len < UINT32_MAX ? (uint32_t)len : UINT32_MAX, err);
    if (rc < 0)
        return rc;
    hdr = mig_hdr_make(type, len);
    /* Not in the first version: who does not know it builds without. */
    if (type == MIG_MSG_FACTS)
        hdr.flags = le16_make(MIG_MSG_OPTIONAL);
    iov[0] = (struct iovec){&hdr, sizeof(hdr)};
    rc = mig_channel_writev(ctl->ch, iov, 1 + nr, wait, err);
    if (rc < 0) {
        ctl->tx_broken = true;
        return err_prefix(err, rc, "sending %s", mig_msg_name(type));
    }
    return 0;
}

static struct mig_wait write_wait(struct mig_ctl *ctl)
{
    return (struct mig_wait){
        .cancel_fd = atomic_load(&ctl->cancel_fd), .wake_fd = -1, .idle_ms = ctl->p.idle_ms};
}

void mig_ctl_send_by(struct mig_ctl *ctl, uint64_t end_ns)
{
    ctl->send_by_ns = end_ns;
}

int mig_ctl_send(struct mig_ctl *ctl, enum mig_msg type, const struct iovec *parts, unsigned nr,
                 struct err *err)
{
    struct mig_wait wait = write_wait(ctl);
    int rc = 0;

    /* ROUND_DONE moves no state and comes from another thread. */
    if (type != MIG_MSG_ROUND_DONE) {
        rc = mig_fsm_step(ctl->p.fsm, &ctl->state, MIG_OUT, type, err);
        wait.deadline_ns = ctl->send_by_ns;
    }
    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&ctl->tx_lock);
    rc = send_locked(ctl, type, parts, nr, &wait, err);
    (void)pthread_mutex_unlock(&ctl->tx_lock);
    return rc;
}

void mig_ctl_abort(struct mig_ctl *ctl, const char *reason)
{
    struct mig_wait wait = {.cancel_fd = -1,
                            .wake_fd = -1,
                            .deadline_ns = loop_now_ns() + (uint64_t)ABORT_MS * 1000000};
    char text[MIG_REASON_MAX];
    struct iovec part = {text, strnlen(reason, sizeof(text))};

    if (mig_fsm_step(ctl->p.fsm, &ctl->state, MIG_OUT, MIG_MSG_ABORT, NULL) < 0)
        return;
    memcpy(text, reason, part.iov_len);
    (void)pthread_mutex_lock(&ctl->tx_lock);
    if (send_locked(ctl, MIG_MSG_ABORT, &part, 1, &wait, NULL) < 0)
        log_debug("migration: the peer cannot be told why: %s", reason);
    (void)pthread_mutex_unlock(&ctl->tx_lock);
}

/* --- Keepalive ----------------------------------------------------------- */

/*
 * Nobody waits to send one: a peer that has so much to read needs no other sign of life, and who
 * has something to say, as that we give up, would have to wait too.
 */
static void send_keepalive(struct mig_ctl *ctl)
{
    const struct mig_wait at_once = {.cancel_fd = -1, .wake_fd = -1, .deadline_ns = 1};
    struct mig_wait wait = write_wait(ctl);

    (void)pthread_mutex_lock(&ctl->tx_lock);
    /* A failure is noticed by whoever reads, or sends something that matters. */
    if (mig_channel_wait_fd(mig_channel_fd(ctl->ch), POLLOUT, &at_once, 0) == 0)
        (void)send_locked(ctl, MIG_MSG_KEEPALIVE, NULL, 0, &wait, NULL);
    (void)pthread_mutex_unlock(&ctl->tx_lock);
}

static void *keepalive_main(void *arg)
{
    struct mig_ctl *ctl = arg;
    struct timespec at;

    log_thread_name("mig-keepalive");
    (void)pthread_mutex_lock(&ctl->ka_lock);
    while (!ctl->ka_stop) {
        uint64_t ns = loop_now_ns() + (uint64_t)ctl->p.keepalive_ms * 1000000;
        int rc = 0;

        at = (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
        while (!ctl->ka_stop && rc != ETIMEDOUT)
            rc = pthread_cond_timedwait(&ctl->ka_cond, &ctl->ka_lock, &at);
        if (ctl->ka_stop)
            break;
        (void)pthread_mutex_unlock(&ctl->ka_lock);
        send_keepalive(ctl);
        (void)pthread_mutex_lock(&ctl->ka_lock);
    }
    (void)pthread_mutex_unlock(&ctl->ka_lock);
    return NULL;
}

static void keepalive_stop(struct mig_ctl *ctl)
{
    (void)pthread_mutex_lock(&ctl->ka_lock);
    ctl->ka_stop = true;
    (void)pthread_cond_signal(&ctl->ka_cond);
    (void)pthread_mutex_unlock(&ctl->ka_lock);
    if (ctl->ka_running)
        (void)pthread_join(ctl->ka_thread, NULL);
    ctl->ka_running = false;
}

/* --- Life cycle ---------------------------------------------------------- */

int mig_ctl_new(struct mig_channel *ch, const struct mig_ctl_params *params,
                struct mig_ctl **ret_ctl)
{
    struct mig_ctl *ctl = calloc(1, sizeof(*ctl));
    pthread_condattr_t attr;
    int rc = 0;

    if (!ctl) {
        mig_channel_close(ch);
        return -ENOMEM;
    }
    ctl->ch = ch;
    ctl->p = *params;
    ctl->last_rx_ns = loop_now_ns();
    ctl->idle_ms = params->first_ms ? params->first_ms : params->idle_ms;
    atomic_init(&ctl->cancel_fd, params->cancel_fd);
    (void)pthread_mutex_init(&ctl->tx_lock, NULL);
    (void)pthread_mutex_init(&ctl->ka_lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&ctl->ka_cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    if (params->keepalive_ms)
        rc = pthread_create(&ctl->ka_thread, NULL, keepalive_main, ctl);
    ctl->ka_running = params->keepalive_ms && rc == 0;
    if (rc != 0) {
        mig_ctl_free(ctl, 0);
        return -rc;
    }
    *ret_ctl = ctl;
    return 0;
}

void mig_ctl_free(struct mig_ctl *ctl, unsigned linger_ms)
{
    if (!ctl)
        return;
    keepalive_stop(ctl);
    if (linger_ms && !ctl->tx_broken)
        mig_channel_linger(ctl->ch, linger_ms);
    mig_channel_close(ctl->ch);
    (void)pthread_mutex_destroy(&ctl->tx_lock);
    (void)pthread_mutex_destroy(&ctl->ka_lock);
    (void)pthread_cond_destroy(&ctl->ka_cond);
    free(ctl->body);
    free(ctl);
}

void mig_ctl_past_cancel(struct mig_ctl *ctl)
{
    atomic_store(&ctl->cancel_fd, -1);
}

unsigned mig_ctl_state(const struct mig_ctl *ctl)
{
    return ctl->state;
}

/* --- Receiving ----------------------------------------------------------- */

/* Read some bytes of the message; -EAGAIN at the tick. */
static int read_part(struct mig_ctl *ctl, void *buf, size_t len, uint64_t tick_ns, struct err *err)
{
    uint64_t dead = ctl->idle_ms ? ctl->last_rx_ns + (uint64_t)ctl->idle_ms * 1000000 : 0;
    struct mig_wait wait = {.cancel_fd = atomic_load(&ctl->cancel_fd), .wake_fd = -1};
    struct err why = {0};
    int n;

    wait.deadline_ns = !tick_ns || (dead && dead < tick_ns) ? dead : tick_ns;
    n = mig_channel_read_some(ctl->ch, buf, len, &wait, &why);
    if (n == -ETIMEDOUT && wait.deadline_ns != dead)
        return -EAGAIN;
    if (n == -ETIMEDOUT)
        return err_set(err, n, "no sign of life from the peer for %u ms", ctl->idle_ms);
    if (n < 0)
        return err_set(err, n, "%s", why.msg);
    ctl->last_rx_ns = loop_now_ns();
    ctl->idle_ms = ctl->p.idle_ms;
    return n;
}

/* Room for more of the body: what the length says is believed step by step. */
static int body_room(struct mig_ctl *ctl, size_t len)
{
    size_t want = ctl->body_got + BODY_STEP < len ? ctl->body_got + BODY_STEP : len;
    uint8_t *p;

    if (want <= ctl->body_cap)
        return 0;
    if (want < 2 * ctl->body_cap)
        want = 2 * ctl->body_cap < len ? 2 * ctl->body_cap : len;
    p = realloc(ctl->body, want);
    if (!p)
        return -ENOMEM;
    ctl->body = p;
    ctl->body_cap = want;
    return 0;
}

int mig_ctl_unread(struct mig_ctl *ctl, const struct mig_msg_hdr *hdr, const void *body)
{
    size_t len = le32_get(hdr->len);
    int rc = len <= BODY_STEP ? body_room(ctl, len) : -E2BIG;

    if (rc < 0)
        return rc;
    ctl->hdr = *hdr;
    ctl->hdr_got = sizeof(*hdr);
    if (len)
        memcpy(ctl->body, body, len);
    ctl->body_got = len;
    ctl->idle_ms = ctl->p.idle_ms;
    return 0;
}

/* Bring in one whole message, of any type. */
static int receive(struct mig_ctl *ctl, uint64_t tick_ns, struct err *err)
{
    size_t len;
    int n;

    while (ctl->hdr_got < sizeof(ctl->hdr)) {
        n = read_part(ctl, (uint8_t *)&ctl->hdr + ctl->hdr_got, sizeof(ctl->hdr) - ctl->hdr_got,
                      tick_ns, err);
        if (n < 0)
            return n;
        ctl->hdr_got += (size_t)n;
    }
    n = mig_hdr_check(le16_get(ctl->hdr.type), le32_get(ctl->hdr.len), err);
    if (n < 0)
        return n;
    len = le32_get(ctl->hdr.len);
    while (ctl->body_got < len) {
        n = body_room(ctl, len);
        if (n < 0)
            return err_set(err, n, "no memory for a message of %zu bytes", len);
        n = read_part(ctl, ctl->body + ctl->body_got,
                      (ctl->body_cap < len ? ctl->body_cap : len) - ctl->body_got, tick_ns, err);
        if (n < 0)
            return n;
        ctl->body_got += (size_t)n;
    }
    return 0;
}

static int peer_aborted(const struct mig_message *msg, struct err *err)
{
    char text[MIG_REASON_MAX + 1];
    size_t n = msg->len < MIG_REASON_MAX ? msg->len : MIG_REASON_MAX;

    for (size_t i = 0; i < n; i++)
        text[i] = (char)(msg->body[i] >= ' ' && msg->body[i] <= '~' ? msg->body[i] : '?');
    text[n] = 0;
    return err_set(err, -ECONNABORTED, "the peer gave up: %s", n ? text : "no reason given");
}

/* Bring in the next message that is to be shown; it stays until it is taken. */
static int receive_shown(struct mig_ctl *ctl, uint64_t tick_ns, struct err *err)
{
    for (unsigned skipped = 0;; skipped++) {
        struct mig_wait at_once = {
            .cancel_fd = atomic_load(&ctl->cancel_fd), .wake_fd = -1, .deadline_ns = 1};
        int rc;

        /* Who never pauses is never waited for: nothing else would cancel, or look at the clock. */
        if (mig_channel_wait_fd(-1, 0, &at_once, 0) == -ECANCELED)
            return err_set(err, -ECANCELED, "cancelled");
        if (skipped && tick_ns && loop_now_ns() >= tick_ns)
            return -EAGAIN;
        rc = receive(ctl, tick_ns, err);
        if (rc < 0 || !mig_hdr_is_skipped(&ctl->hdr))
            return rc;
        ctl->hdr_got = ctl->body_got = 0;
    }
}

int mig_ctl_recv(struct mig_ctl *ctl, uint64_t tick_ns, struct mig_message *ret_msg,
                 struct err *err)
{
    struct mig_message msg;
    int rc = receive_shown(ctl, tick_ns, err);

    if (rc < 0)
        return rc;
    msg = (struct mig_message){le16_get(ctl->hdr.type), ctl->body, ctl->body_got};
    ctl->hdr_got = ctl->body_got = 0;
    if (!mig_msg_is_known(msg.type))
        return err_set(err, -ENOTSUP, "message type %u is not known here", msg.type);
    rc = mig_fsm_step(ctl->p.fsm, &ctl->state, MIG_IN, msg.type, err);
    if (rc < 0)
        return rc;
    if (msg.type == MIG_MSG_ABORT)
        return peer_aborted(&msg, err);
    *ret_msg = msg;
    return 0;
}

int mig_ctl_expect(struct mig_ctl *ctl, enum mig_msg type, uint64_t tick_ns,
                   struct mig_message *ret_msg, struct mig_refusal *why, struct err *err)
{
    struct mig_refusal reasons = {0};
    struct mig_message msg = {0};
    int rc;

    rc = mig_ctl_recv(ctl, tick_ns, &msg, err);
    if (rc < 0)
        return rc;
    if (msg.type == MIG_MSG_REFUSE) {
        rc = mig_refusal_get(msg.body, msg.len, &reasons, err);
        if (rc < 0)
            return rc;
        if (why)
            *why = reasons;
        return err_set(err, -ENOTSUP, "the destination refuses: %s",
                       reasons.nr ? reasons.reasons[0] : "no reason given");
    }
    if (msg.type != type)
        return err_set(err, -EPROTO, "the peer sent %s where %s was due", mig_msg_name(msg.type),
                       mig_msg_name(type));
    *ret_msg = msg;
    return 0;
}

int mig_ctl_look(struct mig_ctl *ctl, uint64_t until_ns, struct err *err)
{
    struct mig_message msg = {0};
    int rc = mig_ctl_recv(ctl, until_ns ? until_ns : loop_now_ns(), &msg, err);

    if (rc >= 0)
        return err_set(err, -EPROTO, "the peer sent %s too early", mig_msg_name(msg.type));
    return rc == -EAGAIN ? 0 : rc;
}

int mig_ctl_glance(struct mig_ctl *ctl, struct err *err)
{
    uint64_t now = loop_now_ns();
    struct mig_message msg;
    int rc = receive_shown(ctl, now, err);

    if (rc == -EAGAIN)
        return 0;
    if (rc >= 0 && le16_get(ctl->hdr.type) == MIG_MSG_ABORT)
        return mig_ctl_recv(ctl, now, &msg, err);
    return rc < 0 ? rc : 1;
}

int mig_ctl_last_word(struct mig_ctl *ctl, uint32_t ms, bool (*enough)(void *arg), void *arg,
                      struct err *err)
{
    uint64_t now = loop_now_ns(), end = now + (uint64_t)ms * 1000000;
    int rc = -EAGAIN;

    mig_ctl_past_cancel(ctl);
    for (; (rc >= 0 || rc == -EAGAIN) && now < end && !enough(arg); now = loop_now_ns()) {
        struct mig_message msg;

        *err = (struct err){0};
        rc = mig_ctl_recv(ctl, now + (uint64_t)ENOUGH_MS * 1000000, &msg, err);
    }
    return rc == -ECONNABORTED ? rc : 0;
}

int mig_ctl_fd(const struct mig_ctl *ctl)
{
    return mig_channel_fd(ctl->ch);
}

void mig_ctl_offer_resumption(struct mig_ctl *ctl)
{
    mig_channel_offer_resumption(ctl->ch);
}
