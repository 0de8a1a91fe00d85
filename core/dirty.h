/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty epochs: one account of written guest memory for any number of consumers.
 *
 * Guest writes are logged by the hypervisor, device writes by guest memory's
 * own bitmap (core/gmem.h).  dirty_drain() moves both into the bitmap of every
 * consumer; each consumer takes pages off its own bitmap at its own pace.
 *
 * The hypervisor's log is switched on with the first consumer and starts with
 * every page dirty (KVM_DIRTY_LOG_INITIALLY_SET), so switching on costs nothing
 * and the first drain reports the whole memory.  Pages are write-protected
 * again in slices by dirty_take(), just before they are read.
 */
#ifndef CORE_DIRTY_H
#define CORE_DIRTY_H

#include "core/err.h"

struct gmem;
struct dirty;
struct dirty_consumer;

/* The hypervisor's side; tests have their own. */
struct dirty_log_ops {
    /* Switch the log of a region on (all pages dirty) or off. */
    CHECKED int (*set)(void *arg, unsigned region, bool on);
    /* Copy the log, without clearing it. */
    CHECKED int (*get)(void *arg, unsigned region, uint64_t *bits);
    /* Clear the pages set in bits (bit 0 is @first, a multiple of 64) and protect them again. */
    CHECKED int (*clear)(void *arg, unsigned region, uint64_t first, uint32_t nr,
                         const uint64_t *bits);
};

/**
 * dirty_new() - the account of a guest memory.
 * @gm:  borrowed, all regions added.
 * @ops: static.  @arg: handed to @ops.
 *
 * Return: 0 and *@ret_dirty, owned; -ENOMEM.
 * Threads: control.
 */
CHECKED int dirty_new(struct gmem *gm, const struct dirty_log_ops *ops, void *arg,
                      struct dirty **ret_dirty);

/**
 * dirty_free() - free.
 * @d: taken, without consumers; NULL is allowed.
 *
 * Threads: the last user.
 */
void dirty_free(struct dirty *d);

/**
 * dirty_attach() - start to consume.
 *
 * The consumer's bitmap is empty; it will see every page written from now on.
 *
 * Return: 0 and *@ret_consumer, to be given to dirty_detach(); -E2BIG for more than
 * eight of them; -ENOMEM; the hypervisor's errno.
 * Threads: any.
 */
CHECKED int dirty_attach(struct dirty *d, struct dirty_consumer **ret_consumer, struct err *err);

/**
 * dirty_detach() - stop; the log is switched off with the last consumer.
 * @c: taken; NULL is allowed.
 *
 * Threads: any.
 */
void dirty_detach(struct dirty_consumer *c);

/**
 * dirty_abandon() - stop, of a machine that will not run again: the log stays as it is.
 * @c: taken; NULL is allowed.
 *
 * To switch it off takes KVM a grace period, a second and more where the machine is busy.
 *
 * Threads: any.
 */
void dirty_abandon(struct dirty_consumer *c);

/**
 * dirty_drain() - bring every consumer's bitmap up to date.
 *
 * Return: 0; the hypervisor's errno.
 * Threads: any; drains exclude each other.
 */
CHECKED int dirty_drain(struct dirty *d, struct err *err);

/**
 * dirty_count() - pages set in a consumer's bitmap.
 *
 * Threads: any.
 */
uint64_t dirty_count(struct dirty_consumer *c);

/**
 * dirty_set_all() - mark every page for this consumer: its first round copies everything.
 *
 * Threads: any.
 */
void dirty_set_all(struct dirty_consumer *c);

/**
 * dirty_mark() - give pages back to a consumer, e.g. those it took and could not send.
 *
 * Threads: any.
 */
void dirty_mark(struct dirty_consumer *c, unsigned region, uint64_t first, uint64_t nr);

/**
 * dirty_set_aside() - leave pages that are written again and again for later.
 * @most: pages that may be set aside; 0: none, and those that are come back.
 *
 * To be called after each drain, when everything that was not set aside has been
 * taken.  A page is set aside that was written since the call before and also
 * between that and the one before it: dirty_take() and dirty_count() pass over it.
 * One that was set aside and not written since comes back.  From then on the
 * hypervisor logs the pages that are set aside again.
 *
 * Return: how many pages are set aside now; the hypervisor's errno; -ENOMEM.
 * Threads: any; nobody takes meanwhile.
 */
CHECKED int64_t dirty_set_aside(struct dirty_consumer *c, uint64_t most, struct err *err);

/**
 * dirty_protect() - have the hypervisor log every page again that it has reported.
 *
 * A page that was written before this call and after the last drain stays logged.
 * After dirty_drain(), dirty_protect() with no vCPU running, the consumers' bitmaps
 * are all that was written until now, and every later write will be seen.
 *
 * Return: 0; the hypervisor's errno.
 * Threads: any.
 */
CHECKED int dirty_protect(struct dirty *d, struct err *err);

/* A run of pages of one region. */
struct dirty_run {
    unsigned region;
    uint64_t first; /* page index in the region */
    uint64_t nr;    /* pages, > 0 */
};

/**
 * dirty_take() - take the next run of set pages off a consumer's bitmap.
 * @c:      a cursor inside it moves on and wraps at the end of memory.
 * @nr_max: most pages wanted, > 0.
 * @ret_run: the pages are no longer set.
 *
 * Unless @stopped (no vCPU runs), the run and a slice of pages after it are
 * write-protected again, so that a write after this call is seen by a later
 * drain.
 *
 * Return: 1 and a run; 0 if no page is set; the hypervisor's errno.
 * Threads: any; several threads may take from one consumer.
 */
CHECKED int dirty_take(struct dirty_consumer *c, uint64_t nr_max, bool stopped,
                       struct dirty_run *ret_run, struct err *err);

#endif
