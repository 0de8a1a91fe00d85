/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/snap_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    DISK_LEN = 65536,
    PATHS = 8,
};

static void make_image(const char *path, char byte)
{
    auto_close int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK_LEN), 0);
    assert_int_equal(pwrite(fd, &byte, 1, 40000), 1);
}

int snap_fixture_setup(void **state)
{
    struct snap_fixture *s = calloc(1, sizeof(*s));
    struct err err = {0};
    char text[4096];

    assert_non_null(s);
    fixture_make(&s->f);
    (void)snprintf(s->rw, sizeof(s->rw), "%s/rw.img", s->f.dir);
    (void)snprintf(s->ro, sizeof(s->ro), "%s/ro.img", s->f.dir);
    make_image(s->rw, 'w');
    make_image(s->ro, 'r');
    (void)snprintf(text, sizeof(text),
                   "{\"payload\":{\"kernel\":\"/k\"},\"memory\":{\"size\":1048576},"
                   "\"disks\":[{\"id\":\"rw\",\"path\":\"%s\"},"
                   "{\"id\":\"ro\",\"path\":\"%s\",\"readonly\":true}],"
                   "\"net\":[{\"id\":\"lan\",\"tap\":\"tap0\",\"mac\":\"52:54:00:00:00:01\"}],"
                   "\"serial\":{\"mode\":\"File\",\"file\":\"%s/serial.log\"},"
                   "\"console\":{\"mode\":\"Off\"},"
                   "\"platform\":{\"uuid\":\"0f0e0d0c-0b0a-4908-8706-050403020100\"}}",
                   s->rw, s->ro, s->f.dir);
    if (vm_config_from_text(text, strlen(text), &s->cfg, &err) < 0)
        fail_msg("%s", err.msg);
    *state = s;
    return 0;
}

int snap_fixture_teardown(void **state)
{
    struct snap_fixture *s = *state;

    vm_config_release(&s->cfg);
    fixture_remove(&s->f);
    free(s);
    return 0;
}

const char *snap_fixture_path(const struct snap_fixture *s, const char *name)
{
    static char paths[PATHS][2 * FIXTURE_PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % PATHS];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", s->f.dir, name);
    return path;
}

void snap_fixture_one_problem(struct snap_fixture *s, const char *text)
{
    if (s->why.nr != 1 || !strstr(s->why.text[0], text))
        fail_msg("%u problems, '%s' is not '%s'", s->why.nr, s->why.text[0], text);
    s->why.nr = 0;
}
