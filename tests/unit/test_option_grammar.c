/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/config/option_grammar.h"

/* Write a set as key<value> pairs, so that a row can say what it must be. */
static void show(struct option_set *set, char *out, size_t cap)
{
    size_t n = 0;

    out[0] = 0;
    for (unsigned i = 0; i < set->nr; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s;", set->pairs[i].key,
                              set->pairs[i].value        ? ""
                              : set->pairs[i].has_equals ? "<>"
                                                         : "!");
    for (unsigned i = 0; i < set->nr; i++)
        if (set->pairs[i].value)
            n += (size_t)snprintf(out + n, cap - n, "%s|", option_text(set->pairs[i].value));
}

static void test_values_are_split_into_pairs(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"",                          ""                  },
        {"  ",                        ""                  },
        {"a=1",                       "a;1|"              },
        {"a=1,b=2",                   "a;b;1|2|"          },
        {" a = 1 , b=2 ",             "a;b;1|2|"          },
        {"a=b=c",                     "a;b=c|"            },
        {"off",                       "off!;"             },
        {"tap=,mac=",                 "tap<>;mac<>;"      },
        {"a=[1,2],b=3",               "a;b;[1,2]|3|"      },
        {"a=[1,[2,3]],b",             "a;b!;[1,[2,3]]|"   },
        {"path=\"a,b\",b=1",          "path;b;a,b|1|"     },
        {"path=\"a]\",b=1",           "path;b;a]|1|"      },
        {"s=\"say \"\"hi\"\", you\"", "s;say \"hi\", you|"},
        {"s=a\"b,c\"d",               "s;ab,cd|"          },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct option_set set = {0};
        struct err err = {0};
        char out[256];

        if (option_set_parse(rows[i].text, &set, &err))
            fail_msg("%s: %s", rows[i].text, err.msg);
        show(&set, out, sizeof(out));
        assert_string_equal(out, rows[i].want);
        option_set_release(&set);
    }
}

static void test_what_does_not_match_is_refused(void **state)
{
    static const char *const texts[] = {
        "a=[1", "a=1]", "a=[[1]", "a=\"b", "a=]1[", ",", "a=1,", "=1", "a=1,,b=2", "a=1,a=2",
    };
    char many[4 * OPTION_PAIRS_MAX + 8] = "";

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct option_set set = {0};
        struct err err = {0};

        if (option_set_parse(texts[i], &set, &err) != -EINVAL || !err.msg[0] || set.buf)
            fail_msg("%s was taken", texts[i]);
    }
    for (unsigned i = 0; i <= OPTION_PAIRS_MAX; i++)
        (void)snprintf(many + strlen(many), 6, "%sk%u", i ? "," : "", i);
    assert_int_equal(option_set_parse(many, &(struct option_set){0}, NULL), -E2BIG);
}

static void test_a_text_over_the_limit_is_refused(void **state)
{
    static char big[OPTION_TEXT_MAX + 2];
    struct option_set set = {0};

    (void)state;
    memset(big, 'a', OPTION_TEXT_MAX + 1);
    assert_int_equal(option_set_parse(big, &set, NULL), -E2BIG);
    big[OPTION_TEXT_MAX] = 0;
    assert_int_equal(option_set_parse(big, &set, NULL), 0);
    option_set_release(&set);
}

static void test_lists_nest(void **state)
{
    char text[] = "[0@[1,2], \"a,b\" ,[]]";
    char *rest = option_list(text);
    char *item = NULL, *inner, *left = NULL;

    (void)state;
    assert_int_equal(option_next(&rest, ',', &item, NULL), 1);
    inner = item;
    assert_int_equal(option_next(&inner, '@', &left, NULL), 1);
    assert_string_equal(left, "0");
    assert_string_equal(inner, "[1,2]");
    assert_int_equal(option_next(&rest, ',', &item, NULL), 1);
    assert_string_equal(option_text(item), "a,b");
    assert_int_equal(option_next(&rest, ',', &item, NULL), 1);
    assert_null(option_list(item));
    assert_int_equal(option_next(&rest, ',', &item, NULL), 0);
    assert_null(option_list(NULL));
}

