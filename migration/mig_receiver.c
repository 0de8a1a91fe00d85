/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_receiver.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/log.h"
#include "core/loop.h"
#include "core/thread_slice.h"
#include "migration/mig_codec.h"

enum {
    POPULATE_PAGES = 16, /* shortest run of new pages that is mapped by a call of its own */
    BLOCK_PAGES = 512,   /* what is given back together: a huge page */
};

struct lane {
    struct mig_receiver *r;
    struct mig_channel *ch; /* owned */
    unsigned index;
    pthread_t thread;

    /* The frame that is arriving. */
    struct mig_pages_hdr hdr;
    struct mig_run_wire wire_runs[MIG_RUNS_MAX];
    struct mig_pages pages;
    struct iovec iov[MIG_RUNS_MAX];
    struct mig_packer *codec; /* owned; NULL: not needed yet */

    /* Of this round. */
    uint32_t round;
    uint64_t data_pages;
    uint64_t zero_pages;
};

struct mig_receiver {
    struct mig_receiver_params p;
    struct lane *lanes[MIG_LANES_MAX];

    /* One bit a page: data was written to it.  Relaxed: rounds are apart by the lock. */
    _Atomic uint64_t *touched[GMEM_REGIONS_MAX]; /* owned */

    pthread_mutex_t lock; /* below */
    pthread_cond_t cond;
    uint32_t rounds_done; /* rounds that every lane has finished */
    unsigned arrived;     /* lanes that have finished the round after those */
    unsigned nr_last;     /* lanes that had their last round */
    bool quit;
    int rc; /* of the first lane that failed */
    struct err err;

    bool gave_back; /* by the lane that opens the second round, or after the last one */
};

