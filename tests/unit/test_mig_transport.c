/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole moves over real sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fakes/fake_ends.h"
#include "tests/fakes/fake_pki.h"

static char good_dir[] = "/tmp/test_mig_transport.XXXXXX";

static int setup_tls(void **state)
{
    (void)state;
    fake_pki_make_dir(good_dir);
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
    struct fake_ends e;

    fake_ends_open(&e, url, &busy, tls_dir, tls_dir);
    e.p.sp.lanes = lanes;
    e.p.sp.keepalive_ms = e.p.dp.keepalive_ms = 1; /* all the time, between everything */
    fake_pair_run(&e.p);
    if (e.p.src_rc < 0)
        fail_msg("%s: source: %s; destination: %s", url, e.p.src_err.msg, e.p.dst_err.msg);
    assert_int_equal(e.p.src_st.encrypted, tls_dir != NULL);
    assert_int_equal(e.p.dst_st.encrypted, tls_dir != NULL);
    fake_ends_close(&e);
}

/* --- Who touches a page over TLS ------------------------------------------ */

enum {
    CALLS_MAX = 1 << 16,
};

/* Every call of both ends that gave bytes to a session, or took some from it. */
static struct {
    pthread_mutex_t lock; /* below */
    unsigned nr;
    struct call {
        const uint8_t *data;
        size_t len;
        bool writes;
    } calls[CALLS_MAX];
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note(const void *data, size_t len, bool writes)
{
    (void)pthread_mutex_lock(&watch.lock);
    if (watch.nr < CALLS_MAX)
        watch.calls[watch.nr++] = (struct call){data, len, writes};
    (void)pthread_mutex_unlock(&watch.lock);
}

int __real_SSL_write_ex(SSL *ssl, const void *data, size_t len, size_t *ret_n);
int __wrap_SSL_write_ex(SSL *ssl, const void *data, size_t len, size_t *ret_n);
int __real_SSL_read_ex(SSL *ssl, void *data, size_t len, size_t *ret_n);
int __wrap_SSL_read_ex(SSL *ssl, void *data, size_t len, size_t *ret_n);

int __wrap_SSL_write_ex(SSL *ssl, const void *data, size_t len, size_t *ret_n)
{
    int rc = __real_SSL_write_ex(ssl, data, len, ret_n);

    if (rc == 1)
        note(data, *ret_n, true);
    return rc;
}

int __wrap_SSL_read_ex(SSL *ssl, void *data, size_t len, size_t *ret_n)
{
    int rc = __real_SSL_read_ex(ssl, data, len, ret_n);

    if (rc == 1)
        note(data, *ret_n, false);
    return rc;
}

/* Bytes of the guest's memory that went into sessions from where they lie, or came out of them to there. */
static uint64_t bytes_in_place(const struct gmem *gm, bool writes)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < watch.nr; i++) {
        const struct call *c = &watch.calls[i];

        for (unsigned k = 0; k < gmem_nr_regions(gm); k++) {
            const struct gmem_region *r = gmem_region(gm, k);

            if (c->writes == writes && c->data >= r->hva && c->data + c->len <= r->hva + r->len)
                n += c->len;
        }
    }
    return n;
}

/* OpenSSL encrypts from there and decrypts to there: nobody copies a page besides. */
static void test_pages_pass_tls_without_a_buffer_between(void **state)
{
    static const struct fake_guest_config busy = {
        .len = {MIB(4), MIB(1)},
        .data_percent = 58,
        .seed = 3,
        .dirty_rate = 20000,
        .dirty_pages = 500
    };
    struct fake_ends e;

    (void)state;
    fake_ends_open(&e, "tcp:127.0.0.1:0", &busy, good_dir, good_dir);
    e.p.sp.lanes = 2;
    e.p.sp.compression = MIG_COMPRESSION_OFF;
    watch.nr = 0;
    fake_pair_run(&e.p);
    if (e.p.src_rc < 0)
        fail_msg("source: %s; destination: %s", e.p.src_err.msg, e.p.dst_err.msg);
    assert_true(watch.nr < CALLS_MAX);
    assert_true(e.p.src_st.encrypted && e.p.src_st.data_pages >= 500);
    assert_int_equal(bytes_in_place(e.p.from.gm, true), e.p.src_st.data_pages << PAGE_SHIFT_4K);
    assert_int_equal(bytes_in_place(e.p.to.gm, false), e.p.dst_st.data_pages << PAGE_SHIFT_4K);
    fake_ends_close(&e);
}

/* --- Strangers ------------------------------------------------------------ */

/* One end has a tls_dir, and the other none. */
static void move_between_strangers(bool tls_at_source, const char *source_says,
                                   const char *dest_says)
{
    static const struct fake_guest_config tiny = {.len = {KIB(512)}, .seed = 3};
    struct mig_status st;
    struct fake_ends e;

    fake_ends_open(&e, "tcp:127.0.0.1:0", &tiny, tls_at_source ? NULL : good_dir,
                   tls_at_source ? good_dir : NULL);
    fake_pair_start(&e.p);
    /* The source may be gone by now, and then nobody waits for it any longer. */
    do {
        (void)sched_yield();
        mig_progress_read(mig_dest_progress(e.p.dst), &st);
    } while (st.nr_refused == 0);
    assert_string_equal(st.err.msg, dest_says);
    fake_pair_join(&e.p);
    fake_pair_check(&e.p);
    assert_true(e.p.src_rc < 0);
    assert_string_equal(e.p.src_err.msg, source_says);
    fake_ends_close(&e);
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
    struct mig_status st;
    struct fake_ends e;
    char url[64];

    (void)snprintf(url, sizeof(url), "unix:/tmp/test_mig_hand.%d", getpid());
    fake_ends_open(&e, url, &guest, NULL, NULL);
    e.p.sp.lanes = 2;
    e.p.sp.local = true;
    fake_pair_run(&e.p);
    if (e.p.src_rc < 0)
        fail_msg("source: %s; destination: %s", e.p.src_err.msg, e.p.dst_err.msg);
    assert_int_equal(e.p.src_st.handed, e.p.dst_st.handed);
    if (shared) {
        struct stat a, b;

        /* The very same memory. */
        assert_int_equal(fstat(gmem_region(e.p.from.gm, 1)->fd, &a), 0);
        assert_int_equal(fstat(gmem_region(e.p.to.gm, 1)->fd, &b), 0);
        assert_int_equal(a.st_ino, b.st_ino);
    }
    st = e.p.src_st;
    fake_ends_close(&e);
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
        cmocka_unit_test(test_pages_pass_tls_without_a_buffer_between),
        cmocka_unit_test(test_one_end_without_tls_is_told_so),
        cmocka_unit_test(test_shared_memory_is_handed_over_on_one_host),
    };

    return cmocka_run_group_tests_name("mig_transport", tests, setup_tls, teardown_tls);
}
