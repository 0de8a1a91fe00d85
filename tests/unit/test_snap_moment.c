/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/dirty.h"
#include "core/gmem.h"
#include "snapshot/snap_moment.h"

enum {
    LOW_PAGES = 3 * SNAP_MOMENT_ASIDE_PAGES + 7, /* a third is zero: twice what may be kept aside */
    HIGH_PAGES = 1024,
    PAGES = LOW_PAGES + HIGH_PAGES,
    WRITERS = 2,
    ROOM_PAGES = 64,
};

static const uint64_t high_gpa = GIB(4);

/* What the sink was given. */
struct seen {
    unsigned times[2][LOW_PAGES];
    uint64_t run[2][LOW_PAGES]; /* pages that it was given with, itself among them */
    uint64_t first_word[2][LOW_PAGES];
    uint64_t last_word[2][LOW_PAGES];
    uint64_t fail_after; /* pages; 0: never */
    uint64_t pages;
    uint64_t room_pages; /* that the sink has room for at once */
    void (*each)(void);
};

static struct gmem *gm;
static struct seen seen;
static uint8_t room[ROOM_PAGES * PAGE_SIZE_4K];
static atomic_bool writers_quit;
static atomic_uint writes;

/* --- Helpers ------------------------------------------------------------- */

static volatile uint64_t *words(unsigned region, uint64_t page)
{
    return (volatile uint64_t *)(void *)(gmem_region(gm, region)->hva + (page << PAGE_SHIFT_4K));
}

/* Page @page of a region at the moment: its number in the first and the last word; a third is zero. */
static uint64_t value_of(unsigned region, uint64_t page)
{
    return page % 3 == 2 ? 0 : ((uint64_t)region + 1) << 32 | (page + 1);
}

static void new_memory(bool shared)
{
    const struct gmem_backing b = {.fd = -1, .shared = shared};

    assert_int_equal(gmem_new(&gm), 0);
    assert_int_equal(gmem_add_region(gm, 0, (uint64_t)LOW_PAGES << PAGE_SHIFT_4K, "low", &b, NULL),
                     0);
    assert_int_equal(
        gmem_add_region(gm, high_gpa, (uint64_t)HIGH_PAGES << PAGE_SHIFT_4K, "high", &b, NULL), 1);
    for (unsigned r = 0; r < 2; r++)
        for (uint64_t p = 0; p < gmem_region(gm, r)->len >> PAGE_SHIFT_4K; p++)
            if (value_of(r, p))
                words(r, p)[0] = words(r, p)[511] = value_of(r, p);
    memset(&seen, 0, sizeof(seen));
    seen.room_pages = ROOM_PAGES;
    atomic_store(&writes, 0);
}

static void drop_memory(void)
{
    gmem_free(gm);
    gm = NULL;
}

static uint8_t *room_of(void *arg, uint64_t *ret_nr)
{
    (void)arg;
    *ret_nr = seen.room_pages;
    return room;
}

static int give(unsigned region, uint64_t first, uint64_t nr, const uint8_t *data, struct err *err)
{
    for (uint64_t i = 0; i < nr; i++) {
        const uint8_t *page = data ? data + (i << PAGE_SHIFT_4K) : NULL;

        seen.times[region][first + i]++;
        seen.run[region][first + i] = nr;
        if (page)
            memcpy(&seen.first_word[region][first + i], page, 8);
        if (page)
            memcpy(&seen.last_word[region][first + i], page + PAGE_SIZE_4K - 8, 8);
    }
    seen.pages += nr;
    if (seen.each)
        seen.each();
    if (seen.fail_after && seen.pages >= seen.fail_after)
        return err_set(err, -EIO, "the sink fails");
    return 0;
}

static int give_pages(void *arg, unsigned region, uint64_t first, uint64_t nr, struct err *err)
{
    (void)arg;
    assert_true(nr > 0 && nr <= seen.room_pages);
    return give(region, first, nr, room, err);
}

static int give_zero(void *arg, unsigned region, uint64_t first, uint64_t nr, struct err *err)
{
    (void)arg;
    return give(region, first, nr, NULL, err);
}

static const struct snap_moment_sink sink = {
    .room = room_of, .pages = give_pages, .zero = give_zero};

