/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination's door while everybody knocks at once: strangers who say nothing, or nonsense, or
 * go away in the middle; other sources; and somebody who cancels.  For the thread sanitizer above all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/loop.h"
#include "migration/mig_door.h"
#include "tests/fakes/fake_ends.h"
#include "tests/fakes/fake_pki.h"

enum {
    STRANGERS = 3, /* threads */
    SILENT = 20,   /* connections of each; with all of them there is room for the source's */
    MOVES = 9,
    TURNED_AWAY = 200, /* before there is a source */
};

static char good_dir[] = "/tmp/test_mig_door.XXXXXX";

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

struct crowd {
    struct fake_ends e;
    struct mig_dial to; /* where e.to leads, which the source notes the address in */
    const char *tls_dir;
    int over_fd; /* readable: go home */
    atomic_bool over;
    atomic_uint seed;
    atomic_uint refused; /* other sources that were told that somebody moves here */
    pthread_t strangers[STRANGERS], second;
    bool has_second;
};

/* --- Strangers ------------------------------------------------------------ */

/* A connection, perhaps; never waits. */
static int knock(const struct crowd *c)
{
    struct sockaddr_in sin = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                              .sin_port = htons((uint16_t)mig_listener_port(c->e.ls))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    (void)!connect(fd, (struct sockaddr *)&sin, sizeof(sin));
    return fd;
}

static void say(int fd, const void *data, size_t len)
{
    (void)!send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say_message(int fd, enum mig_msg type, const void *body, size_t len)
{
    struct mig_msg_hdr hdr = mig_hdr_make(type, len);

    say(fd, &hdr, sizeof(hdr));
    say(fd, body, len);
}

static void say_something(int fd, unsigned what)
{
    const struct linger reset = {.l_onoff = 1};
    struct mig_lane_wire lane = {.index = le32_make(what % 3)};

    switch (what % 6) {
    case 0: /* nothing, and goes with a crash */
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        break;
    case 1:
        say(fd, "GET / HTTP/1.1\r\n\r\n", 18);
        break;
    case 2: /* half of a head */
        say(fd, "\1\0\0", 3);
        break;
    case 3: /* a secret that is wrong */
        say_message(fd, MIG_MSG_LANE, &lane, sizeof(lane));
        break;
    case 4:
        for (unsigned i = 0; i < 20; i++)
            say_message(fd, MIG_MSG_KEEPALIVE, NULL, 0);
        break;
    default: /* TLS, and then not */
        say(fd, "\x16\x03\x01\x00\x05hello", 10);
        break;
    }
}

static void *stranger_main(void *arg)
{
    const struct timespec nap = {.tv_nsec = 500000};
    struct crowd *c = arg;
    unsigned seed = atomic_fetch_add(&c->seed, 1);
    int silent[SILENT];

    for (unsigned i = 0; i < SILENT; i++)
        silent[i] = -1;
    while (!atomic_load(&c->over)) {
        int *place = &silent[(unsigned)rand_r(&seed) % SILENT];
        int fd = knock(c);

        say_something(fd, (unsigned)rand_r(&seed));
        (void)close(fd);
        if (*place >= 0)
            (void)close(*place);
        *place = knock(c);
        (void)nanosleep(&nap, NULL);
    }
    for (unsigned i = 0; i < SILENT; i++)
        if (silent[i] >= 0)
            (void)close(silent[i]);
    return NULL;
}

/* --- Other sources -------------------------------------------------------- */

/* Whether HELLO is answered by a refusal that says why. */
static bool is_refused(struct mig_channel *ch, const struct mig_wait *wait)
{
    static const char text[] = "another VM is moving to this destination already";
    struct mig_hello h = {.version_min = MIG_VERSION,
                          .version_max = MIG_VERSION,
                          .page_size = PAGE_SIZE_4K,
                          .lanes = 1};
    uint8_t hello[64], body[4 + sizeof(text) - 1];
    struct wr w = {hello, sizeof(hello), false};
    struct mig_msg_hdr hdr;

    mig_hello_put(&h, &w);
    hdr = mig_hdr_make(MIG_MSG_HELLO, sizeof(hello) - w.left);
    if (mig_channel_write(ch, &hdr, sizeof(hdr), wait, NULL) < 0 ||
        mig_channel_write(ch, hello, sizeof(hello) - w.left, wait, NULL) < 0 ||
        mig_channel_read(ch, &hdr, sizeof(hdr), wait, NULL) < 0)
        return false; /* the door was closed meanwhile */
    assert_int_equal(le16_get(hdr.type), MIG_MSG_REFUSE);
    assert_int_equal(le32_get(hdr.len), sizeof(body));
    if (mig_channel_read(ch, body, sizeof(body), wait, NULL) < 0)
        return false;
    assert_memory_equal(body + 4, text, sizeof(text) - 1);
    return true;
}

/* As soon as there is a source. */
static void *second_main(void *arg)
{
    struct crowd *c = arg;
    const struct mig_wait wait = {.cancel_fd = c->over_fd, .wake_fd = -1};
    struct mig_dial dial = c->to;
    struct mig_status st;

    dial.tls = NULL;
    if (c->tls_dir)
        assert_int_equal(mig_tls_new(c->tls_dir, MIG_TLS_CLIENT, &dial.tls, NULL), 0);
    while (!atomic_load(&c->over)) {
        struct mig_channel *ch;

        (void)sched_yield();
        mig_progress_read(mig_dest_progress(c->e.p.dst), &st);
        if (st.phase <= MIG_PHASE_CONNECT || mig_connect(&dial, &wait, &ch, NULL) < 0)
            continue;
        if (is_refused(ch, &wait))
            (void)atomic_fetch_add(&c->refused, 1);
        mig_channel_close(ch);
    }
    mig_tls_free(dial.tls);
    return NULL;
}

/* --- All of them ----------------------------------------------------------- */

/* As the product does: whoever still waits for the door is hung up on. */
static void stop_listening(void *listener)
{
    (void)shutdown(mig_listener_fd(listener), SHUT_RDWR);
}

static void crowd_open(struct crowd *c, const char *tls_dir, unsigned seed)
{
    static const struct fake_guest_config small = {
        .len = {MIB(2), MIB(1)},
          .data_percent = 50, .seed = 3, .dirty_rate = 1000
    };

    memset(c, 0, sizeof(*c));
    c->tls_dir = tls_dir;
    atomic_init(&c->seed, seed);
    c->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fake_ends_open(&c->e, "tcp:127.0.0.1:0", &small, tls_dir, tls_dir);
    c->to = c->e.to;
    c->e.p.dp.attempts = 0;
    c->e.p.dest_ended = stop_listening;
    for (unsigned i = 0; i < STRANGERS; i++)
        assert_int_equal(pthread_create(&c->strangers[i], NULL, stranger_main, c), 0);
}

static void crowd_close(struct crowd *c)
{
    atomic_store(&c->over, true);
    (void)eventfd_write(c->over_fd, 1);
    for (unsigned i = 0; i < STRANGERS; i++)
        assert_int_equal(pthread_join(c->strangers[i], NULL), 0);
    if (c->has_second)
        assert_int_equal(pthread_join(c->second, NULL), 0);
    fake_ends_close(&c->e);
    (void)close(c->over_fd);
}

/* The guest is not stopped before another source was refused. */
static void hold(void *arg, enum fake_op op)
{
    struct crowd *c = arg;

    while (op == FAKE_OP_PAUSE && !atomic_load(&c->refused))
        (void)sched_yield();
}

/* @nr: one of three is cancelled at the source, one at the destination, one is let go. */
static void move_through(const char *tls_dir, unsigned nr)
{
    struct crowd c;

    crowd_open(&c, tls_dir, nr * STRANGERS);
    c.e.p.sp.lanes = 3;
    c.e.p.from.on_op = hold;
    c.e.p.from.on_op_arg = &c;
    fake_pair_start(&c.e.p);
    c.has_second = true;
    assert_int_equal(pthread_create(&c.second, NULL, second_main, &c), 0);
    while (!atomic_load(&c.refused))
        (void)sched_yield();
    if (nr % 3 == 1)
        (void)mig_source_cancel(c.e.p.src, NULL);
    if (nr % 3 == 2)
        (void)mig_dest_cancel(c.e.p.dst);
    fake_pair_join(&c.e.p);
    fake_pair_check(&c.e.p);
    if (nr % 3 == 0 && c.e.p.src_rc < 0)
        fail_msg("source: %s; destination: %s", c.e.p.src_err.msg, c.e.p.dst_err.msg);
    crowd_close(&c);
}

static void test_a_guest_moves_through_a_crowd(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MOVES; i++) {
        move_through(NULL, i);
        move_through(good_dir, i);
    }
}

