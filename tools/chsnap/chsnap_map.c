/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chsnap map: memory as a picture, each cell some pages.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "store/store_census.h"
#include "tools/chsnap/chsnap.h"

enum {
    MAP_ROWS = 24,
    MAP_COLUMNS_MIN = 16,
    MAP_COLUMNS_MAX = 512,
    MAP_MARGIN = 16, /* columns that the address takes */
    SVG_COLUMNS = 512,
    SVG_ROWS_MAX = 1024,
    SVG_CELL = 2, /* units of a cell's side */
    SVG_LEGEND = 24,
};

/* What a cell can be; of several the most frequent, of equals the last. */
enum cell {
    CELL_ZERO,
    CELL_SHARED,
    CELL_UNIQUE,
    CELL_CHANGED,
    CELL_MAX,
};

static const struct {
    const char *name;
    char letter;       /* where there are no colours */
    const char *block; /* colour and block of a terminal */
    const char *fill;  /* of SVG */
} cells[CELL_MAX] = {
    [CELL_ZERO] = {"zero",                         '.', "\033[90m\u2591", "#e8e8e8"},
    [CELL_SHARED] = {"shared with another snapshot", 's', "\033[34m\u2588", "#4477aa"},
    [CELL_UNIQUE] = {"only in this one",             'u', "\033[32m\u2588", "#228833"},
    [CELL_CHANGED] = {"changed since the parent",     'c', "\033[31m\u2588", "#cc3311"},
};

struct map {
    struct chsnap *c;
    struct store_snapshot *snap;
    unsigned columns;
    uint64_t cell_pages;
    uint64_t first_cell[STORE_REGIONS_MAX + 1]; /* of each region; regions begin new rows */
    uint32_t (*count)[CELL_MAX];
    struct store_census_result res;
};

/* ---- counting ---- */

static int map_take(void *arg, unsigned region, uint64_t first, const uint8_t *flags, unsigned nr)
{
    struct map *m = arg;

    for (unsigned i = 0; i < nr; i++) {
        uint64_t at = m->first_cell[region] + (first + i) / m->cell_pages;
        enum cell cell = CELL_ZERO;

        if (flags[i] & STORE_PAGE_CHANGED)
            cell = CELL_CHANGED;
        else if (flags[i] & STORE_PAGE_SHARED)
            cell = CELL_SHARED;
        else if (flags[i] & STORE_PAGE_PRESENT)
            cell = CELL_UNIQUE;
        m->count[at][cell]++;
    }
    return 0;
}

static enum cell map_cell(const struct map *m, uint64_t at)
{
    enum cell best = CELL_ZERO;

    for (enum cell k = CELL_ZERO; k < CELL_MAX; k++)
        if (m->count[at][k] >= m->count[at][best])
            best = k;
    return m->count[at][best] ? best : CELL_MAX; /* CELL_MAX: behind the end of a region */
}

/* Lay the regions out in rows of @columns cells, at most about @rows of them. */
static int map_layout(struct map *m, unsigned columns, unsigned rows)
{
    const struct store_record *rec = store_snapshot_info(m->snap)->rec;
    uint64_t pages = 0, at = 0;

    for (unsigned i = 0; i < rec->nr_regions; i++)
        pages += rec->regions[i].pages;
    m->columns = columns;
    m->cell_pages = pages / ((uint64_t)columns * rows) + 1;
    for (unsigned i = 0; i < rec->nr_regions; i++) {
        uint64_t nr = (rec->regions[i].pages + m->cell_pages - 1) / m->cell_pages;

        m->first_cell[i] = at;
        at += (nr + columns - 1) / columns * columns;
    }
    m->first_cell[rec->nr_regions] = at;
    m->count = calloc(at + 1, sizeof(m->count[0]));
    return m->count ? CHSNAP_OK : chsnap_error(m->c, "out of memory");
}

/* ---- pictures ---- */

static void terminal_row(const struct map *m, uint64_t row)
{
    for (unsigned x = 0; x < m->columns; x++) {
        enum cell cell = map_cell(m, row * m->columns + x);

        if (cell == CELL_MAX)
            break;
        if (m->c->colour)
            (void)fputs(cells[cell].block, stdout);
        else
            (void)putchar(cells[cell].letter);
    }
    (void)printf("%s\n", chsnap_paint(m->c, PAINT_OFF));
}

static void map_legend(const struct map *m)
{
    const uint64_t nr[CELL_MAX] = {m->res.zero, m->res.shared, m->res.unique, m->res.changed};
    char a[CHSNAP_TEXT_MAX];

    (void)printf("a cell is %s\n", chsnap_size(m->cell_pages * PAGE_SIZE_4K, a));
    for (enum cell k = CELL_ZERO; k < CELL_MAX; k++) {
        if (m->c->colour)
            (void)printf("%s%s", cells[k].block, chsnap_paint(m->c, PAINT_OFF));
        else
            (void)putchar(cells[k].letter);
        if (k == CELL_CHANGED && !m->res.has_parent)
            (void)printf("  %s: not known, the parent is not here\n", cells[k].name);
        else
            (void)printf("  %s: %s\n", cells[k].name, chsnap_size(nr[k] * PAGE_SIZE_4K, a));
    }
}

static void map_warn(const struct map *m)
{
    if (!m->res.unread)
        return;
    (void)fprintf(stderr,
                  "chsnap: warning: other snapshots that are damaged: %u; what this one shares "
                  "with them alone is shown as only in this one\n",
                  m->res.unread);
}

