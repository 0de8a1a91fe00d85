/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration from JSON and to JSON, by its tables.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/config/config_internal.h"
#include "core/json_get.h"

enum {
    CONFIG_PATH_MAX = 160,
};

/* ---- from JSON ------------------------------------------------------------- */

static int config_read_object(const struct config_table *table, struct json_object *val, void *dst,
                              const char *where, struct err *err);

static bool config_is_empty(struct json_object *val)
{
    return (json_object_is_type(val, json_type_array) && !json_object_array_length(val)) ||
           (json_object_is_type(val, json_type_object) && !json_object_object_length(val));
}

static int config_read_refused(const struct config_field *field, struct json_object *val,
                               const char *what, struct err *err)
{
    if (config_is_empty(val))
        return 0;
    if (field->harmless && !strcmp(json_object_get_string(val), field->harmless))
        return 0;
    return config_refuse(field, what, err);
}

static int config_read_name(const struct config_field *field, struct json_object *val, void *dst,
                            const char *what, struct err *err)
{
    const struct config_name *names = field->aux;
    const char *list[16] = {0};
    int rc;

    for (unsigned i = 0; i < ARRAY_LEN(list) - 1 && names[i].json; i++)
        list[i] = names[i].json;
    rc = json_value_name(val, what, list, err);
    if (rc < 0)
        return rc;
    *(int *)config_member(dst, field->off) = names[rc].value;
    return 0;
}

static int config_read_element(const struct config_field *field, struct json_object *val, void *dst,
                               const char *what, struct err *err)
{
    const char *text = NULL;
    void *obj = NULL;
    int rc;

    if (field->kind == CONFIG_FDS) {
        /* A number in a body names nothing here: the descriptor itself comes another way. */
        if (!json_object_is_type(val, json_type_int))
            return err_set(err, -EINVAL, "%s: must be an integer", what);
        return config_append_fd(field, dst, what, -1, err);
    }
    if (field->kind == CONFIG_STRINGS) {
        rc = json_value_string(val, what, VM_CONFIG_STRING_MAX, &text, err);
        return rc ? rc : config_append_string(field, dst, what, text, err);
    }
    rc = config_append_object(field, dst, what, &obj, err);
    return rc ? rc : config_read_object(field->aux, val, obj, what, err);
}

static int config_read_array(const struct config_field *field, struct json_object *val, void *dst,
                             const char *what, struct err *err)
{
    char path[CONFIG_PATH_MAX];
    size_t n;
    int rc = 0;

    if (!json_object_is_type(val, json_type_array))
        return err_set(err, -EINVAL, "%s: must be an array", what);
    n = json_object_array_length(val);
    if (n > field->max)
        return err_set(err, -E2BIG, "%s: more than %u", what, (unsigned)field->max);
    for (size_t i = 0; i < n && !rc; i++) {
        (void)snprintf(path, sizeof(path), "%s[%zu]", what, i);
        rc = config_read_element(field, json_object_array_get_idx(val, i), dst, path, err);
    }
    return rc;
}

static int config_read_field(const struct config_field *field, struct json_object *val, void *dst,
                             const char *what, struct err *err)
{
    const char *text = NULL;
    uint64_t v = 0;
    bool b = false;
    int rc;

    switch (field->kind) {
    case CONFIG_BOOL:
    case CONFIG_NOT:
        rc = json_value_bool(val, what, &b, err);
        if (!rc)
            *(bool *)config_member(dst, field->off) = b != (field->kind == CONFIG_NOT);
        return rc;
    case CONFIG_U8:
    case CONFIG_U16:
    case CONFIG_U32:
    case CONFIG_SIZE:
        rc = json_value_u64(val, what, field->min, field->max, &v, err);
        if (!rc)
            config_store_u64(field, dst, v);
        return rc;
    case CONFIG_STRING:
    case CONFIG_UUID:
    case CONFIG_MAC:
        rc = json_value_string(val, what, VM_CONFIG_STRING_MAX, &text, err);
        return rc ? rc : config_store_text(field, dst, what, text, err);
    case CONFIG_NAME:
        return config_read_name(field, val, dst, what, err);
    case CONFIG_STRINGS:
    case CONFIG_FDS:
    case CONFIG_OBJECTS:
        return config_read_array(field, val, dst, what, err);
    case CONFIG_OBJECT:
        return config_read_object(field->aux, val, config_member(dst, field->off), what, err);
    case CONFIG_FLAGS:
        return config_read_object(field->aux, val, dst, what, err);
    case CONFIG_REFUSED:
        return config_read_refused(field, val, what, err);
    case CONFIG_FLAG:
        break;
    }
    return -EINVAL;
}

