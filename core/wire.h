/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Little-endian bytes.  Every integer on a disk or a socket is one of these
 * types: a struct of bytes, so that it has alignment 1 (no packed attribute),
 * and neither `hdr.len = 4` nor `if (hdr.len > max)` compiles.
 */
#ifndef CORE_WIRE_H
#define CORE_WIRE_H

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "core/base.h"

typedef struct {
    uint8_t b[2];
} le16;
typedef struct {
    uint8_t b[4];
} le32;
typedef struct {
    uint8_t b[8];
} le64;

#define WIRE_DEFINE(bits)                                    \
    static inline uint##bits##_t le##bits##_get(le##bits v)  \
    {                                                        \
        uint##bits##_t h;                                    \
        memcpy(&h, v.b, sizeof(h));                          \
        return le##bits##toh(h);                             \
    }                                                        \
    static inline le##bits le##bits##_make(uint##bits##_t h) \
    {                                                        \
        le##bits v;                                          \
        h = htole##bits(h);                                  \
        memcpy(v.b, &h, sizeof(h));                          \
        return v;                                            \
    }

WIRE_DEFINE(16)
WIRE_DEFINE(32)
WIRE_DEFINE(64)

/*
 * A reader over bytes that may be hostile.  After the first short read every
 * later read yields zeroes; the caller looks once, at rd_end().
 */
struct rd {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static inline const void *rd_bytes(struct rd *r, size_t n)
{
    const uint8_t *p = r->p;

    if (r->bad || n > r->left) {
        r->bad = true;
        return NULL;
    }
    r->p += n;
    r->left -= n;
    return p;
}

static inline uint32_t rd_le32(struct rd *r)
{
    const le32 *v = rd_bytes(r, sizeof(*v));

    return v ? le32_get(*v) : 0;
}

static inline uint16_t rd_le16(struct rd *r)
{
    const le16 *v = rd_bytes(r, sizeof(*v));

    return v ? le16_get(*v) : 0;
}

static inline uint64_t rd_le64(struct rd *r)
{
    const le64 *v = rd_bytes(r, sizeof(*v));

    return v ? le64_get(*v) : 0;
}

static inline uint8_t rd_u8(struct rd *r)
{
    const uint8_t *v = rd_bytes(r, 1);

    return v ? *v : 0;
}

static inline CHECKED int rd_end(const struct rd *r)
{
    return r->bad || r->left ? -EBADMSG : 0;
}

/* A writer into a buffer of fixed size; overflow latches the same way. */
struct wr {
    uint8_t *p;
    size_t left;
    bool bad;
};

static inline void wr_bytes(struct wr *w, const void *src, size_t n)
{
    if (w->bad || n > w->left) {
        w->bad = true;
        return;
    }
    memcpy(w->p, src, n);
    w->p += n;
    w->left -= n;
}

static inline void wr_u8(struct wr *w, uint8_t v)
{
    wr_bytes(w, &v, sizeof(v));
}

static inline void wr_le16(struct wr *w, uint16_t v)
{
    le16 b = le16_make(v);

    wr_bytes(w, &b, sizeof(b));
}

static inline void wr_le32(struct wr *w, uint32_t v)
{
    le32 b = le32_make(v);

    wr_bytes(w, &b, sizeof(b));
}

static inline void wr_le64(struct wr *w, uint64_t v)
{
    le64 b = le64_make(v);

    wr_bytes(w, &b, sizeof(b));
}

#endif
