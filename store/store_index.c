/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_index.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "store/store_index_internal.h"
#include "store/store_pack.h"
#include "store/store_record.h"
#include "store/store_schema.h"

enum {
    INDEX_BUSY_MS = 60 * 1000,
    INDEX_VALUE_MAX = STORE_RECORD_LEN_MAX + 4096, /* bytes of any one SQL value */
    INDEX_SQL_MAX = 4096,
};

#define ADD_PAGES "INSERT OR IGNORE INTO pages(digest, loc) VALUES"
#define ROWS_8    "(?, ?), (?, ?), (?, ?), (?, ?), (?, ?), (?, ?), (?, ?), (?, ?)"

static const char *const index_sql[ST_MAX] = {
    [ST_IDENTITY] = "SELECT uuid, last_pack FROM store",
    [ST_PAGE] = "SELECT loc FROM pages WHERE digest = ?",
    [ST_OBJECT] = "SELECT segment, hints FROM objects WHERE digest = ?",
    [ST_EXTENTS] = "SELECT id, pack, off, len FROM segments WHERE id >= ? ORDER BY id LIMIT ?",
    [ST_SNAPSHOTS] = "SELECT seq, id, name, tags, labels, record FROM snapshots ORDER BY seq",
    [ST_PACKS] = "SELECT id, len FROM packs ORDER BY id",
    [ST_ALL_EXTENTS] = "SELECT id, pack, off, len FROM segments ORDER BY id",
    [ST_ALL_PAGES] = "SELECT digest, loc FROM pages ORDER BY digest",
    [ST_ALL_FRESH] = "SELECT segment, pages FROM fresh ORDER BY segment",
    [ST_FRESH_STAMP] = "SELECT count(*), coalesce(max(segment), 0) FROM fresh",
    [ST_DATA_VERSION] = "PRAGMA data_version",
    [ST_NR_PAGES] = "SELECT nr_pages FROM store",
    [ST_ALL_OBJECTS] = "SELECT digest, segment FROM objects ORDER BY digest",
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_BEGIN_LOOK] = "BEGIN",
    [ST_COMMIT] = "COMMIT",
    [ST_ADD_PACK] = "INSERT INTO packs(id, len) VALUES(?, ?)",
    [ST_PUT_PACK] = "INSERT OR REPLACE INTO packs(id, len) VALUES(?, ?)",
    [ST_LAST_PACK] = "UPDATE store SET last_pack = max(last_pack, ?)",
    [ST_PUT_EXTENT] = "INSERT OR REPLACE INTO segments(id, pack, off, len) VALUES(?, ?, ?, ?)",
    [ST_ADD_PAGE] = ADD_PAGES "(?, ?)",
    [ST_ADD_PAGES] = ADD_PAGES ROWS_8 ", " ROWS_8 ", " ROWS_8 ", " ROWS_8,
    [ST_ADD_FRESH] = "INSERT INTO fresh(segment, pages) VALUES(?, ?)",
    [ST_DROP_FRESH] = "DELETE FROM fresh",
    [ST_SET_NR_PAGES] = "UPDATE store SET nr_pages = ?",
    [ST_ADD_OBJECT] = "INSERT OR IGNORE INTO objects(digest, segment, hints) VALUES(?, ?, ?)",
    [ST_ADD_SNAPSHOT] =
        "INSERT INTO snapshots(id, name, tags, labels, record) VALUES(?, ?, ?, x'', ?)",
    [ST_SET_LABELS] = "UPDATE snapshots SET name = ?, tags = ?, labels = ? WHERE seq = ?",
    [ST_DEL_SNAPSHOT] = "DELETE FROM snapshots WHERE seq = ?",
    [ST_DEL_PACK] = "DELETE FROM packs WHERE id = ?",
    [ST_DEL_FRESH] = "DELETE FROM fresh WHERE segment = ?",
    [ST_DEL_EXTENT] = "DELETE FROM segments WHERE id = ?",
    [ST_DEL_PAGE] = "DELETE FROM pages WHERE digest = ?",
    [ST_DEL_OBJECT] = "DELETE FROM objects WHERE digest = ?",
};

