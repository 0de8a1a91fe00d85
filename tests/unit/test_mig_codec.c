/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "migration/mig_codec.h"
#include "migration/mig_wire.h"

static void test_compressing_is_tried_where_it_may_pay(void **state)
{
    static const struct {
        const char *why;
        struct mig_codec_stats s;
        bool yes;
    } rows[] = {
        {"nothing is known",                     {0, 0, 0, 0},            false},
        {"a link as fast as memory",             {300, 0, 0, 1000},       false},
        {"a slow link, never tried",             {8000, 0, 0, 0},         true },
        {"100 MB/s, half is left",               {10000, 2000, 500, 1},   true },
        {"1 Gbit/s, nothing is saved",           {8000, 2000, 1000, 1},   false},
        {"the same, but not tried for long",     {8000, 2000, 1000, 64},  true },
        {"compressing is as slow as the link",   {2000, 1900, 300, 1},    false},
        {"a very slow link, three tenths saved", {1000000, 2000, 700, 1}, true },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        if (mig_codec_try(&rows[i].s) != rows[i].yes)
            fail_msg("%s", rows[i].why);
}

/* A link that becomes slow, and fast again. */
static void test_it_switches_with_the_link(void **state)
{
    struct mig_codec_stats s = {0};
    unsigned packed[3] = {0};

    (void)state;
    for (unsigned phase = 0; phase < 3; phase++) {
        uint64_t ns_per_kib = phase == 1 ? 20000 : 200;

        for (unsigned i = 0; i < 200; i++) {
            uint64_t len = 512;

            if (mig_codec_try(&s)) {
                mig_codec_packed(&s, len << 10, len << 8, len * 2000);
                len /= 4;
                packed[phase]++;
            }
            mig_codec_sent(&s, len << 10, len * ns_per_kib);
        }
    }
    assert_int_equal(packed[0], 0);
    assert_true(packed[1] > 190);
    assert_true(packed[2] < 40);
}

/* Memory that is mostly zero: frames of a few bytes, which take as long as the call. */
static void test_short_frames_do_not_make_a_link_slow(void **state)
{
    struct mig_codec_stats s = {0};

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        mig_codec_sent(&s, 100 + i, 30000);
        assert_false(mig_codec_try(&s));
        if (i % 100 == 0)
            mig_codec_sent(&s, 512 << 10, 512 * 300);
    }
    assert_false(mig_codec_try(&s));
}

static void fill(uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i / 37);
}

static void test_what_is_packed_comes_out_again(void **state)
{
    static uint8_t pages[64 * PAGE_SIZE_4K];
    struct iovec iov[2] = {
        {pages,                    3 * PAGE_SIZE_4K },
        {pages + 3 * PAGE_SIZE_4K, 61 * PAGE_SIZE_4K},
    };
    struct mig_packer *a, *b;
    const void *packed, *got;
    struct err err = {0};
    int n;

    (void)state;
    fill(pages, sizeof(pages));
    assert_int_equal(mig_packer_new(&a), 0);
    assert_int_equal(mig_packer_new(&b), 0);
    n = mig_packer_pack(a, iov, 2, &packed);
    assert_true(n > 0 && (size_t)n < sizeof(pages) / 4);
    memcpy(mig_packer_input(b), packed, (size_t)n);
    assert_int_equal(mig_packer_unpack(b, (size_t)n, sizeof(pages), &got, &err), 0);
    assert_memory_equal(got, pages, sizeof(pages));
    /* Every byte changed, every cut, and another size than the runs have. */
    for (int i = 0; i < n; i++) {
        uint8_t *in = mig_packer_input(b);
        int rc;

        in[i] ^= 0x41;
        rc = mig_packer_unpack(b, (size_t)n, sizeof(pages), &got, &err);
        assert_true(rc == 0 || rc == -EBADMSG);
        in[i] ^= 0x41;
        assert_int_equal(mig_packer_unpack(b, (size_t)i, sizeof(pages), &got, &err), -EBADMSG);
    }
    assert_int_equal(mig_packer_unpack(b, (size_t)n, sizeof(pages) - 1, &got, &err), -EBADMSG);
    assert_int_equal(mig_packer_unpack(b, (size_t)n, sizeof(pages) + 1, &got, &err), -EBADMSG);
    mig_packer_free(a);
    mig_packer_free(b);
}

/* What zstd itself would take, and become the right pages. */
static void test_nothing_but_one_frame_is_taken(void **state)
{
    static const uint8_t skipped[] = {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0};
    static const uint8_t zero[1], no_bytes[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0};
    static const struct {
        const char *why;
        const uint8_t *data;
        size_t len;
        bool before; /* what has the pages */
        const char *says;
    } rows[] = {
        {"skipped before", skipped,  sizeof(skipped),  true,  "does not begin with a frame"},
        {"skipped behind", skipped,  sizeof(skipped),  false, "the frame ends after"       },
        {"empty before",   no_bytes, sizeof(no_bytes), true,  "the frame ends after"       },
        {"empty behind",   no_bytes, sizeof(no_bytes), false, "the frame ends after"       },
        {"a byte behind",  zero,     1,                false, "the frame ends after"       },
    };
    static uint8_t pages[4 * PAGE_SIZE_4K];
    struct iovec iov = {pages, sizeof(pages)};
    struct mig_packer *a, *b;
    const void *packed, *got;
    size_t len;

    (void)state;
    fill(pages, sizeof(pages));
    assert_int_equal(mig_packer_new(&a), 0);
    assert_int_equal(mig_packer_new(&b), 0);
    len = (size_t)mig_packer_pack(a, &iov, 1, &packed);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t *in = mig_packer_input(b);
        struct err err = {0};

        memcpy(in + (rows[i].before ? 0 : len), rows[i].data, rows[i].len);
        memcpy(in + (rows[i].before ? rows[i].len : 0), packed, len);
        if (mig_packer_unpack(b, len + rows[i].len, sizeof(pages), &got, &err) != -EBADMSG)
            fail_msg("%s", rows[i].why);
        if (!strstr(err.msg, rows[i].says))
            fail_msg("%s: %s", rows[i].why, err.msg);
    }
    mig_packer_free(a);
    mig_packer_free(b);
}

static void test_what_does_not_get_smaller_is_left(void **state)
{
    static uint64_t noise[8 * PAGE_SIZE_4K / 8];
    struct iovec iov = {noise, sizeof(noise)};
    struct mig_packer *a;
    const void *packed;
    uint64_t x = 88172645463325252;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(noise); i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        noise[i] = x;
    }
    assert_int_equal(mig_packer_new(&a), 0);
    assert_int_equal(mig_packer_pack(a, &iov, 1, &packed), 0);
    mig_packer_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compressing_is_tried_where_it_may_pay),
        cmocka_unit_test(test_it_switches_with_the_link),
        cmocka_unit_test(test_short_frames_do_not_make_a_link_slow),
        cmocka_unit_test(test_what_is_packed_comes_out_again),
        cmocka_unit_test(test_nothing_but_one_frame_is_taken),
        cmocka_unit_test(test_what_does_not_get_smaller_is_left),
    };

    return cmocka_run_group_tests_name("mig_codec", tests, NULL, NULL);
}
