/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that never answers again: who is cancelled does not wait for it, wherever he is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "core/loop.h"
#include "tests/fakes/fake_link.h"
#include "tests/fakes/fake_pair.h"

enum {
    FOR_EVER_MS = 600000, /* every limit of the engines */
    LONG_S = 60,          /* what no machine takes for what waits for nobody */
    TRICKLE_MS = 50,
    NAP_NS = 20000000, /* for an end to get to its wait; less is harmless */
    LAST = sizeof(struct mig_msg_hdr) + sizeof(struct mig_msg_hdr) + sizeof(struct mig_times_wire),
};

static const struct fake_guest_config tiny = {.len = {KIB(256)}, .data_percent = 50, .seed = 9};

static void connect_pair(struct fake_pair *p, struct fake_link *link)
{
    fake_pair_init(p, &tiny);
    p->sp.open = fake_link_connect;
    p->dp.open = fake_link_accept;
    p->dest_ended = fake_link_stop_listening;
    p->sp.open_arg = p->dp.open_arg = link;
    p->dp.open_fd = fake_link_fd(link);
    p->sp.idle_ms = p->dp.idle_ms = FOR_EVER_MS;
    p->sp.hello_ms = p->dp.hello_ms = FOR_EVER_MS;
    p->sp.last_word_ms = p->dp.last_word_ms = FOR_EVER_MS;
    p->dp.accept_ms = FOR_EVER_MS;
}

static void nap(void)
{
    const struct timespec ts = {.tv_nsec = NAP_NS};

    (void)nanosleep(&ts, NULL);
}

static void must_be_prompt(uint64_t since_ns)
{
    assert_true(loop_now_ns() - since_ns < (uint64_t)LONG_S * 1000000000);
}

/* --- The link stalls ------------------------------------------------------ */

static uint64_t bytes_to_source(void)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;
    uint64_t n;

    connect_pair(&p, link);
    fake_pair_run(&p);
    assert_int_equal(p.src_rc, 0);
    n = fake_link_bytes(link, 0, FAKE_TO_SOURCE);
    fake_link_free(link);
    fake_pair_release(&p);
    return n;
}

static void test_both_ends_are_cancelled_while_nothing_comes(void **state)
{
    uint64_t total = bytes_to_source();

    (void)state;
    /* LOADED does not come whole: COMMIT is never out. */
    for (uint64_t at = 0; at <= total - LAST; at += sizeof(struct mig_msg_hdr)) {
        struct fake_link_config cfg = {
            .cut = true, .cut_dir = FAKE_TO_SOURCE, .cut_at = at, .stall = true};
        struct fake_link *link = fake_link_new(&cfg);
        struct fake_pair p;
        uint64_t begin;

        connect_pair(&p, link);
        fake_pair_start(&p);
        nap();
        begin = loop_now_ns();
        assert_int_equal(mig_source_cancel(p.src, NULL), 0);
        assert_int_equal(mig_dest_cancel(p.dst), 0);
        fake_pair_join(&p);
        must_be_prompt(begin);
        /* Or as the other end's word, or the link, had it. */
        assert_true(p.src_rc < 0);
        assert_true(p.dst_rc < 0);
        fake_pair_check(&p);
        fake_link_free(link);
        fake_pair_release(&p);
    }
}

/* --- The destination takes a little now and then ---------------------------- */

static void test_a_slow_destination_does_not_keep_a_stopped_guest(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){.delay_ms = TRICKLE_MS});
    struct fake_pair p;
    uint64_t begin;

    (void)state;
    connect_pair(&p, link);
    p.from.state_pad = MIB(48); /* at a piece in TRICKLE_MS: longer than anybody is patient */
    p.sp.loaded_ms = p.sp.last_word_ms = 1;
    begin = loop_now_ns();
    fake_pair_run(&p);
    must_be_prompt(begin);
    assert_int_equal(p.src_rc, -ETIMEDOUT);
    assert_non_null(strstr(p.src_err.msg, "sending STATE: no answer from the peer in time"));
    assert_true(p.from.running);
    fake_link_free(link);
    fake_pair_release(&p);
}

