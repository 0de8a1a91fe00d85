/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/x86/aml.h"

static uint8_t mem[1 << 21];

#define EXPECT(a, ...)                                 \
    do {                                               \
        static const uint8_t want_[] = {__VA_ARGS__};  \
        struct err err_ = {0};                         \
        assert_int_equal(aml_finish(&(a), &err_), 0);  \
        assert_int_equal((a).len, sizeof(want_));      \
        assert_memory_equal((a).data, want_, (a).len); \
    } while (0)

static void test_integers_take_their_shortest_form(void **state)
{
    struct aml a;

    (void)state;
    aml_init(&a, mem, sizeof(mem));
    aml_int(&a, 0);
    aml_int(&a, 1);
    aml_int(&a, 2);
    aml_int(&a, 0xff);
    aml_int(&a, 0x100);
    aml_int(&a, 0x10000);
    aml_int(&a, 0x100000000);
    EXPECT(a, 0x00, 0x01, 0x0a, 0x02, 0x0a, 0xff, 0x0b, 0x00, 0x01, 0x0c, 0x00, 0x00, 0x01, 0x00,
           0x0e, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00);
}

static void test_names_have_one_two_or_more_segments(void **state)
{
    struct aml a;

    (void)state;
    aml_init(&a, mem, sizeof(mem));
    aml_path(&a, "ABC");
    aml_path(&a, "\\_SB_.PC00");
    aml_path(&a, "\\_SB.PC00.S001");
    aml_path(&a, "^^ABCD");
    EXPECT(a, 'A', 'B', 'C', '_', '\\', 0x2e, '_', 'S', 'B', '_', 'P', 'C', '0', '0', '\\', 0x2f, 3,
           '_', 'S', 'B', '_', 'P', 'C', '0', '0', 'S', '0', '0', '1', '^', '^', 'A', 'B', 'C',
           'D');
}

static void test_bad_names_are_refused(void **state)
{
    static const char *const names[] = {"ABCDE", "A..B", "abc", "1AB", "A B", ".AB"};
    struct aml a;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        aml_init(&a, mem, sizeof(mem));
        aml_path(&a, names[i]);
        assert_int_equal(aml_finish(&a, NULL), -EINVAL);
    }
}

static void test_device_with_a_hardware_id(void **state)
{
    struct aml a;

    (void)state;
    aml_init(&a, mem, sizeof(mem));
    aml_device_begin(&a, "PWRB");
    aml_name_eisa_id(&a, "_HID", "PNP0C0C");
    aml_end(&a);
    EXPECT(a, 0x5b, 0x82, 0x0f, 'P', 'W', 'R', 'B', 0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0,
           0x0c, 0x0c);
}

static void test_resource_template_counts_its_bytes(void **state)
{
    struct aml a;

    (void)state;
    aml_init(&a, mem, sizeof(mem));
    aml_resources_begin(&a);
    aml_res_irq(&a, AML_IRQ_EDGE_HIGH, 4);
    aml_res_io(&a, 0x3f8, 8);
    aml_end(&a);
    EXPECT(a, 0x11, 0x16, 0x0a, 0x13, 0x89, 0x06, 0x00, 0x03, 0x01, 0x04, 0x00, 0x00, 0x00, 0x47,
           0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08, 0x79, 0x00);
}

static void test_condition_and_notify(void **state)
{
    struct aml a;

    (void)state;
    aml_init(&a, mem, sizeof(mem));
    aml_method_begin(&a, "_EVT", 1, true);
    aml_if_begin(&a);
    aml_op(&a, AML_AND);
    aml_local(&a, 0);
    aml_int(&a, 8);
    aml_null(&a);
    aml_notify(&a, "PWRB", 0x80);
    aml_end(&a);
    aml_end(&a);
    EXPECT(a, 0x14, 0x14, '_', 'E', 'V', 'T', 0x09, 0xa0, 0x0d, 0x7b, 0x60, 0x0a, 0x08, 0x00, 0x86,
           'P', 'W', 'R', 'B', 0x0a, 0x80);
}

