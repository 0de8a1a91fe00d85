/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "core/rate_limit.h"

static void test_a_burst_then_a_few(void **state)
{
    struct rate_limit rl = {.burst = 10, .per_s = 20};
    unsigned nr = 0;

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        assert_true(rate_limit_take(&rl));
    for (unsigned i = 0; i < 10000; i++)
        nr += rate_limit_take(&rl);
    assert_in_range(nr, 0, 9);
    (void)usleep(120000);
    assert_true(rate_limit_take(&rl));
    assert_true(rate_limit_take(&rl));
}

static void test_a_long_silence_gives_no_more_than_the_burst(void **state)
{
    struct rate_limit rl = {.burst = 3, .per_s = 1};

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_true(rate_limit_take(&rl)); /* the clock has run for ever before */
    assert_false(rate_limit_take(&rl));
}

static void *take_many(void *arg)
{
    uintptr_t nr = 0;

    for (unsigned i = 0; i < 20000; i++)
        nr += rate_limit_take(arg);
    return (void *)nr;
}

static void test_threads_share_one_burst(void **state)
{
    struct rate_limit rl = {.burst = 5000, .per_s = 1};
    pthread_t threads[4];
    uintptr_t all = 0;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, &rl), 0);
    for (unsigned i = 0; i < ARRAY_LEN(threads); i++) {
        void *nr;

        assert_int_equal(pthread_join(threads[i], &nr), 0);
        all += (uintptr_t)nr;
    }
    assert_in_range(all, 5000, 5030);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_burst_then_a_few),
        cmocka_unit_test(test_a_long_silence_gives_no_more_than_the_burst),
        cmocka_unit_test(test_threads_share_one_burst),
    };

    return cmocka_run_group_tests_name("rate_limit", tests, NULL, NULL);
}
