/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chsnap diff: device state, configuration and disks field by field, memory by region
 * and amount.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/json_get.h"
#include "core/state.h"
#include "store/store_compare.h"
#include "tools/chsnap/chsnap.h"

enum {
    DIFF_PATH_MAX = 512,
    DIFF_TEXT_SHOWN = 48, /* characters of a long value */
    SIDES = 2,
};

static const char *const change_names[STORE_CHANGE_MAX] = {
    [STORE_CHANGE_CONTENT] = "changed", [STORE_CHANGE_FILLED] = "filled",
    [STORE_CHANGE_CLEARED] = "cleared", [STORE_CHANGE_ADDED] = "added",
    [STORE_CHANGE_REMOVED] = "removed",
};

struct diff {
    struct chsnap *c;
    bool runs; /* say each run of pages too */
    struct store_snapshot *snap[SIDES];
    uint64_t pages[STORE_REGIONS_MAX][STORE_CHANGE_MAX]; /* by region of the second */
    struct json_object *run_list;
    struct json_object *fields; /* of the part at hand: array of {path, a, b} */
};

/* ---- fields ---- */

static void field_add(struct diff *d, const char *path, struct json_object *a,
                      struct json_object *b)
{
    struct json_object *o = json_object_new_object();

    (void)json_object_object_add(o, "path", json_object_new_string(path));
    (void)json_object_object_add(o, "a", json_object_get(a));
    (void)json_object_object_add(o, "b", json_object_get(b));
    (void)json_object_array_add(d->fields, o);
}

static void fields_compare(struct diff *d, const char *path, struct json_object *a,
                           struct json_object *b);

static void fields_compare_member(struct diff *d, const char *path, const char *key,
                                  struct json_object *a, struct json_object *b)
{
    char full[DIFF_PATH_MAX];

    /* A section's members lie in "fields": vcpu0.regs.rip, not vcpu0.fields.regs.fields.rip. */
    if (strcmp(key, "fields") == 0) {
        fields_compare(d, path, a, b);
        return;
    }
    (void)snprintf(full, sizeof(full), "%s%s%s", path, path[0] ? "." : "", key);
    fields_compare(d, full, a, b);
}

static void fields_compare_objects(struct diff *d, const char *path, struct json_object *a,
                                   struct json_object *b)
{
    struct json_object *other;

    json_object_object_foreach(a, key, value)
    {
        if (!json_object_object_get_ex(b, key, &other))
            other = NULL;
        fields_compare_member(d, path, key, value, other);
    }
    json_object_object_foreach(b, name, added)
    {
        if (!json_object_object_get_ex(a, name, &other))
            fields_compare_member(d, path, name, NULL, added);
    }
}

static void fields_compare_arrays(struct diff *d, const char *path, struct json_object *a,
                                  struct json_object *b)
{
    size_t nr_a = json_object_array_length(a), nr_b = json_object_array_length(b);

    for (size_t i = 0; i < nr_a || i < nr_b; i++) {
        char full[DIFF_PATH_MAX];

        (void)snprintf(full, sizeof(full), "%s[%zu]", path, i);
        fields_compare(d, full, i < nr_a ? json_object_array_get_idx(a, i) : NULL,
                       i < nr_b ? json_object_array_get_idx(b, i) : NULL);
    }
}

static void fields_compare(struct diff *d, const char *path, struct json_object *a,
                           struct json_object *b)
{
    if (json_object_equal(a, b))
        return;
    if (json_object_is_type(a, json_type_object) && json_object_is_type(b, json_type_object))
        fields_compare_objects(d, path, a, b);
    else if (json_object_is_type(a, json_type_array) && json_object_is_type(b, json_type_array))
        fields_compare_arrays(d, path, a, b);
    else
        field_add(d, path, a, b);
}

/* Sections by name: {"_disk0": {...}, ...}; @list is taken. */
static struct json_object *sections_by_id(struct json_object *list)
{
    struct json_object *all = json_object_new_object(), *id;

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *section = json_object_array_get_idx(list, i);

        if (json_object_object_get_ex(section, "id", &id))
            (void)json_object_object_add(all, json_object_get_string(id), json_object_get(section));
    }
    (void)json_object_put(list);
    return all;
}

static int load_state(struct diff *d, int side, struct json_object **ret)
{
    auto_free uint8_t *state = NULL;
    struct json_object *list = NULL;
    struct err err = {0};
    size_t len = 0;

    *ret = NULL;
    if (store_snapshot_state(d->snap[side], &state, &len, &err) < 0)
        return chsnap_error(d->c, "%s", err.msg);
    /* A state that is not ours to read is compared as one value. */
    if (state_to_json(state, len, &list, &err) < 0) {
        char hex[STORE_DIGEST_HEX + 1];

        store_digest_hex(&store_snapshot_info(d->snap[side])->rec->state, hex);
        *ret = json_object_new_string(hex);
    } else {
        *ret = sections_by_id(list);
    }
    return CHSNAP_OK;
}

