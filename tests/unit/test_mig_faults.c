/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever fails, and whenever: never two guests, never silently none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "core/loop.h"
#include "tests/fakes/fake_move.h"

static const struct fake_guest_config tiny = {.len = {KIB(512)}, .data_percent = 50, .seed = 11};
static const struct fake_guest_config frantic = {.len = {MIB(8)},
                                                 .data_percent = 60,
                                                 .seed = 5,
                                                 .dirty_rate = 4000000,
                                                 .dirty_pages = 2048,
                                                 .never_clean = true};
static const struct fake_guest_config busy = {
    .len = {MIB(4), MIB(1)},
    .data_percent = 60,
    .seed = 5,
    .dirty_rate = 50000,
    .dirty_pages = 900
};

enum {
    COMMIT_SIZE = sizeof(struct mig_msg_hdr),
    RUNNING_SIZE = sizeof(struct mig_msg_hdr) + sizeof(struct mig_times_wire),
};

/* --- A socket that somebody aborts on this host ("ss -K") ------------------ */

ssize_t __real_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags);

static atomic_bool is_aborted;

ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags)
{
    if (!atomic_load(&is_aborted))
        return __real_recvmsg(fd, msg, flags);
    errno = ECONNABORTED;
    return -1;
}

/* --- Cuts ---------------------------------------------------------------- */

static uint64_t total_bytes(unsigned conn, enum fake_dir dir)
{
    struct fake_pair p;
    uint64_t n;

    fake_pair_init(&p, &tiny);
    n = fake_move_bytes(&p, conn, dir);
    fake_pair_release(&p);
    return n;
}

static void cut_at(unsigned conn, enum fake_dir dir, uint64_t at, bool undecidable)
{
    struct fake_link_config cfg = {.cut = true, .cut_conn = conn, .cut_dir = dir, .cut_at = at};
    struct fake_pair p;

    fake_pair_init(&p, &tiny);
    fake_move_twice(&p, &cfg);
    if (!undecidable && p.src_rc == -EINPROGRESS)
        fail_msg("cut of connection %u, direction %d, at byte %llu: undecided", conn, dir,
                 (unsigned long long)at);
    fake_pair_release(&p);
}

static void test_a_cut_at_any_byte_of_control_traffic_to_the_destination(void **state)
{
    uint64_t total = total_bytes(0, FAKE_TO_DEST);

    (void)state;
    assert_true(total > 100);
    for (uint64_t at = 0; at < total; at++)
        cut_at(0, FAKE_TO_DEST, at, at >= total - COMMIT_SIZE);
}

static void test_a_cut_at_any_byte_of_control_traffic_to_the_source(void **state)
{
    uint64_t total = total_bytes(0, FAKE_TO_SOURCE);

    (void)state;
    assert_true(total > 100);
    for (uint64_t at = 0; at < total; at++)
        cut_at(0, FAKE_TO_SOURCE, at, at >= total - RUNNING_SIZE);
}

static void test_a_cut_of_a_lane_leaves_the_guest_at_the_source(void **state)
{
    uint64_t total = total_bytes(1, FAKE_TO_DEST);

    (void)state;
    for (uint64_t at = 0; at < total; at += at < 200 || at > total - 100 ? 1 : 2503)
        cut_at(1, FAKE_TO_DEST, at, false);
}

static void test_a_cut_under_load_with_many_lanes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 24; i++) {
        struct fake_link_config cfg = {
            .cut = true, .cut_conn = 1 + i % 3, .cut_dir = FAKE_TO_DEST, .cut_at = 1 + i * 49999};
        struct fake_pair p;

        fake_pair_init(&p, &busy);
        p.sp.lanes = 3;
        fake_move_twice(&p, &cfg);
        fake_pair_release(&p);
    }
}

