/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_disks.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/decimal.h"
#include "core/image_file.h"
#include "core/json_get.h"

/* On a copy: inode and time of change of what it was copied from, and its own time of change then. */
#define COPY_XATTR "user.chrysalis.copy"

enum {
    COPY_TEXT = 80,
};

bool snap_is_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Only compared: a file of the year 2300, which file systems have, may wrap around. */
static int64_t mtime_ns(const struct stat *st)
{
    return (int64_t)((uint64_t)st->st_mtim.tv_sec * 1000000000 + (uint64_t)st->st_mtim.tv_nsec);
}

/* Bytes, also of a block device; -errno. */
static int64_t image_size(const char *path, const struct stat *st)
{
    struct image_facts f;
    auto_close int fd = -1;

    if (!S_ISBLK(st->st_mode))
        return st->st_size;
    fd = image_open(path, O_RDONLY, &f);
    return fd < 0 ? fd : (int64_t)f.size;
}

static struct json_object *describe_one(const struct disk_config *d, const struct stat *st)
{
    struct json_object *o = json_object_new_object();

    (void)json_object_object_add(o, "id", json_object_new_string(d->id));
    (void)json_object_object_add(o, "path", json_object_new_string(d->path));
    (void)json_object_object_add(o, "readonly", json_object_new_boolean(d->readonly));
    (void)json_object_object_add(o, "size", json_object_new_int64(image_size(d->path, st)));
    (void)json_object_object_add(o, "device", json_object_new_uint64(st->st_dev));
    (void)json_object_object_add(o, "inode", json_object_new_uint64(st->st_ino));
    (void)json_object_object_add(o, "mtime_ns", json_object_new_int64(mtime_ns(st)));
    return o;
}

int snap_disks_describe(const struct vm_config *cfg, char **ret_json, struct err *err)
{
    struct json_object *all = json_object_new_array();
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < cfg->nr_disks; i++) {
        const struct disk_config *d = &cfg->disks[i];
        struct stat st;

        if (stat(d->path, &st) < 0)
            rc = err_set(err, -errno, "disk %s: %s: %s", d->id, d->path, strerror(errno));
        else
            (void)json_object_array_add(all, describe_one(d, &st));
    }
    if (rc >= 0) {
        *ret_json = strdup(json_object_to_json_string_ext(all, JSON_C_TO_STRING_PLAIN |
                                                                   JSON_C_TO_STRING_NOSLASHESCAPE));
        rc = *ret_json ? 0 : -ENOMEM;
    }
    json_object_put(all);
    return rc;
}

static const char *text_of(struct json_object *o, const char *key)
{
    struct json_object *v = NULL;

    if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
        return NULL;
    return json_object_get_string(v);
}

/* An inode's number; what is none is as good as 0, which no file has. */
static uint64_t inode_of(struct json_object *o)
{
    struct json_object *v = NULL;

    if (!json_object_object_get_ex(o, "inode", &v) || !json_object_is_type(v, json_type_int))
        return 0;
    return json_object_get_uint64(v);
}

static int64_t number_of(struct json_object *o, const char *key)
{
    struct json_object *v = NULL;

    if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_int))
        return -1;
    return json_object_get_int64(v);
}

/* An image's size is the recorded one.  Once a block device's was not looked at: it is 0 there. */
static bool has_size(struct json_object *o, const char *path, const struct stat *st)
{
    int64_t recorded = number_of(o, "size");

    return (recorded == 0 && S_ISBLK(st->st_mode)) || recorded == image_size(path, st);
}

/*
 * Why a disk is not what it was; NULL if it is.  The number of the device tells nothing: many a file
 * system has another after the next mount or boot.
 */
static const char *changed(struct json_object *o, const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return strerrordesc_np(errno);
    if (!has_size(o, path, &st))
        return "its size has changed";
    if (st.st_ino != inode_of(o))
        return "it is another file";
    if (mtime_ns(&st) != number_of(o, "mtime_ns"))
        return "it was written after the snapshot";
    return NULL;
}

static const struct disk_config *find_disk(const struct vm_config *cfg, const char *id)
{
    for (unsigned i = 0; i < cfg->nr_disks; i++)
        if (strcmp(cfg->disks[i].id, id) == 0)
            return &cfg->disks[i];
    return NULL;
}

/* --- Copies ---------------------------------------------------------------------- */

void snap_disks_mark(int copy, int original)
{
    char text[COPY_TEXT];
    struct stat c, o;
    int n;

    if (fstat(copy, &c) < 0 || fstat(original, &o) < 0)
        return;
    n = snprintf(text, sizeof(text), "%llu %lld %lld", (unsigned long long)o.st_ino,
                 (long long)mtime_ns(&o), (long long)mtime_ns(&c));
    /* Where it cannot be noted, whoever gives the path has to know. */
    (void)fsetxattr(copy, COPY_XATTR, text, (size_t)n, 0);
}

