/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "core/loop.h"
#include "migration/mig_channel_internal.h"
#include "migration/mig_dial.h"
#include "tests/fakes/fake_pki.h"

static const struct mig_wait patient = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 20000};

/* --- Pairs of channels --------------------------------------------------- */

struct ends {
    struct mig_channel *a, *b;
};

static void make_pair(struct ends *e)
{
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    assert_int_equal(mig_channel_from_fd(fd[0], &e->a), 0);
    assert_int_equal(mig_channel_from_fd(fd[1], &e->b), 0);
}

static void close_pair(struct ends *e)
{
    mig_channel_close(e->a);
    mig_channel_close(e->b);
}

static void test_pieces_arrive_in_order(void **state)
{
    char x[3] = "abc", y[5] = "defgh", in[8];
    struct iovec out[] = {
        {x, 3},
        {x, 0},
        {y, 5},
    };
    struct iovec pieces[] = {
        {in,     1},
        {in + 1, 0},
        {in + 1, 7},
    };
    struct ends e;

    (void)state;
    make_pair(&e);
    assert_int_equal(mig_channel_writev(e.a, out, 3, &patient, NULL), 0);
    assert_int_equal(mig_channel_readv(e.b, pieces, 3, &patient, NULL), 0);
    assert_memory_equal(in, "abcdefgh", 8);
    close_pair(&e);
}

static void test_waits_end_by_cancel_wake_deadline_and_silence(void **state)
{
    int fd = eventfd(1, EFD_CLOEXEC);
    struct mig_wait cancel = {.cancel_fd = fd, .wake_fd = -1};
    struct mig_wait wake = {.cancel_fd = -1, .wake_fd = fd};
    struct mig_wait deadline = {
        .cancel_fd = -1, .wake_fd = -1, .deadline_ns = loop_now_ns() + 20000000};
    struct mig_wait idle = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 20};
    static char big[1 << 22];
    struct ends e;
    char c;

    (void)state;
    make_pair(&e);
    assert_int_equal(mig_channel_read_some(e.a, &c, 1, &cancel, NULL), -ECANCELED);
    assert_int_equal(mig_channel_read_some(e.a, &c, 1, &wake, NULL), -EAGAIN);
    assert_int_equal(mig_channel_read_some(e.a, &c, 1, &deadline, NULL), -ETIMEDOUT);
    assert_int_equal(mig_channel_read_some(e.a, &c, 1, &idle, NULL), -ETIMEDOUT);
    /* In the middle of a blocked write, too. */
    assert_int_equal(mig_channel_write(e.a, big, sizeof(big), &idle, NULL), -ETIMEDOUT);
    close_pair(&e);
    make_pair(&e);
    assert_int_equal(mig_channel_write(e.a, big, sizeof(big), &cancel, NULL), -ECANCELED);
    close_pair(&e);
    (void)close(fd);
}

enum {
    SLOW_NS = 2000000000, /* how long the slow peer is slow */
    SLOW_PIECE = 256,     /* bytes each 10 ms */
};

/* Two ends of a TCP connection: the first has a big buffer, the second a small one. */
static void make_lopsided_pair(struct ends *e)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int small = 4096, big = 1 << 20;
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sin);

    assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    assert_int_equal(setsockopt(a, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big)), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&sin, &len), 0);
    assert_int_equal(connect(a, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(mig_channel_from_fd(a, &e->a), 0);
    assert_int_equal(mig_channel_from_fd(accept(listener, NULL, NULL), &e->b), 0);
    (void)close(listener);
}

static void *read_slowly(void *arg)
{
    static char buf[1 << 16];
    const struct timespec nap = {.tv_nsec = 10000000};
    uint64_t end_ns = loop_now_ns() + SLOW_NS;
    struct mig_channel *ch = arg;
    bool slow;

    do {
        slow = loop_now_ns() < end_ns;
        if (slow)
            (void)nanosleep(&nap, NULL);
    } while (mig_channel_read_some(ch, buf, slow ? SLOW_PIECE : sizeof(buf), &patient, NULL) > 0);
    return NULL;
}

/* The kernel calls a socket writable only when a third of its buffer is free. */
static void test_a_peer_that_takes_little_is_not_dead(void **state)
{
    struct mig_wait idle = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 800};
    static char big[1 << 22];
    struct err err = {0};
    pthread_t reader;
    struct ends e;
    int rc;

    (void)state;
    make_lopsided_pair(&e);
    assert_int_equal(pthread_create(&reader, NULL, read_slowly, e.b), 0);
    rc = mig_channel_write(e.a, big, sizeof(big), &idle, &err);
    mig_channel_close(e.a);
    assert_int_equal(pthread_join(reader, NULL), 0);
    mig_channel_close(e.b);
    if (rc < 0)
        fail_msg("%s", err.msg);
}

