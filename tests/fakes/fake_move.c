/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

void fake_move_over(struct fake_pair *p, struct fake_link *link)
{
    p->sp.open = fake_link_connect;
    p->dp.open = fake_link_accept;
    p->dest_ended = fake_link_stop_listening;
    p->sp.open_arg = p->dp.open_arg = link;
    p->dp.open_fd = fake_link_fd(link);
    fake_link_speak_tls(link, p->client);
}

uint64_t fake_move_bytes(struct fake_pair *p, unsigned conn, enum fake_dir dir)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    uint64_t n;

    fake_move_over(p, link);
    fake_pair_run(p);
    assert_int_equal(p->src_rc, 0);
    n = fake_link_bytes(link, conn, dir);
    fake_link_free(link);
    return n;
}

void fake_move_again(struct fake_pair *p)
{
    struct fake_link *link;
    int rc = p->src_rc;

    if (!atomic_load(&p->from.running))
        return;
    assert_true(rc < 0);
    atomic_store(&p->from.fail_op, FAKE_OP_NONE);
    p->from.on_op = NULL;
    p->sp.idle_ms = p->dp.idle_ms = p->dp.accept_ms = FAKE_PAIR_IDLE_MS;
    p->sp.hello_ms = p->dp.hello_ms = FAKE_PAIR_IDLE_MS;
    fake_guest_release(&p->to);
    fake_guest_expect(&p->to, &p->from.cfg);
    link = fake_link_new(&(struct fake_link_config){0});
    fake_move_over(p, link);
    fake_pair_start(p);
    fake_pair_join(p);
    fake_link_free(link);
    if (p->src_rc < 0)
        fail_msg("second attempt: %s", p->src_err.msg);
    assert_true(atomic_load(&p->to.running));
    assert_true(fake_guest_equal(&p->from, &p->to));
    p->src_rc = rc;
}

void fake_move_twice(struct fake_pair *p, const struct fake_link_config *cfg)
{
    struct fake_link *link = fake_link_new(cfg);

    fake_move_over(p, link);
    fake_pair_run(p);
    fake_link_free(link);
    fake_move_again(p);
}
