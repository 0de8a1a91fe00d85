/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subcommands that start chvmm processes: restore and clone.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "tools/chctl/http_client.h"
#include "tools/chsnap/chsnap.h"

extern char **environ;

enum {
    CLONES_MAX = 1000,
    START_TIMEOUT_MS = 60000,
    POLL_MS = 5,
};

/* --- Talking to a VM ------------------------------------------------------------ */

int chsnap_call(const char *socket_path, const char *method, const char *path, const char *body,
                char **ret_body, struct err *err)
{
    const struct http_request req = {
        .method = method, .path = path, .body = body, .body_len = body ? strlen(body) : 0};
    struct http_response res = {0};
    auto_close int fd = -1;
    int rc = http_client_connect(socket_path, &fd, err);

    if (rc >= 0)
        rc = http_client_call(fd, &req, &res, err);
    if (rc < 0)
        return rc;
    if (res.status >= 300)
        rc = err_set(err, -EPROTO, "%s", res.body_len ? res.body : "the VM refused");
    else if (ret_body)
        *ret_body = steal_ptr(res.body);
    http_response_release(&res);
    return rc;
}

/* "Running", "Paused", ...; false while there is no answer. */
static bool vm_info(const char *socket_path, char *state, size_t cap, char *uuid, size_t uuid_cap)
{
    struct json_object *o = NULL, *v = NULL, *platform = NULL;
    char *body = NULL;
    bool ok;

    if (chsnap_call(socket_path, "GET", "/api/v1/vm.info", NULL, &body, NULL) < 0)
        return false;
    o = json_tokener_parse(body);
    free(body);
    ok = json_object_object_get_ex(o, "state", &v);
    (void)snprintf(state, cap, "%s", ok ? json_object_get_string(v) : "");
    uuid[0] = 0;
    if (json_object_object_get_ex(o, "config", &v) &&
        json_object_object_get_ex(v, "platform", &platform) &&
        json_object_object_get_ex(platform, "system_uuid", &v))
        (void)snprintf(uuid, uuid_cap, "%s", json_object_get_string(v));
    json_object_put(o);
    return ok;
}

/* --- Starting chvmm ------------------------------------------------------------------ */

/* Beside this program, else wherever PATH finds it. */
static const char *chvmm_path(char *buf, size_t cap)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n <= 0)
        return "chvmm";
    self[n] = 0;
    slash = strrchr(self, '/');
    *slash = 0;
    (void)snprintf(buf, cap, "%s/chvmm", self);
    return access(buf, X_OK) == 0 ? buf : "chvmm";
}

/* The snapshot as a URL that another process understands. */
static int source_url(struct chsnap *c, char **args, char *url, size_t cap)
{
    char path[PATH_MAX], id[STORE_DIGEST_HEX + 1];
    const char *ref = NULL;
    struct err err = {0};
    int rc = chsnap_one_snapshot(c, args, &ref);

    if (rc != CHSNAP_OK)
        return rc;
    if (store_resolve(c->st, ref, id, &err) < 0)
        return chsnap_error(c, "%s", err.msg);
    if (!realpath(c->url.path, path))
        return chsnap_error(c, "%s: %m", c->url.path);
    (void)snprintf(url, cap, "store:%s#%s", path, id);
    return CHSNAP_OK;
}

/* --- restore -------------------------------------------------------------------------- */

static int run_restore(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"api-socket", required_argument, NULL, 'a'},
        {"paused",        no_argument, NULL, 'p'},
        {0           }
    };
    char url[PATH_MAX + STORE_DIGEST_HEX + 16], restore[sizeof(url) + 32], path[PATH_MAX];
    const char *socket_path = NULL;
    bool paused = false;
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "a:p", longs)) != -1) {
        if (opt == 'a')
            socket_path = optarg;
        else if (opt == 'p')
            paused = true;
        else
            return chsnap_option_end(opt);
    }
    args = argv + optind;
    if (!socket_path)
        return chsnap_usage_error(c, "where shall the VM listen? give an --api-socket");
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = source_url(c, args, url, sizeof(url));
    if (rc != CHSNAP_OK)
        return rc;
    (void)snprintf(restore, sizeof(restore), "source_url=%s,resume=%s", url, paused ? "off" : "on");
    (void)execlp(chvmm_path(path, sizeof(path)), "chvmm", "--api-socket", socket_path, "--restore",
                 restore, (char *)NULL);
    return chsnap_error(c, "chvmm: %m");
}

