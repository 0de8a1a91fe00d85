/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end is a process of its own and is killed in each of its operations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "core/log.h"
#include "tests/fakes/fake_guest.h"

static const struct fake_guest_config tiny = {.len = {KIB(512)}, .data_percent = 50, .seed = 11};

static struct mig_dial dial;

static int setup(void **state)
{
    (void)state;
    dial.url.is_unix = true;
    (void)snprintf(dial.url.path, sizeof(dial.url.path), "/tmp/test_mig_kill.%d", getpid());
    return 0;
}

static void die_in(void *arg, enum fake_op op)
{
    const enum fake_op *at = arg;

    if (op == *at)
        (void)raise(SIGKILL);
}

static int run_dest(struct fake_guest *g, struct mig_listener *ls, struct err *err)
{
    struct mig_dest_params dp = {.ops = &fake_dest_ops,
                                 .arg = g,
                                 .open = mig_open_by_accept,
                                 .open_arg = ls,
                                 .open_fd = mig_listener_fd(ls),
                                 .attempts = 1,
                                 .accept_ms = 20000};
    struct mig_dest *dst;
    int rc;

    assert_int_equal(mig_dest_new(&dp, &dst, NULL), 0);
    rc = mig_dest_run(dst, err);
    mig_dest_free(dst);
    return rc;
}

static int run_source(struct fake_guest *g, struct mig_status *ret_st, struct err *err)
{
    struct mig_source_params sp = {.ops = &fake_source_ops,
                                   .arg = g,
                                   .gm = g->gm,
                                   .dirty = g->dirty,
                                   .open = mig_open_by_connect,
                                   .open_arg = &dial,
                                   .limits = {.downtime_ns = 300000000}};
    struct mig_source *src;
    int rc;

    assert_int_equal(mig_source_new(&sp, &src, NULL), 0);
    rc = mig_source_run(src, NULL, err);
    mig_progress_read(mig_source_progress(src), ret_st);
    mig_source_free(src);
    return rc;
}

static void await_child(pid_t pid, bool killed)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, killed);
}

/* Whether the log of a dead destination says that the guest of this migration was its own. */
static bool says_taken(int log, const struct mig_status *st)
{
    char text[4096] = "", want[64];

    assert_true(pread(log, text, sizeof(text) - 1, 0) >= 0);
    (void)snprintf(want, sizeof(want), "migration %s: taken", st->id);
    return strstr(text, want);
}

static void kill_dest_in(enum fake_op op, enum mig_result result)
{
    int log = memfd_create("log", MFD_CLOEXEC);
    struct mig_listener *ls;
    struct mig_status st;
    struct fake_guest g;
    struct err err = {0};
    pid_t pid;

    assert_true(log >= 0);
    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct fake_guest to;

        log_init(log, LOG_WARN);
        fake_guest_expect(&to, &tiny);
        to.on_op = die_in;
        to.on_op_arg = &op;
        _exit(run_dest(&to, ls, &err) == 0 ? 0 : 1);
    }
    fake_guest_start(&g, &tiny);
    assert_true(run_source(&g, &st, &err) < 0);
    assert_int_equal(st.result, result);
    assert_int_equal(atomic_load(&g.running), result == MIG_RESULT_FAILED);
    assert_int_equal(atomic_load(&g.holds_locks), result == MIG_RESULT_FAILED);
    await_child(pid, true);
    assert_int_equal(says_taken(log, &st), op == FAKE_OP_START);
    fake_guest_release(&g);
    mig_listener_close(ls);
    close(log);
}

static void test_the_destination_is_killed(void **state)
{
    (void)state;
    kill_dest_in(FAKE_OP_BUILD, MIG_RESULT_FAILED);
    kill_dest_in(FAKE_OP_STAGE, MIG_RESULT_FAILED);
    kill_dest_in(FAKE_OP_LOAD, MIG_RESULT_FAILED);
    kill_dest_in(FAKE_OP_ACQUIRE, MIG_RESULT_UNDECIDED);
    kill_dest_in(FAKE_OP_START, MIG_RESULT_UNDECIDED);
}

static void kill_source_in(enum fake_op op, bool runs_here)
{
    struct mig_listener *ls;
    struct fake_guest to;
    struct err err = {0};
    pid_t pid;

    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct fake_guest g;
        struct mig_status st;

        fake_guest_start(&g, &tiny);
        g.on_op = die_in;
        g.on_op_arg = &op;
        _exit(run_source(&g, &st, &err) == 0 ? 0 : 1);
    }
    fake_guest_expect(&to, &tiny);
    assert_int_equal(run_dest(&to, ls, &err) == 0, runs_here);
    assert_int_equal(atomic_load(&to.running), runs_here);
    assert_int_equal(atomic_load(&to.holds_locks), runs_here);
    await_child(pid, true);
    fake_guest_release(&to);
    mig_listener_close(ls);
}

static void test_the_source_is_killed(void **state)
{
    (void)state;
    kill_source_in(FAKE_OP_DESCRIBE, false);
    kill_source_in(FAKE_OP_PAUSE, false);
    kill_source_in(FAKE_OP_SAVE, false);
    kill_source_in(FAKE_OP_RELEASE, false);
    kill_source_in(FAKE_OP_COMMITTED, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_destination_is_killed),
        cmocka_unit_test(test_the_source_is_killed),
    };

    return cmocka_run_group_tests_name("mig_kill", tests, setup, NULL);
}
