/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reliable stream of bytes to the other end of a migration: a UNIX or TCP
 * socket, with TLS 1.3 around it where asked for.
 *
 * Every operation that may block takes a struct mig_wait: it can be cancelled,
 * has a deadline, and notices a peer from whom, or to whom, no byte moves.
 * After any failure other than -EAGAIN and a -ETIMEDOUT of
 * mig_channel_read_some() the channel is of no use but to be closed.
 */
#ifndef MIGRATION_MIG_CHANNEL_H
#define MIGRATION_MIG_CHANNEL_H

#include <sys/uio.h>

#include "core/err.h"

struct mig_channel;
struct mig_tls;

enum {
    MIG_FDS_MAX = 64, /* descriptors handed over at once */
};

/* What ends a wait early.  Zero-initialised is wrong: 0 is a descriptor. */
struct mig_wait {
    int cancel_fd;        /* readable: -ECANCELED; borrowed; -1: none */
    int wake_fd;          /* readable: -EAGAIN where nothing is lost by it; borrowed; -1: none */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC: -ETIMEDOUT; 0: none */
    uint32_t idle_ms;     /* no byte moved for so long: -ETIMEDOUT; 0: no limit */
};

/* Which end of a TLS session. */
enum mig_tls_role {
    MIG_TLS_CLIENT, /* the source: client-cert.pem, client-key.pem */
    MIG_TLS_SERVER, /* the destination: server-cert.pem, server-key.pem */
};

/**
 * mig_tls_new() - read certificates and keys.
 * @dir:  directory with ca-cert.pem and the two files of the role.
 *
 * TLS 1.3 and nothing below it; both ends must show a certificate of the CA.
 *
 * Return: 0 and *@ret_tls, owned, to be given to mig_tls_free(); -ENOMEM;
 * -EINVAL with the file and the reason in @err.
 * Threads: any.
 */
CHECKED int mig_tls_new(const char *dir, enum mig_tls_role role, struct mig_tls **ret_tls,
                        struct err *err);

/**
 * mig_tls_free() - free.
 * @tls: taken; channels that were started with it live on; NULL is allowed.
 *
 * Threads: the last user.
 */
void mig_tls_free(struct mig_tls *tls);

/**
 * mig_channel_from_fd() - make a channel of a connected stream socket.
 * @fd: taken, also on failure; becomes non-blocking.
 *
 * On TCP: TCP_NODELAY, keepalive and TCP_USER_TIMEOUT are set, so that a
 * peer whose host is gone is noticed within 10 s.
 *
 * Return: 0 and *@ret_ch, owned, to be given to mig_channel_close(); -ENOMEM;
 * the kernel's errno.
 * Threads: any.
 */
CHECKED int mig_channel_from_fd(int fd, struct mig_channel **ret_ch);

/**
 * mig_channel_start_tls() - shake hands; what follows is encrypted.
 * @tls:  of either role.
 * @host: name or address that the peer's certificate must bear; NULL at the
 *        server, which takes any certificate of the CA.
 *
 * Return: 0; -EACCES if a certificate is refused or the peer speaks no TLS 1.3;
 * -ECANCELED; -ETIMEDOUT; the kernel's errno.
 * Threads: one, before any other use.
 */
CHECKED int mig_channel_start_tls(struct mig_channel *ch, struct mig_tls *tls, const char *host,
                                  const struct mig_wait *wait, struct err *err);

/**
 * mig_channel_begin_tls() - mig_channel_start_tls() for who waits for many: hands are shaken next.
 *
 * Return: 0; -EINVAL for a host that no certificate can bear; -ENOMEM.
 * Threads: one, before any other use.
 */
CHECKED int mig_channel_begin_tls(struct mig_channel *ch, struct mig_tls *tls, const char *host,
                                  struct err *err);

/**
 * mig_channel_shake_hands() - as much of the handshake as can be done without waiting.
 * @ret_want: POLLIN or POLLOUT, on -EAGAIN.
 *
 * Return: 0: done; -EAGAIN: call again once the socket is ready; as mig_channel_start_tls().
 * Threads: one, between mig_channel_begin_tls() and any other use.
 */
CHECKED int mig_channel_shake_hands(struct mig_channel *ch, short *ret_want, struct err *err);

/**
 * mig_channel_offer_resumption() - spare the peer's further connections the signatures.
 *
 * At the server: with what is written next goes a ticket (RFC 8446, section 4.6.1).  The client's
 * further connections with the same mig_tls go on with this session once it has read that; what
 * was checked of its peer's certificate holds for them too.  Nothing happens without TLS.
 *
 * Threads: one writer at a time; another thread may read.
 */
void mig_channel_offer_resumption(struct mig_channel *ch);

/**
 * mig_channel_close() - close at once and free.
 * @ch: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void mig_channel_close(struct mig_channel *ch);

/**
 * mig_channel_linger() - say that no more will be written, and wait until all that was is there.
 * @ms: longest wait.
 *
 * What is still on its way would be lost if the socket were closed with bytes of the peer
 * unread.  It is there once the peer's kernel has it, for the peer to read after this end has
 * closed.  What the peer still sends is thrown away.
 * Threads: the last user, before mig_channel_close().
 */
void mig_channel_linger(struct mig_channel *ch, unsigned ms);

/**
 * mig_channel_finish() - mig_channel_linger() for who waits for many: say that no more will be
 * written.
 *
 * Threads: the last user.
 */
