/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbered records written in a ring to a file, each made durable before it is counted, and old
 * ones read back past the page cache.
 *
 * A record is one block: le64 number, le32 CRC-32 of the rest, then bytes made from the number.
 * The status line's "acked" is a promise that the block survives anything from then on, which
 * the driver holds against the file after the guest has gone.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "core/wire.h"
#include "tests/nested/agents/load_status.h"

enum {
    RING = 512,
    BLOCK_LEN = 4096,
    CRC_AT = 8,
    BODY_AT = 12,
    PAUSE_MS = 50,
};

static uint32_t crc32(const uint8_t *p, size_t n)
{
    uint32_t crc = ~0U;

    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xedb88320U & (0U - (crc & 1)));
    }
    return ~crc;
}

static void block_make(uint8_t *block, uint64_t number)
{
    le64 n = le64_make(number);
    le32 crc;

    memcpy(block, &n, sizeof(n));
    for (size_t i = BODY_AT; i < BLOCK_LEN; i++)
        block[i] = (uint8_t)(number * 31 + i * 7 + (i >> 8));
    crc = le32_make(crc32(block + BODY_AT, BLOCK_LEN - BODY_AT));
    memcpy(block + CRC_AT, &crc, sizeof(crc));
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* @fd is open with O_DIRECT: what comes back is what the device has. */
static bool block_is_on_disk(int fd, uint64_t number)
{
    static uint8_t got[BLOCK_LEN] __attribute__((aligned(BLOCK_LEN)));
    static uint8_t want[BLOCK_LEN];

    if (pread(fd, got, BLOCK_LEN, (off_t)(number % RING * BLOCK_LEN)) != BLOCK_LEN)
        fail("pread");
    block_make(want, number);
    return !memcmp(got, want, BLOCK_LEN);
}

int main(int argc, char **argv)
{
    static uint8_t block[BLOCK_LEN];
    uint64_t errors = 0;
    int64_t worst_ns = 0;
    int direct;
    int fd;

    if (argc != 3) {
        fprintf(stderr, "usage: load_disk FILE STATUS\n");
        return 2;
    }
    fd = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    direct = open(argv[1], O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 || direct < 0)
        fail(argv[1]);
    for (uint64_t number = 1;; number++) {
        uint64_t old = number < RING ? 1 + number / 2 : number - RING / 2;
        int64_t start_ns = load_now_ns(CLOCK_MONOTONIC);
        int64_t took_ns;

        block_make(block, number);
        if (pwrite(fd, block, BLOCK_LEN, (off_t)(number % RING * BLOCK_LEN)) != BLOCK_LEN)
            fail("pwrite");
        if (fsync(fd))
            fail("fsync");
        took_ns = load_now_ns(CLOCK_MONOTONIC) - start_ns;
        worst_ns = took_ns > worst_ns ? took_ns : worst_ns;
        errors += !block_is_on_disk(direct, old);
        load_status(argv[2], "acked=%lu worst_fsync_ms=%ld errors=%lu", number, worst_ns / 1000000,
                    errors);
        load_sleep_ms(PAUSE_MS);
    }
}
