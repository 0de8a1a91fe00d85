/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What writer and verifier use of a snapshot beyond its public face.
 */
#ifndef STORE_STORE_READER_INTERNAL_H
#define STORE_STORE_READER_INTERNAL_H

#include "store/store_internal.h"
#include "store/store_reader.h"

/**
 * store_snapshot_node() - a node of a region's manifest, copied out.
 * @i: of the node within its level.
 *
 * Return: 1 and *@ret_node; 0 if the whole subtree is zero; -EBADMSG or -ESTALE.
 * Threads: any.
 */
CHECKED int store_snapshot_node(struct store_snapshot *snap, unsigned region, unsigned level,
                                uint64_t i, struct store_node *ret_node, struct err *err);

/**
 * store_snapshot_store() - the store that a snapshot was opened in.
 *
 * Return: borrowed; never NULL.
 * Threads: any.
 */
struct store *store_snapshot_store(const struct store_snapshot *snap);

/* A node's place in the tree of a region. */
struct store_place {
    uint64_t pages; /* of the region */
    unsigned level;
    uint64_t i; /* of the node within its level */
};

/**
 * store_load_node() - read, verify and decode one node by name.
 * @d:     its digest.
 * @place: where it belongs, which says what it must be like.
 *
 * Return: 0; -ESTALE or -EBADMSG; or another errno.
 * Threads: any.
 */
CHECKED int store_load_node(struct store *st, const struct store_digest *d,
                            const struct store_place *place, struct store_node *ret_node,
                            struct err *err);

#endif
