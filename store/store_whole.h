/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a snapshot still has all that it names, as far as the index knows.
 *
 * A repair takes the rows of what is lost out of the index, and marks it in the hints of the
 * leaves.  So what is lost is found without reading a page, and without asking for each of
 * them: a new snapshot must not be built on it, and an import may bring it back.
 */
#ifndef STORE_STORE_WHOLE_H
#define STORE_STORE_WHOLE_H

#include "store/store_index.h"
#include "store/store_manifest.h"
#include "store/store_reader.h"

/**
 * store_snapshot_is_whole() - look for what is known to be lost.
 *
 * Reads the nodes above the leaves; leaves only if their hints leave something open.
 * Return: 1; 0 if memory or device state has lost something; or an errno, of anything else.
 * Threads: any, while no other uses the store: one view of its index is held meanwhile.
 */
CHECKED int store_snapshot_is_whole(struct store_snapshot *snap, struct err *err);

/**
 * store_find_hurt() - whether a store may bring in a snapshot: it is not there, or has lost something.
 * @id:       whole.
 * @ret_snap: the snapshot that has lost something, owned; on failure too, if there is one; else as
 *            it was.
 *
 * Return: 0; -EEXIST if it is there and whole; as store_snapshot_open().
 * Threads: any.
 */
CHECKED int store_find_hurt(struct store *st, const char *id, struct store_snapshot **ret_snap,
                            struct err *err);

/**
 * store_leaf_lost() - take the places of pages that are not in an index out of a leaf's.
 * @ix:   locked by the caller.
 * @leaf: with its places.
 *
 * Return: how many pages are not there; or an errno.
 * Threads: any.
 */
CHECKED int store_leaf_lost(struct store_index *ix, struct store_node *leaf, struct err *err);

#endif
