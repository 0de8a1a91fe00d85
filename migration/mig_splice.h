/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory to a socket without a copy: the socket's buffer refers to the pages.
 *
 * The pages go through a pipe (vmsplice(2), splice(2)).  What is read by the peer is what is in
 * them when it is read, so that only bytes may go this way that are sent again if they change.
 * A peer that has gone is also a SIGPIPE to the thread, which has it blocked or ignored.
 *
 * Threads: one at a time.
 */
#ifndef MIGRATION_MIG_SPLICE_H
#define MIGRATION_MIG_SPLICE_H

#include <sys/uio.h>

#include "core/err.h"

struct mig_splice {
    int in, out; /* ends of the pipe, owned; -1: closed */
    size_t held; /* bytes that are in it */
};

#define MIG_SPLICE_NONE ((struct mig_splice){.in = -1, .out = -1})

/**
 * mig_splice_open() - make the pipe.
 *
 * Return: 0; -EPERM where this user's pipes may not be large enough; the kernel's errno.
 */
CHECKED int mig_splice_open(struct mig_splice *s);

/**
 * mig_splice_close() - close it; harmless when closed.
 */
void mig_splice_close(struct mig_splice *s);

/**
 * mig_splice_send() - give memory to a socket.
 * @fd: a stream socket that does not block.
 * @iov, @nr: pieces; after a failure the same bytes must be offered first.
 *
 * The socket is told that more comes: it may keep the last bytes until the next write.
 *
 * Return: bytes that the socket has, > 0; -EAGAIN while it has no room; the kernel's errno.
 */
CHECKED int64_t mig_splice_send(struct mig_splice *s, int fd, const struct iovec *iov, unsigned nr);

#endif
