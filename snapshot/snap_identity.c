/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <uuid/uuid.h>

#include "snapshot/snap_disks.h"

#define COPYING ".chvmm-copying" /* behind the name of what is not whole yet */

enum {
    SUFFIX_LEN = 9, /* "." and eight digits */
    COPY_BYTES = 1 << 20,
    COPY_STEP = 16 << 20, /* copied between two questions whether to go on */
};

static int add_suffix(char **path, const char *suffix)
{
    char longer[VM_CONFIG_STRING_MAX + SUFFIX_LEN + 1];

    if (!*path)
        return 0;
    (void)snprintf(longer, sizeof(longer), "%s%s", *path, suffix);
    return vm_config_set_string(path, longer);
}

/* Locally administered, unicast. */
static int new_mac(uint8_t mac[MAC_LEN])
{
    if (getrandom(mac, MAC_LEN, 0) != MAC_LEN)
        return -errno;
    mac[0] = (uint8_t)((mac[0] | 2) & ~1);
    return 0;
}

static int renew_net(struct net_config *n, const struct snap_sets *sets)
{
    int rc = 0;

    if (!snap_sets_has(sets, "net", n->id, "mac")) {
        n->has_mac = true;
        rc = new_mac(n->mac);
    }
    if (!snap_sets_has(sets, "net", n->id, "host_mac"))
        n->has_host_mac = false;
    if (rc >= 0 && !snap_sets_has(sets, "net", n->id, "tap"))
        rc = vm_config_set_string(&n->tap, NULL);
    return rc;
}

static int renew_nets(struct vm_config *cfg, const struct snap_sets *sets,
                      struct snap_problems *why)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < cfg->nr_nets; i++) {
        struct net_config *n = &cfg->nets[i];

        if (n->nr_fds && n->fds[0] < 0) {
            snap_problem(why,
                         "net %s: its tap was handed over as a descriptor; the clone needs one of "
                         "its own (net_fds)",
                         n->id);
        }
        if (n->ip && !snap_sets_has(sets, "net", n->id, "ip"))
            snap_problem(why, "net %s: the host's address %s cannot be on two interfaces", n->id,
                         n->ip);
        rc = renew_net(n, sets);
    }
    return rc;
}

/* The original's image, of which a copy will be made. */
static void check_original(const struct disk_config *d, struct snap_problems *why)
{
    struct stat st;

    if (stat(d->path, &st) < 0) {
        if (!snap_problems_has(why, "disk", d->id))
            snap_problem(why, "disk %s: %s: %s", d->id, d->path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        snap_problem(why, "disk %s: %s is writable and no regular file: it cannot be copied", d->id,
                     d->path);
    }
}

/* A writable disk has a path of its own, or one that was asked for. */
static int renew_disks(const struct vm_config *from, struct vm_config *cfg,
                       const struct snap_sets *sets, const char *suffix, struct snap_problems *why)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < cfg->nr_disks; i++) {
        struct disk_config *d = &cfg->disks[i];

        if (d->readonly)
            continue;
        if (snap_sets_has(sets, "disks", d->id, "path")) {
            if (snap_is_same_file(d->path, from->disks[i].path))
                snap_problem(why, "disk %s: %s is the original's", d->id, d->path);
            continue;
        }
        check_original(d, why);
        rc = add_suffix(&d->path, suffix);
    }
    return rc;
}

/* In a directory everybody gets a file without a name. */
static void check_memory(const struct memory_config *from, const struct memory_config *m,
                         struct snap_problems *why)
{
    for (unsigned i = 0; i < m->nr_zones; i++) {
        const struct memory_zone_config *z = &m->zones[i];
        struct stat st;

        if (!z->file || !z->shared || !from->zones[i].file ||
            (stat(z->file, &st) == 0 && S_ISDIR(st.st_mode)))
            continue;
        if (strcmp(z->file, from->zones[i].file) == 0 ||
            snap_is_same_file(z->file, from->zones[i].file))
            snap_problem(why, "memory zone %s: %s is shared memory of the original", z->id,
                         z->file);
    }
}

