/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/utf8.h"

static void test_only_utf8_is_text(void **state)
{
    static const struct {
        const char *s;
        bool ok;
    } rows[] = {
        {"",                                      true },
        {"a\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x9b", true },
        {"\x80",                                  false},
        {"\xc0\xaf",                              false}, /* overlong */
        {"\xe0\x80\x80",                          false}, /* overlong */
        {"\xed\xa0\x80",                          false}, /* surrogate */
        {"\xf4\x90\x80\x80",                      false}, /* above U+10FFFF */
        {"\xf5\x80\x80\x80",                      false},
        {"\xe2\x82",                              false},
        {"\xe2\x82\x41",                          false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(utf8_ok(rows[i].s, strlen(rows[i].s)), rows[i].ok);
    assert_false(utf8_ok("a\0b", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_utf8_is_text),
    };

    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
