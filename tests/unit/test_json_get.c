/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/json_get.h"

static int parse(const char *text, struct json_object **ret_obj, struct err *err)
{
    return json_parse(text, strlen(text), ret_obj, err);
}

static void test_texts_that_are_json_are_taken(void **state)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        " {\"a\": [1, {\"b\": null}]} \r\n",
        "12",
        "-1",
        "true",
        "null",
        "\"a:b\"",
        "{\"a\":{\"x\":1},\"b\":{\"x\":1}}",
        "{\"\\\"a:\":1,\"b\":\"::\\\\\"}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct json_object *obj = NULL;
        struct err err = {0};

        if (parse(texts[i], &obj, &err))
            fail_msg("%s: %s", texts[i], err.msg);
        json_object_put(obj);
    }
}

static void test_texts_that_are_not_are_refused(void **state)
{
    static const struct {
        const char *why, *text, *msg;
    } rows[] = {
        {"nothing",                     "",                                     "nothing there" },
        {"blanks",                      " \n",                                  "nothing there" },
        {"cut",                         "{\"a\":",                              "unexpected end"},
        {"cut string",                  "\"abc",                                "unexpected end"},
        {"trailing comma",              "[1,2,]",                               "byte"          },
        {"two values",                  "{} {}",                                "byte"          },
        {"trailing text",               "{}x",                                  "byte"          },
        {"single quotes",               "{'a':1}",                              "byte"          },
        {"no quotes",                   "{a:1}",                                "byte"          },
        {"comment",                     "{/* a */}",                            "byte"          },
        {"bad UTF-8",                   "\"\xff\"",                             "byte"          },
        {"same key",                    "{\"a\":1,\"a\":2}",                    "twice"         },
        {"same key, written otherwise", "{\"a\":1,\"\\u0061\":2}",              "twice"         },
        {"same key, deep",              "[{\"b\":{\"a\":{},\"a\":{\"x\":1}}}]", "twice"         },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct json_object *obj = NULL;
        struct err err = {0};

        if (parse(rows[i].text, &obj, &err) != -EINVAL || obj || !strstr(err.msg, rows[i].msg))
            fail_msg("%s: %s", rows[i].why, err.msg);
    }
}

static void test_limits_hold(void **state)
{
    static char deep[2 * JSON_DEPTH_MAX + 8];
    static char big[JSON_TEXT_MAX + 2];
    struct json_object *obj = NULL;
    struct err err = {0};

    (void)state;
    memset(deep, '[', JSON_DEPTH_MAX + 2);
    memset(deep + JSON_DEPTH_MAX + 2, ']', JSON_DEPTH_MAX + 2);
    assert_int_equal(parse(deep, &obj, &err), -EINVAL);
    memset(big, ' ', sizeof(big));
    big[0] = '1';
    err.code = 0;
    assert_int_equal(json_parse(big, JSON_TEXT_MAX + 1, &obj, &err), -E2BIG);
    assert_int_equal(json_parse(big, JSON_TEXT_MAX, &obj, &err), 0);
    json_object_put(obj);
    obj = NULL;
    assert_int_equal(json_parse("[1]\0x", 5, &obj, &err), -EINVAL);
    assert_null(obj);
}

static void test_numbers_are_what_was_written(void **state)
{
    static const struct {
        const char *text;
        uint64_t min, max;
        int rc;
        uint64_t v;
    } rows[] = {
        {"{\"n\":0}",                    0, 9,              1,       0               },
        {"{\"n\":9}",                    0, 9,              1,       9               },
        {"{\"n\":10}",                   0, 9,              -EINVAL, 0               },
        {"{\"n\":1}",                    2, 9,              -EINVAL, 0               },
        {"{\"n\":-1}",                   0, 9,              -EINVAL, 0               },
        {"{\"n\":-9223372036854775809}", 0, 9,              -EINVAL, 0               },
        {"{\"n\":18446744073709551614}", 0, UINT64_MAX - 1, 1,       UINT64_MAX - 1  },
        {"{\"n\":18446744073709551615}", 0, UINT64_MAX - 1, -EINVAL, 0               },
        {"{\"n\":18446744073709551616}", 0, UINT64_MAX - 1, -EINVAL, 0               },
        {"{\"n\":9007199254740993}",     0, UINT64_MAX - 1, 1,       9007199254740993},
        {"{\"n\":\"5\"}",                0, 9,              -EINVAL, 0               },
        {"{\"n\":true}",                 0, 9,              -EINVAL, 0               },
        {"{\"n\":5.0}",                  0, 9,              -EINVAL, 0               },
        {"{\"n\":[5]}",                  0, 9,              -EINVAL, 0               },
        {"{\"n\":null}",                 0, 9,              0,       77              },
        {"{}",                           0, 9,              0,       77              },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct json_object *obj = NULL;
        struct err err = {0};
        uint64_t v = 77;
        int rc;

        assert_int_equal(parse(rows[i].text, &obj, &err), 0);
        rc = json_get_u64(obj, "n", rows[i].min, rows[i].max, &v, &err);
        if (rc != rows[i].rc || (rc >= 0 && v != rows[i].v) ||
            (rc < 0 && strncmp(err.msg, "n:", 2)))
            fail_msg("%s: %d %s", rows[i].text, rc, err.msg);
        json_object_put(obj);
    }
}

static void test_other_types_are_not_bent(void **state)
{
    static const char *const names[] = {"Cancel", "Ignore", NULL};
    struct json_object *obj = NULL;
    struct err err = {0};
    const char *s = "default";
    bool b = false;

    (void)state;
    assert_int_equal(
        parse("{\"t\":true,\"s\":\"abc\",\"z\":\"a\\u0000b\",\"i\":1,\"n\":\"Ignore\"}", &obj,
              &err),
        0);
    assert_int_equal(json_value_bool(json_object_object_get(obj, "t"), "t", &b, &err), 0);
    assert_true(b);
    assert_int_equal(json_get_string(obj, "s", 3, &s, &err), 1);
    assert_string_equal(s, "abc");
    assert_int_equal(json_value_name(json_object_object_get(obj, "n"), "n", names, &err), 1);
    assert_int_equal(json_value_bool(json_object_object_get(obj, "i"), "i", &b, NULL), -EINVAL);
    assert_int_equal(json_value_bool(json_object_object_get(obj, "s"), "s", &b, NULL), -EINVAL);
    assert_int_equal(json_get_string(obj, "s", 2, &s, NULL), -E2BIG);
    assert_int_equal(json_get_string(obj, "z", 9, &s, NULL), -EINVAL);
    assert_int_equal(json_get_string(obj, "i", 9, &s, NULL), -EINVAL);
    assert_int_equal(json_value_name(json_object_object_get(obj, "s"), "s", names, &err), -EINVAL);
    assert_string_equal(err.msg, "s: must be one of Cancel, Ignore");
    assert_string_equal(s, "abc");
    json_object_put(obj);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_that_are_json_are_taken),
        cmocka_unit_test(test_texts_that_are_not_are_refused),
        cmocka_unit_test(test_limits_hold),
        cmocka_unit_test(test_numbers_are_what_was_written),
        cmocka_unit_test(test_other_types_are_not_bent),
    };

    return cmocka_run_group_tests_name("json_get", tests, NULL, NULL);
}
