/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/gmem.h"
#include "core/page_present.h"

/* Two adjacent regions, a hole, and one more. */
enum {
    LOW_PAGES = 4,
    MID_PAGES = 130,
    HIGH_PAGES = 2,
};
static const uint64_t mid_gpa = LOW_PAGES * 4096;
static const uint64_t high_gpa = UINT64_C(0x100000000);

static int setup(void **state)
{
    const struct gmem_backing anon = {.fd = -1};
    const struct gmem_backing shared = {.fd = -1, .shared = true};
    struct gmem *gm = NULL;

    assert_int_equal(gmem_new(&gm), 0);
    assert_int_equal(gmem_add_region(gm, high_gpa, HIGH_PAGES * 4096, "high", &anon, NULL), 0);
    assert_int_equal(gmem_add_region(gm, 0, LOW_PAGES * 4096, "low", &anon, NULL), 0);
    assert_int_equal(gmem_add_region(gm, mid_gpa, MID_PAGES * 4096, "mid", &shared, NULL), 1);
    *state = gm;
    return 0;
}

static int teardown(void **state)
{
    gmem_free(*state);
    return 0;
}

static void drain(struct gmem *gm, unsigned region, uint64_t bits[3])
{
    memset(bits, 0, 3 * sizeof(*bits));
    gmem_dirty_drain(gm, region, bits);
}

static void test_regions_are_in_order_of_address(void **state)
{
    struct gmem *gm = *state;

    assert_int_equal(gmem_nr_regions(gm), 3);
    assert_string_equal(gmem_region(gm, 0)->id, "low");
    assert_string_equal(gmem_region(gm, 1)->id, "mid");
    assert_string_equal(gmem_region(gm, 2)->id, "high");
    assert_true(gmem_region(gm, 1)->fd >= 0);
    assert_int_equal(gmem_region(gm, 0)->fd, -1);
    assert_int_equal(gmem_size(gm), (LOW_PAGES + MID_PAGES + HIGH_PAGES) * 4096);
}

static void test_bad_regions_are_refused(void **state)
{
    const struct gmem_backing anon = {.fd = -1};
    const struct {
        uint64_t gpa, len;
    } bad[] = {
        {0,              4096},
        {mid_gpa - 4096, 8192},
        {1,              4096},
        {1 << 30,        0   },
        {1 << 30,        5   },
        {~0ULL << 12,    8192},
    };
    struct gmem *gm = *state;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = {0};

        assert_int_equal(gmem_add_region(gm, bad[i].gpa, bad[i].len, "bad", &anon, &err), -EINVAL);
        assert_int_equal(err.code, -EINVAL);
    }
    assert_int_equal(gmem_nr_regions(gm), 3);
}

