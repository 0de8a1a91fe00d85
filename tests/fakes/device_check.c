/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/device_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/dcbor.h"
#include "core/loop.h"

struct device *device_check_new(const struct device_ops *ops, const struct dev_env *env,
                                const char *id, const void *cfg)
{
    struct device *dev = NULL;
    struct err err = {0};

    if (device_new(ops, env, id, cfg, &dev, &err) < 0)
        fail_msg("%s: %s", id, err.msg);
    return dev;
}

struct device_pair *device_pair_new(const struct device_ops *ops, const char *id, const void *cfg)
{
    struct device_pair *pair = calloc(1, sizeof(*pair));

    assert_non_null(pair);
    pair->fe = fake_env_new();
    pair->fresh = device_check_new(ops, &pair->fe->env, id, cfg);
    pair->dev = device_check_new(ops, &pair->fe->env, id, cfg);
    device_check_resume(pair->dev);
    return pair;
}

void device_pair_free(struct device_pair *pair)
{
    if (!pair)
        return;
    device_free(pair->dev);
    device_free(pair->fresh);
    fake_env_free(pair->fe);
    free(pair);
}

static uint64_t mask_of(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

uint64_t device_check_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    uint64_t val;

    device_lock(dev);
    val = dev->ops->read(dev, win, off, size) & mask_of(size);
    device_unlock(dev);
    return val;
}

void device_check_write(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val)
{
    device_lock(dev);
    dev->ops->write(dev, win, off, size, val & mask_of(size));
    device_unlock(dev);
}

void device_check_rows(struct device *dev, const struct device_row *rows, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        const struct device_row *r = &rows[i];
        uint64_t got = r->val;

        if (r->op == 'r')
            got = device_check_read(dev, r->win, r->off, r->size);
        else
            device_check_write(dev, r->win, r->off, r->size, r->val);
        if (got != r->val)
            fail_msg("row %zu, %s: read 0x%llx, want 0x%llx", i, r->why, (unsigned long long)got,
                     (unsigned long long)r->val);
        if (dev->guest_errors != r->errors)
            fail_msg("row %zu, %s: %llu guest errors, want %u", i, r->why,
                     (unsigned long long)dev->guest_errors, r->errors);
    }
}

void device_check_pause(struct device *dev)
{
    struct err err = {0};

    if (!dev->ops->quiesce)
        return;
    if (dev->ops->quiesce(dev, loop_now_ns() + UINT64_C(10000000000), &err) < 0)
        fail_msg("%s: quiesce: %s", dev->id, err.msg);
}

void device_check_resume(struct device *dev)
{
    if (!dev->ops->resume)
        return;
    device_lock(dev);
    dev->ops->resume(dev);
    device_unlock(dev);
}

struct state_buf device_check_save(struct device *dev)
{
    struct state_buf buf = {0};
    struct err err = {0};

    if (state_save(dev->ops->state, dev->id, dev, &buf, &err) < 0)
        fail_msg("save: %s", err.msg);
    return buf;
}

int device_check_load(struct device *dev, const uint8_t *data, size_t len, struct err *err)
{
    struct state_section sec;
    void *scratch;
    int rc = state_section_next(&data, &len, &sec, err);

    if (rc < 0)
        return rc;
    if (!rc || len)
        return err_set(err, -EBADMSG, "not one section");
    rc = state_stage(&sec, dev->ops->state, dev, &scratch, err);
    if (rc < 0)
        return rc;
    state_commit(dev->ops->state, scratch, dev);
    return 0;
}

static bool saves_as(struct device *dev, const struct state_buf *want, size_t from)
{
    struct state_buf got = device_check_save(dev);
    bool same = got.len == want->len && got.len >= from &&
                !memcmp(got.data + from, want->data + from, got.len - from);

    state_buf_release(&got);
    return same;
}

