/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a destination refuses by, before a page is sent: all of it at once.
 */
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

#include "tools/chvmm/facts.h"

enum {
    SIZE = 65536,
    REASONS = 16,
};

/* The configuration owns its strings, so that they are not const. */
static char disk0_id[] = "_disk0";
static char gone_id[] = "gone";
static char dir_id[] = "dir";
static char short_id[] = "short";
static char net0_id[] = "_net0";
static char lo_name[] = "lo";

struct reasons {
    unsigned nr;
    char text[REASONS][ERR_MSG_SIZE];
};

static void note(void *arg, const char *reason)
{
    struct reasons *r = arg;

    assert_true(r->nr < REASONS);
    (void)snprintf(r->text[r->nr++], ERR_MSG_SIZE, "%s", reason);
}

static bool has(const struct reasons *r, const char *part)
{
    for (unsigned i = 0; i < r->nr; i++)
        if (strstr(r->text[i], part))
            return true;
    return false;
}

/* --- Reading -------------------------------------------------------------- */

static void test_facts_are_read_and_what_is_not_known_is_skipped(void **state)
{
    static const char text[] =
        "{\"boot\":\"0b\",\"weather\":[1],\"disks\":[{\"id\":\"_disk0\",\"size\":65536,"
        "\"device\":7,\"inode\":9,\"colour\":\"red\"}],\"sections\":[{\"id\":\"cmos\","
        "\"version\":3}]}";
    struct facts *f = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(facts_parse(text, strlen(text), &f, &err), 0);
    assert_string_equal(f->boot, "0b");
    assert_int_equal(f->nr_disks, 1);
    assert_string_equal(f->disks[0].id, "_disk0");
    assert_int_equal(f->disks[0].size, 65536);
    assert_int_equal(f->disks[0].device, 7);
    assert_int_equal(f->disks[0].inode, 9);
    assert_int_equal(f->nr_sections, 1);
    assert_string_equal(f->sections[0].id, "cmos");
    assert_int_equal(f->sections[0].version, 3);
    free(f);
}

static void test_what_is_wrong_is_refused_by_name(void **state)
{
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"[]",                                            "facts: must be an object"      },
        {"{\"disks\":{}}",                                "facts.disks: must be an array" },
        {"{\"disks\":[1]}",                               "facts.disks: must be an object"},
        {"{\"disks\":[{\"size\":1}]}",                    "id: is missing"                },
        {"{\"disks\":[{\"id\":\"a\",\"size\":-1}]}",      "size"                          },
        {"{\"sections\":[{\"id\":\"a\",\"version\":0}]}", "version"                       },
        {"{\"disks\":[{\"id\":\"a\"}]}",                  "size: is missing"              },
        {"{\"sections\":[{\"id\":\"a\"}]}",               "version: is missing"           },
        {"{\"boot\":5}",                                  "boot"                          },
        {"{",                                             ""                              },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct facts *f = NULL;
        struct err err = {0};

        assert_true(facts_parse(rows[i].text, strlen(rows[i].text), &f, &err) < 0);
        assert_null(f);
        if (!strstr(err.msg, rows[i].part))
            fail_msg("%s: %s", rows[i].text, err.msg);
    }
}

/* --- Judging -------------------------------------------------------------- */

struct host {
    char dir[32], disk[64], other[64];
    struct disk_config disks[5];
    struct net_config net;
    struct vm_config cfg;
    struct facts facts;
};

static void make_file(const char *path, off_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0 && ftruncate(fd, size) == 0);
    (void)close(fd);
}

