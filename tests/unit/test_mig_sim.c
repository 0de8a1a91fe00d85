/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two engines in a time of their own (tests/fakes/fake_time.h), with the limits that chvmm has: a
 * link that takes its time, falls silent or is cut at any byte; slow operations, and such that fail;
 * cancels at any moment; with TLS and without.  Never two guests, never silently none.
 *
 * What a seed replays: what happens to the link and the guest, the moment at which it does, which
 * thread is next at each call that takes or gives up a lock, waits, reads the clock, or sends; so the
 * durations and the decisions of the engines too; and every length of a handshake, as the random
 * numbers of TLS are a seed's (tests/fakes/fake_random.h).  What it does not: the secret of a move
 * (random; it is compared, and nothing depends on it); how much the kernel's socket buffers hold
 * (settings of the machine; whoever writes into a full one waits earlier or later); which pages are
 * shown to have never been written (kernels before 6.7 do not say; the frames are cut differently
 * then).  And what none shows: races between two threads in the middle of a stretch without such a
 * call, as one thread runs at a time.  test_mig_faults has real ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/loop.h"
#include "tests/fakes/fake_move.h"
#include "tests/fakes/fake_pki.h"
#include "tests/fakes/fake_random.h"
#include "tests/fakes/fake_time.h"

#define SECOND_NS UINT64_C(1000000000)

enum {
    COMMIT_SIZE = sizeof(struct mig_msg_hdr),
    RUNNING_SIZE = sizeof(struct mig_msg_hdr) + sizeof(struct mig_times_wire),
};

static const struct fake_guest_config tiny = {.len = {KIB(64)}, .data_percent = 50, .seed = 11};
static const struct fake_guest_config busy = {
    .len = {KIB(512), KIB(128)},
    .data_percent = 60,
    .seed = 5,
    .dirty_rate = 40,
    .dirty_every_us = 50000,
    .dirty_pages = 60
};

static char tls_dir[] = "/tmp/test_mig_sim.XXXXXX";

/* With every limit as it is where nobody sets one. */
static void sim_begin(struct fake_pair *p, unsigned seed, const struct fake_guest_config *guest)
{
    fake_random_begin(seed);
    fake_time_begin(seed);
    fake_pair_init(p, guest);
    p->sp.idle_ms = p->sp.hello_ms = p->dp.idle_ms = p->dp.hello_ms = p->dp.accept_ms = 0;
    p->sp.keepalive_ms = p->dp.keepalive_ms = 0;
}

/* Both ends know each other by certificates. */
static void sim_speak_tls(struct fake_pair *p)
{
    assert_int_equal(mig_tls_new(tls_dir, MIG_TLS_SERVER, &p->dp.tls, NULL), 0);
    assert_int_equal(mig_tls_new(tls_dir, MIG_TLS_CLIENT, &p->client, NULL), 0);
}

static void sim_end(struct fake_pair *p)
{
    fake_pair_release(p);
    mig_tls_free(p->dp.tls);
    mig_tls_free(p->client);
    fake_time_end();
    fake_random_end();
}

static unsigned number_or(const char *name, unsigned usual)
{
    const char *s = getenv(name);

    return s ? (unsigned)strtoul(s, NULL, 10) : usual;
}

/* --- Cuts ------------------------------------------------------------------ */

static uint64_t total_bytes(unsigned conn, enum fake_dir dir)
{
    struct fake_pair p;
    uint64_t n;

    sim_begin(&p, 0, &tiny);
    n = fake_move_bytes(&p, conn, dir);
    sim_end(&p);
    return n;
}

/* Other threads are quicker at each byte. */
static void cut_at(unsigned conn, enum fake_dir dir, uint64_t at, bool undecidable)
{
    struct fake_link_config cfg = {.cut = true, .cut_conn = conn, .cut_dir = dir, .cut_at = at};
    struct fake_pair p;

    sim_begin(&p, (unsigned)at, &tiny);
    fake_move_twice(&p, &cfg);
    if (p.src_rc == 0 || (!undecidable && p.src_rc == -EINPROGRESS))
        fail_msg("cut of connection %u, direction %d, at byte %llu: %s", conn, dir,
                 (unsigned long long)at, p.src_rc ? p.src_err.msg : "it was moved");
    sim_end(&p);
}

