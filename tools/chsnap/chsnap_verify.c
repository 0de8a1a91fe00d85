/* SPDX-License-Identifier: Apache-2.0 */
#include <json-c/json.h>
#include <stdio.h>

#include "tools/chsnap/chsnap.h"

struct check {
    struct chsnap *c;
    bool repair;
    struct chsnap_progress progress;
    struct json_object *problems;
};

static void check_problem_json(struct check *k, const struct store_problem *p)
{
    struct json_object *o = json_object_new_object();

    (void)json_object_object_add(
        o, "severity", json_object_new_string(p->severity == STORE_WRONG ? "wrong" : "note"));
    (void)json_object_object_add(o, "what", json_object_new_string(p->what));
    if (p->snapshot)
        (void)json_object_object_add(o, "snapshot", json_object_new_string(p->snapshot));
    if (p->has_pages) {
        (void)json_object_object_add(o, "region", json_object_new_uint64(p->region));
        (void)json_object_object_add(o, "first_page", json_object_new_uint64(p->first));
        (void)json_object_object_add(o, "pages", json_object_new_uint64(p->nr));
    }
    (void)json_object_array_add(k->problems, o);
}

static void check_problem(void *arg, const struct store_problem *p)
{
    struct check *k = arg;
    bool wrong = p->severity == STORE_WRONG;

    if (k->c->json) {
        check_problem_json(k, p);
        return;
    }
    chsnap_progress_clear(&k->progress);
    (void)printf("%s%s%s: ", chsnap_paint(k->c, wrong ? PAINT_RED : PAINT_DIM),
                 wrong ? "wrong" : "note", chsnap_paint(k->c, PAINT_OFF));
    if (p->snapshot)
        (void)printf("snapshot %.*s: ", STORE_ID_SHORT, p->snapshot);
    if (p->has_pages)
        (void)printf("region %u, pages %llu to %llu: ", p->region, (unsigned long long)p->first,
                     (unsigned long long)(p->first + p->nr - 1));
    chsnap_put_text(stdout, p->what);
    (void)putchar('\n');
}

static void check_progress(void *arg, uint64_t done, uint64_t total)
{
    struct check *k = arg;

    chsnap_progress_step(&k->progress, done, total);
}

static void check_repair_json(struct json_object *o, const struct store_verify_result *res)
{
    (void)json_object_object_add(o, "rows_mended", json_object_new_uint64(res->rows_mended));
    (void)json_object_object_add(o, "pages_moved", json_object_new_uint64(res->pages_moved));
    (void)json_object_object_add(o, "pages_dropped", json_object_new_uint64(res->pages_dropped));
    (void)json_object_object_add(o, "objects_dropped",
                                 json_object_new_uint64(res->objects_dropped));
    (void)json_object_object_add(o, "segments_dropped",
                                 json_object_new_uint64(res->segments_dropped));
}

static void check_repair_print(const struct store_verify_result *res)
{
    (void)printf("repair: %llu rows of segments and packs put right; %llu segments set aside; %llu "
                 "pages kept in a new place; %llu pages and "
                 "%llu nodes or pieces of state lost until their contents come again\n",
                 (unsigned long long)res->rows_mended, (unsigned long long)res->segments_dropped,
                 (unsigned long long)res->pages_moved, (unsigned long long)res->pages_dropped,
                 (unsigned long long)res->objects_dropped);
}

static int check_report(struct check *k, const struct store_verify_result *res, bool data)
{
    unsigned long long n = res->problems, damaged = res->snapshots_bad;
    char a[CHSNAP_TEXT_MAX];
    int rc = res->problems ? CHSNAP_FAILED : CHSNAP_OK;

    if (k->c->json) {
        struct json_object *o = json_object_new_object();
        int put;

        (void)json_object_object_add(o, "snapshots", json_object_new_uint64(res->snapshots));
        (void)json_object_object_add(o, "snapshots_bad",
                                     json_object_new_uint64(res->snapshots_bad));
        (void)json_object_object_add(o, "segments", json_object_new_uint64(res->segments));
        (void)json_object_object_add(o, "pages_read", json_object_new_uint64(res->pages));
        (void)json_object_object_add(o, "bytes_read", json_object_new_uint64(res->bytes));
        (void)json_object_object_add(o, "wrong", json_object_new_uint64(res->problems));
        (void)json_object_object_add(o, "problems", json_object_get(k->problems));
        if (k->repair)
            check_repair_json(o, res);
        put = chsnap_put_json(k->c, o);
        return put != CHSNAP_OK ? put : rc;
    }
    (void)printf("%llu snapshots, %llu segments, %s read%s: ", (unsigned long long)res->snapshots,
                 (unsigned long long)res->segments, chsnap_size(res->bytes, a),
                 data ? "" : " (structure only; --read-data reads every byte)");
    (void)fputs(chsnap_paint(k->c, res->problems ? PAINT_RED : PAINT_GREEN), stdout);
    if (!res->problems)
        (void)fputs("no problem", stdout);
    else
        (void)printf("%llu problems, %llu snapshots damaged", n, damaged);
    (void)printf("%s\n", chsnap_paint(k->c, PAINT_OFF));
    if (k->repair)
        check_repair_print(res);
    return rc;
}

static int verify_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"read-data", no_argument, NULL, 'r'},
        {"repair",       no_argument, NULL, 'R'},
        {0          },
    };
    struct check k = {.c = c};
    struct store_verify_cfg cfg = {.problem = check_problem, .progress = check_progress, .arg = &k};
    struct store_verify_result res;
    struct err err = {0};
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "rR", longs)) != -1) {
        if (opt == 'R')
            k.repair = cfg.repair = true;
        else if (opt != 'r')
            return chsnap_option_end(opt);
        cfg.data = true;
    }
    args = argv + optind;
    rc = chsnap_open(c, k.repair ? 0 : STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_only_store(c, args);
    if (rc != CHSNAP_OK)
        return rc;
    k.problems = json_object_new_array();
    chsnap_stop_state(c, k.repair ? "the repair was not made, or all of it; verify tells"
                                  : "nothing was changed");
    chsnap_progress_start(c, &k.progress, "verifying");
    rc = store_verify(c->st, &cfg, &res, &err);
    chsnap_progress_clear(&k.progress);
    rc = rc < 0 ? chsnap_error(c, "%s", err.msg) : check_report(&k, &res, cfg.data);
    (void)json_object_put(k.problems);
    return rc;
}

const struct chsnap_command chsnap_verify = {
    .name = "verify",
    .summary = "look for damage in a store",
    .usage = "[OPTION...] [STORE]",
    .help = "Checks that the index is sound, that every pack and segment it names is there,\n"
            "and that every snapshot leads to all of its pages.  Says which snapshots have lost\n"
            "which pages.  Exit status 1 if anything is wrong; notes are harmless.\n"
            "\n"
            "  -r, --read-data      read every byte and compare it with its digest\n"
            "  -R, --repair         read every byte; keep what can be read of broken segments and\n"
            "                       forget the rest, so that the next snapshot or import with the\n"
            "                       same contents brings them back, for all that lost them\n",
    .run = verify_run,
};
