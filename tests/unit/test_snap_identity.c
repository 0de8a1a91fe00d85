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
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "snapshot/snap_disks.h"
#include "snapshot/snap_host.h"
#include "snapshot/snap_identity.h"
#include "tests/unit/snap_fixture.h"

static const struct snap_sets none = {0};
static bool has_no_tmpfile; /* as file systems of networks */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list ap;

    if (has_no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    return __real_open(path, flags, mode);
}

static void renew(struct snap_fixture *s, struct vm_config *cfg, const struct snap_sets *sets)
{
    struct err err = {0};

    assert_int_equal(vm_config_copy(&s->cfg, cfg), 0);
    if (snap_identity_renew(&s->cfg, cfg, sets, &s->why, &err) < 0)
        fail_msg("%s", err.msg);
}

static void test_a_clone_has_its_own_of_everything(void **state)
{
    struct snap_fixture *s = *state;
    struct vm_config a, b;
    char end[16];

    renew(s, &a, &none);
    renew(s, &b, &none);
    assert_int_equal(s->why.nr, 0);
    assert_string_not_equal(a.platform.system_uuid, s->cfg.platform.system_uuid);
    assert_string_not_equal(a.platform.system_uuid, b.platform.system_uuid);
    assert_memory_not_equal(a.nets[0].mac, s->cfg.nets[0].mac, MAC_LEN);
    assert_memory_not_equal(a.nets[0].mac, b.nets[0].mac, MAC_LEN);
    assert_int_equal(a.nets[0].mac[0] & 3, 2); /* local, unicast */
    assert_null(a.nets[0].tap);
    (void)snprintf(end, sizeof(end), ".%.8s", a.platform.system_uuid);
    assert_non_null(strstr(a.disks[0].path, end));
    assert_non_null(strstr(a.serial.file, end));
    assert_string_equal(a.disks[1].path, s->ro); /* nobody writes to it: shared */
    vm_config_release(&a);
    vm_config_release(&b);
}

static void test_what_it_was_told_to_be_stays(void **state)
{
    char i0[] = "net.lan.tap=tap0", i1[] = "net.lan.mac=x", i2[] = "disks.rw.path=x";
    char i3[] = "serial.file=x", i4[] = "platform.uuid=x";
    char *items[] = {i0, i1, i2, i3, i4};
    const struct snap_sets sets = {items, ARRAY_LEN(items)};
    struct snap_fixture *s = *state;
    struct vm_config a;

    renew(s, &a, &sets);
    snap_fixture_one_problem(s, "is the original's"); /* it is told to be that */
    assert_string_equal(a.nets[0].tap, "tap0");
    assert_memory_equal(a.nets[0].mac, s->cfg.nets[0].mac, MAC_LEN);
    assert_string_equal(a.disks[0].path, s->rw);
    assert_string_equal(a.serial.file, s->cfg.serial.file);
    assert_string_equal(a.platform.system_uuid, s->cfg.platform.system_uuid);
    vm_config_release(&a);
}

static void test_what_cannot_be_unique_is_refused_by_name(void **state)
{
    struct snap_fixture *s = *state;
    struct vm_config a;
    int fd = -1;

    assert_int_equal(vm_config_set_string(&s->cfg.nets[0].ip, "192.0.2.1"), 0);
    renew(s, &a, &none);
    snap_fixture_one_problem(s, "net lan: the host's address 192.0.2.1 cannot be on two");
    vm_config_release(&a);
    assert_int_equal(vm_config_set_string(&s->cfg.nets[0].ip, NULL), 0);

    s->cfg.nets[0].fds = &fd;
    s->cfg.nets[0].nr_fds = 1;
    renew(s, &a, &none);
    snap_fixture_one_problem(s, "net lan: its tap was handed over as a descriptor");
    vm_config_release(&a);
    s->cfg.nets[0].fds = NULL;
    s->cfg.nets[0].nr_fds = 0;

    assert_int_equal(vm_config_set_string(&s->cfg.disks[0].path, "/dev/null"), 0);
    renew(s, &a, &none);
    snap_fixture_one_problem(s, "disk rw: /dev/null is writable and no regular file");
    vm_config_release(&a);

    assert_int_equal(vm_config_set_string(&s->cfg.disks[0].path, "/nonexistent/x"), 0);
    renew(s, &a, &none);
    snap_fixture_one_problem(s, "disk rw: /nonexistent/x: No such file");
    vm_config_release(&a);
}

