/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_map.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    MAP_CAP_MIN = 256, /* a power of two; tables are at most half full */
    MAP_POPULATE_LEN = 256 << 10,
};

/*
 * A table of zeroes.  A large one gets its memory at once: it would come page after page, and twice
 * for each, as the first access reads; the second then interrupts every processor of the process.
 */
static void *new_table(size_t cap, size_t entry_len)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), len = cap * entry_len;
    uint8_t *table = calloc(cap, entry_len);
    size_t skip;

    if (!table || len < MAP_POPULATE_LEN)
        return table;
    skip = page - (uintptr_t)table % page;
    (void)madvise(table + skip, (len - skip) / page * page, MADV_POPULATE_WRITE);
    return table;
}

/* For the first table of a map; the next ones have the same. */
static int draw_secret(uint64_t secret[STORE_MAP_SECRETS])
{
    const ssize_t len = STORE_MAP_SECRETS * sizeof(secret[0]);

    return getrandom(secret, (size_t)len, 0) == len ? 0 : -EIO;
}

/* Both halves of the product: every bit of both factors counts in the lowest. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static size_t digest_slot(const struct store_digest_map *m, const struct store_digest *d)
{
    uint64_t w[STORE_DIGEST_LEN / sizeof(uint64_t)];
    size_t i;

    _Static_assert(STORE_DIGEST_LEN == STORE_MAP_SECRETS * sizeof(uint64_t), "a secret each");
    memcpy(w, d->b, sizeof(w));
    i = fold(w[0] ^ m->secret[0], w[1] ^ m->secret[1]) ^
        fold(w[2] ^ m->secret[2], w[3] ^ m->secret[3]);
    for (i &= m->cap - 1; m->e[i].d.alg; i = (i + 1) & (m->cap - 1))
        if (store_digest_equal(&m->e[i].d, d))
            break;
    return i;
}

uint64_t *store_digest_map_find(const struct store_digest_map *m, const struct store_digest *d)
{
    size_t i;

    if (!m->cap)
        return NULL;
    i = digest_slot(m, d);
    return m->e[i].d.alg ? &m->e[i].value : NULL;
}

static int digest_map_grow(struct store_digest_map *m, size_t cap)
{
    struct store_digest_map bigger = *m;

    if (!m->cap && draw_secret(bigger.secret) < 0)
        return -EIO;
    bigger.cap = cap;
    bigger.e = new_table(cap, sizeof(bigger.e[0]));
    if (!bigger.e)
        return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->e[i].d.alg)
            bigger.e[digest_slot(&bigger, &m->e[i].d)] = m->e[i];
    free(m->e);
    *m = bigger;
    return 0;
}

int store_digest_map_reserve(struct store_digest_map *m, size_t nr)
{
    size_t cap = m->cap ? m->cap : MAP_CAP_MIN;

    while (cap / 2 < nr)
        cap *= 2;
    return cap == m->cap ? 0 : digest_map_grow(m, cap);
}

int store_digest_map_put(struct store_digest_map *m, const struct store_digest *d, uint64_t value)
{
    size_t i;
    int rc = store_digest_map_reserve(m, m->nr + 1);

    if (rc < 0)
        return rc;
    i = digest_slot(m, d);
    m->nr += !m->e[i].d.alg;
    m->e[i].d = *d;
    m->e[i].value = value;
    return 0;
}

void store_digest_map_release(struct store_digest_map *m)
{
    free(m->e);
    *m = (struct store_digest_map){0};
}

static size_t id_slot(const struct store_id_map *m, uint64_t id)
{
    size_t i = fold(id ^ m->secret[0], m->secret[1]) ^ m->secret[2];

    for (i &= m->cap - 1; m->e[i].used; i = (i + 1) & (m->cap - 1))
        if (m->e[i].id == id)
            break;
    return i;
}

uint32_t *store_id_map_find(const struct store_id_map *m, uint64_t id)
{
    size_t i;

    if (!m->cap)
        return NULL;
    i = id_slot(m, id);
    return m->e[i].used ? &m->e[i].value : NULL;
}

static int id_map_grow(struct store_id_map *m)
{
    struct store_id_map bigger = *m;

    if (!m->cap && draw_secret(bigger.secret) < 0)
        return -EIO;
    bigger.cap = m->cap ? 2 * m->cap : MAP_CAP_MIN;
    bigger.e = new_table(bigger.cap, sizeof(bigger.e[0]));
    if (!bigger.e)
        return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->e[i].used)
            bigger.e[id_slot(&bigger, m->e[i].id)] = m->e[i];
    free(m->e);
    *m = bigger;
    return 0;
}

int store_id_map_or(struct store_id_map *m, uint64_t id, uint32_t bits)
{
    size_t i;
    int rc = 2 * m->nr >= m->cap ? id_map_grow(m) : 0;

    if (rc < 0)
        return rc;
    i = id_slot(m, id);
    m->nr += !m->e[i].used;
    m->e[i] = (struct store_id_entry){.id = id, .value = m->e[i].value | bits, .used = true};
    return 0;
}

void store_id_map_release(struct store_id_map *m)
{
    free(m->e);
    *m = (struct store_id_map){0};
}