/* --- Pages --------------------------------------------------------------- */

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    (void)atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Note that data is about to be written.  Return: how many of the pages are so for the first time. */
static uint64_t touch(struct mig_receiver *r, const struct mig_run *run)
{
    uint64_t p = run->first, end = run->first + run->nr, fresh = 0;

    while (p < end) {
        uint64_t bit = p % 64, n = end - p < 64 - bit ? end - p : 64 - bit;
        uint64_t mask = (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << bit;
        uint64_t old =
            atomic_fetch_or_explicit(&r->touched[run->region][p / 64], mask, memory_order_relaxed);

        fresh += (uint64_t)__builtin_popcountll(mask & ~old);
        p += n;
    }
    return fresh;
}

/* Have the kernel map a run's pages at once: a fault for each costs more. */
static void populate(struct mig_receiver *r, const struct mig_run *run)
{
    uint8_t *hva = gmem_region(r->p.gm, run->region)->hva + (run->first << PAGE_SHIFT_4K);

    /* Advice: a kernel without it (before Linux 5.14) takes the faults. */
    (void)madvise(hva, (size_t)run->nr << PAGE_SHIFT_4K, MADV_POPULATE_WRITE);
}

static bool is_touched(struct mig_receiver *r, unsigned region, uint64_t page)
{
    uint64_t w = atomic_load_explicit(&r->touched[region][page / 64], memory_order_relaxed);

    return w >> (page % 64) & 1;
}

/* Make pages zero, those that are not: the others are not even looked at. */
static int zero_run(struct mig_receiver *r, const struct mig_run *run)
{
    uint64_t gpa = r->p.layout.regions[run->region].gpa;
    uint64_t p = run->first, end = run->first + run->nr;

    while (p < end) {
        _Atomic uint64_t *word = &r->touched[run->region][p / 64];
        int rc;

        if (p % 64 == 0 && !atomic_load_explicit(word, memory_order_relaxed)) {
            p += 64;
            continue;
        }
        if (is_touched(r, run->region, p)) {
            rc = gmem_fill(r->p.gm, gpa + (p << PAGE_SHIFT_4K), 0, PAGE_SIZE_4K);
            if (rc < 0)
                return rc;
        }
        p++;
    }
    return 0;
}

static bool is_block_touched(struct mig_receiver *r, unsigned region, uint64_t block)
{
    const _Atomic uint64_t *words = &r->touched[region][block * BLOCK_PAGES / 64];

    for (unsigned i = 0; i < BLOCK_PAGES / 64; i++)
        if (atomic_load_explicit(&words[i], memory_order_relaxed))
            return true;
    return false;
}

static void give_back_region(struct mig_receiver *r, unsigned region)
{
    uint64_t blocks = (r->p.layout.regions[region].len >> PAGE_SHIFT_4K) / BLOCK_PAGES, first = 0;

    for (uint64_t b = 0; b <= blocks; b++) {
        if (b < blocks && !is_block_touched(r, region, b))
            continue;
        /* What cannot be given back is no harm: it is zero. */
        if (b > first)
            (void)!gmem_give_back(r->p.gm, region, first * BLOCK_PAGES, (b - first) * BLOCK_PAGES);
        first = b + 1;
    }
}

/*
 * Memory that was made ready ahead, and that the guest has not.  Not while lanes write: all of it
 * is known after the first round.
 */
static void give_back(struct mig_receiver *r)
{
    if (r->gave_back || !gmem_has_spare(r->p.gm))
        return;
    r->gave_back = true;
    for (unsigned i = 0; i < r->p.layout.nr; i++)
        give_back_region(r, i);
}

/* Pin the data runs of a frame: number of pieces, or a failure. */
static int pin(struct lane *l)
{
    struct mig_receiver *r = l->r;
    unsigned n = 0;

    for (unsigned i = 0; i < l->pages.nr_runs; i++) {
        const struct mig_run *run = &l->pages.runs[i];
        int got;

        if (run->kind != MIG_RUN_DATA)
            continue;
        got = gmem_pin_write(r->p.gm,
                             r->p.layout.regions[run->region].gpa + (run->first << PAGE_SHIFT_4K),
                             (uint64_t)run->nr << PAGE_SHIFT_4K, &l->iov[n], MIG_RUNS_MAX - n);
        if (got < 0)
            return got;
        n += (unsigned)got;
    }
    return (int)n;
}

static void unpin(struct lane *l)
{
    struct mig_receiver *r = l->r;

    for (unsigned i = 0; i < l->pages.nr_runs; i++) {
        const struct mig_run *run = &l->pages.runs[i];

        if (run->kind == MIG_RUN_DATA) {
            gmem_unpin_write(r->p.gm,
                             r->p.layout.regions[run->region].gpa + (run->first << PAGE_SHIFT_4K),
                             (uint64_t)run->nr << PAGE_SHIFT_4K);
        }
    }
}

static struct mig_wait lane_wait(const struct lane *l, bool inside)
{
    return (struct mig_wait){
        .cancel_fd = l->r->p.cancel_fd, .wake_fd = -1, .idle_ms = inside ? l->r->p.idle_ms : 0};
}

/* Decompress into the pinned pieces; a frame that is broken changes nothing. */
static int receive_packed(struct lane *l, unsigned nr, const struct mig_wait *wait, struct err *err)
{
    const uint8_t *from;
    const void *data = NULL;
    void *in;
    int rc;

    if (!l->codec && mig_packer_new(&l->codec) < 0)
        return err_set(err, -ENOMEM, "no memory to decompress with");
    in = mig_packer_input(l->codec);
    if (!in)
        return err_set(err, -ENOMEM, "no memory to decompress with");
    rc = mig_channel_read(l->ch, in, l->pages.payload_len, wait, err);
    if (rc >= 0)
        rc = mig_packer_unpack(l->codec, l->pages.payload_len, l->pages.data_len, &data, err);
    if (rc < 0)
        return rc;
    from = data;
    for (unsigned i = 0; i < nr; i++) {
        memcpy(l->iov[i].iov_base, from, l->iov[i].iov_len);
        from += l->iov[i].iov_len;
    }
    return 0;
}

static int receive_pages(struct lane *l, uint32_t len, struct err *err)
{
    struct mig_wait wait = lane_wait(l, true);
    size_t runs_len;
    int rc, n;

    rc = mig_channel_read(l->ch, &l->hdr, sizeof(l->hdr), &wait, err);
    if (rc >= 0)
        rc = mig_pages_peek(&l->hdr, len, &runs_len, err);
    if (rc >= 0)
        rc = mig_channel_read(l->ch, l->wire_runs, runs_len, &wait, err);
    if (rc >= 0)
        rc = mig_pages_get(&l->hdr, l->wire_runs, &l->r->p.layout, &l->pages, err);
    if (rc >= 0 && l->pages.codec == MIG_CODEC_ZSTD && !l->r->p.zstd)
        rc = err_set(err, -EPROTO, "PAGES.codec: zstd was not agreed on");
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < l->pages.nr_runs && rc >= 0; i++) {
        const struct mig_run *run = &l->pages.runs[i];

        if (run->kind == MIG_RUN_DATA) {
            if (touch(l->r, run) >= POPULATE_PAGES)
                populate(l->r, run);
            l->data_pages += run->nr;
        } else {
            rc = zero_run(l->r, run);
            l->zero_pages += run->nr;
            count(&l->r->p.counters->zero_pages, run->nr);
        }
    }
    n = rc < 0 ? rc : pin(l);
    if (n < 0)
        return err_set(err, n, "guest memory: %s", strerror(-n));
    rc = l->pages.codec == MIG_CODEC_ZSTD
             ? receive_packed(l, (unsigned)n, &wait, err)
             : mig_channel_readv(l->ch, l->iov, (unsigned)n, &wait, err);
    unpin(l);
    mig_progress_frame(l->r->p.counters, l->index, sizeof(struct mig_msg_hdr) + len,
                       l->pages.data_len >> PAGE_SHIFT_4K, l->pages.codec == MIG_CODEC_ZSTD);
    return rc;
}

