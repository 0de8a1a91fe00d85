/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting a snapshot in.
 *
 * A writer is begun, told about every page of every region, and published or
 * aborted.  Until it is published nobody sees anything of it; after a crash at
 * any moment the store holds all of the snapshot or none.
 *
 * Pages are copied when they are given, then hashed, looked for in the parent
 * and in the store, and compressed by worker threads; a caller that is faster
 * than they are lends a hand.  Memory used does not depend on what is given,
 * except for 52 bytes for each page that is not kept in whole leaves.
 */
#ifndef STORE_STORE_WRITER_H
#define STORE_STORE_WRITER_H

#include "store/store.h"

struct store_writer;
struct writer_chunk; /* memory of a writer that a few pages are copied into */

enum {
    STORE_THREADS_MAX = 64,
    STORE_CHUNK_PAGES = 16,
};

struct store_writer_region {
    uint64_t gpa;   /* bytes, 4 KiB aligned; regions ascend and do not overlap */
    uint64_t pages; /* 4 KiB each, 1 to 2^32 */
};

struct store_writer_cfg {
    const char *parent; /* as store_resolve(); NULL if there is none */
    const char *name;   /* NULL if it has none */
    const char *tags;   /* separated by commas; NULL if none */
    const char *vm;     /* identity of the machine, a name; NULL if none */
    unsigned nr_regions;
    const struct store_writer_region *regions; /* copied */
    unsigned threads;  /* workers; 0: as many as processors; callers help in any case */
    bool callers_only; /* no workers at all: the calling threads do everything */
    /* Asked while a collection is waited for; NULL: it is waited for to its end. */
    bool (*give_up)(void *arg);
    void *arg;
};

/**
 * store_writer_begin() - start a snapshot.
 * @st:  borrowed, outlives it.
 * @cfg: borrowed during the call.
 *
 * Waits while store_gc() is at work; the parent may go meanwhile.
 * Return: 0 and *@ret_w, owned, for store_writer_publish() or store_writer_abort();
 * -EEXIST if the name is taken; -ENOENT if there is no such parent; -EINVAL; -E2BIG;
 * -EROFS; -ECANCELED if it was given up; or the kernel's errno.
 * Threads: any.
 */
CHECKED int store_writer_begin(struct store *st, const struct store_writer_cfg *cfg,
                               struct store_writer **ret_w, struct err *err);

/**
 * store_writer_pages() - give the contents of pages.
 * @region: index into the regions of the configuration.
 * @first:  page within the region.
 * @nr:     pages; 0 is allowed.
 * @data:   @nr * 4 KiB; may change while it is read, and after the call.
 *
 * A page may be given again: what was given last counts.  Two threads must not
 * give the same page at once.
 *
 * Return: 0; -EINVAL for pages that are not there; or the failure of an earlier
 * page, of any thread: the writer can then only be aborted.
 * Threads: any, several at once.
 */
CHECKED int store_writer_pages(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                               const void *data, struct err *err);

/**
 * store_writer_chunk() - room for STORE_CHUNK_PAGES pages, which the caller copies itself.
 *
 * For memory that can be read only under a lock, without a copy of the copy.  Waits until there is
 * room, and works on what was given meanwhile.
 * Return: owned, for store_writer_chunk_give() before the writer ends; never NULL.
 * Threads: any; a thread has one at a time, and gives contents in no other way meanwhile.
 */
struct writer_chunk *store_writer_chunk(struct store_writer *w);

/**
 * store_writer_chunk_at() - where the next page is to be copied.
 * @ret_left: pages for which there is room, at least one.
 *
 * Threads: the owner.
 */
uint8_t *store_writer_chunk_at(struct writer_chunk *c, uint64_t *ret_left);

/**
 * store_writer_filled() - pages were copied to store_writer_chunk_at().
 * @ref: the chunk; taken and set to NULL when it is full.
 * @nr:  at most what was left; none of the pages is zero.
 *
 * Return: as store_writer_pages().
 * Threads: the owner.
 */
