/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/gmem.h"
#include "core/wire.h"
#include "core/x86/layout.h"
#include "core/x86/mptable.h"

static uint8_t buf[X86_MPTABLE_SIZE];

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;

    while (len--)
        s = (uint8_t)(s + *p++);
    return s;
}

static unsigned le16_at(const uint8_t *p)
{
    return p[0] | (unsigned)p[1] << 8;
}

/* What an OS finds when it walks the table: entries by type, in order. */
struct found {
    unsigned left;
    unsigned nr[5];
    const uint8_t *first[5];
};

static struct found walk(const uint8_t *table)
{
    struct found f = {.left = le16_at(table + 34)};
    const uint8_t *p = table + 44, *end = table + le16_at(table + 4);

    assert_memory_equal(table, "PCMP", 4);
    assert_int_equal(sum(table, le16_at(table + 4)), 0);
    for (; f.left; p += p[0] == 0 ? 20 : 8, f.left--) {
        assert_true(p < end);
        assert_true(p[0] < 5);
        if (f.nr[p[0]]++ == 0)
            f.first[p[0]] = p;
    }
    assert_ptr_equal(p, end);
    return f;
}

static void test_two_processors(void **state)
{
    const uint32_t ids[] = {0, 1};
    int len = mptable_build(ids, 2, buf, sizeof(buf), NULL);
    struct found f;

    (void)state;
    assert_int_equal(len, 44 + 2 * 20 + 2 * 8 + 8 + (2 + 32) * 8 + 2 * 8);
    f = walk(buf);
    assert_int_equal(f.nr[0], 2);
    assert_int_equal(f.first[0][3], 3); /* enabled, boots */
    assert_int_equal(f.first[0][20 + 1], 1);
    assert_int_equal(f.first[0][20 + 3], 1);
    assert_int_equal(f.nr[1], 2);
    assert_memory_equal(f.first[1] + 2, "PCI   ", 6);
    assert_int_equal(f.nr[2], 1);
    assert_memory_equal(f.first[2] + 4, "\0\0\xc0\xfe", 4);
    assert_int_equal(f.nr[3], 34);
    assert_int_equal(f.nr[4], 2);
}

static void test_interrupts_of_the_slots(void **state)
{
    const uint32_t id = 0;
    const uint8_t *p;

    (void)state;
    assert_true(mptable_build(&id, 1, buf, sizeof(buf), NULL) > 0);
    p = walk(buf).first[3];
    assert_int_equal(p[4], 1); /* ISA: COM1 */
    assert_int_equal(p[5], X86_IRQ_COM1);
    assert_int_equal(p[7], X86_IRQ_COM1);
    for (unsigned slot = 0; slot < 32; slot++) {
        const uint8_t *e = p + (2 + slot) * 8;

        assert_int_equal(e[4], 0);
        assert_int_equal(e[5], slot << 2);
        assert_int_equal(e[7], 16 + slot % 8);
    }
}

static void test_many_processors(void **state)
{
    static uint32_t ids[400];
    struct err err = {0};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = i;
    assert_true(mptable_build(ids, ARRAY_LEN(ids), buf, sizeof(buf), NULL) > 0);
    assert_int_equal(walk(buf).nr[0], MPTABLE_APIC_IDS);
    assert_int_equal(mptable_build(ids, 2, buf, 200, &err), -E2BIG);
    assert_string_equal(err.msg, "cpus.boot: the MP table of 2 does not fit");
}

static void test_it_is_found_in_guest_memory(void **state)
{
    const struct gmem_backing backing = {.fd = -1};
    const uint32_t id = 0;
    uint8_t pointer[16];
    struct gmem *gm;

    (void)state;
    assert_int_equal(gmem_new(&gm), 0);
    assert_int_equal(mptable_write(gm, &id, 1, NULL), -EINVAL); /* no RAM */
    assert_int_equal(gmem_add_region(gm, 0, 1 << 20, "ram", &backing, NULL), 0);
    assert_int_equal(mptable_write(gm, &id, 1, NULL), 0);
    assert_int_equal(gmem_copy_in(gm, 0x9fc00, pointer, sizeof(pointer)), 0);
    assert_memory_equal(pointer, "_MP_\0\xd0\x0e\0\1\4", 10);
    assert_int_equal(sum(pointer, sizeof(pointer)), 0);
    assert_int_equal(gmem_copy_in(gm, X86_MPTABLE_GPA, buf, sizeof(buf)), 0);
    assert_int_equal(walk(buf).nr[0], 1);
    gmem_free(gm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_processors),
        cmocka_unit_test(test_interrupts_of_the_slots),
        cmocka_unit_test(test_many_processors),
        cmocka_unit_test(test_it_is_found_in_guest_memory),
    };

    return cmocka_run_group_tests_name("x86_mptable", tests, NULL, NULL);
}
