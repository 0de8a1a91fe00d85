/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core/decimal.h"

static void test_numbers_are_read_up_to_the_highest(void **state)
{
    static const struct {
        const char *text;
        uint64_t highest, n;
    } good[] = {
        {"0",                    0,          0         },
        {"7",                    7,          7         },
        {"007",                  7,          7         },
        {"10",                   10,         10        },
        {"18446744073709551615", UINT64_MAX, UINT64_MAX},
    };
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(decimal_parse(good[i].text, good[i].n, good[i].highest, &n));
        assert_true(n == good[i].n);
    }
}

static void test_what_is_no_number_is_refused(void **state)
{
    static const struct {
        const char *text;
        uint64_t lowest, highest;
    } bad[] = {
        {"",                      0, UINT64_MAX},
        {" 1",                    0, UINT64_MAX},
        {"1 ",                    0, UINT64_MAX},
        {"+1",                    0, UINT64_MAX},
        {"-1",                    0, UINT64_MAX},
        {"-",                     0, UINT64_MAX},
        {"0x1",                   0, UINT64_MAX},
        {"1e3",                   0, UINT64_MAX},
        {"1.0",                   0, UINT64_MAX},
        {"\t1",                   0, UINT64_MAX},
        {"1\n",                   0, UINT64_MAX},
        {"18446744073709551616",  0, UINT64_MAX},
        {"18446744073709551625",  0, UINT64_MAX},
        {"99999999999999999999",  0, UINT64_MAX},
        {"184467440737095516150", 0, UINT64_MAX},
        {"1",                     0, 0         },
        {"8",                     0, 7         },
        {"10",                    0, 9         },
        {"11",                    0, 10        },
        {"0",                     1, 9         },
        {"\xd9\xa1",              0, UINT64_MAX},
        {"9223372036854775808",   0, INT64_MAX },
    };
    uint64_t n = 42;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (decimal_parse(bad[i].text, bad[i].lowest, bad[i].highest, &n) || n != 42)
            fail_msg("\"%s\" is taken for a number", bad[i].text);
}

static void test_taking_stops_behind_the_digits(void **state)
{
    const char *text = "12 345x", *at = text;
    uint64_t n = 0;

    (void)state;
    assert_true(decimal_take(&at, 12, &n));
    assert_true(n == 12 && at == text + 2);
    assert_false(decimal_take(&at, UINT64_MAX, &n));
    assert_true(n == 12 && at == text + 2);
    at++;
    assert_false(decimal_take(&at, 344, &n));
    assert_true(n == 12 && at == text + 3);
    assert_true(decimal_take(&at, 345, &n));
    assert_true(n == 345 && at == text + 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_read_up_to_the_highest),
        cmocka_unit_test(test_what_is_no_number_is_refused),
        cmocka_unit_test(test_taking_stops_behind_the_digits),
    };

    return cmocka_run_group_tests_name("decimal", tests, NULL, NULL);
}
