/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "store/store_pack.h"
#include "store/store_reader_internal.h"
#include "store/store_record.h"
#include "store/store_seen.h"
#include "store/store_stream.h"

struct export
{
    struct store_snapshot *snap;
    const struct store_stream_cfg *cfg;
    store_sink_fn *sink;
    void *sink_arg;
    struct store_stream_result res;
    struct err *err;
    struct store_codec_ctx *codec;
    struct store_seen *seen; /* place + 1 of contents that were sent */
    uint64_t frames;
    uint64_t done, total; /* bytes of memory */

    unsigned nr; /* pages waiting to be sent */
    uint64_t place[STORE_SEGMENT_SLOTS];
    struct store_digest digest[STORE_SEGMENT_SLOTS];
    uint8_t raw[STORE_SEGMENT_RAW_MAX];
    uint8_t segment[STORE_SEGMENT_LEN_MAX];
    uint8_t frame[STORE_SEGMENT_LEN_MAX + STORE_SEGMENT_SLOTS * sizeof(le64)];

    unsigned nr_twins;
    le64 twins[2 * STORE_FRAME_TWINS_MAX];
};

/* ---- frames ---- */

static int export_put(struct export *e, const void *data, size_t len)
{
    e->res.bytes += len;
    return e->sink(e->sink_arg, data, len, e->err);
}

static int export_header(struct export *e)
{
    static const char magic[8] = {'C', 'H', 'R', 'Y', 'S', 'T', 'R', 'M'};
    struct store_stream_wire w = {.version = le16_make(STORE_STREAM_VERSION),
                                  .hdr_len = le16_make(STORE_STREAM_HDR_LEN)};
    struct store_digest d;

    memcpy(w.magic, magic, sizeof(magic));
    store_hash(&w, offsetof(struct store_stream_wire, check), &d);
    memcpy(w.check, d.b, sizeof(w.check));
    return export_put(e, &w, sizeof(w));
}

static int export_frame(struct export *e, enum store_frame_type type, const void *data, size_t len)
{
    struct store_frame_wire w = {.type = (uint8_t)type, .len = le32_make((uint32_t)len)};
    struct store_digest d;
    int rc;

    store_hash2(&w, offsetof(struct store_frame_wire, check), data, len, &d);
    memcpy(w.check, d.b, sizeof(w.check));
    e->frames++;
    rc = export_put(e, &w, sizeof(w));
    return rc < 0 ? rc : export_put(e, data, len);
}

/* ---- what a snapshot is ---- */

static int export_record(struct export *e)
{
    const struct store_info *info = store_snapshot_info(e->snap);
    char text[8 + STORE_NAME_MAX + STORE_TAGS_MAX * (STORE_NAME_MAX + 1)];
    char tags[STORE_TAGS_MAX * (STORE_NAME_MAX + 1) + 1];
    struct wr w = {.p = (uint8_t *)text, .left = sizeof(text)};
    auto_free uint8_t *bytes = NULL;
    size_t len = 0;
    int rc = store_record_encode(info->rec, &bytes, &len, e->err);

    if (rc == 0)
        rc = export_frame(e, STORE_FRAME_RECORD, bytes, len);
    if (rc < 0)
        return rc;
    store_tags_join(info, tags, sizeof(tags));
    wr_le32(&w, (uint32_t)strlen(info->name));
    wr_bytes(&w, info->name, strlen(info->name));
    wr_le32(&w, (uint32_t)strlen(tags));
    wr_bytes(&w, tags, strlen(tags));
    return export_frame(e, STORE_FRAME_LABELS, text, sizeof(text) - w.left);
}

static int export_state(struct export *e)
{
    auto_free uint8_t *state = NULL;
    size_t len = 0;
    int rc = store_snapshot_state(e->snap, &state, &len, e->err);

    for (size_t at = 0; at < len && rc == 0; at += STORE_CHUNK_LEN) {
        struct store_segment seg = {.kind = STORE_KIND_BLOB, .nr_items = 1};
        struct store_digest d;
        uint32_t n;

        seg.raw_len = len - at < STORE_CHUNK_LEN ? (uint32_t)(len - at) : STORE_CHUNK_LEN;
        store_hash(state + at, seg.raw_len, &d);
        n = store_segment_pack(e->codec, &seg, state + at, &d, e->segment);
        rc = export_frame(e, STORE_FRAME_STATE, e->segment, n);
    }
    return rc;
}

/* ---- pages ---- */

static int export_flush_pages(struct export *e)
{
    struct store_segment seg = {
        .kind = STORE_KIND_PAGES, .nr_items = e->nr, .raw_len = (uint32_t)(e->nr * PAGE_SIZE_4K)};
    struct wr w = {.p = e->frame, .left = sizeof(e->frame)};
    uint32_t n;

    if (!e->nr)
        return 0;
    n = store_segment_pack(e->codec, &seg, e->raw, e->digest, e->segment);
    wr_bytes(&w, e->segment, STORE_SEGMENT_HDR_LEN);
    for (unsigned i = 0; i < e->nr; i++)
        wr_le64(&w, e->place[i]);
    wr_bytes(&w, e->segment + STORE_SEGMENT_HDR_LEN, n - STORE_SEGMENT_HDR_LEN);
    e->res.pages_sent += e->nr;
    e->nr = 0;
    return export_frame(e, STORE_FRAME_PAGES, e->frame, sizeof(e->frame) - w.left);
}

