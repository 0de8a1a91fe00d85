/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "migration/mig_fsm.h"
#include "migration/mig_wire.h"

struct buf {
    uint8_t b[32768];
    struct wr w;
};

static void start(struct buf *b)
{
    b->w = (struct wr){b->b, sizeof(b->b), false};
}

static size_t used(const struct buf *b)
{
    assert_false(b->w.bad);
    return sizeof(b->b) - b->w.left;
}

static const struct mig_hello hello = {
    .version_min = 1,
    .version_max = 7,
    .page_size = 4096,
    .lanes = 128,
    .nr_caps = 2,
    .caps = {{true, "must"}, {false, "may"}},
};

static const struct mig_layout layout = {
    .nr = 2, .regions = {{0, MIB(1), "ram"}, {GIB(4), KIB(64), "high"}}
};

/* --- Round trips, and every truncation ----------------------------------- */

static void test_hello_round_trip(void **state)
{
    static struct buf b;
    struct mig_hello got;
    struct err err = {0};

    (void)state;
    start(&b);
    mig_hello_put(&hello, &b.w);
    memset(&got, 0xee, sizeof(got));
    assert_int_equal(mig_hello_get(b.b, used(&b), &got, &err), 0);
    assert_int_equal(got.version_max, 7);
    assert_int_equal(got.lanes, 128);
    assert_int_equal(got.nr_caps, 2);
    assert_true(got.caps[0].required);
    assert_string_equal(got.caps[0].name, "must");
    assert_false(got.caps[1].required);
    assert_string_equal(got.caps[1].name, "may");
    for (size_t n = 0; n < used(&b); n++)
        assert_int_equal(mig_hello_get(b.b, n, &got, NULL), -EBADMSG);
    assert_int_equal(mig_hello_get(b.b, used(&b) + 1, &got, NULL), -EBADMSG);
}

static void test_config_round_trip(void **state)
{
    static struct buf b;
    struct mig_config got;

    (void)state;
    start(&b);
    mig_layout_put(&layout, 5, &b.w);
    wr_bytes(&b.w, "hello", 5);
    assert_int_equal(mig_config_get(b.b, used(&b), &got, NULL), 0);
    assert_int_equal(mig_layout_compare(&layout, &got.layout, NULL), 0);
    assert_int_equal(got.len, 5);
    assert_memory_equal(got.data, "hello", 5);
    for (size_t n = 0; n < used(&b); n++)
        assert_true(mig_config_get(b.b, n, &got, NULL) < 0);
    assert_int_equal(mig_config_get(b.b, used(&b) + 1, &got, NULL), -EBADMSG);
}

static void test_refusal_round_trip(void **state)
{
    static struct mig_refusal why, got;
    static struct buf b;

    (void)state;
    assert_int_equal(mig_refuse(&why, "cpu: %s", "x"), -ENOTSUP);
    assert_int_equal(mig_refuse(&why, "esc \x1b[2J"), -ENOTSUP);
    start(&b);
    mig_refusal_put(&why, &b.w);
    assert_int_equal(mig_refusal_get(b.b, used(&b), &got, NULL), 0);
    assert_int_equal(got.nr, 2);
    assert_string_equal(got.reasons[0], "cpu: x");
    /* What a peer says is shown to people: no control characters. */
    assert_string_equal(got.reasons[1], "esc ?[2J");
    for (size_t n = 0; n < used(&b); n++)
        assert_true(mig_refusal_get(b.b, n, &got, NULL) < 0);
    for (unsigned i = 0; i < 2 * MIG_REASONS_MAX; i++)
        (void)mig_refuse(&why, "%0300d", 0);
    assert_int_equal(why.nr, MIG_REASONS_MAX);
    start(&b);
    mig_refusal_put(&why, &b.w);
    assert_true(used(&b) <= MIG_SMALL_MAX);
    assert_int_equal(mig_refusal_get(b.b, used(&b), &got, NULL), 0);
    assert_int_equal(mig_refuse(NULL, "nobody listens"), -ENOTSUP);
}

