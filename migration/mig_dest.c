/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_dest.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "core/log.h"
#include "core/loop.h"
#include "core/rate_limit.h"
#include "core/state.h"
#include "core/thread_slice.h"
#include "migration/mig_ctl.h"
#include "migration/mig_door.h"
#include "migration/mig_progress_internal.h"
#include "migration/mig_receiver.h"

enum {
    IDLE_MS = 9000,      /* the default of mig_dest_params.idle_ms */
    KEEPALIVE_MS = 1000, /* the default of mig_dest_params.keepalive_ms */
    HELLO_MS = 10000,    /* the default of mig_dest_params.hello_ms */
    LANES_MS = 30000,    /* for the next lane to come */
    SLICE_MS = 200, /* between looks at the control channel while something else is waited for */
    LAST_WORD_MS = 300, /* the default of mig_dest_params.last_word_ms */
    LINGER_MS = 200,    /* for our last word to arrive */
    ANSWER_MS = 2000,   /* the same for the answer to COMMIT: without it the source is undecided */
    HELLO_SIZE = 1024,  /* bytes: room for every capability that we name */
};

struct mig_dest {
    struct mig_dest_params p;
    struct mig_progress progress;
    int stop_fd; /* owned; readable: cancelled, or a lane failed */

    pthread_mutex_t lock; /* below */
    bool cancelled;
    bool past_commit; /* COMMIT was received: nothing cancels any more */

    /* Of the thread inside mig_dest_run(). */
    struct mig_door *door;     /* owned */
    struct mig_ctl *ctl;       /* owned */
    struct mig_receiver *recv; /* owned */
    struct gmem *gm;           /* borrowed from the machine that was built */
    struct mig_layout layout;
    struct mig_refusal refusal;
    unsigned features; /* agreed on: bits of enum mig_feature */
    unsigned lanes;
    uint8_t secret[MIG_SECRET_SIZE];
    struct state_buf state; /* arrived, and not staged yet */
    uint64_t state_staged;  /* bytes */
    size_t state_enough;    /* with so many it is worth looking at them again */
    struct mig_phases took;
    uint64_t stop_ns; /* when STOP came */
    bool has_secret, built, encrypted;
    bool may_be_asked; /* the source may have sent COMMIT, and not have got an answer */

    struct rate_limit strangers; /* how often is told of those that are turned away: the door's */
};

/* --- Life cycle ---------------------------------------------------------- */

int mig_dest_new(const struct mig_dest_params *params, struct mig_dest **ret_dst, struct err *err)
{
    struct mig_dest *dst = calloc(1, sizeof(*dst));

    if (!dst)
        return -ENOMEM;
    dst->p = *params;
    dst->strangers = (struct rate_limit){.burst = 10, .per_s = 1};
    if (!params->lanes_max || params->lanes_max > MIG_LANES_MAX)
        dst->p.lanes_max = MIG_LANES_MAX;
    dst->p.idle_ms = params->idle_ms ? params->idle_ms : IDLE_MS;
    dst->p.hello_ms = params->hello_ms ? params->hello_ms : HELLO_MS;
    dst->p.last_word_ms = params->last_word_ms ? params->last_word_ms : LAST_WORD_MS;
    if (params->keepalive_ms == 0)
        dst->p.keepalive_ms = KEEPALIVE_MS;
    else if (params->keepalive_ms == UINT_MAX)
        dst->p.keepalive_ms = 0;
    dst->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (dst->stop_fd < 0) {
        int rc = -errno;

        free(dst);
        return err_set(err, rc, "eventfd: %s", strerror(-rc));
    }
    (void)pthread_mutex_init(&dst->lock, NULL);
    mig_progress_init(&dst->progress);
    *ret_dst = dst;
    return 0;
}

void mig_dest_free(struct mig_dest *dst)
{
    if (!dst)
        return;
    (void)pthread_mutex_destroy(&dst->lock);
    mig_progress_release(&dst->progress);
    (void)close(dst->stop_fd);
    free(dst);
}

const uint8_t *mig_dest_secret(const struct mig_dest *dst)
{
    return dst->has_secret ? dst->secret : NULL;
}

bool mig_dest_may_be_asked(const struct mig_dest *dst)
{
    return dst->may_be_asked;
}