/* ---- statements ---- */

/* The database's failure as an errno, with @err set. */
static int index_fail(struct store_index *ix, struct err *err)
{
    int rc = store_sqlite_errno(ix->db);

    if ((sqlite3_errcode(ix->db) & 0xff) == SQLITE_CANTOPEN)
        return err_set(err, rc, "store.db: %s: %s", sqlite3_errmsg(ix->db), strerror(-rc));
    return err_set(err, rc, "store.db: %s", sqlite3_errmsg(ix->db));
}

/* A prepared statement, ready to be bound; NULL with @err set. */
sqlite3_stmt *index_stmt(struct store_index *ix, enum index_stmt which, struct err *err)
{
    if (sqlite3_get_autocommit(ix->db) && index_room(ix, err) < 0)
        return NULL;
    if (!ix->st[which] &&
        sqlite3_prepare_v3(ix->db, index_sql[which], -1, SQLITE_PREPARE_PERSISTENT, &ix->st[which],
                           NULL) != SQLITE_OK) {
        (void)index_fail(ix, err);
        return NULL;
    }
    (void)sqlite3_reset(ix->st[which]);
    return ix->st[which];
}

/* Run a statement that yields no rows. */
int index_run(struct store_index *ix, sqlite3_stmt *st, struct err *err)
{
    int rc = 0;

    if (sqlite3_step(st) != SQLITE_DONE)
        rc = index_fail(ix, err);
    (void)sqlite3_reset(st);
    return rc;
}

int index_errno(struct store_index *ix)
{
    return ix->room < 0 ? ix->room : store_sqlite_errno(ix->db);
}

/* Fetch the next row: 1; 0 at the end; or an errno.  Resets unless there is one. */
int index_step(struct store_index *ix, sqlite3_stmt *st, struct err *err)
{
    int rc = sqlite3_step(st);

    if (rc == SQLITE_ROW)
        return 1;
    rc = rc == SQLITE_DONE ? 0 : index_fail(ix, err);
    (void)sqlite3_reset(st);
    return rc;
}

void index_bind_key(sqlite3_stmt *st, int i, const struct store_digest *d)
{
    (void)sqlite3_bind_blob(st, i, d, INDEX_KEY_LEN, SQLITE_STATIC);
}

void index_bind_int(sqlite3_stmt *st, int i, uint64_t v)
{
    (void)sqlite3_bind_int64(st, i, (int64_t)v);
}

int index_col_int(sqlite3_stmt *st, int i, uint64_t max, uint64_t *ret, struct err *err)
{
    int64_t v = sqlite3_column_int64(st, i);

    if (sqlite3_column_type(st, i) != SQLITE_INTEGER || v < 0 || (uint64_t)v > max)
        return err_set(err, -EBADMSG, "store.db: %s: impossible value", sqlite3_column_name(st, i));
    *ret = (uint64_t)v;
    return 0;
}

int index_col_key(sqlite3_stmt *st, int i, struct store_digest *ret, struct err *err)
{
    const void *p = sqlite3_column_blob(st, i);

    if (sqlite3_column_type(st, i) != SQLITE_BLOB || !p ||
        sqlite3_column_bytes(st, i) != INDEX_KEY_LEN)
        return err_set(err, -EBADMSG, "store.db: %s: not a digest", sqlite3_column_name(st, i));
    memcpy(ret, p, sizeof(*ret));
    if (ret->alg != STORE_ALG_SHA256)
        return err_set(err, -EBADMSG, "store.db: %s: unknown algorithm %u",
                       sqlite3_column_name(st, i), ret->alg);
    return 0;
}

