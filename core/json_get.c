/* SPDX-License-Identifier: Apache-2.0 */
#include "core/json_get.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/utf8.h"

/* ---- text ------------------------------------------------------------------ */

/*
 * Members written in a text, if it is JSON: one colon outside strings for each.
 * What json-c takes although it is not JSON ('keys', NaN, Infinity) is refused
 * here: -1 and *ret_off, the byte.
 */
static ssize_t json_text_members(const char *text, size_t len, size_t *ret_off)
{
    bool quoted = false;
    ssize_t n = 0;

    for (size_t i = 0; i < len; i++) {
        *ret_off = i;
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && text[i] == ':')
            n++;
        else if (!quoted && (!text[i] || strchr("'/NI", text[i])))
            return -1;
    }
    return n;
}

static ssize_t json_tree_members(struct json_object *obj);

static ssize_t json_object_members(struct json_object *obj)
{
    ssize_t n = 0;

    json_object_object_foreach(obj, key, val)
    {
        (void)key;
        n += 1 + json_tree_members(val);
    }
    return n;
}

/* Members of a tree; the parser bounded its depth.  Fewer than were written: a key came twice. */
static ssize_t json_tree_members(struct json_object *obj)
{
    ssize_t n = 0;

    if (json_object_is_type(obj, json_type_object))
        return json_object_members(obj);
    if (json_object_is_type(obj, json_type_array))
        for (size_t i = 0; i < json_object_array_length(obj); i++)
            n += json_tree_members(json_object_array_get_idx(obj, i));
    return n;
}

static bool json_is_blank(const char *s, size_t len)
{
    while (len && (*s == ' ' || *s == '\t' || *s == '\r' || *s == '\n')) {
        s++;
        len--;
    }
    return !len;
}

static int json_tokenize(struct json_tokener *tok, const char *text, size_t len,
                         struct json_object **ret_obj, struct err *err)
{
    struct json_object *obj;
    enum json_tokener_error rc;
    size_t end;

    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    obj = json_tokener_parse_ex(tok, text, (int)len);
    rc = json_tokener_get_error(tok);
    end = json_tokener_get_parse_end(tok);
    if (rc == json_tokener_continue) {
        /* A number may end with the text: a NUL says that nothing follows. */
        obj = json_tokener_parse_ex(tok, "", 1);
        rc = json_tokener_get_error(tok);
        end = len;
    }
    if (rc == json_tokener_continue)
        return err_set(err, -EINVAL, "JSON ends too early");
    if (rc != json_tokener_success)
        return err_set(err, -EINVAL, "JSON at byte %zu: %s", end, json_tokener_error_desc(rc));
    if (!json_is_blank(text + end, len - end)) {
        json_object_put(obj);
        return err_set(err, -EINVAL, "JSON at byte %zu: more text after the value", end);
    }
    *ret_obj = obj;
    return 0;
}

int json_parse(const char *text, size_t len, struct json_object **ret_obj, struct err *err)
{
    struct json_object *obj = NULL;
    struct json_tokener *tok;
    ssize_t members;
    size_t off = 0;
    int rc;

    if (len > JSON_TEXT_MAX)
        return err_set(err, -E2BIG, "JSON: more than %d bytes", JSON_TEXT_MAX);
    if (json_is_blank(text, len))
        return err_set(err, -EINVAL, "JSON: nothing there");
    if (memchr(text, 0, len))
        return err_set(err, -EINVAL, "JSON: a NUL byte in the text");
    members = json_text_members(text, len, &off);
    if (members < 0)
        return err_set(err, -EINVAL, "JSON at byte %zu: unexpected character", off);
    tok = json_tokener_new_ex(JSON_DEPTH_MAX);
    if (!tok)
        return err_set(err, -ENOMEM, "JSON: out of memory");
    rc = json_tokenize(tok, text, len, &obj, err);
    json_tokener_free(tok);
    if (rc)
        return rc;
    if (json_tree_members(obj) != members) {
        json_object_put(obj);
        return err_set(err, -EINVAL, "JSON: a key is there twice in one object");
    }
    *ret_obj = obj;
    return 0;
}

