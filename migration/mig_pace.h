/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cap on the bytes a second that all lanes send together.
 */
#ifndef MIGRATION_MIG_PACE_H
#define MIGRATION_MIG_PACE_H

#include <pthread.h>

#include "core/base.h"

/* Zero-initialised: no cap. */
struct mig_pace {
    uint64_t rate; /* bytes a second; 0: no cap */
    pthread_mutex_t lock;
    uint64_t free_ns; /* CLOCK_MONOTONIC: what was let through will have gone by then */
};

/**
 * mig_pace_init() - begin, with nothing sent yet.
 * @rate: bytes a second; 0: no cap.
 *
 * Threads: the owner, alone.
 */
void mig_pace_init(struct mig_pace *p, uint64_t rate);

/**
 * mig_pace_take() - let bytes through.
 * @now_ns: CLOCK_MONOTONIC.
 *
 * What was not used is not saved up, but for two milliseconds.
 * Return: when they may be sent, CLOCK_MONOTONIC; not after @now_ns: at once.
 * Threads: any.
 */
uint64_t mig_pace_take(struct mig_pace *p, uint64_t bytes, uint64_t now_ns);

#endif