static int map_terminal(struct map *m)
{
    const struct store_record *rec = store_snapshot_info(m->snap)->rec;

    for (unsigned i = 0; i < rec->nr_regions; i++) {
        uint64_t row = m->first_cell[i] / m->columns, end = m->first_cell[i + 1] / m->columns;
        uint64_t gpa = rec->regions[i].gpa;

        for (; row < end; row++, gpa += m->columns * m->cell_pages * PAGE_SIZE_4K) {
            (void)printf("0x%012llx ", (unsigned long long)gpa);
            terminal_row(m, row);
        }
    }
    map_legend(m);
    return CHSNAP_OK;
}

static void svg_legend(uint64_t top)
{
    for (unsigned k = 0; k < CELL_MAX; k++) {
        (void)printf("<rect x=\"%u\" y=\"%llu\" width=\"10\" height=\"10\" fill=\"%s\"/>"
                     "<text x=\"%u\" y=\"%llu\">%s</text>\n",
                     k * 250, (unsigned long long)top, cells[k].fill, k * 250 + 14,
                     (unsigned long long)top + 9, cells[k].name);
    }
}

static int map_svg(struct map *m)
{
    uint64_t rows = m->first_cell[store_snapshot_info(m->snap)->rec->nr_regions] / m->columns;

    (void)printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %u %llu\" "
                 "font-family=\"sans-serif\" font-size=\"10\" shape-rendering=\"crispEdges\">\n",
                 m->columns * SVG_CELL, (unsigned long long)rows * SVG_CELL + SVG_LEGEND);
    for (uint64_t row = 0; row < rows; row++) {
        for (unsigned x = 0, to; x < m->columns; x = to) {
            enum cell cell = map_cell(m, row * m->columns + x);

            for (to = x + 1; to < m->columns; to++)
                if (map_cell(m, row * m->columns + to) != cell)
                    break;
            if (cell == CELL_MAX)
                continue;
            (void)printf("<rect x=\"%u\" y=\"%llu\" width=\"%u\" height=\"%d\" fill=\"%s\"/>\n",
                         x * SVG_CELL, (unsigned long long)row * SVG_CELL, (to - x) * SVG_CELL,
                         SVG_CELL, cells[cell].fill);
        }
    }
    svg_legend(rows * SVG_CELL + SVG_LEGEND / 2);
    (void)puts("</svg>");
    return CHSNAP_OK;
}

static int map_json(struct map *m)
{
    struct json_object *o = json_object_new_object();

    (void)json_object_object_add(o, "pages", json_object_new_uint64(m->res.pages));
    (void)json_object_object_add(o, "zero", json_object_new_uint64(m->res.zero));
    (void)json_object_object_add(o, "shared", json_object_new_uint64(m->res.shared));
    (void)json_object_object_add(o, "unique", json_object_new_uint64(m->res.unique));
    (void)json_object_object_add(o, "unread", json_object_new_uint64(m->res.unread));
    if (m->res.has_parent)
        (void)json_object_object_add(o, "changed", json_object_new_uint64(m->res.changed));
    return chsnap_put_json(m->c, o);
}

/* ---- the command ---- */

static unsigned terminal_columns(void)
{
    struct winsize w = {0};
    unsigned columns = 80;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col)
        columns = w.ws_col;
    columns = columns > MAP_MARGIN ? columns - MAP_MARGIN : MAP_COLUMNS_MIN;
    if (columns < MAP_COLUMNS_MIN)
        return MAP_COLUMNS_MIN;
    return columns < MAP_COLUMNS_MAX ? columns : MAP_COLUMNS_MAX;
}

static int map_all(struct map *m, bool svg)
{
    struct err err = {0};
    int rc = svg ? map_layout(m, SVG_COLUMNS, SVG_ROWS_MAX)
                 : map_layout(m, terminal_columns(), MAP_ROWS);

    if (rc == CHSNAP_OK && store_census(m->snap, map_take, m, &m->res, &err) < 0)
        rc = chsnap_error(m->c, "%s", err.msg);
    if (rc == CHSNAP_OK)
        map_warn(m);
    if (rc == CHSNAP_OK && m->c->json)
        rc = map_json(m);
    else if (rc == CHSNAP_OK)
        rc = svg ? map_svg(m) : map_terminal(m);
    free(m->count);
    return rc;
}

static int map_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"svg", no_argument, NULL, 'S'},
        {0},
    };
    struct map m = {.c = c};
    const char *ref = NULL;
    struct err err = {0};
    bool svg = false;
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "S", longs)) != -1) {
        if (opt != 'S')
            return chsnap_option_end(opt);
        svg = true;
    }
    args = argv + optind;
    if (svg && c->json)
        return chsnap_usage_error(c, "--svg or --json?");
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_one_snapshot(c, args, &ref);
    if (rc != CHSNAP_OK)
        return rc;
    if (store_snapshot_open(c->st, ref, &m.snap, &err) < 0)
        return chsnap_error(c, "%s", err.msg);
    rc = map_all(&m, svg);
    store_snapshot_close(m.snap);
    return rc;
}

const struct chsnap_command chsnap_map = {
    .name = "map",
    .summary = "show the memory of a snapshot as a picture",
    .usage = "[OPTION...] [STORE] SNAPSHOT",
    .help = "Draws which memory is zero, which other snapshots have too, which only this one\n"
            "has, and what has changed since the parent. A cell shows what most of it is. Reads\n"
            "the manifests of all snapshots, no page.\n"
            "\n"
            "  -S, --svg            write an SVG picture to standard output\n",
    .run = map_run,
};
