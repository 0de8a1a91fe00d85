/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/dirty.h"
#include "core/gmem.h"

enum {
    PAGES = 40000, /* more than one slice of protection */
    WORDS = PAGES / 64,
};

/* A hypervisor: what it has logged, and which pages would be logged again. */
struct fake_log {
    struct gmem *gm;
    struct dirty *d;
    bool on;
    uint64_t logged[WORDS];
    unsigned clears;
    uint64_t biggest_clear;
    int fail; /* errno of every call */
};

static int fake_set(void *arg, unsigned region, bool on)
{
    struct fake_log *f = arg;

    assert_int_equal(region, 0);
    if (f->fail && on)
        return f->fail;
    f->on = on;
    memset(f->logged, on ? 0xff : 0, sizeof(f->logged));
    return 0;
}

static int fake_get(void *arg, unsigned region, uint64_t *bits)
{
    struct fake_log *f = arg;

    assert_int_equal(region, 0);
    assert_true(f->on);
    if (f->fail)
        return f->fail;
    memcpy(bits, f->logged, sizeof(f->logged));
    return 0;
}

static int fake_clear(void *arg, unsigned region, uint64_t first, uint32_t nr, const uint64_t *bits)
{
    struct fake_log *f = arg;

    assert_int_equal(region, 0);
    assert_int_equal(first % 64, 0);
    assert_true(first + nr <= PAGES);
    assert_true(nr % 64 == 0 || first + nr == PAGES);
    if (f->fail)
        return f->fail;
    for (uint32_t i = 0; i < (nr + 63) / 64; i++)
        f->logged[first / 64 + i] &= ~bits[i];
    f->clears++;
    if (nr > f->biggest_clear)
        f->biggest_clear = nr;
    return 0;
}

static const struct dirty_log_ops fake_ops = {fake_set, fake_get, fake_clear};

static void guest_writes(struct fake_log *f, uint64_t page)
{
    f->logged[page / 64] |= UINT64_C(1) << page % 64;
}

static int setup(void **state)
{
    const struct gmem_backing anon = {.fd = -1};
    struct fake_log *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(gmem_new(&f->gm), 0);
    assert_int_equal(gmem_add_region(f->gm, 0, PAGES * 4096, "ram", &anon, NULL), 0);
    assert_int_equal(dirty_new(f->gm, &fake_ops, f, &f->d), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fake_log *f = *state;

    dirty_free(f->d);
    gmem_free(f->gm);
    free(f);
    return 0;
}

static uint64_t take_all(struct dirty_consumer *c, bool stopped)
{
    struct dirty_run run;
    uint64_t n = 0;

    while (dirty_take(c, 1000, stopped, &run, NULL) == 1) {
        assert_true(run.nr > 0 && run.nr <= 1000);
        assert_true(run.first + run.nr <= PAGES);
        n += run.nr;
    }
    return n;
}

static void test_the_first_drain_is_the_whole_memory(void **state)
{
    struct fake_log *f = *state;
    struct dirty_consumer *c = NULL;

    assert_int_equal(dirty_attach(f->d, &c, NULL), 0);
    assert_int_equal(dirty_count(c), 0);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(dirty_count(c), PAGES);
    assert_int_equal(take_all(c, false), PAGES);
    assert_int_equal(dirty_count(c), 0);
    assert_int_equal(f->clears, 3); /* slices of 16384 pages */
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(dirty_count(c), 0);
    dirty_detach(c);
    assert_false(f->on);
}

static void test_a_machine_that_will_not_run_again_keeps_its_log(void **state)
{
    struct fake_log *f = *state;
    struct dirty_consumer *a = NULL, *b = NULL;

    assert_int_equal(dirty_attach(f->d, &a, NULL), 0);
    assert_int_equal(dirty_attach(f->d, &b, NULL), 0);
    dirty_abandon(a);
    assert_true(f->on);
    dirty_abandon(b);
    assert_true(f->on);
    dirty_abandon(NULL);
}

static void test_a_write_between_drain_and_take_is_not_lost(void **state)
{
    struct fake_log *f = *state;
    struct dirty_consumer *c = NULL;
    struct dirty_run run;

    assert_int_equal(dirty_attach(f->d, &c, NULL), 0);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    (void)take_all(c, false);
    guest_writes(f, 777);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    guest_writes(f, 777);   /* before the page is read: the read sees it */
    guest_writes(f, 20000); /* another page, after the drain */
    assert_int_equal(dirty_take(c, 10, false, &run, NULL), 1);
    assert_int_equal(run.first, 777);
    assert_int_equal(run.nr, 1);
    guest_writes(f, 777); /* after the read: news */
    assert_int_equal(dirty_take(c, 10, false, &run, NULL), 0);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(take_all(c, false), 2);
    dirty_detach(c);
}

static void test_device_writes_count(void **state)
{
    struct fake_log *f = *state;
    struct dirty_consumer *c = NULL;
    struct dirty_run run;

    gmem_mark(f->gm, 5 * 4096, 1); /* before anybody looked */
    assert_int_equal(dirty_attach(f->d, &c, NULL), 0);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    (void)take_all(c, true);
    memset(f->logged, 0, sizeof(f->logged));
    gmem_mark(f->gm, 9 * 4096, 4097);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(dirty_take(c, 100, true, &run, NULL), 1);
    assert_int_equal(run.first, 9);
    assert_int_equal(run.nr, 2);
    assert_int_equal(f->clears, 0); /* stopped: nothing is protected again */
    dirty_detach(c);
}

/* Runs that end at the most that was asked for, at what is clean, and at the end of memory. */
static void test_a_run_is_as_long_as_it_may_be(void **state)
{
    static const struct dirty_run rows[] = {
        {0, 0,         100},
        {0, 100,       28 },
        {0, 130,       100},
        {0, 230,       26 },
        {0, PAGES - 3, 3  },
    };
    struct fake_log *f = *state;
    struct dirty_consumer *c = NULL;
    struct dirty_run run;

    assert_int_equal(dirty_attach(f->d, &c, NULL), 0);
    dirty_mark(c, 0, 0, 128);
    dirty_mark(c, 0, 130, 126);
    dirty_mark(c, 0, PAGES - 3, 3);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(dirty_take(c, 100, false, &run, NULL), 1);
        assert_int_equal(run.first, rows[i].first);
        assert_int_equal(run.nr, rows[i].nr);
    }
    assert_int_equal(dirty_take(c, 100, false, &run, NULL), 0);
    dirty_detach(c);
}

