/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network that is slow to take the destination's last word: it is given the time that an answer to
 * COMMIT has wherever the source may have sent COMMIT.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "core/loop.h"
#include "tests/fakes/fake_ends.h"

#define ANSWER_NS UINT64_C(2000000000)

static const struct fake_guest_config tiny = {.len = {KIB(256)}, .data_percent = 50, .seed = 9};

/* --- Bytes that the peer's kernel never takes --------------------------------- */

int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
    int rc = __real_ioctl(fd, request, arg);

    if (request == SIOCOUTQ && rc == 0)
        *(int *)arg = 1;
    return rc;
}

/* --- A cancel beside COMMIT --------------------------------------------------- */

struct scene {
    struct fake_ends e;
    uint64_t given_up_ns; /* when the destination discarded its guest */
    atomic_bool dest_over;
};

static struct scene scene;

static void dest_ended(void *arg)
{
    (void)arg;
    atomic_store(&scene.dest_over, true);
}

/* The destination is cancelled while COMMIT is about to be sent; the source does not hang up first. */
static void at_source(void *arg, enum fake_op op)
{
    (void)arg;
    if (op == FAKE_OP_RELEASE)
        assert_int_equal(mig_dest_cancel(scene.e.p.dst), 0);
    while (op == FAKE_OP_RECLAIM && !atomic_load(&scene.dest_over))
        (void)sched_yield();
}

static void at_dest(void *arg, enum fake_op op)
{
    (void)arg;
    if (op == FAKE_OP_DISCARD)
        scene.given_up_ns = loop_now_ns();
}

static void test_a_cancel_beside_commit_is_given_the_time_of_an_answer(void **state)
{
    struct fake_pair *p = &scene.e.p;

    (void)state;
    fake_ends_open(&scene.e, "tcp:127.0.0.1:0", &tiny, NULL, NULL);
    p->from.on_op = at_source;
    p->to.on_op = at_dest;
    p->dest_ended = dest_ended;
    fake_pair_start(p);
    fake_pair_join(p);
    assert_true(loop_now_ns() - scene.given_up_ns >= ANSWER_NS);
    fake_pair_check(p);
    assert_int_equal(p->dst_rc, -ECANCELED);
    assert_int_equal(p->src_rc, -ECONNABORTED);
    assert_true(atomic_load(&p->from.running));
    fake_ends_close(&scene.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cancel_beside_commit_is_given_the_time_of_an_answer),
    };

    return cmocka_run_group_tests_name("mig_linger", tests, NULL, NULL);
}
