/* SPDX-License-Identifier: Apache-2.0 */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "tools/chsnap/chsnap.h"

/* ---- rm ---- */

/* Snapshots that are meant. */
struct goners {
    size_t nr;
    char (*ids)[STORE_DIGEST_HEX + 1];
};

/* Found before any of them goes: a tag means another one then. */
static int rm_find(struct chsnap *c, const char *ref, struct goners *g)
{
    char *id = g->ids[g->nr];
    struct err err = {0};

    if (store_resolve(c->st, ref, id, &err) < 0)
        return chsnap_error(c, "%s", err.msg);
    for (size_t i = 0; i < g->nr; i++)
        if (strcmp(g->ids[i], id) == 0)
            return CHSNAP_OK; /* said twice */
    g->nr++;
    return CHSNAP_OK;
}

static int rm_one(struct chsnap *c, const char *id, bool dry, struct json_object *removed)
{
    struct err err = {0};

    if ((dry ? store_remove_check(c->st, id, &err) : store_remove(c->st, id, &err)) < 0)
        return chsnap_error(c, "%s", err.msg);
    if (c->json)
        (void)json_object_array_add(removed, json_object_new_string(id));
    else
        (void)printf("%s %.*s\n", dry ? "would remove" : "removed", STORE_ID_SHORT, id);
    return CHSNAP_OK;
}

static int rm_all(struct chsnap *c, char **refs, bool dry)
{
    struct json_object *removed = json_object_new_array();
    struct goners g = {0};
    int rc = CHSNAP_OK;
    size_t nr = 1;

    while (refs[nr - 1])
        nr++;
    g.ids = calloc(nr, sizeof(g.ids[0]));
    if (!g.ids)
        rc = chsnap_error(c, "out of memory");
    if (g.ids && c->url.snapshot[0])
        rc = rm_find(c, c->url.snapshot, &g);
    for (; g.ids && *refs; refs++)
        if (rm_find(c, *refs, &g) != CHSNAP_OK)
            rc = CHSNAP_FAILED;
    for (size_t i = 0; i < g.nr; i++) {
        if (!dry)
            chsnap_stop_removing(c, i, g.nr);
        if (rm_one(c, g.ids[i], dry, removed) != CHSNAP_OK)
            rc = CHSNAP_FAILED;
    }
    free(g.ids);
    if (c->json && chsnap_put_json(c, json_object_get(removed)) != CHSNAP_OK)
        rc = CHSNAP_FAILED;
    (void)json_object_put(removed);
    return rc;
}

static int rm_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"dry-run", no_argument, NULL, 'n'},
        {0    },
    };
    bool dry = false;
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "n", longs)) != -1) {
        if (opt != 'n')
            return chsnap_option_end(opt);
        dry = true;
    }
    args = argv + optind;
    rc = chsnap_open(c, dry ? STORE_RDONLY : 0, &args);
    if (rc != CHSNAP_OK)
        return rc;
    if (!*args && !c->url.snapshot[0])
        return chsnap_usage_error(c, "no snapshot: give names, ids or tags");
    return rm_all(c, args, dry);
}

const struct chsnap_command chsnap_rm = {
    .name = "rm",
    .summary = "remove snapshots",
    .usage = "[OPTION...] [STORE] SNAPSHOT...",
    .help = "Removes snapshots from the list, at once and for good.  What only they needed is\n"
            "freed by \"chsnap gc\".  A snapshot that somebody has open is not removed.\n"
            "\n"
            "  -n, --dry-run        only say what would be removed\n",
    .run = rm_run,
};

/* ---- tag ---- */

enum {
    TAG_CHANGES_MAX = 2 * STORE_TAGS_MAX,
    OPT_NO_NAME = 0x100,
};

struct changes {
    unsigned nr;
    bool named;
    struct store_relabel at[TAG_CHANGES_MAX];
};

static bool changes_add(struct changes *k, const struct store_relabel *change)
{
    if (k->nr == TAG_CHANGES_MAX)
        return false;
    k->at[k->nr++] = *change;
    return true;
}

static int tag_options(struct chsnap *c, int argc, char **argv, struct changes *k)
{
    static const struct option longs[] = {
        {"add",              required_argument, NULL, 'a'},
        {"remove",              required_argument, NULL, 'r'},
        {"name",                  required_argument, NULL, 'n'},
        {"no-name",no_argument, NULL, OPT_NO_NAME},
        {0              },
    };
    int opt;

    while ((opt = chsnap_getopt(c, argc, argv, "a:r:n:", longs)) != -1) {
        struct store_relabel change = {0};

        if (opt == 'a')
            change.add = optarg;
        else if (opt == 'r')
            change.del = optarg;
        else if (opt == 'n')
            change.name = optarg;
        else if (opt == OPT_NO_NAME)
            change.name = "";
        else
            return opt;
        if (opt == 'n' && !optarg[0]) {
            (void)chsnap_usage_error(c, "--name: is empty; --no-name takes the name away");
            return '?';
        }
        if (change.name && k->named) {
            (void)chsnap_usage_error(c, "more than one name");
            return '?';
        }
        k->named = k->named || change.name;
        if (!changes_add(k, &change)) {
            (void)chsnap_usage_error(c, "more than %u changes", TAG_CHANGES_MAX);
            return '?';
        }
    }
    return 0;
}

static int tag_run(struct chsnap *c, int argc, char **argv)
{
    struct changes k = {0};
    const char *ref = NULL;
    struct err err = {0};
    char **args;
    int rc = tag_options(c, argc, argv, &k);

    if (rc)
        return chsnap_option_end(rc);
    args = argv + optind;
    if (!k.nr)
        return chsnap_usage_error(c, "nothing to change: --add, --remove, --name or --no-name");
    rc = chsnap_open(c, 0, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_one_snapshot(c, args, &ref);
    if (rc != CHSNAP_OK)
        return rc;
    rc = store_relabel(c->st, ref, k.at, k.nr, &err);
    return rc < 0 ? chsnap_error(c, "%s", err.msg) : CHSNAP_OK;
}

const struct chsnap_command chsnap_tag = {
    .name = "tag",
    .summary = "change the name and the tags of a snapshot",
    .usage = "OPTION... [STORE] SNAPSHOT",
    .help = "  -a, --add TAG        add a tag; may be given several times\n"
            "  -r, --remove TAG     remove a tag; may be given several times\n"
            "  -n, --name NAME      give it this name, which no other snapshot may have\n"
            "      --no-name        take its name away\n"
            "\n"
            "Names and tags: at most 64 letters, digits and ._:@+=- , not beginning with '-'.\n"
            "A tag that several snapshots have stands for the newest of them.\n",
    .run = tag_run,
};
