/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control channel: whole messages in the order that a table allows, with
 * keepalives under them.
 *
 * Each end sends KEEPALIVE once a second from a thread of its own, whatever
 * its engine is doing; so a peer that is silent for longer than idle_ms is
 * dead, however long building or loading takes.  None is sent while there is
 * no room for it: the peer has other bytes to read then.
 */
#ifndef MIGRATION_MIG_CTL_H
#define MIGRATION_MIG_CTL_H

#include "migration/mig_channel.h"
#include "migration/mig_fsm.h"

struct mig_ctl;

struct mig_ctl_params {
    const struct mig_fsm *fsm;
    unsigned keepalive_ms; /* 0: send none */
    uint32_t idle_ms;      /* silence of the peer that means that it is dead; 0: never */
    uint32_t first_ms;     /* the same before it has said anything; 0: idle_ms */
    int cancel_fd;         /* eventfd; borrowed */
};

/**
 * mig_ctl_new() - converse on a channel.
 * @ch: taken, also on failure.
 *
 * Return: 0 and *@ret_ctl, owned; -ENOMEM; -EAGAIN if there can be no more threads.
 * Threads: any.
 */
CHECKED int mig_ctl_new(struct mig_channel *ch, const struct mig_ctl_params *params,
                        struct mig_ctl **ret_ctl);

/**
 * mig_ctl_free() - end the keepalive and close the channel.
 * @ctl: taken; NULL is allowed.
 * @linger_ms: > 0: wait so long for what was sent last to arrive: mig_channel_linger().
 *
 * Threads: the last user.
 */
void mig_ctl_free(struct mig_ctl *ctl, unsigned linger_ms);

/**
 * mig_ctl_send() - send a message.
 * @parts, @nr: pieces of the body, at most 3.
 *
 * Return: 0: the kernel has all of it; -EPROTO if the table does not allow it
 * now; otherwise as mig_channel_writev(): the peer has not received all of it.
 * Threads: the engine; ROUND_DONE: any, of one at a time.
 */
CHECKED int mig_ctl_send(struct mig_ctl *ctl, enum mig_msg type, const struct iovec *parts,
                         unsigned nr, struct err *err);

/**
 * mig_ctl_send_by() - a limit for what is sent from now on, however little at a time the peer takes.
 * @end_ns: CLOCK_MONOTONIC: -ETIMEDOUT then; 0: none, as at first.
 *
 * Threads: the engine.
 */
void mig_ctl_send_by(struct mig_ctl *ctl, uint64_t end_ns);

/**
 * mig_ctl_unread() - what was read of the channel before: it is received first.
 * @body: as many bytes as @hdr says; copied.
 *
 * Return: 0; -ENOMEM; -E2BIG for more than 1 MiB.
 * Threads: the engine, before it receives anything.
 */
CHECKED int mig_ctl_unread(struct mig_ctl *ctl, const struct mig_msg_hdr *hdr, const void *body);

/* A message that arrived. */
struct mig_message {
    unsigned type;
    const uint8_t *body; /* borrowed until the next mig_ctl_recv() */
    size_t len;
};

/**
 * mig_ctl_recv() - receive the next message.
 * @tick_ns: CLOCK_MONOTONIC; 0: none.
 *
 * Keepalives and unknown optional messages are not shown.
 *
 * Return: 0; -EAGAIN at @tick_ns: call again; -ECONNABORTED with the peer's
 * reason if it sent ABORT; -EPROTO for a message that the table does not
 * allow; -ENOTSUP for one that is not known; -EBADMSG; -E2BIG; -ENOMEM; as
 * mig_channel_read_some().
 * Threads: the engine.
 */
CHECKED int mig_ctl_recv(struct mig_ctl *ctl, uint64_t tick_ns, struct mig_message *ret_msg,
                         struct err *err);

/**
 * mig_ctl_expect() - receive one message of one type.
 *
 * Return: as mig_ctl_recv(); -EPROTO for any other type but
 * REFUSE: -ENOTSUP, with the peer's first reason, and all of them in @why.
 * Threads: the engine.
 */
CHECKED int mig_ctl_expect(struct mig_ctl *ctl, enum mig_msg type, uint64_t tick_ns,
                           struct mig_message *ret_msg, struct mig_refusal *why, struct err *err);

/**
 * mig_ctl_look() - look whether the peer is alive, where no message is due.
 * @until_ns: CLOCK_MONOTONIC: go on looking until then; 0: look once.
 *
 * Return: 0; -EPROTO for any message but keepalives; as mig_ctl_recv().
 * Threads: the engine.
 */
CHECKED int mig_ctl_look(struct mig_ctl *ctl, uint64_t until_ns, struct err *err);

/**
 * mig_ctl_glance() - look whether the peer is alive, where its next message may be there already.
 *
 * Return: 0; 1 if there is one, which stays for mig_ctl_recv(); as mig_ctl_recv() otherwise, for
 * ABORT too.
 * Threads: the engine.
 */
CHECKED int mig_ctl_glance(struct mig_ctl *ctl, struct err *err);

/**
 * mig_ctl_fd() - readable when mig_ctl_look() may find something.
 *
 * Return: borrowed.
 * Threads: the engine.
 */
int mig_ctl_fd(const struct mig_ctl *ctl);

/**
 * mig_ctl_offer_resumption() - as mig_channel_offer_resumption(), with the next message.
 *
 * Threads: the engine.
 */
void mig_ctl_offer_resumption(struct mig_ctl *ctl);

/**
 * mig_ctl_abort() - tell the peer why we give up, if it can still be told.
 *
 * Threads: the engine.
 */
void mig_ctl_abort(struct mig_ctl *ctl, const char *reason);

/**
 * mig_ctl_last_word() - what the peer said before it went; nothing cancels any more.
 * @ms: longest wait.
 * @enough: asked now and then; true ends the wait.
 *
 * Return: -ECONNABORTED with its reason in @err; 0 if it has not given up.
 * Threads: the engine, at the end.
 */
CHECKED int mig_ctl_last_word(struct mig_ctl *ctl, uint32_t ms, bool (*enough)(void *arg),
                              void *arg, struct err *err);

/**
 * mig_ctl_past_cancel() - from now on nothing cancels.
 *
 * Threads: the engine.
 */
void mig_ctl_past_cancel(struct mig_ctl *ctl);

/**
 * mig_ctl_state() - where in the table the conversation is.
 *
 * Threads: the engine.
 */
unsigned mig_ctl_state(const struct mig_ctl *ctl);

#endif
