/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pack from anywhere: header, walk over its segments, each one unpacked.
 */
#include <assert.h>

#include "store/store_pack.h"

struct memory_pack {
    struct store_file file;
    const uint8_t *data;
    size_t len;
    struct store_codec_ctx *codec;
    uint64_t next; /* where the next segment must begin */
};

static int memory_read(struct store_file *f, void *dst, size_t len, uint64_t off, struct err *err)
{
    const struct memory_pack *p = container_of(f, struct memory_pack, file);

    if (off > p->len || len > p->len - off)
        return err_set(err, -EBADMSG, "ends before");
    memcpy(dst, p->data + off, len);
    return 0;
}

static int look(void *arg, const struct store_segment *seg, uint64_t off)
{
    static uint8_t raw[STORE_SEGMENT_RAW_MAX];
    struct store_digest d[STORE_SEGMENT_SLOTS];
    struct memory_pack *p = arg;
    const uint8_t *hdr = p->data + off;

    assert(off == p->next);
    p->next = off + STORE_SEGMENT_HDR_LEN + seg->stored_len;
    assert(p->next <= p->len);
    assert(seg->raw_len <= sizeof(raw));
    assert(seg->nr_items >= 1 && seg->nr_items <= STORE_SEGMENT_SLOTS);
    if (store_segment_unpack(p->codec, seg, hdr + STORE_SEGMENT_HDR_LEN, raw, NULL) < 0)
        return 0;
    if (store_segment_check(seg, hdr, raw, d, NULL) < 0)
        return 0;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct store_backend_ops ops = {.name = "memory", .read = memory_read};
    static const uint8_t uuid[STORE_UUID_LEN];
    static struct store_codec_ctx *codec;
    struct store_backend be = {.ops = &ops};
    struct memory_pack p = {
        .file = {.be = &be, .id = 1},
          .data = data, .len = size, .next = STORE_PACK_HDR_LEN
    };
    struct err why = {0};
    uint64_t end = 0;

    if (!codec && store_codec_new(&codec, NULL) < 0)
        return 0;
    p.codec = codec;
    if (size >= STORE_PACK_HDR_LEN)
        if (store_pack_header_check(data, 1, uuid, &why) < 0)
            assert(why.msg[0]);
    why = (struct err){0};
    if (store_pack_scan(&p.file, size, look, &p, &end, &why) == 0) {
        assert(end <= size);
        assert(end == size || size < STORE_PACK_HDR_LEN || why.msg[0]);
    }
    return 0;
}
