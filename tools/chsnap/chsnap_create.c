/* SPDX-License-Identifier: Apache-2.0 */
/*
 * create: have a running VM take a snapshot of itself.
 *
 * The request is answered when the snapshot is stored.  A thread waits for that;
 * the main thread shows how far it is, and a signal has the VM give it up.
 */
#include <errno.h>
#include <json-c/json.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/config/action_config.h"
#include "core/utf8.h"
#include "tools/chsnap/chsnap.h"

enum {
    POLL_MS = 100,
    GIVE_UP_MS = 800, /* for the VM to answer; one that does not is left to itself */
    GIVE_UP_POLL_MS = 10,
};

/* A request that is being waited for. */
struct asking {
    const char *socket_path;
    const char *body;
    int rc;
    struct err err;
    atomic_bool done; /* the two above are there */
};

static void *ask_main(void *arg)
{
    struct asking *a = arg;

    a->rc = chsnap_call(a->socket_path, "PUT", "/api/v1/vm.snapshot", a->body, NULL, &a->err);
    atomic_store(&a->done, true);
    return NULL;
}

/* Until it is taken: the first may be there before the request that it is to cancel. */
static void *cancel_main(void *arg)
{
    struct asking *a = arg;

    while (!atomic_load(&a->done)) {
        if (chsnap_call(a->socket_path, "PUT", "/api/v1/vm.snapshot-cancel", NULL, NULL, NULL) >= 0)
            break;
        (void)usleep(GIVE_UP_POLL_MS * 1000);
    }
    return NULL;
}

/* From the thread that a signal wakes.  By another one, for a VM may not answer at all. */
static void give_up(void *arg, char *state, size_t cap)
{
    struct asking *a = arg;
    const char *then = "it was asked to give the snapshot up and has not answered yet";
    pthread_t thread;

    if (pthread_create(&thread, NULL, cancel_main, a) == 0)
        for (int ms = 0; ms < GIVE_UP_MS && !atomic_load(&a->done); ms += GIVE_UP_POLL_MS)
            (void)usleep(GIVE_UP_POLL_MS * 1000);
    if (atomic_load(&a->done))
        then = a->rc < 0 ? "no snapshot was stored" : "the snapshot had been stored before";
    (void)snprintf(state, cap, "the VM goes on, %s", then);
}

static void show_progress(const char *socket_path, struct chsnap_progress *p)
{
    struct json_object *o, *done, *total;
    char *body = NULL;

    if (!p->on ||
        chsnap_call(socket_path, "GET", "/api/v1/vm.snapshot-progress", NULL, &body, NULL) < 0)
        return;
    o = json_tokener_parse(body);
    free(body);
    if (json_object_object_get_ex(o, "pages_done", &done) &&
        json_object_object_get_ex(o, "pages_total", &total))
        chsnap_progress_step(p, json_object_get_uint64(done) << PAGE_SHIFT_4K,
                             json_object_get_uint64(total) << PAGE_SHIFT_4K);
    json_object_put(o);
}

/* Wait a little; a thread that has ended is joined. */
static bool has_ended(pthread_t thread)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += POLL_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

static int ask(const struct chsnap *c, const char *socket_path, const char *body, struct err *err)
{
    struct asking a = {.socket_path = socket_path, .body = body};
    struct chsnap_progress progress;
    pthread_t thread;
    int rc;

    chsnap_stop_undo(give_up, &a);
    chsnap_stop_state(c, "the VM goes on");
    chsnap_progress_start(c, &progress, "snapshot");
    rc = -pthread_create(&thread, NULL, ask_main, &a);
    if (rc < 0) {
        chsnap_stop_undo(NULL, NULL);
        return err_set(err, rc, "thread: %s", strerror(-rc));
    }
    while (!has_ended(thread))
        show_progress(socket_path, &progress);
    chsnap_stop_undo(NULL, NULL);
    chsnap_progress_clear(&progress);
    if (a.rc >= 0)
        chsnap_stop_state(c, "the VM goes on, the snapshot is stored");
    return a.rc < 0 ? err_set(err, a.rc, "%s", a.err.msg) : 0;
}

static int put_created(struct chsnap *c, const char *id, const char *name)
{
    struct json_object *o;

    if (!c->json) {
        (void)printf("%.*s%s%s\n", STORE_ID_SHORT, id, *name ? "  " : "", name);
        return CHSNAP_OK;
    }
    o = json_object_new_object();
    (void)json_object_object_add(o, "id", json_object_new_string(id));
    if (*name)
        (void)json_object_object_add(o, "name", json_object_new_string(name));
    return chsnap_put_json(c, o);
}

/* The VM knows which one it took; others may have put theirs into the store since. */
static bool id_of_last(const char *socket_path, char id[STORE_DIGEST_HEX + 1])
{
    struct json_object *o, *v = NULL;
    char *body = NULL;
    bool found;

    if (chsnap_call(socket_path, "GET", "/api/v1/vm.snapshot-progress", NULL, &body, NULL) < 0)
        return false;
    o = json_tokener_parse(body);
    free(body);
    found =
        json_object_object_get_ex(o, "id", &v) && json_object_get_string_len(v) == STORE_DIGEST_HEX;
    if (found)
        memcpy(id, json_object_get_string(v), STORE_DIGEST_HEX + 1);
    json_object_put(o);
    return found;
}

