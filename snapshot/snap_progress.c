/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_progress.h"

#include <errno.h>

#include "core/loop.h"

const char *snap_phase_name(enum snap_phase phase)
{
    static const char *const names[] = {
        [SNAP_PHASE_OPEN] = "open",       [SNAP_PHASE_COPY] = "copy",
        [SNAP_PHASE_STOPPED] = "stopped", [SNAP_PHASE_PUBLISH] = "publish",
        [SNAP_PHASE_READ] = "read",       [SNAP_PHASE_LOAD] = "load",
        [SNAP_PHASE_DONE] = "done",
    };

    return names[phase];
}

void snap_progress_begin(struct snap_progress *p, enum snap_phase phase, uint64_t pages_total)
{
    atomic_store(&p->phase, phase);
    atomic_store(&p->pages_total, pages_total);
    atomic_store(&p->started_ns, loop_now_ns());
}

void snap_progress_end(struct snap_progress *p)
{
    atomic_store(&p->total_ns, loop_now_ns() - atomic_load(&p->started_ns));
    atomic_store(&p->phase, SNAP_PHASE_DONE);
}

void snap_cancel(struct snap_progress *p)
{
    atomic_store(&p->cancelled, true);
}

int snap_check(struct snap_progress *p, struct err *err)
{
    return atomic_load(&p->cancelled) ? err_set(err, -ECANCELED, "cancelled") : 0;
}