/* A file or a socket of the host's: its own, or one that was asked for. */
static int renew_console(struct console_config *c, const char *name, const struct snap_sets *sets,
                         const char *suffix)
{
    int rc = 0;

    if (c->mode == CONSOLE_PTY)
        return 0; /* the kernel chooses another one */
    if (!snap_sets_has(sets, name, NULL, "file"))
        rc = add_suffix(&c->file, suffix);
    if (rc >= 0 && !snap_sets_has(sets, name, NULL, "socket"))
        rc = add_suffix(&c->socket, suffix);
    return rc;
}

int snap_identity_renew(const struct vm_config *from, struct vm_config *cfg,
                        const struct snap_sets *sets, struct snap_problems *why, struct err *err)
{
    char text[37], suffix[SUFFIX_LEN + 1];
    uuid_t uuid;
    int rc = 0;

    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, text);
    (void)snprintf(suffix, sizeof(suffix), ".%.8s", text);
    if (!snap_sets_has(sets, "platform", NULL, "uuid") &&
        !snap_sets_has(sets, "platform", NULL, "system_uuid"))
        rc = vm_config_set_string(&cfg->platform.system_uuid, text);
    if (rc >= 0)
        rc = renew_nets(cfg, sets, why);
    if (rc >= 0)
        rc = renew_disks(from, cfg, sets, suffix, why);
    if (rc >= 0)
        rc = renew_console(&cfg->serial, "serial", sets, suffix);
    if (rc >= 0)
        rc = renew_console(&cfg->console, "console", sets, suffix);
    if (rc >= 0)
        rc = renew_console(&cfg->debug_console, "debug_console", sets, suffix);
    check_memory(&from->memory, &cfg->memory, why);
    return rc < 0 ? err_set(err, rc, "identity: %s", strerror(-rc)) : 0;
}

/* --- Disks ------------------------------------------------------------------------ */

/* By hand, where the kernel cannot: between two kinds of file systems. */
static ssize_t copy_some(int from, int to, off_t off, size_t len)
{
    auto_free uint8_t *buf = malloc(COPY_BYTES);
    ssize_t n;

    if (!buf)
        return -ENOMEM;
    n = pread(from, buf, len < COPY_BYTES ? len : COPY_BYTES, off);
    if (n > 0)
        n = pwrite(to, buf, (size_t)n, off);
    return n < 0 ? -errno : n;
}

/*
 * Written back while it is copied, so that little is left for an fsync, which nobody can cancel:
 * @off is copied up to, what lies two steps behind is waited for.
 */
static void write_behind(int to, off_t off)
{
    const unsigned wait =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    off_t last = off > COPY_STEP ? off - COPY_STEP : 0;
    off_t before = last > COPY_STEP ? last - COPY_STEP : 0;

    (void)sync_file_range(to, last, off - last, SYNC_FILE_RANGE_WRITE);
    if (last > before)
        (void)sync_file_range(to, before, last - before, wait);
}

static int copy_range(int from, int to, off_t off, off_t end, struct snap_progress *p)
{
    bool by_hand = false;

    while (off < end) {
        off_t in = off, out = off;
        size_t len = end - off < COPY_STEP ? (size_t)(end - off) : COPY_STEP;
        ssize_t n = p ? snap_check(p, NULL) : 0;

        if (n < 0)
            return (int)n;
        n = by_hand ? copy_some(from, to, off, len) : copy_file_range(from, &in, to, &out, len, 0);

        if (n < 0 && !by_hand) {
            by_hand = errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS;
            if (by_hand)
                continue;
            return -errno;
        }
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        off += n;
        write_behind(to, off);
    }
    return 0;
}

