/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two growing hash tables for walks over the whole store: digests to a value, and
 * segment ids to a value.
 *
 * Whoever wrote the store chose both: a page's digest is not looked at until the page is.  So each
 * table has a secret of its own, without which nobody finds keys that come to lie in one place.
 */
#ifndef STORE_STORE_MAP_H
#define STORE_STORE_MAP_H

#include "store/store_digest.h"

struct store_digest_entry {
    struct store_digest d; /* alg 0: free */
    uint64_t value;
};

enum {
    STORE_MAP_SECRETS = 4,
};

/* Zeroed: empty. */
struct store_digest_map {
    size_t nr, cap;
    uint64_t secret[STORE_MAP_SECRETS];
    struct store_digest_entry *e;
};

struct store_id_entry {
    uint64_t id;
    uint32_t value;
    bool used;
};

/* Zeroed: empty. */
struct store_id_map {
    size_t nr, cap;
    uint64_t secret[STORE_MAP_SECRETS];
    struct store_id_entry *e;
};

/**
 * store_digest_map_find() - the value of a digest.
 *
 * Return: borrowed until the next put; NULL if it is not there.
 * Threads: one at a time.
 */
uint64_t *store_digest_map_find(const struct store_digest_map *m, const struct store_digest *d);

/**
 * store_digest_map_reserve() - make room, so that puts do not move what is there.
 * @nr: entries in all, below SIZE_MAX / 4.
 *
 * Return: 0; -ENOMEM; -EIO: the kernel has no random numbers.
 * Threads: one at a time.
 */
CHECKED int store_digest_map_reserve(struct store_digest_map *m, size_t nr);

/**
 * store_digest_map_put() - set the value of a digest.
 *
 * Return: as store_digest_map_reserve().
 * Threads: one at a time.
 */
CHECKED int store_digest_map_put(struct store_digest_map *m, const struct store_digest *d,
                                 uint64_t value);

/**
 * store_digest_map_release() - free what is inside.
 *
 * Threads: one at a time.
 */
void store_digest_map_release(struct store_digest_map *m);

/**
 * store_id_map_find() - the value of an id.
 *
 * Return: borrowed until the next put; NULL if it is not there.
 * Threads: one at a time.
 */
uint32_t *store_id_map_find(const struct store_id_map *m, uint64_t id);

/**
 * store_id_map_or() - set bits in the value of an id, which begins as 0.
 *
 * Return: as store_digest_map_reserve().
 * Threads: one at a time.
 */
CHECKED int store_id_map_or(struct store_id_map *m, uint64_t id, uint32_t bits);

/**
 * store_id_map_release() - free what is inside.
 *
 * Threads: one at a time.
 */
void store_id_map_release(struct store_id_map *m);

#endif
