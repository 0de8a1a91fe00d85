/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a store lives: the one door between its logic and its bytes.
 *
 * A back end keeps packs (append-only files named by a number), says where the
 * index database is, and gives locks.  store_dir.c keeps them in a directory;
 * another could keep them in an object store.
 */
#ifndef STORE_STORE_BACKEND_H
#define STORE_STORE_BACKEND_H

#include "core/err.h"

struct store_backend;

/* A pack that is open; each back end embeds this in its own. */
struct store_file {
    struct store_backend *be; /* borrowed: outlives the file */
    uint64_t id;
};

/* A lock that is held. */
struct store_lock;

/* What the bytes of the lock file stand for. */
enum {
    STORE_LOCK_WRITERS = 0,         /* shared: each writer; exclusive: the collector's sweep */
    STORE_LOCK_GATE = 1,            /* shared: who is about to take the above; exclusive: the
                                       collector while it waits for it, so that it gets it */
    STORE_LOCK_COLLECTOR = 2,       /* exclusive: the collector, and a repair */
    STORE_LOCK_SETTLER = 3,         /* exclusive: who does what a publication left to do; the
                                       collector's sweep, a repair */
    STORE_LOCK_SNAPSHOTS = 1 << 16, /* + sequence number; shared: readers; exclusive: rm */
};

enum {
    STORE_RESERVE_LEN = 1 << 20, /* what a removal, or a slice of a collection, needs at most */
};

enum store_lock_mode {
    STORE_LOCK_SHARED,
    STORE_LOCK_EXCLUSIVE,
};

struct store_backend_ops {
    const char *name;

    /* Create pack @id, empty, for writing.  -EEXIST if there is one. */
    int (*pack_create)(struct store_backend *be, uint64_t id, struct store_file **ret,
                       struct err *err);
    /* Open pack @id for reading.  -ENOENT if it is missing. */
    int (*pack_open)(struct store_backend *be, uint64_t id, struct store_file **ret,
                     struct err *err);
    /* Remove pack @id; 0 if it is not there. */
    int (*pack_remove)(struct store_backend *be, uint64_t id, struct err *err);
    /* Call @cb for every pack there is, in no order; stops at a negative return. */
    int (*pack_list)(struct store_backend *be, int (*cb)(void *arg, uint64_t id, uint64_t len),
                     void *arg, struct err *err);
    /* Make creations and removals of packs durable. */
    int (*packs_sync)(struct store_backend *be, struct err *err);

    /* Keep STORE_RESERVE_LEN bytes for a disk that is full; -ENOSPC, -EDQUOT. */
    int (*reserve_make)(struct store_backend *be, struct err *err);
    /* Give them back.  Nothing happens where none are kept. */
    void (*reserve_free)(struct store_backend *be);

    /*
     * Whether a transaction of the index may begin: 0; 1 where it may, but mapped memory of a
     * file has to be made writable first (store_index_shared.c); -ENOSPC where that has no room, the
     * reserve included, which is given back.
     */
    int (*index_room)(struct store_backend *be, struct err *err);

    /* Exactly @len bytes; -EBADMSG if the pack ends before. */
    int (*read)(struct store_file *f, void *dst, size_t len, uint64_t off, struct err *err);
    /* All of @len bytes, several threads at different offsets. */
    int (*write)(struct store_file *f, const void *src, size_t len, uint64_t off, struct err *err);
    /* Start writing [@off, @off + @len) back; a hint. */
    void (*write_behind)(struct store_file *f, uint64_t off, uint64_t len);
    /* Contents and length durable. */
    int (*sync)(struct store_file *f, struct err *err);
    int (*size)(struct store_file *f, uint64_t *ret_len, struct err *err);
    /* Takes @f; NULL is allowed. */
    void (*close)(struct store_file *f);

    /*
     * Take away what was made by opening it.  For who knows that nobody has put anything into it;
     * whoever else has it open finds that it is gone.
     */
    void (*unmake)(struct store_backend *be);

    /* -ESTALE if what is opened is no longer what anybody would find. */
    int (*is_there)(struct store_backend *be, struct err *err);

    /*
     * Open a file of the cache, which may go at any time, with open(2)'s @flags; regular ones only.
     * Return: a descriptor, owned; or an errno.
     */
    int (*cache_open)(struct store_backend *be, const char *name, int flags);
    /* Give file @from of the cache the name @to, in place of what has it, durably; NULL: remove it. */
    int (*cache_move)(struct store_backend *be, const char *from, const char *to);

    /* -EAGAIN if @wait is false and somebody is in the way. */
    int (*lock)(struct store_backend *be, uint64_t what, enum store_lock_mode mode, bool wait,
                struct store_lock **ret, struct err *err);
    /* Takes @lock; NULL is allowed. */
    void (*unlock)(struct store_backend *be, struct store_lock *lock);
    /* 1 if somebody holds such a lock, in either mode; else 0. */
    int (*is_locked)(struct store_backend *be, uint64_t what, struct err *err);

    /* Takes @be; NULL is allowed. */
    void (*free)(struct store_backend *be);
};

struct store_backend {
    const struct store_backend_ops *ops;
    char *index_path; /* of the SQLite database; owned by the back end */
    bool readonly;    /* opened for reading, and not even the index's own log can be written */
    bool made;        /* there was no index, one was made */
};

enum store_dir_flags {
    STORE_DIR_CREATE = 1 << 0,
    STORE_DIR_RDONLY = 1 << 1,
};

/**
 * store_dir_open() - the back end that is a directory.
 * @path:  of the directory; any string the operator gives.
 * @flags: enum store_dir_flags.
 *
 * With STORE_DIR_CREATE makes the directory, an empty index file and what else
 * is missing, durably; refuses a directory that holds something else.
 *
 * Return: 0 and *@ret_be, owned, to be given to its free(); -ENOENT if it is not
 * there; -ENOTEMPTY; -EINVAL if it is no store; -EROFS, -EACCES where it is opened for writing and
 * cannot be written; or the kernel's errno.
 * Threads: any.
 */
CHECKED int store_dir_open(const char *path, unsigned flags, struct store_backend **ret_be,
                           struct err *err);

#endif
