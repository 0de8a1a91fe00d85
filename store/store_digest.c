/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_digest.h"

/* Of OpenSSL's interfaces the one that needs no set-up, no memory, and cannot fail (0090). */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include "store/store_sha256.h"

enum {
    LANES_WORTH = 9, /* so many items take less time side by side than one by one */
};

void store_digest_hex(const struct store_digest *d, char ret[STORE_DIGEST_HEX + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < STORE_DIGEST_LEN; i++) {
        ret[2 * i] = digits[d->b[i] >> 4];
        ret[2 * i + 1] = digits[d->b[i] & 15];
    }
    ret[STORE_DIGEST_HEX] = 0;
}

void store_hash(const void *data, size_t len, struct store_digest *ret_digest)
{
    store_hash2(data, len, NULL, 0, ret_digest);
}

void store_hash2(const void *a, size_t a_len, const void *b, size_t b_len,
                 struct store_digest *ret_digest)
{
    SHA256_CTX ctx;

    (void)SHA256_Init(&ctx);
    (void)SHA256_Update(&ctx, a, a_len);
    if (b_len)
        (void)SHA256_Update(&ctx, b, b_len);
    ret_digest->alg = STORE_ALG_SHA256;
    (void)SHA256_Final(ret_digest->b, &ctx);
}

/* At most as many as there are lanes; those that are left over hash the last item again. */
static void hash_side_by_side(const uint8_t *data, size_t len, size_t nr, struct store_digest *ret)
{
    const uint8_t *items[STORE_SHA256_LANES];
    uint8_t *digests[STORE_SHA256_LANES];

    for (size_t i = 0; i < STORE_SHA256_LANES; i++) {
        const size_t n = i < nr ? i : nr - 1;

        items[i] = data + n * len;
        digests[i] = ret[n].b;
        ret[n].alg = STORE_ALG_SHA256;
    }
    store_sha256_lanes(items, len, digests);
}

void store_hash_items(const uint8_t *data, size_t len, size_t nr, struct store_digest *ret)
{
    const bool lanes =
        len % STORE_SHA256_BLOCK == 0 && len <= STORE_SHA256_LEN_MAX && store_sha256_has_lanes();

    for (size_t i = 0, n; i < nr; i += n) {
        n = nr - i < STORE_SHA256_LANES ? nr - i : STORE_SHA256_LANES;
        if (lanes && n >= LANES_WORTH) {
            hash_side_by_side(data + i * len, len, n, ret + i);
        } else {
            store_hash(data + i * len, len, &ret[i]);
            n = 1;
        }
    }
}
