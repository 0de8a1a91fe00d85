/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>

static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

void assert_ok(int rc, const struct err *err)
{
    if (rc < 0)
        print_error("%d: %s\n", rc, err->msg);
    assert_true(rc >= 0);
}

/* ---- directories ---- */

void fixture_make(struct fixture *f)
{
    const char *tmp = getenv("TMPDIR");

    /* Memory where there is some: the tests make a disk durable thousands of times. */
    if (!tmp)
        tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(f->dir, sizeof(f->dir), "%s/chrysalis-test-XXXXXX", tmp);
    if (!mkdtemp(f->dir))
        abort();
    if (snprintf(f->path, sizeof(f->path), "%s/store", f->dir) >= FIXTURE_PATH_MAX)
        abort();
}

void fixture_remove(struct fixture *f)
{
    tree_remove(f->dir);
}

struct store *fixture_open(const struct fixture *f)
{
    struct store *st = NULL;
    struct err err = {0};

    assert_ok(store_open(f->path, STORE_CREATE, &st, &err), &err);
    return st;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void tree_remove(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *copy_from, *copy_to;

static int copy_file(const char *from, const char *to)
{
    FILE *in = fopen(from, "rb");
    FILE *out = in ? fopen(to, "wb") : NULL;
    char buf[65536];
    size_t n;

    while (out && (n = fread(buf, 1, sizeof(buf), in)) > 0)
        if (fwrite(buf, 1, n, out) != n)
            break;
    if (in)
        (void)fclose(in);
    return out ? fclose(out) : -1;
}

static int copy_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char to[2 * FIXTURE_PATH_MAX];

    (void)st;
    (void)ftw;
    (void)snprintf(to, sizeof(to), "%s%s", copy_to, path + strlen(copy_from));
    if (type == FTW_D)
        return mkdir(to, 0700);
    return copy_file(path, to);
}

int index_change(const char *store_path, const char *sql)
{
    char path[2 * FIXTURE_PATH_MAX];
    char *why = NULL;
    sqlite3 *db;
    int nr;

    (void)snprintf(path, sizeof(path), "%s/store.db", store_path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    (void)sqlite3_exec(db, sql, NULL, NULL, &why);
    if (why)
        fail_msg("%s: %s", sql, why);
    nr = sqlite3_total_changes(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return nr;
}

void tree_copy(const char *from, const char *to)
{
    copy_from = from;
    copy_to = to;
    if (nftw(from, copy_entry, 16, FTW_PHYS) != 0)
        abort();
}

/* ---- images ---- */

static void fill_noise(uint8_t *page, uint64_t seed)
{
    for (size_t i = 0; i < PAGE_SIZE_4K; i += sizeof(uint64_t)) {
        uint64_t v = mix(&seed);

        memcpy(page + i, &v, sizeof(v));
    }
}

static void fill_text(uint8_t *page, uint64_t seed)
{
    for (size_t i = 0; i < PAGE_SIZE_4K; i++)
        page[i] = (uint8_t)("etaoin shrdlu\n"[mix(&seed) % 14]);
}

struct image image_make(uint64_t pages, uint64_t seed)
{
    struct image img = {.p = calloc(pages, PAGE_SIZE_4K), .pages = pages};

    if (!img.p)
        abort();
    for (uint64_t i = 0; i < pages; i++) {
        uint8_t *page = img.p + i * PAGE_SIZE_4K;
        uint64_t kind = mix(&seed) % 10;

        if (kind >= 4 && kind < 7)
            fill_text(page, mix(&seed));
        else if (kind >= 7 && kind < 9)
            fill_noise(page, mix(&seed));
        else if (kind == 9)
            memset(page, (int)(1 + mix(&seed) % 5), PAGE_SIZE_4K);
    }
    return img;
}

struct image image_copy(const struct image *img)
{
    struct image copy = {.p = malloc(img->pages * PAGE_SIZE_4K), .pages = img->pages};

    if (!copy.p)
        abort();
    memcpy(copy.p, img->p, img->pages * PAGE_SIZE_4K);
    return copy;
}

struct image image_numbered(uint64_t pages, uint64_t from)
{
    struct image img = {.p = calloc(pages, PAGE_SIZE_4K), .pages = pages};

    assert_non_null(img.p);
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t n = from + i + 1;

        memcpy(img.p + i * PAGE_SIZE_4K, &n, sizeof(n));
    }
    return img;
}

void image_free(struct image *img)
{
    free(img->p);
    img->p = NULL;
}

void image_touch(struct image *img, uint64_t page, uint64_t seed)
{
    fill_noise(img->p + page * PAGE_SIZE_4K, seed * 7919 + page);
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE_4K - 1) == 0;
}

uint64_t image_nonzero(const struct image *img)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < img->pages; i++)
        n += !is_zero(img->p + i * PAGE_SIZE_4K);
    return n;
}

