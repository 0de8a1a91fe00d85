/* SPDX-License-Identifier: Apache-2.0 */
#include "core/gmem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/page_present.h"
#include "core/page_scan.h"

enum {
    GMEM_ID_MAX = 32,
    POPULATE_STEP = 8 << 20, /* bytes: four huge pages, about a millisecond */
};

struct region {
    struct gmem_region pub;
    char id[GMEM_ID_MAX];
    _Atomic uint64_t *dirty; /* one bit per page */
    size_t dirty_words;
    bool thp; /* wanted */
};

struct gmem {
    struct region regions[GMEM_REGIONS_MAX]; /* ascending by gpa */
    unsigned nr;
    uint64_t size;
    struct gmem_server server;
    atomic_bool served; /* contents may be elsewhere */
    bool spare;         /* see gmem_set_spare() */
};

/* --- Life cycle ---------------------------------------------------------- */

int gmem_new(struct gmem **ret_gm)
{
    struct gmem *gm = calloc(1, sizeof(*gm));

    if (!gm)
        return -ENOMEM;
    *ret_gm = gm;
    return 0;
}

void gmem_free(struct gmem *gm)
{
    if (!gm)
        return;
    if (gm->server.stop)
        gm->server.stop(gm->server.arg);
    for (unsigned i = 0; i < gm->nr; i++) {
        struct region *r = &gm->regions[i];

        (void)munmap(r->pub.hva, r->pub.len);
        (void)munmap(r->dirty, r->dirty_words * sizeof(uint64_t));
        if (r->pub.fd >= 0)
            (void)close(r->pub.fd);
    }
    free(gm);
}

/* --- Regions ------------------------------------------------------------- */

static unsigned hugetlb_flags(uint64_t size)
{
    /* memfd_create(2): log2 of the page size, shifted; 0 is the host's default size. */
    return size ? (unsigned)__builtin_ctzll(size) << 26 : 0;
}

/*
 * A descriptor to map shared memory from: a memfd, a file, or an unlinked file in a directory.
 * *ret_fresh: whether it is empty.
 */
static int open_backing(const char *id, uint64_t len, const struct gmem_backing *b, bool *ret_fresh,
                        struct err *err)
{
    auto_close int fd = -1;
    struct stat st;

    if (b->file) {
        fd = open(b->file, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno == EISDIR)
            fd = open(b->file, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_set(err, -errno, "memory zone %s: %s: %s", id, b->file, strerror(errno));
        if (fstat(fd, &st) < 0)
            return err_set(err, -errno, "memory zone %s: %s: %s", id, b->file, strerror(errno));
        *ret_fresh = st.st_size == 0;
        if ((uint64_t)st.st_size >= len)
            return steal_fd(&fd);
    } else {
        unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

        if (b->hugepages)
            flags |= MFD_HUGETLB | hugetlb_flags(b->hugepage_size);
        fd = memfd_create(id, flags);
        if (fd < 0)
            return err_set(err, -errno, "memory zone %s: memfd_create: %s", id, strerror(errno));
    }
    if (ftruncate(fd, (off_t)len) < 0)
        return err_set(err, -errno, "memory zone %s: ftruncate to %llu bytes: %s", id,
                       (unsigned long long)len, strerror(errno));
    /* Whoever is handed this memory must not have to trust us.  A file cannot be sealed. */
    (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return steal_fd(&fd);
}

static int map_memory(const char *id, uint64_t len, const struct gmem_backing *b, int fd,
                      uint8_t **ret_hva, struct err *err)
{
    /* Huge pages that are not set aside now are missed later: by a signal that ends the process. */
    bool reserve = b->reserve || b->hugepages;
    int flags = (fd < 0 ? MAP_ANONYMOUS : 0) | (reserve ? 0 : MAP_NORESERVE);
    void *p;

    flags |= (b->shared || (b->hugepages && !b->file)) && fd >= 0 ? MAP_SHARED : MAP_PRIVATE;
    p = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, (off_t)b->fd_offset);
    if (p == MAP_FAILED && errno == ENOMEM && b->hugepages)
        return err_set(err, -ENOMEM, "memory zone %s: not enough huge pages for %llu MiB", id,
                       (unsigned long long)len >> 20);
    if (p == MAP_FAILED)
        return err_set(err, -errno, "memory zone %s: mmap of %llu bytes: %s", id,
                       (unsigned long long)len, strerror(errno));
    /* Advice: a kernel without the feature runs the VM just as well. */
    if (b->thp && !b->hugepages && b->prefault)
        (void)madvise(p, len, MADV_HUGEPAGE);
    if (b->mergeable)
        (void)madvise(p, len, MADV_MERGEABLE);
    (void)madvise(p, len, MADV_DONTDUMP);
    if (b->prefault && madvise(p, len, MADV_POPULATE_WRITE) < 0) {
        int rc = -errno;

        (void)munmap(p, len);
        return err_set(err, rc, "memory zone %s: prefault: %s", id, strerror(-rc));
    }
    *ret_hva = p;
    return 0;
}

static int check_range(const struct gmem *gm, uint64_t gpa, uint64_t len, const char *id,
                       struct err *err)
{
    const uint64_t mask = PAGE_SIZE_4K - 1;

