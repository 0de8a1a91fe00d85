/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration from the command line, by its tables.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>

#include "core/config/config_internal.h"
#include "core/config/option_grammar.h"

enum {
    CONFIG_WHAT_MAX = 96,
};

/* ---- values ---------------------------------------------------------------- */

static int config_option_number(const struct config_field *field, void *dst, const char *what,
                                const char *value, struct err *err)
{
    bool size = field->kind == CONFIG_SIZE;
    uint64_t v = 0;
    int rc = size ? option_size(value, &v) : option_u64(value, field->min, field->max, &v);

    if (rc == -EINVAL && size)
        return err_set(err, rc, "%s: '%.64s' is not a size (1024, 512M, 4G)", what, value);
    if (rc == -EINVAL)
        return err_set(err, rc, "%s: '%.64s' is not a number", what, value);
    if (rc && size)
        return err_set(err, -EINVAL, "%s: '%.64s' is too large", what, value);
    if (rc)
        return err_set(err, -EINVAL, "%s: %.64s is not in %" PRIu64 "..%" PRIu64, what, value,
                       field->min, field->max);
    config_store_u64(field, dst, v);
    return 0;
}

static int config_option_toggle(const struct config_field *field, void *dst, const char *what,
                                const char *value, struct err *err)
{
    bool b = false;

    if (option_toggle(value, &b))
        return err_set(err, -EINVAL, "%s: '%.64s' is neither on nor off", what, value);
    *(bool *)config_member(dst, field->off) = b != (field->kind == CONFIG_NOT);
    return 0;
}

static int config_option_name(const struct config_field *field, void *dst, const char *what,
                              const char *value, struct err *err)
{
    char list[ERR_MSG_SIZE / 2] = "";
    size_t n = 0;

    for (const struct config_name *name = field->aux; name->json; name++) {
        if (!strcasecmp(value, name->opt)) {
            *(int *)config_member(dst, field->off) = name->value;
            return 0;
        }
        if (n < sizeof(list))
            n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", name->opt);
    }
    return err_set(err, -EINVAL, "%s: must be one of %s", what, list);
}

static int config_option_refused(const struct config_field *field, const char *what,
                                 const char *value, struct err *err)
{
    bool harmless = false, given = false;

    if (field->harmless && !strcasecmp(value, field->harmless))
        return 0;
    if (field->harmless && !option_toggle(field->harmless, &harmless) &&
        !option_toggle(value, &given) && harmless == given)
        return 0;
    return config_refuse(field, what, err);
}

/* ---- lists ----------------------------------------------------------------- */

static int config_option_fd(const struct config_field *field, void *dst, const char *what,
                            const char *item, struct err *err)
{
    uint64_t v = 0;

    if (option_u64(item, 3, INT32_MAX, &v))
        return err_set(err, -EINVAL, "%s: '%.64s' is not a file descriptor (3 or more)", what,
                       item);
    return config_append_fd(field, dst, what, (int)v, err);
}

static int config_option_feature(const struct config_field *field, void *dst, const char *what,
                                 const char *item, struct err *err)
{
    const struct config_table *table = field->aux;

    for (unsigned i = 0; i < table->nr_fields; i++) {
        if (strcmp(table->fields[i].opt, item) != 0)
            continue;
        *(bool *)config_member(dst, table->fields[i].off) = true;
        return 0;
    }
    return err_set(err, -EINVAL, "%s: unknown feature '%.64s'", what, item);
}

static int config_option_list(const struct config_field *field, void *dst, const char *what,
                              char *value, struct err *err)
{
    char *rest = option_list(value);
    char *item = NULL;
    int rc;

    while ((rc = option_next(&rest, ',', &item, err)) > 0) {
        if (field->kind == CONFIG_STRINGS)
            rc = config_append_string(field, dst, what, option_text(item), err);
        else if (field->kind == CONFIG_FDS)
            rc = config_option_fd(field, dst, what, item, err);
        else
            rc = config_option_feature(field, dst, what, item, err);
        if (rc)
            return rc;
    }
    return rc;
}

/* A struct of numbers, "a:b:c" in the order of its table. */
static int config_option_tuple(const struct config_field *field, void *dst, const char *what,
                               char *value, struct err *err)
{
    const struct config_table *table = field->aux;
    char *item = NULL;
    unsigned i = 0;
    int rc;

    while ((rc = option_next(&value, ':', &item, err)) > 0) {
        if (i == table->nr_fields)
            break;
        rc = config_option_number(&table->fields[i++], config_member(dst, field->off), what, item,
                                  err);
        if (rc)
            return rc;
    }
    if (rc < 0)
        return rc;
    if (rc || i != table->nr_fields)
        return err_set(err, -EINVAL, "%s: must be %u numbers with ':' between them", what,
                       table->nr_fields);
    return 0;
}

