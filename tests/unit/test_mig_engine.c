/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both engines, moving a guest over a link between two threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/page_present.h"
#include "tests/fakes/fake_link.h"
#include "tests/fakes/fake_pair.h"

static const struct fake_guest_config small = {
    .len = {MIB(1), KIB(256)},
      .data_percent = 40, .seed = 7
};
static const struct fake_guest_config busy = {
    .len = {MIB(16), MIB(4)},
    .data_percent = 58,
    .seed = 3,
    .dirty_rate = 20000,
    .dirty_pages = 2000
};

static struct fake_link *join_by_link(struct fake_pair *p, const struct fake_link_config *cfg)
{
    struct fake_link *link = fake_link_new(cfg);

    p->sp.open = fake_link_connect;
    p->dp.open = fake_link_accept;
    p->dest_ended = fake_link_stop_listening;
    p->sp.open_arg = p->dp.open_arg = link;
    p->dp.open_fd = fake_link_fd(link);
    return link;
}

/* One move over a link, and all that must hold after it. */
static void move_over(struct fake_pair *p, const struct fake_link_config *cfg)
{
    struct fake_link *link = join_by_link(p, cfg);

    fake_pair_run(p);
    fake_link_free(link);
}

static void assert_moved(const struct fake_pair *p)
{
    if (p->src_rc < 0 || p->dst_rc < 0)
        fail_msg("source: %s; destination: %s", p->src_err.msg, p->dst_err.msg);
}

static void test_an_idle_guest_arrives_whole(void **state)
{
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &small);
    move_over(&p, &(struct fake_link_config){0});
    assert_moved(&p);
    assert_true(p.src_st.zero_pages > 0);
    assert_true(p.src_st.data_pages + p.src_st.zero_pages >= (MIB(1) + KIB(256)) / PAGE_SIZE_4K);
    assert_int_equal(p.src_st.data_pages, p.dst_st.data_pages);
    assert_int_equal(p.src_st.zero_pages, p.dst_st.zero_pages);
    assert_int_equal(p.src_st.wire_bytes, p.dst_st.wire_bytes);
    fake_pair_release(&p);
}

static void test_a_busy_guest_arrives_whole_on_any_number_of_lanes(void **state)
{
    static const unsigned lanes[] = {1, 2, 3, 8};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(lanes); i++) {
        struct fake_pair p;

        fake_pair_init(&p, &busy);
        p.sp.lanes = lanes[i];
        move_over(&p, &(struct fake_link_config){0});
        assert_moved(&p);
        assert_int_equal(p.src_st.lanes, lanes[i]);
        assert_int_equal(p.dst_st.lanes, lanes[i]);
        assert_true(p.src_st.round >= 1);
        fake_pair_release(&p);
    }
}

/* Moves over a link of 40 MB/s, a guest that dirties 12 MB as fast as it can. */
static void test_a_guest_that_is_too_busy_is_slowed_down_and_let_go(void **state)
{
    const struct fake_guest_config hasty = {
        .len = {MIB(16)}, .data_percent = 60, .seed = 9, .dirty_rate = 40000, .dirty_pages = 3000};
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &hasty);
    p.sp.bandwidth = 40000000;
    p.sp.limits.downtime_ns = 100000000;
    p.sp.limits.timeout_ns = UINT64_C(60000000000);
    move_over(&p, &(struct fake_link_config){0});
    assert_moved(&p);
    assert_true(atomic_load(&p.from.naps) > 0);
    assert_int_equal(atomic_load(&p.from.nap_until_ns), 0);
    assert_int_equal(p.src_st.throttle, 0);
    fake_pair_release(&p);
}

static void test_a_guest_that_is_not_is_left_alone(void **state)
{
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &small);
    p.sp.bandwidth = 40000000;
    move_over(&p, &(struct fake_link_config){0});
    assert_moved(&p);
    assert_int_equal(atomic_load(&p.from.naps), 0);
    fake_pair_release(&p);
}

/* Pages are written all the time, and the link takes longer for them than the guest may stop. */
static void test_pages_that_never_rest_go_at_the_end(void **state)
{
    static const struct fake_guest_config restless = {
        .len = {MIB(8)}, .data_percent = 60, .seed = 4, .dirty_rate = 200000, .dirty_pages = 1024};
    struct mig_round_log log[MIG_LOG_ROUNDS];
    struct fake_pair p;
    unsigned n, left = 0;

    (void)state;
    fake_pair_init(&p, &restless);
    p.sp.limits = (struct mig_limits){20000000, UINT64_C(2000000000), MIG_TIMEOUT_IGNORE};
    p.sp.bandwidth = 10000000;
    move_over(&p, &(struct fake_link_config){0});
    assert_moved(&p);
    n = mig_progress_rounds(mig_source_progress(p.src), log);
    for (unsigned i = 0; i + 1 < n; i++) {
        assert_true(log[i].hot <= log[i].remaining);
        assert_true(log[i].rate <= p.sp.bandwidth);
        /* What waits is not sent meanwhile. */
        if (log[i].hot)
            assert_int_equal(log[i + 1].data_pages + log[i + 1].zero_pages,
                             log[i].remaining - log[i].hot);
        left += log[i].hot > 0;
    }
    assert_true(left > 0);
    fake_pair_release(&p);
}

