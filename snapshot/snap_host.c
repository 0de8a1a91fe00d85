/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/image_file.h"
#include "core/socket_name.h"
#include "core/tap_name.h"
#include "snapshot/snap_disks.h"

static bool is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Whether a file can be made at a path, or is there and may be written; else errno says why not. */
static bool can_write(const char *path)
{
    char dir[PATH_MAX];
    char *slash;

    if (is_directory(path)) {
        errno = EISDIR;
        return false;
    }
    if (access(path, W_OK) == 0)
        return true;
    if (errno != ENOENT || !*path)
        return false;
    (void)snprintf(dir, sizeof(dir), "%s", path);
    slash = strrchr(dir, '/');
    if (!slash)
        return access(".", W_OK) == 0;
    slash[slash == dir] = 0;
    return access(dir, W_OK) == 0;
}

/* One that is missed as the snapshot's is missing in one way only. */
static void disk_problem(struct snap_problems *why, const struct disk_config *d, const char *cause)
{
    if (!snap_problems_has(why, "disk", d->id))
        snap_problem(why, "disk %s: %s: %s", d->id, d->path, cause);
}

static int open_disk(const struct disk_config *d)
{
    struct image_facts unused;

    return image_open(d->path, d->readonly ? O_RDONLY : O_RDWR, &unused);
}

static void check_disk(const struct disk_config *d, bool copied, struct snap_problems *why)
{
    auto_close int fd = open_disk(d);

    if (fd == -ENOENT && copied && !d->readonly && can_write(d->path))
        return;
    if (fd == -EINVAL)
        disk_problem(why, d, "neither a file nor a block device");
    else if (fd < 0)
        disk_problem(why, d, strerror(-fd));
    else if (d->direct && fcntl(fd, F_SETFL, O_DIRECT) < 0)
        disk_problem(why, d, "its file system does not do direct=on");
}

/* Two disks cannot both lock one image, unless neither writes. */
static void check_shared(const struct vm_config *cfg, unsigned i, struct snap_problems *why)
{
    const struct disk_config *d = &cfg->disks[i];

    for (unsigned k = 0; k < i; k++) {
        const struct disk_config *other = &cfg->disks[k];

        if (d->readonly && other->readonly)
            continue;
        if (strcmp(d->path, other->path) == 0 || snap_is_same_file(d->path, other->path))
            snap_problem(why, "disk %s: %s is disk %s as well", d->id, d->path, other->id);
    }
}

static void check_disks(const struct vm_config *cfg, bool copied, struct snap_problems *why)
{
    for (unsigned i = 0; i < cfg->nr_disks; i++) {
        check_disk(&cfg->disks[i], copied, why);
        check_shared(cfg, i, why);
    }
}

void snap_host_check_locks(const struct vm_config *cfg, struct snap_problems *why)
{
    for (unsigned i = 0; i < cfg->nr_disks; i++) {
        const struct disk_config *d = &cfg->disks[i];
        auto_close int fd = open_disk(d);

        if (fd >= 0 && image_is_locked(fd, d->readonly))
            snap_problem(why, "disk %s: %s is in use by another process", d->id, d->path);
    }
}

static void check_tap(const struct net_config *n, struct snap_problems *why)
{
    enum tap_name_is is = tap_name_look(n->tap);

    if (is == TAP_NAME_OTHER)
        snap_problem(why, "net %s: interface %s is not a tap", n->id, n->tap);
    else if (is == TAP_NAME_BUSY)
        snap_problem(why, "net %s: tap %s is in use", n->id, n->tap);
}

static void check_nets(const struct vm_config *cfg, struct snap_problems *why)
{
    for (unsigned i = 0; i < cfg->nr_nets; i++) {
        const struct net_config *n = &cfg->nets[i];

        if (n->nr_fds && n->fds[0] < 0) {
            snap_problem(why, "net %s: its tap was a descriptor: hand over another (net_fds)",
                         n->id);
        } else if (!n->nr_fds && access("/dev/net/tun", R_OK | W_OK) < 0) {
            snap_problem(why, "net %s: /dev/net/tun: %s", n->id, strerror(errno));
        } else if (!n->nr_fds && n->tap) {
            check_tap(n, why);
        }
    }
}

