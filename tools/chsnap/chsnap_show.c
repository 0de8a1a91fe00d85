/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/json_get.h"
#include "core/state.h"
#include "store/store_reader.h"
#include "tools/chsnap/chsnap.h"

static void show_line(const struct chsnap *c, const char *key, const char *value)
{
    (void)printf("%s%-10s%s %s\n", chsnap_paint(c, PAINT_BOLD), key, chsnap_paint(c, PAINT_OFF),
                 value);
}

/* A JSON text of the store, which may be anything; NULL if there is none. */
static struct json_object *show_parse(const char *text)
{
    struct json_object *o = NULL;

    if (!text[0])
        return NULL;
    if (json_parse(text, strlen(text), &o, NULL) == 0)
        return o;
    return json_object_new_string("(not readable)");
}

static void show_text(const struct chsnap *c, const char *key, const char *text)
{
    struct json_object *o = show_parse(text);

    if (!o)
        return;
    show_line(c, key, "");
    chsnap_put_json_text(json_object_to_json_string_ext(
        o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
    (void)json_object_put(o);
}

static void show_regions(const struct chsnap *c, const struct store_record *rec)
{
    struct chsnap_table t = {
        .nr_columns = 4, .titles = {"REGION", "ADDRESS", "SIZE", "ROOT"},
             .right = {[2] = true }
    };
    char a[CHSNAP_TEXT_MAX], hex[STORE_DIGEST_HEX + 1];

    for (unsigned i = 0; i < rec->nr_regions; i++) {
        store_digest_hex(&rec->regions[i].root, hex);
        chsnap_cell(&t, "%u", i);
        chsnap_cell(&t, "0x%llx", (unsigned long long)rec->regions[i].gpa);
        chsnap_cell(&t, "%s", chsnap_size(rec->regions[i].pages * PAGE_SIZE_4K, a));
        chsnap_cell(&t, "%.16s", hex);
    }
    if (rec->nr_regions)
        chsnap_table_print(c, &t);
}

static int show_plain(const struct chsnap *c, const struct store_info *info)
{
    const struct store_record *rec = info->rec;
    const struct store_counts *n = &rec->counts;
    char text[256], hex[STORE_DIGEST_HEX + 1], a[CHSNAP_TEXT_MAX];

    store_digest_hex(&rec->ram, hex);
    show_line(c, "id", info->id);
    show_line(c, "name", info->name[0] ? info->name : "-");
    for (unsigned i = 0; i < info->nr_tags; i++)
        show_line(c, "tag", info->tags[i]);
    show_line(c, "time", chsnap_time(rec->time_ns, a));
    show_line(c, "vm", rec->vm[0] ? rec->vm : "-");
    show_line(c, "parent", rec->parent[0] ? rec->parent : "-");
    show_line(c, "ram", hex);
    (void)snprintf(text, sizeof(text), "%llu zero, %llu as in the parent, %llu known, %llu new",
                   (unsigned long long)n->pages_zero, (unsigned long long)n->pages_same,
                   (unsigned long long)n->pages_known, (unsigned long long)n->pages_new);
    show_line(c, "pages", text);
    show_line(c, "added", chsnap_size(n->bytes_stored, a));
    show_line(c, "state", chsnap_size(rec->state_len, a));
    (void)putchar('\n');
    show_regions(c, rec);
    show_text(c, "config", rec->config);
    show_text(c, "disks", rec->disks);
    return CHSNAP_OK;
}

static int show_json(struct chsnap *c, const struct store_info *info)
{
    struct json_object *o = chsnap_info_json(info);

    (void)json_object_object_add(o, "config", show_parse(info->rec->config));
    (void)json_object_object_add(o, "disks", show_parse(info->rec->disks));
    return chsnap_put_json(c, o);
}

/* The device state: as JSON, or as it is to a file or a pipe. */
static int show_state(struct chsnap *c, struct store_snapshot *snap, bool raw)
{
    auto_free uint8_t *state = NULL;
    struct json_object *o = NULL;
    struct err err = {0};
    size_t len = 0;

    if (raw && isatty(STDOUT_FILENO))
        return chsnap_usage_error(c, "--raw-state writes bytes: redirect the output");
    if (store_snapshot_state(snap, &state, &len, &err) < 0)
        return chsnap_error(c, "%s", err.msg);
    if (!raw) {
        if (state_to_json(state, len, &o, &err) < 0)
            return chsnap_error(c, "device state: %s", err.msg);
        return chsnap_put_json(c, o);
    }
    if (fwrite(state, 1, len, stdout) != len || fflush(stdout) != 0)
        return chsnap_error(c, "standard output: %m");
    return CHSNAP_OK;
}

static int show_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"state", no_argument, NULL, 'S'},
        {"raw-state",   no_argument, NULL, 'r'},
        {0      },
    };
    struct store_snapshot *snap;
    struct err err = {0};
    const char *ref = NULL;
    int state = 0; /* 'S' or 'r' */
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "Sr", longs)) != -1) {
        if (opt != 'r' && opt != 'S')
            return chsnap_option_end(opt);
        if (state && state != opt)
            return chsnap_usage_error(c, "--state or --raw-state?");
        state = opt;
    }
    args = argv + optind;
    if (state == 'r' && c->json)
        return chsnap_usage_error(c, "--raw-state is not JSON: --state is");
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_one_snapshot(c, args, &ref);
    if (rc != CHSNAP_OK)
        return rc;
    if (store_snapshot_open(c->st, ref, &snap, &err) < 0)
        return chsnap_error(c, "%s", err.msg);
    if (state)
        rc = show_state(c, snap, state == 'r');
    else if (c->json)
        rc = show_json(c, store_snapshot_info(snap));
    else
        rc = show_plain(c, store_snapshot_info(snap));
    store_snapshot_close(snap);
    return rc;
}

const struct chsnap_command chsnap_show = {
    .name = "show",
    .summary = "show all about one snapshot",
    .usage = "[OPTION...] [STORE] SNAPSHOT",
    .help = "SNAPSHOT is a name, the first digits of an id (at least four), or a tag.\n"
            "\n"
            "  -S, --state          print the device state, field by field, as JSON\n"
            "  -r, --raw-state      write the device state, as it is, to standard output\n"
            "\n"
            "Examples:\n"
            "  chsnap show /var/lib/snapshots warm\n"
            "  chsnap show --json store:/var/lib/snapshots#warm\n",
    .run = show_run,
};