/* --- Rounds -------------------------------------------------------------- */

/* Wait for the other lanes.  The last to arrive opens the way, and reports. */
static int meet(struct lane *l, struct err *err)
{
    struct mig_receiver *r = l->r;
    bool opened = false;
    int rc = 0;

    (void)pthread_mutex_lock(&r->lock);
    if (++r->arrived == r->p.nr_lanes) {
        r->arrived = 0;
        opened = true;
    }
    while (!opened && r->rounds_done <= l->round && !r->quit && !r->nr_last)
        (void)pthread_cond_wait(&r->cond, &r->lock);
    if (r->quit)
        rc = err_set(err, -ECANCELED, "cancelled");
    else if (!opened && r->rounds_done <= l->round)
        rc = err_set(err, -EPROTO, "ROUND_END: the last round of one lane is not that of another");
    (void)pthread_mutex_unlock(&r->lock);
    if (rc < 0 || !opened)
        return rc;
    give_back(r);
    rc = r->p.round_done(r->p.arg, l->round, err);
    (void)pthread_mutex_lock(&r->lock);
    r->rounds_done++;
    (void)pthread_cond_broadcast(&r->cond);
    (void)pthread_mutex_unlock(&r->lock);
    return rc;
}

static int receive_round_end(struct lane *l, bool *ret_last, struct err *err)
{
    struct mig_round_end_wire body;
    struct mig_wait wait = lane_wait(l, true);
    struct mig_round_end e;
    int rc;

    rc = mig_channel_read(l->ch, &body, sizeof(body), &wait, err);
    if (rc >= 0)
        rc = mig_round_end_get(&body, sizeof(body), &e, err);
    if (rc < 0)
        return rc;
    if (e.round != l->round)
        return err_set(err, -EPROTO, "ROUND_END.round: %u, %u was due", e.round, l->round);
    if (e.data_pages != l->data_pages || e.zero_pages != l->zero_pages) {
        return err_set(err, -EBADMSG,
                       "ROUND_END: %llu + %llu pages were announced, %llu + %llu came",
                       (unsigned long long)e.data_pages, (unsigned long long)e.zero_pages,
                       (unsigned long long)l->data_pages, (unsigned long long)l->zero_pages);
    }
    if (!e.last) {
        rc = meet(l, err);
        l->round++;
        l->data_pages = l->zero_pages = 0;
    }
    *ret_last = e.last;
    return rc;
}

/* --- A lane -------------------------------------------------------------- */

/* A lane may be silent between messages for as long as it likes, but not inside of one. */
static int receive_head(struct lane *l, struct mig_msg_hdr *hdr, struct err *err)
{
    struct mig_wait between = lane_wait(l, false), inside = lane_wait(l, true);
    int n = mig_channel_read_some(l->ch, hdr, sizeof(*hdr), &between, err);

    if (n < 0)
        return n;
    return mig_channel_read(l->ch, (uint8_t *)hdr + n, sizeof(*hdr) - (size_t)n, &inside, err);
}

static int receive_message(struct lane *l, bool *ret_last, struct err *err)
{
    struct mig_msg_hdr hdr;
    unsigned type;
    int rc;

    rc = receive_head(l, &hdr, err);
    if (rc < 0)
        return rc;
    type = le16_get(hdr.type);
    rc = mig_hdr_check(type, le32_get(hdr.len), err);
    if (rc < 0)
        return rc;
    if (type == MIG_MSG_PAGES)
        return receive_pages(l, le32_get(hdr.len), err);
    if (type == MIG_MSG_ROUND_END)
        return receive_round_end(l, ret_last, err);
    return err_set(err, -EPROTO, "the peer sent %s (message type %u) on a lane", mig_msg_name(type),
                   type);
}

static bool is_quitting(struct mig_receiver *r)
{
    bool quit;

    (void)pthread_mutex_lock(&r->lock);
    quit = r->quit;
    (void)pthread_mutex_unlock(&r->lock);
    return quit;
}

static void lane_ended(struct mig_receiver *r, int rc, const struct err *err)
{
    (void)pthread_mutex_lock(&r->lock);
    if (rc >= 0) {
        r->nr_last++;
    } else {
        if (!r->rc) {
            r->rc = rc;
            r->err = *err;
        }
        r->quit = true;
    }
    (void)pthread_cond_broadcast(&r->cond);
    (void)pthread_mutex_unlock(&r->lock);
    if (rc < 0)
        r->p.failed(r->p.arg);
}

