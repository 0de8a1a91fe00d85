/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "core/wire.h"
#include "devices/virtqueue.h"
#include "tests/fakes/fake_env.h"

enum {
    SIZE = 8,
    DESC = 0x1000,
    AVAIL = 0x2000,
    USED = 0x3000,
    TABLE = 0x4000, /* an indirect one */
    BUF = 0x10000,
    RAM_END = FAKE_ENV_RAM_LOW + FAKE_ENV_RAM_ADJACENT,
};

#define INDIRECT  (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)

struct fix {
    struct fake_env *fe;
    struct virtqueue vq;
    struct vq_chain chain;
};

static void start(struct fix *f, uint64_t features)
{
    vq_reset(&f->vq);
    f->vq.size = SIZE;
    f->vq.desc_gpa = DESC;
    f->vq.avail_gpa = AVAIL;
    f->vq.used_gpa = USED;
    f->vq.enabled = true;
    memset(gmem_region(f->fe->env.gm, 0)->hva, 0, 0x10000);
    assert_int_equal(vq_start(&f->vq, features), 0);
}

static int setup(void **state)
{
    struct fix *f = test_calloc(1, sizeof(*f));

    f->fe = fake_env_new();
    vq_init(&f->vq, f->fe->env.gm, 256);
    start(f, INDIRECT);
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

static void put16(struct fix *f, uint64_t gpa, unsigned val)
{
    assert_int_equal(gmem_store_le16(f->fe->env.gm, gpa, (uint16_t)val), 0);
}

static unsigned get16(struct fix *f, uint64_t gpa)
{
    uint16_t val;

    assert_int_equal(gmem_load_le16(f->fe->env.gm, gpa, &val), 0);
    return val;
}

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

static void put_desc(struct fix *f, uint64_t table, unsigned i, const struct desc *d)
{
    uint8_t raw[16];
    struct wr w = {.p = raw, .left = sizeof(raw)};

    wr_le64(&w, d->addr);
    wr_le32(&w, d->len);
    wr_le16(&w, d->flags);
    wr_le16(&w, d->next);
    assert_int_equal(gmem_copy_out(f->fe->env.gm, table + 16 * i, raw, sizeof(raw)), 0);
}

static void offer(struct fix *f, unsigned head)
{
    unsigned idx = get16(f, AVAIL + 2);

    put16(f, AVAIL + 4 + 2 * (idx % SIZE), head);
    put16(f, AVAIL + 2, idx + 1);
}

enum {
    NEXT = VRING_DESC_F_NEXT,
    WRITE = VRING_DESC_F_WRITE,
    IND = VRING_DESC_F_INDIRECT,
};

/* --- Good chains ------------------------------------------------------------ */

static void test_chain_is_read_and_returned(void **state)
{
    struct fix *f = *state;
    const struct desc descs[] = {
        {BUF,                  5,    NEXT,         3},
        {FAKE_ENV_GPA_HIGH,    4096, WRITE,        0},
        {0,                    0,    0,            0},
        {FAKE_ENV_RAM_LOW - 2, 4,    NEXT,         5}, /* across two regions */
        {0,                    0,    0,            0},
        {BUF + 64,             3,    WRITE | NEXT, 1},
    };
    char text[16] = {0};
    struct iovec iov[4];
    uint32_t elem[2];

    for (unsigned i = 0; i < ARRAY_LEN(descs); i++)
        put_desc(f, DESC, i, &descs[i]);
    assert_int_equal(gmem_copy_out(f->fe->env.gm, BUF, "hello", 5), 0);
    assert_int_equal(gmem_copy_out(f->fe->env.gm, FAKE_ENV_RAM_LOW - 2, "wide", 4), 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), 0);
    offer(f, 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
    assert_int_equal(f->chain.nr_out, 3);
    assert_int_equal(f->chain.nr_in, 2);
    assert_int_equal(f->chain.out_len, 9);
    assert_int_equal(f->chain.in_len, 4099);
    assert_int_equal(vq_chain_read(&f->chain, 0, text, sizeof(text)), 9);
    assert_string_equal(text, "hellowide");
    assert_int_equal(vq_chain_read(&f->chain, 6, text, 2), 2);
    assert_memory_equal(text, "id", 2);
    assert_int_equal(vq_chain_read(&f->chain, 9, text, 2), 0);
    assert_int_equal(vq_chain_out_iov(&f->chain, 6, iov, 4), 2);
    assert_int_equal(iov[0].iov_len, 1);
    assert_int_equal(vq_chain_out_iov(&f->chain, 0, iov, 2), -E2BIG);
    assert_int_equal(vq_chain_in_iov(&f->chain, 2, 2, iov, 4), 2);
    assert_int_equal(iov[1].iov_len, 1);

    fake_env_oracle_begin(f->fe);
    assert_int_equal(vq_chain_write(&f->vq, &f->chain, 2, "abcdef", 6), 6);
    vq_push(&f->vq, f->chain.head, 8);
    assert_int_equal(fake_env_oracle_end(f->fe), 3);
    assert_int_equal(gmem_copy_in(f->fe->env.gm, FAKE_ENV_GPA_HIGH, text, 5), 0);
    assert_memory_equal(text, "bcdef", 5);
    assert_int_equal(get16(f, USED + 2), 1);
    assert_int_equal(gmem_copy_in(f->fe->env.gm, USED + 4, elem, 8), 0);
    assert_int_equal(elem[0], 0);
    assert_int_equal(elem[1], 8);
    assert_int_equal(vq_pop(&f->vq, &f->chain), 0);
}

static void test_indirect_chain(void **state)
{
    struct fix *f = *state;
    const struct desc head[] = {
        {BUF,   16,     NEXT,        1}, /* direct first, as some drivers do */
        {TABLE, 16 * 3, IND | WRITE, 0}, /* WRITE has no meaning here */
    };
    const struct desc table[] = {
        {BUF + 16, 16, NEXT,  2},
        {BUF + 64, 1,  WRITE, 0},
        {BUF + 32, 16, NEXT,  1},
    };

    for (unsigned i = 0; i < 2; i++)
        put_desc(f, DESC, i, &head[i]);
    for (unsigned i = 0; i < 3; i++)
        put_desc(f, TABLE, i, &table[i]);
    offer(f, 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
    assert_int_equal(f->chain.out_len, 48);
    assert_int_equal(f->chain.in_len, 1);
}

static void test_indices_wrap(void **state)
{
    struct fix *f = *state;
    const struct desc d = {BUF, 1, WRITE, 0};

    f->vq.next_avail = f->vq.next_used = 65533;
    put16(f, AVAIL + 2, 65533);
    put_desc(f, DESC, 6, &d);
    for (unsigned i = 0; i < 20; i++) {
        offer(f, 6);
        assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
        vq_unpop(&f->vq);
        assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
        assert_int_equal(f->chain.head, 6);
        vq_push(&f->vq, 6, 1);
        assert_int_equal(get16(f, USED + 2), (65534 + i) & 0xffff);
    }
}

static void test_empty_descriptors_are_skipped(void **state)
{
    struct fix *f = *state;
    const struct desc descs[] = {
        {UINT64_MAX, 0, NEXT,         1},
        {BUF,        4, NEXT,         2},
        {0,          0, NEXT | WRITE, 3},
        {BUF,        4, WRITE,        0},
    };

    for (unsigned i = 0; i < ARRAY_LEN(descs); i++)
        put_desc(f, DESC, i, &descs[i]);
    offer(f, 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
    assert_int_equal(f->chain.nr_out, 1);
    assert_int_equal(f->chain.nr_in, 1);
}

/* --- Hostile chains ------------------------------------------------------------ */

static void test_hostile_chains(void **state)
{
    static const struct {
        const char *why;
        int rc;
        unsigned head;
        struct desc descs[4];
        struct desc table[4];
    } rows[] = {
        {"head past the table",           -EBADMSG, SIZE, {{0}},                                       {{0}}                },
        {"next past the table",           -EBADMSG, 0,    {{BUF, 1, NEXT, SIZE}},                      {{0}}                },
        {"a loop",                        -E2BIG,   0,    {{BUF, 1, NEXT, 1}, {BUF, 1, NEXT, 0}},      {{0}}                },
        {"a loop of nothing",             -E2BIG,   0,    {{BUF, 0, NEXT, 0}},                         {{0}}                },
        {"readable after writable",
         -EBADMSG,
         0,                                               {{BUF, 1, NEXT | WRITE, 1}, {BUF, 1, 0, 0}},
         {{0}}                                                                                                              },
        {"outside of RAM",                -EFAULT,  0,    {{RAM_END, 1, 0, 0}},                        {{0}}                },
        {"half outside of RAM",           -EFAULT,  0,    {{RAM_END - 1, 2, WRITE, 0}},                {{0}}                },
        {"around the end of addresses",   -EFAULT,  0,    {{UINT64_MAX - 3, 8, WRITE, 0}},             {{0}}                },
        {"huge",                          -EFAULT,  0,    {{BUF, UINT32_MAX, WRITE, 0}},               {{0}}                },
        {"indirect and next",             -EBADMSG, 0,    {{TABLE, 16, IND | NEXT, 1}},                {{BUF, 1, 0, 0}}     },
        {"indirect in indirect",          -EBADMSG, 0,    {{TABLE, 16, IND, 0}},                       {{TABLE, 16, IND, 0}}},
        {"empty indirect table",          -EBADMSG, 0,    {{TABLE, 0, IND, 0}},                        {{0}}                },
        {"half an indirect descriptor",   -EBADMSG, 0,    {{TABLE, 24, IND, 0}},                       {{BUF, 1, 0, 0}}     },
        {"next past the indirect table",  -EBADMSG, 0,    {{TABLE, 32, IND, 0}},                       {{BUF, 1, NEXT, 2}}  },
        {"a loop in the indirect table",  -E2BIG,   0,    {{TABLE, 16, IND, 0}},                       {{BUF, 1, NEXT, 0}}  },
        {"indirect table outside of RAM", -EFAULT,  0,    {{RAM_END, 16, IND, 0}},                     {{0}}                },
        {"indirect table around the end", -EBADMSG, 0,    {{UINT64_MAX - 15, 32, IND, 0}},             {{0}}                },
    };
    struct fix *f = *state;

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        print_message("row %u: %s\n", i, rows[i].why);
        start(f, INDIRECT);
        for (unsigned k = 0; k < 4; k++) {
            put_desc(f, DESC, k, &rows[i].descs[k]);
            put_desc(f, TABLE, k, &rows[i].table[k]);
        }
        offer(f, rows[i].head);
        fake_env_oracle_begin(f->fe);
        assert_int_equal(vq_pop(&f->vq, &f->chain), rows[i].rc);
        assert_int_equal(f->vq.next_avail, 0);
        assert_int_equal(fake_env_oracle_end(f->fe), 0);
    }
}

static void test_indirect_needs_the_feature(void **state)
{
    struct fix *f = *state;

    start(f, 0);
    put_desc(f, DESC, 0, &(struct desc){TABLE, 16, IND, 0});
    put_desc(f, TABLE, 0, &(struct desc){BUF, 1, 0, 0});
    offer(f, 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), -EBADMSG);
}

static void test_index_may_not_jump(void **state)
{
    struct fix *f = *state;

    put_desc(f, DESC, 0, &(struct desc){BUF, 1, 0, 0});
    put16(f, AVAIL + 2, SIZE);
    assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
    put16(f, AVAIL + 2, SIZE + 2);
    assert_int_equal(vq_pop(&f->vq, &f->chain), -EBADMSG);
    put16(f, AVAIL + 2, 0); /* backwards */
    assert_int_equal(vq_pop(&f->vq, &f->chain), -EBADMSG);
    assert_true(vq_has_work(&f->vq));
}

static void test_long_chains(void **state)
{
    struct fix *f = *state;
    const uint64_t table = FAKE_ENV_GPA_HIGH;
    struct desc d = {BUF, 1, WRITE | NEXT, 0};

    /* As long as is allowed, then one more. */
    for (unsigned i = 0; i < VQ_DESCS_MAX; i++) {
        d.next = (uint16_t)(i + 1);
        d.flags = i + 2 < VQ_DESCS_MAX ? WRITE | NEXT : WRITE;
        put_desc(f, table, i, &d);
    }
    put_desc(f, DESC, 0, &(struct desc){table, 16 * (VQ_DESCS_MAX - 1), IND, 0});
    offer(f, 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
    assert_int_equal(f->chain.nr_in, VQ_DESCS_MAX - 1);
    d.flags = WRITE | NEXT;
    put_desc(f, table, VQ_DESCS_MAX - 2, &d);
    put_desc(f, DESC, 0, &(struct desc){table, 16 * (VQ_DESCS_MAX + 1), IND, 0});
    offer(f, 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), -E2BIG);
    /* Each across two regions: more segments than there is room for. */
    for (unsigned i = 0; i < VQ_DESCS_MAX - 1; i++) {
        d = (struct desc){FAKE_ENV_RAM_LOW - 1, 2, WRITE | NEXT, (uint16_t)(i + 1)};
        put_desc(f, table, i, &d);
    }
    assert_int_equal(vq_pop(&f->vq, &f->chain), -E2BIG);
    /* More bytes than 32 bits can say. */
    f->vq.next_avail++;
    put_desc(f, DESC, 0, &(struct desc){table, 16 * (VQ_DESCS_MAX - 1), IND, 0});
    for (unsigned i = 0; i < VQ_DESCS_MAX - 1; i++) {
        d = (struct desc){0, i < 20 ? RAM_END : FAKE_ENV_RAM_LOW, NEXT, (uint16_t)(i + 1)};
        put_desc(f, table, i, &d);
    }
    offer(f, 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), -EBADMSG);
}