/* Return: problems of a clone of a VM with this file, with the zone's file changed to @file. */
static unsigned zone_problems(struct snap_fixture *s, const char *original, const char *file)
{
    struct memory_zone_config zone = {.shared = true};
    unsigned nr;
    struct vm_config a;
    struct err err = {0};

    zone.id = strdup("z0");
    zone.file = strdup(original);
    s->cfg.memory.zones = &zone;
    s->cfg.memory.nr_zones = 1;
    assert_int_equal(vm_config_copy(&s->cfg, &a), 0);
    assert_int_equal(vm_config_set_string(&a.memory.zones[0].file, file), 0);
    assert_int_equal(snap_identity_renew(&s->cfg, &a, &none, &s->why, &err), 0);
    vm_config_release(&a);
    s->cfg.memory.zones = NULL;
    s->cfg.memory.nr_zones = 0;
    free(zone.id);
    free(zone.file);
    nr = s->why.nr;
    s->why.nr = 0;
    return nr;
}

static void test_shared_memory_of_the_original_is_not_the_clone_s(void **state)
{
    struct snap_fixture *s = *state;
    char link[2 * FIXTURE_PATH_MAX];

    (void)snprintf(link, sizeof(link), "%s", snap_fixture_path(s, "link"));
    assert_int_equal(symlink(s->rw, link), 0);
    assert_int_equal(zone_problems(s, s->rw, s->rw), 1);
    assert_non_null(strstr(s->why.text[0], "is shared memory of the original"));
    assert_int_equal(zone_problems(s, s->rw, link), 1);
    assert_int_equal(zone_problems(s, s->rw, s->ro), 0);
    assert_int_equal(zone_problems(s, s->f.dir, s->f.dir), 0);
}

static void test_the_original_s_disk_is_not_the_clone_s(void **state)
{
    char item[] = "disks.rw.path=x";
    char *items[] = {item};
    const struct snap_sets sets = {items, 1};
    struct snap_fixture *s = *state;
    struct vm_config a;
    char text[64];

    renew(s, &a, &sets);
    (void)snprintf(text, sizeof(text), "rw.img is the original's");
    snap_fixture_one_problem(s, text);
    vm_config_release(&a);
}

static void test_a_disk_that_changes_while_it_is_copied_is_refused(void **state)
{
    struct snap_fixture *s = *state;
    struct snap_copies copies = {0};
    auto_free char *recorded = NULL;
    auto_close int fd = -1;
    struct vm_config a;
    struct err err = {0};

    assert_int_equal(snap_disks_describe(&s->cfg, &recorded, &err), 0);
    renew(s, &a, &none);
    fd = open(s->rw, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 5), 1);
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, recorded, NULL, &copies, &err), -ESTALE);
    assert_non_null(strstr(err.msg, "disk rw: copy "));
    assert_non_null(strstr(err.msg, "it was written after the snapshot"));
    assert_int_equal(copies.nr, 0);
    assert_int_equal(access(a.disks[0].path, F_OK), -1);
    /* Whoever knows better does not ask. */
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, NULL, NULL, &copies, &err), 0);
    snap_copies_release(&copies);
    assert_int_equal(access(a.disks[0].path, F_OK), 0);
    vm_config_release(&a);
}

static void test_copies_are_equal_and_sparse(void **state)
{
    struct snap_fixture *s = *state;
    struct snap_copies copies = {0};
    auto_close int fd = -1;
    struct vm_config a;
    struct err err = {0};
    struct stat st;
    char byte = 0;

    renew(s, &a, &none);
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, NULL, NULL, &copies, &err), 0);
    fd = open(a.disks[0].path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 65536);
    assert_true(st.st_blocks * 512 < 65536);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(pread(fd, &byte, 1, 40000), 1);
    assert_int_equal(byte, 'w');
    assert_int_equal(pread(fd, &byte, 1, 39999), 1);
    assert_int_equal(byte, 0);
    /* A clone that does not come to life leaves none. */
    assert_int_equal(copies.nr, 1);
    snap_copies_remove(&copies);
    assert_int_equal(access(a.disks[0].path, F_OK), -1);
    vm_config_release(&a);
}