/* As the guest: what orders this with our reading is the kernel's write protection. */
__attribute__((no_sanitize("thread"), noinline)) static void guest_write(volatile uint64_t *page)
{
    page[0] = page[511] = UINT64_MAX;
}

/* Overwrites all memory, page after page in an order of its own, until told to stop. */
static void *writer_main(void *arg)
{
    unsigned step = *(const unsigned *)arg;

    for (uint64_t i = 0; !atomic_load(&writers_quit); i = (i + step) % PAGES) {
        unsigned r = i >= LOW_PAGES;
        uint64_t p = r ? i - LOW_PAGES : i;

        guest_write(words(r, p));
        atomic_fetch_add(&writes, 1);
    }
    return NULL;
}

static void start_writers(pthread_t *threads)
{
    static const unsigned steps[WRITERS] = {1, 1301};

    atomic_store(&writers_quit, false);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, writer_main, (void *)(uintptr_t)&steps[i]), 0);
}

static void stop_writers(const pthread_t *threads)
{
    atomic_store(&writers_quit, true);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static struct snap_moment *new_moment(void)
{
    struct snap_moment *m = NULL;
    struct err err = {0};
    int rc = snap_moment_new(gm, &m, &err);

    if (rc == -EPERM || rc == -EINVAL || rc == -ENOSYS) {
        print_message("skipped: %s\n", err.msg);
        drop_memory();
        skip();
    }
    assert_int_equal(rc, 0);
    return m;
}

static void assert_all_as_it_was(void)
{
    for (unsigned r = 0; r < 2; r++) {
        for (uint64_t p = 0; p < gmem_region(gm, r)->len >> PAGE_SHIFT_4K; p++) {
            assert_int_equal(seen.times[r][p], 1);
            assert_int_equal(seen.first_word[r][p], value_of(r, p));
            assert_int_equal(seen.last_word[r][p], value_of(r, p));
        }
    }
}

static void check_under_writers(bool shared)
{
    pthread_t writers[WRITERS];
    struct snap_moment *m;

    new_memory(shared);
    m = new_moment();
    assert_int_equal(snap_moment_take(m, NULL, NULL), 0);
    start_writers(writers);
    /* They are ahead of the reader by as much as fits aside, or have to wait. */
    while (atomic_load(&writes) < SNAP_MOMENT_ASIDE_PAGES)
        (void)usleep(100);
    assert_int_equal(snap_moment_read(m, &sink, NULL), 0);
    snap_moment_free(m);
    stop_writers(writers);
    assert_all_as_it_was();
    drop_memory();
}

/* --- Tests ------------------------------------------------------------------ */

static void test_every_page_is_as_it_was_though_all_are_overwritten(void **state)
{
    (void)state;
    check_under_writers(false);
}

static void test_shared_memory_is_as_it_was_though_all_is_overwritten(void **state)
{
    (void)state;
    check_under_writers(true);
}

/* --- Only what changed ------------------------------------------------------ */

static int log_set(void *arg, unsigned region, bool on)
{
    (void)arg;
    (void)region;
    (void)on;
    return 0;
}

static int log_get(void *arg, unsigned region, uint64_t *bits)
{
    (void)arg;
    (void)region;
    (void)bits;
    return 0;
}

static int log_clear(void *arg, unsigned region, uint64_t first, uint32_t nr, const uint64_t *bits)
{
    (void)arg;
    (void)region;
    (void)first;
    (void)nr;
    (void)bits;
    return 0;
}

static void test_only_pages_that_are_wanted_are_given(void **state)
{
    static const struct dirty_log_ops ops = {.set = log_set, .get = log_get, .clear = log_clear};
    static const struct {
        unsigned region;
        uint64_t first, nr;
    } runs[] = {
        {0, 0,              1   },
        {0, 510,            4   },
        {0, 2000,           1100},
        {0, LOW_PAGES - 1,  1   },
        {1, 7,              1   },
        {1, HIGH_PAGES - 3, 3   },
    };
    struct dirty_consumer *changed = NULL;
    pthread_t writers[WRITERS];
    struct dirty *d = NULL;
    struct snap_moment *m;
    uint64_t wanted = 0;

    (void)state;
    new_memory(false);
    m = new_moment();
    assert_int_equal(dirty_new(gm, &ops, NULL, &d), 0);
    assert_int_equal(dirty_attach(d, &changed, NULL), 0);
    for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
        dirty_mark(changed, runs[i].region, runs[i].first, runs[i].nr);
        wanted += runs[i].nr;
    }
    assert_int_equal(snap_moment_take(m, changed, NULL), 0);
    assert_int_equal(dirty_count(changed), 0);
    start_writers(writers);
    assert_int_equal(snap_moment_read(m, &sink, NULL), 0);
    snap_moment_free(m);
    stop_writers(writers);
    assert_int_equal(seen.pages, wanted);
    for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
        for (uint64_t p = runs[i].first; p < runs[i].first + runs[i].nr; p++) {
            assert_int_equal(seen.times[runs[i].region][p], 1);
            assert_int_equal(seen.last_word[runs[i].region][p], value_of(runs[i].region, p));
        }
    }
    dirty_detach(changed);
    dirty_free(d);
    drop_memory();
}