static int find_created(struct chsnap *c, const char *socket_path, const char *name,
                        char id[STORE_DIGEST_HEX + 1], struct err *err)
{
    int rc;

    if (!*name && id_of_last(socket_path, id))
        return 0;
    rc = store_open(c->url.path, STORE_RDONLY, &c->st, err);
    if (rc < 0)
        return rc;
    return *name ? store_resolve(c->st, name, id, err) : store_newest(c->st, NULL, id, err);
}

/*
 * Where a store is, or is going to be: the VM has another working directory than we.  It makes the
 * store, as it is who knows whether anything comes of it.
 */
static bool absolute_path(const char *path, char ret[PATH_MAX])
{
    auto_free char *a = strdup(path), *b = strdup(path);
    size_t len;

    if (realpath(path, ret))
        return true;
    if (errno != ENOENT || !a || !b || !realpath(dirname(a), ret))
        return false;
    len = strlen(ret);
    errno = ENAMETOOLONG;
    return snprintf(ret + len, PATH_MAX - len, "%s%s", len > 1 ? "/" : "", basename(b)) <
           (int)(PATH_MAX - len);
}

/* Without a name it is a path, in which '#' means nothing. */
static int destination(struct chsnap *c, const char *name, char *url, size_t cap)
{
    char path[PATH_MAX];

    if (*name && !store_name_is_good(name))
        return chsnap_usage_error(c, "\"%s\" cannot be a name", name);
    if (!absolute_path(c->url.path, path))
        return chsnap_error(c, "%s: %m", c->url.path);
    if (!utf8_ok(path, strlen(path)))
        return chsnap_error(c, "%s: the path is no UTF-8, which the VM's API wants", path);
    (void)snprintf(url, cap, *name ? "store:%s#%s" : "%s%s", path, name);
    return CHSNAP_OK;
}

static int create_at(struct chsnap *c, const char *socket_path, const struct snapshot_config *how,
                     const char *name)
{
    struct snapshot_config cfg = *how;
    struct json_object *o = NULL;
    char url[STORE_URL_PATH_MAX + STORE_REF_MAX + 16], id[STORE_DIGEST_HEX + 1];
    struct err err = {0};
    int rc = destination(c, name, url, sizeof(url));

    if (rc != CHSNAP_OK)
        return rc;
    cfg.destination_url = url;
    if (action_config_to_json(ACTION_SNAPSHOT, &cfg, &o) < 0)
        return chsnap_error(c, "out of memory");
    rc = ask(c, socket_path, json_object_to_json_string(o), &err);
    json_object_put(o);
    if (rc < 0)
        return chsnap_error(c, "%s: %s", socket_path, err.msg);
    rc = find_created(c, socket_path, name, id, &err);
    if (rc < 0)
        return chsnap_error(c, "%s", err.msg);
    return put_created(c, id, name);
}

static bool parse_mode(const char *text, enum snapshot_mode *ret_mode)
{
    static const char *const names[] = {
        [SNAPSHOT_AUTO] = "auto",
        [SNAPSHOT_MOMENT] = "moment",
        [SNAPSHOT_ROUNDS] = "rounds",
    };

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) != 0)
            continue;
        *ret_mode = (enum snapshot_mode)i;
        return true;
    }
    return false;
}

static int run_create(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"api-socket",       required_argument, NULL, 'a'},
        {"mode",              required_argument, NULL, 'm'},
        {"track",                  no_argument, NULL, 't'},
        {0}
    };
    struct snapshot_config cfg = {0};
    const char *socket_path = NULL, *name;
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "a:m:t", longs)) != -1) {
        if (opt == 'a')
            socket_path = optarg;
        else if (opt == 't')
            cfg.track = true;
        else if (opt != 'm')
            return chsnap_option_end(opt);
        else if (!parse_mode(optarg, &cfg.mode))
            return chsnap_usage_error(c, "--mode is auto, moment or rounds");
    }
    args = argv + optind;
    if (!socket_path)
        return chsnap_usage_error(c, "which VM? give its --api-socket");
    rc = chsnap_take_store(c, &args);
    if (rc != CHSNAP_OK)
        return rc;
    if (args[0] && (args[1] || c->url.snapshot[0]))
        return chsnap_usage_error(c, "\"%s\": more than one name",
                                  c->url.snapshot[0] ? args[0] : args[1]);
    name = c->url.snapshot[0] ? c->url.snapshot : args[0] ? args[0] : "";
    return create_at(c, socket_path, &cfg, name);
}

const struct chsnap_command chsnap_create = {
    .name = "create",
    .summary = "take a snapshot of a running VM",
    .usage = "--api-socket SOCKET [--mode MODE] [--track] [STORE] [NAME]",
    .help =
        "The VM runs on; it stands still only for its state.  The store is made if it is not\n"
        "there, by the VM's chvmm.  Prints the snapshot's id.\n"
        "\n"
        "  -a, --api-socket SOCKET  of the VM's chvmm\n"
        "  -m, --mode MODE  moment: the VM as it is now; its memory is protected while it is read\n"
        "                   rounds: as it is at the end; memory is copied while it changes\n"
        "                   auto: moment where that can be; the default\n"
        "  -t, --track      log what the VM writes until the next snapshot, which then looks at\n"
        "                   nothing else; without it that ends\n",
    .run = run_create,
};
