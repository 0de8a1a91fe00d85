/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination's door: who connects is asked what it is.
 *
 * On a thread of the door's own and all at once, so that nobody waits for
 * somebody else who says nothing.  Let in are the first connection that says
 * HELLO, and lanes that have the secret.  Another source is refused in words
 * as long as the door is open; all others are turned away.
 */
#ifndef MIGRATION_MIG_DOOR_H
#define MIGRATION_MIG_DOOR_H

#include "migration/mig_dial.h"
#include "migration/mig_wire.h"

struct mig_door;

struct mig_door_params {
    mig_open_fn *open; /* takes a connection without a handshake */
    void *open_arg;
    int open_fd;         /* readable where there is one; borrowed */
    struct mig_tls *tls; /* borrowed; NULL: none */
    uint32_t hello_ms;   /* for a connection to shake hands, and to say what it is */
    unsigned attempts;   /* so many turned away before there is a source end it; 0: any number */
    /* On the door's thread. */
    void (*turned_away)(void *arg, const struct err *why);
    void *arg;
};

/* Somebody who was let in, and what it has said: HELLO or LANE. */
struct mig_visitor {
    struct mig_channel *ch;
    struct mig_msg_hdr hdr;
    uint8_t *body;
};

/**
 * mig_door_open() - let a source in.
 * @params: copied.
 *
 * Return: 0 and *@ret_door, owned; -ENOMEM; the kernel's errno.
 * Threads: any.
 */
CHECKED int mig_door_open(const struct mig_door_params *params, struct mig_door **ret_door,
                          struct err *err);

/**
 * mig_door_close() - let nobody in any more; who waits is hung up on.
 * @door: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void mig_door_close(struct mig_door *door);

/**
 * mig_door_let_lanes_in() - from now on, those that have the secret.
 * @secret: MIG_SECRET_SIZE bytes.
 * @nr: so many of them, at most MIG_LANES_MAX; one more is turned away.
 *
 * Threads: any.
 */
void mig_door_let_lanes_in(struct mig_door *door, const uint8_t *secret, unsigned nr);

/**
 * mig_door_await() - wait for the next one: the source, then lanes.
 *
 * Return: 0 and *@ret_visitor, owned: mig_visitor_release(); as mig_channel_wait_fd(); why the
 * last of params.attempts was turned away, or why nobody can come any more.
 * Threads: one.
 */
CHECKED int mig_door_await(struct mig_door *door, const struct mig_wait *wait,
                           struct mig_visitor *ret_visitor, struct err *err);

/**
 * mig_door_is_idle() - whether nobody is there who might be let in.
 *
 * Threads: any.
 */
bool mig_door_is_idle(struct mig_door *door);

/**
 * mig_visitor_release() - close and free; a channel that was taken is NULL.
 *
 * Threads: any.
 */
void mig_visitor_release(struct mig_visitor *v);

#endif
