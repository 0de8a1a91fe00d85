/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "migration/mig_policy.h"

#define MS(n) ((uint64_t)(n)*1000000)
#define S(n)  ((uint64_t)(n)*1000000000)

enum {
    RATE = 400 << 20, /* bytes a second: about 100 pages a millisecond */
};

static const struct mig_limits usual = {.downtime_ns = MS(300), .timeout_ns = S(3600)};

static void test_single_decisions(void **state)
{
    static const struct {
        const char *why;
        struct mig_limits limits;
        struct mig_measure m;
        enum mig_decision decision;
    } rows[] = {
  /* clang-format off */
        {"nothing is left",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL}, {S(1), 0, RATE, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)},
         MIG_DECIDE_STOP},
        {"nothing is left and nothing is known",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL}, {S(1), 0, 0, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)},
         MIG_DECIDE_STOP},
        {"no rate yet",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL}, {S(1), 10, 0, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)},
         MIG_DECIDE_ROUND},
        {"far too long",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL}, {S(1), 1 << 20, RATE, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)},
         MIG_DECIDE_ROUND},
        {"short enough, polishing does not halve it",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL},
         {S(9), 10000, RATE, 80000, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)}, MIG_DECIDE_STOP},
        {"short enough, another round halves it",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL},
         {S(9), 10000, RATE, 20000, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)}, MIG_DECIDE_ROUND},
        {"it takes a good part of the whole time, but what is sent twice does not",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL},
         {MS(100), 10000, RATE, 20000, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)}, MIG_DECIDE_ROUND},
        {"what is sent twice takes a good part of the whole time",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL},
         {MS(10), 10000, RATE, 20000, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)}, MIG_DECIDE_STOP},
        {"the same, polished often enough",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL},
         {S(9), 10000, RATE, 20000, MS(3), 0, {0}, MIG_POLISH_ROUNDS, false, false, 0, 0, S(9)}, MIG_DECIDE_STOP},
        {"so short that another round is not worth it",
         {MS(300), S(3600), MIG_TIMEOUT_CANCEL},
         {S(9), 50, RATE, 20000, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)}, MIG_DECIDE_STOP},
        {"the fixed cost alone is too long: no round can help, until time is up",
         {MS(2), S(3600), MIG_TIMEOUT_CANCEL}, {S(1), 1, RATE, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(9)},
         MIG_DECIDE_ROUND},
        {"far away: two round trips are within the limit",
         {MS(100), S(3600), MIG_TIMEOUT_CANCEL}, {S(1), 1, RATE, 0, MS(83), 0, {0}, 0, false, false, 0, 0, S(9)},
         MIG_DECIDE_STOP},
        {"the same, and pages that are not",
         {MS(100), S(3600), MIG_TIMEOUT_CANCEL}, {S(1), 2000, RATE, 0, MS(83), 0, {0}, 0, false, false, 0, 0, S(9)},
         MIG_DECIDE_ROUND},
        {"two round trips are too long: time is up",
         {MS(30), S(10), MIG_TIMEOUT_CANCEL}, {S(1), 1, RATE, 0, MS(83), 0, {0}, 0, false, false, 0, 0, S(10)},
         MIG_DECIDE_GIVE_UP},
        {"the same, whatever it takes",
         {MS(30), S(10), MIG_TIMEOUT_IGNORE}, {S(1), 1, RATE, 0, MS(83), 0, {0}, 0, false, false, 0, 0, S(10)},
         MIG_DECIDE_STOP},
        {"asked to switch",
         {MS(1), S(3600), MIG_TIMEOUT_CANCEL}, {S(1), 1 << 20, RATE, 0, MS(3), 0, {0}, 0, true, false, 0, 0, S(9)},
         MIG_DECIDE_STOP},
        {"time is up: cancel",
         {MS(300), S(10), MIG_TIMEOUT_CANCEL}, {S(1), 1 << 20, RATE, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(10)},
         MIG_DECIDE_GIVE_UP},
        {"time is up: ignore",
         {MS(300), S(10), MIG_TIMEOUT_IGNORE}, {S(1), 1 << 20, RATE, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(10)},
         MIG_DECIDE_STOP},
        {"time is up, but it is short enough",
         {MS(300), S(10), MIG_TIMEOUT_CANCEL}, {S(1), 1000, RATE, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(10)},
         MIG_DECIDE_STOP},
        {"no time-out at all",
         {MS(300), 0, MIG_TIMEOUT_CANCEL}, {S(1), 1 << 20, RATE, 0, MS(3), 0, {0}, 0, false, false, 0, 0, S(99999)},
         MIG_DECIDE_ROUND},
  /* clang-format on */
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct mig_verdict v = mig_policy_decide(&rows[i].limits, &rows[i].m);

        if (v.decision != rows[i].decision)
            fail_msg("%s: decided %d: %s", rows[i].why, v.decision, v.why);
        assert_non_null(v.why);
    }
}

