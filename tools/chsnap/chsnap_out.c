/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>

#include <assert.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "core/utf8.h"
#include "tools/chsnap/chsnap.h"

enum {
    PROGRESS_EVERY_MS = 100,
    PROGRESS_WIDTH = 80, /* of a terminal that does not say */
    PROGRESS_WIDTH_MAX = 200,
};

/* A line of progress while it is made. */
struct progress_line {
    char text[PROGRESS_WIDTH_MAX + 1];
    size_t len, width;
    bool full; /* a part had no room, so what follows has no sense */
};

/* ---- words ---- */

const char *chsnap_paint(const struct chsnap *c, enum chsnap_paint paint)
{
    static const char *const codes[] = {
        [PAINT_BOLD] = "\033[1m",    [PAINT_DIM] = "\033[2m",    [PAINT_RED] = "\033[31m",
        [PAINT_YELLOW] = "\033[33m", [PAINT_GREEN] = "\033[32m", [PAINT_OFF] = "\033[0m",
    };

    return c->colour ? codes[paint] : "";
}

/* The next character: its bytes, at least 1, and *@ret_code, 0 if it is no UTF-8. */
static size_t next_char(const char *text, uint32_t *ret_code)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

    *ret_code = 0;
    if (strnlen(text, len) < len || !utf8_ok(text, len))
        return 1;
    *ret_code = len == 1 ? s[0] : s[0] & (0xffU >> (len + 1));
    for (size_t i = 1; i < len; i++)
        *ret_code = *ret_code << 6 | (s[i] & 0x3f);
    return len;
}

/* What a terminal obeys, also in its second set of controls, or shows in another order than it is in. */
static bool is_control(uint32_t code)
{
    static const struct {
        uint32_t first, last;
    } all[] = {
        {0x00,   0x1f  },
        {0x7f,   0x9f  },
        {0x061c, 0x061c},
        {0x200e, 0x200f},
        {0x2028, 0x202e},
        {0x2066, 0x2069},
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (code >= all[i].first && code <= all[i].last)
            return true;
    return false;
}

/* A store may come from anywhere: its texts must not command the terminal. */
void chsnap_put_text(FILE *f, const char *text)
{
    while (*text) {
        uint32_t code;
        size_t len = next_char(text, &code);

        if (is_control(code))
            (void)fputc('?', f);
        else
            (void)fwrite(text, 1, len, f);
        text += len;
    }
}

/* They are in strings, where JSON has another way to write them. */
void chsnap_put_json_text(const char *text)
{
    while (*text) {
        uint32_t code;
        size_t len = next_char(text, &code);

        if (*text == '\n' || !is_control(code))
            (void)fwrite(text, 1, len, stdout);
        else
            (void)printf("\\u%04x", code ? code : 0xfffd);
        text += len;
    }
    (void)putchar('\n');
}

int chsnap_error(const struct chsnap *c, const char *fmt, ...)
{
    char text[2 * ERR_MSG_SIZE];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "chsnap: %serror%s: ", c->colour_err ? "\033[31m" : "",
                  c->colour_err ? "\033[0m" : "");
    chsnap_put_text(stderr, text);
    (void)fputc('\n', stderr);
    return CHSNAP_FAILED;
}

const char *chsnap_size(uint64_t bytes, char *buf)
{
    static const char units[][4] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t i = 0;

    for (; v >= 1024 && i + 1 < ARRAY_LEN(units); i++)
        v /= 1024;
    (void)snprintf(buf, CHSNAP_TEXT_MAX, i ? "%.1f %s" : "%.0f %s", v, units[i]);
    return buf;
}

const char *chsnap_time(uint64_t time_ns, char *buf)
{
    time_t t = (time_t)(time_ns / 1000000000U);
    struct tm tm;

    if (!localtime_r(&t, &tm) || !strftime(buf, CHSNAP_TEXT_MAX, "%Y-%m-%d %H:%M:%S", &tm))
        (void)snprintf(buf, CHSNAP_TEXT_MAX, "-");
    return buf;
}

