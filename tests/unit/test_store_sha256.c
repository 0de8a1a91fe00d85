/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_digest.h"
#include "store/store_sha256.h"

enum {
    LEN_MAX = 70 * SHA256_BLOCK,
    ITEMS = 17,
};

static void fill(uint8_t *p, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        p[i] = (uint8_t)(seed >> 24);
    }
}

static struct store_hasher *hasher(void)
{
    struct store_hasher *h = NULL;
    struct err err = {0};

    assert_int_equal(store_hasher_new(&h, &err), 0);
    return h;
}

/* FIPS 180-4 by another implementation: every length, both places of the pair. */
static void test_a_pair_has_the_digests_that_the_library_finds(void **state)
{
    static uint8_t a[LEN_MAX], b[LEN_MAX];
    struct store_hasher *h = hasher();
    uint8_t got_a[SHA256_LEN], got_b[SHA256_LEN];

    (void)state;
    fill(a, sizeof(a), 1);
    fill(b, sizeof(b), 2);
    if (!store_sha256_pair(a, b, 0, got_a, got_b)) {
        store_hasher_free(h);
        skip();
    }
    for (size_t len = 0; len <= LEN_MAX; len += SHA256_BLOCK) {
        struct store_digest want;

        assert_true(store_sha256_pair(a, b, len, got_a, got_b));
        assert_int_equal(store_hash(h, a, len, &want), 0);
        assert_memory_equal(got_a, want.b, SHA256_LEN);
        assert_int_equal(store_hash(h, b, len, &want), 0);
        assert_memory_equal(got_b, want.b, SHA256_LEN);
    }
    store_hasher_free(h);
}

/* NIST's vector of the empty message, so that two equal mistakes would be seen. */
static void test_the_digest_of_nothing_is_the_published_one(void **state)
{
    static const uint8_t want[SHA256_LEN] = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14,
                                             0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
                                             0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c,
                                             0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55};
    uint8_t a[SHA256_LEN], b[SHA256_LEN];

    (void)state;
    if (!store_sha256_pair(want, want, 0, a, b))
        skip();
    assert_memory_equal(a, want, sizeof(want));
    assert_memory_equal(b, want, sizeof(want));
}

static void test_items_are_named_one_by_one_however_many_there_are(void **state)
{
    uint8_t *data = malloc((size_t)ITEMS * PAGE_SIZE_4K);
    struct store_hasher *h = hasher();

    (void)state;
    assert_non_null(data);
    fill(data, (size_t)ITEMS * PAGE_SIZE_4K, 3);
    for (size_t nr = 0; nr <= ITEMS; nr++) {
        struct store_digest got[ITEMS + 1], want;

        memset(got, 0x5a, sizeof(got));
        assert_int_equal(store_hash_items(h, data, PAGE_SIZE_4K, nr, got), 0);
        for (size_t i = 0; i < nr; i++) {
            assert_int_equal(store_hash(h, data + i * PAGE_SIZE_4K, PAGE_SIZE_4K, &want), 0);
            assert_true(store_digest_equal(&got[i], &want));
        }
        assert_int_equal(got[nr].alg, 0x5a);
    }
    store_hasher_free(h);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pair_has_the_digests_that_the_library_finds),
        cmocka_unit_test(test_the_digest_of_nothing_is_the_published_one),
        cmocka_unit_test(test_items_are_named_one_by_one_however_many_there_are),
    };

    return cmocka_run_group_tests_name("store_sha256", tests, NULL, NULL);
}