struct mig_progress *mig_dest_progress(struct mig_dest *dst)
{
    return &dst->progress;
}

/* Wake every thread of this move that waits for a socket. */
static void raise_stop(void *arg)
{
    struct mig_dest *dst = arg;

    (void)eventfd_write(dst->stop_fd, 1);
}

int mig_dest_cancel(struct mig_dest *dst)
{
    int rc = 0;

    (void)pthread_mutex_lock(&dst->lock);
    if (dst->past_commit)
        rc = -EBUSY;
    else
        dst->cancelled = true;
    (void)pthread_mutex_unlock(&dst->lock);
    if (rc == 0)
        raise_stop(dst);
    return rc;
}

static bool is_cancelled(struct mig_dest *dst)
{
    bool yes;

    (void)pthread_mutex_lock(&dst->lock);
    yes = dst->cancelled;
    (void)pthread_mutex_unlock(&dst->lock);
    return yes;
}

/* --- A source comes ------------------------------------------------------ */

/* Refuse, by reasons that were collected or by err. */
static int refuse(struct mig_dest *dst, int rc, struct err *err)
{
    uint8_t buf[MIG_SMALL_MAX];
    struct wr w = {buf, sizeof(buf), false};

    if (dst->refusal.nr == 0)
        (void)mig_refuse(&dst->refusal, "%s", err->code ? err->msg : strerror(-rc));
    if (!err->code)
        (void)err_set(err, rc, "%s", dst->refusal.reasons[0]);
    mig_refusal_put(&dst->refusal, &w);
    if (mig_ctl_send(dst->ctl, MIG_MSG_REFUSE, &(struct iovec){buf, sizeof(buf) - w.left}, 1,
                     NULL) < 0)
        log_debug("migration: the source cannot be told why: %s", err->msg);
    return rc;
}

/* Everything in a HELLO that can be refused. */
static int judge_hello(struct mig_dest *dst, const struct mig_hello *h)
{
    const char *unknown;
    int rc = 0;

    if (h->version_max < MIG_VERSION_MIN || h->version_min > MIG_VERSION) {
        rc =
            mig_refuse(&dst->refusal, "the source speaks protocol versions %u to %u, %d to %d here",
                       h->version_min, h->version_max, MIG_VERSION_MIN, MIG_VERSION);
    }
    if (h->page_size != PAGE_SIZE_4K)
        rc = mig_refuse(&dst->refusal, "pages of %u bytes are not known here", h->page_size);
    dst->features = mig_features_of(h, &unknown);
    if (unknown) {
        rc =
            mig_refuse(&dst->refusal, "the source requires '%s', which is not known here", unknown);
    }
    return rc;
}

static int answer_hello(struct mig_dest *dst, const struct mig_hello *h, struct err *err)
{
    uint16_t version = h->version_max < MIG_VERSION ? h->version_max : MIG_VERSION;
    struct mig_hello mine = {.version_min = version,
                             .version_max = version,
                             .page_size = PAGE_SIZE_4K,
                             .lanes = dst->lanes};
    uint8_t buf[HELLO_SIZE];
    struct wr w = {buf, sizeof(buf), false};

    mig_features_name(dst->features, &mine);
    mig_hello_put(&mine, &w);
    mig_ctl_offer_resumption(dst->ctl); /* for the lanes */
    return mig_ctl_send(dst->ctl, MIG_MSG_HELLO, &(struct iovec){buf, sizeof(buf) - w.left}, 1,
                        err);
}

/* A connection came to nothing; whoever sees only the log is to know why.  On the door's thread. */
static void turned_away(void *arg, const struct err *why)
{
    struct mig_dest *dst = arg;

    mig_progress_refused(&dst->progress, why);
    if (rate_limit_take(&dst->strangers))
        log_warn("migration: a connection was turned away: %s", why->msg);
}

static int open_door(struct mig_dest *dst, struct err *err)
{
    const struct mig_door_params params = {.open = dst->p.open,
                                           .open_arg = dst->p.open_arg,
                                           .open_fd = dst->p.open_fd,
                                           .tls = dst->p.tls,
                                           .hello_ms = dst->p.hello_ms,
                                           .attempts = dst->p.attempts,
                                           .turned_away = turned_away,
                                           .arg = dst};

    return mig_door_open(&params, &dst->door, err);
}

