/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/facts.h"

#include <stdarg.h>

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/device.h"
#include "core/image_file.h"
#include "core/json_get.h"
#include "core/log.h"
#include "core/state.h"
#include "core/tap_name.h"

/* --- This host ------------------------------------------------------------ */

static void read_boot(char boot[FACTS_BOOT_SIZE])
{
    auto_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    memset(boot, 0, FACTS_BOOT_SIZE);
    if (fd < 0 || read(fd, boot, FACTS_BOOT_SIZE - 1) != FACTS_BOOT_SIZE - 1)
        boot[0] = 0;
}

/* KiB of a line of /proc/meminfo; 0 where it is not there. */
static uint64_t meminfo_kib(const char *key)
{
    auto_close int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    char text[4096];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    const char *at;

    if (n <= 0)
        return 0;
    text[n] = 0;
    at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* --- Making them ---------------------------------------------------------- */

/* An image that has lost its name here can still be moved: nothing is known of it then. */
static void add_disk(struct json_object *all, const struct disk_config *d)
{
    struct json_object *o;
    struct image_facts f;
    auto_close int fd = image_open(d->path, O_RDONLY, &f);

    if (fd < 0)
        return;
    o = json_object_new_object();
    (void)json_object_object_add(o, "id", json_object_new_string(d->id));
    (void)json_object_object_add(o, "size", json_object_new_uint64(f.size));
    (void)json_object_object_add(o, "device", json_object_new_uint64(f.device));
    (void)json_object_object_add(o, "inode", json_object_new_uint64(f.inode));
    (void)json_object_array_add(all, o);
}

static struct json_object *sections_json(struct vm *vm)
{
    struct json_object *all = json_object_new_array();

    for (unsigned i = 0; i < vm_nr_devices(vm); i++) {
        const struct device *dev = vm_device(vm, i);
        struct json_object *o;

        if (!dev->ops->state)
            continue;
        o = json_object_new_object();
        (void)json_object_object_add(o, "id", json_object_new_string(dev->id));
        (void)json_object_object_add(o, "version", json_object_new_int(dev->ops->state->version));
        (void)json_object_array_add(all, o);
    }
    return all;
}

int facts_make(struct vm *vm, char **ret_text, size_t *ret_len, struct err *err)
{
    const struct vm_config *cfg = vm_config(vm);
    struct json_object *o = json_object_new_object(), *disks = json_object_new_array();
    char boot[FACTS_BOOT_SIZE];
    int rc;

    read_boot(boot);
    (void)json_object_object_add(o, "boot", json_object_new_string(boot));
    (void)json_object_object_add(o, "disks", disks);
    (void)json_object_object_add(o, "sections", sections_json(vm));
    for (unsigned i = 0; i < cfg->nr_disks; i++)
        add_disk(disks, &cfg->disks[i]);
    rc = json_print(o, ret_text, ret_len);
    json_object_put(o);
    return rc < 0 ? err_set(err, rc, "out of memory") : 0;
}

/* --- Reading them --------------------------------------------------------- */

/* A member that must be there: 1, 0 and failures of json_get_u64(). */
static int need(int rc, const char *key, struct err *err)
{
    return rc == 0 ? err_set(err, -EINVAL, "%s: is missing", key) : rc;
}

static int get_id(struct json_object *o, const char *what, char id[FACTS_ID_MAX + 1],
                  struct err *err)
{
    const char *text = NULL;
    int rc;

    if (!json_object_is_type(o, json_type_object))
        return err_set(err, -EINVAL, "facts.%s: must be an object", what);
    rc = json_get_string(o, "id", FACTS_ID_MAX, &text, err);
    if (rc == 0)
        rc = err_set(err, -EINVAL, "id: is missing");
    if (rc < 0)
        return err_prefix(err, rc, "facts.%s", what);
    (void)snprintf(id, FACTS_ID_MAX + 1, "%s", text);
    return 0;
}

static int get_disk(struct json_object *o, struct facts *f, struct err *err)
{
    struct fact_disk *d = &f->disks[f->nr_disks];
    int rc;

    if (f->nr_disks == FACTS_DISKS_MAX)
        return err_set(err, -E2BIG, "facts.disks: more than %d", FACTS_DISKS_MAX);
    rc = get_id(o, "disks", d->id, err);
    if (rc >= 0)
        rc = need(json_get_u64(o, "size", 0, INT64_MAX, &d->size, err), "size", err);
    if (rc >= 0)
        rc = json_get_u64(o, "device", 0, UINT64_MAX - 1, &d->device, err);
    if (rc >= 0)
        rc = json_get_u64(o, "inode", 0, UINT64_MAX - 1, &d->inode, err);
    f->nr_disks += rc >= 0;
    return rc < 0 ? err_prefix(err, rc, "disks") : 0;
}

static int get_section(struct json_object *o, struct facts *f, struct err *err)
{
    struct fact_section *s = &f->sections[f->nr_sections];
    uint64_t version = 0;
    int rc;

    if (f->nr_sections == FACTS_SECTIONS_MAX)
        return err_set(err, -E2BIG, "facts.sections: more than %d", FACTS_SECTIONS_MAX);
    rc = get_id(o, "sections", s->id, err);
    if (rc >= 0)
        rc = need(json_get_u64(o, "version", 1, UINT16_MAX, &version, err), "version", err);
    s->version = (uint32_t)version;
    f->nr_sections += rc >= 0;
    return rc < 0 ? err_prefix(err, rc, "sections") : 0;
}

static int each(struct json_object *o, const char *key, struct facts *f,
                int (*get)(struct json_object *, struct facts *, struct err *), struct err *err)
{
    struct json_object *all = NULL;
    int rc = 0;

    if (!json_object_object_get_ex(o, key, &all))
        return 0;
    if (!json_object_is_type(all, json_type_array))
        return err_set(err, -EINVAL, "facts.%s: must be an array", key);
    for (size_t i = 0; i < json_object_array_length(all) && rc >= 0; i++)
        rc = get(json_object_array_get_idx(all, i), f, err);
    return rc;
}

static int parse_object(struct json_object *o, struct facts *f, struct err *err)
{
    const char *boot = NULL;
    int rc;

    if (!json_object_is_type(o, json_type_object))
        return err_set(err, -EINVAL, "facts: must be an object");
    rc = json_get_string(o, "boot", FACTS_BOOT_SIZE - 1, &boot, err);
    if (rc < 0)
        return err_prefix(err, rc, "facts");
    if (boot)
        (void)snprintf(f->boot, sizeof(f->boot), "%s", boot);
    rc = each(o, "disks", f, get_disk, err);
    return rc < 0 ? rc : each(o, "sections", f, get_section, err);
}

int facts_parse(const char *text, size_t len, struct facts **ret_facts, struct err *err)
{
    struct facts *f = calloc(1, sizeof(*f));
    struct json_object *o = NULL;
    int rc = f ? json_parse(text, len, &o, err) : -ENOMEM;

    if (rc >= 0)
        rc = parse_object(o, f, err);
    json_object_put(o);
    if (rc < 0) {
        free(f);
        return rc;
    }
    *ret_facts = f;
    return 0;
}

/* --- Judging -------------------------------------------------------------- */

struct judge {
    facts_refuse_fn *refuse;
    void *arg;
    unsigned nr;
};

static void say(struct judge *j, const char *fmt, ...) PRINTF(2, 3);

static void say(struct judge *j, const char *fmt, ...)
{
    char reason[ERR_MSG_SIZE];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(reason, sizeof(reason), fmt, ap);
    va_end(ap);
    j->nr++;
    if (j->refuse)
        j->refuse(j->arg, reason);
}

static const struct fact_disk *fact_of(const struct facts *f, const char *id)
{
    for (unsigned i = 0; f && i < f->nr_disks; i++)
        if (strcmp(f->disks[i].id, id) == 0)
            return &f->disks[i];
    return NULL;
}

static void check_disk(struct judge *j, const struct facts *f, const char *boot,
                       const struct disk_config *d)
{
    const struct fact_disk *there = fact_of(f, d->id);
    struct image_facts here = {0};
    auto_close int fd = image_open(d->path, d->readonly ? O_RDONLY : O_RDWR, &here);
    bool same_host, same_file;

    if (fd == -EINVAL)
        say(j, "disk %s: %s is neither a file nor a block device", d->id, d->path);
    else if (fd < 0)
        say(j, "disk %s: %s: %s", d->id, d->path, strerror(-fd));
    if (fd < 0 || !f || !there)
        return;
    if (here.size != there->size)
        say(j, "disk %s: %s has %llu bytes, %llu at the source", d->id, d->path,
            (unsigned long long)here.size, (unsigned long long)there->size);
    /* On one host the device tells too; between hosts the same storage has other numbers. */
    same_host = f->boot[0] && strcmp(f->boot, boot) == 0;
    same_file = here.inode == there->inode && (!same_host || here.device == there->device);
    if (!same_file && image_is_locked(fd, d->readonly))
        say(j, "disk %s: %s is locked by another process than the source", d->id, d->path);
    else if (!same_file)
        log_warn("disk %s: %s is another file than the source's: its contents must be the same",
                 d->id, d->path);
}

/* On the source's host the tap may be the source's. */
static void check_tap(struct judge *j, bool same_host, const struct net_config *n)
{
    enum tap_name_is is = n->tap && !n->nr_fds ? tap_name_look(n->tap) : TAP_NAME_FREE;

    if (is == TAP_NAME_OTHER)
        say(j, "net %s: interface %s is not a tap", n->id, n->tap);
    else if (is == TAP_NAME_BUSY && !same_host)
        say(j, "net %s: tap %s is in use", n->id, n->tap);
}

static uint64_t ram_of(const struct vm_config *cfg)
{
    uint64_t size = cfg->memory.size;

    for (unsigned i = 0; i < cfg->memory.nr_zones; i++)
        size += cfg->memory.zones[i].size;
    return size;
}

unsigned facts_check_host(const struct facts *facts, const struct vm_config *cfg,
                          facts_refuse_fn *refuse, void *arg)
{
    struct judge j = {refuse, arg, 0};
    uint64_t host = (meminfo_kib("MemTotal:") + meminfo_kib("SwapTotal:")) << 10;
    char boot[FACTS_BOOT_SIZE];
    bool same_host;

    read_boot(boot);
    same_host = facts && facts->boot[0] && strcmp(facts->boot, boot) == 0;
    if (host && ram_of(cfg) > host)
        say(&j, "memory: the VM has %llu MiB, this host %llu MiB with swap",
            (unsigned long long)(ram_of(cfg) >> 20), (unsigned long long)(host >> 20));
    for (unsigned i = 0; i < cfg->nr_disks; i++)
        check_disk(&j, facts, boot, &cfg->disks[i]);
    for (unsigned i = 0; i < cfg->nr_nets; i++)
        check_tap(&j, same_host, &cfg->nets[i]);
    return j.nr;
}

int facts_check_size(uint64_t bytes, struct err *err)
{
    uint64_t available = meminfo_kib("MemAvailable:") << 10;

    if (available && bytes > available)
        return err_set(err, -ENOMEM, "%llu MiB, this host has %llu MiB available",
                       (unsigned long long)bytes >> 20, (unsigned long long)available >> 20);
    return 0;
}

static const struct device *device_by_id(struct vm *vm, const char *id)
{
    for (unsigned i = 0; i < vm_nr_devices(vm); i++)
        if (strcmp(vm_device(vm, i)->id, id) == 0)
            return vm_device(vm, i);
    return NULL;
}

unsigned facts_check_state(const struct facts *facts, struct vm *vm, facts_refuse_fn *refuse,
                           void *arg)
{
    struct judge j = {refuse, arg, 0};

    for (unsigned i = 0; facts && i < facts->nr_sections; i++) {
        const struct fact_section *s = &facts->sections[i];
        const struct device *dev = device_by_id(vm, s->id);

        if (!dev || !dev->ops->state)
            say(&j, "state of %s: there is no such device here", s->id);
        else if (s->version > dev->ops->state->version || s->version < dev->ops->state->version_min)
            say(&j, "state of %s: version %u comes, %u to %u can be read here", s->id, s->version,
                dev->ops->state->version_min, dev->ops->state->version);
    }
    return j.nr;
}
