/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often something may be said that a guest can cause at will.  A burst is
 * free; after it, a few a second (the generic cell rate algorithm, ITU-T I.371).
 */
#ifndef CORE_RATE_LIMIT_H
#define CORE_RATE_LIMIT_H

#include <stdatomic.h>

#include "core/base.h"

struct rate_limit {
    unsigned burst;           /* at once; 1 at least */
    unsigned per_s;           /* and again each second; 1 to 10^9 */
    _Atomic uint64_t full_ns; /* CLOCK_MONOTONIC: when the whole burst is there again; at first 0 */
};

/**
 * rate_limit_take() - ask to say one thing more.
 *
 * Return: false: not now.
 * Threads: any, without a lock.
 */
bool rate_limit_take(struct rate_limit *rl);

#endif
