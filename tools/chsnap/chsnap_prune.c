/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/decimal.h"
#include "tools/chsnap/chsnap.h"
#include "tools/chsnap/prune_policy.h"

enum {
    NS_PER_S = 1000000000,
    PRUNE_TAGS_MAX = 16,
    PRUNE_KEEP_MAX = 1000000,
    KEPT_BUSY = PRUNE_KEPT_OF_FUTURE << 1, /* it could not be removed */
    OPT_LAST = 0x100,
    OPT_HOURLY,
    OPT_DAILY,
    OPT_WEEKLY,
    OPT_TAG,
};

static const char *const rule_names[] = {"last", "hourly", "daily",  "weekly",
                                         "tag",  "future", "failure"};

/* A snapshot and what is to become of it. */
struct candidate {
    char id[STORE_DIGEST_HEX + 1];
    char name[STORE_NAME_MAX + 1];
    char vm[STORE_NAME_MAX + 1];
    uint64_t time_ns, seq;
    unsigned kept;
};

struct prune {
    struct chsnap *c;
    struct prune_policy policy;
    bool any_rule;
    const char *vm;
    unsigned nr_tags;
    const char *tags[PRUNE_TAGS_MAX];
    bool dry;
    size_t nr, cap;
    struct candidate *all;
    struct prune_item *items;
};

static bool has_kept_tag(const struct prune *p, const struct store_info *info)
{
    for (unsigned i = 0; i < info->nr_tags; i++) {
        for (unsigned k = 0; k < p->nr_tags; k++)
            if (strcmp(info->tags[i], p->tags[k]) == 0)
                return true;
    }
    return false;
}

static int take(void *arg, const struct store_info *info)
{
    struct prune *p = arg;
    struct candidate *s;

    if (p->vm && strcmp(p->vm, info->rec->vm) != 0)
        return 0;
    s = array_grow(p->all, p->nr, &p->cap, sizeof(*s));
    if (!s)
        return -1;
    p->all = s;
    s = &p->all[p->nr++];
    *s = (struct candidate){.time_ns = info->rec->time_ns,
                            .seq = info->seq,
                            .kept = has_kept_tag(p, info) ? PRUNE_KEPT_BY_TAG : 0};
    memcpy(s->id, info->id, sizeof(s->id));
    memcpy(s->name, info->name, sizeof(s->name));
    memcpy(s->vm, info->rec->vm, sizeof(s->vm));
    return 0;
}

static struct candidate *candidate_of(struct prune *p, uint64_t seq)
{
    for (size_t i = 0; i < p->nr; i++)
        if (p->all[i].seq == seq)
            return &p->all[i];
    return NULL;
}