static void test_rings_must_be_in_ram_and_aligned(void **state)
{
    static const struct {
        uint64_t desc, avail, used;
        int rc;
    } rows[] = {
        {DESC,                     AVAIL,                  USED,                   0      },
        {RAM_END - 16 * SIZE,      AVAIL,                  USED,                   0      },
        {RAM_END - 16 * SIZE + 16, AVAIL,                  USED,                   -EFAULT},
        {DESC + 8,                 AVAIL,                  USED,                   -EFAULT},
        {DESC,                     RAM_END - 6 - 2 * SIZE, USED,                   0      },
        {DESC,                     RAM_END - 4 - 2 * SIZE, USED,                   -EFAULT},
        {DESC,                     AVAIL + 1,              USED,                   -EFAULT},
        {DESC,                     AVAIL,                  RAM_END - 8 - 8 * SIZE, 0      },
        {DESC,                     AVAIL,                  RAM_END - 4 - 8 * SIZE, -EFAULT},
        {DESC,                     AVAIL,                  USED + 2,               -EFAULT},
        {UINT64_MAX & ~15ull,      AVAIL,                  USED,                   -EFAULT},
        {DESC,                     AVAIL,                  UINT64_MAX & ~3ull,     -EFAULT},
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        f->vq.desc_gpa = rows[i].desc;
        f->vq.avail_gpa = rows[i].avail;
        f->vq.used_gpa = rows[i].used;
        assert_int_equal(vq_start(&f->vq, EVENT_IDX), rows[i].rc);
        if (rows[i].rc < 0) {
            /* Nothing works, and nothing breaks. */
            assert_int_equal(vq_pop(&f->vq, &f->chain), 0);
            vq_push(&f->vq, 0, 0);
            assert_false(vq_rearm(&f->vq));
            assert_false(vq_needs_signal(&f->vq));
        }
    }
}

