/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_url.h"

#include <errno.h>
#include <string.h>

/* The path behind a scheme: "/path" or "///path"; NULL if a host is named. */
static const char *url_path(const char *rest)
{
    if (rest[0] == '/' && rest[1] == '/')
        return rest[2] == '/' ? rest + 2 : NULL;
    return rest;
}

static bool url_has_scheme(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz+");

    return n > 1 && text[n] == ':';
}

static int url_set_path(struct store_url *url, const char *path, size_t len, const char *text,
                        struct err *err)
{
    if (len == 0)
        return err_set(err, -EINVAL, "\"%.128s\": names no path", text);
    if (len >= sizeof(url->path))
        return err_set(err, -EINVAL, "\"%.64s...\": the path is too long", text);
    memcpy(url->path, path, len);
    url->path[len] = 0;
    return 0;
}

static int url_parse_store(struct store_url *url, const char *text, struct err *err)
{
    const char *path = url_path(text + strlen("store:"));
    const char *hash = path ? strrchr(path, '#') : NULL;

    if (!path)
        return err_set(err, -EINVAL, "\"%.128s\": a store is on this host: store:/path#name", text);
    if (hash && !hash[1])
        return err_set(err, -EINVAL, "\"%.128s\": no snapshot behind '#'", text);
    if (hash && strlen(hash + 1) > STORE_REF_MAX)
        return err_set(err, -EINVAL, "\"%.128s\": the snapshot's name is too long", text);
    if (hash)
        memcpy(url->snapshot, hash + 1, strlen(hash + 1) + 1);
    return url_set_path(url, path, hash ? (size_t)(hash - path) : strlen(path), text, err);
}

int store_url_parse(const char *text, struct store_url *ret_url, struct err *err)
{
    struct store_url url = {0};
    int rc;

    if (strncmp(text, "store:", 6) == 0) {
        rc = url_parse_store(&url, text, err);
    } else if (strncmp(text, "file:", 5) == 0) {
        const char *path = url_path(text + 5);

        url.self_contained = true;
        if (!path || path[0] != '/')
            return err_set(err, -EINVAL, "\"%.128s\": write file:///directory", text);
        rc = url_set_path(&url, path, strlen(path), text, err);
    } else if (url_has_scheme(text)) {
        return err_set(err, -EINVAL,
                       "\"%.128s\": not a store: write store:/path#name or file:///dir", text);
    } else {
        rc = url_set_path(&url, text, strlen(text), text, err);
    }
    if (rc == 0)
        *ret_url = url;
    return rc;
}
