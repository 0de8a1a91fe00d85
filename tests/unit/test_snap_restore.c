/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory out of a real store, in each way that there is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "core/gmem.h"
#include "snapshot/snap_image.h"
#include "snapshot/snap_restore.h"
#include "snapshot/snap_sizes.h"
#include "tests/unit/store_fixture.h"

enum {
    PAGES = 1500,
    WAIT_MS = 20000,
};

struct restore_test {
    struct fixture f;
    struct image img;
    char url[FIXTURE_PATH_MAX + 32];
    struct gmem *gm;
    struct snap *snap;
    atomic_uint wholes, losses;
    struct err lost;
};

static void on_whole(void *arg, const struct snap_lazy_figures *f)
{
    struct restore_test *t = arg;

    (void)f;
    atomic_fetch_add(&t->wholes, 1);
}

static void on_lost(void *arg, const struct err *err)
{
    struct restore_test *t = arg;

    t->lost = *err;
    atomic_fetch_add(&t->losses, 1);
}

static int setup(void **state)
{
    struct restore_test *t = calloc(1, sizeof(*t));
    struct store *st = NULL;
    char id[STORE_DIGEST_HEX + 1];

    assert_non_null(t);
    fixture_make(&t->f);
    t->img = image_make(PAGES, 5);
    assert_int_equal(store_open(t->f.path, STORE_CREATE, &st, NULL), 0);
    assert_int_equal(image_put(st, &t->img, NULL, "one", id, NULL), 0);
    store_close(st);
    (void)snprintf(t->url, sizeof(t->url), "store:%s#one", t->f.path);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct restore_test *t = *state;

    snap_close(t->snap);
    gmem_free(t->gm);
    image_free(&t->img);
    fixture_remove(&t->f);
    free(t);
    return 0;
}

static void open_snapshot(struct restore_test *t)
{
    struct err err = {0};

    snap_close(t->snap);
    t->snap = NULL;
    if (snap_open(t->url, &t->snap, &err) < 0)
        fail_msg("%s", err.msg);
}

static void make_memory(struct restore_test *t, const struct gmem_backing *b, uint64_t pages)
{
    gmem_free(t->gm);
    t->gm = NULL;
    assert_int_equal(gmem_new(&t->gm), 0);
    assert_int_equal(gmem_add_region(t->gm, FIXTURE_GPA, pages << PAGE_SHIFT_4K, "ram", b, NULL),
                     0);
}

static int load(struct restore_test *t, enum snap_memory_mode mode, struct snap_loaded *loaded,
                struct err *err)
{
    const struct snap_load_params how = {
        .mode = mode, .whole = on_whole, .lost = on_lost, .arg = t};
    struct snap_progress p = {0};

    return snap_load_memory(t->snap, t->gm, &how, &p, loaded, err);
}

static void check_memory(const struct restore_test *t)
{
    assert_memory_equal(gmem_region(t->gm, 0)->hva, t->img.p, PAGES << PAGE_SHIFT_4K);
}

static void wait_whole(struct restore_test *t)
{
    for (int i = 0; i < WAIT_MS && !atomic_load(&t->wholes) && !atomic_load(&t->losses); i++)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 1000000}, NULL);
    assert_int_equal(atomic_load(&t->wholes), 1);
    atomic_store(&t->wholes, 0);
}

/* Names in cache/ that end so; the last in @name. */
static unsigned cached(const struct restore_test *t, const char *end, char *name, size_t cap)
{
    char path[2 * FIXTURE_PATH_MAX];
    unsigned n = 0;
    DIR *d;

    (void)snprintf(path, sizeof(path), "%s/cache", t->f.path);
    d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        size_t len = strlen(e->d_name);

        if (len < strlen(end) || strcmp(e->d_name + len - strlen(end), end) != 0)
            continue;
        n++;
        if (name)
            (void)snprintf(name, cap, "%s/%s", path, e->d_name);
    }
    (void)closedir(d);
    return n;
}

