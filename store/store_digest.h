/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of content: a digest with the algorithm that made it.
 *
 * The algorithm byte travels with every digest, in memory, in the index and in
 * the packs, so that another one can join later.  The all-zero value names a
 * page (or a whole subtree of a manifest) of zeroes, which is never stored.
 */
#ifndef STORE_STORE_DIGEST_H
#define STORE_STORE_DIGEST_H

#include <errno.h>
#include <string.h>

#include "core/err.h"

enum {
    STORE_ALG_ZERO = 0,   /* content is all zeroes; no digest bytes */
    STORE_ALG_SHA256 = 1, /* FIPS 180-4 */

    STORE_DIGEST_LEN = 32,
    STORE_DIGEST_HEX = 2 * STORE_DIGEST_LEN,
};

struct store_digest {
    uint8_t alg;
    uint8_t b[STORE_DIGEST_LEN];
};

/* The one failure that has nothing to explain. */
static inline int store_no_memory(struct err *err)
{
    (void)err_set(err, -ENOMEM, "out of memory");
    return -ENOMEM;
}

static inline bool store_digest_equal(const struct store_digest *a, const struct store_digest *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool store_digest_is_zero(const struct store_digest *d)
{
    return d->alg == STORE_ALG_ZERO;
}

/**
 * store_digest_hex() - the digest bytes as lower-case hex, without the algorithm.
 * @ret: STORE_DIGEST_HEX characters and a terminating zero.
 *
 * Threads: any.
 */
void store_digest_hex(const struct store_digest *d, char ret[STORE_DIGEST_HEX + 1]);

/**
 * store_hash() - name some bytes.
 * @data: @len bytes.
 *
 * Threads: any.
 */
void store_hash(const void *data, size_t len, struct store_digest *ret_digest);

/**
 * store_hash2() - name two pieces of bytes, one behind the other.
 *
 * Threads: any.
 */
void store_hash2(const void *a, size_t a_len, const void *b, size_t b_len,
                 struct store_digest *ret_digest);

/**
 * store_hash_items() - name each of several items of one length.
 * @data: @nr * @len bytes, the items one behind the other.
 * @len:  bytes of one.
 * @ret:  @nr of them.
 *
 * Threads: any.
 */
void store_hash_items(const uint8_t *data, size_t len, size_t nr, struct store_digest *ret);

#endif