/* The control channel, on which HELLO has come. */
static int greet(struct mig_dest *dst, struct mig_visitor *v, struct mig_hello *ret_hello,
                 struct err *err)
{
    struct mig_ctl_params cp = {.fsm = &mig_dest_fsm,
                                .keepalive_ms = dst->p.keepalive_ms,
                                .idle_ms = dst->p.idle_ms,
                                .cancel_fd = dst->stop_fd};
    struct mig_message msg;
    int rc;

    dst->encrypted = mig_channel_is_encrypted(v->ch);
    rc = mig_ctl_new(steal_ptr(v->ch), &cp, &dst->ctl);
    if (rc >= 0)
        rc = mig_ctl_unread(dst->ctl, &v->hdr, v->body);
    if (rc < 0)
        return err_set(err, rc, "control channel: %s", strerror(-rc));
    rc = mig_ctl_recv(dst->ctl, 0, &msg, err);
    return rc < 0 ? rc : mig_hello_get(msg.body, msg.len, ret_hello, err);
}

static int await_source(struct mig_dest *dst, struct mig_hello *ret_hello, struct err *err)
{
    struct mig_wait wait = {.cancel_fd = dst->stop_fd, .wake_fd = -1};
    struct mig_visitor v = {0};
    int rc;

    mig_progress_phase(&dst->progress, MIG_PHASE_CONNECT);
    if (dst->p.accept_ms)
        wait.deadline_ns = loop_now_ns() + (uint64_t)dst->p.accept_ms * 1000000;
    rc = open_door(dst, err);
    if (rc >= 0)
        rc = mig_door_await(dst->door, &wait, &v, err);
    if (rc >= 0)
        rc = greet(dst, &v, ret_hello, err);
    mig_visitor_release(&v);
    return rc;
}

/* --- Building ------------------------------------------------------------ */

static int build(struct mig_dest *dst, const struct mig_message *msg, struct err *err)
{
    uint64_t begin = loop_now_ns();
    struct mig_config config;
    struct err why = {0};
    int rc;

    rc = mig_config_get(msg->body, msg->len, &config, err);
    if (rc < 0)
        return rc;
    dst->built = true;
    rc = dst->p.ops->build(dst->p.arg, config.data, config.len, &dst->gm, &dst->refusal, &why);
    if (rc >= 0)
        rc = mig_layout_of(dst->gm, &dst->layout, &why);
    if (rc >= 0)
        rc = mig_layout_compare(&config.layout, &dst->layout, &dst->refusal);
    dst->took.prepare = loop_now_ns() - begin;
    if (rc >= 0 && is_cancelled(dst))
        return err_set(err, -ECANCELED, "cancelled");
    if (rc < 0) {
        *err = why;
        return refuse(dst, rc, err);
    }
    mig_progress_lanes(&dst->progress, dst->lanes, dst->encrypted, gmem_size(dst->gm));
    mig_progress_handed(&dst->progress, dst->features & MIG_FEATURE_MEMORY);
    return 0;
}

/* What comes before CONFIG, and CONFIG. */
static int await_config(struct mig_dest *dst, struct mig_message *ret_msg, struct err *err)
{
    int rc;

    for (;;) {
        rc = mig_ctl_recv(dst->ctl, 0, ret_msg, err);
        if (rc < 0 || ret_msg->type == MIG_MSG_CONFIG)
            return rc;
        if (dst->p.ops->facts)
            rc = dst->p.ops->facts(dst->p.arg, (const char *)ret_msg->body, ret_msg->len, err);
        if (rc < 0)
            return rc;
    }
}

static int round_done(void *arg, uint32_t round, struct err *err)
{
    struct mig_dest *dst = arg;
    struct mig_round_done_wire body = {.round = le32_make(round)};

    mig_progress_received(&dst->progress);
    return mig_ctl_send(dst->ctl, MIG_MSG_ROUND_DONE, &(struct iovec){&body, sizeof(body)}, 1, err);
}

