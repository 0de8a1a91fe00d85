/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A raw disk image: a file or a block device, reached without blocking.
 *
 *     disk_submit() ... disk_kick() -> disk_event_fd() readable -> disk_reap()
 *
 * Two engines do the work: io_uring, and where the kernel or a sandbox refuses
 * it, a pool of threads.
 *
 * With direct=on the kernel wants aligned memory; requests that are not go
 * through buffers of ours.  A write whose place or length is not a multiple of
 * the block size is refused then, a read is widened: what a disk with large
 * sectors does.
 */
#ifndef DEVICES_DISK_H
#define DEVICES_DISK_H

#include <sys/uio.h>

#include "core/err.h"

struct disk;

enum {
    DISK_SECTOR = 512, /* bytes: the unit of sizes */
    DISK_DEPTH_MAX = 1024,
};

enum disk_op {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH,
    DISK_DISCARD, /* the contents are not needed any more */
    DISK_ZERO,
};

enum disk_engine {
    DISK_ENGINE_AUTO, /* io_uring if it works */
    DISK_ENGINE_URING,
    DISK_ENGINE_POOL,
};

struct disk_params {
    const char *path; /* borrowed; with @fd only a name for messages */
    int fd;           /* already open, or -1: open @path; taken on success */
    bool readonly;
    bool direct;    /* O_DIRECT */
    bool lock_full; /* lock from 0 to infinity and not to the present size */
    enum disk_engine engine;
    unsigned depth; /* most requests at a time, 1 to DISK_DEPTH_MAX */
};

/* What the image is like. */
struct disk_geometry {
    uint64_t size;          /* bytes, a multiple of block_size */
    uint32_t block_size;    /* bytes: smallest unit of a request */
    uint32_t physical_size; /* bytes: smallest unit that is written without reading first */
    uint32_t io_min;        /* bytes; 0: nothing said */
    uint32_t io_opt;
    bool can_discard; /* DISK_DISCARD and DISK_ZERO work */
};

/* A piece of work for an engine. */
struct disk_raw {
    enum disk_op op;
    struct iovec *iov;
    unsigned nr_iov;
    uint64_t off; /* bytes */
    uint64_t len;
};

struct disk_bounce;

/* A request; the caller's memory, untouched by the caller from submit until reap. */
struct disk_io {
    enum disk_op op;
    struct iovec *iov; /* read and write; borrowed, and overwritten */
    unsigned nr_iov;
    uint64_t off; /* bytes */
    uint64_t len; /* bytes; for read and write the sum of @iov */
    bool durable; /* a change is on stable storage when it completes */
    bool unmap;   /* DISK_ZERO may give up the space */

    int result; /* 0 or negative errno */

    /* The disk's own. */
    struct disk_raw raw;
    struct disk_bounce *bounce;
    uint64_t done; /* bytes, of a request that is bounced */
    struct disk_io *next;
    bool punched; /* DISK_ZERO: tried the other way already */
    int raw_result;
};

/**
 * disk_open() - open an image and start its engine.
 * @p: borrowed for the call.
 *
 * Nothing is locked yet.
 *
 * Return: 0 and *@ret_disk, owned, to be given to disk_close(); -EINVAL for
 * something that is neither a file nor a block device, or too small; the
 * kernel's errno.  @err names the path.
 * Threads: control.
 */
CHECKED int disk_open(const struct disk_params *p, struct disk **ret_disk, struct err *err);

/**
 * disk_close() - wait for what is in flight, close, free; a lock is given up.
 * @d: taken; NULL is allowed.
 *
 * Threads: control.
 */
void disk_close(struct disk *d);

/**
 * disk_engine_name() - "io_uring" or "threads".
 *
 * Return: static.
 * Threads: any.
 */
const char *disk_engine_name(const struct disk *d);

/**
 * disk_lock() - claim the image against other processes (OFD lock).
 *
 * Shared for a read-only disk, exclusive otherwise.  Locking twice is the same as once.
 *
 * Return: 0; -EAGAIN if another process holds it; the kernel's errno.
 * Threads: control.
 */
CHECKED int disk_lock(struct disk *d, struct err *err);

/**
 * disk_unlock() - give the image up, for whoever takes the VM over.
 *
 * Threads: control.
 */
void disk_unlock(struct disk *d);

/**
 * disk_sync() - have every write that has completed be on stable storage.
 *
 * A read-only disk has none.
 * Return: 0; the kernel's errno.
 * Threads: any.
 */
CHECKED int disk_sync(struct disk *d, struct err *err);

/**
 * disk_geometry() - what the image is like.
 *
 * Return: borrowed; changes only in disk_refresh().
 * Threads: as disk_submit().
 */
const struct disk_geometry *disk_geometry(const struct disk *d);

/**
 * disk_refresh() - look at the size again.
 *
 * Return: 0; the kernel's errno.
 * Threads: as disk_submit().
 */
CHECKED int disk_refresh(struct disk *d, struct err *err);

/**
 * disk_submit() - hand a request in.
 * @io: at most depth at a time.  Offsets and lengths must lie within the image.
 *
 * It may be carried out at once or only at disk_kick(), in any order.
 * Threads: one at a time.
 */
void disk_submit(struct disk *d, struct disk_io *io);

/**
 * disk_kick() - have everything that was submitted begin.
 * Threads: one at a time.
 */
void disk_kick(struct disk *d);

/**
 * disk_event_fd() - an eventfd that is readable when something may have ended.
 *
 * Return: borrowed; the caller reads it before disk_reap().
 * Threads: one at a time.
 */
int disk_event_fd(const struct disk *d);

/**
 * disk_reap() - take a request that has ended.
 *
 * Return: the request, with its result; NULL if there is none now.
 * Threads: one at a time.
 */
struct disk_io *disk_reap(struct disk *d);

#endif