static void test_a_file_backs_a_region(void **state)
{
    char dir[] = "/tmp/gmem-test-XXXXXX";
    struct gmem_backing b = {.fd = -1, .shared = true, .file = dir};
    struct err err = {0};

    assert_non_null(mkdtemp(dir));
    assert_int_equal(gmem_add_region(*state, 1 << 30, 4096, "dir", &b, &err), 2);
    b.file = "/nonexistent/x";
    assert_int_equal(gmem_add_region(*state, 2U << 30, 4096, "none", &b, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent/x"));
    assert_int_equal(rmdir(dir), 0);
}

static void test_copies_cross_adjacent_regions_and_mark_both(void **state)
{
    struct gmem *gm = *state;
    uint8_t in[100], out[100];
    uint64_t bits[3];

    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i + 1);
    assert_int_equal(gmem_copy_out(gm, mid_gpa - 50, out, sizeof(out)), 0);
    assert_int_equal(gmem_copy_in(gm, mid_gpa - 50, in, sizeof(in)), 0);
    assert_memory_equal(in, out, sizeof(in));
    drain(gm, 0, bits);
    assert_int_equal(bits[0], 1 << (LOW_PAGES - 1));
    drain(gm, 1, bits);
    assert_int_equal(bits[0], 1);
    drain(gm, 1, bits);
    assert_int_equal(bits[0] | bits[1] | bits[2], 0);
}

static void test_outside_ram_nothing_happens(void **state)
{
    struct gmem *gm = *state;
    uint64_t end = mid_gpa + MID_PAGES * 4096, bits[3];
    const uint64_t gpas[] = {end - 1, end,       high_gpa - 1,
                             ~0ULL,   ~0ULL - 1, high_gpa + HIGH_PAGES * 4096 - 1};
    uint8_t two[2] = {7, 7}, zero[1];

    for (size_t i = 0; i < ARRAY_LEN(gpas); i++) {
        assert_int_equal(gmem_copy_out(gm, gpas[i], two, 2), -EFAULT);
        assert_int_equal(gmem_copy_in(gm, gpas[i], two, 2), -EFAULT);
        assert_int_equal(gmem_fill(gm, gpas[i], 1, 2), -EFAULT);
        assert_int_equal(two[0], 7);
    }
    assert_int_equal(gmem_fill(gm, 0, 1, UINT64_MAX), -EFAULT);
    for (unsigned r = 0; r < 3; r++) {
        drain(gm, r, bits);
        assert_int_equal(bits[0] | bits[1] | bits[2], 0);
    }
    assert_int_equal(gmem_copy_in(gm, end - 1, zero, 1), 0);
    assert_int_equal(zero[0], 0);
    assert_int_equal(gmem_copy_in(gm, ~0ULL, zero, 0), 0);
}

static void test_marks_of_long_ranges_are_exact(void **state)
{
    struct gmem *gm = *state;
    uint64_t bits[3];

    gmem_mark(gm, mid_gpa + 63 * 4096 + 5, 66 * 4096);
    drain(gm, 1, bits);
    assert_int_equal(bits[0], UINT64_C(1) << 63);
    assert_int_equal(bits[1], UINT64_MAX);
    assert_int_equal(bits[2], 3);
    gmem_mark(gm, 0, UINT64_MAX);
    drain(gm, 0, bits);
    assert_int_equal(bits[0], 0xf);
    drain(gm, 2, bits);
    assert_int_equal(bits[0], 3);
}

static void test_cells_are_aligned_and_marked(void **state)
{
    struct gmem *gm = *state;
    uint64_t bits[3];
    uint16_t v = 0;

    assert_int_equal(gmem_store_le16(gm, 4096, 0x1234), 0);
    assert_int_equal(gmem_load_le16(gm, 4096, &v), 0);
    assert_int_equal(v, 0x1234);
    drain(gm, 0, bits);
    assert_int_equal(bits[0], 2);
    assert_int_equal(gmem_store_le16(gm, 4097, 1), -EFAULT);
    assert_int_equal(gmem_load_le16(gm, high_gpa - 2, &v), -EFAULT);
}

static void test_pieces_cover_the_range(void **state)
{
    struct gmem *gm = *state;
    struct iovec iov[2];
    uint64_t bits[3];

    assert_int_equal(gmem_pin_write(gm, mid_gpa - 10, 20, iov, 2), 2);
    assert_int_equal(iov[0].iov_len, 10);
    assert_int_equal(iov[1].iov_len, 10);
    assert_ptr_equal(iov[1].iov_base, gmem_region(gm, 1)->hva);
    assert_int_equal(gmem_iov(gm, mid_gpa - 10, 20, iov, 1), -E2BIG);
    assert_int_equal(gmem_iov(gm, high_gpa - 10, 20, iov, 2), -EFAULT);
    drain(gm, 1, bits);
    assert_int_equal(bits[0], 0);
    gmem_unpin_write(gm, mid_gpa - 10, 20);
    drain(gm, 1, bits);
    assert_int_equal(bits[0], 1);
}

static void count_stop(void *arg)
{
    unsigned *stops = arg;

    (*stops)++;
}

/* The source has contents from page 8 on. */
static uint64_t zero_below_8(void *arg, unsigned region, uint64_t first, uint64_t nr)
{
    (void)arg;
    assert_int_equal(region, 1);
    if (first >= 8)
        return 0;
    return nr < 8 - first ? nr : 8 - first;
}

static void test_holes_are_zero_unless_somebody_brings_their_contents(void **state)
{
    struct gmem *gm = *state;
    unsigned stops = 0;
    const struct gmem_server server = {count_stop, zero_below_8, &stops};

    assert_false(gmem_is_served(gm));
    assert_true(gmem_absent_is_zero(gm, 0));
    assert_false(gmem_absent_is_zero(gm, 1));
    assert_int_equal(gmem_hole(gm, 1, 0, MID_PAGES), MID_PAGES);
    assert_int_equal(gmem_copy_out(gm, mid_gpa + 5 * 4096, "x", 1), 0);
    assert_int_equal(gmem_hole(gm, 1, 0, MID_PAGES), 5);
    assert_int_equal(gmem_hole(gm, 1, 5, 1), 0);
    assert_int_equal(gmem_hole(gm, 0, 0, LOW_PAGES), 0); /* private: cannot be told */

    assert_int_equal(gmem_serve(gm, &server), 0);
    assert_true(gmem_is_served(gm));
    assert_false(gmem_absent_is_zero(gm, 0));
    assert_int_equal(gmem_serve(gm, &server), -EBUSY);
    assert_int_equal(gmem_hole(gm, 1, 0, MID_PAGES), 5);
    assert_int_equal(gmem_hole(gm, 1, 5, 1), 0);
    assert_int_equal(gmem_hole(gm, 1, 6, 100), 2);
    assert_int_equal(gmem_hole(gm, 1, 8, 1), 0);
    gmem_served_whole(gm);
    assert_false(gmem_is_served(gm));
    assert_int_equal(gmem_hole(gm, 1, 8, 1), 1);
    assert_int_equal(stops, 0);
    gmem_free(gm);
    assert_int_equal(stops, 1);
    assert_int_equal(gmem_new((struct gmem **)state), 0);
}

static void test_an_image_replaces_fresh_private_memory_only(void **state)
{
    auto_close int fd = memfd_create("image", MFD_CLOEXEC);
    struct gmem *gm = *state;
    struct err err = {0};
    char got[2] = "";

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (LOW_PAGES + 1) * 4096), 0);
    assert_int_equal(pwrite(fd, "yz", 2, 2 * 4096), 2);
    assert_int_equal(gmem_map_image(gm, 1, fd, 0, &err), -EINVAL); /* shared */
    assert_non_null(strstr(err.msg, "mid"));
    assert_int_equal(gmem_map_image(gm, 0, fd, 4096, &err), 0);
    assert_false(gmem_absent_is_zero(gm, 0));
    assert_int_equal(gmem_map_image(gm, 0, fd, 4096, &err), -EINVAL); /* no longer fresh */
    assert_int_equal(gmem_copy_in(gm, 4096, got, 2), 0);
    assert_memory_equal(got, "yz", 2);
    /* What the guest writes stays its own. */
    assert_int_equal(gmem_copy_out(gm, 4096, "Q", 1), 0);
    assert_int_equal(pread(fd, got, 2, 2 * 4096), 2);
    assert_memory_equal(got, "yz", 2);
}

