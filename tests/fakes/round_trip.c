/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/round_trip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

struct state_buf round_trip_save(struct device *dev)
{
    struct state_buf buf = {0};
    struct err err = {0};

    if (state_save(dev->ops->state, dev->id, dev, &buf, &err) < 0)
        fail_msg("%s", err.msg);
    return buf;
}

static int load_bytes(struct device *dev, const uint8_t *data, size_t len, struct err *err)
{
    struct state_section sec;
    void *scratch;
    int rc = state_section_next(&data, &len, &sec, err);

    if (rc == 1)
        rc = state_stage(&sec, dev->ops->state, dev, &scratch, err);
    else if (!rc)
        rc = err_set(err, -EBADMSG, "empty");
    if (rc < 0)
        return rc;
    state_commit(dev->ops->state, scratch, dev);
    return 0;
}

int round_trip_load(struct device *dev, const struct state_buf *buf, struct err *err)
{
    return load_bytes(dev, buf->data, buf->len, err);
}

static void assert_same(const struct state_buf *a, const struct state_buf *b)
{
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->data, b->data, a->len);
}

void round_trip_check(struct device *from, struct device *to)
{
    struct state_buf a = round_trip_save(from), b;
    struct err err = {0};

    if (round_trip_load(to, &a, &err) < 0)
        fail_msg("%s", err.msg);
    b = round_trip_save(to);
    assert_same(&a, &b);
    state_buf_release(&a);
    state_buf_release(&b);
}

void round_trip_cuts(struct device *dev)
{
    struct state_buf a = round_trip_save(dev), b;

    for (size_t cut = 0; cut < a.len; cut++) {
        struct err err = {0};

        if (load_bytes(dev, a.data, cut, &err) != -EBADMSG || !err.msg[0])
            fail_msg("cut at %zu: %s", cut, err.msg);
    }
    b = round_trip_save(dev);
    assert_same(&a, &b);
    state_buf_release(&a);
    state_buf_release(&b);
}
