/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_thing.h"

#include <errno.h>
#include <string.h>

static const struct state_field point_fields[] = {
    /* clang-format off */
    /*                        since  kind  member */
    STATE(struct thing_point,   1,   U16,  x),
    STATE(struct thing_point,   1,   I64,  y),
    STATE_BLOB(struct thing_point, 1, note, note_len, 16),
    /* clang-format on */
};

static int point_check(const void *scratch, const void *live, struct err *err)
{
    const struct thing_point *p = scratch;

    (void)live;
    if (p->x > 1000)
        return err_set(err, -EBADMSG, "x: %u is past 1000", p->x);
    return 0;
}

const struct state_desc thing_point_state = {
    .name = "thing-point",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct thing_point),
    .fields = point_fields,
    .nr_fields = ARRAY_LEN(point_fields),
    .check = point_check,
};

static const struct state_field thing_fields[] = {
    /* clang-format off */
    /*                 since  kind    member */
    STATE(struct thing,  1,   U8,     mode),
    STATE(struct thing,  1,   U16,    port),
    STATE(struct thing,  1,   U32,    flags),
    STATE(struct thing,  1,   U64,    base),
    STATE(struct thing,  1,   I64,    bias),
    STATE(struct thing,  1,   BOOL,   on),
    STATE(struct thing,  1,   U8,     ram),
    STATE(struct thing,  1,   U64,    regs),
    STATE(struct thing,  1,   BYTES,  uuid),
    STATE(struct thing,  1,   STR,    name),
    STATE_STRUCT(struct thing, 1, &thing_point_state, origin),
    STATE_STRUCT(struct thing, 1, &thing_point_state, corners),
    STATE_LIST(struct thing, 1, &thing_point_state, points, nr_points),
    STATE_BLOB(struct thing, 1, log, log_len, THING_LOG_MAX),
    /* clang-format on */
};

static int thing_check(const void *scratch, const void *live, struct err *err)
{
    const struct thing *t = scratch;
    const struct thing *now = live;

    if (t->mode > 9)
        return err_set(err, -EBADMSG, "mode: %u is past 9", t->mode);
    if (now->port && t->port != now->port)
        return err_set(err, -EINVAL, "port: %u, this one has %u", t->port, now->port);
    return 0;
}

const struct state_desc thing_state = {
    .name = "thing",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct thing),
    .fields = thing_fields,
    .nr_fields = ARRAY_LEN(thing_fields),
    .check = thing_check,
};

void thing_fill(struct thing *thing)
{
    /* clang-format off */
    *thing = (struct thing){
        .mode = 7,
        .port = 0x3f8,
        .flags = 0x12345678,
        .base = UINT64_MAX,
        .bias = -500,
        .on = true,
        .ram = {0, 23, 255},
        .regs = {24, UINT64_C(1) << 32},
        .uuid = {0xde, 0xad, 0xbe, 0xef},
        .name = "caf\xc3\xa9",
        .origin = {.x = 1, .y = -1},
        .corners = {{.x = 2, .y = 3}, {.x = 4, .y = INT64_MIN}},
        .points = {{.x = 10}, {.x = 20, .y = INT64_MAX}},
        .nr_points = 2,
        .log_len = 5,
    };
    /* clang-format on */
    thing->log = malloc(thing->log_len);
    thing->points[1].note = malloc(3);
    if (!thing->log || !thing->points[1].note)
        abort();
    memcpy(thing->log, "hello", thing->log_len);
    memcpy(thing->points[1].note, "abc", 3);
    thing->points[1].note_len = 3;
}