static void test_a_cut_at_any_byte_of_control_traffic(void **state)
{
    uint64_t there = total_bytes(0, FAKE_TO_DEST), back = total_bytes(0, FAKE_TO_SOURCE);

    (void)state;
    assert_true(there > 100 && back > 100);
    for (uint64_t at = 0; at < there; at++)
        cut_at(0, FAKE_TO_DEST, at, at >= there - COMMIT_SIZE);
    for (uint64_t at = 0; at < back; at++)
        cut_at(0, FAKE_TO_SOURCE, at, at >= back - RUNNING_SIZE);
}

static void test_a_cut_at_any_byte_of_a_lane(void **state)
{
    uint64_t total = total_bytes(1, FAKE_TO_DEST), stride = number_or("CHRYSALIS_TEST_STRIDE", 199);

    (void)state;
    assert_true(total > KIB(16));
    for (uint64_t at = 0; at < total; at += at < 300 || at > total - 200 ? 1 : stride)
        cut_at(1, FAKE_TO_DEST, at, false);
}

/* --- The same with TLS ------------------------------------------------------- */

enum {
    RECORDS_MAX = 64,
    RECORD_HEAD = 5,
    RUNNING_RECORD = RECORD_HEAD + RUNNING_SIZE + 1 + 16, /* RFC 8446, 5.2: a type and a tag */
};

/* The TLS records of one way of a connection. */
struct records {
    unsigned nr, last; /* the last of the move's: a farewell may follow */
    uint64_t begin[RECORDS_MAX], end[RECORDS_MAX];
};

static void find_records(unsigned conn, enum fake_dir dir, struct records *r)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){.record = true});
    const uint8_t *bytes;
    struct fake_pair p;
    size_t len, at = 0;

    sim_begin(&p, 0, &tiny);
    sim_speak_tls(&p);
    fake_move_over(&p, link);
    fake_pair_run(&p);
    assert_int_equal(p.src_rc, 0);
    bytes = fake_link_record(link, conn, dir, &len);
    for (r->nr = 0; at < len; r->nr++) {
        size_t end = at + RECORD_HEAD + ((size_t)bytes[at + 3] << 8) + bytes[at + 4];

        assert_true(r->nr < RECORDS_MAX && end <= len);
        r->begin[r->nr] = at;
        r->end[r->nr] = at = end;
        if (dir == FAKE_TO_DEST || end - r->begin[r->nr] == RUNNING_RECORD)
            r->last = r->nr;
    }
    fake_link_free(link);
    sim_end(&p);
}

static void cut_record(unsigned conn, enum fake_dir dir, const struct records *r, unsigned i,
                       uint64_t at)
{
    /* What stands before the border of the last one cannot be moved; only around that one nobody knows. */
    bool too_late = at >= r->end[r->last], undecidable = conn == 0 && at >= r->begin[r->last];
    struct fake_link_config cfg = {.cut = true,
                                   .cut_conn = conn,
                                   .cut_dir = dir,
                                   .cut_at = at,
                                   .cut_at_record = at == r->end[i]};
    struct fake_pair p;

    sim_begin(&p, (unsigned)at, &tiny);
    sim_speak_tls(&p);
    fake_move_twice(&p, &cfg);
    if (!too_late && (p.src_rc == 0 || (!undecidable && p.src_rc == -EINPROGRESS)))
        fail_msg("cut of connection %u, direction %d, record %u, at byte %llu: %s", conn, dir, i,
                 (unsigned long long)at, p.src_rc ? p.src_err.msg : "it was moved");
    sim_end(&p);
}

