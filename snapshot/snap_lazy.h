/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is brought while the guest runs.
 *
 * Whoever touches a page that is not there yet, guest, device or kernel, waits
 * until it has been read and verified (userfaultfd, one descriptor a region).
 * Meanwhile a thread brings everything else: first what an earlier run of the
 * same snapshot touched, in its order, then the rest.  Once all is in place the
 * source is let go, and the memory is like any other.
 *
 * What cannot be read is never made up: whoever touches it waits for ever, and
 * the owner is told to stop the machine.
 */
#ifndef SNAPSHOT_SNAP_LAZY_H
#define SNAPSHOT_SNAP_LAZY_H

#include "snapshot/snap_ahead.h"
#include "snapshot/snap_touch.h"

struct gmem;

/* Pages one behind the other that are not zero. */
struct snap_lazy_run {
    uint64_t first;
    uint64_t nr; /* 0: there is none */
};

/* Where the pages come from.  Called by several threads at once. */
struct snap_lazy_source {
    /* The next run at or behind @from; runs may touch. */
    CHECKED int (*next)(void *arg, unsigned region, uint64_t from, struct snap_lazy_run *ret_run,
                        struct err *err);
    /* Pages, verified. */
    CHECKED int (*read)(void *arg, unsigned region, uint64_t first, uint64_t nr, void *dst,
                        struct err *err);
    /* It is not needed any more.  @order: what was touched, to be kept; called once. */
    void (*close)(void *arg, const struct snap_touch *order);
    void *arg;
};

struct snap_lazy_figures {
    uint64_t faults;   /* pages that somebody waited for */
    uint64_t fetched;  /* pages brought because of them, neighbours included */
    uint64_t ahead;    /* pages brought because an earlier run touched them */
    uint64_t filled;   /* pages brought in the background besides */
    uint64_t total_ns; /* from the start until all was in place */
};

struct snap_lazy_params {
    struct snap_lazy_source source;
    struct snap_touch order;        /* of an earlier run; taken on success; may be empty */
    const struct snap_ahead *ahead; /* read already; borrowed for snap_lazy_start(); may be NULL */
    /* All is in place; called from a thread of its own, at most once. */
    void (*whole)(void *arg, const struct snap_lazy_figures *f);
    /* A page cannot be had; called from a thread of its own, at most once. */
    void (*lost)(void *arg, const struct err *err);
    void *arg; /* for both; outlives @gm */
};

/**
 * snap_lazy_check() - whether this memory can be brought while it is used.
 *
 * Return: 0; -ENOTSUP naming the region and why.
 * Threads: any.
 */
CHECKED int snap_lazy_check(const struct gmem *gm, struct err *err);

/**
 * snap_lazy_start() - from now on @gm has the source's contents.
 * @gm: fresh, every region; gmem_free() ends the bringing.
 *
 * Return: 0; -ENOTSUP, -EPERM or the kernel's errno, with @gm as it was and the
 * source untouched, not closed.
 * Threads: whoever builds the machine.
 */
CHECKED int snap_lazy_start(struct gmem *gm, const struct snap_lazy_params *params,
                            struct err *err);

#endif
