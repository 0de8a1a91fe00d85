/* SPDX-License-Identifier: Apache-2.0 */
#include "core/dirty.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "core/gmem.h"

enum {
    DIRTY_CONSUMERS_MAX = 8,
    DIRTY_SLICE_PAGES = 16384, /* 64 MiB: most pages protected again by one call */
};

struct bitmap {
    uint64_t *bits;
    uint64_t pages;
    size_t words;
};

struct dirty_consumer {
    struct dirty *d;
    struct bitmap maps[GMEM_REGIONS_MAX];
    struct bitmap before[GMEM_REGIONS_MAX]; /* written between the last two dirty_set_aside() */
    struct bitmap aside[GMEM_REGIONS_MAX];  /* set aside */
    unsigned region;                        /* cursor */
    uint64_t page;
};

struct dirty {
    struct gmem *gm;
    const struct dirty_log_ops *ops;
    void *arg;
    unsigned nr_regions;

    pthread_mutex_t lock; /* all below, and every consumer's bitmaps */
    /* Pages that the log reported and that are not yet protected again. */
    struct bitmap unprotected[GMEM_REGIONS_MAX];
    struct bitmap scratch[GMEM_REGIONS_MAX];
    struct dirty_consumer *consumers[DIRTY_CONSUMERS_MAX];
    unsigned nr_consumers;
};

/* --- Bitmaps ------------------------------------------------------------- */

static int bitmap_init(struct bitmap *m, uint64_t pages)
{
    m->pages = pages;
    m->words = (size_t)(pages + 63) / 64;
    m->bits = calloc(m->words, sizeof(uint64_t));
    return m->bits ? 0 : -ENOMEM;
}

static int bitmaps_init(struct bitmap *maps, const struct gmem *gm)
{
    int rc = 0;

    for (unsigned i = 0; i < gmem_nr_regions(gm) && rc >= 0; i++)
        rc = bitmap_init(&maps[i], gmem_region(gm, i)->len >> PAGE_SHIFT_4K);
    return rc;
}

static void bitmaps_release(struct bitmap *maps)
{
    for (unsigned i = 0; i < GMEM_REGIONS_MAX; i++)
        free(maps[i].bits);
}

