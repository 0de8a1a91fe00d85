/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"
#include "core/loop.h"
#include "tests/fakes/fake_time.h"

#define SECOND_NS UINT64_C(1000000000)

enum {
    HOUR_S = 3600,
    SLEEPERS = 4,
    SEEDS = 50,
};

static void sleep_s(unsigned s)
{
    const struct timespec nap = {.tv_sec = s};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
}

/* --- Time ------------------------------------------------------------------ */

struct order {
    unsigned nr, who[SLEEPERS];
};

struct sleeper {
    struct order *order;
    unsigned hours;
    pthread_t thread;
};

static void *sleeper_main(void *arg)
{
    struct sleeper *s = arg;

    sleep_s(s->hours * HOUR_S);
    s->order->who[s->order->nr++] = s->hours;
    return NULL;
}

static void test_hours_pass_in_order_and_at_once(void **state)
{
    uint64_t real = loop_now_ns(), begin;
    struct sleeper s[SLEEPERS];
    struct order order = {0};

    (void)state;
    fake_time_begin(1);
    begin = loop_now_ns();
    for (unsigned i = 0; i < SLEEPERS; i++) {
        s[i] = (struct sleeper){.order = &order, .hours = SLEEPERS - i};
        assert_int_equal(pthread_create(&s[i].thread, NULL, sleeper_main, &s[i]), 0);
    }
    for (unsigned i = 0; i < SLEEPERS; i++)
        assert_int_equal(pthread_join(s[i].thread, NULL), 0);
    assert_int_equal(loop_now_ns() - begin, SLEEPERS * HOUR_S * SECOND_NS);
    assert_int_equal(fake_time_ns(), SLEEPERS * HOUR_S * SECOND_NS);
    fake_time_end();
    for (unsigned i = 0; i < SLEEPERS; i++)
        assert_int_equal(order.who[i], i + 1);
    assert_true(loop_now_ns() - real < HOUR_S * SECOND_NS);
}

/* --- Waiting ---------------------------------------------------------------- */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool flag;
    int fd; /* eventfd */
};

/* It keeps the lock for a second, sets the flag after another, and writes after a third. */
static void *worker_main(void *arg)
{
    struct waiter *w = arg;

    (void)pthread_mutex_lock(&w->lock);
    sleep_s(1);
    (void)pthread_mutex_unlock(&w->lock);
    sleep_s(1);
    (void)pthread_mutex_lock(&w->lock);
    w->flag = true;
    (void)pthread_cond_signal(&w->cond);
    (void)pthread_mutex_unlock(&w->lock);
    sleep_s(1);
    (void)eventfd_write(w->fd, 1);
    return NULL;
}

static void wait_for_flag(struct waiter *w)
{
    struct timespec at;

    (void)pthread_mutex_lock(&w->lock);
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += 1000;
    assert_int_equal(pthread_cond_timedwait(&w->cond, &w->lock, &at), ETIMEDOUT);
    while (!w->flag)
        assert_int_equal(pthread_cond_wait(&w->cond, &w->lock), 0);
    (void)pthread_mutex_unlock(&w->lock);
}

static void test_what_waits_goes_on_when_it_can(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER,
                           .cond = PTHREAD_COND_INITIALIZER,
                           .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
        struct pollfd p = {.fd = w.fd, .events = POLLIN};
        pthread_t thread;

        fake_time_begin(seed);
        assert_int_equal(pthread_create(&thread, NULL, worker_main, &w), 0);
        wait_for_flag(&w);
        assert_int_equal(fake_time_ns(), 2 * SECOND_NS);
        assert_int_equal(poll(&p, 1, 250), 0);
        assert_int_equal(fake_time_ns(), 2 * SECOND_NS + SECOND_NS / 4);
        assert_int_equal(poll(&p, 1, HOUR_S * 1000), 1);
        assert_int_equal(fake_time_ns(), 3 * SECOND_NS);
        assert_int_equal(pthread_join(thread, NULL), 0);
        fake_time_end();
        (void)close(w.fd);
    }
}

/* --- Seeds ------------------------------------------------------------------ */

struct race {
    pthread_mutex_t lock;
    unsigned nr, who[2 * SLEEPERS];
};

struct runner {
    struct race *race;
    unsigned number;
    pthread_t thread;
};

static void *runner_main(void *arg)
{
    struct runner *r = arg;

    for (unsigned i = 0; i < 2; i++) {
        (void)pthread_mutex_lock(&r->race->lock);
        r->race->who[r->race->nr++] = r->number;
        (void)pthread_mutex_unlock(&r->race->lock);
    }
    return NULL;
}

/* Return: who was when, in digits. */
static unsigned run_race(unsigned seed, uint64_t *ret_trace)
{
    struct race race = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct runner r[SLEEPERS];
    unsigned digits = 0;

    fake_time_begin(seed);
    for (unsigned i = 0; i < SLEEPERS; i++) {
        r[i] = (struct runner){.race = &race, .number = i};
        assert_int_equal(pthread_create(&r[i].thread, NULL, runner_main, &r[i]), 0);
    }
    for (unsigned i = 0; i < SLEEPERS; i++)
        assert_int_equal(pthread_join(r[i].thread, NULL), 0);
    *ret_trace = fake_time_trace();
    fake_time_end();
    for (unsigned i = 0; i < race.nr; i++)
        digits = digits * 10 + race.who[i];
    return digits;
}

static void test_a_seed_is_an_order(void **state)
{
    unsigned differ = 0;
    uint64_t trace, same;

    (void)state;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        unsigned first = run_race(seed, &trace);

        assert_int_equal(run_race(seed, &same), first);
        assert_true(trace == same);
        differ += run_race(seed + 1, &same) != first;
    }
    assert_true(differ > SEEDS / 2);
}

/* --- For ever --------------------------------------------------------------- */

static void test_waiting_for_each_other_is_noticed(void **state)
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0) {
        pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

        (void)fclose(stderr);
        fake_time_begin(1);
        (void)pthread_mutex_lock(&lock);
        (void)pthread_cond_wait(&cond, &lock);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hours_pass_in_order_and_at_once),
        cmocka_unit_test(test_what_waits_goes_on_when_it_can),
        cmocka_unit_test(test_a_seed_is_an_order),
        cmocka_unit_test(test_waiting_for_each_other_is_noticed),
    };

    return cmocka_run_group_tests_name("fake_time", tests, NULL, NULL);
}
