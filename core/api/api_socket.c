/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/api_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "core/socket_name.h"

enum {
    LOCK_TRIES = 16, /* the file may be removed by its last owner between open and lock */
    BACKLOG = 128,
};

static char *lock_name(const char *path)
{
    char *name = NULL;

    return asprintf(&name, "%s.lock", path) < 0 ? NULL : name;
}

/* Whether the locked file is still the one at that name. */
static bool is_same_file(int fd, const char *name)
{
    struct stat ours, there;

    return !fstat(fd, &ours) && !stat(name, &there) && ours.st_ino == there.st_ino &&
           ours.st_dev == there.st_dev;
}

static int lock_once(const char *name, int *ret_fd, struct err *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc;

    if (fd < 0)
        return err_set(err, -errno, "API socket: cannot open %s: %s", name, strerror(errno));
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        rc = errno == EAGAIN || errno == EACCES ? -EADDRINUSE : -errno;
        (void)close(fd);
        return err_set(err, rc, "API socket: %s is locked: another process serves it", name);
    }
    *ret_fd = fd;
    return 0;
}

static int take_lock(const char *path, int *ret_fd, struct err *err)
{
    auto_free char *name = lock_name(path);
    int fd = -1, rc;

    if (!name)
        return err_set(err, -ENOMEM, "out of memory");
    for (int i = 0; i < LOCK_TRIES; i++) {
        rc = lock_once(name, &fd, err);
        if (rc)
            return rc;
        if (is_same_file(fd, name)) {
            *ret_fd = fd;
            return 0;
        }
        (void)close(fd);
    }
    return err_set(err, -EADDRINUSE, "API socket: %s keeps changing", name);
}

/* Who serves it without its lock got it from somebody else, as a descriptor. */
static int remove_stale(const char *path, struct err *err)
{
    int rc = socket_name_may_take(path, err);

    if (rc < 0)
        return err_prefix(err, rc, "API socket");
    if (unlink(path) && errno != ENOENT)
        return err_set(err, -errno, "API socket: cannot remove %s: %s", path, strerror(errno));
    return 0;
}

static int listen_at(const char *path, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return err_set(err, -errno, "API socket: %s", strerror(errno));
    memcpy(addr.sun_path, path, strlen(path));
    /* The mode of an unbound socket is that of the file which bind() makes. */
    if (fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, BACKLOG))
        return err_set(err, -errno, "API socket: cannot listen at %s: %s", path, strerror(errno));
    *ret_fd = steal_fd(&fd);
    return 0;
}

int api_socket_open(const char *path, struct api_socket *ret_sock, struct err *err)
{
    struct api_socket sock = {.fd = -1, .lock_fd = -1};
    struct sockaddr_un addr;
    int rc;

    if (!*path || strlen(path) >= sizeof(addr.sun_path))
        return err_set(err, -ENAMETOOLONG, "API socket: a path has 1 to %zu bytes: %.128s",
                       sizeof(addr.sun_path) - 1, path);
    rc = take_lock(path, &sock.lock_fd, err);
    if (rc)
        return rc;
    sock.path = strdup(path);
    rc = sock.path ? remove_stale(path, err) : err_set(err, -ENOMEM, "out of memory");
    if (!rc)
        rc = listen_at(path, &sock.fd, err);
    if (!rc)
        sock.bound = true;
    if (rc) {
        api_socket_close(&sock);
        return rc;
    }
    *ret_sock = sock;
    return 0;
}

int api_socket_adopt(int fd, struct api_socket *ret_sock, struct err *err)
{
    int domain = 0, listening = 0;
    socklen_t len = sizeof(int);
    int flags;

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) || domain != AF_UNIX ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) || !listening) {
        (void)close(fd);
        return err_set(err, -EINVAL, "API socket: descriptor %d is no listening UNIX socket", fd);
    }
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        flags = -errno;
        (void)close(fd);
        return err_set(err, flags, "API socket: descriptor %d: %s", fd, strerror(-flags));
    }
    *ret_sock = (struct api_socket){.fd = fd, .lock_fd = -1};
    return 0;
}

void api_socket_close(struct api_socket *sock)
{
    auto_free char *name = NULL;

    if (sock->path) {
        name = lock_name(sock->path);
        if (sock->bound)
            (void)unlink(sock->path);
        if (name)
            (void)unlink(name);
    }
    if (sock->fd >= 0)
        (void)close(sock->fd);
    /* Last: who waits for the lock finds both names free. */
    if (sock->lock_fd >= 0)
        (void)close(sock->lock_fd);
    free(sock->path);
    *sock = (struct api_socket){.fd = -1, .lock_fd = -1};
}
