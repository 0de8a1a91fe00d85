/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "store/store_sha256.h"

enum {
    LANES_WORTH = 9, /* so many items take less time side by side than one by one */
};

struct store_hasher {
    EVP_MD_CTX *ctx;
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

static pthread_once_t once = PTHREAD_ONCE_INIT;
/* Fetched once: the implicit fetch costs a tenth of a page's hash.  NULL: the library has none. */
static EVP_MD *sha256;

static void prepare(void)
{
    /* The system's openssl.cnf is not to be needed in a sandbox. */
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

void store_hash_prepare(void)
{
    (void)pthread_once(&once, prepare);
}

int store_hasher_new(struct store_hasher **ret_h, struct err *err)
{
    struct store_hasher *h = calloc(1, sizeof(*h));

    if (!h)
        return store_no_memory(err);
    h->ctx = EVP_MD_CTX_new();
    if (!h->ctx) {
        store_hasher_free(h);
        return store_no_memory(err);
    }
    *ret_h = h;
    return 0;
}

void store_hasher_free(struct store_hasher *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

int store_hash(struct store_hasher *h, const void *data, size_t len,
               struct store_digest *ret_digest)
{
    return store_hash2(h, data, len, NULL, 0, ret_digest);
}

int store_hash2(struct store_hasher *h, const void *a, size_t a_len, const void *b, size_t b_len,
                struct store_digest *ret_digest)
{
    struct store_digest d = {.alg = STORE_ALG_SHA256};

    store_hash_prepare();
    if (!sha256 || EVP_DigestInit_ex2(h->ctx, sha256, NULL) != 1 ||
        EVP_DigestUpdate(h->ctx, a, a_len) != 1)
        return -EIO;
    if (b_len && EVP_DigestUpdate(h->ctx, b, b_len) != 1)
        return -EIO;
    if (EVP_DigestFinal_ex(h->ctx, d.b, NULL) != 1)
        return -EIO;
    *ret_digest = d;
    return 0;
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

int store_hash_items(struct store_hasher *h, const uint8_t *data, size_t len, size_t nr,
                     struct store_digest *ret)
{
    const bool lanes =
        len % STORE_SHA256_BLOCK == 0 && len <= STORE_SHA256_LEN_MAX && store_sha256_has_lanes();
    size_t n;

    for (size_t i = 0; i < nr; i += n) {
        n = nr - i < STORE_SHA256_LANES ? nr - i : STORE_SHA256_LANES;
        if (lanes && n >= LANES_WORTH)
            hash_side_by_side(data + i * len, len, n, ret + i);
        else if (store_hash(h, data + i * len, len, &ret[i]) < 0)
            return -EIO;
        else
            n = 1;
    }
    return 0;
}
