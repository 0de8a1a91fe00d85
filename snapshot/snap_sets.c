/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_sets.h"

#include <stdarg.h>

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

enum {
    SET_KEY_MAX = 255,
    SET_PARTS_MAX = 4,
};

/* --- Problems -------------------------------------------------------------------- */

void snap_problem(struct snap_problems *why, const char *fmt, ...)
{
    va_list ap;

    if (why->nr == SNAP_PROBLEMS_MAX)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(why->text[why->nr++], SNAP_PROBLEM_LEN, fmt, ap);
    va_end(ap);
}

void snap_problems_text(const struct snap_problems *why, char ret[SNAP_PROBLEMS_TEXT])
{
    size_t len = 0;

    ret[0] = 0;
    for (unsigned i = 0; i < why->nr; i++)
        len += (size_t)snprintf(ret + len, SNAP_PROBLEMS_TEXT - len, "%s%s", i ? "; " : "",
                                why->text[i]);
}

int snap_problems_err(const struct snap_problems *why, int code, struct err *err)
{
    if (why->nr == 0)
        return 0;
    if (why->nr == 1)
        return err_set(err, code, "%s", why->text[0]);
    return err_set(err, code, "%u things are wrong, the first: %s", why->nr, why->text[0]);
}

/* --- What may be changed ----------------------------------------------------------- */

/* "*" is the id of an element. */
static const char *const changeable[] = {
    "memory.shared",
    "memory.mergeable",
    "memory.hugepages",
    "memory.hugepage_size",
    "memory.prefault",
    "memory.reserve",
    "memory.thp",
    "memory.zones.*.file",
    "memory.zones.*.shared",
    "memory.zones.*.mergeable",
    "memory.zones.*.hugepages",
    "memory.zones.*.hugepage_size",
    "memory.zones.*.prefault",
    "memory.zones.*.reserve",
    "disks.*.path",
    "disks.*.direct",
    "disks.*.disable_io_uring",
    "disks.*.lock_granularity",
    "net.*.tap",
    "net.*.mac",
    "net.*.host_mac",
    "net.*.ip",
    "net.*.mask",
    "rng.src",
    "serial.mode",
    "serial.file",
    "serial.socket",
    "console.mode",
    "console.file",
    "debug_console.mode",
    "debug_console.file",
    "platform.system_uuid",
    "platform.uuid",
};

struct set {
    char key[SET_KEY_MAX + 1]; /* cut into its parts */
    const char *parts[SET_PARTS_MAX];
    unsigned nr;
    const char *value;
};

/* Ids hold no dots: a key is cut at each. */
static bool parse(const char *text, struct set *ret)
{
    const char *eq = strchr(text, '=');
    char *save = NULL;

    if (!eq || eq - text > SET_KEY_MAX)
        return false;
    memcpy(ret->key, text, (size_t)(eq - text));
    ret->key[eq - text] = 0;
    ret->value = eq + 1;
    ret->nr = 0;
    for (char *p = strtok_r(ret->key, ".", &save); p; p = strtok_r(NULL, ".", &save)) {
        if (ret->nr == SET_PARTS_MAX)
            return false;
        ret->parts[ret->nr++] = p;
    }
    return ret->nr >= 2;
}

static bool matches(const struct set *s, const char *pattern)
{
    char copy[SET_KEY_MAX + 1];
    char *save = NULL;
    unsigned i = 0;

    (void)snprintf(copy, sizeof(copy), "%s", pattern);
    for (char *p = strtok_r(copy, ".", &save); p; p = strtok_r(NULL, ".", &save), i++)
        if (i == s->nr || (strcmp(p, "*") != 0 && strcmp(p, s->parts[i]) != 0))
            return false;
    return i == s->nr;
}

static bool is_changeable(const struct set *s)
{
    for (size_t i = 0; i < ARRAY_LEN(changeable); i++)
        if (matches(s, changeable[i]))
            return true;
    return false;
}

