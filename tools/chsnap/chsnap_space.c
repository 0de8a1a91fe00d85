/* SPDX-License-Identifier: Apache-2.0 */
#include <json-c/json.h>
#include <stdio.h>

#include "tools/chsnap/chsnap.h"

struct figure {
    const char *key;
    uint64_t value;
    bool bytes;
};

static int figures_print(struct chsnap *c, const struct figure *f, size_t nr)
{
    struct json_object *o;
    char a[CHSNAP_TEXT_MAX];

    if (!c->json) {
        for (size_t i = 0; i < nr; i++) {
            (void)printf("%s%-18s%s ", chsnap_paint(c, PAINT_BOLD), f[i].key,
                         chsnap_paint(c, PAINT_OFF));
            if (f[i].bytes)
                (void)printf("%s\n", chsnap_size(f[i].value, a));
            else
                (void)printf("%llu\n", (unsigned long long)f[i].value);
        }
        return CHSNAP_OK;
    }
    o = json_object_new_object();
    for (size_t i = 0; i < nr; i++)
        (void)json_object_object_add(o, f[i].key, json_object_new_uint64(f[i].value));
    return chsnap_put_json(c, o);
}

/* ---- gc ---- */

static void gc_progress(void *arg, enum store_gc_phase phase, uint64_t done, uint64_t total)
{
    static const char *const names[] = {
        [STORE_GC_MARK] = "marking",
        [STORE_GC_COPY] = "copying",
        [STORE_GC_FORGET] = "forgetting",
    };
    struct chsnap_progress *p = arg;

    chsnap_progress_phase(p, names[phase]);
    chsnap_progress_step(p, done, total);
}

/* 0; or an exit status after a complaint. */
static int gc_collect(struct chsnap *c, unsigned flags, struct store_gc_result *ret)
{
    struct chsnap_progress progress;
    struct err err = {0};
    int rc;

    chsnap_stop_state(c, flags & STORE_GC_DRY_RUN
                             ? "nothing was changed"
                             : "every snapshot is as it was; the next gc frees what is left");
    chsnap_progress_start(c, &progress, "collecting");
    rc = store_gc(c->st, flags, gc_progress, &progress, ret, &err);
    chsnap_progress_clear(&progress);
    return rc < 0 ? chsnap_error(c, "%s", err.msg) : CHSNAP_OK;
}

static int gc_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"dry-run", no_argument, NULL, 'n'},
        {"no-wait",     no_argument, NULL, 'W'},
        {0        },
    };
    struct store_gc_result r;
    unsigned flags = STORE_GC_WAIT;
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "nW", longs)) != -1) {
        if (opt == 'n')
            flags |= STORE_GC_DRY_RUN;
        else if (opt == 'W')
            flags &= ~(unsigned)STORE_GC_WAIT;
        else
            return chsnap_option_end(opt);
    }
    args = argv + optind;
    rc = chsnap_open(c, flags & STORE_GC_DRY_RUN ? STORE_RDONLY : 0, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_only_store(c, args);
    if (rc != CHSNAP_OK)
        return rc;
    rc = gc_collect(c, flags, &r);
    if (rc != CHSNAP_OK)
        return rc;
    {
        const struct figure f[] = {
            {"bytes_freed",      r.bytes_freed,      true },
            {"packs_removed",    r.packs_removed,    false},
            {"packs_rewritten",  r.packs_rewritten,  false},
            {"segments_dropped", r.segments_dropped, false},
            {"pages_dropped",    r.pages_dropped,    false},
            {"objects_dropped",  r.objects_dropped,  false},
        };

        return figures_print(c, f, ARRAY_LEN(f));
    }
}

const struct chsnap_command chsnap_gc = {
    .name = "gc",
    .summary = "free what no snapshot needs",
    .usage = "[OPTION...] [STORE]",
    .help = "Forgets pages that no snapshot needs, removes packs in which nothing is needed, and\n"
            "rewrites those less than half needed. Reading and writing go on meanwhile; only its\n"
            "short last part waits for snapshots that are being written, and new ones for it.\n"
            "\n"
            "  -n, --dry-run        only say what would be freed\n"
            "  -W, --no-wait        give up if a snapshot is being written\n",
    .run = gc_run,
};

/* ---- stats ---- */

static int stats_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {{0}};
    struct store_stats s;
    struct err err = {0};
    char **args;
    int opt, rc;

    opt = chsnap_getopt(c, argc, argv, "", longs);
    if (opt != -1)
        return chsnap_option_end(opt);
    args = argv + optind;
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_only_store(c, args);
    if (rc != CHSNAP_OK)
        return rc;
    if (store_stats(c->st, &s, &err) < 0)
        return chsnap_error(c, "%s", err.msg);
    {
        const struct figure f[] = {
            {"format_version",    s.version,      false},
            {"snapshots",         s.snapshots,    false},
            {"ram_bytes",         s.ram_bytes,    true },
            {"pack_bytes",        s.bytes_packs,  true },
            {"index_bytes",       s.bytes_index,  true },
            {"unpublished_bytes", s.bytes_others, true },
            {"packs",             s.packs,        false},
            {"segments",          s.segments,     false},
            {"pages",             s.pages,        false},
            {"objects",           s.objects,      false},
        };

        return figures_print(c, f, ARRAY_LEN(f));
    }
}

const struct chsnap_command chsnap_stats = {
    .name = "stats",
    .summary = "how much a store holds, and in how much space",
    .usage = "[OPTION...] [STORE]",
    .help = "ram_bytes is what all snapshots would take if each were kept whole; pack_bytes and\n"
            "index_bytes are what the store takes.  unpublished_bytes belong to snapshots that\n"
            "are being written, or were left by a crash and go with the next \"chsnap gc\".\n",
    .run = stats_run,
};
