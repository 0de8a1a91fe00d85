/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/io_log.h"

#include <stdarg.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum {
    LOG_MAX = 65536,
    LOG_PATH = 256,
    LOG_FILES = 256,
    LOG_SECTOR = 512,
};

enum log_type {
    LOG_CREATE, /* a name appears */
    LOG_UNLINK,
    LOG_WRITE,
    LOG_TRUNCATE,
    LOG_SYNC, /* of a file, or of a directory */
};

struct log_op {
    enum log_type type;
    char path[LOG_PATH]; /* below the root; "" is the root itself */
    uint64_t off;
    size_t len;
    uint8_t *data;
};

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_root[LOG_PATH];
static bool log_on;
static size_t log_nr;
static struct log_op log_ops[LOG_MAX];

/* ---- writing down ---- */

/* A path below the root, without it; NULL if it is not there or does not count. */
static const char *log_path_below(const char *path)
{
    size_t n = strlen(log_root), len = strlen(path);

    if (strncmp(path, log_root, n) != 0 || (path[n] && path[n] != '/'))
        return NULL;
    if (len > 4 && strcmp(path + len - 4, "-shm") == 0)
        return NULL;
    return path[n] ? path + n + 1 : path + n;
}

static void log_add_path(enum log_type type, const char *path, uint64_t off, const void *data,
                         size_t len)
{
    const char *below = log_path_below(path);
    struct log_op *op;

    if (!below)
        return;
    (void)pthread_mutex_lock(&log_lock);
    if (log_nr == LOG_MAX)
        abort();
    op = &log_ops[log_nr++];
    *op = (struct log_op){.type = type, .off = off, .len = len};
    (void)snprintf(op->path, sizeof(op->path), "%s", below);
    if (data) {
        op->data = malloc(len + 1);
        if (!op->data)
            abort();
        memcpy(op->data, data, len);
    }
    (void)pthread_mutex_unlock(&log_lock);
}

static bool log_fd_path(int fd, char *path)
{
    char link[64];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, 2 * LOG_PATH - 1);
    if (n <= 0)
        return false;
    path[n] = 0;
    return true;
}

static void log_add(enum log_type type, int fd, uint64_t off, const void *data, size_t len)
{
    char path[2 * LOG_PATH];

    if (log_on && log_fd_path(fd, path))
        log_add_path(type, path, off, data, len);
}

/* A name given relative to a directory that is open. */
static void log_add_at(enum log_type type, int dir, const char *name)
{
    char path[2 * LOG_PATH];

    if (!log_on)
        return;
    if (name[0] == '/' || dir == AT_FDCWD) {
        log_add_path(type, name, 0, NULL, 0);
    } else if (log_fd_path(dir, path)) {
        size_t n = strlen(path);

        (void)snprintf(path + n, sizeof(path) - n, "/%s", name);
        log_add_path(type, path, 0, NULL, 0);
    }
}

void io_log_start(const char *root)
{
    char *path = realpath(root, NULL);

    for (size_t i = 0; i < log_nr; i++)
        free(log_ops[i].data);
    log_nr = 0;
    if (!path || strlen(path) >= sizeof(log_root))
        abort();
    (void)snprintf(log_root, sizeof(log_root), "%s", path);
    free(path);
    log_on = true;
}

size_t io_log_stop(void)
{
    log_on = false;
    return log_nr;
}

/* ---- the calls ---- */

static int open_logged(int dir, const char *path, int flags, mode_t mode)
{
    bool new = log_on && (flags & O_CREAT) && syscall(SYS_faccessat, dir, path, F_OK) < 0;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);

    if (fd >= 0 && new)
        log_add_at(LOG_CREATE, dir, path);
    else if (fd >= 0 && (flags & O_TRUNC))
        log_add(LOG_TRUNCATE, fd, 0, NULL, 0);
    return fd;
}

int open(const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = va_arg(ap, mode_t);
    va_end(ap);
    return open_logged(AT_FDCWD, path, flags, flags & O_CREAT ? mode : 0);
}