static void test_a_disk_of_ones_own_is_left_alone(void **state)
{
    struct snap_fixture *s = *state;
    struct snap_copies copies = {0};
    struct vm_config a;
    struct err err = {0};
    struct stat st;

    assert_int_equal(vm_config_copy(&s->cfg, &a), 0);
    assert_int_equal(vm_config_set_string(&a.disks[0].path, snap_fixture_path(s, "mine")), 0);
    assert_int_equal(mknod(a.disks[0].path, S_IFREG | 0600, 0), 0);
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, NULL, NULL, &copies, &err), 0);
    assert_int_equal(stat(a.disks[0].path, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(copies.nr, 0);
    vm_config_release(&a);
}

static void test_a_copy_that_fails_leaves_nothing(void **state)
{
    struct snap_fixture *s = *state;
    struct snap_copies copies = {0};
    struct vm_config a;
    struct err err = {0};

    s->cfg.disks[1].readonly = false;
    renew(s, &a, &none);
    assert_int_equal(unlink(s->ro), 0);
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, NULL, NULL, &copies, &err), -ENOENT);
    assert_memory_equal(err.msg, "disk ro: copy ", 14);
    assert_int_equal(access(a.disks[0].path, F_OK), -1);
    assert_int_equal(access(a.disks[1].path, F_OK), -1);
    err = (struct err){0};
    /* Nor is anything made where there is nothing to copy to. */
    assert_int_equal(vm_config_set_string(&a.disks[0].path, "/nonexistent/x"), 0);
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, NULL, NULL, &copies, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "disk rw"));
    vm_config_release(&a);
}

/* The disk is there, is what the original's is, and nothing is beside it. */
static void assert_copied(const struct vm_config *a)
{
    char command[2048];

    (void)snprintf(command, sizeof(command), "cmp '%s' '%s' && ! ls '%s'.* 2>/dev/null",
                   a->disks[1].path, a->disks[0].path, a->disks[0].path);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): a test's own words */
}

/* What a copy that was killed has left is not taken for a disk, nor does it stand in the way. */
static void test_half_a_copy_is_no_disk(void **state)
{
    struct snap_fixture *s = *state;
    struct snap_copies copies = {0};
    char left[FIXTURE_PATH_MAX + 64];
    auto_close int fd = -1, other = -1;
    struct vm_config a;
    struct err err = {0};
    struct stat st;

    has_no_tmpfile = true;
    assert_int_equal(vm_config_copy(&s->cfg, &a), 0);
    assert_int_equal(vm_config_set_string(&a.disks[0].path, snap_fixture_path(s, "mine")), 0);
    assert_int_equal(vm_config_set_string(&a.disks[1].path, s->rw), 0); /* to compare with */
    (void)snprintf(left, sizeof(left), "%s.chvmm-copying", a.disks[0].path);
    /* As long as the disk, and more: but not what is in it. */
    fd = open(left, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, "half", 4, 100000), 4);
    /* While somebody copies to there it is his. */
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, NULL, NULL, &copies, &err), -EBUSY);
    assert_non_null(strstr(err.msg, "disk rw: copy "));
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 100004);
    assert_int_equal(access(a.disks[0].path, F_OK), -1);
    /* He was killed. */
    (void)close(steal_fd(&fd));
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, NULL, NULL, &copies, &err), 0);
    assert_copied(&a);
    snap_copies_remove(&copies);
    /* One that fails leaves nothing at all. */
    other = open(s->rw, O_WRONLY | O_CLOEXEC);
    {
        auto_free char *recorded = NULL;

        assert_int_equal(snap_disks_describe(&s->cfg, &recorded, &err), 0);
        assert_int_equal(pwrite(other, "x", 1, 5), 1);
        assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, recorded, NULL, &copies, &err),
                         -ESTALE);
    }
    assert_int_equal(access(a.disks[0].path, F_OK), -1);
    assert_int_equal(access(left, F_OK), -1);
    vm_config_release(&a);
    has_no_tmpfile = false;
}

