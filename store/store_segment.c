/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_segment.h"

#include <zstd.h>

enum {
    SEGMENT_DIGESTED = 32, /* bytes of the header that the digest covers */
    SEGMENT_ZSTD_LEVEL = 1,
    /*
     * Level 1 has a hash table of 32 KiB for inputs of this size: all of a processor's first cache.
     * With 8 KiB the memory of a Linux guest is compressed a fifth faster and takes 2.6 % more.
     */
    SEGMENT_ZSTD_HASH_LOG = 11,
};

static const uint8_t segment_magic[4] = {'C', 'S', 'E', 'G'};

struct store_codec_ctx {
    ZSTD_CCtx *cctx;
    ZSTD_DCtx *dctx;
};

int store_codec_new(struct store_codec_ctx **ret_ctx, struct err *err)
{
    struct store_codec_ctx *ctx = calloc(1, sizeof(*ctx));

    if (!ctx)
        return store_no_memory(err);
    *ret_ctx = ctx;
    return 0;
}

void store_codec_free(struct store_codec_ctx *ctx)
{
    if (!ctx)
        return;
    (void)ZSTD_freeCCtx(ctx->cctx);
    (void)ZSTD_freeDCtx(ctx->dctx);
    free(ctx);
}

/* The digest of a segment: its header's first half, then the digest of each item. */
static void segment_digest(const uint8_t *hdr, const struct store_digest *digests, unsigned nr,
                           struct store_digest *ret)
{
    uint8_t items[STORE_SEGMENT_SLOTS * STORE_DIGEST_LEN];

    for (unsigned i = 0; i < nr; i++)
        memcpy(items + (size_t)i * STORE_DIGEST_LEN, digests[i].b, STORE_DIGEST_LEN);
    store_hash2(hdr, SEGMENT_DIGESTED, items, (size_t)nr * STORE_DIGEST_LEN, ret);
}

/* NULL if there is no memory, or a zstd that knows less: raw bytes are stored then. */
static ZSTD_CCtx *new_cctx(void)
{
    ZSTD_CCtx *cctx = ZSTD_createCCtx();

    if (!cctx)
        return NULL;
    if (!ZSTD_isError(ZSTD_CCtx_setParameter(cctx, ZSTD_c_compressionLevel, SEGMENT_ZSTD_LEVEL)) &&
        !ZSTD_isError(ZSTD_CCtx_setParameter(cctx, ZSTD_c_hashLog, SEGMENT_ZSTD_HASH_LOG)))
        return cctx;
    (void)ZSTD_freeCCtx(cctx);
    return NULL;
}

/* Compress into out; the size, or 0 if raw bytes are to be stored instead. */
static size_t segment_compress(struct store_codec_ctx *ctx, const uint8_t *raw, size_t raw_len,
                               uint8_t *out)
{
    size_t n;

    if (!ctx->cctx)
        ctx->cctx = new_cctx();
    if (!ctx->cctx)
        return 0;
    n = ZSTD_compress2(ctx->cctx, out, raw_len - 1, raw, raw_len);
    return ZSTD_isError(n) ? 0 : n;
}

uint32_t store_segment_pack(struct store_codec_ctx *ctx, struct store_segment *seg,
                            const uint8_t *raw, const struct store_digest *digests, uint8_t *out)
{
    struct store_segment_wire w = {
        .version = STORE_SEGMENT_VERSION,
        .kind = (uint8_t)seg->kind,
        .alg = STORE_ALG_SHA256,
        .id = le64_make(seg->id),
        .raw_len = le32_make(seg->raw_len),
        .nr_items = (uint8_t)seg->nr_items,
    };
    size_t n = segment_compress(ctx, raw, seg->raw_len, out + sizeof(w));

    memcpy(w.magic, segment_magic, sizeof(w.magic));
    seg->codec = n ? STORE_CODEC_ZSTD : STORE_CODEC_RAW;
    if (!n) {
        n = seg->raw_len;
        memcpy(out + sizeof(w), raw, n);
    }
    seg->stored_len = (uint32_t)n;
    w.codec = (uint8_t)seg->codec;
    w.stored_len = le32_make(seg->stored_len);
    segment_digest((const uint8_t *)&w, digests, seg->nr_items, &seg->digest);
    memcpy(w.digest, seg->digest.b, sizeof(w.digest));
    memcpy(out, &w, sizeof(w));
    return (uint32_t)(sizeof(w) + n);
}

