/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index: what is where.  The only file that talks SQL about content.
 *
 * One struct store_index is one connection; one thread at a time may use it.
 * All values that come out were checked for type and range.
 */
#ifndef STORE_STORE_INDEX_H
#define STORE_STORE_INDEX_H

#include "store/store_backend.h"
#include "store/store_digest.h"
#include "store/store_manifest.h"

struct store_index;

/* A segment's place; id 0 means none. */
struct store_extent {
    uint64_t id;
    uint64_t pack;
    uint64_t off; /* bytes into the pack */
    uint32_t len; /* bytes, header and payload */
};

/* A row of the table of snapshots, as it stands there. */
struct store_snap_row {
    uint64_t seq;
    struct store_digest id;
    const char *name; /* NULL if none */
    const char *tags; /* separated by commas */
    struct store_digest labels;
    const uint8_t *record;
    size_t record_len;
};

enum store_table {
    STORE_TABLE_PACKS,
    STORE_TABLE_SEGMENTS,
    STORE_TABLE_PAGES,
    STORE_TABLE_OBJECTS,
    STORE_TABLE_SNAPSHOTS,
};

enum store_index_flags {
    STORE_INDEX_CREATE = 1 << 0,
};

/**
 * store_index_open() - connect to the index of a back end.
 * @flags: enum store_index_flags.
 *
 * Return: 0 and *@ret_ix, owned, for store_index_close(); else as store_open().
 * Threads: any.
 */
CHECKED int store_index_open(struct store_backend *be, unsigned flags, struct store_index **ret_ix,
                             struct err *err);

/**
 * store_index_close() - disconnect; rolls back what is not committed.
 * @ix: taken; NULL is allowed.
 *
 * Threads: one at a time.
 */
void store_index_close(struct store_index *ix);

/**
 * store_index_identity() - who this store is.
 * @ret_uuid: 16 bytes.
 *
 * Return: 0; -EBADMSG.
 * Threads: one at a time.
 */
CHECKED int store_index_identity(struct store_index *ix, uint8_t *ret_uuid, uint64_t *ret_last_pack,
                                 struct err *err);

/**
 * store_index_page() - where a page is.
 *
 * Return: 1 and *@ret_loc; 0 if it is not stored; -EBADMSG or another errno.
 * Threads: one at a time.
 */
CHECKED int store_index_page(struct store_index *ix, const struct store_digest *d,
                             uint64_t *ret_loc, struct err *err);

/**
 * store_index_pin() - stop asking whether other processes have added pages.
 *
 * store_index_page() may then miss pages added since, and nothing else.
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_pin(struct store_index *ix, struct err *err);

/**
 * store_index_use_filter() - answer for most pages that are not stored without a search of the tree.
 *
 * For who has pinned the list of pages; until a transaction begins.  Where there is no filter of the tree
 * nothing happens.
 * Threads: one at a time.
 */
void store_index_use_filter(struct store_index *ix);

/**
 * store_index_nr_pages() - pages in the index, as it counts them itself.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_nr_pages(struct store_index *ix, uint64_t *ret_nr, struct err *err);

/**
 * store_index_object() - where a node or a piece of state is.
 * @hints:     STORE_HINTS_LEN_MAX bytes for its hints; NULL if not wanted.
 * @hints_len: their length.
 *
 * Return: 1 and *@ret_segment; 0 if it is not stored; -EBADMSG or another errno.
 * Threads: one at a time.
 */
CHECKED int store_index_object(struct store_index *ix, const struct store_digest *d,
                               uint64_t *ret_segment, uint8_t *hints, size_t *hints_len,
                               struct err *err);

/**
 * store_index_extents() - where segments are.
 * @id:  the first wanted.
 * @ret: up to @cap of them with ids >= @id, in order of id.
 *
 * Return: how many; -EBADMSG or another errno.
 * Threads: one at a time.
 */
CHECKED int store_index_extents(struct store_index *ix, uint64_t id, struct store_extent *ret,
                                unsigned cap, struct err *err);

