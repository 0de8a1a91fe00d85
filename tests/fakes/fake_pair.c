/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

void fake_pair_init(struct fake_pair *p, const struct fake_guest_config *cfg)
{
    memset(p, 0, sizeof(*p));
    fake_guest_start(&p->from, cfg);
    fake_guest_expect(&p->to, cfg);
    p->sp = (struct mig_source_params){.ops = &fake_source_ops,
                                       .arg = &p->from,
                                       .gm = p->from.gm,
                                       .dirty = p->from.dirty,
                                       .lanes = 1,
                                       .limits = {.downtime_ns = 300000000},
                                       .idle_ms = FAKE_PAIR_IDLE_MS,
                                       .hello_ms = FAKE_PAIR_IDLE_MS,
                                       .keepalive_ms = UINT_MAX};
    p->dp = (struct mig_dest_params){.ops = &fake_dest_ops,
                                     .arg = &p->to,
                                     .attempts = 1,
                                     .accept_ms = FAKE_PAIR_IDLE_MS,
                                     .idle_ms = FAKE_PAIR_IDLE_MS,
                                     .hello_ms = FAKE_PAIR_IDLE_MS,
                                     .keepalive_ms = UINT_MAX};
}

static void *source_main(void *arg)
{
    struct fake_pair *p = arg;

    p->src_rc = mig_source_run(p->src, &p->why, &p->src_err);
    return NULL;
}

static void *dest_main(void *arg)
{
    struct fake_pair *p = arg;

    p->dst_rc = mig_dest_run(p->dst, &p->dst_err);
    if (p->dest_ended)
        p->dest_ended(p->dp.open_arg);
    return NULL;
}

static void free_engines(struct fake_pair *p)
{
    mig_source_free(p->src);
    mig_dest_free(p->dst);
    p->src = NULL;
    p->dst = NULL;
}

void fake_pair_start(struct fake_pair *p)
{
    free_engines(p);
    p->src_err = p->dst_err = (struct err){0};
    memset(&p->why, 0, sizeof(p->why));
    assert_int_equal(mig_source_new(&p->sp, &p->src, NULL), 0);
    assert_int_equal(mig_dest_new(&p->dp, &p->dst, NULL), 0);
    assert_int_equal(pthread_create(&p->dst_thread, NULL, dest_main, p), 0);
    assert_int_equal(pthread_create(&p->src_thread, NULL, source_main, p), 0);
}

void fake_pair_join(struct fake_pair *p)
{
    assert_int_equal(pthread_join(p->src_thread, NULL), 0);
    /* Where it still waits for a source, none comes any more. */
    mig_progress_read(mig_dest_progress(p->dst), &p->dst_st);
    if (p->src_rc < 0 && p->dst_st.phase <= MIG_PHASE_CONNECT)
        (void)mig_dest_cancel(p->dst);
    assert_int_equal(pthread_join(p->dst_thread, NULL), 0);
    mig_progress_read(mig_source_progress(p->src), &p->src_st);
    mig_progress_read(mig_dest_progress(p->dst), &p->dst_st);
}

static void check_dest(struct fake_pair *p)
{
    bool ran = atomic_load(&p->to.running);

    assert_int_equal(p->dst_rc == 0, ran);
    assert_int_equal(p->dst_st.guest_here, ran);
    assert_int_equal(p->dst_st.phase, MIG_PHASE_DONE);
    if (ran) {
        assert_int_equal(p->dst_st.result, MIG_RESULT_COMPLETED);
        assert_true(atomic_load(&p->to.holds_locks));
        assert_true(fake_guest_equal(&p->from, &p->to));
        assert_int_equal(p->to.loaded, p->from.saves);
        return;
    }
    assert_true(p->dst_err.code < 0 && p->dst_err.msg[0]);
    assert_false(atomic_load(&p->to.holds_locks));
    /* Built is discarded, once. */
    assert_int_equal(atomic_load(&p->to.calls[FAKE_OP_DISCARD]),
                     atomic_load(&p->to.calls[FAKE_OP_BUILD]) ? 1 : 0);
}

/* What a person does about it: the destination's statement is brought to the source. */
static void resolve(struct fake_pair *p)
{
    enum mig_outcome said = p->dst_rc == 0 ? MIG_OUTCOME_TAKEN : MIG_OUTCOME_NEVER, heard;
    char text[MIG_STATEMENT_SIZE];
    struct mig_status st;

    assert_false(atomic_load(&p->from.running));
    assert_false(atomic_load(&p->from.holds_locks));
    assert_true(mig_dest_may_be_asked(p->dst));
    mig_statement_make(mig_dest_secret(p->dst), said, text);
    assert_int_equal(mig_statement_check(text, mig_source_secret(p->src), &heard, NULL), 0);
    assert_int_equal(heard, said);
    assert_int_equal(mig_source_resolve(p->src, heard, NULL), 0);
    mig_progress_read(mig_source_progress(p->src), &st);
    assert_int_equal(st.result,
                     said == MIG_OUTCOME_TAKEN ? MIG_RESULT_COMPLETED : MIG_RESULT_FAILED);
    assert_int_equal(st.guest_here, said == MIG_OUTCOME_NEVER);
    assert_int_equal(mig_source_resolve(p->src, heard, NULL), -EPERM);
    /* Now exactly one runs, and has the locks. */
    assert_true(atomic_load(&p->from.running) != atomic_load(&p->to.running));
    assert_int_equal(atomic_load(&p->from.holds_locks), atomic_load(&p->from.running));
    assert_int_equal(atomic_load(&p->to.holds_locks), atomic_load(&p->to.running));
    assert_int_equal(atomic_load(&p->from.calls[FAKE_OP_COMMITTED]),
                     said == MIG_OUTCOME_TAKEN ? 1 : 0);
}

void fake_pair_check(struct fake_pair *p)
{
    bool here = atomic_load(&p->from.running), there = atomic_load(&p->to.running);

    assert_false(here && there);
    check_dest(p);
    assert_int_equal(p->src_st.phase, MIG_PHASE_DONE);
    assert_int_equal(p->src_st.guest_here, here);
    /* A machine that has gone is not worth the time. */
    assert_false(p->src_rc < 0 && atomic_load(&p->from.log_on));
    assert_int_equal(atomic_load(&p->from.log_errors), 0);
    assert_int_equal(atomic_load(&p->from.calls[FAKE_OP_COMMITTED]), p->src_rc == 0 ? 1 : 0);
    if (p->src_rc == 0) {
        assert_int_equal(p->src_st.result, MIG_RESULT_COMPLETED);
        assert_true(there);
        assert_false(atomic_load(&p->from.holds_locks));
        return;
    }
    assert_true(p->src_err.code < 0 && p->src_err.msg[0]);
    if (p->src_st.result == MIG_RESULT_UNDECIDED) {
        assert_int_equal(p->src_rc, -EINPROGRESS);
        assert_false(here);
        resolve(p);
        return;
    }
    assert_false(there);
    assert_true(here);
    assert_true(atomic_load(&p->from.holds_locks));
}

void fake_pair_run(struct fake_pair *p)
{
    fake_pair_start(p);
    fake_pair_join(p);
    fake_pair_check(p);
}

void fake_pair_release(struct fake_pair *p)
{
    free_engines(p);
    fake_guest_release(&p->from);
    fake_guest_release(&p->to);
}
