/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over a corpus without libFuzzer: each input as it is, cut
 * at every length (at up to REPLAY_CUTS of them) and with single bytes changed
 * by a fixed pseudo-random sequence.  A target reports by aborting.
 *
 *     fuzz_state corpus/state          every file in a directory
 *     fuzz_state crash-0123            one file
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base.h"

enum {
    REPLAY_CUTS = 512,
    REPLAY_CHANGES = 512,
    REPLAY_FILE_MAX = 4 << 20,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Each input in a block of its own size, so that a sanitizer sees the first byte read past it. */
static void run(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        abort();
    memcpy(copy, data, len);
    (void)LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

/* xorshift64: small, and the same everywhere. */
static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void run_variants(uint8_t *data, size_t len)
{
    size_t step = len / REPLAY_CUTS + 1;
    uint64_t seed = 88172645463325252;

    run(data, len);
    for (size_t cut = 0; cut < len; cut += step)
        run(data, cut);
    for (unsigned i = 0; len && i < REPLAY_CHANGES; i++) {
        size_t at = random_next(&seed) % len;
        uint8_t old = data[at];

        data[at] = (uint8_t)random_next(&seed);
        run(data, len);
        data[at] = old;
    }
}

static int replay_file(const char *path)
{
    auto_free uint8_t *data = malloc(REPLAY_FILE_MAX);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 || !data ? -1 : read(fd, data, REPLAY_FILE_MAX);

    if (n < 0) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    run_variants(data, (size_t)n);
    return 1;
}

static int replay_dir(const char *path)
{
    struct dirent *e;
    int nr = 0;
    DIR *dir = opendir(path);

    if (!dir) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    while (nr >= 0 && (e = readdir(dir))) {
        char file[4096];

        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        nr = replay_file(file) < 0 ? -1 : nr + 1;
    }
    (void)closedir(dir);
    return nr;
}

int main(int argc, char **argv)
{
    int total = 0;

    for (int i = 1; i < argc; i++) {
        struct stat st;
        bool is_dir = stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode);
        int nr = is_dir ? replay_dir(argv[i]) : replay_file(argv[i]);

        if (nr < 0)
            return 1;
        total += nr;
    }
    (void)printf("%d inputs\n", total);
    return total ? 0 : 1;
}
