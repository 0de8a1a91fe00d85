/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 of two messages at once, with the processor's instructions.
 *
 * A round waits for the one before it longer than it takes to issue: rounds of a
 * second message fit in between.  Two pages together take two thirds of the time
 * of one after the other.
 *
 * Spec: FIPS 180-4.  Decision: docs/decisions/0070-two-digests-at-once.md.
 */
#ifndef STORE_STORE_SHA256_H
#define STORE_STORE_SHA256_H

#include "core/base.h"

enum {
    SHA256_LEN = 32,
    SHA256_BLOCK = 64,
};

/**
 * store_sha256_pair() - digests of two messages of one length.
 * @a:   @len bytes.
 * @b:   @len bytes; may be the same.
 * @len: a multiple of SHA256_BLOCK.
 *
 * Return: true; false where the processor has no instructions for it, then nothing was done.
 * Threads: any.
 */
CHECKED bool store_sha256_pair(const uint8_t *a, const uint8_t *b, size_t len,
                               uint8_t ret_a[SHA256_LEN], uint8_t ret_b[SHA256_LEN]);

#endif