static int page_order(const void *a, const void *b)
{
    return memcmp(*(const uint8_t *const *)a, *(const uint8_t *const *)b, PAGE_SIZE_4K);
}

uint64_t image_unique(const struct image *img)
{
    const uint8_t **at = calloc(img->pages, sizeof(*at));
    uint64_t n = 0, unique = 0;

    if (!at)
        abort();
    for (uint64_t i = 0; i < img->pages; i++)
        if (!is_zero(img->p + i * PAGE_SIZE_4K))
            at[n++] = img->p + i * PAGE_SIZE_4K;
    qsort(at, n, sizeof(*at), page_order);
    for (uint64_t i = 0; i < n; i++)
        unique += i == 0 || memcmp(at[i], at[i - 1], PAGE_SIZE_4K) != 0;
    free(at);
    return unique;
}

/* ---- stores ---- */

int image_begin(struct store *st, const struct image *img, const char *parent, const char *name,
                bool alone, struct store_writer **ret_w, struct err *err)
{
    const struct store_writer_region region = {.gpa = FIXTURE_GPA, .pages = img->pages};
    const struct store_writer_cfg cfg = {
        .parent = parent,
        .name = name,
        .vm = "test-vm",
        .nr_regions = 1,
        .regions = &region,
        .callers_only = alone,
        .threads = alone ? 0 : 3,
    };

    return store_writer_begin(st, &cfg, ret_w, err);
}

static int put(struct store *st, const struct image *img, const char *parent, const char *name,
               bool alone, char *ret_id, struct err *err)
{
    const struct store_publish what = {
        .state = "state of the devices",
        .state_len = 20,
        .config = "{\"cpus\":1}",
        .disks = "[]",
    };
    char id[STORE_DIGEST_HEX + 1];
    struct store_writer *w;
    int rc = image_begin(st, img, parent, name, alone, &w, err);

    if (rc < 0)
        return rc;
    rc = store_writer_pages(w, 0, 0, img->pages, img->p, err);
    if (rc < 0) {
        store_writer_abort(w);
        return rc;
    }
    return store_writer_publish(w, &what, ret_id ? ret_id : id, err);
}

int image_put(struct store *st, const struct image *img, const char *parent, const char *name,
              char *ret_id, struct err *err)
{
    return put(st, img, parent, name, false, ret_id, err);
}

int image_put_alone(struct store *st, const struct image *img, const char *parent, const char *name,
                    char *ret_id, struct err *err)
{
    return put(st, img, parent, name, true, ret_id, err);
}

int image_compare(struct store *st, const char *ref, const struct image *img, struct err *err)
{
    struct store_snapshot *snap;
    uint8_t *got = malloc(img->pages * PAGE_SIZE_4K);
    int rc = store_snapshot_open(st, ref, &snap, err);

    if (rc < 0 || !got) {
        free(got);
        return rc;
    }
    memset(got, 0xa5, img->pages * PAGE_SIZE_4K);
    if (store_snapshot_info(snap)->rec->nr_regions != 1 ||
        store_snapshot_info(snap)->rec->regions[0].pages != img->pages)
        rc = 1;
    else
        rc = store_snapshot_read(snap, 0, 0, img->pages, got, err);
    if (rc == 0)
        rc = memcmp(got, img->p, img->pages * PAGE_SIZE_4K) != 0;
    store_snapshot_close(snap);
    free(got);
    return rc;
}

static void say_problem(void *arg, const struct store_problem *p)
{
    (void)arg;
    if (p->severity == STORE_WRONG && getenv("CHRYSALIS_TEST_VERBOSE"))
        (void)fprintf(stderr, "problem: %s\n", p->what);
}

int store_problems(struct store *st, bool data)
{
    const struct store_verify_cfg cfg = {.data = data, .problem = say_problem};
    struct store_verify_result res;
    struct err err = {0};
    int rc = store_verify(st, &cfg, &res, &err);

    return rc < 0 ? rc : (int)res.problems;
}

/* ---- streams in memory ---- */

int bytes_sink(void *arg, const void *data, size_t len, struct err *err)
{
    struct bytes *b = arg;

    (void)err;
    while (b->cap - b->len < len) {
        b->cap = 2 * b->cap + 4096;
        b->p = realloc(b->p, b->cap);
        assert_non_null(b->p);
    }
    memcpy(b->p + b->len, data, len);
    b->len += len;
    return 0;
}

ssize_t bytes_source(void *arg, void *data, size_t len, struct err *err)
{
    struct bytes *b = arg;
    size_t n = b->len - b->at < len ? b->len - b->at : len;

    (void)err;
    n = n > 1000 ? 1000 : n;
    memcpy(data, b->p + b->at, n);
    b->at += n;
    return (ssize_t)n;
}
