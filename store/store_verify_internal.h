/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verifier's two files share what one of them finds out: what of the store's bytes and rows is
 * true (store_verify.c), which what hangs on them is then held against (store_verify_walk.c).
 */
#ifndef STORE_STORE_VERIFY_INTERNAL_H
#define STORE_STORE_VERIFY_INTERNAL_H

#include "store/store_map.h"
#include "store/store_reader_internal.h"
#include "store/store_record.h"
#include "store/store_repair.h"
#include "store/store_scan.h"

struct verify {
    struct store *st;
    struct store_index *ix; /* its own connection, seeing one state */
    const struct store_verify_cfg *cfg;
    struct store_verify_result *res;
    struct err *err;
    struct store_codec_ctx *codec;

    size_t nr_packs, cap_packs;
    struct store_verified_pack *packs; /* in order of id */
    size_t nr_extents, cap_extents;
    struct store_extent *extents;
    uint64_t bytes_total;
    struct store_id_map segments;   /* segment: SEG_* of store_verify.c, a bit for each item */
    struct store_digest_map trees;  /* nodes with nothing but truth below: walk_shape() */
    struct store_digest_map spares; /* for a repair: true places that no row names */
    bool pack_good;                 /* of the segment at hand */
    uint64_t nr_pages, bad_pages, bad_objects; /* rows of the index */
    struct store_scan *scan;                   /* NULL until something is not where it should be */
    size_t nr_mended, cap_mended;
    struct store_extent *mended;   /* for a repair: rows of segments that are to be put right */
    struct store_id_map missing;   /* segments that rows lead to and that have no row */
    struct store_id_map seen;      /* segment: a bit for each item that a row leads to */
    struct store_id_map contested; /* the same, if another row does as well */
    struct store_digest_map liars; /* rows that lead to the place of another: 1 */
    unsigned rows_said;
    struct store_unpacked unpacked;
    uint8_t bytes[STORE_SEGMENT_LEN_MAX];
};

/**
 * verify_say() - tell of a problem.
 * @snapshot: id of the one that has it; NULL: none in particular.
 *
 * STORE_WRONG is counted.
 * Threads: the verifier's.
 */
PRINTF(4, 5)
void verify_say(struct verify *v, enum store_severity severity, const char *snapshot,
                const char *fmt, ...);

/**
 * verify_no_memory() - the error of a verifier that has none.
 *
 * Return: -ENOMEM.
 * Threads: the verifier's.
 */
CHECKED int verify_no_memory(struct verify *v);

/**
 * verify_loc_is_true() - does a sound segment have a page there?
 *
 * Return: whether; for all, once every segment was looked at.
 * Threads: the verifier's.
 */
CHECKED bool verify_loc_is_true(const struct verify *v, uint64_t loc);

/**
 * verify_row_lies() - does the row of @d lead to the place of another page or object?
 *
 * Return: whether; for all, once every row was looked at.
 * Threads: the verifier's.
 */
CHECKED bool verify_row_lies(const struct verify *v, const struct store_digest *d);

/**
 * verify_snapshots() - walk the manifests of every snapshot.
 *
 * What hangs on something that is not true is read the way a restore would, and told of as lost
 * only if that fails.
 * Return: 0, with what was found in @v->res; -EBADMSG for damage in the database, in @v->err;
 * or an errno.
 * Threads: the verifier's, after segments and rows.
 */
CHECKED int verify_snapshots(struct verify *v);

#endif
