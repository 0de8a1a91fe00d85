/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/char_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>

#include "core/socket_name.h"

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

static int open_socket(const char *path, struct char_backend *be, struct err *err)
{
    auto_free char *hidden = NULL;
    struct sockaddr_un sa;
    int rc = socket_name_check(path, err);

    if (rc < 0)
        return rc;
    be->socket = strdup(path);
    if (!be->socket || asprintf(&hidden, "%s.%d", path, (int)getpid()) < 0) {
        hidden = NULL;
        return -ENOMEM;
    }
    rc = socket_name_address(hidden, &sa, err);
    if (rc >= 0)
        rc = socket_name_may_take(hidden, err);
    if (rc < 0)
        return rc;
    (void)unlink(hidden); /* of a dead process with our number */
    be->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (be->listen_fd < 0 || bind(be->listen_fd, (struct sockaddr *)&sa, (socklen_t)sizeof(sa)) < 0)
        return -errno;
    be->hidden = steal_ptr(hidden); /* ours, to be removed */
    return listen(be->listen_fd, 1) < 0 ? -errno : 0;
}

int char_backend_publish(struct char_backend *be, struct err *err)
{
    int rc;

    if (!be->socket || be->published)
        return 0;
    rc = socket_name_may_take(be->socket, err);
    if (rc < 0)
        return rc;
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
    struct err why = {0};
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
        rc = open_socket(path, &be, &why);
        break;
    case CONSOLE_DEFAULT:
    case CONSOLE_OFF:
    case CONSOLE_NULL:
        break;
    }
    if (rc < 0) {
        char_backend_close(&be);
        if (why.code)
            return err_set(err, rc, "%s: %s", what, why.msg);
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
