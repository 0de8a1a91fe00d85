/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chsnap export, import, copy: snapshots from store to store.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "store/store_stream.h"
#include "tools/chsnap/chsnap.h"

enum {
    OPT_NAME = 0x100,
    OPT_NO_NAME,
};

/* How things are if it is stopped. */
#define MOVE_STOPPED                                                                  \
    "snapshots that came before are whole, of the one at work nothing is seen; what " \
    "is left of it goes with \"chsnap gc\""

struct move {
    struct chsnap *c;
    struct store_stream_cfg cfg;
    struct chsnap_progress progress;
    const char *path; /* NULL: standard input or output */
    int fd;           /* what is imported */
    struct chsnap_file out;
    struct json_object *list;
    size_t nr_failed;
};

static void move_progress(void *arg, uint64_t done, uint64_t total)
{
    struct move *m = arg;

    chsnap_progress_step(&m->progress, done, total);
}

static void move_init(struct move *m, struct chsnap *c)
{
    *m = (struct move){.c = c, .fd = -1, .out.fd = -1};
    m->cfg.progress = move_progress;
    m->cfg.arg = m;
    m->list = json_object_new_array();
}

/* Say what became of one snapshot, on @f unless it is for programs. */
static void move_report(struct move *m, FILE *f, const char *verb,
                        const struct store_stream_result *res, bool done)
{
    struct json_object *o;
    char a[CHSNAP_TEXT_MAX];

    chsnap_progress_clear(&m->progress);
    if (!m->c->json) {
        (void)fprintf(f, "%.*s ", STORE_ID_SHORT, res->id);
        if (!done) {
            (void)fputs("is there already\n", f);
            (void)fflush(f);
            return;
        }
        (void)fprintf(f, "%s: %llu pages sent, %llu known, %s\n", res->healed ? "healed" : verb,
                      (unsigned long long)res->pages_sent, (unsigned long long)res->pages_known,
                      chsnap_size(res->bytes, a));
        (void)fflush(f); /* it is true whatever becomes of the next */
        return;
    }
    o = json_object_new_object();
    (void)json_object_object_add(o, "id", json_object_new_string(res->id));
    (void)json_object_object_add(o, "done", json_object_new_boolean(done));
    (void)json_object_object_add(o, "healed", json_object_new_boolean(res->healed));
    (void)json_object_object_add(o, "pages_sent", json_object_new_uint64(res->pages_sent));
    (void)json_object_object_add(o, "pages_known", json_object_new_uint64(res->pages_known));
    (void)json_object_object_add(o, "bytes", json_object_new_uint64(res->bytes));
    (void)json_object_array_add(m->list, o);
}

static int move_end(struct move *m, int rc)
{
    chsnap_progress_clear(&m->progress);
    if (m->path && m->fd >= 0)
        (void)close(m->fd);
    /* Also what was done before a failure. */
    if (rc != CHSNAP_USAGE && m->c->json) {
        int put = chsnap_put_json(m->c, m->list);

        return rc == CHSNAP_OK ? put : rc;
    }
    (void)json_object_put(m->list);
    return rc;
}

/* ---- export ---- */

