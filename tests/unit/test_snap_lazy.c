/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory brought by userfaultfd, from a source that is made up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "core/gmem.h"
#include "core/page_present.h"
#include "snapshot/snap_lazy.h"
#include "snapshot/snap_uffd.h"

enum {
    LOW_PAGES = 1000,
    HIGH_PAGES = 70,
    BLOCK = SNAP_BLOCK_PAGES,
    READS_NOTED = 64,
    WAIT_MS = 20000,
};
static const uint64_t high_gpa = UINT64_C(0x100000000);

/* Pages whose number ends in 5 to 9 are zero; from ZERO_FROM on all are. */
enum {
    ZERO_FROM = 600,
};

struct fake_source {
    atomic_bool held;     /* reads wait */
    atomic_int held_page; /* reads of it, in region 0, wait; -1: none */
    atomic_int fail_page; /* reading it fails; -1: none */
    atomic_uint reads;
    atomic_uint nr_noted;
    struct snap_touch_run noted[READS_NOTED]; /* the first reads, in their order */
    atomic_uint closes;
    atomic_uint waiting; /* reads that wait now */
    struct snap_touch order;
    atomic_uint wholes, losses;
    struct snap_lazy_figures figures;
    struct err lost;
};

static bool is_zero(unsigned region, uint64_t page)
{
    return page % 10 >= 5 || (region == 0 && page >= ZERO_FROM);
}

static uint64_t content(unsigned region, uint64_t page)
{
    return is_zero(region, page) ? 0 : (uint64_t)(region + 1) << 32 | (page + 1);
}

static void nap(void)
{
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 200000}, NULL);
}

static int fake_next(void *arg, unsigned region, uint64_t from, struct snap_lazy_run *ret,
                     struct err *err)
{
    const uint64_t pages = region ? HIGH_PAGES : LOW_PAGES;

    (void)arg;
    (void)err;
    *ret = (struct snap_lazy_run){0};
    while (from < pages && is_zero(region, from))
        from++;
    ret->first = from;
    while (from < pages && !is_zero(region, from)) {
        from++;
        ret->nr++;
    }
    return 0;
}

static bool has_page(unsigned region, uint64_t first, uint64_t nr, int page)
{
    return region == 0 && page >= 0 && (uint64_t)page >= first && (uint64_t)page < first + nr;
}

static int fake_read(void *arg, unsigned region, uint64_t first, uint64_t nr, void *dst,
                     struct err *err)
{
    struct fake_source *s = arg;
    int fail = atomic_load(&s->fail_page);
    unsigned n;

    atomic_fetch_add(&s->waiting, 1);
    while (atomic_load(&s->held) || has_page(region, first, nr, atomic_load(&s->held_page)))
        nap();
    atomic_fetch_sub(&s->waiting, 1);
    n = atomic_fetch_add(&s->nr_noted, 1);
    if (n < READS_NOTED)
        s->noted[n] = (struct snap_touch_run){(uint8_t)region, (uint16_t)nr, first};
    atomic_fetch_add(&s->reads, 1);
    if (has_page(region, first, nr, fail))
        return err_set(err, -EBADMSG, "region 0, page %d: is damaged", fail);
    memset(dst, 0, nr << PAGE_SHIFT_4K);
    for (uint64_t i = 0; i < nr; i++) {
        uint64_t word = content(region, first + i);

        memcpy((uint8_t *)dst + (i << PAGE_SHIFT_4K) + 8, &word, sizeof(word));
    }
    return 0;
}

static void fake_close(void *arg, const struct snap_touch *order)
{
    struct fake_source *s = arg;

    for (unsigned i = 0; i < order->nr; i++)
        snap_touch_add(&s->order, &order->runs[i]);
    atomic_fetch_add(&s->closes, 1);
}

static void on_whole(void *arg, const struct snap_lazy_figures *f)
{
    struct fake_source *s = arg;

    s->figures = *f;
    atomic_fetch_add(&s->wholes, 1);
}

static void on_lost(void *arg, const struct err *err)
{
    struct fake_source *s = arg;

    s->lost = *err;
    atomic_fetch_add(&s->losses, 1);
}

/* --- Threads that there are not ------------------------------------------------------ */

