/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chctl/plot.h"

#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <string.h>

#include "core/json_get.h"

/* Where things are, in pixels. */
enum {
    WIDTH = 960,
    HEIGHT = 600,
    LEFT = 90,
    RIGHT = 930,
    TITLE_Y = 30,
    SUBTITLE_Y = 50,
    LEGEND_Y = 74,
    PAGES_TOP = 90,
    PAGES_BOTTOM = 340,
    THROTTLE_TOP = 370,
    THROTTLE_BOTTOM = 420,
    BLACKOUT_TOP = 490,
    BLACKOUT_BOTTOM = 520,
    SHARES_Y = 545,
    SHARE_WIDTH = 140,
    TICKS = 6,
    TEXT_MAX = 64,
    PAGE_SIZE = 4096,
};

static const char *const share_colours[] = {"#4c78a8", "#f58518", "#54a24b",
                                            "#b279a2", "#9d755d", "#e45756"};

struct plot_round {
    double begin, end;        /* seconds */
    double data, zero, dirty; /* bytes; dirty: after it */
    double throttle;          /* percent, after it */
};

struct plot_share {
    const char *name;
    double seconds;
};

struct plot {
    struct plot_round rounds[PLOT_ROUNDS_MAX];
    unsigned nr_rounds;
    struct plot_share shares[ARRAY_LEN(share_colours)];
    unsigned nr_shares;
    double seconds, stopped, blackout; /* the whole; when the guest was stopped; for how long */
    double top;                        /* bytes at the top of the scale */
    bool is_source;
    FILE *out;
};

/* --- Reading -------------------------------------------------------------- */

static double number(struct json_object *obj, const char *key)
{
    uint64_t v = 0;

    return json_get_u64(obj, key, 0, UINT64_MAX - 1, &v, NULL) == 1 ? (double)v : 0;
}

static double seconds(struct json_object *obj, const char *key)
{
    return number(obj, key) / 1e9;
}

static const char *text(struct json_object *obj, const char *key)
{
    const char *s = "";

    return json_get_string(obj, key, TEXT_MAX - 1, &s, NULL) == 1 ? s : "";
}

static struct json_object *member(struct json_object *obj, const char *key, json_type type)
{
    struct json_object *v = NULL;

    return json_object_object_get_ex(obj, key, &v) && json_object_is_type(v, type) ? v : NULL;
}

static void read_rounds(struct plot *p, struct json_object *rounds)
{
    size_t n = rounds ? json_object_array_length(rounds) : 0;

    for (size_t i = 0; i < n && p->nr_rounds < PLOT_ROUNDS_MAX; i++) {
        struct json_object *o = json_object_array_get_idx(rounds, i);
        struct plot_round *r = &p->rounds[p->nr_rounds];
        double took;

        if (!json_object_is_type(o, json_type_object))
            continue;
        p->nr_rounds++;
        took = seconds(o, "took_ns");
        r->end = seconds(o, "at_ns");
        r->begin = r->end > took ? r->end - took : 0;
        r->data = number(o, "data_pages") * PAGE_SIZE;
        r->zero = number(o, "zero_pages") * PAGE_SIZE;
        r->dirty = number(o, "remaining_pages") * PAGE_SIZE;
        r->throttle = fmin(number(o, "throttle_percent"), 100);
        p->top = fmax(p->top, fmax(r->data + r->zero, r->dirty));
        p->seconds = fmax(p->seconds, r->end);
    }
}

static void read_shares(struct plot *p, struct json_object *phases)
{
    static const char *const source[] = {"pause", "harvest", "save", "send", "release", "commit"};
    static const char *const dest[] = {"pages", "load", "acquire", "start"};
    const char *const *names = p->is_source ? source : dest;

    p->nr_shares = p->is_source ? ARRAY_LEN(source) : ARRAY_LEN(dest);
    for (unsigned i = 0; i < p->nr_shares; i++)
        p->shares[i] = (struct plot_share){names[i], phases ? seconds(phases, names[i]) : 0};
    p->blackout = phases ? seconds(phases, "blackout") : 0;
}

static void read_all(struct plot *p, struct json_object *obj)
{
    p->is_source = strcmp(text(obj, "role"), "destination") != 0;
    p->seconds = seconds(obj, "elapsed_ns");
    p->stopped = seconds(obj, "stopped_at_ns");
    read_rounds(p, member(obj, "rounds", json_type_array));
    read_shares(p, member(obj, "phases_ns", json_type_object));
    if (!(p->seconds > 0))
        p->seconds = 1;
    /* Some room above the highest. */
    p->top = p->top > 0 ? p->top * 1.05 : 1;
}

/* --- Numbers and text ----------------------------------------------------- */

/* The VMM's text, as XML. */
static void put_text(FILE *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '<')
            (void)fputs("&lt;", out);
        else if (*s == '>')
            (void)fputs("&gt;", out);
        else if (*s == '&')
            (void)fputs("&amp;", out);
        else
            (void)fputc(*s < ' ' || *s > '~' ? '?' : *s, out);
    }
}

