/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store in a directory.
 *
 *     store.db        the index
 *     packs/N.pack    N in eight or more hex digits
 *     cache/          what can be made again; nothing in it is needed
 *     lock            byte-range locks; empty
 *     reserve         room for removing when the disk is full; may be missing
 *
 * Names are made from numbers only, every open refuses symbolic links and what
 * is not a regular file: a store handed over by somebody else cannot lead out
 * of its directory.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/store_backend.h"
#include "store/store_segment.h"

enum {
    DIR_NAME_MAX = 32,
    DIR_COW_ROOM = STORE_RESERVE_LEN / 2, /* bytes; some pages of store.db-shm, many times */
};

struct store_lock {
    int fd; /* its own open file description: the lock belongs to it */
};

struct dir_file {
    struct store_file file;
    int fd;
};

struct dir_backend {
    struct store_backend be;
    int dir_fd;
    int packs_fd;
    bool is_cow;   /* on a file system that writes everything anew */
    bool made_dir; /* the directory, too, was not there */
    char *path;    /* absolute, without symbolic links */
};

static struct dir_backend *dir_of(struct store_backend *be)
{
    return container_of(be, struct dir_backend, be);
}

static int dir_fd_of(struct store_file *f)
{
    return container_of(f, struct dir_file, file)->fd;
}

/* Root writes to a store of somebody else's for him, who is to read it; SQLite does so with the index. */
static void dir_give_to_owner(const struct dir_backend *d, int fd)
{
    struct stat st;

    if (geteuid() == 0 && fstat(d->packs_fd, &st) == 0 && (st.st_uid || st.st_gid) &&
        fchown(fd, st.st_uid, st.st_gid) < 0)
        return; /* as little as without it */
}

/* ---- packs ---- */

static void dir_pack_name(uint64_t id, char name[DIR_NAME_MAX])
{
    (void)snprintf(name, DIR_NAME_MAX, "%08" PRIx64 ".pack", id);
}

/* The id in a file name; 0 if the name is not one that dir_pack_name() makes. */
static uint64_t dir_pack_id(const char *name)
{
    char again[DIR_NAME_MAX];
    uint64_t id = 0;
    size_t n = strspn(name, "0123456789abcdef");

    if (n < 8 || n > 12 || strcmp(name + n, ".pack") != 0)
        return 0;
    for (size_t i = 0; i < n; i++)
        id = id << 4 | (uint64_t)(name[i] <= '9' ? name[i] - '0' : name[i] - 'a' + 10);
    dir_pack_name(id, again);
    return id <= STORE_PACK_ID_MAX && strcmp(again, name) == 0 ? id : 0;
}

static int dir_removed(struct err *err)
{
    return err_set(err, -ESTALE, "the store has been removed");
}

static int dir_pack_openat(struct dir_backend *d, uint64_t id, int flags, struct store_file **ret,
                           struct err *err)
{
    auto_close int fd = -1;
    struct dir_file *f;
    struct stat st;
    char name[DIR_NAME_MAX];

    dir_pack_name(id, name);
    fd = openat(d->packs_fd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    /* To make a file fails so only where the directory is gone. */
    if (fd < 0 && errno == ENOENT && flags & O_CREAT)
        return dir_removed(err);
    if (fd < 0)
        return err_set(err, -errno, "packs/%s: %m", name);
    if (fstat(fd, &st) < 0)
        return err_set(err, -errno, "packs/%s: %m", name);
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EBADMSG, "packs/%s: not a regular file", name);
    if (flags & O_CREAT)
        dir_give_to_owner(d, fd);
    f = calloc(1, sizeof(*f));
    if (!f)
        return store_no_memory(err);
    f->file = (struct store_file){.be = &d->be, .id = id};
    f->fd = steal_fd(&fd);
    *ret = &f->file;
    return 0;
}

static int dir_pack_create(struct store_backend *be, uint64_t id, struct store_file **ret,
                           struct err *err)
{
    return dir_pack_openat(dir_of(be), id, O_RDWR | O_CREAT | O_EXCL, ret, err);
}

static int dir_pack_open(struct store_backend *be, uint64_t id, struct store_file **ret,
                         struct err *err)
{
    return dir_pack_openat(dir_of(be), id, O_RDONLY, ret, err);
}