static void test_every_way_brings_the_same(void **state)
{
    static const enum snap_memory_mode modes[] = {SNAP_MEMORY_COPY, SNAP_MEMORY_LAZY,
                                                  SNAP_MEMORY_MAPPED, SNAP_MEMORY_AUTO};
    const struct gmem_backing anon = {.fd = -1};
    struct restore_test *t = *state;

    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct snap_loaded loaded;
        struct err err = {0};

        make_memory(t, &anon, PAGES);
        open_snapshot(t);
        if (load(t, modes[i], &loaded, &err) < 0)
            fail_msg("%s: %s", snap_memory_mode_name(modes[i]), err.msg);
        /* The last one finds the image that the one before has made. */
        assert_int_equal(loaded.mode, i < 3 ? modes[i] : SNAP_MEMORY_MAPPED);
        assert_string_equal(loaded.why, "");
        check_memory(t);
        if (modes[i] == SNAP_MEMORY_LAZY)
            wait_whole(t);
    }
}

static void test_without_an_image_memory_comes_on_demand(void **state)
{
    const struct gmem_backing shared = {.fd = -1, .shared = true};
    struct restore_test *t = *state;
    struct snap_loaded loaded;
    struct err err = {0};

    make_memory(t, &shared, PAGES);
    open_snapshot(t);
    assert_int_equal(load(t, SNAP_MEMORY_AUTO, &loaded, &err), 0);
    assert_int_equal(loaded.mode, SNAP_MEMORY_LAZY);
    /* The store stays open for it although nobody else needs it. */
    snap_close(t->snap);
    t->snap = NULL;
    check_memory(t);
    wait_whole(t);
}

static void test_where_neither_can_be_it_is_copied_and_says_why(void **state)
{
    struct gmem_backing used = {.fd = memfd_create("used", MFD_CLOEXEC), .shared = true};
    struct restore_test *t = *state;
    struct snap_loaded loaded;
    struct err err = {0};

    /* What is in it already gives way, also to zeroes. */
    for (int i = 0; i < PAGES; i++)
        assert_int_equal(pwrite(used.fd, "old", 3, (off_t)i * 4096 + 77), 3);
    make_memory(t, &used, PAGES);
    open_snapshot(t);
    assert_int_equal(load(t, SNAP_MEMORY_AUTO, &loaded, &err), 0);
    assert_int_equal(loaded.mode, SNAP_MEMORY_COPY);
    assert_non_null(strstr(loaded.why, "memory zone ram"));
    check_memory(t);
    assert_int_equal(load(t, SNAP_MEMORY_LAZY, &loaded, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "memory zone ram cannot be restored on demand"));
    err = (struct err){0};
    assert_int_equal(load(t, SNAP_MEMORY_MAPPED, &loaded, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "memory zone ram cannot be mapped"));
}

static void test_another_layout_is_refused(void **state)
{
    const struct gmem_backing anon = {.fd = -1};
    struct restore_test *t = *state;
    struct snap_loaded loaded;
    struct err err = {0};

    make_memory(t, &anon, PAGES + 1);
    open_snapshot(t);
    assert_int_equal(load(t, SNAP_MEMORY_AUTO, &loaded, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "memory region 0"));
    assert_int_equal(gmem_add_region(t->gm, 0, 4096, "more", &anon, NULL), 0);
    err = (struct err){0};
    assert_int_equal(load(t, SNAP_MEMORY_AUTO, &loaded, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "1 memory regions, the machine 2"));
}

static void flip_packs(const struct restore_test *t)
{
    char path[2 * FIXTURE_PATH_MAX];
    auto_close int fd = -1;
    uint8_t byte = 0;
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s/packs/00000001.pack", t->f.path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    for (off_t at = 4096; at < st.st_size / 2; at += 997) {
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
}

static void test_a_damaged_page_is_refused_in_every_way(void **state)
{
    const struct gmem_backing anon = {.fd = -1};
    struct restore_test *t = *state;
    struct snap_loaded loaded;
    struct err err = {0};

    open_snapshot(t);
    flip_packs(t);
    make_memory(t, &anon, PAGES);
    assert_int_equal(load(t, SNAP_MEMORY_COPY, &loaded, &err), -EBADMSG);
    assert_non_null(strstr(err.msg, "region 0"));
    make_memory(t, &anon, PAGES);
    err = (struct err){0};
    assert_int_equal(load(t, SNAP_MEMORY_MAPPED, &loaded, &err), -EBADMSG);
    assert_int_equal(cached(t, "", NULL, 0), 2); /* . and .. : no half image */
    make_memory(t, &anon, PAGES);
    assert_int_equal(load(t, SNAP_MEMORY_LAZY, &loaded, &err), 0);
    for (int i = 0; i < WAIT_MS && !atomic_load(&t->losses); i++)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 1000000}, NULL);
    assert_int_equal(atomic_load(&t->losses), 1);
    assert_int_equal(t->lost.code, -EBADMSG);
    assert_true(gmem_is_served(t->gm));
}

