/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any answer of vm.migration-progress: its line is printable and fits, and its
 * picture is whole, or there is none and it is said why.
 */
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>

#include "core/json_get.h"
#include "tools/chctl/plot.h"
#include "tools/chctl/progress_view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void check_line(struct json_object *obj, unsigned columns)
{
    char line[PROGRESS_LINE_MAX];
    struct progress_view v;

    progress_view_get(obj, &v);
    must(progress_view_percent(&v) <= 100);
    progress_view_line(&v, columns, line);
    must(memchr(line, 0, sizeof(line)) != NULL);
    must(!columns || strlen(line) <= columns);
    for (const char *p = line; *p; p++)
        must(*p >= ' ' && *p <= '~');
}

static void check_plot(struct json_object *obj)
{
    static const char end[] = "</svg>\n";
    struct err err = {0};
    char *svg = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&svg, &size);
    int rc;

    must(out);
    rc = plot_write(obj, out, &err);
    must(fclose(out) == 0);
    must((rc < 0) == (err.code < 0) && (rc < 0) == (size == 0));
    if (rc >= 0) {
        must(size > sizeof(end) && !memcmp(svg, "<svg ", 5));
        must(strstr(svg, "</svg>") == svg + size - (sizeof(end) - 1));
        /* No coordinate is negative, or none at all. */
        must(!strstr(svg, "=\"-") && !strstr(svg, "=\"nan") && !strstr(svg, "=\"inf"));
    }
    free(svg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct json_object *obj = NULL;

    if (json_parse((const char *)data, len, &obj, NULL))
        return 0;
    check_line(obj, 0);
    check_line(obj, 79);
    check_plot(obj);
    json_object_put(obj);
    return 0;
}