/* Whole, but of another time than the memory: a clone has run with it. */
static void test_the_disk_of_an_earlier_clone_is_refused(void **state)
{
    char item[FIXTURE_PATH_MAX + 64];
    char *items[] = {item};
    const struct snap_sets sets = {items, 1};
    struct snap_fixture *s = *state;
    struct snap_copies copies = {0};
    auto_free char *recorded = NULL;
    auto_close int fd = -1;
    struct vm_config a;
    const struct snap_disks_use use = {&a, &sets, true};
    struct err err = {0};
    char mark[8];

    (void)snprintf(item, sizeof(item), "disks.rw.path=%s", snap_fixture_path(s, "mine"));
    assert_int_equal(snap_disks_describe(&s->cfg, &recorded, &err), 0);
    assert_int_equal(vm_config_copy(&s->cfg, &a), 0);
    assert_int_equal(snap_sets_apply(&sets, &a, &s->why, &err), 0);
    assert_int_equal(snap_identity_copy_disks(&s->cfg, &a, recorded, NULL, &copies, &err), 0);
    assert_int_equal(copies.nr, 1);
    snap_copies_release(&copies);
    if (getxattr(a.disks[0].path, "user.chrysalis.copy", mark, 0) < 0) {
        vm_config_release(&a);
        skip(); /* a file system without attributes */
    }
    /* One that never ran leaves a disk that is as good as a new copy. */
    assert_int_equal(snap_disks_check(recorded, &use, &s->why, &err), 0);
    assert_int_equal(s->why.nr, 0);
    /* One that did does not. */
    fd = open(a.disks[0].path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 5), 1);
    assert_int_equal(snap_disks_check(recorded, &use, &s->why, &err), 0);
    snap_fixture_one_problem(s, "mine): it is an earlier clone's, which has written to it");
    /* For the snapshot of another state of the original it is any image. */
    (void)close(steal_fd(&fd));
    fd = open(s->rw, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 5), 1);
    free(recorded);
    assert_int_equal(snap_disks_describe(&s->cfg, &recorded, &err), 0);
    s->why.nr = 0;
    assert_int_equal(snap_disks_check(recorded, &use, &s->why, &err), 0);
    assert_int_equal(s->why.nr, 0);
    vm_config_release(&a);
}

/* --- The host ------------------------------------------------------------------------ */

static void test_a_host_that_has_everything_is_good(void **state)
{
    struct snap_fixture *s = *state;

    s->cfg.nr_nets = 0; /* a host of tests may have no /dev/net/tun */
    snap_host_check(&s->cfg, false, &s->why);
    s->cfg.nr_nets = 1;
    assert_int_equal(s->why.nr, 0);
}

static void test_all_that_a_host_lacks_is_listed(void **state)
{
    struct snap_fixture *s = *state;
    int fd = -1;

    assert_int_equal(vm_config_set_string(&s->cfg.disks[1].path, "/nonexistent/ro"), 0);
    assert_int_equal(vm_config_set_string(&s->cfg.serial.file, "/nonexistent/log"), 0);
    assert_int_equal(vm_config_set_string(&s->cfg.rng.src, "/nonexistent/rng"), 0);
    s->cfg.nets[0].fds = &fd;
    s->cfg.nets[0].nr_fds = 1;
    s->cfg.memory.hugepages = true;
    s->cfg.memory.hugepage_size = UINT64_C(1) << 50;
    snap_host_check(&s->cfg, false, &s->why);
    s->cfg.nets[0].fds = NULL;
    s->cfg.nets[0].nr_fds = 0;
    assert_int_equal(s->why.nr, 5);
    assert_non_null(strstr(s->why.text[0], "memory: this host has no huge pages"));
    assert_non_null(strstr(s->why.text[1], "disk ro: /nonexistent/ro"));
    assert_non_null(strstr(s->why.text[2], "net lan: its tap was a descriptor"));
    assert_non_null(strstr(s->why.text[3], "serial.file: /nonexistent/log"));
    assert_non_null(strstr(s->why.text[4], "rng.src: /nonexistent/rng"));
}