enum {
    DEAF_LANES = 4,
    DEAF_AT = 1 << 20,     /* bytes of lane 0 that pass; then nothing does on any */
    LANE_KERNEL = 4 << 20, /* bytes: what sockets and pipes of a lane hold, and a frame */
};

/* Bytes allocated; 0 under sanitizers, which do not say. */
static size_t allocated(void)
{
    struct mallinfo2 mi = mallinfo2();

    return mi.uordblks + mi.hblkhd;
}

/* Until the source gives up.  Return: the most that was allocated meanwhile beyond what was before. */
static size_t most_allocated(struct fake_pair *p)
{
    size_t before = allocated(), most = 0;
    struct mig_status st;

    fake_pair_start(p);
    do {
        size_t now = allocated();

        most = now > before + most ? now - before : most;
        (void)usleep(1000);
        mig_progress_read(mig_source_progress(p->src), &st);
    } while (st.phase != MIG_PHASE_DONE);
    fake_pair_join(p);
    return most;
}

/* What nobody takes is neither counted as sent nor gathered in memory, however much there is. */
static void test_a_peer_that_takes_nothing_holds_the_sender_up(void **state)
{
    static const struct fake_guest_config full = {.len = {MIB(64)}, .data_percent = 100, .seed = 8};
    static const struct fake_link_config deaf = {
        .cut = true, .stall = true, .cut_conn = 1, .cut_dir = FAKE_TO_DEST, .cut_at = DEAF_AT};
    static const struct {
        enum mig_compression how;
        size_t most; /* bytes allocated for a lane, at both ends */
    } rows[] = {
        {MIG_COMPRESSION_OFF,  MIB(1)},
        {MIG_COMPRESSION_ZSTD, MIB(6)},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t sent[MIG_LANES_MAX];
        struct fake_link *link;
        struct fake_pair p;
        size_t most;

        fake_pair_init(&p, &full);
        p.sp.lanes = DEAF_LANES;
        p.sp.compression = rows[i].how;
        p.sp.idle_ms = p.dp.idle_ms = 1000;
        link = join_by_link(&p, &deaf);
        most = most_allocated(&p);
        fake_pair_check(&p);
        assert_int_equal(p.src_rc, -ETIMEDOUT);
        print_message("%zu bytes allocated\n", most);
        assert_true(most < (DEAF_LANES + 1) * rows[i].most);
        assert_int_equal(mig_progress_lane_bytes(mig_source_progress(p.src), sent), DEAF_LANES);
        for (unsigned lane = 0; lane < DEAF_LANES; lane++) {
            uint64_t passed = fake_link_bytes(link, 1 + lane, FAKE_TO_DEST);

            print_message("lane %u: %ju bytes sent, %ju passed\n", lane, (uintmax_t)sent[lane],
                          (uintmax_t)passed);
            assert_true(sent[lane] <= passed + LANE_KERNEL);
        }
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

enum {
    FAR_MS = 20, /* each way */
};

/* A guest with a page that is dirty again after each round, and may stand still for 30 ms. */
static unsigned move_a_little(unsigned delay_ms, enum mig_timeout_strategy strategy,
                              struct mig_round_log *log, struct fake_pair *p)
{
    static const struct fake_guest_config restless = {
        .len = {KIB(64)}, .data_percent = 40, .seed = 7, .never_clean = true};

    fake_pair_init(p, &restless);
    p->sp.limits = (struct mig_limits){.downtime_ns = 30000000, .strategy = strategy};
    /* Near by there is no need of a limit, which a machine in trouble would reach. */
    if (delay_ms)
        p->sp.limits.timeout_ns = 600000000;
    move_over(p, &(struct fake_link_config){.delay_ms = delay_ms});
    return mig_progress_rounds(mig_source_progress(p->src), log);
}

/* The way there and back is part of the blackout, twice. */
static void test_a_destination_far_away_is_not_switched_to_in_less_than_it_takes(void **state)
{
    struct mig_round_log log[MIG_LOG_ROUNDS];
    struct fake_pair p;
    unsigned n;

    (void)state;
    n = move_a_little(FAR_MS, MIG_TIMEOUT_CANCEL, log, &p);
    assert_int_equal(p.src_rc, -ETIMEDOUT);
    for (unsigned i = 0; i < n; i++) {
        assert_true(log[i].trip_ns >= 2 * FAR_MS * UINT64_C(1000000));
        assert_true(log[i].fixed_ns >= 2 * log[i].trip_ns);
        assert_true(log[i].verdict.estimate_ns >= log[i].fixed_ns);
        assert_false(log[i].verdict.short_enough);
    }
    /* To slow it down would not bring the destination nearer. */
    assert_int_equal(atomic_load(&p.from.naps), 0);
    fake_pair_release(&p);

    n = move_a_little(FAR_MS, MIG_TIMEOUT_IGNORE, log, &p);
    assert_moved(&p);
    assert_true(n > 0 && !log[n - 1].verdict.short_enough);
    assert_true(p.src_st.took.blackout >= 2 * log[n - 1].trip_ns);
    fake_pair_release(&p);

    n = move_a_little(0, MIG_TIMEOUT_CANCEL, log, &p);
    assert_moved(&p);
    assert_true(n > 0 && log[n - 1].verdict.short_enough);
    fake_pair_release(&p);
}

/* How long the rounds take that send a full guest; @bandwidth in bytes a second, 0: no cap. */
static double seconds_of_rounds(unsigned lanes, uint64_t bandwidth, double *ret_bytes)
{
    const struct fake_guest_config full = {.len = {MIB(64)}, .data_percent = 100, .seed = 4};
    struct fake_pair p;
    double seconds;

    fake_pair_init(&p, &full);
    p.sp.lanes = lanes;
    p.sp.bandwidth = bandwidth;
    move_over(&p, &(struct fake_link_config){0});
    assert_moved(&p);
    *ret_bytes = (double)p.src_st.wire_bytes;
    seconds = (double)p.src_st.took.rounds / 1e9;
    fake_pair_release(&p);
    return seconds;
}

enum {
    TRIES = 8, /* others may need the processors meanwhile: the best counts */
};

/* Never more than the cap; less only by what this machine needs for the same without one. */
static void test_bandwidth_is_kept_within_five_percent(void **state)
{
    static const unsigned lanes[] = {1, 4};
    const double cap = 40e6;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(lanes); i++) {
        bool is_kept = false;

        for (unsigned k = 0; k < TRIES && !is_kept; k++) {
            double bytes, without = seconds_of_rounds(lanes[i], 0, &bytes);
            double with = seconds_of_rounds(lanes[i], (uint64_t)cap, &bytes);

            print_message("%u lanes: %.0f bytes in %.3f s, in %.3f s without a cap\n", lanes[i],
                          bytes, with, without);
            assert_true(with > bytes / (cap * 1.05));
            is_kept = with - without < bytes / (cap * 0.95);
        }
        assert_true(is_kept);
    }
}

/* How a guest goes over a link of so many bytes a second. */
static struct mig_status pages_packed(enum mig_compression how, uint64_t bandwidth)
{
    struct mig_status st;
    struct fake_pair p;

    fake_pair_init(&p, &busy);
    p.sp.lanes = 2;
    p.sp.compression = how;
    p.sp.bandwidth = bandwidth;
    move_over(&p, &(struct fake_link_config){0});
    assert_moved(&p);
    assert_int_equal(p.src_st.zstd_pages, p.dst_st.zstd_pages);
    assert_int_equal(p.src_st.wire_bytes, p.dst_st.wire_bytes);
    st = p.src_st;
    fake_pair_release(&p);
    return st;
}

/* One word of eight of the fake guest's pages is set: they shrink to less than a quarter. */
static void test_pages_travel_compressed_where_that_is_asked_for_or_pays(void **state)
{
    struct mig_status st;

    (void)state;
    st = pages_packed(MIG_COMPRESSION_OFF, 0);
    assert_int_equal(st.zstd_pages, 0);
    st = pages_packed(MIG_COMPRESSION_ZSTD, 0);
    assert_int_equal(st.zstd_pages, st.data_pages);
    assert_true(st.wire_bytes < st.data_pages * PAGE_SIZE_4K / 2);
    st.zstd_pages = 0;
    for (unsigned k = 0; k < TRIES && st.zstd_pages <= st.data_pages / 2; k++)
        st = pages_packed(MIG_COMPRESSION_AUTO, 20000000);
#ifndef __SANITIZE_THREAD__ /* what pays is another thing when every copy is watched */
    assert_true(st.zstd_pages > st.data_pages / 2);
#endif
}

static uint64_t faults(void)
{
    struct rusage ru;

    assert_int_equal(getrusage(RUSAGE_SELF, &ru), 0);
    return (uint64_t)ru.ru_minflt;
}

/* Reading a page that was never touched would be a fault for each; so would writing one. */
static void test_memory_that_was_never_touched_stays_so_at_both_ends(void **state)
{
    const struct fake_guest_config sparse = {.len = {MIB(128)}, .data_percent = 1, .seed = 5};
    struct fake_pair p;
    struct fake_link *link;
    uint64_t before;

    (void)state;
    fake_pair_init(&p, &sparse);
    link = join_by_link(&p, &(struct fake_link_config){0});
    before = faults();
    fake_pair_start(&p);
    fake_pair_join(&p);
    before = faults() - before;
    assert_moved(&p);
#ifndef __SANITIZE_THREAD__ /* its shadow of memory has page faults too */
    assert_true(before < (MIB(128) >> PAGE_SHIFT_4K) / 8);
#else
    (void)before;
#endif
    fake_pair_check(&p);
    fake_link_free(link);
    fake_pair_release(&p);
}

/* Large areas of contents in large areas of nothing: as much is taken at once as may be. */
static void test_areas_that_were_never_touched_hide_no_contents(void **state)
{
    const struct fake_guest_config areas = {
        .len = {MIB(256), MIB(16)},
          .data_percent = 10, .data_run = 1100, .seed = 11
    };
    static const unsigned lanes[] = {1, 3};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(lanes); i++) {
        struct fake_pair p;

        fake_pair_init(&p, &areas);
        p.sp.lanes = lanes[i];
        move_over(&p, &(struct fake_link_config){0});
        assert_moved(&p);
        assert_true(p.src_st.data_pages > 0 && p.src_st.zero_pages > p.src_st.data_pages);
        fake_pair_release(&p);
    }
}

