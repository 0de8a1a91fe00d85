/* SPDX-License-Identifier: Apache-2.0 */
#include "core/config/action_config.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <string.h>

#include "core/config/config_internal.h"
#include "core/json_get.h"

/* ---- tables ---------------------------------------------------------------- */

/* clang-format off */

#define TEXT(key, s, m) \
    {.json = key, .opt = key, .kind = CONFIG_STRING, .off = offsetof(struct s, m), \
     .max = VM_CONFIG_STRING_MAX}
#define BOOL(key, s, m) \
    {.json = key, .opt = key, .kind = CONFIG_BOOL, .off = offsetof(struct s, m)}
#define OURS(key, s, m) /* Cloud Hypervisor has it not: sent only where it is set */ \
    {.json = key, .opt = key, .kind = CONFIG_BOOL, .off = offsetof(struct s, m),     \
     .flags = CONFIG_EMIT_SET}
#define NUMBER(key, s, m, hi) \
    {.json = key, .opt = key, .kind = CONFIG_U32, .off = offsetof(struct s, m), .min = 1, .max = hi}
#define NAME(key, s, m, names) \
    {.json = key, .opt = key, .kind = CONFIG_NAME, .off = offsetof(struct s, m), .aux = names}
#define REFUSED(key, h) {.json = key, .opt = key, .kind = CONFIG_REFUSED, .harmless = h}
#define TABLE(s, rows)  {.size = sizeof(struct s), .fields = rows, .nr_fields = ARRAY_LEN(rows)}

static const struct config_name restore_mode_names[] = {
    {"Copy",     "copy",     MEMORY_RESTORE_COPY},
    {"OnDemand", "ondemand", MEMORY_RESTORE_ON_DEMAND},
    {0},
};

static const struct config_name timeout_names[] = {
    {"Cancel", "cancel", MIGRATION_TIMEOUT_CANCEL},
    {"Ignore", "ignore", MIGRATION_TIMEOUT_IGNORE},
    {0},
};

static const struct config_name memory_mode_names[] = {
    {"Precopy",  "precopy",  MIGRATION_PRECOPY},
    {"Postcopy", "postcopy", MIGRATION_POSTCOPY},
    {0},
};

static const struct config_field snapshot_fields[] = {
    TEXT("destination_url", snapshot_config, destination_url),
};

static const struct config_field restore_fields[] = {
    TEXT("source_url",          restore_config, source_url),
    BOOL("prefault",            restore_config, prefault),
    BOOL("resume",              restore_config, resume),
    OURS("clone",               restore_config, clone),
    OURS("accept_tsc",          restore_config, accept_tsc),
    NAME("memory_restore_mode", restore_config, memory_restore_mode, restore_mode_names),
    REFUSED("net_fds",      NULL),
    REFUSED("vfio_fds",     NULL),
    REFUSED("iommufd_fd",   NULL),
    REFUSED("zone_updates", NULL),
};

static const struct config_field send_fields[] = {
    TEXT("destination_url",  send_migration_config, destination_url),
    BOOL("local",            send_migration_config, local),
    BOOL("preserve_source",  send_migration_config, preserve_source),
    NUMBER("downtime_ms",    send_migration_config, downtime_ms, UINT32_MAX),
    NUMBER("timeout_s",      send_migration_config, timeout_s,   UINT32_MAX),
    NAME("timeout_strategy", send_migration_config, timeout_strategy, timeout_names),
    NUMBER("connections",    send_migration_config, connections, MIGRATION_CONNECTIONS_MAX),
    TEXT("tls_dir",          send_migration_config, tls_dir),
    OURS("insecure",         send_migration_config, insecure),
    NAME("memory_mode",      send_migration_config, memory_mode, memory_mode_names),
};