static void test_pages_behind_one_that_is_written_to_are_kept_with_it(void **state)
{
    enum {
        FIRST = 40,
        WANTED = 32
    };
    struct snap_moment *m;

    (void)state;
    new_memory(false);
    for (uint64_t p = FIRST; p < FIRST + WANTED; p++)
        words(0, p)[0] = p;
    m = new_moment();
    assert_int_equal(snap_moment_take(m, NULL, NULL), 0);
    for (uint64_t p = FIRST; p < FIRST + WANTED; p++)
        guest_write(words(0, p));
    assert_int_equal(snap_moment_read(m, &sink, NULL), 0);
    snap_moment_free(m);
    for (uint64_t p = FIRST; p < FIRST + WANTED; p++) {
        assert_int_equal(seen.times[0][p], 1);
        assert_int_equal(seen.first_word[0][p], p);
        assert_true(seen.run[0][p] >= WANTED); /* handed over together, as they lie */
    }
    drop_memory();
}

static void test_one_write_keeps_several_pages(void **state)
{
    enum {
        FIRST = 40,
        NEXT = 8
    };
    struct snap_moment *m;

    (void)state;
    new_memory(false);
    for (uint64_t p = FIRST; p < FIRST + NEXT; p++)
        words(0, p)[0] = p;
    m = new_moment();
    assert_int_equal(snap_moment_take(m, NULL, NULL), 0);
    guest_write(words(0, FIRST));
    assert_int_equal(snap_moment_read(m, &sink, NULL), 0);
    snap_moment_free(m);
    assert_true(seen.run[0][FIRST] >= NEXT);
    assert_int_equal(seen.first_word[0][FIRST], FIRST);
    assert_int_equal(seen.first_word[0][FIRST + NEXT - 1], FIRST + NEXT - 1);
    drop_memory();
}

/* Runs longer than the room come in pieces, each page once, whether from memory or from aside. */
static void test_a_sink_with_little_room_gets_all(void **state)
{
    struct snap_moment *m;

    (void)state;
    new_memory(false);
    seen.room_pages = 3;
    for (uint64_t p = 0; p < 3000; p++)
        if (value_of(0, p) == 0)
            words(0, p)[0] = words(0, p)[511] = 1;
    m = new_moment();
    assert_int_equal(snap_moment_take(m, NULL, NULL), 0);
    for (uint64_t p = 1000; p < 2000; p++)
        guest_write(words(0, p));
    assert_int_equal(snap_moment_read(m, &sink, NULL), 0);
    snap_moment_free(m);
    for (uint64_t p = 0; p < LOW_PAGES; p++) {
        const uint64_t expect = value_of(0, p) ? value_of(0, p) : p < 3000;

        assert_int_equal(seen.times[0][p], 1);
        assert_int_equal(seen.first_word[0][p], expect);
        assert_int_equal(seen.last_word[0][p], expect);
    }
    drop_memory();
}

static void test_a_reader_that_fails_lets_the_writers_go(void **state)
{
    pthread_t writers[WRITERS];
    struct snap_moment *m;
    struct err err = {0};
    unsigned before;

    (void)state;
    new_memory(false);
    seen.fail_after = 600;
    m = new_moment();
    assert_int_equal(snap_moment_take(m, NULL, NULL), 0);
    start_writers(writers);
    assert_int_equal(snap_moment_read(m, &sink, &err), -EIO);
    assert_string_equal(err.msg, "the sink fails");
    snap_moment_free(m);
    before = atomic_load(&writes);
    while (atomic_load(&writes) < before + 2 * PAGES)
        (void)usleep(100);
    stop_writers(writers);
    drop_memory();
}