static int decide(struct prune *p)
{
    struct timespec now;

    p->items = calloc(p->nr + 1, sizeof(p->items[0]));
    if (!p->items)
        return chsnap_error(p->c, "out of memory");
    for (size_t i = 0; i < p->nr; i++) {
        const struct candidate *s = &p->all[i];

        p->items[i] = (struct prune_item){
            .group = s->vm, .time_ns = s->time_ns, .seq = s->seq, .kept = s->kept};
    }
    (void)clock_gettime(CLOCK_REALTIME, &now);
    prune_decide(&p->policy, (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec, p->items,
                 p->nr);
    return CHSNAP_OK;
}

static void reasons(unsigned kept, char *ret, size_t cap)
{
    size_t len = 0;

    ret[0] = 0;
    for (unsigned i = 0; i < ARRAY_LEN(rule_names); i++)
        if (kept >> i & 1)
            len += (size_t)snprintf(ret + len, cap - len, "%s%s", len ? ", " : "", rule_names[i]);
}

static struct json_object *reasons_json(unsigned kept)
{
    struct json_object *all = json_object_new_array();

    for (unsigned i = 0; i < ARRAY_LEN(rule_names); i++)
        if (kept >> i & 1)
            (void)json_object_array_add(all, json_object_new_string(rule_names[i]));
    return all;
}

static struct json_object *item_json(const struct candidate *s, unsigned kept)
{
    struct json_object *o = json_object_new_object();
    char time[CHSNAP_TEXT_MAX];

    (void)json_object_object_add(o, "id", json_object_new_string(s->id));
    (void)json_object_object_add(o, "name", json_object_new_string(s->name));
    (void)json_object_object_add(o, "vm", json_object_new_string(s->vm));
    (void)json_object_object_add(o, "time",
                                 json_object_new_string(chsnap_time_json(s->time_ns, time)));
    if (kept)
        (void)json_object_object_add(o, "reasons", reasons_json(kept));
    return o;
}

static int report(struct prune *p)
{
    struct chsnap_table t = {
        .nr_columns = 5, .titles = {"ID", "TIME", "VM", "NAME", "KEPT BY"}
    };
    struct json_object *kept = json_object_new_array(), *removed = json_object_new_array();
    struct json_object *o = json_object_new_object();
    char why[CHSNAP_TEXT_MAX], time[CHSNAP_TEXT_MAX];

    for (size_t i = 0; i < p->nr; i++) {
        const struct candidate *s = candidate_of(p, p->items[i].seq);

        reasons(p->items[i].kept, why, sizeof(why));
        (void)json_object_array_add(p->items[i].kept ? kept : removed,
                                    item_json(s, p->items[i].kept));
        chsnap_cell(&t, "%.*s", STORE_ID_SHORT, s->id);
        chsnap_cell(&t, "%s", chsnap_time(s->time_ns, time));
        chsnap_cell(&t, "%s", s->vm[0] ? s->vm : "-");
        chsnap_cell(&t, "%s", s->name[0] ? s->name : "-");
        chsnap_cell(&t, "%s", why[0] ? why : p->dry ? "would be removed" : "removed");
    }
    (void)json_object_object_add(o, "kept", kept);
    (void)json_object_object_add(o, "removed", removed);
    (void)json_object_object_add(o, "dry_run", json_object_new_boolean(p->dry));
    if (p->c->json) {
        chsnap_table_drop(&t);
        return chsnap_put_json(p->c, o);
    }
    (void)json_object_put(o);
    if (p->nr)
        chsnap_table_print(p->c, &t);
    else
        chsnap_table_drop(&t);
    return CHSNAP_OK;
}

static int remove_one(const struct prune *p, const char *id, struct err *err)
{
    int rc = p->dry ? store_remove_check(p->c->st, id, err) : store_remove(p->c->st, id, err);

    return rc == -ENOENT ? 0 : rc; /* somebody else was quicker */
}

static int remove_rest(struct prune *p)
{
    struct chsnap_progress progress;
    uint64_t done = 0, total = 0;
    int rc = CHSNAP_OK;

    for (size_t i = 0; i < p->nr; i++)
        total += !p->items[i].kept;
    chsnap_progress_start(p->c, &progress, p->dry ? "checking" : "removing");
    progress.unit = "snapshots";
    for (size_t i = 0; i < p->nr; i++) {
        struct err err = {0};

        if (p->items[i].kept)
            continue;
        if (!p->dry)
            chsnap_stop_removing(p->c, done, total);
        chsnap_progress_step(&progress, done++, total);
        if (remove_one(p, candidate_of(p, p->items[i].seq)->id, &err) < 0) {
            chsnap_progress_clear(&progress);
            rc = chsnap_error(p->c, "%s", err.msg);
            p->items[i].kept = KEPT_BUSY;
        }
    }
    chsnap_progress_clear(&progress);
    return rc;
}

/* A number after --keep-...; false after a complaint. */
static bool take_keep(struct prune *p, enum prune_rule rule, const char *text)
{
    uint64_t n;

    if (!decimal_parse(text, 1, PRUNE_KEEP_MAX, &n)) {
        (void)chsnap_usage_error(p->c, "--keep-%s %s: 1 to %d", rule_names[rule], text,
                                 PRUNE_KEEP_MAX);
        return false;
    }
    p->policy.keep[rule] = (unsigned)n;
    p->any_rule = true;
    return true;
}

/* 0; or what chsnap_option_end() takes. */
static int options(struct prune *p, int argc, char **argv)
{
    static const struct option longs[] = {
        {"keep-last",        required_argument, NULL, OPT_LAST},
        {"keep-hourly",              required_argument, NULL, OPT_HOURLY},
        {"keep-daily",                  required_argument, NULL, OPT_DAILY},
        {"keep-weekly",required_argument, NULL, OPT_WEEKLY},
        {"keep-tag",        required_argument, NULL, OPT_TAG},
        {"vm",       required_argument, NULL, 'V'},
        {"dry-run",              no_argument, NULL, 'n'},
        {0                 },
    };
    int opt;

    while ((opt = chsnap_getopt(p->c, argc, argv, "V:n", longs)) != -1) {
        if (opt == 'n') {
            p->dry = true;
        } else if (opt == 'V') {
            p->vm = optarg;
        } else if (opt == OPT_TAG && !store_name_is_good(optarg)) {
            /* What no snapshot can have would keep nothing. */
            (void)chsnap_usage_error(p->c, "--keep-tag: \"%s\" cannot be a tag", optarg);
            return '?';
        } else if (opt == OPT_TAG && p->nr_tags < PRUNE_TAGS_MAX) {
            p->tags[p->nr_tags++] = optarg;
        } else if (opt == OPT_TAG) {
            (void)chsnap_usage_error(p->c, "more than %d times --keep-tag", PRUNE_TAGS_MAX);
            return '?';
        } else if (opt < OPT_LAST || opt > OPT_WEEKLY) {
            return opt;
        } else if (!take_keep(p, (enum prune_rule)(opt - OPT_LAST), optarg)) {
            return '?';
        }
    }
    return 0;
}

static int prune_run(struct chsnap *c, int argc, char **argv)
{
    struct prune p = {.c = c};
    struct err err = {0};
    char **args;
    int rc = options(&p, argc, argv);

    if (rc)
        return chsnap_option_end(rc);
    args = argv + optind;
    if (!p.any_rule && !p.nr_tags)
        return chsnap_usage_error(c, "nothing says what to keep: give --keep-last or the like");
    rc = chsnap_open(c, p.dry ? STORE_RDONLY : 0, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_only_store(c, args);
    if (rc != CHSNAP_OK)
        return rc;
    if (store_list(c->st, take, &p, &err) < 0)
        rc = chsnap_error(c, "%s", err.msg[0] ? err.msg : "out of memory");
    if (rc == CHSNAP_OK)
        rc = decide(&p);
    if (rc == CHSNAP_OK) {
        int put;

        rc = remove_rest(&p);
        put = report(&p);
        rc = rc == CHSNAP_OK ? put : rc;
    }
    free(p.all);
    free(p.items);
    return rc;
}

const struct chsnap_command chsnap_prune = {
    .name = "prune",
    .summary = "remove all snapshots but those that a policy keeps",
    .usage = "OPTION... [STORE]",
    .help = "For each VM by itself, keeps what any of the rules keeps and removes the others;\n"
            "a period without a snapshot does not count.  What was taken later than now is\n"
            "kept, and does not count either.  Frees no space: see gc.\n"
            "\n"
            "      --keep-last N    the N newest\n"
            "      --keep-hourly N  the newest of each of the last N hours that have one\n"
            "      --keep-daily N   the same of days\n"
            "      --keep-weekly N  the same of weeks, which begin on Monday\n"
            "      --keep-tag TAG   all that have this tag; may be given several times\n"
            "  -V, --vm VM          look only at snapshots of this virtual machine\n"
            "  -n, --dry-run        only say what would be removed\n"
            "\n"
            "Example:\n"
            "  chsnap prune --keep-hourly 24 --keep-daily 7 --keep-tag golden /var/lib/snapshots\n",
    .run = prune_run,
};
