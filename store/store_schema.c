/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_schema.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/store.h"

struct schema_table {
    const char *name;
    const char *sql; /* as SQLite keeps it, letter by letter */
};

static const struct schema_table schema_tables[] = {
    {"store",           "CREATE TABLE store(one INTEGER PRIMARY KEY CHECK(one = 1), uuid BLOB NOT NULL, "
              "last_pack INTEGER NOT NULL, nr_pages INTEGER NOT NULL) STRICT"           },
    {"packs",           "CREATE TABLE packs(id INTEGER PRIMARY KEY, len INTEGER NOT NULL) STRICT"    },
    {"segments",        "CREATE TABLE segments(id INTEGER PRIMARY KEY, pack INTEGER NOT NULL, "
                 "off INTEGER NOT NULL, len INTEGER NOT NULL) STRICT"                },
    {"pages",           "CREATE TABLE pages(digest BLOB PRIMARY KEY, loc INTEGER NOT NULL) "
              "STRICT, WITHOUT ROWID"                                                   },
    {"fresh",           "CREATE TABLE fresh(segment INTEGER PRIMARY KEY, pages BLOB NOT NULL) STRICT"},
    {"objects",         "CREATE TABLE objects(digest BLOB PRIMARY KEY, segment INTEGER NOT NULL, "
                "hints BLOB NOT NULL) STRICT, WITHOUT ROWID"                          },
    {"snapshots",       "CREATE TABLE snapshots(seq INTEGER PRIMARY KEY AUTOINCREMENT, "
                  "id BLOB NOT NULL UNIQUE, name TEXT UNIQUE, tags TEXT NOT NULL, "
                  "labels BLOB NOT NULL, record BLOB NOT NULL) STRICT"              },
    {"sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)"                                     },
};

/* SQLite tries to read what it could not make, and tells of that: why a log cannot be made. */
static int schema_log_errno(sqlite3 *db)
{
    const char *path = sqlite3_db_filename(db, "main");
    auto_close int fd = -1;

    errno = ENOENT;
    if (path && *path)
        fd = open(sqlite3_filename_wal(path), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? errno : ENOENT;
}

int store_sqlite_errno(sqlite3 *db)
{
    int code = sqlite3_errcode(db) & 0xff, sys = sqlite3_system_errno(db);

    if (code == SQLITE_CANTOPEN && sys == ENOENT)
        sys = schema_log_errno(db);
    switch (code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
        return sys == ENOSPC || sys == EDQUOT || sys == EACCES ? -sys : -EIO;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return -EACCES;
    default:
        return -EBADMSG;
    }
}

static int schema_fail(sqlite3 *db, struct err *err)
{
    return err_set(err, store_sqlite_errno(db), "store.db: %s", sqlite3_errmsg(db));
}

static int schema_get_int(sqlite3 *db, const char *sql, int64_t *ret, struct err *err)
{
    sqlite3_stmt *st = NULL;
    int rc = 0;

    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW)
        rc = schema_fail(db, err);
    else
        *ret = sqlite3_column_int64(st, 0);
    (void)sqlite3_finalize(st);
    return rc;
}

static int schema_create_locked(sqlite3 *db, const uint8_t *uuid, struct err *err)
{
    sqlite3_stmt *st = NULL;
    char sql[80];
    bool done;

    /* SQLite makes sqlite_sequence by itself. */
    for (size_t i = 0; i < ARRAY_LEN(schema_tables) - 1; i++)
        if (sqlite3_exec(db, schema_tables[i].sql, NULL, NULL, NULL) != SQLITE_OK)
            return schema_fail(db, err);
    (void)snprintf(sql, sizeof(sql), "PRAGMA application_id = %d; PRAGMA user_version = %d",
                   STORE_APPLICATION_ID, STORE_FORMAT_VERSION);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return schema_fail(db, err);
    done = sqlite3_prepare_v2(db, "INSERT INTO store VALUES(1, ?, 0, 0)", -1, &st, NULL) ==
               SQLITE_OK &&
           sqlite3_bind_blob(st, 1, uuid, 16, SQLITE_STATIC) == SQLITE_OK &&
           sqlite3_step(st) == SQLITE_DONE;
    (void)sqlite3_finalize(st);
    return done ? 0 : schema_fail(db, err);
}

int store_schema_create(sqlite3 *db, const uint8_t *uuid, struct err *err)
{
    int64_t version = 0;
    int rc;

    if (sqlite3_exec(db,
                     "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;"
                     "BEGIN IMMEDIATE",
                     NULL, NULL, NULL) != SQLITE_OK)
        return schema_fail(db, err);
    rc = schema_get_int(db, "PRAGMA user_version", &version, err);
    if (rc == 0 && version == 0)
        rc = schema_create_locked(db, uuid, err);
    if (rc == 0 && sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        rc = schema_fail(db, err);
    if (rc < 0)
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* One row of sqlite_schema: one of our tables, or an index that SQLite made itself. */
static int schema_check_row(sqlite3_stmt *st, unsigned *seen, struct err *err)
{
    const char *type = (const char *)sqlite3_column_text(st, 0);
    const char *name = (const char *)sqlite3_column_text(st, 1);
    const char *sql = (const char *)sqlite3_column_text(st, 2);

    if (!type || !name)
        return err_set(err, -EBADMSG, "store.db: schema has an empty row");
    if (strcmp(type, "index") == 0 && strncmp(name, "sqlite_autoindex_", 17) == 0 && !sql)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(schema_tables); i++) {
        if (strcmp(name, schema_tables[i].name) != 0)
            continue;
        if (strcmp(type, "table") != 0 || !sql || strcmp(sql, schema_tables[i].sql) != 0)
            break;
        *seen |= 1U << i;
        return 0;
    }
    return err_set(err, -EBADMSG, "store.db: %.16s %.32s is not of this format", type, name);
}

static int schema_check_tables(sqlite3 *db, struct err *err)
{
    sqlite3_stmt *st = NULL;
    unsigned seen = 0;
    int step = SQLITE_ERROR;
    int rc = 0;

    if (sqlite3_prepare_v2(db, "SELECT type, name, sql FROM sqlite_schema", -1, &st, NULL) ==
        SQLITE_OK)
        while (rc == 0 && (step = sqlite3_step(st)) == SQLITE_ROW)
            rc = schema_check_row(st, &seen, err);
    if (rc == 0 && step != SQLITE_DONE)
        rc = schema_fail(db, err);
    (void)sqlite3_finalize(st);
    if (rc == 0 && seen != (1U << ARRAY_LEN(schema_tables)) - 1)
        rc = err_set(err, -EBADMSG, "store.db: a table is missing");
    return rc;
}

int store_schema_check(sqlite3 *db, struct err *err)
{
    int64_t version = 0, application = 0, tables = 0;
    int rc = schema_get_int(db, "PRAGMA user_version", &version, err);

    if (rc == 0)
        rc = schema_get_int(db, "PRAGMA application_id", &application, err);
    if (rc == 0)
        rc = schema_get_int(db, "SELECT count(*) FROM sqlite_schema", &tables, err);
    if (rc < 0)
        return rc;
    if (version == 0 && application == 0 && tables == 0)
        return err_set(err, -ENOENT, "store.db: is empty: its creation was interrupted");
    if (application != STORE_APPLICATION_ID)
        return err_set(err, -EINVAL, "store.db: is not the database of a store");
    if (version < 1 || version > STORE_FORMAT_VERSION) {
        return err_set(err, -ENOTSUP,
                       "the store needs format version %lld, this program knows up to %d",
                       (long long)version, STORE_FORMAT_VERSION);
    }
    return schema_check_tables(db, err);
}
