/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "tests/fakes/fake_env.h"

static int setup(void **state)
{
    *state = fake_env_new();
    return 0;
}

static int teardown(void **state)
{
    fake_env_free(*state);
    return 0;
}

static void test_oracle_accepts_marked_writes(void **state)
{
    struct fake_env *fe = *state;
    uint8_t buf[3 * 4096];

    memset(buf, 0x5a, sizeof(buf));
    fake_env_oracle_begin(fe);
    assert_int_equal(fake_env_oracle_end(fe), 0);
    /* From the last byte of one page over two whole ones, across two regions. */
    assert_int_equal(gmem_copy_out(fe->env.gm, FAKE_ENV_RAM_LOW - 4097, buf, 1 + 4096 + 4096), 0);
    assert_int_equal(gmem_copy_out(fe->env.gm, FAKE_ENV_GPA_HIGH, buf, 1), 0);
    assert_int_equal(fake_env_oracle_end(fe), 4);
}

static void test_oracle_names_an_unmarked_page(void **state)
{
    struct fake_env *fe = *state;
    unsigned changed = 0;
    uint64_t gpa = 0;

    fake_env_oracle_begin(fe);
    gmem_region(fe->env.gm, 2)->hva[5 * 4096 + 7] = 1;
    assert_false(fake_env_oracle_check(fe, &changed, &gpa));
    assert_int_equal(changed, 1);
    assert_int_equal(gpa, FAKE_ENV_GPA_HIGH + 5 * 4096);
}

static void test_oracle_forgets_marks_from_before(void **state)
{
    struct fake_env *fe = *state;
    unsigned changed = 0;
    uint64_t gpa = 0;

    gmem_mark(fe->env.gm, 0, 4096);
    fake_env_oracle_begin(fe);
    gmem_region(fe->env.gm, 0)->hva[0] = 1;
    assert_false(fake_env_oracle_check(fe, &changed, &gpa));
    assert_int_equal(gpa, 0);
}

static void test_services_are_logged(void **state)
{
    struct fake_env *fe = *state;
    const struct dev_env *env = &fe->env;

    fe->now_ns = 5;
    fe->wall_ns = -6;
    assert_int_equal(env->ops->now_ns(env->arg), 5);
    assert_int_equal(env->ops->wall_ns(env->arg), -6);
    env->ops->irq_set(env->arg, 4, true);
    assert_true(fe->irq_level[4]);
    assert_int_equal(fe->nr_irqs, 1);
    env->ops->msi_send(env->arg, 0xfee00000, 0x31);
    assert_int_equal(fake_env_nr_msis(fe), 1);
    assert_int_equal(fe->msis[0].data, 0x31);
    env->ops->request(env->arg, MACHINE_SHUTDOWN);
    assert_int_equal(fe->requests[0], MACHINE_SHUTDOWN);
    env->ops->event(env->arg, "virtio-device", "activated", "_disk0");
    assert_string_equal(fe->events[0].id, "_disk0");
    fake_env_clear(fe);
    assert_int_equal(fe->nr_irqs + fe->nr_msis + fe->nr_requests + fe->nr_events, 0);
    assert_true(fe->irq_level[4]);
}

static void test_ioeventfds_are_signalled(void **state)
{
    struct fake_env *fe = *state;
    const struct dev_env *env = &fe->env;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    uint64_t n = 0;

    assert_true(fd >= 0);
    assert_int_equal(env->ops->ioeventfd(env->arg, fd, 0x1000, 0, true), 0);
    assert_int_equal(env->ops->ioeventfd(env->arg, fd, 0x1000, 0, true), -EEXIST);
    fake_env_mmio_write(fe, 0x1000, 2, 0);
    fake_env_mmio_write(fe, 0x1004, 2, 0);
    assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
    assert_int_equal(n, 1);
    assert_int_equal(env->ops->ioeventfd(env->arg, fd, 0x1000, 0, false), 0);
    assert_int_equal(env->ops->ioeventfd(env->arg, fd, 0x1000, 0, false), -ENOENT);
    fake_env_mmio_write(fe, 0x1000, 2, 0);
    assert_true(read(fd, &n, sizeof(n)) < 0);
    (void)close(fd);
}

static bool counted_to_three(void *arg)
{
    return ++*(unsigned *)arg >= 3;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void test_wait_runs_the_loop(void **state)
{
    struct fake_env *fe = *state;
    unsigned n = 0;

    assert_true(fake_env_wait(fe, counted_to_three, &n, 5000));
    assert_int_equal(n, 3);
    assert_false(fake_env_wait(fe, never, NULL, 5));
    fake_env_run_loop(fe, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_oracle_accepts_marked_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oracle_names_an_unmarked_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oracle_forgets_marks_from_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_services_are_logged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ioeventfds_are_signalled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wait_runs_the_loop, setup, teardown),
    };

    return cmocka_run_group_tests_name("fake_env", tests, NULL, NULL);
}
