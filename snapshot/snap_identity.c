/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_identity.h"

#include <stdarg.h>

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
};

static void problem(struct snap_problems *why, const char *fmt, ...) PRINTF(2, 3);
static void problem(struct snap_problems *why, const char *fmt, ...)
{
    va_list ap;

    if (why->nr == SNAP_PROBLEMS_MAX)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(why->text[why->nr++], SNAP_PROBLEM_LEN, fmt, ap);
    va_end(ap);
}

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

static int renew_nets(struct vm_config *cfg, struct snap_problems *why)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < cfg->nr_nets; i++) {
        struct net_config *n = &cfg->nets[i];

        if (n->nr_fds && n->fds[0] < 0) {
            problem(why,
                    "net %s: its tap was handed over as a descriptor; the clone needs one of "
                    "its own (net_fds)",
                    n->id);
        }
        if (n->ip)
            problem(why, "net %s: the host's address %s cannot be on two interfaces", n->id, n->ip);
        n->has_mac = true;
        rc = new_mac(n->mac);
        n->has_host_mac = false;
        if (rc >= 0)
            rc = vm_config_set_string(&n->tap, NULL);
    }
    return rc;
}

static int renew_disks(struct vm_config *cfg, const char *suffix, struct snap_problems *why)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < cfg->nr_disks; i++) {
        struct disk_config *d = &cfg->disks[i];
        struct stat st;

        if (d->readonly)
            continue;
        if (stat(d->path, &st) < 0)
            problem(why, "disk %s: %s: %s", d->id, d->path, strerror(errno));
        else if (!S_ISREG(st.st_mode))
            problem(why, "disk %s: %s is writable and no regular file: it cannot be copied", d->id,
                    d->path);
        rc = add_suffix(&d->path, suffix);
    }
    return rc;
}

static void check_memory(const struct memory_config *m, struct snap_problems *why)
{
    for (unsigned i = 0; i < m->nr_zones; i++) {
        if (m->zones[i].file && m->zones[i].shared)
            problem(why, "memory zone %s: %s is shared memory of the original", m->zones[i].id,
                    m->zones[i].file);
    }
}

int snap_identity_renew(struct vm_config *cfg, struct snap_problems *why, struct err *err)
{
    char text[37], suffix[SUFFIX_LEN + 1];
    struct console_config *consoles[] = {&cfg->serial, &cfg->console, &cfg->debug_console};
    uuid_t uuid;
    int rc;

    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, text);
    (void)snprintf(suffix, sizeof(suffix), ".%.8s", text);
    rc = vm_config_set_string(&cfg->platform.system_uuid, text);
    if (rc >= 0)
        rc = renew_nets(cfg, why);
    if (rc >= 0)
        rc = renew_disks(cfg, suffix, why);
    for (size_t i = 0; rc >= 0 && i < ARRAY_LEN(consoles); i++) {
        if (consoles[i]->mode == CONSOLE_PTY)
            continue; /* the kernel chooses another one */
        rc = add_suffix(&consoles[i]->file, suffix);
        if (rc >= 0)
            rc = add_suffix(&consoles[i]->socket, suffix);
    }
    check_memory(&cfg->memory, why);
    if (rc < 0)
        return err_set(err, rc, "identity: %s", strerror(-rc));
    if (why->nr)
        return err_set(err, -ENOTSUP, "the clone cannot be made unique: %s%s", why->text[0],
                       why->nr > 1 ? " (and more)" : "");
    return 0;
}

/* --- Disks ------------------------------------------------------------------------ */

static int copy_range(int from, int to, off_t off, off_t end)
{
    while (off < end) {
        off_t in = off, out = off;
        ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - off), 0);

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
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
    auto_close int to = open(to_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc;

    if (from < 0 || to < 0)
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

int snap_identity_copy_disks(const struct vm_config *from, const struct vm_config *to,
                             struct err *err)
{
    for (unsigned i = 0; i < from->nr_disks; i++) {
        int rc;

        if (from->disks[i].readonly)
            continue;
        rc = copy_disk(from->disks[i].path, to->disks[i].path);
        if (rc >= 0)
            continue;
        for (unsigned k = 0; k < i; k++)
            if (!from->disks[k].readonly)
                (void)unlink(to->disks[k].path);
        return err_set(err, rc, "disk %s: copy %s to %s: %s", from->disks[i].id,
                       from->disks[i].path, to->disks[i].path, strerror(-rc));
    }
    return 0;
}
