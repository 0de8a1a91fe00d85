/* SPDX-License-Identifier: Apache-2.0 */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "tools/chsnap/chsnap.h"

struct list {
    struct chsnap *c;
    const char *vm, *tag;
    bool ids;
    struct chsnap_table table;
    struct json_object *json; /* array */
};

static uint64_t info_ram(const struct store_info *info)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < info->rec->nr_regions; i++)
        pages += info->rec->regions[i].pages;
    return pages * PAGE_SIZE_4K;
}

static void add_string(struct json_object *o, const char *key, const char *value)
{
    (void)json_object_object_add(o, key, json_object_new_string(value));
}

static void add_number(struct json_object *o, const char *key, uint64_t value)
{
    (void)json_object_object_add(o, key, json_object_new_uint64(value));
}

static struct json_object *regions_json(const struct store_record *rec)
{
    struct json_object *all = json_object_new_array();

    for (unsigned i = 0; i < rec->nr_regions; i++) {
        struct json_object *o = json_object_new_object();
        char hex[STORE_DIGEST_HEX + 1];

        store_digest_hex(&rec->regions[i].root, hex);
        add_number(o, "gpa", rec->regions[i].gpa);
        add_number(o, "bytes", rec->regions[i].pages * PAGE_SIZE_4K);
        add_string(o, "root", hex);
        (void)json_object_array_add(all, o);
    }
    return all;
}

struct json_object *chsnap_info_json(const struct store_info *info)
{
    struct json_object *o = json_object_new_object(), *tags = json_object_new_array();
    char time[CHSNAP_TEXT_MAX], hex[STORE_DIGEST_HEX + 1];
    const struct store_record *rec = info->rec;

    for (unsigned i = 0; i < info->nr_tags; i++)
        (void)json_object_array_add(tags, json_object_new_string(info->tags[i]));
    store_digest_hex(&rec->ram, hex);
    add_string(o, "id", info->id);
    add_string(o, "name", info->name);
    (void)json_object_object_add(o, "tags", tags);
    add_string(o, "time", chsnap_time_json(rec->time_ns, time));
    add_string(o, "vm", rec->vm);
    add_string(o, "parent", rec->parent);
    add_string(o, "ram_digest", hex);
    add_number(o, "ram_bytes", info_ram(info));
    add_number(o, "state_bytes", rec->state_len);
    add_number(o, "stored_bytes", rec->counts.bytes_stored);
    add_number(o, "pages_zero", rec->counts.pages_zero);
    add_number(o, "pages_same", rec->counts.pages_same);
    add_number(o, "pages_known", rec->counts.pages_known);
    add_number(o, "pages_new", rec->counts.pages_new);
    (void)json_object_object_add(o, "regions", regions_json(rec));
    return o;
}

static bool info_has_tag(const struct store_info *info, const char *tag)
{
    for (unsigned i = 0; i < info->nr_tags; i++)
        if (strcmp(info->tags[i], tag) == 0)
            return true;
    return false;
}

static void list_add_row(struct list *l, const struct store_info *info)
{
    char a[CHSNAP_TEXT_MAX], tags[STORE_TAGS_MAX * (STORE_NAME_MAX + 1) + 1] = "";
    size_t len = 0;

    for (unsigned i = 0; i < info->nr_tags; i++)
        len +=
            (size_t)snprintf(tags + len, sizeof(tags) - len, "%s%s", i ? "," : "", info->tags[i]);
    chsnap_cell(&l->table, "%.*s", STORE_ID_SHORT, info->id);
    chsnap_cell(&l->table, "%s", info->name[0] ? info->name : "-");
    chsnap_cell(&l->table, "%s", chsnap_time(info->rec->time_ns, a));
    chsnap_cell(&l->table, "%s", info->rec->vm[0] ? info->rec->vm : "-");
    chsnap_cell(&l->table, "%s", chsnap_size(info_ram(info), a));
    chsnap_cell(&l->table, "%s", chsnap_size(info->rec->counts.bytes_stored, a));
    chsnap_cell(&l->table, "%.*s", STORE_ID_SHORT, info->rec->parent[0] ? info->rec->parent : "-");
    chsnap_cell(&l->table, "%s", tags);
}

static int list_one(void *arg, const struct store_info *info)
{
    struct list *l = arg;

    if (l->vm && strcmp(l->vm, info->rec->vm) != 0)
        return 0;
    if (l->tag && !info_has_tag(info, l->tag))
        return 0;
    if (l->c->json) {
        (void)json_object_array_add(l->json, l->ids ? json_object_new_string(info->id)
                                                    : chsnap_info_json(info));
    } else if (l->ids) {
        (void)puts(info->id);
    } else {
        list_add_row(l, info);
    }
    return 0;
}

static int list_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"vm",               required_argument, NULL, 'V'},
        {"tag",              required_argument, NULL, 't'},
        {"quiet",                  no_argument, NULL, 'q'},
        {0},
    };
    struct list l = {
        .c = c,
        .table = {.nr_columns = 8,
                  .titles = {"ID", "NAME", "TIME", "VM", "RAM", "ADDED", "PARENT", "TAGS"},
                  .right = {[4] = true, [5] = true}},
    };
    struct err err = {0};
    char **args;
    int opt, rc, put;

    while ((opt = chsnap_getopt(c, argc, argv, "V:t:q", longs)) != -1) {
        if (opt == 'V')
            l.vm = optarg;
        else if (opt == 't')
            l.tag = optarg;
        else if (opt == 'q')
            l.ids = true;
        else
            return chsnap_option_end(opt);
    }
    args = argv + optind;
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_only_store(c, args);
    if (rc != CHSNAP_OK)
        return rc;
    l.json = json_object_new_array();
    rc = store_list(c->st, list_one, &l, &err);
    if (l.table.nr_cells)
        chsnap_table_print(c, &l.table);
    /* One that is damaged hides no other. */
    put = c->json ? chsnap_put_json(c, json_object_get(l.json)) : CHSNAP_OK;
    (void)json_object_put(l.json);
    return rc < 0 ? chsnap_error(c, "%s", err.msg) : put;
}

const struct chsnap_command chsnap_list = {
    .name = "list",
    .summary = "list the snapshots of a store",
    .usage = "[OPTION...] [STORE]",
    .help = "Lists snapshots in the order in which they were published.  ADDED is what storing\n"
            "each of them added to the store; every snapshot is complete, whatever its PARENT.\n"
            "\n"
            "  -V, --vm VM          only those of this virtual machine\n"
            "  -t, --tag TAG        only those with this tag\n"
            "  -q, --quiet          print ids only, for use in scripts\n"
            "\n"
            "Examples:\n"
            "  chsnap list /var/lib/snapshots\n"
            "  chsnap list -q --tag nightly /var/lib/snapshots\n",
    .run = list_run,
};
