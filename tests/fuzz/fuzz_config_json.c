/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the body of vm.create and of the other actions.  Refused:
 * explained.  Accepted: writes itself, reads back and writes the same again,
 * and so does its copy.
 */
#include <json_object.h>
#include <string.h>

#include "core/config/action_config.h"
#include "core/config/vm_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void try_vm(const char *text, size_t len)
{
    struct vm_config cfg = {0}, again = {0}, copy = {0};
    char *first = NULL, *second = NULL, *third = NULL;
    size_t first_len = 0, second_len = 0, third_len = 0;
    struct err err = {0};
    int rc = vm_config_from_text(text, len, &cfg, &err);

    if (rc) {
        must(rc < 0 && err.code && err.msg[0]);
        return;
    }
    must(vm_config_to_text(&cfg, &first, &first_len) == 0);
    must(vm_config_from_text(first, first_len, &again, &err) == 0);
    must(vm_config_to_text(&again, &second, &second_len) == 0);
    must(first_len == second_len && !memcmp(first, second, first_len));
    must(vm_config_copy(&cfg, &copy) == 0);
    must(vm_config_to_text(&copy, &third, &third_len) == 0);
    must(first_len == third_len && !memcmp(first, third, first_len));
    vm_config_release(&cfg);
    vm_config_release(&again);
    vm_config_release(&copy);
    free(first);
    free(second);
    free(third);
}

static void try_action(enum action_kind kind, const char *text, size_t len)
{
    /* Room for any of the structs. */
    union {
        struct snapshot_config snapshot;
        struct restore_config restore;
        struct send_migration_config send;
        struct receive_migration_config receive;
    } cfg, again;
    struct json_object *obj = NULL, *obj_again = NULL;
    struct err err = {0};
    const char *written;
    int rc = action_config_from_text(kind, text, len, &cfg, &err);

    if (rc) {
        must(rc < 0 && err.code && err.msg[0]);
        return;
    }
    must(action_config_to_json(kind, &cfg, &obj) == 0);
    written = json_object_to_json_string(obj);
    must(action_config_from_text(kind, written, strlen(written), &again, &err) == 0);
    must(action_config_to_json(kind, &again, &obj_again) == 0);
    must(json_object_equal(obj, obj_again));
    (void)json_object_put(obj);
    (void)json_object_put(obj_again);
    action_config_release(kind, &cfg);
    action_config_release(kind, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *text = (const char *)data;

    try_vm(text, len);
    for (int kind = ACTION_SNAPSHOT; kind <= ACTION_RECEIVE_MIGRATION; kind++)
        try_action((enum action_kind)kind, text, len);
    return 0;
}