/* What twins refer to must have been sent. */
static int export_flush_twins(struct export *e)
{
    unsigned nr = e->nr_twins;
    int rc = nr ? export_flush_pages(e) : 0;

    e->nr_twins = 0;
    e->res.pages_known += nr;
    if (rc < 0 || !nr)
        return rc;
    return export_frame(e, STORE_FRAME_SAME, e->twins, (size_t)2 * nr * sizeof(e->twins[0]));
}

static int export_page(struct export *e, unsigned region, uint64_t page,
                       const struct store_digest *d)
{
    uint64_t place = (uint64_t)region << STORE_PLACE_BITS | page;
    uint64_t first = store_seen_claim(e->seen, d, place + 1) - 1;
    int rc;

    if (first != place) {
        size_t at = (size_t)2 * e->nr_twins;

        e->twins[at] = le64_make(place);
        e->twins[at + 1] = le64_make(first);
        return ++e->nr_twins == STORE_FRAME_TWINS_MAX ? export_flush_twins(e) : 0;
    }
    rc = store_snapshot_read(e->snap, region, page, 1, e->raw + (size_t)e->nr * PAGE_SIZE_4K,
                             e->err);
    if (rc < 0)
        return rc;
    e->place[e->nr] = place;
    e->digest[e->nr++] = *d;
    return e->nr == STORE_SEGMENT_SLOTS ? export_flush_pages(e) : 0;
}

static int export_leaf(struct export *e, unsigned region, uint64_t first,
                       const struct store_node *leaf, unsigned nr)
{
    int rc = 0;

    for (unsigned i = 0; i < nr && rc == 0; i++)
        if (!store_digest_is_zero(&leaf->digest[i]))
            rc = export_page(e, region, first + i, &leaf->digest[i]);
    return rc;
}

static int export_region(struct export *e, unsigned region)
{
    uint64_t pages = store_snapshot_info(e->snap)->rec->regions[region].pages;
    auto_free struct store_node *leaf = malloc(sizeof(*leaf));
    int rc = leaf ? 0 : store_no_memory(e->err);

    for (uint64_t i = 0; i < store_manifest_nr_entries(pages, 1) && rc >= 0; i++) {
        unsigned nr = store_manifest_node_nr(pages, 0, i);

        rc = store_snapshot_node(e->snap, region, 0, i, leaf, e->err);
        if (rc > 0)
            rc = export_leaf(e, region, i << STORE_NODE_SHIFT, leaf, nr);
        e->done += nr * PAGE_SIZE_4K;
        if (rc >= 0 && e->cfg->progress)
            e->cfg->progress(e->cfg->arg, e->done, e->total);
    }
    return rc < 0 ? rc : 0;
}

/* ---- the whole ---- */

static int export_all(struct export *e)
{
    const struct store_record *rec = store_snapshot_info(e->snap)->rec;
    le64 frames;
    int rc = export_header(e);

    for (unsigned i = 0; i < rec->nr_regions; i++)
        e->total += rec->regions[i].pages * PAGE_SIZE_4K;
    if (rc == 0)
        rc = export_record(e);
    if (rc == 0)
        rc = export_state(e);
    for (unsigned i = 0; i < rec->nr_regions && rc == 0; i++)
        rc = export_region(e, i);
    if (rc == 0)
        rc = export_flush_pages(e);
    if (rc == 0)
        rc = export_flush_twins(e);
    frames = le64_make(e->frames);
    return rc < 0 ? rc : export_frame(e, STORE_FRAME_END, &frames, sizeof(frames));
}

int store_export(struct store_snapshot *snap, store_sink_fn *sink, void *sink_arg,
                 const struct store_stream_cfg *cfg, struct store_stream_result *ret_res,
                 struct err *err)
{
    const struct store_info *info = store_snapshot_info(snap);
    struct export *e = calloc(1, sizeof(*e));
    uint64_t pages = 0;
    int rc;

    if (!e)
        return store_no_memory(err);
    e->snap = snap;
    e->cfg = cfg;
    e->sink = sink;
    e->sink_arg = sink_arg;
    e->err = err;
    for (unsigned i = 0; i < info->rec->nr_regions; i++)
        pages += info->rec->regions[i].pages;
    rc = store_codec_new(&e->codec, err);
    if (rc == 0 && store_seen_new(pages, &e->seen) < 0)
        rc = store_no_memory(err);
    if (rc == 0)
        rc = export_all(e);
    memcpy(e->res.id, info->id, sizeof(e->res.id));
    if (rc == 0)
        *ret_res = e->res;
    store_codec_free(e->codec);
    store_seen_free(e->seen);
    free(e);
    return rc;
}
