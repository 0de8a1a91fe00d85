/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that one writer has stored already: a table of bounded size.
 *
 * When it is full an old entry goes, so a page may be stored twice by a writer of very much memory;
 * it is never taken for another.
 */
#ifndef STORE_STORE_SEEN_H
#define STORE_STORE_SEEN_H

#include "store/store_digest.h"

struct store_seen;

/**
 * store_seen_new() - an empty table.
 * @nr: entries wanted; rounded up to a power of two, within bounds.
 *
 * Return: 0 and *@ret_s, owned, for store_seen_free(); -ENOMEM.
 * Threads: any.
 */
CHECKED int store_seen_new(uint64_t nr, struct store_seen **ret_s);

/**
 * store_seen_free() - free it.
 * @s: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void store_seen_free(struct store_seen *s);

/**
 * store_seen_find() - where a page was stored.
 *
 * Return: true and *@ret_loc if it is there.
 * Threads: any.
 */
bool store_seen_find(struct store_seen *s, const struct store_digest *d, uint64_t *ret_loc);

/**
 * store_seen_claim() - announce where a page is about to be stored.
 * @loc: there.
 *
 * Return: @loc; or the place that another thread announced first.
 * Threads: any.
 */
uint64_t store_seen_claim(struct store_seen *s, const struct store_digest *d, uint64_t loc);

#endif