int open64(const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = va_arg(ap, mode_t);
    va_end(ap);
    return open_logged(AT_FDCWD, path, flags, flags & O_CREAT ? mode : 0);
}

int openat(int dir, const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = va_arg(ap, mode_t);
    va_end(ap);
    return open_logged(dir, path, flags, flags & O_CREAT ? mode : 0);
}

int openat64(int dir, const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = va_arg(ap, mode_t);
    va_end(ap);
    return open_logged(dir, path, flags, flags & O_CREAT ? mode : 0);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
    ssize_t n = syscall(SYS_pwrite64, fd, buf, len, off);

    if (n > 0)
        log_add(LOG_WRITE, fd, (uint64_t)off, buf, (size_t)n);
    return n;
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t off)
{
    return pwrite(fd, buf, len, off);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    off_t off = log_on ? (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR) : 0;
    ssize_t n = syscall(SYS_write, fd, buf, len);

    if (n > 0 && off >= 0)
        log_add(LOG_WRITE, fd, (uint64_t)off, buf, (size_t)n);
    return n;
}

int ftruncate(int fd, off_t len)
{
    int rc = (int)syscall(SYS_ftruncate, fd, len);

    if (rc == 0)
        log_add(LOG_TRUNCATE, fd, (uint64_t)len, NULL, 0);
    return rc;
}

int ftruncate64(int fd, off_t len)
{
    return ftruncate(fd, len);
}

/* A longer file, as far as can be seen. */
static int allocate_logged(int fd, off_t off, off_t len)
{
    struct stat before;

    if (fstat(fd, &before) < 0 || syscall(SYS_fallocate, fd, 0, off, len) < 0)
        return errno;
    if (off + len > before.st_size)
        log_add(LOG_TRUNCATE, fd, (uint64_t)(off + len), NULL, 0);
    return 0;
}

int posix_fallocate(int fd, off_t off, off_t len)
{
    return allocate_logged(fd, off, len);
}

int posix_fallocate64(int fd, off_t off, off_t len)
{
    return allocate_logged(fd, off, len);
}

int fsync(int fd)
{
    int rc = (int)syscall(SYS_fsync, fd);

    if (rc == 0)
        log_add(LOG_SYNC, fd, 0, NULL, 0);
    return rc;
}

int fdatasync(int fd)
{
    int rc = (int)syscall(SYS_fdatasync, fd);

    if (rc == 0)
        log_add(LOG_SYNC, fd, 0, NULL, 0);
    return rc;
}

int unlink(const char *path)
{
    int rc = (int)syscall(SYS_unlink, path);

    if (rc == 0)
        log_add_at(LOG_UNLINK, AT_FDCWD, path);
    return rc;
}

int unlinkat(int dir, const char *path, int flags)
{
    int rc = (int)syscall(SYS_unlinkat, dir, path, flags);

    if (rc == 0)
        log_add_at(LOG_UNLINK, dir, path);
    return rc;
}

/* ---- the disk ---- */

struct disk_file {
    uint8_t *p; /* what is safe, then what is there */
    size_t len;
    size_t nr_pending, cap_pending;
    const struct log_op **pending; /* written and not synced, in order */
};

/* A name and the file that it means; before, and as the program sees it. */
struct disk_name {
    char path[LOG_PATH];
    int now, safe; /* index of the file; -1: there is none */
    size_t nr_changes;
    int changes[LOG_FILES]; /* what it meant after each change that is not safe */
    size_t when[LOG_FILES]; /* and which call that was */
};

struct disk {
    size_t nr_files, nr_names;
    struct disk_file files[LOG_FILES];
    struct disk_name names[LOG_FILES];
    uint64_t seed;
};

