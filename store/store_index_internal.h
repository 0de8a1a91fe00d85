/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index, as its own two files see it: store_index.c has the connection and
 * most tables, store_index_pages.c the pages.
 */
#ifndef STORE_STORE_INDEX_INTERNAL_H
#define STORE_STORE_INDEX_INTERNAL_H

#include <sqlite3.h>

#include "store/store_filter.h"
#include "store/store_index.h"
#include "store/store_map.h"
#include "store/store_segment.h"

enum {
    INDEX_KEY_LEN = sizeof(struct store_digest),
};

enum index_stmt {
    ST_IDENTITY,
    ST_PAGE,
    ST_OBJECT,
    ST_EXTENTS,
    ST_SNAPSHOTS,
    ST_PACKS,
    ST_ALL_EXTENTS,
    ST_ALL_PAGES,
    ST_ALL_FRESH,
    ST_FRESH_STAMP,
    ST_DATA_VERSION, /* another when another connection has changed something */
    ST_NR_PAGES,
    ST_ALL_OBJECTS,
    ST_BEGIN,
    ST_BEGIN_LOOK,
    ST_COMMIT,
    ST_ADD_PACK,
    ST_PUT_PACK,
    ST_LAST_PACK,
    ST_PUT_EXTENT,
    ST_ADD_PAGE,
    ST_ADD_PAGES, /* INDEX_ADD_PAGES of them */
    ST_ADD_FRESH,
    ST_DROP_FRESH,
    ST_SET_NR_PAGES,
    ST_ADD_OBJECT,
    ST_ADD_SNAPSHOT,
    ST_SET_LABELS,
    ST_DEL_SNAPSHOT,
    ST_DEL_PACK,
    ST_DEL_FRESH,
    ST_DEL_EXTENT,
    ST_DEL_PAGE,
    ST_DEL_OBJECT,
    ST_MAX,
};

enum {
    INDEX_ADD_PAGES = 32,
};

struct store_index {
    struct store_backend *be; /* borrowed */
    sqlite3 *db;
    int room; /* of the last index_room(): 0 or an errno */
    sqlite3_stmt *st[ST_MAX];
    bool in_tx;

    bool fresh_known;  /* the numbers below are what the table had when last looked at */
    bool fresh_pinned; /* do not look again */
    uint64_t fresh_rows, fresh_last;
    uint64_t fresh_version;        /* of the data, when last looked at */
    uint64_t pin_version;          /* of the data, as the database counts it, when it was pinned */
    struct store_digest_map fresh; /* digest: loc */

    struct store_filter *filter; /* what the tree lacks; NULL: not known */
    bool filter_forgotten;       /* pages have left the tree */
};

/**
 * index_room() - whether a transaction may begin: -ENOSPC where changing the memory that SQLite's
 * processes share would end this one.
 *
 * Return: 0; -ENOSPC.
 * Threads: one at a time.
 */
CHECKED int index_room(struct store_index *ix, struct err *err);

/**
 * index_errno() - the errno of the database's last failure.
 *
 * Return: a negative errno.
 * Threads: one at a time.
 */
int index_errno(struct store_index *ix);

/**
 * index_stmt() - a prepared statement, ready to be bound.
 *
 * Return: borrowed; NULL with @err set: return index_errno() then.
 * Threads: one at a time.
 */
sqlite3_stmt *index_stmt(struct store_index *ix, enum index_stmt which, struct err *err);

/**
 * index_run() - run a statement that yields no rows.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int index_run(struct store_index *ix, sqlite3_stmt *st, struct err *err);

/**
 * index_step() - fetch the next row; resets the statement unless there is one.
 *
 * Return: 1; 0 at the end; or an errno.
 * Threads: one at a time.
 */
CHECKED int index_step(struct store_index *ix, sqlite3_stmt *st, struct err *err);

/**
 * index_scalar() - the one number that a statement yields.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int index_scalar(struct store_index *ix, const char *sql, uint64_t *ret, struct err *err);

/**
 * index_bind_key() - bind a digest, which must stay until the statement has run.
 *
 * Threads: one at a time.
 */
void index_bind_key(sqlite3_stmt *st, int i, const struct store_digest *d);

/**
 * index_bind_int() - bind a number below 2^63.
 *
 * Threads: one at a time.
 */
void index_bind_int(sqlite3_stmt *st, int i, uint64_t v);

/**
 * index_col_int() - a number of a row.
 *
 * Return: 0; -EBADMSG if it is none or above @max.
 * Threads: one at a time.
 */
CHECKED int index_col_int(sqlite3_stmt *st, int i, uint64_t max, uint64_t *ret, struct err *err);

/**
 * index_col_key() - a digest of a row.
 *
 * Return: 0; -EBADMSG if it is none.
 * Threads: one at a time.
 */
CHECKED int index_col_key(sqlite3_stmt *st, int i, struct store_digest *ret, struct err *err);

#endif
