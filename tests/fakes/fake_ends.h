/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pair of engines over a real socket: a destination that listens, and a source that will connect
 * to it.
 */
#ifndef TESTS_FAKES_FAKE_ENDS_H
#define TESTS_FAKES_FAKE_ENDS_H

#include "tests/fakes/fake_pair.h"

struct fake_ends {
    struct mig_tls *server, *client; /* owned; NULL: none */
    struct mig_dial to, at;
    struct mig_listener *ls; /* owned */
    struct fake_pair p;
};

/*
 * @url: where to listen; a port of 0 is any that is free.
 * @server_dir, @client_dir: NULL: without TLS.
 */
void fake_ends_open(struct fake_ends *e, const char *url, const struct fake_guest_config *guest,
                    const char *server_dir, const char *client_dir);

void fake_ends_close(struct fake_ends *e);

/* Two ends of a connection, without engines. */
void fake_ends_channels(struct mig_channel **ret_a, struct mig_channel **ret_b);

#endif
