/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector registers that hold the same values for as long as a round lasts.
 *
 * The round is one asm statement without a memory access between filling the registers and
 * looking at them, so that whatever stops the guest meanwhile has to put them back: another
 * process, an exit, a snapshot, a move.  With AVX the upper halves are watched too; the kernel
 * and the VMM keep those in the XSAVE area alone.
 */
#include "tests/nested/agents/load_status.h"

enum {
    REGISTERS = 16,
    SPINS = 1 << 20,
    PAUSE_MS = 50,
};

struct registers {
    uint64_t word[REGISTERS][4];
};

/* clang-format off */
#define FOR_ALL_REGISTERS(x) \
    x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)
#define NAME_XMM(n) "xmm" #n,
#define SSE_FILL(n)  "movdqu " #n "*32(%[from]), %%xmm" #n "\n"
#define SSE_STORE(n) "movdqu %%xmm" #n ", " #n "*32(%[to])\n"
#define AVX_FILL(n)  "vmovdqu " #n "*32(%[from]), %%ymm" #n "\n"
#define AVX_STORE(n) "vmovdqu %%ymm" #n ", " #n "*32(%[to])\n"
#define SPIN "1: dec %[spins]\njnz 1b\n"
#define ROUND(fill, store)                                                                     \
    __asm__ volatile(FOR_ALL_REGISTERS(fill) SPIN FOR_ALL_REGISTERS(store)                      \
                     : [spins] "+r"(spins)                                                      \
                     : [from] "r"(from), [to] "r"(to)                                           \
                     : FOR_ALL_REGISTERS(NAME_XMM) "cc", "memory")
/* clang-format on */

static void round_sse(const struct registers *from, struct registers *to, uint64_t spins)
{
    ROUND(SSE_FILL, SSE_STORE);
}

static void round_avx(const struct registers *from, struct registers *to, uint64_t spins)
{
    ROUND(AVX_FILL, AVX_STORE);
    __asm__ volatile("vzeroupper" ::: "memory");
}

int main(int argc, char **argv)
{
    bool avx = __builtin_cpu_supports("avx");
    size_t words = avx ? 4 : 2;
    uint64_t errors = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: load_vector STATUS\n");
        return 2;
    }
    for (uint64_t rounds = 1;; rounds++) {
        struct registers from = {0};
        struct registers to = {0};

        for (size_t i = 0; i < REGISTERS; i++) {
            for (size_t k = 0; k < 4; k++)
                from.word[i][k] = (rounds * 64 + i * 4 + k) * 0x9e3779b97f4a7c15ULL;
        }
        if (avx)
            round_avx(&from, &to, SPINS);
        else
            round_sse(&from, &to, SPINS);
        for (size_t i = 0; i < REGISTERS; i++) {
            for (size_t k = 0; k < words; k++)
                errors += from.word[i][k] != to.word[i][k];
        }
        load_status(argv[1], "rounds=%lu bits=%zu errors=%lu", rounds, words * 64, errors);
        load_sleep_ms(PAUSE_MS);
    }
}