static void test_small_messages_round_trip(void **state)
{
    struct mig_round_end e = {7, true, 1000, 2000}, e2;
    struct mig_times t = {1, 2, 3, 4}, t2;
    static struct buf b;

    (void)state;
    start(&b);
    mig_round_end_put(&e, &b.w);
    assert_int_equal(mig_round_end_get(b.b, used(&b), &e2, NULL), 0);
    assert_true(e2.round == 7 && e2.last && e2.data_pages == 1000 && e2.zero_pages == 2000);
    assert_int_equal(mig_round_end_get(b.b, used(&b) - 1, &e2, NULL), -EBADMSG);
    start(&b);
    mig_times_put(&t, &b.w);
    assert_int_equal(mig_times_get(b.b, used(&b), &t2, NULL), 0);
    assert_memory_equal(&t, &t2, sizeof(t));
    assert_int_equal(mig_times_get(b.b, used(&b) + 1, &t2, NULL), -EBADMSG);
}

/* --- Refusals ------------------------------------------------------------ */

static void test_bad_hellos_are_refused(void **state)
{
    static const struct {
        size_t at;
        uint8_t byte;
        int rc;
    } rows[] = {
        {0,  'X',  -EBADMSG}, /* magic */
        {8,  9,    -EBADMSG}, /* min > max */
        {16, 0,    -E2BIG  }, /* no lanes */
        {16, 129,  -E2BIG  },
        {19, 1,    -E2BIG  },
        {20, 17,   -E2BIG  }, /* capabilities */
        {20, 1,    -EBADMSG}, /* left over */
        {20, 3,    -EBADMSG}, /* cut short */
        {25, 0,    -EBADMSG}, /* nameless */
        {25, 32,   -EBADMSG},
        {26, ' ',  -EBADMSG}, /* unprintable */
        {26, 0x80, -EBADMSG},
    };
    struct mig_hello got;
    static struct buf b;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct err err = {0};

        start(&b);
        mig_hello_put(&hello, &b.w);
        b.b[rows[i].at] = rows[i].byte;
        if (mig_hello_get(b.b, used(&b), &got, &err) != rows[i].rc)
            fail_msg("row %u: %s", i, err.msg);
        assert_true(strncmp(err.msg, "HELLO", 5) == 0);
    }
}

static void test_bad_layouts_are_refused(void **state)
{
    static const struct {
        unsigned region;
        uint64_t gpa, len;
        const char *id;
    } rows[] = {
        {0, 1,                MIB(1), "ram"                                },
        {0, 0,                4095,   "ram"                                },
        {0, 0,                0,      "ram"                                },
        {0, UINT64_MAX << 12, MIB(1), "ram"                                },
        {0, 0,                GIB(5), "ram"                                }, /* overlaps */
        {1, 0,                MIB(1), "high"                               }, /* out of order */
        {1, GIB(4),           MIB(1), ""                                   },
        {1, GIB(4),           MIB(1), "a b"                                },
        {1, GIB(4),           MIB(1), "0123456789012345678901234567890\x01"},
    };
    struct mig_config got;
    static struct buf b;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct mig_layout l = layout;

        l.regions[rows[i].region].gpa = rows[i].gpa;
        l.regions[rows[i].region].len = rows[i].len;
        memset(l.regions[rows[i].region].id, 0, sizeof(l.regions[0].id));
        memcpy(l.regions[rows[i].region].id, rows[i].id, strlen(rows[i].id));
        start(&b);
        mig_layout_put(&l, 0, &b.w);
        assert_int_equal(mig_config_get(b.b, used(&b), &got, NULL), -EBADMSG);
    }
    start(&b);
    wr_le32(&b.w, GMEM_REGIONS_MAX + 1);
    wr_le32(&b.w, 0);
    assert_int_equal(mig_config_get(b.b, used(&b), &got, NULL), -E2BIG);
    start(&b);
    wr_le32(&b.w, 1);
    wr_le32(&b.w, MIG_CONFIG_MAX + 1);
    assert_int_equal(mig_config_get(b.b, used(&b), &got, NULL), -E2BIG);
}

static void test_layouts_that_differ_are_told_apart(void **state)
{
    static struct mig_refusal why;
    struct mig_layout other = layout;

    (void)state;
    other.nr = 1;
    assert_int_equal(mig_layout_compare(&layout, &other, &why), -ENOTSUP);
    assert_string_equal(why.reasons[0], "memory: 2 regions at the source, 1 here");
    other = layout;
    other.regions[1].gpa += 4096;
    (void)snprintf(other.regions[0].id, sizeof(other.regions[0].id), "other");
    why.nr = 0;
    assert_int_equal(mig_layout_compare(&layout, &other, &why), -ENOTSUP);
    assert_int_equal(why.nr, 2); /* all at once */
}