static int dir_pack_remove(struct store_backend *be, uint64_t id, struct err *err)
{
    char name[DIR_NAME_MAX];

    dir_pack_name(id, name);
    if (unlinkat(dir_of(be)->packs_fd, name, 0) < 0 && errno != ENOENT)
        return err_set(err, -errno, "packs/%s: %m", name);
    return 0;
}

static int dir_pack_list(struct store_backend *be, int (*cb)(void *arg, uint64_t id, uint64_t len),
                         void *arg, struct err *err)
{
    struct dir_backend *d = dir_of(be);
    int fd = openat(d->packs_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent *e;
    DIR *dir;
    int rc = 0;

    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        rc = err_set(err, -errno, "packs: %m");
        if (fd >= 0)
            (void)close(fd);
        return rc;
    }
    while (rc >= 0) {
        struct stat st;
        uint64_t id;

        errno = 0;
        e = readdir(dir); /* NOLINT(concurrency-mt-unsafe): own stream */
        if (!e) {
            if (errno)
                rc = err_set(err, -errno, "packs: %m");
            break;
        }
        id = dir_pack_id(e->d_name);
        if (!id || fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
            continue;
        rc = cb(arg, id, (uint64_t)st.st_size);
    }
    (void)closedir(dir);
    return rc < 0 ? rc : 0;
}

static int dir_packs_sync(struct store_backend *be, struct err *err)
{
    if (fsync(dir_of(be)->packs_fd) < 0)
        return err_set(err, -errno, "packs: fsync: %m");
    return 0;
}

/* ---- bytes ---- */

static int dir_read(struct store_file *f, void *dst, size_t len, uint64_t off, struct err *err)
{
    uint8_t *p = dst;

    while (len) {
        ssize_t n = pread(dir_fd_of(f), p, len, (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "pack %" PRIu64 ": read at %" PRIu64 ": %m", f->id, off);
        if (n == 0)
            return err_set(err, -EBADMSG, "pack %" PRIu64 ": ends before byte %" PRIu64, f->id,
                           off + len);
        p += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

static int dir_write(struct store_file *f, const void *src, size_t len, uint64_t off,
                     struct err *err)
{
    const uint8_t *p = src;

    while (len) {
        ssize_t n = pwrite(dir_fd_of(f), p, len, (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "pack %" PRIu64 ": write: %m", f->id);
        if (n == 0)
            return err_set(err, -EIO, "pack %" PRIu64 ": write: nothing was taken", f->id);
        p += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

static void dir_write_behind(struct store_file *f, uint64_t off, uint64_t len)
{
    (void)sync_file_range(dir_fd_of(f), (off_t)off, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

static int dir_sync(struct store_file *f, struct err *err)
{
    if (fdatasync(dir_fd_of(f)) < 0)
        return err_set(err, -errno, "pack %" PRIu64 ": fdatasync: %m", f->id);
    return 0;
}

static int dir_size(struct store_file *f, uint64_t *ret_len, struct err *err)
{
    struct stat st;

    if (fstat(dir_fd_of(f), &st) < 0)
        return err_set(err, -errno, "pack %" PRIu64 ": %m", f->id);
    *ret_len = (uint64_t)st.st_size;
    return 0;
}

static void dir_close(struct store_file *f)
{
    if (!f)
        return;
    (void)close(dir_fd_of(f));
    free(container_of(f, struct dir_file, file));
}

/* ---- the reserve ---- */

static bool dir_reserve_is_there(struct dir_backend *d)
{
    struct stat st;

    return fstatat(d->dir_fd, "reserve", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
           st.st_size >= STORE_RESERVE_LEN && (uint64_t)st.st_blocks * 512 >= STORE_RESERVE_LEN;
}

/* What stands in the way other than a full disk is no reason not to go on: there is none then. */
static int dir_reserve_make(struct store_backend *be, struct err *err)
{
    struct dir_backend *d = dir_of(be);
    auto_close int fd = -1;
    struct stat st;
    int rc;

    if (dir_reserve_is_there(d))
        return 0;
    fd = openat(d->dir_fd, "reserve", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0)
        rc = errno;
    else if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;
    else
        rc = posix_fallocate(fd, 0, STORE_RESERVE_LEN);
    if (rc == 0)
        dir_give_to_owner(d, fd);
    if (rc != ENOSPC && rc != EDQUOT)
        return 0;
    /* What there was of it helps nobody, and could be missed elsewhere. */
    if (fd >= 0)
        (void)unlinkat(d->dir_fd, "reserve", 0);
    return err_set(err, -rc,
                   "the disk has no room for the reserve of %d bytes, with which a full store is "
                   "emptied; remove snapshots and collect first",
                   STORE_RESERVE_LEN);
}

static void dir_reserve_free(struct store_backend *be)
{
    struct stat st;

    if (fstatat(dir_of(be)->dir_fd, "reserve", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(st.st_mode))
        (void)unlinkat(dir_of(be)->dir_fd, "reserve", 0);
}

static uint64_t dir_bytes_left(const struct dir_backend *d)
{
    struct statfs fs;

    return fstatfs(d->dir_fd, &fs) < 0 ? UINT64_MAX : fs.f_bavail * (uint64_t)fs.f_bsize;
}

static int dir_index_room(struct store_backend *be, struct err *err)
{
    struct dir_backend *d = dir_of(be);

    if (!d->is_cow || be->readonly)
        return 0;
    if (dir_bytes_left(d) >= DIR_COW_ROOM)
        return 1;
    dir_reserve_free(be);
    (void)syncfs(d->dir_fd); /* what was freed can be used from the next transaction on */
    if (dir_bytes_left(d) >= DIR_COW_ROOM)
        return 1;
    return err_set(err, -ENOSPC,
                   "store.db-shm: on a btrfs with less than %d KiB left it cannot be changed "
                   "safely; remove something else first",
                   DIR_COW_ROOM / 1024);
}

/* Moved to another name it is; what was removed lives on only for who has it open. */
static int dir_is_there(struct store_backend *be, struct err *err)
{
    if (faccessat(dir_of(be)->dir_fd, "store.db", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    return errno == ENOENT ? dir_removed(err) : err_set(err, -errno, "store.db: %m");
}

/* ---- locks ---- */

static int dir_lock(struct store_backend *be, uint64_t what, enum store_lock_mode mode, bool wait,
                    struct store_lock **ret, struct err *err)
{
    bool shared = mode == STORE_LOCK_SHARED;
    struct flock fl = {
        .l_type = shared ? F_RDLCK : F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)what,
        .l_len = 1,
    };
    auto_close int fd = -1;
    struct store_lock *lock;
    int rc;

    fd = openat(dir_of(be)->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
                0600);
    if (fd < 0 && errno == ENOENT)
        return dir_removed(err);
    if (fd < 0 && shared)
        fd = openat(dir_of(be)->dir_fd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, -errno, "lock: %m");
    do
        rc = fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &fl);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 && (errno == EAGAIN || errno == EACCES))
        return -EAGAIN;
    if (rc < 0)
        return err_set(err, -errno, "lock: %m");
    lock = calloc(1, sizeof(*lock));
    if (!lock)
        return store_no_memory(err);
    lock->fd = steal_fd(&fd);
    *ret = lock;
    return 0;
}

static void dir_unlock(struct store_backend *be, struct store_lock *lock)
{
    (void)be;
    if (!lock)
        return;
    (void)close(lock->fd);
    free(lock);
}

static int dir_is_locked(struct store_backend *be, uint64_t what, struct err *err)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)what, .l_len = 1};
    auto_close int fd =
        openat(dir_of(be)->dir_fd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return 0; /* made by the first who locks */
    if (fd < 0 || fcntl(fd, F_OFD_GETLK, &fl) < 0)
        return err_set(err, -errno, "lock: %m");
    return fl.l_type != F_UNLCK;
}

/* ---- life cycle ---- */

static void dir_free(struct store_backend *be)
{
    struct dir_backend *d;

    if (!be)
        return;
    d = dir_of(be);
    if (d->dir_fd >= 0)
        (void)close(d->dir_fd);
    if (d->packs_fd >= 0)
        (void)close(d->packs_fd);
    free(d->path);
    free(d->be.index_path);
    free(d);
}

static int dir_unmake_pack(void *arg, uint64_t id, uint64_t len)
{
    (void)len;
    return dir_pack_remove(arg, id, NULL);
}

/* The index first: without it whoever else is here finds that the store is gone. */
static void dir_unmake(struct store_backend *be)
{
    static const char *const files[] = {"store.db",         "store.db-wal", "store.db-shm",
                                        "store.db-journal", "lock",         "reserve"};
    struct dir_backend *d = dir_of(be);

    for (size_t i = 0; be->made && i < ARRAY_LEN(files); i++)
        (void)unlinkat(d->dir_fd, files[i], 0);
    if (be->made && d->packs_fd >= 0)
        (void)dir_pack_list(be, dir_unmake_pack, be, NULL);
    (void)unlinkat(d->dir_fd, "packs", AT_REMOVEDIR);
    (void)unlinkat(d->dir_fd, "cache", AT_REMOVEDIR);
    if (d->made_dir)
        (void)unlinkat(AT_FDCWD, d->path, AT_REMOVEDIR);
}

/* ---- cache ---- */

static int dir_cache(const struct dir_backend *d)
{
    int fd = openat(d->dir_fd, "cache", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static int dir_cache_open(struct store_backend *be, const char *name, int flags)
{
    struct dir_backend *d = dir_of(be);
    auto_close int dir = dir_cache(d);
    auto_close int fd = -1;
    struct stat st;

    if (dir < 0)
        return dir;
    fd = openat(dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EBADMSG;
    if (flags & O_CREAT)
        dir_give_to_owner(d, fd);
    return steal_fd(&fd);
}

static int dir_cache_move(struct store_backend *be, const char *from, const char *to)
{
    auto_close int dir = dir_cache(dir_of(be));

    if (dir < 0)
        return dir;
    if ((to ? renameat(dir, from, dir, to) : unlinkat(dir, from, 0)) < 0)
        return -errno;
    return fsync(dir) < 0 ? -errno : 0;
}

static const struct store_backend_ops dir_ops = {
    .name = "directory",
    .pack_create = dir_pack_create,
    .pack_open = dir_pack_open,
    .pack_remove = dir_pack_remove,
    .pack_list = dir_pack_list,
    .packs_sync = dir_packs_sync,
    .reserve_make = dir_reserve_make,
    .reserve_free = dir_reserve_free,
    .index_room = dir_index_room,
    .unmake = dir_unmake,
    .is_there = dir_is_there,
    .read = dir_read,
    .write = dir_write,
    .write_behind = dir_write_behind,
    .sync = dir_sync,
    .size = dir_size,
    .close = dir_close,
    .cache_open = dir_cache_open,
    .cache_move = dir_cache_move,
    .lock = dir_lock,
    .unlock = dir_unlock,
    .is_locked = dir_is_locked,
    .free = dir_free,
};

/*
 * A directory may become a store if everything in it is what a store has; the journal is what is left
 * of a creation that was interrupted before the index had its log.
 */
static int dir_check_is_ours(int dir_fd, struct err *err)
{
    static const char *const ours[] = {
        ".",     "..",   "store.db", "store.db-wal", "store.db-shm", "store.db-journal",
        "packs", "lock", "cache",    "reserve"};
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;
    int rc = 0;

    if (!dir) {
        rc = err_set(err, -errno, "%m");
        if (fd >= 0)
            (void)close(fd);
        return rc;
    }
    while (!rc && (e = readdir(dir))) { /* NOLINT(concurrency-mt-unsafe): own stream */
        bool known = false;

        for (size_t i = 0; i < ARRAY_LEN(ours); i++)
            known = known || strcmp(e->d_name, ours[i]) == 0;
        if (!known)
            rc = err_set(err, -ENOTEMPTY, "is not empty and not a store (it has %.64s)", e->d_name);
    }
    (void)closedir(dir);
    return rc;
}

/* Make an entry durable in the directory that holds @path. */
static int dir_sync_parent(const char *path, struct err *err)
{
    auto_free char *copy = strdup(path);
    auto_close int fd = -1;
    char *slash;

    if (!copy)
        return store_no_memory(err);
    slash = strrchr(copy, '/');
    if (slash == copy)
        slash[1] = 0;
    else if (slash)
        *slash = 0;
    fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_set(err, -errno, "%s: %m", slash ? copy : ".");
    return 0;
}

/* 1 if it was made, 0 if it was there. */
static int dir_make_file(struct dir_backend *d, const char *name, struct err *err)
{
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    auto_close int fd = openat(d->dir_fd, name, flags | O_EXCL, 0600);
    bool made = fd >= 0;

    if (fd < 0 && errno == EEXIST)
        fd = openat(d->dir_fd, name, flags, 0600);
    if (fd < 0)
        return err_set(err, -errno, "cannot be made: %s: %m", name);
    return made;
}

static int dir_create(struct dir_backend *d, struct err *err)
{
    int rc = dir_check_is_ours(d->dir_fd, err);

    if (rc < 0)
        return rc;
    if (mkdirat(d->dir_fd, "packs", 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno, "cannot be made: packs: %m");
    if (mkdirat(d->dir_fd, "cache", 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno, "cannot be made: cache: %m");
    rc = dir_make_file(d, "lock", err);
    if (rc >= 0)
        rc = dir_make_file(d, "store.db", err);
    if (rc < 0)
        return rc;
    d->be.made = rc > 0;
    if (fsync(d->dir_fd) < 0)
        return err_set(err, -errno, "fsync: %m");
    return dir_sync_parent(d->path, err);
}

/* One that is empty belongs to a creation that was interrupted, and could lack more. */
static bool dir_has_index(const struct dir_backend *d)
{
    struct stat st;

    return fstatat(d->dir_fd, "store.db", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           (st.st_size > 0 || !S_ISREG(st.st_mode));
}

static int dir_check_index(struct dir_backend *d, struct err *err)
{
    struct stat st;

    if (fstatat(d->dir_fd, "store.db", &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set(err, errno == ENOENT ? -EINVAL : -errno, "not a store: store.db: %m");
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EBADMSG, "store.db: not a regular file");
    return 0;
}

/* Whoever writes is told here what stands in the way, rather than half-way through. */
static int dir_check_writable(struct dir_backend *d, unsigned flags, struct err *err)
{
    static const struct {
        const char *name, *said;
        bool by_readers; /* SQLite makes and writes files for what goes on between processes */
    } needed[] = {
        {".",        "the directory", true },
        {"store.db", "store.db",      true },
        {"packs",    "packs",         false},
    };

    for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
        if (faccessat(d->dir_fd, needed[i].name, W_OK, 0) == 0)
            continue;
        if (!(flags & STORE_DIR_RDONLY))
            return err_set(err, -errno, "cannot be written: %s: %m", needed[i].said);
        d->be.readonly = d->be.readonly || needed[i].by_readers;
    }
    return 0;
}

static int dir_open_fds(struct dir_backend *d, const char *path, unsigned flags, struct err *err)
{
    struct statfs fs;
    int rc;

    d->made_dir = (flags & STORE_DIR_CREATE) && mkdir(path, 0700) == 0;
    if ((flags & STORE_DIR_CREATE) && !d->made_dir && errno != EEXIST)
        return err_set(err, -errno, "cannot be made: %m");
    d->path = realpath(path, NULL);
    if (!d->path)
        return err_set(err, -errno, "%m");
    d->dir_fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir_fd < 0)
        return err_set(err, -errno, "%m");
    if ((flags & STORE_DIR_CREATE) && !dir_has_index(d)) {
        rc = dir_create(d, err);
        if (rc < 0)
            return rc;
    }
    rc = dir_check_index(d, err);
    if (rc < 0)
        return rc;
    d->is_cow = fstatfs(d->dir_fd, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC;
    d->packs_fd = openat(d->dir_fd, "packs", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (d->packs_fd < 0)
        return err_set(err, -errno, "packs: %m");
    return 0;
}

int store_dir_open(const char *path, unsigned flags, struct store_backend **ret_be, struct err *err)
{
    struct dir_backend *d = calloc(1, sizeof(*d));
    int rc;

    if (!d)
        return store_no_memory(err);
    d->be.ops = &dir_ops;
    d->dir_fd = d->packs_fd = -1;
    rc = dir_open_fds(d, path, flags, err);
    if (rc == 0)
        rc = dir_check_writable(d, flags, err);
    if (rc == 0 && asprintf(&d->be.index_path, "%s/store.db", d->path) < 0) {
        d->be.index_path = NULL;
        rc = store_no_memory(err);
    }
    if (rc < 0) {
        if (d->made_dir && d->dir_fd >= 0 && !d->be.made)
            dir_unmake(&d->be);
        dir_free(&d->be);
        return rc;
    }
    *ret_be = &d->be;
    return 0;
}
