/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_sender.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/loop.h"
#include "core/page_present.h"
#include "core/page_scan.h"
#include "core/thread_slice.h"
#include "migration/mig_pace.h"

enum {
    TAKE_PAGES = 128,           /* most pages taken at once: 512 KiB */
    TAKE_ABSENT = 4096,         /* the same where nothing was ever written: 16 MiB */
    FRAME_PAYLOAD = 512 * 1024, /* bytes: a frame this full is sent */
    ROUNDS_QUEUED = 4,          /* power of two; rounds posted and not finished by all */
    HEAD_SIZE = sizeof(struct mig_msg_hdr) + sizeof(struct mig_pages_hdr) +
                MIG_RUNS_MAX * sizeof(struct mig_run_wire),
};
_Static_assert(FRAME_PAYLOAD + TAKE_PAGES * PAGE_SIZE_4K <= MIG_PAYLOAD_MAX,
               "a frame can overflow");

struct lane {
    struct mig_sender *s;
    struct mig_channel *ch; /* owned */
    unsigned index;
    uint8_t secret[MIG_SECRET_SIZE];
    pthread_t thread;

    /* The frame that is being filled. */
    struct mig_run runs[MIG_RUNS_MAX];
    unsigned nr_runs;
    struct iovec iov[1 + MIG_RUNS_MAX]; /* [0] is the head */
    unsigned nr_iov;
    uint32_t payload;
    uint8_t head[HEAD_SIZE];
    struct mig_packer *codec; /* owned; NULL: not needed yet */
    struct mig_codec_stats stats;

    /* Of this round. */
    uint64_t data_pages;
    uint64_t zero_pages;
    uint32_t take; /* pages to take next */
};

struct mig_sender {
    struct mig_sender_params p;
    struct mig_pace pace;
    int present_fd; /* owned; < 0: which pages were never touched cannot be told */
    struct lane *lanes[MIG_LANES_MAX];
    unsigned nr_lanes;

    pthread_mutex_t lock; /* below */
    pthread_cond_t cond;
    struct mig_round rounds[ROUNDS_QUEUED];
    unsigned nr_rounds; /* posted */
    uint64_t ended_ns;  /* when a ROUND_END was about to be sent */
    bool quit;
    int rc; /* of the first lane that failed */
    struct err err;

    pthread_mutex_t take_lock; /* below: where in memory the sweep of this round is */
    unsigned sweep_round;      /* number + 1; 0: none yet */
    bool swept;                /* the cursor came back to where it started */
    bool wrapped;              /* it passed the end of memory */
    struct dirty_run start;    /* first run; nr is 0 before it */
    unsigned at_region;        /* where the cursor is */
    uint64_t at_page;
};

/* --- Taking pages -------------------------------------------------------- */

/*
 * Whether a run was met before in this sweep; otherwise it is cut to what was
 * not.  The consumer's cursor goes round and round: once it is back where the
 * sweep began, pages that some other consumer's drain has marked meanwhile
 * belong to the next round, and are given back.
 */
static bool swept_locked(struct mig_sender *s, struct dirty_run *run)
{
    uint64_t end = run->first + run->nr;

    if (run->region < s->at_region || (run->region == s->at_region && run->first < s->at_page))
        s->wrapped = true;
    s->at_region = run->region;
    s->at_page = end;
    if (!s->wrapped || run->region < s->start.region ||
        (run->region == s->start.region && end <= s->start.first))
        return false;
    if (run->region > s->start.region || run->first >= s->start.first) {
        dirty_mark(s->p.consumer, run->region, run->first, run->nr);
        return true;
    }
    dirty_mark(s->p.consumer, run->region, s->start.first, end - s->start.first);
    run->nr = s->start.first - run->first;
    return false;
}

static void sweep_begin_locked(struct mig_sender *s, const struct mig_round *round)
{
    s->sweep_round = round->number + 1;
    s->swept = s->wrapped = false;
    s->start.nr = 0;
}

/* The next run of this round: 1; 0 when there is none; or a failure. */
static int take_run(struct mig_sender *s, const struct mig_round *round, uint32_t most,
                    struct dirty_run *ret_run, struct err *err)
{
    struct dirty_run run;
    int rc = 0;

