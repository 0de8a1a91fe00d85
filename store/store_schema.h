/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of store.db, and the check that a database has these and no more.
 *
 * Spec: docs/store-format.md, "The index".
 */
#ifndef STORE_STORE_SCHEMA_H
#define STORE_STORE_SCHEMA_H

#include <sqlite3.h>

#include "core/err.h"

enum {
    STORE_APPLICATION_ID = 0x43485253, /* "CHRS" */
};

/**
 * store_schema_create() - make the tables in an empty database, in one transaction.
 * @uuid: 16 random bytes that name the store.
 *
 * Does nothing if another process was faster.
 * Return: 0; or an errno from SQLite.
 * Threads: one at a time for one @db.
 */
CHECKED int store_schema_create(sqlite3 *db, const uint8_t *uuid, struct err *err);

/**
 * store_schema_check() - refuse a database that is not a store of a format we know.
 * @db: hostile.
 *
 * Return: 0; -ENOENT if it is empty (a creation was interrupted); -EINVAL if it is
 * something else; -ENOTSUP for a later format; -EBADMSG for tables, views or
 * triggers that do not belong there.
 * Threads: one at a time for one @db.
 */
CHECKED int store_schema_check(sqlite3 *db, struct err *err);

/**
 * store_sqlite_errno() - what an SQLite failure means.
 *
 * Return: a negative errno.
 * Threads: one at a time for one @db.
 */
int store_sqlite_errno(sqlite3 *db);

#endif