int json_print(struct json_object *obj, char **ret_text, size_t *ret_len)
{
    size_t len = 0;
    const char *s = json_object_to_json_string_length(
        obj, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
    char *copy;

    if (!s)
        return -ENOMEM;
    copy = malloc(len + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, s, len);
    copy[len] = 0;
    *ret_text = copy;
    *ret_len = len;
    return 0;
}

/* ---- values ---------------------------------------------------------------- */

int json_value_u64(struct json_object *val, const char *what, uint64_t min, uint64_t max,
                   uint64_t *ret_v, struct err *err)
{
    uint64_t v;

    if (!json_object_is_type(val, json_type_int))
        return err_set(err, -EINVAL, "%s: must be an integer", what);
    /* json-c reads negative numbers as 0, and too large ones as UINT64_MAX, above any max. */
    v = json_object_get_uint64(val);
    if ((!v && json_object_get_int64(val) < 0) || v < min || v > max)
        return err_set(err, -EINVAL, "%s: %s is not in %" PRIu64 "..%" PRIu64, what,
                       json_object_get_string(val), min, max);
    *ret_v = v;
    return 0;
}

int json_value_bool(struct json_object *val, const char *what, bool *ret_v, struct err *err)
{
    if (!json_object_is_type(val, json_type_boolean))
        return err_set(err, -EINVAL, "%s: must be true or false", what);
    *ret_v = json_object_get_boolean(val);
    return 0;
}

int json_value_string(struct json_object *val, const char *what, size_t max, const char **ret_v,
                      struct err *err)
{
    const char *s;
    size_t len;

    if (!json_object_is_type(val, json_type_string))
        return err_set(err, -EINVAL, "%s: must be a string", what);
    s = json_object_get_string(val);
    len = (size_t)json_object_get_string_len(val);
    if (len > max)
        return err_set(err, -E2BIG, "%s: longer than %zu bytes", what, max);
    if (!utf8_ok(s, len))
        return err_set(err, -EINVAL, "%s: not UTF-8, or has a NUL in it", what);
    *ret_v = s;
    return 0;
}

static int json_name_refused(const char *what, const char *const names[], struct err *err)
{
    char list[ERR_MSG_SIZE / 2];
    size_t n = 0;

    list[0] = 0;
    for (unsigned i = 0; names[i] && n < sizeof(list); i++)
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "", names[i]);
    return err_set(err, -EINVAL, "%s: must be one of %s", what, list);
}

int json_value_name(struct json_object *val, const char *what, const char *const names[],
                    struct err *err)
{
    const char *s = "";
    int rc = json_value_string(val, what, JSON_TEXT_MAX, &s, err);

    if (rc)
        return rc;
    for (int i = 0; names[i]; i++)
        if (!strcmp(s, names[i]))
            return i;
    return json_name_refused(what, names, err);
}

/* ---- members --------------------------------------------------------------- */

/* NULL where the member is absent or null. */
static struct json_object *json_member(struct json_object *obj, const char *key)
{
    struct json_object *val = NULL;

    if (!json_object_is_type(obj, json_type_object) || !json_object_object_get_ex(obj, key, &val))
        return NULL;
    return val;
}

int json_get_u64(struct json_object *obj, const char *key, uint64_t min, uint64_t max,
                 uint64_t *ret_v, struct err *err)
{
    struct json_object *val = json_member(obj, key);
    int rc = val ? json_value_u64(val, key, min, max, ret_v, err) : 0;

    return rc < 0 ? rc : !!val;
}

int json_get_string(struct json_object *obj, const char *key, size_t max, const char **ret_v,
                    struct err *err)
{
    struct json_object *val = json_member(obj, key);
    int rc = val ? json_value_string(val, key, max, ret_v, err) : 0;

    return rc < 0 ? rc : !!val;
}
