/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of a character device.
 *
 * A source is on the loop only while there is something to wait for, because
 * epoll reports a hang-up whether it is asked for or not.  Sources are added
 * by any thread with the device locked, and removed on the loop's thread (or
 * while the loop does not run), where loop_remove() does not wait.
 */
#include "devices/char_port.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "core/loop.h"

enum {
    CHAR_PORT_GRAIN = 4096, /* bytes by which the buffer grows */
    CHAR_PORT_READ_MAX = 256,
};

/* --- Output --------------------------------------------------------------- */

/* write(2) to a FIFO without a reader: EPIPE, and no signal for the process. */
static ssize_t write_fifo(int fd, const uint8_t *data, size_t len)
{
    const struct timespec now = {0};
    sigset_t sigpipe, pending, old;
    bool was_pending;
    ssize_t n;
    int saved;

    (void)sigemptyset(&sigpipe);
    (void)sigaddset(&sigpipe, SIGPIPE);
    (void)sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
    (void)pthread_sigmask(SIG_BLOCK, &sigpipe, &old);
    n = write(fd, data, len);
    saved = errno;
    if (n < 0 && saved == EPIPE && !was_pending)
        (void)sigtimedwait(&sigpipe, NULL, &now);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return n;
}

/* One write that does not block; as write(2). */
static ssize_t write_some(const struct char_port *p, const uint8_t *data, size_t len)
{
    struct pollfd pfd = {.fd = p->out_fd, .events = POLLOUT};

    if (p->out_is_socket)
        return send(p->out_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (!p->out_is_file && !p->out_nonblock) {
        /* A handle that blocks takes at least one byte where poll says that it takes any. */
        if (poll(&pfd, 1, 0) != 1) {
            errno = EAGAIN;
            return -1;
        }
        len = 1;
    }
    return p->out_is_fifo ? write_fifo(p->out_fd, data, len) : write(p->out_fd, data, len);
}

/* How many bytes are dealt with: taken by the other end, or dropped because there is none. */
static size_t put_out(struct char_port *p, const uint8_t *data, size_t len)
{
    size_t done = 0;

    if (p->out_fd < 0 || p->client_gone)
        return p->listen_fd < 0 ? len : 0;
    while (done < len) {
        ssize_t n = write_some(p, data + done, len - done);

        if (n >= 0) {
            done += (size_t)n;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN)
            return done;
        if (p->listen_fd >= 0) {
            p->client_gone = true;
            return done;
        }
        p->dropped += len - done;
        return len;
    }
    return done;
}

static void keep(struct char_port *p, const uint8_t *data, size_t len)
{
    size_t need, drop = 0;
    uint8_t *grown;

    if (len > CHAR_PORT_PENDING_MAX / 2) {
        p->dropped += len - CHAR_PORT_PENDING_MAX / 2;
        data += len - CHAR_PORT_PENDING_MAX / 2;
        len = CHAR_PORT_PENDING_MAX / 2;
    }
    if (p->pending_len + len > CHAR_PORT_PENDING_MAX)
        drop = p->pending_len - (CHAR_PORT_PENDING_MAX / 2 - len);
    if (drop > p->pending_len)
        drop = p->pending_len;
    if (drop) {
        p->dropped += drop;
        p->pending_len -= (uint32_t)drop;
        memmove(p->pending, p->pending + drop, p->pending_len);
    }
    /* A loaded state has a block of just its length: the size is asked for each time. */
    need = p->pending_len + len;
    grown = realloc(p->pending, (need + CHAR_PORT_GRAIN - 1) / CHAR_PORT_GRAIN * CHAR_PORT_GRAIN);
    if (!grown) {
        p->dropped += len;
        return;
    }
    p->pending = grown;
    memcpy(p->pending + p->pending_len, data, len);
    p->pending_len += (uint32_t)len;
}

static void flush(struct char_port *p)
{
    size_t n = p->pending_len ? put_out(p, p->pending, p->pending_len) : 0;

    if (!n)
        return;
    p->pending_len -= (uint32_t)n;
    memmove(p->pending, p->pending + n, p->pending_len);
}

/* --- Sources -------------------------------------------------------------- */

static struct loop *loop_of(const struct char_port *p)
{
    return p->dev->env->loop;
}

static void drop_source(struct loop_source **src)
{
    loop_remove(*src);
    *src = NULL;
}

static void try_later(struct char_port *p, bool *wait)
{
    *wait = true;
    loop_arm_timer(p->timer, loop_now_ns() + CHAR_PORT_RETRY_MS * UINT64_C(1000000));
}

static void set_out(struct char_port *p, int fd)
{
    struct stat st = {0};
    int flags = fcntl(fd, F_GETFL);

    p->out_fd = fd;
    if (fd < 0)
        return;
    (void)fstat(fd, &st);
    p->out_is_socket = S_ISSOCK(st.st_mode);
    p->out_is_fifo = S_ISFIFO(st.st_mode);
    p->out_is_file = S_ISREG(st.st_mode);
    p->out_nonblock = flags >= 0 && flags & O_NONBLOCK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* The client is gone; the next one gets what is pending. */
static void close_client(struct char_port *p)
{
    drop_source(&p->in_src);
    drop_source(&p->out_src);
    close_fd(&p->in_fd);
    close_fd(&p->out_fd);
    p->client_gone = false;
}

static void watch(struct char_port *p);

static void on_output(void *arg, uint32_t events)
{
    struct char_port *p = arg;

    device_lock(p->dev);
    if (p->out_src) {
        flush(p);
        if (p->client_gone)
            close_client(p);
        else if (p->pending_len && events & (EPOLLHUP | EPOLLERR))
            try_later(p, &p->out_wait);
        if (!p->pending_len || p->out_wait)
            drop_source(&p->out_src);
        watch(p);
    }
    device_unlock(p->dev);
}

static void end_of_input(struct char_port *p)
{
    if (p->listen_fd >= 0) {
        close_client(p);
        return;
    }
    drop_source(&p->in_src);
    try_later(p, &p->in_wait);
}

static void on_input(void *arg, uint32_t events)
{
    uint8_t buf[CHAR_PORT_READ_MAX];
    struct char_port *p = arg;
    size_t room;
    ssize_t n;

    (void)events;
    device_lock(p->dev);
    room = p->in_src ? p->ops->room(p->dev) : 0;
    if (room) {
        n = read(p->in_fd, buf, room < sizeof(buf) ? room : sizeof(buf));
        if (n > 0)
            p->ops->input(p->dev, buf, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            end_of_input(p);
        room = p->ops->room(p->dev);
    }
    if (p->in_src && !room)
        drop_source(&p->in_src);
    watch(p);
    device_unlock(p->dev);
}

/* A handle for each direction, so that each can have a source. */
static void take_client(struct char_port *p, int fd)
{
    p->in_fd = fd;
    set_out(p, fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (p->out_fd >= 0)
        return;
    close_client(p);
    try_later(p, &p->listen_wait);
}

static void on_listen(void *arg, uint32_t events)
{
    struct char_port *p = arg;
    int fd;

    (void)events;
    device_lock(p->dev);
    if (p->listen_src) {
        drop_source(&p->listen_src);
        fd = accept4(p->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            take_client(p, fd);
        else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            try_later(p, &p->listen_wait);
        flush(p);
        watch(p);
    }
    device_unlock(p->dev);
}

static void on_timer(void *arg)
{
    struct char_port *p = arg;

    device_lock(p->dev);
    p->in_wait = false;
    p->out_wait = false;
    p->listen_wait = false;
    watch(p);
    device_unlock(p->dev);
}

static void add_source(struct char_port *p, int fd, uint32_t events, loop_fd_fn *fn,
                       struct loop_source **src)
{
    /* Fails for what cannot be waited for: a regular file, /dev/null; and where memory is short. */
    if (!*src && loop_add_fd(loop_of(p), fd, events, fn, p, src) < 0)
        *src = NULL;
}

/* Wait for whatever there is to wait for now. */
static void watch(struct char_port *p)
{
    if (!p->running)
        return;
    if (p->in_fd >= 0 && !p->in_wait && p->ops->room(p->dev))
        add_source(p, p->in_fd, EPOLLIN, on_input, &p->in_src);
    if (p->out_fd >= 0 && !p->out_wait && p->pending_len)
        add_source(p, p->out_fd, EPOLLOUT, on_output, &p->out_src);
    if (p->listen_fd >= 0 && !p->listen_wait && p->in_fd < 0)
        add_source(p, p->listen_fd, EPOLLIN, on_listen, &p->listen_src);
}

/* --- Life cycle ----------------------------------------------------------- */

static int check_handle(const struct device *dev, const char *name, int fd, int mode,
                        struct err *err)
{
    int flags;

    if (fd < 0)
        return 0;
    flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return err_set(err, -EINVAL, "%s: %s %d is not open", dev->id, name, fd);
    if ((flags & O_ACCMODE) != mode && (flags & O_ACCMODE) != O_RDWR)
        return err_set(err, -EINVAL, "%s: %s is not open for %s", dev->id, name,
                       mode == O_RDONLY ? "reading" : "writing");
    return 0;
}

static int check_config(const struct device *dev, const struct char_port_config *cfg,
                        struct err *err)
{
    int rc;

    if (cfg->listen_fd >= 0 && (cfg->out_fd >= 0 || cfg->in_fd >= 0))
        return err_set(err, -EINVAL, "%s: listen_fd and another handle", dev->id);
    rc = check_handle(dev, "out_fd", cfg->out_fd, O_WRONLY, err);
    if (rc < 0)
        return rc;
    rc = check_handle(dev, "in_fd", cfg->in_fd, O_RDONLY, err);
    return rc < 0 ? rc : check_handle(dev, "listen_fd", cfg->listen_fd, O_RDWR, err);
}

int char_port_init(struct char_port *p, struct device *dev, const struct char_port_config *cfg,
                   const struct char_port_ops *ops, struct err *err)
{
    int out_fd = cfg->out_fd;
    int rc = check_config(dev, cfg, err);

    if (rc < 0)
        return rc;
    if (cfg->out_fd >= 0 && cfg->out_fd == cfg->in_fd) {
        out_fd = fcntl(cfg->out_fd, F_DUPFD_CLOEXEC, 0);
        if (out_fd < 0)
            return err_set(err, -errno, "%s: out_fd: %s", dev->id, strerror(errno));
    }
    p->dev = dev;
    p->ops = ops;
    rc = loop_add_timer(loop_of(p), on_timer, p, &p->timer);
    if (rc < 0) {
        if (out_fd != cfg->out_fd)
            (void)close(out_fd);
        p->dev = NULL;
        return err_set(err, rc, "%s: timer: %s", dev->id, strerror(-rc));
    }
    p->in_fd = cfg->in_fd;
    p->listen_fd = cfg->listen_fd;
    set_out(p, out_fd);
    return 0;
}

void char_port_release(struct char_port *p)
{
    if (!p->dev)
        return;
    p->running = false;
    drop_source(&p->in_src);
    drop_source(&p->out_src);
    drop_source(&p->listen_src);
    drop_source(&p->timer);
    close_fd(&p->in_fd);
    close_fd(&p->out_fd);
    close_fd(&p->listen_fd);
}

void char_port_start(struct char_port *p)
{
    p->running = true;
    flush(p);
    watch(p);
}

static void stop_on_loop(void *arg)
{
    struct char_port *p = arg;

    device_lock(p->dev);
    p->running = false;
    p->in_wait = false;
    p->out_wait = false;
    p->listen_wait = false;
    loop_arm_timer(p->timer, 0);
    drop_source(&p->in_src);
    drop_source(&p->out_src);
    drop_source(&p->listen_src);
    flush(p);
    device_unlock(p->dev);
}

void char_port_stop(struct char_port *p)
{
    loop_call(loop_of(p), stop_on_loop, p);
}

void char_port_write(struct char_port *p, const uint8_t *data, size_t len)
{
    size_t n = p->pending_len ? 0 : put_out(p, data, len);

    if (n == len)
        return;
    keep(p, data + n, len - n);
    watch(p);
}

void char_port_has_room(struct char_port *p)
{
    watch(p);
}

/* --- State ---------------------------------------------------------------- */

static const struct state_field char_port_fields[] = {
    /* clang-format off */
    STATE_BLOB(struct char_port, 1, pending, pending_len, CHAR_PORT_PENDING_MAX),
    /* clang-format on */
};

const struct state_desc char_port_state = {
    .name = "char-port",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct char_port),
    .fields = char_port_fields,
    .nr_fields = ARRAY_LEN(char_port_fields),
};