/**
 * store_index_count() - rows of a table.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_count(struct store_index *ix, enum store_table table, uint64_t *ret_nr,
                              struct err *err);

/**
 * store_index_bytes() - size of the database.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_bytes(struct store_index *ix, uint64_t *ret_len, struct err *err);

typedef int store_snap_row_fn(void *arg, const struct store_snap_row *row);
typedef int store_pack_row_fn(void *arg, uint64_t id, uint64_t len);
typedef int store_extent_fn(void *arg, const struct store_extent *e);
typedef int store_page_row_fn(void *arg, const struct store_digest *d, uint64_t loc);
typedef int store_object_row_fn(void *arg, const struct store_digest *d, uint64_t segment);

/**
 * store_index_each_snapshot() - every snapshot, in order of sequence number.
 *
 * Return: 0; what @fn returned when negative; or an errno.
 * Threads: one at a time; @fn must not use @ix.
 */
CHECKED int store_index_each_snapshot(struct store_index *ix, store_snap_row_fn *fn, void *arg,
                                      struct err *err);

/**
 * store_index_each_pack() - every pack, in order of id.
 *
 * Return: as store_index_each_snapshot().
 * Threads: one at a time; @fn must not use @ix.
 */
CHECKED int store_index_each_pack(struct store_index *ix, store_pack_row_fn *fn, void *arg,
                                  struct err *err);

/**
 * store_index_each_extent() - every segment, in order of id.
 *
 * Return: as store_index_each_snapshot().
 * Threads: one at a time; @fn must not use @ix.
 */
CHECKED int store_index_each_extent(struct store_index *ix, store_extent_fn *fn, void *arg,
                                    struct err *err);

/**
 * store_index_each_page() - every page, in no order.
 *
 * Return: as store_index_each_snapshot().
 * Threads: one at a time; @fn must not use @ix.
 */
CHECKED int store_index_each_page(struct store_index *ix, store_page_row_fn *fn, void *arg,
                                  struct err *err);

/**
 * store_index_each_object() - every object, in order of digest.
 *
 * Return: as store_index_each_snapshot().
 * Threads: one at a time; @fn must not use @ix.
 */
CHECKED int store_index_each_object(struct store_index *ix, store_object_row_fn *fn, void *arg,
                                    struct err *err);

/* ---- changes, all between begin and commit ---- */

/**
 * store_index_begin() - start the one transaction that may write; waits for others.
 *
 * Return: 0; -EBUSY after a minute; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_begin(struct store_index *ix, struct err *err);

/**
 * store_index_begin_read() - see one state of the index until store_index_rollback().
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_begin_read(struct store_index *ix, struct err *err);

/**
 * store_index_commit() - make it visible and durable at once.
 *
 * Return: 0; -ENOSPC if the disk has no room for what the log will be written back to; or
 * an errno, and then nothing has happened.
 * Threads: one at a time.
 */
CHECKED int store_index_commit(struct store_index *ix, struct err *err);

/**
 * store_index_look_begin(), store_index_look_end() - around many questions that follow each other.
 *
 * Each question alone locks the index, looks whether it has changed, and unlocks it.
 *
 * Return: 0; as store_index_begin().
 * Threads: one at a time; outside of any transaction.
 */
CHECKED int store_index_look_begin(struct store_index *ix, struct err *err);
void store_index_look_end(struct store_index *ix);

/**
 * store_index_rollback() - forget it; harmless outside a transaction.
 *
 * Threads: one at a time.
 */
void store_index_rollback(struct store_index *ix);

/**
 * store_index_add_pack() - a pack is there; later ids must be greater.
 *
 * Return: 0; -EEXIST; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_add_pack(struct store_index *ix, uint64_t id, uint64_t len,
                                 struct err *err);

/**
 * store_index_put_pack() - a pack, in place of what the index says about it.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_put_pack(struct store_index *ix, uint64_t id, uint64_t len,
                                 struct err *err);

/**
 * store_index_touch() - make the transaction one that writes, without a change.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_touch(struct store_index *ix, struct err *err);

/**
 * store_index_put_extent() - a segment is there, or has moved there.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_put_extent(struct store_index *ix, const struct store_extent *e,
                                   struct err *err);

/* A page and its place. */
struct store_page_at {
    const struct store_digest *d;
    uint64_t loc;
    uint64_t prefix; /* of the digest, for the index to sort by */
};