static int index_col_extent(sqlite3_stmt *st, struct store_extent *ret, struct err *err)
{
    uint64_t len = 0;
    int rc = index_col_int(st, 0, STORE_SEGMENT_ID_MAX, &ret->id, err);

    if (rc == 0)
        rc = index_col_int(st, 1, STORE_PACK_ID_MAX, &ret->pack, err);
    if (rc == 0)
        rc = index_col_int(st, 2, INT64_MAX / 2, &ret->off, err);
    if (rc == 0)
        rc = index_col_int(st, 3, STORE_SEGMENT_LEN_MAX, &len, err);
    ret->len = (uint32_t)len;
    if (rc == 0 && len <= STORE_SEGMENT_HDR_LEN)
        return err_set(err, -EBADMSG, "store.db: segments.len: impossible value");
    return rc;
}

/* ---- life cycle ---- */

static void index_harden(sqlite3 *db)
{
    static const struct {
        int op, on;
    } settings[] = {
        {SQLITE_DBCONFIG_DEFENSIVE,      1},
        {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0},
        {SQLITE_DBCONFIG_ENABLE_VIEW,    0},
        {SQLITE_DBCONFIG_DQS_DML,        0},
        {SQLITE_DBCONFIG_DQS_DDL,        0},
    };

    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        (void)sqlite3_db_config(db, settings[i].op, settings[i].on, NULL);
    (void)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, INDEX_VALUE_MAX);
    (void)sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, INDEX_SQL_MAX);
    (void)sqlite3_busy_timeout(db, INDEX_BUSY_MS);
}

/* "file:" URI of a database: a path may have what means something in it. */
static char *index_uri(const char *path, const char *how)
{
    static const char hex[] = "0123456789ABCDEF";
    char *uri = malloc(3 * strlen(path) + strlen(how) + sizeof("file:"));
    char *p = uri;

    if (!uri)
        return NULL;
    p = stpcpy(p, "file:");
    for (; *path; path++) {
        if (!strchr("?#%", *path)) {
            *p++ = *path;
            continue;
        }
        *p++ = '%';
        *p++ = hex[(unsigned char)*path >> 4];
        *p++ = hex[(unsigned char)*path & 15];
    }
    (void)stpcpy(p, how);
    return uri;
}

/* Whether there is such a file beside the database, and something in it. */
static bool index_has(const char *path, const char *suffix)
{
    auto_free char *name = NULL;
    struct stat st;

    if (asprintf(&name, "%s%s", path, suffix) < 0) {
        name = NULL;
        return true;
    }
    return stat(name, &st) < 0 ? errno != ENOENT : st.st_size > 0;
}

/*
 * A database that cannot be written.  Without a log nobody is at it, and it is read as what
 * never changes, for SQLite would make files otherwise.  With one the database alone is old or
 * half of a change; SQLite reads both, but only by the file that the log's users share.
 */
static int index_readonly_uri(const char *path, char **ret_uri, struct err *err)
{
    bool log = index_has(path, "-wal");

    if (log && !index_has(path, "-shm")) {
        return err_set(err, -EROFS,
                       "store.db-wal holds what store.db lacks, and where nothing can be written "
                       "it cannot be read; open the store once where it can be written");
    }
    *ret_uri = index_uri(path, log ? "?readonly_shm=1" : "?immutable=1");
    return *ret_uri ? 0 : store_no_memory(err);
}

static int index_connect(struct store_index *ix, struct store_backend *be, struct err *err)
{
    static const char pragmas[] = "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;"
                                  "PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;"
                                  "PRAGMA temp_store = MEMORY";
    auto_free char *uri = NULL;
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
    int rc;

    ix->be = be;
    rc = index_room(ix, err);
    if (rc >= 0 && be->readonly)
        rc = index_readonly_uri(be->index_path, &uri, err);
    if (rc < 0)
        return rc;
    flags |= uri ? SQLITE_OPEN_READONLY | SQLITE_OPEN_URI : SQLITE_OPEN_READWRITE;
    if (sqlite3_open_v2(uri ? uri : be->index_path, &ix->db, flags, NULL) != SQLITE_OK) {
        if (!ix->db)
            return store_no_memory(err);
        return index_fail(ix, err);
    }
    index_harden(ix->db);
    if (sqlite3_exec(ix->db, pragmas, NULL, NULL, NULL) != SQLITE_OK)
        return index_fail(ix, err);
    return 0;
}