/* Which blocks of a huge page's size have memory of their own, a bit each. */
static uint64_t blocks_there(const struct fake_guest *g)
{
    const struct gmem_region *r = gmem_region(g->gm, 0);
    auto_close int fd = page_present_open();
    uint64_t from = 0, first, nr, blocks = 0;

    while (page_present_next(fd, r->hva, from, r->len >> PAGE_SHIFT_4K, &first, &nr) == 1) {
        for (uint64_t b = first / 512; b <= (first + nr - 1) / 512; b++)
            blocks |= UINT64_C(1) << b;
        from = first + nr;
    }
    return blocks;
}

static void test_memory_made_ready_is_given_back_where_the_guest_has_none(void **state)
{
    const struct fake_guest_config areas = {
        .len = {MIB(128)}, .data_percent = 10, .data_run = 1100, .seed = 11, .thp = true};
    static const struct {
        unsigned lanes;
        bool runs;
    } rows[] = {
        {1, true },
        {3, true },
        {2, false}, /* one round, which is the last */
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct fake_pair p;

        fake_pair_init(&p, &areas);
        p.to.ready = true;
        p.sp.lanes = rows[i].lanes;
        atomic_store(&p.from.running, rows[i].runs);
        move_over(&p, &(struct fake_link_config){0});
        assert_moved(&p);
        assert_true(blocks_there(&p.from) != UINT64_MAX);
        assert_int_equal(blocks_there(&p.to), blocks_there(&p.from));
        fake_pair_release(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_guest_arrives_whole),
        cmocka_unit_test(test_a_busy_guest_arrives_whole_on_any_number_of_lanes),
        cmocka_unit_test(test_a_guest_that_is_too_busy_is_slowed_down_and_let_go),
        cmocka_unit_test(test_a_guest_that_is_not_is_left_alone),
        cmocka_unit_test(test_pages_that_never_rest_go_at_the_end),
        cmocka_unit_test(test_a_peer_that_takes_nothing_holds_the_sender_up),
        cmocka_unit_test(test_a_destination_far_away_is_not_switched_to_in_less_than_it_takes),
        cmocka_unit_test(test_bandwidth_is_kept_within_five_percent),
        cmocka_unit_test(test_pages_travel_compressed_where_that_is_asked_for_or_pays),
        cmocka_unit_test(test_memory_that_was_never_touched_stays_so_at_both_ends),
        cmocka_unit_test(test_areas_that_were_never_touched_hide_no_contents),
        cmocka_unit_test(test_memory_made_ready_is_given_back_where_the_guest_has_none),
    };

    return cmocka_run_group_tests_name("mig_engine", tests, NULL, NULL);
}
