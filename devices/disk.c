/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "devices/disk_internal.h"

enum {
    BLOCK_SIZE_MAX = 4096, /* bytes; also what unknown alignment is taken for */
};

/* --- Opening --------------------------------------------------------------- */

static int open_image(const struct disk_params *p, struct err *err)
{
    int direct = p->direct ? O_DIRECT : 0;
    /* O_NONBLOCK: opening a FIFO must not wait for its other end.  Requests are to wait. */
    int fd = open(p->path, (p->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | direct);

    if (fd < 0 && errno == EINVAL && p->direct)
        return err_set(err, -EINVAL, "disk %s: its file system does not do direct=on", p->path);
    if (fd < 0)
        return err_set(err, -errno, "disk %s: open: %s", p->path, strerror(errno));
    (void)fcntl(fd, F_SETFL, direct);
    return fd;
}

/* Alignment that O_DIRECT asks for on a file. */
static void probe_direct_file(struct disk *d)
{
    uint32_t align = BLOCK_SIZE_MAX, mem = BLOCK_SIZE_MAX;

#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(d->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        stx.stx_mask & STATX_DIOALIGN && stx.stx_dio_offset_align) {
        align = stx.stx_dio_offset_align;
        mem = stx.stx_dio_mem_align;
    }
#endif
    d->geo.block_size = align > DISK_SECTOR ? align : DISK_SECTOR;
    d->mem_align = mem;
}

/*
 * Whether holes can be made: one beyond the end, where there is nothing to lose.  That counts as
 * a change of the file for its times, by which restores tell whether a disk was written to; so
 * the time is put back, as far as the file is ours.
 */
static bool can_punch(int fd, const struct stat *st)
{
    const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, st->st_mtim};
    bool can = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         (st->st_size + BLOCK_SIZE_MAX - 1) & -BLOCK_SIZE_MAX, BLOCK_SIZE_MAX) == 0;

    (void)futimens(fd, times);
    return can;
}

static void probe_file(struct disk *d, const struct stat *st)
{
    d->geo.block_size = DISK_SECTOR;
    if (d->direct)
        probe_direct_file(d);
    d->geo.physical_size = d->geo.block_size;
    if (st->st_blksize > DISK_SECTOR && st->st_blksize <= BLOCK_SIZE_MAX &&
        !(st->st_blksize & (st->st_blksize - 1)))
        d->geo.physical_size = (uint32_t)st->st_blksize;
    d->geo.can_discard = !d->readonly && can_punch(d->fd, st);
}

static void probe_block(struct disk *d)
{
    int logical = DISK_SECTOR;
    unsigned physical = 0, io_min = 0, io_opt = 0;

    /* What is not said keeps its default. */
    (void)ioctl(d->fd, BLKSSZGET, &logical);
    (void)ioctl(d->fd, BLKPBSZGET, &physical);
    (void)ioctl(d->fd, BLKIOMIN, &io_min);
    (void)ioctl(d->fd, BLKIOOPT, &io_opt);
    d->geo.block_size = logical > DISK_SECTOR ? (uint32_t)logical : DISK_SECTOR;
    d->geo.physical_size = physical > d->geo.block_size ? physical : d->geo.block_size;
    d->geo.io_min = io_min;
    d->geo.io_opt = io_opt;
    d->geo.can_discard = !d->readonly;
    d->mem_align = d->geo.block_size;
}

static int image_size(const struct disk *d, uint64_t *ret_size, struct err *err)
{
    struct stat st;
    uint64_t size;
    int rc;

    if (d->is_block)
        rc = ioctl(d->fd, BLKGETSIZE64, &size);
    else
        rc = fstat(d->fd, &st);
    if (rc < 0)
        return err_set(err, -errno, "disk %s: size: %s", d->path, strerror(errno));
    if (!d->is_block)
        size = (uint64_t)st.st_size;
    *ret_size = size / d->geo.block_size * d->geo.block_size;
    return 0;
}

int disk_refresh(struct disk *d, struct err *err)
{
    return image_size(d, &d->geo.size, err);
}