static void bitmap_set(struct bitmap *m, uint64_t first, uint64_t nr)
{
    uint64_t end = first < m->pages && nr < m->pages - first ? first + nr : m->pages;

    for (uint64_t p = first; p < end;) {
        uint64_t bit = p % 64, n = end - p < 64 - bit ? end - p : 64 - bit;

        m->bits[p / 64] |= (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << bit;
        p += n;
    }
}

/*
 * First page of [@from, @end) whose bit is @val; @end if there is none.  The caller looks no further
 * than it needs: whoever takes runs of an area that is dirty all over would else read it each time.
 */
static uint64_t bitmap_next(const struct bitmap *m, uint64_t from, uint64_t end, bool val)
{
    uint64_t p = from;

    while (p < end) {
        uint64_t w = (val ? m->bits[p / 64] : ~m->bits[p / 64]) >> (p % 64);

        if (w) {
            p += (uint64_t)__builtin_ctzll(w);
            return p < end ? p : end;
        }
        p = (p / 64 + 1) * 64;
    }
    return end;
}

static void bitmap_clear(struct bitmap *m, uint64_t first, uint64_t nr)
{
    for (uint64_t p = first; p < first + nr;) {
        uint64_t bit = p % 64, left = first + nr - p, n = left < 64 - bit ? left : 64 - bit;

        m->bits[p / 64] &= ~((n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << bit);
        p += n;
    }
}

/* --- Life cycle ---------------------------------------------------------- */

int dirty_new(struct gmem *gm, const struct dirty_log_ops *ops, void *arg, struct dirty **ret_dirty)
{
    struct dirty *d = calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    *d = (struct dirty){.gm = gm, .ops = ops, .arg = arg, .nr_regions = gmem_nr_regions(gm)};
    (void)pthread_mutex_init(&d->lock, NULL);
    *ret_dirty = d;
    return 0;
}

void dirty_free(struct dirty *d)
{
    if (!d)
        return;
    assert(d->nr_consumers == 0);
    (void)pthread_mutex_destroy(&d->lock);
    free(d);
}

static void log_off_locked(struct dirty *d, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        if (d->ops->set(d->arg, i, false) < 0)
            continue; /* the log costs time but does no harm */
    bitmaps_release(d->unprotected);
    bitmaps_release(d->scratch);
    memset(d->unprotected, 0, sizeof(d->unprotected));
    memset(d->scratch, 0, sizeof(d->scratch));
}

static int log_on_locked(struct dirty *d, struct err *err)
{
    int rc = bitmaps_init(d->unprotected, d->gm);
    unsigned i = 0;

    if (rc >= 0)
        rc = bitmaps_init(d->scratch, d->gm);
    for (; rc >= 0 && i < d->nr_regions; i++) {
        rc = d->ops->set(d->arg, i, true);
        if (rc < 0)
            break;
        /* The log starts with every page dirty and none protected. */
        bitmap_set(&d->unprotected[i], 0, d->unprotected[i].pages);
        /* What devices wrote before anyone looked is not news. */
        gmem_dirty_drain(d->gm, i, d->scratch[i].bits);
    }
    if (rc < 0) {
        log_off_locked(d, i);
        return err_set(err, rc, "dirty log of memory region %u: %s", i, strerror(-rc));
    }
    return 0;
}

static int attach_locked(struct dirty *d, struct dirty_consumer *c, struct err *err)
{
    int rc;

    if (d->nr_consumers == DIRTY_CONSUMERS_MAX)
        return err_set(err, -E2BIG, "dirty memory has %u consumers already", d->nr_consumers);
    if (d->nr_consumers == 0) {
        rc = log_on_locked(d, err);
        if (rc < 0)
            return rc;
    }
    d->consumers[d->nr_consumers++] = c;
    return 0;
}

static void consumer_free(struct dirty_consumer *c)
{
    bitmaps_release(c->maps);
    bitmaps_release(c->before);
    bitmaps_release(c->aside);
    free(c);
}

int dirty_attach(struct dirty *d, struct dirty_consumer **ret_consumer, struct err *err)
{
    struct dirty_consumer *c = calloc(1, sizeof(*c));
    int rc;

    if (!c)
        return -ENOMEM;
    c->d = d;
    rc = bitmaps_init(c->maps, d->gm);
    if (rc >= 0) {
        (void)pthread_mutex_lock(&d->lock);
        rc = attach_locked(d, c, err);
        (void)pthread_mutex_unlock(&d->lock);
    }
    if (rc < 0) {
        consumer_free(c);
        return rc;
    }
    *ret_consumer = c;
    return 0;
}

static void remove_consumer(struct dirty_consumer *c, bool runs_on)
{
    struct dirty *d = c->d;

    (void)pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->nr_consumers; i++)
        if (d->consumers[i] == c)
            d->consumers[i] = d->consumers[--d->nr_consumers];
    if (d->nr_consumers == 0)
        log_off_locked(d, runs_on ? d->nr_regions : 0);
    (void)pthread_mutex_unlock(&d->lock);
    consumer_free(c);
}

void dirty_detach(struct dirty_consumer *c)
{
    if (c)
        remove_consumer(c, true);
}

void dirty_abandon(struct dirty_consumer *c)
{
    if (c)
        remove_consumer(c, false);
}

/* --- Draining and taking ------------------------------------------------- */

static void share_out_locked(struct dirty *d, unsigned region)
{
    const struct bitmap *s = &d->scratch[region];

    for (size_t w = 0; w < s->words; w++) {
        if (!s->bits[w])
            continue;
        for (unsigned i = 0; i < d->nr_consumers; i++)
            d->consumers[i]->maps[region].bits[w] |= s->bits[w];
    }
}

static int drain_locked(struct dirty *d, unsigned region)
{
    struct bitmap *s = &d->scratch[region];
    struct bitmap *u = &d->unprotected[region];
    int rc;

    memset(s->bits, 0, s->words * sizeof(uint64_t));
    rc = d->ops->get(d->arg, region, s->bits);
    if (rc < 0)
        return rc;
    for (size_t w = 0; w < s->words; w++)
        u->bits[w] |= s->bits[w];
    gmem_dirty_drain(d->gm, region, s->bits);
    share_out_locked(d, region);
    return 0;
}

int dirty_drain(struct dirty *d, struct err *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->nr_regions && d->nr_consumers && rc >= 0; i++) {
        rc = drain_locked(d, i);
        if (rc < 0)
            rc = err_set(err, rc, "dirty log of memory region %u: %s", i, strerror(-rc));
    }
    (void)pthread_mutex_unlock(&d->lock);
    return rc;
}