static bool is_mapped(const uint8_t *page)
{
    auto_close int fd = page_present_open();
    uint64_t first, nr;

    return page_mapped_next(fd, page, 0, 1, &first, &nr) == 1;
}

static void test_fresh_memory_forgets_what_was_written(void **state)
{
    struct gmem *gm = *state;
    struct err err = {0};
    char got = 'z';

    for (unsigned i = 0; i < 2; i++) {
        const uint64_t gpa = gmem_region(gm, i)->gpa;

        assert_int_equal(gmem_copy_out(gm, gpa, "x", 1), 0);
        assert_int_equal(gmem_discard(gm, i, &err), 0);
        assert_int_equal(gmem_copy_in(gm, gpa, &got, 1), 0);
        assert_int_equal(got, 0);
        /* Nor is what only a read put in place. */
        assert_int_equal(gmem_discard(gm, i, &err), 0);
        if (gmem_region(gm, i)->fd < 0)
            assert_false(is_mapped(gmem_region(gm, i)->hva));
    }
}

/* The flags of the mapping at an address, as /proc/self/smaps has them. */
static bool has_flag(const void *at, const char *flag)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    char line[512];
    bool here = false, found = false;

    assert_non_null(f);
    while (!found && fgets(line, sizeof(line), f)) {
        char head[32];

        (void)snprintf(head, sizeof(head), "%lx-", (unsigned long)(uintptr_t)at);
        here |= strncmp(line, head, strlen(head)) == 0;
        if (here && strncmp(line, "VmFlags:", 8) == 0)
            break;
    }
    found = here && strstr(line, flag);
    (void)fclose(f);
    return found;
}