static void test_a_link_with_delays_moves_the_guest(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 6; seed++) {
        struct fake_link *link = fake_link_new(&(struct fake_link_config){.delay_seed = seed});
        struct fake_pair p;

        fake_pair_init(&p, &busy);
        p.sp.lanes = 1 + seed % 3;
        fake_move_over(&p, link);
        fake_pair_run(&p);
        if (p.src_rc < 0)
            fail_msg("seed %u: %s", seed, p.src_err.msg);
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

static void test_a_silent_link_is_noticed_by_both_ends(void **state)
{
    static const struct {
        unsigned conn;
        enum fake_dir dir;
        uint64_t at;
    } rows[] = {
        {0, FAKE_TO_DEST,   5    },
        {0, FAKE_TO_DEST,   100  },
        {0, FAKE_TO_SOURCE, 20   },
        {0, FAKE_TO_SOURCE, 85   },
        {1, FAKE_TO_DEST,   70   },
        {1, FAKE_TO_DEST,   30000},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct fake_link_config cfg = {.cut = true,
                                       .stall = true,
                                       .cut_conn = rows[i].conn,
                                       .cut_dir = rows[i].dir,
                                       .cut_at = rows[i].at};
        uint64_t begin = loop_now_ns();
        struct fake_pair p;

        fake_pair_init(&p, &tiny);
        p.sp.idle_ms = p.dp.idle_ms = p.sp.hello_ms = p.dp.hello_ms = 300;
        p.sp.keepalive_ms = p.dp.keepalive_ms = 50;
        p.dp.accept_ms = 300;
        fake_move_twice(&p, &cfg);
        assert_true(p.src_rc < 0);
        assert_true(loop_now_ns() - begin < 15000000000);
        fake_pair_release(&p);
    }
}

/* Connected, but never taken: another source was quicker. */
static void test_a_source_that_is_not_answered_says_what_may_be(void **state)
{
    struct fake_link_config cfg = {
        .cut = true, .stall = true, .cut_dir = FAKE_TO_DEST, .cut_at = 5};
    struct fake_link *link = fake_link_new(&cfg);
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    /* The destination is the more patient one, or it might be heard hanging up. */
    p.sp.hello_ms = p.sp.idle_ms = 300;
    p.dp.hello_ms = p.dp.idle_ms = p.dp.accept_ms = 3000;
    fake_move_over(&p, link);
    fake_pair_run(&p);
    assert_int_equal(p.src_rc, -ETIMEDOUT);
    assert_non_null(strstr(p.src_err.msg, "the destination may have a source"));
    fake_link_free(link);
    fake_pair_release(&p);
}

static struct mig_channel *knock(struct fake_link *link)
{
    const struct mig_wait patient = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 20000};
    struct mig_channel *ch;

    assert_int_equal(fake_link_connect(link, &patient, &ch, NULL), 0);
    return ch;
}

/* They would be waited for by the destination for longer than the source waits for its answer. */
static void test_strangers_that_say_nothing_hold_nobody_up(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct mig_channel *strangers[6];
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    p.sp.hello_ms = 5000;
    p.dp.attempts = 0;
    fake_move_over(&p, link);
    for (unsigned i = 0; i < ARRAY_LEN(strangers); i++)
        strangers[i] = knock(link);
    fake_pair_run(&p);
    if (p.src_rc < 0)
        fail_msg("%s", p.src_err.msg);
    assert_int_equal(p.dst_st.nr_refused, 0);
    for (unsigned i = 0; i < ARRAY_LEN(strangers); i++)
        mig_channel_close(strangers[i]);
    fake_link_free(link);
    fake_pair_release(&p);
}

static void knock_in_build(void *arg, enum fake_op op)
{
    struct mig_channel **stranger = arg;

    for (unsigned i = 0; op == FAKE_OP_BUILD && i < 6; i++)
        stranger[1 + i] = knock((struct fake_link *)(void *)stranger[0]);
}