static int probe(struct disk *d, struct err *err)
{
    struct stat st;
    int rc;

    if (fstat(d->fd, &st) < 0)
        return err_set(err, -errno, "disk %s: stat: %s", d->path, strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(err, -EINVAL, "disk %s: neither a file nor a block device", d->path);
    d->is_block = S_ISBLK(st.st_mode);
    if (d->is_block)
        probe_block(d);
    else
        probe_file(d, &st);
    rc = disk_refresh(d, err);
    if (rc >= 0 && !d->geo.size)
        rc = err_set(err, -EINVAL, "disk %s: smaller than one block of %u bytes", d->path,
                     d->geo.block_size);
    return rc;
}

static int start_engine(struct disk *d, const struct disk_params *p, struct err *err)
{
    struct err why = {0};
    int rc;

    if (p->engine != DISK_ENGINE_POOL) {
        d->engine = &disk_uring_ops;
        rc = d->engine->open(d, p->depth, &why);
        if (rc >= 0)
            return 0;
        if (p->engine == DISK_ENGINE_URING)
            return err_set(err, rc, "disk %s: %s", d->path, why.msg);
    }
    d->engine = &disk_pool_ops;
    rc = d->engine->open(d, p->depth, &why);
    if (rc < 0)
        d->engine = NULL;
    return rc < 0 ? err_set(err, rc, "disk %s: %s", d->path, why.msg) : 0;
}

static int make_bounces(struct disk *d, struct err *err)
{
    for (unsigned i = 0; d->direct && i < DISK_BOUNCES; i++) {
        d->bounces[i].data = aligned_alloc(BLOCK_SIZE_MAX, DISK_BOUNCE_SIZE);
        if (!d->bounces[i].data)
            return err_set(err, -ENOMEM, "disk %s: out of memory", d->path);
    }
    return 0;
}

static int fill(struct disk *d, const struct disk_params *p, struct err *err)
{
    int rc;

    if (!p->path)
        return err_set(err, -EINVAL, "disk: no path");
    d->path = strdup(p->path);
    d->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!d->path || d->event_fd < 0)
        return err_set(err, -ENOMEM, "disk %s: no memory or descriptor left", p->path);
    d->fd = p->fd >= 0 ? p->fd : open_image(p, err);
    if (d->fd < 0)
        return d->fd;
    rc = probe(d, err);
    if (rc >= 0)
        rc = make_bounces(d, err);
    return rc < 0 ? rc : start_engine(d, p, err);
}

int disk_open(const struct disk_params *p, struct disk **ret_disk, struct err *err)
{
    struct disk *d = calloc(1, sizeof(*d));
    int rc;

    if (!d)
        return err_set(err, -ENOMEM, "disk %s: out of memory", p->path);
    *d = (struct disk){
        .fd = -1,
        .event_fd = -1,
        .readonly = p->readonly,
        .direct = p->direct,
        .lock_full = p->lock_full,
        .mem_align = 1,
        .waiting_end = &d->waiting,
    };
    assert(p->depth > 0);
    assert(p->depth <= DISK_DEPTH_MAX);
    rc = fill(d, p, err);
    if (rc < 0) {
        if (p->fd >= 0)
            d->fd = -1;
        disk_close(d);
        return rc;
    }
    *ret_disk = d;
    return 0;
}

void disk_close(struct disk *d)
{
    if (!d)
        return;
    while (d->in_flight) {
        if (disk_reap(d))
            continue;
        disk_kick(d);
        d->engine->wait(d);
    }
    if (d->engine)
        d->engine->close(d);
    for (unsigned i = 0; i < DISK_BOUNCES; i++)
        free(d->bounces[i].data);
    if (d->fd >= 0)
        (void)close(d->fd);
    if (d->event_fd >= 0)
        (void)close(d->event_fd);
    free(d->path);
    free(d);
}

const char *disk_engine_name(const struct disk *d)
{
    return d->engine->name;
}

const struct disk_geometry *disk_geometry(const struct disk *d)
{
    return &d->geo;
}

int disk_event_fd(const struct disk *d)
{
    return d->event_fd;
}

/* --- Locks ----------------------------------------------------------------- */

