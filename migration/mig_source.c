/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_source.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core/gmem.h"
#include "core/loop.h"
#include "core/thread_slice.h"
#include "migration/mig_ctl.h"
#include "migration/mig_progress_internal.h"
#include "migration/mig_sender.h"
#include "migration/mig_throttle.h"

enum {
    CONNECT_MS = 10000,  /* to connect, each time */
    HELLO_MS = 30000,    /* the default of mig_source_params.hello_ms */
    IDLE_MS = 9000,      /* the default of mig_source_params.idle_ms */
    KEEPALIVE_MS = 1000, /* the default of mig_source_params.keepalive_ms */
    TICK_MS = 100, /* how often the policy is asked in the middle of a round, or where none helps */
    HERE_NS = 3000000,    /* a guess: stop, save, load and start on the two hosts */
    BLACKOUT_TRIPS = 2,   /* last page to LOADED, COMMIT to RUNNING */
    STATE_BYTES = 16384,  /* what a machine with one processor has: how much it is shows too late */
    LOADED_MS = 60000,    /* the default of mig_source_params.loaded_ms */
    RUNNING_MS = 60000,   /* for the answer to COMMIT, as long as the peer lives */
    LAST_WORD_MS = 300,   /* the default of mig_source_params.last_word_ms */
    LINGER_MS = 200,      /* for our reason to arrive */
    RATE_BYTES = 1 << 20, /* a round smaller than this says little of the rate */
    HELLO_SIZE = 1024,    /* bytes: room for every capability that we name */
    RUN_RATE_MIN = 100000, /* ns: shortest time that a rate is computed over */
    STATE_PART = 4096,     /* bytes of state that are worth a message of their own */
};

/* Taken for the estimated blackout where there is no saying: 15 minutes. */
#define ESTIMATE_NONE ((uint64_t)900 * 1000000000)

struct mig_source {
    struct mig_source_params p;
    struct mig_progress progress;
    int stop_fd; /* owned; readable: cancelled, or a lane failed */
    atomic_bool switch_now;

    pthread_mutex_t lock; /* below */
    bool cancelled;
    const char *why_cancelled; /* static; NULL: not said */
    bool past_commit;          /* COMMIT is about to be sent: nothing cancels any more */

    /* Of the thread inside mig_source_run(). */
    unsigned features;               /* agreed on: bits of enum mig_feature */
    struct mig_ctl *ctl;             /* owned */
    struct mig_sender *sender;       /* owned */
    struct dirty_consumer *consumer; /* owned */
    struct mig_throttle *throttle;   /* owned; NULL where the guest cannot be slowed down */
    struct mig_phases took;
    struct mig_measure m;
    struct state_buf state;          /* saved, and not sent yet */
    uint64_t state_sent;             /* bytes */
    uint64_t state_patience_ns;      /* how long sending it may take yet */
    uint64_t begin_ns;               /* when the move began */
    uint64_t rounds_ns;              /* when the first round began */
    uint64_t harvest_ns;             /* when the dirty log was read last */
    uint64_t trip_ns;                /* shortest time to an answer of the peer; 0: there was none */
    uint64_t state_ns;               /* expected time to send the state; 0: not known */
    uint32_t round;                  /* number of the next */
    uint8_t secret[MIG_SECRET_SIZE]; /* from READY */
    bool has_secret, paused, released, commit_sent;
};

/* --- Life cycle ---------------------------------------------------------- */

int mig_source_new(const struct mig_source_params *params, struct mig_source **ret_src,
                   struct err *err)
{
    struct mig_source *src;

    if (params->lanes > MIG_LANES_MAX)
        return err_set(err, -EINVAL, "connections: %u, 1 to %d are allowed", params->lanes,
                       MIG_LANES_MAX);
    src = calloc(1, sizeof(*src));
    if (!src)
        return -ENOMEM;
    src->p = *params;
    src->p.lanes = params->lanes ? params->lanes : 1;
    src->p.idle_ms = params->idle_ms ? params->idle_ms : IDLE_MS;
    src->p.hello_ms = params->hello_ms ? params->hello_ms : HELLO_MS;
    src->p.loaded_ms = params->loaded_ms ? params->loaded_ms : LOADED_MS;
    src->p.last_word_ms = params->last_word_ms ? params->last_word_ms : LAST_WORD_MS;
    if (params->keepalive_ms == 0)
        src->p.keepalive_ms = KEEPALIVE_MS;
    else if (params->keepalive_ms == UINT_MAX)
        src->p.keepalive_ms = 0;
    src->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (src->stop_fd < 0) {
        int rc = -errno;

        free(src);
        return err_set(err, rc, "eventfd: %s", strerror(-rc));
    }
    (void)pthread_mutex_init(&src->lock, NULL);
    mig_progress_init(&src->progress);
    *ret_src = src;
    return 0;
}

