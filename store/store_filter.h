/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tree of pages surely lacks: a Bloom filter of its digests, a file in the cache.
 *
 * A digest belongs to one block of 64 bytes, so that a question reads so much and no more however large the
 * store is.  Who believes that a page is not there gives it a second row: the filter must be of the tree as it
 * is, hence the number of its pages, and a block that is not whole lacks nothing.
 *
 * Spec: docs/store-format.md, "The cache".
 */
#ifndef STORE_STORE_FILTER_H
#define STORE_STORE_FILTER_H

#include "store/store_backend.h"
#include "store/store_digest.h"

struct store_filter;

/**
 * store_filter_open() - the filter of a tree as it is.
 * @uuid:     of the store, 16 bytes.
 * @nr_pages: in the tree.
 *
 * Return: owned, for store_filter_close(); NULL if there is none of this tree.
 * Threads: any.
 */
struct store_filter *store_filter_open(struct store_backend *be, const uint8_t *uuid,
                                       uint64_t nr_pages);

/**
 * store_filter_lacks() - whether a digest is not in the tree.
 *
 * Return: false where it may be.
 * Threads: any.
 */
bool store_filter_lacks(const struct store_filter *f, const struct store_digest *d);

/**
 * store_filter_close() - close it.
 * @f: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void store_filter_close(struct store_filter *f);

/**
 * store_filter_forget() - remove the file, durably: pages leave the tree.
 *
 * Return: 0, also if there was none; or an errno.
 * Threads: any.
 */
CHECKED int store_filter_forget(struct store_backend *be, struct err *err);

/* A filter that is being made, or to which pages come; one at a time for a store. */
struct store_filter_maker;

/**
 * store_filter_make() - begin a new one.
 * @nr_pages: it is to have.
 *
 * Return: 0 and *@ret, owned, for store_filter_end(); or an errno.
 * Threads: any.
 */
CHECKED int store_filter_make(struct store_backend *be, const uint8_t *uuid, uint64_t nr_pages,
                              struct store_filter_maker **ret);

/**
 * store_filter_extend() - begin to add pages to the filter of a tree as it is.
 * @nr_more: that are to come, at most.
 *
 * Return: 0 and *@ret, owned, for store_filter_end(); -ENOENT if there is none of this tree, or it would be
 * too full; or an errno.
 * Threads: any.
 */
CHECKED int store_filter_extend(struct store_backend *be, const uint8_t *uuid, uint64_t nr_pages,
                                uint64_t nr_more, struct store_filter_maker **ret);

/**
 * store_filter_put() - add a page; those in order of their digests cost least.
 *
 * Threads: one at a time.
 */
void store_filter_put(struct store_filter_maker *m, const struct store_digest *d);

/**
 * store_filter_end() - make it durable, and say of which tree it is.
 * @m:        taken.
 * @nr_pages: in the tree, whose change is durable; -1: all was in vain.
 *
 * Return: 0; or an errno, and there is no filter.
 * Threads: one at a time.
 */
CHECKED int store_filter_end(struct store_filter_maker *m, int64_t nr_pages);

#endif
