/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a disk and its engines.
 */
#ifndef DEVICES_DISK_INTERNAL_H
#define DEVICES_DISK_INTERNAL_H

#include "devices/disk.h"

enum {
    DISK_BOUNCES = 4,
    DISK_BOUNCE_SIZE = 256 << 10,
};

/* An engine carries out io->raw, whole or in part. */
struct disk_engine_ops {
    const char *name;
    CHECKED int (*open)(struct disk *d, unsigned depth, struct err *err);
    void (*close)(struct disk *d);
    /* Never fails: what cannot be begun now is begun later. */
    void (*submit)(struct disk *d, struct disk_io *io);
    void (*kick)(struct disk *d);
    /* Take one that has ended, io->raw_result set: bytes, 0, or negative errno; NULL if none. */
    struct disk_io *(*reap)(struct disk *d);
    /* Wait until reap() may have something. */
    void (*wait)(struct disk *d);
};

extern const struct disk_engine_ops disk_uring_ops;
extern const struct disk_engine_ops disk_pool_ops;

struct disk_bounce {
    uint8_t *data;      /* owned, DISK_BOUNCE_SIZE bytes */
    struct iovec iov;   /* of the raw operation */
    uint64_t skip;      /* bytes at the start of a widened read */
    uint64_t want;      /* bytes after those */
    struct disk_io *io; /* NULL: free */
};

struct disk {
    const struct disk_engine_ops *engine;
    void *engine_data; /* the engine's own */
    char *path;        /* owned */
    int fd;
    int event_fd;
    bool readonly;
    bool direct;
    bool lock_full;
    bool is_block;
    uint32_t mem_align; /* bytes */
    struct disk_geometry geo;
    unsigned in_flight;        /* submitted and not yet reaped */
    struct disk_io *completed; /* without any engine's help */
    struct disk_bounce bounces[DISK_BOUNCES];
    struct disk_io *waiting; /* for a bounce buffer, oldest first */
    struct disk_io **waiting_end;
};

#endif
