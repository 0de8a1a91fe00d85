/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: regions of RAM at guest physical addresses.
 *
 * Every way of writing marks the VMM's dirty bitmap, one bit per 4 KiB page,
 * after the bytes are in place; whoever drains the bitmap clears a bit before
 * reading the page (pairs: gmem_mark() and gmem_dirty_drain()).  There is no
 * function that hands out a writable pointer without an obligation to mark:
 * gmem_pin_write() must be followed by gmem_unpin_write().
 *
 * Any address and length may come straight from the guest.
 */
#ifndef CORE_GMEM_H
#define CORE_GMEM_H

#include <stdatomic.h>
#include <sys/uio.h>

#include "core/err.h"

enum {
    GMEM_REGIONS_MAX = 64,
};

struct gmem;

/* How the bytes of a region are kept on the host. */
struct gmem_backing {
    bool shared;            /* memfd or file mapped MAP_SHARED */
    bool hugepages;         /* hugetlb; sizes must be multiples of it */
    uint64_t hugepage_size; /* bytes, a power of two; 0: the host's default */
    const char *file;       /* file or directory to map; NULL: memory; borrowed */
    int fd;                 /* ready memfd to map from @fd_offset, or -1; taken */
    uint64_t fd_offset;     /* bytes */
    bool prefault;          /* populate at once */
    bool reserve;           /* account swap now (no MAP_NORESERVE) */
    bool mergeable;         /* MADV_MERGEABLE */
    bool thp;               /* gmem_set_thp() applies to it */
};

/* A region as others see it.  The values never change once it is added. */
struct gmem_region {
    uint64_t gpa; /* bytes, 4 KiB aligned */
    uint64_t len; /* bytes, 4 KiB aligned */
    uint8_t *hva; /* borrowed; read freely, write only through gmem_* */
    int fd;       /* memfd or file behind it, borrowed; -1 if anonymous */
    uint64_t fd_offset;
    bool shared;
    bool image;     /* gmem_map_image(): private, with a file behind it */
    bool fresh;     /* read as zero when it was added: nothing was in it before */
    const char *id; /* memory zone, or "ram" */
};

/**
 * gmem_new() - an empty guest memory.
 *
 * Return: 0 and *@ret_gm, owned by the caller, to be given to gmem_free(); -ENOMEM.
 * Threads: any.
 */
CHECKED int gmem_new(struct gmem **ret_gm);

/**
 * gmem_free() - unmap every region and free.
 * @gm: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void gmem_free(struct gmem *gm);

/**
 * gmem_add_region() - map RAM at a guest address.
 * @gpa, @len: bytes, 4 KiB aligned, not overlapping a region that is there.
 * @id:        name of the memory zone; copied.
 * @backing:   how to keep it; the fd in it is taken, also on failure.
 *
 * Return: index of the region, >= 0; -EINVAL for a bad range or backing;
 * -E2BIG past GMEM_REGIONS_MAX; or the kernel's errno, named in @err.
 * Threads: control, before any device or vCPU runs.
 */
CHECKED int gmem_add_region(struct gmem *gm, uint64_t gpa, uint64_t len, const char *id,
                            const struct gmem_backing *backing, struct err *err);

/**
 * gmem_nr_regions() - how many regions there are.
 *
 * Threads: any.
 */
unsigned gmem_nr_regions(const struct gmem *gm);

/**
 * gmem_region() - one region.
 * @i: below gmem_nr_regions().
 *
 * Return: borrowed, valid until gmem_free().
 * Threads: any.
 */
const struct gmem_region *gmem_region(const struct gmem *gm, unsigned i);

/**
 * gmem_size() - bytes of RAM in all regions.
 *
 * Threads: any.
 */
uint64_t gmem_size(const struct gmem *gm);

/**
 * gmem_copy_in() - copy bytes out of guest memory.
 * @gpa: guest physical address; any value, also from the guest.
 * @dst: @len bytes of host memory.
 *
 * Reads each byte once.  Concurrent guest writes give a mix of old and new.
 * The range may cross adjacent regions.
 *
 * Return: 0; -EFAULT if [@gpa, @gpa + @len) is not all RAM (then @dst is unchanged).
 * Threads: any.
 */
CHECKED int gmem_copy_in(struct gmem *gm, uint64_t gpa, void *dst, size_t len);

/**
 * gmem_copy_out() - copy bytes into guest memory and mark the pages dirty.
 *
 * As gmem_copy_in(), in the other direction.
 *
 * Return: 0; -EFAULT if the range is not all RAM (then nothing is written).
 * Threads: any.
 */