    if (gm->nr == GMEM_REGIONS_MAX)
        return err_set(err, -E2BIG, "memory zone %s: more than %d regions", id, GMEM_REGIONS_MAX);
    if (!len || (gpa | len) & mask || len > UINT64_MAX - gpa)
        return err_set(err, -EINVAL, "memory zone %s: bad range %#llx + %#llx", id,
                       (unsigned long long)gpa, (unsigned long long)len);
    for (unsigned i = 0; i < gm->nr; i++) {
        const struct gmem_region *r = &gm->regions[i].pub;

        if (gpa < r->gpa + r->len && r->gpa < gpa + len)
            return err_set(err, -EINVAL, "memory zone %s: overlaps zone %s", id, r->id);
    }
    return 0;
}

/* Where a region goes, so that the array stays in order of address; indices below it are stable. */
static unsigned insert_slot(struct gmem *gm, uint64_t gpa)
{
    unsigned at = gm->nr;

    while (at && gm->regions[at - 1].pub.gpa > gpa) {
        gm->regions[at] = gm->regions[at - 1];
        gm->regions[at].pub.id = gm->regions[at].id;
        at--;
    }
    gm->nr++;
    return at;
}

int gmem_add_region(struct gmem *gm, uint64_t gpa, uint64_t len, const char *id,
                    const struct gmem_backing *b, struct err *err)
{
    bool private_mapping = !b->shared && !b->hugepages && !b->file;
    auto_close int fd = b->fd;
    struct region r = {
        .pub = {.gpa = gpa, .len = len, .fd = -1, .shared = b->shared, .fresh = b->fd < 0}
    };
    unsigned at;
    int rc;

    rc = check_range(gm, gpa, len, id, err);
    if (rc < 0)
        return rc;
    if (fd < 0 && !private_mapping) {
        fd = open_backing(id, len, b, &r.pub.fresh, err);
        if (fd < 0)
            return fd;
    }
    rc = map_memory(id, len, b, fd, &r.pub.hva, err);
    if (rc < 0)
        return rc;
    r.dirty_words = (size_t)((len >> PAGE_SHIFT_4K) + 63) / 64;
    r.dirty = mmap(NULL, r.dirty_words * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r.dirty == MAP_FAILED) {
        (void)munmap(r.pub.hva, len);
        return err_set(err, -ENOMEM, "memory zone %s: dirty bitmap", id);
    }
    (void)snprintf(r.id, sizeof(r.id), "%s", id);
    r.pub.fd = steal_fd(&fd);
    r.pub.fd_offset = b->fd_offset;
    r.thp = b->thp && !b->hugepages;
    at = insert_slot(gm, gpa);
    gm->regions[at] = r;
    gm->regions[at].pub.id = gm->regions[at].id;
    gm->size += len;
    return (int)at;
}

unsigned gmem_nr_regions(const struct gmem *gm)
{
    return gm->nr;
}

const struct gmem_region *gmem_region(const struct gmem *gm, unsigned i)
{
    return &gm->regions[i].pub;
}

uint64_t gmem_size(const struct gmem *gm)
{
    return gm->size;
}

/* --- Pieces of a guest range --------------------------------------------- */

/* The region that holds gpa, or NULL. */
static struct region *find(struct gmem *gm, uint64_t gpa)
{
    for (unsigned i = 0; i < gm->nr; i++) {
        struct region *r = &gm->regions[i];

        if (gpa - r->pub.gpa < r->pub.len)
            return r;
    }
    return NULL;
}

struct piece {
    struct region *r;
    uint64_t off; /* bytes into the region */
    uint64_t len;
};

/* Take the first piece of *gpa, *len; false if it is not RAM. */
static bool next_piece(struct gmem *gm, uint64_t *gpa, uint64_t *len, struct piece *ret)
{
    struct region *r = find(gm, *gpa);

    if (!r)
        return false;
    ret->r = r;
    ret->off = *gpa - r->pub.gpa;
    ret->len = r->pub.len - ret->off < *len ? r->pub.len - ret->off : *len;
    *gpa += ret->len;
    *len -= ret->len;
    return true;
}

static bool all_ram(struct gmem *gm, uint64_t gpa, uint64_t len)
{
    struct piece p;

    while (len)
        if (!next_piece(gm, &gpa, &len, &p))
            return false;
    return true;
}

static void mark_piece(const struct piece *p)
{
    uint64_t page = p->off >> PAGE_SHIFT_4K;
    uint64_t last = (p->off + p->len - 1) >> PAGE_SHIFT_4K;

    while (page <= last) {
        uint64_t bit = page % 64;
        uint64_t nr = last - page + 1 < 64 - bit ? last - page + 1 : 64 - bit;
        uint64_t mask = (nr == 64 ? UINT64_MAX : (UINT64_C(1) << nr) - 1) << bit;

        /*
         * Unconditional and sequentially consistent: a bit that is already
         * set may be drained between the look and the skip, with our bytes
         * still on their way to memory.
         */
        atomic_fetch_or(&p->r->dirty[page / 64], mask);
        page += nr;
    }
}

/* --- Access -------------------------------------------------------------- */

int gmem_copy_in(struct gmem *gm, uint64_t gpa, void *dst, size_t len)
{
    uint64_t left = len;
    uint8_t *to = dst;
    struct piece p;

    if (!all_ram(gm, gpa, len))
        return -EFAULT;
    while (left && next_piece(gm, &gpa, &left, &p)) {
        memcpy(to, p.r->pub.hva + p.off, p.len);
        to += p.len;
    }
    return 0;
}

int gmem_copy_out(struct gmem *gm, uint64_t gpa, const void *src, size_t len)
{
    const uint8_t *from = src;
    uint64_t left = len;
    struct piece p;

    if (!all_ram(gm, gpa, len))
        return -EFAULT;
    while (left && next_piece(gm, &gpa, &left, &p)) {
        memcpy(p.r->pub.hva + p.off, from, p.len);
        mark_piece(&p);
        from += p.len;
    }
    return 0;
}

int gmem_fill(struct gmem *gm, uint64_t gpa, uint8_t byte, uint64_t len)
{
    struct piece p;

    if (!all_ram(gm, gpa, len))
        return -EFAULT;
    while (len && next_piece(gm, &gpa, &len, &p)) {
        memset(p.r->pub.hva + p.off, byte, p.len);
        mark_piece(&p);
    }
    return 0;
}

/* The aligned 16-bit cell at gpa; cannot cross a region, which is page aligned. */
static _Atomic uint16_t *cell16(struct gmem *gm, uint64_t gpa, struct piece *ret)
{
    uint64_t len = sizeof(uint16_t);

    if (gpa & 1 || !next_piece(gm, &gpa, &len, ret))
        return NULL;
    return (_Atomic uint16_t *)(void *)(ret->r->pub.hva + ret->off);
}

int gmem_load_le16(struct gmem *gm, uint64_t gpa, uint16_t *ret_val)
{
    struct piece p;
    _Atomic uint16_t *c = cell16(gm, gpa, &p);

    if (!c)
        return -EFAULT;
    *ret_val = atomic_load_explicit(c, memory_order_acquire);
    return 0;
}

int gmem_store_le16(struct gmem *gm, uint64_t gpa, uint16_t val)
{
    struct piece p;
    _Atomic uint16_t *c = cell16(gm, gpa, &p);

    if (!c)
        return -EFAULT;
    atomic_store_explicit(c, val, memory_order_release);
    mark_piece(&p);
    return 0;
}

int gmem_iov(struct gmem *gm, uint64_t gpa, uint64_t len, struct iovec *iov, unsigned cap)
{
    unsigned n = 0;
    struct piece p;

    while (len) {
        if (!next_piece(gm, &gpa, &len, &p))
            return -EFAULT;
        if (n == cap)
            return -E2BIG;
        iov[n++] = (struct iovec){p.r->pub.hva + p.off, p.len};
    }
    return (int)n;
}

int gmem_pin_write(struct gmem *gm, uint64_t gpa, uint64_t len, struct iovec *iov, unsigned cap)
{
    return gmem_iov(gm, gpa, len, iov, cap);
}

void gmem_unpin_write(struct gmem *gm, uint64_t gpa, uint64_t len)
{
    gmem_mark(gm, gpa, len);
}

/* --- Dirty bits ---------------------------------------------------------- */

void gmem_mark(struct gmem *gm, uint64_t gpa, uint64_t len)
{
    if (len > UINT64_MAX - gpa)
        len = UINT64_MAX - gpa;
    for (unsigned i = 0; i < gm->nr; i++) {
        struct region *r = &gm->regions[i];
        uint64_t lo = gpa > r->pub.gpa ? gpa : r->pub.gpa;
        uint64_t hi = gpa + len < r->pub.gpa + r->pub.len ? gpa + len : r->pub.gpa + r->pub.len;

        if (lo < hi)
            mark_piece(&(struct piece){r, lo - r->pub.gpa, hi - lo});
    }
}

void gmem_dirty_drain(struct gmem *gm, unsigned region, uint64_t *bits)
{
    struct region *r = &gm->regions[region];

    for (size_t i = 0; i < r->dirty_words; i++) {
        /* A relaxed look first: most words are empty, and a bit missed now is drained next time. */
        if (atomic_load_explicit(&r->dirty[i], memory_order_relaxed))
            bits[i] |= atomic_exchange(&r->dirty[i], 0);
    }
}

/* --- Memory that somebody fills ----------------------------------------- */

int gmem_serve(struct gmem *gm, const struct gmem_server *server)
{
    if (gm->server.stop)
        return -EBUSY;
    gm->server = *server;
    atomic_store(&gm->served, true);
    return 0;
}

void gmem_unserve(struct gmem *gm)
{
    gm->server = (struct gmem_server){0};
    atomic_store(&gm->served, false);
}

void gmem_served_whole(struct gmem *gm)
{
    atomic_store(&gm->served, false);
}

bool gmem_is_served(const struct gmem *gm)
{
    return atomic_load(&gm->served);
}

bool gmem_absent_is_zero(const struct gmem *gm, unsigned region)
{
    const struct gmem_region *r = &gm->regions[region].pub;

    return r->fd < 0 && !r->image && !gmem_is_served(gm);
}

uint64_t gmem_hole(const struct gmem *gm, unsigned region, uint64_t first, uint64_t nr)
{
    const struct gmem_region *r = &gm->regions[region].pub;
    bool served = gmem_is_served(gm); /* looked at first: it may become whole meanwhile */
    uint64_t hole;

    if (!r->shared)
        return 0;
    (void)page_scan_populated(r->fd, r->fd_offset + (first << PAGE_SHIFT_4K), nr << PAGE_SHIFT_4K,
                              &hole);
    hole >>= PAGE_SHIFT_4K;
    return served && hole ? gm->server.zero(gm->server.arg, region, first, hole) : hole;
}

/* KVM looks through all of a range that is given back, half a millisecond a GiB. */
static int discard_mapped(const struct gmem_region *r)
{
    auto_close int fd = page_present_open();
    uint64_t from = 0, first, nr;
    int rc;

    while ((rc = page_mapped_next(fd, r->hva, from, r->len >> PAGE_SHIFT_4K, &first, &nr)) > 0) {
        if (madvise(r->hva + (first << PAGE_SHIFT_4K), nr << PAGE_SHIFT_4K, MADV_DONTNEED) < 0)
            return -errno;
        from = first + nr;
    }
    return rc;
}

int gmem_discard(struct gmem *gm, unsigned region, struct err *err)
{
    const struct gmem_region *r = &gm->regions[region].pub;

    if (!r->fresh)
        return err_set(err, -EINVAL, "memory zone %s: is not fresh", r->id);
    if (r->fd < 0 && discard_mapped(r) == 0)
        return 0;
    if (madvise(r->hva, r->len, r->fd < 0 ? MADV_DONTNEED : MADV_REMOVE) < 0)
        return err_set(err, -errno, "memory zone %s: discard: %s", r->id, strerror(errno));
    return 0;
}

void gmem_set_thp(struct gmem *gm, bool on)
{
    for (unsigned i = 0; i < gm->nr; i++) {
        const struct region *r = &gm->regions[i];

        if (r->thp && !r->pub.image)
            (void)madvise(r->pub.hva, r->pub.len, on ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    }
}

/* --- Memory made ready ahead --------------------------------------------- */

static int populate_region(const struct gmem_region *r, const atomic_bool *enough, struct err *err)
{
    for (uint64_t off = 0; off < r->len && !atomic_load(enough); off += POPULATE_STEP) {
        uint64_t len = r->len - off < POPULATE_STEP ? r->len - off : POPULATE_STEP;

        if (madvise(r->hva + off, len, MADV_POPULATE_WRITE) < 0) {
            return err_set(err, -errno, "memory zone %s: populating %llu of %llu MiB: %s", r->id,
                           (unsigned long long)off >> 20, (unsigned long long)r->len >> 20,
                           strerror(errno));
        }
    }
    return 0;
}

int gmem_populate(struct gmem *gm, const atomic_bool *enough, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < gm->nr && rc >= 0; i++)
        rc = populate_region(&gm->regions[i].pub, enough, err);
    return rc;
}

void gmem_set_spare(struct gmem *gm, bool on)
{
    gm->spare = on;
}

bool gmem_has_spare(const struct gmem *gm)
{
    return gm->spare;
}

int gmem_give_back(struct gmem *gm, unsigned region, uint64_t first, uint64_t nr)
{
    const struct gmem_region *r = &gm->regions[region].pub;

    if (r->fd >= 0 || r->image)
        return -EINVAL;
    return madvise(r->hva + (first << PAGE_SHIFT_4K), nr << PAGE_SHIFT_4K, MADV_DONTNEED) < 0
               ? -errno
               : 0;
}

/* --- Regions that are replaced ------------------------------------------- */

int gmem_map_image(struct gmem *gm, unsigned region, int fd, uint64_t off, struct err *err)
{
    struct gmem_region *r = &gm->regions[region].pub;

    if (r->fd >= 0 || !r->fresh)
        return err_set(err, -EINVAL, "memory zone %s: is not fresh private memory", r->id);
    if (mmap(r->hva, r->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
             (off_t)off) == MAP_FAILED)
        return err_set(err, -errno, "memory zone %s: mmap of its image: %s", r->id,
                       strerror(errno));
    (void)madvise(r->hva, r->len, MADV_DONTDUMP);
    r->fresh = false;
    r->image = true;
    return 0;
}

static bool is_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && seals & F_SEAL_SHRINK;
}