static void test_images_of_other_boots_and_of_lost_snapshots_go(void **state)
{
    char image[3 * FIXTURE_PATH_MAX], other[3 * FIXTURE_PATH_MAX + 8];
    struct restore_test *t = *state;
    struct snap_progress p = {0};
    struct err err = {0};

    open_snapshot(t);
    assert_int_equal(snap_expand(t->snap, &p, &err), 0);
    assert_int_equal(cached(t, ".ram", image, sizeof(image)), 1);
    /* One of another boot: the same but for the boot id's last digit. */
    (void)snprintf(other, sizeof(other), "%s", image);
    other[strlen(other) - 5] = other[strlen(other) - 5] == '0' ? '1' : '0';
    assert_int_equal(rename(image, other), 0);
    /* One of no snapshot, and an order of no snapshot; something that is not ours. */
    (void)snprintf(image, sizeof(image), "%s", other);
    (void)snprintf(strrchr(image, '/'), 80, "/%064d.touch", 0);
    assert_int_equal(mknod(image, S_IFREG | 0600, 0), 0);
    (void)snprintf(strrchr(image, '/'), 80, "/notes.txt");
    assert_int_equal(mknod(image, S_IFREG | 0600, 0), 0);
    assert_int_equal(snap_expand(t->snap, &p, &err), 0);
    assert_int_equal(access(other, F_OK), -1);
    assert_int_equal(cached(t, ".ram", NULL, 0), 1);
    assert_int_equal(cached(t, ".touch", NULL, 0), 0);
    assert_int_equal(cached(t, ".txt", NULL, 0), 1);
}

static void test_an_image_that_others_could_have_written_is_made_anew(void **state)
{
    const struct gmem_backing anon = {.fd = -1};
    char image[3 * FIXTURE_PATH_MAX];
    struct restore_test *t = *state;
    struct snap_progress p = {0};
    struct snap_loaded loaded;
    struct err err = {0};

    open_snapshot(t);
    assert_int_equal(snap_expand(t->snap, &p, &err), 0);
    assert_int_equal(cached(t, ".ram", image, sizeof(image)), 1);
    for (int i = 0; i < 3; i++) {
        if (i == 0)
            assert_int_equal(chmod(image, 0620), 0);
        else if (i == 1)
            assert_int_equal(truncate(image, 4096), 0);
        else
            assert_int_equal(unlink(image) + symlink("/dev/zero", image), 0);
        make_memory(t, &anon, PAGES);
        assert_int_equal(load(t, SNAP_MEMORY_AUTO, &loaded, &err), 0);
        assert_int_equal(loaded.mode, SNAP_MEMORY_LAZY);
        check_memory(t);
        make_memory(t, &anon, PAGES);
        assert_int_equal(load(t, SNAP_MEMORY_MAPPED, &loaded, &err), 0);
        check_memory(t);
        t->wholes = 0;
    }
}

static void test_a_restore_can_be_cancelled(void **state)
{
    const struct gmem_backing anon = {.fd = -1};
    const struct snap_load_params how = {.mode = SNAP_MEMORY_COPY};
    struct restore_test *t = *state;
    struct snap_progress p = {0};
    struct snap_loaded loaded;
    struct err err = {0};

    open_snapshot(t);
    make_memory(t, &anon, PAGES);
    snap_cancel(&p);
    assert_int_equal(snap_load_memory(t->snap, t->gm, &how, &p, &loaded, &err), -ECANCELED);
    assert_int_equal(snap_expand(t->snap, &p, &err), -ECANCELED);
    assert_int_equal(cached(t, ".ram", NULL, 0), 0);
}

