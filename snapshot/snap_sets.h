/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What shall be different in a restored machine: "disks._disk0.path=/new.img".
 *
 * A key names a member of the configuration as its JSON does, elements of lists
 * by their ids.  What the guest knows of its machine (sizes, ids, numbers of
 * queues) cannot be changed and is refused by name.
 */
#ifndef SNAPSHOT_SNAP_SETS_H
#define SNAPSHOT_SNAP_SETS_H

#include "core/config/vm_config.h"

enum {
    SNAP_SETS_MAX = 64,
    SNAP_PROBLEMS_MAX = 32,
    SNAP_PROBLEM_LEN = 512,
    SNAP_PROBLEMS_TEXT = SNAP_PROBLEMS_MAX * (SNAP_PROBLEM_LEN + 2),
};

/* Everything that is wrong, not only the first. */
struct snap_problems {
    unsigned nr;
    char text[SNAP_PROBLEMS_MAX][SNAP_PROBLEM_LEN];
};

/* "key=value" texts, borrowed. */
struct snap_sets {
    char *const *items;
    unsigned nr;
};

/**
 * snap_problem() - one more thing that is wrong; past SNAP_PROBLEMS_MAX it is dropped.
 *
 * Threads: any, one at a time.
 */
void snap_problem(struct snap_problems *why, const char *fmt, ...) PRINTF(2, 3);

/**
 * snap_problems_has() - whether there is one that begins with a name: "disk root".
 *
 * Return: true if so.
 * Threads: any.
 */
bool snap_problems_has(const struct snap_problems *why, const char *kind, const char *id);

/**
 * snap_problems_text() - all of them in one text, with "; " between.
 * @ret: SNAP_PROBLEMS_TEXT bytes.
 *
 * Threads: any.
 */
void snap_problems_text(const struct snap_problems *why, char ret[SNAP_PROBLEMS_TEXT]);

/**
 * snap_problems_err() - a failure that names the first and says how many there are.
 *
 * Return: 0 if there are none; else @code.
 * Threads: any.
 */
CHECKED int snap_problems_err(const struct snap_problems *why, int code, struct err *err);

/**
 * snap_sets_has() - whether a member is to be changed.
 * @id: of the element of a list; NULL: the member is no element's.
 *
 * Return: true for @list.@id.@member, or @list.@member.
 * Threads: any.
 */
bool snap_sets_has(const struct snap_sets *sets, const char *list, const char *id,
                   const char *member);

/**
 * snap_sets_apply() - change a configuration.
 * @cfg: complete; changed in place by all that can be.
 * @why: zeroed, or with problems of others.
 *
 * What is changed makes a machine, and one that has the same devices.
 *
 * Return: 0, with @why for each text that is refused (@cfg then has the others, so that what is
 * found wrong with it is still wrong once those are mended); -E2BIG; -ENOMEM.
 * Threads: any.
 */
CHECKED int snap_sets_apply(const struct snap_sets *sets, struct vm_config *cfg,
                            struct snap_problems *why, struct err *err);

#endif
