/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the other end is: URLs, connecting and listening.
 *
 *     unix:/path/to/socket
 *     tcp:host:port            host: a name, an IPv4 address, [an IPv6 address]
 *
 * TCP without TLS goes to and comes from loopback addresses only, unless
 * `insecure` says otherwise.
 */
#ifndef MIGRATION_MIG_DIAL_H
#define MIGRATION_MIG_DIAL_H

#include <sys/socket.h>

#include "migration/mig_channel.h"

enum {
    MIG_URL_MAX = 300,
};

struct mig_url {
    bool is_unix;
    char path[108]; /* unix: */
    char host[254]; /* tcp:, without brackets */
    char port[6];   /* tcp:, decimal */
};

/**
 * mig_url_parse() - parse a URL.
 *
 * Return: 0; -EINVAL with the reason in @err.
 * Threads: any.
 */
CHECKED int mig_url_parse(const char *text, struct mig_url *ret_url, struct err *err);

/* A URL as text. */
struct mig_url_text {
    char s[MIG_URL_MAX];
};

/**
 * mig_url_text() - a URL as mig_url_parse() takes it.
 *
 * Threads: any.
 */
struct mig_url_text mig_url_text(const struct mig_url *url);

/* How connections to a peer are made or taken. */
struct mig_dial {
    struct mig_url url;
    struct mig_tls *tls; /* borrowed; NULL: none */
    bool insecure;       /* TCP to any address without TLS */
    /* Of a name's addresses the one that mig_connect() reached, and goes to from then on. */
    struct sockaddr_storage peer;
    socklen_t peer_len; /* 0: none yet */
};

/**
 * mig_dial_check() - all for which mig_connect() would refuse to connect.
 *
 * A name is looked up by the system's resolver, which cannot be cancelled.
 *
 * Return: 0; -EINVAL for TLS on a UNIX socket, TCP without TLS beyond loopback, and
 * a port of 0; -EADDRNOTAVAIL for a name that is not known.
 * Threads: any.
 */
CHECKED int mig_dial_check(const struct mig_dial *dial, struct err *err);

/**
 * mig_connect() - connect to a destination, and shake hands where TLS is asked for.
 * @dial: tls must be of the client's role.
 *
 * A name is looked up by the system's resolver, which cannot be cancelled, until one of its
 * addresses was reached.
 *
 * Return: 0 and *@ret_ch, owned; -EINVAL for TLS on a UNIX socket, and TCP without
 * TLS beyond loopback; -EACCES for a certificate refused; -ECANCELED; -ETIMEDOUT;
 * the kernel's errno.
 * Threads: one at a time.
 */
CHECKED int mig_connect(struct mig_dial *dial, const struct mig_wait *wait,
                        struct mig_channel **ret_ch, struct err *err);

struct mig_listener;

/**
 * mig_listen() - wait for connections of a source.
 * @dial: tls must be of the server's role; url.port "0" takes any free port.
 *
 * A UNIX socket is made with mode 0600, in place of one that is left over, and removed by
 * mig_listener_close().
 *
 * Return: 0 and *@ret_ls, owned; -EINVAL for TLS on a UNIX socket, and TCP without
 * TLS beyond loopback; -EADDRINUSE if somebody serves the path; -EEXIST if it is no socket; the kernel's errno.
 * Threads: any.
 */
CHECKED int mig_listen(const struct mig_dial *dial, struct mig_listener **ret_ls, struct err *err);

/**
 * mig_listener_port() - the TCP port; 0 for a UNIX socket.
 *
 * Threads: any.
 */
unsigned mig_listener_port(const struct mig_listener *ls);

/**
 * mig_listener_url() - where it listens, with the port that it got.
 *
 * Threads: any.
 */
struct mig_url_text mig_listener_url(const struct mig_listener *ls);

/**
 * mig_listener_close() - stop listening.
 * @ls: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void mig_listener_close(struct mig_listener *ls);

/**
 * mig_listener_fd() - readable when there is a connection to take.
 *
 * Return: borrowed.
 * Threads: any.
 */
int mig_listener_fd(const struct mig_listener *ls);

/**
 * mig_accept() - take the next connection; hands are not shaken yet.
 * @wait: deadline_ns bounds the wait.
 *
 * Return: 0 and *@ret_ch, owned; -ECANCELED; -EAGAIN on wait->wake_fd;
 * -ETIMEDOUT on wait->deadline_ns; the kernel's errno.
 * Threads: one at a time.
 */
CHECKED int mig_accept(struct mig_listener *ls, const struct mig_wait *wait,
                       struct mig_channel **ret_ch, struct err *err);

/*
 * How an engine gets its connections: the first is the control channel, the
 * others are lanes.  mig_connect() and mig_accept() in the product, socket
 * pairs in tests.
 */
typedef int mig_open_fn(void *arg, const struct mig_wait *wait, struct mig_channel **ret_ch,
                        struct err *err);

/**
 * mig_open_by_connect() - a mig_open_fn; arg is a struct mig_dial.
 *
 * Return, Threads: as mig_connect().
 */
CHECKED int mig_open_by_connect(void *dial, const struct mig_wait *wait,
                                struct mig_channel **ret_ch, struct err *err);

/**
 * mig_open_by_accept() - a mig_open_fn; arg is a struct mig_listener.
 *
 * Return, Threads: as mig_accept().
 */
CHECKED int mig_open_by_accept(void *listener, const struct mig_wait *wait,
                               struct mig_channel **ret_ch, struct err *err);

#endif
