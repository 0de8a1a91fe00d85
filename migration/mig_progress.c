/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_progress.h"

#include <string.h>
#include <time.h>

#include "core/loop.h"
#include "migration/mig_progress_internal.h"

static const char *const phase_names[] = {
    [MIG_PHASE_IDLE] = "idle",     [MIG_PHASE_CONNECT] = "connect", [MIG_PHASE_PREPARE] = "prepare",
    [MIG_PHASE_ROUNDS] = "rounds", [MIG_PHASE_STOPPED] = "stopped", [MIG_PHASE_COMMIT] = "commit",
    [MIG_PHASE_DONE] = "done",
};

static const char *const result_names[] = {
    [MIG_RESULT_NONE] = "none",           [MIG_RESULT_COMPLETED] = "completed",
    [MIG_RESULT_FAILED] = "failed",       [MIG_RESULT_CANCELLED] = "cancelled",
    [MIG_RESULT_UNDECIDED] = "undecided",
};

const char *mig_phase_name(enum mig_phase phase)
{
    return phase_names[phase];
}

const char *mig_result_name(enum mig_result result)
{
    return result_names[result];
}

/* --- Writing ------------------------------------------------------------- */

void mig_progress_init(struct mig_progress *p)
{
    *p = (struct mig_progress){0};
    (void)pthread_mutex_init(&p->lock, NULL);
}

void mig_progress_release(struct mig_progress *p)
{
    (void)pthread_mutex_destroy(&p->lock);
}

static uint64_t pages_done(struct mig_progress *p)
{
    return atomic_load_explicit(&p->counters.data_pages, memory_order_relaxed) +
           atomic_load_explicit(&p->counters.zero_pages, memory_order_relaxed);
}

void mig_progress_phase(struct mig_progress *p, enum mig_phase phase)
{
    (void)pthread_mutex_lock(&p->lock);
    if (!p->begin_ns)
        p->begin_ns = loop_now_ns();
    p->st.phase = phase;
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_round(struct mig_progress *p, uint32_t round, uint64_t pages)
{
    (void)pthread_mutex_lock(&p->lock);
    p->st.round = round;
    p->round_ns = loop_now_ns();
    p->round_todo = pages;
    p->round_base = pages_done(p);
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_log(struct mig_progress *p, const struct mig_round_log *log, uint64_t dirty_rate)
{
    struct mig_round_log *row;

    (void)pthread_mutex_lock(&p->lock);
    row = &p->rounds[p->nr_rounds++ % MIG_LOG_ROUNDS];
    *row = *log;
    row->dirty_rate = dirty_rate << PAGE_SHIFT_4K;
    row->at_ns = loop_now_ns() - p->begin_ns;
    p->st.rate = log->rate;
    p->st.dirty_rate = row->dirty_rate;
    p->st.throttle = log->verdict.throttle;
    p->st.blackout_ns = log->verdict.estimate_ns;
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_took(struct mig_progress *p, const struct mig_phases *took)
{
    (void)pthread_mutex_lock(&p->lock);
    p->st.took = *took;
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_lanes(struct mig_progress *p, unsigned lanes, bool encrypted, uint64_t memory)
{
    (void)pthread_mutex_lock(&p->lock);
    p->st.lanes = lanes;
    p->st.encrypted = encrypted;
    p->st.total_bytes = memory;
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_secret(struct mig_progress *p, const uint8_t *secret)
{
    char id[MIG_ID_SIZE];

    mig_id(secret, id);
    (void)pthread_mutex_lock(&p->lock);
    memcpy(p->st.id, id, sizeof(id));
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_handed(struct mig_progress *p, bool handed)
{
    (void)pthread_mutex_lock(&p->lock);
    p->st.handed = handed;
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_refused(struct mig_progress *p, const struct err *err)
{
    (void)pthread_mutex_lock(&p->lock);
    p->st.nr_refused++;
    p->st.err = *err;
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_finish(struct mig_progress *p, enum mig_result result, bool guest_here,
                         const struct err *err)
{
    (void)pthread_mutex_lock(&p->lock);
    p->st.phase = MIG_PHASE_DONE;
    p->st.result = result;
    p->st.guest_here = guest_here;
    p->st.throttle = 0;
    p->st.took.total = p->begin_ns ? loop_now_ns() - p->begin_ns : 0;
    p->st.elapsed_ns = p->st.took.total;
    if (p->st.took.blackout)
        p->st.blackout_ns = p->st.took.blackout;
    if (err)
        p->st.err = *err;
    else
        p->st.err = (struct err){0};
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_cpu(struct mig_counters *c)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    (void)atomic_fetch_add_explicit(
        &c->cpu_ns, (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec, memory_order_relaxed);
}

/* --- Reading ------------------------------------------------------------- */

/* Time left of the round, and of the blackout after it. */
static void estimate_locked(struct mig_progress *p, struct mig_status *st, uint64_t now)
{
    uint64_t done = pages_done(p) - p->round_base, took = now - p->round_ns;
    uint64_t left = p->round_todo > done ? p->round_todo - done : 0;

    st->remaining = left << PAGE_SHIFT_4K;
    if (!done)
        return;
    st->time_left_ns = (uint64_t)((unsigned __int128)took * left / done);
    if (st->blackout_ns != UINT64_MAX)
        st->time_left_ns += st->blackout_ns;
}

void mig_progress_read(struct mig_progress *p, struct mig_status *ret_status)
{
    uint64_t now = loop_now_ns();
    struct mig_status st;

    (void)pthread_mutex_lock(&p->lock);
    st = p->st;
    if (st.phase != MIG_PHASE_DONE && p->begin_ns)
        st.elapsed_ns = now - p->begin_ns;
    if (st.phase == MIG_PHASE_ROUNDS && p->round_ns)
        estimate_locked(p, &st, now);
    (void)pthread_mutex_unlock(&p->lock);
    st.data_pages = atomic_load_explicit(&p->counters.data_pages, memory_order_relaxed);
    st.zero_pages = atomic_load_explicit(&p->counters.zero_pages, memory_order_relaxed);
    st.cpu_ns = atomic_load_explicit(&p->counters.cpu_ns, memory_order_relaxed);
    st.zstd_pages = atomic_load_explicit(&p->counters.zstd_pages, memory_order_relaxed);
    st.wire_bytes = atomic_load_explicit(&p->counters.wire_bytes, memory_order_relaxed);
    *ret_status = st;
}

unsigned mig_progress_rounds(struct mig_progress *p, struct mig_round_log *rounds)
{
    unsigned n;

    (void)pthread_mutex_lock(&p->lock);
    n = p->nr_rounds < MIG_LOG_ROUNDS ? p->nr_rounds : MIG_LOG_ROUNDS;
    for (unsigned i = 0; i < n; i++)
        rounds[i] = p->rounds[(p->nr_rounds - n + i) % MIG_LOG_ROUNDS];
    (void)pthread_mutex_unlock(&p->lock);
    return n;
}
