/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's engine: moves a guest away, or leaves it as it was.
 *
 * mig_source_run() works on the thread that calls it, until the move is over.
 * It knows the guest by its memory, its dirty pages and a few operations.
 *
 *     describe                   the guest runs
 *     pause                      it stands still
 *     save
 *     release                    locks and taps are free
 *     -- COMMIT --
 *     committed                  it runs at the destination
 *
 * A failure before COMMIT undoes what was done, in reverse: reclaim (if release
 * was called), resume (if pause was called).  Once COMMIT was sent only an
 * explicit answer of the destination that it has not started and never will
 * has the same effect; with no answer the guest stays stopped and the result
 * is MIG_RESULT_UNDECIDED.
 */
#ifndef MIGRATION_MIG_SOURCE_H
#define MIGRATION_MIG_SOURCE_H

#include "core/dirty.h"
#include "core/state.h"
#include "migration/mig_codec.h"
#include "migration/mig_dial.h"
#include "migration/mig_policy.h"
#include "migration/mig_progress.h"
#include "migration/mig_statement.h"
#include "migration/mig_wire.h"

/* All but nap() are called from the thread inside mig_source_run(). */
struct mig_source_ops {
    /* What the destination needs to build the machine; at most MIG_CONFIG_MAX bytes. */
    CHECKED int (*describe)(void *arg, struct state_buf *config, struct err *err);
    /*
     * What a destination wants to know before it builds; text, *ret_text on the
     * heap.  None, and more than MIG_SMALL_MAX bytes, are not sent.  May be NULL.
     */
    CHECKED int (*facts)(void *arg, char **ret_text, size_t *ret_len, struct err *err);
    /*
     * Keep the running guest out until then (CLOCK_MONOTONIC, ns; 0: let it in), without
     * waiting; from a thread of the engine's.  NULL: it cannot be slowed down.
     */
    void (*nap)(void *arg, uint64_t until_ns);
    /* A round begins, with the guest kept out for so many percent of its time.  May be NULL. */
    void (*round)(void *arg, uint32_t round, unsigned throttle);
    /* Stop the guest; on failure it goes on running, or cannot. */
    CHECKED int (*pause)(void *arg, struct err *err);
    /* The state of the stopped machine, part by part as it is there; may write guest memory. */
    CHECKED int (*save)(void *arg, const struct state_sink *sink, struct err *err);
    /* Let go of what only one host may hold; on failure reclaim() follows. */
    CHECKED int (*release)(void *arg, struct err *err);
    /* Take it again. */
    CHECKED int (*reclaim)(void *arg, struct err *err);
    /* Go on as before pause(). */
    CHECKED int (*resume)(void *arg, struct err *err);
    /* The guest runs at the destination; this one is never to run again. */
    void (*committed)(void *arg);
};

struct mig_source_params {
    const struct mig_source_ops *ops; /* static */
    void *arg;
    struct gmem *gm;     /* borrowed */
    struct dirty *dirty; /* borrowed */
    mig_open_fn *open;   /* connects; the control channel, then each lane */
    void *open_arg;
    unsigned lanes; /* wanted, 1..MIG_LANES_MAX; 0: 1 */
    struct mig_limits limits;
    enum mig_compression compression;
    bool local;         /* hand memory over to a process of this host, where all of it is shared */
    uint64_t bandwidth; /* bytes a second on all lanes; 0: no cap */
    /* For tests, which have other times than people: all 0 is docs/migration-protocol.md 7. */
    uint32_t idle_ms;  /* 0: 9 s */
    uint32_t hello_ms; /* for the destination to shake hands, and to answer HELLO; 0: 30 s each */
    unsigned keepalive_ms; /* 0: 1 s; UINT_MAX: none */
    uint32_t
        loaded_ms; /* for the state to be sent and loaded, beyond what it should take; 0: 60 s */
    uint32_t last_word_ms; /* for the reason of a destination that goes; 0: 300 ms */
};

struct mig_source;

/**
 * mig_source_new() - prepare a move; nothing happens yet.
 * @params: copied.
 *
 * Return: 0 and *@ret_src, owned; -EINVAL for too many lanes; -ENOMEM; the kernel's errno.
 * Threads: any.
 */
CHECKED int mig_source_new(const struct mig_source_params *params, struct mig_source **ret_src,
                           struct err *err);

/**
 * mig_source_free() - free.
 * @src: taken, not running; NULL is allowed.
 *
 * Threads: the last user.
 */
void mig_source_free(struct mig_source *src);

/**
 * mig_source_run() - move the guest; once.
 * @why: all the reasons of a destination that refuses; may be NULL.
 *
 * Return: 0: the guest runs at the destination; -ECANCELED, -ETIMEDOUT,
 * -ENOTSUP (refused), or another failure: the guest is here and runs, unless
 * the result says otherwise; -EINPROGRESS: undecided, the guest is here and
 * stopped.
 * Threads: one.
 */
CHECKED int mig_source_run(struct mig_source *src, struct mig_refusal *why, struct err *err);

/**
 * mig_source_cancel() - give up, if that is still possible.
 * @why: for the error here and at the peer; static; NULL: "cancelled".
 *
 * Return: 0: the guest stays here; -EBUSY: COMMIT was sent.
 * Threads: any.
 */
int mig_source_cancel(struct mig_source *src, const char *why);

/**
 * mig_source_switch_now() - stop the guest after the round that is going on.
 *
 * Threads: any.
 */
void mig_source_switch_now(struct mig_source *src);

/**
 * mig_source_secret() - the secret of this migration, once mig_source_run() has returned.
 *
 * Return: MIG_SECRET_SIZE bytes, borrowed; NULL if it did not come to READY.
 * Threads: any.
 */
const uint8_t *mig_source_secret(const struct mig_source *src);

/**
 * mig_source_resolve() - decide what is undecided, with what is known of the destination.
 * @src: mig_source_run() has returned.
 *
 * MIG_OUTCOME_NEVER: the guest is taken back and goes on; MIG_OUTCOME_TAKEN:
 * committed() is called, the result is completed.
 *
 * Return: 0; -EPERM unless the result is MIG_RESULT_UNDECIDED; what reclaim()
 * or resume() returned: then it is as undecided as before.
 * Threads: that on which the operations may be called.
 */
CHECKED int mig_source_resolve(struct mig_source *src, enum mig_outcome outcome, struct err *err);

/**
 * mig_source_progress() - the progress.
 *
 * Return: borrowed, valid until mig_source_free().
 * Threads: any.
 */
struct mig_progress *mig_source_progress(struct mig_source *src);

#endif