static void test_huge_pages_are_for_where_they_were_wanted(void **state)
{
    const struct gmem_backing with = {.fd = -1, .thp = true}, without = {.fd = -1};
    const uint64_t at = high_gpa * 2;
    struct gmem *gm = *state;
    const uint8_t *hva;
    int i = gmem_add_region(gm, at, 4 << 20, "with", &with, NULL);

    assert_int_equal(i, 3);
    hva = gmem_region(gm, 3)->hva;
    assert_false(has_flag(hva, " hg"));
    gmem_set_thp(gm, true);
    assert_true(has_flag(hva, " hg"));
    gmem_set_thp(gm, false);
    assert_true(has_flag(hva, " nh"));
    assert_int_equal(gmem_add_region(gm, at * 2, 4 << 20, "without", &without, NULL), 4);
    gmem_set_thp(gm, true);
    assert_false(has_flag(gmem_region(gm, 4)->hva, " hg"));
}

static uint64_t nr_present(const struct gmem_region *r)
{
    auto_close int fd = page_present_open();
    uint64_t from = 0, first, nr, there = 0;

    while (page_present_next(fd, r->hva, from, r->len >> PAGE_SHIFT_4K, &first, &nr) == 1) {
        there += nr;
        from = first + nr;
    }
    return there;
}

static void test_memory_is_made_ready_and_given_back(void **state)
{
    const struct gmem_backing anon = {.fd = -1};
    const uint64_t at = high_gpa * 2, pages = 5000;
    struct gmem *gm = *state;
    const struct gmem_region *r;
    atomic_bool enough = false;
    uint8_t byte = 0;

    assert_false(gmem_has_spare(gm));
    assert_int_equal(gmem_add_region(gm, at, pages * PAGE_SIZE_4K, "ready", &anon, NULL), 3);
    r = gmem_region(gm, 3);
    assert_int_equal(gmem_copy_out(gm, at + 4000 * PAGE_SIZE_4K, "x", 1), 0);
    assert_int_equal(gmem_populate(gm, &enough, NULL), 0);
    assert_int_equal(nr_present(r), pages);
    assert_int_equal(gmem_give_back(gm, 3, 512, 1024), 0);
    assert_int_equal(nr_present(r), pages - 1024);
    assert_int_equal(gmem_give_back(gm, 1, 0, 1), -EINVAL);
    assert_int_equal(gmem_copy_in(gm, at + 4000 * PAGE_SIZE_4K, &byte, 1), 0);
    assert_int_equal(byte, 'x');
    enough = true;
    assert_int_equal(gmem_populate(gm, &enough, NULL), 0);
    assert_int_equal(nr_present(r), pages - 1024);
}

/* More than any host has: refused now, rather than by SIGBUS once the guest runs. */
static void test_huge_pages_that_are_not_there_are_missed_at_once(void **state)
{
    const struct gmem_backing huge = {.fd = -1, .hugepages = true, .hugepage_size = 2 << 20};
    struct gmem *gm = *state;
    struct err err = {0};

    assert_int_equal(gmem_add_region(gm, high_gpa * 2, UINT64_C(1) << 44, "huge", &huge, &err),
                     -ENOMEM);
    assert_string_equal(err.msg, "memory zone huge: not enough huge pages for 16777216 MiB");
}