static int config_option_value(const struct config_field *field, void *dst, const char *what,
                               char *value, struct err *err);

/* One struct of a list of "name@[item,item]": a table whose first row is the name, last the list. */
static int config_option_tuple_of_list(const struct config_field *field, void *dst,
                                       const char *what, char *item, struct err *err)
{
    const struct config_table *table = field->aux;
    char *name = NULL, *list = NULL;
    void *obj = NULL;
    int rc = option_next(&item, '@', &name, err);

    if (rc > 0)
        rc = option_next(&item, '@', &list, err);
    if (rc < 0)
        return rc;
    if (!rc || item)
        return err_set(err, -EINVAL, "%s: must be [<id>@[<n>,<n>...],...]", what);
    rc = config_append_object(field, dst, what, &obj, err);
    if (!rc)
        rc = config_option_value(&table->fields[0], obj, what, name, err);
    if (!rc)
        rc = config_option_value(&table->fields[table->nr_fields - 1], obj, what, list, err);
    return rc;
}

static int config_option_tuples(const struct config_field *field, void *dst, const char *what,
                                char *value, struct err *err)
{
    char *rest = option_list(value);
    char *item = NULL;
    int rc;

    while ((rc = option_next(&rest, ',', &item, err)) > 0) {
        rc = config_option_tuple_of_list(field, dst, what, item, err);
        if (rc)
            return rc;
    }
    return rc;
}

/* ---- pairs ----------------------------------------------------------------- */

static int config_option_value(const struct config_field *field, void *dst, const char *what,
                               char *value, struct err *err)
{
    switch (field->kind) {
    case CONFIG_BOOL:
    case CONFIG_NOT:
        return config_option_toggle(field, dst, what, option_text(value), err);
    case CONFIG_U8:
    case CONFIG_U16:
    case CONFIG_U32:
    case CONFIG_SIZE:
        return config_option_number(field, dst, what, option_text(value), err);
    case CONFIG_STRING:
    case CONFIG_UUID:
    case CONFIG_MAC:
        return config_store_text(field, dst, what, option_text(value), err);
    case CONFIG_NAME:
        return config_option_name(field, dst, what, option_text(value), err);
    case CONFIG_STRINGS:
    case CONFIG_FDS:
    case CONFIG_FLAGS:
        return config_option_list(field, dst, what, value, err);
    case CONFIG_OBJECT:
        return config_option_tuple(field, dst, what, value, err);
    case CONFIG_REFUSED:
        return config_option_refused(field, what, option_text(value), err);
    case CONFIG_OBJECTS:
        return config_option_tuples(field, dst, what, value, err);
    case CONFIG_FLAG:
        break;
    }
    return err_set(err, -EINVAL, "%s: takes no value", what);
}

static int config_option_flag(const struct config_field *field, void *dst, const char *what,
                              const struct option_pair *pair, struct err *err)
{
    int *value = config_member(dst, field->off);

    if (pair->has_equals)
        return err_set(err, -EINVAL, "%s: takes no value", what);
    if (*value)
        return err_set(err, -EINVAL, "%s: only one mode can be given", what);
    *value = (int)field->min;
    return 0;
}

static int config_option_pair(const struct config_table *table, void *dst, const char *option,
                              const struct option_pair *pair, struct err *err)
{
    char what[CONFIG_WHAT_MAX];

    (void)snprintf(what, sizeof(what), "%s %.48s", option, pair->key);
    for (unsigned i = 0; i < table->nr_fields; i++) {
        const struct config_field *field = &table->fields[i];

        if (!field->opt || strcmp(field->opt, pair->key) != 0)
            continue;
        if (field->kind == CONFIG_FLAG)
            return config_option_flag(field, dst, what, pair, err);
        if (!pair->has_equals)
            return err_set(err, -EINVAL, "%s: needs a value (%.48s=...)", what, pair->key);
        if (!pair->value)
            return 0;
        return config_option_value(field, dst, what, pair->value, err);
    }
    return err_set(err, -EINVAL, "%s: unknown key '%.48s'", option, pair->key);
}

int config_object_from_option(const struct config_table *table, void *dst, const char *option,
                              const char *value, struct err *err)
{
    struct option_set set = {0};
    int rc = option_set_parse(value, &set, err);

    if (rc)
        return err_prefix(err, rc, "%s", option);
    for (unsigned i = 0; i < set.nr && !rc; i++)
        rc = config_option_pair(table, dst, option, &set.pairs[i], err);
    option_set_release(&set);
    return rc;
}

/* ---- options --------------------------------------------------------------- */

/* file= and socket= name a mode as well. */
static int config_option_mode(struct console_config *con, const char *option, struct err *err)
{
    if (con->file && con->socket)
        return err_set(err, -EINVAL, "%s: file and socket cannot both be given", option);
    if ((con->file || con->socket) && con->mode != CONSOLE_DEFAULT)
        return err_set(err, -EINVAL, "%s: only one mode can be given", option);
    if (con->file)
        con->mode = CONSOLE_FILE;
    else if (con->socket)
        con->mode = CONSOLE_SOCKET;
    return 0;
}