/**
 * store_index_add_pages() - pages are there; those that are known stay where they were.
 * @p: @nr of them, all different; put into another order.
 *
 * Few pages are kept aside, in order of segment, until there are
 * enough to be worth sorting in: a page at a random place of a large tree costs as
 * much as writing the page itself.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_add_pages(struct store_index *ix, struct store_page_at *p, size_t nr,
                                  struct err *err);

/**
 * store_index_fold() - sort in the pages that were kept aside.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_fold(struct store_index *ix, struct err *err);

/**
 * store_index_settle() - what makes the next changes quick: sort in pages that were kept aside, if
 * they are many, write the log back, and have a filter of the tree.
 *
 * In a transaction of its own; one at a time for a store.
 * Return: 0; or an errno: no page has been lost.
 * Threads: one at a time.
 */
CHECKED int store_index_settle(struct store_index *ix, struct err *err);

/**
 * store_index_put_off() - leave writing the log back to store_index_settle(), of any connection.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_put_off(struct store_index *ix, struct err *err);

/**
 * store_index_add_object() - an object is there; one that is known stays where it was.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_add_object(struct store_index *ix, const struct store_digest *d,
                                   uint64_t segment, const uint8_t *hints, size_t hints_len,
                                   struct err *err);

/**
 * store_index_add_snapshot() - publish a snapshot.
 * @row: all but seq and labels.
 *
 * Return: 0; -EEXIST if the name or the id is taken; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_add_snapshot(struct store_index *ix, const struct store_snap_row *row,
                                     struct err *err);

/**
 * store_index_set_labels() - change name and tags of the snapshot @row->seq.
 * @row: seq, id, name and tags are used.
 *
 * Return: 0; -EEXIST if another has the name; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_set_labels(struct store_index *ix, const struct store_snap_row *row,
                                   struct err *err);

/**
 * store_index_labels_digest() - what protects seq, id, name and tags of a row.
 *
 * Return: 0; -ENOMEM.
 * Threads: any.
 */
CHECKED int store_index_labels_digest(const struct store_snap_row *row, struct store_digest *ret,
                                      struct err *err);

/**
 * store_index_del_snapshot() - remove a row.
 *
 * Return: 0; -ENOENT if there is none; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_del_snapshot(struct store_index *ix, uint64_t seq, struct err *err);

/**
 * store_index_del_pack() - remove a row.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_del_pack(struct store_index *ix, uint64_t id, struct err *err);

/**
 * store_index_del_extent() - remove a row.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_del_extent(struct store_index *ix, uint64_t id, struct err *err);

/**
 * store_index_del_page() - remove a page; after store_index_fold() only.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_del_page(struct store_index *ix, const struct store_digest *d,
                                 struct err *err);

/**
 * store_index_recount() - count the pages again; after store_index_fold() only.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_recount(struct store_index *ix, struct err *err);

/**
 * store_index_del_object() - remove a row.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_del_object(struct store_index *ix, const struct store_digest *d,
                                   struct err *err);

/**
 * store_index_del_fresh() - forget the pages of a segment that are listed as fresh.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_del_fresh(struct store_index *ix, uint64_t segment, struct err *err);

/**
 * store_index_checkpoint() - write the log back and empty it.
 *
 * Return: 0; -EBUSY if somebody reads; or an errno.
 * Threads: one at a time, outside a transaction.
 */
CHECKED int store_index_checkpoint(struct store_index *ix, struct err *err);

/**
 * store_index_write_back() - write back what of the log nobody looks at any more.
 *
 * Return: 0; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_write_back(struct store_index *ix, struct err *err);

/**
 * store_index_trim() - give free space of the database back to the file system.
 *
 * Return: 0; or an errno.
 * Threads: one at a time, outside a transaction.
 */
CHECKED int store_index_trim(struct store_index *ix, struct err *err);

typedef void store_index_problem_fn(void *arg, const char *what);

/**
 * store_index_check() - let SQLite look for damage in its file.
 *
 * Return: 0 if it ran, whatever it told @fn; or an errno.
 * Threads: one at a time.
 */
CHECKED int store_index_check(struct store_index *ix, store_index_problem_fn *fn, void *arg,
                              struct err *err);

#endif
