/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <uuid/uuid.h>

enum {
    SUFFIX_LEN = 9, /* "." and eight digits */
    COPY_BYTES = 1 << 20,
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

/* A writable disk has a path of its own, or one that was asked for. */
static int renew_disks(struct vm_config *cfg, const struct snap_sets *sets, const char *suffix,
                       struct snap_problems *why)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < cfg->nr_disks; i++) {
        struct disk_config *d = &cfg->disks[i];
        struct stat st;

        if (d->readonly || snap_sets_has(sets, "disks", d->id, "path"))
            continue;
        if (stat(d->path, &st) < 0)
            snap_problem(why, "disk %s: %s: %s", d->id, d->path, strerror(errno));
        else if (!S_ISREG(st.st_mode))
            snap_problem(why, "disk %s: %s is writable and no regular file: it cannot be copied",
                         d->id, d->path);
        rc = add_suffix(&d->path, suffix);
    }
    return rc;
}

static void check_memory(const struct memory_config *m, struct snap_problems *why)
{
    for (unsigned i = 0; i < m->nr_zones; i++) {
        if (m->zones[i].file && m->zones[i].shared)
            snap_problem(why, "memory zone %s: %s is shared memory of the original", m->zones[i].id,
                         m->zones[i].file);
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

int snap_identity_renew(struct vm_config *cfg, const struct snap_sets *sets,
                        struct snap_problems *why, struct err *err)
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
        rc = renew_disks(cfg, sets, suffix, why);
    if (rc >= 0)
        rc = renew_console(&cfg->serial, "serial", sets, suffix);
    if (rc >= 0)
        rc = renew_console(&cfg->console, "console", sets, suffix);
    if (rc >= 0)
        rc = renew_console(&cfg->debug_console, "debug_console", sets, suffix);
    check_memory(&cfg->memory, why);
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

static int copy_range(int from, int to, off_t off, off_t end)
{
    bool by_hand = false;

    while (off < end) {
        off_t in = off, out = off;
        ssize_t n = by_hand ? copy_some(from, to, off, (size_t)(end - off))
                            : copy_file_range(from, &in, to, &out, (size_t)(end - off), 0);

        if (n < 0 && !by_hand) {
            by_hand = errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS;
            if (by_hand)
                continue;
            return -errno;
        }
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        off += n;
    }
    return 0;
}

/* Only what is allocated; holes stay holes. */
static int copy_sparse(int from, int to)
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
        rc = copy_range(from, to, data, hole);
        data = hole;
    }
    return rc;
}

static int copy_disk(const char *from_path, const char *to_path)
{
    auto_close int from = open(from_path, O_RDONLY | O_CLOEXEC);
    auto_close int to = -1;
    int rc;

    if (from < 0)
        return -errno;
    to = open(to_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (to < 0)
        return -errno;
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    rc = copy_sparse(from, to);
    if (rc >= 0 && fsync(to) < 0)
        rc = -errno;
    if (rc < 0)
        (void)unlink(to_path);
    return rc;
}

/* What a failure removes again. */
static void remove_copies(const struct vm_config *to, const bool *made)
{
    for (unsigned i = 0; i < to->nr_disks; i++)
        if (made[i])
            (void)unlink(to->disks[i].path);
}

int snap_identity_copy_disks(const struct vm_config *from, const struct vm_config *to,
                             struct err *err)
{
    bool made[VM_CONFIG_DISKS_MAX] = {false};

    for (unsigned i = 0; i < from->nr_disks; i++) {
        const struct disk_config *d = &to->disks[i];
        int rc;

        if (from->disks[i].readonly || access(d->path, F_OK) == 0)
            continue;
        rc = copy_disk(from->disks[i].path, d->path);
        if (rc < 0) {
            remove_copies(to, made);
            return err_set(err, rc, "disk %s: copy %s to %s: %s", d->id, from->disks[i].path,
                           d->path, strerror(-rc));
        }
        made[i] = true;
    }
    return 0;
}
