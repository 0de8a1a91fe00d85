/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring engine.  The kernel does the operations on its own threads,
 * outside of any seccomp filter of ours.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>

#include "devices/disk_internal.h"

struct uring {
    struct io_uring ring;
    unsigned unsubmitted; /* entries that the kernel has not taken yet */
};

static int probe_ops(struct io_uring *ring)
{
    static const int ops[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
                              IORING_OP_FALLOCATE};
    struct io_uring_probe *p = io_uring_get_probe_ring(ring);
    bool ok = p;

    for (size_t i = 0; ok && i < ARRAY_LEN(ops); i++)
        ok = io_uring_opcode_supported(p, ops[i]);
    io_uring_free_probe(p);
    return ok ? 0 : -EOPNOTSUPP;
}

static int uring_open(struct disk *d, unsigned depth, struct err *err)
{
    auto_free struct uring *u = calloc(1, sizeof(*u));
    int rc;

    if (!u)
        return err_set(err, -ENOMEM, "io_uring: out of memory");
    rc = io_uring_queue_init(depth, &u->ring, 0);
    if (rc < 0)
        return err_set(err, rc, "io_uring: %s", strerror(-rc));
    rc = probe_ops(&u->ring);
    if (rc >= 0)
        rc = io_uring_register_eventfd(&u->ring, d->event_fd);
    if (rc < 0) {
        io_uring_queue_exit(&u->ring);
        return err_set(err, rc, "io_uring: %s", strerror(-rc));
    }
    d->engine_data = steal_ptr(u);
    return 0;
}

static void uring_close(struct disk *d)
{
    struct uring *u = d->engine_data;

    io_uring_queue_exit(&u->ring);
    free(u);
}

static void prepare(struct disk *d, struct io_uring_sqe *sqe, struct disk_io *io)
{
    const struct disk_raw *r = &io->raw;
    unsigned nr = r->nr_iov < IOV_MAX ? r->nr_iov : IOV_MAX;

    switch (r->op) {
    case DISK_READ:
        io_uring_prep_readv(sqe, d->fd, r->iov, nr, r->off);
        break;
    case DISK_WRITE:
        io_uring_prep_writev(sqe, d->fd, r->iov, nr, r->off);
        sqe->rw_flags = io->durable ? RWF_DSYNC : 0;
        break;
    case DISK_FLUSH:
        io_uring_prep_fsync(sqe, d->fd, IORING_FSYNC_DATASYNC);
        break;
    case DISK_DISCARD:
        io_uring_prep_fallocate(sqe, d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                (off_t)r->off, (off_t)r->len);
        break;
    case DISK_ZERO:
        io_uring_prep_fallocate(sqe, d->fd,
                                FALLOC_FL_KEEP_SIZE |
                                    (io->punched || io->unmap ? FALLOC_FL_PUNCH_HOLE
                                                              : FALLOC_FL_ZERO_RANGE),
                                (off_t)r->off, (off_t)r->len);
        break;
    }
    io_uring_sqe_set_data(sqe, io);
}

static void uring_submit(struct disk *d, struct disk_io *io)
{
    struct uring *u = d->engine_data;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    /* There are as many entries as there may be requests. */
    assert(sqe);
    prepare(d, sqe, io);
    u->unsubmitted++;
}

static void uring_kick(struct disk *d)
{
    struct uring *u = d->engine_data;
    const uint64_t one = 1;
    int rc;

    if (!u->unsubmitted)
        return;
    rc = io_uring_submit(&u->ring);
    if (rc > 0)
        u->unsubmitted -= (unsigned)rc;
    /* The kernel is short of something for now: come back. */
    if (u->unsubmitted && write(d->event_fd, &one, sizeof(one)) < 0)
        return;
}

static struct disk_io *uring_reap(struct disk *d)
{
    struct uring *u = d->engine_data;
    struct io_uring_cqe *cqe;
    struct disk_io *io;

    if (u->unsubmitted)
        uring_kick(d);
    if (io_uring_peek_cqe(&u->ring, &cqe) < 0 || !cqe)
        return NULL;
    io = io_uring_cqe_get_data(cqe);
    io->raw_result = cqe->res;
    io_uring_cqe_seen(&u->ring, cqe);
    return io;
}

static void uring_wait(struct disk *d)
{
    struct uring *u = d->engine_data;
    struct __kernel_timespec ts = {.tv_nsec = 10000000};
    struct io_uring_cqe *cqe;

    (void)io_uring_wait_cqe_timeout(&u->ring, &cqe, &ts);
}

const struct disk_engine_ops disk_uring_ops = {
    .name = "io_uring",
    .open = uring_open,
    .close = uring_close,
    .submit = uring_submit,
    .kick = uring_kick,
    .reap = uring_reap,
    .wait = uring_wait,
};
