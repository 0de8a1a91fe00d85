/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_track.h"

#include <errno.h>

int snap_track_new(struct dirty *d, struct snap_track **ret_track, struct err *err)
{
    struct snap_track *t = calloc(1, sizeof(*t));
    int rc;

    if (!t)
        return err_set(err, -ENOMEM, "out of memory");
    rc = dirty_attach(d, &t->dirty, err);
    if (rc < 0) {
        free(t);
        return rc;
    }
    dirty_set_all(t->dirty);
    *ret_track = t;
    return 0;
}

void snap_track_free(struct snap_track *t)
{
    if (!t)
        return;
    dirty_detach(t->dirty);
    free(t);
}