static atomic_int threads_left = -1; /* to be made before it fails; below 0: without end */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg)
{
    int left = atomic_load(&threads_left);

    if (left == 0)
        return EAGAIN;
    if (left > 0)
        atomic_store(&threads_left, left - 1);
    return __real_pthread_create(thread, attr, main, arg);
}

struct lazy_test {
    struct gmem *gm;
    struct fake_source s;
};

static int setup(void **state)
{
    struct lazy_test *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    atomic_store(&t->s.fail_page, -1);
    atomic_store(&t->s.held_page, -1);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct lazy_test *t = *state;

    atomic_store(&t->s.held, false);
    atomic_store(&t->s.held_page, -1);
    gmem_free(t->gm);
    snap_touch_release(&t->s.order);
    free(t);
    return 0;
}

static void make_memory(struct lazy_test *t, bool shared)
{
    const struct gmem_backing b = {.fd = -1, .shared = shared, .thp = true};

    assert_int_equal(gmem_new(&t->gm), 0);
    assert_int_equal(gmem_add_region(t->gm, 0, LOW_PAGES * 4096, "low", &b, NULL), 0);
    assert_int_equal(gmem_add_region(t->gm, high_gpa, HIGH_PAGES * 4096, "high", &b, NULL), 1);
}

static void start(struct lazy_test *t, struct snap_touch *order)
{
    struct snap_lazy_params p = {
        .source = {fake_next, fake_read, fake_close, &t->s},
        .whole = on_whole,
        .lost = on_lost,
        .arg = &t->s,
    };
    struct err err = {0};

    if (order)
        p.order = *order;
    if (snap_lazy_start(t->gm, &p, &err) == -EPERM)
        skip();
    assert_string_equal(err.msg, "");
}

static uint64_t word_of(const struct gmem *gm, unsigned region, uint64_t page)
{
    uint64_t word;

    memcpy(&word, gmem_region(gm, region)->hva + (page << PAGE_SHIFT_4K) + 8, sizeof(word));
    return word;
}

static void check_page(const struct gmem *gm, unsigned region, uint64_t page)
{
    if (word_of(gm, region, page) != content(region, page))
        fail_msg("region %u, page %llu: %#llx", region, (unsigned long long)page,
                 (unsigned long long)word_of(gm, region, page));
}

static void check_all(const struct gmem *gm)
{
    for (uint64_t i = 0; i < LOW_PAGES; i++)
        check_page(gm, 0, i);
    for (uint64_t i = 0; i < HIGH_PAGES; i++)
        check_page(gm, 1, i);
}

static void wait_until(atomic_uint *what, unsigned n)
{
    for (int i = 0; i < WAIT_MS * 5 && atomic_load(what) != n; i++)
        nap();
    assert_int_equal(atomic_load(what), n);
}

static void wait_for(atomic_uint *what)
{
    wait_until(what, 1);
}

static bool enough_after(void *arg)
{
    unsigned *left = arg;

    return !(*left)--;
}

static const uint8_t *placed(const struct snap_ahead_block *b, uint64_t page)
{
    for (unsigned i = 0; i < b->nr_runs; i++)
        if (page >= b->runs[i].at && page < b->runs[i].at + b->runs[i].nr)
            return b->data + (page << PAGE_SHIFT_4K);
    return NULL;
}

/* Every page of a block that was read ahead is the source's; those that are zero are in no run. */
static void check_block(const struct snap_ahead_block *b)
{
    for (uint64_t i = 0; i < SNAP_BLOCK_PAGES; i++) {
        uint64_t want = content(b->region, b->block * SNAP_BLOCK_PAGES + i), word = 0;
        const uint8_t *page = placed(b, i);

        if (page)
            memcpy(&word, page + 8, sizeof(word));
        assert_int_equal(word, want);
    }
}

/* Whether somebody had to wait for one of these pages. */
static bool touched_again(const struct snap_touch *order, const struct snap_touch_run *run)
{
    for (unsigned i = 0; i < order->nr; i++)
        if (order->runs[i].region == run->region && order->runs[i].first < run->first + run->nr &&
            run->first < order->runs[i].first + order->runs[i].nr)
            return true;
    return false;
}