static uint64_t disk_random(struct disk *d)
{
    uint64_t z = d->seed += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

static int disk_new_file(struct disk *d)
{
    if (d->nr_files == LOG_FILES)
        abort();
    return (int)d->nr_files++;
}

static struct disk_name *disk_name(struct disk *d, const char *path)
{
    struct disk_name *n;

    for (size_t i = 0; i < d->nr_names; i++)
        if (strcmp(d->names[i].path, path) == 0)
            return &d->names[i];
    if (d->nr_names == LOG_FILES)
        abort();
    n = &d->names[d->nr_names++];
    n->now = n->safe = -1;
    (void)snprintf(n->path, sizeof(n->path), "%s", path);
    return n;
}

static void file_resize(struct disk_file *f, size_t len)
{
    uint8_t *more = realloc(f->p, len + 1);

    if (!more)
        abort();
    if (len > f->len)
        memset(more + f->len, 0, len - f->len);
    f->p = more;
    f->len = len;
}

static void file_put(struct disk_file *f, const struct log_op *op, size_t from, size_t to)
{
    if (op->off + to > f->len)
        file_resize(f, op->off + to);
    memcpy(f->p + op->off + from, op->data + from, to - from);
}

static void file_apply(struct disk_file *f, const struct log_op *op)
{
    if (op->type == LOG_TRUNCATE)
        file_resize(f, op->off);
    else
        file_put(f, op, 0, op->len);
}

/* Some sectors of a write. */
static void file_tear(struct disk *d, struct disk_file *f, const struct log_op *op)
{
    for (size_t at = 0; at < op->len;) {
        size_t to = at + LOG_SECTOR - (op->off + at) % LOG_SECTOR;

        to = to < op->len ? to : op->len;
        if (disk_random(d) % 2)
            file_put(f, op, at, to);
        at = to;
    }
}

static void file_pend(struct disk_file *f, const struct log_op *op)
{
    if (f->nr_pending == f->cap_pending) {
        f->cap_pending = 2 * f->cap_pending + 16;
        f->pending = reallocarray(f->pending, f->cap_pending, sizeof(f->pending[0]));
        if (!f->pending)
            abort();
    }
    f->pending[f->nr_pending++] = op;
}

static void file_sync(struct disk_file *f)
{
    for (size_t i = 0; i < f->nr_pending; i++)
        file_apply(f, f->pending[i]);
    f->nr_pending = 0;
}

/* ---- the calls, on the disk ---- */

static bool is_in(const char *path, const char *dir)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    return strlen(dir) == n && strncmp(path, dir, n) == 0;
}

static bool is_dir(const char *path)
{
    return !path[0] || strcmp(path, "packs") == 0 || strcmp(path, "cache") == 0;
}

static void disk_change_name(struct disk_name *n, int file, size_t when)
{
    if (n->nr_changes == LOG_FILES)
        abort();
    n->now = file;
    n->changes[n->nr_changes] = file;
    n->when[n->nr_changes++] = when;
}

static void disk_sync(struct disk *d, const char *path)
{
    struct disk_name *n;

    if (!is_dir(path)) {
        n = disk_name(d, path);
        if (n->now >= 0)
            file_sync(&d->files[n->now]);
        return;
    }
    for (size_t i = 0; i < d->nr_names; i++) {
        n = &d->names[i];
        if (!is_in(n->path, path))
            continue;
        n->safe = n->now;
        n->nr_changes = 0;
    }
}

static void disk_do(struct disk *d, const struct log_op *op, size_t when)
{
    struct disk_name *n = is_dir(op->path) ? NULL : disk_name(d, op->path);

    if (op->type == LOG_SYNC)
        disk_sync(d, op->path);
    else if (!n)
        return;
    else if (op->type == LOG_CREATE)
        disk_change_name(n, disk_new_file(d), when);
    else if (op->type == LOG_UNLINK)
        disk_change_name(n, -1, when);
    else if (n->now >= 0)
        file_pend(&d->files[n->now], op);
}

/* ---- the cut ---- */