/* At the border of each, in its head, and in the middle of it. */
static void test_a_cut_at_any_tls_record(void **state)
{
    static const struct {
        unsigned conn;
        enum fake_dir dir;
        unsigned
            least; /* records: two of a handshake, and one for each message that is sent by itself */
    } rows[] = {
        {0, FAKE_TO_DEST,   2 + 5},
        {0, FAKE_TO_SOURCE, 2 + 5},
        {1, FAKE_TO_DEST,   2 + 3},
        {1, FAKE_TO_SOURCE, 2    },
    };

    (void)state;
    for (unsigned k = 0; k < ARRAY_LEN(rows); k++) {
        struct records r = {0};

        find_records(rows[k].conn, rows[k].dir, &r);
        assert_true(r.nr >= rows[k].least);
        for (unsigned i = 0; i < r.nr; i++) {
            cut_record(rows[k].conn, rows[k].dir, &r, i, r.begin[i] + 3);
            cut_record(rows[k].conn, rows[k].dir, &r, i, (r.begin[i] + r.end[i]) / 2);
            cut_record(rows[k].conn, rows[k].dir, &r, i, r.end[i]);
        }
    }
}

/* --- Silence --------------------------------------------------------------- */

static void test_both_ends_notice_silence_in_time(void **state)
{
    uint64_t there = total_bytes(0, FAKE_TO_DEST), back = total_bytes(0, FAKE_TO_SOURCE),
             pages = total_bytes(1, FAKE_TO_DEST);
    const struct {
        unsigned conn;
        enum fake_dir dir;
        uint64_t at;
        unsigned seconds;
    } rows[] = {
        {0, FAKE_TO_DEST,   5,                       30}, /* hello_ms of the source */
        {0, FAKE_TO_DEST,   there - COMMIT_SIZE - 1, 10},
        {0, FAKE_TO_DEST,   there - 1,               10},
        {0, FAKE_TO_SOURCE, back - RUNNING_SIZE - 1, 10},
        {0, FAKE_TO_SOURCE, back - 1,                10},
        {1, FAKE_TO_DEST,   pages / 2,               10},
        {1, FAKE_TO_DEST,   pages - 1,               10},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct fake_link_config cfg = {.cut = true,
                                       .stall = true,
                                       .cut_conn = rows[i].conn,
                                       .cut_dir = rows[i].dir,
                                       .cut_at = rows[i].at};
        struct fake_link *link;
        struct fake_pair p;

        sim_begin(&p, i, &tiny);
        link = fake_link_new(&cfg);
        fake_move_over(&p, link);
        fake_pair_run(&p);
        assert_true(p.src_rc < 0);
        /* The link has taken no time: all of it was spent on waiting. */
        assert_in_range(fake_time_ns(), 9 * SECOND_NS, rows[i].seconds * SECOND_NS);
        fake_link_free(link);
        fake_move_again(&p);
        sim_end(&p);
    }
}

/* Longer than any silence that is tolerated. */
static void test_keepalives_bridge_operations_of_any_length(void **state)
{
    static const unsigned none = UINT_MAX;

    (void)state;
    for (unsigned kept = 0; kept < 2; kept++) {
        struct fake_link *link;
        struct fake_pair p;

        sim_begin(&p, kept, &tiny);
        p.sp.keepalive_ms = p.dp.keepalive_ms = kept ? 0 : none;
        p.from.op_delay_us = p.to.op_delay_us = 25000000;
        link = fake_link_new(&(struct fake_link_config){0});
        fake_move_over(&p, link);
        fake_pair_run(&p);
        assert_int_equal(p.src_rc == 0, kept);
        fake_link_free(link);
        sim_end(&p);
    }
}

/* --- Rounds that do not help ------------------------------------------------ */

enum {
    GIVEN_S = 3,   /* to a move that cannot end */
    ACT_MS = 1050, /* when somebody ends it: in the middle of a rest */
    TICK_MS = 100, /* as the source's */
    QUICK_MS = 50, /* more than rounds and last words take here */
};

/* Towards a destination that is farther away than the guest may stand still for. */
static struct fake_link *go_far(struct fake_pair *p)
{
    static const struct fake_guest_config restless = {.len = {KIB(512)},
                                                      .data_percent = 60,
                                                      .seed = 5,
                                                      .dirty_rate = 1000,
                                                      .dirty_every_us = 1000,
                                                      .dirty_pages = 100,
                                                      .never_clean = true};
    struct fake_link *link = fake_link_new(&(struct fake_link_config){.delay_ms = 1});

