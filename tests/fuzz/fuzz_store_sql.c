/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose index somebody hostile has written: the input says which values of the golden
 * store's index become which others.  Whatever they are, nothing delivers a wrong page or
 * state, and what is refused is explained; also after the collector and a repair.
 *
 * Each change: column (1), row (1), how (1), argument (8).
 */
#include <assert.h>
#include <fcntl.h>
#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/store_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    CHANGE_LEN = 11,
    CHANGES_MAX = 6,
    REGION = 1, /* the one that is not all zero */
    PAGES = 600,
    SNAPSHOTS = 2,
};

static const struct {
    const char *table, *column, *key;
} columns[] = {
    {"store",     "uuid",      "one"    },
    {"store",     "last_pack", "one"    },
    {"store",     "nr_pages",  "one"    },
    {"packs",     "id",        "id"     },
    {"packs",     "len",       "id"     },
    {"segments",  "id",        "id"     },
    {"segments",  "pack",      "id"     },
    {"segments",  "off",       "id"     },
    {"segments",  "len",       "id"     },
    {"pages",     "digest",    "digest" },
    {"pages",     "loc",       "digest" },
    {"fresh",     "segment",   "segment"},
    {"fresh",     "pages",     "segment"},
    {"objects",   "digest",    "digest" },
    {"objects",   "segment",   "digest" },
    {"objects",   "hints",     "digest" },
    {"snapshots", "seq",       "seq"    },
    {"snapshots", "id",        "seq"    },
    {"snapshots", "name",      "seq"    },
    {"snapshots", "tags",      "seq"    },
    {"snapshots", "labels",    "seq"    },
    {"snapshots", "record",    "seq"    },
};

static const char *const names[SNAPSHOTS] = {"first", "second"};
static uint8_t *expected[SNAPSHOTS]; /* PAGES of each */
static char dir[64];

/* ---- files ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void copy_file(const char *name)
{
    char from[512], to[512];
    uint8_t buf[65536];
    size_t n;
    FILE *in, *out;

    (void)snprintf(from, sizeof(from), CHRYSALIS_SOURCE_DIR "/tests/golden/store/v1/%s", name);
    (void)snprintf(to, sizeof(to), "%s/%s", dir, name);
    in = fopen(from, "rb");
    out = fopen(to, "wb");
    assert(in && out);
    while ((n = fread(buf, 1, sizeof(buf), in)) > 0)
        assert(fwrite(buf, 1, n, out) == n);
    (void)fclose(in);
    assert(fclose(out) == 0);
}

static void make_store(void)
{
    char packs[sizeof(dir) + 8];

    (void)snprintf(dir, sizeof(dir), "%s/fuzz-sql-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(dir))
        abort();
    (void)snprintf(packs, sizeof(packs), "%s/packs", dir);
    assert(mkdir(packs, 0700) == 0);
    copy_file("lock");
    copy_file("store.db");
    copy_file("packs/00000001.pack");
    copy_file("packs/00000002.pack");
}

static void drop_store(void)
{
    (void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void learn(void)
{
    struct store_snapshot *snap;
    struct store *st;

    if (expected[0])
        return;
    make_store();
    assert(store_open(dir, 0, &st, NULL) == 0);
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        expected[i] = malloc(PAGES * PAGE_SIZE_4K);
        assert(expected[i] && store_snapshot_open(st, names[i], &snap, NULL) == 0);
        assert(store_snapshot_read(snap, REGION, 0, PAGES, expected[i], NULL) == 0);
        store_snapshot_close(snap);
    }
    store_close(st);
    drop_store();
}

/* ---- changes ---- */

/* The new value of a column that had @old. */
static void bind_change(sqlite3_stmt *st, sqlite3_stmt *old, unsigned how, uint64_t v)
{
    int type = sqlite3_column_type(old, 0), len = sqlite3_column_bytes(old, 0);
    uint8_t bytes[65536];

    if (type == SQLITE_INTEGER) {
        sqlite3_int64 was = sqlite3_column_int64(old, 0);

        (void)sqlite3_bind_int64(
            st, 1, how % 2 ? (sqlite3_int64)v : (sqlite3_int64)((uint64_t)was + (v & 255) - 128));
        return;
    }
    if (len > (int)sizeof(bytes) - 64)
        len = 0;
    memset(bytes, (int)(v >> 56), sizeof(bytes));
    if (len)
        memcpy(bytes, sqlite3_column_blob(old, 0), (size_t)len);
    if (how % 3 == 0 && len)
        bytes[v % (uint64_t)len] ^= (uint8_t)(v >> 32 | 1);
    else if (how % 3 == 1)
        len = len ? (int)(v % (uint64_t)len) : 0;
    else
        len += (int)(v % 64);
    if (type == SQLITE_TEXT)
        (void)sqlite3_bind_text(st, 1, (const char *)bytes, len, SQLITE_TRANSIENT);
    else
        (void)sqlite3_bind_blob(st, 1, bytes, len, SQLITE_TRANSIENT);
}