void mig_source_free(struct mig_source *src)
{
    if (!src)
        return;
    (void)pthread_mutex_destroy(&src->lock);
    mig_progress_release(&src->progress);
    (void)close(src->stop_fd);
    free(src);
}

struct mig_progress *mig_source_progress(struct mig_source *src)
{
    return &src->progress;
}

/* Wake every thread of this move that waits for a socket. */
static void raise_stop(void *arg)
{
    struct mig_source *src = arg;

    (void)eventfd_write(src->stop_fd, 1);
}

int mig_source_cancel(struct mig_source *src, const char *why)
{
    int rc = 0;

    (void)pthread_mutex_lock(&src->lock);
    if (src->past_commit)
        rc = -EBUSY;
    else if (!src->cancelled)
        src->why_cancelled = why;
    if (rc == 0)
        src->cancelled = true;
    (void)pthread_mutex_unlock(&src->lock);
    if (rc == 0)
        raise_stop(src);
    return rc;
}

void mig_source_switch_now(struct mig_source *src)
{
    atomic_store(&src->switch_now, true);
}

static bool is_cancelled(struct mig_source *src)
{
    bool yes;

    (void)pthread_mutex_lock(&src->lock);
    yes = src->cancelled;
    (void)pthread_mutex_unlock(&src->lock);
    return yes;
}

/* --- Time ---------------------------------------------------------------- */

static bool is_overdue(const struct mig_source *src)
{
    return mig_policy_overdue(&src->p.limits, loop_now_ns() - src->begin_ns);
}

static int overdue(const struct mig_source *src, struct err *err)
{
    return err_set(err, -ETIMEDOUT, "not done within timeout_s = %llu",
                   (unsigned long long)(src->p.limits.timeout_ns / 1000000000));
}

/* mig_ctl_expect(), as long as there is time. */
static int expect(struct mig_source *src, enum mig_msg type, struct mig_message *ret_msg,
                  struct mig_refusal *why, struct err *err)
{
    int rc = -EAGAIN;

    while (rc == -EAGAIN) {
        if (is_overdue(src))
            return overdue(src, err);
        rc = mig_ctl_expect(src->ctl, type, loop_now_ns() + (uint64_t)TICK_MS * 1000000, ret_msg,
                            why, err);
    }
    return rc;
}

/*
 * The peer has answered what was sent then.  Each answer is late by what the peer, or what was on
 * its way before, kept it: the earliest one tells most of the way there and back.
 */
static void note_answer(struct mig_source *src, uint64_t sent_ns)
{
    uint64_t t = loop_now_ns() - sent_ns;

    if (!src->trip_ns || t < src->trip_ns)
        src->trip_ns = t ? t : 1;
}

/* What the blackout takes beyond its pages. */
static uint64_t fixed_cost(const struct mig_source *src)
{
    return HERE_NS + BLACKOUT_TRIPS * src->trip_ns + src->state_ns;
}

/* --- Connecting ---------------------------------------------------------- */

static int open_channel(struct mig_source *src, struct mig_channel **ret_ch, struct err *err)
{
    const struct mig_limits *limits = &src->p.limits;
    bool gives_up = limits->timeout_ns && limits->strategy == MIG_TIMEOUT_CANCEL;
    uint64_t now = loop_now_ns(), end = gives_up ? src->begin_ns + limits->timeout_ns : UINT64_MAX;
    struct mig_wait wait = {.cancel_fd = src->stop_fd,
                            .wake_fd = -1,
                            .deadline_ns = now + (uint64_t)CONNECT_MS * 1000000,
                            .idle_ms = src->p.hello_ms};
    struct err why = {0};
    int rc;

    if (end <= now)
        return overdue(src, err);
    if (end < wait.deadline_ns)
        wait.deadline_ns = end;
    if ((end - now) / 1000000 < wait.idle_ms)
        wait.idle_ms = (uint32_t)((end - now) / 1000000) + 1;
    rc = src->p.open(src->p.open_arg, &wait, ret_ch, &why);
    if (rc == -ETIMEDOUT && is_overdue(src))
        return overdue(src, err);
    return rc < 0 ? err_set(err, rc, "%s", why.msg) : rc;
}

/* Whether all of the memory can be handed over: it must be whole, and in memfds. */
static bool can_hand_over(const struct mig_source *src)
{
    if (!src->p.local || gmem_is_served(src->p.gm))
        return false;
    for (unsigned i = 0; i < gmem_nr_regions(src->p.gm); i++)
        if (!gmem_can_hand_over(src->p.gm, i))
            return false;
    return true;
}