int store_index_open(struct store_backend *be, unsigned flags, struct store_index **ret_ix,
                     struct err *err)
{
    struct store_index *ix = calloc(1, sizeof(*ix));
    uint8_t uuid[STORE_UUID_LEN];
    int rc;

    if (!ix)
        return store_no_memory(err);
    rc = index_connect(ix, be, err);
    if (rc == 0) {
        struct err first = {0};

        rc = store_schema_check(ix->db, &first);
        if (rc == -ENOENT && (flags & STORE_INDEX_CREATE)) {
            rc = getrandom(uuid, sizeof(uuid), 0) == sizeof(uuid) ? 0 : -EIO;
            if (rc == 0)
                rc = store_schema_create(ix->db, uuid, err);
            if (rc == 0)
                rc = store_schema_check(ix->db, err);
        } else if (rc < 0) {
            rc = err_set(err, rc, "%s", first.msg);
        }
    }
    if (rc < 0) {
        store_index_close(ix);
        return rc;
    }
    *ret_ix = ix;
    return 0;
}

void store_index_close(struct store_index *ix)
{
    if (!ix)
        return;
    store_index_rollback(ix);
    for (unsigned i = 0; i < ST_MAX; i++)
        (void)sqlite3_finalize(ix->st[i]);
    (void)sqlite3_close(ix->db);
    store_digest_map_release(&ix->fresh);
    store_filter_close(ix->filter);
    free(ix);
}

/* ---- questions ---- */

int store_index_identity(struct store_index *ix, uint8_t *ret_uuid, uint64_t *ret_last_pack,
                         struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_IDENTITY, err);
    int rc = st ? index_step(ix, st, err) : index_errno(ix);

    if (rc < 0)
        return rc;
    if (rc == 0)
        return err_set(err, -EBADMSG, "store.db: store: has no row");
    rc = index_col_int(st, 1, STORE_PACK_ID_MAX, ret_last_pack, err);
    if (sqlite3_column_type(st, 0) != SQLITE_BLOB || sqlite3_column_bytes(st, 0) != STORE_UUID_LEN)
        rc = err_set(err, -EBADMSG, "store.db: uuid: not 16 bytes");
    else
        memcpy(ret_uuid, sqlite3_column_blob(st, 0), STORE_UUID_LEN);
    (void)sqlite3_reset(st);
    return rc;
}

int store_index_object(struct store_index *ix, const struct store_digest *d, uint64_t *ret_segment,
                       uint8_t *hints, size_t *hints_len, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_OBJECT, err);
    int rc;

    if (!st)
        return index_errno(ix);
    index_bind_key(st, 1, d);
    rc = index_step(ix, st, err);
    if (rc <= 0)
        return rc;
    rc = index_col_int(st, 0, STORE_SEGMENT_ID_MAX, ret_segment, err);
    if (rc == 0 && hints) {
        int n = sqlite3_column_bytes(st, 1);

        /* Hints that cannot be right are no hints. */
        if (sqlite3_column_type(st, 1) != SQLITE_BLOB || n > STORE_HINTS_LEN_MAX)
            n = 0;
        if (n)
            memcpy(hints, sqlite3_column_blob(st, 1), (size_t)n);
        *hints_len = (size_t)n;
    }
    (void)sqlite3_reset(st);
    return rc < 0 ? rc : 1;
}

