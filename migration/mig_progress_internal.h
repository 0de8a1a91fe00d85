/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the engines write a migration's progress.
 *
 * Threads: init and release: the owner, alone; all others: any.
 */
#ifndef MIGRATION_MIG_PROGRESS_INTERNAL_H
#define MIGRATION_MIG_PROGRESS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "migration/mig_progress.h"
#include "migration/mig_wire.h"

/* Counted by the lanes, each page when it is with the kernel or in place. */
struct mig_counters {
    _Atomic uint64_t data_pages;
    _Atomic uint64_t zero_pages;
    _Atomic uint64_t zstd_pages; /* of the data pages, those that went compressed */
    _Atomic uint64_t wire_bytes;
    _Atomic uint64_t zstd_bytes;                /* of them, those of frames that went compressed */
    _Atomic uint64_t lane_bytes[MIG_LANES_MAX]; /* the same as wire_bytes, by lane */
    _Atomic uint64_t cpu_ns;                    /* processor time of lanes that have ended */
};

struct mig_progress {
    struct mig_counters counters; /* relaxed: a reader wants no more than a recent value */

    pthread_mutex_t lock; /* below; a leaf */
    struct mig_status st; /* without the counters and what is computed from them */
    uint64_t begin_ns;    /* of the whole */
    uint64_t round_ns;    /* when the round began */
    uint64_t round_todo;  /* pages of the round */
    uint64_t data_base, zero_base, wire_base; /* what was counted before the round */
    unsigned nr_rounds;                       /* ever logged */
    struct mig_round_log rounds[MIG_LOG_ROUNDS];
};

/* A lane has sent or received a frame: bytes with the head, and pages with contents. */
void mig_progress_frame(struct mig_counters *c, unsigned lane, uint64_t bytes, uint64_t pages,
                        bool is_zstd);

/* A thread of the migration ends: add the processor time that it used. */
void mig_progress_cpu(struct mig_counters *c);

/* Nothing has happened yet; and nobody will ask any more. */
void mig_progress_init(struct mig_progress *p);
void mig_progress_release(struct mig_progress *p);

/* Enter a phase; the clock starts with the first. */
void mig_progress_phase(struct mig_progress *p, enum mig_phase phase);

/* A round of so many pages begins. */
void mig_progress_round(struct mig_progress *p, uint32_t round, uint64_t pages);

/* Remember a round that ended. */
void mig_progress_log(struct mig_progress *p, const struct mig_round_log *log, uint64_t dirty_rate);

/* Destination: a round has arrived; the next one begins. */
void mig_progress_received(struct mig_progress *p);

/* How long the steps took so far. */
void mig_progress_took(struct mig_progress *p, const struct mig_phases *took);

/* What kind of connection it is. */
void mig_progress_lanes(struct mig_progress *p, unsigned lanes, bool encrypted, uint64_t memory);

/* READY is through: the migration has an id. */
void mig_progress_secret(struct mig_progress *p, const uint8_t *secret);

/* Whether the memory is handed over. */
void mig_progress_handed(struct mig_progress *p, bool handed);

/* A connection was turned away. */
void mig_progress_refused(struct mig_progress *p, const struct err *err);

/* It is over. */
void mig_progress_finish(struct mig_progress *p, enum mig_result result, bool guest_here,
                         const struct err *err);

#endif
