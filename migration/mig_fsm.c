/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_fsm.h"

#include <errno.h>

/* clang-format off */
#define IN(from, msg, to)  {MIG_##from, MIG_IN, MIG_MSG_##msg, MIG_##to}
#define OUT(from, msg, to) {MIG_##from, MIG_OUT, MIG_MSG_##msg, MIG_##to}

static const char *const source_names[] = {
    [MIG_SRC_START] = "start",         [MIG_SRC_GREETED] = "greeted",
    [MIG_SRC_AGREED] = "agreed",       [MIG_SRC_DESCRIBED] = "described",
    [MIG_SRC_ROUNDS] = "rounds",       [MIG_SRC_STOPPED] = "stopped",
    [MIG_SRC_LOADED] = "loaded",       [MIG_SRC_COMMITTED] = "committed",
    [MIG_SRC_DONE] = "done",           [MIG_SRC_FAILED] = "failed",
};

static const struct mig_fsm_row source_rows[] = {
    OUT(SRC_START, HELLO, SRC_GREETED),
    IN(SRC_GREETED, HELLO, SRC_AGREED),
    IN(SRC_GREETED, REFUSE, SRC_FAILED),
    OUT(SRC_AGREED, FACTS, SRC_AGREED),
    OUT(SRC_AGREED, CONFIG, SRC_DESCRIBED),
    IN(SRC_DESCRIBED, READY, SRC_ROUNDS),
    IN(SRC_DESCRIBED, REFUSE, SRC_FAILED),
    IN(SRC_ROUNDS, ROUND_DONE, SRC_ROUNDS),
    OUT(SRC_ROUNDS, STOP, SRC_STOPPED),
    IN(SRC_STOPPED, ROUND_DONE, SRC_STOPPED),
    OUT(SRC_STOPPED, STATE, SRC_STOPPED),
    IN(SRC_STOPPED, LOADED, SRC_LOADED),
    OUT(SRC_LOADED, COMMIT, SRC_COMMITTED),
    IN(SRC_COMMITTED, RUNNING, SRC_DONE),
    /* The destination has not started and never will: the guest is ours again. */
    IN(SRC_COMMITTED, ABORT, SRC_FAILED),
    /* Until COMMIT either end may give up; there is no row for OUT ABORT after it. */
    IN(SRC_GREETED, ABORT, SRC_FAILED),    OUT(SRC_GREETED, ABORT, SRC_FAILED),
    IN(SRC_AGREED, ABORT, SRC_FAILED),     OUT(SRC_AGREED, ABORT, SRC_FAILED),
    IN(SRC_DESCRIBED, ABORT, SRC_FAILED),  OUT(SRC_DESCRIBED, ABORT, SRC_FAILED),
    IN(SRC_ROUNDS, ABORT, SRC_FAILED),     OUT(SRC_ROUNDS, ABORT, SRC_FAILED),
    IN(SRC_STOPPED, ABORT, SRC_FAILED),    OUT(SRC_STOPPED, ABORT, SRC_FAILED),
    IN(SRC_LOADED, ABORT, SRC_FAILED),     OUT(SRC_LOADED, ABORT, SRC_FAILED),
};

static const char *const dest_names[] = {
    [MIG_DST_START] = "start",         [MIG_DST_GREETED] = "greeted",
    [MIG_DST_AGREED] = "agreed",       [MIG_DST_DESCRIBED] = "described",
    [MIG_DST_ROUNDS] = "rounds",       [MIG_DST_STOPPED] = "stopped",
    [MIG_DST_LOADED] = "loaded",       [MIG_DST_COMMITTED] = "committed",
    [MIG_DST_DONE] = "done",           [MIG_DST_FAILED] = "failed",
};

static const struct mig_fsm_row dest_rows[] = {
    IN(DST_START, HELLO, DST_GREETED),
    OUT(DST_GREETED, HELLO, DST_AGREED),
    OUT(DST_GREETED, REFUSE, DST_FAILED),
    IN(DST_AGREED, FACTS, DST_AGREED),
    IN(DST_AGREED, CONFIG, DST_DESCRIBED),
    OUT(DST_DESCRIBED, READY, DST_ROUNDS),
    OUT(DST_DESCRIBED, REFUSE, DST_FAILED),
    OUT(DST_ROUNDS, ROUND_DONE, DST_ROUNDS),
    IN(DST_ROUNDS, STOP, DST_STOPPED),
    OUT(DST_STOPPED, ROUND_DONE, DST_STOPPED),
    IN(DST_STOPPED, STATE, DST_STOPPED),
    OUT(DST_STOPPED, LOADED, DST_LOADED),
    IN(DST_LOADED, COMMIT, DST_COMMITTED),
    OUT(DST_COMMITTED, RUNNING, DST_DONE),
    /* Only where the guest has not run and never will. */
    OUT(DST_COMMITTED, ABORT, DST_FAILED),
    IN(DST_GREETED, ABORT, DST_FAILED),    OUT(DST_GREETED, ABORT, DST_FAILED),
    IN(DST_AGREED, ABORT, DST_FAILED),     OUT(DST_AGREED, ABORT, DST_FAILED),
    IN(DST_DESCRIBED, ABORT, DST_FAILED),  OUT(DST_DESCRIBED, ABORT, DST_FAILED),
    IN(DST_ROUNDS, ABORT, DST_FAILED),     OUT(DST_ROUNDS, ABORT, DST_FAILED),
    IN(DST_STOPPED, ABORT, DST_FAILED),    OUT(DST_STOPPED, ABORT, DST_FAILED),
    IN(DST_LOADED, ABORT, DST_FAILED),     OUT(DST_LOADED, ABORT, DST_FAILED),
};
/* clang-format on */

const struct mig_fsm mig_source_fsm = {source_names, source_rows, ARRAY_LEN(source_rows)};
const struct mig_fsm mig_dest_fsm = {dest_names, dest_rows, ARRAY_LEN(dest_rows)};

int mig_fsm_step(const struct mig_fsm *fsm, unsigned *state, enum mig_dir dir, unsigned msg,
                 struct err *err)
{
    for (size_t i = 0; i < fsm->nr_rows; i++) {
        const struct mig_fsm_row *row = &fsm->rows[i];

        if (row->from == *state && row->dir == dir && row->msg == msg) {
            *state = row->to;
            return 0;
        }
    }
    return err_set(err, -EPROTO, "%s %s in state '%s'",
                   dir == MIG_IN ? "the peer sent" : "cannot send", mig_msg_name(msg),
                   fsm->names[*state]);
}