static void *dest_main(void *arg)
{
    struct crowd *c = arg;

    c->e.p.dst_rc = mig_dest_run(c->e.p.dst, &c->e.p.dst_err);
    return NULL;
}

/* Nobody has come but strangers, the silent ones of whom are sent away all the time. */
static void test_a_destination_without_a_source_is_cancelled(void **state)
{
    (void)state;
    for (unsigned tls = 0; tls < 2; tls++) {
        struct mig_status st;
        struct crowd c;
        pthread_t thread;

        crowd_open(&c, tls ? good_dir : NULL, 100);
        c.e.p.dp.accept_ms = 0;
        c.e.p.dp.hello_ms = 5;
        assert_int_equal(mig_dest_new(&c.e.p.dp, &c.e.p.dst, NULL), 0);
        assert_int_equal(pthread_create(&thread, NULL, dest_main, &c), 0);
        do {
            (void)sched_yield();
            mig_progress_read(mig_dest_progress(c.e.p.dst), &st);
        } while (st.nr_refused < TURNED_AWAY);
        assert_int_equal(mig_dest_cancel(c.e.p.dst), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(c.e.p.dst_rc, -ECANCELED);
        assert_string_equal(c.e.p.dst_err.msg, "cancelled");
        crowd_close(&c);
    }
}

/* --- A lane too many ------------------------------------------------------- */

static void count_refusal(void *arg, const struct err *why)
{
    assert_string_equal(why->msg, "a lane came when all 1 were there");
    atomic_fetch_add((atomic_uint *)arg, 1);
}

static struct mig_visitor await_visitor(struct mig_door *door)
{
    const struct mig_wait wait = {.cancel_fd = -1, .wake_fd = -1};
    struct mig_visitor v = {0};

    assert_int_equal(mig_door_await(door, &wait, &v, NULL), 0);
    return v;
}

static void say_hello(int fd)
{
    struct mig_hello h = {.version_min = MIG_VERSION,
                          .version_max = MIG_VERSION,
                          .page_size = PAGE_SIZE_4K,
                          .lanes = 1};
    uint8_t hello[64];
    struct wr w = {hello, sizeof(hello), false};

    mig_hello_put(&h, &w);
    say_message(fd, MIG_MSG_HELLO, hello, sizeof(hello) - w.left);
}

static void test_a_lane_too_many_is_closed_at_once(void **state)
{
    static const struct fake_guest_config tiny = {.len = {KIB(64)}};
    const struct mig_lane_wire lane = {
        .secret = {1, 2, 3}
    };
    struct mig_door_params params = {
        .open = mig_open_by_accept, .hello_ms = 20000, .turned_away = count_refusal};
    struct mig_visitor source, first;
    struct mig_door *door;
    atomic_uint refused = 0;
    struct crowd c = {0};
    int fd[3];
    char byte;

    (void)state;
    fake_ends_open(&c.e, "tcp:127.0.0.1:0", &tiny, NULL, NULL);
    params.open_arg = c.e.ls;
    params.open_fd = mig_listener_fd(c.e.ls);
    params.arg = &refused;
    assert_int_equal(mig_door_open(&params, &door, NULL), 0);
    for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
        fd[i] = knock(&c);
        assert_int_equal(fcntl(fd[i], F_SETFL, 0), 0);
    }
    say_hello(fd[0]);
    source = await_visitor(door);
    mig_door_let_lanes_in(door, lane.secret, 1);
    say_message(fd[1], MIG_MSG_LANE, &lane, sizeof(lane));
    first = await_visitor(door);
    say_message(fd[2], MIG_MSG_LANE, &lane, sizeof(lane));
    assert_int_equal(poll(&(struct pollfd){.fd = fd[2], .events = POLLIN}, 1, 20000), 1);
    assert_int_equal(recv(fd[2], &byte, 1, 0), 0);
    assert_int_equal(atomic_load(&refused), 1);
    mig_visitor_release(&source);
    mig_visitor_release(&first);
    mig_door_close(door);
    for (unsigned i = 0; i < ARRAY_LEN(fd); i++)
        (void)close(fd[i]);
    fake_ends_close(&c.e);
}

