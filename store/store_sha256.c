/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_sha256.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum {
    WORDS = 8,        /* of the state */
    BLOCK_WORDS = 16, /* of a block; as many as lanes, so that blocks can be transposed in place */
    ROUNDS = 64,
};

/* One 32-bit word of each item. */
typedef uint32_t lanes __attribute__((vector_size(64)));

#define FOR_LANES static inline __attribute__((always_inline, target("avx512f")))

/* FIPS 180-4, section 4.2.2. */
static const uint32_t constants[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* Section 5.3.3. */
static const uint32_t initial[WORDS] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* ---- functions of three words and rotations, section 4.1.2 ---- */

/* One instruction for any function of three bits, given as its truth table. */
#define TERNARY(a, b, c, table) \
    ((lanes)_mm512_ternarylogic_epi32((__m512i)(a), (__m512i)(b), (__m512i)(c), (table)))

FOR_LANES lanes choose(lanes e, lanes f, lanes g)
{
    return TERNARY(e, f, g, 0xca);
}

FOR_LANES lanes majority(lanes a, lanes b, lanes c)
{
    return TERNARY(a, b, c, 0xe8);
}

FOR_LANES lanes xor3(lanes a, lanes b, lanes c)
{
    return TERNARY(a, b, c, 0x96);
}

FOR_LANES lanes ror(lanes x, int n)
{
    return x >> n | x << (32 - n);
}

/* ---- blocks ---- */

/* Words are big-endian in what is hashed. */
FOR_LANES lanes swap_bytes(lanes x)
{
    return (ror(x, 8) & 0xff00ff00) | (ror(x, 24) & 0x00ff00ff);
}

/*
 * From a row for each item to a row for each word.  Interleaving the upper half of the rows with the
 * lower half moves the highest bit of an element's row to the lowest of its column: four times, and
 * the two have changed places.
 */
FOR_LANES void transpose(lanes rows[BLOCK_WORDS])
{
#pragma GCC unroll 4
    for (int turn = 0; turn < 4; turn++) {
        lanes old[BLOCK_WORDS];

        memcpy(old, rows, sizeof(old));
#pragma GCC unroll 8
        for (size_t i = 0; i < BLOCK_WORDS / 2; i++) {
            const lanes a = old[i], b = old[i + BLOCK_WORDS / 2];

            rows[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6,
                                                  22, 7, 23);
            rows[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                                      13, 29, 14, 30, 15, 31);
        }
    }
}

/* Section 6.2.2; @w: the block, which becomes the schedule, sixteen words of it at a time. */
FOR_LANES void hash_block(lanes state[WORDS], lanes w[BLOCK_WORDS])
{
    lanes a = state[0], b = state[1], c = state[2], d = state[3];
    lanes e = state[4], f = state[5], g = state[6], h = state[7];

#pragma GCC unroll 64
    for (int t = 0; t < ROUNDS; t++) {
        lanes *now = &w[t % BLOCK_WORDS], t1, t2;

        if (t >= BLOCK_WORDS) {
            const lanes x = w[(t + 1) % BLOCK_WORDS], y = w[(t + 14) % BLOCK_WORDS];

            *now += xor3(ror(x, 7), ror(x, 18), x >> 3) + w[(t + 9) % BLOCK_WORDS] +
                    xor3(ror(y, 17), ror(y, 19), y >> 10);
        }
        t1 = h + xor3(ror(e, 6), ror(e, 11), ror(e, 25)) + choose(e, f, g) + constants[t] + *now;
        t2 = xor3(ror(a, 2), ror(a, 13), ror(a, 22)) + majority(a, b, c);
        h = g, g = f, f = e, e = d + t1;
        d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* Section 5.1.1: a block of its own, as the length is a multiple of one. */
FOR_LANES void hash_padding(lanes state[WORDS], size_t len)
{
    lanes w[BLOCK_WORDS] = {0};

    w[0] += 0x80000000;
    w[BLOCK_WORDS - 1] += (uint32_t)len * 8;
    hash_block(state, w);
}

/* ---- outside ---- */

bool store_sha256_has_lanes(void)
{
    return __builtin_cpu_supports("avx512f");
}

__attribute__((target("avx512f"))) void store_sha256_lanes(
    const uint8_t *const items[STORE_SHA256_LANES], size_t len,
    uint8_t *const ret[STORE_SHA256_LANES])
{
    lanes state[WORDS], w[BLOCK_WORDS];

    for (int i = 0; i < WORDS; i++)
        state[i] = (lanes){0} + initial[i];
    for (size_t at = 0; at < len; at += STORE_SHA256_BLOCK) {
        for (int i = 0; i < STORE_SHA256_LANES; i++) {
            memcpy(&w[i], items[i] + at, sizeof(w[i]));
            w[i] = swap_bytes(w[i]);
        }
        transpose(w);
        hash_block(state, w);
    }
    hash_padding(state, len);
    memset(w, 0, sizeof(w));
    for (int i = 0; i < WORDS; i++)
        w[i] = swap_bytes(state[i]);
    transpose(w);
    for (int i = 0; i < STORE_SHA256_LANES; i++)
        memcpy(ret[i], &w[i], WORDS * sizeof(uint32_t));
}

#else

bool store_sha256_has_lanes(void)
{
    return false;
}

void store_sha256_lanes(const uint8_t *const items[STORE_SHA256_LANES], size_t len,
                        uint8_t *const ret[STORE_SHA256_LANES])
{
    (void)items;
    (void)len;
    (void)ret;
}

#endif
