/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verifier does about damage: keep what can still be read, forget the rest.
 *
 * A page or object whose row leads to nothing true is looked for in the store's other
 * segments, then where the row says; what is found lies in a sound segment afterwards.
 * What is not found loses its row, so that the next snapshot or import that has the same
 * contents stores them again: then every snapshot that lost them has them back.
 */
#ifndef STORE_STORE_REPAIR_H
#define STORE_STORE_REPAIR_H

#include "store/store_internal.h"
#include "store/store_map.h"

/* A pack, and what was found out about it. */
struct store_verified_pack {
    uint64_t id;
    uint64_t len; /* as its row says, or of the file if the row lies */
    uint64_t end; /* of the last sound segment in it */
    bool good;    /* the header is sound */
    bool fix;     /* its row is to be written anew, with @end */
};

/* What was found out; everything is borrowed. */
struct store_repair {
    struct store *st;
    struct store_index *ix; /* outside a transaction */
    struct store_codec_ctx *codec;
    const struct store_extent *extents; /* all */
    size_t nr_extents;
    const struct store_extent *mended; /* those whose rows are to be written anew */
    size_t nr_mended;
    const struct store_verified_pack *packs; /* all */
    size_t nr_packs;
    const struct store_digest_map *spares; /* places of sound contents that no row names */
    bool (*page_is_true)(void *arg, const struct store_digest *d, uint64_t loc);
    bool (*object_is_true)(void *arg, const struct store_digest *d, uint64_t segment);
    bool (*segment_is_sound)(void *arg, const struct store_extent *e);
    void *arg;
    struct store_verify_result *res;
};

/**
 * store_repair() - bring the index in line with what is there.
 *
 * Order of writes as for a snapshot: what is kept is durable in a new pack before the one
 * transaction that changes the index.  Bytes that are set aside stay where they are until
 * store_gc().
 *
 * Return: 0; or an errno, and then nothing has changed.
 * Threads: one; the caller holds the writers' lock alone.
 */
CHECKED int store_repair(const struct store_repair *r, struct err *err);

#endif
