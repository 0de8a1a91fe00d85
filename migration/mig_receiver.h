/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's lanes: threads that put pages where they belong.
 *
 * Data is read straight into guest memory where it is not encrypted.  A run of
 * zero pages costs nothing on memory that was never written: such pages are
 * zero already.  A lane that has finished a round waits until all have, so
 * that a page of the next round cannot be overtaken by an older version.
 */
#ifndef MIGRATION_MIG_RECEIVER_H
#define MIGRATION_MIG_RECEIVER_H

#include "migration/mig_channel.h"
#include "migration/mig_progress_internal.h"
#include "migration/mig_wire.h"

struct mig_receiver;

struct mig_receiver_params {
    struct gmem *gm; /* borrowed; every page of it reads as zero */
    struct mig_layout layout;
    struct mig_counters *counters; /* borrowed */
    unsigned nr_lanes;             /* that will come */
    bool zstd;                     /* pages may come compressed */
    int cancel_fd;                 /* eventfd; borrowed; makes the lanes end */
    uint32_t idle_ms;              /* longest silence inside a message */
    /* All lanes have finished a round that is not the last. */
    int (*round_done)(void *arg, uint32_t round, struct err *err);
    void (*failed)(void *arg); /* a lane failed; called from its thread */
    void *arg;
};

/**
 * mig_receiver_new() - no lanes yet.
 *
 * Return: 0 and *@ret_r, owned; -ENOMEM.
 * Threads: the engine.
 */
CHECKED int mig_receiver_new(const struct mig_receiver_params *params, struct mig_receiver **ret_r);

/**
 * mig_receiver_add_lane() - start a lane on a channel whose LANE message was checked.
 * @ch: taken, also on failure.
 *
 * Return: 0; -EPROTO for an index that is out of range or taken; -ENOMEM;
 * -EAGAIN if there can be no more threads.
 * Threads: the engine.
 */
CHECKED int mig_receiver_add_lane(struct mig_receiver *r, struct mig_channel *ch, unsigned index,
                                  struct err *err);

/**
 * mig_receiver_wait_last() - wait until the last round is in place on every lane.
 * @limit_ms: longest wait.
 *
 * Return: 0; -ETIMEDOUT; why a lane failed.
 * Threads: the engine.
 */
CHECKED int mig_receiver_wait_last(struct mig_receiver *r, unsigned limit_ms, struct err *err);

/**
 * mig_receiver_error() - why the first lane failed.
 *
 * Return: 0 if none did; what it returned.
 * Threads: any.
 */
int mig_receiver_error(struct mig_receiver *r, struct err *err);

/**
 * mig_receiver_quit() - have every wait inside end; the cancel_fd must be readable.
 *
 * Threads: any.
 */
void mig_receiver_quit(struct mig_receiver *r);

/**
 * mig_receiver_free() - end the lanes, close their channels, free.
 * @r: taken; NULL is allowed.  A lane that has not had its last round ends
 *     only when the cancel_fd is readable.
 *
 * Threads: the engine.
 */
void mig_receiver_free(struct mig_receiver *r);

#endif
