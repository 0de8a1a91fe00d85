/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration's progress as a line and as a picture, from recorded answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json_get.h"
#include "tests/fakes/golden.h"
#include "tools/chctl/plot.h"
#include "tools/chctl/progress_view.h"

/* --- The line ------------------------------------------------------------- */

static void line_of(const char *json, unsigned columns, char *line)
{
    struct json_object *obj = NULL;
    struct progress_view v;

    assert_int_equal(json_parse(json, strlen(json), &obj, NULL), 0);
    progress_view_get(obj, &v);
    progress_view_line(&v, columns, line);
    json_object_put(obj);
}

static const char busy[] =
    "{\"phase\":\"rounds\",\"result\":\"none\",\"round\":3,\"lanes\":4,\"total_bytes\":1073741824,"
    "\"data_pages\":1000,\"zero_pages\":0,\"round_bytes\":104857600,\"remaining_bytes\":47185920,"
    "\"wire_bytes_per_s\":1288490188,\"dirty_bytes_per_s\":41943040,\"throttle_percent\":30,"
    "\"time_left_ns\":3400000000,\"expected_blackout_ns\":3210000}";

static void test_the_line(void **state)
{
    static const struct {
        const char *json;
        unsigned columns;
        const char *line;
    } rows[] = {
        {busy,                                                                                        0,
         "rounds 3 55 % of 100.0 MiB, 1.2 GiB/s, dirty 40.0 MiB/s, blackout 3.2 ms, 4 s left, "
         "throttle 30 %, 4 lanes"                                                                                                                                             },
        {busy,                                                                                        200,
         "rounds 3 [###########---------] 55 %, 1.2 GiB/s, dirty 40.0 MiB/s, blackout 3.2 ms, "
         "4 s left, throttle 30 %, 4 lanes"                                                                                                                                   },
 /* Parts are whole or not there; a terminal of 5 columns is not believed. */
        {busy,                                                                                        79,  "rounds 3 [###########---------] 55 %, 1.2 GiB/s, dirty 40.0 MiB/s"},
        {busy,                                                                                        40,  "rounds 3 [###########---------] 55 %"                             },
        {busy,                                                                                        5,   "rounds 3"                                                         },
 /* A destination knows no more of a round than what came. */
        {"{\"phase\":\"rounds\",\"round\":0,\"lanes\":1,\"total_bytes\":8388608,"
         "\"data_pages\":500,\"zero_pages\":12}",                                            79,  "rounds 0 [#####---------------] 25 %, 1 lane"                     },
        {"{\"phase\":\"rounds\",\"total_bytes\":4096,\"data_pages\":9}",                              0,
         "rounds 0 100 % of 4.0 KiB"                                                                                                                                          },
        {"{\"phase\":\"connect\",\"result\":\"none\"}",                                               79,  "connect"                                                          },
        {"{\"phase\":\"done\",\"result\":\"completed\",\"total_bytes\":4096}",                        79,  "completed"                                                        },
        {"{\"phase\":\"idle\"}",                                                                      0,   "idle"                                                             },
 /* What is not what it should be. */
        {"{}",                                                                                        0,   ""                                                                 },
        {"[1]",                                                                                       0,   ""                                                                 },
        {"null",                                                                                      79,  ""                                                                 },
        {"{\"phase\":7,\"result\":[],\"total_bytes\":\"x\",\"lanes\":-1}",                            79,  ""                                                                 },
        {"{\"phase\":\"\\u001b[31mred\\u0007\\u00e9\"}",                                              79,  "?[31mred???"                                                      },
        {"{\"phase\":\"a phase whose name is longer than any that there is\"}",                       79,  ""                                                                 },
        {"{\"phase\":\"rounds\",\"round\":18446744073709551614,\"lanes\":18446744073709551614,"
         "\"total_bytes\":18446744073709551614,\"data_pages\":18446744073709551614,"
         "\"round_bytes\":18446744073709551614,\"remaining_bytes\":18446744073709551614,"
         "\"wire_bytes_per_s\":18446744073709551614,\"time_left_ns\":18446744073709551614}", 0,
         "rounds 18446744073709551614 0 % of 16.0 EiB, 16.0 EiB/s, 18446744074 s left, "
         "18446744073709551614 lanes"                                                                                                                                         },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        char line[PROGRESS_LINE_MAX];

        line_of(rows[i].json, rows[i].columns, line);
        assert_string_equal(line, rows[i].line);
        if (rows[i].columns)
            assert_true(strlen(line) <= (rows[i].columns < 20 ? 20 : rows[i].columns));
    }
}

/* --- The picture ---------------------------------------------------------- */

/* Return: owned; what was drawn. */
static char *plot_of(const char *json, size_t len, int *ret_rc)
{
    struct json_object *obj = NULL;
    struct err err = {0};
    char *svg = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&svg, &size);

    assert_non_null(out);
    assert_int_equal(json_parse(json, len, &obj, NULL), 0);
    *ret_rc = plot_write(obj, out, &err);
    assert_int_equal(fclose(out), 0);
    if (*ret_rc < 0)
        assert_true(err.msg[0]);
    json_object_put(obj);
    return svg;
}

