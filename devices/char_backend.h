/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of a character device: a terminal, a pty, a file, a socket, nothing.
 */
#ifndef DEVICES_CHAR_BACKEND_H
#define DEVICES_CHAR_BACKEND_H

#include "core/config/vm_config.h"

struct char_backend {
    int out_fd;    /* -1: output goes nowhere */
    int in_fd;     /* -1: there is no input; may equal out_fd */
    int listen_fd; /* -1: no socket; clients come and go */
    char *pty;     /* path of the pty's other end; NULL: no pty */
    char *socket;  /* path that clients know; NULL: none */
    char *hidden;  /* name of the same socket until it is published */
    bool published;
    bool raw_tty; /* the terminal was put into raw mode */
};

/**
 * char_backend_open() - open what the configuration asks for.
 * @what: name in messages ("serial").
 * @cfg:  complete.
 *
 * Descriptors may be blocking: devices use them without waiting.
 *
 * Return: 0 and *@ret_be, owned, to be given to char_backend_close(); -EEXIST if something other
 * than a socket is where one is to be; the kernel's errno, with the path in @err.
 * Threads: control.
 */
CHECKED int char_backend_open(const char *what, const struct console_config *cfg,
                              struct char_backend *ret_be, struct err *err);

/**
 * char_backend_publish() - give a socket the path that clients know.
 *
 * Until then it has a name beside that path, so that the destination of a move
 * can build its machine while the source still serves the path.  Harmless for
 * other back ends, and when done.
 *
 * Return: 0; -EADDRINUSE if somebody serves the path; -EEXIST if something other than a socket is
 * there; the kernel's errno.
 * Threads: control or worker.
 */
CHECKED int char_backend_publish(struct char_backend *be, struct err *err);

/**
 * char_backend_hide() - undo char_backend_publish(): the path is free for another host process.
 *
 * Threads: control or worker.
 */
void char_backend_hide(struct char_backend *be);

/**
 * char_backend_taken() - a device has taken the descriptors; it closes them.
 *
 * Threads: control.
 */
void char_backend_taken(struct char_backend *be);

/**
 * char_backend_close() - close everything; the terminal is as it was.
 * @be: contents taken; an all-closed one is allowed.
 *
 * Threads: control.
 */
void char_backend_close(struct char_backend *be);

#endif
