/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries lie in the order in which they came, and a small table leads to them: memory is touched
 * as far as it is used, and one line of a processor's cache tells that a page is not there.
 */
#include "store/store_seen.h"

#include <errno.h>
#include <pthread.h>

enum {
    SEEN_WAYS = 16, /* slots of a set: 64 bytes */
    SEEN_SHELVES = 64,
    SEEN_NR_MIN = 1 << 10,
    SEEN_NR_MAX = 1 << 17, /* 5.5 MiB */
    SEEN_TAG_SHIFT = 16,   /* of a slot; below: the number of an entry, from 1, or 0: free */
};

struct seen_entry {
    uint64_t loc;
    uint8_t b[STORE_DIGEST_LEN];
};

/* Every so many sets, with what they lead to. */
struct seen_shelf {
    pthread_mutex_t lock; /* leaf */
    uint64_t put;         /* entries so far; the oldest makes way */
    struct seen_entry *entries;
};

struct store_seen {
    uint64_t nr_sets, per_shelf;
    uint32_t (*sets)[SEEN_WAYS];
    struct seen_entry *entries;
    struct seen_shelf shelves[SEEN_SHELVES];
};

int store_seen_new(uint64_t nr, struct store_seen **ret_s)
{
    struct store_seen *s = calloc(1, sizeof(*s));
    uint64_t size = SEEN_NR_MIN;

    if (!s)
        return -ENOMEM;
    while (size < nr && size < SEEN_NR_MAX)
        size *= 2;
    for (unsigned i = 0; i < SEEN_SHELVES; i++)
        (void)pthread_mutex_init(&s->shelves[i].lock, NULL);
    s->nr_sets = size / SEEN_WAYS;
    s->per_shelf = size / SEEN_SHELVES;
    s->entries = calloc(size, sizeof(s->entries[0]));
    s->sets = calloc(s->nr_sets, sizeof(s->sets[0]));
    if (!s->entries || !s->sets) {
        store_seen_free(s);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < SEEN_SHELVES; i++)
        s->shelves[i].entries = s->entries + i * s->per_shelf;
    *ret_s = s;
    return 0;
}

void store_seen_free(struct store_seen *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < SEEN_SHELVES; i++)
        (void)pthread_mutex_destroy(&s->shelves[i].lock);
    free(s->entries);
    free(s->sets);
    free(s);
}

/* Where a digest, which is its own hash, is looked for. */
struct seen_place {
    struct seen_shelf *shelf;
    uint32_t *set; /* SEEN_WAYS slots */
    uint32_t tag;
};

static struct seen_place seen_place(struct store_seen *s, const struct store_digest *d)
{
    uint64_t h, set;

    memcpy(&h, d->b, sizeof(h));
    set = h & (s->nr_sets - 1);
    return (struct seen_place){.shelf = &s->shelves[set % SEEN_SHELVES],
                               .set = s->sets[set],
                               .tag = (uint32_t)(h >> 48) << SEEN_TAG_SHIFT};
}

static uint64_t seen_find_locked(const struct seen_place *at, const struct store_digest *d)
{
    const uint32_t numbers = (1U << SEEN_TAG_SHIFT) - 1;

    for (unsigned i = 0; i < SEEN_WAYS && at->set[i]; i++) {
        const struct seen_entry *e;

        if ((at->set[i] & ~numbers) != at->tag)
            continue;
        e = &at->shelf->entries[(at->set[i] & numbers) - 1];
        if (memcmp(e->b, d->b, STORE_DIGEST_LEN) == 0)
            return e->loc;
    }
    return 0;
}

bool store_seen_find(struct store_seen *s, const struct store_digest *d, uint64_t *ret_loc)
{
    const struct seen_place at = seen_place(s, d);

    (void)pthread_mutex_lock(&at.shelf->lock);
    *ret_loc = seen_find_locked(&at, d);
    (void)pthread_mutex_unlock(&at.shelf->lock);
    return *ret_loc != 0;
}

static void seen_put_locked(const struct store_seen *s, const struct seen_place *at,
                            const struct store_digest *d, uint64_t loc)
{
    uint64_t number = at->shelf->put++ % s->per_shelf;
    unsigned way = 0;

    while (way < SEEN_WAYS && at->set[way])
        way++;
    if (way == SEEN_WAYS)
        way = (unsigned)number % SEEN_WAYS;
    at->set[way] = at->tag | (uint32_t)(number + 1);
    at->shelf->entries[number].loc = loc;
    memcpy(at->shelf->entries[number].b, d->b, STORE_DIGEST_LEN);
}

uint64_t store_seen_claim(struct store_seen *s, const struct store_digest *d, uint64_t loc)
{
    const struct seen_place at = seen_place(s, d);
    uint64_t there;

    (void)pthread_mutex_lock(&at.shelf->lock);
    there = seen_find_locked(&at, d);
    if (!there)
        seen_put_locked(s, &at, d, loc);
    (void)pthread_mutex_unlock(&at.shelf->lock);
    return there ? there : loc;
}