CHECKED int gmem_copy_out(struct gmem *gm, uint64_t gpa, const void *src, size_t len);

/**
 * gmem_fill() - set bytes of guest memory and mark the pages dirty.
 *
 * Return: 0; -EFAULT if the range is not all RAM (then nothing is written).
 * Threads: any.
 */
CHECKED int gmem_fill(struct gmem *gm, uint64_t gpa, uint8_t byte, uint64_t len);

/**
 * gmem_load_le16() - one aligned little-endian load with acquire order.
 * @gpa: must be 2-byte aligned.
 *
 * Return: 0; -EFAULT if not RAM or not aligned.
 * Threads: any.  Pairs with the driver's barrier before it publishes an index.
 */
CHECKED int gmem_load_le16(struct gmem *gm, uint64_t gpa, uint16_t *ret_val);

/**
 * gmem_store_le16() - one aligned little-endian store with release order, marked dirty.
 *
 * Return: 0; -EFAULT if not RAM or not aligned.
 * Threads: any.
 */
CHECKED int gmem_store_le16(struct gmem *gm, uint64_t gpa, uint16_t val);

/**
 * gmem_iov() - host pieces of a guest range, for reading by writev() and its like.
 * @iov, @cap: where to put the pieces; one piece per region crossed.
 *
 * Return: number of pieces; -EFAULT if not all RAM; -E2BIG if @cap is too small.
 * Threads: any.
 */
CHECKED int gmem_iov(struct gmem *gm, uint64_t gpa, uint64_t len, struct iovec *iov, unsigned cap);

/**
 * gmem_pin_write() - host pieces of a guest range, for writing by readv() and its like.
 *
 * The pieces may be written until gmem_unpin_write() is called with the same
 * range, which the caller owes even if nothing was written.
 *
 * Return: as gmem_iov().
 * Threads: any.
 */
CHECKED int gmem_pin_write(struct gmem *gm, uint64_t gpa, uint64_t len, struct iovec *iov,
                           unsigned cap);

/**
 * gmem_unpin_write() - the bytes are in place: mark their pages dirty.
 * @gpa, @len: what was pinned, or the part of it that was written.
 *
 * Threads: any, not necessarily the one that pinned.
 */
void gmem_unpin_write(struct gmem *gm, uint64_t gpa, uint64_t len);

/**
 * gmem_mark() - mark the pages of a range dirty; the bytes are already in place.
 *
 * Parts of the range that are not RAM are ignored.
 * Threads: any.
 */
void gmem_mark(struct gmem *gm, uint64_t gpa, uint64_t len);

/**
 * gmem_dirty_drain() - move the VMM's dirty bits of one region into a bitmap.
 * @region: index.
 * @bits:   one bit per page, (pages + 63) / 64 words; the bits are OR'ed in.
 *
 * Threads: one drainer at a time.  Pairs with gmem_mark(): a page whose bit
 * was moved and that is read afterwards shows the bytes that were marked.
 */
void gmem_dirty_drain(struct gmem *gm, unsigned region, uint64_t *bits);

/* --- Memory that somebody fills while it is used ---------------------------- */

/* Whoever fills guest memory from elsewhere, page by page as it is needed. */
struct gmem_server {
    /*
     * Stop: called once, by gmem_free() before any region is unmapped, when
     * nobody touches guest memory any more.
     */
    void (*stop)(void *arg);
    /* How many pages from @first on, 0..@nr, it will never bring because they are zero. */
    uint64_t (*zero)(void *arg, unsigned region, uint64_t first, uint64_t nr);
    void *arg;
};

/**
 * gmem_serve() - give guest memory a server.
 * @server: copied; from now on gmem_free() stops it.
 *
 * Until gmem_served_whole() a page without memory behind it is not zero: its
 * contents are elsewhere, and touching it waits until the server brought them.
 *
 * Return: 0; -EBUSY if it has one.
 * Threads: whoever builds the machine, before any device or vCPU runs.
 */
CHECKED int gmem_serve(struct gmem *gm, const struct gmem_server *server);

/**
 * gmem_unserve() - take the server away again, which has brought nothing yet.
 *
 * Threads: as gmem_serve().
 */
void gmem_unserve(struct gmem *gm);

/**
 * gmem_served_whole() - the server has brought everything; what is missing is zero again.
 *
 * Threads: the server's.
 */
void gmem_served_whole(struct gmem *gm);

/**
 * gmem_is_served() - whether contents may still be elsewhere.
 *
 * While they may, every page has to be read as a whole, and userfaultfd of its
 * mappings belongs to the server.
 *
 * Threads: any.
 */