/* Recorded answers, and what is drawn of them. */
static void test_the_picture_of_recorded_migrations(void **state)
{
    static const char *const names[] = {"source", "destination", "failed", "hostile"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        char name[64], *svg;
        uint8_t *json;
        size_t len;
        int rc;

        (void)snprintf(name, sizeof(name), "chctl/progress-%s.json", names[i]);
        json = golden_read(name, &len);
        assert_non_null(json);
        svg = plot_of((const char *)json, len, &rc);
        assert_int_equal(rc, 0);
        (void)snprintf(name, sizeof(name), "chctl/plot-%s.svg", names[i]);
        golden_check(name, svg, strlen(svg));
        free(json);
        free(svg);
    }
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;

    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

/* Every coordinate of every rectangle is in the picture. */
static void assert_inside(const char *svg)
{
    for (const char *at = svg; (at = strstr(at, "<rect ")); at++) {
        double x, y, w, h;

        assert_int_equal(sscanf(at, "<rect x=\"%lf\" y=\"%lf\" width=\"%lf\" height=\"%lf\"", &x,
                                &y, &w, &h),
                         4);
        assert_true(isfinite(x) && isfinite(y) && isfinite(w) && isfinite(h));
        assert_true(x >= 0 && y >= 0 && x + w <= 961 && y + h <= 601);
    }
}

static void test_hostile_answers_are_drawn_inside_the_picture(void **state)
{
    static const char *const rows[] = {
        "{\"phase\":\"x\"}",
        "{\"phase\":\"done\",\"rounds\":7,\"phases_ns\":[]}",
        "{\"phase\":\"done\",\"rounds\":[1,null,[],\"x\",{}],\"phases_ns\":{\"pause\":-1}}",
        "{\"phase\":\"done\",\"elapsed_ns\":1,\"stopped_at_ns\":18446744073709551614,"
        "\"phases_ns\":{\"blackout\":18446744073709551614,\"pause\":18446744073709551614,"
        "\"save\":18446744073709551614},\"rounds\":[{\"at_ns\":1,"
        "\"took_ns\":18446744073709551614,\"data_pages\":18446744073709551614,"
        "\"zero_pages\":18446744073709551614,\"throttle_percent\":1000000}]}",
        ("{\"phase\":\"</text><script>&\",\"result\":\"none\",\"role\":\"<\","
         "\"migration\":\"\\u0001\"}"),
        "{\"phase\":\"done\",\"lanes\":1e99,\"elapsed_ns\":0.5,\"rounds\":[{\"at_ns\":true}]}",
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        int rc;
        char *svg = plot_of(rows[i], strlen(rows[i]), &rc);

        assert_int_equal(rc, 0);
        assert_memory_equal(svg, "<svg ", 5);
        assert_string_equal(svg + strlen(svg) - 7, "</svg>\n");
        assert_int_equal(count(svg, "<svg"), 1);
        assert_int_equal(count(svg, "<script"), 0);
        assert_int_equal(count(svg, "<text "), count(svg, "</text>"));
        assert_int_equal(count(svg, "nan") + count(svg, "inf"), 0);
        assert_inside(svg);
        free(svg);
    }
}

/* Of a hundred thousand rounds, the first are drawn. */
static void test_more_rounds_than_there_is_room_for(void **state)
{
    struct json_object *obj = json_object_new_object(), *rounds = json_object_new_array();
    char *svg, *json = NULL;
    size_t len = 0;
    int rc;

    (void)state;
    (void)json_object_object_add(obj, "phase", json_object_new_string("done"));
    (void)json_object_object_add(obj, "rounds", rounds);
    for (unsigned i = 0; i < 100000; i++)
        (void)json_object_array_add(rounds, json_object_new_object());
    assert_int_equal(json_print(obj, &json, &len), 0);
    svg = plot_of(json, len, &rc);
    assert_int_equal(rc, 0);
    assert_int_equal(count(svg, "<circle"), PLOT_ROUNDS_MAX);
    free(svg);
    free(json);
    json_object_put(obj);
}

static void test_without_a_migration_there_is_no_picture(void **state)
{
    static const char *const rows[] = {"{\"phase\":\"idle\"}", "{}", "[]", "null", "7",
                                       "{\"phase\":7}"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        int rc;
        char *svg = plot_of(rows[i], strlen(rows[i]), &rc);

        assert_int_equal(rc, -ENOENT);
        assert_string_equal(svg, "");
        free(svg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_line),
        cmocka_unit_test(test_the_picture_of_recorded_migrations),
        cmocka_unit_test(test_hostile_answers_are_drawn_inside_the_picture),
        cmocka_unit_test(test_more_rounds_than_there_is_room_for),
        cmocka_unit_test(test_without_a_migration_there_is_no_picture),
    };

    return cmocka_run_group_tests_name("chctl_view", tests, NULL, NULL);
}
