/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "core/loop.h"

struct fix {
    struct loop *loop;
    pthread_t thread;
    _Atomic int hits;
    int fd;
    struct loop_source *src;
};

static void *run(void *arg)
{
    struct fix *f = arg;

    assert_int_equal(loop_run(f->loop), 0);
    return NULL;
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(loop_new(&f->loop), 0);
    f->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    loop_stop(f->loop);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    loop_remove(f->src);
    loop_free(f->loop);
    (void)close(f->fd);
    free(f);
    return 0;
}

static void hit(void *arg)
{
    struct fix *f = arg;

    atomic_fetch_add(&f->hits, 1);
}

static void on_event(void *arg, uint32_t events)
{
    struct fix *f = arg;
    uint64_t n;

    assert_int_equal(events, EPOLLIN);
    assert_int_equal(read(f->fd, &n, sizeof(n)), sizeof(n));
    hit(f);
}

static void wait_for(struct fix *f, int hits)
{
    for (int i = 0; i < 5000 && atomic_load(&f->hits) < hits; i++)
        (void)usleep(1000);
    assert_int_equal(atomic_load(&f->hits), hits);
}

static void kick(struct fix *f)
{
    uint64_t one = 1;

    assert_int_equal(write(f->fd, &one, sizeof(one)), sizeof(one));
}

static void test_descriptors_call_back_until_removed(void **state)
{
    struct fix *f = *state;

    assert_int_equal(loop_add_fd(f->loop, f->fd, EPOLLIN, on_event, f, &f->src), 0);
    kick(f);
    wait_for(f, 1);
    loop_set_events(f->src, 0);
    kick(f);
    (void)usleep(20000);
    wait_for(f, 1);
    loop_set_events(f->src, EPOLLIN);
    wait_for(f, 2);
    loop_remove(f->src);
    f->src = NULL;
    kick(f);
    (void)usleep(20000);
    wait_for(f, 2);
}

static void remove_self(void *arg, uint32_t events)
{
    struct fix *f = arg;

    on_event(arg, events);
    loop_remove(f->src);
    f->src = NULL;
}

static void test_a_callback_may_remove_itself(void **state)
{
    struct fix *f = *state;

    assert_int_equal(loop_add_fd(f->loop, f->fd, EPOLLIN, remove_self, f, &f->src), 0);
    kick(f);
    wait_for(f, 1);
    kick(f);
    (void)usleep(20000);
    wait_for(f, 1);
}

static void test_timers_fire_once_and_not_early(void **state)
{
    struct fix *f = *state;
    uint64_t before = loop_now_ns();

    assert_int_equal(loop_add_timer(f->loop, hit, f, &f->src), 0);
    loop_arm_timer(f->src, before + 30000000);
    wait_for(f, 1);
    assert_true(loop_now_ns() - before >= 30000000);
    (void)usleep(50000);
    wait_for(f, 1);
    loop_arm_timer(f->src, loop_now_ns() + 30000000);
    loop_arm_timer(f->src, 0);
    (void)usleep(50000);
    wait_for(f, 1);
}

static void call_back(void *arg)
{
    struct fix *f = arg;

    assert_true(pthread_equal(pthread_self(), f->thread));
    hit(f);
    /* From the loop's own thread: at once. */
    loop_call(f->loop, hit, f);
}

static void test_calls_run_on_the_loop_and_are_waited_for(void **state)
{
    struct fix *f = *state;

    for (int i = 1; i <= 100; i++) {
        loop_call(f->loop, call_back, f);
        if (atomic_load(&f->hits) != 2 * i) /* before the loop runs, a call is made here */
            fail();
    }
    assert_int_equal(loop_post(f->loop, hit, f), 0);
    wait_for(f, 201);
}

static void test_a_call_may_be_begun_and_waited_for_later(void **state)
{
    struct fix *f = *state;
    struct loop_call *call[2];

    for (int i = 0; i < 2; i++)
        assert_int_equal(loop_call_begin(f->loop, hit, f, &call[i]), 0);
    for (int i = 0; i < 2; i++) {
        loop_call_end(f->loop, call[i]);
        assert_true(atomic_load(&f->hits) > i);
    }
    wait_for(f, 2);
    assert_true(loop_call_is_done(f->loop, NULL));
    loop_call_end(f->loop, NULL);
}