/* The same among the lanes: each would cost what a connection has time to say what it is. */
static void test_strangers_among_the_lanes_hold_nobody_up(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct mig_channel *arg[7] = {(struct mig_channel *)(void *)link};
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    p.sp.lanes = 3;
    p.to.on_op = knock_in_build;
    p.to.on_op_arg = arg;
    fake_move_over(&p, link);
    fake_pair_run(&p);
    if (p.src_rc < 0)
        fail_msg("%s", p.src_err.msg);
    assert_int_equal(p.dst_st.nr_refused, 0);
    for (unsigned i = 1; i < ARRAY_LEN(arg); i++)
        mig_channel_close(arg[i]);
    fake_link_free(link);
    fake_pair_release(&p);
}

static void test_a_stranger_that_says_nothing_is_turned_away(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct mig_channel *stranger = knock(link);
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    p.dp.hello_ms = 50;
    fake_move_over(&p, link);
    assert_int_equal(mig_dest_new(&p.dp, &p.dst, NULL), 0);
    assert_int_equal(mig_dest_run(p.dst, &p.dst_err), -ECONNRESET);
    assert_string_equal(p.dst_err.msg, "the peer did not say HELLO within 50 ms");
    mig_channel_close(stranger);
    fake_link_free(link);
    fake_pair_release(&p);
}

/* A second source, which comes while the first one is served. */
struct second {
    struct fake_link *link;
    struct fake_guest guest;
    int rc;
    struct err err;
    enum fake_op at;
};

static void come_second(void *arg, enum fake_op op)
{
    struct second *s = arg;
    struct mig_source_params sp = {.ops = &fake_source_ops,
                                   .arg = &s->guest,
                                   .gm = s->guest.gm,
                                   .dirty = s->guest.dirty,
                                   .open = fake_link_connect,
                                   .open_arg = s->link,
                                   .lanes = 1,
                                   .hello_ms = 5000,
                                   .keepalive_ms = UINT_MAX};
    struct mig_source *src;

    if (op != s->at)
        return;
    assert_int_equal(mig_source_new(&sp, &src, NULL), 0);
    s->rc = mig_source_run(src, NULL, &s->err);
    mig_source_free(src);
}

static void test_another_source_is_refused_at_once_and_disturbs_nothing(void **state)
{
    static const enum fake_op ops[] = {FAKE_OP_BUILD, FAKE_OP_LOAD, FAKE_OP_START};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        struct second s = {.link = fake_link_new(&(struct fake_link_config){0}), .at = ops[i]};
        struct fake_pair p;

        fake_guest_start(&s.guest, &tiny);
        fake_pair_init(&p, &tiny);
        p.to.on_op = come_second;
        p.to.on_op_arg = &s;
        fake_move_over(&p, s.link);
        fake_pair_run(&p);
        if (p.src_rc < 0)
            fail_msg("%s", p.src_err.msg);
        assert_int_equal(s.rc, -ENOTSUP);
        assert_string_equal(s.err.msg, "the destination refuses: another VM is moving to this "
                                       "destination already");
        assert_true(atomic_load(&s.guest.running));
        assert_int_equal(p.dst_st.nr_refused, 1);
        fake_link_free(s.link);
        fake_guest_release(&s.guest);
        fake_pair_release(&p);
    }
}

/* For longer than a peer may be silent. */
static void build_slowly(void *arg, enum fake_op op)
{
    const struct timespec nap = {2, 500000000};

    (void)arg;
    if (op == FAKE_OP_BUILD)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
}

/* A slow build does not look like a dead peer; nor does a slow machine, for a second and a half. */
static void test_keepalives_bridge_a_long_build(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    p.sp.idle_ms = p.dp.idle_ms = 1500;
    p.sp.keepalive_ms = p.dp.keepalive_ms = 40;
    p.to.on_op = build_slowly;
    fake_move_over(&p, link);
    fake_pair_run(&p);
    if (p.src_rc < 0)
        fail_msg("%s", p.src_err.msg);
    fake_link_free(link);
    fake_pair_release(&p);
}

