/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/snap_sets.h"

static const char machine[] =
    "{\"payload\":{\"kernel\":\"/k\"},\"memory\":{\"size\":0,\"zones\":["
    "{\"id\":\"z0\",\"size\":1048576}]},"
    "\"disks\":[{\"id\":\"root\",\"path\":\"/a.img\"},{\"id\":\"data\",\"path\":\"/b.img\"}],"
    "\"net\":[{\"id\":\"lan\",\"tap\":\"tap0\",\"mac\":\"52:54:00:00:00:01\"}],"
    "\"serial\":{\"mode\":\"File\",\"file\":\"/serial.log\"},\"console\":{\"mode\":\"Off\"}}";

struct sets_test {
    struct vm_config cfg;
    struct snap_problems why;
};

static int setup(void **state)
{
    struct sets_test *t = calloc(1, sizeof(*t));
    struct err err = {0};

    assert_non_null(t);
    if (vm_config_from_text(machine, strlen(machine), &t->cfg, &err) < 0)
        fail_msg("%s", err.msg);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct sets_test *t = *state;

    vm_config_release(&t->cfg);
    free(t);
    return 0;
}

static int apply(struct sets_test *t, const char *const *items, unsigned nr, struct err *err)
{
    char *copies[16];
    struct snap_sets sets = {copies, nr};
    int rc;

    assert_true(nr <= ARRAY_LEN(copies));
    for (unsigned i = 0; i < nr; i++)
        copies[i] = strdup(items[i]);
    rc = snap_sets_apply(&sets, &t->cfg, &t->why, err);
    for (unsigned i = 0; i < nr; i++)
        free(copies[i]);
    return rc;
}

static void test_each_kind_of_member_can_be_changed(void **state)
{
    static const char *const items[] = {
        "disks.data.path=/c=d.img",
        "disks.root.path=17",
        "net.lan.tap=tap7",
        "net.lan.mac=52:54:00:00:00:99",
        "serial.socket=/run/serial.sock",
        "memory.thp=off",
        "memory.zones.z0.shared=on",
        "platform.uuid=0F0E0D0C-0B0A-4908-8706-050403020100",
    };
    struct sets_test *t = *state;
    struct err err = {0};

    assert_int_equal(apply(t, items, ARRAY_LEN(items), &err), 0);
    assert_int_equal(t->why.nr, 0);
    assert_string_equal(t->cfg.disks[0].path, "17");
    assert_string_equal(t->cfg.disks[1].path, "/c=d.img");
    assert_string_equal(t->cfg.nets[0].tap, "tap7");
    assert_int_equal(t->cfg.nets[0].mac[5], 0x99);
    assert_int_equal(t->cfg.serial.mode, CONSOLE_SOCKET);
    assert_string_equal(t->cfg.serial.socket, "/run/serial.sock");
    assert_null(t->cfg.serial.file);
    assert_true(t->cfg.memory.no_thp);
    assert_true(t->cfg.memory.zones[0].shared);
    assert_string_equal(t->cfg.platform.system_uuid, "0f0e0d0c-0b0a-4908-8706-050403020100");
}

static void test_everything_that_is_wrong_is_listed_at_once(void **state)
{
    static const char *const items[] = {
        "disks.root.path=/new.img", /* good */
        "path",
        "cpus.boot_vcpus=4",
        "memory.size=1",
        "disks.swap.path=/x",
        "net.lan.num_queues=8",
        "a.b.c.d.e=1",
        "memory.zones.z0.hugepage_size=3M", /* needs the next, and is bad all the same */
        "memory.zones.z0.hugepages=on",     /* good */
        "platform.uuid=1234",
        "memory.shared=perhaps",
        "serial.mode=Off",
        "console.file=/log",
        "net.lan.mac=52:54:00:00:00:99", /* good */
    };
    static const char *const say[] = {
        "set path: is not part.member=value",
        "set cpus.boot_vcpus=4: cannot be changed",
        "set memory.size=1: cannot be changed",
        "set disks.swap.path=/x: the machine has no disks swap",
        "set net.lan.num_queues=8: cannot be changed",
        "set a.b.c.d.e=1: is not part.member=value",
        "set memory.zones.z0.hugepage_size=3M: memory.zones[0].hugepage_size: 3145728 is not",
        "set platform.uuid=1234: platform.system_uuid: not a UUID",
        "set memory.shared=perhaps: is not on or off",
        "set serial.mode=Off: serial.mode: not to Off",
        "set console.file=/log: console.mode: not from Off",
    };
    struct sets_test *t = *state;
    struct err err = {0};

    assert_int_equal(apply(t, items, ARRAY_LEN(items), &err), 0);
    assert_int_equal(t->why.nr, ARRAY_LEN(say));
    for (size_t i = 0; i < ARRAY_LEN(say); i++)
        if (strncmp(t->why.text[i], say[i], strlen(say[i])) != 0)
            fail_msg("'%s' is not '%s'", t->why.text[i], say[i]);
    /* What is good is there: what else is wrong is looked for in the machine that was meant. */
    assert_string_equal(t->cfg.disks[0].path, "/new.img");
    assert_true(t->cfg.memory.zones[0].hugepages);
    assert_int_equal(t->cfg.nets[0].mac[5], 0x99);
    assert_int_equal(snap_problems_err(&t->why, -EINVAL, &err), -EINVAL);
    assert_memory_equal(err.msg, "11 things are wrong, the first: set path: is", 44);
}