    sim_begin(p, GIVEN_S, &restless);
    p->sp.limits = (struct mig_limits){.downtime_ns = 1000000, .timeout_ns = GIVEN_S * SECOND_NS};
    fake_move_over(p, link);
    fake_pair_start(p);
    return link;
}

static void come_back(struct fake_pair *p, struct fake_link *link)
{
    fake_pair_check(p);
    fake_link_free(link);
    sim_end(p);
}

static void test_rounds_that_do_not_help_come_slowly(void **state)
{
    struct mig_round_log log[MIG_LOG_ROUNDS];
    struct fake_pair p;
    struct fake_link *link = go_far(&p);
    unsigned n;

    (void)state;
    fake_pair_join(&p);
    n = mig_progress_rounds(mig_source_progress(p.src), log);
    assert_int_equal(p.src_rc, -ETIMEDOUT);
    assert_in_range(n, GIVEN_S * 1000 / TICK_MS - 2, GIVEN_S * 1000 / TICK_MS + 1);
    /* What the guest wrote in a rest went before; it could stop with what it wrote in the round. */
    for (unsigned i = 1; i < n; i++)
        assert_true(log[i].remaining < log[i].data_pages / 2);
    come_back(&p, link);
}

static void test_a_rest_between_rounds_holds_nobody_up(void **state)
{
    const struct timespec nap = {ACT_MS / 1000, ACT_MS % 1000 * 1000000L};

    (void)state;
    for (unsigned cancels = 0; cancels < 2; cancels++) {
        struct fake_pair p;
        struct fake_link *link = go_far(&p);

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        if (cancels)
            assert_int_equal(mig_source_cancel(p.src, NULL), 0);
        else
            mig_source_switch_now(p.src);
        fake_pair_join(&p);
        assert_int_equal(p.src_rc, cancels ? -ECANCELED : 0);
        assert_in_range(fake_time_ns() / 1000000, ACT_MS,
                        ACT_MS + QUICK_MS + (cancels ? 0 : TICK_MS));
        come_back(&p, link);
    }
}

/* --- Anything at all ------------------------------------------------------- */

enum {
    SEEDS = 300,
    REPLAYED = 40,
    BESIDE = 400,
    ANY_LANES = 3,
    LONGEST_S = 600, /* of a move with operations of up to 17 s, and all its last waits */
};

static bool is_going_on;
static unsigned seed_now; /* of the run that is going on */

static unsigned draw(unsigned *x, unsigned below)
{
    *x = *x * 1664525 + 1013904223;
    return (*x >> 8) % below;
}

struct chance {
    struct fake_link_config link;
    struct fake_guest_config guest;
    struct mig_limits limits;
    enum mig_compression compression;
    unsigned lanes, bandwidth;
    bool local, tls;
    unsigned slow_us;  /* each operation of both ends */
    enum fake_op fail; /* this one fails */
    enum fake_op cuts_in, cancels_in;
    bool cancels, cancels_dest;
    unsigned cancel_ms;
};

static void throw_dice_for_link(unsigned *x, struct chance *c)
{
    static const unsigned pauses_ms[] = {0, 1, 30, 1000, 5000, 15000};
    bool control = draw(x, 2);

    c->link =
        (struct fake_link_config){.cut = draw(x, 2),
                                  .stall = draw(x, 3) == 0,
                                  .cut_conn = control ? 0 : 1 + draw(x, c->lanes),
                                  .cut_dir = control && draw(x, 2) ? FAKE_TO_SOURCE : FAKE_TO_DEST,
                                  .cut_at = draw(x, !control ? 300000
                                                    : c->tls ? 4000
                                                             : 400),
                                  .cut_at_record = c->tls && draw(x, 2),
                                  .pass_fds = c->local,
                                  .delay_seed = draw(x, 6) ? 1 + draw(x, 100000) : 0};
    c->link.pause_ms = pauses_ms[draw(x, ARRAY_LEN(pauses_ms))];
    c->cuts_in = draw(x, 4) ? FAKE_OP_NONE : (enum fake_op)draw(x, FAKE_NR_OPS);
}