/* Writes to as many pages as may be kept aside, from the last one down, each of which is protected. */
static void *steady_writer_main(void *arg)
{
    uint64_t p = LOW_PAGES;

    (void)arg;
    while (atomic_load(&writes) < SNAP_MOMENT_ASIDE_PAGES) {
        if (value_of(0, --p) == 0)
            continue;
        guest_write(words(0, p));
        atomic_fetch_add(&writes, 1);
    }
    return NULL;
}

/* As a store does whose disk stalls: no page is taken until all of that is written. */
static void wait_for_the_writer(void)
{
    unsigned left_ms = 60000;

    for (; atomic_load(&writes) < SNAP_MOMENT_ASIDE_PAGES && left_ms; left_ms--)
        (void)usleep(1000);
    if (!left_ms)
        fail_msg("the writer waits for the sink after %u pages", atomic_load(&writes));
    seen.each = NULL;
}

static void test_a_sink_that_stalls_does_not_stop_the_writer(void **state)
{
    struct snap_moment *m;
    pthread_t writer;

    (void)state;
    new_memory(false);
    seen.each = wait_for_the_writer;
    m = new_moment();
    assert_int_equal(snap_moment_take(m, NULL, NULL), 0);
    assert_int_equal(pthread_create(&writer, NULL, steady_writer_main, NULL), 0);
    assert_int_equal(snap_moment_read(m, &sink, NULL), 0);
    snap_moment_free(m);
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_all_as_it_was();
    drop_memory();
}

static void test_memory_can_be_protected_again_and_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        check_under_writers(i % 2 != 0);
}

static void test_a_moment_that_nobody_reads_leaves_nothing_protected(void **state)
{
    struct snap_moment *m;

    (void)state;
    new_memory(false);
    m = new_moment();
    assert_int_equal(snap_moment_take(m, NULL, NULL), 0);
    snap_moment_free(m);
    for (uint64_t p = 0; p < LOW_PAGES; p++)
        words(0, p)[0] = 1; /* would wait for ever */
    drop_memory();
}

static void test_two_at_once_are_refused(void **state)
{
    struct snap_moment *m, *second = NULL;
    struct err err = {0};

    (void)state;
    new_memory(false);
    m = new_moment();
    assert_int_equal(snap_moment_new(gm, &second, &err), -EBUSY);
    assert_string_equal(err.msg, "memory zone low: userfaultfd: Device or resource busy");
    snap_moment_free(m);
    drop_memory();
}

static void test_a_private_file_is_refused_by_name(void **state)
{
    char path[] = "/tmp/test_snap_moment.XXXXXX";
    struct gmem_backing b = {.file = path, .fd = -1};
    struct snap_moment *m = NULL;
    struct err err = {0};
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(gmem_new(&gm), 0);
    assert_int_equal(gmem_add_region(gm, 0, PAGE_SIZE_4K, "filed", &b, NULL), 0);
    assert_int_equal(snap_moment_new(gm, &m, &err), -ENOTSUP);
    assert_string_equal(err.msg, "memory zone filed: huge pages, or a file that is not shared");
    assert_null(m);
    drop_memory();
    (void)close(fd);
    (void)unlink(path);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_page_is_as_it_was_though_all_are_overwritten),
        cmocka_unit_test(test_shared_memory_is_as_it_was_though_all_is_overwritten),
        cmocka_unit_test(test_only_pages_that_are_wanted_are_given),
        cmocka_unit_test(test_pages_behind_one_that_is_written_to_are_kept_with_it),
        cmocka_unit_test(test_one_write_keeps_several_pages),
        cmocka_unit_test(test_a_sink_with_little_room_gets_all),
        cmocka_unit_test(test_a_reader_that_fails_lets_the_writers_go),
        cmocka_unit_test(test_a_sink_that_stalls_does_not_stop_the_writer),
        cmocka_unit_test(test_memory_can_be_protected_again_and_again),
        cmocka_unit_test(test_a_moment_that_nobody_reads_leaves_nothing_protected),
        cmocka_unit_test(test_two_at_once_are_refused),
        cmocka_unit_test(test_a_private_file_is_refused_by_name),
    };

    return cmocka_run_group_tests_name("snap_moment", tests, NULL, NULL);
}