static void test_estimates_do_not_overflow(void **state)
{
    struct mig_measure m = {.remaining = UINT64_MAX >> PAGE_SHIFT_4K, .rate = 1, .fixed_ns = MS(3)};

    (void)state;
    assert_int_equal(mig_policy_estimate(&m), UINT64_MAX);
    m.rate = 0;
    assert_int_equal(mig_policy_estimate(&m), UINT64_MAX);
    m.remaining = 0;
    assert_int_equal(mig_policy_estimate(&m), MS(3));
    m = (struct mig_measure){.remaining = 1024, .rate = 4 << 20, .fixed_ns = MS(3)};
    assert_int_equal(mig_policy_estimate(&m), S(1) + MS(3));
}

static void test_hot_pages_wait_for_the_end(void **state)
{
    struct mig_measure m = {.elapsed_ns = S(9),
                            .remaining = 10000,
                            .rate = RATE,
                            .fixed_ns = MS(3),
                            .nr_history = 1,
                            .history = {20000}};
    struct mig_limits l = usual;

    (void)state;
    /* Half of the 297 ms, at about 100 pages a millisecond. */
    assert_in_range(mig_policy_hot_most(&l, &m), 15000, 15400);
    /* Rounds get rid of them by themselves. */
    m.history[0] = 20002;
    assert_int_equal(mig_policy_hot_most(&l, &m), 0);
    m.history[0] = 10000;
    l.downtime_ns = MS(3);
    assert_int_equal(mig_policy_hot_most(&l, &m), 0);
    m.rate = 0;
    assert_int_equal(mig_policy_hot_most(&usual, &m), 0);
    m.rate = RATE;
    /* Another round shortens what is cold. */
    m.dirty_rate = 20000;
    m.hot = 5000;
    assert_int_equal(mig_policy_decide(&usual, &m).decision, MIG_DECIDE_ROUND);
    /* All that is left would be written again anyway. */
    m.hot = 9990;
    assert_int_equal(mig_policy_decide(&usual, &m).decision, MIG_DECIDE_STOP);
    m.hot = m.remaining;
    assert_int_equal(mig_policy_decide(&usual, &m).decision, MIG_DECIDE_STOP);
    /* Rounds get shorter though the hot pages do not get fewer. */
    m = (struct mig_measure){
        .elapsed_ns = S(9),
        .remaining = 100000,
        .rate = RATE,
        .fixed_ns = MS(3),
        .nr_history = 3,
        .history = {8000, 20000, 40000},
        .can_throttle = true,
        .hot = 97000
    };
    assert_false(mig_policy_decide(&usual, &m).stalled);
    assert_int_equal(mig_policy_decide(&usual, &m).throttle, 0);
}

static void test_the_guest_is_not_slowed_down_where_that_cannot_help(void **state)
{
    struct mig_measure m = {
        .elapsed_ns = S(9),
        .remaining = 100000,
        .rate = RATE,
        .fixed_ns = MS(30),
        .nr_history = 3,
        .history = {100000, 100000, 100000},
        .can_throttle = true
    };
    const struct mig_limits l = {.downtime_ns = MS(30), .timeout_ns = S(3600)};

    (void)state;
    assert_int_equal(mig_policy_decide(&l, &m).throttle, 30);
    assert_false(mig_policy_decide(&l, &m).hopeless);
    m.fixed_ns = MS(30) + 1;
    assert_true(mig_policy_decide(&l, &m).hopeless);
    assert_int_equal(mig_policy_decide(&l, &m).throttle, 0);
    /* It turns out while the guest is slowed down. */
    m.throttle = 80;
    assert_int_equal(mig_policy_decide(&l, &m).throttle, 0);
}

static void test_only_cancel_gives_up_in_the_middle_of_a_round(void **state)
{
    struct mig_limits l = {.timeout_ns = S(10), .strategy = MIG_TIMEOUT_CANCEL};

    (void)state;
    assert_false(mig_policy_overdue(&l, S(10) - 1));
    assert_true(mig_policy_overdue(&l, S(10)));
    l.strategy = MIG_TIMEOUT_IGNORE;
    assert_false(mig_policy_overdue(&l, S(20)));
    l = (struct mig_limits){.strategy = MIG_TIMEOUT_CANCEL};
    assert_false(mig_policy_overdue(&l, S(20)));
}