static void change(sqlite3 *db, const uint8_t *p)
{
    unsigned column = p[0] % ARRAY_LEN(columns), row = p[1] % 64, how = p[2];
    sqlite3_stmt *st = NULL, *old = NULL;
    char sql[256];
    uint64_t v;

    memcpy(&v, p + 3, sizeof(v));
    (void)snprintf(sql, sizeof(sql), "SELECT %s, %s FROM %s LIMIT 1 OFFSET %u",
                   columns[column].column, columns[column].key, columns[column].table, row);
    if (sqlite3_prepare_v2(db, sql, -1, &old, NULL) == SQLITE_OK &&
        sqlite3_step(old) == SQLITE_ROW) {
        if (how == 255)
            (void)snprintf(sql, sizeof(sql), "DELETE FROM %s WHERE %s = ?2 AND ?1 = ?1",
                           columns[column].table, columns[column].key);
        else
            (void)snprintf(sql, sizeof(sql), "UPDATE OR IGNORE %s SET %s = ?1 WHERE %s = ?2",
                           columns[column].table, columns[column].column, columns[column].key);
        if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK) {
            bind_change(st, old, how, v);
            (void)sqlite3_bind_value(st, 2, sqlite3_column_value(old, 1));
            (void)sqlite3_reset(old);
            (void)sqlite3_step(st);
        }
    }
    (void)sqlite3_finalize(st);
    (void)sqlite3_finalize(old);
}

static void change_index(const uint8_t *data, size_t size)
{
    char path[sizeof(dir) + 16];
    sqlite3 *db = NULL;

    (void)snprintf(path, sizeof(path), "%s/store.db", dir);
    assert(sqlite3_open(path, &db) == SQLITE_OK);
    (void)sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
    for (size_t i = 0; i < CHANGES_MAX && (i + 1) * CHANGE_LEN <= size; i++)
        change(db, data + i * CHANGE_LEN);
    (void)sqlite3_close(db);
}

/* ---- what must hold ---- */

/* A snapshot with a golden record has golden pages, or says why not. */
static void read_one(struct store *st, unsigned which)
{
    static uint8_t got[PAGES * PAGE_SIZE_4K];
    struct store_snapshot *snap;
    struct err err = {0};
    uint8_t *state = NULL;
    size_t len = 0;

    if (store_snapshot_open(st, names[which], &snap, &err) < 0) {
        assert(err.msg[0]);
        return;
    }
    if (store_snapshot_read(snap, REGION, 0, PAGES, got, &err) == 0)
        assert(memcmp(got, expected[which], sizeof(got)) == 0);
    else
        assert(err.msg[0]);
    if (store_snapshot_state(snap, &state, &len, NULL) == 0)
        assert(len == 12 && memcmp(state, "golden state", len) == 0);
    free(state);
    store_snapshot_close(snap);
}

static int nothing(void *arg, const struct store_info *info)
{
    (void)arg;
    (void)info;
    return 0;
}

static void use_store(struct store *st)
{
    const struct store_verify_cfg verify = {.data = true}, repair = {.repair = true};
    struct store_verify_result res;
    struct store_gc_result gc;
    struct store_stats stats;
    struct err err = {0};

    if (store_list(st, nothing, NULL, &err) < 0)
        assert(err.msg[0]);
    (void)!store_stats(st, &stats, NULL);
    for (unsigned i = 0; i < SNAPSHOTS; i++)
        read_one(st, i);
    (void)!store_verify(st, &verify, &res, NULL);
    err = (struct err){0};
    if (store_gc(st, 0, NULL, NULL, &gc, &err) < 0)
        assert(err.msg[0]);
    (void)!store_verify(st, &repair, &res, NULL);
    for (unsigned i = 0; i < SNAPSHOTS; i++)
        read_one(st, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct store *st;

    learn();
    make_store();
    change_index(data, size);
    if (store_open(dir, 0, &st, &err) == 0) {
        use_store(st);
        store_close(st);
    } else {
        assert(err.msg[0]);
    }
    drop_store();
    return 0;
}
