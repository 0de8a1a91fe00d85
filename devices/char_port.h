/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of a character device: where its output goes and its input
 * comes from.  A part of a device, not a device.
 *
 * Handles: a file, pipe, FIFO, terminal or pty for each direction, or a
 * listening UNIX socket, on which one client at a time is served and the
 * others wait.  Handles may be blocking; they are used without blocking.
 *
 * Output never waits.  What the other end does not take is kept, up to
 * CHAR_PORT_PENDING_MAX bytes; then the oldest half is dropped and counted, so
 * that the last words of a guest are the ones that arrive.  What is kept is
 * state and travels.  Output that cannot be delivered at all (a reader that
 * went away, a full disk) is dropped and counted.  While no client is
 * connected to a listening socket output is kept.
 *
 * Input is read only while the device has room for it; the rest waits in the
 * kernel.  At the end of input, and after an error, it is tried again every
 * CHAR_PORT_RETRY_MS: a FIFO gets another writer, a pty another user.  A
 * handle that epoll does not take (a regular file, /dev/null) gives no input.
 *
 * Threads: the device's lock guards it, unless a function says otherwise.
 */
#ifndef DEVICES_CHAR_PORT_H
#define DEVICES_CHAR_PORT_H

#include "core/device.h"
#include "core/state.h"

struct loop_source;

enum {
    CHAR_PORT_PENDING_MAX = 64 << 10, /* bytes */
    CHAR_PORT_RETRY_MS = 500,
};

/* Each handle is -1 where there is none; with a listen_fd there are no others. */
struct char_port_config {
    int out_fd; /* none: output is thrown away */
    int in_fd;  /* may be the same handle as out_fd */
    int listen_fd;
};

#define CHAR_PORT_NONE ((struct char_port_config){.out_fd = -1, .in_fd = -1, .listen_fd = -1})

/* What the device does with input; both are called with the device locked. */
struct char_port_ops {
    /* Bytes that it can take now. */
    size_t (*room)(struct device *dev);
    /* At most that many. */
    void (*input)(struct device *dev, const uint8_t *data, size_t len);
};

/* A member of the device's struct; only char_port_state names its first two members. */
struct char_port {
    uint8_t *pending; /* output not yet taken; owned, freed by state_release() */
    uint32_t pending_len;

    struct device *dev; /* NULL until char_port_init() */
    const struct char_port_ops *ops;
    int out_fd, in_fd, listen_fd;   /* owned */
    struct loop_source *out_src;    /* while output is pending */
    struct loop_source *in_src;     /* while there is room */
    struct loop_source *listen_src; /* while nobody is connected */
    struct loop_source *timer;
    bool out_is_socket, out_is_fifo, out_is_file, out_nonblock;
    bool running;
    bool in_wait, out_wait, listen_wait; /* for the timer, to try again what failed */
    bool client_gone;                    /* seen in writing; the loop's thread closes */
    uint64_t dropped;                    /* bytes of output */
};

extern const struct state_desc char_port_state;

/**
 * char_port_init() - take the handles; nothing is read until char_port_start().
 * @dev: the device that @p is a member of; its environment's loop is used.
 * @cfg: handles; taken on success.
 * @ops: static; may be NULL where in_fd and listen_fd are -1.
 *
 * Return: 0; -EINVAL for a handle that cannot be used, named; -ENOMEM.
 * Threads: control, in realize.
 */
CHECKED int char_port_init(struct char_port *p, struct device *dev,
                           const struct char_port_config *cfg, const struct char_port_ops *ops,
                           struct err *err);

/**
 * char_port_release() - close the handles; also if char_port_init() failed or was not called.
 *
 * Threads: control, in destroy, without dev->lock.
 */
void char_port_release(struct char_port *p);

/**
 * char_port_start() - read input, and go on with output that is pending.
 *
 * Threads: in resume.
 */
void char_port_start(struct char_port *p);

/**
 * char_port_stop() - leave the loop; what the other end takes at once is still written.
 *
 * Threads: control, in quiesce, without dev->lock.
 */
void char_port_stop(struct char_port *p);

/**
 * char_port_write() - output.
 *
 * Threads: any, with dev->lock.
 */
void char_port_write(struct char_port *p, const uint8_t *data, size_t len);

/**
 * char_port_has_room() - the device can take input again.
 *
 * Threads: any, with dev->lock.
 */
void char_port_has_room(struct char_port *p);

#endif