void mig_channel_finish(struct mig_channel *ch);

/**
 * mig_channel_drain() - throw away what is there of what the peer still sends.
 *
 * Return: false: the peer has closed.
 * Threads: the last user, after mig_channel_finish().
 */
bool mig_channel_drain(struct mig_channel *ch);

/**
 * mig_channel_writev() - write all the bytes.
 * @iov, @nr: pieces, which may be guest memory that changes meanwhile; used up.
 *
 * Nothing is copied here where there is no TLS; the kernel copies into the socket's buffer.
 *
 * Return: 0: all bytes are with the kernel; -ECANCELED; -ETIMEDOUT; -EPIPE or
 * another errno of the kernel: then the peer cannot have received all of them.
 * Threads: one writer at a time; another thread may read.
 */
CHECKED int mig_channel_writev(struct mig_channel *ch, struct iovec *iov, unsigned nr,
                               const struct mig_wait *wait, struct err *err);

/**
 * mig_channel_write_pages() - write a head and pages behind it.
 * @iov, @nr: the head first, which is copied; then pages, which may be sent by reference: what
 *            the peer gets of them is what was in them at some moment until it read them.
 * @len:      bytes of the pages.
 *
 * The thread has SIGPIPE blocked or ignored.
 *
 * Return, Threads: as mig_channel_writev().
 */
CHECKED int mig_channel_write_pages(struct mig_channel *ch, struct iovec *iov, unsigned nr,
                                    size_t len, const struct mig_wait *wait, struct err *err);

/**
 * mig_channel_send_fds() - write bytes and hand descriptors over with the first of them.
 * @ch: a UNIX socket, not encrypted.
 * @data, @len: a short message.
 * @fds, @nr: borrowed; at most MIG_FDS_MAX.
 *
 * Return: as mig_channel_writev(); -ENOTSUP on another kind of channel.
 * Threads: as mig_channel_writev().
 */
CHECKED int mig_channel_send_fds(struct mig_channel *ch, const void *data, size_t len,
                                 const int *fds, unsigned nr, const struct mig_wait *wait,
                                 struct err *err);

/**
 * mig_channel_recv_fds() - read bytes, and the descriptors that came with the first of them.
 * @fds: room for MIG_FDS_MAX; what came is the caller's, also on failure; the rest is -1.
 *
 * Return: 0; as mig_channel_read(); -ENOTSUP on another kind of channel.
 * Threads: as mig_channel_read().
 */
CHECKED int mig_channel_recv_fds(struct mig_channel *ch, void *data, size_t len, int *fds,
                                 const struct mig_wait *wait, struct err *err);

/**
 * mig_channel_write() - mig_channel_writev() of one piece.
 *
 * Return, Threads: as mig_channel_writev().
 */
CHECKED int mig_channel_write(struct mig_channel *ch, const void *data, size_t len,
                              const struct mig_wait *wait, struct err *err);

/**
 * mig_channel_read_some() - read what is there, at least one byte.
 * @len: bytes wanted at most, > 0.
 *
 * Return: bytes, > 0; -ECONNRESET if the peer closed; -EAGAIN on wait->wake_fd;
 * -ECANCELED; -ETIMEDOUT; the kernel's errno; -EBADMSG for broken TLS.
 * Threads: one reader at a time; another thread may write.
 */
CHECKED int mig_channel_read_some(struct mig_channel *ch, void *buf, size_t len,
                                  const struct mig_wait *wait, struct err *err);

/**
 * mig_channel_readv() - read until the pieces are full.
 * @iov, @nr: pieces; used up.
 *
 * Return: 0; as mig_channel_read_some(), -EAGAIN excepted.
 * Threads: one reader at a time; another thread may write.
 */
CHECKED int mig_channel_readv(struct mig_channel *ch, struct iovec *iov, unsigned nr,
                              const struct mig_wait *wait, struct err *err);

/**
 * mig_channel_read() - mig_channel_readv() of one piece.
 *
 * Return, Threads: as mig_channel_readv().
 */
CHECKED int mig_channel_read(struct mig_channel *ch, void *buf, size_t len,
                             const struct mig_wait *wait, struct err *err);

/**
 * mig_channel_is_encrypted() - whether mig_channel_start_tls() succeeded.
 *
 * Threads: any.
 */
bool mig_channel_is_encrypted(const struct mig_channel *ch);

/**
 * mig_channel_fd() - the socket, to wait for; not to be read from or written to.
 *
 * Readable says that there may be something to read.  With TLS, what was read
 * ahead does not show: read until -ETIMEDOUT before waiting.
 *
 * Return: borrowed.
 * Threads: any.
 */
int mig_channel_fd(const struct mig_channel *ch);

/**
 * mig_channel_wait_fd() - wait for a file descriptor the way channels do.
 * @fd:       any that can be polled; -1: none, only the wait's own.
 * @events:   POLLIN, POLLOUT.
 * @since_ns: when a byte last moved, for wait->idle_ms.
 *
 * Return: 0 if the descriptor is ready (or broken); -ECANCELED; -EAGAIN on
 * wait->wake_fd; -ETIMEDOUT; the kernel's errno.
 * Threads: any.
 */
CHECKED int mig_channel_wait_fd(int fd, short events, const struct mig_wait *wait,
                                uint64_t since_ns);

#endif