/* What we offer: nothing that was not asked for. */
static unsigned features_offered(const struct mig_source *src)
{
    return (src->p.compression == MIG_COMPRESSION_OFF ? 0 : MIG_FEATURE_ZSTD) |
           (can_hand_over(src) ? MIG_FEATURE_MEMORY : 0);
}

static int check_hello(struct mig_source *src, const struct mig_message *msg, struct err *err)
{
    const char *unknown;
    struct mig_hello h;
    int rc = mig_hello_get(msg->body, msg->len, &h, err);

    if (rc < 0)
        return rc;
    if (h.version_min != h.version_max || h.version_max < MIG_VERSION_MIN ||
        h.version_max > MIG_VERSION)
        return err_set(err, -EPROTO, "HELLO: the destination chose version %u..%u of %d..%d",
                       h.version_min, h.version_max, MIG_VERSION_MIN, MIG_VERSION);
    src->features = mig_features_of(&h, &unknown) & features_offered(src);
    if (unknown) {
        return err_set(err, -ENOTSUP, "the destination requires '%s', which is not known here",
                       unknown);
    }
    return 0;
}

static int greet(struct mig_source *src, struct mig_refusal *why, struct err *err)
{
    struct mig_hello h = {.version_min = MIG_VERSION_MIN,
                          .version_max = MIG_VERSION,
                          .page_size = PAGE_SIZE_4K,
                          .lanes = src->p.lanes};
    uint8_t buf[HELLO_SIZE];
    struct wr w = {buf, sizeof(buf), false};
    uint64_t begin = loop_now_ns();
    struct mig_message msg;
    int rc;

    mig_features_name(features_offered(src), &h);
    mig_hello_put(&h, &w);
    rc = mig_ctl_send(src->ctl, MIG_MSG_HELLO, &(struct iovec){buf, sizeof(buf) - w.left}, 1, err);
    if (rc >= 0)
        rc = expect(src, MIG_MSG_HELLO, &msg, why, err);
    /* One of another making may listen, and talk to its source only. */
    if (rc == -ETIMEDOUT && !is_overdue(src))
        return err_prefix(err, rc, "HELLO was not answered: the destination may have a source");
    if (rc < 0)
        return rc;
    note_answer(src, begin);
    return check_hello(src, &msg, err);
}

static int connect_control(struct mig_source *src, struct mig_refusal *why, struct err *err)
{
    struct mig_ctl_params cp = {.fsm = &mig_source_fsm,
                                .keepalive_ms = src->p.keepalive_ms,
                                .idle_ms = src->p.idle_ms,
                                .first_ms = src->p.hello_ms,
                                .cancel_fd = src->stop_fd};
    uint64_t begin = loop_now_ns();
    struct mig_channel *ch;
    int rc;

    mig_progress_phase(&src->progress, MIG_PHASE_CONNECT);
    rc = open_channel(src, &ch, err);
    if (rc < 0)
        return rc;
    mig_progress_lanes(&src->progress, src->p.lanes, mig_channel_is_encrypted(ch),
                       gmem_size(src->p.gm));
    rc = mig_ctl_new(ch, &cp, &src->ctl);
    if (rc < 0)
        return err_set(err, rc, "control channel: %s", strerror(-rc));
    rc = greet(src, why, err);
    src->took.connect = loop_now_ns() - begin;
    return rc;
}

/* What the destination may refuse by, besides CONFIG. */
static int send_facts(struct mig_source *src, struct err *err)
{
    char *text = NULL;
    size_t len = 0;
    int rc;

    if (!src->p.ops->facts)
        return 0;
    rc = src->p.ops->facts(src->p.arg, &text, &len, err);
    if (rc >= 0 && len && len <= MIG_SMALL_MAX)
        rc = mig_ctl_send(src->ctl, MIG_MSG_FACTS, &(struct iovec){text, len}, 1, err);
    free(text);
    return rc;
}

/* Send CONFIG and wait until the destination has built the machine. */
static int prepare(struct mig_source *src, struct mig_ready_wire *ret_ready,
                   struct mig_refusal *why, struct err *err)
{
    uint8_t head[sizeof(struct mig_config_hdr) + GMEM_REGIONS_MAX * sizeof(struct mig_region_wire)];
    struct wr w = {head, sizeof(head), false};
    struct state_buf config = {0};
    uint64_t begin = loop_now_ns();
    struct mig_layout layout;
    struct mig_message msg;
    int rc;

