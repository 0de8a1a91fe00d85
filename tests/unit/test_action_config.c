/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <json-c/json_object.h>
#include <string.h>

#include "core/config/action_config.h"
#include "core/config/vm_config.h"

static void test_a_migration_has_defaults(void **state)
{
    static const char text[] = "{\"destination_url\":\"unix:/m\"}";
    struct send_migration_config cfg;
    struct err err = {0};

    (void)state;
    assert_int_equal(
        action_config_from_text(ACTION_SEND_MIGRATION, text, sizeof(text) - 1, &cfg, &err), 0);
    assert_string_equal(cfg.destination_url, "unix:/m");
    assert_int_equal(cfg.downtime_ms, 300);
    assert_int_equal(cfg.timeout_s, 3600);
    assert_int_equal(cfg.connections, 0);
    assert_int_equal(cfg.bandwidth, 0);
    assert_int_equal(cfg.compression, MIGRATION_COMPRESSION_AUTO);
    assert_int_equal(cfg.timeout_strategy, MIGRATION_TIMEOUT_CANCEL);
    assert_int_equal(cfg.memory_mode, MIGRATION_PRECOPY);
    action_config_release(ACTION_SEND_MIGRATION, &cfg);
}

static void test_option_and_json_say_the_same(void **state)
{
    struct send_migration_config cfg, again;
    struct json_object *obj = NULL;
    struct err err = {0};
    const char *text;

    (void)state;
    assert_int_equal(action_config_from_option(ACTION_SEND_MIGRATION, "send-migration",
                                               "destination_url=tcp:[::1]:4444,downtime_ms=5,"
                                               "timeout_strategy=ignore,connections=128,tls_dir=/t,"
                                               "bandwidth=100M,compression=zstd,"
                                               "insecure=on,memory_mode=postcopy",
                                               &cfg, &err),
                     0);
    assert_int_equal(action_config_to_json(ACTION_SEND_MIGRATION, &cfg, &obj), 0);
    text = json_object_to_json_string(obj);
    assert_int_equal(
        action_config_from_text(ACTION_SEND_MIGRATION, text, strlen(text), &again, &err), 0);
    assert_string_equal(again.destination_url, "tcp:[::1]:4444");
    assert_string_equal(again.tls_dir, "/t");
    assert_true(again.insecure);
    assert_int_equal(again.downtime_ms, 5);
    assert_int_equal(again.connections, 128);
    assert_int_equal(again.bandwidth, 100 << 20);
    assert_int_equal(again.compression, MIGRATION_COMPRESSION_ZSTD);
    assert_int_equal(again.timeout_strategy, MIGRATION_TIMEOUT_IGNORE);
    assert_int_equal(again.memory_mode, MIGRATION_POSTCOPY);
    json_object_put(obj);
    action_config_release(ACTION_SEND_MIGRATION, &cfg);
    action_config_release(ACTION_SEND_MIGRATION, &again);
}

static void test_the_transport_says_what_goes_with_it(void **state)
{
    static const struct {
        enum action_kind kind;
        const char *option;
        const char *msg; /* NULL: taken */
    } rows[] = {
        {ACTION_SEND_MIGRATION,    "destination_url=unix:/m,local=on",   NULL},
        {ACTION_SEND_MIGRATION,    "destination_url=tcp:h:1,tls_dir=/t", NULL},
        {ACTION_SEND_MIGRATION,    "destination_url=tcp:h:1,local=on",
         "o: local: possible with a unix: destination_url only"              },
        {ACTION_SEND_MIGRATION,    "destination_url=unix:/m,tls_dir=/t",
         "o: tls_dir: not possible with a unix: destination_url"             },
        {ACTION_RECEIVE_MIGRATION, "receiver_url=tcp:h:1,tls_dir=/t",    NULL},
        {ACTION_RECEIVE_MIGRATION, "receiver_url=unix:/m,tls_dir=/t",
         "o: tls_dir: not possible with a unix: receiver_url"                },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        union {
            struct send_migration_config send;
            struct receive_migration_config receive;
        } room;
        struct err err = {0};
        int rc = action_config_from_option(rows[i].kind, "o", rows[i].option, &room, &err);

        if (rc != (rows[i].msg ? -EINVAL : 0) ||
            strcmp(err.msg, rows[i].msg ? rows[i].msg : "") != 0)
            fail_msg("%s: %d '%s'", rows[i].option, rc, err.msg);
        if (!rc)
            action_config_release(rows[i].kind, &room);
    }
}