static void test_a_call_before_the_loop_runs_is_made_at_once(void **state)
{
    struct fix f = {0};

    (void)state;
    assert_int_equal(loop_new(&f.loop), 0);
    loop_call(f.loop, hit, &f);
    assert_int_equal(atomic_load(&f.hits), 1);
    assert_int_equal(loop_post(f.loop, hit, &f), 0); /* freed with the loop */
    loop_free(f.loop);
}

/* --- Memory that is not there --------------------------------------------------- */

static _Thread_local bool no_memory;

void *__real_calloc(size_t nr, size_t size);
void *__wrap_calloc(size_t nr, size_t size);

void *__wrap_calloc(size_t nr, size_t size)
{
    return no_memory ? NULL : __real_calloc(nr, size);
}

/* A machine is given up so, whatever else fails. */
static void test_a_call_that_is_waited_for_needs_no_memory(void **state)
{
    struct fix *f = *state;
    struct loop_call *call;

    no_memory = true;
    assert_int_equal(loop_post(f->loop, hit, f), -ENOMEM);
    assert_int_equal(loop_call_begin(f->loop, hit, f, &call), -ENOMEM);
    loop_call(f->loop, hit, f);
    no_memory = false;
    assert_int_equal(atomic_load(&f->hits), 1);
}

/* --- A call while the loop ends ------------------------------------------------- */

enum {
    LOCKS_MAX = 16, /* more than the end of a loop takes */
};

/* Another thread's call, just before the loop's thread takes its lock for the n-th time. */
static struct {
    struct loop *loop;
    unsigned locks_left;
    struct loop_call *call;
    _Atomic int hits;
} late;
static _Thread_local bool is_watched;

static void late_hit(void *arg)
{
    (void)arg;
    atomic_fetch_add(&late.hits, 1);
}

static void *begin_late_call(void *arg)
{
    assert_int_equal(loop_call_begin(late.loop, late_hit, NULL, &late.call), 0);
    return arg;
}

int __real_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);

int __wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
    if (is_watched && late.locks_left && !--late.locks_left) {
        pthread_t other;

        assert_int_equal(pthread_create(&other, NULL, begin_late_call, NULL), 0);
        assert_int_equal(pthread_join(other, NULL), 0);
    }
    return __real_pthread_mutex_lock(lock);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* Return: whether the loop took its lock so often. */
static bool call_before_lock(unsigned nth)
{
    late.locks_left = nth;
    late.call = NULL;
    atomic_store(&late.hits, 0);
    assert_int_equal(loop_new(&late.loop), 0);
    assert_int_equal(loop_post(late.loop, nothing, NULL), 0);
    loop_stop(late.loop);
    is_watched = true;
    assert_int_equal(loop_run(late.loop), 0);
    is_watched = false;
    if (!late.locks_left) {
        assert_true(loop_call_is_done(late.loop, late.call));
        loop_call_end(late.loop, late.call);
        assert_int_equal(atomic_load(&late.hits), 1);
    }
    loop_free(late.loop);
    return !late.locks_left;
}

static void test_a_call_while_the_loop_ends_is_made_whenever_it_comes(void **state)
{
    unsigned nth = 1;

    (void)state;
    while (nth <= LOCKS_MAX && call_before_lock(nth))
        nth++;
    /* It takes it at the beginning, for each call, and at the end. */
    assert_in_range(nth, 4, LOCKS_MAX);
}

static int wait_until_running(void **state)
{
    struct fix *f;

    if (setup(state) < 0)
        return -1;
    f = *state;
    assert_int_equal(loop_post(f->loop, hit, f), 0);
    wait_for(f, 1);
    atomic_store(&f->hits, 0);
    return 0;
}

#define T(f) cmocka_unit_test_setup_teardown(f, wait_until_running, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_descriptors_call_back_until_removed),
        T(test_a_callback_may_remove_itself),
        T(test_timers_fire_once_and_not_early),
        T(test_calls_run_on_the_loop_and_are_waited_for),
        T(test_a_call_may_be_begun_and_waited_for_later),
        T(test_a_call_that_is_waited_for_needs_no_memory),
        cmocka_unit_test(test_a_call_before_the_loop_runs_is_made_at_once),
        cmocka_unit_test(test_a_call_while_the_loop_ends_is_made_whenever_it_comes),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
