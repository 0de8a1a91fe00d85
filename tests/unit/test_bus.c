/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/bus.h"

/* A device that remembers its last access. */
struct probe {
    struct device dev;
    unsigned win, size, accesses;
    uint64_t off, val;
};

static int probe_realize(struct device *dev, const void *cfg, struct err *err)
{
    (void)dev;
    return cfg ? 0 : err_set(err, -EINVAL, "%s: no configuration", dev->id);
}

static void probe_reset(struct device *dev)
{
    (void)dev;
}

static uint64_t probe_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    struct probe *p = (struct probe *)(void *)dev;

    assert_int_equal(pthread_mutex_trylock(&dev->lock), EBUSY); /* the bus holds it */
    p->win = win;
    p->off = off;
    p->size = size;
    p->accesses++;
    return 0x1122334455667788;
}

static void probe_write(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val)
{
    struct probe *p = (struct probe *)(void *)dev;

    (void)probe_read(dev, win, off, size);
    p->val = val;
}

static const struct device_ops probe_ops = {
    .type = "probe",
    .size = sizeof(struct probe),
    .realize = probe_realize,
    .reset = probe_reset,
    .read = probe_read,
    .write = probe_write,
    .stateless = "a test's",
};

struct fix {
    struct bus *bus;
    struct device *a, *b;
};

static int setup(void **state)
{
    static const struct dev_env env;
    struct fix *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(bus_new(0x10000, &f->bus), 0);
    assert_int_equal(device_new(&probe_ops, &env, "a", "", &f->a, NULL), 0);
    assert_int_equal(device_new(&probe_ops, &env, "b", "", &f->b, NULL), 0);
    assert_int_equal(bus_add(f->bus, 0x100, 8, f->a, 1, NULL), 0);
    assert_int_equal(bus_add(f->bus, 0x108, 8, f->b, 2, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    bus_free(f->bus);
    device_free(f->a);
    device_free(f->b);
    free(f);
    return 0;
}

static void test_an_access_reaches_its_window(void **state)
{
    struct fix *f = *state;
    struct probe *b = (struct probe *)(void *)f->b;

    assert_int_equal(bus_read(f->bus, 0x10a, 2), 0x7788);
    assert_int_equal(b->win, 2);
    assert_int_equal(b->off, 2);
    assert_int_equal(b->size, 2);
    bus_write(f->bus, 0x108, 1, 0xabcd);
    assert_int_equal(b->val, 0xcd);
    assert_true(bus_read(f->bus, 0x108, 8) == 0x1122334455667788);
}

static void test_nothing_answers_all_ones(void **state)
{
    struct fix *f = *state;
    struct probe *a = (struct probe *)(void *)f->a;
    struct probe *b = (struct probe *)(void *)f->b;

    assert_int_equal(bus_read(f->bus, 0xff, 1), 0xff);
    assert_true(bus_read(f->bus, 0x110, 8) == UINT64_MAX);
    assert_int_equal(bus_read(f->bus, 0x106, 4), 0xffffffff); /* straddles two windows */
    bus_write(f->bus, 0xfffe, 4, 0);
    bus_write(f->bus, UINT64_MAX, 8, 0);
    assert_int_equal(a->accesses + b->accesses, 0);
}

static void test_memory_answers_where_no_window_is(void **state)
{
    struct fix *f = *state;
    struct probe *a = (struct probe *)(void *)f->a;
    const struct gmem_backing backing = {.fd = -1};
    uint64_t bits[1] = {0}, val = 0;
    struct gmem *gm;

    assert_int_equal(gmem_new(&gm), 0);
    assert_int_equal(gmem_add_region(gm, 0, 2 * PAGE_SIZE_4K, "ram", &backing, NULL), 0);
    bus_set_ram(f->bus, gm);
    bus_write(f->bus, 0x1ffc, 4, 0xaabbccdd11223344);
    assert_int_equal(gmem_copy_in(gm, 0x1ffc, &val, 4), 0);
    assert_true(val == 0x11223344);
    assert_true(bus_read(f->bus, 0x1ffd, 2) == 0x2233);
    gmem_dirty_drain(gm, 0, bits);
    assert_true(bits[0] == 2);                              /* the page is marked */
    assert_true(bus_read(f->bus, 0x1ffe, 4) == 0xffffffff); /* not all of it memory */
    assert_int_equal(a->accesses, 0);
    (void)bus_read(f->bus, 0x100, 4); /* a window goes first */
    assert_int_equal(a->accesses, 1);
    bus_set_ram(f->bus, NULL);
    gmem_free(gm);
}

static void test_overlaps_and_bad_ranges_are_refused(void **state)
{
    const struct {
        uint64_t base, len;
        int rc;
    } rows[] = {
        {0x100,   1,       -EEXIST},
        {0xff,    2,       -EEXIST},
        {0x10f,   2,       -EEXIST},
        {0,       0x10000, -EEXIST},
        {0x200,   0,       -EINVAL},
        {0xffff,  2,       -EINVAL},
        {0x10000, 1,       -EINVAL},
        {0x200,   ~0ULL,   -EINVAL},
        {~0ULL,   1,       -EINVAL},
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err err = {0};

        assert_int_equal(bus_add(f->bus, rows[i].base, rows[i].len, f->a, 0, &err), rows[i].rc);
        assert_int_equal(err.code, rows[i].rc);
    }
}

static void test_a_window_can_move(void **state)
{
    struct fix *f = *state;

    bus_remove(f->bus, 0x100);
    bus_remove(f->bus, 0x55); /* unknown */
    assert_int_equal(bus_read(f->bus, 0x100, 1), 0xff);
    assert_int_equal(bus_add(f->bus, 0xfff8, 8, f->a, 1, NULL), 0);
    assert_int_equal(bus_read(f->bus, 0xffff, 1), 0x88);
}

static void test_there_is_an_end_to_windows(void **state)
{
    struct fix *f = *state;

    for (unsigned i = 2; i < BUS_WINDOWS_MAX; i++)
        assert_int_equal(bus_add(f->bus, 0x1000 + i, 1, f->a, 0, NULL), 0);
    assert_int_equal(bus_add(f->bus, 0xf000, 1, f->a, 0, NULL), -E2BIG);
    assert_int_equal(bus_read(f->bus, 0x1000 + BUS_WINDOWS_MAX - 1, 1), 0x88);
}

static void test_a_device_that_does_not_realize_is_not_there(void **state)
{
    static const struct dev_env env;
    struct device *dev = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(device_new(&probe_ops, &env, "x", NULL, &dev, &err), -EINVAL);
    assert_null(dev);
    assert_string_equal(err.msg, "x: no configuration");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_an_access_reaches_its_window),
        T(test_nothing_answers_all_ones),
        T(test_memory_answers_where_no_window_is),
        T(test_overlaps_and_bad_ranges_are_refused),
        T(test_a_window_can_move),
        T(test_there_is_an_end_to_windows),
        T(test_a_device_that_does_not_realize_is_not_there),
    };

    return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
