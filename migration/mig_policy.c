/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_policy.h"

enum {
    /* A last round shorter than this is not worth another one before it. */
    POLISH_FLOOR_NS = 1000000,
    STALL_PERCENT = 90, /* of the round before: not getting shorter */
    SLOW_PERCENT = 70,  /* the same, for a guest that is slowed down already */
    EASY_PERCENT = 25,  /* of the round before: getting shorter quickly */
};

/* Percent of the guest's time, one step after the other. */
static const unsigned throttle_steps[] = {0, 30, 60, 80, 90, 95, MIG_THROTTLE_MAX};

/* a * b / c without overflow; UINT64_MAX where it does not fit or c is 0. */
static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
    unsigned __int128 v = (unsigned __int128)a * b;

    if (c == 0)
        return a == 0 ? 0 : UINT64_MAX;
    v /= c;
    return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

/* Time to send some pages, at the measured rate. */
static uint64_t transfer_ns(uint64_t pages, uint64_t rate)
{
    return mul_div(pages << PAGE_SHIFT_4K, 1000000000, rate);
}

uint64_t mig_policy_estimate(const struct mig_measure *m)
{
    uint64_t t = transfer_ns(m->remaining, m->rate);

    return t > UINT64_MAX - m->fixed_ns ? UINT64_MAX : t + m->fixed_ns;
}

uint64_t mig_policy_hot_most(const struct mig_limits *limits, const struct mig_measure *m)
{
    /* A page that was written in a long round and in a shorter one rests in the next. */
    bool halves = !m->nr_history || m->remaining < m->history[0] / 2;

    if (halves || limits->downtime_ns <= m->fixed_ns)
        return 0;
    return mul_div((limits->downtime_ns - m->fixed_ns) / 2, m->rate, 1000000000) >> PAGE_SHIFT_4K;
}

/* Pages that the next round would send. */
static uint64_t cold(const struct mig_measure *m)
{
    return m->remaining - m->hot;
}

static bool is_stalled(const struct mig_measure *m)
{
    uint64_t now = cold(m);

    if (m->nr_history < 3)
        return false;
    for (unsigned i = 0; i < 3; i++) {
        if (now < mul_div(m->history[i], STALL_PERCENT, 100))
            return false;
        now = m->history[i];
    }
    return true;
}

/* Whether round n before the last (0: what the next one would send) was at least so much of the one before it. */
static bool not_shorter(const struct mig_measure *m, unsigned n, unsigned percent)
{
    uint64_t now = n ? m->history[n - 1] : cold(m);

    return m->nr_history > n && now >= mul_div(m->history[n], percent, 100);
}

/*
 * How much to slow the guest down.  That begins when two rounds in a row did
 * not get shorter, goes up step by step as long as it does not help, and down
 * again where it does.  Where the blackout without any page would be too long,
 * nothing helps.
 */
static unsigned choose_throttle(const struct mig_measure *m, const struct mig_verdict *v)
{
    unsigned step = 0;

    if (!m->can_throttle || v->hopeless)
        return 0;
    if (v->short_enough)
        return m->throttle;
    while (step + 1 < ARRAY_LEN(throttle_steps) && throttle_steps[step] < m->throttle)
        step++;
    if (!m->throttle)
        step += not_shorter(m, 0, STALL_PERCENT) && not_shorter(m, 1, STALL_PERCENT);
    else if (not_shorter(m, 0, SLOW_PERCENT) && step + 1 < ARRAY_LEN(throttle_steps))
        step++;
    else if (!not_shorter(m, 0, EASY_PERCENT))
        step--;
    return throttle_steps[step];
}

/*
 * The blackout is short enough already.  Another round while the guest runs
 * makes it shorter still where it halves what remains.  What remains is sent in
 * any case: the round costs what the guest writes meanwhile, which is to be
 * less than a quarter of the time that the move took so far.
 */
static bool worth_polishing(const struct mig_measure *m)
{
    uint64_t t = transfer_ns(cold(m), m->rate);
    uint64_t next = mul_div(mul_div(m->dirty_rate, cold(m), m->remaining), t, 1000000000);

    return m->polished < MIG_POLISH_ROUNDS && t > POLISH_FLOOR_NS && next <= cold(m) / 2 &&
           transfer_ns(next, m->rate) <= m->elapsed_ns / 4;
}

bool mig_policy_overdue(const struct mig_limits *limits, uint64_t since_begin_ns)
{
    return limits->timeout_ns && since_begin_ns >= limits->timeout_ns &&
           limits->strategy == MIG_TIMEOUT_CANCEL;
}

static struct mig_verdict choose(const struct mig_limits *limits, const struct mig_measure *m,
                                 struct mig_verdict v)
{
    bool late = limits->timeout_ns && m->since_begin_ns >= limits->timeout_ns;

    v.decision = MIG_DECIDE_STOP;
    if (m->remaining == 0) {
        v.why = "nothing is left";
    } else if (m->switch_now) {
        v.why = "asked to switch now";
    } else if (late && v.short_enough) {
        v.why = "the estimated blackout is short enough, and time is up";
    } else if (late && limits->strategy == MIG_TIMEOUT_IGNORE) {
        v.why = "time is up";
    } else if (late) {
        v.decision = MIG_DECIDE_GIVE_UP;
        v.why = "time is up and the blackout would be too long";
    } else if (!v.short_enough) {
        v.decision = MIG_DECIDE_ROUND;
        v.why = v.hopeless                 ? "the blackout would be too long with no page to send"
                : v.throttle > m->throttle ? "the guest dirties memory too fast and is slowed down"
                : v.stalled                ? "the guest dirties memory as fast as it is sent"
                                           : "the blackout would be too long";
    } else if (worth_polishing(m)) {
        v.decision = MIG_DECIDE_ROUND;
        v.why = "another round shortens the blackout";
    } else {
        v.why = "the estimated blackout is short enough";
    }
    return v;
}

struct mig_verdict mig_policy_decide(const struct mig_limits *limits, const struct mig_measure *m)
{
    struct mig_verdict v = {.estimate_ns = mig_policy_estimate(m),
                            .stalled = is_stalled(m),
                            .hopeless = m->fixed_ns > limits->downtime_ns};

    v.short_enough = v.estimate_ns <= limits->downtime_ns;
    v.throttle = choose_throttle(m, &v);
    return choose(limits, m, v);
}
