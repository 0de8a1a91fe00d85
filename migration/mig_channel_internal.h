/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What carries a channel's bytes: the bare socket (mig_channel.c) or TLS on
 * it (mig_tls.c).  Nothing here blocks.
 *
 * Threads: the channel's user, one at a time.
 */
#ifndef MIGRATION_MIG_CHANNEL_INTERNAL_H
#define MIGRATION_MIG_CHANNEL_INTERNAL_H

#include "migration/mig_channel.h"
#include "migration/mig_splice.h"

struct mig_stream;

struct mig_stream_ops {
    /*
     * Bytes taken, > 0; -EAGAIN with *ret_want (POLLIN, POLLOUT) set; or a
     * failure.  A retry after -EAGAIN must offer the same bytes first.
     */
    int64_t (*send)(struct mig_stream *st, const struct iovec *iov, unsigned nr, short *ret_want,
                    struct err *err);
    /* 0 once nothing that was taken is still held back; as send otherwise. */
    int (*flush)(struct mig_stream *st, short *ret_want, struct err *err);
    /* Bytes read, > 0; 0 at the end of the stream; as send otherwise. */
    int64_t (*recv)(struct mig_stream *st, const struct iovec *iov, unsigned nr, short *ret_want,
                    struct err *err);
    /* Tell the peer that no more comes. */
    void (*finish)(struct mig_stream *st);
    /* As mig_channel_offer_resumption(); NULL: nothing to resume. */
    void (*offer_resumption)(struct mig_stream *st);
    void (*free)(struct mig_stream *st);
};

/* The first member of every carrier. */
struct mig_stream {
    const struct mig_stream_ops *ops;
    int fd; /* borrowed from the channel */
};

struct mig_channel {
    int fd; /* owned */
    bool encrypted;
    bool is_unix; /* what is written is at the peer at once */
    struct mig_stream plain;
    struct mig_splice splice;  /* for the plain stream; closed: not needed yet, or not to be had */
    bool no_splice;            /* it is not to be had */
    struct mig_stream *stream; /* &plain, or owned */
};

/* Begin a TLS session on a socket; the handshake is driven by handshake(). */
CHECKED int mig_tls_stream_new(struct mig_tls *tls, int fd, const char *host,
                               struct mig_stream **ret_stream, struct err *err);

/*
 * Offer AES first, where the processor has instructions for it, or else ChaCha20.
 * The first is what sessions get if both ends have them, the second if one end lacks them.
 * mig_tls_new() has done it by what this processor has.
 */
CHECKED int mig_tls_order_suites(struct mig_tls *tls, bool aes, struct err *err);

/* Whether its handshake, which is done, went on with an earlier session. */
bool mig_tls_stream_resumed(const struct mig_stream *st);

/* The cipher suite of a session whose handshake is done; static. */
const char *mig_tls_stream_suite(const struct mig_stream *st);

/* 0 when done; -EAGAIN with *ret_want; -EACCES or another failure. */
CHECKED int mig_tls_stream_handshake(struct mig_stream *st, short *ret_want, struct err *err);

#endif