static void test_memory_is_fresh_only_where_nothing_was_in_it(void **state)
{
    char path[] = "/tmp/test_gmem.XXXXXX";
    auto_close int file = mkstemp(path);
    const struct gmem_backing zone = {.fd = -1, .shared = true, .file = path};
    struct gmem_backing handed = {.fd = memfd_create("handed", MFD_CLOEXEC), .shared = true};
    struct gmem *gm = *state;
    const uint64_t at = high_gpa * 2;

    assert_true(file >= 0);
    for (unsigned i = 0; i < gmem_nr_regions(gm); i++)
        assert_true(gmem_region(gm, i)->fresh);
    assert_int_equal(gmem_add_region(gm, at, 4096, "empty file", &zone, NULL), 3);
    assert_true(gmem_region(gm, 3)->fresh);
    assert_int_equal(gmem_add_region(gm, at * 2, 4096, "its second life", &zone, NULL), 4);
    assert_false(gmem_region(gm, 4)->fresh);
    assert_int_equal(ftruncate(handed.fd, 4096), 0);
    assert_int_equal(gmem_add_region(gm, at * 4, 4096, "handed over", &handed, NULL), 5);
    assert_false(gmem_region(gm, 5)->fresh);
    assert_int_equal(gmem_discard(gm, 5, NULL), -EINVAL);
    assert_int_equal(unlink(path), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static int new_memfd(uint64_t pages, unsigned seals)
{
    int fd = memfd_create("theirs", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)(pages << PAGE_SHIFT_4K)), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void test_memory_is_adopted_only_if_it_cannot_be_made_shorter(void **state)
{
    const struct gmem_backing shared = {.fd = -1, .shared = true}, own = {.fd = -1};
    struct gmem *ours = NULL, *theirs = NULL;
    struct err err = {0};
    uint64_t word = 0;

    (void)state;
    assert_int_equal(gmem_new(&ours), 0);
    assert_int_equal(gmem_new(&theirs), 0);
    assert_int_equal(gmem_add_region(ours, 0, 4 * PAGE_SIZE_4K, "low", &shared, NULL), 0);
    assert_int_equal(gmem_add_region(ours, GIB(4), PAGE_SIZE_4K, "own", &own, NULL), 1);
    assert_int_equal(gmem_add_region(theirs, 0, 4 * PAGE_SIZE_4K, "low", &shared, NULL), 0);
    assert_true(gmem_can_hand_over(ours, 0));
    assert_false(gmem_can_hand_over(ours, 1));
    assert_int_equal(gmem_adopt(ours, 1, new_memfd(1, F_SEAL_SHRINK), 0, NULL), -EINVAL);
    assert_int_equal(gmem_adopt(ours, 0, new_memfd(3, F_SEAL_SHRINK), 0, NULL), -EINVAL);
    assert_int_equal(gmem_adopt(ours, 0, new_memfd(8, F_SEAL_SHRINK), 5 << PAGE_SHIFT_4K, NULL),
                     -EINVAL);
    assert_int_equal(gmem_adopt(ours, 0, new_memfd(4, F_SEAL_GROW), 0, &err), -EPERM);
    assert_string_equal(err.msg, "memory zone low: what was handed over can still be made shorter");
    /* Nor can theirs: one is written through, and read in the other. */
    assert_int_equal(gmem_adopt(ours, 0, dup(gmem_region(theirs, 0)->fd), 0, NULL), 0);
    assert_int_equal(ftruncate(gmem_region(ours, 0)->fd, 0), -1);
    word = 0x1122334455667788;
    assert_int_equal(gmem_copy_out(theirs, 0x2000, &word, sizeof(word)), 0);
    word = 0;
    assert_int_equal(gmem_copy_in(ours, 0x2000, &word, sizeof(word)), 0);
    assert_int_equal(word, 0x1122334455667788);
    gmem_free(ours);
    gmem_free(theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_regions_are_in_order_of_address),
        T(test_bad_regions_are_refused),
        T(test_a_file_backs_a_region),
        T(test_copies_cross_adjacent_regions_and_mark_both),
        T(test_outside_ram_nothing_happens),
        T(test_marks_of_long_ranges_are_exact),
        T(test_cells_are_aligned_and_marked),
        T(test_pieces_cover_the_range),
        T(test_holes_are_zero_unless_somebody_brings_their_contents),
        T(test_an_image_replaces_fresh_private_memory_only),
        T(test_fresh_memory_forgets_what_was_written),
        T(test_huge_pages_are_for_where_they_were_wanted),
        T(test_memory_is_made_ready_and_given_back),
        T(test_huge_pages_that_are_not_there_are_missed_at_once),
        T(test_memory_is_fresh_only_where_nothing_was_in_it),
        cmocka_unit_test(test_memory_is_adopted_only_if_it_cannot_be_made_shorter),
    };

    return cmocka_run_group_tests_name("gmem", tests, NULL, NULL);
}