/* --- No room for a connection ----------------------------------------------- */

enum {
    TRIES = 4,
    REST_NS = 100000000,
};

struct full_house {
    void *listener;
    unsigned nr; /* times that a connection was asked for */
    uint64_t at_ns[1 + TRIES];
};

static int open_when_there_is_room(void *arg, const struct mig_wait *wait,
                                   struct mig_channel **ret_ch, struct err *err)
{
    struct full_house *f = arg;

    if (f->nr < ARRAY_LEN(f->at_ns))
        f->at_ns[f->nr] = loop_now_ns();
    if (f->nr++ < TRIES)
        return err_set(err, -ENFILE, "accept: %s", strerror(ENFILE));
    return mig_open_by_accept(f->listener, wait, ret_ch, err);
}

static void never_refuse(void *arg, const struct err *why)
{
    (void)arg;
    fail_msg("%s", why->msg);
}

static void test_where_there_is_no_room_it_rests_and_asks_again(void **state)
{
    static const struct fake_guest_config tiny = {.len = {KIB(64)}};
    struct mig_door_params params = {
        .open = open_when_there_is_room, .hello_ms = 20000, .turned_away = never_refuse};
    struct full_house f = {0};
    struct mig_visitor source;
    struct mig_door *door;
    struct crowd c = {0};
    int fd;

    (void)state;
    fake_ends_open(&c.e, "tcp:127.0.0.1:0", &tiny, NULL, NULL);
    f.listener = c.e.ls;
    params.open_arg = &f;
    params.open_fd = mig_listener_fd(c.e.ls);
    assert_int_equal(mig_door_open(&params, &door, NULL), 0);
    fd = knock(&c);
    say_hello(fd);
    source = await_visitor(door);
    assert_true(f.nr > TRIES);
    for (unsigned i = 0; i < TRIES; i++)
        assert_true(f.at_ns[i + 1] - f.at_ns[i] >= REST_NS);
    mig_visitor_release(&source);
    mig_door_close(door);
    (void)close(fd);
    fake_ends_close(&c.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_guest_moves_through_a_crowd),
        cmocka_unit_test(test_a_destination_without_a_source_is_cancelled),
        cmocka_unit_test(test_a_lane_too_many_is_closed_at_once),
        cmocka_unit_test(test_where_there_is_no_room_it_rests_and_asks_again),
    };

    return cmocka_run_group_tests_name("mig_door", tests, setup_tls, teardown_tls);
}
