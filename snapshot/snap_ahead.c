/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_ahead.h"

#include <errno.h>

#include "core/err.h"
#include "snapshot/snap_lazy.h"

struct snap_ahead {
    unsigned nr;
    struct snap_ahead_block blocks[SNAP_AHEAD_BLOCKS_MAX];
    uint8_t data[SNAP_AHEAD_BLOCKS_MAX][SNAP_BLOCK_PAGES << PAGE_SHIFT_4K];
};

/* Read what is not zero of a block. */
static int read_block(const struct snap_lazy_source *s, struct snap_ahead_block *b, uint8_t *data)
{
    uint64_t first = b->block * SNAP_BLOCK_PAGES, at = first, end = first + SNAP_BLOCK_PAGES;

    while (at < end) {
        struct snap_lazy_run run;
        int rc = s->next(s->arg, b->region, at, &run, NULL);

        if (rc < 0)
            return rc;
        if (!run.nr || run.first >= end)
            return 0;
        if (run.nr > end - run.first)
            run.nr = end - run.first;
        at = run.first + run.nr;
        rc = s->read(s->arg, b->region, run.first, run.nr,
                     data + ((run.first - first) << PAGE_SHIFT_4K), NULL);
        if (rc < 0)
            return rc;
        /* Runs that touch are one: there are no more than half as many as pages. */
        if (b->nr_runs &&
            first + b->runs[b->nr_runs - 1].at + b->runs[b->nr_runs - 1].nr == run.first) {
            b->runs[b->nr_runs - 1].nr += (uint8_t)run.nr;
            continue;
        }
        if (b->nr_runs == SNAP_AHEAD_RUNS_MAX)
            return -EBADMSG;
        b->runs[b->nr_runs].at = (uint8_t)(run.first - first);
        b->runs[b->nr_runs++].nr = (uint8_t)run.nr;
    }
    return 0;
}

static bool is_there(const struct snap_ahead *a, unsigned region, uint64_t block)
{
    for (unsigned i = 0; i < a->nr; i++)
        if (a->blocks[i].region == region && a->blocks[i].block == block)
            return true;
    return false;
}

struct snap_ahead *snap_ahead_read(const struct snap_lazy_source *source,
                                   const struct snap_touch *order, bool (*enough)(void *arg),
                                   void *arg)
{
    struct snap_ahead *a = malloc(sizeof(*a));

    if (!a)
        return NULL;
    a->nr = 0;
    for (unsigned i = 0; i < order->nr; i++) {
        const struct snap_touch_run *run = &order->runs[i];
        uint64_t block = run->first / SNAP_BLOCK_PAGES;
        uint64_t last = (run->first + run->nr - 1) / SNAP_BLOCK_PAGES;

        for (; block <= last; block++) {
            struct snap_ahead_block *b = &a->blocks[a->nr];

            if (a->nr == SNAP_AHEAD_BLOCKS_MAX || enough(arg))
                return a;
            *b = (struct snap_ahead_block){
                .region = run->region, .block = block, .data = a->data[a->nr]};
            if (!is_there(a, b->region, block) && read_block(source, b, a->data[a->nr]) >= 0)
                a->nr++;
        }
    }
    return a;
}

const struct snap_ahead_block *snap_ahead_block(const struct snap_ahead *ahead, unsigned i)
{
    return ahead && i < ahead->nr ? &ahead->blocks[i] : NULL;
}

void snap_ahead_free(struct snap_ahead *ahead)
{
    free(ahead);
}
