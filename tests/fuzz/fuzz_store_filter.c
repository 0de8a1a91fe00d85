/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A filter from anywhere: what is put into it is not lacked afterwards, or there is none.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "store/store_filter.h"

enum {
    NR_PAGES_AT = 32, /* in its header */
};

static int file = -1;

static int memory_open(struct store_backend *be, const char *name, int flags)
{
    int fd = fcntl(file, F_DUPFD_CLOEXEC, 0);

    (void)be;
    (void)name;
    (void)flags;
    return fd < 0 ? -errno : fd;
}

static int memory_move(struct store_backend *be, const char *from, const char *to)
{
    (void)be;
    (void)from;
    (void)to;
    return ftruncate(file, 0) < 0 ? -errno : 0;
}

static struct store_digest digest_of(uint64_t n)
{
    struct store_digest d;

    store_hash(&n, sizeof(n), &d);
    return d;
}

static void ask(struct store_backend *be, const uint8_t *uuid, uint64_t nr_pages, bool all_there)
{
    struct store_filter *f = store_filter_open(be, uuid, nr_pages);

    for (uint64_t n = 0; f && n < 64; n++) {
        const struct store_digest d = digest_of(n);
        bool lacks = store_filter_lacks(f, &d);

        assert(!lacks || !all_there);
    }
    assert(f || !all_there);
    store_filter_close(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct store_backend_ops ops = {
        .name = "memory", .cache_open = memory_open, .cache_move = memory_move};
    static const uint8_t uuid[16];
    struct store_backend be = {.ops = &ops};
    struct store_filter_maker *m;
    uint64_t nr_pages = 0;

    if (file < 0)
        file = memfd_create("filter", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, 0) < 0 || pwrite(file, data, size, 0) != (ssize_t)size)
        return 0;
    if (size >= NR_PAGES_AT + sizeof(nr_pages))
        memcpy(&nr_pages, data + NR_PAGES_AT, sizeof(nr_pages));
    nr_pages &= INT64_MAX / 2;
    ask(&be, uuid, nr_pages, false);
    if (store_filter_extend(&be, uuid, nr_pages, 64, &m) < 0)
        return 0;
    for (uint64_t n = 0; n < 64; n++) {
        const struct store_digest d = digest_of(n);

        store_filter_put(m, &d);
    }
    if (store_filter_end(m, (int64_t)nr_pages + 64) == 0)
        ask(&be, uuid, nr_pages + 64, true);
    return 0;
}
