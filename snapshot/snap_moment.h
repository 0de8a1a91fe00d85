/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of one moment of a guest that runs on.
 *
 * While the guest stands still, its pages are protected against writing
 * (userfaultfd).  Then it runs again.  Pages are read one after the other, each
 * once, and released; a page that the guest or a device writes to before its
 * turn is copied aside first, by a thread that waits for such faults.  What was
 * never written at that moment is zero and not protected.
 *
 * Which costs: no memory is read twice, no write is waited for longer than a
 * copy of 2 MiB takes until as much is aside as may be (docs/decisions/0040).
 */
#ifndef SNAPSHOT_SNAP_MOMENT_H
#define SNAPSHOT_SNAP_MOMENT_H

#include "core/err.h"

struct dirty_consumer;
struct gmem;
struct snap_moment;

enum {
    /* Most pages kept aside: 12 MiB, with which a guest that writes 100 MB/s runs on for 0.12 s while
     * the store takes nothing because its disk stalls. */
    SNAP_MOMENT_ASIDE_PAGES = 3072,
};

/* Who gets the pages: called by snap_moment_read() only, in its thread. */
struct snap_moment_sink {
    /* Where pages are to be copied to, and how many, at least one. */
    uint8_t *(*room)(void *arg, uint64_t *ret_nr);
    /* So many of these pages, none of them zero, were copied there. */
    CHECKED int (*pages)(void *arg, unsigned region, uint64_t first, uint64_t nr, struct err *err);
    /* Pages that are zero. */
    CHECKED int (*zero)(void *arg, unsigned region, uint64_t first, uint64_t nr, struct err *err);
    void *arg;
};

/**
 * snap_moment_new() - prepare, while the guest may still run.
 * @gm: borrowed until snap_moment_free().
 *
 * Return: 0 and *@ret_m, owned; -ENOTSUP where this memory (huge pages, private
 * files), -EINVAL or -ENOSYS where this kernel cannot do it, -EPERM where we may not; -EBUSY if somebody else
 * serves faults of this memory; or the kernel's errno.
 * Threads: a worker that the VM was lent to.
 */
CHECKED int snap_moment_new(struct gmem *gm, struct snap_moment **ret_m, struct err *err);

/**
 * snap_moment_take() - this is the moment: protect the memory.
 * @changed: borrowed; only pages that it holds are wanted, and are taken off it.  NULL: all.
 *
 * No vCPU runs and no device does I/O; its time is that of the guest standing still.
 *
 * Return: 0; or the kernel's errno: nothing is protected then.
 * Threads: the one of snap_moment_new().
 */
CHECKED int snap_moment_take(struct snap_moment *m, struct dirty_consumer *changed,
                             struct err *err);

/**
 * snap_moment_read() - hand over every page as it was at the moment, and release it.
 *
 * Every page that is wanted is given to the sink exactly once.
 *
 * Return: 0; what the sink returned; or the kernel's errno.
 * Threads: the one of snap_moment_new().
 */
CHECKED int snap_moment_read(struct snap_moment *m, const struct snap_moment_sink *sink,
                             struct err *err);

/**
 * snap_moment_free() - release what is still protected, and all else.
 * @m: taken; NULL is allowed.
 *
 * Threads: the one of snap_moment_new().
 */
void snap_moment_free(struct snap_moment *m);

#endif
