/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that reads nothing: keepalives to it wait for nobody, and keep nobody waiting.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "migration/mig_ctl.h"
#include "tests/fakes/fake_ends.h"

enum {
    STILL_NS = 100000000, /* no keepalive for so long, of one each millisecond: none goes out */
};

static const struct mig_wait patient = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 20000};

/* Until the socket is so full that no keepalive is sent any more. */
static void await_silence(struct mig_channel *peer)
{
    const struct timespec nap = {.tv_nsec = STILL_NS};
    int before, now = 0;

    do {
        before = now;
        (void)nanosleep(&nap, NULL);
        assert_int_equal(ioctl(mig_channel_fd(peer), FIONREAD, &now), 0);
    } while (now == 0 || now != before);
}

/* The next message that is no keepalive.  Return: its type. */
static unsigned read_message(struct mig_channel *peer, char *body, size_t size)
{
    struct mig_msg_hdr hdr;
    size_t len;

    do {
        assert_int_equal(mig_channel_read(peer, &hdr, sizeof(hdr), &patient, NULL), 0);
    } while (le16_get(hdr.type) == MIG_MSG_KEEPALIVE);
    len = le32_get(hdr.len);
    assert_true(len < size);
    assert_int_equal(mig_channel_read(peer, body, len, &patient, NULL), 0);
    body[len] = 0;
    return le16_get(hdr.type);
}

/* There is no limit of time, and nobody cancels: who waits for a keepalive does so for ever. */
static void test_who_reads_nothing_is_told_why_we_give_up(void **state)
{
    const struct mig_ctl_params cp = {.fsm = &mig_source_fsm, .keepalive_ms = 1, .cancel_fd = -1};
    uint8_t hello[sizeof(struct mig_hello_hdr)] = {0};
    struct iovec part = {hello, sizeof(hello)};
    struct mig_channel *peer, *mine;
    struct mig_ctl *ctl;
    char body[64];

    (void)state;
    fake_ends_channels(&peer, &mine);
    assert_int_equal(mig_ctl_new(mine, &cp, &ctl), 0);
    assert_int_equal(mig_ctl_send(ctl, MIG_MSG_HELLO, &part, 1, NULL), 0);
    await_silence(peer);
    mig_ctl_abort(ctl, "enough");
    assert_int_equal(read_message(peer, body, sizeof(body)), MIG_MSG_HELLO);
    assert_int_equal(read_message(peer, body, sizeof(body)), MIG_MSG_ABORT);
    assert_string_equal(body, "enough");
    mig_ctl_free(ctl, 0);
    mig_channel_close(peer);
}

static void test_who_reads_nothing_is_left(void **state)
{
    const struct mig_ctl_params cp = {.fsm = &mig_source_fsm, .keepalive_ms = 1, .cancel_fd = -1};
    struct mig_channel *peer, *mine;
    struct mig_ctl *ctl;

    (void)state;
    fake_ends_channels(&peer, &mine);
    assert_int_equal(mig_ctl_new(mine, &cp, &ctl), 0);
    await_silence(peer);
    mig_ctl_free(ctl, 0);
    mig_channel_close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_reads_nothing_is_told_why_we_give_up),
        cmocka_unit_test(test_who_reads_nothing_is_left),
    };

    return cmocka_run_group_tests_name("mig_ctl", tests, NULL, NULL);
}
