/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a capture or a restore is doing, readable at any time from any thread,
 * and the wish to end it.
 */
#ifndef SNAPSHOT_SNAP_PROGRESS_H
#define SNAPSHOT_SNAP_PROGRESS_H

#include <stdatomic.h>

#include "core/err.h"

enum snap_phase {
    SNAP_PHASE_OPEN,    /* store and parent */
    SNAP_PHASE_COPY,    /* memory, while the guest runs */
    SNAP_PHASE_STOPPED, /* state and last pages */
    SNAP_PHASE_PUBLISH, /* what is compressed is made durable */
    SNAP_PHASE_READ,    /* restore: memory */
    SNAP_PHASE_LOAD,    /* restore: state */
    SNAP_PHASE_DONE,
};

struct snap_progress {
    _Atomic enum snap_phase phase;
    _Atomic uint64_t pages_done;
    _Atomic uint64_t pages_total;
    _Atomic uint64_t rounds;
    _Atomic uint64_t pause_ns;   /* how long the guest stood still */
    _Atomic uint64_t started_ns; /* CLOCK_MONOTONIC */
    _Atomic uint64_t total_ns;   /* once done */
    _Atomic bool cancelled;
};

/**
 * snap_phase_name() - e.g. "copy".
 *
 * Return: static.
 * Threads: any.
 */
const char *snap_phase_name(enum snap_phase phase);

/**
 * snap_progress_begin() - note the start.
 *
 * Threads: the worker.
 */
void snap_progress_begin(struct snap_progress *p, enum snap_phase phase, uint64_t pages_total);

/**
 * snap_progress_end() - note the end.
 *
 * Threads: the worker.
 */
void snap_progress_end(struct snap_progress *p);

/**
 * snap_cancel() - have the work end as if it had not begun.
 *
 * Threads: any.
 */
void snap_cancel(struct snap_progress *p);

/**
 * snap_check() - whether somebody wants it to end.
 *
 * Return: 0; -ECANCELED.
 * Threads: any.
 */
CHECKED int snap_check(struct snap_progress *p, struct err *err);

#endif