/* --- A lane that does not come about -------------------------------------- */

struct opener {
    struct fake_link *link;
    unsigned nr;      /* connections */
    int lane_rc;      /* how waiting for the lane ended */
    int lane_fd;      /* owned; a lane's; -1: none yet */
    atomic_bool lost; /* it was ended */
};

static int connect_but_no_lane(void *arg, const struct mig_wait *wait, struct mig_channel **ret_ch,
                               struct err *err)
{
    struct opener *o = arg;

    if (o->nr++ == 0)
        return fake_link_connect(o->link, wait, ret_ch, err);
    o->lane_rc = mig_channel_wait_fd(-1, 0, wait, loop_now_ns());
    return err_set(err, o->lane_rc, "no lane");
}

static void test_a_source_is_cancelled_while_it_connects_a_lane(void **state)
{
    struct opener o = {.link = fake_link_new(&(struct fake_link_config){0}), .lane_rc = 1};
    struct fake_pair p;

    (void)state;
    connect_pair(&p, o.link);
    p.sp.open = connect_but_no_lane;
    p.sp.open_arg = &o;
    fake_pair_start(&p);
    nap();
    assert_int_equal(mig_source_cancel(p.src, "the guest reboots"), 0);
    assert_int_equal(mig_source_cancel(p.src, NULL), 0);
    fake_pair_join(&p);
    assert_int_equal(p.src_rc, -ECANCELED);
    assert_string_equal(p.src_err.msg, "the guest reboots");
    assert_true(o.lane_rc == 1 || o.lane_rc == -ECANCELED);
    fake_pair_check(&p);
    fake_link_free(o.link);
    fake_pair_release(&p);
}

/* --- Who waits for the reason of a lane's end ------------------------------ */

static int connect_and_keep_lane(void *arg, const struct mig_wait *wait,
                                 struct mig_channel **ret_ch, struct err *err)
{
    struct opener *o = arg;
    int rc = fake_link_connect(o->link, wait, ret_ch, err);

    if (rc >= 0 && o->nr++ == 1)
        o->lane_fd = dup(mig_channel_fd(*ret_ch));
    return rc;
}

static void lose_lane(void *arg, enum fake_op op)
{
    struct opener *o = arg;

    if (op != FAKE_OP_PAUSE)
        return;
    (void)shutdown(o->lane_fd, SHUT_RDWR);
    atomic_store(&o->lost, true);
}

static void cancel_while_a_reason_is_waited_for(bool dest)
{
    struct opener o = {.link = fake_link_new(&(struct fake_link_config){0}), .lane_fd = -1};
    struct fake_pair p;
    uint64_t begin;

    connect_pair(&p, o.link);
    p.sp.open = connect_and_keep_lane;
    p.sp.open_arg = &o;
    p.from.on_op = lose_lane;
    p.from.on_op_arg = &o;
    fake_pair_start(&p);
    while (!atomic_load(&o.lost))
        nap();
    nap();
    begin = loop_now_ns();
    assert_int_equal(dest ? mig_dest_cancel(p.dst) : mig_source_cancel(p.src, NULL), 0);
    fake_pair_join(&p);
    must_be_prompt(begin);
    assert_int_equal(dest ? p.dst_st.result : p.src_st.result, MIG_RESULT_CANCELLED);
    fake_pair_check(&p);
    (void)close(o.lane_fd);
    fake_link_free(o.link);
    fake_pair_release(&p);
}

static void test_either_end_is_cancelled_while_it_waits_for_a_reason(void **state)
{
    (void)state;
    cancel_while_a_reason_is_waited_for(false);
    cancel_while_a_reason_is_waited_for(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_slow_destination_does_not_keep_a_stopped_guest),
        cmocka_unit_test(test_both_ends_are_cancelled_while_nothing_comes),
        cmocka_unit_test(test_a_source_is_cancelled_while_it_connects_a_lane),
        cmocka_unit_test(test_either_end_is_cancelled_while_it_waits_for_a_reason),
    };

    return cmocka_run_group_tests_name("mig_cancel", tests, NULL, NULL);
}
