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

static uint64_t counted(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void mig_progress_frame(struct mig_counters *c, unsigned lane, uint64_t bytes, uint64_t pages,
                        bool is_zstd)
{
    (void)atomic_fetch_add_explicit(&c->data_pages, pages, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&c->wire_bytes, bytes, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&c->lane_bytes[lane], bytes, memory_order_relaxed);
    if (!is_zstd)
        return;
    (void)atomic_fetch_add_explicit(&c->zstd_pages, pages, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&c->zstd_bytes, bytes, memory_order_relaxed);
}

void mig_progress_phase(struct mig_progress *p, enum mig_phase phase)
{
    (void)pthread_mutex_lock(&p->lock);
    if (!p->begin_ns)
        p->begin_ns = loop_now_ns();
    if (phase == MIG_PHASE_STOPPED)
        p->st.stopped_ns = loop_now_ns() - p->begin_ns;
    p->st.phase = phase;
    (void)pthread_mutex_unlock(&p->lock);
}

static void round_locked(struct mig_progress *p, uint32_t round, uint64_t pages)
{
    p->st.round = round;
    p->round_ns = loop_now_ns();
    p->round_todo = pages;
    p->data_base = counted(&p->counters.data_pages);
    p->zero_base = counted(&p->counters.zero_pages);
    p->wire_base = counted(&p->counters.wire_bytes);
}

void mig_progress_round(struct mig_progress *p, uint32_t round, uint64_t pages)
{
    (void)pthread_mutex_lock(&p->lock);
    round_locked(p, round, pages);
    (void)pthread_mutex_unlock(&p->lock);
}

void mig_progress_received(struct mig_progress *p)
{
    struct mig_round_log *row;

    (void)pthread_mutex_lock(&p->lock);
    row = &p->rounds[p->nr_rounds++ % MIG_LOG_ROUNDS];
    *row = (struct mig_round_log){.round = p->st.round};
    row->data_pages = counted(&p->counters.data_pages) - p->data_base;
    row->zero_pages = counted(&p->counters.zero_pages) - p->zero_base;
    row->took_ns = loop_now_ns() - p->round_ns;
    row->at_ns = loop_now_ns() - p->begin_ns;
    round_locked(p, p->st.round + 1, 0);
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

static uint64_t per_second(uint64_t n, uint64_t ns)
{
    return ns ? (uint64_t)((unsigned __int128)n * 1000000000 / ns) : 0;
}

/* The rate, and the time left, of the round and of the blackout after it. */
static void estimate_locked(struct mig_progress *p, struct mig_status *st, uint64_t now)
{
    uint64_t done = counted(&p->counters.data_pages) - p->data_base, took = now - p->round_ns, left;

    done += counted(&p->counters.zero_pages) - p->zero_base;
    left = p->round_todo > done ? p->round_todo - done : 0;
    st->remaining = left << PAGE_SHIFT_4K;
    st->round_bytes = p->round_todo << PAGE_SHIFT_4K;
    st->wire_rate = per_second(counted(&p->counters.wire_bytes) - p->wire_base, took);
    if (!done || !p->round_todo)
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
    st.data_pages = counted(&p->counters.data_pages);
    st.zero_pages = counted(&p->counters.zero_pages);
    st.cpu_ns = counted(&p->counters.cpu_ns);
    st.zstd_pages = counted(&p->counters.zstd_pages);
    st.zstd_bytes = counted(&p->counters.zstd_bytes);
    st.wire_bytes = counted(&p->counters.wire_bytes);
    if (st.phase == MIG_PHASE_DONE)
        st.wire_rate = per_second(st.wire_bytes, st.elapsed_ns);
    *ret_status = st;
}

unsigned mig_progress_lane_bytes(struct mig_progress *p, uint64_t *bytes)
{
    unsigned n;

    (void)pthread_mutex_lock(&p->lock);
    n = p->st.lanes;
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < n; i++)
        bytes[i] = counted(&p->counters.lane_bytes[i]);
    return n;
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