static void test_consumers_are_independent(void **state)
{
    struct fake_log *f = *state;
    struct dirty_consumer *a = NULL, *b = NULL;

    assert_int_equal(dirty_attach(f->d, &a, NULL), 0);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(take_all(a, false), PAGES);
    assert_int_equal(dirty_attach(f->d, &b, NULL), 0);
    guest_writes(f, 1);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(take_all(a, false), 1);
    guest_writes(f, 2);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(dirty_count(a), 1);
    assert_int_equal(dirty_count(b), 2);
    dirty_set_all(b);
    assert_int_equal(take_all(b, false), PAGES);
    dirty_detach(a);
    assert_true(f->on);
    dirty_mark(b, 0, 3, 4);
    dirty_mark(b, 0, PAGES - 1, UINT64_MAX);
    dirty_mark(b, 7, 0, 1);
    assert_int_equal(dirty_count(b), 5);
    dirty_detach(b);
    assert_false(f->on);
}

static void test_protecting_loses_no_write(void **state)
{
    struct fake_log *f = *state;
    struct dirty_consumer *c = NULL;
    struct dirty_run run;

    assert_int_equal(dirty_protect(f->d, NULL), 0); /* nobody looks: nothing to do */
    assert_int_equal(f->clears, 0);
    assert_int_equal(dirty_attach(f->d, &c, NULL), 0);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    guest_writes(f, 300); /* after the drain: still logged as before */
    assert_int_equal(dirty_protect(f->d, NULL), 0);
    assert_int_equal(f->clears, 3); /* slices of 16384 pages */
    (void)take_all(c, true);
    guest_writes(f, 5);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(dirty_protect(f->d, NULL), 0);
    assert_int_equal(f->clears, 4);
    assert_int_equal(dirty_take(c, 10, true, &run, NULL), 1);
    assert_int_equal(run.first, 5);
    assert_int_equal(dirty_take(c, 10, true, &run, NULL), 0);
    guest_writes(f, 5); /* written again, after it was taken without being protected by that */
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(take_all(c, true), 1);
    f->fail = -EIO;
    assert_int_equal(dirty_protect(f->d, NULL), -EIO);
    f->fail = 0;
    dirty_detach(c);
}

