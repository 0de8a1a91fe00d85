/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to stop the guest: a pure function from measurements to a decision.
 */
#ifndef MIGRATION_MIG_POLICY_H
#define MIGRATION_MIG_POLICY_H

#include "core/base.h"

enum {
    MIG_HISTORY = 4,       /* rounds looked back on */
    MIG_POLISH_ROUNDS = 8, /* most rounds spent on a blackout shorter than asked for */
    MIG_THROTTLE_MAX = 99, /* percent of the guest's time */
};

/* What to do when timeout_s has passed. */
enum mig_timeout_strategy {
    MIG_TIMEOUT_CANCEL, /* the guest stays at the source */
    MIG_TIMEOUT_IGNORE, /* stop the guest, however long that takes */
};

struct mig_limits {
    uint64_t downtime_ns; /* longest blackout wanted */
    uint64_t timeout_ns;  /* for the whole move; 0: none */
    enum mig_timeout_strategy strategy;
};

/* Taken between two rounds, after the dirty memory was counted. */
struct mig_measure {
    uint64_t elapsed_ns;           /* since the first round began */
    uint64_t remaining;            /* pages that are dirty now, hot ones too */
    uint64_t rate;                 /* bytes a second that the link took; 0: not known */
    uint64_t dirty_rate;           /* pages a second that the guest dirties */
    uint64_t fixed_ns;             /* stop, save, load, start and the messages between */
    unsigned nr_history;           /* of the following */
    uint64_t history[MIG_HISTORY]; /* remaining and not hot, after earlier rounds, latest first */
    unsigned polished;             /* rounds gone since the blackout was short enough */
    bool switch_now;               /* somebody asked for it */
    bool can_throttle;             /* the guest can be slowed down */
    unsigned throttle;             /* percent of its time that the guest is kept out */
    uint64_t hot;                  /* pages that are left for the end: written again and again */
    uint64_t since_begin_ns;       /* since the move began, for timeout_ns */
};

enum mig_decision {
    MIG_DECIDE_ROUND,   /* one more round while the guest runs */
    MIG_DECIDE_STOP,    /* stop the guest and send the rest */
    MIG_DECIDE_GIVE_UP, /* -ETIMEDOUT */
};

struct mig_verdict {
    enum mig_decision decision;
    uint64_t estimate_ns; /* of the blackout, if the guest stopped now */
    bool short_enough;    /* the estimate is within the limit */
    bool stalled;         /* rounds do not get shorter: only slowing the guest helps */
    bool hopeless;        /* with no page to send it would be too long: no round helps */
    unsigned throttle;    /* percent of its time to keep the guest out from now on */
    const char *why;      /* static; one phrase */
};

/**
 * mig_policy_estimate() - the blackout if the guest stopped now.
 *
 * Return: nanoseconds; UINT64_MAX where there is no rate to tell by.
 * Threads: any.
 */
uint64_t mig_policy_estimate(const struct mig_measure *m);

/**
 * mig_policy_decide() - what to do next.
 *
 * Threads: any.  Reads nothing but its arguments.
 */
struct mig_verdict mig_policy_decide(const struct mig_limits *limits, const struct mig_measure *m);

/**
 * mig_policy_hot_most() - pages that may be left for the end because they are hot.
 *
 * Half of what may be sent while the guest stands still, so that the rest can get short enough.
 * @m: what remains is not yet sorted: none of it is hot.
 *
 * Return: pages; 0 where rounds halve what remains, and where there is no rate to tell by.
 * Threads: any.
 */
uint64_t mig_policy_hot_most(const struct mig_limits *limits, const struct mig_measure *m);

/**
 * mig_policy_overdue() - whether to give up whatever is going on, as long as the guest runs.
 * @since_begin_ns: since the move began.
 *
 * Threads: any.
 */
bool mig_policy_overdue(const struct mig_limits *limits, uint64_t since_begin_ns);

#endif
