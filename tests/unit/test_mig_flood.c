/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that never pauses: whoever reads from it never waits, and yet can be cancelled, and looks
 * at the clock.  What it sends is there before it is read, so that no machine is too fast for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/mig_ctl.h"
#include "migration/mig_receiver.h"
#include "tests/fakes/fake_ends.h"
#include "tests/fakes/fake_guest.h"

enum {
    KEEPALIVES = 100,
};

static const struct mig_wait patient = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 20000};

static void put(struct mig_channel *ch, enum mig_msg type, const void *body, size_t len)
{
    struct mig_msg_hdr hdr = mig_hdr_make(type, len);

    assert_int_equal(mig_channel_write(ch, &hdr, sizeof(hdr), &patient, NULL), 0);
    assert_int_equal(mig_channel_write(ch, body, len, &patient, NULL), 0);
}

static void test_keepalives_prolong_nothing_and_can_be_cancelled(void **state)
{
    struct mig_ctl_params cp = {.fsm = &mig_dest_fsm, .cancel_fd = eventfd(0, EFD_CLOEXEC)};
    struct mig_channel *peer, *mine;
    struct mig_message msg;
    struct err err = {0};
    struct mig_ctl *ctl;
    uint8_t hello[sizeof(struct mig_hello_hdr)] = {0};

    (void)state;
    fake_ends_channels(&peer, &mine);
    assert_int_equal(mig_ctl_new(mine, &cp, &ctl), 0);
    for (unsigned i = 0; i < KEEPALIVES; i++)
        put(peer, MIG_MSG_KEEPALIVE, "", 0);
    put(peer, MIG_MSG_HELLO, hello, sizeof(hello));
    /* Long past. */
    assert_int_equal(mig_ctl_recv(ctl, 1, &msg, NULL), -EAGAIN);
    assert_int_equal(eventfd_write(cp.cancel_fd, 1), 0);
    assert_int_equal(mig_ctl_recv(ctl, 0, &msg, &err), -ECANCELED);
    assert_string_equal(err.msg, "cancelled");
    mig_ctl_past_cancel(ctl);
    assert_int_equal(mig_ctl_recv(ctl, 0, &msg, NULL), 0);
    assert_int_equal(msg.type, MIG_MSG_HELLO);
    mig_ctl_free(ctl, 0);
    mig_channel_close(peer);
    (void)close(cp.cancel_fd);
}

static int round_done(void *arg, uint32_t round, struct err *err)
{
    (void)arg;
    (void)round;
    (void)err;
    return 0;
}

static void failed(void *arg)
{
    (void)arg;
}

/* One page that is zero. */
static void put_page(struct mig_channel *ch)
{
    struct {
        struct mig_pages_hdr hdr;
        struct mig_run_wire run;
    } body = {.hdr = {.nr_runs = le32_make(1)}, .run = {.nr = le32_make(1)}};

    put(ch, MIG_MSG_PAGES, &body, sizeof(body));
}

struct receiving {
    struct fake_guest guest;
    struct mig_counters counters;
    struct mig_channel *peer, *mine;
    struct mig_receiver *r;
};

static void receiving_init(struct receiving *v, uint32_t idle_ms)
{
    static const struct fake_guest_config tiny = {.len = {KIB(512)}, .seed = 3};
    struct mig_receiver_params rp = {.counters = &v->counters,
                                     .nr_lanes = 1,
                                     .cancel_fd = -1,
                                     .idle_ms = idle_ms,
                                     .round_done = round_done,
                                     .failed = failed};

    *v = (struct receiving){0};
    fake_guest_start(&v->guest, &tiny);
    rp.gm = v->guest.gm;
    assert_int_equal(mig_layout_of(v->guest.gm, &rp.layout, NULL), 0);
    fake_ends_channels(&v->peer, &v->mine);
    assert_int_equal(mig_receiver_new(&rp, &v->r), 0);
}

static void receiving_release(struct receiving *v)
{
    mig_receiver_free(v->r);
    mig_channel_close(v->peer);
    fake_guest_release(&v->guest);
}

static void test_a_lane_that_is_always_full_ends(void **state)
{
    struct receiving v;

    (void)state;
    receiving_init(&v, 20000);
    for (unsigned i = 0; i < 100; i++)
        put_page(v.peer);
    mig_receiver_quit(v.r);
    assert_int_equal(mig_receiver_add_lane(v.r, v.mine, 0, NULL), 0);
    put(v.peer, MIG_MSG_ROUND_END, &(struct mig_round_end_wire){.flags = le32_make(MIG_ROUND_LAST)},
        sizeof(struct mig_round_end_wire));
    receiving_release(&v);
    assert_int_equal(atomic_load(&v.counters.zero_pages), 0);
}

/* docs/migration-protocol.md 7: "silence [...] inside a message of a lane", and its head is that. */
static void test_a_lane_that_falls_silent_inside_of_a_head_is_dead(void **state)
{
    struct mig_msg_hdr hdr = mig_hdr_make(MIG_MSG_PAGES, 16 + 24);
    struct receiving v;
    struct err err = {0};

    (void)state;
    receiving_init(&v, 50);
    assert_int_equal(mig_channel_write(v.peer, &hdr, 3, &patient, NULL), 0);
    assert_int_equal(mig_receiver_add_lane(v.r, v.mine, 0, NULL), 0);
    assert_int_equal(mig_receiver_wait_last(v.r, 20000, &err), -ETIMEDOUT);
    assert_string_equal(err.msg, "lane 0: no answer from the peer for 50 ms");
    receiving_release(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keepalives_prolong_nothing_and_can_be_cancelled),
        cmocka_unit_test(test_a_lane_that_is_always_full_ends),
        cmocka_unit_test(test_a_lane_that_falls_silent_inside_of_a_head_is_dead),
    };

    return cmocka_run_group_tests_name("mig_flood", tests, NULL, NULL);
}
