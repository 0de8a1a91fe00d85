/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_sizes.h"

#include <fcntl.h>

#include "core/wire.h"
#include "store/store_url.h"

struct sizes_slot {
    le64 name;
    le64 bytes;
};
_Static_assert(sizeof(struct sizes_slot) == 16, "docs/store-format.md: Sizes of memory");

#define SIZES_BYTES_MAX (UINT64_C(1) << 40) /* nobody begins with more before it is known */

/* FNV-1a: who collides gets a wrong size, which costs time. */
static uint64_t hash_of(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return h;
}

/* The file of a store, and what the snapshot is called in it. */
static int open_sizes(const char *url, int flags, uint64_t *ret_name)
{
    auto_close int dir = -1, cache = -1;
    struct store_url u;

    if (store_url_parse(url, &u, NULL) < 0)
        return -1;
    *ret_name = hash_of(u.snapshot);
    dir = open(u.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0)
        cache = openat(dir, "cache", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return cache < 0 ? -1
                     : openat(cache, "sizes", flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
}

static off_t place_of(uint64_t name)
{
    return (off_t)(name % SNAP_SIZES_SLOTS * sizeof(struct sizes_slot));
}

static uint64_t read_slot(int fd, uint64_t name)
{
    struct sizes_slot slot;
    uint64_t bytes;

    if (pread(fd, &slot, sizeof(slot), place_of(name)) != (ssize_t)sizeof(slot) ||
        le64_get(slot.name) != name)
        return 0;
    bytes = le64_get(slot.bytes);
    return bytes % PAGE_SIZE_4K || bytes > SIZES_BYTES_MAX ? 0 : bytes;
}

uint64_t snap_sizes_find(const char *url)
{
    uint64_t name;
    auto_close int fd = open_sizes(url, O_RDONLY, &name);

    return fd < 0 ? 0 : read_slot(fd, name);
}

void snap_sizes_note(const char *url, uint64_t bytes)
{
    uint64_t name;
    auto_close int fd = bytes ? open_sizes(url, O_RDWR | O_CREAT, &name) : -1;
    struct sizes_slot slot;

    if (fd < 0 || read_slot(fd, name) == bytes)
        return;
    slot = (struct sizes_slot){le64_make(name), le64_make(bytes)};
    /* No sync, and no matter if it fails: it is advice. */
    if (pwrite(fd, &slot, sizeof(slot), place_of(name)) != (ssize_t)sizeof(slot))
        return;
}
