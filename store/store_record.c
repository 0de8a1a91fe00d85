/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_record.h"

#include "core/wire.h"
#include "store/store_manifest.h"

enum {
    RECORD_REGION_LEN = 16 + STORE_DIGEST_LEN,
};

static const uint8_t record_magic[4] = {'C', 'S', 'N', 'P'};

/* ---- encoding ---- */

static int record_check(const struct store_record *rec, struct err *err)
{
    if (rec->nr_regions > STORE_REGIONS_MAX)
        return err_set(err, -E2BIG, "record.regions: %u, at most %u", rec->nr_regions,
                       STORE_REGIONS_MAX);
    if (strlen(rec->config) > STORE_JSON_MAX)
        return err_set(err, -E2BIG, "record.config: over %u bytes", STORE_JSON_MAX);
    if (strlen(rec->disks) > STORE_JSON_MAX)
        return err_set(err, -E2BIG, "record.disks: over %u bytes", STORE_JSON_MAX);
    if (rec->state_len > STORE_STATE_MAX || rec->nr_chunks > STORE_CHUNKS_MAX)
        return err_set(err, -E2BIG, "record.state: over %u bytes", STORE_STATE_MAX);
    if (rec->vm[0] && !store_name_is_good(rec->vm))
        return err_set(err, -EINVAL, "record.vm: not a name");
    return 0;
}

static void wr_text(struct wr *w, const char *s)
{
    size_t len = strlen(s);

    wr_le32(w, (uint32_t)len);
    wr_bytes(w, s, len);
}

static void wr_regions(struct wr *w, const struct store_record *rec)
{
    wr_le32(w, rec->nr_regions);
    for (unsigned i = 0; i < rec->nr_regions; i++) {
        wr_le64(w, rec->regions[i].gpa);
        wr_le64(w, rec->regions[i].pages);
        wr_bytes(w, rec->regions[i].root.b, STORE_DIGEST_LEN);
    }
}

static void wr_counts(struct wr *w, const struct store_counts *c)
{
    wr_le64(w, c->pages_zero);
    wr_le64(w, c->pages_same);
    wr_le64(w, c->pages_known);
    wr_le64(w, c->pages_new);
    wr_le64(w, c->bytes_stored);
}

int store_record_encode(const struct store_record *rec, uint8_t **ret_bytes, size_t *ret_len,
                        struct err *err)
{
    auto_free uint8_t *bytes = malloc(STORE_RECORD_LEN_MAX);
    struct wr w = {.p = bytes, .left = STORE_RECORD_LEN_MAX};
    const uint8_t head[4] = {STORE_RECORD_VERSION, STORE_ALG_SHA256};
    int rc = record_check(rec, err);

    if (rc < 0)
        return rc;
    if (!bytes)
        return store_no_memory(err);
    wr_bytes(&w, record_magic, sizeof(record_magic));
    wr_bytes(&w, head, sizeof(head));
    wr_bytes(&w, rec->uuid, sizeof(rec->uuid));
    wr_le64(&w, rec->time_ns);
    wr_text(&w, rec->vm);
    wr_text(&w, rec->parent);
    wr_text(&w, rec->config);
    wr_text(&w, rec->disks);
    wr_regions(&w, rec);
    wr_le64(&w, rec->state_len);
    wr_bytes(&w, rec->state.b, STORE_DIGEST_LEN);
    for (unsigned i = 0; i < rec->nr_chunks; i++)
        wr_bytes(&w, rec->chunks[i].b, STORE_DIGEST_LEN);
    wr_counts(&w, &rec->counts);
    if (w.bad)
        return err_set(err, -E2BIG, "record: over %u bytes", STORE_RECORD_LEN_MAX);
    *ret_len = STORE_RECORD_LEN_MAX - w.left;
    *ret_bytes = steal_ptr(bytes);
    return 0;
}

/* ---- decoding ---- */

static void rd_digest(struct rd *r, struct store_digest *ret)
{
    const uint8_t *b = rd_bytes(r, STORE_DIGEST_LEN);

    if (!b)
        return;
    ret->alg = STORE_ALG_SHA256;
    memcpy(ret->b, b, STORE_DIGEST_LEN);
}

/* A text of at most @max bytes without zeroes; NULL if it is bad. */
static char *rd_text(struct rd *r, size_t max)
{
    size_t len = rd_le32(r);
    const char *p = len <= max ? rd_bytes(r, len) : NULL;
    char *s;

    if (!p || memchr(p, 0, len)) {
        r->bad = true;
        return NULL;
    }
    s = strndup(p, len);
    r->bad = r->bad || !s;
    return s;
}

static void rd_text_into(struct rd *r, char *dst, size_t max)
{
    auto_free char *s = rd_text(r, max);

    if (s)
        memcpy(dst, s, strlen(s) + 1);
}

