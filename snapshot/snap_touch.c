/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_touch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/wire.h"

enum {
    TOUCH_VERSION = 1,
    TOUCH_FIRST_BITS = 40,
    TOUCH_NR_BITS = 16,
    TOUCH_NAME_MAX = STORE_DIGEST_HEX + 8,
};

static const char touch_magic[8] = "CHRYTUCH";

struct touch_hdr {
    uint8_t magic[8];
    le16 version;
    le16 len;
    le32 nr;
    uint8_t ram[STORE_DIGEST_LEN];
};
_Static_assert(sizeof(struct touch_hdr) == SNAP_TOUCH_HDR_LEN, "layout");
_Static_assert(sizeof(le64) == SNAP_TOUCH_RUN_LEN, "layout");
_Static_assert((int)STORE_DIGEST_LEN == (int)SNAP_TOUCH_SUM_LEN, "layout");

/* --- The list ------------------------------------------------------------------- */

void snap_touch_release(struct snap_touch *t)
{
    free(t->runs);
    *t = (struct snap_touch){0};
}

void snap_touch_add(struct snap_touch *t, const struct snap_touch_run *run)
{
    struct snap_touch_run *last = t->nr ? &t->runs[t->nr - 1] : NULL;

    if (last && last->region == run->region && last->first + last->nr == run->first &&
        last->nr + run->nr <= UINT16_MAX) {
        last->nr = (uint16_t)(last->nr + run->nr);
        return;
    }
    if (t->nr == SNAP_TOUCH_MAX)
        return;
    last = array_grow(t->runs, t->nr, &t->cap, sizeof(*last));
    if (!last)
        return;
    t->runs = last;
    t->runs[t->nr++] = *run;
}

/* --- Bytes ---------------------------------------------------------------------- */

int snap_touch_encode(const struct snap_touch *t, const struct store_digest *ram,
                      uint8_t **ret_bytes, size_t *ret_len)
{
    size_t body = SNAP_TOUCH_HDR_LEN + (size_t)t->nr * SNAP_TOUCH_RUN_LEN;
    auto_free uint8_t *bytes = malloc(body + SNAP_TOUCH_SUM_LEN);
    struct touch_hdr hdr = {.version = le16_make(TOUCH_VERSION),
                            .len = le16_make(SNAP_TOUCH_HDR_LEN),
                            .nr = le32_make(t->nr)};
    struct store_digest d;

    if (!bytes)
        return -ENOMEM;
    memcpy(hdr.magic, touch_magic, sizeof(hdr.magic));
    memcpy(hdr.ram, ram->b, sizeof(hdr.ram));
    memcpy(bytes, &hdr, sizeof(hdr));
    for (unsigned i = 0; i < t->nr; i++) {
        const struct snap_touch_run *r = &t->runs[i];
        le64 v = le64_make((uint64_t)r->region << (TOUCH_FIRST_BITS + TOUCH_NR_BITS) |
                           (uint64_t)r->nr << TOUCH_FIRST_BITS | r->first);

        memcpy(bytes + SNAP_TOUCH_HDR_LEN + (size_t)i * SNAP_TOUCH_RUN_LEN, &v, sizeof(v));
    }
    store_hash(bytes, body, &d);
    memcpy(bytes + body, d.b, SNAP_TOUCH_SUM_LEN);
    *ret_len = body + SNAP_TOUCH_SUM_LEN;
    *ret_bytes = steal_ptr(bytes);
    return 0;
}

/* Header and length; *ret_nr: runs. */
static int decode_hdr(const uint8_t *data, size_t len, const struct store_digest *ram,
                      uint32_t *ret_nr, struct err *err)
{
    struct touch_hdr hdr;

    if (len < sizeof(hdr) + SNAP_TOUCH_SUM_LEN)
        return err_set(err, -EBADMSG, "order of touch: is shorter than its header");
    memcpy(&hdr, data, sizeof(hdr));
    if (memcmp(hdr.magic, touch_magic, sizeof(hdr.magic)) != 0)
        return err_set(err, -EBADMSG, "order of touch: magic: is another file");
    if (le16_get(hdr.version) != TOUCH_VERSION)
        return err_set(err, -ENOTSUP, "order of touch: version: %u, this program knows %d",
                       le16_get(hdr.version), TOUCH_VERSION);
    *ret_nr = le32_get(hdr.nr);
    if (le16_get(hdr.len) != sizeof(hdr))
        return err_set(err, -EBADMSG, "order of touch: header length: %u", le16_get(hdr.len));
    if (*ret_nr > SNAP_TOUCH_MAX ||
        len != sizeof(hdr) + (size_t)*ret_nr * SNAP_TOUCH_RUN_LEN + SNAP_TOUCH_SUM_LEN)
        return err_set(err, -EBADMSG, "order of touch: runs: %u do not fit %zu bytes", *ret_nr,
                       len);
    if (ram && memcmp(hdr.ram, ram->b, sizeof(hdr.ram)) != 0)
        return err_set(err, -EBADMSG, "order of touch: is of another snapshot's memory");
    return 0;
}

