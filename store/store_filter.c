/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base.h"

#define FILTER_FILE "filter"
#define FILTER_NEW  "filter.new" /* until it is whole */

enum {
    FILTER_VERSION = 1,
    FILTER_BLOCK_LEN = 64,
    FILTER_BITS = 6,       /* that a digest sets in its block */
    FILTER_WORDS = 7,      /* of a block that have bits; the last one checks them */
    FILTER_BITS_SHIFT = 9, /* of a number, from one bit to the next */
    FILTER_ROOMY = 32,     /* pages a block in a new filter, at most */
    FILTER_FULL = 64,      /* and in one that has grown: one in 30 is looked for in vain */
    FILTER_LOG2_MIN = 6,   /* blocks */
    FILTER_LOG2_MAX = 32,  /* 256 GiB, more than 2^37 pages */
    FILTER_WINDOW = 1024,  /* blocks in memory while it is made */
};

#define FILTER_CHANGING UINT64_MAX /* pages of a tree that none has */

/* Numbers lie in the file as in memory, little-endian. */
struct filter_header {
    char magic[8];
    uint16_t version, len;
    uint32_t log2_blocks;
    uint8_t uuid[16];
    uint64_t nr_pages;
    uint8_t zero[24];
};
_Static_assert(sizeof(struct filter_header) == FILTER_BLOCK_LEN, "a block");

static const char filter_magic[8] = {'C', 'H', 'R', 'Y', 'F', 'L', 'T', 'R'};

struct filter_block {
    uint64_t words[FILTER_WORDS];
    uint64_t check;
};

struct store_filter {
    int fd;
    unsigned log2_blocks;
};

struct store_filter_maker {
    struct store_backend *be; /* borrowed */
    int fd;
    bool is_new;
    int rc; /* the first failure */
    struct filter_header header;
    uint64_t first; /* block of the window */
    bool loaded;
    struct filter_block window[FILTER_WINDOW];
};

/* ---- blocks ---- */

static uint64_t block_of(unsigned log2_blocks, const struct store_digest *d)
{
    uint64_t prefix = 0;

    for (unsigned i = 0; i < sizeof(prefix); i++)
        prefix = prefix << 8 | d->b[i];
    return prefix >> (64 - log2_blocks);
}

/* Whether a block has all bits of a digest; sets them if @set. */
static bool block_has(struct filter_block *b, const struct store_digest *d, bool set)
{
    uint64_t bits;
    bool all = true;

    memcpy(&bits, d->b + 8, sizeof(bits));
    for (unsigned i = 0; i < FILTER_BITS; i++, bits >>= FILTER_BITS_SHIFT) {
        uint64_t *word = &b->words[bits / 64 % FILTER_WORDS];
        uint64_t mask = UINT64_C(1) << bits % 64;

        all = all && (*word & mask);
        if (set)
            *word |= mask;
    }
    return all;
}

/*
 * What block @number says if it is whole.  One that is not, or that was never written, lacks nothing: a page
 * that is in the tree must not be stored anew.
 */
static uint64_t block_check(const struct filter_block *b, uint64_t number)
{
    uint64_t h = number + 1;

    for (unsigned i = 0; i < FILTER_WORDS; i++) {
        h = (h ^ b->words[i]) * 0x9e3779b97f4a7c15U;
        h ^= h >> 32;
    }
    return h;
}

static off_t block_at(uint64_t block)
{
    return (off_t)((block + 1) * FILTER_BLOCK_LEN);
}

/* ---- the file ---- */

/* Whether a file is the filter of a tree.  *@ret_h is what its beginning says. */
static bool is_of(int fd, const uint8_t *uuid, uint64_t nr_pages, struct filter_header *ret_h)
{
    struct stat st;

    if (pread(fd, ret_h, sizeof(*ret_h), 0) != sizeof(*ret_h) || fstat(fd, &st) < 0)
        return false;
    return memcmp(ret_h->magic, filter_magic, sizeof(filter_magic)) == 0 &&
           ret_h->version == FILTER_VERSION && ret_h->len == sizeof(*ret_h) &&
           ret_h->log2_blocks >= FILTER_LOG2_MIN && ret_h->log2_blocks <= FILTER_LOG2_MAX &&
           memcmp(ret_h->uuid, uuid, sizeof(ret_h->uuid)) == 0 && ret_h->nr_pages == nr_pages &&
           st.st_size == block_at(UINT64_C(1) << ret_h->log2_blocks);
}

struct store_filter *store_filter_open(struct store_backend *be, const uint8_t *uuid,
                                       uint64_t nr_pages)
{
    auto_close int fd = be->ops->cache_open(be, FILTER_FILE, O_RDONLY);
    struct filter_header h;
    struct store_filter *f;

    if (fd < 0 || !is_of(fd, uuid, nr_pages, &h))
        return NULL;
    f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->log2_blocks = h.log2_blocks;
    f->fd = steal_fd(&fd);
    return f;
}

bool store_filter_lacks(const struct store_filter *f, const struct store_digest *d)
{
    const uint64_t number = block_of(f->log2_blocks, d);
    struct filter_block b;

    return pread(f->fd, &b, sizeof(b), block_at(number)) == sizeof(b) &&
           b.check == block_check(&b, number) && !block_has(&b, d, false);
}

void store_filter_close(struct store_filter *f)
{
    if (f)
        (void)close(f->fd);
    free(f);
}

int store_filter_forget(struct store_backend *be, struct err *err)
{
    int rc = be->ops->cache_move(be, FILTER_FILE, NULL);

    return rc < 0 && rc != -ENOENT && rc != -ENOTDIR
               ? err_set(err, rc, "cache/" FILTER_FILE ": %s", strerror(-rc))
               : 0;
}

/* ---- making one ---- */

