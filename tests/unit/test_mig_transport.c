/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole moves over real sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/mig_dial.h"
#include "tests/fakes/fake_pair.h"
#include "tests/fakes/fake_pki.h"

static char good_dir[64];

static int setup_tls(void **state)
{
    struct fake_pki *pki = fake_pki_new("good CA");

    (void)state;
    (void)snprintf(good_dir, sizeof(good_dir), "/tmp/test_mig_transport.XXXXXX");
    assert_non_null(mkdtemp(good_dir));
    fake_pki_write_dir(pki, good_dir);
    fake_pki_free(pki);
    return 0;
}

static int teardown_tls(void **state)
{
    (void)state;
    fake_pki_remove_dir(good_dir);
    return 0;
}

static void move_over(const char *url, const char *tls_dir, unsigned lanes)
{
    static const struct fake_guest_config busy = {
        .len = {MIB(8), MIB(1)},
        .data_percent = 58,
        .seed = 3,
        .dirty_rate = 20000,
        .dirty_pages = 1000
    };
    struct mig_tls *server = NULL, *client = NULL;
    struct mig_dial to = {0}, at = {0};
    struct mig_listener *ls;
    struct fake_pair p;

    if (tls_dir) {
        assert_int_equal(mig_tls_new(tls_dir, MIG_TLS_SERVER, &server, NULL), 0);
        assert_int_equal(mig_tls_new(tls_dir, MIG_TLS_CLIENT, &client, NULL), 0);
    }
    assert_int_equal(mig_url_parse(url, &at.url, NULL), 0);
    to = at;
    at.tls = server;
    to.tls = client;
    assert_int_equal(mig_listen(&at, &ls, NULL), 0);
    if (!to.url.is_unix)
        (void)snprintf(to.url.port, sizeof(to.url.port), "%u", mig_listener_port(ls) & 0xffff);
    fake_pair_init(&p, &busy);
    p.sp.open = mig_open_by_connect;
    p.sp.open_arg = &to;
    p.dp.open = mig_open_by_accept;
    p.dp.open_arg = ls;
    p.dp.open_fd = mig_listener_fd(ls);
    p.dp.tls = server;
    p.sp.lanes = lanes;
    p.sp.keepalive_ms = p.dp.keepalive_ms = 1; /* all the time, between everything */
    fake_pair_run(&p);
    if (p.src_rc < 0)
        fail_msg("%s: source: %s; destination: %s", url, p.src_err.msg, p.dst_err.msg);
    assert_int_equal(p.src_st.encrypted, tls_dir != NULL);
    assert_int_equal(p.dst_st.encrypted, tls_dir != NULL);
    fake_pair_release(&p);
    mig_listener_close(ls);
    mig_tls_free(server);
    mig_tls_free(client);
}

/* One end has a tls_dir, and the other none. */
static void move_between_strangers(bool tls_at_source, const char *source_says,
                                   const char *dest_says)
{
    static const struct fake_guest_config tiny = {.len = {KIB(512)}, .seed = 3};
    struct mig_tls *server = NULL, *client = NULL;
    struct mig_dial to = {0}, at = {0};
    struct mig_listener *ls;
    struct mig_status st;
    struct fake_pair p;

    if (tls_at_source)
        assert_int_equal(mig_tls_new(good_dir, MIG_TLS_CLIENT, &client, NULL), 0);
    else
        assert_int_equal(mig_tls_new(good_dir, MIG_TLS_SERVER, &server, NULL), 0);
    assert_int_equal(mig_url_parse("tcp:127.0.0.1:0", &at.url, NULL), 0);
    at.tls = server;
    assert_int_equal(mig_listen(&at, &ls, NULL), 0);
    assert_int_equal(mig_url_parse(mig_listener_url(ls).s, &to.url, NULL), 0);
    to.tls = client;
    fake_pair_init(&p, &tiny);
    p.sp.open = mig_open_by_connect;
    p.sp.open_arg = &to;
    p.dp.open = mig_open_by_accept;
    p.dp.open_arg = ls;
    p.dp.open_fd = mig_listener_fd(ls);
    p.dp.tls = server;
    fake_pair_start(&p);
    /* The source may be gone by now, and then nobody waits for it any longer. */
    do {
        (void)sched_yield();
        mig_progress_read(mig_dest_progress(p.dst), &st);
    } while (st.nr_refused == 0);
    assert_string_equal(st.err.msg, dest_says);
    fake_pair_join(&p);
    fake_pair_check(&p);
    assert_true(p.src_rc < 0);
    assert_string_equal(p.src_err.msg, source_says);
    fake_pair_release(&p);
    mig_listener_close(ls);
    mig_tls_free(server);
    mig_tls_free(client);
}