    mig_progress_phase(&src->progress, MIG_PHASE_PREPARE);
    rc = send_facts(src, err);
    if (rc >= 0)
        rc = mig_layout_of(src->p.gm, &layout, err);
    if (rc >= 0)
        rc = src->p.ops->describe(src->p.arg, &config, err);
    if (rc >= 0) {
        mig_layout_put(&layout, config.len, &w);
        rc = mig_ctl_send(src->ctl, MIG_MSG_CONFIG,
                          (struct iovec[]){
                              {head,        sizeof(head) - w.left},
                              {config.data, config.len           }
        },
                          2, err);
    }
    state_buf_release(&config);
    if (rc >= 0)
        rc = expect(src, MIG_MSG_READY, &msg, why, err);
    if (rc >= 0)
        rc = mig_ready_get(msg.body, msg.len, ret_ready, err);
    if (rc >= 0) {
        memcpy(src->secret, ret_ready->secret, sizeof(src->secret));
        src->has_secret = true;
        mig_progress_secret(&src->progress, src->secret);
    }
    src->took.prepare = loop_now_ns() - begin;
    return rc;
}

static int open_lanes(struct mig_source *src, const struct mig_ready_wire *ready, struct err *err)
{
    unsigned nr = le32_get(ready->lanes) < src->p.lanes ? le32_get(ready->lanes) : src->p.lanes;
    struct mig_sender_params sp = {
        .gm = src->p.gm,
        .consumer = src->consumer,
        .counters = &src->progress.counters,
        .cancel_fd = src->stop_fd,
        .bandwidth = src->p.bandwidth,
        .compression = src->features & MIG_FEATURE_ZSTD ? src->p.compression : MIG_COMPRESSION_OFF,
        .idle_ms = src->p.idle_ms,
        .failed = raise_stop,
        .arg = src};
    int rc = mig_sender_new(&sp, &src->sender);

    for (unsigned i = 0; i < nr && rc >= 0; i++) {
        struct mig_channel *ch;

        rc = open_channel(src, &ch, err);
        if (rc >= 0 && i == 0)
            mig_progress_lanes(&src->progress, nr, mig_channel_is_encrypted(ch),
                               gmem_size(src->p.gm));
        if (rc >= 0)
            rc = mig_sender_add_lane(src->sender, ch, ready->secret, err);
        if (rc < 0)
            rc = err_prefix(err, rc, "lane %u", i);
    }
    return rc;
}

/* --- Rounds -------------------------------------------------------------- */

static uint64_t per_second(uint64_t n, uint64_t ns)
{
    if (ns < RUN_RATE_MIN)
        ns = RUN_RATE_MIN;
    return (uint64_t)((unsigned __int128)n * 1000000000 / ns);
}

static int check_round_done(const struct mig_message *msg, uint32_t round, struct err *err)
{
    uint32_t done;
    int rc = mig_round_done_get(msg->body, msg->len, &done, err);

    if (rc >= 0 && done != round)
        return err_set(err, -EPROTO, "ROUND_DONE: %u, %u was due", done, round);
    return rc;
}

/* Wait until the destination has all of a round. */
static int await_round(struct mig_source *src, uint32_t round, struct err *err)
{
    for (;;) {
        uint64_t now = loop_now_ns();
        struct mig_message msg;
        int rc;

        if (is_overdue(src))
            return overdue(src, err);
        rc = mig_ctl_recv(src->ctl, now + (uint64_t)TICK_MS * 1000000, &msg, err);
        if (rc != -EAGAIN)
            return rc < 0 ? rc : check_round_done(&msg, round, err);
    }
}

static int harvest(struct mig_source *src, struct err *err)
{
    uint64_t begin = loop_now_ns();
    int rc = dirty_drain(src->p.dirty, err);

    src->harvest_ns = loop_now_ns();
    if (src->paused)
        src->took.harvest += src->harvest_ns - begin;
    return rc;
}

/* Leave pages that are written in every round for the end; count what remains. */
static int sort_out(struct mig_source *src, struct err *err)
{
    struct mig_measure *m = &src->m;
    int64_t hot;

    m->hot = m->remaining = 0;
    if (!src->consumer)
        return 0;
    m->remaining = dirty_count(src->consumer);
    hot = dirty_set_aside(src->consumer, mig_policy_hot_most(&src->p.limits, m), err);
    if (hot < 0)
        return (int)hot;
    m->hot = (uint64_t)hot;
    m->remaining = m->hot + dirty_count(src->consumer);
    return 0;
}

