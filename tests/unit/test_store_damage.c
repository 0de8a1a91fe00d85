/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store of which any byte was changed, or any part cut off or lost: it is
 * refused, or the verifier finds it, or it made no difference; and never is a
 * page delivered that is not the one that was stored.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/unit/store_fixture.h"

enum {
    PAGES = 40,
    SNAPSHOTS = 2,
    FILE_MAX = 1 << 20,
};

static struct fixture fx;
static struct image img[SNAPSHOTS];
static char ids[SNAPSHOTS][STORE_DIGEST_HEX + 1];
static const char state_text[] = "state of the devices";

static void assert_ok(int rc, const struct err *err)
{
    if (rc < 0)
        print_error("%d: %s\n", rc, err->msg);
    assert_true(rc >= 0);
}

/* ---- what a store says of itself ---- */

struct picture {
    char text[4096];
    size_t len;
};

static int picture_add(void *arg, const struct store_info *info)
{
    struct picture *p = arg;
    const struct store_record *r = info->rec;
    int n = snprintf(p->text + p->len, sizeof(p->text) - p->len,
                     "%s %llu %s %u %s %llu %s %s %s %s %u %llu %llu\n", info->id,
                     (unsigned long long)info->seq, info->name, info->nr_tags,
                     info->nr_tags ? info->tags[0] : "", (unsigned long long)r->time_ns, r->vm,
                     r->parent, r->config, r->disks, r->nr_regions,
                     (unsigned long long)r->state_len, (unsigned long long)r->counts.pages_new);

    p->len += n > 0 ? (size_t)n : 0;
    return 0;
}

static struct picture truth;

static int make_store(void **state)
{
    const struct store_relabel tag = {.add = "blue"};
    struct err err = {0};
    struct store *st;
    int rc;

    (void)state;
    fixture_make(&fx);
    /* Small when compressed, so that each byte can be tried; one page of noise. */
    img[0] = (struct image){.p = calloc(PAGES, PAGE_SIZE_4K), .pages = PAGES};
    for (int i = 0; i < PAGES; i++)
        memset(img[0].p + (size_t)i * PAGE_SIZE_4K, i % 5 ? i : 0, PAGE_SIZE_4K - 7);
    img[1] = image_copy(&img[0]);
    image_touch(&img[1], 5, 1);
    memset(img[1].p + 6 * PAGE_SIZE_4K, 0x77, PAGE_SIZE_4K);
    rc = store_open(fx.path, STORE_CREATE, &st, &err);
    if (rc == 0)
        rc = image_put_alone(st, &img[0], NULL, "first", ids[0], &err);
    if (rc == 0)
        rc = image_put_alone(st, &img[1], "first", "second", ids[1], &err);
    if (rc == 0)
        rc = store_relabel(st, "second", &tag, &err);
    if (rc == 0)
        rc = store_list(st, picture_add, &truth, &err);
    store_close(st);
    if (rc < 0)
        print_error("%s\n", err.msg);
    return rc;
}

static int drop_store(void **state)
{
    (void)state;
    fixture_remove(&fx);
    for (unsigned i = 0; i < SNAPSHOTS; i++)
        image_free(&img[i]);
    return 0;
}

/* ---- the property ---- */

static bool state_is_right(struct store *st, const char *id, bool *ret_failed)
{
    struct store_snapshot *snap;
    uint8_t *state = NULL;
    size_t len = 0;
    bool right = true;

    *ret_failed = true;
    if (store_snapshot_open(st, id, &snap, NULL) < 0)
        return true;
    if (store_snapshot_state(snap, &state, &len, NULL) == 0) {
        *ret_failed = false;
        right = len == sizeof(state_text) - 1 && memcmp(state, state_text, len) == 0;
    }
    free(state);
    store_snapshot_close(snap);
    return right;
}

enum verdict {
    REFUSED,
    FOUND,
    HARMLESS,
    VERDICTS,
};

static enum verdict look(const char *path)
{
    struct picture now = {0};
    bool whole = true, failed;
    struct store *st;
    int problems;

    if (store_open(path, 0, &st, NULL) < 0)
        return REFUSED;
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        int rc = image_compare(st, ids[i], &img[i], NULL);

        assert_true(rc <= 0); /* 1: wrong contents were delivered */
        whole = whole && rc == 0;
        assert_true(state_is_right(st, ids[i], &failed));
        whole = whole && !failed;
    }
    problems = store_problems(st, true);
    if (problems == 0) {
        assert_true(whole);
        assert_int_equal(store_list(st, picture_add, &now, NULL), 0);
        assert_string_equal(now.text, truth.text);
    }
    store_close(st);
    return problems ? FOUND : HARMLESS;
}

