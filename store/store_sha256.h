/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 of sixteen items at once, one in each 32-bit lane of AVX-512 registers.
 *
 * A page's hash is a chain of dependent instructions: even with the processor's own for SHA-256 most
 * of it is idle.  Sixteen chains side by side take half the time.
 */
#ifndef STORE_STORE_SHA256_H
#define STORE_STORE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>

enum {
    STORE_SHA256_LANES = 16,
    STORE_SHA256_BLOCK = 64, /* bytes that are hashed in one step */
    STORE_SHA256_LEN_MAX = 1 << 28,
};

/**
 * store_sha256_has_lanes() - whether this processor can.
 *
 * Threads: any.
 */
bool store_sha256_has_lanes(void);

/**
 * store_sha256_lanes() - the SHA-256 (FIPS 180-4) of sixteen items of one length.
 * @items: each @len bytes; the same one may be there more than once.
 * @len:   bytes, a multiple of STORE_SHA256_BLOCK, at most STORE_SHA256_LEN_MAX.
 * @ret:   32 bytes each; the same ones for the same item.
 *
 * Only where store_sha256_has_lanes().
 *
 * Threads: any.
 */
void store_sha256_lanes(const uint8_t *const items[STORE_SHA256_LANES], size_t len,
                        uint8_t *const ret[STORE_SHA256_LANES]);

#endif