static void test_what_was_read_ahead_is_not_read_again(void **state)
{
    struct lazy_test *t = *state;
    const struct snap_lazy_source source = {fake_next, fake_read, fake_close, &t->s};
    struct snap_touch_run runs[] = {
        {0, 40, 8         }, /* three blocks and a half */
        {1, 1,  0         },
        {0, 1,  10        }, /* once more */
        {9, 1,  0         }, /* the memory has none of the next two */
        {0, 1,  1000000000},
    };
    const struct snap_touch order = {ARRAY_LEN(runs), ARRAY_LEN(runs), runs};
    struct snap_lazy_params p = {
        .source = source, .whole = on_whole, .lost = on_lost, .arg = &t->s};
    const struct snap_ahead_block *b;
    struct snap_ahead *ahead;
    unsigned left = 1000, n = 0;
    struct err err = {0};

    ahead = snap_ahead_read(&source, &order, enough_after, &left);
    assert_non_null(ahead);
    for (; (b = snap_ahead_block(ahead, n)) && b->region < 2; n++)
        check_block(b);
    assert_true(n >= 4);
    make_memory(t, false);
    p.ahead = ahead;
    if (snap_lazy_start(t->gm, &p, &err) == -EPERM) {
        snap_ahead_free(ahead);
        skip();
    }
    assert_string_equal(err.msg, "");
    snap_ahead_free(ahead);
    check_all(t->gm);
    wait_for(&t->s.wholes);
    /* A block may be brought by two at once, but not one that was there before. */
    assert_true(t->s.figures.ahead > 0);
    assert_true(t->s.figures.ahead + t->s.figures.fetched + t->s.figures.filled >= 300 + 35);
    assert_false(touched_again(&t->s.order, &runs[0]));
    assert_int_equal(t->s.losses, 0);
}

static void test_reading_ahead_ends_when_it_is_enough_or_the_buffer_is_full(void **state)
{
    struct lazy_test *t = *state;
    const struct snap_lazy_source source = {fake_next, fake_read, fake_close, &t->s};
    struct snap_touch_run run = {0, LOW_PAGES, 0};
    const struct snap_touch order = {1, 1, &run}, none = {0};
    unsigned left = 2;
    struct snap_ahead *ahead = snap_ahead_read(&source, &order, enough_after, &left);

    assert_non_null(snap_ahead_block(ahead, 1));
    assert_null(snap_ahead_block(ahead, 2));
    snap_ahead_free(ahead);
    left = 1000;
    ahead = snap_ahead_read(&source, &order, enough_after, &left);
    assert_null(snap_ahead_block(ahead, SNAP_AHEAD_BLOCKS_MAX));
    snap_ahead_free(ahead);
    ahead = snap_ahead_read(&source, &none, enough_after, &left);
    assert_null(snap_ahead_block(ahead, 0));
    snap_ahead_free(ahead);
    assert_null(snap_ahead_block(NULL, 0));
    /* What cannot be read is left out: it is lost when somebody touches it. */
    atomic_store(&t->s.fail_page, 3);
    left = 2;
    ahead = snap_ahead_read(&source, &order, enough_after, &left);
    for (unsigned i = 0; snap_ahead_block(ahead, i); i++)
        assert_true(snap_ahead_block(ahead, i)->block > 0);
    snap_ahead_free(ahead);
}

static void test_all_comes_by_itself(void **state)
{
    struct lazy_test *t = *state;

    for (int shared = 0; shared < 2; shared++) {
        make_memory(t, shared);
        start(t, NULL);
        wait_for(&t->s.wholes);
        assert_false(gmem_is_served(t->gm));
        assert_int_equal(t->s.closes, 1);
        check_all(t->gm);
        assert_int_equal(t->s.figures.fetched + t->s.figures.filled, 300 + 35);
        gmem_free(t->gm);
        t->gm = NULL;
        t->s.wholes = t->s.closes = 0;
    }
    assert_int_equal(t->s.losses, 0);
}

/* What devices wrote when they were made is not what the snapshot has. */
static void test_without_threads_for_faults_it_comes_all_the_same(void **state)
{
    struct lazy_test *t = *state;

    for (int left = 1; left <= 2; left++) {
        make_memory(t, left == 2);
        atomic_store(&threads_left, left); /* the background's, and one that serves */
        start(t, NULL);
        check_all(t->gm);
        wait_for(&t->s.wholes);
        atomic_store(&threads_left, -1);
        assert_int_equal(t->s.losses, 0);
        assert_false(gmem_is_served(t->gm));
        gmem_free(t->gm);
        t->gm = NULL;
        t->s.wholes = t->s.closes = 0;
    }
}

