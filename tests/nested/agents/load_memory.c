/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that must not change, and memory that must change exactly as written.
 *
 * A still region is filled once and hashed over and over.  A churned region is walked page by
 * page: every word must hold what the walk before left there, and gets the next value.  A page
 * that a move lost, took twice or took too early shows as an error in one of them.
 */
#include <sys/mman.h>

#include "tests/nested/agents/load_status.h"

enum {
    PAGE_LEN = 4096,
    PAGE_WORDS = PAGE_LEN / 8,
    PAGES_A_STEP = 16,
    STEP_MS = 10,
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static uint64_t hash_words(const uint64_t *p, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15ULL;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3ULL + (h >> 47);
    return h;
}

static uint64_t *map_mib(size_t mib)
{
    void *p = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

/* One page of the walk: what the walk before wrote must be there. */
static uint64_t churn_page(uint64_t *page, size_t index, uint64_t walk)
{
    uint64_t old = mix(index * 1000003 + walk - 1);
    uint64_t next = mix(index * 1000003 + walk);
    uint64_t errors = 0;

    for (size_t i = 0; i < PAGE_WORDS; i += 8) {
        errors += page[i] != (walk ? old + i : 0);
        page[i] = next + i;
    }
    return errors;
}

int main(int argc, char **argv)
{
    size_t still_mib = argc == 4 ? strtoul(argv[1], NULL, 10) : 0;
    size_t churn_mib = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
    size_t still_words = (still_mib << 20) / 8;
    size_t churn_pages = (churn_mib << 20) / PAGE_LEN;
    uint64_t errors = 0;
    uint64_t walk = 0;
    uint64_t hashes = 0;
    uint64_t expected;
    uint64_t *still;
    uint64_t *churn;

    if (!still_words || !churn_pages) {
        fprintf(stderr, "usage: load_memory STILL_MIB CHURN_MIB STATUS\n");
        return 2;
    }
    still = map_mib(still_mib);
    churn = map_mib(churn_mib);
    for (size_t i = 0; i < still_words; i++)
        still[i] = mix(i + 1);
    expected = hash_words(still, still_words);
    for (;; walk++) {
        uint64_t hash = hash_words(still, still_words);

        hashes++;
        errors += hash != expected;
        load_status(argv[3], "hash=%016lx expected=%016lx hashes=%lu walks=%lu errors=%lu", hash,
                    expected, hashes, walk, errors);
        for (size_t i = 0; i < churn_pages; i++) {
            errors += churn_page(churn + i * PAGE_WORDS, i, walk);
            if (i % PAGES_A_STEP == 0)
                load_sleep_ms(STEP_MS);
        }
    }
}
