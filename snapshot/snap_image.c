/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/gmem.h"
#include "snapshot/snap_eager.h"
#include "store/store_reader.h"

enum {
    BOOT_ID_LEN = 36, /* a UUID as text */
    IMAGE_NAME_MAX = STORE_DIGEST_HEX + BOOT_ID_LEN + 16,
    IMAGE_READ_PAGES = 256, /* written at once: 1 MiB */
    LOCK_POLL_MS = 20,
};

/* "<digest of the memory>-<boot id>.ram" */
static int image_name(const struct store_digest *ram, char name[IMAGE_NAME_MAX], struct err *err)
{
    auto_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    char hex[STORE_DIGEST_HEX + 1], boot[BOOT_ID_LEN + 1] = "";

    if (fd < 0 || read(fd, boot, BOOT_ID_LEN) != BOOT_ID_LEN)
        return err_set(err, -ENOENT, "image: the kernel does not tell its boot id");
    store_digest_hex(ram, hex);
    (void)snprintf(name, IMAGE_NAME_MAX, "%s-%s.ram", hex, boot);
    return 0;
}

static uint64_t image_len(const struct store_record *rec)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < rec->nr_regions; i++)
        pages += rec->regions[i].pages;
    return pages << PAGE_SHIFT_4K;
}

static int open_cache(const char *store, struct err *err)
{
    auto_close int dir = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = dir < 0 ? -1 : openat(dir, "cache", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? err_set(err, -errno, "%s/cache: %s", store, strerror(errno)) : fd;
}

static int open_in(int dir, const char *name, const struct store_record *rec, struct err *err)
{
    auto_close int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, -errno, "image %.12s: %s", name, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(err, -EPERM, "image %.12s: others could have written it", name);
    if ((uint64_t)st.st_size != image_len(rec))
        return err_set(err, -EBADMSG, "image %.12s: has not the length of the memory", name);
    return steal_fd(&fd);
}

int snap_image_open(const char *store, struct store_snapshot *snapshot, struct err *err)
{
    const struct store_record *rec = store_snapshot_info(snapshot)->rec;
    auto_close int dir = open_cache(store, err);
    char name[IMAGE_NAME_MAX];
    int rc = dir < 0 ? dir : image_name(&rec->ram, name, err);

    return rc < 0 ? rc : open_in(dir, name, rec, err);
}

/* --- Expanding ------------------------------------------------------------------ */

struct expanding {
    struct store_snapshot *snapshot;
    int fd;
};

static int write_run(struct expanding *e, unsigned region, const struct store_run *run,
                     uint64_t off, uint8_t *buf, struct err *err)
{
    for (uint64_t i = 0; i < run->nr;) {
        uint64_t nr = run->nr - i < IMAGE_READ_PAGES ? run->nr - i : IMAGE_READ_PAGES;
        size_t len = nr << PAGE_SHIFT_4K;
        int rc = store_snapshot_read(e->snapshot, region, run->first + i, nr, buf, err);
        ssize_t n;

        if (rc < 0)
            return rc;
        n = pwrite(e->fd, buf, len, (off_t)(off + (i << PAGE_SHIFT_4K)));
        if (n != (ssize_t)len)
            return err_set(err, n < 0 ? -errno : -ENOSPC, "image: %s",
                           n < 0 ? strerror(errno) : strerror(ENOSPC));
        i += nr;
    }
    return 0;
}

static int write_chunk(void *arg, const struct snap_chunk *c, struct err *err)
{
    struct expanding *e = arg;
    const struct store_record *rec = store_snapshot_info(e->snapshot)->rec;
    auto_free uint8_t *buf = malloc((size_t)IMAGE_READ_PAGES << PAGE_SHIFT_4K);
    uint64_t at = c->first, end = c->first + c->nr, base = 0;
    int rc = buf ? 0 : err_set(err, -ENOMEM, "out of memory");

    for (unsigned i = 0; i < c->region; i++)
        base += rec->regions[i].pages;
    while (rc >= 0 && at < end) {
        struct store_run run;

        rc = store_snapshot_next(e->snapshot, c->region, at, &run, err);
        if (rc < 0 || !run.nr || run.first >= end)
            break;
        if (run.nr > end - run.first)
            run.nr = end - run.first;
        rc = write_run(e, c->region, &run, (base + run.first) << PAGE_SHIFT_4K, buf, err);
        at = run.first + run.nr;
    }
    return rc;
}

/* A file without a name until it is whole: a crash leaves nothing. */
static int expand(int dir, const char *name, struct store_snapshot *snapshot,
                  struct snap_progress *p, struct err *err)
{
    const struct store_record *rec = store_snapshot_info(snapshot)->rec;
    auto_close int fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct expanding e = {snapshot, fd};
    char self[32];
    int rc;

    if (fd < 0 || ftruncate(fd, (off_t)image_len(rec)) < 0)
        return err_set(err, -errno, "image: %s", strerror(errno));
    rc = snap_for_chunks(rec, write_chunk, &e, p, err);
    if (rc < 0)
        return rc;
    (void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW) < 0)
        return err_set(err, -errno, "image: %s", strerror(errno));
    return open_in(dir, name, rec, err);
}

