/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread pool engine, for where io_uring is not to be had.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>

#include "devices/disk_internal.h"

enum {
    POOL_THREADS = 4,
    POOL_STACK = 256 << 10,
};

struct queue {
    struct disk_io *first;
    struct disk_io **end;
};

struct pool {
    pthread_mutex_t lock; /* all below; a leaf */
    pthread_cond_t work;
    struct queue todo;
    struct queue done;
    bool stop;
    unsigned nr_threads;
    pthread_t threads[POOL_THREADS];
};

static void push(struct queue *q, struct disk_io *io)
{
    io->next = NULL;
    *q->end = io;
    q->end = &io->next;
}

static struct disk_io *pop(struct queue *q)
{
    struct disk_io *io = q->first;

    if (!io)
        return NULL;
    q->first = io->next;
    if (!q->first)
        q->end = &q->first;
    return io;
}

/* --- Workers --------------------------------------------------------------- */

static ssize_t carry_out(const struct disk *d, const struct disk_io *io)
{
    const struct disk_raw *r = &io->raw;
    int nr = (int)(r->nr_iov < IOV_MAX ? r->nr_iov : IOV_MAX);

    switch (r->op) {
    case DISK_READ:
        return preadv2(d->fd, r->iov, nr, (off_t)r->off, 0);
    case DISK_WRITE:
        return pwritev2(d->fd, r->iov, nr, (off_t)r->off, io->durable ? RWF_DSYNC : 0);
    case DISK_FLUSH:
        return fdatasync(d->fd);
    case DISK_DISCARD:
        return fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->off,
                         (off_t)r->len);
    case DISK_ZERO:
        return fallocate(d->fd,
                         FALLOC_FL_KEEP_SIZE | (io->punched || io->unmap ? FALLOC_FL_PUNCH_HOLE
                                                                         : FALLOC_FL_ZERO_RANGE),
                         (off_t)r->off, (off_t)r->len);
    }
    return 0;
}

static void *worker(void *arg)
{
    struct disk *d = arg;
    struct pool *p = d->engine_data;
    const uint64_t one = 1;
    struct disk_io *io;
    ssize_t n;

    (void)pthread_setname_np(pthread_self(), "disk-io");
    (void)pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && !p->todo.first)
            (void)pthread_cond_wait(&p->work, &p->lock);
        io = pop(&p->todo);
        if (!io)
            break;
        (void)pthread_mutex_unlock(&p->lock);
        n = carry_out(d, io);
        io->raw_result = n < 0 ? -errno : (int)n;
        (void)pthread_mutex_lock(&p->lock);
        push(&p->done, io);
        /* A full counter wakes as well. */
        if (write(d->event_fd, &one, sizeof(one)) < 0)
            continue;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* --- Life cycle -------------------------------------------------------------- */

static void pool_close(struct disk *d)
{
    struct pool *p = d->engine_data;

    (void)pthread_mutex_lock(&p->lock);
    p->stop = true;
    (void)pthread_cond_broadcast(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->nr_threads; i++)
        (void)pthread_join(p->threads[i], NULL);
    (void)pthread_cond_destroy(&p->work);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
    d->engine_data = NULL;
}

static int start_threads(struct disk *d, struct pool *p)
{
    pthread_attr_t attr;
    sigset_t all, old;
    int rc = 0;

    /* Signals are for the threads that asked for them. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, POOL_STACK);
    while (!rc && p->nr_threads < POOL_THREADS) {
        rc = -pthread_create(&p->threads[p->nr_threads], &attr, worker, d);
        if (!rc)
            p->nr_threads++;
    }
    (void)pthread_attr_destroy(&attr);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return p->nr_threads ? 0 : rc;
}

static int pool_open(struct disk *d, unsigned depth, struct err *err)
{
    struct pool *p = calloc(1, sizeof(*p));
    int rc;

    (void)depth;
    if (!p)
        return err_set(err, -ENOMEM, "threads: out of memory");
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    p->todo.end = &p->todo.first;
    p->done.end = &p->done.first;
    d->engine_data = p;
    rc = start_threads(d, p);
    if (rc < 0)
        pool_close(d);
    return rc < 0 ? err_set(err, rc, "threads: %s", strerror(-rc)) : 0;
}

/* --- Requests ------------------------------------------------------------------ */

static void pool_submit(struct disk *d, struct disk_io *io)
{
    struct pool *p = d->engine_data;

    (void)pthread_mutex_lock(&p->lock);
    push(&p->todo, io);
    (void)pthread_cond_signal(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
}

static void pool_kick(struct disk *d)
{
    (void)d;
}

static struct disk_io *pool_reap(struct disk *d)
{
    struct pool *p = d->engine_data;
    struct disk_io *io;

    (void)pthread_mutex_lock(&p->lock);
    io = pop(&p->done);
    (void)pthread_mutex_unlock(&p->lock);
    return io;
}

static void pool_wait(struct disk *d)
{
    struct pollfd pfd = {.fd = d->event_fd, .events = POLLIN};
    uint64_t count;

    if (poll(&pfd, 1, -1) < 0 || read(d->event_fd, &count, sizeof(count)) < 0)
        return;
}

const struct disk_engine_ops disk_pool_ops = {
    .name = "threads",
    .open = pool_open,
    .close = pool_close,
    .submit = pool_submit,
    .kick = pool_kick,
    .reap = pool_reap,
    .wait = pool_wait,
};