/* --- Operations that fail ------------------------------------------------ */

static void fail_op_of(enum fake_op op, bool at_source)
{
    char want[40];
    struct fake_pair p;

    fake_pair_init(&p, &tiny);
    atomic_store(at_source ? &p.from.fail_op : &p.to.fail_op, op);
    (void)snprintf(want, sizeof(want), "operation %d was made to fail", op);
    fake_move_twice(&p, &(struct fake_link_config){0});
    assert_true(p.src_rc < 0 && p.src_rc != -EINPROGRESS);
    fake_pair_release(&p);
}

static void test_an_operation_that_fails_leaves_the_guest_at_the_source(void **state)
{
    (void)state;
    fail_op_of(FAKE_OP_DESCRIBE, true);
    fail_op_of(FAKE_OP_PAUSE, true);
    fail_op_of(FAKE_OP_SAVE, true);
    fail_op_of(FAKE_OP_RELEASE, true);
    fail_op_of(FAKE_OP_BUILD, false);
    fail_op_of(FAKE_OP_STAGE, false);
    fail_op_of(FAKE_OP_LOAD, false);
    /* After COMMIT: the destination says that it has not started and never will. */
    fail_op_of(FAKE_OP_ACQUIRE, false);
    fail_op_of(FAKE_OP_START, false);
}

static void test_reasons_cross_the_wire(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;
    char want[64];

    (void)state;
    fake_pair_init(&p, &tiny);
    atomic_store(&p.to.bad_config, true);
    fake_move_over(&p, link);
    fake_pair_run(&p);
    assert_int_equal(p.src_rc, -ENOTSUP);
    assert_int_equal(p.why.nr, 2);
    assert_non_null(strstr(p.why.reasons[0], "cpuid.7.0.ebx.avx512f"));
    assert_non_null(strstr(p.why.reasons[1], "_disk0"));
    assert_non_null(strstr(p.src_err.msg, "cpuid.7.0.ebx.avx512f"));
    assert_non_null(strstr(p.dst_err.msg, "cpuid.7.0.ebx.avx512f"));
    /* Refused before the first page. */
    assert_int_equal(p.src_st.wire_bytes, 0);
    fake_link_free(link);
    fake_pair_release(&p);

    link = fake_link_new(&(struct fake_link_config){0});
    fake_pair_init(&p, &tiny);
    atomic_store(&p.to.fail_op, FAKE_OP_LOAD);
    fake_move_over(&p, link);
    fake_pair_run(&p);
    (void)snprintf(want, sizeof(want), "the peer gave up: operation %d was made to fail",
                   FAKE_OP_LOAD);
    assert_non_null(strstr(p.src_err.msg, want));
    fake_link_free(link);
    fake_pair_release(&p);

    link = fake_link_new(&(struct fake_link_config){0});
    fake_pair_init(&p, &tiny);
    atomic_store(&p.from.fail_op, FAKE_OP_SAVE);
    fake_move_over(&p, link);
    fake_pair_run(&p);
    assert_non_null(strstr(p.dst_err.msg, "the peer gave up: operation 3 was made to fail"));
    fake_link_free(link);
    fake_pair_release(&p);
}

static void test_other_memory_at_the_destination_is_refused_in_words(void **state)
{
    struct fake_guest_config other = tiny;
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    other.len[0] = KIB(768);
    fake_guest_release(&p.to);
    fake_guest_expect(&p.to, &other);
    fake_move_over(&p, link);
    fake_pair_run(&p);
    assert_int_equal(p.src_rc, -ENOTSUP);
    assert_non_null(strstr(p.src_err.msg, "memory region 0: 0 + 0x80000 at the source"));
    fake_link_free(link);
    fake_pair_release(&p);
}