static void test_without_any_thread_it_is_refused_and_unchanged(void **state)
{
    const struct snap_lazy_params p = {
        .source = {fake_next, fake_read, fake_close, NULL}
    };
    struct lazy_test *t = *state;
    struct err err = {0};
    int rc;

    make_memory(t, false);
    atomic_store(&threads_left, 0);
    rc = snap_lazy_start(t->gm, &p, &err);
    atomic_store(&threads_left, -1);
    if (rc == -EPERM)
        skip();
    assert_int_equal(rc, -EAGAIN);
    assert_false(gmem_is_served(t->gm));
    assert_int_equal(word_of(t->gm, 0, 1), 0); /* an ordinary page again */
}

static void test_what_was_written_before_is_forgotten(void **state)
{
    struct lazy_test *t = *state;

    make_memory(t, false);
    assert_int_equal(gmem_fill(t->gm, 0, 0xee, 20 * 4096), 0);
    start(t, NULL);
    check_all(t->gm);
}

struct toucher {
    struct gmem *gm;
    uint64_t seed;
};

static void *touch_main(void *arg)
{
    struct toucher *t = arg;
    uint64_t x = t->seed;

    for (int i = 0; i < 3000; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
        check_page(t->gm, 0, (x >> 33) % LOW_PAGES);
    }
    return NULL;
}

