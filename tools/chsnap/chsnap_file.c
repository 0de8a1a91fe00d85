/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are written: they have their name once they are whole and on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/chsnap/chsnap.h"

/* The directory that @path is in, with its slash; "" for the current one. */
static int directory_len(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? (int)(slash + 1 - path) : 0;
}

int chsnap_file_open(const struct chsnap *c, struct chsnap_file *f, const char *path)
{
    struct stat st;
    int n;

    *f = (struct chsnap_file){.fd = STDOUT_FILENO, .path = path};
    if (!path)
        return CHSNAP_OK;
    n = snprintf(f->temp, sizeof(f->temp), "%.*s.chsnap-XXXXXX", directory_len(path), path);
    if (n < 0 || (size_t)n >= sizeof(f->temp) || strlen(path) >= PATH_MAX)
        return chsnap_error(c, "%s: %s", path, strerror(ENAMETOOLONG));
    if (!path[directory_len(path)])
        return chsnap_error(c, "\"%s\": is not the name of a file", path);
    if (lstat(path, &st) == 0)
        return chsnap_error(c, "%s: %s", path, strerror(EEXIST));
    chsnap_stop_hold();
    f->fd = mkostemp(f->temp, O_CLOEXEC);
    if (f->fd >= 0)
        chsnap_stop_file_locked(f->temp, path);
    chsnap_stop_release();
    return f->fd < 0 ? chsnap_error(c, "%s: %m", path) : CHSNAP_OK;
}

/* The name, unless somebody has it meanwhile; some file systems can only do it in two steps. */
static int file_name(const struct chsnap_file *f)
{
    if (renameat2(AT_FDCWD, f->temp, AT_FDCWD, f->path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (access(f->path, F_OK) == 0)
        return -EEXIST;
    return rename(f->temp, f->path) < 0 ? -errno : 0;
}

/* The name survives a power cut as the contents do. */
static int file_sync_name(struct chsnap_file *f)
{
    auto_close int fd = -1;

    f->temp[directory_len(f->temp)] = 0;
    fd = open(f->temp[0] ? f->temp : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int chsnap_file_close(const struct chsnap *c, struct chsnap_file *f, int status)
{
    int rc = 0;

    if (!f->path || f->fd < 0)
        return status;
    if (status == CHSNAP_OK && fsync(f->fd) < 0)
        rc = -errno;
    if (close(f->fd) < 0 && rc == 0)
        rc = -errno;
    f->fd = -1;
    chsnap_stop_hold();
    if (status == CHSNAP_OK && rc == 0)
        rc = file_name(f);
    if (status != CHSNAP_OK || rc < 0)
        (void)unlink(f->temp); /* half of it is worth nothing */
    chsnap_stop_file_locked(NULL, status == CHSNAP_OK && rc == 0 ? f->path : NULL);
    chsnap_stop_release();
    if (status == CHSNAP_OK && rc == 0)
        rc = file_sync_name(f);
    return rc < 0 ? chsnap_error(c, "%s: %s", f->path, strerror(-rc)) : status;
}
