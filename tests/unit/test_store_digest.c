/* SPDX-License-Identifier: Apache-2.0 */
/* Digests of many items at once are those of each alone. */
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
    ITEMS = 3 * STORE_SHA256_LANES + 1, /* several turns, and each number of items left over */
};

struct fixture {
    uint8_t *data; /* ITEMS pages */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    uint64_t x = 1;

    assert_non_null(f);
    f->data = malloc(ITEMS * PAGE_SIZE_4K);
    assert_non_null(f->data);
    for (size_t i = 0; i < ITEMS * PAGE_SIZE_4K; i++) {
        x = x * 6364136223846793005 + 1442695040888963407;
        f->data[i] = (uint8_t)(x >> 56);
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    free(f->data);
    free(f);
    return 0;
}

static void assert_items(struct fixture *f, size_t len, size_t nr)
{
    struct store_digest got[ITEMS], alone;

    memset(got, 0xee, sizeof(got));
    store_hash_items(f->data, len, nr, got);
    for (size_t i = 0; i < nr; i++) {
        store_hash(f->data + i * len, len, &alone);
        if (!store_digest_equal(&got[i], &alone))
            fail_msg("%zu items of %zu bytes: digest %zu is wrong", nr, len, i);
    }
    for (size_t i = nr; i < ITEMS; i++)
        assert_int_equal(got[i].alg, 0xee);
}

static void test_items_are_hashed_as_alone(void **state)
{
    static const size_t lengths[] = {0, 1, 63, 64, 65, 128, 1024, 4032, 4095, 4096};
    struct fixture *f = *state;

    if (!store_sha256_has_lanes())
        print_message("no AVX-512 here: only one by one\n");
    for (size_t l = 0; l < ARRAY_LEN(lengths); l++)
        for (size_t nr = 0; nr <= ITEMS; nr++)
            assert_items(f, lengths[l], nr);
}

/* FIPS 180-4's example of two blocks is no multiple of one; this is openssl's word for 64 "a". */
static void test_a_digest_that_others_know(void **state)
{
    static const char expected[] =
        "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb";
    struct fixture *f = *state;
    struct store_digest got[STORE_SHA256_LANES];
    char hex[STORE_DIGEST_HEX + 1];

    memset(f->data, 'a', STORE_SHA256_LANES * STORE_SHA256_BLOCK);
    store_hash_items(f->data, STORE_SHA256_BLOCK, STORE_SHA256_LANES, got);
    for (size_t i = 0; i < STORE_SHA256_LANES; i++) {
        store_digest_hex(&got[i], hex);
        assert_string_equal(hex, expected);
    }
}

/* FIPS 180-4's example of one block, in one piece and in two. */
static void test_the_example_of_the_standard(void **state)
{
    static const char expected[] =
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    struct store_digest whole, parts;
    char hex[STORE_DIGEST_HEX + 1];

    (void)state;
    store_hash("abc", 3, &whole);
    store_hash2("a", 1, "bc", 2, &parts);
    store_digest_hex(&whole, hex);
    assert_string_equal(hex, expected);
    assert_true(store_digest_equal(&whole, &parts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_items_are_hashed_as_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_digest_that_others_know, setup, teardown),
        cmocka_unit_test(test_the_example_of_the_standard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
