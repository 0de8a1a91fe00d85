/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_seen.h"

#include <errno.h>
#include <pthread.h>

enum {
    SEEN_WAYS = 16,
    SEEN_LOCKS = 64,
    SEEN_NR_MIN = 1 << 10,
    SEEN_NR_MAX = 1 << 17, /* 5 MiB */
};

struct seen_entry {
    uint64_t loc;
    uint8_t b[STORE_DIGEST_LEN];
};

struct seen_set {
    uint8_t nr;   /* entries that are in use: no other is looked at, nor its memory touched */
    uint8_t next; /* the way that goes next */
};

struct store_seen {
    pthread_mutex_t locks[SEEN_LOCKS]; /* leaf locks, one per so many sets */
    uint64_t nr_sets;
    struct seen_entry *entries;
    struct seen_set *sets;
};

int store_seen_new(uint64_t nr, struct store_seen **ret_s)
{
    struct store_seen *s = calloc(1, sizeof(*s));
    uint64_t size = SEEN_NR_MIN;

    if (!s)
        return -ENOMEM;
    while (size < nr && size < SEEN_NR_MAX)
        size *= 2;
    for (unsigned i = 0; i < SEEN_LOCKS; i++)
        (void)pthread_mutex_init(&s->locks[i], NULL);
    s->nr_sets = size / SEEN_WAYS;
    s->entries = calloc(size, sizeof(s->entries[0]));
    s->sets = calloc(s->nr_sets, sizeof(s->sets[0]));
    if (!s->entries || !s->sets) {
        store_seen_free(s);
        return -ENOMEM;
    }
    *ret_s = s;
    return 0;
}

void store_seen_free(struct store_seen *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < SEEN_LOCKS; i++)
        (void)pthread_mutex_destroy(&s->locks[i]);
    free(s->entries);
    free(s->sets);
    free(s);
}

static uint64_t seen_set(const struct store_seen *s, const struct store_digest *d)
{
    uint64_t h;

    memcpy(&h, d->b, sizeof(h)); /* the digest is its own hash */
    return h & (s->nr_sets - 1);
}

static uint64_t seen_find_locked(const struct store_seen *s, uint64_t set,
                                 const struct store_digest *d)
{
    const struct seen_entry *e = &s->entries[set * SEEN_WAYS];

    for (unsigned i = 0; i < s->sets[set].nr; i++)
        if (memcmp(e[i].b, d->b, STORE_DIGEST_LEN) == 0)
            return e[i].loc;
    return 0;
}

bool store_seen_find(struct store_seen *s, const struct store_digest *d, uint64_t *ret_loc)
{
    uint64_t set = seen_set(s, d);
    uint64_t loc;

    (void)pthread_mutex_lock(&s->locks[set % SEEN_LOCKS]);
    loc = seen_find_locked(s, set, d);
    (void)pthread_mutex_unlock(&s->locks[set % SEEN_LOCKS]);
    *ret_loc = loc;
    return loc != 0;
}

uint64_t store_seen_claim(struct store_seen *s, const struct store_digest *d, uint64_t loc)
{
    uint64_t set = seen_set(s, d);
    uint64_t there;

    (void)pthread_mutex_lock(&s->locks[set % SEEN_LOCKS]);
    there = seen_find_locked(s, set, d);
    if (!there) {
        struct seen_set *used = &s->sets[set];
        struct seen_entry *e = &s->entries[set * SEEN_WAYS + used->next];

        e->loc = loc;
        memcpy(e->b, d->b, STORE_DIGEST_LEN);
        used->next = (uint8_t)((used->next + 1) % SEEN_WAYS);
        if (used->nr < SEEN_WAYS)
            used->nr++;
    }
    (void)pthread_mutex_unlock(&s->locks[set % SEEN_LOCKS]);
    return there ? there : loc;
}