static int send_ready(struct mig_dest *dst, struct err *err)
{
    struct mig_ready_wire ready = {.lanes = le32_make(dst->lanes)};

    if (getrandom(dst->secret, sizeof(dst->secret), 0) != (ssize_t)sizeof(dst->secret))
        return err_set(err, -EIO, "getrandom: %s", strerror(errno));
    memcpy(ready.secret, dst->secret, sizeof(ready.secret));
    dst->has_secret = true;
    mig_progress_secret(&dst->progress, dst->secret);
    mig_door_let_lanes_in(dst->door, dst->secret, dst->lanes);
    return mig_ctl_send(dst->ctl, MIG_MSG_READY, &(struct iovec){&ready, sizeof(ready)}, 1, err);
}

/* --- Lanes --------------------------------------------------------------- */

/* Take the source's memory for ours; before anything is in it. */
static int adopt_memory(struct mig_dest *dst, struct mig_channel *ch, struct err *err)
{
    struct mig_wait wait = {.cancel_fd = dst->stop_fd,
                            .wake_fd = -1,
                            .deadline_ns = loop_now_ns() + (uint64_t)dst->p.hello_ms * 1000000};
    struct mig_memory_wire offsets[GMEM_REGIONS_MAX];
    size_t len = dst->layout.nr * sizeof(offsets[0]);
    struct mig_msg_hdr hdr;
    int fds[MIG_FDS_MAX];
    int rc = mig_channel_recv_fds(ch, &hdr, sizeof(hdr), fds, &wait, err);

    if (rc >= 0 && (le16_get(hdr.type) != MIG_MSG_MEMORY || le32_get(hdr.len) != len))
        rc = err_set(err, -EPROTO, "MEMORY was due, of %zu bytes", len);
    if (rc >= 0)
        rc = mig_channel_read(ch, offsets, len, &wait, err);
    for (unsigned i = 0; i < dst->layout.nr && rc >= 0; i++) {
        if (fds[i] < 0)
            rc = err_set(err, -EBADMSG, "MEMORY: no descriptor for region %u", i);
        else
            rc = gmem_adopt(dst->gm, i, steal_fd(&fds[i]), le64_get(offsets[i].offset), err);
    }
    for (unsigned i = 0; i < MIG_FDS_MAX; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    return rc;
}

/* A lane; -EAGAIN where there is none yet, or something of the source's on @wake_fd. */
static int accept_lane(struct mig_dest *dst, int wake_fd, uint64_t deadline_ns, struct err *err)
{
    uint64_t soon = loop_now_ns() + (uint64_t)SLICE_MS * 1000000;
    struct mig_wait wait = {.cancel_fd = dst->stop_fd,
                            .wake_fd = wake_fd,
                            .deadline_ns = soon < deadline_ns ? soon : deadline_ns};
    struct mig_lane_wire lane;
    struct mig_visitor v = {0};
    unsigned index;
    int rc;

    rc = mig_door_await(dst->door, &wait, &v, err);
    if (rc == -EAGAIN || (rc == -ETIMEDOUT && loop_now_ns() < deadline_ns))
        return -EAGAIN;
    if (rc < 0)
        return rc;
    memcpy(&lane, v.body, sizeof(lane));
    index = le32_get(lane.index);
    if (index == 0 && dst->features & MIG_FEATURE_MEMORY)
        rc = adopt_memory(dst, v.ch, err);
    if (rc >= 0)
        rc = mig_receiver_add_lane(dst->recv, steal_ptr(v.ch), index, err);
    mig_visitor_release(&v);
    return rc;
}

static int accept_lanes(struct mig_dest *dst, struct err *err)
{
    uint64_t deadline = loop_now_ns() + (uint64_t)LANES_MS * 1000000;
    int wake_fd = mig_ctl_fd(dst->ctl);

    for (unsigned n = 0; n < dst->lanes;) {
        struct err why = {0};
        int rc = accept_lane(dst, wake_fd, deadline, &why);

        if (rc >= 0) {
            n++;
            deadline = loop_now_ns() + (uint64_t)LANES_MS * 1000000;
        } else if (rc == -EAGAIN) {
            rc = mig_ctl_glance(dst->ctl, err);
            if (rc < 0)
                return rc;
            /* It may be quicker than the lanes, to which the door listens. */
            if (rc && mig_door_is_idle(dst->door))
                return err_set(err, -EPROTO, "%u of %u lanes had come when the source went on", n,
                               dst->lanes);
            if (rc)
                wake_fd = -1;
        } else {
            (void)err_set(err, rc, "%s", why.code ? why.msg : strerror(-rc));
            return err_prefix(err, rc, "waiting for lane %u of %u", n, dst->lanes);
        }
    }
    return 0;
}

static int make_ready(struct mig_dest *dst, struct err *err)
{
    struct mig_receiver_params rp = {.gm = dst->gm,
                                     .layout = dst->layout,
                                     .counters = &dst->progress.counters,
                                     .nr_lanes = dst->lanes,
                                     .zstd = dst->features & MIG_FEATURE_ZSTD,
                                     .cancel_fd = dst->stop_fd,
                                     .idle_ms = dst->p.idle_ms,
                                     .round_done = round_done,
                                     .failed = raise_stop,
                                     .arg = dst};
    int rc = mig_receiver_new(&rp, &dst->recv);

    if (rc < 0)
        return refuse(dst, rc, err);
    rc = send_ready(dst, err);
    mig_progress_round(&dst->progress, 0, 0);
    if (rc >= 0)
        rc = accept_lanes(dst, err);
    return rc;
}

/* --- The blackout -------------------------------------------------------- */

/*
 * Decode what is whole.  A part that is not is looked at again when it has doubled: in small messages
 * it would else be read through once for each.
 */
static int stage_state(struct mig_dest *dst, bool last, struct err *err)
{
    struct state_buf *state = &dst->state;
    size_t used = 0;
    int rc;

    if (!last && state->len < dst->state_enough)
        return 0;
    rc = dst->p.ops->stage(dst->p.arg, state->data, state->len, last, &used, err);
    if (rc < 0)
        return rc;
    if (used)
        memmove(state->data, state->data + used, state->len - used);
    state->len -= used;
    dst->state_staged += used;
    dst->state_enough = 2 * state->len;
    return 0;
}

static int take_state(struct mig_dest *dst, const struct mig_message *msg, bool *ret_last,
                      struct err *err)
{
    const uint8_t *data = msg->body + sizeof(struct mig_state_hdr);
    size_t len = msg->len - sizeof(struct mig_state_hdr);
    int rc = mig_state_get(msg->body, msg->len, ret_last, err);

    if (rc < 0)
        return rc;
    if (len > MIG_STATE_MAX - dst->state_staged - dst->state.len)
        return err_set(err, -E2BIG, "STATE: more than %d bytes in all", MIG_STATE_MAX);
    if (len == 0 && !*ret_last)
        return err_set(err, -EBADMSG, "STATE: empty, and not the last");
    rc = state_buf_append(&dst->state, data, len, err);
    return rc < 0 ? rc : stage_state(dst, *ret_last, err);
}

/* Rounds, until STOP; the lanes do the work. */
static int follow_rounds(struct mig_dest *dst, struct err *err)
{
    struct mig_message msg;
    uint64_t begin = loop_now_ns();
    int rc;

    mig_progress_phase(&dst->progress, MIG_PHASE_ROUNDS);
    rc = mig_ctl_expect(dst->ctl, MIG_MSG_STOP, 0, &msg, NULL, err);
    dst->stop_ns = loop_now_ns();
    dst->took.rounds = dst->stop_ns - begin;
    return rc;
}

static int receive_state(struct mig_dest *dst, struct err *err)
{
    struct mig_message msg;
    bool last = false;
    int rc;

    mig_progress_phase(&dst->progress, MIG_PHASE_STOPPED);
    do {
        rc = mig_ctl_expect(dst->ctl, MIG_MSG_STATE, 0, &msg, NULL, err);
        if (rc >= 0)
            rc = take_state(dst, &msg, &last, err);
    } while (rc >= 0 && !last);
    return rc;
}

/* The last pages; meanwhile the source must give signs of life. */
static int await_pages(struct mig_dest *dst, struct err *err)
{
    int rc;

    while ((rc = mig_receiver_wait_last(dst->recv, SLICE_MS, NULL)) == -ETIMEDOUT) {
        rc = mig_ctl_look(dst->ctl, 0, err);
        if (rc < 0)
            return rc;
    }
    if (rc < 0)
        return mig_receiver_wait_last(dst->recv, 0, err);
    dst->took.pages = loop_now_ns() - dst->stop_ns;
    mig_progress_received(&dst->progress);
    return 0;
}

static int load(struct mig_dest *dst, struct err *err)
{
    uint64_t begin = loop_now_ns();
    int rc = dst->p.ops->load(dst->p.arg, err);

    dst->took.load = loop_now_ns() - begin;
    if (rc >= 0)
        rc = mig_ctl_send(dst->ctl, MIG_MSG_LOADED, NULL, 0, err);
    return rc;
}

/* The guest is ours, unless somebody here cancelled before COMMIT was seen. */
static bool pass_commit(struct mig_dest *dst)
{
    bool ok;

    (void)pthread_mutex_lock(&dst->lock);
    ok = !dst->cancelled;
    dst->past_commit = ok;
    (void)pthread_mutex_unlock(&dst->lock);
    return ok;
}

/*
 * Who finds this process dead has nothing but its log, whatever level that has: once the guest may
 * have run here, it must not go on at the source.
 */
static void log_taken(const struct mig_dest *dst)
{
    char id[MIG_ID_SIZE];

    mig_id(dst->secret, id);
    log_warn("migration %s: taken: this process starts the VM", id);
}

static int take_over(struct mig_dest *dst, struct err *err)
{
    struct mig_message msg;
    uint64_t t;
    int rc;

    mig_progress_phase(&dst->progress, MIG_PHASE_COMMIT);
    rc = mig_ctl_expect(dst->ctl, MIG_MSG_COMMIT, 0, &msg, NULL, err);
    if (rc < 0)
        return rc;
    if (!pass_commit(dst))
        return err_set(err, -ECANCELED, "cancelled");
    mig_ctl_past_cancel(dst->ctl);
    t = loop_now_ns();
    rc = dst->p.ops->acquire(dst->p.arg, err);
    dst->took.acquire = loop_now_ns() - t;
    if (rc < 0)
        return rc;
    log_taken(dst);
    t = loop_now_ns();
    rc = dst->p.ops->start(dst->p.arg, err);
    dst->took.start = loop_now_ns() - t;
    dst->took.blackout = loop_now_ns() - dst->stop_ns;
    return rc;
}

/* The guest runs: what happens to this message changes nothing about that. */
static void report_running(struct mig_dest *dst)
{
    struct mig_times times = {.pages_ns = dst->took.pages,
                              .load_ns = dst->took.load,
                              .acquire_ns = dst->took.acquire,
                              .start_ns = dst->took.start};
    uint8_t buf[sizeof(struct mig_times_wire)];
    struct wr w = {buf, sizeof(buf), false};

    mig_times_put(&times, &w);
    if (mig_ctl_send(dst->ctl, MIG_MSG_RUNNING, &(struct iovec){buf, sizeof(buf)}, 1, NULL) < 0)
        log_debug("migration: the source cannot be told that the guest runs");
}

/* --- The whole ----------------------------------------------------------- */

static int take_in(struct mig_dest *dst, struct err *err)
{
    struct mig_message msg;
    struct mig_hello hello;
    uint64_t begin;
    int rc;

    rc = await_source(dst, &hello, err);
    if (rc < 0)
        return rc;
    begin = loop_now_ns();
    if (judge_hello(dst, &hello) < 0)
        return refuse(dst, -ENOTSUP, err);
    dst->lanes = hello.lanes < dst->p.lanes_max ? hello.lanes : dst->p.lanes_max;
    rc = answer_hello(dst, &hello, err);
    dst->took.connect = loop_now_ns() - begin;
    mig_progress_phase(&dst->progress, MIG_PHASE_PREPARE);
    if (rc >= 0)
        rc = await_config(dst, &msg, err);
    if (rc >= 0)
        rc = build(dst, &msg, err);
    if (rc >= 0)
        rc = make_ready(dst, err);
    if (rc >= 0)
        rc = follow_rounds(dst, err);
    if (rc >= 0)
        rc = receive_state(dst, err);
    if (rc >= 0)
        rc = await_pages(dst, err);
    if (rc >= 0)
        rc = load(dst, err);
    if (rc >= 0)
        rc = take_over(dst, err);
    return rc;
}

/* Whether the connection is gone, and not its bytes wrong. */
static bool is_gone(int rc)
{
    return rc == -ECONNRESET || rc == -EPIPE;
}

static bool need_not_wait(void *dst)
{
    return is_cancelled(dst);
}

/* What the source said before it went: -ECONNABORTED, or 0 where it said nothing. */
static int hear_last_word(struct mig_dest *dst, struct err *err)
{
    if (!dst->ctl || mig_ctl_state(dst->ctl) > MIG_DST_LOADED)
        return 0;
    return mig_ctl_last_word(dst->ctl, dst->p.last_word_ms, need_not_wait, dst, err);
}

/*
 * What somebody here asked for, then what the source said before it went away,
 * then what a lane saw, where we only saw the consequence.
 */
static int explain(struct mig_dest *dst, int rc, struct err *err)
{
    bool consequence = rc == -ECANCELED;
    struct err lane = {0}, peer = {0};
    int got = 0;

    if (consequence && is_cancelled(dst)) {
        *err = (struct err){0};
        return err_set(err, rc, "cancelled");
    }
    if (consequence && dst->recv)
        got = mig_receiver_error(dst->recv, &lane);
    if (got < 0) {
        rc = got;
        *err = lane;
    }
    got = is_gone(rc) ? hear_last_word(dst, &peer) : 0;
    if (got < 0) {
        rc = got;
        *err = peer;
    }
    return rc;
}

static void wind_up(struct mig_dest *dst, unsigned linger_ms)
{
    raise_stop(dst);
    mig_door_close(dst->door);
    mig_receiver_free(dst->recv);
    mig_ctl_free(dst->ctl, linger_ms);
    state_buf_release(&dst->state);
    dst->door = NULL;
    dst->recv = NULL;
    dst->ctl = NULL;
}

/* COMMIT follows LOADED.  A source that said ABORT has sent none, and one that was refused neither. */
static bool may_be_asked(const struct mig_dest *dst)
{
    unsigned state = dst->ctl ? mig_ctl_state(dst->ctl) : MIG_DST_START;

    return state >= MIG_DST_LOADED && state != MIG_DST_FAILED;
}

/*
 * For as long as the answer to COMMIT, where that may be on its way or was read behind a cancel: the
 * source is undecided without our word.  One that has been silent for long would not read it either.
 */
static unsigned linger_ms(const struct mig_dest *dst, int rc)
{
    bool answers = dst->past_commit || (dst->may_be_asked && rc != -ETIMEDOUT);

    return answers ? ANSWER_MS : LINGER_MS;
}

static int fail(struct mig_dest *dst, int rc, struct err *err)
{
    rc = explain(dst, rc, err);
    dst->may_be_asked = may_be_asked(dst);
    raise_stop(dst);
    mig_receiver_free(dst->recv); /* nobody writes to guest memory any more */
    dst->recv = NULL;
    /* The guest is gone from here before the source hears that it may run there. */
    if (dst->built)
        dst->p.ops->discard(dst->p.arg);
    if (dst->ctl) {
        mig_ctl_past_cancel(dst->ctl);
        mig_ctl_abort(dst->ctl, err->msg);
    }
    wind_up(dst, linger_ms(dst, rc));
    mig_progress_finish(&dst->progress,
                        is_cancelled(dst) ? MIG_RESULT_CANCELLED : MIG_RESULT_FAILED, false, err);
    return rc;
}

int mig_dest_run(struct mig_dest *dst, struct err *err)
{
    struct err mine = {0};
    int rc;

    thread_be_prompt(); /* lanes work, this thread sees to it that the guest runs soon */
    rc = take_in(dst, &mine);

    mig_progress_took(&dst->progress, &dst->took);
    if (rc < 0) {
        if (!mine.code)
            (void)err_set(&mine, rc, "%s", strerror(-rc));
        rc = fail(dst, rc, &mine);
        return err_set(err, rc, "%s", mine.msg);
    }
    report_running(dst);
    dst->may_be_asked = may_be_asked(dst); /* whether it has heard that, nobody says */
    wind_up(dst, ANSWER_MS);
    mig_progress_finish(&dst->progress, MIG_RESULT_COMPLETED, true, NULL);
    return 0;
}
