/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "core/page_present.h"

enum {
    PAGES = 8192, /* more than one read of the old way */
};

/* Whether the kernel is to be as before Linux 6.7. */
static bool old_kernel;

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
    if (old_kernel) {
        errno = ENOTTY;
        return -1;
    }
    return __real_ioctl(fd, request, arg);
}

static uint8_t *new_pages(void)
{
    uint8_t *p = mmap(NULL, PAGES * PAGE_SIZE_4K, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(madvise(p, PAGES * PAGE_SIZE_4K, MADV_NOHUGEPAGE), 0);
    return p;
}

static void write_pages(uint8_t *p, uint64_t first, uint64_t nr)
{
    for (uint64_t i = first; i < first + nr; i++)
        p[i * PAGE_SIZE_4K] = 1;
}

/* Ask for all runs, and note the pages that are in them. */
static void note_runs(int fd, const uint8_t *p, bool *there)
{
    uint64_t from = 0, first, nr;

    while (page_present_next(fd, p, from, PAGES, &first, &nr) == 1) {
        assert_true(first >= from && nr > 0 && nr <= PAGES - first);
        memset(there + first, true, nr);
        from = first + nr;
    }
}

static void check_both_ends_and_between(void)
{
    static const uint64_t runs[][2] = {
        {0,         1   },
        {100,       3   },
        {2047,      2   },
        {4000,      2300},
        {PAGES - 1, 1   },
    };
    static bool wrote[PAGES], there[PAGES];
    uint8_t *p = new_pages();
    int fd = page_present_open();

    assert_true(fd >= 0);
    memset(there, false, sizeof(there));
    for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
        write_pages(p, runs[i][0], runs[i][1]);
        memset(wrote + runs[i][0], true, runs[i][1]);
    }
    note_runs(fd, p, there);
    assert_memory_equal(there, wrote, sizeof(wrote));
    assert_int_equal(munmap(p, PAGES * PAGE_SIZE_4K), 0);
    (void)close(fd);
}

static void test_every_written_page_is_found_and_no_other(void **state)
{
    (void)state;
    check_both_ends_and_between();
}

static void test_an_old_kernel_is_asked_another_way(void **state)
{
    (void)state;
    old_kernel = true;
    check_both_ends_and_between();
    old_kernel = false;
}

static void test_memory_that_nobody_wrote_has_none(void **state)
{
    uint8_t *p = new_pages();
    int fd = page_present_open();
    uint64_t first, nr;

    (void)state;
    assert_int_equal(page_present_next(fd, p, 0, PAGES, &first, &nr), 0);
    assert_int_equal(page_present_next(fd, p, PAGES, PAGES, &first, &nr), 0);
    assert_int_equal(munmap(p, PAGES * PAGE_SIZE_4K), 0);
    (void)close(fd);
}

/* The zero page that a read puts in place is not missing, but has no memory of its own. */
static void test_pages_that_were_read_are_mapped(void **state)
{
    volatile uint8_t *read = new_pages();
    uint8_t *p = (uint8_t *)(uintptr_t)read;
    int fd = page_present_open();
    uint64_t first = 0, nr = 0;
    int rc;

    (void)state;
    (void)read[77 * PAGE_SIZE_4K];
    write_pages(p, 100, 2);
    rc = page_mapped_next(fd, p, 0, PAGES, &first, &nr);
    if (rc == -ENOTTY || rc == -EINVAL)
        skip(); /* before Linux 6.7 */
    assert_int_equal(rc, 1);
    assert_int_equal(first, 77);
    assert_int_equal(nr, 1);
    assert_int_equal(page_mapped_next(fd, p, 78, PAGES, &first, &nr), 1);
    assert_int_equal(first, 100);
    assert_int_equal(nr, 2);
    assert_int_equal(page_mapped_next(fd, p, 102, PAGES, &first, &nr), 0);
    assert_int_equal(page_mapped_next(fd, p, PAGES, PAGES, &first, &nr), 0);
    assert_int_equal(page_present_next(fd, p, 0, PAGES, &first, &nr), 1);
    assert_int_equal(first, 100);
    assert_int_equal(munmap(p, PAGES * PAGE_SIZE_4K), 0);
    (void)close(fd);
}

static void test_a_handle_that_is_none_is_refused(void **state)
{
    uint8_t *p = new_pages();
    uint64_t first, nr;

    (void)state;
    assert_int_equal(page_present_next(-1, p, 0, PAGES, &first, &nr), -EBADF);
    assert_int_equal(munmap(p, PAGES * PAGE_SIZE_4K), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_written_page_is_found_and_no_other),
        cmocka_unit_test(test_an_old_kernel_is_asked_another_way),
        cmocka_unit_test(test_memory_that_nobody_wrote_has_none),
        cmocka_unit_test(test_pages_that_were_read_are_mapped),
        cmocka_unit_test(test_a_handle_that_is_none_is_refused),
    };

    return cmocka_run_group_tests_name("page_present", tests, NULL, NULL);
}