static void throw_dice(unsigned seed, struct chance *c)
{
    unsigned x = seed * 2654435761U;

    *c = (struct chance){.guest = draw(&x, 3) ? busy : tiny, .lanes = 1 + draw(&x, ANY_LANES)};
    c->guest.shared = c->local = draw(&x, 8) == 0;
    c->tls = !c->local && draw(&x, 3) == 0;
    throw_dice_for_link(&x, c);
    c->compression = (enum mig_compression)draw(&x, 3);
    c->bandwidth = draw(&x, 4) ? 0 : 10000 + draw(&x, 1000000);
    c->limits =
        (struct mig_limits){.downtime_ns = UINT64_C(1000000) << draw(&x, 12),
                            .timeout_ns = (1 + draw(&x, 120)) * SECOND_NS,
                            .strategy = draw(&x, 2) ? MIG_TIMEOUT_CANCEL : MIG_TIMEOUT_IGNORE};
    c->slow_us = draw(&x, 3) ? 0 : 1U << draw(&x, 25);
    c->fail = draw(&x, 6) ? FAKE_OP_NONE : (enum fake_op)draw(&x, FAKE_OP_DISCARD);
    if (c->fail == FAKE_OP_RECLAIM || c->fail == FAKE_OP_RESUME || c->fail == FAKE_OP_COMMITTED)
        c->fail = FAKE_OP_NONE; /* the guest may stay stopped then: test_mig_faults */
    c->cancels = draw(&x, 3) == 0;
    c->cancels_in = draw(&x, 2) ? FAKE_OP_NONE : (enum fake_op)draw(&x, FAKE_OP_DISCARD);
    c->cancels_dest = draw(&x, 2);
    c->cancel_ms = draw(&x, 1U << draw(&x, 17));
}

/* What somebody does to a move. */
struct hand {
    struct fake_pair *p;
    struct fake_link *link; /* owned */
    enum fake_op cuts_in;
    enum fake_op cancels_in; /* as soon as it has begun; FAKE_OP_NONE: ... */
    unsigned cancel_ms;      /* ... then */
    bool cancels_dest;
    pthread_t canceller;

    pthread_mutex_t lock; /* below */
    pthread_cond_t cond;
    bool due, over;
    bool cancelled; /* and was told so */
};

static void set(struct hand *h, bool *flag)
{
    (void)pthread_mutex_lock(&h->lock);
    *flag = true;
    (void)pthread_cond_broadcast(&h->cond);
    (void)pthread_mutex_unlock(&h->lock);
}

static void act(void *arg, enum fake_op op)
{
    struct hand *h = arg;

    if (op == h->cuts_in)
        fake_link_cut(h->link);
    if (op == h->cancels_in)
        set(h, &h->due);
}

static bool is_to_cancel(struct hand *h)
{
    uint64_t ns = loop_now_ns() + h->cancel_ms * UINT64_C(1000000);
    struct timespec at = {(time_t)(ns / SECOND_NS), (long)(ns % SECOND_NS)};
    bool yes;

    (void)pthread_mutex_lock(&h->lock);
    while (!h->due && !h->over) {
        if (h->cancels_in != FAKE_OP_NONE)
            (void)pthread_cond_wait(&h->cond, &h->lock);
        else if (pthread_cond_timedwait(&h->cond, &h->lock, &at) == ETIMEDOUT)
            break;
    }
    yes = !h->over;
    (void)pthread_mutex_unlock(&h->lock);
    return yes;
}

/* A thread of its own: the engines go on meanwhile. */
static void *canceller_main(void *arg)
{
    struct hand *h = arg;
    int rc = 1;

    if (is_to_cancel(h))
        rc = h->cancels_dest ? mig_dest_cancel(h->p->dst) : mig_source_cancel(h->p->src, NULL);
    h->cancelled = rc == 0;
    return NULL;
}

