/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is to be known of the path of a UNIX socket before one is made there: it takes the place of
 * no file, and of no socket that somebody serves.
 */
#ifndef CORE_SOCKET_NAME_H
#define CORE_SOCKET_NAME_H

#include <sys/un.h>

#include "core/base.h"
#include "core/err.h"

/**
 * socket_name_address() - a path as an address.
 *
 * Return: 0; -ENAMETOOLONG.  Threads: any.
 */
CHECKED int socket_name_address(const char *path, struct sockaddr_un *ret, struct err *err);

/**
 * socket_name_check() - whether a socket could be there; whoever serves it is not disturbed.
 * @path: nothing, or a socket; a link is neither, wherever it leads.
 *
 * Return: 0; -EEXIST what is there is not a socket; -ENAMETOOLONG; -errno it cannot be looked at.
 * Threads: any.
 */
CHECKED int socket_name_check(const char *path, struct err *err);

/**
 * socket_name_may_take() - whether a new socket may have this name.
 * @path: nothing, or a socket that a process left which has ended: that is for the caller to remove
 *        or to rename over.  Who serves it sees a connection come and go.
 *
 * Return: 0; as socket_name_check(); -EADDRINUSE somebody serves it.  Threads: any; does not block.
 */
CHECKED int socket_name_may_take(const char *path, struct err *err);

#endif
