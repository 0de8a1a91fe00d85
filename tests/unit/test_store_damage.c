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
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <zstd.h>

#include "store/store_segment.h"
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
        rc = store_relabel(st, "second", &tag, 1, &err);
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

/* ---- bits that mean nothing ---- */

struct flip {
    const uint8_t *bytes; /* of the file, unchanged */
    size_t len, off;
    uint8_t byte; /* what is at off instead */
};

/* In the payload of a segment, and the decoder makes the same of it. */
static bool is_redundant(const struct flip *f)
{
    static uint8_t payload[STORE_SEGMENT_RAW_MAX], was[STORE_SEGMENT_RAW_MAX],
        is[STORE_SEGMENT_RAW_MAX];
    struct store_segment seg = {0};
    size_t at = 64, n;

    for (; at + STORE_SEGMENT_HDR_LEN <= f->len; at += STORE_SEGMENT_HDR_LEN + seg.stored_len) {
        assert_int_equal(store_segment_parse(f->bytes + at, &seg, NULL), 0);
        if (f->off < at + STORE_SEGMENT_HDR_LEN + seg.stored_len)
            break;
    }
    if (f->off < at + STORE_SEGMENT_HDR_LEN || seg.codec != STORE_CODEC_ZSTD)
        return false;
    at += STORE_SEGMENT_HDR_LEN;
    memcpy(payload, f->bytes + at, seg.stored_len);
    n = ZSTD_decompress(was, sizeof(was), payload, seg.stored_len);
    payload[f->off - at] = f->byte;
    return n == seg.raw_len && n == ZSTD_decompress(is, sizeof(is), payload, seg.stored_len) &&
           !memcmp(was, is, n);
}

enum {
    DB_PAGE = 4096,
    DB_HEADER = 100,
    DB_PTRMAP_PAGE = 2, /* the database can be vacuumed in steps */
};

/* Between the cell pointers and the cells of a page of a b-tree. */
static bool is_free_space(const struct flip *f)
{
    const size_t page = f->off - f->off % DB_PAGE, at = page ? page : DB_HEADER;
    const uint8_t *h = f->bytes + at, type = h[0];
    const size_t cells = (size_t)h[3] << 8 | h[4], content = (size_t)h[5] << 8 | h[6];

    if (type != 2 && type != 5 && type != 10 && type != 13)
        return false;
    return f->off >= at + (type < 10 ? 12U : 8U) + 2 * cells && f->off < page + content;
}

/* Ask the database, one value. */
static unsigned db_number(const char *sql)
{
    char path[2 * FIXTURE_PATH_MAX];
    sqlite3_stmt *st;
    unsigned n;
    sqlite3 *db;

    file_path(path, sizeof(path), files[0]);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    n = (unsigned)sqlite3_column_int(st, 0);
    (void)sqlite3_finalize(st);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return n;
}

static struct {
    unsigned pages, store, objects, sequence; /* pages of the file; roots of tables */
} db;

static void db_look(void)
{
    db.pages = db_number("PRAGMA page_count");
    db.store = db_number("SELECT rootpage FROM sqlite_schema WHERE name = 'store'");
    db.objects = db_number("SELECT rootpage FROM sqlite_schema WHERE name = 'objects'");
    db.sequence = db_number("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_sequence'");
}

/*
 * docs/store-format.md, 10: what of the index may change unseen.  The first page is
 * SQLite's header and the schema, which is compared when the store is opened.
 */
static bool is_unused(const struct flip *f)
{
    const unsigned page = (unsigned)(f->off / DB_PAGE) + 1;

    if (page == 1 || page == db.sequence || is_free_space(f))
        return true;
    if (page == DB_PTRMAP_PAGE)
        return f->off % DB_PAGE >= 5 * ((size_t)db.pages - DB_PTRMAP_PAGE);
    /* last_pack, 2 and one byte long, before nr_pages: more than there are is as good. */
    if (page == db.store)
        return f->off == (size_t)db.store * DB_PAGE - 2 && f->byte > 2;
    /* Where an INTEGER PRIMARY KEY stands in its row, which SQLite does not read: NULL for 0. */
    if (f->bytes[f->off - f->off % DB_PAGE] == 13 && f->bytes[f->off] == 0 && f->byte == 8)
        return true;
    return page == db.objects; /* hints */
}

