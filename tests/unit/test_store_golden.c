/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stores of every released format open, verify and read for ever.
 *
 *     test_store_golden --make DIRECTORY
 *
 * makes one of the format of today, for when a new format is released.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/unit/store_fixture.h"

enum {
    LOW_PAGES = 4,
    HIGH_PAGES = 600, /* two leaves, so that there is a node above them */
};

static const char golden_state[] = "golden state";

/* Page @i of the region above 1 MiB, in the first (0) and the second (1) snapshot. */
static void golden_page(unsigned snapshot, uint64_t i, uint8_t *page)
{
    memset(page, 0, PAGE_SIZE_4K);
    if (i >= 8 && i < 590)
        return;
    for (size_t at = 0; at < PAGE_SIZE_4K; at++)
        page[at] = (uint8_t)((at >> 6) * (i + 1) + at % 7);
    if (snapshot == 1 && i == 5)
        memset(page, 0x55, PAGE_SIZE_4K);
}

static int golden_put(struct store *st, unsigned snapshot, struct err *err)
{
    static const char *const names[] = {"first", "second"};
    const struct store_writer_region regions[] = {
        {.gpa = 0,      .pages = LOW_PAGES },
        {.gpa = MIB(1), .pages = HIGH_PAGES},
    };
    const struct store_writer_cfg cfg = {
        .name = names[snapshot],
        .parent = snapshot ? names[0] : NULL,
        .tags = snapshot ? "blue,green" : NULL,
        .vm = "golden-vm",
        .nr_regions = 2,
        .regions = regions,
        .callers_only = true,
    };
    const struct store_publish what = {.state = golden_state,
                                       .state_len = sizeof(golden_state) - 1,
                                       .config = "{\"cpus\":{\"boot_vcpus\":1}}",
                                       .disks = "[{\"path\":\"/disk\"}]"};
    char id[STORE_DIGEST_HEX + 1];
    uint8_t page[PAGE_SIZE_4K];
    struct store_writer *w;
    int rc = store_writer_begin(st, &cfg, &w, err);

    if (rc < 0)
        return rc;
    rc = store_writer_zero(w, 0, 0, LOW_PAGES, err);
    for (uint64_t i = 0; i < HIGH_PAGES && rc == 0; i++) {
        golden_page(snapshot, i, page);
        rc = store_writer_pages(w, 1, i, 1, page, err);
    }
    if (rc < 0) {
        store_writer_abort(w);
        return rc;
    }
    return store_writer_publish(w, &what, id, err);
}

static int make(const char *path)
{
    struct err err = {0};
    struct store *st;
    int rc = store_open(path, STORE_CREATE, &st, &err);

    if (rc == 0) {
        rc = golden_put(st, 0, &err);
        if (rc == 0)
            rc = golden_put(st, 1, &err);
        store_close(st);
    }
    if (rc < 0)
        (void)fprintf(stderr, "%s\n", err.msg);
    return rc < 0;
}

static void check_snapshot(struct store *st, const char *ref, unsigned snapshot)
{
    struct store_snapshot *snap;
    const struct store_info *info;
    uint8_t want[PAGE_SIZE_4K], got[PAGE_SIZE_4K];
    struct err err = {0};
    uint8_t *state;
    size_t len;

    assert_ok(store_snapshot_open(st, ref, &snap, &err), &err);
    info = store_snapshot_info(snap);
    assert_string_equal(info->rec->vm, "golden-vm");
    assert_string_equal(info->rec->config, "{\"cpus\":{\"boot_vcpus\":1}}");
    assert_string_equal(info->rec->disks, "[{\"path\":\"/disk\"}]");
    assert_int_equal(info->rec->nr_regions, 2);
    assert_int_equal(info->rec->regions[1].gpa, MIB(1));
    assert_int_equal(info->rec->regions[1].pages, HIGH_PAGES);
    assert_int_equal(info->nr_tags, snapshot ? 2 : 0);
    for (uint64_t i = 0; i < HIGH_PAGES; i++) {
        golden_page(snapshot, i, want);
        memset(got, 0xee, sizeof(got));
        assert_ok(store_snapshot_read(snap, 1, i, 1, got, &err), &err);
        assert_memory_equal(got, want, PAGE_SIZE_4K);
    }
    assert_ok(store_snapshot_state(snap, &state, &len, &err), &err);
    assert_int_equal(len, sizeof(golden_state) - 1);
    assert_memory_equal(state, golden_state, len);
    free(state);
    store_snapshot_close(snap);
}

/* A store of tests/golden/store, at @fx->path; @id begins the id of its second snapshot. */
static void check_store(struct fixture *fx, const char *name, const char *id)
{
    struct image img = image_make(20, 1);
    struct err err = {0};
    struct store *st;
    char path[512];

    (void)snprintf(path, sizeof(path), CHRYSALIS_SOURCE_DIR "/tests/golden/store/%s", name);
    tree_copy(path, fx->path);
    assert_ok(store_open(fx->path, 0, &st, &err), &err);
    assert_int_equal(store_problems(st, true), 0);
    check_snapshot(st, "first", 0);
    check_snapshot(st, "second", 1);
    check_snapshot(st, "green", 1);
    check_snapshot(st, id, 1);
    /* And it is written to as well. */
    assert_ok(image_put(st, &img, "second", "third", NULL, &err), &err);
    assert_int_equal(image_compare(st, "third", &img, &err), 0);
    check_snapshot(st, "second", 1);
    assert_int_equal(store_problems(st, true), 0);
    store_close(st);
    image_free(&img);
}

/* Length of the reserve of the store in @fx; -1 if it has none. */
static long long reserve_len(const struct fixture *fx)
{
    char path[512];
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s/reserve", fx->path);
    return stat(path, &st) == 0 ? (long long)st.st_size : -1;
}

static void test_version_1_opens_verifies_and_reads(void **state)
{
    struct fixture fx;

    (void)state;
    fixture_make(&fx);
    check_store(&fx, "v1", "2c531db7");
    assert_int_equal(reserve_len(&fx), MIB(1)); /* it had none */
    fixture_remove(&fx);
}

static void test_version_1_with_a_reserve_opens_verifies_and_reads(void **state)
{
    struct fixture fx;

    (void)state;
    fixture_make(&fx);
    check_store(&fx, "v1-reserve", "a4ec6d7b");
    assert_int_equal(reserve_len(&fx), MIB(1));
    fixture_remove(&fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_1_opens_verifies_and_reads),
        cmocka_unit_test(test_version_1_with_a_reserve_opens_verifies_and_reads),
    };

    if (argc == 3 && strcmp(argv[1], "--make") == 0)
        return make(argv[2]);
    return cmocka_run_group_tests_name("store_golden", tests, NULL, NULL);
}