static const struct config_field *config_find_json(const struct config_table *table,
                                                   const char *key)
{
    for (unsigned i = 0; i < table->nr_fields; i++)
        if (table->fields[i].json && !strcmp(table->fields[i].json, key))
            return &table->fields[i];
    return NULL;
}

/* @where: path of the object, "" for the whole. */
static int config_read_object(const struct config_table *table, struct json_object *val, void *dst,
                              const char *where, struct err *err)
{
    char path[CONFIG_PATH_MAX];
    int rc;

    if (!json_object_is_type(val, json_type_object))
        return err_set(err, -EINVAL, "%s: must be an object", *where ? where : "configuration");
    json_object_object_foreach(val, key, member)
    {
        const struct config_field *field = config_find_json(table, key);

        (void)snprintf(path, sizeof(path), "%s%s%.48s", where, *where ? "." : "", key);
        if (!field)
            return err_set(err, -EINVAL, "%s: unknown field", path);
        if (!member)
            continue;
        rc = config_read_field(field, member, dst, path, err);
        if (rc)
            return rc;
    }
    return 0;
}

int config_object_from_json(const struct config_table *table, struct json_object *val, void *dst,
                            struct err *err)
{
    return config_read_object(table, val, dst, "", err);
}

int vm_config_from_json(struct json_object *obj, struct vm_config *ret_cfg, struct err *err)
{
    struct vm_config cfg = {0};
    int rc = config_read_object(&vm_config_table, obj, &cfg, "", err);

    if (rc) {
        vm_config_release(&cfg);
        return rc;
    }
    *ret_cfg = cfg;
    return 0;
}

/* ---- to JSON --------------------------------------------------------------- */

/* Each returns NULL only where memory ran out; *ret_skip where there is nothing to write. */

static struct json_object *config_write_array(const struct config_field *field, const void *src,
                                              bool *ret_skip)
{
    unsigned nr = *(const unsigned *)config_member_const(src, field->off_nr);
    const void *const *xs = config_member_const(src, field->off);
    const struct config_table *table = field->aux;
    struct json_object *arr, *elem = NULL;

    *ret_skip = !nr;
    if (!nr)
        return NULL;
    arr = json_object_new_array_ext((int)nr);
    for (unsigned i = 0; arr && i < nr; i++) {
        if (field->kind == CONFIG_FDS)
            elem = json_object_new_int(-1);
        else if (field->kind == CONFIG_STRINGS)
            elem = json_object_new_string(((char *const *)*xs)[i]);
        else if (config_object_to_json(table, (const char *)*xs + i * table->size, &elem))
            elem = NULL;
        if (!elem || json_object_array_add(arr, elem)) {
            json_object_put(elem);
            json_object_put(arr);
            return NULL;
        }
    }
    return arr;
}

static struct json_object *config_write_name(const struct config_field *field, const void *src,
                                             bool *ret_skip)
{
    int value = *(const int *)config_member_const(src, field->off);

    *ret_skip = (field->flags & CONFIG_EMIT_SET) && !value;
    for (const struct config_name *name = field->aux; name->json && !*ret_skip; name++)
        if (name->value == value)
            return json_object_new_string(name->json);
    *ret_skip = true; /* the default, which has no name */
    return NULL;
}

