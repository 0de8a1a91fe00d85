/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/wire.h"
#include "core/x86/layout.h"
#include "core/x86/smbios.h"

static uint8_t buf[4096];

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;

    while (len--)
        s = (uint8_t)(s + *p++);
    return s;
}

/* The structure of a type, walked to as an OS does; NULL if there is none. */
static const uint8_t *structure(size_t len, uint8_t type)
{
    size_t off = 24;

    while (off + 4 <= len) {
        const uint8_t *s = buf + off;

        if (s[0] == type)
            return s;
        off += s[1];
        while (off + 1 < len && (buf[off] || buf[off + 1]))
            off++;
        off += 2;
    }
    return NULL;
}

static const char *string_of(const uint8_t *s, unsigned n)
{
    const char *p = (const char *)s + s[1];

    while (--n)
        p += strlen(p) + 1;
    return p;
}

static void test_default_machine(void **state)
{
    struct smbios_config cfg = {0};
    const uint8_t *s;
    int len;

    (void)state;
    len = smbios_build(&cfg, X86_SMBIOS_GPA, buf, sizeof(buf), NULL);
    assert_true(len > 0);
    assert_memory_equal(buf, "_SM3_", 5);
    assert_int_equal(sum(buf, 24), 0);
    assert_int_equal(buf[12] | buf[13] << 8, len - 24);
    assert_int_equal(buf[16] | buf[17] << 8 | buf[18] << 16, X86_SMBIOS_GPA + 24);
    s = structure((size_t)len, 0);
    assert_non_null(s);
    assert_int_equal(s[1], 0x18);
    assert_string_equal(string_of(s, s[4]), "Chrysalis");
    assert_int_equal(s[0x13], 0x10); /* a virtual machine */
    s = structure((size_t)len, 1);
    assert_non_null(s);
    assert_int_equal(s[1], 0x1b);
    assert_string_equal(string_of(s, s[4]), "Chrysalis");
    assert_string_equal(string_of(s, s[5]), "chrysalis");
    assert_int_equal(s[7], 0);
    assert_non_null(structure((size_t)len, 3));
    assert_null(structure((size_t)len, 11));
    s = structure((size_t)len, 127);
    assert_non_null(s);
    assert_ptr_equal(s + 6, buf + len);
}

static void test_strings_and_uuid_of_the_platform(void **state)
{
    static const char *const oem[] = {"io.systemd.credential:a=b", "second"};
    const struct smbios_config cfg = {
        .manufacturer = "Maker",
        .product_name = "Product",
        .version = "v7",
        .serial_number = "SN1",
        .sku_number = "SKU",
        .family = "Fam",
        .chassis_asset_tag = "tag 9",
        .oem_strings = oem,
        .nr_oem_strings = 2,
        .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                 0xee, 0xff},
    };
    static const uint8_t uuid[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                     0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
    const uint8_t *s;
    int len;

    (void)state;
    len = smbios_build(&cfg, X86_SMBIOS_GPA, buf, sizeof(buf), NULL);
    assert_true(len > 0);
    s = structure((size_t)len, 1);
    assert_string_equal(string_of(s, s[4]), "Maker");
    assert_string_equal(string_of(s, s[5]), "Product");
    assert_string_equal(string_of(s, s[6]), "v7");
    assert_string_equal(string_of(s, s[7]), "SN1");
    assert_memory_equal(s + 8, uuid, 16);
    assert_int_equal(s[0x18], 6);
    assert_string_equal(string_of(s, s[0x19]), "SKU");
    assert_string_equal(string_of(s, s[0x1a]), "Fam");
    s = structure((size_t)len, 3);
    assert_string_equal(string_of(s, s[4]), "Maker");
    assert_string_equal(string_of(s, s[8]), "tag 9");
    s = structure((size_t)len, 11);
    assert_int_equal(s[4], 2);
    assert_string_equal(string_of(s, 1), oem[0]);
    assert_string_equal(string_of(s, 2), oem[1]);
}

static void test_what_does_not_fit_is_refused(void **state)
{
    static char big[0x10000];
    const char *oem[1] = {""};
    struct smbios_config cfg = {.family = ""};
    struct err err = {0};
    int len;

    (void)state;
    assert_int_equal(smbios_build(&cfg, 0, buf, sizeof(buf), &err), -EINVAL);
    assert_string_equal(err.msg, "platform.system_family: empty");
    cfg = (struct smbios_config){.oem_strings = oem, .nr_oem_strings = 1};
    assert_int_equal(smbios_build(&cfg, 0, buf, sizeof(buf), NULL), -EINVAL);
    cfg.nr_oem_strings = 256;
    assert_int_equal(smbios_build(&cfg, 0, buf, sizeof(buf), NULL), -E2BIG);
    memset(big, 'x', sizeof(big) - 1);
    cfg = (struct smbios_config){.serial_number = big};
    assert_int_equal(smbios_build(&cfg, 0, buf, sizeof(buf), NULL), -E2BIG);
    cfg = (struct smbios_config){0};
    len = smbios_build(&cfg, 0, buf, sizeof(buf), NULL);
    for (int cap = 0; cap < len; cap++)
        assert_int_equal(smbios_build(&cfg, 0, buf, (size_t)cap, NULL), -E2BIG);
    assert_int_equal(smbios_build(&cfg, 0, buf, (size_t)len, NULL), len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_machine),
        cmocka_unit_test(test_strings_and_uuid_of_the_platform),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
    };

    return cmocka_run_group_tests_name("x86/smbios", tests, NULL, NULL);
}