/* --- Traces: a guest and a link that follow simple laws ------------------- */

struct law {
    uint64_t memory;      /* pages */
    uint64_t working_set; /* pages that it dirties */
    uint64_t dirty_rate;  /* pages a second */
    uint64_t rate;        /* bytes a second */
    uint64_t late_rate;   /* the same from the second second on; 0: no change */
    bool bursts;          /* dirties in every other 500 ms only */
    bool slows;           /* the guest can be slowed down */
};

struct outcome {
    enum mig_decision decision;
    unsigned rounds;
    uint64_t took_ns, blackout_ns;
    bool stalled;
    unsigned throttle_max; /* percent, ever */
};

static uint64_t dirtied(const struct law *law, uint64_t from_ns, uint64_t took_ns)
{
    uint64_t n = law->dirty_rate * (took_ns / 1000) / 1000000;

    if (law->bursts && from_ns / MS(500) % 2)
        n /= 50;
    return n < law->working_set ? n : law->working_set;
}

static struct outcome play(const struct law *law, const struct mig_limits *limits)
{
    struct outcome o = {.decision = MIG_DECIDE_ROUND};
    struct mig_measure m = {
        .remaining = law->memory, .fixed_ns = MS(3), .can_throttle = law->slows};
    uint64_t todo = law->memory, now = 0;

    while (o.decision == MIG_DECIDE_ROUND && o.rounds < 100000) {
        uint64_t rate = law->late_rate && now > S(2) ? law->late_rate : law->rate;
        uint64_t took = (todo << PAGE_SHIFT_4K) * 1000 / (rate / 1000000) + MS(1) / 5;
        struct mig_verdict v;

        memmove(&m.history[1], &m.history[0], sizeof(m.history) - sizeof(m.history[0]));
        m.history[0] = m.remaining;
        m.nr_history = m.nr_history < MIG_HISTORY ? m.nr_history + 1 : MIG_HISTORY;
        todo = dirtied(law, now, took * (100 - m.throttle) / 100);
        now += took;
        m.elapsed_ns = m.since_begin_ns = now;
        m.remaining = todo;
        m.rate = rate;
        m.dirty_rate = todo * 1000000 / (took / 1000 + 1);
        v = mig_policy_decide(limits, &m);
        m.polished = v.short_enough ? m.polished + 1 : 0;
        m.throttle = v.throttle;
        o = (struct outcome){v.decision,
                             o.rounds + 1,
                             now,
                             v.estimate_ns,
                             o.stalled || v.stalled,
                             v.throttle > o.throttle_max ? v.throttle : o.throttle_max};
    }
    return o;
}

