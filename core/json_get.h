/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON from outside: a strict parser and typed getters over json-c.
 *
 * json-c alone turns "5" and true into numbers, -1 into 0, too large numbers
 * into the largest, keeps the last of two equal keys, and takes NUL inside a
 * string; here each of these is refused by name.
 *
 * `what` is the path of the value in messages ("disks[1].queue_size").
 */
#ifndef CORE_JSON_GET_H
#define CORE_JSON_GET_H

#include <json-c/json_types.h>

#include "core/err.h"

enum json_limits {
    JSON_TEXT_MAX = 4 << 20, /* bytes: of a text, of an API body */
    JSON_DEPTH_MAX = 32,
};

/**
 * json_parse() - parse one JSON value that fills the whole text.
 * @text: @len bytes, any content.
 *
 * Return: 0 and *@ret_obj, owned, to be given to json_object_put() (NULL for
 * the text "null"); -EINVAL with @err naming the place; -E2BIG over
 * JSON_TEXT_MAX; -ENOMEM.
 * Threads: any.
 */
CHECKED int json_parse(const char *text, size_t len, struct json_object **ret_obj, struct err *err);

/**
 * json_print() - compact text of a value.
 *
 * Return: 0, *@ret_text, owned, NUL-terminated, and its length; -ENOMEM.
 * Threads: any.
 */
CHECKED int json_print(struct json_object *obj, char **ret_text, size_t *ret_len);

/**
 * json_value_u64() - an integer in [@min, @max], with @max below UINT64_MAX.
 * @val: borrowed; any type, NULL is JSON's null.
 *
 * Return: 0 and *@ret_v; -EINVAL with @err naming @what.
 * Threads: any.
 */
CHECKED int json_value_u64(struct json_object *val, const char *what, uint64_t min, uint64_t max,
                           uint64_t *ret_v, struct err *err);

/**
 * json_value_bool() - true or false.
 *
 * Return: 0 and *@ret_v; -EINVAL with @err naming @what.
 * Threads: any.
 */
CHECKED int json_value_bool(struct json_object *val, const char *what, bool *ret_v,
                            struct err *err);

/**
 * json_value_string() - a string of at most @max bytes, UTF-8 without NUL.
 *
 * Return: 0 and *@ret_v, borrowed from @val; -EINVAL or -E2BIG with @err naming @what.
 * Threads: any.
 */
CHECKED int json_value_string(struct json_object *val, const char *what, size_t max,
                              const char **ret_v, struct err *err);

/**
 * json_value_name() - one of several strings.
 * @names: ends with NULL.
 *
 * Return: its index in @names; -EINVAL with @err naming @what and the choices.
 * Threads: any.
 */
CHECKED int json_value_name(struct json_object *val, const char *what, const char *const names[],
                            struct err *err);

/*
 * Members of an object.  Each returns 1 if it is there, 0 if it is absent or
 * null (*ret_v is unchanged and keeps its default), or what json_value_*() did.
 */

/**
 * json_get_u64() - a member that is an integer; see json_value_u64().
 *
 * Return: 1; 0; -EINVAL.
 * Threads: any.
 */
CHECKED int json_get_u64(struct json_object *obj, const char *key, uint64_t min, uint64_t max,
                         uint64_t *ret_v, struct err *err);

/**
 * json_get_string() - a member that is a string; see json_value_string().
 *
 * Return: 1 and *@ret_v, borrowed from @obj; 0; -EINVAL; -E2BIG.
 * Threads: any.
 */
CHECKED int json_get_string(struct json_object *obj, const char *key, size_t max,
                            const char **ret_v, struct err *err);

#endif
