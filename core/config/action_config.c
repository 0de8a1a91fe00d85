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
#define SIZE(key, s, m) \
    {.json = key, .opt = key, .kind = CONFIG_SIZE, .off = offsetof(struct s, m), .max = INT64_MAX}
#define NAME(key, s, m, names) \
    {.json = key, .opt = key, .kind = CONFIG_NAME, .off = offsetof(struct s, m), .aux = names}
#define NET_FDS(s)                                                                        \
    {.json = "net_fds", .opt = "net_fds", .kind = CONFIG_OBJECTS,                         \
     .off = offsetof(struct s, net_fds), .off_nr = offsetof(struct s, nr_net_fds),        \
     .max = VM_CONFIG_NETS_MAX, .aux = &net_fds_table}
#define NAME_SET(key, s, m, names) \
    {.json = key, .opt = key, .kind = CONFIG_NAME, .off = offsetof(struct s, m), .aux = names, \
     .flags = CONFIG_EMIT_SET}
#define REFUSED(key, h) {.json = key, .opt = key, .kind = CONFIG_REFUSED, .harmless = h}
#define TABLE(s, rows)  {.size = sizeof(struct s), .fields = rows, .nr_fields = ARRAY_LEN(rows)}

static const struct config_name snapshot_mode_names[] = {
    {"Auto",   "auto",   SNAPSHOT_AUTO},
    {"Moment", "moment", SNAPSHOT_MOMENT},
    {"Rounds", "rounds", SNAPSHOT_ROUNDS},
    {0},
};

