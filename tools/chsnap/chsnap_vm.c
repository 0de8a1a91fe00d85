/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Talking to a chvmm, starting one, and restore, which becomes one.
 */
#include "tools/chsnap/chsnap_vm.h"

#include <stdarg.h>

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "tools/chctl/http_client.h"
#include "tools/chsnap/chsnap_template.h"

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

/* --- Starting chvmm ------------------------------------------------------------------ */

const char *chsnap_chvmm_path(char *buf, size_t cap)
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

int chsnap_source_url(struct chsnap *c, char **args, char *url, size_t cap)
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
    if (strchr(path, '"'))
        return chsnap_error(c, "%s: a store's path with quotes cannot be said to chvmm", path);
    (void)snprintf(url, cap, "store:%s#%s", path, id);
    return CHSNAP_OK;
}

/* --- How it comes back --------------------------------------------------------------- */

int chsnap_restore_opt(struct chsnap *c, int opt, struct chsnap_restore_opts *opts)
{
    if (opt == 'm') {
        opts->mode = optarg;
    } else if (opt == 'C') {
        opts->changed_disks = true;
    } else if (opt != 'S') {
        return -1;
    } else if (!strchr(optarg, '=')) {
        return chsnap_usage_error(c, "--set %s: is not KEY=VALUE", optarg);
    } else if (opts->nr_sets == CHSNAP_SETS_MAX) {
        return chsnap_usage_error(c, "--set: more than %d", CHSNAP_SETS_MAX);
    } else {
        opts->sets[opts->nr_sets++] = optarg;
    }
    return CHSNAP_OK;
}

static int append(char *ret, size_t *len, struct err *err, const char *fmt, ...) PRINTF(4, 5);
static int append(char *ret, size_t *len, struct err *err, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(ret + *len, CHSNAP_RESTORE_MAX - *len, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= CHSNAP_RESTORE_MAX - *len)
        return err_set(err, -E2BIG, "--set: too much");
    *len += (size_t)n;
    return 0;
}

int chsnap_restore_text(const struct chsnap_restore_opts *opts, const char *url, const char *more,
                        unsigned number, char ret[CHSNAP_RESTORE_MAX], struct err *err)
{
    char item[4096];
    size_t len = 0;
    int rc = append(ret, &len, err, "source_url=\"%s\",%s%s", url, more,
                    opts->changed_disks ? ",changed_disks=on" : "");

    if (rc >= 0 && opts->mode)
        rc = append(ret, &len, err, ",memory_restore_mode=%s", opts->mode);
    for (unsigned i = 0; rc >= 0 && i < opts->nr_sets; i++) {
        rc = chsnap_template_expand(opts->sets[i], number, item, sizeof(item), err);
        if (rc >= 0 && strchr(item, '"'))
            rc = err_set(err, -EINVAL, "--set %s: quotes are not possible", item);
        if (rc >= 0)
            rc = append(ret, &len, err, "%s\"%s\"", i ? "," : ",set=[", item);
    }
    if (rc >= 0 && opts->nr_sets)
        rc = append(ret, &len, err, "]");
    return rc;
}

/* --- restore -------------------------------------------------------------------------- */

static int run_restore(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"api-socket", required_argument, NULL, 'a'},
        {"paused",        no_argument, NULL, 'p'},
        CHSNAP_RESTORE_LONGS,
        {0           }
    };
    char url[PATH_MAX + STORE_DIGEST_HEX + 16], restore[CHSNAP_RESTORE_MAX], path[PATH_MAX];
    struct chsnap_restore_opts opts = {0};
    const char *socket_path = NULL;
    struct err err = {0};
    bool paused = false;
    char **args;
    int opt, rc;

    while ((opt = chsnap_getopt(c, argc, argv, "a:p" CHSNAP_RESTORE_SHORTS, longs)) != -1) {
        if (opt == 'a') {
            socket_path = optarg;
        } else if (opt == 'p') {
            paused = true;
        } else {
            rc = chsnap_restore_opt(c, opt, &opts);
            if (rc != CHSNAP_OK)
                return rc < 0 ? chsnap_option_end(opt) : rc;
        }
    }
    args = argv + optind;
    if (!socket_path)
        return chsnap_usage_error(c, "where shall the VM listen? give an --api-socket");
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_source_url(c, args, url, sizeof(url));
    if (rc != CHSNAP_OK)
        return rc;
    if (chsnap_restore_text(&opts, url, paused ? "resume=off" : "resume=on", 0, restore, &err) < 0)
        return chsnap_usage_error(c, "%s", err.msg);
    (void)execlp(chsnap_chvmm_path(path, sizeof(path)), "chvmm", "--api-socket", socket_path,
                 "--restore", restore, (char *)NULL);
    return chsnap_error(c, "chvmm: %m");
}

const struct chsnap_command chsnap_restore = {
    .name = "restore",
    .summary = "bring a VM back",
    .usage = "--api-socket SOCKET [--paused] [--memory MODE] [--set KEY=VALUE]... [STORE] SNAPSHOT",
    .help = "Becomes the chvmm that runs the VM, with the disks, interfaces and files that it\n"
            "had.  Every page is verified before the guest sees it.  Use clone to run it beside\n"
            "the original.\n"
            "\n"
            "  -a, --api-socket SOCKET  where the VM shall listen\n"
            "  -p, --paused             do not run it yet\n" CHSNAP_RESTORE_HELP,
    .run = run_restore,
};