static void test_a_peer_that_takes_nothing_is_dead(void **state)
{
    struct mig_wait idle = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 200};
    static char big[1 << 22];
    struct ends e;

    (void)state;
    make_lopsided_pair(&e);
    assert_int_equal(mig_channel_write(e.a, big, sizeof(big), &idle, NULL), -ETIMEDOUT);
    close_pair(&e);
}

static void test_a_peer_that_closes_is_an_error_and_no_signal(void **state)
{
    struct err err = {0};
    struct ends e;
    char c = 0;

    (void)state;
    make_pair(&e);
    mig_channel_close(e.b);
    assert_int_equal(mig_channel_read(e.a, &c, 1, &patient, &err), -ECONNRESET);
    assert_string_equal(err.msg, "the peer closed the connection");
    assert_int_equal(mig_channel_write(e.a, &c, 1, &patient, NULL), -EPIPE);
    mig_channel_close(e.a);
}

/* Who reads late, from a socket that was aborted meanwhile, still gets what was written last. */
static void test_the_last_word_is_waited_for_and_its_reader_is_not(void **state)
{
    enum {
        LONG_MS = 60000
    };
    const uint64_t begin = loop_now_ns();
    struct mig_channel *mine, *peer;
    struct mig_dial dial = {0};
    struct mig_listener *ls;
    char word[4], c = 0;

    (void)state;
    assert_int_equal(mig_url_parse("tcp:127.0.0.1:0", &dial.url, NULL), 0);
    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    assert_int_equal(mig_url_parse(mig_listener_url(ls).s, &dial.url, NULL), 0);
    assert_int_equal(mig_connect(&dial, &patient, &mine, NULL), 0);
    assert_int_equal(mig_accept(ls, &patient, &peer, NULL), 0);
    mig_listener_close(ls);
    assert_int_equal(mig_channel_write(peer, &c, 1, &patient, NULL), 0);
    assert_int_equal(mig_channel_write(mine, "word", 4, &patient, NULL), 0);
    mig_channel_linger(mine, LONG_MS);
    assert_true(loop_now_ns() - begin < (uint64_t)LONG_MS * 1000000);
    mig_channel_close(mine);
    /* Nobody is there for this: the answer is a reset. */
    assert_int_equal(mig_channel_write(peer, &c, 1, &patient, NULL), 0);
    assert_int_equal(mig_channel_wait_fd(mig_channel_fd(peer), POLLIN, &patient, begin), 0);
    assert_int_equal(mig_channel_read(peer, word, 4, &patient, NULL), 0);
    assert_memory_equal(word, "word", 4);
    assert_true(mig_channel_read(peer, &c, 1, &patient, NULL) < 0);
    mig_channel_close(peer);
}

/* --- Pages by reference --------------------------------------------------- */

enum {
    PAGES_HEAD = 24,
    PAGES_LEN = 3 << 20, /* more than a pipe holds */
};

static bool no_pipes;

int __real_pipe2(int fds[2], int flags);
int __wrap_pipe2(int fds[2], int flags);

int __wrap_pipe2(int fds[2], int flags)
{
    if (no_pipes) {
        errno = EMFILE;
        return -1;
    }
    return __real_pipe2(fds, flags);
}