uint64_t dirty_count(struct dirty_consumer *c)
{
    uint64_t n = 0;

    (void)pthread_mutex_lock(&c->d->lock);
    for (unsigned i = 0; i < c->d->nr_regions; i++)
        for (size_t w = 0; w < c->maps[i].words; w++)
            n += (uint64_t)__builtin_popcountll(c->maps[i].bits[w]);
    (void)pthread_mutex_unlock(&c->d->lock);
    return n;
}

void dirty_set_all(struct dirty_consumer *c)
{
    (void)pthread_mutex_lock(&c->d->lock);
    for (unsigned i = 0; i < c->d->nr_regions; i++)
        bitmap_set(&c->maps[i], 0, c->maps[i].pages);
    (void)pthread_mutex_unlock(&c->d->lock);
}

void dirty_mark(struct dirty_consumer *c, unsigned region, uint64_t first, uint64_t nr)
{
    if (region >= c->d->nr_regions)
        return;
    (void)pthread_mutex_lock(&c->d->lock);
    bitmap_set(&c->maps[region], first, nr);
    (void)pthread_mutex_unlock(&c->d->lock);
}

/* Protect the pages around a run again, in a slice, so that later runs find it done. */
static int protect_locked(struct dirty *d, const struct dirty_run *run)
{
    struct bitmap *u = &d->unprotected[run->region];
    uint64_t first = run->first - run->first % 64;
    uint64_t end = run->first + run->nr;
    uint64_t nr;
    int rc;

    if (bitmap_next(u, run->first, end, true) == end)
        return 0;
    nr = end - first > DIRTY_SLICE_PAGES ? end - first : DIRTY_SLICE_PAGES;
    nr = (nr + 63) / 64 * 64;
    if (nr > u->pages - first)
        nr = u->pages - first;
    rc = d->ops->clear(d->arg, run->region, first, (uint32_t)nr, u->bits + first / 64);
    if (rc >= 0)
        bitmap_clear(u, first, nr);
    return rc;
}

static int protect_region_locked(struct dirty *d, unsigned region)
{
    const struct bitmap *u = &d->unprotected[region];
    int rc = 0;

    for (uint64_t p = 0; (p = bitmap_next(u, p, u->pages, true)) < u->pages && rc >= 0; p++)
        rc = protect_locked(d, &(struct dirty_run){region, p, 1});
    return rc;
}

int dirty_protect(struct dirty *d, struct err *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->nr_regions && d->nr_consumers && rc >= 0; i++) {
        rc = protect_region_locked(d, i);
        if (rc < 0)
            (void)err_set(err, rc, "dirty log of memory region %u: %s", i, strerror(-rc));
    }
    (void)pthread_mutex_unlock(&d->lock);
    return rc;
}

/* --- Pages that are written again and again -------------------------------- */

