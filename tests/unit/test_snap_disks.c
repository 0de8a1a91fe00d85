/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/snap_disks.h"
#include "tests/unit/snap_fixture.h"

static char *describe(struct snap_fixture *s)
{
    char *json = NULL;
    struct err err = {0};

    if (snap_disks_describe(&s->cfg, &json, &err) < 0)
        fail_msg("%s", err.msg);
    return json;
}

static void check(struct snap_fixture *s, const char *json, const struct snap_sets *sets,
                  bool copied)
{
    const struct snap_sets none = {0};
    const struct snap_disks_use use = {&s->cfg, sets ? sets : &none, copied};
    struct err err = {0};

    if (snap_disks_check(json, &use, &s->why, &err) < 0)
        fail_msg("%s", err.msg);
}

static void set_mtime(const char *path, time_t s, long ns)
{
    const struct timespec times[2] = {
        {s, ns},
        {s, ns}
    };

    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void test_disks_that_are_as_they_were_are_good(void **state)
{
    struct snap_fixture *s = *state;
    auto_free char *json = describe(s);

    assert_non_null(strstr(json, "\"size\":65536"));
    check(s, json, NULL, false);
    check(s, json, NULL, true);
    check(s, "", NULL, false);
    assert_int_equal(s->why.nr, 0);
}

/* After a reboot, and on btrfs after any mount, its file system has another number. */
static void test_the_device_may_have_another_number(void **state)
{
    struct snap_fixture *s = *state;
    auto_free char *json = describe(s);

    for (char *at = json; (at = strstr(at, "\"device\":"));) {
        at += strlen("\"device\":");
        *at = *at == '1' ? '2' : '1';
    }
    check(s, json, NULL, false);
    assert_int_equal(s->why.nr, 0);
}

static void test_each_change_is_named(void **state)
{
    struct snap_fixture *s = *state;
    auto_free char *json = NULL;

    set_mtime(s->rw, 1700000000, 5);
    json = describe(s);
    set_mtime(s->rw, 1700000000, 6);
    check(s, json, NULL, false);
    snap_fixture_one_problem(s, "rw.img): it was written after the snapshot");
    set_mtime(s->rw, 1700000000, 5);
    check(s, json, NULL, false);
    assert_int_equal(s->why.nr, 0);

    assert_int_equal(truncate(s->rw, 65537), 0);
    check(s, json, NULL, true);
    snap_fixture_one_problem(s, "disk rw");
    assert_int_equal(truncate(s->rw, 65536), 0);

    /* The same contents, size and time, but another file. */
    assert_int_equal(rename(s->rw, snap_fixture_path(s, "old")), 0);
    check(s, json, NULL, false);
    snap_fixture_one_problem(s, "No such file");
    tree_copy(snap_fixture_path(s, "old"), s->rw);
    set_mtime(s->rw, 1700000000, 5);
    check(s, json, NULL, false);
    snap_fixture_one_problem(s, "it is another file");
}

static void test_all_disks_that_changed_are_listed(void **state)
{
    struct snap_fixture *s = *state;
    auto_free char *json = describe(s);

    assert_int_equal(unlink(s->rw), 0);
    assert_int_equal(truncate(s->ro, 0), 0);
    check(s, json, NULL, false);
    assert_int_equal(s->why.nr, 2);
    assert_non_null(strstr(s->why.text[1], "ro.img): its size has changed"));
}

static void test_another_image_has_to_be_as_long(void **state)
{
    struct snap_fixture *s = *state;
    auto_free char *json = describe(s);
    char item[] = "disks.rw.path=";
    char *items[] = {item};
    const struct snap_sets sets = {items, 1};
    const char *other = snap_fixture_path(s, "other.img");

    assert_int_equal(unlink(s->rw), 0); /* the recorded one does not matter any more */
    assert_int_equal(vm_config_set_string(&s->cfg.disks[0].path, other), 0);
    check(s, json, &sets, false);
    snap_fixture_one_problem(s, "other.img): No such file");
    assert_int_equal(mknod(other, S_IFREG | 0600, 0), 0);
    check(s, json, &sets, false);
    snap_fixture_one_problem(s, "its size is another than the snapshot's");
    assert_int_equal(truncate(other, 65536), 0);
    check(s, json, &sets, false);
    check(s, json, &sets, true);
    assert_int_equal(s->why.nr, 0);
    /* A clone's copy is still to be made: then what it is made from counts. */
    assert_int_equal(unlink(other), 0);
    check(s, json, &sets, true);
    snap_fixture_one_problem(s, "rw.img): No such file");
}

static void test_hostile_texts_are_refused_or_are_problems(void **state)
{
    static const char *const bad[] = {"{", "7", "{\"id\":1}", "[1,2", "\"x\""};
    static const char *const odd[] = {"[1]",
                                      "[null]",
                                      "[{}]",
                                      "[{\"id\":\"nobody\",\"path\":\"/x\"}]",
                                      "[{\"id\":\"rw\",\"path\":7}]",
                                      "[{\"id\":\"rw\",\"path\":\"/etc/passwd\",\"size\":\"x\"}]"};
    struct snap_fixture *s = *state;
    const struct snap_sets none = {0};
    const struct snap_disks_use use = {&s->cfg, &none, false};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = {0};

        assert_int_equal(snap_disks_check(bad[i], &use, &s->why, &err), -EBADMSG);
        assert_non_null(strstr(err.msg, "disks"));
    }
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        check(s, odd[i], NULL, false);
        snap_fixture_one_problem(s, "disk ");
    }
}

static void test_a_disk_that_cannot_be_looked_at_is_named(void **state)
{
    struct snap_fixture *s = *state;
    char *json = NULL;
    struct err err = {0};

    assert_int_equal(unlink(s->ro), 0);
    assert_int_equal(snap_disks_describe(&s->cfg, &json, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "disk ro: "));
    assert_null(json);
}

#define T(f) cmocka_unit_test_setup_teardown(f, snap_fixture_setup, snap_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_disks_that_are_as_they_were_are_good),
        T(test_the_device_may_have_another_number),
        T(test_each_change_is_named),
        T(test_all_disks_that_changed_are_listed),
        T(test_another_image_has_to_be_as_long),
        T(test_hostile_texts_are_refused_or_are_problems),
        T(test_a_disk_that_cannot_be_looked_at_is_named),
    };

    return cmocka_run_group_tests_name("snap_disks", tests, NULL, NULL);
}