static struct json_object *load_text(const char *text)
{
    struct json_object *o = NULL;

    if (text[0] && json_parse(text, strlen(text), &o, NULL) < 0)
        o = json_object_new_string(text);
    return o;
}

static int compare_state(struct diff *d)
{
    struct json_object *a = NULL, *b = NULL;
    int rc = load_state(d, 0, &a);

    if (rc == CHSNAP_OK)
        rc = load_state(d, 1, &b);
    if (rc == CHSNAP_OK)
        fields_compare(d, "", a, b);
    (void)json_object_put(a);
    (void)json_object_put(b);
    return rc;
}

static void compare_texts(struct diff *d, const char *text_a, const char *text_b)
{
    struct json_object *a = load_text(text_a), *b = load_text(text_b);

    fields_compare(d, "", a, b);
    (void)json_object_put(a);
    (void)json_object_put(b);
}

static void value_print(struct json_object *v)
{
    const char *text = v ? json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN |
                                                                 JSON_C_TO_STRING_NOSLASHESCAPE)
                         : "-";
    char shown[DIFF_TEXT_SHOWN + 1];
    size_t len = strlen(text);

    (void)snprintf(shown, sizeof(shown), "%s", text);
    chsnap_put_text(stdout, shown);
    if (len > DIFF_TEXT_SHOWN)
        (void)printf("... (%zu characters)", len);
}

static void fields_print(struct diff *d, const char *title)
{
    size_t nr = json_object_array_length(d->fields);

    (void)printf("%s%s%s: %zu fields differ\n", chsnap_paint(d->c, PAINT_BOLD), title,
                 chsnap_paint(d->c, PAINT_OFF), nr);
    for (size_t i = 0; i < nr; i++) {
        struct json_object *o = json_object_array_get_idx(d->fields, i), *v = NULL;

        (void)json_object_object_get_ex(o, "path", &v);
        (void)fputs("  ", stdout);
        chsnap_put_text(stdout, v ? json_object_get_string(v) : "");
        (void)fputs(": ", stdout);
        (void)json_object_object_get_ex(o, "a", &v);
        value_print(v);
        (void)fputs(" -> ", stdout);
        (void)json_object_object_get_ex(o, "b", &v);
        value_print(v);
        (void)putchar('\n');
    }
}

/* ---- memory ---- */

static int take_run(void *arg, const struct store_difference *r)
{
    struct diff *d = arg;
    struct json_object *o;

    d->pages[r->region_b][r->change] += r->nr;
    if (!d->runs)
        return 0;
    if (!d->c->json) {
        (void)printf("  0x%012llx  %8llu pages  %s\n", (unsigned long long)r->gpa,
                     (unsigned long long)r->nr, change_names[r->change]);
        return 0;
    }
    o = json_object_new_object();
    (void)json_object_object_add(o, "gpa", json_object_new_uint64(r->gpa));
    (void)json_object_object_add(o, "pages", json_object_new_uint64(r->nr));
    (void)json_object_object_add(o, "change", json_object_new_string(change_names[r->change]));
    (void)json_object_array_add(d->run_list, o);
    return 0;
}

static void memory_print(struct diff *d, const struct store_compare_result *res)
{
    const struct store_record *rec = store_snapshot_info(d->snap[1])->rec;
    struct chsnap_table t = {
        .nr_columns = 6,
        .titles = {"REGION", "SIZE", "CHANGED", "FILLED", "CLEARED", "ADDED"},
        .right = {false,    true,   true,      true,     true,      true   },
    };
    char a[CHSNAP_TEXT_MAX];
    uint64_t sum = 0;

    for (unsigned i = 0; i < STORE_CHANGE_MAX; i++)
        sum += res->pages[i];
    (void)printf("%smemory%s: %llu pages differ, %s\n", chsnap_paint(d->c, PAINT_BOLD),
                 chsnap_paint(d->c, PAINT_OFF), (unsigned long long)sum,
                 chsnap_size(sum * PAGE_SIZE_4K, a));
    for (unsigned i = 0; i < rec->nr_regions; i++) {
        chsnap_cell(&t, "0x%llx", (unsigned long long)rec->regions[i].gpa);
        chsnap_cell(&t, "%s", chsnap_size(rec->regions[i].pages * PAGE_SIZE_4K, a));
        for (unsigned k = STORE_CHANGE_CONTENT; k <= STORE_CHANGE_ADDED; k++)
            chsnap_cell(&t, "%s", chsnap_size(d->pages[i][k] * PAGE_SIZE_4K, a));
    }
    if (rec->nr_regions)
        chsnap_table_print(d->c, &t);
    if (res->pages[STORE_CHANGE_REMOVED])
        (void)printf("%s of memory are gone\n",
                     chsnap_size(res->pages[STORE_CHANGE_REMOVED] * PAGE_SIZE_4K, a));
}

