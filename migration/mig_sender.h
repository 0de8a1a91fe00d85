/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's lanes: threads that take dirty pages and send them.
 *
 * Work is divided as it is taken: each lane takes the next run of dirty
 * pages, looks for zero pages in it, and writes what it found as one frame
 * straight from guest memory.  A round ends for a lane when no page is left;
 * it then says ROUND_END and waits for the next round.  Within a round no page
 * is taken twice, so that two lanes never race with two versions of a page.
 */
#ifndef MIGRATION_MIG_SENDER_H
#define MIGRATION_MIG_SENDER_H

#include "core/dirty.h"
#include "migration/mig_channel.h"
#include "migration/mig_codec.h"
#include "migration/mig_progress_internal.h"
#include "migration/mig_wire.h"

struct mig_sender;

struct mig_sender_params {
    struct gmem *gm;                 /* borrowed */
    struct dirty_consumer *consumer; /* borrowed; NULL: the memory is handed over */
    struct mig_counters *counters;   /* borrowed */
    int cancel_fd;                   /* eventfd; borrowed; makes the lanes end */
    enum mig_compression compression;
    uint64_t bandwidth;        /* bytes a second of all lanes; 0: no cap */
    uint32_t idle_ms;          /* a lane on which nothing moves for so long is dead */
    void (*failed)(void *arg); /* a lane failed; called from its thread */
    void *arg;
};

/**
 * mig_sender_new() - no lanes yet.
 *
 * Return: 0 and *@ret_s, owned; -ENOMEM.
 * Threads: the engine.
 */
CHECKED int mig_sender_new(const struct mig_sender_params *params, struct mig_sender **ret_s);

/**
 * mig_sender_add_lane() - start a lane on a channel.
 * @ch:     taken, also on failure.
 * @secret: MIG_SECRET_SIZE bytes, from READY; sent first.
 *
 * Return: 0; -ENOMEM; -EAGAIN if there can be no more threads; -E2BIG past MIG_LANES_MAX.
 * Threads: the engine.
 */
CHECKED int mig_sender_add_lane(struct mig_sender *s, struct mig_channel *ch, const uint8_t *secret,
                                struct err *err);

/* A round: every page that is dirty when it is taken. */
struct mig_round {
    uint32_t number; /* ascending from 0 */
    bool stopped;    /* the guest stands still and no other harvest follows */
    bool last;       /* the lanes end after it */
};

/**
 * mig_sender_round() - have the lanes send a round; does not wait for it.
 *
 * A lane that is still busy with the round before goes on with this one
 * afterwards.
 * Threads: the engine.
 */
void mig_sender_round(struct mig_sender *s, const struct mig_round *round);

/**
 * mig_sender_ended_ns() - when the last lane was about to send its ROUND_END.
 *
 * Return: CLOCK_MONOTONIC, of the latest round that a lane has ended; 0: of none.
 * Threads: any.
 */
uint64_t mig_sender_ended_ns(struct mig_sender *s);

/**
 * mig_sender_error() - why the first lane failed.
 *
 * Return: 0 if none did; what it returned.
 * Threads: any.
 */
int mig_sender_error(struct mig_sender *s, struct err *err);

/**
 * mig_sender_free() - end the lanes, close their channels, free.
 * @s: taken; NULL is allowed.  A lane in the middle of a round ends only when
 *     the cancel_fd is readable.
 *
 * Threads: the engine.
 */
void mig_sender_free(struct mig_sender *s);

#endif