/* How an option reaches its struct: at @off in the configuration, or one more of an array. */
struct config_option {
    const char *name;
    const struct config_table *table; /* NULL: the value is a plain string */
    size_t off;
    size_t off_nr; /* not 0: an array */
    unsigned max;
    bool once;
};

#define ONE(n, t, m)                                                   \
    {                                                                  \
        .name = n, .table = &(t), .off = offsetof(struct vm_config, m) \
    }
#define TEXT(n, m)                                      \
    {                                                   \
        .name = n, .off = offsetof(struct vm_config, m) \
    }
#define MANY(n, t, m, nr, x)                                            \
    {                                                                   \
        .name = n, .table = &(t), .off = offsetof(struct vm_config, m), \
        .off_nr = offsetof(struct vm_config, nr), .max = x              \
    }

/* clang-format off */
static const struct config_option config_options[] = {
    [VM_OPT_CPUS]          = ONE("--cpus",          cpus_config_table,          cpus),
    [VM_OPT_MEMORY]        = ONE("--memory",        memory_config_table,        memory),
    [VM_OPT_MEMORY_ZONE]   = MANY("--memory-zone",  memory_zone_config_table,
                                  memory.zones, memory.nr_zones, VM_CONFIG_ZONES_MAX),
    [VM_OPT_KERNEL]        = TEXT("--kernel",       payload.kernel),
    [VM_OPT_INITRAMFS]     = TEXT("--initramfs",    payload.initramfs),
    [VM_OPT_CMDLINE]       = TEXT("--cmdline",      payload.cmdline),
    [VM_OPT_DISK]          = MANY("--disk",         disk_config_table, disks, nr_disks,
                                  VM_CONFIG_DISKS_MAX),
    [VM_OPT_NET]           = MANY("--net",          net_config_table, nets, nr_nets,
                                  VM_CONFIG_NETS_MAX),
    [VM_OPT_RNG]           = ONE("--rng",           rng_config_table,           rng),
    [VM_OPT_SERIAL]        = ONE("--serial",        serial_config_table,        serial),
    [VM_OPT_CONSOLE]       = ONE("--console",       console_config_table,       console),
    [VM_OPT_DEBUG_CONSOLE] = ONE("--debug-console", debug_console_config_table, debug_console),
    [VM_OPT_PLATFORM]      = ONE("--platform",      platform_config_table,      platform),
    [VM_OPT_LANDLOCK_RULES] = MANY("--landlock-rules", landlock_rule_config_table,
                                   landlock_rules, nr_landlock_rules,
                                   VM_CONFIG_LANDLOCK_RULES_MAX),
};
/* clang-format on */

static int config_option_string(struct vm_config *cfg, const struct config_option *option,
                                const char *value, struct err *err)
{
    const struct config_field field = {
        .kind = CONFIG_STRING,
        .off = option->off,
        .max = VM_CONFIG_STRING_MAX,
    };

    if (*(char **)config_member(cfg, option->off))
        return err_set(err, -EINVAL, "%s: is there twice", option->name);
    return config_store_text(&field, cfg, option->name, value, err);
}

int vm_config_from_option(struct vm_config *cfg, enum vm_option opt, const char *value,
                          struct err *err)
{
    const struct config_option *option = &config_options[opt];
    struct config_field array = {
        .kind = CONFIG_OBJECTS,
        .off = option->off,
        .off_nr = option->off_nr,
        .max = option->max,
        .aux = option->table,
    };
    void *dst = config_member(cfg, option->off);
    int rc = 0;

    if (!option->table)
        return config_option_string(cfg, option, value, err);
    if (option->off_nr)
        rc = config_append_object(&array, cfg, option->name, &dst, err);
    if (!rc)
        rc = config_object_from_option(option->table, dst, option->name, value, err);
    if (!rc && (opt == VM_OPT_SERIAL || opt == VM_OPT_CONSOLE || opt == VM_OPT_DEBUG_CONSOLE))
        rc = config_option_mode(dst, option->name, err);
    return rc;
}

int vm_config_option_json(enum vm_option opt, const char *value, struct json_object **ret_obj,
                          struct err *err)
{
    const struct config_option *option = &config_options[opt];
    struct vm_config cfg = {0};
    int rc = vm_config_from_option(&cfg, opt, value, err);
    const void *obj = config_member(&cfg, option->off);

    if (option->off_nr)
        obj = *(void **)config_member(&cfg, option->off);
    if (!rc && option->table)
        rc = config_object_to_json(option->table, obj, ret_obj);
    vm_config_release(&cfg);
    return rc;
}