static void test_traces(void **state)
{
    static const struct {
        const char *why;
        struct law law;
        uint64_t downtime_ms;
        enum mig_decision decision;
        uint64_t blackout_max_ms;
        unsigned rounds_max;
        bool stalled;
        unsigned throttle_max;
    } rows[] = {
  /* clang-format off */
        {"idle", {262144, 100, 100, 1 << 30, 0, false, false}, 300, MIG_DECIDE_STOP, 5, 3, false, 0},
        {"100 MB/s over 64 MiB, 3 GB/s link", {262144, 16384, 24414, 3000000000, 0, false, false}, 300,
         MIG_DECIDE_STOP, 6, 6, false, 0},
        {"the same over a 250 MB/s link", {262144, 16384, 24414, 250000000, 0, false, false}, 300,
         MIG_DECIDE_STOP, 60, 12, false, 0},
        {"faster than the link, small working set", {262144, 2000, 10000000, 100000000, 0, false, false},
         300, MIG_DECIDE_STOP, 90, 8, false, 0},
        {"faster than the link, large working set", {262144, 200000, 10000000, 100000000, 0, false, false},
         300, MIG_DECIDE_GIVE_UP, UINT64_MAX / 2, 4000, true, 0},
        {"bursts", {262144, 60000, 200000, 500000000, 0, true, false}, 100, MIG_DECIDE_STOP, 100, 4000,
         false, 0},
        {"the link collapses", {1 << 20, 60000, 20000, 1000000000, 20000000, false, false}, 300,
         MIG_DECIDE_GIVE_UP, UINT64_MAX / 2, 4000, true, 0},
        {"idle, and it could be slowed down", {262144, 100, 100, 1 << 30, 0, false, true}, 300,
         MIG_DECIDE_STOP, 5, 3, false, 0},
        {"steady, and it could be slowed down",
         {262144, 16384, 24414, 3000000000, 0, false, true}, 300, MIG_DECIDE_STOP, 6, 6, false, 0},
        {"64 MiB again and again over a slow link",
         {262144, 16384, 24414, 90000000, 0, false, true}, 300, MIG_DECIDE_STOP, 300, 16, false,
         90},
        {"faster than the link, large working set, slowed down",
         {262144, 200000, 500000, 100000000, 0, false, true}, 300, MIG_DECIDE_STOP, 300, 20,
         false, 99},
        {"the link collapses, and the guest is slowed down",
         {1 << 20, 60000, 20000, 1000000000, 20000000, false, true}, 300, MIG_DECIDE_STOP, 300, 20,
         false, 99},
        {"bursts between which it gets ready by itself",
         {262144, 60000, 200000, 500000000, 0, true, true}, 100, MIG_DECIDE_STOP, 100, 20, false,
         60},
  /* clang-format on */
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct mig_limits limits = usual;
        struct outcome o;

        limits.downtime_ns = MS(rows[i].downtime_ms);
        limits.timeout_ns = S(120);
        o = play(&rows[i].law, &limits);
        if (o.decision != rows[i].decision || o.rounds > rows[i].rounds_max ||
            o.blackout_ns > MS(rows[i].blackout_max_ms) || (rows[i].stalled && !o.stalled) ||
            o.throttle_max > rows[i].throttle_max)
            fail_msg(
                "%s: decision %d after %u rounds, %llu ms; blackout %llu us, stalled %d, %u %%",
                rows[i].why, o.decision, o.rounds, (unsigned long long)(o.took_ns / 1000000),
                (unsigned long long)(o.blackout_ns / 1000), o.stalled, o.throttle_max);
    }
}

/* --- Traces: recorded from moves of the test guest between two processes --- */

/* What chctl migration-progress said of a round. */
struct recorded {
    uint64_t at_us, remaining, hot, rate, dirty_rate; /* the rates in bytes */
    unsigned throttle;
    uint64_t estimate_us;
    enum mig_decision decision;
};

enum {
    RECORDED_PAGES = 65536,
    RECORDED_SETUP_US = 5000, /* until the first round began */
};

/* 64 MiB written once, no cap. */
static const struct recorded idle[] = {
  /* clang-format off */
    {107023, 0, 0, 665917299, 0, 0, 3000, MIG_DECIDE_STOP},
  /* clang-format on */
};

/* 40 MB/s over 32 MiB, a cap of 100 MB/s. */
static const struct recorded steady[] = {
  /* clang-format off */
    {692861, 6697, 0, 100000000, 40005632, 0, 277309, MIG_DECIDE_ROUND},
    {966189, 2672, 0, 100000000, 40030208, 0, 112445, MIG_DECIDE_ROUND},
    {1075047, 1064, 0, 100000000, 40034304, 0, 46581, MIG_DECIDE_ROUND},
    {1118591, 428, 0, 100000000, 40259584, 0, 20530, MIG_DECIDE_ROUND},
    {1136305, 174, 0, 99102867, 40230912, 0, 10191, MIG_DECIDE_ROUND},
    {1143637, 75, 0, 99102867, 41885696, 0, 6099, MIG_DECIDE_ROUND},
    {1145026, 15, 0, 100000000, 44421120, 0, 3614, MIG_DECIDE_STOP},
  /* clang-format on */
};