const char *chsnap_time_json(uint64_t time_ns, char *buf)
{
    time_t t = (time_t)(time_ns / 1000000000U);
    struct tm tm;
    size_t n = 0;

    if (gmtime_r(&t, &tm))
        n = strftime(buf, CHSNAP_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(buf + n, CHSNAP_TEXT_MAX - n, ".%09lluZ",
                   (unsigned long long)(time_ns % 1000000000U));
    return buf;
}

/* ---- tables ---- */

void chsnap_cell(struct chsnap_table *t, const char *fmt, ...)
{
    char *text = NULL, **cells;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    cells = array_grow(t->cells, t->nr_cells, &t->cap_cells, sizeof(*cells));
    if (!cells) {
        free(text);
        return;
    }
    t->cells = cells;
    t->cells[t->nr_cells++] = text;
}

static const char *cell_text(const struct chsnap_table *t, size_t i)
{
    return t->cells[i] ? t->cells[i] : "?";
}

static void table_put(const struct chsnap_table *t, unsigned column, const char *text, size_t width)
{
    bool last = column + 1 == t->nr_columns;

    if (t->right[column])
        (void)printf("%*s", (int)width, text);
    else
        (void)printf("%-*s", last ? 0 : (int)width, text);
    (void)fputs(last ? "\n" : "  ", stdout);
}

void chsnap_table_print(const struct chsnap *c, struct chsnap_table *t)
{
    size_t width[CHSNAP_COLUMNS_MAX];

    assert(t->nr_columns > 0);
    for (unsigned k = 0; k < t->nr_columns; k++)
        width[k] = strlen(t->titles[k]);
    for (size_t i = 0; i < t->nr_cells; i++)
        if (strlen(cell_text(t, i)) > width[i % t->nr_columns])
            width[i % t->nr_columns] = strlen(cell_text(t, i));
    (void)fputs(chsnap_paint(c, PAINT_BOLD), stdout);
    for (unsigned k = 0; k < t->nr_columns; k++)
        table_put(t, k, t->titles[k], width[k]);
    (void)fputs(chsnap_paint(c, PAINT_OFF), stdout);
    for (size_t i = 0; i < t->nr_cells; i++) {
        unsigned k = (unsigned)(i % t->nr_columns);

        table_put(t, k, cell_text(t, i), width[k]);
    }
    chsnap_table_drop(t);
}

void chsnap_table_drop(struct chsnap_table *t)
{
    for (size_t i = 0; i < t->nr_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    t->cells = NULL;
    t->nr_cells = t->cap_cells = 0;
}

/* ---- JSON ---- */

/* Also if what failed was part of a longer output, and the end of it went well. */
bool chsnap_out_is_good(void)
{
    return fflush(stdout) == 0 && !ferror(stdout);
}

int chsnap_put_json(struct chsnap *c, struct json_object *obj)
{
    const char *text = json_object_to_json_string_ext(
        obj, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
    bool good = text;

    if (good) {
        chsnap_stop_hold_output();
        chsnap_put_json_text(text);
        good = chsnap_out_is_good();
        chsnap_stop_release();
    }
    (void)json_object_put(obj);
    return good ? CHSNAP_OK : chsnap_error(c, "standard output: %m");
}

/* ---- progress ---- */

static uint64_t now_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

void chsnap_progress_start(const struct chsnap *c, struct chsnap_progress *p, const char *what)
{
    *p = (struct chsnap_progress){.on = c->progress, .what = what, .start_ns = now_ns()};
}

void chsnap_progress_phase(struct chsnap_progress *p, const char *what)
{
    if (p->what == what)
        return;
    p->what = what;
    p->start_ns = now_ns();
}

static const char *progress_amount(const struct chsnap_progress *p, uint64_t n,
                                   char text[CHSNAP_TEXT_MAX])
{
    if (!p->unit)
        return chsnap_size(n, text);
    (void)snprintf(text, CHSNAP_TEXT_MAX, "%llu", (unsigned long long)n);
    return text;
}

/* Columns that a line may have: the last one is left, some terminals go to the next line there. */
static size_t progress_width(void)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nobody changes the environment */
    const char *columns = getenv("COLUMNS");
    struct winsize size = {0};
    unsigned long width = 0;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0)
        width = size.ws_col;
    if (!width && columns)
        width = strtoul(columns, NULL, 10);
    if (!width)
        width = PROGRESS_WIDTH;
    return (width < PROGRESS_WIDTH_MAX ? width : PROGRESS_WIDTH_MAX) - 1;
}

/* Add a part to a line, all of it or nothing. */
static void line_add(struct progress_line *l, const char *fmt, ...) PRINTF(2, 3);
static void line_add(struct progress_line *l, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (l->full)
        return;
    va_start(ap, fmt);
    n = vsnprintf(l->text + l->len, sizeof(l->text) - l->len, fmt, ap);
    va_end(ap);
    l->full = n < 0 || (size_t)n > l->width - l->len;
    if (l->full)
        l->text[l->len] = 0;
    else
        l->len += (size_t)n;
}

void chsnap_progress_step(struct chsnap_progress *p, uint64_t done, uint64_t total)
{
    char a[CHSNAP_TEXT_MAX], b[CHSNAP_TEXT_MAX], r[CHSNAP_TEXT_MAX];
    struct progress_line l = {0};
    uint64_t now = p->on ? now_ns() : 0;
    double seconds = (double)(now - p->start_ns) / 1e9;
    double rate;

    if (!p->on || now - p->shown_ns < (uint64_t)PROGRESS_EVERY_MS * 1000000 || seconds <= 0)
        return;
    p->shown_ns = now;
    rate = (double)done / seconds;
    l.width = progress_width();
    line_add(&l, "%s", p->what);
    line_add(&l, "  %s", progress_amount(p, done, a));
    if (total)
        line_add(&l, " of %s  %.0f %%", progress_amount(p, total, b),
                 100.0 * (double)done / (double)total);
    line_add(&l, "  %s%s%s/s", progress_amount(p, (uint64_t)rate, r), p->unit ? " " : "",
             p->unit ? p->unit : "");
    if (total > done && rate > 0)
        line_add(&l, "  %.0f s left", (double)(total - done) / rate + 0.5);
    (void)fprintf(stderr, "\r\033[K%s", l.text);
    (void)fflush(stderr);
}

void chsnap_progress_clear(struct chsnap_progress *p)
{
    if (p->on && p->shown_ns)
        (void)fputs("\r\033[K", stderr);
    p->shown_ns = 0;
}