int store_index_extents(struct store_index *ix, uint64_t id, struct store_extent *ret, unsigned cap,
                        struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_EXTENTS, err);
    unsigned n = 0;
    int rc;

    if (!st)
        return index_errno(ix);
    index_bind_int(st, 1, id);
    index_bind_int(st, 2, cap);
    while ((rc = index_step(ix, st, err)) > 0) {
        rc = n < cap ? index_col_extent(st, &ret[n], err) : -EBADMSG;
        if (rc < 0)
            break;
        n++;
    }
    (void)sqlite3_reset(st);
    return rc < 0 ? rc : (int)n;
}

int index_scalar(struct store_index *ix, const char *sql, uint64_t *ret, struct err *err)
{
    sqlite3_stmt *st = NULL;
    int rc;

    if (sqlite3_prepare_v2(ix->db, sql, -1, &st, NULL) != SQLITE_OK)
        return index_fail(ix, err);
    rc = index_step(ix, st, err);
    if (rc > 0)
        rc = index_col_int(st, 0, INT64_MAX, ret, err);
    (void)sqlite3_finalize(st);
    return rc;
}

static const char *const index_tables[] = {
    [STORE_TABLE_PACKS] = "packs",         [STORE_TABLE_SEGMENTS] = "segments",
    [STORE_TABLE_PAGES] = "pages",         [STORE_TABLE_OBJECTS] = "objects",
    [STORE_TABLE_SNAPSHOTS] = "snapshots",
};

int store_index_count(struct store_index *ix, enum store_table table, uint64_t *ret_nr,
                      struct err *err)
{
    char sql[64];

    if (table == STORE_TABLE_PAGES)
        return store_index_nr_pages(ix, ret_nr, err);
    (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", index_tables[table]);
    return index_scalar(ix, sql, ret_nr, err);
}

int store_index_bytes(struct store_index *ix, uint64_t *ret_len, struct err *err)
{
    uint64_t pages = 0, size = 0;
    int rc = index_scalar(ix, "PRAGMA page_count", &pages, err);

    if (rc == 0)
        rc = index_scalar(ix, "PRAGMA page_size", &size, err);
    *ret_len = pages * size;
    return rc;
}

/* ---- walks ---- */

static int index_col_labels(sqlite3_stmt *st, struct store_snap_row *row, struct err *err)
{
    int name = sqlite3_column_type(st, 2);

    row->name = (const char *)sqlite3_column_text(st, 2);
    row->tags = (const char *)sqlite3_column_text(st, 3);
    if ((name != SQLITE_TEXT && name != SQLITE_NULL) || !row->tags ||
        (row->name && strlen(row->name) != (size_t)sqlite3_column_bytes(st, 2)) ||
        strlen(row->tags) != (size_t)sqlite3_column_bytes(st, 3))
        return err_set(err, -EBADMSG, "store.db: snapshots.name: not a text");
    return index_col_key(st, 4, &row->labels, err);
}

static int index_col_snapshot(sqlite3_stmt *st, struct store_snap_row *row, struct err *err)
{
    int rc = index_col_int(st, 0, INT64_MAX, &row->seq, err);

    if (rc == 0)
        rc = index_col_key(st, 1, &row->id, err);
    if (rc == 0)
        rc = index_col_labels(st, row, err);
    if (rc < 0)
        return rc;
    row->record = sqlite3_column_blob(st, 5);
    row->record_len = (size_t)sqlite3_column_bytes(st, 5);
    if (sqlite3_column_type(st, 5) != SQLITE_BLOB || !row->record)
        return err_set(err, -EBADMSG, "store.db: snapshots.record: not a record");
    return 0;
}

int store_index_each_snapshot(struct store_index *ix, store_snap_row_fn *fn, void *arg,
                              struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_SNAPSHOTS, err);
    int rc = st ? 0 : index_errno(ix);

    while (rc >= 0 && (rc = index_step(ix, st, err)) > 0) {
        struct store_snap_row row;

        rc = index_col_snapshot(st, &row, err);
        if (rc == 0)
            rc = fn(arg, &row);
    }
    (void)sqlite3_reset(st);
    return rc;
}