static void test_what_makes_no_machine_is_refused_by_name(void **state)
{
    static const struct {
        const char *item, *msg;
    } rows[] = {
        {"net.lan.mac=nonsense",      "mac"        },
        {"disks.data.path=/a.img",    "/a.img"     },
        {"memory.zones.z0.shared=2",  "shared"     },
        {"disks.root.direct=perhaps", "direct"     },
        {"platform.uuid=1234",        "uuid"       },
        {"serial.mode=Loud",          "serial.mode"},
    };
    struct sets_test *t = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err err = {0};

        t->why.nr = 0;
        assert_int_equal(apply(t, &rows[i].item, 1, &err), 0);
        assert_int_equal(t->why.nr, 1);
        if (!strstr(strchr(t->why.text[0], ' '), rows[i].msg))
            fail_msg("%s: '%s' does not name it", rows[i].item, t->why.text[0]);
        assert_string_equal(t->cfg.disks[1].path, "/b.img");
    }
}

static void test_values_are_written_as_for_options(void **state)
{
    static const char *const items[] = {
        "memory.zones.z0.hugepage_size=2M",
        "memory.zones.z0.hugepages=true",
        "serial.mode=null",
        "disks.data.path=off",
    };
    struct sets_test *t = *state;
    struct err err = {0};

    t->cfg.memory.zones[0].size = 2 << 20;
    assert_int_equal(apply(t, items, ARRAY_LEN(items), &err), 0);
    if (t->why.nr)
        fail_msg("%s", t->why.text[0]);
    assert_int_equal(t->cfg.memory.zones[0].hugepage_size, 2 << 20);
    assert_true(t->cfg.memory.zones[0].hugepages);
    assert_int_equal(t->cfg.serial.mode, CONSOLE_NULL);
    assert_string_equal(t->cfg.disks[1].path, "off");
}

static void test_it_is_known_what_is_changed(void **state)
{
    char a[] = "disks.root.path=/x", b[] = "serial.file=/y";
    char *items[] = {a, b};
    const struct snap_sets sets = {items, 2};

    (void)state;
    assert_true(snap_sets_has(&sets, "disks", "root", "path"));
    assert_false(snap_sets_has(&sets, "disks", "data", "path"));
    assert_false(snap_sets_has(&sets, "disks", NULL, "path"));
    assert_true(snap_sets_has(&sets, "serial", NULL, "file"));
    assert_false(snap_sets_has(&sets, "serial", NULL, "socket"));
    assert_false(snap_sets_has(&sets, "console", NULL, "file"));
}

static void test_more_problems_than_fit_are_dropped(void **state)
{
    static char text[SNAP_PROBLEMS_TEXT];
    struct sets_test *t = *state;
    struct err err = {0};

    for (unsigned i = 0; i < SNAP_PROBLEMS_MAX + 5; i++)
        snap_problem(&t->why, "problem %u %0600d", i, 1);
    assert_int_equal(t->why.nr, SNAP_PROBLEMS_MAX);
    assert_int_equal(strlen(t->why.text[0]), SNAP_PROBLEM_LEN - 1);
    snap_problems_text(&t->why, text);
    assert_non_null(strstr(text, "; problem 31 "));
    assert_int_equal(strlen(text),
                     SNAP_PROBLEMS_MAX * (SNAP_PROBLEM_LEN - 1) + (SNAP_PROBLEMS_MAX - 1) * 2);
    t->why.nr = 1;
    assert_int_equal(snap_problems_err(&t->why, -ENOTSUP, &err), -ENOTSUP);
    assert_memory_equal(err.msg, "problem 0 ", 10);
    t->why.nr = 0;
    snap_problems_text(&t->why, text);
    assert_string_equal(text, "");
    assert_int_equal(snap_problems_err(&t->why, -ENOTSUP, &err), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_each_kind_of_member_can_be_changed),
        T(test_everything_that_is_wrong_is_listed_at_once),
        T(test_what_makes_no_machine_is_refused_by_name),
        T(test_values_are_written_as_for_options),
        T(test_it_is_known_what_is_changed),
        T(test_more_problems_than_fit_are_dropped),
    };

    return cmocka_run_group_tests_name("snap_sets", tests, NULL, NULL);
}