/* Bring the measurements up to date after a round that took so long. */
static int measure(struct mig_source *src, uint64_t bytes, uint64_t took, uint64_t since_harvest,
                   struct err *err)
{
    struct mig_measure *m = &src->m;
    uint64_t rate = per_second(bytes, took);

    /* A short round passes below the cap at once, and a later one pays for it. */
    if (src->p.bandwidth && rate > src->p.bandwidth)
        rate = src->p.bandwidth;
    memmove(&m->history[1], &m->history[0], sizeof(m->history) - sizeof(m->history[0]));
    m->history[0] = m->remaining - m->hot;
    if (m->nr_history < MIG_HISTORY)
        m->nr_history++;
    if (bytes >= RATE_BYTES || rate > m->rate)
        m->rate = rate;
    if (bytes >= RATE_BYTES && rate)
        src->state_ns = (uint64_t)STATE_BYTES * 1000000000 / rate;
    m->elapsed_ns = loop_now_ns() - src->rounds_ns;
    m->since_begin_ns = loop_now_ns() - src->begin_ns;
    m->fixed_ns = fixed_cost(src);
    m->dirty_rate = per_second(src->consumer ? dirty_count(src->consumer) : 0, since_harvest);
    m->switch_now = atomic_load(&src->switch_now);
    return sort_out(src, err);
}

/* One round while the guest runs, and what to do after it. */
static int run_round(struct mig_source *src, uint64_t pages, struct mig_verdict *ret_verdict,
                     struct err *err)
{
    struct mig_counters *c = &src->progress.counters;
    struct mig_round_log log = {.round = src->round};
    uint64_t data = atomic_load(&c->data_pages), zero = atomic_load(&c->zero_pages);
    uint64_t begin = loop_now_ns(), harvested = src->harvest_ns;
    int rc;

    mig_progress_round(&src->progress, src->round, pages);
    if (src->p.ops->round)
        src->p.ops->round(src->p.arg, src->round, src->m.throttle);
    mig_sender_round(src->sender, &(struct mig_round){.number = src->round});
    rc = await_round(src, src->round, err);
    if (rc < 0)
        return rc;
    note_answer(src, mig_sender_ended_ns(src->sender));
    src->round++;
    log.took_ns = loop_now_ns() - begin;
    log.data_pages = atomic_load(&c->data_pages) - data;
    log.zero_pages = atomic_load(&c->zero_pages) - zero;
    rc = harvest(src, err);
    if (rc >= 0)
        rc = measure(src, log.data_pages << PAGE_SHIFT_4K, log.took_ns, src->harvest_ns - harvested,
                     err);
    if (rc < 0)
        return rc;
    log.verdict = mig_policy_decide(&src->p.limits, &src->m);
    src->m.polished = log.verdict.short_enough ? src->m.polished + 1 : 0;
    if (src->throttle && mig_throttle_set(src->throttle, log.verdict.throttle) >= 0)
        src->m.throttle = log.verdict.throttle;
    log.remaining = src->m.remaining;
    log.hot = src->m.hot;
    log.rate = src->m.rate;
    log.fixed_ns = src->m.fixed_ns;
    log.trip_ns = src->trip_ns;
    mig_progress_log(&src->progress, &log, src->m.dirty_rate);
    *ret_verdict = log.verdict;
    return 0;
}

/*
 * No round brings the destination nearer: one a tick shows whether it is.  The next one sends what
 * the guest writes meanwhile too, so that it stops with as little left as without the rest.
 */
static int rest(struct mig_source *src, uint64_t round_begin_ns, struct err *err)
{
    int rc = mig_ctl_look(src->ctl, round_begin_ns + (uint64_t)TICK_MS * 1000000, err);

    if (rc >= 0)
        rc = harvest(src, err);
    return rc < 0 ? rc : sort_out(src, err);
}

static int run_rounds(struct mig_source *src, struct err *err)
{
    uint64_t begin, pages = gmem_size(src->p.gm) >> PAGE_SHIFT_4K;
    struct mig_verdict v;
    int rc;

    mig_progress_phase(&src->progress, MIG_PHASE_ROUNDS);
    if (src->p.ops->nap) {
        rc = mig_throttle_new(src->p.ops->nap, src->p.arg, &src->throttle);
        if (rc < 0)
            return rc;
        src->m.can_throttle = true;
    }
    src->rounds_ns = src->harvest_ns = loop_now_ns();
    if (src->consumer)
        dirty_set_all(src->consumer);
    else
        pages = 0;
    src->m.remaining = pages;
    do {
        begin = loop_now_ns();
        rc = run_round(src, pages, &v, err);
        if (rc >= 0 && v.decision == MIG_DECIDE_ROUND && v.hopeless)
            rc = rest(src, begin, err);
        pages = src->m.remaining - src->m.hot;
    } while (rc >= 0 && v.decision == MIG_DECIDE_ROUND);
    src->took.rounds = loop_now_ns() - src->rounds_ns;
    if (rc >= 0 && v.decision == MIG_DECIDE_GIVE_UP) {
        return err_set(err, -ETIMEDOUT, "%s (%llu ms expected, downtime_ms = %llu)", v.why,
                       (unsigned long long)(v.estimate_ns / 1000000),
                       (unsigned long long)(src->p.limits.downtime_ns / 1000000));
    }
    return rc;
}