static const char *size_text(double bytes, char *buf)
{
    static const char units[][4] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t i = 0;

    for (; bytes >= 1024 && i + 1 < ARRAY_LEN(units); i++)
        bytes /= 1024;
    (void)snprintf(buf, TEXT_MAX, "%.4g %s", bytes, units[i]);
    return buf;
}

static const char *time_text(double s, char *buf)
{
    if (s < 1)
        (void)snprintf(buf, TEXT_MAX, "%.3g ms", s * 1e3);
    else
        (void)snprintf(buf, TEXT_MAX, "%.4g s", s);
    return buf;
}

/* 1, 2 or 5 times a power of the base (10, or 1024 times those), so that few of them make up all. */
static double tick_of(double all, bool is_size)
{
    static const double steps[] = {1, 2, 5, 10, 20, 50, 100, 200, 500};
    double unit = is_size ? 1 : 1e-9, next = is_size ? 1024 : 1000;

    while (unit < 1e30) {
        for (unsigned i = 0; i < ARRAY_LEN(steps); i++)
            if (all / (steps[i] * unit) <= TICKS)
                return steps[i] * unit;
        unit *= next;
    }
    return all;
}

static double clamp(double v, double max)
{
    return v < 0 ? 0 : v > max ? max : v;
}

static double x_of(const struct plot *p, double s)
{
    return LEFT + clamp(s / p->seconds, 1) * (RIGHT - LEFT);
}

static double y_of(const struct plot *p, double bytes)
{
    return PAGES_BOTTOM - clamp(bytes / p->top, 1) * (PAGES_BOTTOM - PAGES_TOP);
}

/* --- Drawing -------------------------------------------------------------- */

static void rect(const struct plot *p, double x, double y, double w, double h, const char *colour)
{
    if (w <= 0 || h <= 0)
        return;
    (void)fprintf(p->out,
                  "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x,
                  y, w, h, colour);
}

static void line(const struct plot *p, double x1, double y1, double x2, double y2)
{
    (void)fprintf(p->out, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"#ddd\"/>\n", x1, y1, x2, y2);
}

static void label(const struct plot *p, double x, double y, const char *anchor, const char *s)
{
    (void)fprintf(p->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    put_text(p->out, s);
    (void)fputs("</text>\n", p->out);
}

static void draw_title(const struct plot *p, struct json_object *obj)
{
    char line_text[6 * TEXT_MAX], a[TEXT_MAX], b[TEXT_MAX], c[TEXT_MAX], d[TEXT_MAX];
    const char *result = text(obj, "result");

    (void)snprintf(line_text, sizeof(line_text), "Migration %s, %s: %s", text(obj, "migration"),
                   text(obj, "role"), strcmp(result, "none") != 0 ? result : text(obj, "phase"));
    (void)fputs("<g font-size=\"16\">\n", p->out);
    label(p, LEFT, TITLE_Y, "start", line_text);
    (void)fputs("</g>\n", p->out);
    (void)snprintf(line_text, sizeof(line_text),
                   "%s of memory, %s on %.0f lanes, %u rounds, %s in all, blackout %s",
                   size_text(number(obj, "total_bytes"), a),
                   size_text(number(obj, "wire_bytes"), b), number(obj, "lanes"), p->nr_rounds,
                   time_text(seconds(obj, "elapsed_ns"), c),
                   p->blackout > 0 ? time_text(p->blackout, d) : "none");
    label(p, LEFT, SUBTITLE_Y, "start", line_text);
}

static void draw_legend(const struct plot *p)
{
    static const struct {
        const char *name, *colour;
    } rows[] = {
        {"sent in the round: data",       "#4c78a8"},
        {"sent in the round: zero pages", "#c6d7e8"},
        {"dirty after the round",         "#d62728"},
        {"the guest stands still",        "#eee"   },
    };

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        rect(p, LEFT + 215 * i, LEGEND_Y - 9, 10, 10, rows[i].colour);
        label(p, LEFT + 215 * i + 14, LEGEND_Y, "start", rows[i].name);
    }
}

static void draw_scales(const struct plot *p)
{
    double size_tick = tick_of(p->top, true), time_tick = tick_of(p->seconds, false);
    char buf[TEXT_MAX];

    for (unsigned i = 0; i * size_tick <= p->top; i++) {
        double v = i * size_tick;

        line(p, LEFT, y_of(p, v), RIGHT, y_of(p, v));
        label(p, LEFT - 6, y_of(p, v) + 4, "end", size_text(v, buf));
    }
    for (unsigned i = 0; i * time_tick <= p->seconds; i++) {
        double v = i * time_tick;

        line(p, x_of(p, v), PAGES_TOP, x_of(p, v), THROTTLE_BOTTOM);
        label(p, x_of(p, v), THROTTLE_BOTTOM + 18, "middle", time_text(v, buf));
    }
    line(p, LEFT, THROTTLE_TOP, RIGHT, THROTTLE_TOP);
    line(p, LEFT, THROTTLE_BOTTOM, RIGHT, THROTTLE_BOTTOM);
    label(p, LEFT - 6, THROTTLE_TOP + 4, "end", "100 %");
    label(p, LEFT - 6, THROTTLE_BOTTOM + 4, "end", "0 %");
    label(p, LEFT, THROTTLE_TOP - 8, "start", "throttle");
}

