/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_sha256.h"

#include <assert.h>
#include <string.h>

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define HAS_SHA __attribute__((target("sha,sse4.1")))

/* FIPS 180-4, 4.2.2. */
static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* Of the words A to H, as the instructions want them: A, B, E, F and C, D, G, H, the first on top. */
struct sha256_state {
    __m128i abef, cdgh;
};

/* Four rounds; @m[i % 4] are their words of the schedule, replaced by those of four fours later. */
HAS_SHA static inline __attribute__((always_inline)) void sha256_rounds(struct sha256_state *s,
                                                                        __m128i m[4], unsigned i)
{
    const __m128i k = _mm_loadu_si128((const __m128i_u *)&sha256_k[(size_t)4 * i]);
    __m128i wk = _mm_add_epi32(m[i % 4], k), w;

    s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, wk);
    s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh, _mm_shuffle_epi32(wk, 0x0e));
    if (i >= 12)
        return;
    w = _mm_sha256msg1_epu32(m[i % 4], m[(i + 1) % 4]);
    w = _mm_add_epi32(w, _mm_alignr_epi8(m[(i + 3) % 4], m[(i + 2) % 4], 4));
    m[i % 4] = _mm_sha256msg2_epu32(w, m[(i + 3) % 4]);
}

HAS_SHA static inline __attribute__((always_inline)) void sha256_words(__m128i m[4],
                                                                       const uint8_t *block)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);

    for (unsigned i = 0; i < 4; i++)
        m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i_u *)(block + i * sizeof(m[0]))),
                                big_endian);
}

HAS_SHA static void sha256_blocks(struct sha256_state *a, struct sha256_state *b, const uint8_t *pa,
                                  const uint8_t *pb, size_t nr)
{
    for (; nr; nr--, pa += SHA256_BLOCK, pb += SHA256_BLOCK) {
        struct sha256_state x = *a, y = *b;
        __m128i ma[4], mb[4];

        sha256_words(ma, pa);
        sha256_words(mb, pb);
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++) {
            sha256_rounds(&x, ma, i);
            sha256_rounds(&y, mb, i);
        }
        a->abef = _mm_add_epi32(a->abef, x.abef);
        a->cdgh = _mm_add_epi32(a->cdgh, x.cdgh);
        b->abef = _mm_add_epi32(b->abef, y.abef);
        b->cdgh = _mm_add_epi32(b->cdgh, y.cdgh);
    }
}

HAS_SHA static void sha256_result(const struct sha256_state *s, uint8_t ret[SHA256_LEN])
{
    uint32_t abef[4], cdgh[4];

    _mm_storeu_si128((__m128i_u *)abef, s->abef);
    _mm_storeu_si128((__m128i_u *)cdgh, s->cdgh);
    for (unsigned i = 0; i < 8; i++) {
        const uint32_t *from = i & 2 ? cdgh : abef;
        uint32_t word = __builtin_bswap32(from[3 - (i & 1) - (i >> 2) * 2]);

        memcpy(ret + i * sizeof(word), &word, sizeof(word));
    }
}

HAS_SHA static void sha256_pair(const uint8_t *a, const uint8_t *b, size_t len,
                                uint8_t ret_a[SHA256_LEN], uint8_t ret_b[SHA256_LEN])
{
    /* FIPS 180-4, 5.3.3. */
    struct sha256_state x = {_mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f,
                                           (int)0x9b05688c),
                             _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19)};
    struct sha256_state y = x;
    uint8_t pad[SHA256_BLOCK] = {0x80};
    uint64_t bits = __builtin_bswap64((uint64_t)len * 8);

    memcpy(pad + sizeof(pad) - sizeof(bits), &bits, sizeof(bits));
    sha256_blocks(&x, &y, a, b, len / SHA256_BLOCK);
    sha256_blocks(&x, &y, pad, pad, 1);
    sha256_result(&x, ret_a);
    sha256_result(&y, ret_b);
}

/* SHA and SSE4.1: leaf 7, EBX bit 29; leaf 1, ECX bit 19 (AMD APM volume 3, appendix E). */
static bool has_instructions(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 29 & 1))
        return false;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 19 & 1);
}

bool store_sha256_pair(const uint8_t *a, const uint8_t *b, size_t len, uint8_t ret_a[SHA256_LEN],
                       uint8_t ret_b[SHA256_LEN])
{
    static _Atomic int works; /* 0: not known yet */

    assert(len % SHA256_BLOCK == 0);
    if (!works)
        works = has_instructions() ? 1 : -1;
    if (works < 0)
        return false;
    sha256_pair(a, b, len, ret_a, ret_b);
    return true;
}

#else

bool store_sha256_pair(const uint8_t *a, const uint8_t *b, size_t len, uint8_t ret_a[SHA256_LEN],
                       uint8_t ret_b[SHA256_LEN])
{
    (void)a, (void)b, (void)len, (void)ret_a, (void)ret_b;
    return false;
}

#endif