/* Only what is allocated; holes stay holes. */
static int copy_sparse(int from, int to, struct snap_progress *p)
{
    struct stat st;
    off_t data = 0;
    int rc = fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0 ? -errno : 0;

    while (rc >= 0 && data < st.st_size) {
        off_t hole;

        data = lseek(from, data, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? 0 : -errno;
        hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        rc = copy_range(from, to, data, hole, p);
        data = hole;
    }
    return rc;
}

/* Without a name, beside where it is going to be; -EOPNOTSUPP where there is no such thing. */
static int open_nameless(const char *path)
{
    char dir[VM_CONFIG_STRING_MAX + SUFFIX_LEN + 1];
    char *slash;
    int fd;

    (void)snprintf(dir, sizeof(dir), "%s", path);
    slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    fd = open(slash ? dir : ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EISDIR ? -EOPNOTSUPP : -errno; /* an old kernel sees a directory */
    return fd;
}

static int give_name(int fd, const char *path)
{
    char self[32];

    (void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/*
 * Where there are no files without a name: beside where it is going to be, locked for as long as it is
 * copied.  One that nobody has locked was left by a copy that was killed, and is begun anew.
 */
static int open_beside(const char *temp)
{
    auto_close int fd = open(temp, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    struct stat mine, there;

    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    /* Whoever had it may have given it its name meanwhile. */
    if (fstat(fd, &mine) < 0 || stat(temp, &there) < 0 || mine.st_ino != there.st_ino)
        return -EBUSY;
    return ftruncate(fd, 0) < 0 ? -errno : steal_fd(&fd);
}

static int name_beside(const char *temp, const char *path)
{
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (access(path, F_OK) == 0)
        return -EEXIST;
    return rename(temp, path) < 0 ? -errno : 0;
}

static int fill_disk(int from, int to, struct snap_progress *p)
{
    int rc;

    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    rc = copy_sparse(from, to, p);
    return rc >= 0 && fsync(to) < 0 ? -errno : rc;
}

/* @recorded, @p: as for snap_identity_copy_disks(). */
static int copy_disk(const struct disk_config *from_disk, const char *to_path, const char *recorded,
                     struct snap_progress *p, struct err *err)
{
    auto_close int from = open(from_disk->path, O_RDONLY | O_CLOEXEC);
    auto_close int to = -1;
    char temp[VM_CONFIG_STRING_MAX + SUFFIX_LEN + sizeof(COPYING)];
    bool beside;
    int rc;

    if (from < 0)
        return -errno;
    (void)snprintf(temp, sizeof(temp), "%s" COPYING, to_path);
    to = open_nameless(to_path);
    beside = to == -EOPNOTSUPP;
    if (beside)
        to = open_beside(temp);
    if (to < 0)
        return to;
    rc = fill_disk(from, to, p);
    if (rc >= 0 && recorded)
        rc = snap_disks_still(recorded, from_disk, err);
    if (rc >= 0)
        snap_disks_mark(to, from);
    if (rc >= 0)
        rc = beside ? name_beside(temp, to_path) : give_name(to, to_path);
    if (rc < 0 && beside)
        (void)unlink(temp);
    return rc;
}

void snap_copies_release(struct snap_copies *copies)
{
    while (copies->nr)
        free(copies->paths[--copies->nr]);
}

void snap_copies_remove(struct snap_copies *copies)
{
    for (unsigned i = 0; i < copies->nr; i++)
        (void)unlink(copies->paths[i]);
    snap_copies_release(copies);
}

static int copy_one(const struct disk_config *from, const struct disk_config *to,
                    const char *recorded, struct snap_progress *p, struct snap_copies *ret,
                    struct err *err)
{
    auto_free char *path = strdup(to->path);
    struct err what = {0};
    int rc = path ? copy_disk(from, path, recorded, p, &what) : -ENOMEM;

    if (rc < 0)
        return err_set(err, rc, "disk %s: copy %s to %s: %s", to->id, from->path, to->path,
                       what.code ? what.msg : strerror(-rc));
    ret->paths[ret->nr++] = steal_ptr(path);
    return 0;
}

int snap_identity_copy_disks(const struct vm_config *from, const struct vm_config *to,
                             const char *recorded, struct snap_progress *p, struct snap_copies *ret,
                             struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < from->nr_disks; i++)
        if (!from->disks[i].readonly && access(to->disks[i].path, F_OK) < 0)
            rc = copy_one(&from->disks[i], &to->disks[i], recorded, p, ret, err);
    if (rc < 0)
        snap_copies_remove(ret);
    return rc;
}
