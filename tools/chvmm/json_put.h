/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members for the answers of the API.  Where memory runs out the member is missing.
 */
#ifndef TOOLS_CHVMM_JSON_PUT_H
#define TOOLS_CHVMM_JSON_PUT_H

#include <stdint.h>

#include <json-c/json.h>

static inline void json_put_u64(struct json_object *o, const char *key, uint64_t v)
{
    (void)json_object_object_add(o, key, json_object_new_uint64(v));
}

static inline void json_put_text(struct json_object *o, const char *key, const char *text)
{
    (void)json_object_object_add(o, key, json_object_new_string(text));
}

#endif