static struct json_object *config_write_text(const struct config_field *field, const void *src,
                                             bool *ret_skip)
{
    const void *p = config_member_const(src, field->off);
    char mac[3 * MAC_LEN];

    if (field->kind == CONFIG_MAC) {
        *ret_skip = !*(const bool *)config_member_const(src, field->off_nr);
        config_format_mac(p, mac);
        return *ret_skip ? NULL : json_object_new_string(mac);
    }
    *ret_skip = !*(char *const *)p;
    return *ret_skip ? NULL : json_object_new_string(*(char *const *)p);
}

static struct json_object *config_write_object(const struct config_table *table, const void *src,
                                               bool *ret_skip)
{
    struct json_object *obj = NULL;

    if (config_object_to_json(table, src, &obj))
        return NULL;
    *ret_skip = !json_object_object_length(obj);
    if (!*ret_skip)
        return obj;
    json_object_put(obj);
    return NULL;
}

static struct json_object *config_write_field(const struct config_field *field, const void *src,
                                              bool *ret_skip)
{
    bool b;
    uint64_t v;

    switch (field->kind) {
    case CONFIG_BOOL:
    case CONFIG_NOT:
        b = *(const bool *)config_member_const(src, field->off);
        *ret_skip = (field->flags & CONFIG_EMIT_SET) && !b;
        return *ret_skip ? NULL : json_object_new_boolean(b != (field->kind == CONFIG_NOT));
    case CONFIG_U8:
    case CONFIG_U16:
    case CONFIG_U32:
    case CONFIG_SIZE:
        v = config_load_u64(field, src);
        *ret_skip = !v && !(field->flags & CONFIG_EMIT_ZERO);
        return *ret_skip ? NULL : json_object_new_uint64(v);
    case CONFIG_STRING:
    case CONFIG_UUID:
    case CONFIG_MAC:
        return config_write_text(field, src, ret_skip);
    case CONFIG_NAME:
        return config_write_name(field, src, ret_skip);
    case CONFIG_STRINGS:
    case CONFIG_FDS:
    case CONFIG_OBJECTS:
        return config_write_array(field, src, ret_skip);
    case CONFIG_OBJECT:
        return config_write_object(field->aux, config_member_const(src, field->off), ret_skip);
    case CONFIG_FLAGS:
        return config_write_object(field->aux, src, ret_skip);
    case CONFIG_FLAG:
    case CONFIG_REFUSED:
        break;
    }
    *ret_skip = true;
    return NULL;
}

int config_object_to_json(const struct config_table *table, const void *src,
                          struct json_object **ret_obj)
{
    struct json_object *obj = json_object_new_object();

    if (!obj)
        return -ENOMEM;
    for (unsigned i = 0; i < table->nr_fields; i++) {
        const struct config_field *field = &table->fields[i];
        struct json_object *val;
        bool skip = false;

        if (!field->json || (field->flags & CONFIG_ALIAS))
            continue;
        val = config_write_field(field, src, &skip);
        if (skip)
            continue;
        if (!val || json_object_object_add(obj, field->json, val)) {
            json_object_put(val);
            json_object_put(obj);
            return -ENOMEM;
        }
    }
    *ret_obj = obj;
    return 0;
}

int vm_config_to_json(const struct vm_config *cfg, struct json_object **ret_obj)
{
    return config_object_to_json(&vm_config_table, cfg, ret_obj);
}

/* ---- text ------------------------------------------------------------------ */

int vm_config_from_text(const char *text, size_t len, struct vm_config *ret_cfg, struct err *err)
{
    struct json_object *obj = NULL;
    struct vm_config cfg = {0};
    int rc = json_parse(text, len, &obj, err);

    if (rc)
        return rc;
    rc = vm_config_from_json(obj, &cfg, err);
    json_object_put(obj);
    if (!rc)
        rc = vm_config_complete(&cfg, err);
    if (rc) {
        vm_config_release(&cfg);
        return rc;
    }
    *ret_cfg = cfg;
    return 0;
}

int vm_config_to_text(const struct vm_config *cfg, char **ret_text, size_t *ret_len)
{
    struct json_object *obj = NULL;
    int rc = vm_config_to_json(cfg, &obj);

    if (rc)
        return rc;
    rc = json_print(obj, ret_text, ret_len);
    json_object_put(obj);
    return rc;
}