static void test_one_end_without_tls_is_told_so(void **state)
{
    (void)state;
    move_between_strangers(false,
                           "the destination refuses: this destination speaks TLS, and the source "
                           "has no tls_dir",
                           "this destination speaks TLS, and the source has no tls_dir");
    move_between_strangers(true, "the destination speaks without TLS: tls_dir is given here only",
                           "the source speaks TLS, and this destination has no tls_dir");
}

/* Return: how the source ended.  @shared: the guest's memory is a memfd. */
static struct mig_status hand_over(bool shared)
{
    const struct fake_guest_config guest = {
        .len = {MIB(8), MIB(1)},
        .shared = shared,
        .data_percent = 58,
        .seed = 3,
        .dirty_rate = 20000,
        .dirty_pages = 1000
    };
    struct mig_dial dial = {0};
    struct mig_listener *ls;
    struct mig_status st;
    struct fake_pair p;
    char path[64];

    (void)snprintf(path, sizeof(path), "unix:/tmp/test_mig_hand.%d", getpid());
    assert_int_equal(mig_url_parse(path, &dial.url, NULL), 0);
    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    fake_pair_init(&p, &guest);
    p.sp.open = mig_open_by_connect;
    p.sp.open_arg = &dial;
    p.dp.open = mig_open_by_accept;
    p.dp.open_arg = ls;
    p.dp.open_fd = mig_listener_fd(ls);
    p.sp.lanes = 2;
    p.sp.local = true;
    fake_pair_run(&p);
    if (p.src_rc < 0)
        fail_msg("source: %s; destination: %s", p.src_err.msg, p.dst_err.msg);
    assert_int_equal(p.src_st.handed, p.dst_st.handed);
    if (shared) {
        struct stat a, b;

        /* The very same memory. */
        assert_int_equal(fstat(gmem_region(p.from.gm, 1)->fd, &a), 0);
        assert_int_equal(fstat(gmem_region(p.to.gm, 1)->fd, &b), 0);
        assert_int_equal(a.st_ino, b.st_ino);
    }
    st = p.src_st;
    fake_pair_release(&p);
    mig_listener_close(ls);
    return st;
}

static void test_shared_memory_is_handed_over_on_one_host(void **state)
{
    struct mig_status st;

    (void)state;
    st = hand_over(true);
    assert_true(st.handed);
    assert_int_equal(st.data_pages + st.zero_pages, 0);
    st = hand_over(false);
    assert_false(st.handed);
    assert_true(st.data_pages > 0);
}

static void test_guests_move_over_every_transport(void **state)
{
    char path[64];

    (void)state;
    (void)snprintf(path, sizeof(path), "unix:/tmp/test_mig_move.%d", getpid());
    for (unsigned lanes = 1; lanes <= 3; lanes++) {
        move_over(path, NULL, lanes);
        move_over("tcp:127.0.0.1:0", NULL, lanes);
        move_over("tcp:127.0.0.1:0", good_dir, lanes);
        move_over(path, NULL, lanes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guests_move_over_every_transport),
        cmocka_unit_test(test_one_end_without_tls_is_told_so),
        cmocka_unit_test(test_shared_memory_is_handed_over_on_one_host),
    };

    return cmocka_run_group_tests_name("mig_transport", tests, setup_tls, teardown_tls);
}
