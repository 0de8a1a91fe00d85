/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of CBOR (RFC 8949) that state uses, in its core deterministic
 * encoding (4.2.1): shortest heads, definite lengths, map keys ascending.
 *
 * Items: integers from -2^63 to 2^64 - 1, byte strings, text strings (UTF-8
 * without U+0000), arrays, maps whose keys are names, false and true.  A name
 * is a text string of 1 to DCBOR_NAME_MAX printable ASCII bytes, no space.
 * Everything else (floats, tags, null, undefined, indefinite lengths, longer
 * heads than needed, keys that do not ascend) is refused.
 *
 * The reader allocates nothing.
 */
#ifndef CORE_DCBOR_H
#define CORE_DCBOR_H

#include "core/base.h"

enum {
    DCBOR_NAME_MAX = 63, /* bytes of a map key */
};

enum dcbor_type {
    DCBOR_UINT,
    DCBOR_NINT,
    DCBOR_BYTES,
    DCBOR_TEXT,
    DCBOR_ARRAY,
    DCBOR_MAP,
    DCBOR_BOOL,
};

/* One item, or the head of an array or a map whose items follow. */
struct dcbor_item {
    enum dcbor_type type;
    uint64_t val; /* UINT, BOOL: value; NINT: -1 - value; strings: bytes; ARRAY, MAP: entries */
    const uint8_t *data; /* strings: borrowed from the input */
};

/* A reader over hostile bytes. */
struct dcbor_in {
    const uint8_t *p;
    size_t left;
    const char *why; /* after a failure: what is wrong, one phrase; static */
};

/**
 * dcbor_next() - take one item, or the head of an array or a map.
 *
 * Return: 0 and *@ret_item; -EBADMSG and @in->why.
 * Threads: any.
 */
CHECKED int dcbor_next(struct dcbor_in *in, struct dcbor_item *ret_item);

/**
 * dcbor_expect() - dcbor_next(), and the item must be of one type.
 *
 * Return: as dcbor_next().
 * Threads: any.
 */
CHECKED int dcbor_expect(struct dcbor_in *in, enum dcbor_type type, struct dcbor_item *ret_item);

/**
 * dcbor_skip() - pass over one whole item, checking all of it.
 * @depth: levels of arrays and maps allowed.
 *
 * Return: 0; -EBADMSG and @in->why.
 * Threads: any.
 */
CHECKED int dcbor_skip(struct dcbor_in *in, unsigned depth);

/**
 * dcbor_pass() - pass over one whole item, not checking what is in it.
 *
 * For what is read afterwards, or was before: finds the end, and stays inside the input.
 *
 * Return: 0; -EBADMSG and @in->why for what has no end in the input, or no such head.
 * Threads: any.
 */
CHECKED int dcbor_pass(struct dcbor_in *in);

/* A walk over the entries of a map. */
struct dcbor_map {
    uint64_t left; /* entries not yet taken */
    char key[DCBOR_NAME_MAX + 1];
    size_t key_len; /* 0 before the first */
};

/**
 * dcbor_map_begin() - take the head of a map.
 *
 * Return: 0 and *@ret_map; -EBADMSG and @in->why.
 * Threads: any.
 */
CHECKED int dcbor_map_begin(struct dcbor_in *in, struct dcbor_map *ret_map);

/**
 * dcbor_map_next() - take the next key; the caller takes its value.
 *
 * Keys must ascend strictly, so there are no duplicates.
 *
 * Return: 1 and @map->key; 0 at the end of the map; -EBADMSG and @in->why.
 * Threads: any.
 */
CHECKED int dcbor_map_next(struct dcbor_in *in, struct dcbor_map *map);

/**
 * dcbor_name_ok() - whether a string may be a key.
 *
 * Return: true if so.
 * Threads: any.
 */
bool dcbor_name_ok(const char *name, size_t len);

/**
 * dcbor_name_cmp() - the order of two keys in a map.
 *
 * Return: below, at or above 0, as strcmp().
 * Threads: any.
 */
int dcbor_name_cmp(const char *a, const char *b);

/* A growing output.  The first failure latches in rc and later calls do nothing. */
struct dcbor_out {
    uint8_t *data; /* owned by whoever owns the struct; malloc */
    size_t len;
    size_t cap;
    size_t max; /* most bytes wanted; then -E2BIG */
    int rc;     /* 0; -ENOMEM; -E2BIG */
};

/**
 * dcbor_put() - append one item, or the head of an array or a map.
 * @type: DCBOR_NINT: @val is -1 - value.  Strings: head only, see dcbor_put_string().
 *
 * Threads: any.
 */
void dcbor_put(struct dcbor_out *out, enum dcbor_type type, uint64_t val);

/**
 * dcbor_put_string() - append a byte or text string.
 * @type: DCBOR_BYTES or DCBOR_TEXT.
 *
 * Threads: any.
 */
void dcbor_put_string(struct dcbor_out *out, enum dcbor_type type, const void *data, size_t len);

#endif
