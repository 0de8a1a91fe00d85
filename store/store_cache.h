/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small cache of equal-sized objects that are loaded on demand by many threads.
 *
 * An object that is being loaded by one thread is waited for by the others; an
 * object in use stays; of the rest the one not used for longest goes first.
 */
#ifndef STORE_STORE_CACHE_H
#define STORE_STORE_CACHE_H

#include "store/store_digest.h"

struct store_cache;

/* Fill @obj for @key; a negative errno is handed to whoever asked. */
typedef int store_cache_load_fn(void *arg, uint64_t key, void *obj, struct err *err);

/**
 * store_cache_new() - an empty cache.
 * @nr:  objects it may hold; more than threads use at once.
 * @len: bytes of each; allocated when first needed.
 *
 * Return: 0 and *@ret_c, owned, for store_cache_free(); -ENOMEM.
 * Threads: any.
 */
CHECKED int store_cache_new(unsigned nr, size_t len, struct store_cache **ret_c);

/**
 * store_cache_free() - free it and its objects, none of which may be in use.
 * @c: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void store_cache_free(struct store_cache *c);

/**
 * store_cache_get() - an object, from the cache or by @load.
 *
 * A thread holds at most one object of a cache at a time.
 * Return: 0 and *@ret_obj, borrowed until store_cache_put(); what @load returned;
 * -ENOMEM.
 * Threads: any.
 */
CHECKED int store_cache_get(struct store_cache *c, uint64_t key, store_cache_load_fn *load,
                            void *arg, const void **ret_obj, struct err *err);

/**
 * store_cache_put() - the object is no longer used.
 * @obj: from store_cache_get().
 *
 * Threads: any.
 */
void store_cache_put(struct store_cache *c, const void *obj);

#endif