const struct chsnap_command chsnap_restore = {
    .name = "restore",
    .summary = "bring a VM back",
    .usage = "--api-socket SOCKET [--paused] [STORE] SNAPSHOT",
    .help = "Becomes the chvmm that runs the VM, with the disks, interfaces and files that it\n"
            "had.  Every page is verified before the guest sees it.  Use clone to run it beside\n"
            "the original.\n"
            "\n"
            "  -a, --api-socket SOCKET  where the VM shall listen\n"
            "  -p, --paused             do not run it yet\n",
    .run = run_restore,
};

/* --- clone ---------------------------------------------------------------------------- */

struct clone {
    pid_t pid;
    char socket_path[PATH_MAX];
    char log_path[PATH_MAX];
    char uuid[40];
    uint64_t started_ns;
    uint64_t took_ns;
};

static uint64_t now_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static int start_clone(const char *url, struct clone *clone)
{
    char restore[PATH_MAX + STORE_DIGEST_HEX + 64], path[PATH_MAX];
    char name[] = "chvmm", api[] = "--api-socket", opt[] = "--restore";
    char *argv[] = {name, api, clone->socket_path, opt, restore, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    int rc;

    (void)snprintf(restore, sizeof(restore), "source_url=%s,resume=on,clone=on", url);
    (void)posix_spawn_file_actions_init(&files);
    (void)posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    (void)posix_spawn_file_actions_addopen(&files, 2, clone->log_path, O_WRONLY | O_CREAT | O_TRUNC,
                                           0600);
    (void)posix_spawnattr_init(&attr);
    (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
    clone->started_ns = now_ns();
    rc = -posix_spawnp(&clone->pid, chvmm_path(path, sizeof(path)), &files, &attr, argv, environ);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&files);
    return rc;
}

/* Wait until the clone runs; its log says why it does not. */
static int wait_clone(struct chsnap *c, struct clone *clone)
{
    uint64_t deadline = now_ns() + (uint64_t)START_TIMEOUT_MS * 1000000;
    char state[32] = "";
    int status;

    while (now_ns() < deadline) {
        if (vm_info(clone->socket_path, state, sizeof(state), clone->uuid, sizeof(clone->uuid)) &&
            strcmp(state, "Running") == 0) {
            clone->took_ns = now_ns() - clone->started_ns;
            return CHSNAP_OK;
        }
        if (waitpid(clone->pid, &status, WNOHANG) == clone->pid) {
            clone->pid = -1;
            return chsnap_error(c, "a clone ended at once: see %s", clone->log_path);
        }
        (void)usleep(POLL_MS * 1000);
    }
    return chsnap_error(c, "a clone does not run after %d s: see %s", START_TIMEOUT_MS / 1000,
                        clone->log_path);
}

static int print_clones(struct chsnap *c, const struct clone *clones, unsigned n)
{
    struct chsnap_table t = {
        .nr_columns = 4,
        .titles = {"PID", "STARTED IN", "UUID", "API SOCKET"},
        .right = {true,  true,         false,  false       }
    };
    struct json_object *all;

    if (!c->json) {
        for (unsigned i = 0; i < n; i++) {
            chsnap_cell(&t, "%d", clones[i].pid);
            chsnap_cell(&t, "%.1f ms", (double)clones[i].took_ns / 1e6);
            chsnap_cell(&t, "%s", clones[i].uuid);
            chsnap_cell(&t, "%s", clones[i].socket_path);
        }
        chsnap_table_print(c, &t);
        return CHSNAP_OK;
    }
    all = json_object_new_array();
    for (unsigned i = 0; i < n; i++) {
        struct json_object *o = json_object_new_object();

        (void)json_object_object_add(o, "pid", json_object_new_int(clones[i].pid));
        (void)json_object_object_add(o, "started_in_ns", json_object_new_uint64(clones[i].took_ns));
        (void)json_object_object_add(o, "uuid", json_object_new_string(clones[i].uuid));
        (void)json_object_object_add(o, "api_socket",
                                     json_object_new_string(clones[i].socket_path));
        (void)json_object_array_add(all, o);
    }
    return chsnap_put_json(c, all);
}

static int make_clones(struct chsnap *c, const char *url, const char *dir, unsigned n)
{
    struct clone *clones = calloc(n, sizeof(*clones));
    int rc = clones ? CHSNAP_OK : chsnap_error(c, "out of memory");

    for (unsigned i = 0; rc == CHSNAP_OK && i < n; i++) {
        struct clone *k = &clones[i];

        (void)snprintf(k->socket_path, sizeof(k->socket_path), "%s/clone-%u.sock", dir, i);
        (void)snprintf(k->log_path, sizeof(k->log_path), "%s/clone-%u.log", dir, i);
        if (start_clone(url, k) < 0)
            rc = chsnap_error(c, "chvmm: %m");
    }
    for (unsigned i = 0; rc == CHSNAP_OK && i < n; i++)
        rc = wait_clone(c, &clones[i]);
    /* All or none: what was started is ended again. */
    for (unsigned i = 0; clones && rc != CHSNAP_OK && i < n; i++)
        if (clones[i].pid > 0)
            (void)kill(clones[i].pid, SIGTERM);
    if (rc == CHSNAP_OK)
        rc = print_clones(c, clones, n);
    free(clones);
    return rc;
}

static bool parse_count(const char *text, unsigned *ret)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (end == text || *end || !n || n > CLONES_MAX)
        return false;
    *ret = (unsigned)n;
    return true;
}

