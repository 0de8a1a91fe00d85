/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "store/store_pack.h"
#include "store/store_reader_internal.h"
#include "store/store_record.h"
#include "store/store_stream.h"
#include "store/store_whole.h"
#include "store/store_writer.h"

struct import {
    struct store *st;
    const struct store_stream_cfg *cfg;
    store_source_fn *source;
    void *source_arg;
    struct store_stream_result res;
    struct err *err;
    struct store_codec_ctx *codec;
    struct store_writer *w;
    struct store_snapshot *hurt; /* the same snapshot, which has lost something; or NULL */
    uint64_t frames;             /* read so far */
    uint64_t pages_done, pages_total;

    uint8_t *payload; /* of the frame at hand */
    size_t cap, len;
    uint8_t *record; /* bytes of it */
    size_t record_len;
    struct store_record *rec;
    uint8_t *state;
    size_t state_len; /* of what came */
    uint8_t raw[STORE_SEGMENT_RAW_MAX];
    struct store_twin twins[STORE_FRAME_TWINS_MAX];
};

/* ---- bytes ---- */

/* Exactly @len bytes; 0 if the source was at its end before the first of them. */
static int import_get(struct import *m, void *dst, size_t len, bool may_end)
{
    uint8_t *p = dst;
    size_t got = 0;

    while (got < len) {
        ssize_t n = m->source(m->source_arg, p + got, len - got, m->err);

        if (n < 0)
            return (int)n;
        if (n == 0 && !got && may_end)
            return 0;
        if (n == 0)
            return err_set(m->err, -EBADMSG, "stream: cut off after %llu bytes",
                           (unsigned long long)(m->res.bytes + got));
        got += (size_t)n;
    }
    m->res.bytes += len;
    return 1;
}

static int import_header(struct import *m)
{
    static const char magic[8] = {'C', 'H', 'R', 'Y', 'S', 'T', 'R', 'M'};
    struct store_stream_wire w;
    struct store_digest d;
    uint8_t any = 0;
    int rc = import_get(m, &w, sizeof(w), true);

    if (rc <= 0)
        return rc;
    if (memcmp(w.magic, magic, sizeof(magic)) != 0)
        return err_set(m->err, -EBADMSG, "stream.magic: not a stream of snapshots");
    if (le16_get(w.version) != STORE_STREAM_VERSION)
        return err_set(m->err, -ENOTSUP, "stream.version: %u, this program knows %u",
                       le16_get(w.version), STORE_STREAM_VERSION);
    store_hash(&w, offsetof(struct store_stream_wire, check), &d);
    if (memcmp(w.check, d.b, sizeof(w.check)) != 0)
        return err_set(m->err, -EBADMSG, "stream.check: does not match");
    for (size_t i = 0; i < sizeof(w.zero); i++)
        any |= w.zero[i];
    if (any || le16_get(w.hdr_len) != STORE_STREAM_HDR_LEN)
        return err_set(m->err, -EBADMSG, "stream.zero: not zero");
    return 1;
}

/* Room for a payload; grows with what really comes, not with what a length says. */
static int import_reserve(struct import *m, size_t len)
{
    uint8_t *more;

    if (len <= m->cap)
        return 0;
    more = realloc(m->payload, len);
    if (!more)
        return store_no_memory(m->err);
    m->payload = more;
    m->cap = len;
    return 0;
}

static int import_check_frame(struct import *m, const struct store_frame_wire *w)
{
    struct store_digest d;

    store_hash2(w, offsetof(struct store_frame_wire, check), m->payload, m->len, &d);
    if (memcmp(w->check, d.b, sizeof(w->check)) != 0)
        return err_set(m->err, -EBADMSG, "frame %llu: check does not match",
                       (unsigned long long)m->frames);
    return 0;
}

/* The next frame into @payload; its type. */
static int import_frame(struct import *m)
{
    struct store_frame_wire w;
    uint32_t len;
    int rc = import_get(m, &w, sizeof(w), false);

    if (rc < 0)
        return rc;
    len = le32_get(w.len);
    if (w.type < STORE_FRAME_RECORD || w.type > STORE_FRAME_END || w.zero[0] || w.zero[1] ||
        w.zero[2])
        return err_set(m->err, -EBADMSG, "frame %llu: type %u", (unsigned long long)m->frames,
                       w.type);
    if (len > STORE_FRAME_MAX)
        return err_set(m->err, -EBADMSG, "frame %llu: %u bytes, at most %u",
                       (unsigned long long)m->frames, len, STORE_FRAME_MAX);
    rc = import_reserve(m, len);
    if (rc == 0 && len)
        rc = import_get(m, m->payload, len, false);
    m->len = len;
    if (rc >= 0)
        rc = import_check_frame(m, &w);
    m->frames++;
    return rc < 0 ? rc : w.type;
}

/* ---- what it is ---- */

static int import_is_there(struct import *m)
{
    struct store_digest d;

    store_hash(m->record, m->record_len, &d);
    store_digest_hex(&d, m->res.id);
    return store_find_hurt(m->st, m->res.id, &m->hurt, m->err);
}

