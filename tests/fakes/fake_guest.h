/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest without a machine: memory, a thread that dirties it, a dirty log,
 * and the operations of both ends of a migration, each of which can be made
 * to fail.
 */
#ifndef TESTS_FAKES_FAKE_GUEST_H
#define TESTS_FAKES_FAKE_GUEST_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/dirty.h"
#include "core/gmem.h"
#include "migration/mig_dest.h"
#include "migration/mig_source.h"

enum {
    FAKE_GUEST_REGIONS = 2,
};

/* The operations, in the order in which an end goes through them. */
enum fake_op {
    FAKE_OP_NONE,
    FAKE_OP_DESCRIBE,
    FAKE_OP_PAUSE,
    FAKE_OP_SAVE,
    FAKE_OP_RELEASE,
    FAKE_OP_RECLAIM,
    FAKE_OP_RESUME,
    FAKE_OP_COMMITTED,
    FAKE_OP_BUILD,
    FAKE_OP_STAGE,
    FAKE_OP_LOAD,
    FAKE_OP_ACQUIRE,
    FAKE_OP_START,
    FAKE_OP_DISCARD,
    FAKE_NR_OPS
};

struct fake_guest_config {
    uint64_t len[FAKE_GUEST_REGIONS]; /* bytes; [1] is above 4 GiB */
    bool shared;                      /* memfd */
    bool thp;                         /* huge pages, where the host has them */
    unsigned data_percent;            /* pages that are not zero */
    unsigned data_run;                /* so many pages side by side are alike; 0: 1 */
    uint64_t dirty_rate;              /* pages a second; 0: none */
    unsigned dirty_every_us;          /* it dirties all that is due so often; 0: 200 */
    uint64_t dirty_first;             /* of region 0 */
    uint64_t dirty_pages;             /* where it dirties, from dirty_first; 0: everywhere */
    bool never_clean;                 /* the log says of one page that it is dirty, each time */
    unsigned seed;
};

struct fake_guest {
    struct fake_guest_config cfg;
    struct gmem *gm;     /* owned */
    struct dirty *dirty; /* owned; the source's */
    _Atomic uint64_t *log[FAKE_GUEST_REGIONS];
    atomic_bool log_on;
    atomic_uint log_errors; /* calls with the log off, or outside of it */

    /* What happens. */
    atomic_bool running;     /* vCPUs run */
    atomic_bool holds_locks; /* disk locks, taps */
    atomic_uint calls[FAKE_NR_OPS];
    atomic_uint fail_op;                       /* this one fails */
    void (*on_op)(void *arg, enum fake_op op); /* before each; may be NULL */
    void *on_op_arg;
    atomic_bool bad_config; /* build() refuses, with two reasons */
    bool quiet_save;        /* saving does not touch memory */
    bool ready;             /* build() has memory put behind all pages */
    unsigned op_delay_us;
    const char *facts;             /* the source tells them; NULL: none */
    char facts_heard[64];          /* the destination's */
    _Atomic uint64_t nap_until_ns; /* it dirties nothing until then */
    atomic_uint naps;
    uint64_t saves;     /* state: times saved */
    uint64_t state_pad; /* bytes of state besides */
    uint64_t staged;    /* what stage() found */
    uint64_t loaded;    /* the same, once load() was called */

    pthread_t thread;
    bool has_thread;
    atomic_bool quit;
    pthread_mutex_t lock; /* held by the dirtying thread while it writes */
};

extern const struct mig_source_ops fake_source_ops;
extern const struct mig_dest_ops fake_dest_ops;

/* A running guest with contents; fails the test where it cannot be made. */
void fake_guest_start(struct fake_guest *g, const struct fake_guest_config *cfg);

/* A guest to be: build() makes its memory. */
void fake_guest_expect(struct fake_guest *g, const struct fake_guest_config *cfg);

void fake_guest_release(struct fake_guest *g);

/* Whether two guests, both of which stand still, have equal memory. */
bool fake_guest_equal(struct fake_guest *a, struct fake_guest *b);

#endif
