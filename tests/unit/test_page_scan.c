/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>

#include "core/page_scan.h"

enum {
    PAGES = 16,
};

static uint8_t *new_pages(void)
{
    uint8_t *p = mmap(NULL, PAGES * PAGE_SIZE_4K, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

static void test_any_bit_makes_a_page_not_zero(void **state)
{
    uint8_t *p = new_pages();
    bool zero;

    (void)state;
    assert_int_equal(page_scan_run(p, 1, &zero), 1);
    assert_true(zero);
    for (size_t off = 0; off < PAGE_SIZE_4K; off++) {
        p[off] = (uint8_t)(1 << off % 8);
        assert_int_equal(page_scan_run(p, 1, &zero), 1);
        assert_false(zero);
        p[off] = 0;
    }
    /* The neighbours do not count, at any alignment. */
    p[0] = p[PAGE_SIZE_4K + 1] = 1;
    assert_int_equal(page_scan_run(p + 1, 1, &zero), 1);
    assert_true(zero);
    (void)munmap(p, PAGES * PAGE_SIZE_4K);
}

static void test_runs_end_where_the_kind_changes(void **state)
{
    uint8_t *p = new_pages();
    bool zero;

    (void)state;
    p[3 * PAGE_SIZE_4K + 4095] = 1;
    p[4 * PAGE_SIZE_4K] = 1;
    assert_int_equal(page_scan_run(p, PAGES, &zero), 3);
    assert_true(zero);
    assert_int_equal(page_scan_run(p + 3 * PAGE_SIZE_4K, PAGES - 3, &zero), 2);
    assert_false(zero);
    assert_int_equal(page_scan_run(p + 5 * PAGE_SIZE_4K, PAGES - 5, &zero), PAGES - 5);
    assert_true(zero);
    assert_int_equal(page_scan_run(p, 2, &zero), 2);
    (void)munmap(p, PAGES * PAGE_SIZE_4K);
}

static void test_holes_of_a_memfd_are_found_without_touching_them(void **state)
{
    int fd = memfd_create("scan", MFD_CLOEXEC);
    uint64_t hole;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, PAGES * PAGE_SIZE_4K), 0);
    assert_int_equal(page_scan_populated(fd, 0, PAGES * PAGE_SIZE_4K, &hole), 0);
    assert_int_equal(hole, PAGES * PAGE_SIZE_4K);
    assert_int_equal(pwrite(fd, "x", 1, 5 * PAGE_SIZE_4K + 100), 1);
    assert_int_equal(page_scan_populated(fd, 0, PAGES * PAGE_SIZE_4K, &hole), 11 * PAGE_SIZE_4K);
    assert_int_equal(hole, 5 * PAGE_SIZE_4K);
    assert_int_equal(page_scan_populated(fd, 2 * PAGE_SIZE_4K, 2 * PAGE_SIZE_4K, &hole), 0);
    assert_int_equal(hole, 2 * PAGE_SIZE_4K);
    assert_int_equal(page_scan_populated(fd, 5 * PAGE_SIZE_4K, 4096, &hole), 4096);
    assert_int_equal(hole, 0);
    assert_int_equal(page_scan_populated(-1, 0, 4096, &hole), 4096);
    assert_int_equal(hole, 0);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_bit_makes_a_page_not_zero),
        cmocka_unit_test(test_runs_end_where_the_kind_changes),
        cmocka_unit_test(test_holes_of_a_memfd_are_found_without_touching_them),
    };

    return cmocka_run_group_tests_name("page_scan", tests, NULL, NULL);
}
