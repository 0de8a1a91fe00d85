/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_ends.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>

void fake_ends_open(struct fake_ends *e, const char *url, const struct fake_guest_config *guest,
                    const char *server_dir, const char *client_dir)
{
    memset(e, 0, sizeof(*e));
    if (server_dir)
        assert_int_equal(mig_tls_new(server_dir, MIG_TLS_SERVER, &e->server, NULL), 0);
    if (client_dir)
        assert_int_equal(mig_tls_new(client_dir, MIG_TLS_CLIENT, &e->client, NULL), 0);
    assert_int_equal(mig_url_parse(url, &e->at.url, NULL), 0);
    e->at.tls = e->server;
    assert_int_equal(mig_listen(&e->at, &e->ls, NULL), 0);
    assert_int_equal(mig_url_parse(mig_listener_url(e->ls).s, &e->to.url, NULL), 0);
    e->to.tls = e->client;
    fake_pair_init(&e->p, guest);
    e->p.sp.open = mig_open_by_connect;
    e->p.sp.open_arg = &e->to;
    e->p.dp.open = mig_open_by_accept;
    e->p.dp.open_arg = e->ls;
    e->p.dp.open_fd = mig_listener_fd(e->ls);
    e->p.dp.tls = e->server;
}

void fake_ends_close(struct fake_ends *e)
{
    fake_pair_release(&e->p);
    mig_listener_close(e->ls);
    mig_tls_free(e->server);
    mig_tls_free(e->client);
}

void fake_ends_channels(struct mig_channel **ret_a, struct mig_channel **ret_b)
{
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    assert_int_equal(mig_channel_from_fd(fd[0], ret_a), 0);
    assert_int_equal(mig_channel_from_fd(fd[1], ret_b), 0);
}