static uint8_t *new_memory(size_t len)
{
    uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 31 + i / 4096);
    return p;
}

static void *read_all(void *arg)
{
    static uint8_t in[PAGES_HEAD + PAGES_LEN];

    if (mig_channel_read(arg, in, sizeof(in), &patient, NULL) < 0)
        return NULL;
    return in;
}

static void check_pages_arrive(struct ends *e)
{
    uint8_t *p = new_memory(PAGES_LEN);
    char head[PAGES_HEAD] = "head";
    /* Three runs, neither in order nor of whole pipes. */
    struct iovec iov[] = {
        {head,                 PAGES_HEAD             },
        {p + 8192,             PAGES_LEN - 8192 - 4096},
        {p,                    8192                   },
        {p + PAGES_LEN - 4096, 4096                   },
    };
    pthread_t reader;
    void *got;

    assert_int_equal(pthread_create(&reader, NULL, read_all, e->b), 0);
    assert_int_equal(mig_channel_write_pages(e->a, iov, 4, PAGES_LEN, &patient, NULL), 0);
    assert_int_equal(pthread_join(reader, &got), 0);
    assert_non_null(got);
    assert_memory_equal(got, head, PAGES_HEAD);
    got = (uint8_t *)got + PAGES_HEAD;
    assert_memory_equal(got, p + 8192, PAGES_LEN - 8192 - 4096);
    assert_memory_equal((uint8_t *)got + PAGES_LEN - 8192 - 4096, p, 8192);
    assert_memory_equal((uint8_t *)got + PAGES_LEN - 4096, p + PAGES_LEN - 4096, 4096);
    assert_int_equal(munmap(p, PAGES_LEN), 0);
}

static void test_pages_arrive_whole_and_in_order(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct ends e;

        no_pipes = i % 2;
        if (i < 2)
            make_pair(&e);
        else
            make_lopsided_pair(&e);
        check_pages_arrive(&e);
        close_pair(&e);
    }
    no_pipes = false;
}

/* What the peer reads of a page that changed after it was written. */
static uint8_t read_after_a_change(bool with_pipe)
{
    uint8_t *p = new_memory(65536), in[PAGES_HEAD + 65536];
    char head[PAGES_HEAD] = {0};
    struct iovec iov[] = {
        {head, PAGES_HEAD},
        {p,    65536     },
    };
    struct ends e;

    no_pipes = !with_pipe;
    make_pair(&e);
    assert_int_equal(mig_channel_write_pages(e.a, iov, 2, 65536, &patient, NULL), 0);
    p[5000] = 0xee;
    assert_int_equal(mig_channel_read(e.b, in, sizeof(in), &patient, NULL), 0);
    close_pair(&e);
    no_pipes = false;
    assert_int_equal(munmap(p, 65536), 0);
    return in[PAGES_HEAD + 5000];
}

static void test_pages_are_not_copied_where_there_is_a_pipe(void **state)
{
    (void)state;
    assert_int_equal(read_after_a_change(true), 0xee);
    assert_int_not_equal(read_after_a_change(false), 0xee);
}

static void test_pages_end_by_cancel_silence_and_a_peer_that_closes(void **state)
{
    uint8_t *p = new_memory(8 << 20);
    int fd = eventfd(1, EFD_CLOEXEC);
    struct mig_wait cancel = {.cancel_fd = fd, .wake_fd = -1};
    struct mig_wait idle = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 50};
    const struct mig_wait *waits[] = {&cancel, &idle, &patient};
    static const int expected[] = {-ECANCELED, -ETIMEDOUT, -EPIPE};

    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < ARRAY_LEN(waits); i++) {
        char head[PAGES_HEAD] = {0};
        struct iovec iov[] = {
            {head, PAGES_HEAD},
            {p,    8 << 20   },
        };
        struct ends e;

        make_pair(&e);
        if (expected[i] == -EPIPE) {
            mig_channel_close(e.b);
            iov[0].iov_len = 0; /* the pages are what meets it */
        }
        assert_int_equal(mig_channel_write_pages(e.a, iov, 2, 8 << 20, waits[i], NULL),
                         expected[i]);
        mig_channel_close(e.a);
        if (expected[i] != -EPIPE)
            mig_channel_close(e.b);
    }
    (void)signal(SIGPIPE, SIG_DFL);
    (void)close(fd);
    assert_int_equal(munmap(p, 8 << 20), 0);
}

