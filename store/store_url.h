/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How people name a store and a snapshot in it.
 *
 *     store:/path         a store, its newest snapshot
 *     store:/path#name    a store, and a snapshot by name, id or tag
 *     file:/dir           a directory that is a store with one snapshot in it
 *     /path, path         a store; '#' is a part of the path
 *
 * An empty host may be written: three slashes behind the scheme instead of one.
 */
#ifndef STORE_STORE_URL_H
#define STORE_STORE_URL_H

#include "store/store.h"

enum {
    STORE_URL_PATH_MAX = 4096,
};

struct store_url {
    char path[STORE_URL_PATH_MAX];    /* of the store */
    char snapshot[STORE_REF_MAX + 1]; /* "" if the URL names none */
    bool self_contained;              /* file: one snapshot, a directory of its own */
};

/**
 * store_url_parse() - take a URL apart.
 * @text: as above; any string.
 *
 * Return: 0; -EINVAL, with the reason.
 * Threads: any.
 */
CHECKED int store_url_parse(const char *text, struct store_url *ret_url, struct err *err);

#endif
