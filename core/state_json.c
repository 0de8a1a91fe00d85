/* SPDX-License-Identifier: Apache-2.0 */
/* Sections as JSON, for people and scripts: any table, known or not. */
#include <errno.h>
#include <json_object.h>
#include <string.h>

#include "core/dcbor.h"
#include "core/state.h"

enum {
    /* state_section_next() has checked the depth; this only stops a mistake of ours. */
    JSON_DEPTH = 64,
};

static int to_json(struct dcbor_in *in, unsigned depth, struct json_object **ret);

static struct json_object *hex_json(const uint8_t *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    struct json_object *json;
    char *hex = malloc(2 * len + 1);

    if (!hex)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        hex[2 * i] = digits[data[i] >> 4];
        hex[2 * i + 1] = digits[data[i] & 15];
    }
    hex[2 * len] = 0;
    json = json_object_new_string_len(hex, (int)(2 * len));
    free(hex);
    return json;
}

static int array_json(struct dcbor_in *in, uint64_t n, unsigned depth, struct json_object *array)
{
    for (uint64_t i = 0; i < n; i++) {
        struct json_object *json;
        int rc = to_json(in, depth, &json);

        if (rc < 0)
            return rc;
        if (json_object_array_add(array, json) < 0) {
            (void)json_object_put(json);
            return -ENOMEM;
        }
    }
    return 0;
}

static int map_json(struct dcbor_in *in, uint64_t n, unsigned depth, struct json_object *object)
{
    struct dcbor_map map = {.left = n};
    int rc;

    while ((rc = dcbor_map_next(in, &map)) > 0) {
        struct json_object *json;

        rc = to_json(in, depth, &json);
        if (rc < 0)
            return rc;
        if (json_object_object_add(object, map.key, json) < 0) {
            (void)json_object_put(json);
            return -ENOMEM;
        }
    }
    return rc;
}

static struct json_object *item_json(const struct dcbor_item *item)
{
    switch (item->type) {
    case DCBOR_UINT:
        return json_object_new_uint64(item->val);
    case DCBOR_NINT:
        return json_object_new_int64((int64_t)~item->val);
    case DCBOR_BYTES:
        return hex_json(item->data, item->val);
    case DCBOR_TEXT:
        return json_object_new_string_len((const char *)item->data, (int)item->val);
    case DCBOR_ARRAY:
        return json_object_new_array();
    case DCBOR_MAP:
        return json_object_new_object();
    case DCBOR_BOOL:
        return json_object_new_boolean(item->val != 0);
    }
    return NULL;
}

static int to_json(struct dcbor_in *in, unsigned depth, struct json_object **ret)
{
    struct json_object *json;
    struct dcbor_item item;
    int rc = dcbor_next(in, &item);

    if (rc < 0)
        return rc;
    if (!depth)
        return -EBADMSG;
    json = item_json(&item);
    if (!json)
        return -ENOMEM;
    if (item.type == DCBOR_ARRAY)
        rc = array_json(in, item.val, depth - 1, json);
    else if (item.type == DCBOR_MAP)
        rc = map_json(in, item.val, depth - 1, json);
    if (rc < 0) {
        (void)json_object_put(json);
        return rc;
    }
    *ret = json;
    return 0;
}

static int section_json(const struct state_section *sec, struct json_object *array, struct err *err)
{
    struct dcbor_in in = {.p = sec->data, .left = sec->len};
    int rc = array_json(&in, 1, JSON_DEPTH, array);

    if (rc < 0)
        return err_set(err, rc, "%s: %s", sec->id, rc == -ENOMEM ? "out of memory" : in.why);
    return 0;
}

int state_to_json(const uint8_t *data, size_t len, struct json_object **ret_json, struct err *err)
{
    struct json_object *array = json_object_new_array();
    struct state_section sec;
    unsigned nr = 0;
    int rc;

    if (!array)
        return err_set(err, -ENOMEM, "out of memory");
    while ((rc = state_section_next(&data, &len, &sec, err)) > 0) {
        if (++nr > STATE_SECTIONS_MAX)
            rc = err_set(err, -E2BIG, "%s: over %d sections", sec.id, STATE_SECTIONS_MAX);
        else
            rc = section_json(&sec, array, err);
        if (rc < 0)
            break;
    }
    if (rc < 0) {
        (void)json_object_put(array);
        return rc;
    }
    *ret_json = array;
    return 0;
}
