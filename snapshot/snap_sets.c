/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_sets.h"

#include <stdarg.h>

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/config/option_grammar.h"

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

bool snap_problems_has(const struct snap_problems *why, const char *kind, const char *id)
{
    char name[SNAP_PROBLEM_LEN];
    size_t len = (size_t)snprintf(name, sizeof(name), "%s %s", kind, id);

    for (unsigned i = 0; i < why->nr; i++)
        if (strncmp(why->text[i], name, len) == 0 && strchr(": ", why->text[i][len]))
            return true;
    return false;
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

enum value_kind {
    VALUE_TEXT,
    VALUE_SWITCH, /* on, off */
    VALUE_SIZE,   /* bytes, with K, M, G or T behind them */
    VALUE_MODE,   /* of a console, in any case of letters */
};

/* "*" is the id of an element. */
static const struct changeable {
    const char *key;
    enum value_kind kind;
} changeable[] = {
  /* clang-format off */
    {"memory.shared",                VALUE_SWITCH},
    {"memory.mergeable",             VALUE_SWITCH},
    {"memory.hugepages",             VALUE_SWITCH},
    {"memory.hugepage_size",         VALUE_SIZE},
    {"memory.prefault",              VALUE_SWITCH},
    {"memory.reserve",               VALUE_SWITCH},
    {"memory.thp",                   VALUE_SWITCH},
    {"memory.zones.*.file",          VALUE_TEXT},
    {"memory.zones.*.shared",        VALUE_SWITCH},
    {"memory.zones.*.mergeable",     VALUE_SWITCH},
    {"memory.zones.*.hugepages",     VALUE_SWITCH},
    {"memory.zones.*.hugepage_size", VALUE_SIZE},
    {"memory.zones.*.prefault",      VALUE_SWITCH},
    {"memory.zones.*.reserve",       VALUE_SWITCH},
    {"disks.*.path",                 VALUE_TEXT},
    {"disks.*.direct",               VALUE_SWITCH},
    {"disks.*.disable_io_uring",     VALUE_SWITCH},
    {"disks.*.lock_granularity",     VALUE_TEXT},
    {"net.*.tap",                    VALUE_TEXT},
    {"net.*.mac",                    VALUE_TEXT},
    {"net.*.host_mac",               VALUE_TEXT},
    {"net.*.ip",                     VALUE_TEXT},
    {"net.*.mask",                   VALUE_TEXT},
    {"rng.src",                      VALUE_TEXT},
    {"serial.mode",                  VALUE_MODE},
    {"serial.file",                  VALUE_TEXT},
    {"serial.socket",                VALUE_TEXT},
    {"console.mode",                 VALUE_MODE},
    {"console.file",                 VALUE_TEXT},
    {"debug_console.mode",           VALUE_MODE},
    {"debug_console.file",           VALUE_TEXT},
    {"platform.system_uuid",         VALUE_TEXT},
    {"platform.uuid",                VALUE_TEXT},
  /* clang-format on */
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

static const struct changeable *find_changeable(const struct set *s)
{
    for (size_t i = 0; i < ARRAY_LEN(changeable); i++)
        if (matches(s, changeable[i].key))
            return &changeable[i];
    return NULL;
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

static struct json_object *mode_of(const char *text)
{
    char name[16];

    (void)snprintf(name, sizeof(name), "%s", text);
    for (size_t i = 0; name[i]; i++)
        name[i] = (char)(i ? tolower : toupper)((unsigned char)name[i]);
    return json_object_new_string(name);
}

/* NULL for a value that is none of its kind, which @ret_wanted names; or for want of memory. */
static struct json_object *value_of(const struct set *s, enum value_kind kind,
                                    const char **ret_wanted)
{
    uint64_t size;
    bool on;

    if (kind == VALUE_SWITCH) {
        *ret_wanted = "on or off";
        return option_toggle(s->value, &on) < 0 ? NULL : json_object_new_boolean(on);
    }
    if (kind == VALUE_SIZE) {
        *ret_wanted = "a number of bytes, with K, M, G or T behind it";
        return option_size(s->value, &size) < 0 ? NULL : json_object_new_uint64(size);
    }
    return kind == VALUE_MODE ? mode_of(s->value) : json_object_new_string(s->value);
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

static bool is_console(const char *part)
{
    return strcmp(part, "serial") == 0 || strcmp(part, "console") == 0 ||
           strcmp(part, "debug_console") == 0;
}

static int put_value(struct json_object *o, const struct set *s, enum value_kind kind,
                     struct err *err)
{
    const char *member = s->parts[s->nr - 1], *wanted = NULL;
    struct json_object *value = value_of(s, kind, &wanted);

    if (!value)
        return wanted ? err_set(err, -EINVAL, "is not %s", wanted)
                      : err_set(err, -ENOMEM, "out of memory");
    /* Another name of the same. */
    if (strcmp(s->parts[0], "platform") == 0 && strcmp(member, "uuid") == 0)
        member = "system_uuid";
    if (json_object_object_add(o, member, value) < 0) {
        json_object_put(value);
        return err_set(err, -ENOMEM, "out of memory");
    }
    if (is_console(s->parts[0]) && put_console(o, member) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    return 0;
}

static int apply_one(struct json_object *root, const char *text, struct err *err)
{
    const struct changeable *what;
    struct json_object *o;
    struct set s;

    if (!parse(text, &s))
        return err_set(err, -EINVAL, "is not part.member=value");
    what = find_changeable(&s);
    if (!what)
        return err_set(err, -EINVAL, "cannot be changed: the guest knows it, or it does not exist");
    o = owner(root, &s);
    if (!o)
        return err_set(err, -EINVAL, "the machine has no %s %s", s.parts[s.nr - 3 + (s.nr < 3)],
                       s.parts[s.nr - 2]);
    return put_value(o, &s, what->kind, err);
}

/* A device that comes or goes is another machine. */
static int check_console(const char *name, const struct console_config *before,
                         const struct console_config *after, struct err *err)
{
    if ((before->mode == CONSOLE_OFF) == (after->mode == CONSOLE_OFF))
        return 0;
    return err_set(err, -EINVAL, "%s.mode: not %s Off: the guest would notice", name,
                   before->mode == CONSOLE_OFF ? "from" : "to");
}

/* The machine that an object describes, if it may take the place of @cfg. */
static int complete(struct json_object *root, const struct vm_config *cfg,
                    struct vm_config *ret_changed, struct err *err)
{
    struct vm_config c;
    int rc = vm_config_from_json(root, &c, err);

    if (rc < 0)
        return rc;
    rc = vm_config_complete(&c, err);
    if (rc >= 0)
        rc = check_console("serial", &cfg->serial, &c.serial, err);
    if (rc >= 0)
        rc = check_console("console", &cfg->console, &c.console, err);
    if (rc >= 0)
        rc = check_console("debug_console", &cfg->debug_console, &c.debug_console, err);
    if (rc < 0)
        vm_config_release(&c);
    else
        *ret_changed = c;
    return rc;
}

/* Make those changes whose bits are set: all, or none. */
static int apply_some(const struct snap_sets *sets, const bool *which, struct vm_config *cfg,
                      struct err *err)
{
    struct json_object *root = NULL;
    struct vm_config changed;
    int rc = vm_config_to_json(cfg, &root);

    if (rc < 0)
        return err_set(err, rc, "out of memory");
    for (unsigned i = 0; rc >= 0 && i < sets->nr; i++)
        if (which[i])
            rc = apply_one(root, sets->items[i], err);
    if (rc >= 0)
        rc = complete(root, cfg, &changed, err);
    json_object_put(root);
    if (rc < 0)
        return rc;
    vm_config_release(cfg);
    *cfg = changed;
    return 0;
}

/* Find those that can be made, in any order: one may need another. */
static void find_good(const struct snap_sets *sets, const struct vm_config *cfg, bool *good)
{
    for (bool more = true; more;) {
        more = false;
        for (unsigned i = 0; i < sets->nr; i++) {
            struct vm_config scratch;

            if (good[i] || vm_config_copy(cfg, &scratch) < 0)
                continue;
            good[i] = true;
            good[i] = apply_some(sets, good, &scratch, NULL) >= 0;
            more |= good[i];
            vm_config_release(&scratch);
        }
    }
}

/* Each of those that are left, together with the good ones. */
static void tell_bad(const struct snap_sets *sets, const struct vm_config *cfg, bool *which,
                     struct snap_problems *why)
{
    for (unsigned i = 0; i < sets->nr; i++) {
        struct vm_config scratch;
        struct err what = {0};

        if (which[i] || vm_config_copy(cfg, &scratch) < 0)
            continue;
        which[i] = true;
        if (apply_some(sets, which, &scratch, &what) < 0)
            snap_problem(why, "set %s: %s", sets->items[i], what.msg);
        which[i] = false;
        vm_config_release(&scratch);
    }
}

int snap_sets_apply(const struct snap_sets *sets, struct vm_config *cfg, struct snap_problems *why,
                    struct err *err)
{
    bool which[SNAP_SETS_MAX] = {false};
    struct err first = {0};
    unsigned before = why->nr;
    int rc;

    if (!sets->nr)
        return 0;
    if (sets->nr > SNAP_SETS_MAX)
        return err_set(err, -E2BIG, "set: more than %d", SNAP_SETS_MAX);
    memset(which, true, sets->nr);
    rc = apply_some(sets, which, cfg, &first);
    if (rc >= 0)
        return 0;
    memset(which, false, sets->nr);
    find_good(sets, cfg, which);
    tell_bad(sets, cfg, which, why);
    /* Only for want of memory can each be good and all of them not. */
    if (why->nr == before)
        return err_set(err, rc, "set: %s", first.msg);
    return apply_some(sets, which, cfg, err);
}
