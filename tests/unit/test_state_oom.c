/* SPDX-License-Identifier: Apache-2.0 */
/* The n-th allocation fails, for every n; linked with --wrap for the three allocators. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/state.h"
#include "tests/fakes/fake_thing.h"

static int fail_at;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static bool now_fails(void)
{
    return fail_at > 0 && --fail_at == 0;
}

void *__wrap_malloc(size_t n)
{
    return now_fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return now_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return now_fails() ? NULL : __real_realloc(p, n);
}

static void test_saving_survives_every_failed_allocation(void **state)
{
    struct state_buf buf = {0}, want = {0};
    struct thing t;
    int rc = -1, k;

    (void)state;
    thing_fill(&t);
    assert_int_equal(state_save(&thing_state, "a", &t, &want, NULL), 0);
    for (k = 1; rc < 0; k++) {
        struct err err = {0};

        fail_at = k;
        rc = state_save(&thing_state, "a", &t, &buf, &err);
        fail_at = 0;
        if (rc < 0) {
            assert_int_equal(rc, -ENOMEM);
            assert_string_equal(err.msg, "a: out of memory");
            assert_int_equal(buf.len, 0);
            /* What had been allocated is kept for the next try: start afresh. */
            state_buf_release(&buf);
        }
        assert_true(k < 100);
    }
    assert_true(k > 2);
    assert_int_equal(buf.len, want.len);
    assert_memory_equal(buf.data, want.data, want.len);
    state_buf_release(&buf);
    state_buf_release(&want);
    state_release(&thing_state, &t);
}

static void test_staging_survives_every_failed_allocation(void **state)
{
    struct thing t, live = {0}, before;
    struct state_buf buf = {0};
    struct state_section sec;
    const uint8_t *p;
    void *scratch;
    int rc = -1, k;
    size_t left;

    (void)state;
    thing_fill(&t);
    assert_int_equal(state_save(&thing_state, "a", &t, &buf, NULL), 0);
    p = buf.data;
    left = buf.len;
    fail_at = 1; /* finding a section allocates nothing */
    assert_int_equal(state_section_next(&p, &left, &sec, NULL), 1);
    live.log = __real_malloc(1);
    live.log_len = 1;
    before = live;
    for (k = 1; rc < 0; k++) {
        struct err err = {0};

        fail_at = k;
        rc = state_stage(&sec, &thing_state, &live, &scratch, &err);
        fail_at = 0;
        assert_memory_equal(&live, &before, sizeof(live));
        if (rc < 0) {
            assert_int_equal(rc, -ENOMEM);
            assert_true(strstr(err.msg, "out of memory") != NULL);
        }
        assert_true(k < 100);
    }
    /* The scratch copy and two blobs: three failures, then success. */
    assert_int_equal(k, 5);
    fail_at = 1; /* nor does committing */
    state_commit(&thing_state, scratch, &live);
    assert_int_equal(fail_at, 1);
    fail_at = 0;
    assert_memory_equal(live.log, "hello", 5);
    state_buf_release(&buf);
    state_release(&thing_state, &live);
    state_release(&thing_state, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saving_survives_every_failed_allocation),
        cmocka_unit_test(test_staging_survives_every_failed_allocation),
    };

    return cmocka_run_group_tests_name("state_oom", tests, NULL, NULL);
}
