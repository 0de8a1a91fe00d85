/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where segments really are, whatever the index says: every pack is walked from header to header.
 */
#ifndef STORE_STORE_SCAN_H
#define STORE_STORE_SCAN_H

#include "store/store_index.h"
#include "store/store_internal.h"

struct store_scan;

/**
 * store_scan_new() - walk all packs of a store.
 *
 * Only headers are read.  A pack with a bad header is left out; in one with a broken
 * segment the walk ends there.
 *
 * Return: 0 and *@ret_scan, owned; -ENOMEM; or the errno of a failed listing.
 * Threads: any.
 */
CHECKED int store_scan_new(struct store *st, struct store_scan **ret_scan, struct err *err);

/**
 * store_scan_free() - forget it.
 * @s: taken; NULL is allowed.
 *
 * Threads: any.
 */
void store_scan_free(struct store_scan *s);

/**
 * store_scan_find() - the place of a segment.
 *
 * Return: true and *@ret.  Its header says that it is this one; its contents were not looked at.
 * Threads: any.
 */
bool store_scan_find(const struct store_scan *s, uint64_t id, struct store_extent *ret);

/**
 * store_scan_pack_len() - how long the file of a pack is.
 *
 * Return: bytes; 0 if there is no such file, or its header is bad.
 * Threads: any.
 */
uint64_t store_scan_pack_len(const struct store_scan *s, uint64_t pack);

#endif