static int import_record(struct import *m)
{
    int rc = import_frame(m);

    if (rc < 0)
        return rc;
    if (rc != STORE_FRAME_RECORD)
        return err_set(m->err, -EBADMSG, "frame 0: is no record");
    m->record = steal_ptr(m->payload);
    m->record_len = m->len;
    m->cap = 0;
    rc = store_record_decode(m->record, m->record_len, &m->rec, m->err);
    if (rc < 0)
        return rc;
    m->state = calloc(1, m->rec->nr_chunks ? (size_t)STORE_CHUNK_LEN : 1);
    if (!m->state)
        return store_no_memory(m->err);
    for (unsigned i = 0; i < m->rec->nr_regions; i++)
        m->pages_total += m->rec->regions[i].pages;
    return import_is_there(m);
}

/* A text of the frame at hand into @out of @cap bytes. */
static void import_text(struct rd *r, char *out, size_t cap)
{
    uint32_t len = rd_le32(r);
    const char *p = len < cap ? rd_bytes(r, len) : NULL;

    r->bad = r->bad || !p || memchr(p, 0, len);
    if (r->bad)
        len = 0;
    if (len)
        memcpy(out, p, len);
    out[len] = 0;
}

static int import_begin(struct import *m)
{
    char name[STORE_NAME_MAX + 1], tags[STORE_TAGS_MAX * (STORE_NAME_MAX + 1) + 1];
    struct store_writer_region regions[STORE_REGIONS_MAX];
    const char *chosen = m->cfg->name ? m->cfg->name : name;
    struct store_writer_cfg cfg = {.nr_regions = m->rec->nr_regions, .regions = regions};
    struct rd r;
    int rc = import_frame(m);

    if (rc < 0)
        return rc;
    r = (struct rd){.p = m->payload, .left = m->len};
    import_text(&r, name, sizeof(name));
    import_text(&r, tags, sizeof(tags));
    if (rc != STORE_FRAME_LABELS || rd_end(&r) < 0)
        return err_set(m->err, -EBADMSG, "frame 1: is no name and tags");
    for (unsigned i = 0; i < m->rec->nr_regions; i++)
        regions[i] = (struct store_writer_region){.gpa = m->rec->regions[i].gpa,
                                                  .pages = m->rec->regions[i].pages};
    cfg.name = chosen[0] && !m->hurt ? chosen : NULL;
    cfg.tags = tags[0] && !m->hurt ? tags : NULL;
    rc = store_writer_begin(m->st, &cfg, &m->w, m->err);
    /* What the stream does not mention is zero. */
    for (unsigned i = 0; i < m->rec->nr_regions && rc == 0; i++)
        rc = store_writer_zero(m->w, i, 0, regions[i].pages, m->err);
    return rc;
}

/* ---- contents ---- */

/* Header and payload of a segment whose payload stands @gap bytes behind its header. */
static int import_segment(struct import *m, enum store_segment_kind kind, size_t item_gap,
                          struct store_segment *ret)
{
    size_t gap;
    int rc;

    if (m->len < STORE_SEGMENT_HDR_LEN)
        return err_set(m->err, -EBADMSG, "frame %llu: cut off", (unsigned long long)m->frames - 1);
    rc = store_segment_parse(m->payload, ret, m->err);
    if (rc < 0)
        return rc;
    gap = ret->nr_items * item_gap;
    if (ret->kind != kind || m->len != STORE_SEGMENT_HDR_LEN + gap + ret->stored_len)
        return err_set(m->err, -EBADMSG, "frame %llu: wrong kind or length",
                       (unsigned long long)m->frames - 1);
    return store_segment_unpack(m->codec, ret, m->payload + STORE_SEGMENT_HDR_LEN + gap, m->raw,
                                m->err);
}

static int import_state(struct import *m)
{
    struct store_segment seg;
    uint8_t *more;
    int rc = import_segment(m, STORE_KIND_BLOB, 0, &seg);

    if (rc < 0)
        return rc;
    if (seg.raw_len > m->rec->state_len - m->state_len)
        return err_set(m->err, -EBADMSG, "device state: longer than the record says");
    more = realloc(m->state, m->state_len + seg.raw_len);
    if (!more)
        return store_no_memory(m->err);
    m->state = more;
    memcpy(m->state + m->state_len, m->raw, seg.raw_len);
    m->state_len += seg.raw_len;
    return 0;
}

static int import_place(struct import *m, uint64_t place, unsigned *ret_region, uint64_t *ret_page)
{
    uint64_t region = place >> STORE_PLACE_BITS;

    *ret_page = place & (((uint64_t)1 << STORE_PLACE_BITS) - 1);
    if (region >= m->rec->nr_regions || *ret_page >= m->rec->regions[region].pages) {
        return err_set(m->err, -EBADMSG, "frame %llu: region %llu has no page %llu",
                       (unsigned long long)m->frames - 1, (unsigned long long)region,
                       (unsigned long long)*ret_page);
    }
    *ret_region = (unsigned)region;
    return 0;
}

