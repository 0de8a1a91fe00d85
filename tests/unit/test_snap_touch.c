/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/wire.h"
#include "snapshot/snap_touch.h"
#include "tests/unit/store_fixture.h"

static const struct store_digest ram = {
    .alg = STORE_ALG_SHA256, .b = {1, 2, 3}
};
static const struct snap_touch_run runs[] = {
    {.region = 0,  .nr = 16,  .first = 32                       },
    {.region = 1,  .nr = 1,   .first = 0                        },
    {.region = 63, .nr = 200, .first = (UINT64_C(1) << 40) - 200},
};

static struct snap_touch example(void)
{
    struct snap_touch t = {0};

    for (size_t i = 0; i < ARRAY_LEN(runs); i++)
        snap_touch_add(&t, &runs[i]);
    return t;
}

static void encode(uint8_t **bytes, size_t *len)
{
    struct snap_touch t = example();

    assert_int_equal(snap_touch_encode(&t, &ram, bytes, len), 0);
    snap_touch_release(&t);
}

static void test_runs_that_follow_each_other_become_one(void **state)
{
    struct snap_touch_run run = {.region = 2, .nr = UINT16_MAX - 1, .first = 7};
    struct snap_touch t = {0};

    (void)state;
    snap_touch_add(&t, &run);
    run = (struct snap_touch_run){.region = 2, .nr = 1, .first = 7 + UINT16_MAX - 1};
    snap_touch_add(&t, &run);
    assert_int_equal(t.nr, 1);
    assert_int_equal(t.runs[0].nr, UINT16_MAX);
    run.first++;
    snap_touch_add(&t, &run); /* it would not fit the number */
    run.region = 3;
    run.first++;
    snap_touch_add(&t, &run); /* another region */
    run.first = 1;
    snap_touch_add(&t, &run); /* elsewhere */
    assert_int_equal(t.nr, 4);
    snap_touch_release(&t);
    assert_null(t.runs);
}

static void test_what_is_full_takes_no_more(void **state)
{
    struct snap_touch t = {0};

    (void)state;
    for (uint64_t i = 0; i < SNAP_TOUCH_MAX + 10; i++)
        snap_touch_add(&t, &(struct snap_touch_run){.nr = 1, .first = 2 * i});
    assert_int_equal(t.nr, SNAP_TOUCH_MAX);
    snap_touch_release(&t);
}

static void test_bytes_come_back_as_they_were(void **state)
{
    auto_free uint8_t *bytes = NULL;
    struct snap_touch t = {0};
    size_t len = 0;

    (void)state;
    encode(&bytes, &len);
    assert_int_equal(len, SNAP_TOUCH_HDR_LEN + 3 * SNAP_TOUCH_RUN_LEN + SNAP_TOUCH_SUM_LEN);
    assert_int_equal(snap_touch_decode(bytes, len, &ram, &t, NULL), 0);
    assert_int_equal(t.nr, ARRAY_LEN(runs));
    for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
        assert_int_equal(t.runs[i].region, runs[i].region);
        assert_int_equal(t.runs[i].nr, runs[i].nr);
        assert_int_equal(t.runs[i].first, runs[i].first);
    }
    snap_touch_release(&t);
}

static void test_every_truncation_and_every_changed_byte_is_refused(void **state)
{
    auto_free uint8_t *bytes = NULL;
    size_t len = 0;

    (void)state;
    encode(&bytes, &len);
    for (size_t n = 0; n < len; n++) {
        struct snap_touch t = {0};
        struct err err = {0};

        assert_true(snap_touch_decode(bytes, n, &ram, &t, &err) < 0);
        assert_non_null(strstr(err.msg, "order of touch"));
        bytes[n] ^= 0x20;
        err = (struct err){0};
        assert_true(snap_touch_decode(bytes, len, &ram, &t, &err) < 0);
        assert_non_null(strstr(err.msg, "order of touch"));
        bytes[n] ^= 0x20;
        assert_null(t.runs);
    }
}

static void test_each_refusal_names_its_field(void **state)
{
    static const struct {
        size_t off;
        uint8_t value;
        int rc;
        const char *msg;
    } rows[] = {
        {0,  'X', -EBADMSG, "magic"           },
        {8,  2,   -ENOTSUP, "version: 2"      },
        {10, 47,  -EBADMSG, "header length"   },
        {12, 2,   -EBADMSG, "runs: 2"         },
        {16, 9,   -EBADMSG, "another snapshot"},
        {60, 1,   -EBADMSG, "digest"          },
    };
    auto_free uint8_t *bytes = NULL;
    size_t len = 0;

    (void)state;
    encode(&bytes, &len);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t was = bytes[rows[i].off];
        struct snap_touch t = {0};
        struct err err = {0};

        bytes[rows[i].off] = rows[i].value;
        assert_int_equal(snap_touch_decode(bytes, len, &ram, &t, &err), rows[i].rc);
        if (!strstr(err.msg, rows[i].msg))
            fail_msg("'%s' does not say '%s'", err.msg, rows[i].msg);
        bytes[rows[i].off] = was;
    }
}

static void test_a_store_keeps_it(void **state)
{
    struct snap_touch t = example(), back = {0};
    struct fixture f;
    char path[FIXTURE_PATH_MAX + 16];
    struct err err = {0};

    (void)state;
    fixture_make(&f);
    assert_int_equal(mkdir(f.path, 0700), 0);
    assert_int_equal(snap_touch_save(f.path, &ram, &t, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "cache"));
    (void)snprintf(path, sizeof(path), "%s/cache", f.path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(snap_touch_load(f.path, &ram, &back, &err), -ENOENT);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(snap_touch_save(f.path, &ram, &t, NULL), 0);
        assert_int_equal(snap_touch_load(f.path, &ram, &back, NULL), 0);
        assert_int_equal(back.nr, t.nr);
        snap_touch_release(&back);
    }
    snap_touch_release(&t);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_that_follow_each_other_become_one),
        cmocka_unit_test(test_what_is_full_takes_no_more),
        cmocka_unit_test(test_bytes_come_back_as_they_were),
        cmocka_unit_test(test_every_truncation_and_every_changed_byte_is_refused),
        cmocka_unit_test(test_each_refusal_names_its_field),
        cmocka_unit_test(test_a_store_keeps_it),
    };

    return cmocka_run_group_tests_name("snap_touch", tests, NULL, NULL);
}