void device_check_round_trip(struct device *dev, struct device *fresh)
{
    struct state_buf buf = device_check_save(dev);
    struct err err = {0};

    if (device_check_load(fresh, buf.data, buf.len, &err) < 0)
        fail_msg("load: %s", err.msg);
    /* The same id, so that the bytes can be the same. */
    memmove(fresh->id, dev->id, sizeof(fresh->id));
    if (!saves_as(fresh, &buf, 0))
        fail_msg("%s: saved, loaded and saved again gives other bytes", dev->id);
    state_buf_release(&buf);
}

/* Head of the map, "id" and the id. */
static size_t after_id(const struct state_buf *buf)
{
    struct dcbor_in in = {.p = buf->data, .left = buf->len};
    struct dcbor_item item = {0};

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(dcbor_next(&in, &item), 0);
    return buf->len - in.left;
}

static void check_changed(struct device *fresh, struct state_buf *buf, struct state_buf *now,
                          size_t at)
{
    struct err err = {0};

    if (device_check_load(fresh, buf->data, buf->len, &err) < 0) {
        assert_true(err.msg[0]);
        if (!saves_as(fresh, now, 0))
            fail_msg("offset %zu: refused, and the device changed", at);
        return;
    }
    if (!saves_as(fresh, buf, after_id(buf)))
        fail_msg("offset %zu: accepted, and saved as other bytes", at);
    state_buf_release(now);
    *now = device_check_save(fresh);
}

void device_check_bad_state(struct device *dev, struct device *fresh)
{
    struct state_buf buf = device_check_save(dev);
    struct state_buf now = device_check_save(fresh);

    for (size_t cut = 1; cut < buf.len; cut++) {
        struct err err = {0};

        assert_int_equal(device_check_load(fresh, buf.data, cut, &err), -EBADMSG);
        assert_true(err.msg[0]);
    }
    assert_true(saves_as(fresh, &now, 0));
    for (size_t bit = after_id(&buf) * 8; bit < buf.len * 8; bit++) {
        buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        check_changed(fresh, &buf, &now, bit / 8);
        buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    state_buf_release(&now);
    state_buf_release(&buf);
}

/* Where the value of a key lies; keys that are a part of another string are not expected. */
static size_t find_value(const struct state_buf *buf, const char *field, size_t *ret_len)
{
    char key[STATE_NAME_MAX + 1];
    size_t n = strlen(field);
    struct dcbor_in in;
    const uint8_t *p;

    assert_true(n < 24);
    key[0] = (char)(0x60 + n);
    memcpy(key + 1, field, n);
    p = memmem(buf->data, buf->len,
               "\x66"
               "fields",
               7);
    assert_non_null(p);
    p = memmem(p, buf->len - (size_t)(p - buf->data), key, n + 1);
    if (!p)
        fail_msg("no field %s", field);
    in.p = p + n + 1;
    in.left = buf->len - (size_t)(in.p - buf->data);
    p = in.p;
    assert_int_equal(dcbor_skip(&in, 32), 0);
    *ret_len = (size_t)(in.p - p);
    return (size_t)(p - buf->data);
}

void device_check_refused(struct device *dev, const char *field, const char *cbor, size_t cbor_len,
                          const char *msg)
{
    struct state_buf buf = device_check_save(dev), bad = {0};
    char want[ERR_MSG_SIZE];
    struct err err = {0};
    size_t at, len;

    at = find_value(&buf, field, &len);
    bad.len = buf.len - len + cbor_len;
    bad.data = malloc(bad.len);
    assert_non_null(bad.data);
    memcpy(bad.data, buf.data, at);
    memcpy(bad.data + at, cbor, cbor_len);
    memcpy(bad.data + at + cbor_len, buf.data + at + len, buf.len - at - len);
    assert_true(device_check_load(dev, bad.data, bad.len, &err) < 0);
    (void)snprintf(want, sizeof(want), "%s.%s", dev->id, msg);
    assert_string_equal(err.msg, want);
    assert_true(saves_as(dev, &buf, 0));
    state_buf_release(&bad);
    state_buf_release(&buf);
}
