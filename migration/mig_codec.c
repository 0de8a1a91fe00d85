/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "migration/mig_wire.h"

enum {
    LEVEL = 1,
    WEIGHT = 8,            /* a new measurement counts one part of so many */
    PAYS_PERCENT = 75,     /* of the time without: less than that is worth it */
    PROBE_FRAMES = 64,     /* where it does not pay, it is tried again after so many frames */
    PROBE_WIRE_PS = 4000,  /* a link that takes a byte in less is faster than any compressing */
    TELLING_BYTES = 16384, /* a shorter frame, as of zero pages, takes as long as the calls */
};

/* --- Whether it pays ------------------------------------------------------- */

static uint64_t average(uint64_t old, uint64_t now)
{
    return old ? old - old / WEIGHT + now / WEIGHT : now;
}

static uint64_t ps_per_byte(uint64_t ns, uint64_t bytes)
{
    uint64_t ps = (uint64_t)((unsigned __int128)ns * 1000 / (bytes ? bytes : 1));

    return ps ? ps : 1;
}

void mig_codec_sent(struct mig_codec_stats *s, uint64_t bytes, uint64_t ns)
{
    if (bytes >= TELLING_BYTES)
        s->wire_ps = average(s->wire_ps, ps_per_byte(ns, bytes));
    s->frames++;
}

void mig_codec_packed(struct mig_codec_stats *s, uint64_t bytes, uint64_t left, uint64_t ns)
{
    s->pack_ps = average(s->pack_ps, ps_per_byte(ns, bytes));
    s->kept = average(s->kept, left * 1000 / (bytes ? bytes : 1) + 1);
    s->frames = 0;
}

bool mig_codec_try(const struct mig_codec_stats *s)
{
    uint64_t with = s->pack_ps + s->wire_ps * s->kept / 1000;

    if (s->wire_ps < PROBE_WIRE_PS)
        return false;
    if (!s->pack_ps || s->frames >= PROBE_FRAMES)
        return true;
    return with < s->wire_ps * PAYS_PERCENT / 100;
}

/* --- Bytes ----------------------------------------------------------------- */

struct mig_packer {
    ZSTD_CCtx *cctx;
    ZSTD_DCtx *dctx;
    uint8_t *in; /* MIG_PAYLOAD_MAX each; NULL: not needed yet */
    uint8_t *out;
};

int mig_packer_new(struct mig_packer **ret_c)
{
    *ret_c = calloc(1, sizeof(**ret_c));
    return *ret_c ? 0 : -ENOMEM;
}

void mig_packer_free(struct mig_packer *c)
{
    if (!c)
        return;
    (void)ZSTD_freeCCtx(c->cctx);
    (void)ZSTD_freeDCtx(c->dctx);
    free(c->in);
    free(c->out);
    free(c);
}

static bool have_buffers(struct mig_packer *c)
{
    if (!c->in)
        c->in = malloc(MIG_PAYLOAD_MAX);
    if (!c->out)
        c->out = malloc(MIG_PAYLOAD_MAX);
    return c->in && c->out;
}

int mig_packer_pack(struct mig_packer *c, const struct iovec *iov, unsigned nr,
                    const void **ret_data)
{
    size_t len = 0, n;

    if (!c->cctx)
        c->cctx = ZSTD_createCCtx();
    if (!c->cctx || !have_buffers(c))
        return -ENOMEM;
    /* The compressor must not see bytes that change under it. */
    for (unsigned i = 0; i < nr; i++) {
        memcpy(c->in + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    n = ZSTD_compressCCtx(c->cctx, c->out, len, c->in, len, LEVEL);
    /* No room: it would not be smaller. */
    if (ZSTD_isError(n) || n >= len)
        return 0;
    *ret_data = c->out;
    return (int)n;
}

void *mig_packer_input(struct mig_packer *c)
{
    return have_buffers(c) ? c->in : NULL;
}

/* The decoder would take several frames as well, those that are to be skipped, and ancient ones. */
static int check_frame(const uint8_t *in, size_t len, struct err *err)
{
    struct rd r = {in, len, false};
    size_t n;

    if (rd_le32(&r) != ZSTD_MAGICNUMBER)
        return err_set(err, -EBADMSG, "PAGES: zstd: the payload does not begin with a frame");
    n = ZSTD_findFrameCompressedSize(in, len);
    if (ZSTD_isError(n))
        return err_set(err, -EBADMSG, "PAGES: zstd: %s", ZSTD_getErrorName(n));
    if (n != len)
        return err_set(err, -EBADMSG, "PAGES: zstd: the frame ends after %zu of %zu bytes", n, len);
    return 0;
}

int mig_packer_unpack(struct mig_packer *c, size_t len, size_t want, const void **ret_data,
                      struct err *err)
{
    size_t n;
    int rc;

    if (!c->dctx)
        c->dctx = ZSTD_createDCtx();
    if (!c->dctx || !have_buffers(c))
        return err_set(err, -ENOMEM, "no memory to decompress with");
    rc = check_frame(c->in, len, err);
    if (rc < 0)
        return rc;
    n = ZSTD_decompressDCtx(c->dctx, c->out, want, c->in, len);
    if (ZSTD_isError(n))
        return err_set(err, -EBADMSG, "PAGES: zstd: %s", ZSTD_getErrorName(n));
    if (n != want)
        return err_set(err, -EBADMSG, "PAGES: zstd: %zu bytes, the runs have %zu", n, want);
    *ret_data = c->out;
    return 0;
}
