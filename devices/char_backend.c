/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/char_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

static const struct char_backend closed = {.out_fd = -1, .in_fd = -1, .listen_fd = -1};

/* The terminal as it was before the first back end changed it. */
static struct termios tty_before;

static void tty_restore(void)
{
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &tty_before);
}

static int open_tty(struct char_backend *be)
{
    struct termios raw;

    be->out_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    be->in_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (be->in_fd >= 0 && tcgetattr(STDIN_FILENO, &tty_before) == 0) {
        raw = tty_before;
        cfmakeraw(&raw);
        be->raw_tty = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    return 0;
}

static int open_pty(struct char_backend *be)
{
    char path[64];
    struct termios raw;
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    int rc;

    if (fd < 0)
        return -errno;
    be->in_fd = be->out_fd = fd;
    if (grantpt(fd) < 0 || unlockpt(fd) < 0)
        return -errno;
    rc = -ptsname_r(fd, path, sizeof(path));
    if (rc < 0)
        return rc;
    if (tcgetattr(fd, &raw) == 0) {
        cfmakeraw(&raw);
        (void)tcsetattr(fd, TCSANOW, &raw);
    }
    be->pty = strdup(path);
    return be->pty ? 0 : -ENOMEM;
}

/* O_RDWR so that a FIFO without a reader can be opened, and stays open when its reader goes. */
static int open_file(const char *path, struct char_backend *be)
{
    be->out_fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    return be->out_fd < 0 ? -errno : 0;
}

static int unix_address(const char *path, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(ret->sun_path))
        return -ENAMETOOLONG;
    memcpy(ret->sun_path, path, strlen(path));
    return 0;
}

/* Whether there is what a socket must not take the place of. */
static bool is_no_socket(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode);
}

static int open_socket(const char *path, struct char_backend *be)
{
    struct sockaddr_un sa;
    int rc;

    if (is_no_socket(path))
        return -EEXIST;
    be->socket = strdup(path);
    if (!be->socket || asprintf(&be->hidden, "%s.%d", path, (int)getpid()) < 0) {
        be->hidden = NULL;
        return -ENOMEM;
    }
    rc = unix_address(be->hidden, &sa);
    if (rc < 0)
        return rc;
    (void)unlink(be->hidden); /* of a dead process with our number */
    be->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (be->listen_fd < 0 || bind(be->listen_fd, (struct sockaddr *)&sa, (socklen_t)sizeof(sa)) < 0)
        return -errno;
    return listen(be->listen_fd, 1) < 0 ? -errno : 0;
}

/* Whether a process listens there; a socket that is only left over does not count. */
static bool is_served(const char *path)
{
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un sa;

    if (fd < 0 || unix_address(path, &sa) < 0)
        return false;
    return connect(fd, (struct sockaddr *)&sa, (socklen_t)sizeof(sa)) == 0 || errno == EAGAIN;
}

int char_backend_publish(struct char_backend *be, struct err *err)
{
    if (!be->socket || be->published)
        return 0;
    if (is_no_socket(be->socket))
        return err_set(err, -EEXIST, "%s: is there and is not a socket", be->socket);
    if (is_served(be->socket))
        return err_set(err, -EADDRINUSE, "%s: somebody serves this socket", be->socket);
    if (rename(be->hidden, be->socket) < 0)
        return err_set(err, -errno, "%s: %s", be->socket, strerror(errno));
    be->published = true;
    return 0;
}

void char_backend_hide(struct char_backend *be)
{
    if (!be->published)
        return;
    (void)rename(be->socket, be->hidden);
    be->published = false;
}

int char_backend_open(const char *what, const struct console_config *cfg,
                      struct char_backend *ret_be, struct err *err)
{
    struct char_backend be = closed;
    const char *path = "";
    int rc = 0;

    switch (cfg->mode) {
    case CONSOLE_TTY:
        rc = open_tty(&be);
        break;
    case CONSOLE_PTY:
        rc = open_pty(&be);
        break;
    case CONSOLE_FILE:
        path = cfg->file;
        rc = open_file(path, &be);
        break;
    case CONSOLE_SOCKET:
        path = cfg->socket;
        rc = open_socket(path, &be);
        break;
    case CONSOLE_DEFAULT:
    case CONSOLE_OFF:
    case CONSOLE_NULL:
        break;
    }
    if (rc < 0) {
        char_backend_close(&be);
        return err_set(err, rc, "%s: %s%s%s", what, path, *path ? ": " : "", strerror(-rc));
    }
    *ret_be = be;
    return 0;
}

void char_backend_taken(struct char_backend *be)
{
    be->in_fd = be->out_fd = be->listen_fd = -1;
}

void char_backend_close(struct char_backend *be)
{
    if (be->raw_tty)
        tty_restore();
    if (be->in_fd >= 0 && be->in_fd != be->out_fd)
        (void)close(be->in_fd);
    if (be->out_fd >= 0)
        (void)close(be->out_fd);
    if (be->listen_fd >= 0)
        (void)close(be->listen_fd);
    if (be->hidden)
        (void)unlink(be->published ? be->socket : be->hidden);
    free(be->socket);
    free(be->hidden);
    free(be->pty);
    *be = closed;
}
