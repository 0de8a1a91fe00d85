/* SPDX-License-Identifier: Apache-2.0 */
#include "core/socket_name.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

int socket_name_address(const char *path, struct sockaddr_un *ret, struct err *err)
{
    if (strlen(path) >= sizeof(ret->sun_path))
        return err_set(err, -ENAMETOOLONG, "%.128s: %s", path, strerror(ENAMETOOLONG));
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret->sun_path, path, strlen(path));
    return 0;
}

/* 0: nothing is there; 1: a socket. */
static int look(const struct sockaddr_un *sa, struct err *err)
{
    struct stat st;

    if (lstat(sa->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : err_set(err, -errno, "%s: %s", sa->sun_path, strerror(errno));
    /* unix(7): a file that is no socket refuses a connection like a socket that is left over. */
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EEXIST, "%s: is there and is not a socket", sa->sun_path);
    return 1;
}

int socket_name_check(const char *path, struct err *err)
{
    struct sockaddr_un sa;
    int rc = socket_name_address(path, &sa, err);

    if (rc >= 0)
        rc = look(&sa, err);
    return rc < 0 ? rc : 0;
}

int socket_name_may_take(const char *path, struct err *err)
{
    struct sockaddr_un sa;
    auto_close int fd = -1;
    int rc = socket_name_address(path, &sa, err);

    if (rc >= 0)
        rc = look(&sa, err);
    if (rc <= 0)
        return rc;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "socket: %s", strerror(errno));
    rc = connect(fd, (const struct sockaddr *)&sa, (socklen_t)sizeof(sa)) < 0 ? errno : 0;
    if (rc == ECONNREFUSED || rc == ENOENT)
        return 0;
    /* Its queue is full; or it is one of datagrams. */
    if (!rc || rc == EAGAIN || rc == EPROTOTYPE)
        return err_set(err, -EADDRINUSE, "%s: somebody serves this socket", path);
    return err_set(err, -rc, "%s: %s", path, strerror(rc));
}
