/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_splice.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum {
    SPLICE_PIPE = 1 << 20, /* bytes: what a user may have without privileges */
    SPLICE_IOV = 256,      /* pieces of one system call */
};

int mig_splice_open(struct mig_splice *s)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    *s = (struct mig_splice){.in = fds[1], .out = fds[0]};
    if (fcntl(s->in, F_SETPIPE_SZ, SPLICE_PIPE) < SPLICE_PIPE) {
        mig_splice_close(s);
        return -EPERM;
    }
    return 0;
}

void mig_splice_close(struct mig_splice *s)
{
    if (s->in >= 0) {
        (void)close(s->in);
        (void)close(s->out);
    }
    *s = MIG_SPLICE_NONE;
}

int64_t mig_splice_send(struct mig_splice *s, int fd, const struct iovec *iov, unsigned nr)
{
    ssize_t n;

    if (!s->held) {
        n = vmsplice(s->in, iov, nr < SPLICE_IOV ? nr : SPLICE_IOV, SPLICE_F_NONBLOCK);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        s->held = (size_t)n;
    }
    n = splice(s->out, NULL, fd, NULL, s->held, SPLICE_F_NONBLOCK | SPLICE_F_MORE);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    s->held -= (size_t)n;
    return n;
}