static void put_rounds(const struct fake_pair *p, FILE *f)
{
    struct mig_round_log rounds[MIG_LOG_ROUNDS];
    unsigned nr = mig_progress_rounds(mig_source_progress(p->src), rounds);

    for (unsigned i = 0; i < nr; i++) {
        const struct mig_round_log *r = &rounds[i];

        (void)fprintf(f, "  round %u: %ju data, %ju zero, %ju ns, %ju remain, %ju B/s, %u %%: %s\n",
                      r->round, (uintmax_t)r->data_pages, (uintmax_t)r->zero_pages,
                      (uintmax_t)r->took_ns, (uintmax_t)r->remaining, (uintmax_t)r->rate,
                      r->verdict.throttle, r->verdict.why);
    }
}

/* What a move came to.  Return: to be freed. */
static char *story_of(const struct fake_pair *p)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    put_rounds(p, f);
    (void)fprintf(f, "  source: %s, %ju ns, stopped for %ju ns; %s\n",
                  mig_result_name(p->src_st.result), (uintmax_t)p->src_st.took.total,
                  (uintmax_t)p->src_st.took.blackout, p->src_err.msg);
    (void)fprintf(f, "  destination: %s, %ju ns; %s\n", mig_result_name(p->dst_st.result),
                  (uintmax_t)p->dst_st.took.total, p->dst_err.msg);
    (void)fprintf(f, "  %ju ns in all, trace %016jx\n", (uintmax_t)fake_time_ns(),
                  (uintmax_t)fake_time_trace());
    assert_int_equal(fclose(f), 0);
    return text;
}

static void set_up(struct fake_pair *p, const struct chance *c, struct hand *h)
{
    p->sp.lanes = c->lanes;
    p->sp.limits = c->limits;
    p->sp.compression = c->compression;
    p->sp.bandwidth = c->bandwidth;
    p->sp.local = c->local;
    p->from.op_delay_us = p->to.op_delay_us = c->slow_us;
    p->from.on_op = p->to.on_op = act;
    p->from.on_op_arg = p->to.on_op_arg = h;
    atomic_store(c->fail < FAKE_OP_BUILD ? &p->from.fail_op : &p->to.fail_op, c->fail);
    *h = (struct hand){.p = p,
                       .link = fake_link_new(&c->link),
                       .cuts_in = c->cuts_in,
                       .cancels_in = c->cancels_in,
                       .cancel_ms = c->cancel_ms,
                       .cancels_dest = c->cancels_dest,
                       .lock = PTHREAD_MUTEX_INITIALIZER,
                       .cond = PTHREAD_COND_INITIALIZER};
    fake_move_over(p, h->link);
}

/* One that was told that it is cancelled has not moved the guest, and knows it. */
static void check_cancelled(const struct fake_pair *p, const struct hand *h)
{
    int rc = h->cancels_dest ? p->dst_rc : p->src_rc;

    if (h->cancelled) {
        assert_true(rc < 0);
        assert_true(rc != -EINPROGRESS);
    }
}

/* *ret_rc: of the source.  Return: the story, to be freed. */
static char *run_chance(unsigned seed, const struct chance *c, int *ret_rc)
{
    struct fake_pair p;
    struct hand h;
    char *story;

    sim_begin(&p, seed, &c->guest);
    if (c->tls)
        sim_speak_tls(&p);
    set_up(&p, c, &h);
    fake_pair_start(&p);
    if (c->cancels)
        assert_int_equal(pthread_create(&h.canceller, NULL, canceller_main, &h), 0);
    fake_pair_join(&p);
    set(&h, &h.over);
    if (c->cancels)
        assert_int_equal(pthread_join(h.canceller, NULL), 0);
    fake_pair_check(&p);
    check_cancelled(&p, &h);
    if (p.src_rc == 0)
        assert_int_equal(p.src_st.encrypted, c->tls);
    story = story_of(&p);
    assert_true(fake_time_ns() < LONGEST_S * SECOND_NS);
    fake_link_free(h.link);
    p.from.op_delay_us = 0;
    p.sp.local = false;
    p.sp.limits = (struct mig_limits){.downtime_ns = SECOND_NS};
    fake_move_again(&p);
    *ret_rc = p.src_rc;
    sim_end(&p);
    return story;
}