static int history_init(struct dirty_consumer *c)
{
    int rc = bitmaps_init(c->before, c->d->gm);

    if (rc >= 0)
        rc = bitmaps_init(c->aside, c->d->gm);
    if (rc < 0) {
        bitmaps_release(c->before);
        bitmaps_release(c->aside);
        memset(c->before, 0, sizeof(c->before));
        memset(c->aside, 0, sizeof(c->aside));
    }
    return rc;
}

/* Move a word's pages to where they belong.  Return: how many of them are hot, and fit. */
static uint64_t sort_word(struct dirty_consumer *c, unsigned region, size_t w, uint64_t most)
{
    uint64_t *map = &c->maps[region].bits[w], *before = &c->before[region].bits[w];
    uint64_t *aside = &c->aside[region].bits[w];
    uint64_t written = *map, hot = written & *before;

    while ((uint64_t)__builtin_popcountll(hot) > most)
        hot &= hot - 1;
    *map = (written | *aside) & ~hot;
    *aside = hot;
    *before = written;
    return (uint64_t)__builtin_popcountll(hot);
}

static int set_aside_locked(struct dirty_consumer *c, uint64_t most, uint64_t *ret_nr)
{
    int rc = 0;

    *ret_nr = 0;
    for (unsigned i = 0; i < c->d->nr_regions && rc >= 0; i++) {
        for (size_t w = 0; w < c->maps[i].words && rc >= 0; w++) {
            uint64_t left = c->maps[i].pages - w * 64, nr = sort_word(c, i, w, most - *ret_nr);

            *ret_nr += nr;
            /* Else they would look written for ever. */
            if (nr)
                rc = protect_locked(c->d, &(struct dirty_run){i, w * 64, left < 64 ? left : 64});
        }
    }
    return rc;
}

int64_t dirty_set_aside(struct dirty_consumer *c, uint64_t most, struct err *err)
{
    struct dirty *d = c->d;
    uint64_t nr = 0;
    int rc = 0;

    (void)pthread_mutex_lock(&d->lock);
    if (d->nr_regions && !c->before[0].bits)
        rc = history_init(c);
    if (rc >= 0)
        rc = set_aside_locked(c, most, &nr);
    (void)pthread_mutex_unlock(&d->lock);
    if (rc < 0)
        return err_set(err, rc, "setting dirty pages aside: %s", strerror(-rc));
    return (int64_t)nr;
}

static bool find_run_locked(struct dirty_consumer *c, uint64_t nr_max, struct dirty_run *ret_run)
{
    /* One turn more than there are regions: the first one may hold pages before the cursor. */
    for (unsigned turn = 0; turn <= c->d->nr_regions; turn++) {
        struct bitmap *m = &c->maps[c->region];
        uint64_t first = bitmap_next(m, c->page, m->pages, true);

        if (first < m->pages) {
            uint64_t left = m->pages - first, most = left < nr_max ? left : nr_max;
            uint64_t nr = bitmap_next(m, first, first + most, false) - first;

            *ret_run = (struct dirty_run){c->region, first, nr};
            c->page = first + nr;
            return true;
        }
        c->page = 0;
        c->region = (c->region + 1) % c->d->nr_regions;
    }
    return false;
}

int dirty_take(struct dirty_consumer *c, uint64_t nr_max, bool stopped, struct dirty_run *ret_run,
               struct err *err)
{
    struct dirty *d = c->d;
    struct dirty_run run;
    int rc = 0;

    (void)pthread_mutex_lock(&d->lock);
    if (d->nr_regions && find_run_locked(c, nr_max, &run)) {
        rc = stopped ? 0 : protect_locked(d, &run);
        if (rc >= 0) {
            bitmap_clear(&c->maps[run.region], run.first, run.nr);
            *ret_run = run;
            rc = 1;
        } else {
            (void)err_set(err, rc, "dirty log of memory region %u: %s", run.region, strerror(-rc));
        }
    }
    (void)pthread_mutex_unlock(&d->lock);
    return rc;
}
