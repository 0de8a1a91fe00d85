/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sizes of memory that a store's cache notes.  Whatever stands there, a size is a number of
 * pages of at most a TiB; what is noted afterwards is found, and the file does not grow beyond its
 * slots.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/snap_sizes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"", "a", "b", "first", "second"};
static char dir[] = "/tmp/fuzz-snap-sizes.XXXXXX";
static char file[sizeof(dir) + sizeof("/cache/sizes")];

static void remove_dir(void)
{
    (void)unlink(file);
    *strrchr(file, '/') = '\0';
    (void)rmdir(file);
    (void)rmdir(dir);
}

static void make_dir(void)
{
    assert(mkdtemp(dir));
    (void)snprintf(file, sizeof(file), "%s/cache", dir);
    assert(mkdir(file, 0700) == 0);
    (void)snprintf(file, sizeof(file), "%s/cache/sizes", dir);
    assert(atexit(remove_dir) == 0);
}

static void write_file(const uint8_t *data, size_t size)
{
    auto_close int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
}

/* Of a snapshot in the store; good until the next. */
static const char *url_of(const char *name)
{
    static char url[sizeof(dir) + 32];

    (void)snprintf(url, sizeof(url), "store:%s#%s", dir, name);
    return url;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum {
        SLOT_LEN = 16,
        FILE_MAX = SNAP_SIZES_SLOTS * SLOT_LEN
    };
    size_t len = size < FILE_MAX ? size : FILE_MAX;
    struct stat st;

    if (!file[0])
        make_dir();
    write_file(data, len);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        uint64_t bytes = snap_sizes_find(url_of(names[i]));

        assert(bytes % PAGE_SIZE_4K == 0 && bytes <= UINT64_C(1) << 40);
    }
    for (unsigned i = 1; i < ARRAY_LEN(names); i++) {
        snap_sizes_note(url_of(names[i]), (uint64_t)i * PAGE_SIZE_4K);
        assert(snap_sizes_find(url_of(names[i])) == (uint64_t)i * PAGE_SIZE_4K);
    }
    assert(stat(file, &st) == 0 && st.st_size <= FILE_MAX);
    return 0;
}