static void draw_stop(const struct plot *p)
{
    double from = x_of(p, p->stopped), to = x_of(p, p->stopped + p->blackout);

    if (p->blackout > 0)
        rect(p, from, PAGES_TOP, fmax(to - from, 1), THROTTLE_BOTTOM - PAGES_TOP, "#eee");
}

static void draw_rounds(const struct plot *p)
{
    if (!p->nr_rounds)
        label(p, (LEFT + RIGHT) / 2.0, (PAGES_TOP + PAGES_BOTTOM) / 2.0, "middle",
              "no round was finished");
    for (unsigned i = 0; i < p->nr_rounds; i++) {
        const struct plot_round *r = &p->rounds[i];
        double x = x_of(p, r->begin), w = fmax(x_of(p, r->end) - x, 1);
        double data = y_of(p, r->data), both = y_of(p, r->data + r->zero);

        rect(p, x, data, w, PAGES_BOTTOM - data, "#4c78a8");
        rect(p, x, both, w, data - both, "#c6d7e8");
    }
}

/* What was dirty after each round; only a source knows it. */
static void draw_dirty(const struct plot *p)
{
    if (!p->is_source || !p->nr_rounds)
        return;
    (void)fputs("<path fill=\"none\" stroke=\"#d62728\" stroke-width=\"2\" d=\"", p->out);
    for (unsigned i = 0; i < p->nr_rounds; i++)
        (void)fprintf(p->out, "%c%.1f %.1f", i ? 'L' : 'M', x_of(p, p->rounds[i].end),
                      y_of(p, p->rounds[i].dirty));
    (void)fputs("\"/>\n", p->out);
    for (unsigned i = 0; i < p->nr_rounds; i++)
        (void)fprintf(p->out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"#d62728\"/>\n",
                      x_of(p, p->rounds[i].end), y_of(p, p->rounds[i].dirty));
}

/* What was decided after a round holds until the next decision, or the stop. */
static void draw_throttle(const struct plot *p)
{
    for (unsigned i = 0; i < p->nr_rounds; i++) {
        bool is_last = i + 1 == p->nr_rounds;
        double until = !is_last ? p->rounds[i + 1].end : p->blackout > 0 ? p->stopped : p->seconds;
        double x = x_of(p, p->rounds[i].end), w = x_of(p, until) - x;
        double h = p->rounds[i].throttle / 100 * (THROTTLE_BOTTOM - THROTTLE_TOP);

        rect(p, x, THROTTLE_BOTTOM - h, w, h, "#f2a900");
    }
}

static void draw_blackout(const struct plot *p)
{
    double sum = 0, at = 0, all;
    char name[2 * TEXT_MAX], buf[TEXT_MAX];

    for (unsigned i = 0; i < p->nr_shares; i++)
        sum += p->shares[i].seconds;
    all = fmax(sum, p->blackout);
    (void)snprintf(name, sizeof(name), "blackout: %s",
                   p->blackout > 0 ? time_text(p->blackout, buf) : "none");
    label(p, LEFT, BLACKOUT_TOP - 10, "start", name);
    if (!(p->blackout > 0))
        return;
    rect(p, LEFT, BLACKOUT_TOP, RIGHT - LEFT, BLACKOUT_BOTTOM - BLACKOUT_TOP, "#eee");
    for (unsigned i = 0; i < p->nr_shares; i++) {
        double w = p->shares[i].seconds / all * (RIGHT - LEFT);

        rect(p, LEFT + at, BLACKOUT_TOP, w, BLACKOUT_BOTTOM - BLACKOUT_TOP, share_colours[i]);
        at += w;
        rect(p, LEFT + SHARE_WIDTH * i, SHARES_Y - 9, 10, 10, share_colours[i]);
        (void)snprintf(name, sizeof(name), "%s %s", p->shares[i].name,
                       time_text(p->shares[i].seconds, buf));
        label(p, LEFT + SHARE_WIDTH * i + 14, SHARES_Y, "start", name);
    }
}

int plot_write(struct json_object *progress, FILE *out, struct err *err)
{
    auto_free struct plot *p = calloc(1, sizeof(*p));

    if (!p)
        return err_set(err, -ENOMEM, "out of memory");
    if (!json_object_is_type(progress, json_type_object) || !*text(progress, "phase") ||
        !strcmp(text(progress, "phase"), "idle"))
        return err_set(err, -ENOENT, "there is no migration to draw");
    p->out = out;
    read_all(p, progress);
    (void)fprintf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                  "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n",
                  WIDTH, HEIGHT, WIDTH, HEIGHT);
    rect(p, 0, 0, WIDTH, HEIGHT, "#fff");
    draw_title(p, progress);
    draw_legend(p);
    draw_stop(p);
    draw_scales(p);
    draw_rounds(p);
    draw_dirty(p);
    draw_throttle(p);
    draw_blackout(p);
    (void)fputs("</svg>\n", out);
    return ferror(out) ? err_set(err, -EIO, "cannot be written") : 0;
}
