/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clone: start copies of a VM, each with an identity of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/decimal.h"
#include "snapshot/snap_restore.h"
#include "tools/chctl/http_client.h"
#include "tools/chsnap/chsnap_template.h"
#include "tools/chsnap/chsnap_vm.h"

enum {
    CLONES_MAX = 1000,
    START_TIMEOUT_MS = 60000,
    POLL_MS = 5,
    RUN_MS = 200,     /* for clones to run, before they are asked why they do not */
    END_MS = 600,     /* for clones to end in order */
    DIR_MAX = 80,     /* characters, for a socket's path to have room for a name */
    LOG_TAIL = 32768, /* bytes of a log that are looked at */
    LEASH_FD = 3,     /* in a clone */
};

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

/* --- clone ---------------------------------------------------------------------------- */

struct clone {
    pid_t pid;
    char socket_path[PATH_MAX];
    char log_path[PATH_MAX];
    char uuid[40];
    uint64_t started_ns;
    uint64_t took_ns;
};

/* All of them. */
struct brood {
    unsigned nr;
    struct clone *clones;
    /* A pipe, of which each has the side to read: who has not been let run ends with us. */
    int leash[2];
};

static uint64_t now_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static int start_clone(char *restore, int leash_fd, struct clone *clone)
{
    char path[PATH_MAX], end_with[32];
    char name[] = "chvmm", api[] = "--api-socket", opt[] = "--restore", end[] = "--end-with";
    char *argv[] = {name, api, clone->socket_path, opt, restore, end, end_with, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t mask;
    int rc;

    (void)posix_spawn_file_actions_init(&files);
    (void)posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    (void)posix_spawn_file_actions_addopen(&files, 2, clone->log_path, O_WRONLY | O_CREAT | O_TRUNC,
                                           0600);
    (void)posix_spawn_file_actions_adddup2(&files, leash_fd, LEASH_FD);
    (void)snprintf(end_with, sizeof(end_with), "fd=%d", LEASH_FD);
    (void)posix_spawnattr_init(&attr);
    chsnap_stop_mask_before(&mask);
    (void)posix_spawnattr_setsigmask(&attr, &mask);
    (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    clone->started_ns = now_ns();
    rc = -posix_spawnp(&clone->pid, chsnap_chvmm_path(path, sizeof(path)), &files, &attr, argv,
                       environ);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&files);
    return rc;
}

/* What chvmm said last: all that is wrong, or the cause; "" if it said nothing. */
static void why_ended(const char *log_path, char *ret, size_t cap)
{
    static const char *const starts[] = {"\n  0: The VM could not be restored: ", "\n  1: "};
    auto_close int fd = open(log_path, O_RDONLY | O_CLOEXEC);
    char text[LOG_TAIL + 1];
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n = fd < 0 ? 0 : pread(fd, text, LOG_TAIL, end > LOG_TAIL ? end - LOG_TAIL : 0);

    ret[0] = 0;
    text[n > 0 ? n : 0] = 0;
    for (size_t i = 0; i < ARRAY_LEN(starts) && !ret[0]; i++) {
        const char *at = strstr(text, starts[i]);

        if (at)
            (void)snprintf(ret, cap, ": %.*s", (int)strcspn(at + strlen(starts[i]), "\n"),
                           at + strlen(starts[i]));
    }
}

/* Whether it has ended; waits for nothing. */
static bool has_ended(struct clone *clone)
{
    int status;

    if (clone->pid > 0 && waitpid(clone->pid, &status, WNOHANG) == clone->pid)
        clone->pid = 0;
    return clone->pid <= 0;
}

/* Wait until the clone is there, paused; its log says why it is not. */
static int wait_clone(struct chsnap *c, struct clone *clone)
{
    uint64_t deadline = now_ns() + (uint64_t)START_TIMEOUT_MS * 1000000;
    char state[32] = "", why[LOG_TAIL];
    bool ended;

    while (now_ns() < deadline) {
        if (vm_info(clone->socket_path, state, sizeof(state), clone->uuid, sizeof(clone->uuid)) &&
            strcmp(state, "Paused") == 0)
            return CHSNAP_OK;
        chsnap_stop_hold();
        ended = has_ended(clone);
        chsnap_stop_release();
        if (ended) {
            why_ended(clone->log_path, why, sizeof(why));
            return chsnap_error(c, "a clone ended at once%s (see %s)", why, clone->log_path);
        }
        (void)usleep(POLL_MS * 1000);
    }
    return chsnap_error(c, "a clone does not run after %d s: see %s", START_TIMEOUT_MS / 1000,
                        clone->log_path);
}

static bool is_running(const struct clone *clone)
{
    char state[32] = "", uuid[sizeof(clone->uuid)];

    return vm_info(clone->socket_path, state, sizeof(state), uuid, sizeof(uuid)) &&
           strcmp(state, "Running") == 0;
}

/* Whether all run; what keeps one from that is what it says when it is asked to. */
static int look_who_runs(struct chsnap *c, const struct brood *b)
{
    for (unsigned i = 0; i < b->nr; i++) {
        const char *path = b->clones[i].socket_path;
        struct err err = {0};

        if (!is_running(&b->clones[i]) &&
            chsnap_call(path, "PUT", "/api/v1/vm.resume", NULL, NULL, &err) < 0 &&
            !is_running(&b->clones[i]))
            return chsnap_error(c, "%s: %s", path, err.msg);
    }
    return CHSNAP_OK;
}

/*
 * One word for all of them, which stays in the pipe: who is killed has let all run, or none.  Each
 * lets go of the pipe as it runs; to ask each would take long beside so many guests.
 */
static int let_run(struct chsnap *c, struct brood *b)
{
    struct pollfd readers = {.fd = b->leash[1]};
    int rc = CHSNAP_OK;

    if (write(b->leash[1], "r", 1) != 1)
        return chsnap_error(c, "pipe: %m");
    (void)close(b->leash[0]);
    b->leash[0] = -1;
    if (poll(&readers, 1, RUN_MS) != 1)
        rc = look_who_runs(c, b);
    for (unsigned i = 0; rc == CHSNAP_OK && i < b->nr; i++) {
        if (has_ended(&b->clones[i]))
            rc = chsnap_error(c, "a clone ended at once: see %s", b->clones[i].log_path);
        b->clones[i].took_ns = now_ns() - b->clones[i].started_ns;
    }
    return rc;
}

/* End what was started, and wait for that: a clone that did nothing takes its disks with it. */
static void end_brood(const struct brood *b)
{
    uint64_t deadline = now_ns() + (uint64_t)END_MS * 1000000;

    for (unsigned i = 0; i < b->nr; i++) {
        if (has_ended(&b->clones[i]))
            continue;
        (void)kill(b->clones[i].pid, SIGTERM);
        (void)kill(b->clones[i].pid, SIGCONT); /* one that is stopped could not */
    }
    for (unsigned i = 0; i < b->nr; i++) {
        while (!has_ended(&b->clones[i]) && now_ns() < deadline)
            (void)usleep(POLL_MS * 1000);
        if (has_ended(&b->clones[i]))
            continue;
        (void)kill(b->clones[i].pid, SIGKILL);
        (void)waitpid(b->clones[i].pid, NULL, 0);
        b->clones[i].pid = 0;
        (void)unlink(b->clones[i].socket_path);
    }
}

/* From the thread that a signal wakes. */
static void give_up(void *arg, char *state, size_t cap)
{
    const struct brood *b = arg;

    end_brood(b);
    (void)snprintf(state, cap, "none of the clones was made");
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

/* What is asked for. */
struct cloning {
    const char *url;
    char dir[PATH_MAX];
    const char *name; /* of sockets and logs, a template */
    unsigned first, nr;
    struct chsnap_restore_opts how;
};

/* A host's name that two clones cannot both have must have the number in it. */
static int check_sets(struct chsnap *c, const struct cloning *k)
{
    static const char *const unique[] = {"tap",    "mac",  "host_mac",    "ip",
                                         "socket", "uuid", "system_uuid", "file"};

    for (unsigned i = 0; k->nr > 1 && i < k->how.nr_sets; i++) {
        const char *set = k->how.sets[i], *eq = strchr(set, '=');
        const char *member = memrchr(set, '.', (size_t)(eq - set));

        for (size_t u = 0; member && u < ARRAY_LEN(unique); u++) {
            if (strlen(unique[u]) != (size_t)(eq - member - 1) ||
                strncmp(member + 1, unique[u], (size_t)(eq - member - 1)) != 0 ||
                chsnap_template_varies(eq))
                continue;
            return chsnap_usage_error(c, "--set %s: would be the same for all: put {n} in it", set);
        }
    }
    if (!k->name[0] || strchr(k->name, '/'))
        return chsnap_usage_error(c, "--name \"%s\": is not the name of a file", k->name);
    if (k->nr > 1 && !chsnap_template_varies(k->name))
        return chsnap_usage_error(c, "--name %s: would be the same for all: put {n} in it",
                                  k->name);
    return CHSNAP_OK;
}

/* Many share one image of the memory: it is made before they start, and they find it. */
static int make_image(struct chsnap *c, const struct cloning *k)
{
    struct snap_progress p = {0};
    struct snap *snap = NULL;
    struct err err = {0};
    int rc;

    if (k->nr < 2 ||
        (k->how.mode && strcmp(k->how.mode, "auto") != 0 && strcmp(k->how.mode, "mapped") != 0))
        return CHSNAP_OK;
    rc = snap_open(k->url, &snap, &err);
    if (rc >= 0)
        rc = snap_expand(snap, &p, &err);
    snap_close(snap);
    /* Whoever did not ask for an image can do without: a store that is read only has none. */
    if (rc < 0 && (k->how.mode || rc == -EBADMSG || rc == -ESTALE))
        return chsnap_error(c, "%s", err.msg);
    return CHSNAP_OK;
}

/* Another VM that answers there would be taken for the clone. */
static bool is_answered(const char *socket_path)
{
    auto_close int fd = -1;

    return http_client_connect(socket_path, &fd, NULL) >= 0;
}

static int start_one(struct chsnap *c, const struct cloning *k, unsigned i, const struct brood *b)
{
    struct clone *clone = &b->clones[i];
    char restore[CHSNAP_RESTORE_MAX], name[NAME_MAX + 1];
    struct err err = {0};
    int rc = chsnap_template_expand(k->name, k->first + i, name, sizeof(name), &err);

    if (rc >= 0)
        rc = chsnap_restore_text(&k->how, k->url, "resume=off,clone=on", k->first + i, restore,
                                 &err);
    if (rc < 0)
        return chsnap_usage_error(c, "%s", err.msg);
    (void)snprintf(clone->socket_path, sizeof(clone->socket_path), "%s/%s.sock", k->dir, name);
    (void)snprintf(clone->log_path, sizeof(clone->log_path), "%s/%s.log", k->dir, name);
    if (is_answered(clone->socket_path))
        return chsnap_error(c, "%s: a VM has it already; give another --dir, --name or --first",
                            clone->socket_path);
    chsnap_stop_hold();
    rc = start_clone(restore, b->leash[0], clone);
    chsnap_stop_release();
    return rc < 0 ? chsnap_error(c, "chvmm: %s", strerror(-rc)) : CHSNAP_OK;
}

static int make_clones(struct chsnap *c, const struct cloning *k)
{
    struct brood b = {.nr = k->nr, .clones = calloc(k->nr, sizeof(*b.clones))};
    int rc;

    if (!b.clones)
        return chsnap_error(c, "out of memory");
    if (pipe2(b.leash, O_CLOEXEC) < 0) {
        free(b.clones);
        return chsnap_error(c, "pipe: %m");
    }
    chsnap_stop_undo(give_up, &b);
    chsnap_stop_state(c, "none of the clones was made");
    rc = make_image(c, k);
    for (unsigned i = 0; rc == CHSNAP_OK && i < k->nr; i++)
        rc = start_one(c, k, i, &b);
    for (unsigned i = 0; rc == CHSNAP_OK && i < k->nr; i++)
        rc = wait_clone(c, &b.clones[i]);
    /* All or none: from here on no signal ends it, and before none of them has done anything. */
    chsnap_stop_hold();
    if (rc == CHSNAP_OK)
        rc = let_run(c, &b);
    if (rc != CHSNAP_OK)
        end_brood(&b);
    chsnap_stop_done_locked(rc == CHSNAP_OK ? "all clones run" : "none of the clones was made");
    chsnap_stop_release();
    if (rc == CHSNAP_OK)
        rc = print_clones(c, b.clones, k->nr);
    if (b.leash[0] >= 0)
        (void)close(b.leash[0]);
    (void)close(b.leash[1]);
    free(b.clones);
    return rc;
}

/* The directory is made for them, and goes again if nothing is in it, not even a log. */
static int clone_into(struct chsnap *c, struct cloning *k, const char *dir_text)
{
    bool made = mkdir(dir_text, 0700) == 0;
    int rc;

    if (!made && errno != EEXIST)
        return chsnap_error(c, "%s: %m", dir_text);
    if (!realpath(dir_text, k->dir) || strlen(k->dir) > DIR_MAX)
        rc = chsnap_error(c, "--dir %s: no directory, or too long a path for a socket", dir_text);
    else
        rc = make_clones(c, k);
    if (rc != CHSNAP_OK && made)
        (void)rmdir(dir_text);
    return rc;
}

static bool parse_count(const char *text, unsigned lowest, unsigned highest, unsigned *ret)
{
    uint64_t n;

    if (!decimal_parse(text, lowest, highest, &n))
        return false;
    *ret = (unsigned)n;
    return true;
}

static int take_option(struct chsnap *c, int opt, struct cloning *k, const char **dir_text)
{
    if (opt == 'd') {
        *dir_text = optarg;
    } else if (opt == 'N') {
        k->name = optarg;
    } else if (opt == 'n') {
        if (!parse_count(optarg, 1, CLONES_MAX, &k->nr))
            return chsnap_usage_error(c, "--number %s: 1 to %d", optarg, CLONES_MAX);
    } else if (opt == 'F') {
        if (!parse_count(optarg, 0, INT_MAX, &k->first))
            return chsnap_usage_error(c, "--first %s: 0 to %d", optarg, INT_MAX);
    } else {
        return chsnap_restore_opt(c, opt, &k->how);
    }
    return CHSNAP_OK;
}

static int run_clone(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"number",           required_argument, NULL, 'n'},
        {"dir",              required_argument, NULL, 'd'},
        {"name",                  required_argument, NULL, 'N'},
        {"first",required_argument, NULL, 'F'},
        CHSNAP_RESTORE_LONGS,
        {0              }
    };
    char url[PATH_MAX + STORE_DIGEST_HEX + 16];
    struct cloning k = {.url = url, .name = "clone-{n}", .nr = 1};
    const char *dir_text = NULL;
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "n:d:" CHSNAP_RESTORE_SHORTS, longs)) != -1) {
        rc = take_option(c, opt, &k, &dir_text);
        if (rc != CHSNAP_OK)
            return rc < 0 ? chsnap_option_end(opt) : rc;
    }
    args = argv + optind;
    if (!dir_text)
        return chsnap_usage_error(c, "where shall the clones' sockets be? give a --dir");
    rc = check_sets(c, &k);
    if (rc != CHSNAP_OK)
        return rc;
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_source_url(c, args, url, sizeof(url));
    return rc == CHSNAP_OK ? clone_into(c, &k, dir_text) : rc;
}

const struct chsnap_command chsnap_clone = {
    .name = "clone",
    .summary = "start copies of a VM, each with an identity of its own",
    .usage = "[-n NUMBER] --dir DIR [--name NAME] [--set KEY=VALUE]... [STORE] SNAPSHOT",
    .help = "Each clone is a chvmm of its own that goes on by itself: with a new UUID, VM\n"
            "generation id, MAC addresses and taps, copies of the writable disks (by reference\n"
            "where the file system can), and other names for the files and sockets of serial\n"
            "port and console.  Several share one image of the memory, which is kept in the\n"
            "store.  What cannot be made unique, and a disk that has changed since, is refused\n"
            "by name in the clone's log.  In names and values {n} is the clone's number; {n:03}\n"
            "has zeroes in front, {n:02x} is hexadecimal.\n"
            "\n"
            "  -n, --number NUMBER      how many (1)\n"
            "  -d, --dir DIR            for API sockets and logs\n"
            "      --name NAME          of these, without .sock and .log (clone-{n})\n"
            "      --first NUMBER       of the first clone (0)\n" CHSNAP_RESTORE_HELP,
    .run = run_clone,
};