static void test_what_is_not_there_is_refused_by_name(void **state)
{
    struct restore_test *t = *state;
    struct snap *snap = NULL;
    struct err err = {0};
    char url[FIXTURE_PATH_MAX + 32];

    assert_int_equal(snap_open("nonsense:", &snap, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "nonsense:"));
    err = (struct err){0};
    assert_int_equal(snap_open("store:/nonexistent#x", &snap, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent"));
    (void)snprintf(url, sizeof(url), "store:%s#two", t->f.path);
    err = (struct err){0};
    assert_int_equal(snap_open(url, &snap, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "two"));
    assert_null(snap);
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void test_what_an_earlier_run_touched_is_read_ahead(void **state)
{
    struct restore_test *t = *state;
    const struct gmem_backing anon = {.fd = -1};
    struct snap_loaded loaded;
    struct err err = {0};

    /* Memory may be whole before anybody touches it, and then no order is noted. */
    for (int i = 0, noted = 0; noted < 2; i++) {
        assert_int_not_equal(i, 100);
        open_snapshot(t);
        make_memory(t, &anon, PAGES);
        snap_look_ahead(t->snap, SNAP_MEMORY_LAZY, never, NULL);
        if (load(t, SNAP_MEMORY_LAZY, &loaded, &err) == -EPERM)
            skip();
        check_memory(t);
        wait_whole(t);
        noted += cached(t, ".touch", NULL, 0) == 1;
    }
}

static void write_sizes(const struct restore_test *t, const void *bytes, size_t len)
{
    char path[2 * FIXTURE_PATH_MAX];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/cache/sizes", t->f.path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    (void)close(fd);
}

static void test_a_size_is_noted_for_each_name(void **state)
{
    struct restore_test *t = *state;
    uint8_t hostile[SNAP_SIZES_SLOTS * 16];
    char two[FIXTURE_PATH_MAX + 32], newest[FIXTURE_PATH_MAX + 32];

    (void)snprintf(two, sizeof(two), "store:%s#two", t->f.path);
    (void)snprintf(newest, sizeof(newest), "store:%s", t->f.path);
    assert_int_equal(snap_sizes_find(t->url), 0);
    snap_sizes_note(t->url, 0);
    assert_int_equal(cached(t, "sizes", NULL, 0), 0);
    snap_sizes_note(t->url, 4096);
    snap_sizes_note(two, UINT64_C(1) << 33);
    assert_int_equal(snap_sizes_find(t->url), 4096);
    assert_int_equal(snap_sizes_find(two), UINT64_C(1) << 33);
    assert_int_equal(snap_sizes_find(newest), 0);
    snap_sizes_note(t->url, 8192);
    assert_int_equal(snap_sizes_find(t->url), 8192);

    assert_int_equal(snap_sizes_find("nonsense:"), 0);
    assert_int_equal(snap_sizes_find("store:/nonexistent#one"), 0);
    snap_sizes_note("store:/nonexistent#one", 4096);
    /* Of another name, no whole pages, more than a machine has, cut short. */
    memset(hostile, 0x41, sizeof(hostile));
    write_sizes(t, hostile, sizeof(hostile));
    assert_int_equal(snap_sizes_find(t->url), 0);
    snap_sizes_note(t->url, 4097);
    assert_int_equal(snap_sizes_find(t->url), 0);
    snap_sizes_note(t->url, UINT64_MAX - 4095);
    assert_int_equal(snap_sizes_find(t->url), 0);
    write_sizes(t, hostile, 1);
    assert_int_equal(snap_sizes_find(t->url), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_every_way_brings_the_same),
        T(test_without_an_image_memory_comes_on_demand),
        T(test_where_neither_can_be_it_is_copied_and_says_why),
        T(test_another_layout_is_refused),
        T(test_a_damaged_page_is_refused_in_every_way),
        T(test_images_of_other_boots_and_of_lost_snapshots_go),
        T(test_an_image_that_others_could_have_written_is_made_anew),
        T(test_a_restore_can_be_cancelled),
        T(test_what_is_not_there_is_refused_by_name),
        T(test_what_an_earlier_run_touched_is_read_ahead),
        T(test_a_size_is_noted_for_each_name),
    };

    return cmocka_run_group_tests_name("snap_restore", tests, NULL, NULL);
}
