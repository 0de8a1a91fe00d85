/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the actions on a VM take: snapshot, restore, migration.
 *
 * As for struct vm_config: the same structs from the API's JSON and from the
 * command line, all zero means default, and whoever reads them checks them and puts
 * the defaults in place.  Names are Cloud Hypervisor's.
 */
#ifndef CORE_CONFIG_ACTION_CONFIG_H
#define CORE_CONFIG_ACTION_CONFIG_H

#include "core/err.h"

struct json_object;
struct vm_config;

enum action_limits {
    RESTORE_SETS_MAX = 64,
    MIGRATION_CONNECTIONS_MAX = 128,
    MIGRATION_BANDWIDTH_MIN = 65536, /* bytes a second */
    MIGRATION_DOWNTIME_MS_DEFAULT = 300,
    MIGRATION_TIMEOUT_S_DEFAULT = 3600,
};

enum snapshot_mode {
    SNAPSHOT_AUTO,
    SNAPSHOT_MOMENT, /* memory is protected, the state is that of the moment asked for */
    SNAPSHOT_ROUNDS, /* memory is copied while it changes, the state is that of the end */
};

struct snapshot_config {
    char *destination_url;
    enum snapshot_mode mode; /* Cloud Hypervisor has neither of the two */
    bool track;              /* log what is written until the next snapshot */
};

/* Auto and mapped: Cloud Hypervisor has not. */
enum memory_restore_mode {
    MEMORY_RESTORE_AUTO,
    MEMORY_RESTORE_COPY,
    MEMORY_RESTORE_ON_DEMAND,
    MEMORY_RESTORE_MAPPED,
};

/* Taps for a network that was made with file descriptors. */
struct net_fds_config {
    char *id;         /* of the network */
    uint32_t num_fds; /* complete: the same as nr_fds */
    int *fds;         /* -1: still to be handed over */
    unsigned nr_fds;
};

struct restore_config {
    char *source_url;
    struct net_fds_config *net_fds;
    unsigned nr_net_fds;
    bool prefault;
    bool resume;        /* run at once instead of staying paused */
    bool clone;         /* as another VM: new UUID, MACs, disks; Cloud Hypervisor has not */
    bool accept_tsc;    /* although the TSC goes at another rate here; Cloud Hypervisor has not */
    bool changed_disks; /* although disks were written since; Cloud Hypervisor has not */
    char **sets;        /* "part.member=value": what shall be different; Cloud Hypervisor has not */
    unsigned nr_sets;
    enum memory_restore_mode memory_restore_mode;
};

enum migration_timeout_strategy {
    MIGRATION_TIMEOUT_CANCEL,
    MIGRATION_TIMEOUT_IGNORE, /* stop the guest and finish, however long it takes */
};

enum migration_memory_mode {
    MIGRATION_PRECOPY,
    MIGRATION_POSTCOPY,
};

enum migration_compression {
    MIGRATION_COMPRESSION_AUTO, /* where the link is slower than compressing */
    MIGRATION_COMPRESSION_OFF,
    MIGRATION_COMPRESSION_ZSTD, /* always */
};

struct send_migration_config {
    char *destination_url; /* unix:<path> or tcp:<host>:<port> */
    bool local;
    bool preserve_source;
    uint32_t downtime_ms; /* default 300 */
    uint32_t timeout_s;   /* default 3600 */
    enum migration_timeout_strategy timeout_strategy;
    uint32_t connections; /* 0: chosen from the processors */
    uint64_t bandwidth;   /* bytes a second; 0: no cap; Cloud Hypervisor has not */
    enum migration_compression compression; /* Cloud Hypervisor has not */
    char *tls_dir;
    bool insecure; /* tcp: to another host without TLS */
    enum migration_memory_mode memory_mode;
};

/* Of a process that waits for a VM, and gets none. */
enum migration_failure_strategy {
    MIGRATION_FAILURE_STAY,
    MIGRATION_FAILURE_EXIT,
};

struct receive_migration_config {
    char *receiver_url;             /* unix:<path> or tcp:<host>:<port> */
    struct net_fds_config *net_fds; /* as in struct restore_config; Cloud Hypervisor has not */
    unsigned nr_net_fds;
    char *tls_dir;
    bool insecure;        /* tcp: from another host without TLS */
    bool accept_tsc;      /* as in struct restore_config */
    uint64_t memory_size; /* bytes to make ready; 0: none; Cloud Hypervisor has not */
    enum migration_failure_strategy failure_strategy; /* Cloud Hypervisor has not */
    enum migration_memory_mode memory_mode;
};

/* At most one of them: see docs/api.md. */
struct resolve_config {
    char *statement; /* at the source: what the destination said */
    char *lost;      /* at the source: the migration whose destination is gone */
    char *migration; /* at the destination: which one; NULL: the last */
};

enum action_kind {
    ACTION_SNAPSHOT,          /* struct snapshot_config */
    ACTION_RESTORE,           /* struct restore_config */
    ACTION_SEND_MIGRATION,    /* struct send_migration_config */
    ACTION_RECEIVE_MIGRATION, /* struct receive_migration_config */
    ACTION_RESOLVE_MIGRATION, /* struct resolve_config */
};

/**
 * action_config_from_text() - read what an action takes from JSON.
 * @kind:    which struct @ret_cfg is.
 * @text:    @len bytes, any content.
 * @ret_cfg: owned, to be given to action_config_release().
 *
 * Return: 0; -EINVAL, -E2BIG or -ENOTSUP with @err naming the field; -ENOMEM.
 * Threads: any.
 */
CHECKED int action_config_from_text(enum action_kind kind, const char *text, size_t len,
                                    void *ret_cfg, struct err *err);

/**
 * action_config_from_option() - the same from "key=value,...".
 * @option: name in messages ("--restore").
 *
 * Return: as action_config_from_text().
 * Threads: any.
 */
CHECKED int action_config_from_option(enum action_kind kind, const char *option, const char *value,
                                      void *ret_cfg, struct err *err);

/**
 * action_config_to_json() - the body of the API's request.
 *
 * Return: 0 and *@ret_obj, owned, to be given to json_object_put(); -ENOMEM.
 * Threads: any.
 */
CHECKED int action_config_to_json(enum action_kind kind, const void *cfg,
                                  struct json_object **ret_obj);

/**
 * net_fds_give() - put taps that were handed over into a configuration that came without.
 * @xs:  @nr of them; their descriptors move into @cfg on success.
 * @cfg: each of its networks that was made with descriptors has to be named.
 *
 * Return: 0; -EINVAL with @err naming the network (then nothing was moved).
 * Threads: any.
 */
CHECKED int net_fds_give(struct net_fds_config *xs, unsigned nr, struct vm_config *cfg,
                         struct err *err);

/**
 * net_fds_free() - close the descriptors that were not given to anybody, free the array.
 * @xs: @nr of them, taken; NULL is allowed.
 *
 * Threads: any.
 */
void net_fds_free(struct net_fds_config *xs, unsigned nr);

/**
 * action_config_release() - free what the struct owns and make it all zero.
 *
 * File descriptors in it stay open.
 * Threads: any.
 */
void action_config_release(enum action_kind kind, void *cfg);

#endif
