/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration as a picture: what each round sent and what was dirty after it,
 * how far the guest was slowed down, and what its blackout was made of.
 */
#ifndef TOOLS_CHCTL_PLOT_H
#define TOOLS_CHCTL_PLOT_H

#include <json-c/json_types.h>
#include <stdio.h>

#include "core/err.h"

enum {
    PLOT_ROUNDS_MAX = 512, /* later ones are not drawn */
};

/**
 * plot_write() - write an SVG, that needs nothing but itself.
 * @progress: borrowed; an answer of vm.migration-progress, or anything else.
 *
 * Numbers that are missing or impossible count as 0, and what lies outside of
 * the picture is drawn at its border.
 *
 * Return: 0; -ENOENT where @progress is of no migration; -EIO if @out takes no more.
 * Threads: any.
 */
CHECKED int plot_write(struct json_object *progress, FILE *out, struct err *err);

#endif