/* What snap_disks_mark() noted. */
struct copy_mark {
    uint64_t inode;
    int64_t original_ns;
    int64_t own_ns;
};

/* A time of change, which may be before 1970. */
static bool take_time(const char **at, int64_t *ret_ns)
{
    bool before = **at == '-';
    const char *digits = *at + before;
    uint64_t n;

    if (!decimal_take(&digits, (uint64_t)INT64_MAX + before, &n))
        return false;
    *ret_ns = (int64_t)(before ? 0 - n : n);
    *at = digits;
    return true;
}

static bool take_space(const char **at)
{
    return *(*at)++ == ' ';
}

/* Whoever owns the file may have written anything there: what is not ours to the last byte is none. */
static bool read_mark(const char *path, struct copy_mark *ret)
{
    char text[COPY_TEXT];
    ssize_t n = getxattr(path, COPY_XATTR, text, sizeof(text) - 1);
    const char *at = text;

    if (n <= 0)
        return false;
    text[n] = 0;
    return decimal_take(&at, UINT64_MAX, &ret->inode) && take_space(&at) &&
           take_time(&at, &ret->original_ns) && take_space(&at) && take_time(&at, &ret->own_ns) &&
           at == text + n;
}

/* A copy that was made of the disk as it is recorded, and written since: its guest went on with it. */
static bool is_used_copy(struct json_object *o, const char *path, const struct stat *st)
{
    struct copy_mark mark;

    return read_mark(path, &mark) && mark.inode == inode_of(o) &&
           mark.original_ns == number_of(o, "mtime_ns") && mark.own_ns != mtime_ns(st);
}

/* An image given in place of the recorded one.  Return: why not; NULL if it will do. */
static const char *unfit(struct json_object *o, const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return strerrordesc_np(errno);
    if (!has_size(o, path, &st))
        return "its size is another than the snapshot's";
    return is_used_copy(o, path, &st) ? "it is an earlier clone's, which has written to it" : NULL;
}

static void check_one(struct json_object *o, const struct snap_disks_use *use,
                      struct snap_problems *why)
{
    const char *path = text_of(o, "path"), *id = text_of(o, "id"), *wrong;
    const struct disk_config *d = id ? find_disk(use->cfg, id) : NULL;

    if (!path || !d) {
        snap_problem(why, "disk %s: the snapshot does not say what it was", id ? id : "?");
        return;
    }
    if (snap_sets_has(use->sets, "disks", id, "path")) {
        bool copy = use->copied && !d->readonly && access(d->path, F_OK) < 0;

        wrong = copy ? NULL : unfit(o, d->path);
        if (wrong)
            snap_problem(why, "disk %s (%s): %s", id, d->path, wrong);
        if (!copy)
            return;
    }
    wrong = changed(o, path);
    if (wrong)
        snap_problem(why, "disk %s (%s): %s", id, path, wrong);
}

static int parse_disks(const char *json, struct json_object **ret_all, struct err *err)
{
    struct err what = {0};

    if (json_parse(json, strlen(json), ret_all, &what) < 0)
        return err_set(err, -EBADMSG, "disks: %s", what.msg);
    if (!json_object_is_type(*ret_all, json_type_array)) {
        json_object_put(*ret_all);
        return err_set(err, -EBADMSG, "disks: not an array");
    }
    return 0;
}

int snap_disks_check(const char *json, const struct snap_disks_use *use, struct snap_problems *why,
                     struct err *err)
{
    struct json_object *all = NULL;
    int rc = *json ? parse_disks(json, &all, err) : 0;

    if (rc < 0 || !*json)
        return rc;
    for (size_t i = 0; i < json_object_array_length(all); i++)
        check_one(json_object_array_get_idx(all, i), use, why);
    json_object_put(all);
    return 0;
}

int snap_disks_still(const char *json, const struct disk_config *d, struct err *err)
{
    struct json_object *all = NULL;
    int rc = *json ? parse_disks(json, &all, err) : 0;

    if (rc < 0 || !*json)
        return rc;
    for (size_t i = 0; rc >= 0 && i < json_object_array_length(all); i++) {
        struct json_object *o = json_object_array_get_idx(all, i);
        const char *id = text_of(o, "id"), *wrong;

        if (!id || strcmp(id, d->id) != 0)
            continue;
        wrong = changed(o, d->path);
        if (wrong)
            rc = err_set(err, -ESTALE, "%s", wrong);
    }
    json_object_put(all);
    return rc;
}