int store_index_each_pack(struct store_index *ix, store_pack_row_fn *fn, void *arg, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_PACKS, err);
    int rc = st ? 0 : index_errno(ix);

    while (rc >= 0 && (rc = index_step(ix, st, err)) > 0) {
        uint64_t id = 0, len = 0;

        rc = index_col_int(st, 0, STORE_PACK_ID_MAX, &id, err);
        if (rc == 0)
            rc = index_col_int(st, 1, INT64_MAX / 2, &len, err);
        if (rc == 0)
            rc = fn(arg, id, len);
    }
    (void)sqlite3_reset(st);
    return rc;
}

int store_index_each_extent(struct store_index *ix, store_extent_fn *fn, void *arg, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_ALL_EXTENTS, err);
    int rc = st ? 0 : index_errno(ix);

    while (rc >= 0 && (rc = index_step(ix, st, err)) > 0) {
        struct store_extent e = {0};

        rc = index_col_extent(st, &e, err);
        if (rc == 0)
            rc = fn(arg, &e);
    }
    (void)sqlite3_reset(st);
    return rc;
}

int store_index_each_object(struct store_index *ix, store_object_row_fn *fn, void *arg,
                            struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_ALL_OBJECTS, err);
    int rc = st ? 0 : index_errno(ix);

    while (rc >= 0 && (rc = index_step(ix, st, err)) > 0) {
        struct store_digest d;
        uint64_t segment = 0;

        rc = index_col_key(st, 0, &d, err);
        if (rc == 0)
            rc = index_col_int(st, 1, STORE_SEGMENT_ID_MAX, &segment, err);
        if (rc == 0)
            rc = fn(arg, &d, segment);
    }
    (void)sqlite3_reset(st);
    return rc;
}

/* ---- changes ---- */

int store_index_begin(struct store_index *ix, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_BEGIN, err);
    int rc = st ? index_run(ix, st, err) : index_errno(ix);

    store_filter_close(steal_ptr(ix->filter));
    ix->in_tx = rc == 0;
    return rc;
}

int store_index_begin_read(struct store_index *ix, struct err *err)
{
    uint64_t unused = 0;
    int rc = index_room(ix, err);

    if (rc < 0)
        return rc;
    if (sqlite3_exec(ix->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        return index_fail(ix, err);
    ix->in_tx = true;
    /* The state is chosen by the first statement that reads. */
    return index_scalar(ix, "SELECT count(*) FROM store", &unused, err);
}

int store_index_look_begin(struct store_index *ix, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_BEGIN_LOOK, err);

    return st ? index_run(ix, st, err) : index_errno(ix);
}

void store_index_look_end(struct store_index *ix)
{
    sqlite3_stmt *st = index_stmt(ix, ST_COMMIT, NULL);

    if (!st || index_run(ix, st, NULL) < 0)
        (void)sqlite3_exec(ix->db, "ROLLBACK", NULL, NULL, NULL);
}

/*
 * Have the file as long as it is to be.  A log that cannot be written back on a full disk could
 * not be begun anew, and removing rows would need more room each time.
 */
static int index_grow(struct store_index *ix, struct err *err)
{
    uint64_t len = 0;
    int64_t hint;
    int page = 4096;
    int rc = store_index_bytes(ix, &len, err);

    if (rc < 0)
        return rc;
    hint = (int64_t)len;
    (void)sqlite3_file_control(ix->db, "main", SQLITE_FCNTL_CHUNK_SIZE, &page);
    rc = sqlite3_file_control(ix->db, "main", SQLITE_FCNTL_SIZE_HINT, &hint);
    if (rc != SQLITE_OK && rc != SQLITE_NOTFOUND)
        return err_set(err, -ENOSPC, "store.db: cannot grow to %llu bytes",
                       (unsigned long long)len);
    return 0;
}

int store_index_commit(struct store_index *ix, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_COMMIT, err);
    int rc = st ? index_grow(ix, err) : index_errno(ix);

    if (rc == 0)
        rc = index_run(ix, st, err);
    if (rc < 0)
        store_index_rollback(ix);
    ix->in_tx = false;
    return rc;
}