/* --- Notification ---------------------------------------------------------------- */

static void test_flag_suppresses_interrupts(void **state)
{
    struct fix *f = *state;

    vq_push(&f->vq, 0, 0);
    assert_true(vq_needs_signal(&f->vq));
    put16(f, AVAIL, VRING_AVAIL_F_NO_INTERRUPT);
    vq_push(&f->vq, 0, 0);
    assert_false(vq_needs_signal(&f->vq));
    assert_false(vq_rearm(&f->vq));
}

static void test_event_index(void **state)
{
    struct fix *f = *state;

    start(f, EVENT_IDX);
    put16(f, AVAIL, VRING_AVAIL_F_NO_INTERRUPT); /* to be ignored */
    vq_push(&f->vq, 0, 0);
    assert_true(vq_needs_signal(&f->vq)); /* the first is always wanted */
    vq_push(&f->vq, 0, 0);
    put16(f, AVAIL + 4 + 2 * SIZE, 3);
    assert_false(vq_needs_signal(&f->vq));
    vq_push(&f->vq, 0, 0);
    assert_false(vq_needs_signal(&f->vq));
    vq_push(&f->vq, 0, 0);
    assert_true(vq_needs_signal(&f->vq)); /* used index passed 3 */
    assert_false(vq_needs_signal(&f->vq));

    put_desc(f, DESC, 0, &(struct desc){BUF, 1, 0, 0});
    offer(f, 0);
    assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
    fake_env_oracle_begin(f->fe);
    assert_false(vq_rearm(&f->vq));
    assert_int_equal(fake_env_oracle_end(f->fe), 1);
    assert_int_equal(get16(f, USED + 4 + 8 * SIZE), 1);
    offer(f, 0);
    assert_true(vq_rearm(&f->vq));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chain_is_read_and_returned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_indirect_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_indices_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_descriptors_are_skipped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_chains, setup, teardown),
        cmocka_unit_test_setup_teardown(test_indirect_needs_the_feature, setup, teardown),
        cmocka_unit_test_setup_teardown(test_index_may_not_jump, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_chains, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rings_must_be_in_ram_and_aligned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flag_suppresses_interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_event_index, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtqueue", tests, NULL, NULL);
}