static bool segment_sizes_are_good(const struct store_segment *seg)
{
    if (seg->raw_len == 0 || seg->raw_len > STORE_SEGMENT_RAW_MAX)
        return false;
    if (seg->codec == STORE_CODEC_RAW ? seg->stored_len != seg->raw_len
                                      : seg->stored_len == 0 || seg->stored_len >= seg->raw_len)
        return false;
    if (seg->kind == STORE_KIND_PAGES)
        return seg->nr_items >= 1 && seg->nr_items <= STORE_SEGMENT_SLOTS &&
               seg->raw_len == seg->nr_items * PAGE_SIZE_4K;
    return seg->nr_items == 1;
}

int store_segment_parse(const uint8_t *bytes, struct store_segment *ret_seg, struct err *err)
{
    struct store_segment_wire w;
    struct store_segment seg;

    memcpy(&w, bytes, sizeof(w));
    if (memcmp(w.magic, segment_magic, sizeof(w.magic)) != 0)
        return err_set(err, -EBADMSG, "segment.magic: not a segment");
    if (w.version != STORE_SEGMENT_VERSION)
        return err_set(err, -ENOTSUP, "segment.version: %u, this program knows %u", w.version,
                       STORE_SEGMENT_VERSION);
    if (w.kind < STORE_KIND_PAGES || w.kind > STORE_KIND_BLOB)
        return err_set(err, -EBADMSG, "segment.kind: %u", w.kind);
    if (w.codec > STORE_CODEC_ZSTD)
        return err_set(err, -EBADMSG, "segment.codec: %u", w.codec);
    if (w.alg != STORE_ALG_SHA256)
        return err_set(err, -ENOTSUP, "segment.alg: %u", w.alg);
    for (size_t i = 0; i < sizeof(w.zero); i++)
        if (w.zero[i])
            return err_set(err, -EBADMSG, "segment.zero: not zero");
    seg = (struct store_segment){
        .id = le64_get(w.id),
        .kind = (enum store_segment_kind)w.kind,
        .codec = (enum store_codec)w.codec,
        .raw_len = le32_get(w.raw_len),
        .stored_len = le32_get(w.stored_len),
        .nr_items = w.nr_items,
        .digest.alg = STORE_ALG_SHA256,
    };
    memcpy(seg.digest.b, w.digest, sizeof(w.digest));
    if (seg.id > STORE_SEGMENT_ID_MAX)
        return err_set(err, -EBADMSG, "segment.id: out of range");
    if (!segment_sizes_are_good(&seg))
        return err_set(err, -EBADMSG, "segment.raw_len: %u raw, %u stored, %u items", seg.raw_len,
                       seg.stored_len, seg.nr_items);
    *ret_seg = seg;
    return 0;
}

/* The library would also take several, one behind the other, and what older versions wrote. */
static bool segment_is_one_frame(const uint8_t *payload, size_t len)
{
    uint32_t magic = 0;

    for (unsigned i = 0; len >= sizeof(magic) && i < sizeof(magic); i++)
        magic |= (uint32_t)payload[i] << 8 * i;
    return magic == ZSTD_MAGICNUMBER && ZSTD_findFrameCompressedSize(payload, len) == len;
}

int store_segment_unpack(struct store_codec_ctx *ctx, const struct store_segment *seg,
                         const uint8_t *payload, uint8_t *dst, struct err *err)
{
    size_t n;

    if (seg->codec == STORE_CODEC_RAW) {
        memcpy(dst, payload, seg->raw_len);
        return 0;
    }
    if (!segment_is_one_frame(payload, seg->stored_len))
        return err_set(err, -EBADMSG, "segment %llu: payload: is not one zstd frame",
                       (unsigned long long)seg->id);
    if (!ctx->dctx)
        ctx->dctx = ZSTD_createDCtx();
    if (!ctx->dctx)
        return store_no_memory(err);
    /* In one shot zstd decodes into dst alone: the declared window is never allocated. */
    n = ZSTD_decompressDCtx(ctx->dctx, dst, seg->raw_len, payload, seg->stored_len);
    if (ZSTD_isError(n) || n != seg->raw_len)
        return err_set(err, -EBADMSG, "segment %llu: payload: %s", (unsigned long long)seg->id,
                       ZSTD_isError(n) ? ZSTD_getErrorName(n) : "too short");
    return 0;
}

void store_segment_digests(const struct store_segment *seg, const uint8_t *raw,
                           struct store_digest *ret_digests)
{
    store_hash_items(raw, seg->raw_len / seg->nr_items, seg->nr_items, ret_digests);
}

int store_segment_check(const struct store_segment *seg, const uint8_t *hdr, const uint8_t *raw,
                        struct store_digest *ret_digests, struct err *err)
{
    struct store_digest d;

    store_segment_digests(seg, raw, ret_digests);
    segment_digest(hdr, ret_digests, seg->nr_items, &d);
    if (!store_digest_equal(&d, &seg->digest))
        return err_set(err, -EBADMSG, "segment %llu: digest: does not match its content",
                       (unsigned long long)seg->id);
    return 0;
}
