/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API's socket in the file system, and the lock that guards it.
 */
#ifndef CORE_API_API_SOCKET_H
#define CORE_API_API_SOCKET_H

#include "core/err.h"

struct api_socket {
    int fd;      /* listening, non-blocking, owned */
    int lock_fd; /* of <path>.lock, owned; -1 for a socket that was handed over */
    char *path;  /* owned; NULL for a socket that was handed over */
    bool bound;  /* the socket at path is ours */
};

/**
 * api_socket_open() - take the lock, remove what a dead server left, listen.
 * @path: of the socket.
 *
 * Return: 0 and *@ret_sock, owned, to be given to api_socket_close();
 * -EADDRINUSE if a server has the lock or serves the path without it; -EEXIST if @path is no
 * socket; -ENAMETOOLONG; the kernel's errno.
 * Threads: any.
 */
CHECKED int api_socket_open(const char *path, struct api_socket *ret_sock, struct err *err);

/**
 * api_socket_adopt() - serve a socket that listens already.
 * @fd: taken, also on failure.
 *
 * Return: 0 and *@ret_sock, owned; -EINVAL if it is no listening UNIX socket.
 * Threads: any.
 */
CHECKED int api_socket_adopt(int fd, struct api_socket *ret_sock, struct err *err);

/**
 * api_socket_close() - close, and remove socket and lock file if they are ours.
 * @sock: may be all zero with fd and lock_fd -1.
 *
 * Threads: any.
 */
void api_socket_close(struct api_socket *sock);

#endif