static void *lane_main(void *arg)
{
    struct lane *l = arg;
    struct err err = {0};
    bool last = false;
    char name[16];
    int rc = 0;

    (void)snprintf(name, sizeof(name), "mig-recv%u", l->index);
    log_thread_name(name);
    thread_be_patient();
    /* A source that is quicker than we are is never waited for, and a wait would be cancelled. */
    while (rc >= 0 && !last) {
        rc = is_quitting(l->r) ? err_set(&err, -ECANCELED, "cancelled")
                               : receive_message(l, &last, &err);
    }
    if (rc < 0)
        rc = err_prefix(&err, rc, "lane %u", l->index);
    mig_progress_cpu(l->r->p.counters);
    lane_ended(l->r, rc, &err);
    return NULL;
}

/* --- Interface ----------------------------------------------------------- */

int mig_receiver_new(const struct mig_receiver_params *params, struct mig_receiver **ret_r)
{
    struct mig_receiver *r = calloc(1, sizeof(*r));
    pthread_condattr_t attr;

    if (!r)
        return -ENOMEM;
    r->p = *params;
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&r->cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    for (unsigned i = 0; i < r->p.layout.nr; i++) {
        uint64_t pages = r->p.layout.regions[i].len >> PAGE_SHIFT_4K;

        r->touched[i] = calloc((size_t)((pages + 63) / 64), sizeof(*r->touched[i]));
        if (!r->touched[i]) {
            mig_receiver_free(r);
            return -ENOMEM;
        }
    }
    *ret_r = r;
    return 0;
}

int mig_receiver_add_lane(struct mig_receiver *r, struct mig_channel *ch, unsigned index,
                          struct err *err)
{
    bool fits = index < r->p.nr_lanes && !r->lanes[index];
    struct lane *l = fits ? calloc(1, sizeof(*l)) : NULL;
    int rc;

    if (!l) {
        mig_channel_close(ch);
        return fits ? -ENOMEM
                    : err_set(err, -EPROTO, "LANE.index: %u is out of range or taken", index);
    }
    l->r = r;
    l->ch = ch;
    l->index = index;
    rc = pthread_create(&l->thread, NULL, lane_main, l);
    if (rc != 0) {
        mig_channel_close(ch);
        free(l);
        return err_set(err, -rc, "lane %u: thread: %s", index, strerror(rc));
    }
    r->lanes[index] = l;
    return 0;
}

static int error_locked(struct mig_receiver *r, struct err *err)
{
    return r->rc < 0 ? err_set(err, r->rc, "%s", r->err.msg) : 0;
}

int mig_receiver_error(struct mig_receiver *r, struct err *err)
{
    int rc;

    (void)pthread_mutex_lock(&r->lock);
    rc = error_locked(r, err);
    (void)pthread_mutex_unlock(&r->lock);
    return rc;
}

int mig_receiver_wait_last(struct mig_receiver *r, unsigned limit_ms, struct err *err)
{
    uint64_t ns = loop_now_ns() + (uint64_t)limit_ms * 1000000;
    struct timespec at = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    int rc = 0;

    (void)pthread_mutex_lock(&r->lock);
    while (r->nr_last < r->p.nr_lanes && !r->quit && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&r->cond, &r->lock, &at);
    if (r->nr_last == r->p.nr_lanes)
        rc = 0;
    else if (r->rc < 0)
        rc = error_locked(r, err);
    else if (r->quit)
        rc = err_set(err, -ECANCELED, "cancelled");
    else
        rc = err_set(err, -ETIMEDOUT, "the last pages did not come within %u ms", limit_ms);
    (void)pthread_mutex_unlock(&r->lock);
    if (rc >= 0)
        give_back(r);
    return rc;
}

void mig_receiver_quit(struct mig_receiver *r)
{
    (void)pthread_mutex_lock(&r->lock);
    r->quit = true;
    (void)pthread_cond_broadcast(&r->cond);
    (void)pthread_mutex_unlock(&r->lock);
}

void mig_receiver_free(struct mig_receiver *r)
{
    if (!r)
        return;
    mig_receiver_quit(r);
    for (unsigned i = 0; i < r->p.nr_lanes; i++) {
        if (!r->lanes[i])
            continue;
        (void)pthread_join(r->lanes[i]->thread, NULL);
        mig_channel_close(r->lanes[i]->ch);
        mig_packer_free(r->lanes[i]->codec);
        free(r->lanes[i]);
    }
    for (unsigned i = 0; i < r->p.layout.nr; i++)
        free(r->touched[i]);
    (void)pthread_mutex_destroy(&r->lock);
    (void)pthread_cond_destroy(&r->cond);
    free(r);
}
