/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the memory of two snapshots differs, of one store or of two.
 *
 * Equal digests are equal contents, so a subtree that both manifests name is never
 * looked at: the cost is that of what differs.
 */
#ifndef STORE_STORE_COMPARE_H
#define STORE_STORE_COMPARE_H

#include "store/store_reader.h"

enum store_change {
    STORE_CHANGE_CONTENT, /* other contents, neither of them zero */
    STORE_CHANGE_FILLED,  /* zero in the first, not in the second */
    STORE_CHANGE_CLEARED, /* not zero in the first, zero in the second */
    STORE_CHANGE_ADDED,   /* the first has no memory there */
    STORE_CHANGE_REMOVED, /* the second has no memory there */
    STORE_CHANGE_MAX,
};

/* Pages that differ in the same way. */
struct store_difference {
    enum store_change change;
    unsigned region_a, region_b; /* indices; of the snapshot that has no memory there: 0 */
    uint64_t gpa;                /* bytes, of the first page */
    uint64_t first;              /* page in its region */
    uint64_t nr;                 /* pages */
};

struct store_compare_result {
    uint64_t pages[STORE_CHANGE_MAX];
    uint64_t nodes; /* of manifests that had to be read */
};

/* Gets each run, in order of regions and pages; a negative return ends the walk. */
typedef int store_difference_fn(void *arg, const struct store_difference *d);

/**
 * store_compare() - where the second differs from the first.
 * @fn: may be NULL if only the counts are wanted.
 *
 * Regions belong together if they begin at the same address. Where sizes differ too,
 * all leaves of both are read.
 *
 * Return: 0; what @fn returned; -EBADMSG or -ESTALE for a manifest that is damaged;
 * or another errno.
 * Threads: any.
 */
CHECKED int store_compare(struct store_snapshot *a, struct store_snapshot *b,
                          store_difference_fn *fn, void *arg, struct store_compare_result *ret_res,
                          struct err *err);

#endif
