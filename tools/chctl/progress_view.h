/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration's progress as one line for a person.
 */
#ifndef TOOLS_CHCTL_PROGRESS_VIEW_H
#define TOOLS_CHCTL_PROGRESS_VIEW_H

#include <json-c/json_types.h>

#include "core/err.h"

enum {
    PROGRESS_TEXT_MAX = 32,
    PROGRESS_LINE_MAX = 512, /* bytes of a line, with its end */
};

/* What vm.migration-progress answers, as far as a line shows it; 0 and "" where it is not there. */
struct progress_view {
    char phase[PROGRESS_TEXT_MAX], result[PROGRESS_TEXT_MAX];
    uint64_t round, lanes;
    uint64_t total, done; /* bytes: of the guest; sent or received so far, zero pages too */
    uint64_t round_total, remaining;
    uint64_t wire_rate, dirty_rate; /* bytes a second */
    uint64_t throttle;              /* percent */
    uint64_t time_left_ns, blackout_ns;
};

/**
 * progress_view_get() - read what there is; fields of another type count as missing.
 * @obj: borrowed; any JSON.
 *
 * Threads: any.
 */
void progress_view_get(struct json_object *obj, struct progress_view *ret_v);

/**
 * progress_view_percent() - how much of this round is done.
 *
 * Return: 0 to 100.
 * Threads: any.
 */
unsigned progress_view_percent(const struct progress_view *v);

/**
 * progress_view_line() - the line, without a newline.
 * @columns: as much as fits into so many, with a bar; 0: everything, and no bar.
 * @buf: PROGRESS_LINE_MAX bytes; printable ASCII.
 *
 * Threads: any.
 */
void progress_view_line(const struct progress_view *v, unsigned columns, char *buf);

#endif