static const struct config_field receive_fields[] = {
    TEXT("receiver_url", receive_migration_config, receiver_url),
    TEXT("tls_dir",      receive_migration_config, tls_dir),
    OURS("insecure",     receive_migration_config, insecure),
    OURS("accept_tsc",   receive_migration_config, accept_tsc),
    NAME("memory_mode",  receive_migration_config, memory_mode, memory_mode_names),
    REFUSED("vfio_fds",     NULL),
    REFUSED("iommufd_fd",   NULL),
    REFUSED("zone_updates", NULL),
};

static const struct config_table action_tables[] = {
    [ACTION_SNAPSHOT]          = TABLE(snapshot_config,          snapshot_fields),
    [ACTION_RESTORE]           = TABLE(restore_config,           restore_fields),
    [ACTION_SEND_MIGRATION]    = TABLE(send_migration_config,    send_fields),
    [ACTION_RECEIVE_MIGRATION] = TABLE(receive_migration_config, receive_fields),
};

/* clang-format on */

/* ---- checks and defaults --------------------------------------------------- */

static int action_check_url(const char *key, const char *url, struct err *err)
{
    return url && *url ? 0 : err_set(err, -EINVAL, "%s: is missing", key);
}

static int action_complete_restore(const struct restore_config *cfg, struct err *err)
{
    if (cfg->prefault && cfg->memory_restore_mode == MEMORY_RESTORE_ON_DEMAND)
        return err_set(err, -EINVAL, "prefault: not possible with memory_restore_mode ondemand");
    return action_check_url("source_url", cfg->source_url, err);
}

static int action_complete_send(struct send_migration_config *cfg, struct err *err)
{
    if (!cfg->downtime_ms)
        cfg->downtime_ms = MIGRATION_DOWNTIME_MS_DEFAULT;
    if (!cfg->timeout_s)
        cfg->timeout_s = MIGRATION_TIMEOUT_S_DEFAULT;
    if (!cfg->connections)
        cfg->connections = 1;
    return action_check_url("destination_url", cfg->destination_url, err);
}

static int action_complete(enum action_kind kind, void *cfg, struct err *err)
{
    if (kind == ACTION_SNAPSHOT)
        return action_check_url("destination_url", ((struct snapshot_config *)cfg)->destination_url,
                                err);
    if (kind == ACTION_RESTORE)
        return action_complete_restore(cfg, err);
    if (kind == ACTION_SEND_MIGRATION)
        return action_complete_send(cfg, err);
    return action_check_url("receiver_url", ((struct receive_migration_config *)cfg)->receiver_url,
                            err);
}

/* ---- the interface --------------------------------------------------------- */

int action_config_from_text(enum action_kind kind, const char *text, size_t len, void *ret_cfg,
                            struct err *err)
{
    struct json_object *obj = NULL;
    int rc = json_parse(text, len, &obj, err);

    if (rc)
        return rc;
    memset(ret_cfg, 0, action_tables[kind].size);
    rc = config_object_from_json(&action_tables[kind], obj, ret_cfg, err);
    json_object_put(obj);
    if (!rc)
        rc = action_complete(kind, ret_cfg, err);
    if (rc)
        action_config_release(kind, ret_cfg);
    return rc;
}

int action_config_from_option(enum action_kind kind, const char *option, const char *value,
                              void *ret_cfg, struct err *err)
{
    int rc;

    memset(ret_cfg, 0, action_tables[kind].size);
    rc = config_object_from_option(&action_tables[kind], ret_cfg, option, value, err);
    if (!rc) {
        rc = action_complete(kind, ret_cfg, err);
        if (rc)
            (void)err_prefix(err, rc, "%s", option);
    }
    if (rc)
        action_config_release(kind, ret_cfg);
    return rc;
}

int action_config_to_json(enum action_kind kind, const void *cfg, struct json_object **ret_obj)
{
    return config_object_to_json(&action_tables[kind], cfg, ret_obj);
}

void action_config_release(enum action_kind kind, void *cfg)
{
    config_release_object(&action_tables[kind], cfg);
}