/* ---- files ---- */

static const char *const files[] = {"store.db", "packs/00000001.pack", "packs/00000002.pack"};

static void file_path(char *path, size_t cap, const char *name)
{
    (void)snprintf(path, cap, "%s/%s", fx.path, name);
}

static size_t file_read(const char *path, uint8_t *buf)
{
    int fd = open(path, O_RDONLY);
    ssize_t n;

    assert_true(fd >= 0);
    n = pread(fd, buf, FILE_MAX, 0);
    assert_true(n > 0 && n < FILE_MAX);
    (void)close(fd);
    return (size_t)n;
}

static void file_write(const char *path, const uint8_t *buf, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, buf, len, 0), len);
    (void)close(fd);
}

static void file_set(const char *path, size_t off, uint8_t byte)
{
    int fd = open(path, O_WRONLY);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)off), 1);
    (void)close(fd);
}

static void flip_each(const char *name, size_t stride)
{
    static uint8_t bytes[FILE_MAX], again[FILE_MAX];
    unsigned long count[VERDICTS] = {0};
    char path[2 * FIXTURE_PATH_MAX];
    size_t len;

    file_path(path, sizeof(path), name);
    len = file_read(path, bytes);
    for (size_t off = 0; off < len; off += stride) {
        file_set(path, off, (uint8_t)(bytes[off] ^ 1U << (off / stride + off) % 8));
        count[look(fx.path)]++;
        file_set(path, off, bytes[off]);
        /* Looking must not have changed anything either. */
        if (file_read(path, again) != len || memcmp(bytes, again, len) != 0)
            file_write(path, bytes, len);
    }
    print_message("%s: %zu bytes, each %zu: %lu refused, %lu found, %lu harmless\n", name, len,
                  stride, count[REFUSED], count[FOUND], count[HARMLESS]);
    assert_true(count[FOUND] > 0);
    assert_int_equal(look(fx.path), HARMLESS);
}

static size_t flip_stride(void)
{
    const char *text = getenv("CHRYSALIS_TEST_STRIDE");

    return text && atoi(text) > 0 ? (size_t)atoi(text) : 1;
}

static void test_every_byte_of_the_packs_matters_or_does_no_harm(void **state)
{
    (void)state;
    flip_each(files[1], flip_stride());
    flip_each(files[2], flip_stride());
}

static void test_every_byte_of_the_index_matters_or_does_no_harm(void **state)
{
    (void)state;
    flip_each(files[0], flip_stride());
}

static void test_truncated_files_are_found(void **state)
{
    static uint8_t bytes[FILE_MAX];

    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(files); f++) {
        char path[2 * FIXTURE_PATH_MAX];
        size_t len;

        file_path(path, sizeof(path), files[f]);
        len = file_read(path, bytes);
        for (size_t cut = 0; cut < len; cut += 1 + len / 97) {
            assert_int_equal(truncate(path, (off_t)cut), 0);
            assert_int_not_equal(look(fx.path), HARMLESS);
            file_write(path, bytes, len);
        }
    }
    assert_int_equal(look(fx.path), HARMLESS);
}

static void test_missing_files_are_found(void **state)
{
    static uint8_t bytes[FILE_MAX];

    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(files); f++) {
        char path[2 * FIXTURE_PATH_MAX];
        size_t len;

        file_path(path, sizeof(path), files[f]);
        len = file_read(path, bytes);
        assert_int_equal(unlink(path), 0);
        assert_int_not_equal(look(fx.path), HARMLESS);
        /* Something else of that name is not opened either. */
        assert_int_equal(symlink("/etc/passwd", path), 0);
        assert_int_not_equal(look(fx.path), HARMLESS);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_int_not_equal(look(fx.path), HARMLESS);
        assert_int_equal(unlink(path), 0);
        file_write(path, bytes, len);
    }
    assert_int_equal(look(fx.path), HARMLESS);
}

static void test_packs_of_another_store_are_found(void **state)
{
    static uint8_t bytes[FILE_MAX], other[FILE_MAX];
    char path[2 * FIXTURE_PATH_MAX], from[2 * FIXTURE_PATH_MAX];
    struct fixture fx2;
    struct err err = {0};
    struct store *st;
    size_t len;

    (void)state;
    fixture_make(&fx2);
    assert_ok(store_open(fx2.path, STORE_CREATE, &st, &err), &err);
    assert_ok(image_put_alone(st, &img[0], NULL, "x", NULL, &err), &err);
    store_close(st);
    (void)snprintf(from, sizeof(from), "%s/%s", fx2.path, files[1]);
    file_path(path, sizeof(path), files[1]);
    len = file_read(path, bytes);
    file_write(path, other, file_read(from, other));
    assert_int_equal(look(fx.path), FOUND);
    file_write(path, bytes, len);
    fixture_remove(&fx2);
}