static int set_lock(struct disk *d, short type)
{
    struct flock fl = {
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_len = d->lock_full || type == F_UNLCK ? 0 : (off_t)d->geo.size,
    };

    return fcntl(d->fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

int disk_lock(struct disk *d, struct err *err)
{
    int rc = set_lock(d, d->readonly ? F_RDLCK : F_WRLCK);

    if (rc == -EAGAIN || rc == -EACCES)
        return err_set(err, -EAGAIN, "disk %s: in use by another process", d->path);
    return rc < 0 ? err_set(err, rc, "disk %s: lock: %s", d->path, strerror(-rc)) : 0;
}

void disk_unlock(struct disk *d)
{
    /* Fails only where locking did. */
    (void)set_lock(d, F_UNLCK);
}

int disk_sync(struct disk *d, struct err *err)
{
    if (!d->readonly && fdatasync(d->fd) < 0)
        return err_set(err, -errno, "disk %s: sync: %s", d->path, strerror(errno));
    return 0;
}

/* --- Bounce buffers ------------------------------------------------------------ */

static bool needs_bounce(const struct disk *d, const struct disk_io *io)
{
    uint64_t bits = io->off | io->len;
    uint64_t mem = 0;

    if (!d->direct || (io->op != DISK_READ && io->op != DISK_WRITE))
        return false;
    for (unsigned i = 0; i < io->nr_iov; i++) {
        mem |= (uintptr_t)io->iov[i].iov_base;
        bits |= io->iov[i].iov_len;
    }
    return bits & (d->geo.block_size - 1) || mem & (d->mem_align - 1);
}

/* Copy between a buffer and bytes [off, off + len) of an iovec. */
static void copy_iov(const struct iovec *iov, uint64_t off, uint8_t *buf, uint64_t len, bool to_iov)
{
    for (; len; iov++) {
        uint64_t n;

        if (off >= iov->iov_len) {
            off -= iov->iov_len;
            continue;
        }
        n = iov->iov_len - off < len ? iov->iov_len - off : len;
        if (to_iov)
            memcpy((uint8_t *)iov->iov_base + off, buf, n);
        else
            memcpy(buf, (uint8_t *)iov->iov_base + off, n);
        buf += n;
        len -= n;
        off = 0;
    }
}

/* Begin the next stretch of a request that has a buffer. */
static void bounce_next(struct disk *d, struct disk_io *io)
{
    struct disk_bounce *b = io->bounce;
    uint64_t block = d->geo.block_size, at = io->off + io->done, left = io->len - io->done;
    uint64_t len;

    b->skip = at & (block - 1);
    b->want = left < DISK_BOUNCE_SIZE - b->skip ? left : DISK_BOUNCE_SIZE - b->skip;
    len = (b->skip + b->want + block - 1) & ~(block - 1);
    if (io->op == DISK_WRITE)
        copy_iov(io->iov, io->done, b->data, b->want, false);
    b->iov = (struct iovec){.iov_base = b->data, .iov_len = len};
    io->raw = (struct disk_raw){
        .op = io->op,
        .iov = &b->iov,
        .nr_iov = 1,
        .off = at - b->skip,
        .len = len,
    };
    d->engine->submit(d, io);
}

static struct disk_bounce *free_bounce(struct disk *d)
{
    for (unsigned i = 0; i < DISK_BOUNCES; i++)
        if (!d->bounces[i].io)
            return &d->bounces[i];
    return NULL;
}

static void bounce_begin(struct disk *d, struct disk_io *io)
{
    struct disk_bounce *b = free_bounce(d);

    if (!b) {
        io->next = NULL;
        *d->waiting_end = io;
        d->waiting_end = &io->next;
        return;
    }
    b->io = io;
    io->bounce = b;
    bounce_next(d, io);
}

static void bounce_end(struct disk *d, struct disk_io *io)
{
    struct disk_io *next = d->waiting;

    io->bounce->io = NULL;
    io->bounce = NULL;
    if (!next)
        return;
    d->waiting = next->next;
    if (!d->waiting)
        d->waiting_end = &d->waiting;
    bounce_begin(d, next);
    disk_kick(d);
}

/* --- Requests -------------------------------------------------------------------- */

static void wake(struct disk *d)
{
    uint64_t one = 1;

    /* Full counter: somebody is awake already. */
    if (write(d->event_fd, &one, sizeof(one)) < 0)
        return;
}

static void complete_now(struct disk *d, struct disk_io *io, int result)
{
    io->result = result;
    io->next = d->completed;
    d->completed = io;
    wake(d);
}

static bool is_nothing(const struct disk *d, const struct disk_io *io)
{
    return io->op == DISK_FLUSH ? d->readonly : !io->len;
}

void disk_submit(struct disk *d, struct disk_io *io)
{
    d->in_flight++;
    io->bounce = NULL;
    io->done = 0;
    io->punched = false;
    io->raw = (struct disk_raw){
        .op = io->op,
        .iov = io->iov,
        .nr_iov = io->nr_iov,
        .off = io->off,
        .len = io->len,
    };
    if (is_nothing(d, io))
        complete_now(d, io, 0);
    else if (d->readonly && io->op != DISK_READ)
        complete_now(d, io, -EROFS);
    else if (!needs_bounce(d, io))
        d->engine->submit(d, io);
    else if (io->op == DISK_WRITE && (io->off | io->len) & (d->geo.block_size - 1))
        complete_now(d, io, -EINVAL);
    else
        bounce_begin(d, io);
}

void disk_kick(struct disk *d)
{
    d->engine->kick(d);
}

/* Leave out what a short transfer has done already. */
static void advance(struct disk_raw *raw, uint64_t n)
{
    raw->off += n;
    raw->len -= n;
    while (raw->nr_iov && n >= raw->iov->iov_len) {
        n -= raw->iov->iov_len;
        raw->iov++;
        raw->nr_iov--;
    }
    if (raw->nr_iov) {
        raw->iov->iov_base = (uint8_t *)raw->iov->iov_base + n;
        raw->iov->iov_len -= n;
    }
}

/* A stretch of a bounced request is complete; false if the request goes on. */
static bool bounce_done(struct disk *d, struct disk_io *io)
{
    struct disk_bounce *b = io->bounce;

    if (io->op == DISK_READ)
        copy_iov(io->iov, io->done, b->data + b->skip, b->want, true);
    io->done += b->want;
    if (io->done == io->len)
        return true;
    bounce_next(d, io);
    return false;
}

/* Bytes that a read must yield before the end of the file counts as an error. */
static bool has_enough(const struct disk_io *io)
{
    const struct disk_bounce *b = io->bounce;

    return b && io->raw.op == DISK_READ &&
           (uint64_t)((uint8_t *)b->iov.iov_base - b->data) >= b->skip + b->want;
}

static bool transfer_step(struct disk *d, struct disk_io *io)
{
    if (!io->raw_result) {
        /* The image is shorter than it was. */
        io->result = -EIO;
        if (!has_enough(io))
            return true;
        io->result = 0;
        return bounce_done(d, io);
    }
    advance(&io->raw, (uint64_t)io->raw_result);
    if (io->raw.len) {
        d->engine->submit(d, io);
        return false;
    }
    return !io->bounce || bounce_done(d, io);
}

/* Look at what the engine did; true if the request has ended. */
static bool step(struct disk *d, struct disk_io *io)
{
    int rc = io->raw_result;

    io->result = 0;
    if (rc == -EAGAIN || rc == -EINTR) {
        d->engine->submit(d, io);
        return false;
    }
    if (rc == -EOPNOTSUPP && io->op == DISK_ZERO && !d->is_block && !io->punched) {
        /* A hole in a file reads as zeroes too. */
        io->punched = true;
        d->engine->submit(d, io);
        return false;
    }
    io->result = rc < 0 ? rc : 0;
    if (rc < 0 || io->raw.op == DISK_FLUSH)
        return true;
    if (io->raw.op == DISK_READ || io->raw.op == DISK_WRITE)
        return transfer_step(d, io);
    if (!io->durable)
        return true;
    io->raw.op = DISK_FLUSH;
    d->engine->submit(d, io);
    return false;
}

struct disk_io *disk_reap(struct disk *d)
{
    struct disk_io *io = d->completed;
    bool more = false;

    if (io) {
        d->completed = io->next;
        d->in_flight--;
        return io;
    }
    while ((io = d->engine->reap(d)) && !step(d, io))
        more = true;
    if (more)
        d->engine->kick(d);
    if (!io)
        return NULL;
    if (io->bounce)
        bounce_end(d, io);
    d->in_flight--;
    return io;
}