void store_index_rollback(struct store_index *ix)
{
    if (ix->in_tx) {
        (void)sqlite3_exec(ix->db, "ROLLBACK", NULL, NULL, NULL);
        ix->fresh_known = false;
    }
    ix->in_tx = false;
}

static int index_set_last_pack(struct store_index *ix, uint64_t id, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_LAST_PACK, err);

    if (!st)
        return index_errno(ix);
    index_bind_int(st, 1, id);
    return index_run(ix, st, err);
}

static int index_write_pack(struct store_index *ix, enum index_stmt which, uint64_t id,
                            uint64_t len, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, which, err);
    int rc;

    if (!st)
        return index_errno(ix);
    index_bind_int(st, 1, id);
    index_bind_int(st, 2, len);
    rc = index_run(ix, st, err);
    return rc < 0 ? rc : index_set_last_pack(ix, id, err);
}

int store_index_add_pack(struct store_index *ix, uint64_t id, uint64_t len, struct err *err)
{
    return index_write_pack(ix, ST_ADD_PACK, id, len, err);
}

int store_index_put_pack(struct store_index *ix, uint64_t id, uint64_t len, struct err *err)
{
    return index_write_pack(ix, ST_PUT_PACK, id, len, err);
}

int store_index_touch(struct store_index *ix, struct err *err)
{
    return index_set_last_pack(ix, 0, err);
}

int store_index_put_extent(struct store_index *ix, const struct store_extent *e, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_PUT_EXTENT, err);

    if (!st)
        return index_errno(ix);
    index_bind_int(st, 1, e->id);
    index_bind_int(st, 2, e->pack);
    index_bind_int(st, 3, e->off);
    index_bind_int(st, 4, e->len);
    return index_run(ix, st, err);
}

int store_index_add_object(struct store_index *ix, const struct store_digest *d, uint64_t segment,
                           const uint8_t *hints, size_t hints_len, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_ADD_OBJECT, err);

    if (!st)
        return index_errno(ix);
    index_bind_key(st, 1, d);
    index_bind_int(st, 2, segment);
    (void)sqlite3_bind_blob(st, 3, hints_len ? (const void *)hints : "", (int)hints_len,
                            SQLITE_STATIC);
    return index_run(ix, st, err);
}

static void index_bind_text(sqlite3_stmt *st, int i, const char *s)
{
    (void)sqlite3_bind_text(st, i, s, -1, SQLITE_STATIC); /* NULL binds NULL */
}

int store_index_labels_digest(const struct store_snap_row *row, struct store_digest *ret,
                              struct err *err)
{
    const char *name = row->name ? row->name : "";
    size_t name_len = strlen(name), tags_len = strlen(row->tags);
    size_t len = 8 + sizeof(row->id) + 4 + name_len + 4 + tags_len;
    auto_free uint8_t *bytes = malloc(len);
    struct wr w = {.p = bytes, .left = len};

    if (!bytes)
        return store_no_memory(err);
    wr_le64(&w, row->seq);
    wr_bytes(&w, &row->id, sizeof(row->id));
    wr_le32(&w, (uint32_t)name_len);
    wr_bytes(&w, name, name_len);
    wr_le32(&w, (uint32_t)tags_len);
    wr_bytes(&w, row->tags, tags_len);
    store_hash(bytes, len, ret);
    return 0;
}

int store_index_set_labels(struct store_index *ix, const struct store_snap_row *row,
                           struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_SET_LABELS, err);
    struct store_digest labels;
    int rc;

    if (!st)
        return index_errno(ix);
    rc = store_index_labels_digest(row, &labels, err);
    if (rc < 0)
        return rc;
    index_bind_text(st, 1, row->name);
    index_bind_text(st, 2, row->tags);
    index_bind_key(st, 3, &labels);
    index_bind_int(st, 4, row->seq);
    return index_run(ix, st, err);
}