static void test_bodies_are_refused_by_name(void **state)
{
    static const struct {
        enum action_kind kind;
        const char *text;
        int rc;
        const char *msg;
    } rows[] = {
        {ACTION_SNAPSHOT,          "{}",                                                          -EINVAL,  "destination_url: is missing"                    },
        {ACTION_SNAPSHOT,          "{\"destination_url\":1}",                                     -EINVAL,  "destination_url: must be a string"              },
        {ACTION_SNAPSHOT,          "{\"url\":\"a\"}",                                             -EINVAL,  "url: unknown field"                             },
        {ACTION_RESTORE,           "{\"source_url\":\"\"}",                                       -EINVAL,  "source_url: is missing"                         },
        {ACTION_RESTORE,           "{\"source_url\":\"a\",\"vfio_fds\":[1]}",                     -ENOTSUP, "vfio_fds: not supp"                             },
        {ACTION_RESTORE,
         "{\"source_url\":\"a\",\"prefault\":true,\"memory_restore_mode\":\"OnDemand\"}",         -EINVAL,
         "prefault: not possible"                                                                                                                            },
        {ACTION_SEND_MIGRATION,    "{\"destination_url\":\"a\",\"bandwidth\":1000}",              -EINVAL,
         "bandwidth: at least 65536 bytes a second are needed"                                                                                               },
        {ACTION_SEND_MIGRATION,    "{\"destination_url\":\"a\",\"connections\":129}",             -EINVAL,
         "connections: 129 is not in 1..128"                                                                                                                 },
        {ACTION_SEND_MIGRATION,    "{\"destination_url\":\"a\",\"downtime_ms\":0}",               -EINVAL,
         "downtime_ms: 0 is not in"                                                                                                                          },
        {ACTION_SEND_MIGRATION,    "{\"destination_url\":\"a\",\"timeout_strategy\":\"cancel\"}",
         -EINVAL,                                                                                           "timeout_strategy: must be one of Cancel, Ignore"},
        {ACTION_RECEIVE_MIGRATION, "[]",                                                          -EINVAL,  "configuration: must be an object"               },
        {ACTION_RESOLVE_MIGRATION, "{\"statement\":\"a\",\"lost\":\"b\"}",                        -EINVAL,
         "statement, lost and migration: only one"                                                                                                           },
        {ACTION_RESOLVE_MIGRATION, "{\"force\":true}",                                            -EINVAL,  "force: unknown field"                           },
        {ACTION_RECEIVE_MIGRATION, "{\"receiver_url\":\"a\",\"memory_size\":4097}",               -EINVAL,
         "memory_size: not a multiple of 4096"                                                                                                               },
        {ACTION_RECEIVE_MIGRATION, "{}",                                                          -EINVAL,  "receiver_url: is missing"                       },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct send_migration_config room;
        struct err err = {0};
        int rc =
            action_config_from_text(rows[i].kind, rows[i].text, strlen(rows[i].text), &room, &err);

        if (rc != rows[i].rc || strncmp(err.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("%s: %d '%s'", rows[i].text, rc, err.msg);
    }
}

static void test_options_are_refused_by_name(void **state)
{
    struct restore_config cfg;
    struct err err = {0};

    (void)state;
    assert_int_equal(
        action_config_from_option(ACTION_RESTORE, "--restore", "resume=on", &cfg, &err), -EINVAL);
    assert_string_equal(err.msg, "--restore: source_url: is missing");
    err.code = 0;
    assert_int_equal(action_config_from_option(ACTION_RESTORE, "--restore",
                                               "source_url=file:///a,memory_restore_mode=lazy",
                                               &cfg, &err),
                     -EINVAL);
    assert_string_equal(
        err.msg, "--restore memory_restore_mode: must be one of auto, copy, ondemand, mapped");
}

static void test_descriptors_go_to_the_networks_that_are_named(void **state)
{
    struct vm_config cfg = {0};
    struct restore_config r;
    struct err err = {0};

    (void)state;
    assert_int_equal(vm_config_from_option(&cfg, VM_OPT_KERNEL, "/k", &err), 0);
    assert_int_equal(vm_config_from_option(&cfg, VM_OPT_CPUS, "boot=2", &err), 0);
    assert_int_equal(vm_config_from_option(&cfg, VM_OPT_NET, "id=a,fd=[101,102]", &err), 0);
    assert_int_equal(vm_config_from_option(&cfg, VM_OPT_NET, "id=b,tap=t", &err), 0);
    assert_int_equal(vm_config_complete(&cfg, &err), 0);
    assert_int_equal(action_config_from_option(ACTION_RESTORE, "--restore",
                                               "source_url=u,net_fds=[a@[103,104]]", &r, &err),
                     0);
    assert_int_equal(r.nr_net_fds, 1);
    assert_int_equal(r.net_fds[0].num_fds, 2);
    assert_int_equal(net_fds_give(NULL, 0, &cfg, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "network a was made with file descriptors and needs 2"));
    assert_int_equal(net_fds_give(r.net_fds, 1, &cfg, &err), 0);
    assert_int_equal(cfg.nets[0].fds[0], 103);
    assert_int_equal(cfg.nets[0].fds[1], 104);
    assert_int_equal(r.net_fds[0].fds[0], -1); /* moved */
    action_config_release(ACTION_RESTORE, &r);
    vm_config_release(&cfg);
}

static void test_descriptors_that_fit_nothing_are_refused(void **state)
{
    static const struct {
        const char *text, *msg;
    } rows[] = {
        {"source_url=u,net_fds=[a]",           "--restore net_fds: must be [<id>@"              },
        {"source_url=u,net_fds=[a@[1]]",       "--restore net_fds: '1' is not a file descriptor"},
        {"source_url=u,net_fds=[a@[5]@[6]]",   "--restore net_fds: must be [<id>@"              },
        {"source_url=u,net_fds=[a@[]]",        "--restore: net_fds[0].num_fds: is missing"      },
        {"source_url=u,net_fds=[@[5]]",        "--restore: net_fds[0].id: is missing"           },
        {"source_url=u,net_fds=[a@[5],a@[6]]", "--restore: net_fds[1].id: a is there twice"     },
    };
    static const char body[] =
        "{\"source_url\":\"u\",\"net_fds\":[{\"id\":\"a\",\"num_fds\":2,\"fds\":[9]}]}";
    struct restore_config r;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err err = {0};

        if (action_config_from_option(ACTION_RESTORE, "--restore", rows[i].text, &r, &err) !=
                -EINVAL ||
            strncmp(err.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("%s: '%s'", rows[i].text, err.msg);
    }
    assert_int_equal(action_config_from_text(ACTION_RESTORE, body, strlen(body), &r, NULL),
                     -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_migration_has_defaults),
        cmocka_unit_test(test_option_and_json_say_the_same),
        cmocka_unit_test(test_the_transport_says_what_goes_with_it),
        cmocka_unit_test(test_bodies_are_refused_by_name),
        cmocka_unit_test(test_options_are_refused_by_name),
        cmocka_unit_test(test_descriptors_go_to_the_networks_that_are_named),
        cmocka_unit_test(test_descriptors_that_fit_nothing_are_refused),
    };

    return cmocka_run_group_tests_name("action_config", tests, NULL, NULL);
}