/* --- The blackout -------------------------------------------------------- */

/* For how long a stopped guest waits for its state to be sent, and then for it to be loaded. */
static uint64_t patience_ns(const struct mig_source *src)
{
    uint64_t estimate = mig_policy_estimate(&src->m);

    if (estimate >= UINT64_MAX / 8)
        estimate = ESTIMATE_NONE;
    return 4 * estimate + (uint64_t)src->p.loaded_ms * 1000000;
}

/*
 * Send the state that is there.  A destination that takes a byte now and then is not dead, and must
 * not keep the guest.
 */
static int send_state(struct mig_source *src, bool last, struct err *err)
{
    struct state_buf *state = &src->state;
    uint64_t begin = loop_now_ns(), took;
    size_t at = 0;
    int rc;

    mig_ctl_send_by(src->ctl, begin + src->state_patience_ns);
    do {
        size_t n = state->len - at < MIG_STATE_CHUNK_MAX ? state->len - at : MIG_STATE_CHUNK_MAX;
        bool end = last && at + n == state->len;
        struct mig_state_hdr hdr = {.flags = le32_make(end ? MIG_STATE_LAST : 0)};

        rc = mig_ctl_send(src->ctl, MIG_MSG_STATE,
                          (struct iovec[]){
                              {&hdr,             sizeof(hdr)},
                              {state->data + at, n          }
        },
                          2, err);
        at += n;
    } while (rc >= 0 && at < state->len);
    mig_ctl_send_by(src->ctl, 0);
    took = loop_now_ns() - begin;
    src->state_patience_ns -= took < src->state_patience_ns ? took : src->state_patience_ns;
    src->state_sent += state->len;
    state->len = 0;
    return rc;
}

/* A part of the state: what came before it is on its way while the next one is saved. */
static int put_state(void *arg, const uint8_t *data, size_t len, struct err *err)
{
    struct mig_source *src = arg;
    int rc = src->state.len >= STATE_PART ? send_state(src, false, err) : 0;

    if (rc >= 0 && len > MIG_STATE_MAX - src->state_sent - src->state.len)
        return err_set(err, -E2BIG, "the state is over the %d bytes that are allowed",
                       MIG_STATE_MAX);
    return rc < 0 ? rc : state_buf_append(&src->state, data, len, err);
}

static int save_and_send(struct mig_source *src, struct err *err)
{
    const struct state_sink sink = {.put = put_state, .arg = src};
    uint64_t begin = loop_now_ns();
    int rc = src->p.ops->save(src->p.arg, &sink, err);

    src->took.save = loop_now_ns() - begin;
    return rc;
}

/*
 * Stop the guest; send what it dirtied, while its state is saved and sent; then
 * what saving dirtied, and the rest of the state.
 */
static int stop_and_send(struct mig_source *src, struct err *err)
{
    struct mig_round more = {.number = src->round}, last = {src->round + 1, true, true};
    uint64_t begin = loop_now_ns();
    int rc;

    mig_progress_phase(&src->progress, MIG_PHASE_STOPPED);
    mig_progress_round(&src->progress, src->round, src->m.remaining);
    rc = mig_ctl_send(src->ctl, MIG_MSG_STOP, NULL, 0, err);
    if (rc >= 0)
        rc = src->p.ops->pause(src->p.arg, err);
    if (rc < 0)
        return rc;
    src->paused = true;
    src->took.pause = loop_now_ns() - begin;
    mig_throttle_off(src->throttle);
    rc = harvest(src, err);
    if (rc >= 0 && src->m.hot)
        rc = (int)dirty_set_aside(src->consumer, 0, err);
    if (rc < 0)
        return rc;
    mig_sender_round(src->sender, &more);
    rc = save_and_send(src, err);
    if (rc >= 0)
        rc = harvest(src, err);
    if (rc < 0)
        return rc;
    mig_sender_round(src->sender, &last);
    return send_state(src, true, err);
}