static int sink(void *arg, const void *data, size_t len, struct err *err)
{
    const struct move *m = arg;
    const uint8_t *p = data;

    while (len) {
        ssize_t n = write(m->out.fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, n < 0 ? -errno : -EIO, "%s: %s", m->path ? m->path : "output",
                           n < 0 ? strerror(errno) : "takes no more");
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

static int export_one(struct move *m, const char *ref)
{
    struct store_stream_result res = {0};
    struct store_snapshot *snap;
    struct err err = {0};
    int rc = store_snapshot_open(m->c->st, ref, &snap, &err);

    if (rc == 0) {
        chsnap_progress_start(m->c, &m->progress, "exporting");
        rc = store_export(snap, sink, m, &m->cfg, &res, &err);
        store_snapshot_close(snap);
    }
    if (rc < 0) {
        chsnap_progress_clear(&m->progress);
        return chsnap_error(m->c, "%s", err.msg);
    }
    move_report(m, stderr, "exported", &res, true);
    return CHSNAP_OK;
}

static int export_all(struct move *m, char **args)
{
    int rc;

    chsnap_stop_state(m->c,
                      m->path ? "nothing was made" : "the stream is cut off, import refuses it");
    rc = chsnap_file_open(m->c, &m->out, m->path);
    if (rc != CHSNAP_OK)
        return rc;
    if (m->c->url.snapshot[0])
        rc = export_one(m, m->c->url.snapshot);
    for (; *args && rc == CHSNAP_OK; args++)
        rc = export_one(m, *args);
    return chsnap_file_close(m->c, &m->out, rc);
}

static int export_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"output", required_argument, NULL, 'o'},
        {0   },
    };
    struct move m;
    char **args;
    int opt, rc;

    move_init(&m, c);
    while ((opt = chsnap_getopt(c, argc, argv, "o:", longs)) != -1) {
        if (opt != 'o') {
            (void)json_object_put(m.list);
            return chsnap_option_end(opt);
        }
        m.path = optarg;
    }
    args = argv + optind;
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK && !*args && !c->url.snapshot[0])
        rc = chsnap_usage_error(c, "no snapshot: give names, ids or tags");
    if (rc == CHSNAP_OK && !m.path && isatty(STDOUT_FILENO))
        rc = chsnap_usage_error(c, "export writes bytes: give --output, or redirect");
    if (rc == CHSNAP_OK && !m.path && c->json)
        rc = chsnap_usage_error(c, "standard output is the stream's: --json needs --output");
    if (rc == CHSNAP_OK)
        rc = export_all(&m, args);
    if (rc != CHSNAP_OK)
        c->json = false; /* a stream that is cut off holds nothing */
    return move_end(&m, rc);
}

const struct chsnap_command chsnap_export = {
    .name = "export",
    .summary = "write snapshots as a stream, for import",
    .usage = "[-o FILE] [STORE] SNAPSHOT...",
    .help = "Each snapshot is sent whole, each of its different pages once. It keeps its id.\n"
            "\n"
            "  -o, --output FILE    to this new file; else to standard output; --json needs it\n"
            "\n"
            "Example:\n"
            "  chsnap export /var/lib/snapshots warm | ssh host chsnap import /srv/snapshots\n",
    .run = export_run,
};

/* ---- import ---- */