static void test_a_guest_that_cannot_be_taken_back_is_said_to_be_stopped(void **state)
{
    static const enum fake_op ops[] = {FAKE_OP_RECLAIM, FAKE_OP_RESUME};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
        struct fake_pair p;

        fake_pair_init(&p, &tiny);
        atomic_store(&p.from.fail_op, ops[i]);
        atomic_store(&p.to.fail_op, FAKE_OP_ACQUIRE);
        fake_move_over(&p, link);
        fake_pair_start(&p);
        fake_pair_join(&p);
        assert_true(p.src_rc < 0);
        assert_int_equal(p.src_st.result, MIG_RESULT_FAILED);
        assert_false(p.src_st.guest_here);
        assert_false(atomic_load(&p.from.running));
        assert_false(atomic_load(&p.to.running));
        assert_non_null(strstr(p.src_err.msg, "the guest stays stopped"));
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

static void abort_socket_at(void *arg, enum fake_op op)
{
    (void)arg;
    if (op == FAKE_OP_ACQUIRE)
        atomic_store(&is_aborted, true);
}

/* The failure has the code of an ABORT, which would give the guest back: two would run. */
static void test_an_aborted_socket_after_commit_is_no_abort_of_the_destination(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    p.to.on_op = abort_socket_at;
    fake_move_over(&p, link);
    fake_pair_start(&p);
    fake_pair_join(&p);
    atomic_store(&is_aborted, false);
    fake_pair_check(&p);
    assert_int_equal(p.src_st.result, MIG_RESULT_UNDECIDED);
    assert_true(atomic_load(&p.to.running));
    fake_link_free(link);
    fake_pair_release(&p);
}

/* --- Resolving ------------------------------------------------------------ */

/* Locks that cannot be had, or a guest that cannot go on: as undecided as before, then resolved. */
static void test_a_resolution_that_fails_changes_nothing(void **state)
{
    static const enum fake_op ops[] = {FAKE_OP_RECLAIM, FAKE_OP_RESUME};
    uint64_t commit = total_bytes(0, FAKE_TO_DEST) - 1;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        struct fake_link *link = fake_link_new(
            &(struct fake_link_config){.cut = true, .cut_dir = FAKE_TO_DEST, .cut_at = commit});
        struct mig_status st;
        struct err err = {0};
        struct fake_pair p;

        fake_pair_init(&p, &tiny);
        fake_move_over(&p, link);
        fake_pair_start(&p);
        fake_pair_join(&p);
        assert_int_equal(p.src_st.result, MIG_RESULT_UNDECIDED);
        atomic_store(&p.from.fail_op, ops[i]);
        assert_true(mig_source_resolve(p.src, MIG_OUTCOME_NEVER, &err) < 0);
        assert_true(err.code < 0 && err.msg[0]);
        mig_progress_read(mig_source_progress(p.src), &st);
        assert_int_equal(st.result, MIG_RESULT_UNDECIDED);
        assert_false(atomic_load(&p.from.running));
        atomic_store(&p.from.fail_op, FAKE_OP_NONE);
        assert_int_equal(mig_source_resolve(p.src, MIG_OUTCOME_NEVER, &err), 0);
        assert_true(atomic_load(&p.from.running) && atomic_load(&p.from.holds_locks));
        assert_false(atomic_load(&p.to.running));
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

static void test_what_is_decided_cannot_be_resolved(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct err err = {0};
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    fake_move_over(&p, link);
    fake_pair_run(&p);
    assert_int_equal(mig_source_resolve(p.src, MIG_OUTCOME_NEVER, &err), -EPERM);
    assert_non_null(strstr(err.msg, "the migration is completed"));
    assert_false(atomic_load(&p.from.running));
    fake_link_free(link);
    fake_pair_release(&p);
}

/* --- Cancelling ---------------------------------------------------------- */

struct canceller {
    struct fake_pair *p;
    enum fake_op at;
    bool dest; /* cancel there */
    int rc;    /* what cancelling said; 1: it was not reached */
};

static void cancel_at(void *arg, enum fake_op op)
{
    struct canceller *c = arg;

    if (op == c->at)
        c->rc = c->dest ? mig_dest_cancel(c->p->dst) : mig_source_cancel(c->p->src, NULL);
}

static void cancel_in(enum fake_op op, bool dest)
{
    bool at_source = op < FAKE_OP_BUILD;
    struct fake_pair p;
    struct canceller c = {&p, op, dest, 1};

    fake_pair_init(&p, &tiny);
    (at_source ? &p.from : &p.to)->on_op = cancel_at;
    (at_source ? &p.from : &p.to)->on_op_arg = &c;
    fake_move_twice(&p, &(struct fake_link_config){0});
    assert_true(c.rc == 0 || c.rc == -EBUSY);
    if (c.rc == -EBUSY) {
        assert_int_equal(p.src_rc, 0);
    } else {
        assert_true(p.src_rc < 0);
        assert_true(p.src_rc != -EINPROGRESS);
    }
    fake_pair_release(&p);
}

static void test_either_end_can_cancel_in_every_operation(void **state)
{
    static const enum fake_op ops[] = {FAKE_OP_DESCRIBE, FAKE_OP_PAUSE,   FAKE_OP_SAVE,
                                       FAKE_OP_RELEASE,  FAKE_OP_BUILD,   FAKE_OP_STAGE,
                                       FAKE_OP_LOAD,     FAKE_OP_ACQUIRE, FAKE_OP_START};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        cancel_in(ops[i], false);
        cancel_in(ops[i], true);
    }
}

static void test_cancelling_at_any_time(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 60; i++) {
        struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
        const struct timespec nap = {0, (long)i * 150000};
        struct fake_pair p;
        int rc;

        fake_pair_init(&p, &busy);
        p.sp.lanes = 1 + i % 3;
        fake_move_over(&p, link);
        fake_pair_start(&p);
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        rc = i % 2 ? mig_source_cancel(p.src, NULL) : mig_dest_cancel(p.dst);
        fake_pair_join(&p);
        fake_pair_check(&p);
        if (rc == 0 && i % 2) {
            /* Too late only where it was over already. */
            assert_true(p.src_rc == -ECANCELED || p.src_rc == 0);
            if (p.src_rc == -ECANCELED)
                assert_int_equal(p.src_st.result, MIG_RESULT_CANCELLED);
        }
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

/* --- Anything at all ------------------------------------------------------ */

enum {
    SEEDS = 60,
    ANY_LANES = 3,
};

static unsigned seed_now; /* of the run that is going on; 0: none */

static unsigned draw(unsigned *x, unsigned below)
{
    *x = *x * 1664525 + 1013904223;
    return (*x >> 8) % below;
}

struct chance {
    struct canceller cancel;
    struct fake_link_config link;
    struct fake_guest_config guest;
    unsigned lanes;
    enum fake_op fail;
};

/* A link of any kind that may be cut, or fall silent, anywhere; an operation that fails; a cancel. */
static void throw_dice(unsigned seed, struct chance *c)
{
    unsigned x = seed * 2654435761U, control;

    *c = (struct chance){.guest = draw(&x, 3) ? tiny : busy};
    c->lanes = 1 + draw(&x, ANY_LANES);
    control = draw(&x, 2);
    c->link =
        (struct fake_link_config){.cut = draw(&x, 4) != 0,
                                  .stall = draw(&x, 4) == 0,
                                  .cut_conn = control ? 0 : 1 + draw(&x, c->lanes),
                                  .cut_dir = control && draw(&x, 2) ? FAKE_TO_SOURCE : FAKE_TO_DEST,
                                  .cut_at = draw(&x, control ? 300 : 300000),
                                  .delay_seed = draw(&x, 2) ? 1 + draw(&x, 100000) : 0};
    c->fail = draw(&x, 4) ? FAKE_OP_NONE : (enum fake_op)draw(&x, FAKE_OP_DISCARD);
    if (c->fail == FAKE_OP_RECLAIM || c->fail == FAKE_OP_RESUME || c->fail == FAKE_OP_COMMITTED)
        c->fail = FAKE_OP_NONE; /* the guest may stay stopped then: other tests */
    c->cancel = (struct canceller){.at = draw(&x, 4) ? FAKE_OP_NONE
                                                     : (enum fake_op)draw(&x, FAKE_OP_DISCARD),
                                   .dest = draw(&x, 2) != 0};
}

static void run_seed(unsigned seed)
{
    struct fake_pair p;
    struct chance c;

    seed_now = seed;
    throw_dice(seed, &c);
    fake_pair_init(&p, &c.guest);
    p.sp.lanes = c.lanes;
    p.sp.idle_ms = p.dp.idle_ms = p.sp.hello_ms = p.dp.hello_ms = 400;
    p.sp.keepalive_ms = p.dp.keepalive_ms = 50;
    p.dp.accept_ms = 1000;
    atomic_store(c.fail < FAKE_OP_BUILD ? &p.from.fail_op : &p.to.fail_op, c.fail);
    c.cancel.p = &p;
    p.from.on_op = p.to.on_op = cancel_at;
    p.from.on_op_arg = p.to.on_op_arg = &c.cancel;
    fake_move_twice(&p, &c.link);
    fake_pair_release(&p);
    seed_now = 0;
}

static void test_whatever_happens_exactly_one_runs(void **state)
{
    const char *one = getenv("CHRYSALIS_SEED");

    (void)state;
    if (one) {
        run_seed((unsigned)strtoul(one, NULL, 10));
        return;
    }
    for (unsigned seed = 1; seed <= SEEDS; seed++)
        run_seed(seed);
}

static int say_seed(void **state)
{
    (void)state;
    if (seed_now)
        print_message("CHRYSALIS_SEED=%u replays it\n", seed_now);
    seed_now = 0;
    return 0;
}

/* --- Limits -------------------------------------------------------------- */

static void test_a_guest_that_never_converges_times_out(void **state)
{
    static const enum mig_timeout_strategy strategies[] = {MIG_TIMEOUT_CANCEL, MIG_TIMEOUT_IGNORE};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(strategies); i++) {
        struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
        struct fake_pair p;

        fake_pair_init(&p, &frantic);
        p.sp.limits = (struct mig_limits){
            .downtime_ns = 1, .timeout_ns = 300000000, .strategy = strategies[i]};
        fake_move_over(&p, link);
        fake_pair_run(&p);
        assert_int_equal(p.src_rc, strategies[i] == MIG_TIMEOUT_CANCEL ? -ETIMEDOUT : 0);
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

/* timeout_s is for all of it: nothing to send yet, and time is up. */
static void test_time_counts_from_the_beginning(void **state)
{
    static const struct fake_link_config deaf = {
        .cut = true, .stall = true, .cut_dir = FAKE_TO_DEST, .cut_at = 5};

    (void)state;
    for (int is_deaf = 0; is_deaf < 2; is_deaf++) {
        struct fake_link *link = fake_link_new(is_deaf ? &deaf : &(struct fake_link_config){0});
        struct fake_pair p;

        fake_pair_init(&p, &tiny);
        p.sp.limits.timeout_ns = 1000000000;
        p.dp.keepalive_ms = 50;
        p.to.on_op = build_slowly;
        fake_move_over(&p, link);
        fake_pair_run(&p);
        assert_int_equal(p.src_rc, -ETIMEDOUT);
        assert_string_equal(p.src_err.msg, "not done within timeout_s = 1");
        assert_int_equal(atomic_load(&p.from.calls[FAKE_OP_PAUSE]), 0);
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

static void test_switching_now_ends_the_rounds(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &frantic);
    p.sp.limits.downtime_ns = 1;
    fake_move_over(&p, link);
    fake_pair_start(&p);
    mig_source_switch_now(p.src);
    fake_pair_join(&p);
    fake_pair_check(&p);
    assert_int_equal(p.src_rc, 0);
    fake_link_free(link);
    fake_pair_release(&p);
}

static void test_state_of_any_size_travels(void **state)
{
    static const uint64_t pads[] = {0, MIB(1) - 16, MIB(1) - 15, MIB(3) + 7};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(pads); i++) {
        struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
        struct fake_pair p;

        fake_pair_init(&p, &tiny);
        p.from.state_pad = pads[i];
        fake_move_over(&p, link);
        fake_pair_run(&p);
        assert_int_equal(p.src_rc, 0);
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

/* The source goes on saving once the destination has seen a part of the state. */
static void await_stage(void *arg, enum fake_op op)
{
    struct fake_pair *p = arg;

    for (unsigned i = 0; op == FAKE_OP_SAVE && !atomic_load(&p->to.calls[FAKE_OP_STAGE]); i++) {
        if (i == 5000)
            fail_msg("no part of the state arrives while the rest is saved");
        (void)usleep(1000);
    }
}

static void test_state_arrives_while_it_is_saved(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &tiny);
    p.from.state_pad = MIB(1);
    p.from.on_op = await_stage;
    p.from.on_op_arg = &p;
    fake_move_over(&p, link);
    fake_pair_run(&p);
    assert_int_equal(p.src_rc, 0);
    assert_int_equal(p.to.loaded, 1);
    fake_link_free(link);
    fake_pair_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cut_at_any_byte_of_control_traffic_to_the_destination),
        cmocka_unit_test(test_a_cut_at_any_byte_of_control_traffic_to_the_source),
        cmocka_unit_test(test_a_cut_of_a_lane_leaves_the_guest_at_the_source),
        cmocka_unit_test(test_a_cut_under_load_with_many_lanes),
        cmocka_unit_test(test_a_link_with_delays_moves_the_guest),
        cmocka_unit_test(test_a_silent_link_is_noticed_by_both_ends),
        cmocka_unit_test(test_a_source_that_is_not_answered_says_what_may_be),
        cmocka_unit_test(test_strangers_that_say_nothing_hold_nobody_up),
        cmocka_unit_test(test_strangers_among_the_lanes_hold_nobody_up),
        cmocka_unit_test(test_a_stranger_that_says_nothing_is_turned_away),
        cmocka_unit_test(test_another_source_is_refused_at_once_and_disturbs_nothing),
        cmocka_unit_test(test_keepalives_bridge_a_long_build),
        cmocka_unit_test(test_an_operation_that_fails_leaves_the_guest_at_the_source),
        cmocka_unit_test(test_reasons_cross_the_wire),
        cmocka_unit_test(test_other_memory_at_the_destination_is_refused_in_words),
        cmocka_unit_test(test_a_guest_that_cannot_be_taken_back_is_said_to_be_stopped),
        cmocka_unit_test(test_an_aborted_socket_after_commit_is_no_abort_of_the_destination),
        cmocka_unit_test(test_a_resolution_that_fails_changes_nothing),
        cmocka_unit_test(test_what_is_decided_cannot_be_resolved),
        cmocka_unit_test_teardown(test_whatever_happens_exactly_one_runs, say_seed),
        cmocka_unit_test(test_either_end_can_cancel_in_every_operation),
        cmocka_unit_test(test_cancelling_at_any_time),
        cmocka_unit_test(test_a_guest_that_never_converges_times_out),
        cmocka_unit_test(test_time_counts_from_the_beginning),
        cmocka_unit_test(test_switching_now_ends_the_rounds),
        cmocka_unit_test(test_state_of_any_size_travels),
        cmocka_unit_test(test_state_arrives_while_it_is_saved),
    };

    return cmocka_run_group_tests_name("mig_faults", tests, NULL, NULL);
}