static int await_loaded(struct mig_source *src, uint64_t stopped_ns, struct err *err)
{
    uint64_t end = loop_now_ns() + patience_ns(src);
    struct mig_message msg;
    int rc;

    rc = mig_ctl_recv(src->ctl, end, &msg, err);
    if (rc >= 0 && msg.type == MIG_MSG_ROUND_DONE) {
        rc = check_round_done(&msg, src->round, err);
        if (rc >= 0)
            rc = mig_ctl_expect(src->ctl, MIG_MSG_LOADED, end, &msg, NULL, err);
    }
    if (rc == -EAGAIN)
        return err_set(err, -ETIMEDOUT, "the destination did not load the state in time");
    src->took.send =
        loop_now_ns() - stopped_ns - src->took.pause - src->took.harvest - src->took.save;
    return rc;
}

/* From here nothing cancels; false if somebody was faster. */
static bool pass_commit(struct mig_source *src)
{
    bool ok;

    (void)pthread_mutex_lock(&src->lock);
    ok = !src->cancelled;
    src->past_commit = ok;
    (void)pthread_mutex_unlock(&src->lock);
    return ok;
}

static int hand_over(struct mig_source *src, struct err *err)
{
    uint64_t t = loop_now_ns();
    struct mig_message msg;
    struct mig_times times;
    int rc;

    mig_progress_phase(&src->progress, MIG_PHASE_COMMIT);
    src->released = true;
    rc = src->p.ops->release(src->p.arg, err);
    if (rc < 0)
        return rc;
    src->took.release = loop_now_ns() - t;
    if (!pass_commit(src))
        return err_set(err, -ECANCELED, "cancelled");
    mig_ctl_past_cancel(src->ctl);
    t = loop_now_ns();
    rc = mig_ctl_send(src->ctl, MIG_MSG_COMMIT, NULL, 0, err);
    if (rc < 0)
        return rc; /* the peer cannot have all of it: nothing was handed over */
    src->commit_sent = true;
    rc = mig_ctl_recv(src->ctl, t + (uint64_t)RUNNING_MS * 1000000, &msg, err);
    if (rc == -EAGAIN)
        return err_set(err, -ETIMEDOUT, "no answer to COMMIT for %d ms", RUNNING_MS);
    if (rc >= 0)
        rc = mig_times_get(msg.body, msg.len, &times, err);
    if (rc < 0)
        return rc;
    src->took.commit = loop_now_ns() - t;
    src->took.pages = times.pages_ns;
    src->took.load = times.load_ns;
    src->took.acquire = times.acquire_ns;
    src->took.start = times.start_ns;
    return 0;
}

static int blackout(struct mig_source *src, struct err *err)
{
    uint64_t begin = loop_now_ns();
    int rc;

    src->state_patience_ns = patience_ns(src);
    rc = stop_and_send(src, err);
    if (rc >= 0)
        rc = await_loaded(src, begin, err);
    if (rc >= 0)
        rc = hand_over(src, err);
    if (src->paused)
        src->took.blackout = loop_now_ns() - begin;
    return rc;
}

/* --- The whole ----------------------------------------------------------- */

static int move(struct mig_source *src, struct mig_refusal *why, struct err *err)
{
    struct mig_ready_wire ready;
    int rc;

    rc = connect_control(src, why, err);
    if (rc >= 0)
        rc = prepare(src, &ready, why, err);
    mig_progress_handed(&src->progress, src->features & MIG_FEATURE_MEMORY);
    if (rc >= 0 && !(src->features & MIG_FEATURE_MEMORY))
        rc = dirty_attach(src->p.dirty, &src->consumer, err);
    if (rc >= 0)
        rc = open_lanes(src, &ready, err);
    if (rc >= 0)
        rc = run_rounds(src, err);
    if (rc >= 0)
        rc = blackout(src, err);
    mig_throttle_free(src->throttle);
    src->throttle = NULL;
    return rc;
}

static bool need_not_wait(void *src)
{
    return is_cancelled(src);
}

/*
 * Find the best explanation of a failure: what somebody asked for, then what
 * the peer said before it went away, then what a lane saw, then what we saw.
 */
static int explain(struct mig_source *src, int rc, struct err *err)
{
    struct err peer = {0}, lane = {0};
    int got = 0;

    if (is_cancelled(src) && !src->commit_sent) {
        *err = (struct err){0};
        return err_set(err, -ECANCELED, "%s",
                       src->why_cancelled ? src->why_cancelled : "cancelled");
    }
    if (rc != -ECANCELED && rc != -EPIPE && rc != -ECONNRESET)
        return rc;
    if (src->ctl && !src->commit_sent)
        got = mig_ctl_last_word(src->ctl, src->p.last_word_ms, need_not_wait, src, &peer);
    if (got < 0) {
        *err = peer;
        return got;
    }
    got = src->sender ? mig_sender_error(src->sender, &lane) : 0;
    if (got < 0 && rc == -ECANCELED) {
        *err = lane;
        return got;
    }
    return rc;
}