static void test_several_threads_may_touch_at_once(void **state)
{
    struct lazy_test *t = *state;
    struct toucher touchers[4];
    pthread_t threads[4];

    make_memory(t, false);
    start(t, NULL);
    for (unsigned i = 0; i < 4; i++) {
        touchers[i] = (struct toucher){t->gm, i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, touch_main, &touchers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    wait_for(&t->s.wholes);
    check_all(t->gm);
}

/* A system call that reads guest memory waits too: KVM does the same. */
static void test_the_kernel_may_touch(void **state)
{
    auto_close int fd = memfd_create("out", MFD_CLOEXEC);
    struct lazy_test *t = *state;
    uint64_t word = 0;

    make_memory(t, true);
    start(t, NULL);
    assert_int_equal(write(fd, gmem_region(t->gm, 1)->hva, HIGH_PAGES * 4096), HIGH_PAGES * 4096);
    for (uint64_t i = 0; i < HIGH_PAGES; i++) {
        assert_int_equal(pread(fd, &word, sizeof(word), (off_t)(i * 4096 + 8)), sizeof(word));
        assert_int_equal(word, content(1, i));
    }
}

static void test_writes_of_the_guest_are_not_overwritten(void **state)
{
    struct lazy_test *t = *state;

    make_memory(t, false);
    atomic_store(&t->s.held, true);
    start(t, NULL);
    atomic_store(&t->s.held, false);
    for (uint64_t i = 0; i < LOW_PAGES; i += 3)
        assert_int_equal(gmem_copy_out(t->gm, (i << PAGE_SHIFT_4K) + 8, "mine....", 8), 0);
    wait_for(&t->s.wholes);
    for (uint64_t i = 0; i < LOW_PAGES; i++) {
        if (i % 3)
            check_page(t->gm, 0, i);
        else
            assert_memory_equal(gmem_region(t->gm, 0)->hva + (i << PAGE_SHIFT_4K) + 8, "mine....",
                                8);
    }
}

static void test_while_it_comes_a_hole_is_zero_only_if_the_source_says_so(void **state)
{
    struct lazy_test *t = *state;

    make_memory(t, true);
    atomic_store(&t->s.held, true);
    start(t, NULL);
    assert_true(gmem_is_served(t->gm));
    assert_int_equal(gmem_hole(t->gm, 0, 0, 100), 0);
    assert_int_equal(gmem_hole(t->gm, 0, 7, 100), 3);
    assert_int_equal(gmem_hole(t->gm, 0, ZERO_FROM + 100, 50), 50);
    assert_false(gmem_absent_is_zero(t->gm, 0));
    atomic_store(&t->s.held, false);
    wait_for(&t->s.wholes);
    assert_int_equal(gmem_hole(t->gm, 0, 0, 100), 0);
    assert_int_equal(gmem_hole(t->gm, 0, ZERO_FROM + 100, 50), 50);
}

static void test_it_can_end_at_any_moment(void **state)
{
    struct lazy_test *t = *state;

    for (unsigned pages = 0; pages < 200; pages += 10) {
        make_memory(t, pages % 20);
        start(t, NULL);
        for (uint64_t i = 0; i < pages; i++)
            check_page(t->gm, 0, i);
        gmem_free(t->gm);
        t->gm = NULL;
        assert_int_equal(t->s.closes, 1);
        t->s.closes = 0;
    }
}

static void test_an_earlier_order_comes_first(void **state)
{
    const struct snap_touch_run runs[] = {
        {.region = 1, .nr = 4,  .first = 40     },
        {.region = 0, .nr = 64, .first = 100    },
        {.region = 9, .nr = 64, .first = 100    }, /* there is no such region */
        {.region = 0, .nr = 64, .first = 1 << 20}, /* nor such a page */
        {.region = 1, .nr = 64, .first = 60     }, /* past its end */
    };
    struct lazy_test *t = *state;
    struct snap_touch order = {0};

    for (size_t i = 0; i < ARRAY_LEN(runs); i++)
        snap_touch_add(&order, &runs[i]);
    make_memory(t, false);
    start(t, &order);
    wait_for(&t->s.wholes);
    assert_true(t->s.figures.ahead >= 40);
    check_all(t->gm);
    /* It is kept for the next time. */
    assert_true(t->s.order.nr >= ARRAY_LEN(runs));
    assert_int_equal(t->s.order.runs[1].first, 100);
}

/* The background waits at its first page, so that what is touched is brought because it is touched. */
static void start_held(struct lazy_test *t, struct snap_touch *order)
{
    atomic_store(&t->s.held_page, 0);
    start(t, order);
    wait_for(&t->s.waiting);
}

static void assert_run(const struct snap_touch *order, unsigned i, unsigned region, uint64_t first,
                       unsigned nr)
{
    assert_true(i < order->nr);
    assert_int_equal(order->runs[i].region, region);
    assert_int_equal(order->runs[i].first, first);
    assert_int_equal(order->runs[i].nr, nr);
}

static void test_what_is_touched_is_noted(void **state)
{
    struct lazy_test *t = *state;
    struct snap_touch order;

    make_memory(t, false);
    start_held(t, NULL);
    check_page(t->gm, 0, 500);
    check_page(t->gm, 1, 40);
    check_page(t->gm, 0, 100);
    atomic_store(&t->s.held_page, -1);
    gmem_free(t->gm);
    t->gm = NULL;
    order = t->s.order;
    t->s.order = (struct snap_touch){0};
    assert_run(&order, 0, 0, 500 / BLOCK * BLOCK, BLOCK);
    assert_run(&order, 1, 1, 40 / BLOCK * BLOCK, BLOCK);
    assert_run(&order, 2, 0, 100 / BLOCK * BLOCK, BLOCK);
    assert_int_equal(order.nr, 3);
    /* Without anybody who touches anything they come in that order the next time, and then the rest. */
    make_memory(t, false);
    t->s.reads = t->s.nr_noted = t->s.closes = 0;
    atomic_store(&t->s.held_page, 0);
    start(t, &order);
    wait_until(&t->s.reads, 6); /* two runs of pages that are not zero in each */
    for (unsigned i = 0; i < 6; i++) {
        static const uint64_t pages[] = {500, 40, 100};

        assert_int_equal(t->s.noted[i].region, i / 2 == 1);
        assert_int_equal(t->s.noted[i].first / BLOCK, pages[i / 2] / BLOCK);
    }
    atomic_store(&t->s.held_page, -1);
    wait_for(&t->s.wholes);
    assert_int_equal(t->s.figures.faults, 0);
    check_all(t->gm);
}

static bool is_present(const struct gmem *gm, uint64_t page)
{
    auto_close int fd = page_present_open();
    uint64_t first, nr;

    return page_present_next(fd, gmem_region(gm, 0)->hva, page, page + 1, &first, &nr) == 1;
}

/* Its neighbours come with it; more of them where one fault continues another. */
static void test_more_is_brought_than_what_is_touched(void **state)
{
    struct lazy_test *t = *state;
    uint64_t first = 300 / BLOCK * BLOCK;

    make_memory(t, false);
    start_held(t, NULL);
    for (uint64_t blocks = 1; blocks <= 4; blocks *= 2) {
        uint64_t end = first + blocks * BLOCK, page = end - 1;

        while (is_zero(0, first))
            first++;
        check_page(t->gm, 0, first);
        while (is_zero(0, page))
            page--;
        assert_true(page > first);
        for (int i = 0; i < WAIT_MS * 5 && !is_present(t->gm, page); i++)
            nap(); /* whoever touches goes on before all of it is there */
        assert_true(is_present(t->gm, page));
        while (is_zero(0, end))
            end++;
        assert_false(is_present(t->gm, end));
        first = (page / BLOCK + 1) * BLOCK;
    }
    atomic_store(&t->s.held_page, -1);
    wait_for(&t->s.wholes);
    check_all(t->gm);
}

static unsigned nr_uffds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;
    unsigned n = 0;

    assert_non_null(dir);
    while ((e = readdir(dir))) {
        char to[64] = "";

        n += readlinkat(dirfd(dir), e->d_name, to, sizeof(to) - 1) > 0 &&
             strstr(to, "[userfaultfd]") != NULL;
    }
    (void)closedir(dir);
    return n;
}

static void *touch_one(void *arg)
{
    const struct snap_touch_run *run = ((void **)arg)[1];

    check_page(((void **)arg)[0], run->region, run->first);
    return NULL;
}

/* Whoever waits for a slow page, in any region, holds up nobody else. */
static void test_regions_have_descriptors_and_handlers_work_side_by_side(void **state)
{
    struct snap_touch_run at[] = {
        {.region = 0, .first = 500},
        {.region = 1, .first = 40 },
    };
    struct lazy_test *t = *state;
    void *args[2][2];
    pthread_t threads[2];

    make_memory(t, false);
    atomic_store(&t->s.held, true);
    start(t, NULL);
    assert_int_equal(nr_uffds(), 2);
    for (unsigned i = 0; i < 2; i++) {
        args[i][0] = t->gm;
        args[i][1] = &at[i];
        assert_int_equal(pthread_create(&threads[i], NULL, touch_one, args[i]), 0);
    }
    wait_until(&t->s.waiting, 3); /* with the background */
    atomic_store(&t->s.held, false);
    for (unsigned i = 0; i < 2; i++)
        (void)pthread_join(threads[i], NULL);
    wait_for(&t->s.wholes);
    check_all(t->gm);
}

static void *touch_damaged(void *arg)
{
    const struct gmem *gm = arg;

    (void)word_of(gm, 0, 321);
    _exit(2); /* a page that is damaged was delivered */
    return NULL;
}

/* Return: 0, or what is wrong. */
static int lose_a_page(struct lazy_test *t)
{
    pthread_t thread;

    start(t, NULL);
    if (pthread_create(&thread, NULL, touch_damaged, t->gm) != 0)
        return 3;
    atomic_store(&t->s.held, false);
    for (int i = 0; i < WAIT_MS * 5 && !atomic_load(&t->s.losses); i++)
        nap();
    if (atomic_load(&t->s.losses) != 1 || t->s.lost.code != -EBADMSG ||
        strcmp(t->s.lost.msg, "region 0, page 321: is damaged") != 0)
        return 4;
    /* Others still come. */
    if (word_of(t->gm, 1, 3) != content(1, 3))
        return 5;
    for (int i = 0; i < 100; i++)
        nap();
    return gmem_is_served(t->gm) && !atomic_load(&t->s.wholes) && atomic_load(&t->s.losses) == 1
               ? 0
               : 6;
}

/* Whoever touches such a page waits in the kernel for ever: in a process that then ends. */
static void test_a_page_that_cannot_be_had_is_reported_and_never_delivered(void **state)
{
    auto_close int allowed = snap_uffd_open(0, NULL);
    struct lazy_test *t = *state;
    int status = 0;
    pid_t pid;

    if (allowed < 0)
        skip();
    make_memory(t, false);
    atomic_store(&t->s.fail_page, 321);
    atomic_store(&t->s.held, true);
    pid = fork();
    if (pid == 0) {
        int rc = lose_a_page(t);

        /* All is well: with its threads, of which sanitizers would ask what became. */
        if (rc == 0)
            (void)raise(SIGKILL);
        _exit(rc);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status))
        fail_msg("the process that lost a page ended with %d", WEXITSTATUS(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void test_memory_that_cannot_be_served_is_refused_by_name(void **state)
{
    char path[] = "/var/tmp/test_snap_lazy.XXXXXX";
    int file = mkstemp(path);
    const struct gmem_backing zone = {.fd = -1, .shared = true, .file = path};
    struct gmem_backing handed = {.fd = memfd_create("handed", MFD_CLOEXEC), .shared = true};
    const struct snap_lazy_params p = {0};
    struct lazy_test *t = *state;
    struct err err = {0};

    make_memory(t, false);
    assert_int_equal(snap_lazy_check(t->gm, &err), 0);
    assert_int_equal(gmem_add_region(t->gm, high_gpa * 2, 4096, "zone1", &zone, NULL), 2);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(close(file), 0);
    assert_int_equal(snap_lazy_start(t->gm, &p, &err), -ENOTSUP);
    if (!strstr(err.msg, "zone1 cannot be restored on demand: it is a file"))
        assert_non_null(strstr(err.msg, "zone1")); /* /var/tmp in memory: it is as good as one */
    gmem_free(t->gm);
    make_memory(t, false);
    assert_int_equal(ftruncate(handed.fd, 4096), 0);
    assert_int_equal(gmem_add_region(t->gm, high_gpa * 2, 4096, "zone2", &handed, NULL), 2);
    err = (struct err){0};
    assert_int_equal(snap_lazy_start(t->gm, &p, &err), -ENOTSUP);
    assert_string_equal(err.msg, "memory zone zone2 cannot be restored on demand: it may hold "
                                 "something already");
    assert_false(gmem_is_served(t->gm));
}

static void test_memory_that_another_serves_is_refused_and_unchanged(void **state)
{
    auto_close int other = snap_uffd_open(0, NULL);
    struct lazy_test *t = *state;
    const struct snap_lazy_params p = {
        .source = {fake_next, fake_read, fake_close, &t->s}
    };
    struct err err = {0};

    if (other < 0)
        skip();
    make_memory(t, false);
    assert_int_equal(snap_uffd_register(other, gmem_region(t->gm, 1)->hva, HIGH_PAGES * 4096, NULL),
                     0);
    assert_int_equal(snap_lazy_start(t->gm, &p, &err), -EBUSY);
    assert_non_null(strstr(err.msg, "high"));
    assert_false(gmem_is_served(t->gm));
    assert_int_equal(t->s.closes, 0);
    assert_int_equal(word_of(t->gm, 0, 1), 0); /* an ordinary page again */
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_all_comes_by_itself),
        T(test_what_was_read_ahead_is_not_read_again),
        T(test_reading_ahead_ends_when_it_is_enough_or_the_buffer_is_full),
        T(test_without_threads_for_faults_it_comes_all_the_same),
        T(test_without_any_thread_it_is_refused_and_unchanged),
        T(test_what_was_written_before_is_forgotten),
        T(test_several_threads_may_touch_at_once),
        T(test_the_kernel_may_touch),
        T(test_writes_of_the_guest_are_not_overwritten),
        T(test_while_it_comes_a_hole_is_zero_only_if_the_source_says_so),
        T(test_it_can_end_at_any_moment),
        T(test_an_earlier_order_comes_first),
        T(test_what_is_touched_is_noted),
        T(test_more_is_brought_than_what_is_touched),
        T(test_regions_have_descriptors_and_handlers_work_side_by_side),
        T(test_memory_that_cannot_be_served_is_refused_by_name),
        T(test_memory_that_another_serves_is_refused_and_unchanged),
        T(test_a_page_that_cannot_be_had_is_reported_and_never_delivered),
    };

    return cmocka_run_group_tests_name("snap_lazy", tests, NULL, NULL);
}