static void cut_file(struct disk *d, struct disk_file *f)
{
    if (!d->seed)
        return;
    /* In another order, every other time. */
    for (size_t i = f->nr_pending; i > 1 && d->seed % 2; i--) {
        size_t k = disk_random(d) % i;
        const struct log_op *op = f->pending[i - 1];

        f->pending[i - 1] = f->pending[k];
        f->pending[k] = op;
    }
    for (size_t i = 0; i < f->nr_pending; i++) {
        uint64_t fate = disk_random(d) % 4;

        if (fate < 2)
            file_apply(f, f->pending[i]);
        else if (fate == 2 && f->pending[i]->type == LOG_WRITE)
            file_tear(d, f, f->pending[i]);
    }
}

/* Changes of names up to a call, the same for all of a directory. */
static void cut_names(struct disk *d, const char *dir, size_t nr)
{
    size_t upto = d->seed ? disk_random(d) % (nr + 1) : 0;

    for (size_t i = 0; i < d->nr_names; i++) {
        struct disk_name *n = &d->names[i];

        if (!is_in(n->path, dir))
            continue;
        for (size_t k = 0; k < n->nr_changes && n->when[k] < upto; k++)
            n->safe = n->changes[k];
    }
}

static void disk_load_file(struct disk *d, const char *base, const char *path)
{
    struct disk_name *n = disk_name(d, path);
    char full[2 * LOG_PATH];
    struct disk_file *f;
    struct stat st;
    FILE *in;

    (void)snprintf(full, sizeof(full), "%s/%s", base, path);
    if (stat(full, &st) < 0)
        abort();
    n->now = n->safe = disk_new_file(d);
    f = &d->files[n->now];
    file_resize(f, (size_t)st.st_size);
    in = fopen(full, "rb");
    if (!in || fread(f->p, 1, f->len, in) != f->len)
        abort();
    (void)fclose(in);
}

static void disk_load_dir(struct disk *d, const char *base, const char *below)
{
    char full[2 * LOG_PATH], path[LOG_PATH];
    const struct dirent *e;
    DIR *dir;

    (void)snprintf(full, sizeof(full), "%s/%s", base, below);
    dir = opendir(full);
    if (!dir)
        abort();
    while ((e = readdir(dir))) {
        if (e->d_type != DT_REG || strstr(e->d_name, "-shm"))
            continue;
        if (snprintf(path, sizeof(path), "%s%s%s", below, below[0] ? "/" : "", e->d_name) >=
            LOG_PATH)
            abort();
        disk_load_file(d, base, path);
    }
    (void)closedir(dir);
}

static void disk_save(const struct disk *d, const char *to)
{
    static const char *const dirs[] = {"", "/packs", "/cache"};
    char full[2 * LOG_PATH];

    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        (void)snprintf(full, sizeof(full), "%s%s", to, dirs[i]);
        if (mkdir(full, 0700) < 0 && errno != EEXIST)
            abort();
    }
    for (size_t i = 0; i < d->nr_names; i++) {
        const struct disk_name *n = &d->names[i];
        FILE *out;

        if (n->safe < 0)
            continue;
        (void)snprintf(full, sizeof(full), "%s/%s", to, n->path);
        out = fopen(full, "wb");
        if (!out || (d->files[n->safe].len &&
                     fwrite(d->files[n->safe].p, d->files[n->safe].len, 1, out) != 1))
            abort();
        (void)fclose(out);
    }
}

void io_log_replay(const char *base, const char *to, size_t nr, uint64_t seed)
{
    struct disk *d = calloc(1, sizeof(*d));

    if (!d || nr > log_nr)
        abort();
    disk_load_dir(d, base, "");
    disk_load_dir(d, base, "packs");
    for (size_t i = 0; i < nr; i++)
        disk_do(d, &log_ops[i], i);
    d->seed = seed;
    for (size_t i = 0; i < d->nr_files; i++)
        cut_file(d, &d->files[i]);
    cut_names(d, "", nr);
    cut_names(d, "packs", nr);
    disk_save(d, to);
    for (size_t i = 0; i < d->nr_files; i++) {
        free(d->files[i].p);
        free(d->files[i].pending);
    }
    free(d);
}