bool gmem_is_served(const struct gmem *gm);

/**
 * gmem_absent_is_zero() - whether private pages without memory of their own are zero.
 * @region: index.
 *
 * Return: false for memory that is shared, served, or mapped from a file.
 * Threads: any.
 */
bool gmem_absent_is_zero(const struct gmem *gm, unsigned region);

/**
 * gmem_hole() - pages that are zero for certain, without touching them.
 * @region: index.
 * @first:  page in the region.
 * @nr:     pages.
 *
 * To look at a hole of shared memory would fill it.
 * Return: how many of the pages from @first on are zero, 0..@nr; 0 also where
 * that cannot be told, as of private memory.
 * Threads: any.
 */
uint64_t gmem_hole(const struct gmem *gm, unsigned region, uint64_t first, uint64_t nr);

/**
 * gmem_discard() - forget what was written to a fresh region: all of it is missing and zero again.
 * @region: index; private or a memfd.
 *
 * Return: 0; -EINVAL for another kind of region; the kernel's errno.
 * Threads: whoever builds the machine, before any device or vCPU runs.
 */
CHECKED int gmem_discard(struct gmem *gm, unsigned region, struct err *err);

/**
 * gmem_set_thp() - whether the kernel may put huge pages where memory is touched first.
 *
 * It does so from this call on, in regions that were added with .thp (with .prefault as well: at
 * once). Who fills memory wants them.  Who is told of each missing page (userfaultfd) does not:
 * the kernel clears a huge page, tells, and throws it away.
 *
 * Threads: any.
 */
void gmem_set_thp(struct gmem *gm, bool on);

/**
 * gmem_populate() - have the host's memory put behind every page, ahead of its use.
 * @enough: looked at every 8 MiB; true: the rest is left as it is.
 *
 * Pages keep what they hold.  Where memory is used meanwhile that goes on.
 *
 * Return: 0, also when it was enough; the kernel's errno (-EINVAL before Linux 5.14), with what
 * was done until then done.
 * Threads: one, while the regions stay the same.
 */
CHECKED int gmem_populate(struct gmem *gm, const atomic_bool *enough, struct err *err);

/**
 * gmem_set_spare() - whether memory may be behind pages that nobody wrote or asked to keep there.
 *
 * Threads: whoever builds the machine.
 */
void gmem_set_spare(struct gmem *gm, bool on);

/**
 * gmem_has_spare() - what gmem_set_spare() said last; false if it never did.
 *
 * Threads: any.
 */
bool gmem_has_spare(const struct gmem *gm);

/**
 * gmem_give_back() - take the memory away from pages that nobody wrote: they stay zero.
 * @region:     index; private.
 * @first, @nr: pages of the region, in range.
 *
 * Return: 0; -EINVAL for another kind of region; the kernel's errno.
 * Threads: any, while nobody writes to those pages.
 */
CHECKED int gmem_give_back(struct gmem *gm, unsigned region, uint64_t first, uint64_t nr);

/**
 * gmem_map_image() - replace a region of fresh private memory by a private mapping of a file.
 * @region: index; anonymous, small pages, nothing written yet.
 * @fd:     borrowed; what is mapped stays when it is closed.
 * @off:    bytes, 4 KiB aligned; the file holds the region's length from there on.
 *
 * The guest's writes stay its own; what it only reads is shared by all who map the file.
 *
 * Return: 0; -EINVAL for another kind of region; the kernel's errno (then the
 * region is as it was).
 * Threads: whoever builds the machine, before any device or vCPU runs.
 */
CHECKED int gmem_map_image(struct gmem *gm, unsigned region, int fd, uint64_t off, struct err *err);

/**
 * gmem_can_hand_over() - whether another process may gmem_adopt() a region.
 *
 * Return: true for a memfd, false for anonymous memory and for files: they cannot be
 * sealed against being made shorter.
 * Threads: any.
 */
bool gmem_can_hand_over(const struct gmem *gm, unsigned region);

/**
 * gmem_adopt() - replace a region of shared memory by memory that another process shares.
 * @region: index; shared, small pages.
 * @fd:     memfd of the other process; taken, also on failure.
 * @off:    bytes, 4 KiB aligned; at least the region's length follows it.
 *
 * Return: 0; -EINVAL for another kind of region or a file that is too short; -EPERM for
 * one that can still be made shorter, after which to touch it would end this process;
 * the kernel's errno (then the region is as it was).
 * Threads: whoever builds the machine, while no vCPU and no device runs.
 */
CHECKED int gmem_adopt(struct gmem *gm, unsigned region, int fd, uint64_t off, struct err *err);

#endif