int snap_touch_decode(const uint8_t *data, size_t len, const struct store_digest *ram,
                      struct snap_touch *ret_t, struct err *err)
{
    struct snap_touch t = {0};
    struct store_digest d;
    uint32_t nr = 0;
    int rc = decode_hdr(data, len, ram, &nr, err);

    if (rc < 0)
        return rc;
    store_hash(data, len - SNAP_TOUCH_SUM_LEN, &d);
    if (memcmp(d.b, data + len - SNAP_TOUCH_SUM_LEN, SNAP_TOUCH_SUM_LEN) != 0)
        return err_set(err, -EBADMSG, "order of touch: does not match its digest");
    t.runs = calloc(nr ? nr : 1, sizeof(*t.runs));
    if (!t.runs)
        return err_set(err, -ENOMEM, "order of touch: out of memory");
    t.nr = nr;
    t.cap = nr;
    for (unsigned i = 0; i < nr; i++) {
        le64 wire;
        uint64_t v;

        memcpy(&wire, data + SNAP_TOUCH_HDR_LEN + (size_t)i * SNAP_TOUCH_RUN_LEN, sizeof(wire));
        v = le64_get(wire);
        t.runs[i] =
            (struct snap_touch_run){.region = (uint8_t)(v >> (TOUCH_FIRST_BITS + TOUCH_NR_BITS)),
                                    .nr = (uint16_t)(v >> TOUCH_FIRST_BITS),
                                    .first = v & ((UINT64_C(1) << TOUCH_FIRST_BITS) - 1)};
        if (t.runs[i].nr == 0) {
            snap_touch_release(&t);
            return err_set(err, -EBADMSG, "order of touch: run %u: has no pages", i);
        }
    }
    *ret_t = t;
    return 0;
}

/* --- Files ---------------------------------------------------------------------- */

static int open_cache(const char *store)
{
    auto_close int dir = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd;

    if (dir < 0)
        return -errno;
    fd = openat(dir, "cache", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void name_of(const struct store_digest *ram, const char *suffix, char *ret, size_t cap)
{
    char hex[STORE_DIGEST_HEX + 1];

    store_digest_hex(ram, hex);
    (void)snprintf(ret, cap, "%s%s", hex, suffix);
}

int snap_touch_load(const char *store, const struct store_digest *ram, struct snap_touch *ret_t,
                    struct err *err)
{
    auto_close int dir = open_cache(store);
    auto_close int fd = -1;
    auto_free uint8_t *bytes = NULL;
    char name[TOUCH_NAME_MAX];
    struct stat st;

    if (dir < 0)
        return err_set(err, dir, "%s/cache: %s", store, strerror(-dir));
    name_of(ram, ".touch", name, sizeof(name));
    fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, -errno, "%s/cache/%s: %s", store, name, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size > SNAP_TOUCH_BYTES_MAX)
        return err_set(err, -EBADMSG, "%s/cache/%s: is no order of touch", store, name);
    bytes = malloc((size_t)st.st_size + 1);
    if (!bytes)
        return err_set(err, -ENOMEM, "order of touch: out of memory");
    if (pread(fd, bytes, (size_t)st.st_size, 0) != st.st_size)
        return err_set(err, -EIO, "%s/cache/%s: cannot be read whole", store, name);
    return snap_touch_decode(bytes, (size_t)st.st_size, ram, ret_t, err);
}

int snap_touch_save(const char *store, const struct store_digest *ram, const struct snap_touch *t,
                    struct err *err)
{
    auto_close int dir = open_cache(store);
    auto_close int fd = -1;
    auto_free uint8_t *bytes = NULL;
    char name[TOUCH_NAME_MAX], temporary[TOUCH_NAME_MAX + 32];
    size_t len = 0;
    int rc = dir < 0 ? dir : snap_touch_encode(t, ram, &bytes, &len);

    if (rc < 0)
        return err_set(err, rc, "%s/cache: order of touch: %s", store, strerror(-rc));
    name_of(ram, ".touch", name, sizeof(name));
    (void)snprintf(temporary, sizeof(temporary), "%s.%d", name, getpid());
    /* No sync: what a power cut leaves of it does not match its digest. */
    fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, -errno, "%s/cache/%s: %s", store, temporary, strerror(errno));
    if (write(fd, bytes, len) != (ssize_t)len)
        rc = errno ? -errno : -ENOSPC;
    else if (renameat(dir, temporary, dir, name) < 0)
        rc = -errno;
    if (rc < 0) {
        (void)unlinkat(dir, temporary, 0);
        return err_set(err, rc, "%s/cache/%s: %s", store, name, strerror(-rc));
    }
    return 0;
}