/* --- Those that nobody can use ---------------------------------------------------- */

struct known {
    const char *name; /* of a file */
    bool found;
};

static int is_of(void *arg, const struct store_info *info)
{
    struct known *k = arg;
    char hex[STORE_DIGEST_HEX + 1];

    store_digest_hex(&info->rec->ram, hex);
    k->found = strncmp(k->name, hex, STORE_DIGEST_HEX) == 0;
    return k->found ? -EALREADY : 0; /* enough */
}

/* Images of another boot, images and orders of touch of no snapshot. */
static bool is_useless(struct store *st, const char *name, const char *boot_suffix)
{
    const char *dot = strrchr(name, '.');
    struct known k = {name, false};

    if (name[0] == '.' || !dot || (strcmp(dot, ".ram") != 0 && strcmp(dot, ".touch") != 0))
        return false;
    if (strcmp(dot, ".ram") == 0 &&
        (strlen(name) < STORE_DIGEST_HEX || strcmp(name + STORE_DIGEST_HEX, boot_suffix) != 0))
        return true;
    return store_list(st, is_of, &k, NULL) >= 0 && !k.found;
}

static void evict(int dir, struct store *st, const char *name)
{
    int copy = dup(dir);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);

    if (!d) {
        if (copy >= 0)
            (void)close(copy);
        return;
    }
    rewinddir(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        if (is_useless(st, e->d_name, name + STORE_DIGEST_HEX))
            (void)unlinkat(dir, e->d_name, 0);
    (void)closedir(d);
}

/* One expands, the others wait for it or give up; let go when the directory is closed. */
static int lock_cache(int dir, const char *store, struct snap_progress *p, struct err *err)
{
    int rc = 0;

    while (rc >= 0 && flock(dir, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return err_set(err, -errno, "%s/cache: %s", store, strerror(errno));
        (void)usleep(LOCK_POLL_MS * 1000);
        rc = snap_check(p, err);
    }
    return rc;
}

int snap_image_make(const char *store, struct store *st, struct store_snapshot *snapshot,
                    struct snap_progress *p, struct err *err)
{
    const struct store_record *rec = store_snapshot_info(snapshot)->rec;
    auto_close int dir = open_cache(store, err);
    char name[IMAGE_NAME_MAX];
    int rc = dir < 0 ? dir : image_name(&rec->ram, name, err);

    if (rc < 0)
        return rc;
    rc = open_in(dir, name, rec, NULL);
    if (rc >= 0)
        return rc;
    rc = lock_cache(dir, store, p, err);
    if (rc < 0)
        return rc;
    rc = open_in(dir, name, rec, NULL);
    if (rc != -ENOENT && rc < 0)
        (void)unlinkat(dir, name, 0);
    if (rc >= 0)
        return rc;
    evict(dir, st, name);
    return expand(dir, name, snapshot, p, err);
}

/* --- Mapping ---------------------------------------------------------------------- */

int snap_image_check(const struct gmem *gm, struct err *err)
{
    for (unsigned i = 0; i < gmem_nr_regions(gm); i++) {
        const struct gmem_region *r = gmem_region(gm, i);

        if (r->fd >= 0 || !r->fresh)
            return err_set(err, -ENOTSUP, "memory zone %s cannot be mapped from an image: it is %s",
                           r->id, r->shared ? "shared" : "no private memory of small pages");
    }
    return 0;
}

int snap_image_map(struct gmem *gm, int fd, struct err *err)
{
    uint64_t off = 0;
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < gmem_nr_regions(gm); i++) {
        rc = gmem_map_image(gm, i, fd, off, err);
        off += gmem_region(gm, i)->len;
    }
    return rc;
}