static ssize_t source(void *arg, void *data, size_t len, struct err *err)
{
    const struct move *m = arg;
    ssize_t n;

    do
        n = read(m->fd, data, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? err_set(err, -errno, "input: %m") : n;
}

static int import_all(struct move *m)
{
    int rc;

    chsnap_stop_state(m->c, MOVE_STOPPED);
    for (bool any = false;; any = true) {
        struct store_stream_result res = {0};
        struct err err = {0};

        chsnap_progress_start(m->c, &m->progress, "importing");
        rc = store_import(m->c->st, source, m, &m->cfg, &res, &err);
        chsnap_progress_clear(&m->progress);
        if (rc == 0)
            return any ? CHSNAP_OK : chsnap_error(m->c, "there is no stream");
        if (rc == -EEXIST && store_resolve(m->c->st, res.id, res.id, NULL) == 0)
            move_report(m, stdout, "imported", &res, false);
        else if (rc < 0)
            return chsnap_error(m->c, "%s", err.msg);
        else
            move_report(m, stdout, "imported", &res, true);
    }
}

/* Options that import and copy have in common; -1 for none of them. */
static int name_option(struct move *m, int opt)
{
    if (opt != OPT_NAME && opt != OPT_NO_NAME)
        return -1;
    if (m->cfg.name) {
        (void)chsnap_usage_error(m->c, "more than one name");
        return -1;
    }
    if (opt == OPT_NAME && !store_name_is_good(optarg)) {
        (void)chsnap_usage_error(m->c, "--name: \"%s\" cannot be a name", optarg);
        return -1;
    }
    m->cfg.name = opt == OPT_NAME ? optarg : "";
    return 0;
}

static int import_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"input",            required_argument, NULL, 'i'},
        {"name",              required_argument, NULL, OPT_NAME},
        {"no-name",                  no_argument, NULL, OPT_NO_NAME},
        {0},
    };
    struct move m;
    char **args;
    int opt, rc;

    move_init(&m, c);
    while ((opt = chsnap_getopt(c, argc, argv, "i:", longs)) != -1) {
        if (opt == 'i') {
            m.path = optarg;
        } else if (name_option(&m, opt) < 0) {
            (void)json_object_put(m.list);
            return chsnap_option_end(opt);
        }
    }
    args = argv + optind;
    /* First: no store is made for what is not there. */
    m.fd = m.path ? open(m.path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    rc = m.fd < 0 ? chsnap_error(c, "%s: %m", m.path) : chsnap_open(c, STORE_CREATE, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_only_store(c, args);
    if (rc == CHSNAP_OK)
        rc = import_all(&m);
    if (rc != CHSNAP_OK)
        store_abandon(steal_ptr(c->st));
    return move_end(&m, rc);
}

const struct chsnap_command chsnap_import = {
    .name = "import",
    .summary = "take snapshots out of a stream of export",
    .usage = "[-i FILE] [OPTION...] [STORE]",
    .help = "Everything is verified before a snapshot is there; one that is there already is\n"
            "left alone, unless \"verify --repair\" found that it has lost something: then it\n"
            "gets that back. The store is made if it is not there.\n"
            "\n"
            "  -i, --input FILE     from this file; else from standard input\n"
            "      --name NAME      give it this name instead of its own\n"
            "      --no-name        give it no name\n",
    .run = import_run,
};

/* ---- copy ---- */

/* What the next snapshot would meet as well. */
static bool is_hopeless(int rc)
{
    static const int all[] = {ENOSPC, EDQUOT, EROFS, EACCES, ENOMEM, EMFILE, ENFILE, EINVAL};

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (rc == -all[i])
            return true;
    return false;
}

/* For programs: one that could not be copied, and why. */
static void copy_failed_json(struct move *m, const char *ref, const struct err *err)
{
    struct json_object *o = json_object_new_object();

    (void)json_object_object_add(o, "snapshot", json_object_new_string(ref));
    (void)json_object_object_add(o, "done", json_object_new_boolean(false));
    (void)json_object_object_add(o, "error", json_object_new_string(err->msg));
    (void)json_object_array_add(m->list, o);
}

/* False if there is no sense in going on. */
static bool copy_one(struct move *m, struct store *to, const char *ref)
{
    struct store_stream_result res = {0};
    struct store_snapshot *snap;
    struct err err = {0};
    int rc = store_snapshot_open(m->c->st, ref, &snap, &err);

    if (rc == 0) {
        chsnap_progress_start(m->c, &m->progress, "copying");
        rc = store_copy(snap, to, &m->cfg, &res, &err);
        store_snapshot_close(snap);
    }
    chsnap_progress_clear(&m->progress);
    if (rc == -EEXIST && store_resolve(to, res.id, res.id, NULL) == 0) {
        move_report(m, stdout, "copied", &res, false);
    } else if (rc < 0) {
        m->nr_failed++;
        copy_failed_json(m, ref, &err);
        if (strstr(err.msg, "snapshot "))
            (void)chsnap_error(m->c, "%s", err.msg);
        else
            (void)chsnap_error(m->c, "snapshot %.*s: %s", STORE_ID_SHORT, ref, err.msg);
        return !is_hopeless(rc);
    } else {
        move_report(m, stdout, "copied", &res, true);
    }
    return true;
}

/* What is damaged keeps nobody from copying the rest, but is told once more in the end. */
static int copy_end(struct move *m, size_t nr, bool all)
{
    if (m->nr_failed && nr == 1)
        return CHSNAP_FAILED; /* it has been said */
    if (m->nr_failed)
        return chsnap_error(m->c, "%zu of %zu snapshots could not be copied%s", m->nr_failed, nr,
                            all ? "" : ", and others were not tried");
    return CHSNAP_OK;
}

static int copy_all(struct move *m, struct store *to, char **refs)
{
    char(*ids)[STORE_DIGEST_HEX + 1] = NULL;
    struct err err = {0};
    size_t nr = 0;
    bool on = true;

    chsnap_stop_state(m->c, MOVE_STOPPED);
    if (m->c->url.snapshot[0]) {
        on = copy_one(m, to, m->c->url.snapshot);
        nr++;
    }
    for (char **ref = refs; *ref; ref++, nr++)
        on = on && copy_one(m, to, *ref);
    if (nr)
        return copy_end(m, nr, on);
    if (store_list_ids(m->c->st, &ids, &nr, &err) < 0)
        return chsnap_error(m->c, "%s", err.msg);
    for (size_t i = 0; i < nr && on; i++)
        on = copy_one(m, to, ids[i]);
    free(ids);
    return copy_end(m, nr, on);
}

/* Whether one snapshot is named, and no other. */
static bool is_one(const struct chsnap *c, char **refs)
{
    return c->url.snapshot[0] ? !refs[0] : refs[0] && !refs[1];
}

static int copy_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"name", required_argument, NULL, OPT_NAME},
        {"no-name",  no_argument, NULL, OPT_NO_NAME},
        {0     },
    };
    struct store_url url;
    struct store *to = NULL;
    struct err err = {0};
    struct move m;
    char **args;
    int opt, rc;

    move_init(&m, c);
    while ((opt = chsnap_getopt(c, argc, argv, "", longs)) != -1) {
        if (name_option(&m, opt) < 0) {
            (void)json_object_put(m.list);
            return chsnap_option_end(opt);
        }
    }
    args = argv + optind;
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK && !*args)
        rc = chsnap_usage_error(c, "copy to which store?");
    if (rc == CHSNAP_OK && store_url_parse(*args, &url, &err) < 0)
        rc = chsnap_usage_error(c, "%s", err.msg);
    if (rc == CHSNAP_OK && url.snapshot[0])
        rc = chsnap_usage_error(c, "#%s: a copy goes to a store; --name gives it a name",
                                url.snapshot);
    if (rc == CHSNAP_OK && m.cfg.name && m.cfg.name[0] && !is_one(c, args + 1))
        rc = chsnap_usage_error(c, "--name %s: is for one snapshot, name it", m.cfg.name);
    if (rc == CHSNAP_OK && store_open(url.path, STORE_CREATE, &to, &err) < 0)
        rc = chsnap_error(c, "%s", err.msg);
    if (rc == CHSNAP_OK)
        rc = copy_all(&m, to, args + 1);
    if (rc == CHSNAP_OK)
        store_close(to);
    else
        store_abandon(to);
    return move_end(&m, rc);
}

const struct chsnap_command chsnap_copy = {
    .name = "copy",
    .summary = "copy snapshots to another store, sending what it lacks",
    .usage = "[OPTION...] [STORE] STORE [SNAPSHOT...]",
    .help =
        "From the first store to the second, which is made if it is not there; all\n"
        "snapshots unless some are named. They keep their ids; one that is there already is\n"
        "left alone, or healed as by import. One that is damaged is named, and the rest copied\n"
        "all the same; the exit status is 1 then. Reads and sends only pages whose contents the\n"
        "other store does not have.\n"
        "\n"
        "      --name NAME      give the one that is named this name instead of its own\n"
        "      --no-name        give it no name\n",
    .run = copy_run,
};