bool snap_sets_has(const struct snap_sets *sets, const char *list, const char *id,
                   const char *member)
{
    for (unsigned i = 0; i < sets->nr; i++) {
        struct set s;

        if (!parse(sets->items[i], &s) || strcmp(s.parts[0], list) != 0 ||
            strcmp(s.parts[s.nr - 1], member) != 0)
            continue;
        if (id ? s.nr == 3 && strcmp(s.parts[1], id) == 0 : s.nr == 2)
            return true;
    }
    return false;
}

/* --- Changing ---------------------------------------------------------------------- */

static struct json_object *element(struct json_object *list, const char *id)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i), *v = NULL;

        if (json_object_object_get_ex(o, "id", &v) && strcmp(json_object_get_string(v), id) == 0)
            return o;
    }
    return NULL;
}

/* The object that has the member; NULL if there is none. */
static struct json_object *owner(struct json_object *root, const struct set *s)
{
    struct json_object *o = root;

    for (unsigned i = 0; o && i + 1 < s->nr; i++) {
        struct json_object *next = NULL;

        if (json_object_is_type(o, json_type_array)) {
            next = element(o, s->parts[i]);
        } else if (!json_object_object_get_ex(o, s->parts[i], &next) && i == 0) {
            /* A part that has all its defaults is not written. */
            next = json_object_new_object();
            if (json_object_object_add(o, s->parts[i], next) < 0)
                return NULL;
        }
        o = next;
    }
    return json_object_is_type(o, json_type_object) ? o : NULL;
}

static bool is_number(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

static bool is_switch(const char *text)
{
    return strcmp(text, "on") == 0 || strcmp(text, "off") == 0;
}

static struct json_object *value_of(const struct set *s)
{
    if (is_switch(s->value))
        return json_object_new_boolean(strcmp(s->value, "on") == 0);
    if (is_number(s->value))
        return json_object_new_uint64(strtoull(s->value, NULL, 10));
    return json_object_new_string(s->value);
}

/* Where a console leads says what kind it is. */
static int put_console(struct json_object *o, const char *member)
{
    if (strcmp(member, "file") == 0) {
        json_object_object_del(o, "socket");
        return json_object_object_add(o, "mode", json_object_new_string("File"));
    }
    if (strcmp(member, "socket") == 0) {
        json_object_object_del(o, "file");
        return json_object_object_add(o, "mode", json_object_new_string("Socket"));
    }
    return 0;
}

static void apply_one(struct json_object *root, const char *text, struct snap_problems *why)
{
    struct json_object *o;
    struct set s;

    if (!parse(text, &s)) {
        snap_problem(why, "set %s: is not part.member=value", text);
    } else if (!is_changeable(&s)) {
        snap_problem(why, "set %s: cannot be changed: the guest knows it, or it does not exist",
                     text);
    } else if (o = owner(root, &s), !o) {
        snap_problem(why, "set %s: the machine has no %s %s", text, s.parts[s.nr - 3 + (s.nr < 3)],
                     s.parts[s.nr - 2]);
    } else {
        const char *member = s.parts[s.nr - 1];

        /* Another name of the same. */
        if (strcmp(s.parts[0], "platform") == 0 && strcmp(member, "uuid") == 0)
            member = "system_uuid";
        if (json_object_object_add(o, member, value_of(&s)) < 0 ||
            (strcmp(s.parts[0], "serial") == 0 && put_console(o, member) < 0))
            snap_problem(why, "set %s: out of memory", text);
    }
}

int snap_sets_apply(const struct snap_sets *sets, struct vm_config *cfg, struct snap_problems *why,
                    struct err *err)
{
    struct json_object *root = NULL;
    struct vm_config changed;
    unsigned before = why->nr;
    int rc = sets->nr ? vm_config_to_json(cfg, &root) : 0;

    if (!sets->nr)
        return 0;
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    for (unsigned i = 0; i < sets->nr; i++)
        apply_one(root, sets->items[i], why);
    if (why->nr > before) {
        json_object_put(root);
        return 0;
    }
    rc = vm_config_from_json(root, &changed, err);
    json_object_put(root);
    if (rc < 0)
        return err_prefix(err, rc, "set");
    rc = vm_config_complete(&changed, err);
    if (rc < 0) {
        vm_config_release(&changed);
        return err_prefix(err, rc, "set");
    }
    vm_config_release(cfg);
    *cfg = changed;
    return 0;
}
