/* SPDX-License-Identifier: Apache-2.0 */
/* The one seam that OpenSSL 3.0 has for this; its test generator runs dry. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "tests/fakes/fake_random.h"

#include <stdint.h>

#include <openssl/rand.h>
#include <stdlib.h>

static uint64_t x;

static int bytes(unsigned char *buf, int num)
{
    for (int i = 0; i < num; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        buf[i] = (unsigned char)(x >> 56);
    }
    return 1;
}

static int status(void)
{
    return 1;
}

void fake_random_begin(unsigned seed)
{
    static const RAND_METHOD method = {.bytes = bytes, .pseudorand = bytes, .status = status};

    x = seed;
    if (RAND_set_rand_method(&method) != 1)
        abort();
}

void fake_random_end(void)
{
    if (RAND_set_rand_method(NULL) != 1)
        abort();
}
