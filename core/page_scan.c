/* SPDX-License-Identifier: Apache-2.0 */
#include "core/page_scan.h"

#include <errno.h>
#include <sys/types.h>

/* 32 bytes: one AVX2 register, or two of SSE2.  Any alignment; aliases anything. */
typedef uint64_t scan_vec __attribute__((vector_size(32), may_alias, aligned(1)));

enum {
    SCAN_VECS = PAGE_SIZE_4K / sizeof(scan_vec),
    SCAN_BLOCK = 8, /* vectors looked at together: 256 bytes */
};

/* The guest writes while we look: that is no race of ours. */
#define SCANS_GUEST_MEMORY __attribute__((no_sanitize("thread")))

static inline __attribute__((always_inline)) SCANS_GUEST_MEMORY bool is_zero_body(const void *page)
{
    const scan_vec *v = page;

    for (unsigned i = 0; i < SCAN_VECS; i += SCAN_BLOCK) {
        scan_vec a = v[i] | v[i + 1] | v[i + 2] | v[i + 3];
        scan_vec b = v[i + 4] | v[i + 5] | v[i + 6] | v[i + 7];

        a |= b;
        if (a[0] | a[1] | a[2] | a[3])
            return false;
    }
    return true;
}

static inline __attribute__((always_inline)) SCANS_GUEST_MEMORY uint64_t
scan_run_body(const uint8_t *pages, uint64_t nr, bool *ret_zero)
{
    bool zero = is_zero_body(pages);
    uint64_t n = 1;

    while (n < nr && is_zero_body(pages + n * PAGE_SIZE_4K) == zero)
        n++;
    *ret_zero = zero;
    return n;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) SCANS_GUEST_MEMORY static uint64_t scan_run_avx2(
    const uint8_t *pages, uint64_t nr, bool *ret_zero)
{
    return scan_run_body(pages, nr, ret_zero);
}
#endif

SCANS_GUEST_MEMORY uint64_t page_scan_run(const uint8_t *pages, uint64_t nr, bool *ret_zero)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return scan_run_avx2(pages, nr, ret_zero);
#endif
    return scan_run_body(pages, nr, ret_zero);
}

uint64_t page_scan_populated(int fd, uint64_t off, uint64_t len, uint64_t *ret_hole)
{
    off_t data;

    *ret_hole = 0;
    if (fd < 0)
        return len;
    data = lseek(fd, (off_t)off, SEEK_DATA);
    if (data < 0) {
        /* ENXIO: no data up to the end of the file.  Anything else: it cannot tell. */
        if (errno == ENXIO)
            *ret_hole = len;
        return len - *ret_hole;
    }
    *ret_hole = (uint64_t)data - off < len ? (uint64_t)data - off : len;
    *ret_hole &= ~(uint64_t)(PAGE_SIZE_4K - 1);
    return len - *ret_hole;
}