static void host_init(struct host *h)
{
    struct stat st;

    memset(h, 0, sizeof(*h));
    (void)snprintf(h->dir, sizeof(h->dir), "/tmp/test_facts.XXXXXX");
    assert_non_null(mkdtemp(h->dir));
    (void)snprintf(h->disk, sizeof(h->disk), "%s/disk", h->dir);
    (void)snprintf(h->other, sizeof(h->other), "%s/other", h->dir);
    make_file(h->disk, SIZE);
    make_file(h->other, SIZE);
    assert_int_equal(stat(h->disk, &st), 0);
    h->cfg = (struct vm_config){.memory.size = MIB(64), .disks = h->disks, .nr_disks = 1};
    h->disks[0] = (struct disk_config){.id = disk0_id, .path = h->disk};
    h->facts.nr_disks = 1;
    h->facts.disks[0] =
        (struct fact_disk){.id = "_disk0", .size = SIZE, .device = st.st_dev, .inode = st.st_ino};
}

static void host_release(struct host *h)
{
    (void)unlink(h->disk);
    (void)unlink(h->other);
    (void)rmdir(h->dir);
}

/* As another process has it: an OFD lock of another open file. */
static int lock_it(const char *path)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = SIZE};
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0 && fcntl(fd, F_OFD_SETLK, &fl) == 0);
    return fd;
}

static void test_the_sources_own_lock_is_no_reason(void **state)
{
    struct reasons r = {0};
    struct host h;
    int fd;

    (void)state;
    host_init(&h);
    assert_int_equal(facts_check_host(&h.facts, &h.cfg, note, &r), 0);
    fd = lock_it(h.disk);
    assert_int_equal(facts_check_host(&h.facts, &h.cfg, note, &r), 0);
    /* From a source that tells nothing: whose lock it is shows after COMMIT. */
    assert_int_equal(facts_check_host(NULL, &h.cfg, note, &r), 0);
    (void)close(fd);
    host_release(&h);
}

static void test_a_lock_on_another_file_is_a_reason(void **state)
{
    struct reasons r = {0};
    struct host h;
    int fd;

    (void)state;
    host_init(&h);
    h.disks[0].path = h.other;
    assert_int_equal(facts_check_host(&h.facts, &h.cfg, note, &r), 0);
    fd = lock_it(h.other);
    assert_int_equal(facts_check_host(&h.facts, &h.cfg, note, &r), 1);
    assert_true(has(&r, "is locked by another process than the source"));
    (void)close(fd);
    host_release(&h);
}

static void test_all_reasons_are_given_at_once(void **state)
{
    char missing[80], dir[40];
    struct reasons r = {0};
    struct host h;

    (void)state;
    host_init(&h);
    (void)snprintf(missing, sizeof(missing), "%s/missing", h.dir);
    (void)snprintf(dir, sizeof(dir), "%s", h.dir);
    h.disks[1] = (struct disk_config){.id = gone_id, .path = missing};
    h.disks[2] = (struct disk_config){.id = dir_id, .path = dir, .readonly = true};
    h.disks[3] = (struct disk_config){.id = short_id, .path = h.other};
    h.cfg.nr_disks = 4;
    h.facts.nr_disks = 2;
    h.facts.disks[1] = (struct fact_disk){.id = "short", .size = (uint64_t)2 * SIZE};
    h.net = (struct net_config){.id = net0_id, .tap = lo_name};
    h.cfg.nets = &h.net;
    h.cfg.nr_nets = 1;
    h.cfg.memory.size = (uint64_t)1 << 50;
    assert_int_equal(facts_check_host(&h.facts, &h.cfg, note, &r), 5);
    assert_true(has(&r, "memory: the VM has 1073741824 MiB, this host "));
    assert_true(has(&r, "disk gone: ") && has(&r, "No such file"));
    assert_true(has(&r, "disk dir: ") && has(&r, "neither a file nor a block device"));
    assert_true(has(&r, "has 65536 bytes, 131072 at the source"));
    assert_true(has(&r, "net _net0: interface lo is not a tap"));
    host_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts_are_read_and_what_is_not_known_is_skipped),
        cmocka_unit_test(test_what_is_wrong_is_refused_by_name),
        cmocka_unit_test(test_the_sources_own_lock_is_no_reason),
        cmocka_unit_test(test_a_lock_on_another_file_is_a_reason),
        cmocka_unit_test(test_all_reasons_are_given_at_once),
    };

    return cmocka_run_group_tests_name("facts", tests, NULL, NULL);
}