static void test_bad_pages_are_refused(void **state)
{
    static const struct {
        const char *why;
        struct mig_run run;
        uint32_t kind, codec, payload, nr_runs;
        int rc;
    } rows[] = {
  /* clang-format off */
        {"fine", {0, 0, 1, 0}, 1, 0, 4096, 1, 0},
        {"fine, zero", {0, 0, 256, 0}, 0, 0, 0, 1, 0},
        {"fine, at the end", {255, 0, 1, 0}, 1, 0, 4096, 1, 0},
        {"no such region", {0, 2, 1, 0}, 0, 0, 0, 1, -EBADMSG},
        {"no such region", {0, UINT32_MAX, 1, 0}, 0, 0, 0, 1, -EBADMSG},
        {"past the end", {255, 0, 2, 0}, 0, 0, 0, 1, -EBADMSG},
        {"far past the end", {UINT64_MAX, 0, 1, 0}, 0, 0, 0, 1, -EBADMSG},
        {"wraps", {UINT64_MAX, 0, 2, 0}, 0, 0, 0, 1, -EBADMSG},
        {"too many", {0, 0, UINT32_MAX, 0}, 0, 0, 0, 1, -EBADMSG},
        {"none", {0, 0, 0, 0}, 0, 0, 0, 1, -EBADMSG},
        {"unknown kind", {0, 0, 1, 0}, 2, 0, 0, 1, -EBADMSG},
        {"payload too small", {0, 0, 2, 0}, 1, 0, 4096, 1, -EBADMSG},
        {"payload for zero", {0, 0, 1, 0}, 0, 0, 4096, 1, -EBADMSG},
        {"fine, compressed", {0, 0, 1, 0}, 1, 1, 100, 1, 0},
        {"compressed and not smaller", {0, 0, 1, 0}, 1, 1, 4096, 1, -EBADMSG},
        {"compressed to nothing", {0, 0, 1, 0}, 1, 1, 0, 1, -EBADMSG},
        {"zeroes, compressed", {0, 0, 1, 0}, 0, 1, 0, 1, -EBADMSG},
        {"unknown codec", {0, 0, 1, 0}, 1, 9, 4096, 1, -ENOTSUP},
        {"payload too large", {0, 0, 1, 0}, 1, 0, MIG_PAYLOAD_MAX + 1, 1, -E2BIG},
        {"no runs", {0, 0, 1, 0}, 1, 0, 4096, 0, -E2BIG},
        {"too many runs", {0, 0, 1, 0}, 1, 0, 4096, MIG_RUNS_MAX + 1, -E2BIG},
  /* clang-format on */
    };
    static struct mig_pages got;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct mig_pages_hdr hdr = {le32_make(rows[i].nr_runs),
                                    le32_make(rows[i].codec),
                                    le32_make(rows[i].payload),
                                    {{0}}};
        struct mig_run_wire wire = {le64_make(rows[i].run.first),
                                    le32_make(rows[i].run.region),
                                    le32_make(rows[i].run.nr),
                                    le32_make(rows[i].kind),
                                    {{0}}};
        uint32_t len = (uint32_t)(sizeof(hdr) + rows[i].nr_runs * sizeof(wire) + rows[i].payload);
        struct err err = {0};
        size_t runs_len;
        int rc;

        rc = mig_pages_peek(&hdr, len, &runs_len, &err);
        if (rc >= 0) {
            assert_int_equal(runs_len, sizeof(wire));
            assert_int_equal(mig_pages_peek(&hdr, len + 1, &runs_len, NULL), -EBADMSG);
            assert_int_equal(mig_pages_peek(&hdr, len - 1, &runs_len, NULL), -EBADMSG);
            rc = mig_pages_get(&hdr, &wire, &layout, &got, &err);
        }
        if (rc != rows[i].rc)
            fail_msg("%s: %d: %s", rows[i].why, rc, err.msg);
    }
}