static const struct config_name restore_mode_names[] = {
    {"Auto",     "auto",     MEMORY_RESTORE_AUTO},
    {"Copy",     "copy",     MEMORY_RESTORE_COPY},
    {"OnDemand", "ondemand", MEMORY_RESTORE_ON_DEMAND},
    {"Mapped",   "mapped",   MEMORY_RESTORE_MAPPED},
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

static const struct config_name compression_names[] = {
    {"Auto", "auto", MIGRATION_COMPRESSION_AUTO},
    {"Off",  "off",  MIGRATION_COMPRESSION_OFF},
    {"Zstd", "zstd", MIGRATION_COMPRESSION_ZSTD},
    {0},
};

static const struct config_name failure_names[] = {
    {"Stay", "stay", MIGRATION_FAILURE_STAY},
    {"Exit", "exit", MIGRATION_FAILURE_EXIT},
    {0},
};

static const struct config_field snapshot_fields[] = {
    TEXT("destination_url", snapshot_config, destination_url),
    NAME("mode",            snapshot_config, mode, snapshot_mode_names),
    BOOL("track",           snapshot_config, track),
};

static const struct config_field net_fds_fields[] = {
    {.json = "id", .opt = "id", .kind = CONFIG_STRING, .off = offsetof(struct net_fds_config, id),
     .max = VM_CONFIG_ID_MAX},
    NUMBER("num_fds", net_fds_config, num_fds, VM_CONFIG_NET_FDS_MAX),
    {.json = "fds", .opt = "fds", .kind = CONFIG_FDS, .off = offsetof(struct net_fds_config, fds),
     .off_nr = offsetof(struct net_fds_config, nr_fds), .max = VM_CONFIG_NET_FDS_MAX},
};
static const struct config_table net_fds_table = TABLE(net_fds_config, net_fds_fields);

static const struct config_field restore_fields[] = {
    TEXT("source_url",          restore_config, source_url),
    BOOL("prefault",            restore_config, prefault),
    BOOL("resume",              restore_config, resume),
    OURS("clone",               restore_config, clone),
    OURS("accept_tsc",          restore_config, accept_tsc),
    OURS("changed_disks",       restore_config, changed_disks),
    {.json = "set", .opt = "set", .kind = CONFIG_STRINGS,
     .off = offsetof(struct restore_config, sets), .off_nr = offsetof(struct restore_config, nr_sets),
     .max = RESTORE_SETS_MAX},
    NAME("memory_restore_mode", restore_config, memory_restore_mode, restore_mode_names),
    NET_FDS(restore_config),
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
    SIZE("bandwidth",        send_migration_config, bandwidth),
    NAME_SET("compression",  send_migration_config, compression, compression_names),
    TEXT("tls_dir",          send_migration_config, tls_dir),
    OURS("insecure",         send_migration_config, insecure),
    NAME("memory_mode",      send_migration_config, memory_mode, memory_mode_names),
};

static const struct config_field receive_fields[] = {
    TEXT("receiver_url", receive_migration_config, receiver_url),
    TEXT("tls_dir",      receive_migration_config, tls_dir),
    OURS("insecure",     receive_migration_config, insecure),
    OURS("accept_tsc",   receive_migration_config, accept_tsc),
    SIZE("memory_size",  receive_migration_config, memory_size),
    NAME_SET("failure_strategy", receive_migration_config, failure_strategy, failure_names),
    NAME("memory_mode",  receive_migration_config, memory_mode, memory_mode_names),
    NET_FDS(receive_migration_config),
    REFUSED("vfio_fds",     NULL),
    REFUSED("iommufd_fd",   NULL),
    REFUSED("zone_updates", NULL),
};

static const struct config_field resolve_fields[] = {
    TEXT("statement", resolve_config, statement),
    TEXT("lost",      resolve_config, lost),
    TEXT("migration", resolve_config, migration),
};

static const struct config_table action_tables[] = {
    [ACTION_SNAPSHOT]          = TABLE(snapshot_config,          snapshot_fields),
    [ACTION_RESTORE]           = TABLE(restore_config,           restore_fields),
    [ACTION_SEND_MIGRATION]    = TABLE(send_migration_config,    send_fields),
    [ACTION_RECEIVE_MIGRATION] = TABLE(receive_migration_config, receive_fields),
    [ACTION_RESOLVE_MIGRATION] = TABLE(resolve_config,           resolve_fields),
};

/* clang-format on */

/* ---- checks and defaults --------------------------------------------------- */

static int action_check_url(const char *key, const char *url, struct err *err)
{
    return url && *url ? 0 : err_set(err, -EINVAL, "%s: is missing", key);
}

/* As many descriptors as are announced; from the command line they announce themselves. */
static int action_complete_net(struct net_fds_config *x, unsigned i, struct err *err)
{
    int rc = 0;

    if (!x->num_fds)
        x->num_fds = x->nr_fds;
    if (!x->num_fds)
        return err_set(err, -EINVAL, "net_fds[%u].num_fds: is missing", i);
    if (x->nr_fds && x->nr_fds != x->num_fds) {
        return err_set(err, -EINVAL, "net_fds[%u].num_fds: %u, but there are %u fds", i, x->num_fds,
                       x->nr_fds);
    }
    while (!rc && x->nr_fds < x->num_fds)
        rc = config_append_fd(&net_fds_fields[2], x, "net_fds", -1, err);
    return rc;
}

static int action_complete_net_fds(struct net_fds_config *xs, unsigned nr, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < nr && !rc; i++) {
        if (!xs[i].id || !*xs[i].id)
            return err_set(err, -EINVAL, "net_fds[%u].id: is missing", i);
        for (unsigned j = 0; j < i; j++)
            if (!strcmp(xs[j].id, xs[i].id))
                return err_set(err, -EINVAL, "net_fds[%u].id: %s is there twice", i, xs[i].id);
        rc = action_complete_net(&xs[i], i, err);
    }
    return rc;
}

static int action_complete_restore(struct restore_config *cfg, struct err *err)
{
    int rc = action_complete_net_fds(cfg->net_fds, cfg->nr_net_fds, err);

    if (rc)
        return rc;
    if (cfg->prefault && cfg->memory_restore_mode == MEMORY_RESTORE_ON_DEMAND)
        return err_set(err, -EINVAL, "prefault: not possible with memory_restore_mode ondemand");
    if (cfg->prefault && cfg->memory_restore_mode == MEMORY_RESTORE_MAPPED)
        return err_set(err, -EINVAL, "prefault: not possible with memory_restore_mode mapped");
    return action_check_url("source_url", cfg->source_url, err);
}

static bool action_is_unix(const char *url)
{
    return strncmp(url, "unix:", 5) == 0;
}

/* A path is no name that a certificate could bear, and its mode says who may connect. */
static int action_check_transport(const char *key, const char *url, const char *tls_dir,
                                  struct err *err)
{
    int rc = action_check_url(key, url, err);