static int import_pages(struct import *m)
{
    struct store_segment seg;
    struct rd r;
    int rc = import_segment(m, STORE_KIND_PAGES, sizeof(le64), &seg);

    if (rc < 0)
        return rc;
    r = (struct rd){.p = m->payload + STORE_SEGMENT_HDR_LEN, .left = seg.nr_items * sizeof(le64)};
    for (unsigned i = 0; i < seg.nr_items && rc == 0; i++) {
        unsigned region = 0;
        uint64_t page = 0;

        rc = import_place(m, rd_le64(&r), &region, &page);
        if (rc == 0)
            rc = store_writer_pages(m->w, region, page, 1, m->raw + i * PAGE_SIZE_4K, m->err);
    }
    m->res.pages_sent += seg.nr_items;
    return rc;
}

static int import_twins(struct import *m)
{
    struct rd r = {.p = m->payload, .left = m->len};
    size_t nr = m->len / (2 * sizeof(le64));
    int rc = 0;

    if (!nr || nr > STORE_FRAME_TWINS_MAX || m->len % (2 * sizeof(le64)))
        return err_set(m->err, -EBADMSG, "frame %llu: %zu bytes of pages that are the same",
                       (unsigned long long)m->frames - 1, m->len);
    for (size_t i = 0; i < nr && rc == 0; i++) {
        struct store_twin *t = &m->twins[i];

        rc = import_place(m, rd_le64(&r), &t->region, &t->page);
        if (rc == 0)
            rc = import_place(m, rd_le64(&r), &t->from_region, &t->from_page);
    }
    m->res.pages_known += nr;
    return rc < 0 ? rc : store_writer_same(m->w, m->twins, nr, m->err);
}

static int import_end(struct import *m)
{
    struct rd r = {.p = m->payload, .left = m->len};
    uint64_t frames = rd_le64(&r);

    if (rd_end(&r) < 0 || frames != m->frames - 1)
        return err_set(m->err, -EBADMSG, "end: counts %llu frames instead of %llu",
                       (unsigned long long)frames, (unsigned long long)m->frames - 1);
    if (m->state_len != m->rec->state_len)
        return err_set(m->err, -EBADMSG, "device state: shorter than the record says");
    return 0;
}

/* 1 at the end of the stream, 0 before it, or an errno. */
static int import_content(struct import *m)
{
    int rc = import_frame(m);

    if (rc < 0)
        return rc;
    switch ((enum store_frame_type)rc) {
    case STORE_FRAME_STATE:
        return import_state(m);
    case STORE_FRAME_PAGES:
        rc = import_pages(m);
        break;
    case STORE_FRAME_SAME:
        rc = import_twins(m);
        break;
    case STORE_FRAME_END:
        rc = import_end(m);
        return rc < 0 ? rc : 1;
    case STORE_FRAME_RECORD:
    case STORE_FRAME_LABELS:
    default:
        return err_set(m->err, -EBADMSG, "frame %llu: type %d comes only once",
                       (unsigned long long)m->frames - 1, rc);
    }
    if (rc == 0 && m->cfg->progress)
        m->cfg->progress(m->cfg->arg, (m->res.pages_sent + m->res.pages_known) * PAGE_SIZE_4K,
                         m->pages_total * PAGE_SIZE_4K);
    return rc;
}

/* ---- the whole ---- */

/* To the end of a stream that is not wanted, so that the next can follow. */
static int import_skip(struct import *m)
{
    int rc;

    do
        rc = import_frame(m);
    while (rc >= 0 && rc != STORE_FRAME_END);
    return rc < 0 ? rc : -EEXIST;
}

static int import_all(struct import *m)
{
    struct store_publish what = {0};
    int rc = import_header(m);

    if (rc <= 0)
        return rc;
    rc = import_record(m);
    if (rc == -EEXIST)
        return import_skip(m);
    if (rc == 0)
        rc = import_begin(m);
    while (rc == 0)
        rc = import_content(m);
    if (rc < 0)
        return rc;
    what.state = m->state;
    what.state_len = m->state_len;
    what.record = m->record;
    what.record_len = m->record_len;
    what.heal = m->hurt != NULL;
    rc = store_writer_publish(steal_ptr(m->w), &what, m->res.id, m->err);
    m->res.healed = rc == 0 && m->hurt;
    return rc < 0 ? rc : 1;
}

int store_import(struct store *st, store_source_fn *source, void *source_arg,
                 const struct store_stream_cfg *cfg, struct store_stream_result *ret_res,
                 struct err *err)
{
    struct import *m = calloc(1, sizeof(*m));
    int rc = store_write_check(st, err);

    if (!m || rc < 0) {
        free(m);
        return rc < 0 ? rc : store_no_memory(err);
    }
    m->st = st;
    m->cfg = cfg;
    m->source = source;
    m->source_arg = source_arg;
    m->err = err;
    rc = store_codec_new(&m->codec, err);
    if (rc == 0)
        rc = import_all(m);
    *ret_res = m->res;
    store_writer_abort(m->w);
    store_snapshot_close(m->hurt);
    store_record_free(m->rec);
    store_codec_free(m->codec);
    free(m->payload);
    free(m->record);
    free(m->state);
    free(m);
    return rc;
}