/* A package length counts itself: at each boundary the whole must be what it says. */
static void test_package_lengths_at_their_boundaries(void **state)
{
    static const size_t bodies[] = {0,    62,   63,      64,      4092,   4093,
                                    4094, 4095, 1048571, 1048572, 1048573};
    static uint8_t body[1 << 20];

    (void)state;
    memset(body, 0xa3, sizeof(body));
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct aml a;
        size_t bytes;
        size_t len;

        aml_init(&a, mem, sizeof(mem));
        aml_if_begin(&a);
        for (size_t n = 0; n < bodies[i]; n++)
            aml_null(&a);
        aml_end(&a);
        assert_int_equal(aml_finish(&a, NULL), 0);
        bytes = (size_t)(mem[1] >> 6) + 1;
        len = bytes == 1 ? mem[1] & 0x3f : mem[1] & 0xf;
        for (size_t b = 1; b < bytes; b++)
            len |= (size_t)mem[1 + b] << (4 + 8 * (b - 1));
        assert_int_equal(len, a.len - 1);
        assert_int_equal(bytes, a.len - 1 - bodies[i]);
    }
}

static void test_field_units_give_their_width_in_bits(void **state)
{
    struct aml a;

    (void)state;
    aml_init(&a, mem, sizeof(mem));
    aml_region(&a, "REGS", AML_SYSTEM_IO, 0x600, 4);
    aml_field_begin(&a, "REGS", AML_FIELD_BYTE | AML_FIELD_LOCK | AML_FIELD_WRITE_AS_ZEROS);
    aml_field_unit(&a, "AAAA", 8);
    aml_field_unit(&a, NULL, 72);
    aml_field_unit(&a, "BBBB", 64);
    aml_end(&a);
    EXPECT(a, 0x5b, 0x80, 'R', 'E', 'G', 'S', 0x01, 0x0b, 0x00, 0x06, 0x0a, 0x04, 0x5b, 0x81, 0x14,
           'R', 'E', 'G', 'S', 0x51, 'A', 'A', 'A', 'A', 0x08, 0x00, 0x48, 0x04, 'B', 'B', 'B', 'B',
           0x40, 0x04);
}

static void test_uuid_has_its_first_groups_swapped(void **state)
{
    struct aml a;

    (void)state;
    aml_init(&a, mem, sizeof(mem));
    aml_uuid(&a, "E5C937D0-3553-4d7a-9117-ea4d19c3434d");
    EXPECT(a, 0x11, 0x13, 0x0a, 0x10, 0xd0, 0x37, 0xc9, 0xe5, 0x53, 0x35, 0x7a, 0x4d, 0x91, 0x17,
           0xea, 0x4d, 0x19, 0xc3, 0x43, 0x4d);
}

static void test_failures_latch(void **state)
{
    struct err err = {0};
    struct aml a;

    (void)state;
    aml_init(&a, mem, 3);
    aml_device_begin(&a, "ABCD");
    aml_end(&a);
    assert_int_equal(aml_finish(&a, &err), -E2BIG);
    assert_true(a.len <= 3);
    aml_init(&a, mem, sizeof(mem));
    aml_device_begin(&a, "ABCD");
    assert_int_equal(aml_finish(&a, NULL), -EINVAL);
    aml_end(&a);
    assert_int_equal(aml_finish(&a, NULL), 0);
    aml_end(&a);
    assert_int_equal(aml_finish(&a, NULL), -EINVAL);
    aml_init(&a, mem, sizeof(mem));
    for (int i = 0; i <= AML_DEPTH_MAX; i++)
        aml_if_begin(&a);
    assert_int_equal(aml_finish(&a, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_take_their_shortest_form),
        cmocka_unit_test(test_names_have_one_two_or_more_segments),
        cmocka_unit_test(test_bad_names_are_refused),
        cmocka_unit_test(test_device_with_a_hardware_id),
        cmocka_unit_test(test_resource_template_counts_its_bytes),
        cmocka_unit_test(test_condition_and_notify),
        cmocka_unit_test(test_package_lengths_at_their_boundaries),
        cmocka_unit_test(test_field_units_give_their_width_in_bits),
        cmocka_unit_test(test_uuid_has_its_first_groups_swapped),
        cmocka_unit_test(test_failures_latch),
    };

    return cmocka_run_group_tests_name("x86/aml", tests, NULL, NULL);
}