static void test_huge_pages_are_counted_once_for_all_zones(void **state)
{
    struct memory_zone_config zones[2] = {
        {.hugepages = true, .size = UINT64_C(1) << 45},
        {.hugepages = true, .size = UINT64_C(1) << 45},
    };
    struct snap_fixture *s = *state;
    char none_free[] = "a", more[] = "b";

    s->cfg.nr_nets = 0;
    zones[0].id = none_free;
    zones[1].id = more;
    s->cfg.memory.zones = zones;
    s->cfg.memory.nr_zones = 2;
    snap_host_check(&s->cfg, false, &s->why);
    s->cfg.memory.zones = NULL;
    s->cfg.memory.nr_zones = 0;
    s->cfg.nr_nets = 1;
    /* Of the host's own size, since none was given. */
    snap_fixture_one_problem(s, "memory zone a: ");
}

static void test_a_socket_s_path_has_an_end(void **state)
{
    struct snap_fixture *s = *state;
    char path[200];

    (void)snprintf(path, sizeof(path), "/tmp/%0190d", 1);
    s->cfg.nr_nets = 0;
    s->cfg.serial.mode = CONSOLE_SOCKET;
    assert_int_equal(vm_config_set_string(&s->cfg.serial.socket, path), 0);
    snap_host_check(&s->cfg, false, &s->why);
    s->cfg.nr_nets = 1;
    snap_fixture_one_problem(s, "File name too long");
}

static void test_a_socket_takes_the_place_of_no_file(void **state)
{
    struct snap_fixture *s = *state;

    s->cfg.nr_nets = 0;
    s->cfg.serial.mode = CONSOLE_SOCKET;
    assert_int_equal(vm_config_set_string(&s->cfg.serial.socket, "/dev/null"), 0);
    snap_host_check(&s->cfg, false, &s->why);
    s->cfg.nr_nets = 1;
    snap_fixture_one_problem(s, "serial.socket: /dev/null: is there and is not a socket");
}

static void test_a_disk_is_missed_once(void **state)
{
    struct snap_fixture *s = *state;

    s->cfg.nr_nets = 0;
    assert_int_equal(unlink(s->ro), 0);
    snap_problem(&s->why, "disk ro (%s): No such file or directory", s->ro);
    snap_host_check(&s->cfg, false, &s->why);
    s->cfg.nr_nets = 1;
    snap_fixture_one_problem(s, "disk ro (");
}

static void test_a_copy_that_is_still_to_be_made_is_not_missed(void **state)
{
    struct snap_fixture *s = *state;

    s->cfg.nr_nets = 0;
    assert_int_equal(
        vm_config_set_string(&s->cfg.disks[0].path, snap_fixture_path(s, "to-be-made")), 0);
    snap_host_check(&s->cfg, true, &s->why);
    assert_int_equal(s->why.nr, 0);
    snap_host_check(&s->cfg, false, &s->why);
    s->cfg.nr_nets = 1;
    snap_fixture_one_problem(s, "to-be-made: No such file");
}

static void test_what_is_no_image_is_refused(void **state)
{
    struct snap_fixture *s = *state;

    s->cfg.nr_nets = 0;
    assert_int_equal(unlink(s->ro), 0);
    assert_int_equal(mkdir(s->ro, 0700), 0);
    snap_host_check(&s->cfg, false, &s->why);
    s->cfg.nr_nets = 1;
    assert_int_equal(rmdir(s->ro), 0);
    snap_fixture_one_problem(s, "ro.img: neither a file nor a block device");
}

/* Found when the machine is built, one by one and with the disks copied, they were once. */
static void test_what_is_no_file_and_no_tap_is_refused(void **state)
{
    struct snap_fixture *s = *state;
    struct net_config *net = &s->cfg.nets[0];

    assert_int_equal(vm_config_set_string(&s->cfg.serial.file, s->f.dir), 0);
    assert_int_equal(vm_config_set_string(&s->cfg.rng.src, s->f.dir), 0);
    assert_int_equal(vm_config_set_string(&net->tap, "lo"), 0);
    snap_host_check(&s->cfg, false, &s->why);
    assert_int_equal(s->why.nr, 3);
    if (access("/dev/net/tun", R_OK | W_OK) == 0)
        assert_string_equal(s->why.text[0], "net lan: interface lo is not a tap");
    assert_non_null(strstr(s->why.text[1], "serial.file: "));
    assert_non_null(strstr(s->why.text[1], ": Is a directory"));
    assert_non_null(strstr(s->why.text[2], "rng.src: "));
    assert_non_null(strstr(s->why.text[2], ": Is a directory"));
}

