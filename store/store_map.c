/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_map.h"

#include <errno.h>
#include <sys/mman.h>
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

static size_t digest_slot(const struct store_digest_map *m, const struct store_digest *d)
{
    size_t i;

    memcpy(&i, d->b, sizeof(i));
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
    struct store_digest_map bigger = {.nr = m->nr, .cap = cap};

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

    if (store_digest_map_reserve(m, m->nr + 1) < 0)
        return -ENOMEM;
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
    size_t i = (size_t)(id * 0x9e3779b97f4a7c15U >> 20);

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
    struct store_id_map bigger = {.nr = m->nr, .cap = m->cap ? 2 * m->cap : MAP_CAP_MIN};

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

    if (2 * m->nr >= m->cap && id_map_grow(m) < 0)
        return -ENOMEM;
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