/* ---- every byte ---- */

static unsigned env_number(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text && atoi(text) > 0 ? (unsigned)atoi(text) : otherwise;
}

static bool look_at_flip(const char *path, const struct flip *f,
                         bool (*means_nothing)(const struct flip *f), unsigned long *count)
{
    static uint8_t again[FILE_MAX];
    enum verdict v;

    file_set(path, f->off, f->byte);
    v = look(fx.path);
    count[v]++;
    file_set(path, f->off, f->bytes[f->off]);
    /* Looking must not have changed anything either. */
    if (file_read(path, again) != f->len || memcmp(f->bytes, again, f->len) != 0)
        file_write(path, f->bytes, f->len);
    if (v != HARMLESS || means_nothing(f))
        return true;
    print_error("%s: offset %zu, %02x for %02x: not found\n", path, f->off, f->byte,
                f->bytes[f->off]);
    return false;
}

/*
 * One bit of each byte, of every CHRYSALIS_TEST_STRIDE-th; with CHRYSALIS_TEST_BITS=8 all of
 * them.  Of space that nothing uses a sample.
 */
static void flip_each(const char *name, bool (*means_nothing)(const struct flip *f))
{
    static uint8_t bytes[FILE_MAX];
    const unsigned stride = env_number("CHRYSALIS_TEST_STRIDE", 1);
    const unsigned bits = env_number("CHRYSALIS_TEST_BITS", 1);
    unsigned long count[VERDICTS] = {0}, missed = 0;
    char path[2 * FIXTURE_PATH_MAX];
    struct flip f = {.bytes = bytes};

    file_path(path, sizeof(path), name);
    f.len = file_read(path, bytes);
    for (f.off = 0; f.off < f.len; f.off += stride) {
        if (name == files[0] && f.off % 61 &&
            (is_free_space(&f) || (f.off / DB_PAGE + 1 == DB_PTRMAP_PAGE && is_unused(&f))))
            continue;
        for (unsigned i = 0; i < bits; i++) {
            /* 3 and 8 have no common divisor: no bit is left out. */
            f.byte = (uint8_t)(bytes[f.off] ^ 1U << (f.off / stride * 3 + i) % 8);
            missed += !look_at_flip(path, &f, means_nothing, count);
        }
    }
    print_message("%s: %zu bytes: %lu refused, %lu found, %lu harmless\n", name, f.len,
                  count[REFUSED], count[FOUND], count[HARMLESS]);
    assert_true(count[FOUND] > 0);
    assert_int_equal(missed, 0);
    assert_int_equal(look(fx.path), HARMLESS);
}

static void test_every_byte_of_the_packs_matters(void **state)
{
    (void)state;
    flip_each(files[1], is_redundant);
    flip_each(files[2], is_redundant);
}

static void test_every_byte_of_the_index_matters_or_means_nothing(void **state)
{
    (void)state;
    db_look();
    flip_each(files[0], is_unused);
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
        cmocka_unit_test(test_every_byte_of_the_packs_matters),
        cmocka_unit_test(test_every_byte_of_the_index_matters_or_means_nothing),
        cmocka_unit_test(test_truncated_files_are_found),
        cmocka_unit_test(test_missing_files_are_found),
        cmocka_unit_test(test_packs_of_another_store_are_found),
        cmocka_unit_test(test_damaged_log_delivers_nothing_wrong),
        cmocka_unit_test(test_verifier_names_snapshots_and_pages_that_are_lost),
    };

    return cmocka_run_group_tests_name("store_damage", tests, make_store, drop_store);
}