static struct json_object *memory_json(struct diff *d, const struct store_compare_result *res)
{
    const struct store_record *rec = store_snapshot_info(d->snap[1])->rec;
    struct json_object *o = json_object_new_object(), *all = json_object_new_array();

    for (unsigned k = 0; k < STORE_CHANGE_MAX; k++)
        (void)json_object_object_add(o, change_names[k], json_object_new_uint64(res->pages[k]));
    for (unsigned i = 0; i < rec->nr_regions; i++) {
        struct json_object *g = json_object_new_object();

        (void)json_object_object_add(g, "gpa", json_object_new_uint64(rec->regions[i].gpa));
        (void)json_object_object_add(g, "pages", json_object_new_uint64(rec->regions[i].pages));
        for (unsigned k = STORE_CHANGE_CONTENT; k <= STORE_CHANGE_ADDED; k++)
            (void)json_object_object_add(g, change_names[k],
                                         json_object_new_uint64(d->pages[i][k]));
        (void)json_object_array_add(all, g);
    }
    (void)json_object_object_add(o, "regions", all);
    (void)json_object_object_add(o, "nodes_read", json_object_new_uint64(res->nodes));
    if (d->runs)
        (void)json_object_object_add(o, "runs", json_object_get(d->run_list));
    return o;
}

/* ---- the command ---- */

/* One part of the comparison: said, or added to @out. */
static void part_done(struct diff *d, const char *title, struct json_object *out)
{
    if (d->c->json)
        (void)json_object_object_add(out, title, json_object_get(d->fields));
    else
        fields_print(d, title);
    (void)json_object_put(d->fields);
    d->fields = json_object_new_array();
}

static int diff_all(struct diff *d)
{
    const struct store_record *a = store_snapshot_info(d->snap[0])->rec;
    const struct store_record *b = store_snapshot_info(d->snap[1])->rec;
    struct json_object *out = json_object_new_object();
    struct store_compare_result res = {0};
    struct err err = {0};
    int rc = compare_state(d);

    if (rc == CHSNAP_OK) {
        part_done(d, "state", out);
        compare_texts(d, a->config, b->config);
        part_done(d, "config", out);
        compare_texts(d, a->disks, b->disks);
        part_done(d, "disks", out);
        if (store_compare(d->snap[0], d->snap[1], take_run, d, &res, &err) < 0)
            rc = chsnap_error(d->c, "%s", err.msg);
    }
    if (rc == CHSNAP_OK && d->c->json) {
        (void)json_object_object_add(out, "memory", memory_json(d, &res));
        return chsnap_put_json(d->c, out);
    }
    if (rc == CHSNAP_OK)
        memory_print(d, &res);
    (void)json_object_put(out);
    return rc;
}

static int diff_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"runs", no_argument, NULL, 'r'},
        {0 },
    };
    struct diff d = {.c = c};
    struct err err = {0};
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "r", longs)) != -1) {
        if (opt != 'r')
            return chsnap_option_end(opt);
        d.runs = true;
    }
    args = argv + optind;
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc != CHSNAP_OK)
        return rc;
    if (c->url.snapshot[0] || !args[0] || !args[1] || args[2])
        return chsnap_usage_error(c, "give two snapshots");
    d.fields = json_object_new_array();
    d.run_list = json_object_new_array();
    for (int i = 0; i < SIDES && rc == CHSNAP_OK; i++)
        if (store_snapshot_open(c->st, args[i], &d.snap[i], &err) < 0)
            rc = chsnap_error(c, "%s", err.msg);
    if (rc == CHSNAP_OK)
        rc = diff_all(&d);
    for (int i = 0; i < SIDES; i++)
        store_snapshot_close(d.snap[i]);
    (void)json_object_put(d.fields);
    (void)json_object_put(d.run_list);
    return rc;
}

const struct chsnap_command chsnap_diff = {
    .name = "diff",
    .summary = "tell what differs between two snapshots",
    .usage = "[OPTION...] [STORE] SNAPSHOT SNAPSHOT",
    .help = "Says which fields of device state, configuration and disks differ, and how much\n"
            "memory: changed, filled where the first has zeroes, cleared to zeroes, added.\n"
            "Takes as long as there is difference, whatever the size of the VM.\n"
            "\n"
            "  -r, --runs           list every run of pages that differs\n",
    .run = diff_run,
};