static int run_clone(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"number", required_argument, NULL, 'n'},
        {"dir",    required_argument, NULL, 'd'},
        {0       }
    };
    char url[PATH_MAX + STORE_DIGEST_HEX + 16], dir[PATH_MAX];
    const char *dir_text = NULL;
    unsigned n = 1;
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "n:d:", longs)) != -1) {
        if (opt == 'd')
            dir_text = optarg;
        else if (opt != 'n')
            return chsnap_option_end(opt);
        else if (!parse_count(optarg, &n))
            return chsnap_usage_error(c, "--number %s: 1 to %d", optarg, CLONES_MAX);
    }
    args = argv + optind;
    if (!dir_text)
        return chsnap_usage_error(c, "where shall the clones' sockets be? give a --dir");
    if (mkdir(dir_text, 0700) < 0 && errno != EEXIST)
        return chsnap_error(c, "%s: %m", dir_text);
    if (!realpath(dir_text, dir) || strlen(dir) > 80)
        return chsnap_error(c, "--dir %s: no directory, or too long a path for a socket", dir_text);
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = source_url(c, args, url, sizeof(url));
    return rc == CHSNAP_OK ? make_clones(c, url, dir, n) : rc;
}

const struct chsnap_command chsnap_clone = {
    .name = "clone",
    .summary = "start copies of a VM, each with an identity of its own",
    .usage = "[-n NUMBER] --dir DIR [STORE] SNAPSHOT",
    .help = "Each clone is a chvmm of its own that goes on by itself: with a new UUID, VM\n"
            "generation id, MAC addresses and taps, copies of the writable disks, and other\n"
            "names for the files and sockets of serial port and console.  What cannot be made\n"
            "unique is refused, and said in the clone's log.\n"
            "\n"
            "  -n, --number NUMBER  how many (1)\n"
            "  -d, --dir DIR        for API sockets (clone-0.sock, ...) and logs\n",
    .run = run_clone,
};
