/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/event_monitor.h"
#include "core/json_get.h"

static void test_events_are_written_as_documented(void **state)
{
    static const struct event_property props[] = {
        {"id",      "_net1"  },
        {"quo\"te", "a\\b\nc"}
    };
    struct event_monitor *em = NULL;
    struct json_object *obj = NULL;
    struct err err = {0};
    char text[1024];
    const char *s = NULL;
    uint64_t v = 0;
    int pipes[2];
    ssize_t n;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(event_monitor_open(NULL, pipes[1], &em, &err), 0);
    event_monitor_emit(em, "virtio-device", "activated", props, ARRAY_LEN(props));
    n = read(pipes[0], text, sizeof(text) - 1);
    assert_true(n > 2);
    text[n] = 0;
    assert_int_equal(strncmp(text, "{\n  \"timestamp\": {\n    \"secs\": 0,\n    \"nanos\": ", 44),
                     0);
    assert_string_equal(text + n - 8, "\n  }\n}\n\n");
    assert_int_equal(json_parse(text, (size_t)n, &obj, &err), 0);
    assert_int_equal(json_get_string(obj, "source", 64, &s, &err), 1);
    assert_string_equal(s, "virtio-device");
    assert_int_equal(
        json_get_string(json_object_object_get(obj, "properties"), "quo\"te", 64, &s, &err), 1);
    assert_string_equal(s, "a\\b\nc");
    assert_int_equal(
        json_get_u64(json_object_object_get(obj, "timestamp"), "nanos", 1, 999999999, &v, &err), 1);
    json_object_put(obj);

    event_monitor_emit_id(em, "vm", "booted", NULL);
    n = read(pipes[0], text, sizeof(text) - 1);
    assert_true(n > 2);
    text[n] = 0;
    assert_non_null(strstr(text, ",\n  \"source\": \"vm\",\n  \"event\": \"booted\",\n"
                                 "  \"properties\": null\n}\n\n"));
    event_monitor_close(em);
    (void)close(pipes[0]);
}

static void test_a_reader_that_sleeps_loses_whole_events(void **state)
{
    static char all[1 << 20];
    struct event_monitor *em = NULL;
    size_t len = 0;
    unsigned nr = 0;
    int pipes[2];
    ssize_t n;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(event_monitor_open(NULL, pipes[1], &em, NULL), 0);
    for (unsigned i = 0; i < 2000; i++)
        event_monitor_emit_id(em, "vm", "migration-memory-iteration", "7");
    assert_true(event_monitor_dropped(em) > 0);
    assert_true(event_monitor_dropped(em) < 2000);
    nr = 2000 - (unsigned)event_monitor_dropped(em);
    event_monitor_close(em);
    while ((n = read(pipes[0], all + len, sizeof(all) - 1 - len)) > 0)
        len += (size_t)n;
    for (const char *s = strstr(all, "}\n\n"); s; s = strstr(s + 3, "}\n\n"))
        nr--;
    assert_int_equal(nr, 0);
    assert_string_equal(all + len - 3, "}\n\n");
    (void)close(pipes[0]);
}

static void test_a_guest_cannot_fill_a_disk(void **state)
{
    struct event_monitor *em = NULL;
    uint64_t dropped;
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(event_monitor_open(NULL, fd, &em, NULL), 0);
    for (unsigned i = 0; i < EVENT_GUEST_BURST; i++)
        event_monitor_emit_guest(em, "virtio-device", "reset", "_disk0");
    assert_int_equal(event_monitor_dropped(em), 0);
    for (unsigned i = 0; i < 100000; i++)
        event_monitor_emit_guest(em, "virtio-device", "reset", "_disk0");
    dropped = event_monitor_dropped(em);
    assert_in_range(dropped, 90000, 100000);
    event_monitor_emit_id(em, "vm", "paused", NULL); /* the machine's own go on */
    assert_int_equal(event_monitor_dropped(em), dropped);
    (void)usleep(2 * 1000000 / EVENT_GUEST_PER_S);
    event_monitor_emit_guest(em, "virtio-device", "reset", "_disk0");
    assert_int_equal(event_monitor_dropped(em), dropped);
    event_monitor_close(em);
}

static void test_what_is_too_long_goes_without_properties(void **state)
{
    static char big[EVENT_BYTES_MAX];
    struct event_monitor *em = NULL;
    char text[1024];
    int pipes[2];
    ssize_t n;

    (void)state;
    memset(big, 'a', sizeof(big) - 1);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(event_monitor_open(NULL, pipes[1], &em, NULL), 0);
    event_monitor_emit_id(em, "vm", "paused", big);
    n = read(pipes[0], text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = 0;
    assert_non_null(strstr(text, "\"properties\": null"));
    event_monitor_close(em);
    (void)close(pipes[0]);
}

static void test_a_file_is_appended_to(void **state)
{
    char path[] = "/tmp/test_event.XXXXXX";
    struct event_monitor *em = NULL;
    struct err err = {0};
    char text[2048];
    int fd = mkstemp(path);
    ssize_t n;

    (void)state;
    assert_int_equal(write(fd, "old\n", 4), 4);
    assert_int_equal(event_monitor_open(path, -1, &em, &err), 0);
    event_monitor_emit_id(em, "vmm", "starting", NULL);
    event_monitor_close(em);
    n = pread(fd, text, sizeof(text) - 1, 0);
    assert_true(n > 4);
    text[n] = 0;
    assert_int_equal(strncmp(text, "old\n{\n", 6), 0);
    assert_int_equal(unlink(path), 0);
    (void)close(fd);
}

static void test_a_target_that_cannot_be_written_is_refused(void **state)
{
    struct event_monitor *em = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(event_monitor_open("/nowhere/at/all", -1, &em, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nowhere/at/all"));
    assert_int_equal(event_monitor_open(NULL, 999, &em, NULL), -EBADF);
    assert_int_equal(event_monitor_open(NULL, open("/dev/null", O_RDONLY), &em, NULL), -EBADF);
    event_monitor_emit_id(NULL, "vm", "paused", NULL);
    event_monitor_emit_guest(NULL, "vm", "paused", NULL);
    event_monitor_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_are_written_as_documented),
        cmocka_unit_test(test_a_reader_that_sleeps_loses_whole_events),
        cmocka_unit_test(test_a_guest_cannot_fill_a_disk),
        cmocka_unit_test(test_what_is_too_long_goes_without_properties),
        cmocka_unit_test(test_a_file_is_appended_to),
        cmocka_unit_test(test_a_target_that_cannot_be_written_is_refused),
    };

    return cmocka_run_group_tests_name("event_monitor", tests, NULL, NULL);
}