/* Make the guest run here again. */
static int take_back(struct mig_source *src, struct err *err)
{
    int rc = 0;

    if (src->released)
        rc = src->p.ops->reclaim(src->p.arg, err);
    if (rc >= 0 && src->paused)
        rc = src->p.ops->resume(src->p.arg, err);
    return rc;
}

/* Give back all that the move used. */
static void wind_up(struct mig_source *src, const char *abort_reason)
{
    if (src->ctl && abort_reason)
        mig_ctl_abort(src->ctl, abort_reason);
    raise_stop(src);
    mig_sender_free(src->sender);
    dirty_detach(src->consumer);
    mig_ctl_free(src->ctl, abort_reason ? LINGER_MS : 0);
    state_buf_release(&src->state);
    src->sender = NULL;
    src->consumer = NULL;
    src->ctl = NULL;
}

static int undecided(struct mig_source *src, int rc, struct err *err)
{
    (void)err_prefix(err, rc,
                     "the destination did not answer COMMIT: the guest may run there and stays "
                     "stopped here");
    wind_up(src, NULL);
    mig_progress_finish(&src->progress, MIG_RESULT_UNDECIDED, false, err);
    return -EINPROGRESS;
}

/*
 * Whether the destination has said, in answer to COMMIT, that it never will.
 * The table knows; the code of the failure does not: a socket that somebody
 * aborts on this host fails with -ECONNABORTED too.
 */
static bool was_given_back(const struct mig_source *src)
{
    return mig_ctl_state(src->ctl) == MIG_SRC_FAILED;
}

static int fail(struct mig_source *src, int rc, struct err *err)
{
    char reason[ERR_MSG_SIZE];
    struct err stuck = {0};
    int back;

    if (src->commit_sent && !was_given_back(src))
        return undecided(src, rc, err);
    back = take_back(src, &stuck); /* first of all: the guest stands still */
    rc = explain(src, rc, err);
    memcpy(reason, err->msg, sizeof(reason));
    if (back < 0)
        (void)err_prefix(err, rc, "the guest stays stopped (%s) after", stuck.msg);
    wind_up(src, reason);
    mig_progress_finish(&src->progress,
                        is_cancelled(src) ? MIG_RESULT_CANCELLED : MIG_RESULT_FAILED, back >= 0,
                        err);
    return rc;
}

int mig_source_run(struct mig_source *src, struct mig_refusal *why, struct err *err)
{
    struct err mine = {0};
    int rc;

    thread_be_prompt(); /* lanes work, this thread sees to it that the guest stands still for a short time */
    src->begin_ns = loop_now_ns();
    rc = move(src, why, &mine);

    mig_progress_took(&src->progress, &src->took);
    if (rc < 0) {
        if (!mine.code)
            (void)err_set(&mine, rc, "%s", strerror(-rc));
        rc = fail(src, rc, &mine);
        return err_set(err, rc, "%s", mine.msg);
    }
    dirty_abandon(src->consumer);
    src->consumer = NULL;
    wind_up(src, NULL);
    mig_progress_finish(&src->progress, MIG_RESULT_COMPLETED, false, NULL);
    src->p.ops->committed(src->p.arg);
    return 0;
}

/* --- Afterwards ---------------------------------------------------------- */

const uint8_t *mig_source_secret(const struct mig_source *src)
{
    return src->has_secret ? src->secret : NULL;
}

int mig_source_resolve(struct mig_source *src, enum mig_outcome outcome, struct err *err)
{
    struct err why = {0};
    struct mig_status st;
    int rc;

    mig_progress_read(&src->progress, &st);
    if (st.result != MIG_RESULT_UNDECIDED)
        return err_set(err, -EPERM, "there is nothing to resolve: the migration is %s",
                       st.phase == MIG_PHASE_DONE ? mig_result_name(st.result) : "not over");
    if (outcome == MIG_OUTCOME_TAKEN) {
        mig_progress_finish(&src->progress, MIG_RESULT_COMPLETED, false, NULL);
        src->p.ops->committed(src->p.arg);
        return 0;
    }
    rc = take_back(src, err);
    if (rc < 0)
        return rc;
    (void)err_set(&why, -ECONNABORTED, "resolved: the destination never started the guest");
    mig_progress_finish(&src->progress, MIG_RESULT_FAILED, true, &why);
    return 0;
}