static void test_a_unix_socket_is_private_and_goes_away(void **state)
{
    struct mig_dial dial = {.url = {.is_unix = true}};
    struct mig_listener *ls;
    struct mig_channel *ch;
    struct stat st;

    (void)state;
    (void)snprintf(dial.url.path, sizeof(dial.url.path), "/tmp/test_mig_channel.%d", getpid());
    assert_int_equal(mig_connect(&dial, &patient, &ch, NULL), -ENOENT);
    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    assert_int_equal(stat(dial.url.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(mig_connect(&dial, &patient, &ch, NULL), 0);
    mig_channel_close(ch);
    mig_listener_close(ls);
    assert_int_equal(stat(dial.url.path, &st), -1);
}

/* A destination that was killed must not be in the way of the next one; a living one must. */
static void test_a_unix_socket_that_was_left_over_is_replaced(void **state)
{
    struct mig_dial dial = {.url = {.is_unix = true}};
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct mig_listener *ls, *second;
    struct mig_channel *ch;
    struct err err = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    (void)snprintf(dial.url.path, sizeof(dial.url.path), "/tmp/test_mig_left.%d", getpid());
    memcpy(sun.sun_path, dial.url.path, sizeof(sun.sun_path));
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    assert_int_equal(mig_listen(&dial, &second, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, dial.url.path));
    assert_int_equal(mig_connect(&dial, &patient, &ch, NULL), 0);
    mig_channel_close(ch);
    mig_listener_close(ls);

    /* What is no socket is somebody's file. */
    fd = open(dial.url.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    err = (struct err){0};
    assert_int_equal(mig_listen(&dial, &ls, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "is there and is not a socket"));
    assert_int_equal(unlink(dial.url.path), 0);
}

/* --- TLS ----------------------------------------------------------------- */

struct tls_case {
    const char *server_dir, *client_dir, *host;
    struct mig_listener *ls;
    struct mig_tls *tls; /* the server's */
    int server_rc, client_rc;
    struct err server_err, client_err;
};

/* What the two ends' processors have; the suite that they agree on. */
static bool server_aes = true, client_aes = true;
static char suite[64];

static char good_dir[64], other_dir[64], name_dir[64], swapped_dir[64];

static void make_dir(char *dir)
{
    (void)snprintf(dir, 64, "/tmp/test_mig_tls.XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static int setup_tls(void **state)
{
    struct fake_pki *pki = fake_pki_new("good CA"), *other = fake_pki_new("other CA");

    (void)state;
    make_dir(good_dir);
    make_dir(other_dir);
    make_dir(name_dir);
    make_dir(swapped_dir);
    fake_pki_write_dir(pki, good_dir);
    fake_pki_write_dir(other, other_dir);
    fake_pki_write_dir(pki, name_dir);
    fake_pki_write_cert(pki, name_dir, "server",
                        "DNS:elsewhere.example.org,IP:192.0.2.7,IP:fe80::7");
    /* Of the right CA, by which the client alone is not convinced: trusts the other. */
    fake_pki_write_dir(pki, swapped_dir);
    fake_pki_write_cert(other, swapped_dir, "client", "DNS:source");
    fake_pki_free(pki);
    fake_pki_free(other);
    return 0;
}

static int teardown_tls(void **state)
{
    (void)state;
    fake_pki_remove_dir(good_dir);
    fake_pki_remove_dir(other_dir);
    fake_pki_remove_dir(name_dir);
    fake_pki_remove_dir(swapped_dir);
    return 0;
}

/* Take a connection and shake hands, as a destination does. */
static int accept_tls(struct mig_listener *ls, struct mig_tls *tls, struct mig_channel **ret_ch,
                      struct err *err)
{
    struct mig_channel *ch;
    int rc = mig_accept(ls, &patient, &ch, err);

    if (rc >= 0)
        rc = mig_channel_start_tls(ch, tls, NULL, &patient, err);
    if (rc < 0) {
        mig_channel_linger(ch, 100);
        mig_channel_close(ch);
        return rc;
    }
    *ret_ch = ch;
    return 0;
}

static void *tls_server(void *arg)
{
    struct tls_case *c = arg;
    struct mig_channel *ch;
    char buf[5];

    c->server_rc = accept_tls(c->ls, c->tls, &ch, &c->server_err);
    if (c->server_rc < 0)
        return NULL;
    c->server_rc = mig_channel_read(ch, buf, sizeof(buf), &patient, &c->server_err);
    if (c->server_rc >= 0)
        c->server_rc = mig_channel_write(ch, buf, sizeof(buf), &patient, &c->server_err);
    mig_channel_linger(ch, 1000);
    mig_channel_close(ch);
    return NULL;
}

/* Client and server, each with its certificates; a word there and back. */
static void run_tls(struct tls_case *c)
{
    struct mig_tls *server, *client;
    struct mig_dial dial = {0};
    struct mig_channel *ch;
    char buf[5] = "";
    pthread_t thread;

    assert_int_equal(mig_tls_new(c->server_dir, MIG_TLS_SERVER, &server, NULL), 0);
    assert_int_equal(mig_tls_new(c->client_dir, MIG_TLS_CLIENT, &client, NULL), 0);
    assert_int_equal(mig_tls_order_suites(server, server_aes, NULL), 0);
    assert_int_equal(mig_tls_order_suites(client, client_aes, NULL), 0);
    assert_int_equal(mig_url_parse("tcp:127.0.0.1:0", &dial.url, NULL), 0);
    dial.tls = c->tls = server;
    assert_int_equal(mig_listen(&dial, &c->ls, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, tls_server, c), 0);
    (void)snprintf(dial.url.port, sizeof(dial.url.port), "%u", mig_listener_port(c->ls) & 0xffff);
    (void)snprintf(dial.url.host, sizeof(dial.url.host), "%s", c->host);
    dial.tls = client;
    c->client_rc = mig_connect(&dial, &patient, &ch, &c->client_err);
    if (c->client_rc >= 0) {
        assert_true(mig_channel_is_encrypted(ch));
        (void)snprintf(suite, sizeof(suite), "%s", mig_tls_stream_suite(ch->stream));
        c->client_rc = mig_channel_write(ch, "hello", 5, &patient, &c->client_err);
        if (c->client_rc >= 0)
            c->client_rc = mig_channel_read(ch, buf, sizeof(buf), &patient, &c->client_err);
        if (c->client_rc >= 0)
            assert_memory_equal(buf, "hello", 5);
        mig_channel_close(ch);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    mig_listener_close(c->ls);
    mig_tls_free(server);
    mig_tls_free(client);
}

static void test_tls_with_the_right_certificates(void **state)
{
    struct tls_case by_address = {good_dir, good_dir, "127.0.0.1", NULL, NULL, 0, 0, {0}, {0}};
    struct tls_case by_name = {good_dir, good_dir, "localhost", NULL, NULL, 0, 0, {0}, {0}};

    (void)state;
    run_tls(&by_address);
    assert_int_equal(by_address.server_rc, 0);
    assert_int_equal(by_address.client_rc, 0);
    run_tls(&by_name);
    assert_int_equal(by_name.server_rc, 0);
    assert_int_equal(by_name.client_rc, 0);
}

static void test_tls_takes_the_suite_that_both_processors_are_fast_at(void **state)
{
    static const struct {
        bool server, client;
        const char *suite;
    } rows[] = {
        {true,  true,  "TLS_AES_256_GCM_SHA384"      },
        {true,  false, "TLS_CHACHA20_POLY1305_SHA256"},
        {false, true,  "TLS_CHACHA20_POLY1305_SHA256"},
        {false, false, "TLS_CHACHA20_POLY1305_SHA256"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_case c = {good_dir, good_dir, "127.0.0.1", NULL, NULL, 0, 0, {0}, {0}};

        server_aes = rows[i].server;
        client_aes = rows[i].client;
        run_tls(&c);
        assert_int_equal(c.client_rc, 0);
        assert_int_equal(c.server_rc, 0);
        assert_string_equal(suite, rows[i].suite);
    }
    server_aes = client_aes = true;
}

/* A server for one connection after the other, each of which says a word and gets it back. */
struct words {
    struct mig_listener *ls;
    struct mig_tls *tls;
    pthread_t thread;
    unsigned nr;    /* connections */
    unsigned offer; /* bit i: at connection i it offers resumption */
    unsigned resumed;
    int rc; /* of the first connection that failed */
};

static void *serve_words(void *arg)
{
    struct words *w = arg;

    for (unsigned i = 0; i < w->nr && w->rc >= 0; i++) {
        struct mig_channel *ch;
        char buf[5];

        w->rc = accept_tls(w->ls, w->tls, &ch, NULL);
        if (w->rc < 0)
            break;
        w->resumed |= (unsigned)mig_tls_stream_resumed(ch->stream) << i;
        w->rc = mig_channel_read(ch, buf, sizeof(buf), &patient, NULL);
        if (w->offer >> i & 1)
            mig_channel_offer_resumption(ch);
        if (w->rc >= 0)
            w->rc = mig_channel_write(ch, buf, sizeof(buf), &patient, NULL);
        mig_channel_linger(ch, 1000);
        mig_channel_close(ch);
    }
    return NULL;
}

static void begin_words(struct words *w, struct mig_dial *ret_dial)
{
    struct mig_dial dial = {0};

    assert_int_equal(mig_tls_new(good_dir, MIG_TLS_SERVER, &w->tls, NULL), 0);
    assert_int_equal(mig_url_parse("tcp:127.0.0.1:0", &dial.url, NULL), 0);
    dial.tls = w->tls;
    assert_int_equal(mig_listen(&dial, &w->ls, NULL), 0);
    assert_int_equal(pthread_create(&w->thread, NULL, serve_words, w), 0);
    (void)snprintf(dial.url.port, sizeof(dial.url.port), "%u", mig_listener_port(w->ls) & 0xffff);
    *ret_dial = dial;
}

static void end_words(struct words *w)
{
    assert_int_equal(pthread_join(w->thread, NULL), 0);
    assert_int_equal(w->rc, 0);
    mig_listener_close(w->ls);
    mig_tls_free(w->tls);
}

/* Return: whether the session was resumed, as the client sees it. */
static bool say_word(const struct mig_dial *dial, struct mig_tls *tls, const char *host)
{
    struct mig_dial to = *dial;
    struct mig_channel *ch;
    char buf[5];
    bool resumed;

    to.tls = tls;
    (void)snprintf(to.url.host, sizeof(to.url.host), "%s", host);
    assert_int_equal(mig_connect(&to, &patient, &ch, NULL), 0);
    resumed = mig_tls_stream_resumed(ch->stream);
    assert_int_equal(mig_channel_write(ch, "hello", 5, &patient, NULL), 0);
    assert_int_equal(mig_channel_read(ch, buf, sizeof(buf), &patient, NULL), 0);
    assert_memory_equal(buf, "hello", 5);
    mig_channel_close(ch);
    return resumed;
}

static void test_tls_of_further_connections_is_resumed_where_that_is_offered(void **state)
{
    struct words first = {.nr = 6, .offer = 1 << 1}, second = {.nr = 1};
    struct mig_tls *client;
    struct mig_dial dial;

    (void)state;
    assert_int_equal(mig_tls_new(good_dir, MIG_TLS_CLIENT, &client, NULL), 0);
    begin_words(&first, &dial);
    assert_false(say_word(&dial, client, "127.0.0.1"));
    assert_false(say_word(&dial, client, "127.0.0.1")); /* nothing was offered before */
    assert_true(say_word(&dial, client, "127.0.0.1"));
    assert_true(say_word(&dial, client, "127.0.0.1"));  /* and again */
    assert_false(say_word(&dial, client, "localhost")); /* whose name was not checked then */
    assert_true(say_word(&dial, client, "127.0.0.1"));
    end_words(&first);
    assert_int_equal(first.resumed, 1 << 2 | 1 << 3 | 1 << 5);

    /* Another server does not know the ticket, and shakes hands as if there were none. */
    begin_words(&second, &dial);
    assert_false(say_word(&dial, client, "127.0.0.1"));
    end_words(&second);
    mig_tls_free(client);
}

static void test_tls_refuses_the_wrong_certificates(void **state)
{
    struct tls_case wrong_ca = {other_dir, good_dir, "127.0.0.1", NULL, NULL, 0, 0, {0}, {0}};
    struct tls_case wrong_name = {name_dir, good_dir, "127.0.0.1", NULL, NULL, 0, 0, {0}, {0}};
    struct tls_case wrong_client = {good_dir, swapped_dir, "127.0.0.1", NULL, NULL, 0, 0, {0}, {0}};

    (void)state;
    run_tls(&wrong_ca);
    assert_int_equal(wrong_ca.client_rc, -EACCES);
    assert_non_null(strstr(wrong_ca.client_err.msg, "the peer's certificate is refused"));
    assert_true(wrong_ca.server_rc < 0);
    run_tls(&wrong_name);
    assert_int_equal(wrong_name.client_rc, -EACCES);
    assert_non_null(strstr(wrong_name.client_err.msg, "IP address mismatch"));
    assert_true(wrong_name.server_rc < 0);
    run_tls(&wrong_client);
    assert_int_equal(wrong_client.server_rc, -EACCES);
    assert_non_null(strstr(wrong_client.server_err.msg, "the peer's certificate is refused"));
    assert_true(wrong_client.client_rc < 0);
}

struct zone_server {
    struct mig_channel *ch;
    struct mig_tls *tls;
    struct err err;
    int rc;
};

static void *zone_server(void *arg)
{
    struct zone_server *s = arg;

    s->rc = mig_channel_start_tls(s->ch, s->tls, NULL, &patient, &s->err);
    mig_channel_linger(s->ch, 1000);
    return NULL;
}

/* What a client says to a server whose certificate is in name_dir, by a host with a zone. */
static int connect_to_zone(const char *host, struct err *err)
{
    struct zone_server s = {0};
    struct mig_tls *client;
    struct ends e;
    pthread_t thread;
    int rc;

    make_pair(&e);
    s.ch = e.b;
    assert_int_equal(mig_tls_new(name_dir, MIG_TLS_SERVER, &s.tls, NULL), 0);
    assert_int_equal(mig_tls_new(good_dir, MIG_TLS_CLIENT, &client, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, zone_server, &s), 0);
    rc = mig_channel_start_tls(e.a, client, host, &patient, err);
    mig_channel_close(e.a);
    assert_int_equal(pthread_join(thread, NULL), 0);
    mig_channel_close(e.b);
    mig_tls_free(client);
    mig_tls_free(s.tls);
    return rc;
}

/* The interface that leads to a link-local address is ours, and no part of the peer's name. */
static void test_tls_with_the_address_of_a_zone(void **state)
{
    struct err err = {0};

    (void)state;
    assert_int_equal(connect_to_zone("fe80::7%eth0", NULL), 0);
    assert_int_equal(connect_to_zone("fe80::7%3", NULL), 0);
    assert_int_equal(connect_to_zone("fe80::8%eth0", &err), -EACCES);
    assert_non_null(strstr(err.msg, "IP address mismatch"));
    assert_int_equal(connect_to_zone("192.0.2.7%eth0", NULL), -EACCES);
}

static void test_a_tls_dir_that_does_not_work_is_named(void **state)
{
    struct err err = {0};
    struct mig_tls *tls;

    (void)state;
    assert_int_equal(mig_tls_new("/nonexistent", MIG_TLS_CLIENT, &tls, &err), -EINVAL);
    assert_string_equal(err.msg, "tls_dir: /nonexistent/ca-cert.pem: No such file or directory");
}

/* A client that OpenSSL itself drives: no certificate, or an old version. */
static int foreign_client(unsigned port, int max_version, const char *dir)
{
    struct sockaddr_in sin = {.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ok;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    char path[128], c;
    SSL *ssl;

    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, max_version), 1);
    if (dir) {
        (void)snprintf(path, sizeof(path), "%s/client-cert.pem", dir);
        assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, path), 1);
        (void)snprintf(path, sizeof(path), "%s/client-key.pem", dir);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM), 1);
    }
    assert_int_equal(connect(fd, (const struct sockaddr *)&sin, sizeof(sin)), 0);
    ssl = SSL_new(ctx);
    assert_int_equal(SSL_set_fd(ssl, fd), 1);
    ok = SSL_connect(ssl) == 1 && SSL_write(ssl, "hello", 5) == 5 && SSL_read(ssl, &c, 1) == 1;
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    (void)close(fd);
    return ok;
}

static void test_the_server_takes_no_stranger_and_no_old_version(void **state)
{
    static const struct {
        int version;
        bool cert, welcome;
    } rows[] = {
        {TLS1_3_VERSION, true,  true },
        {TLS1_3_VERSION, false, false},
        {TLS1_2_VERSION, true,  false},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_case c = {good_dir, good_dir, "127.0.0.1", NULL, NULL, 0, 0, {0}, {0}};
        struct mig_dial dial = {0};
        struct mig_tls *server;
        pthread_t thread;

        assert_int_equal(mig_tls_new(good_dir, MIG_TLS_SERVER, &server, NULL), 0);
        assert_int_equal(mig_url_parse("tcp:127.0.0.1:0", &dial.url, NULL), 0);
        dial.tls = c.tls = server;
        assert_int_equal(mig_listen(&dial, &c.ls, NULL), 0);
        assert_int_equal(pthread_create(&thread, NULL, tls_server, &c), 0);
        assert_int_equal(foreign_client(mig_listener_port(c.ls), rows[i].version,
                                        rows[i].cert ? good_dir : NULL),
                         rows[i].welcome);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(c.server_rc, rows[i].welcome ? 0 : -EACCES);
        mig_listener_close(c.ls);
        mig_tls_free(server);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_arrive_in_order),
        cmocka_unit_test(test_waits_end_by_cancel_wake_deadline_and_silence),
        cmocka_unit_test(test_a_peer_that_takes_little_is_not_dead),
        cmocka_unit_test(test_a_peer_that_takes_nothing_is_dead),
        cmocka_unit_test(test_a_peer_that_closes_is_an_error_and_no_signal),
        cmocka_unit_test(test_the_last_word_is_waited_for_and_its_reader_is_not),
        cmocka_unit_test(test_pages_arrive_whole_and_in_order),
        cmocka_unit_test(test_pages_are_not_copied_where_there_is_a_pipe),
        cmocka_unit_test(test_pages_end_by_cancel_silence_and_a_peer_that_closes),
        cmocka_unit_test(test_a_unix_socket_is_private_and_goes_away),
        cmocka_unit_test(test_a_unix_socket_that_was_left_over_is_replaced),
        cmocka_unit_test(test_tls_with_the_right_certificates),
        cmocka_unit_test(test_tls_takes_the_suite_that_both_processors_are_fast_at),
        cmocka_unit_test(test_tls_of_further_connections_is_resumed_where_that_is_offered),
        cmocka_unit_test(test_tls_refuses_the_wrong_certificates),
        cmocka_unit_test(test_tls_with_the_address_of_a_zone),
        cmocka_unit_test(test_a_tls_dir_that_does_not_work_is_named),
        cmocka_unit_test(test_the_server_takes_no_stranger_and_no_old_version),
    };

    return cmocka_run_group_tests_name("mig_channel", tests, setup_tls, teardown_tls);
}