    (void)pthread_mutex_lock(&s->take_lock);
    if (s->sweep_round < round->number + 1)
        sweep_begin_locked(s, round);
    if (s->p.consumer && !s->swept && s->sweep_round == round->number + 1)
        rc = dirty_take(s->p.consumer, most, round->stopped, &run, err);
    if (rc == 1 && s->start.nr == 0) {
        s->start = run;
        s->at_region = run.region;
        s->at_page = run.first + run.nr;
    } else if (rc == 1) {
        s->swept = swept_locked(s, &run);
        rc = !s->swept;
    }
    (void)pthread_mutex_unlock(&s->take_lock);
    if (rc == 1)
        *ret_run = run;
    return rc;
}

/* --- Frames -------------------------------------------------------------- */

static void frame_reset(struct lane *l)
{
    l->nr_runs = 0;
    l->nr_iov = 1;
    l->payload = 0;
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    (void)atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static struct mig_wait lane_wait(const struct lane *l)
{
    struct mig_wait wait = {
        .cancel_fd = l->s->p.cancel_fd, .wake_fd = -1, .idle_ms = l->s->p.idle_ms};

    return wait;
}

static int lane_write(struct lane *l, struct iovec *iov, unsigned nr, struct err *err)
{
    struct mig_wait wait = lane_wait(l);
    int rc = mig_channel_writev(l->ch, iov, nr, &wait, err);

    return rc < 0 ? err_prefix(err, rc, "lane %u", l->index) : rc;
}

/* A page that changes once it was taken is dirty again, so that it may go by reference. */
static int lane_write_pages(struct lane *l, struct err *err)
{
    struct mig_wait wait = lane_wait(l);
    int rc = mig_channel_write_pages(l->ch, l->iov, l->nr_iov, l->payload, &wait, err);

    return rc < 0 ? err_prefix(err, rc, "lane %u", l->index) : rc;
}

/* Wait until so many bytes may be sent. */
static int keep_pace(struct lane *l, uint64_t bytes, struct err *err)
{
    uint64_t now = loop_now_ns(), at = mig_pace_take(&l->s->pace, bytes, now);
    struct mig_wait wait = {.cancel_fd = l->s->p.cancel_fd, .wake_fd = -1, .deadline_ns = at};
    int rc = at > now ? mig_channel_wait_fd(-1, 0, &wait, now) : -ETIMEDOUT;

    return rc == -ETIMEDOUT ? 0 : err_set(err, rc, "lane %u: %s", l->index, strerror(-rc));
}

/*
 * Compress the frame where it is to be: *ret_len bytes at *ret_data; 0 where it goes out as it is.
 */
static int frame_pack(struct lane *l, const void **ret_data, uint32_t *ret_len, struct err *err)
{
    enum mig_compression how = l->s->p.compression;
    uint64_t begin = loop_now_ns();
    int n;

    *ret_len = 0;
    if (!l->payload || how == MIG_COMPRESSION_OFF ||
        (how == MIG_COMPRESSION_AUTO && !mig_codec_try(&l->stats)))
        return 0;
    if (!l->codec && mig_packer_new(&l->codec) < 0)
        return err_set(err, -ENOMEM, "lane %u: out of memory", l->index);
    n = mig_packer_pack(l->codec, l->iov + 1, l->nr_iov - 1, ret_data);
    if (n < 0)
        return err_set(err, n, "lane %u: out of memory", l->index);
    mig_codec_packed(&l->stats, l->payload, n ? (uint32_t)n : l->payload, loop_now_ns() - begin);
    *ret_len = (uint32_t)n;
    return 0;
}

/* The head of a frame: headers and runs.  Return: how many zero pages are in it. */
static uint64_t frame_head(struct lane *l, enum mig_codec codec, uint32_t payload)
{
    size_t runs_len = l->nr_runs * sizeof(struct mig_run_wire);
    struct mig_pages_hdr ph = {.nr_runs = le32_make(l->nr_runs),
                               .codec = le32_make(codec),
                               .payload_len = le32_make(payload)};
    struct mig_msg_hdr mh = mig_hdr_make(MIG_MSG_PAGES, sizeof(ph) + runs_len + payload);
    struct wr w = {l->head, sizeof(l->head), false};
    uint64_t zero = 0;

    wr_bytes(&w, &mh, sizeof(mh));
    wr_bytes(&w, &ph, sizeof(ph));
    for (unsigned i = 0; i < l->nr_runs; i++) {
        mig_run_put(&l->runs[i], &w);
        if (l->runs[i].kind == MIG_RUN_ZERO)
            zero += l->runs[i].nr;
    }
    l->iov[0] = (struct iovec){l->head, sizeof(l->head) - w.left};
    return zero;
}

static int frame_flush(struct lane *l, struct err *err)
{
    uint64_t data = l->payload >> PAGE_SHIFT_4K, zero, len, begin;
    const void *packed = NULL;
    uint32_t packed_len;
    int rc;

    if (l->nr_runs == 0)
        return 0;
    rc = frame_pack(l, &packed, &packed_len, err);
    if (rc < 0)
        return rc;
    zero = frame_head(l, packed_len ? MIG_CODEC_ZSTD : MIG_CODEC_RAW,
                      packed_len ? packed_len : l->payload);
    if (packed_len) {
        memcpy(&l->iov[1].iov_base, &packed, sizeof(packed)); /* it is only read */
        l->iov[1].iov_len = packed_len;
        l->nr_iov = 2;
    }
    len = l->iov[0].iov_len + (packed_len ? packed_len : l->payload);
    begin = loop_now_ns();
    rc = keep_pace(l, len, err);
    if (rc >= 0)
        rc = packed_len ? lane_write(l, l->iov, l->nr_iov, err) : lane_write_pages(l, err);
    if (rc < 0)
        return rc;
    mig_codec_sent(&l->stats, len, loop_now_ns() - begin);
    count(&l->s->p.counters->zero_pages, zero);
    mig_progress_frame(l->s->p.counters, l->index, len, data, packed_len);
    l->data_pages += data;
    l->zero_pages += zero;
    frame_reset(l);
    return 0;
}

/* Add pages of one kind, as part of the run before where they continue it. */
static int frame_add(struct lane *l, const struct mig_run *run, uint8_t *hva, struct err *err)
{
    struct mig_run *prev = l->nr_runs ? &l->runs[l->nr_runs - 1] : NULL;
    size_t len = (size_t)run->nr << PAGE_SHIFT_4K;
    int rc;

    if (prev && prev->region == run->region && prev->kind == run->kind &&
        prev->first + prev->nr == run->first && prev->nr <= UINT32_MAX - run->nr) {
        prev->nr += run->nr;
        if (run->kind == MIG_RUN_DATA)
            l->iov[l->nr_iov - 1].iov_len += len;
    } else {
        if (l->nr_runs == MIG_RUNS_MAX) {
            rc = frame_flush(l, err);
            if (rc < 0)
                return rc;
        }
        l->runs[l->nr_runs++] = *run;
        if (run->kind == MIG_RUN_DATA)
            l->iov[l->nr_iov++] = (struct iovec){hva, len};
    }
    if (run->kind == MIG_RUN_DATA)
        l->payload += (uint32_t)len;
    return l->payload >= FRAME_PAYLOAD ? frame_flush(l, err) : 0;
}

/*
 * Pages at the start of a run that are zero for certain; *ret_there: how many
 * after them have to be looked at.  Asked after the run was taken: a page that
 * is written from then on is dirty again.
 */
static uint64_t absent_pages(const struct lane *l, const struct dirty_run *run, uint64_t *ret_there)
{
    struct gmem *gm = l->s->p.gm;
    uint64_t end = run->first + run->nr, first = end, nr = 0;
    /* To look at a hole of shared memory would fill it. */
    uint64_t hole = gmem_hole(gm, run->region, run->first, run->nr);
    int rc = -ENOTSUP;

    if (!hole && l->s->present_fd >= 0 && gmem_absent_is_zero(gm, run->region))
        rc = page_present_next(l->s->present_fd, gmem_region(gm, run->region)->hva, run->first, end,
                               &first, &nr);
    if (rc < 0) {
        *ret_there = run->nr - hole;
        return hole;
    }
    *ret_there = nr;
    return first - run->first;
}

/*
 * Memory that was never written lies in large areas, and costs no more than to ask: more of it at
 * once, but not so much that a lane which comes upon data keeps the others from it for long.
 */
static uint32_t next_take(uint32_t take, bool was_absent)
{
    if (!was_absent)
        return TAKE_PAGES;
    return 2 * take < TAKE_ABSENT ? 2 * take : TAKE_ABSENT;
}

static int send_run(struct lane *l, struct dirty_run run, struct err *err)
{
    uint8_t *hva = gmem_region(l->s->p.gm, run.region)->hva + (run.first << PAGE_SHIFT_4K);
    uint64_t there = 0, all = run.nr, absent = 0;

    while (run.nr) {
        uint64_t n = there ? 0 : absent_pages(l, &run, &there);
        bool zero = true;
        struct mig_run part;
        int rc;

        absent += n;
        if (!n) {
            n = page_scan_run(hva, there < TAKE_PAGES ? there : TAKE_PAGES, &zero);
            there -= n;
        }
        part = (struct mig_run){run.first, run.region, (uint32_t)n,
                                zero ? MIG_RUN_ZERO : MIG_RUN_DATA};
        rc = frame_add(l, &part, hva, err);
        if (rc < 0)
            return rc;
        run.first += n;
        run.nr -= n;
        hva += n << PAGE_SHIFT_4K;
    }
    l->take = next_take(l->take, absent == all);
    return 0;
}

/* --- A lane -------------------------------------------------------------- */

/* A peer that has gone is an error: mig_channel_write_pages(). */
static void block_sigpipe(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int send_hello(struct lane *l, struct err *err)
{
    struct mig_lane_wire lw = {.index = le32_make(l->index)};
    struct mig_msg_hdr hdr = mig_hdr_make(MIG_MSG_LANE, sizeof(lw));
    struct iovec iov[] = {
        {&hdr, sizeof(hdr)},
        {&lw,  sizeof(lw) },
    };

    memcpy(lw.secret, l->secret, sizeof(lw.secret));
    return lane_write(l, iov, ARRAY_LEN(iov), err);
}

/* Hand all of the memory over. */
static int send_memory(struct lane *l, struct err *err)
{
    struct mig_wait wait = lane_wait(l);
    unsigned nr = gmem_nr_regions(l->s->p.gm);
    struct {
        struct mig_msg_hdr hdr;
        struct mig_memory_wire offsets[GMEM_REGIONS_MAX];
    } msg = {.hdr = mig_hdr_make(MIG_MSG_MEMORY, nr * sizeof(struct mig_memory_wire))};
    int fds[GMEM_REGIONS_MAX], rc;

    _Static_assert((int)GMEM_REGIONS_MAX <= (int)MIG_FDS_MAX, "a region without a descriptor");
    for (unsigned i = 0; i < nr; i++) {
        const struct gmem_region *r = gmem_region(l->s->p.gm, i);

        msg.offsets[i].offset = le64_make(r->fd_offset);
        fds[i] = r->fd;
    }
    rc = mig_channel_send_fds(l->ch, &msg, sizeof(msg.hdr) + nr * sizeof(msg.offsets[0]), fds, nr,
                              &wait, err);
    return rc < 0 ? err_prefix(err, rc, "handing memory over") : rc;
}

/* Before it is sent: a thread that has to wait afterwards would have the answer come too early. */
static void note_round_end(struct mig_sender *s)
{
    uint64_t now = loop_now_ns();

    (void)pthread_mutex_lock(&s->lock);
    s->ended_ns = now > s->ended_ns ? now : s->ended_ns;
    (void)pthread_mutex_unlock(&s->lock);
}

static int send_round_end(struct lane *l, const struct mig_round *round, struct err *err)
{
    struct mig_round_end e = {round->number, round->last, l->data_pages, l->zero_pages};
    uint8_t buf[sizeof(struct mig_msg_hdr) + sizeof(struct mig_round_end_wire)];
    struct mig_msg_hdr hdr = mig_hdr_make(MIG_MSG_ROUND_END, sizeof(struct mig_round_end_wire));
    struct wr w = {buf, sizeof(buf), false};
    struct iovec iov = {buf, sizeof(buf)};

    wr_bytes(&w, &hdr, sizeof(hdr));
    mig_round_end_put(&e, &w);
    note_round_end(l->s);
    return lane_write(l, &iov, 1, err);
}

static bool is_quitting(struct mig_sender *s)
{
    bool quit;

    (void)pthread_mutex_lock(&s->lock);
    quit = s->quit;
    (void)pthread_mutex_unlock(&s->lock);
    return quit;
}

static int send_round(struct lane *l, const struct mig_round *round, struct err *err)
{
    struct dirty_run run;
    int rc;

    l->data_pages = l->zero_pages = 0;
    l->take = TAKE_PAGES;
    frame_reset(l);
    while ((rc = take_run(l->s, round, l->take, &run, err)) == 1) {
        rc = is_quitting(l->s) ? err_set(err, -ECANCELED, "cancelled") : send_run(l, run, err);
        if (rc < 0)
            return rc;
    }
    if (rc >= 0)
        rc = frame_flush(l, err);
    return rc < 0 ? rc : send_round_end(l, round, err);
}

/* Wait for a round: false when there will be none. */
static bool next_round(struct mig_sender *s, unsigned seen, struct mig_round *ret_round)
{
    bool more;

    (void)pthread_mutex_lock(&s->lock);
    while (s->nr_rounds == seen && !s->quit)
        (void)pthread_cond_wait(&s->cond, &s->lock);
    more = !s->quit;
    *ret_round = s->rounds[seen % ROUNDS_QUEUED];
    (void)pthread_mutex_unlock(&s->lock);
    return more;
}

static void lane_failed(struct mig_sender *s, int rc, const struct err *err)
{
    (void)pthread_mutex_lock(&s->lock);
    if (!s->rc) {
        s->rc = rc;
        s->err = *err;
    }
    s->quit = true;
    (void)pthread_cond_broadcast(&s->cond);
    (void)pthread_mutex_unlock(&s->lock);
    s->p.failed(s->p.arg);
}

static void *lane_main(void *arg)
{
    struct lane *l = arg;
    struct mig_round round = {0};
    struct err err = {0};
    char name[16];
    int rc;

    (void)snprintf(name, sizeof(name), "mig-send%u", l->index);
    log_thread_name(name);
    thread_be_patient();
    block_sigpipe();
    rc = send_hello(l, &err);
    if (rc >= 0 && l->index == 0 && !l->s->p.consumer)
        rc = send_memory(l, &err);
    for (unsigned seen = 0; rc >= 0 && !round.last && next_round(l->s, seen, &round); seen++)
        rc = send_round(l, &round, &err);
    mig_progress_cpu(l->s->p.counters);
    if (rc < 0)
        lane_failed(l->s, rc, &err);
    return NULL;
}

/* --- Interface ----------------------------------------------------------- */

int mig_sender_new(const struct mig_sender_params *params, struct mig_sender **ret_s)
{
    struct mig_sender *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->p = *params;
    s->present_fd = page_present_open();
    mig_pace_init(&s->pace, params->bandwidth);
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->cond, NULL);
    (void)pthread_mutex_init(&s->take_lock, NULL);
    *ret_s = s;
    return 0;
}

int mig_sender_add_lane(struct mig_sender *s, struct mig_channel *ch, const uint8_t *secret,
                        struct err *err)
{
    struct lane *l = s->nr_lanes < MIG_LANES_MAX ? calloc(1, sizeof(*l)) : NULL;
    int rc;

    if (!l) {
        mig_channel_close(ch);
        return s->nr_lanes < MIG_LANES_MAX ? -ENOMEM : -E2BIG;
    }
    l->s = s;
    l->ch = ch;
    l->index = s->nr_lanes;
    memcpy(l->secret, secret, sizeof(l->secret));
    rc = pthread_create(&l->thread, NULL, lane_main, l);
    if (rc != 0) {
        mig_channel_close(ch);
        free(l);
        return err_set(err, -rc, "lane %u: thread: %s", s->nr_lanes, strerror(rc));
    }
    s->lanes[s->nr_lanes++] = l;
    return 0;
}

void mig_sender_round(struct mig_sender *s, const struct mig_round *round)
{
    (void)pthread_mutex_lock(&s->lock);
    s->rounds[s->nr_rounds++ % ROUNDS_QUEUED] = *round;
    (void)pthread_cond_broadcast(&s->cond);
    (void)pthread_mutex_unlock(&s->lock);
}

uint64_t mig_sender_ended_ns(struct mig_sender *s)
{
    uint64_t ns;

    (void)pthread_mutex_lock(&s->lock);
    ns = s->ended_ns;
    (void)pthread_mutex_unlock(&s->lock);
    return ns;
}

int mig_sender_error(struct mig_sender *s, struct err *err)
{
    int rc;

    (void)pthread_mutex_lock(&s->lock);
    rc = s->rc;
    if (rc < 0)
        (void)err_set(err, rc, "%s", s->err.msg);
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}

void mig_sender_free(struct mig_sender *s)
{
    if (!s)
        return;
    (void)pthread_mutex_lock(&s->lock);
    s->quit = true;
    (void)pthread_cond_broadcast(&s->cond);
    (void)pthread_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < s->nr_lanes; i++) {
        (void)pthread_join(s->lanes[i]->thread, NULL);
        mig_channel_close(s->lanes[i]->ch);
        mig_packer_free(s->lanes[i]->codec);
        free(s->lanes[i]);
    }
    (void)pthread_mutex_destroy(&s->lock);
    (void)pthread_cond_destroy(&s->cond);
    (void)pthread_mutex_destroy(&s->take_lock);
    if (s->present_fd >= 0)
        (void)close(s->present_fd);
    free(s);
}