static int rd_regions(struct rd *r, struct store_record *rec, struct err *err)
{
    uint64_t floor = 0;

    rec->nr_regions = rd_le32(r);
    if (rec->nr_regions > STORE_REGIONS_MAX)
        return err_set(err, -E2BIG, "record.regions: %u", rec->nr_regions);
    for (unsigned i = 0; i < rec->nr_regions; i++) {
        struct store_region *g = &rec->regions[i];

        g->gpa = rd_le64(r);
        g->pages = rd_le64(r);
        rd_digest(r, &g->root);
        if (r->bad)
            break;
        if (g->pages == 0 || g->pages > STORE_REGION_PAGES_MAX || g->gpa % PAGE_SIZE_4K)
            return err_set(err, -EBADMSG, "record.regions.%u: impossible size", i);
        if (g->gpa < floor || g->pages * PAGE_SIZE_4K > UINT64_MAX - g->gpa)
            return err_set(err, -EBADMSG, "record.regions.%u: impossible address", i);
        floor = g->gpa + g->pages * PAGE_SIZE_4K;
    }
    return 0;
}

static int rd_state(struct rd *r, struct store_record *rec, struct err *err)
{
    rec->state_len = rd_le64(r);
    if (rec->state_len > STORE_STATE_MAX)
        return err_set(err, -E2BIG, "record.state: over %u bytes", STORE_STATE_MAX);
    rd_digest(r, &rec->state);
    rec->nr_chunks = (unsigned)((rec->state_len + STORE_CHUNK_LEN - 1) / STORE_CHUNK_LEN);
    if (rec->nr_chunks > r->left / STORE_DIGEST_LEN)
        return err_set(err, -EBADMSG, "record.state: cut off");
    rec->chunks = calloc(rec->nr_chunks + 1, sizeof(rec->chunks[0]));
    if (!rec->chunks)
        return store_no_memory(err);
    for (unsigned i = 0; i < rec->nr_chunks; i++)
        rd_digest(r, &rec->chunks[i]);
    return 0;
}

static void rd_counts(struct rd *r, struct store_counts *c)
{
    c->pages_zero = rd_le64(r);
    c->pages_same = rd_le64(r);
    c->pages_known = rd_le64(r);
    c->pages_new = rd_le64(r);
    c->bytes_stored = rd_le64(r);
}

static int rd_head(struct rd *r, struct store_record *rec, struct err *err)
{
    const uint8_t *magic = rd_bytes(r, sizeof(record_magic));
    const uint8_t *head = rd_bytes(r, 4);
    const uint8_t *uuid = rd_bytes(r, sizeof(rec->uuid));

    if (!magic || !head || !uuid || memcmp(magic, record_magic, sizeof(record_magic)) != 0)
        return err_set(err, -EBADMSG, "record.magic: not a record");
    if (head[0] != STORE_RECORD_VERSION)
        return err_set(err, -ENOTSUP, "record.version: %u, this program knows %u", head[0],
                       STORE_RECORD_VERSION);
    if (head[1] != STORE_ALG_SHA256)
        return err_set(err, -ENOTSUP, "record.alg: %u", head[1]);
    if (head[2] || head[3])
        return err_set(err, -EBADMSG, "record.zero: not zero");
    memcpy(rec->uuid, uuid, sizeof(rec->uuid));
    rec->time_ns = rd_le64(r);
    return 0;
}

static int rd_record(struct rd *r, struct store_record *rec, struct err *err)
{
    int rc = rd_head(r, rec, err);

    if (rc < 0)
        return rc;
    rd_text_into(r, rec->vm, STORE_NAME_MAX);
    rd_text_into(r, rec->parent, STORE_DIGEST_HEX);
    rec->config = rd_text(r, STORE_JSON_MAX);
    rec->disks = rd_text(r, STORE_JSON_MAX);
    if (r->bad)
        return err_set(err, -EBADMSG, "record: a text is bad or cut off");
    if (rec->vm[0] && !store_name_is_good(rec->vm))
        return err_set(err, -EBADMSG, "record.vm: not a name");
    if (rec->parent[strspn(rec->parent, "0123456789abcdef")])
        return err_set(err, -EBADMSG, "record.parent: not an id");
    rc = rd_regions(r, rec, err);
    if (rc == 0)
        rc = rd_state(r, rec, err);
    if (rc < 0)
        return rc;
    rd_counts(r, &rec->counts);
    if (rd_end(r) < 0)
        return err_set(err, -EBADMSG, "record: wrong length");
    return 0;
}

/* The digest that names all RAM: of the regions as they stand in the record. */
static void record_name_ram(struct store_record *rec)
{
    uint8_t bytes[4 + STORE_REGIONS_MAX * RECORD_REGION_LEN];
    struct wr w = {.p = bytes, .left = sizeof(bytes)};

    wr_regions(&w, rec);
    store_hash(bytes, sizeof(bytes) - w.left, &rec->ram);
}

int store_record_decode(const uint8_t *bytes, size_t len, struct store_record **ret_rec,
                        struct err *err)
{
    struct rd r = {.p = bytes, .left = len};
    struct store_record *rec = calloc(1, sizeof(*rec));
    int rc;

    if (!rec)
        return store_no_memory(err);
    rc = rd_record(&r, rec, err);
    if (rc < 0) {
        store_record_free(rec);
        return rc;
    }
    record_name_ram(rec);
    *ret_rec = rec;
    return 0;
}

void store_record_free(struct store_record *rec)
{
    if (!rec)
        return;
    free(rec->config);
    free(rec->disks);
    free(rec->chunks);
    free(rec);
}
