/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each page of a snapshot is to the store: nothing, its own, or shared.
 */
#ifndef STORE_STORE_CENSUS_H
#define STORE_STORE_CENSUS_H

#include "store/store_reader.h"

enum store_page_flags {
    STORE_PAGE_PRESENT = 1 << 0, /* not zero */
    STORE_PAGE_SHARED = 1 << 1,  /* another snapshot has the same contents somewhere */
    STORE_PAGE_CHANGED = 1 << 2, /* other than in the parent at the same place */
};

struct store_census_result {
    uint64_t pages, zero, unique, shared, changed;
    unsigned unread; /* other snapshots, damaged: what is shared with them alone is not known */
    bool has_parent; /* the parent is in the store; else no page is STORE_PAGE_CHANGED */
};

/*
 * Gets the pages [@first, @first + @nr) of a region, at most 512, all of it in order;
 * @flags: enum store_page_flags of each.  A negative return ends the walk.
 */
typedef int store_census_fn(void *arg, unsigned region, uint64_t first, const uint8_t *flags,
                            unsigned nr);

/**
 * store_census() - look at every page of a snapshot.
 * @fn: may be NULL if only the counts are wanted.
 *
 * Needs about 100 bytes of memory for each different page of the other snapshots.
 * Return: 0; what @fn returned; -EBADMSG or -ESTALE for a manifest of @snap or its parent that is
 * damaged; or another errno.
 * Threads: any.
 */
CHECKED int store_census(struct store_snapshot *snap, store_census_fn *fn, void *arg,
                         struct store_census_result *ret_res, struct err *err);

#endif
