/* SPDX-License-Identifier: Apache-2.0 */
#include "core/page_present.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

/*
 * linux/fs.h of Linux 6.7; the headers that we are built with may be older.
 */
struct scan_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

struct scan_arg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};

#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)

enum {
    SCAN_PRESENT = 1 << 3,
    SCAN_SWAPPED = 1 << 4,
    SCAN_PFNZERO = 1 << 5,
    READ_ENTRIES = 2048, /* of /proc/self/pagemap at once: 16 KiB for 8 MiB of memory */
};

/* Documentation/admin-guide/mm/pagemap.rst: bit 63 "page present", bit 62 "page swapped". */
#define ENTRY_THERE ((UINT64_C(1) << 63) | (UINT64_C(1) << 62))

int page_present_open(void)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* @but: categories that do not count. */
static int scan(int fd, uintptr_t base, uint64_t from, uint64_t nr, uint64_t but,
                uint64_t *ret_first, uint64_t *ret_nr)
{
    struct scan_region found = {0};
    struct scan_arg arg = {
        .size = sizeof(arg),
        .start = base + (from << PAGE_SHIFT_4K),
        .end = base + (nr << PAGE_SHIFT_4K),
        .vec = (uintptr_t)&found,
        .vec_len = 1,
        .category_inverted = but,
        .category_mask = but,
        .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
        /* Nothing more is told of a run, so that runs which differ in nothing else are one. */
        .return_mask = SCAN_PFNZERO,
    };
    int rc = ioctl(fd, SCAN_IOCTL, &arg);

    if (rc <= 0)
        return rc < 0 ? -errno : 0;
    *ret_first = (found.start - base) >> PAGE_SHIFT_4K;
    *ret_nr = (found.end - found.start) >> PAGE_SHIFT_4K;
    return 1;
}

/* One entry a page, in the order of addresses. */
static int read_entries(int fd, uintptr_t base, uint64_t from, uint64_t nr, uint64_t *ret_first,
                        uint64_t *ret_nr)
{
    uint64_t entries[READ_ENTRIES], first = nr;

    while (from < nr) {
        uint64_t want = nr - from < READ_ENTRIES ? nr - from : READ_ENTRIES;
        off_t off = (off_t)(((base >> PAGE_SHIFT_4K) + from) * sizeof(entries[0]));
        ssize_t n = pread(fd, entries, want * sizeof(entries[0]), off);

        if (n < (ssize_t)sizeof(entries[0]))
            return n < 0 ? -errno : -EIO;
        for (uint64_t i = 0; i < (uint64_t)n / sizeof(entries[0]); i++, from++) {
            bool there = entries[i] & ENTRY_THERE;

            if (there && first == nr)
                first = from;
            if (there || first == nr)
                continue;
            *ret_first = first;
            *ret_nr = from - first;
            return 1;
        }
    }
    *ret_first = first;
    *ret_nr = nr - first;
    return first < nr;
}

int page_present_next(int fd, const uint8_t *hva, uint64_t from, uint64_t nr, uint64_t *ret_first,
                      uint64_t *ret_nr)
{
    uintptr_t base = (uintptr_t)hva;
    int rc;

    if (from >= nr)
        return 0;
    rc = scan(fd, base, from, nr, SCAN_PFNZERO, ret_first, ret_nr);
    return rc == -ENOTTY || rc == -EINVAL ? read_entries(fd, base, from, nr, ret_first, ret_nr)
                                          : rc;
}

int page_mapped_next(int fd, const uint8_t *hva, uint64_t from, uint64_t nr, uint64_t *ret_first,
                     uint64_t *ret_nr)
{
    return from >= nr ? 0 : scan(fd, (uintptr_t)hva, from, nr, 0, ret_first, ret_nr);
}
