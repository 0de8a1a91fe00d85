/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of messages on the control channel, as constant tables: one for
 * each end.  docs/migration-protocol.md draws them.
 */
#ifndef MIGRATION_MIG_FSM_H
#define MIGRATION_MIG_FSM_H

#include "migration/mig_wire.h"

enum mig_source_state {
    MIG_SRC_START,
    MIG_SRC_GREETED,   /* HELLO sent */
    MIG_SRC_AGREED,    /* HELLO received */
    MIG_SRC_DESCRIBED, /* CONFIG sent; the destination builds */
    MIG_SRC_ROUNDS,    /* READY received: pages while the guest runs */
    MIG_SRC_STOPPED,   /* STOP sent: last pages, state */
    MIG_SRC_LOADED,    /* LOADED received: locks are let go */
    MIG_SRC_COMMITTED, /* COMMIT sent: not ours any more, but for an ABORT in answer */
    MIG_SRC_DONE,      /* RUNNING received */
    MIG_SRC_FAILED,    /* the guest stays here */
};

enum mig_dest_state {
    MIG_DST_START,
    MIG_DST_GREETED,   /* HELLO received */
    MIG_DST_AGREED,    /* HELLO sent */
    MIG_DST_DESCRIBED, /* CONFIG received: building */
    MIG_DST_ROUNDS,    /* READY sent: pages arrive */
    MIG_DST_STOPPED,   /* STOP received: last pages and state arrive */
    MIG_DST_LOADED,    /* LOADED sent: nothing may be taken before COMMIT */
    MIG_DST_COMMITTED, /* COMMIT received: locks, taps, start */
    MIG_DST_DONE,      /* RUNNING sent */
    MIG_DST_FAILED,    /* will never run the guest */
};

enum mig_dir {
    MIG_IN,
    MIG_OUT,
};

struct mig_fsm_row {
    uint8_t from;
    uint8_t dir; /* enum mig_dir */
    uint8_t msg; /* enum mig_msg */
    uint8_t to;
};

struct mig_fsm {
    const char *const *names; /* of the states */
    const struct mig_fsm_row *rows;
    size_t nr_rows;
};

extern const struct mig_fsm mig_source_fsm;
extern const struct mig_fsm mig_dest_fsm;

/**
 * mig_fsm_step() - follow a message.
 * @state: moved on where the message is legal.
 *
 * Return: 0; -EPROTO where the table has no such row, with message and state in @err.
 * Threads: one at a time.
 */
CHECKED int mig_fsm_step(const struct mig_fsm *fsm, unsigned *state, enum mig_dir dir, unsigned msg,
                         struct err *err);

#endif