/* Pages that a round leaves for later, after the guest has written to these. */
static int64_t next_round(struct fake_log *f, struct dirty_consumer *c, uint64_t most,
                          const uint64_t *pages, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        guest_writes(f, pages[i]);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    return dirty_set_aside(c, most, NULL);
}

static void test_pages_that_are_written_again_and_again_wait(void **state)
{
    static const uint64_t three[] = {7, 8, 20000}, two[] = {8, 20000};
    struct fake_log *f = *state;
    struct dirty_consumer *c = NULL;
    struct dirty_run run;

    assert_int_equal(dirty_attach(f->d, &c, NULL), 0);
    assert_int_equal(next_round(f, c, 0, NULL, 0), 0); /* all of memory, once */
    assert_int_equal(take_all(c, false), PAGES);
    assert_int_equal(next_round(f, c, 0, three, 3), 0); /* no room for any */
    assert_int_equal(dirty_count(c), 3);
    assert_int_equal(take_all(c, false), 3);
    assert_int_equal(next_round(f, c, 100, three, 3), 3);
    assert_int_equal(dirty_count(c), 0);
    assert_int_equal(dirty_take(c, 10, false, &run, NULL), 0);
    /* One of them was not written since: it comes back.  The others are known to be. */
    assert_int_equal(next_round(f, c, 100, two, 2), 2);
    assert_int_equal(dirty_take(c, 10, false, &run, NULL), 1);
    assert_int_equal(run.first, 7);
    assert_int_equal(run.nr, 1);
    assert_int_equal(next_round(f, c, 1, two, 2), 1); /* as many as there is room for */
    assert_int_equal(take_all(c, false), 1);
    /* At the end all of them do. */
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    assert_int_equal(dirty_set_aside(c, 0, NULL), 0);
    assert_int_equal(dirty_count(c), 1);
    assert_int_equal(take_all(c, true), 1);
    guest_writes(f, 8);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    f->fail = -EIO;
    assert_int_equal(dirty_set_aside(c, 100, NULL), 0); /* nothing to protect */
    f->fail = 0;
    assert_int_equal(take_all(c, false), 1);
    assert_int_equal(next_round(f, c, 100, two, 1), 1);
    guest_writes(f, 8);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    f->fail = -EIO;
    assert_int_equal(dirty_set_aside(c, 100, NULL), -EIO);
    f->fail = 0;
    assert_int_equal(dirty_set_aside(c, 0, NULL), 0);
    assert_int_equal(take_all(c, true), 1); /* and nothing is lost */
    dirty_detach(c);
}

static void test_a_failing_log_is_reported_and_loses_nothing(void **state)
{
    struct fake_log *f = *state;
    struct dirty_consumer *c = NULL;
    struct err err = {0};
    struct dirty_run run;

    f->fail = -ENOMEM;
    assert_int_equal(dirty_attach(f->d, &c, &err), -ENOMEM);
    assert_non_null(strstr(err.msg, "region 0"));
    f->fail = 0;
    assert_int_equal(dirty_attach(f->d, &c, NULL), 0);
    assert_int_equal(dirty_drain(f->d, NULL), 0);
    f->fail = -EIO;
    assert_int_equal(dirty_take(c, 64, false, &run, NULL), -EIO);
    assert_int_equal(dirty_drain(f->d, NULL), -EIO);
    f->fail = 0;
    assert_int_equal(dirty_count(c), PAGES);
    assert_int_equal(take_all(c, false), PAGES);
    dirty_detach(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_the_first_drain_is_the_whole_memory),
        T(test_a_write_between_drain_and_take_is_not_lost),
        T(test_device_writes_count),
        T(test_a_run_is_as_long_as_it_may_be),
        T(test_consumers_are_independent),
        T(test_protecting_loses_no_write),
        T(test_pages_that_are_written_again_and_again_wait),
        T(test_a_failing_log_is_reported_and_loses_nothing),
        T(test_a_machine_that_will_not_run_again_keeps_its_log),
    };

    return cmocka_run_group_tests_name("dirty", tests, NULL, NULL);
}