static void check_console(const char *name, const struct console_config *c,
                          struct snap_problems *why)
{
    struct err err = {0};

    if (c->mode == CONSOLE_FILE && c->file && !can_write(c->file))
        snap_problem(why, "%s.file: %s: %s", name, c->file, strerror(errno));
    if (c->mode != CONSOLE_SOCKET || !c->socket)
        return;
    if (socket_name_check(c->socket, &err) < 0)
        snap_problem(why, "%s.socket: %s", name, err.msg);
    else if (!can_write(c->socket))
        snap_problem(why, "%s.socket: %s: %s", name, c->socket, strerror(errno));
}

/* Documentation/admin-guide/mm/hugetlbpage.rst */
static bool free_hugepages(uint64_t size, uint64_t *ret_free)
{
    char path[128], text[32] = "", *end = text;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages",
                   (unsigned long long)size / 1024);
    f = fopen(path, "re");
    if (!f)
        return false;
    if (fgets(text, sizeof(text), f))
        *ret_free = strtoull(text, &end, 10);
    (void)fclose(f);
    return end != text;
}

/* "Hugepagesize:       2048 kB" of /proc/meminfo: what is meant where no size is given. */
static uint64_t default_hugepage(void)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");

    if (!f)
        return 0;
    while (!kib && fgets(line, sizeof(line), f))
        if (strncmp(line, "Hugepagesize:", 13) == 0)
            kib = strtoull(line + 13, NULL, 10);
    (void)fclose(f);
    return (uint64_t)kib * 1024;
}

/* Huge pages of one size, of all who take them. */
struct hugepages {
    uint64_t page;
    uint64_t wanted;
    char who[64]; /* the first */
};

static void want_hugepages(struct hugepages *all, const char *who, uint64_t size, uint64_t page)
{
    if (!page)
        page = default_hugepage();
    if (!size)
        return;
    while (all->wanted && all->page != page)
        all++;
    if (!all->wanted)
        (void)snprintf(all->who, sizeof(all->who), "%s", who);
    all->page = page;
    all->wanted += page ? (size + page - 1) / page : 1;
}

static void check_hugepages(const struct hugepages *h, struct snap_problems *why)
{
    uint64_t free_now = 0;

    if (!h->page || !free_hugepages(h->page, &free_now)) {
        snap_problem(why, "%s: this host has no huge pages of %llu KiB", h->who,
                     (unsigned long long)h->page / 1024);
    } else if (free_now < h->wanted) {
        snap_problem(why, "%s: it takes %llu huge pages of %llu KiB, %llu are free", h->who,
                     (unsigned long long)h->wanted, (unsigned long long)h->page / 1024,
                     (unsigned long long)free_now);
    }
}

static void check_memory(const struct memory_config *m, struct snap_problems *why)
{
    struct hugepages huge[1 + VM_CONFIG_ZONES_MAX + 1] = {0};
    char what[64];

    if (m->hugepages)
        want_hugepages(huge, "memory", m->size, m->hugepage_size);
    for (unsigned i = 0; i < m->nr_zones; i++) {
        const struct memory_zone_config *z = &m->zones[i];

        if (z->file && access(z->file, R_OK | W_OK) < 0)
            snap_problem(why, "memory zone %s: %s: %s", z->id, z->file, strerror(errno));
        (void)snprintf(what, sizeof(what), "memory zone %s", z->id);
        /* A file brings its own pages. */
        if (z->hugepages && !z->file)
            want_hugepages(huge, what, z->size, z->hugepage_size);
    }
    for (const struct hugepages *h = huge; h->wanted; h++)
        check_hugepages(h, why);
}

void snap_host_check(const struct vm_config *cfg, bool copied, struct snap_problems *why)
{
    check_memory(&cfg->memory, why);
    check_disks(cfg, copied, why);
    check_nets(cfg, why);
    check_console("serial", &cfg->serial, why);
    check_console("console", &cfg->console, why);
    check_console("debug_console", &cfg->debug_console, why);
    if (is_directory(cfg->rng.src))
        snap_problem(why, "rng.src: %s: %s", cfg->rng.src, strerror(EISDIR));
    else if (access(cfg->rng.src, R_OK) < 0)
        snap_problem(why, "rng.src: %s: %s", cfg->rng.src, strerror(errno));
}
