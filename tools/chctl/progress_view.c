/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chctl/progress_view.h"

#include <stdarg.h>

#include <inttypes.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>

#include "core/json_get.h"

enum {
    BAR_CELLS = 20,
    PART_MAX = 64,    /* bytes of one part of the line */
    COLUMNS_MIN = 20, /* a terminal that says less is not believed */
    PAGE_BITS = 12,
};

/* --- Reading -------------------------------------------------------------- */

static uint64_t get(struct json_object *obj, const char *key)
{
    uint64_t v = 0;

    return json_get_u64(obj, key, 0, UINT64_MAX - 1, &v, NULL) == 1 ? v : 0;
}

/* Text of the VM's: it must not command the terminal. */
static void get_text(struct json_object *obj, const char *key, char *text)
{
    const char *s = "";

    if (json_get_string(obj, key, PROGRESS_TEXT_MAX - 1, &s, NULL) != 1)
        s = "";
    (void)snprintf(text, PROGRESS_TEXT_MAX, "%s", s);
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || (unsigned char)*text > '~')
            *text = '?';
}

/* Bytes in so many pages; as many as there can be where that is too much. */
static uint64_t page_bytes(uint64_t data, uint64_t zero)
{
    if (data > UINT64_MAX >> (PAGE_BITS + 1) || zero > UINT64_MAX >> (PAGE_BITS + 1))
        return UINT64_MAX;
    return (data + zero) << PAGE_BITS;
}

void progress_view_get(struct json_object *obj, struct progress_view *ret_v)
{
    *ret_v = (struct progress_view){0};
    if (!json_object_is_type(obj, json_type_object))
        return;
    ret_v->round = get(obj, "round");
    ret_v->lanes = get(obj, "lanes");
    ret_v->total = get(obj, "total_bytes");
    ret_v->done = page_bytes(get(obj, "data_pages"), get(obj, "zero_pages"));
    ret_v->round_total = get(obj, "round_bytes");
    ret_v->remaining = get(obj, "remaining_bytes");
    ret_v->wire_rate = get(obj, "wire_bytes_per_s");
    ret_v->dirty_rate = get(obj, "dirty_bytes_per_s");
    ret_v->throttle = get(obj, "throttle_percent");
    ret_v->time_left_ns = get(obj, "time_left_ns");
    ret_v->blackout_ns = get(obj, "expected_blackout_ns");
    get_text(obj, "phase", ret_v->phase);
    get_text(obj, "result", ret_v->result);
}

/* --- The line ------------------------------------------------------------- */

struct line {
    char *buf;
    size_t len, max; /* columns, and that is bytes */
    bool full;
};

/* Add a part, whole or not at all; after one that does not fit there is no other. */
static void __attribute__((format(printf, 2, 3))) part(struct line *line, const char *fmt, ...)
{
    char text[PART_MAX];
    va_list ap;
    size_t n;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    n = strlen(text);
    if (line->full || n > line->max - line->len) {
        line->full = true;
        return;
    }
    memcpy(line->buf + line->len, text, n + 1);
    line->len += n;
}

static const char *size_text(uint64_t bytes, char *buf)
{
    static const char units[][4] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t i = 0;

    for (; v >= 1024 && i + 1 < ARRAY_LEN(units); i++)
        v /= 1024;
    (void)snprintf(buf, PROGRESS_TEXT_MAX, i ? "%.1f %s" : "%.0f %s", v, units[i]);
    return buf;
}

static const char *time_text(uint64_t ns, char *buf)
{
    if (ns < 10000000)
        (void)snprintf(buf, PROGRESS_TEXT_MAX, "%.1f ms", (double)ns / 1e6);
    else if (ns < UINT64_C(10000000000))
        (void)snprintf(buf, PROGRESS_TEXT_MAX, "%" PRIu64 " ms", ns / 1000000);
    else
        (void)snprintf(buf, PROGRESS_TEXT_MAX, "%" PRIu64 " s", ns / 1000000000);
    return buf;
}

unsigned progress_view_percent(const struct progress_view *v)
{
    uint64_t all = v->round_total ? v->round_total : v->total, done = v->done;

    if (v->round_total)
        done = v->remaining < all ? all - v->remaining : 0;
    if (!all)
        return 0;
    return done >= all ? 100 : (unsigned)((unsigned __int128)done * 100 / all);
}

static void put_bar(struct line *line, unsigned percent)
{
    unsigned full = percent * BAR_CELLS / 100;
    char cells[BAR_CELLS + 1];

    for (unsigned i = 0; i < BAR_CELLS; i++)
        cells[i] = i < full ? '#' : '-';
    cells[BAR_CELLS] = 0;
    part(line, " [%s]", cells);
}

static void put_rates(struct line *line, const struct progress_view *v)
{
    char text[PROGRESS_TEXT_MAX];

    if (v->wire_rate)
        part(line, ", %s/s", size_text(v->wire_rate, text));
    if (v->dirty_rate)
        part(line, ", dirty %s/s", size_text(v->dirty_rate, text));
    if (v->blackout_ns)
        part(line, ", blackout %s", time_text(v->blackout_ns, text));
    if (v->time_left_ns)
        part(line, ", %" PRIu64 " s left", v->time_left_ns / 1000000000 + 1);
    if (v->throttle)
        part(line, ", throttle %" PRIu64 " %%", v->throttle);
    if (v->lanes)
        part(line, ", %" PRIu64 " lane%s", v->lanes, v->lanes == 1 ? "" : "s");
}

void progress_view_line(const struct progress_view *v, unsigned columns, char *buf)
{
    bool is_over = v->result[0] && strcmp(v->result, "none") != 0;
    struct line line = {.buf = buf, .max = PROGRESS_LINE_MAX - 1};
    unsigned percent = progress_view_percent(v);
    char text[PROGRESS_TEXT_MAX];

    if (columns && columns < COLUMNS_MIN)
        columns = COLUMNS_MIN;
    if (columns && columns < line.max)
        line.max = columns;
    *buf = 0;
    part(&line, "%s", is_over ? v->result : v->phase);
    if (is_over || !v->total || (!v->done && !v->round_total))
        return;
    part(&line, " %" PRIu64, v->round);
    if (columns)
        put_bar(&line, percent);
    part(&line, " %u %%", percent);
    if (!columns)
        part(&line, " of %s", size_text(v->round_total ? v->round_total : v->total, text));
    put_rates(&line, v);
}