/* 40 MB/s over 32 MiB, a cap of 24 MB/s. */
static const struct recorded slowed[] = {
  /* clang-format off */
    {1561087, 8194, 0, 24000000, 21565440, 0, 1401442, MIG_DECIDE_ROUND},
    {2938702, 8194, 284, 24000000, 24363008, 0, 1401442, MIG_DECIDE_ROUND},
    {4299492, 8194, 281, 23813156, 24666112, 30, 1412415, MIG_DECIDE_ROUND},
    {5649852, 8194, 284, 24000000, 24850432, 60, 1401442, MIG_DECIDE_ROUND},
    {7000033, 8194, 284, 23998381, 24854528, 80, 1401537, MIG_DECIDE_ROUND},
    {8349759, 8194, 284, 24000000, 24866816, 90, 1401442, MIG_DECIDE_ROUND},
    {9699955, 8194, 284, 23999498, 24854528, 95, 1401471, MIG_DECIDE_ROUND},
    {11049722, 8194, 284, 24000000, 24862720, 99, 1401442, MIG_DECIDE_ROUND},
    {12399967, 4614, 284, 23996953, 13139968, 99, 790555, MIG_DECIDE_ROUND},
    {13137988, 2504, 2, 24000000, 12328960, 99, 430349, MIG_DECIDE_ROUND},
    {13569773, 1070, 0, 23736459, 10145792, 99, 187640, MIG_DECIDE_ROUND},
    {13758265, 362, 0, 23258092, 7864320, 99, 66752, MIG_DECIDE_ROUND},
    {13804227, 52, 0, 24000000, 4632576, 99, 11874, MIG_DECIDE_ROUND},
    {13821731, 45, 1, 24000000, 10539008, 99, 10680, MIG_DECIDE_ROUND},
    {13830103, 42, 1, 24000000, 20533248, 99, 10168, MIG_DECIDE_STOP},
  /* clang-format on */
};

/* as fast as it goes over 64 MiB, a cap of 40 MB/s, cancelled. */
static const struct recorded never[] = {
  /* clang-format off */
    {2524401, 16386, 0, 40000000, 26636288, 0, 1680926, MIG_DECIDE_ROUND},
    {4189703, 16386, 0, 40000000, 40300544, 0, 1680926, MIG_DECIDE_ROUND},
    {5867276, 16386, 0, 40000000, 40009728, 30, 1680926, MIG_DECIDE_ROUND},
    {7545989, 16386, 0, 39983635, 39976960, 60, 1681613, MIG_DECIDE_ROUND},
    {9224065, 16386, 0, 39998169, 39993344, 80, 1681003, MIG_DECIDE_ROUND},
    {10902420, 16386, 0, 39992308, 39989248, 90, 1681249, MIG_DECIDE_ROUND},
  /* clang-format on */
};

static void replay(const char *name, const struct recorded *rounds, size_t nr, uint64_t downtime_ns)
{
    const struct mig_limits limits = {.downtime_ns = downtime_ns, .timeout_ns = S(3600)};
    struct mig_measure m = {.remaining = RECORDED_PAGES, .fixed_ns = MS(3), .can_throttle = true};

    for (size_t i = 0; i < nr; i++) {
        const struct recorded *r = &rounds[i];
        struct mig_verdict v;

        memmove(&m.history[1], &m.history[0], sizeof(m.history) - sizeof(m.history[0]));
        m.history[0] = m.remaining - m.hot;
        m.nr_history = m.nr_history < MIG_HISTORY ? m.nr_history + 1 : MIG_HISTORY;
        m.since_begin_ns = r->at_us * 1000;
        m.elapsed_ns = m.since_begin_ns - RECORDED_SETUP_US * 1000;
        m.remaining = r->remaining;
        m.hot = r->hot;
        m.rate = r->rate;
        m.dirty_rate = r->dirty_rate >> PAGE_SHIFT_4K;
        v = mig_policy_decide(&limits, &m);
        if (v.decision != r->decision || v.throttle != r->throttle ||
            v.estimate_ns / 1000 != r->estimate_us)
            fail_msg("%s, round %zu: decision %d, %u %%, %llu us: %s", name, i, v.decision,
                     v.throttle, (unsigned long long)(v.estimate_ns / 1000), v.why);
        m.polished = v.short_enough ? m.polished + 1 : 0;
        m.throttle = v.throttle;
    }
}

static void test_recorded_traces(void **state)
{
    (void)state;
    replay("idle", idle, ARRAY_LEN(idle), MS(300));
    replay("steady", steady, ARRAY_LEN(steady), MS(100));
    replay("slowed", slowed, ARRAY_LEN(slowed), MS(100));
    replay("never", never, ARRAY_LEN(never), MS(10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_decisions),
        cmocka_unit_test(test_estimates_do_not_overflow),
        cmocka_unit_test(test_hot_pages_wait_for_the_end),
        cmocka_unit_test(test_the_guest_is_not_slowed_down_where_that_cannot_help),
        cmocka_unit_test(test_only_cancel_gives_up_in_the_middle_of_a_round),
        cmocka_unit_test(test_traces),
        cmocka_unit_test(test_recorded_traces),
    };

    return cmocka_run_group_tests_name("mig_policy", tests, NULL, NULL);
}