CHECKED int store_writer_filled(struct store_writer *w, struct writer_chunk **ref, unsigned region,
                                uint64_t first, uint64_t nr, struct err *err);

/**
 * store_writer_chunk_give() - hand over what was filled, though there is room left.
 * @c: taken; NULL is allowed.
 *
 * Threads: the owner.
 */
void store_writer_chunk_give(struct store_writer *w, struct writer_chunk *c);

/**
 * store_writer_zero() - pages are known to be zero.
 *
 * Return: as store_writer_pages().
 * Threads: any, several at once.
 */
CHECKED int store_writer_zero(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                              struct err *err);

/**
 * store_writer_keep() - pages are known to be what they were in the parent.
 *
 * Whole leaves, 512 pages aligned, cost nothing.
 * Return: as store_writer_pages(); -EINVAL too unless store_writer_keeps().
 * Threads: any, several at once.
 */
CHECKED int store_writer_keep(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                              struct err *err);

/**
 * store_writer_keeps() - whether store_writer_keep() is possible in a region.
 *
 * Return: true if the parent has the same region: address and size; and is not known to
 * have lost anything.
 * Threads: any.
 */
bool store_writer_keeps(const struct store_writer *w, unsigned region);

/**
 * store_writer_known() - say by name what pages contain.
 * @d:           @nr digests; a zero one means a page of zeroes.
 * @ret_missing: @nr of them; true for a page whose contents the store does not have:
 *               it still has to be given.
 *
 * Return: as store_writer_pages().
 * Threads: any, several at once.
 */
CHECKED int store_writer_known(struct store_writer *w, unsigned region, uint64_t first, uint64_t nr,
                               const struct store_digest *d, bool *ret_missing, struct err *err);

/* Two pages with the same contents. */
struct store_twin {
    unsigned region, from_region;
    uint64_t page, from_page;
};

/**
 * store_writer_same() - pages have the contents of pages that were given before.
 * @t: @nr of them.
 *
 * Waits until everything given so far has been processed.
 * Return: as store_writer_pages(); -EINVAL too for a source that was not given.
 * Threads: one, while no other gives pages.
 */
CHECKED int store_writer_same(struct store_writer *w, const struct store_twin *t, size_t nr,
                              struct err *err);

/**
 * store_writer_counts() - progress so far.
 *
 * Threads: any.
 */
void store_writer_counts(const struct store_writer *w, struct store_counts *ret_counts);

/* What a snapshot has beside its pages. */
struct store_publish {
    const void *state; /* device state; NULL if @state_len is 0 */
    size_t state_len;
    const char *config; /* JSON, zero-terminated; NULL if none */
    const char *disks;  /* JSON, zero-terminated; NULL if none */
    /*
     * A record that the snapshot has already, in another store: it keeps it, and so its
     * id.  Memory and state must be what it names; config and disks are in it.  NULL: a
     * new one is made.
     */
    const uint8_t *record;
    size_t record_len;
    bool heal; /* that snapshot is here, and has lost something: bring only its contents */
    struct store_counts
        *ret_counts; /* as in the new record; written on success; NULL: not wanted */
};

/**
 * store_writer_publish() - make the snapshot durable and visible, at once.
 * @w:      taken, also on failure; nobody else may be in it.
 * @ret_id: STORE_DIGEST_HEX + 1 bytes.
 *
 * Return: 0; -EINVAL if a page was never given; -EEXIST if the name was taken
 * meanwhile, or a snapshot with that record is there; -EBADMSG if memory or state are
 * not what @what->record names; -E2BIG; -ENOSPC, -EIO and the like.  After a failure the store is as
 * it was; unreferenced packs may be left for store_gc().
 * Threads: any.
 */
CHECKED int store_writer_publish(struct store_writer *w, const struct store_publish *what,
                                 char *ret_id, struct err *err);

/**
 * store_writer_abort() - leave the store as it was.
 * @w: taken; NULL is allowed; nobody else may be in it.
 *
 * Threads: any.
 */
void store_writer_abort(struct store_writer *w);

#endif
