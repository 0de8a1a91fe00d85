/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as the address of a migration's peer and of a store.  Refused:
 * explained.  Accepted: complete, and written again it means the same.
 */
#include <stdio.h>
#include <string.h>

#include "migration/mig_dial.h"
#include "store/store_url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void try_peer(const char *text)
{
    struct mig_url url, again;
    char back[2 * MIG_URL_MAX];
    struct err err = {0};
    int rc = mig_url_parse(text, &url, &err);

    if (rc < 0) {
        must(err.code == rc && err.msg[0]);
        return;
    }
    if (url.is_unix) {
        must(url.path[0]);
        (void)snprintf(back, sizeof(back), "unix:%s", url.path);
    } else {
        must(url.host[0] && url.port[0] && strspn(url.port, "0123456789") == strlen(url.port));
        (void)snprintf(back, sizeof(back), strchr(url.host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s",
                       url.host, url.port);
    }
    must(mig_url_parse(back, &again, NULL) == 0);
    must(url.is_unix == again.is_unix && !strcmp(url.path, again.path));
    must(!strcmp(url.host, again.host) && !strcmp(url.port, again.port));
}

static void write_store(const struct store_url *url, const char *text, char *back, size_t cap)
{
    const char *root = url->path[0] == '/' ? "//" : "";

    if (url->self_contained)
        (void)snprintf(back, cap, "file://%s", url->path);
    else if (strncmp(text, "store:", 6) != 0)
        (void)snprintf(back, cap, "%s", url->path);
    else if (url->snapshot[0])
        (void)snprintf(back, cap, "store:%s%s#%s", root, url->path, url->snapshot);
    else
        (void)snprintf(back, cap, "store:%s%s", root, url->path);
}

static void try_store(const char *text)
{
    static struct store_url url, again;
    static char back[2 * STORE_URL_PATH_MAX];
    struct err err = {0};
    int rc = store_url_parse(text, &url, &err);

    if (rc < 0) {
        must(err.code == rc && err.msg[0]);
        return;
    }
    must(url.path[0]);
    write_store(&url, text, back, sizeof(back));
    must(store_url_parse(back, &again, NULL) == 0);
    must(!strcmp(url.path, again.path) && !strcmp(url.snapshot, again.snapshot));
    must(url.self_contained == again.self_contained);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = calloc(1, len + 1);

    must(text);
    if (len)
        memcpy(text, data, len);
    try_peer(text);
    try_store(text);
    free(text);
    return 0;
}