int store_index_add_snapshot(struct store_index *ix, const struct store_snap_row *row,
                             struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_ADD_SNAPSHOT, err);
    struct store_snap_row again = *row;
    int rc;

    if (!st)
        return index_errno(ix);
    index_bind_key(st, 1, &row->id);
    index_bind_text(st, 2, row->name);
    index_bind_text(st, 3, row->tags);
    (void)sqlite3_bind_blob(st, 4, row->record, (int)row->record_len, SQLITE_STATIC);
    rc = index_run(ix, st, err);
    if (rc < 0)
        return rc;
    again.seq = (uint64_t)sqlite3_last_insert_rowid(ix->db);
    return store_index_set_labels(ix, &again, err);
}

static int index_del_int(struct store_index *ix, enum index_stmt which, uint64_t id,
                         struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, which, err);

    if (!st)
        return index_errno(ix);
    index_bind_int(st, 1, id);
    return index_run(ix, st, err);
}

int store_index_del_snapshot(struct store_index *ix, uint64_t seq, struct err *err)
{
    int rc = index_del_int(ix, ST_DEL_SNAPSHOT, seq, err);

    return rc == 0 && sqlite3_changes(ix->db) == 0
               ? err_set(err, -ENOENT, "store.db: snapshots.seq: %llu is gone",
                         (unsigned long long)seq)
               : rc;
}

int store_index_del_pack(struct store_index *ix, uint64_t id, struct err *err)
{
    return index_del_int(ix, ST_DEL_PACK, id, err);
}

int store_index_del_extent(struct store_index *ix, uint64_t id, struct err *err)
{
    return index_del_int(ix, ST_DEL_EXTENT, id, err);
}

int store_index_del_fresh(struct store_index *ix, uint64_t segment, struct err *err)
{
    ix->fresh_known = false;
    return index_del_int(ix, ST_DEL_FRESH, segment, err);
}

int store_index_del_object(struct store_index *ix, const struct store_digest *d, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_DEL_OBJECT, err);

    if (!st)
        return index_errno(ix);
    index_bind_key(st, 1, d);
    return index_run(ix, st, err);
}

int store_index_checkpoint(struct store_index *ix, struct err *err)
{
    int rc = index_room(ix, err);

    if (rc < 0)
        return rc;
    if (sqlite3_exec(ix->db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL) != SQLITE_OK)
        return index_fail(ix, err);
    return 0;
}

int store_index_write_back(struct store_index *ix, struct err *err)
{
    int rc = index_room(ix, err);

    if (rc < 0)
        return rc;
    return sqlite3_wal_checkpoint(ix->db, "main") == SQLITE_OK ? 0 : index_fail(ix, err);
}

int store_index_put_off(struct store_index *ix, struct err *err)
{
    return sqlite3_wal_autocheckpoint(ix->db, 0) == SQLITE_OK ? 0 : index_fail(ix, err);
}

int store_index_trim(struct store_index *ix, struct err *err)
{
    int rc = index_room(ix, err);

    if (rc < 0)
        return rc;
    if (sqlite3_exec(ix->db, "PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)", NULL,
                     NULL, NULL) != SQLITE_OK)
        return index_fail(ix, err);
    return 0;
}

int store_index_check(struct store_index *ix, store_index_problem_fn *fn, void *arg,
                      struct err *err)
{
    sqlite3_stmt *st = NULL;
    int rc;

    if (sqlite3_prepare_v2(ix->db, "PRAGMA integrity_check(100)", -1, &st, NULL) != SQLITE_OK)
        return index_fail(ix, err);
    while ((rc = index_step(ix, st, err)) > 0) {
        const char *text = (const char *)sqlite3_column_text(st, 0);

        if (!text || strcmp(text, "ok") != 0)
            fn(arg, text ? text : "damaged");
    }
    (void)sqlite3_finalize(st);
    return rc;
}