static void test_brackets_that_only_look_like_a_list_are_refused(void **state)
{
    char text[] = "[a],[b]";
    char *rest = option_list(text);
    char *item = NULL;

    (void)state;
    assert_int_equal(option_next(&rest, ',', &item, NULL), -EINVAL);
}

static void test_toggles(void **state)
{
    static const struct {
        const char *text;
        int rc;
        bool v;
    } rows[] = {
        {"on",    0,       true },
        {"ON",    0,       true },
        {"true",  0,       true },
        {"off",   0,       false},
        {"",      0,       false},
        {"False", 0,       false},
        {"1",     -EINVAL, true },
        {"yes",   -EINVAL, true },
        {"o",     -EINVAL, 0    },
        {"onn",   -EINVAL, true },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bool v = !rows[i].v;

        assert_int_equal(option_toggle(rows[i].text, &v), rows[i].rc);
        assert_int_equal(v, rows[i].rc ? !rows[i].v : rows[i].v);
    }
}

static void test_numbers_and_sizes(void **state)
{
    static const struct {
        const char *text;
        int rc_size, rc_num;
        uint64_t size, num;
    } rows[] = {
        {"0",                    0,       0,       0,                0                      },
        {"512",                  0,       0,       512,              512                    },
        {"4K",                   0,       -EINVAL, KIB(4),           0                      },
        {"512M",                 0,       -EINVAL, MIB(512),         0                      },
        {"4G",                   0,       -EINVAL, GIB(4),           0                      },
        {"1T",                   0,       -EINVAL, GIB(1024),        0                      },
        {"0x10",                 -EINVAL, 0,       0,                16                     },
        {"0xZ",                  -EINVAL, -EINVAL, 0,                0                      },
        {"",                     -EINVAL, -EINVAL, 0,                0                      },
        {"-1",                   -EINVAL, -EINVAL, 0,                0                      },
        {"+1",                   -EINVAL, -EINVAL, 0,                0                      },
        {" 1",                   -EINVAL, -EINVAL, 0,                0                      },
        {"1m",                   -EINVAL, -EINVAL, 0,                0                      },
        {"1MB",                  -EINVAL, -EINVAL, 0,                0                      },
        {"1e3",                  -EINVAL, -EINVAL, 0,                0                      },
        {"9223372036854775807",  0,       0,       INT64_MAX,        INT64_MAX              },
        {"9223372036854775808",  -ERANGE, 0,       0,                (uint64_t)INT64_MAX + 1},
        {"18446744073709551616", -ERANGE, -ERANGE, 0,                0                      },
        {"8388608T",             -ERANGE, -EINVAL, 0,                0                      },
        {"8388607T",             0,       -EINVAL, 8388607ull << 40, 0                      },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t size = 0, num = 0;

        if (option_size(rows[i].text, &size) != rows[i].rc_size || size != rows[i].size ||
            option_u64(rows[i].text, 0, UINT64_MAX, &num) != rows[i].rc_num || num != rows[i].num)
            fail_msg("'%s'", rows[i].text);
    }
    assert_int_equal(option_u64("5", 6, 9, &(uint64_t){0}), -ERANGE);
    assert_int_equal(option_u64("10", 6, 9, &(uint64_t){0}), -ERANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_split_into_pairs),
        cmocka_unit_test(test_what_does_not_match_is_refused),
        cmocka_unit_test(test_a_text_over_the_limit_is_refused),
        cmocka_unit_test(test_lists_nest),
        cmocka_unit_test(test_brackets_that_only_look_like_a_list_are_refused),
        cmocka_unit_test(test_toggles),
        cmocka_unit_test(test_numbers_and_sizes),
    };

    return cmocka_run_group_tests_name("option_grammar", tests, NULL, NULL);
}
