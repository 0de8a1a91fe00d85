/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a migration is doing, readable at any time from any thread.
 */
#ifndef MIGRATION_MIG_PROGRESS_H
#define MIGRATION_MIG_PROGRESS_H

#include "core/err.h"
#include "migration/mig_policy.h"
#include "migration/mig_statement.h"

enum {
    MIG_LOG_ROUNDS = 64, /* rounds remembered, the latest */
};

enum mig_phase {
    MIG_PHASE_IDLE,    /* not begun */
    MIG_PHASE_CONNECT, /* source: connecting; destination: waiting for a source */
    MIG_PHASE_PREPARE, /* the destination builds */
    MIG_PHASE_ROUNDS,  /* memory is copied while the guest runs */
    MIG_PHASE_STOPPED, /* the guest stands still: last pages and state */
    MIG_PHASE_COMMIT,  /* the guest is being handed over */
    MIG_PHASE_DONE,    /* see the result */
};

enum mig_result {
    MIG_RESULT_NONE,      /* not over yet */
    MIG_RESULT_COMPLETED, /* the guest runs at the destination */
    MIG_RESULT_FAILED,    /* not at the destination; see guest_here */
    MIG_RESULT_CANCELLED, /* as failed, because somebody asked for it */
    MIG_RESULT_UNDECIDED, /* source: no answer to COMMIT; the guest stands still here */
};

/* How long each step took, in nanoseconds; 0 where there was none. */
struct mig_phases {
    uint64_t connect; /* until the control channel and HELLO were through */
    uint64_t prepare; /* source: describe, and the destination's build; destination: build */
    uint64_t rounds;  /* copying while the guest ran */
    uint64_t pause;   /* source: stop the guest */
    uint64_t harvest; /* source: the dirty log, both times */
    uint64_t save;    /* source: state */
    uint64_t send;    /* source: from the stop until LOADED, without the three above */
    uint64_t release; /* source: let go of locks and taps */
    uint64_t commit;  /* source: from COMMIT to RUNNING */
    uint64_t pages;   /* destination: from STOP to the last page */
    uint64_t load;    /* destination: state; known to the source too, as are the next two */
    uint64_t acquire; /* destination: locks and taps */
    uint64_t start;   /* destination: start the guest */
    uint64_t
        blackout; /* source: from before pause until RUNNING; destination: from STOP to start */
    uint64_t total;
};

/* One round, and what a source decided after it. */
struct mig_round_log {
    uint32_t round;
    uint64_t data_pages;
    uint64_t zero_pages;
    uint64_t took_ns;
    uint64_t remaining;  /* pages dirty after it */
    uint64_t hot;        /* of these, left for the end */
    uint64_t rate;       /* bytes a second */
    uint64_t dirty_rate; /* bytes a second that the guest dirtied */
    uint64_t fixed_ns;   /* expected of the blackout beyond its pages */
    uint64_t trip_ns;    /* shortest time to an answer of the destination so far */
    uint64_t at_ns;      /* since the beginning */
    struct mig_verdict verdict;
};

/* A snapshot of everything that can be said. */
struct mig_status {
    enum mig_phase phase;
    enum mig_result result;
    bool guest_here; /* source: the guest runs, or can, here; destination: it was started here */
    bool encrypted;
    bool handed; /* the memory was handed over and not copied */
    unsigned lanes;
    char id[MIG_ID_SIZE]; /* of the migration, equal at both ends; empty before READY */
    uint32_t round;
    uint64_t total_bytes;  /* guest memory */
    uint64_t data_pages;   /* sent or received with contents */
    uint64_t zero_pages;   /* sent or received as zero */
    uint64_t zstd_pages;   /* of the data pages, those that went compressed */
    uint64_t wire_bytes;   /* on all lanes */
    uint64_t zstd_bytes;   /* of them, those that went compressed */
    uint64_t wire_rate;    /* wire bytes a second: in this round; of the whole once it is over */
    uint64_t round_bytes;  /* source: memory that this round has to send; 0: not known */
    uint64_t stopped_ns;   /* since the beginning, when the guest was about to be stopped */
    uint64_t cpu_ns;       /* processor time of the lanes that have ended */
    uint64_t remaining;    /* bytes of the round that are still to be sent */
    uint64_t dirty_rate;   /* bytes a second that the guest dirties */
    uint64_t rate;         /* bytes a second on the lanes */
    unsigned throttle;     /* percent of its time that the guest is kept out */
    uint64_t blackout_ns;  /* expected, as long as it is not over */
    uint64_t time_left_ns; /* expected; 0 where there is no saying */
    uint64_t elapsed_ns;
    unsigned nr_refused;    /* destination: connections turned away */
    struct mig_phases took; /* complete when the phase is DONE */
    struct err err;         /* of the result, or of the last connection turned away */
};

struct mig_progress;

/**
 * mig_progress_read() - take a snapshot.
 *
 * Threads: any.
 */
void mig_progress_read(struct mig_progress *p, struct mig_status *ret_status);

/**
 * mig_progress_rounds() - the latest rounds, oldest first.
 * @rounds: room for MIG_LOG_ROUNDS.
 *
 * Return: how many there are.
 * Threads: any.
 */
unsigned mig_progress_rounds(struct mig_progress *p, struct mig_round_log *rounds);

/**
 * mig_progress_lane_bytes() - bytes on the wire, by lane.
 * @bytes: room for MIG_LANES_MAX.
 *
 * Return: how many lanes there are.
 * Threads: any.
 */
unsigned mig_progress_lane_bytes(struct mig_progress *p, uint64_t *bytes);

/**
 * mig_phase_name() - e.g. "rounds".
 *
 * Return: static.
 * Threads: any.
 */
const char *mig_phase_name(enum mig_phase phase);

/**
 * mig_result_name() - e.g. "completed".
 *
 * Return: static.
 * Threads: any.
 */
const char *mig_result_name(enum mig_result result);

#endif
