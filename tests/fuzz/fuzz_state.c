/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a run of state sections.  Refused: explained, and the object
 * untouched.  Accepted: saved as the very same bytes, and shown as JSON.
 */
#include <errno.h>
#include <json_object.h>
#include <string.h>

#include "core/state.h"
#include "tests/fakes/fake_thing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void try_load(const struct state_section *sec)
{
    struct thing live = {.base = 42, .nr_points = 1}, before = live;
    struct state_buf buf = {0};
    struct err err = {0};
    void *scratch;

    if (state_stage(sec, &thing_state, &live, &scratch, &err) < 0) {
        must(err.code && err.msg[0]);
        must(!memcmp(&live, &before, sizeof(live)));
        return;
    }
    must(!memcmp(&live, &before, sizeof(live)));
    state_commit(&thing_state, scratch, &live);
    must(state_save(&thing_state, sec->id, &live, &buf, NULL) == 0);
    /* The table has no optional rows: what was kept out can only have come as opt. */
    if (buf.len == sec->len)
        must(!memcmp(buf.data, sec->data, sec->len));
    else
        must(memmem(sec->data, sec->len, "copt", 4) != NULL);
    state_buf_release(&buf);
    state_release(&thing_state, &live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const uint8_t *p = data;
    size_t left = len;
    struct state_section sec;
    struct json_object *json;
    struct err err = {0};
    int rc;

    while ((rc = state_section_next(&p, &left, &sec, &err)) > 0)
        try_load(&sec);
    must(!rc || (err.code == rc && err.msg[0]));
    if (state_to_json(data, len, &json, NULL) == 0) {
        must(!rc);
        (void)json_object_put(json);
    } else {
        must(rc < 0);
    }
    return 0;
}