/* A log with transactions that are not yet in the database. */
static void test_damaged_log_delivers_nothing_wrong(void **state)
{
    static uint8_t bytes[FILE_MAX];
    char path[2 * FIXTURE_PATH_MAX];
    struct fixture live, copy;
    struct err err = {0};
    struct store *st;
    size_t len;

    (void)state;
    fixture_make(&live);
    fixture_make(&copy);
    tree_copy(fx.path, live.path);
    assert_ok(store_open(live.path, 0, &st, &err), &err);
    assert_ok(store_remove(st, "first", &err), &err);
    assert_ok(image_put_alone(st, &img[0], NULL, "third", NULL, &err), &err);
    (void)snprintf(path, sizeof(path), "%s/store.db-wal", live.path);
    len = file_read(path, bytes);
    assert_true(len > 4096);
    for (size_t off = 0; off < len; off += 131) {
        struct store *damaged;

        tree_copy(live.path, copy.path);
        (void)snprintf(path, sizeof(path), "%s/store.db-shm", copy.path);
        (void)unlink(path);
        (void)snprintf(path, sizeof(path), "%s/store.db-wal", copy.path);
        file_set(path, off, (uint8_t)~bytes[off]);
        if (store_open(copy.path, 0, &damaged, NULL) == 0) {
            assert_true(image_compare(damaged, "second", &img[1], NULL) <= 0);
            assert_true(image_compare(damaged, "third", &img[0], NULL) <= 0);
            store_close(damaged);
        }
        tree_remove(copy.path);
    }
    store_close(st);
    fixture_remove(&live);
    fixture_remove(&copy);
}

/* What is broken is named: which snapshot, which pages. */
struct losses {
    unsigned first_pages, second_pages, others;
};

static void count_losses(void *arg, const struct store_problem *p)
{
    struct losses *l = arg;

    if (p->severity != STORE_WRONG)
        return;
    if (!p->has_pages)
        l->others++;
    else if (p->snapshot && strcmp(p->snapshot, ids[0]) == 0)
        l->first_pages += (unsigned)p->nr;
    else if (p->snapshot && strcmp(p->snapshot, ids[1]) == 0)
        l->second_pages += (unsigned)p->nr;
}

static void test_verifier_names_snapshots_and_pages_that_are_lost(void **state)
{
    static uint8_t bytes[FILE_MAX];
    struct losses l = {0};
    const struct store_verify_cfg cfg = {.data = true, .problem = count_losses, .arg = &l};
    char path[2 * FIXTURE_PATH_MAX];
    struct store_verify_result res;
    struct err err = {0};
    struct store *st;
    size_t len;

    (void)state;
    /* The second pack begins with the segment of the two pages that only "second" has. */
    file_path(path, sizeof(path), files[2]);
    len = file_read(path, bytes);
    file_set(path, 64 + 64 + 100, (uint8_t)~bytes[64 + 64 + 100]);
    assert_ok(store_open(fx.path, 0, &st, &err), &err);
    assert_ok(store_verify(st, &cfg, &res, &err), &err);
    assert_int_equal(l.first_pages, 0);
    assert_in_range(l.second_pages, 1, 2);
    assert_int_equal(res.snapshots_bad, 1);
    assert_int_equal(image_compare(st, "first", &img[0], &err), 0);
    assert_int_equal(image_compare(st, "second", &img[1], &err), -EBADMSG);
    assert_non_null(strstr(err.msg, "page"));
    store_close(st);
    file_write(path, bytes, len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_of_the_packs_matters_or_does_no_harm),
        cmocka_unit_test(test_every_byte_of_the_index_matters_or_does_no_harm),
        cmocka_unit_test(test_truncated_files_are_found),
        cmocka_unit_test(test_missing_files_are_found),
        cmocka_unit_test(test_packs_of_another_store_are_found),
        cmocka_unit_test(test_damaged_log_delivers_nothing_wrong),
        cmocka_unit_test(test_verifier_names_snapshots_and_pages_that_are_lost),
    };

    return cmocka_run_group_tests_name("store_damage", tests, make_store, drop_store);
}
