/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slows a guest down: keeps it out for a part of each few milliseconds, so
 * that it dirties less memory and still answers.
 */
#ifndef MIGRATION_MIG_THROTTLE_H
#define MIGRATION_MIG_THROTTLE_H

#include "core/base.h"

struct mig_throttle;

/* Keep the guest out until then (CLOCK_MONOTONIC, ns; 0: let it in); must not wait. */
typedef void mig_nap_fn(void *arg, uint64_t until_ns);

/**
 * mig_throttle_new() - a throttle at 0 percent; its thread starts when it is first needed.
 * @nap: called from that thread.
 *
 * Return: 0 and *@ret_t, owned; -ENOMEM.
 * Threads: the engine.
 */
CHECKED int mig_throttle_new(mig_nap_fn *nap, void *arg, struct mig_throttle **ret_t);

/**
 * mig_throttle_set() - keep the guest out for so much of its time from now on.
 * @percent: 0..99.
 *
 * Return: 0; the errno of a thread that cannot be started: then it stays as it was.
 * Threads: the engine.
 */
CHECKED int mig_throttle_set(struct mig_throttle *t, unsigned percent);

/**
 * mig_throttle_off() - let the guest run at its speed again.
 * @t: NULL is allowed.
 *
 * Threads: the engine.
 */
void mig_throttle_off(struct mig_throttle *t);

/**
 * mig_throttle_free() - let the guest run at its speed again, and free.
 * @t: taken; NULL is allowed.
 *
 * Threads: the engine.
 */
void mig_throttle_free(struct mig_throttle *t);

#endif