bool gmem_can_hand_over(const struct gmem *gm, unsigned region)
{
    const struct gmem_region *r = &gm->regions[region].pub;

    return r->shared && r->fd >= 0 && is_sealed(r->fd);
}

int gmem_adopt(struct gmem *gm, unsigned region, int fd, uint64_t off, struct err *err)
{
    struct gmem_region *r = &gm->regions[region].pub;
    auto_close int theirs = fd;
    struct stat st;

    if (!r->shared || r->fd < 0)
        return err_set(err, -EINVAL, "memory zone %s: is not shared", r->id);
    if (fstat(theirs, &st) < 0)
        return err_set(err, -errno, "memory zone %s: %s", r->id, strerror(errno));
    if (off & (PAGE_SIZE_4K - 1) || off > (uint64_t)st.st_size ||
        (uint64_t)st.st_size - off < r->len)
        return err_set(err, -EINVAL, "memory zone %s: what was handed over is too short", r->id);
    if (!is_sealed(theirs))
        return err_set(err, -EPERM,
                       "memory zone %s: what was handed over can still be made shorter", r->id);
    if (mmap(r->hva, r->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, theirs, (off_t)off) ==
        MAP_FAILED)
        return err_set(err, -errno, "memory zone %s: mmap of what was handed over: %s", r->id,
                       strerror(errno));
    (void)madvise(r->hva, r->len, MADV_DONTDUMP);
    (void)close(r->fd);
    r->fd = steal_fd(&theirs);
    r->fd_offset = off;
    r->fresh = false;
    return 0;
}