static void maker_note(struct store_filter_maker *m, bool done)
{
    if (!done && !m->rc)
        m->rc = errno ? -errno : -EIO;
}

static void maker_write(struct store_filter_maker *m, const void *src, size_t len, off_t at)
{
    errno = 0;
    maker_note(m, pwrite(m->fd, src, len, at) == (ssize_t)len);
}

/* Blocks of a window: a small filter has fewer. */
static size_t window_nr(const struct store_filter_maker *m)
{
    uint64_t nr = UINT64_C(1) << m->header.log2_blocks;

    return (size_t)(nr < FILTER_WINDOW ? nr : FILTER_WINDOW);
}

static void window_write(struct store_filter_maker *m)
{
    const size_t nr = window_nr(m);

    for (size_t i = 0; i < nr; i++)
        m->window[i].check = block_check(&m->window[i], m->first + i);
    maker_write(m, m->window, nr * FILTER_BLOCK_LEN, block_at(m->first));
    m->loaded = false;
}

/* Blocks as they are: one that is broken would be made whole without its bits, so that all fails. */
static void window_load(struct store_filter_maker *m, uint64_t first)
{
    const size_t nr = window_nr(m), len = nr * FILTER_BLOCK_LEN;
    bool good;

    m->first = first;
    m->loaded = true;
    errno = 0;
    good = pread(m->fd, m->window, len, block_at(first)) == (ssize_t)len;
    for (size_t i = 0; i < nr && good; i++)
        good = m->window[i].check == block_check(&m->window[i], first + i);
    maker_note(m, good);
}

static void blocks_clear(struct store_filter_maker *m)
{
    for (m->first = 0; m->first >> m->header.log2_blocks == 0 && m->rc == 0;
         m->first += FILTER_WINDOW)
        window_write(m);
}

static void header_write(struct store_filter_maker *m, uint64_t nr_pages)
{
    m->header.nr_pages = nr_pages;
    maker_write(m, &m->header, sizeof(m->header), 0);
}

static void maker_sync(struct store_filter_maker *m)
{
    errno = 0;
    maker_note(m, fdatasync(m->fd) == 0);
}

static int maker_new(struct store_backend *be, int fd, struct store_filter_maker **ret)
{
    struct store_filter_maker *m = fd < 0 ? NULL : calloc(1, sizeof(*m));

    if (!m) {
        if (fd >= 0)
            (void)close(fd);
        return fd < 0 ? fd : -ENOMEM;
    }
    m->be = be;
    m->fd = fd;
    *ret = m;
    return 0;
}

/* What begins a change is on the disk before any of it: half of one is no filter. */
static int maker_begin(struct store_filter_maker *m, struct store_filter_maker **ret)
{
    header_write(m, FILTER_CHANGING);
    if (!m->is_new)
        maker_sync(m);
    if (m->rc < 0)
        return store_filter_end(m, -1);
    *ret = m;
    return 0;
}

int store_filter_make(struct store_backend *be, const uint8_t *uuid, uint64_t nr_pages,
                      struct store_filter_maker **ret)
{
    struct store_filter_maker *m;
    unsigned log2_blocks = FILTER_LOG2_MIN;
    int rc = maker_new(be, be->ops->cache_open(be, FILTER_NEW, O_RDWR | O_CREAT | O_TRUNC), &m);

    if (rc < 0)
        return rc;
    while (log2_blocks < FILTER_LOG2_MAX && nr_pages >> log2_blocks >= FILTER_ROOMY)
        log2_blocks++;
    m->is_new = true;
    m->header = (struct filter_header){
        .version = FILTER_VERSION, .len = sizeof(m->header), .log2_blocks = log2_blocks};
    memcpy(m->header.magic, filter_magic, sizeof(filter_magic));
    memcpy(m->header.uuid, uuid, sizeof(m->header.uuid));
    blocks_clear(m);
    return maker_begin(m, ret);
}

int store_filter_extend(struct store_backend *be, const uint8_t *uuid, uint64_t nr_pages,
                        uint64_t nr_more, struct store_filter_maker **ret)
{
    struct store_filter_maker *m;
    int rc = maker_new(be, be->ops->cache_open(be, FILTER_FILE, O_RDWR), &m);

    if (rc < 0)
        return rc;
    if (!is_of(m->fd, uuid, nr_pages, &m->header) ||
        (nr_pages + nr_more) >> m->header.log2_blocks >= FILTER_FULL) {
        (void)close(m->fd);
        free(m);
        return -ENOENT;
    }
    return maker_begin(m, ret);
}

void store_filter_put(struct store_filter_maker *m, const struct store_digest *d)
{
    uint64_t block = block_of(m->header.log2_blocks, d);

    if (!m->loaded || block - m->first >= FILTER_WINDOW) {
        if (m->loaded)
            window_write(m);
        window_load(m, block / FILTER_WINDOW * FILTER_WINDOW);
    }
    (void)block_has(&m->window[block - m->first], d, true);
}

int store_filter_end(struct store_filter_maker *m, int64_t nr_pages)
{
    struct store_backend *be = m->be;
    bool is_new = m->is_new;
    int rc;

    if (nr_pages >= 0) {
        if (m->loaded)
            window_write(m);
        maker_sync(m);
    }
    if (nr_pages >= 0 && m->rc == 0)
        header_write(m, (uint64_t)nr_pages);
    rc = nr_pages < 0 && m->rc == 0 ? -ECANCELED : m->rc;
    (void)close(m->fd);
    free(m);
    if (rc == 0 && is_new)
        rc = be->ops->cache_move(be, FILTER_NEW, FILTER_FILE);
    if (rc < 0)
        (void)be->ops->cache_move(be, is_new ? FILTER_NEW : FILTER_FILE, NULL);
    return rc;
}
