/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/thread_slice.h"

/* sched_getattr(2), of Linux 3.14. */
struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static struct attr attr_now(void)
{
    struct attr a;

    memset(&a, 0, sizeof(a));
    assert_int_equal(syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0), 0);
    return a;
}

/* Kernels before 6.12 take a slice and forget it. */
static void need_slices(void)
{
    const uint64_t before = attr_now().runtime;

    thread_be_prompt();
    if (attr_now().runtime != before)
        return;
    print_message("skipped: this kernel has no slices of a thread's own\n");
    skip();
}

static void *note_slice(void *arg)
{
    *(uint64_t *)arg = attr_now().runtime;
    return NULL;
}

static void test_a_prompt_thread_has_the_shortest_slices(void **state)
{
    const uint64_t by_default = attr_now().runtime;
    uint64_t of_child = 0;
    pthread_t child;

    (void)state;
    need_slices();
    assert_int_equal(attr_now().runtime, 100000);
    assert_int_equal(pthread_create(&child, NULL, note_slice, &of_child), 0);
    assert_int_equal(pthread_join(child, NULL), 0);
    assert_int_equal(of_child, 100000);
    thread_be_patient();
    assert_int_equal(attr_now().runtime, by_default);
}

static void test_the_nice_value_stays(void **state)
{
    (void)state;
    assert_int_equal(setpriority(PRIO_PROCESS, 0, 7), 0);
    thread_be_prompt();
    assert_int_equal(attr_now().nice, 7);
    thread_be_patient();
    assert_int_equal(attr_now().nice, 7);
    assert_int_equal(attr_now().policy, SCHED_OTHER);
}

static void test_another_policy_stays(void **state)
{
    const struct sched_param none = {0};

    (void)state;
    assert_int_equal(sched_setscheduler(0, SCHED_IDLE, &none), 0);
    thread_be_prompt();
    assert_int_equal(sched_getscheduler(0), SCHED_IDLE);
    assert_int_equal(sched_setscheduler(0, SCHED_OTHER, &none), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_thread_has_the_shortest_slices),
        cmocka_unit_test(test_another_policy_stays),
        cmocka_unit_test(test_the_nice_value_stays), /* last: it cannot be taken back */
    };

    return cmocka_run_group_tests_name("thread_slice", tests, NULL, NULL);
}
