/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two engines, each in a thread of its own, that move a fake guest; and what
 * must hold afterwards, whatever happened on the way.
 */
#ifndef TESTS_FAKES_FAKE_PAIR_H
#define TESTS_FAKES_FAKE_PAIR_H

#include "tests/fakes/fake_guest.h"

struct fake_pair {
    struct fake_guest from, to;
    struct mig_source_params sp;
    struct mig_dest_params dp;
    struct mig_tls *client; /* borrowed: the source's over a fake link; NULL: none */
    struct mig_source *src;
    struct mig_dest *dst;
    void (*dest_ended)(void *open_arg); /* after mig_dest_run(); may be NULL */
    pthread_t src_thread, dst_thread;
    int src_rc, dst_rc;
    struct err src_err, dst_err;
    struct mig_refusal why;
    struct mig_status src_st, dst_st; /* at the end */
};

/* Longest silence, milliseconds: slow machines and sanitizers. */
enum {
    FAKE_PAIR_IDLE_MS = 20000,
};

/* A running guest and one to be; parameters that suit a test: no keepalive, 300 ms downtime. */
void fake_pair_init(struct fake_pair *p, const struct fake_guest_config *cfg);

/* Start both engines; the caller has set how they connect. */
void fake_pair_start(struct fake_pair *p);

/* Wait for both to end; the engines stay until the next start or release. */
void fake_pair_join(struct fake_pair *p);

/* fake_pair_start(), fake_pair_join(), fake_pair_check(). */
void fake_pair_run(struct fake_pair *p);

/*
 * Fails the test unless: at most one guest runs; it runs at the destination
 * with equal memory, or at the source with its locks, or the source says
 * "undecided"; failures are explained, and leave the dirty log off.  What is undecided
 * is then resolved by the destination's statement, and exactly one runs.
 */
void fake_pair_check(struct fake_pair *p);

/* Both guests, so that another move can be made with the same source's guest. */
void fake_pair_release(struct fake_pair *p);

#endif
