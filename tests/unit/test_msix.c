/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "devices/msix.h"
#include "tests/fakes/fake_env.h"

enum {
    NR = 70,
};

struct fix {
    struct fake_env *fe;
    struct device dev;
    struct msix m;
};

static int setup(void **state)
{
    struct fix *f = test_calloc(1, sizeof(*f));

    f->fe = fake_env_new();
    f->dev = (struct device){.env = &f->fe->env, .id = "x"};
    msix_init(&f->m, NR);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    fake_env_free(f->fe);
    test_free(f);
    return 0;
}

static void test_vectors_are_masked_after_reset(void **state)
{
    struct fix *f = *state;

    for (unsigned i = 0; i < NR; i++)
        assert_int_equal(msix_table_read(&f->m, &f->dev, 16 * i + 12, 4), 1);
    assert_int_equal(msix_table_read(&f->m, &f->dev, 16 * NR + 12, 4), 0);
    assert_int_equal(msix_control_read(&f->m), NR - 1);
}

static void test_message_is_what_the_table_says(void **state)
{
    struct fix *f = *state;

    msix_table_write(&f->m, &f->dev, 16 * 69, 8, UINT64_C(0x1fee00003));
    msix_table_write(&f->m, &f->dev, 16 * 69 + 8, 8, 0x4041);
    assert_int_equal(msix_table_read(&f->m, &f->dev, 16 * 69, 8), UINT64_C(0x1fee00000));
    msix_notify(&f->m, &f->dev, 69);
    assert_int_equal(f->fe->nr_msis, 0); /* disabled: lost */
    msix_control_write(&f->m, &f->dev, MSIX_CTRL_ENABLE);
    assert_int_equal(f->fe->nr_msis, 0);
    msix_notify(&f->m, &f->dev, 69);
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(f->fe->msis[0].addr, UINT64_C(0x1fee00000));
    assert_int_equal(f->fe->msis[0].data, 0x4041);
}

static void test_masked_events_stay_pending(void **state)
{
    struct fix *f = *state;

    msix_control_write(&f->m, &f->dev, MSIX_CTRL_ENABLE);
    msix_notify(&f->m, &f->dev, 0);
    msix_notify(&f->m, &f->dev, 66);
    msix_notify(&f->m, &f->dev, 66);
    assert_int_equal(f->fe->nr_msis, 0);
    assert_int_equal(msix_pba_read(&f->m, &f->dev, 0, 8), 1);
    assert_int_equal(msix_pba_read(&f->m, &f->dev, 8, 4), 4);
    assert_int_equal(msix_pba_read(&f->m, &f->dev, 12, 4), 0);
    msix_table_write(&f->m, &f->dev, 16 * 66 + 12, 4, 0);
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(msix_pba_read(&f->m, &f->dev, 8, 8), 0);
    /* The function mask holds back everything, and lets everything go. */
    msix_control_write(&f->m, &f->dev, MSIX_CTRL_ENABLE | MSIX_CTRL_MASK_ALL);
    msix_table_write(&f->m, &f->dev, 12, 4, 0);
    msix_notify(&f->m, &f->dev, 66);
    assert_int_equal(f->fe->nr_msis, 1);
    msix_control_write(&f->m, &f->dev, MSIX_CTRL_ENABLE);
    assert_int_equal(f->fe->nr_msis, 3);
}

static void test_bad_accesses_are_counted(void **state)
{
    static const struct {
        uint64_t off;
        unsigned size;
    } rows[] = {
        {0, 1},
        {2, 2},
        {2, 4},
        {4, 8},
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_true(msix_table_read(&f->m, &f->dev, rows[i].off, rows[i].size) == UINT64_MAX);
        msix_table_write(&f->m, &f->dev, rows[i].off, rows[i].size, UINT64_MAX);
        assert_true(msix_pba_read(&f->m, &f->dev, rows[i].off, rows[i].size) == UINT64_MAX);
    }
    assert_int_equal(f->fe->guest_errors, 3 * ARRAY_LEN(rows));
    /* Past the end: nothing there, nothing said. */
    msix_table_write(&f->m, &f->dev, 16 * NR, 8, UINT64_MAX);
    msix_notify(&f->m, &f->dev, NR);
    msix_notify(&f->m, &f->dev, MSIX_NO_VECTOR);
    assert_int_equal(msix_pba_read(&f->m, &f->dev, 0x1000, 8), 0);
    assert_int_equal(msix_table_read(&f->m, &f->dev, 0x30000, 4), 0);
}

static int load(struct fix *f, const struct msix *from, struct err *err)
{
    struct state_buf buf = {0};
    struct state_section sec;
    const uint8_t *p;
    void *scratch;
    size_t len;
    int rc;

    assert_int_equal(state_save(&msix_state, "x", from, &buf, NULL), 0);
    p = buf.data;
    len = buf.len;
    assert_int_equal(state_section_next(&p, &len, &sec, NULL), 1);
    rc = state_stage(&sec, &msix_state, &f->m, &scratch, err);
    if (rc >= 0)
        state_commit(&msix_state, scratch, &f->m);
    state_buf_release(&buf);
    return rc;
}

static void test_state_is_checked(void **state)
{
    struct fix *f = *state;
    struct msix m = f->m;
    struct err err = {0};

    assert_int_equal(state_desc_check(&msix_state, &err), 0);
    m.pending[0] = 2;
    assert_int_equal(load(f, &m, &err), 0);
    assert_int_equal(f->m.pending[0], 2);

    m.enabled = true;
    m.entries[1].ctrl = 0;
    assert_int_equal(load(f, &m, &err), -EBADMSG);
    assert_string_equal(err.msg, "x.pending: vector 1 is not masked");
    m = f->m;
    m.nr--;
    err = (struct err){0};
    assert_int_equal(load(f, &m, &err), -ENOTSUP);
    assert_string_equal(err.msg, "x.entries: 69 vectors, this device has 70");
    m = f->m;
    m.entries[3].addr_lo = 1;
    assert_int_equal(load(f, &m, NULL), -EBADMSG);
    m = f->m;
    m.pending[1] = UINT64_C(1) << 63;
    assert_int_equal(load(f, &m, NULL), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_vectors_are_masked_after_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_message_is_what_the_table_says, setup, teardown),
        cmocka_unit_test_setup_teardown(test_masked_events_stay_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_accesses_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_is_checked, setup, teardown),
    };

    return cmocka_run_group_tests_name("msix", tests, NULL, NULL);
}