static void test_one_image_for_two_disks_is_refused_if_one_writes(void **state)
{
    struct snap_fixture *s = *state;

    s->cfg.nr_nets = 0;
    assert_int_equal(unlink(s->ro), 0);
    assert_int_equal(link(s->rw, s->ro), 0);
    snap_host_check(&s->cfg, false, &s->why);
    snap_fixture_one_problem(s, "ro.img is disk rw as well");
    s->cfg.disks[0].readonly = true;
    snap_host_check(&s->cfg, false, &s->why);
    assert_int_equal(s->why.nr, 0);
    /* Two copies that are still to be made cannot have one name. */
    s->cfg.disks[0].readonly = s->cfg.disks[1].readonly = false;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(
            vm_config_set_string(&s->cfg.disks[i].path, snap_fixture_path(s, "to-be-made")), 0);
    snap_host_check(&s->cfg, true, &s->why);
    s->cfg.nr_nets = 1;
    snap_fixture_one_problem(s, "to-be-made is disk rw as well");
}

/* A lock of the whole file, as another VM has it. */
static int lock_image(const char *path, short type)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
    return fd;
}

static void test_all_disks_that_others_have_are_listed(void **state)
{
    struct snap_fixture *s = *state;
    int rw = lock_image(s->rw, F_RDLCK), ro = lock_image(s->ro, F_WRLCK);

    snap_host_check_locks(&s->cfg, &s->why);
    assert_int_equal(s->why.nr, 2);
    assert_non_null(strstr(s->why.text[0], "rw.img is in use by another process"));
    assert_non_null(strstr(s->why.text[1], "ro.img is in use by another process"));
    s->why.nr = 0;
    (void)close(rw);
    (void)close(ro);

    /* Those who only read share; and looking has left no lock behind. */
    ro = lock_image(s->ro, F_RDLCK);
    snap_host_check_locks(&s->cfg, &s->why);
    assert_int_equal(s->why.nr, 0);
    rw = lock_image(s->rw, F_WRLCK);
    (void)close(rw);
    (void)close(ro);

    /* One that is not there, as a copy that is still to be made, nobody has. */
    assert_int_equal(unlink(s->rw), 0);
    snap_host_check_locks(&s->cfg, &s->why);
    assert_int_equal(s->why.nr, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, snap_fixture_setup, snap_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_clone_has_its_own_of_everything),
        T(test_what_it_was_told_to_be_stays),
        T(test_what_cannot_be_unique_is_refused_by_name),
        T(test_shared_memory_of_the_original_is_not_the_clone_s),
        T(test_the_original_s_disk_is_not_the_clone_s),
        T(test_a_disk_that_changes_while_it_is_copied_is_refused),
        T(test_copies_are_equal_and_sparse),
        T(test_a_disk_of_ones_own_is_left_alone),
        T(test_a_copy_that_fails_leaves_nothing),
        T(test_half_a_copy_is_no_disk),
        T(test_the_disk_of_an_earlier_clone_is_refused),
        T(test_a_host_that_has_everything_is_good),
        T(test_all_that_a_host_lacks_is_listed),
        T(test_huge_pages_are_counted_once_for_all_zones),
        T(test_a_socket_s_path_has_an_end),
        T(test_a_socket_takes_the_place_of_no_file),
        T(test_a_disk_is_missed_once),
        T(test_a_copy_that_is_still_to_be_made_is_not_missed),
        T(test_what_is_no_image_is_refused),
        T(test_what_is_no_file_and_no_tap_is_refused),
        T(test_one_image_for_two_disks_is_refused_if_one_writes),
        T(test_all_disks_that_others_have_are_listed),
    };

    return cmocka_run_group_tests_name("snap_identity", tests, NULL, NULL);
}