static void test_lengths_are_bound_by_type(void **state)
{
    (void)state;
    assert_int_equal(mig_hdr_check(MIG_MSG_COMMIT, 0, NULL), 0);
    assert_int_equal(mig_hdr_check(MIG_MSG_COMMIT, 1, NULL), -E2BIG);
    assert_int_equal(mig_hdr_check(MIG_MSG_READY, 39, NULL), -EBADMSG);
    assert_int_equal(mig_hdr_check(MIG_MSG_READY, 40, NULL), 0);
    assert_int_equal(mig_hdr_check(MIG_MSG_READY, 41, NULL), -E2BIG);
    assert_int_equal(mig_hdr_check(999, MIG_SMALL_MAX, NULL), 0);
    assert_int_equal(mig_hdr_check(999, MIG_SMALL_MAX + 1, NULL), -E2BIG);
    assert_int_equal(mig_hdr_check(0, UINT32_MAX, NULL), -E2BIG);
    for (unsigned type = 1; type < MIG_NR_MSGS; type++) {
        assert_string_not_equal(mig_msg_name(type), "?");
        assert_int_equal(mig_hdr_check(type, UINT32_MAX, NULL), -E2BIG);
    }
    assert_string_equal(mig_msg_name(0), "?");
    assert_string_equal(mig_msg_name(MIG_NR_MSGS), "?");
}

/* --- The order of messages ----------------------------------------------- */

static void test_the_two_tables_fit_each_other(void **state)
{
    const struct mig_fsm *s = &mig_source_fsm, *d = &mig_dest_fsm;

    (void)state;
    /* What one may send somewhere the other may receive somewhere. */
    for (unsigned swap = 0; swap < 2; swap++) {
        for (size_t i = 0; i < s->nr_rows; i++) {
            bool found = false;

            for (size_t k = 0; k < d->nr_rows; k++)
                found |= d->rows[k].msg == s->rows[i].msg && d->rows[k].dir != s->rows[i].dir;
            assert_true(found);
        }
        s = &mig_dest_fsm;
        d = &mig_source_fsm;
    }
}

static void test_nothing_takes_back_a_commit_but_the_destination(void **state)
{
    (void)state;
    for (size_t i = 0; i < mig_source_fsm.nr_rows; i++) {
        const struct mig_fsm_row *row = &mig_source_fsm.rows[i];

        if (row->from == MIG_SRC_COMMITTED)
            assert_int_equal(row->dir, MIG_IN);
        if (row->from == MIG_SRC_DONE || row->from == MIG_SRC_FAILED)
            fail_msg("a state that is an end has a way out");
    }
    for (size_t i = 0; i < mig_dest_fsm.nr_rows; i++) {
        const struct mig_fsm_row *row = &mig_dest_fsm.rows[i];

        /* The guest runs by COMMIT alone. */
        if (row->to == MIG_DST_DONE)
            assert_int_equal(row->from, MIG_DST_COMMITTED);
        if (row->to == MIG_DST_COMMITTED)
            assert_true(row->msg == MIG_MSG_COMMIT && row->dir == MIG_IN);
        if (row->from == MIG_DST_DONE || row->from == MIG_DST_FAILED)
            fail_msg("a state that is an end has a way out");
    }
}

static void test_a_step_that_is_not_in_the_table_is_refused_by_name(void **state)
{
    unsigned at = MIG_SRC_START;
    struct err err = {0};

    (void)state;
    assert_int_equal(mig_fsm_step(&mig_source_fsm, &at, MIG_OUT, MIG_MSG_COMMIT, &err), -EPROTO);
    assert_int_equal(at, MIG_SRC_START);
    assert_string_equal(err.msg, "cannot send COMMIT in state 'start'");
    assert_int_equal(mig_fsm_step(&mig_source_fsm, &at, MIG_OUT, MIG_MSG_HELLO, NULL), 0);
    assert_int_equal(at, MIG_SRC_GREETED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_round_trip),
        cmocka_unit_test(test_config_round_trip),
        cmocka_unit_test(test_refusal_round_trip),
        cmocka_unit_test(test_small_messages_round_trip),
        cmocka_unit_test(test_bad_hellos_are_refused),
        cmocka_unit_test(test_bad_layouts_are_refused),
        cmocka_unit_test(test_layouts_that_differ_are_told_apart),
        cmocka_unit_test(test_bad_pages_are_refused),
        cmocka_unit_test(test_lengths_are_bound_by_type),
        cmocka_unit_test(test_the_two_tables_fit_each_other),
        cmocka_unit_test(test_nothing_takes_back_a_commit_but_the_destination),
        cmocka_unit_test(test_a_step_that_is_not_in_the_table_is_refused_by_name),
    };

    return cmocka_run_group_tests_name("mig_wire", tests, NULL, NULL);
}
