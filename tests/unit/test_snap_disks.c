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
#include <sys/xattr.h>
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

/* --- Copies ---------------------------------------------------------------------- */

#define MARK "user.chrysalis.copy"

/* The disk's image is given by hand; the snapshot recorded this of it. */
static void check_marked(struct snap_fixture *s, const char *inode, const char *mtime)
{
    char json[256], item[] = "disks.rw.path=";
    char *items[] = {item};
    const struct snap_sets sets = {items, 1};

    (void)snprintf(json, sizeof(json),
                   "[{\"id\":\"rw\",\"path\":\"/x\",\"size\":65536,\"inode\":%s,\"mtime_ns\":%s}]",
                   inode, mtime);
    check(s, json, &sets, false);
}

static void mark(const struct snap_fixture *s, const char *text, size_t len)
{
    if (setxattr(s->rw, MARK, text, len, 0) == 0)
        return;
    if (errno == ENOTSUP)
        skip(); /* of a file system without them */
    fail_msg("%s: %s", MARK, strerror(errno));
}

static void test_a_copy_that_was_written_since_is_refused(void **state)
{
    static const struct {
        time_t s;
        long ns;
        const char *mtime;
    } times[] = {
        {1700000000,  5,         "1700000000000000005" },
        {-2,          999999999, "-1000000001"         },
        {-1,          0,         "-1000000000"         },
        {9223372036,  854775807, "9223372036854775807" },
        {-2147483648, 0,         "-2147483648000000000"},
    };
    struct snap_fixture *s = *state;
    const char *original = snap_fixture_path(s, "original.img");
    auto_close int from = open(original, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    auto_close int to = open(s->rw, O_RDWR | O_CLOEXEC);
    char inode[32];
    struct stat st;

    assert_int_equal(fstat(from, &st), 0);
    (void)snprintf(inode, sizeof(inode), "%llu", (unsigned long long)st.st_ino);
    mark(s, "x", 1);
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        set_mtime(original, times[i].s, times[i].ns);
        set_mtime(s->rw, times[i].s, times[i].ns);
        snap_disks_mark(to, from);
        check_marked(s, inode, times[i].mtime);
        assert_int_equal(s->why.nr, 0);
        set_mtime(s->rw, 1600000000, 0);
        check_marked(s, inode, times[i].mtime);
        snap_fixture_one_problem(s, "it is an earlier clone's, which has written to it");
        /* Of another disk, or of this one at another time. */
        check_marked(s, "0", times[i].mtime);
        check_marked(s, inode, "17");
        assert_int_equal(s->why.nr, 0);
    }
}

static void test_numbers_have_all_their_bits(void **state)
{
    static const char text[] = "18446744073709551615 -9223372036854775808 9223372036854775807";
    struct snap_fixture *s = *state;

    mark(s, text, strlen(text));
    check_marked(s, "18446744073709551615", "-9223372036854775808");
    snap_fixture_one_problem(s, "it is an earlier clone's");
    check_marked(s, "9223372036854775807", "-9223372036854775808");
    assert_int_equal(s->why.nr, 0);
}

static void test_what_is_no_mark_is_none(void **state)
{
#define TEXT(t)          \
    {                    \
        t, sizeof(t) - 1 \
    }
    static const struct {
        const char *s;
        size_t len;
    } texts[] = {
        TEXT(""),
        TEXT("7"),
        TEXT("7 5"),
        TEXT("7 5 "),
        TEXT("7 5 x"),
        TEXT("7 5 9x"),
        TEXT("7 5 9 "),
        TEXT("7 5 9\n"),
        TEXT("7 5 9\0"),
        TEXT("7 5\0 9"),
        TEXT(" 7 5 9"),
        TEXT("7  5 9"),
        TEXT("7 5\t9"),
        TEXT("+7 5 9"),
        TEXT("-7 5 9"),
        TEXT("7 +5 9"),
        TEXT("7 5 +9"),
        TEXT("7 5 --9"),
        TEXT("7 5 -"),
        TEXT("7 5 9 11"),
        TEXT("18446744073709551623 5 9"), /* 2^64 + 7 */
        TEXT("7 5 9223372036854775808"),
        TEXT("7 5 -9223372036854775809"),
        TEXT("7 5 99999999999999999999999999999999"),
    };
#undef TEXT
    struct snap_fixture *s = *state;

    mark(s, "7 5 9", 5);
    check_marked(s, "7", "5");
    snap_fixture_one_problem(s, "it is an earlier clone's");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        mark(s, texts[i].s, texts[i].len);
        check_marked(s, "7", "5");
        if (s->why.nr)
            fail_msg("\"%s\" (%zu bytes) is taken for a mark", texts[i].s, texts[i].len);
    }
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
        T(test_a_copy_that_was_written_since_is_refused),
        T(test_numbers_have_all_their_bits),
        T(test_what_is_no_mark_is_none),
    };

    return cmocka_run_group_tests_name("snap_disks", tests, NULL, NULL);
}
