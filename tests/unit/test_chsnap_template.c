/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "tools/chsnap/chsnap_template.h"

static void test_numbers_take_their_places(void **state)
{
    static const struct {
        const char *text;
        unsigned n;
        const char *result;
    } rows[] = {
        {"clone-{n}",                        7,     "clone-7"                             },
        {"{n}{n}",                           12,    "1212"                                },
        {"{n:03}",                           5,     "005"                                 },
        {"{n:03}",                           12345, "12345"                               },
        {"52:54:00:00:00:{n:02x}",           255,   "52:54:00:00:00:ff"                   },
        {"00000000-0000-4000-8000-{n:012x}", 26,    "00000000-0000-4000-8000-00000000001a"},
        {"nothing",                          1,     "nothing"                             },
        {"",                                 1,     ""                                    },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char got[64];

        assert_int_equal(chsnap_template_expand(rows[i].text, rows[i].n, got, sizeof(got), NULL),
                         0);
        assert_string_equal(got, rows[i].result);
        assert_int_equal(chsnap_template_varies(rows[i].text), strchr(rows[i].text, '{') != NULL);
    }
}

static void test_other_braces_are_refused(void **state)
{
    static const char *const bad[] = {"{",     "}",       "{m}",    "{n",      "{n:}",     "{n:3}",
                                      "{n:0}", "{n:013}", "{n:0q}", "a{n}{b}", "{n:02xx}", "{{n}}"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = {0};
        char got[64];

        assert_int_equal(chsnap_template_expand(bad[i], 1, got, sizeof(got), &err), -EINVAL);
        assert_non_null(strstr(err.msg, bad[i]));
    }
}

static void test_a_result_has_to_fit(void **state)
{
    char got[4];

    (void)state;
    assert_int_equal(chsnap_template_expand("a{n}", 12, got, sizeof(got), NULL), 0);
    assert_string_equal(got, "a12");
    assert_int_equal(chsnap_template_expand("a{n}", 123, got, sizeof(got), NULL), -E2BIG);
    assert_int_equal(chsnap_template_expand("abcd", 1, got, sizeof(got), NULL), -E2BIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_take_their_places),
        cmocka_unit_test(test_other_braces_are_refused),
        cmocka_unit_test(test_a_result_has_to_fit),
    };

    return cmocka_run_group_tests_name("chsnap_template", tests, NULL, NULL);
}