    if (!rc && tls_dir && action_is_unix(url))
        return err_set(err, -EINVAL, "tls_dir: not possible with a unix: %s", key);
    return rc;
}

static int action_complete_send(struct send_migration_config *cfg, struct err *err)
{
    int rc = action_check_transport("destination_url", cfg->destination_url, cfg->tls_dir, err);

    if (rc)
        return rc;
    if (cfg->local && !action_is_unix(cfg->destination_url))
        return err_set(err, -EINVAL, "local: possible with a unix: destination_url only");
    if (!cfg->downtime_ms)
        cfg->downtime_ms = MIGRATION_DOWNTIME_MS_DEFAULT;
    if (!cfg->timeout_s)
        cfg->timeout_s = MIGRATION_TIMEOUT_S_DEFAULT;
    if (cfg->bandwidth && cfg->bandwidth < MIGRATION_BANDWIDTH_MIN)
        return err_set(err, -EINVAL, "bandwidth: at least %d bytes a second are needed",
                       MIGRATION_BANDWIDTH_MIN);
    return 0;
}

static int action_complete_receive(struct receive_migration_config *cfg, struct err *err)
{
    int rc = action_complete_net_fds(cfg->net_fds, cfg->nr_net_fds, err);

    if (!rc && cfg->memory_size % PAGE_SIZE_4K)
        return err_set(err, -EINVAL, "memory_size: not a multiple of %zu", PAGE_SIZE_4K);
    if (!rc)
        rc = action_check_transport("receiver_url", cfg->receiver_url, cfg->tls_dir, err);
    return rc;
}

static int action_complete_resolve(const struct resolve_config *cfg, struct err *err)
{
    if (!!cfg->statement + !!cfg->lost + !!cfg->migration > 1)
        return err_set(err, -EINVAL, "statement, lost and migration: only one of them can be");
    return 0;
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
    if (kind == ACTION_RESOLVE_MIGRATION)
        return action_complete_resolve(cfg, err);
    return action_complete_receive(cfg, err);
}

/* ---- file descriptors ------------------------------------------------------ */

static struct net_config *net_by_id(struct vm_config *cfg, const char *id)
{
    for (unsigned i = 0; i < cfg->nr_nets; i++)
        if (!strcmp(cfg->nets[i].id, id))
            return &cfg->nets[i];
    return NULL;
}

static int net_fds_check(const struct net_fds_config *xs, unsigned nr, struct vm_config *cfg,
                         struct err *err)
{
    for (unsigned i = 0; i < nr; i++) {
        const struct net_config *net = net_by_id(cfg, xs[i].id);

        if (!net)
            return err_set(err, -EINVAL, "net_fds: %s: the VM has no such network", xs[i].id);
        if (net->nr_fds != xs[i].nr_fds)
            return err_set(err, -EINVAL, "net_fds: %s: %u descriptors, the network has %u",
                           xs[i].id, xs[i].nr_fds, net->nr_fds);
    }
    for (unsigned i = 0; i < cfg->nr_nets; i++) {
        bool named = false;

        for (unsigned j = 0; j < nr && !named; j++)
            named = !strcmp(xs[j].id, cfg->nets[i].id);
        if (cfg->nets[i].nr_fds && !named) {
            return err_set(err, -EINVAL,
                           "net_fds: network %s was made with file descriptors and needs %u here",
                           cfg->nets[i].id, cfg->nets[i].nr_fds);
        }
    }
    return 0;
}

int net_fds_give(struct net_fds_config *xs, unsigned nr, struct vm_config *cfg, struct err *err)
{
    int rc = net_fds_check(xs, nr, cfg, err);

    for (unsigned i = 0; !rc && i < nr; i++) {
        struct net_config *net = net_by_id(cfg, xs[i].id);

        for (unsigned j = 0; net && j < net->nr_fds; j++) {
            net->fds[j] = xs[i].fds[j];
            xs[i].fds[j] = -1;
        }
    }
    return rc;
}

void net_fds_free(struct net_fds_config *xs, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        for (unsigned j = 0; j < xs[i].nr_fds; j++)
            if (xs[i].fds[j] >= 0)
                (void)close(xs[i].fds[j]);
        config_release_object(&net_fds_table, &xs[i]);
    }
    free(xs);
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