static char *run_seed(unsigned seed, int *ret_rc)
{
    struct chance c;
    char *story;

    seed_now = seed;
    is_going_on = true;
    throw_dice(seed, &c);
    story = run_chance(seed, &c, ret_rc);
    is_going_on = false;
    return story;
}

/* Nothing decides between them but which thread is quicker. */
static void test_a_cancel_beside_the_commit(void **state)
{
    struct chance c = {.guest = tiny, .lanes = 1, .cancels = true, .cancels_in = FAKE_OP_RELEASE};
    unsigned moved[2] = {0};
    int rc;

    (void)state;
    for (unsigned seed = 0; seed < BESIDE; seed++) {
        c.cancels_dest = seed % 2;
        free(run_chance(seed, &c, &rc));
        moved[seed % 2] += rc == 0;
    }
    assert_in_range(moved[0], 1, BESIDE / 2 - 1);
    assert_in_range(moved[1], 1, BESIDE / 2 - 1);
}

static void test_whatever_happens_exactly_one_runs(void **state)
{
    unsigned one = number_or("CHRYSALIS_SEED", 0), seeds = number_or("CHRYSALIS_TEST_SEEDS", SEEDS);
    unsigned moved = 0, undecided = 0;
    int rc;

    (void)state;
    if (one) {
        char *story = run_seed(one, &rc);

        print_message("seed %u:\n%s", one, story);
        free(story);
        return;
    }
    for (unsigned seed = 1; seed <= seeds; seed++) {
        free(run_seed(seed, &rc));
        moved += rc == 0;
        undecided += rc == -EINPROGRESS;
    }
    print_message("%u moved, %u undecided and resolved, %u failed\n", moved, undecided,
                  seeds - moved - undecided);
    /* Loaded dice find nothing. */
    assert_in_range(moved, seeds / 8, seeds / 2);
    assert_true(undecided > seeds / 100);
}

static void test_a_seed_replays_threads_times_and_decisions(void **state)
{
    int rc;

    (void)state;
    for (unsigned seed = 1; seed <= REPLAYED; seed++) {
        char *first = run_seed(seed, &rc), *again = run_seed(seed, &rc);

        assert_string_equal(first, again);
        free(first);
        free(again);
    }
}

static int say_seed(void **state)
{
    (void)state;
    if (is_going_on)
        print_message("CHRYSALIS_SEED=%u replays it\n", seed_now);
    is_going_on = false;
    return 0;
}

/* Made of random numbers that are the same each time, too. */
static int setup_tls(void **state)
{
    (void)state;
    fake_random_begin(0);
    fake_pki_make_dir(tls_dir);
    fake_random_end();
    return 0;
}

static int teardown_tls(void **state)
{
    (void)state;
    fake_pki_remove_dir(tls_dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cut_at_any_byte_of_control_traffic),
        cmocka_unit_test(test_a_cut_at_any_byte_of_a_lane),
        cmocka_unit_test(test_a_cut_at_any_tls_record),
        cmocka_unit_test(test_both_ends_notice_silence_in_time),
        cmocka_unit_test(test_keepalives_bridge_operations_of_any_length),
        cmocka_unit_test(test_rounds_that_do_not_help_come_slowly),
        cmocka_unit_test(test_a_rest_between_rounds_holds_nobody_up),
        cmocka_unit_test(test_a_cancel_beside_the_commit),
        cmocka_unit_test_teardown(test_whatever_happens_exactly_one_runs, say_seed),
        cmocka_unit_test_teardown(test_a_seed_replays_threads_times_and_decisions, say_seed),
    };

    const struct CMUnitTest seed[] = {
        cmocka_unit_test_teardown(test_whatever_happens_exactly_one_runs, say_seed),
    };

    if (getenv("CHRYSALIS_SEED"))
        return cmocka_run_group_tests_name("mig_sim", seed, setup_tls, teardown_tls);
    return cmocka_run_group_tests_name("mig_sim", tests, setup_tls, teardown_tls);
}
