/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests: which pages make up the RAM of a snapshot.
 *
 * The manifest of a region is a Merkle tree.  A node has up to 512 entries: at
 * level 0 (a leaf, 2 MiB of RAM) the digests of pages, above it the digests of
 * nodes one level down.  A page or subtree of zeroes is an entry without a
 * digest.  A node is named by the digest of its bytes, so equal subtrees are
 * one object and the digest of the root names the region's whole contents.
 *
 * Where pages lie is no part of a node: hints beside it say that, and may be
 * stale; the index knows better.
 *
 * Spec: docs/store-format.md, "Manifests".
 */
#ifndef STORE_STORE_MANIFEST_H
#define STORE_STORE_MANIFEST_H

#include "core/wire.h"
#include "store/store_digest.h"

enum {
    STORE_NODE_VERSION = 1,
    STORE_NODE_ENTRIES = 512,
    STORE_NODE_SHIFT = 9,
    STORE_NODE_HDR_LEN = 80,
    STORE_NODE_LEN_MAX = STORE_NODE_HDR_LEN + STORE_NODE_ENTRIES * STORE_DIGEST_LEN,
    STORE_LEVELS_MAX = 4, /* 512^4 pages */
    STORE_HINT_LEN = 9,
    STORE_HINTS_LEN_MAX = STORE_NODE_ENTRIES * STORE_HINT_LEN,
};

#define STORE_REGION_PAGES_MAX ((uint64_t)1 << 32) /* 16 TiB */

struct store_node_wire {
    uint8_t magic[4];
    uint8_t version;
    uint8_t level;
    uint8_t alg; /* of the entries */
    uint8_t zero;
    le16 nr;
    uint8_t zero2[6];
    uint8_t present[STORE_NODE_ENTRIES / 8]; /* bit i % 8 of byte i / 8: entry i has a digest */
};
_Static_assert(sizeof(struct store_node_wire) == STORE_NODE_HDR_LEN,
               "docs/store-format.md, Manifests");

struct store_node {
    unsigned level;
    unsigned nr; /* entries */
    struct store_digest digest[STORE_NODE_ENTRIES];
    uint64_t loc[STORE_NODE_ENTRIES]; /* leaf: place of each page; 0: not known */
};

/* One run of pages that lie in consecutive slots of one segment. */
struct store_hint_wire {
    le64 loc;
    uint8_t count;
};
_Static_assert(sizeof(struct store_hint_wire) == STORE_HINT_LEN, "docs/store-format.md, Manifests");

/**
 * store_manifest_root_level() - level of the root of a region's tree.
 * @pages: of the region, 1 to STORE_REGION_PAGES_MAX.
 *
 * Return: below STORE_LEVELS_MAX.
 * Threads: any.
 */
unsigned store_manifest_root_level(uint64_t pages);

/**
 * store_manifest_nr_entries() - entries of all nodes of a level together.
 *
 * Level 0 has one per page, each level above one per node of the level below.
 * Threads: any.
 */
uint64_t store_manifest_nr_entries(uint64_t pages, unsigned level);

/**
 * store_manifest_node_nr() - entries of one node.
 * @i: of the node within its level.
 *
 * Return: 1 to STORE_NODE_ENTRIES.
 * Threads: any.
 */
unsigned store_manifest_node_nr(uint64_t pages, unsigned level, uint64_t i);

/**
 * store_node_is_zero() - whether no entry has a digest.
 *
 * Threads: any.
 */
bool store_node_is_zero(const struct store_node *n);

/**
 * store_node_encode() - the bytes of a node, of which its digest is taken.
 * @out: STORE_NODE_LEN_MAX bytes.
 *
 * Return: bytes in @out.
 * Threads: any.
 */
size_t store_node_encode(const struct store_node *n, uint8_t *out);

/**
 * store_node_decode() - check and decode a node.
 * @bytes: @len of them; hostile.
 * @level, @nr: what the place in the tree demands.
 *
 * Only the one encoding that store_node_encode() makes is accepted.
 * Return: 0; -EBADMSG or -ENOTSUP (then @ret_node is undefined).
 * Threads: any.
 */
CHECKED int store_node_decode(const uint8_t *bytes, size_t len, unsigned level, unsigned nr,
                              struct store_node *ret_node, struct err *err);

/**
 * store_hints_encode() - the places of a leaf's pages as runs.
 * @out: STORE_HINTS_LEN_MAX bytes.
 *
 * Return: bytes in @out.
 * Threads: any.
 */
size_t store_hints_encode(const struct store_node *leaf, uint8_t *out);

/**
 * store_hints_decode() - fill in the places of a leaf's pages.
 * @bytes: @len of them; hostile.
 *
 * Bytes that make no sense leave the places unknown: a hint is only a hint.
 * Return: true if the hints cover the leaf exactly.
 * Threads: any.
 */
bool store_hints_decode(const uint8_t *bytes, size_t len, struct store_node *leaf);

#endif
