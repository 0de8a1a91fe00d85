/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_wire.h"

#include <stdarg.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const uint8_t magic[8] = {'C', 'H', 'R', 'Y', 'S', 'M', 'I', 'G'};

/* --- Types and their lengths --------------------------------------------- */

static const struct {
    const char *name;
    uint32_t min; /* bytes of the body */
    uint32_t max;
} msgs[MIG_NR_MSGS] = {
  /* clang-format off */
    [MIG_MSG_HELLO]      = {"HELLO", sizeof(struct mig_hello_hdr), MIG_SMALL_MAX},
    [MIG_MSG_CONFIG]     = {"CONFIG", sizeof(struct mig_config_hdr),
                            sizeof(struct mig_config_hdr) + MIG_CONFIG_MAX +
                            GMEM_REGIONS_MAX * sizeof(struct mig_region_wire)},
    [MIG_MSG_READY]      = {"READY", sizeof(struct mig_ready_wire), sizeof(struct mig_ready_wire)},
    [MIG_MSG_REFUSE]     = {"REFUSE", sizeof(le16), MIG_SMALL_MAX},
    [MIG_MSG_LANE]       = {"LANE", sizeof(struct mig_lane_wire), sizeof(struct mig_lane_wire)},
    [MIG_MSG_PAGES]      = {"PAGES", sizeof(struct mig_pages_hdr),
                            sizeof(struct mig_pages_hdr) + MIG_PAYLOAD_MAX +
                            MIG_RUNS_MAX * sizeof(struct mig_run_wire)},
    [MIG_MSG_ROUND_END]  = {"ROUND_END", sizeof(struct mig_round_end_wire),
                            sizeof(struct mig_round_end_wire)},
    [MIG_MSG_ROUND_DONE] = {"ROUND_DONE", sizeof(struct mig_round_done_wire),
                            sizeof(struct mig_round_done_wire)},
    [MIG_MSG_STOP]       = {"STOP", 0, 0},
    [MIG_MSG_STATE]      = {"STATE", sizeof(struct mig_state_hdr),
                            sizeof(struct mig_state_hdr) + MIG_STATE_CHUNK_MAX},
    [MIG_MSG_LOADED]     = {"LOADED", 0, 0},
    [MIG_MSG_COMMIT]     = {"COMMIT", 0, 0},
    [MIG_MSG_RUNNING]    = {"RUNNING", sizeof(struct mig_times_wire),
                            sizeof(struct mig_times_wire)},
    [MIG_MSG_ABORT]      = {"ABORT", 0, MIG_REASON_MAX},
    [MIG_MSG_KEEPALIVE]  = {"KEEPALIVE", 0, 0},
    [MIG_MSG_FACTS]      = {"FACTS", 2, MIG_SMALL_MAX},
    [MIG_MSG_MEMORY]     = {"MEMORY", sizeof(struct mig_memory_wire),
                            GMEM_REGIONS_MAX * sizeof(struct mig_memory_wire)},
  /* clang-format on */
};

bool mig_msg_is_known(unsigned type)
{
    return type < MIG_NR_MSGS && msgs[type].name;
}

const char *mig_msg_name(unsigned type)
{
    return mig_msg_is_known(type) ? msgs[type].name : "?";
}

struct mig_msg_hdr mig_hdr_make(enum mig_msg type, size_t len)
{
    return (struct mig_msg_hdr){.type = le16_make((uint16_t)type), .len = le32_make((uint32_t)len)};
}

bool mig_hdr_is_skipped(const struct mig_msg_hdr *hdr)
{
    unsigned type = le16_get(hdr->type);

    return type == MIG_MSG_KEEPALIVE ||
           (!mig_msg_is_known(type) && le16_get(hdr->flags) & MIG_MSG_OPTIONAL);
}

int mig_hdr_check(unsigned type, uint32_t len, struct err *err)
{
    bool known = mig_msg_is_known(type);
    uint32_t max = known ? msgs[type].max : (uint32_t)MIG_SMALL_MAX;

    if (len > max)
        return err_set(err, -E2BIG, "%s (message type %u): %u bytes, at most %u are allowed",
                       mig_msg_name(type), type, len, max);
    if (known && len < msgs[type].min)
        return err_set(err, -EBADMSG, "%s: %u bytes, at least %u are needed", msgs[type].name, len,
                       msgs[type].min);
    return 0;
}

static int bad(struct err *err, const char *what)
{
    return err_set(err, -EBADMSG, "%s", what);
}

/* --- HELLO --------------------------------------------------------------- */

void mig_hello_put(const struct mig_hello *h, struct wr *w)
{
    wr_bytes(w, magic, sizeof(magic));
    wr_le16(w, h->version_min);
    wr_le16(w, h->version_max);
    wr_le32(w, h->page_size);
    wr_le32(w, h->lanes);
    wr_le16(w, (uint16_t)h->nr_caps);
    wr_le16(w, 0);
    for (unsigned i = 0; i < h->nr_caps; i++) {
        size_t len = strlen(h->caps[i].name);

        wr_u8(w, h->caps[i].required ? MIG_CAP_REQUIRED : 0);
        wr_u8(w, (uint8_t)len);
        wr_bytes(w, h->caps[i].name, len);
    }
}

static const struct {
    enum mig_feature feature;
    const char *name;
} features_known[] = {
    {MIG_FEATURE_ZSTD,   "zstd"      },
    {MIG_FEATURE_MEMORY, "memory-fds"},
};

void mig_features_name(unsigned features, struct mig_hello *h)
{
    for (unsigned i = 0; i < ARRAY_LEN(features_known) && h->nr_caps < MIG_CAPS_MAX; i++) {
        if (!(features & features_known[i].feature))
            continue;
        (void)snprintf(h->caps[h->nr_caps++].name, sizeof(h->caps[0].name), "%s",
                       features_known[i].name);
    }
}

unsigned mig_features_of(const struct mig_hello *h, const char **ret_unknown)
{
    unsigned features = 0;

    *ret_unknown = NULL;
    for (unsigned i = 0; i < h->nr_caps; i++) {
        unsigned bit = 0;

        for (unsigned k = 0; k < ARRAY_LEN(features_known); k++)
            if (strcmp(h->caps[i].name, features_known[k].name) == 0)
                bit = features_known[k].feature;
        if (!bit && h->caps[i].required)
            *ret_unknown = h->caps[i].name;
        features |= bit;
    }
    return features;
}

/* A name is of printable characters, so that it can be shown. */
static bool name_is_fine(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] > '~')
            return false;
    return len > 0;
}

static int cap_get(struct rd *r, struct mig_cap *cap, struct err *err)
{
    uint8_t flags = rd_u8(r);
    uint8_t len = rd_u8(r);
    const char *name = rd_bytes(r, len);

    if (!name)
        return bad(err, "HELLO: capabilities cut short");
    if (len > MIG_CAP_NAME_MAX || !name_is_fine(name, len))
        return bad(err, "HELLO: capability with a bad name");
    cap->required = flags & MIG_CAP_REQUIRED;
    memcpy(cap->name, name, len);
    return 0;
}

int mig_hello_get(const void *body, size_t len, struct mig_hello *ret, struct err *err)
{
    struct rd r = {body, len, false};
    const uint8_t *m = rd_bytes(&r, sizeof(magic));
    struct mig_hello h = {0};
    int rc;

    if (!m || memcmp(m, magic, sizeof(magic)) != 0)
        return bad(err, "HELLO: the peer does not speak this protocol");
    h.version_min = rd_le16(&r);
    h.version_max = rd_le16(&r);
    h.page_size = rd_le32(&r);
    h.lanes = rd_le32(&r);
    h.nr_caps = rd_le16(&r);
    (void)rd_le16(&r);
    if (r.bad || h.version_min > h.version_max)
        return bad(err, "HELLO: bad range of versions");
    if (h.lanes == 0 || h.lanes > MIG_LANES_MAX)
        return err_set(err, -E2BIG, "HELLO.lanes: %u, 1 to %d are allowed", h.lanes, MIG_LANES_MAX);
    if (h.nr_caps > MIG_CAPS_MAX)
        return err_set(err, -E2BIG, "HELLO.nr_caps: %u, at most %d are allowed", h.nr_caps,
                       MIG_CAPS_MAX);
    for (unsigned i = 0; i < h.nr_caps; i++) {
        rc = cap_get(&r, &h.caps[i], err);
        if (rc < 0)
            return rc;
    }
    if (rd_end(&r) < 0)
        return bad(err, "HELLO: bytes after the last capability");
    *ret = h;
    return 0;
}

/* --- CONFIG -------------------------------------------------------------- */

int mig_layout_of(const struct gmem *gm, struct mig_layout *ret_layout, struct err *err)
{
    struct mig_layout l = {.nr = gmem_nr_regions(gm)};

    for (unsigned i = 0; i < l.nr; i++) {
        const struct gmem_region *r = gmem_region(gm, i);

        if (strlen(r->id) >= sizeof(l.regions[i].id))
            return err_set(err, -E2BIG, "memory zone %s: name too long", r->id);
        l.regions[i].gpa = r->gpa;
        l.regions[i].len = r->len;
        memcpy(l.regions[i].id, r->id, strlen(r->id));
    }
    *ret_layout = l;
    return 0;
}

int mig_layout_compare(const struct mig_layout *there, const struct mig_layout *here,
                       struct mig_refusal *why)
{
    int rc = 0;

    if (there->nr != here->nr)
        return mig_refuse(why, "memory: %u regions at the source, %u here", there->nr, here->nr);
    for (unsigned i = 0; i < there->nr; i++) {
        if (there->regions[i].gpa != here->regions[i].gpa ||
            there->regions[i].len != here->regions[i].len) {
            rc =
                mig_refuse(why, "memory region %u: %#llx + %#llx at the source, %#llx + %#llx here",
                           i, (unsigned long long)there->regions[i].gpa,
                           (unsigned long long)there->regions[i].len,
                           (unsigned long long)here->regions[i].gpa,
                           (unsigned long long)here->regions[i].len);
        }
        if (strcmp(there->regions[i].id, here->regions[i].id) != 0)
            rc = mig_refuse(why, "memory region %u: zone '%s' at the source, '%s' here", i,
                            there->regions[i].id, here->regions[i].id);
    }
    return rc;
}

void mig_layout_put(const struct mig_layout *l, size_t config_len, struct wr *w)
{
    wr_le32(w, l->nr);
    wr_le32(w, (uint32_t)config_len);
    for (unsigned i = 0; i < l->nr; i++) {
        wr_le64(w, l->regions[i].gpa);
        wr_le64(w, l->regions[i].len);
        wr_bytes(w, l->regions[i].id, sizeof(l->regions[i].id));
    }
}

static int region_get(struct rd *r, struct mig_layout *l, unsigned i, struct err *err)
{
    const uint64_t mask = PAGE_SIZE_4K - 1;
    uint64_t gpa = rd_le64(r), len = rd_le64(r);
    const char *id = rd_bytes(r, sizeof(l->regions[i].id));

    if (!id)
        return bad(err, "CONFIG: regions cut short");
    if (len == 0 || (gpa | len) & mask || len > UINT64_MAX - gpa)
        return err_set(err, -EBADMSG, "CONFIG: region %u: bad range", i);
    if (i && gpa < l->regions[i - 1].gpa + l->regions[i - 1].len)
        return err_set(err, -EBADMSG, "CONFIG: region %u: not in order of address", i);
    if (!name_is_fine(id, strnlen(id, sizeof(l->regions[i].id))) ||
        id[sizeof(l->regions[i].id) - 1] != 0)
        return err_set(err, -EBADMSG, "CONFIG: region %u: bad name", i);
    l->regions[i].gpa = gpa;
    l->regions[i].len = len;
    memcpy(l->regions[i].id, id, strlen(id));
    return 0;
}

int mig_config_get(const void *body, size_t len, struct mig_config *ret, struct err *err)
{
    struct rd r = {body, len, false};
    struct mig_config c = {.layout.nr = rd_le32(&r)};
    int rc;

    c.len = rd_le32(&r);
    if (c.layout.nr == 0 || c.layout.nr > GMEM_REGIONS_MAX)
        return err_set(err, -E2BIG, "CONFIG.nr_regions: %u, 1 to %d are allowed", c.layout.nr,
                       GMEM_REGIONS_MAX);
    if (c.len > MIG_CONFIG_MAX)
        return err_set(err, -E2BIG, "CONFIG.config_len: %zu, at most %d are allowed", c.len,
                       MIG_CONFIG_MAX);
    for (unsigned i = 0; i < c.layout.nr; i++) {
        rc = region_get(&r, &c.layout, i, err);
        if (rc < 0)
            return rc;
    }
    c.data = rd_bytes(&r, c.len);
    if (rd_end(&r) < 0)
        return bad(err, "CONFIG.config_len: not what the message holds");
    *ret = c;
    return 0;
}

/* --- READY, REFUSE, LANE ------------------------------------------------- */

int mig_ready_get(const void *body, size_t len, struct mig_ready_wire *ret, struct err *err)
{
    struct mig_ready_wire w;
    uint32_t lanes;

    if (len != sizeof(w))
        return bad(err, "READY: bad length");
    memcpy(&w, body, sizeof(w));
    lanes = le32_get(w.lanes);
    if (lanes == 0 || lanes > MIG_LANES_MAX)
        return err_set(err, -E2BIG, "READY.lanes: %u, 1 to %d are allowed", lanes, MIG_LANES_MAX);
    *ret = w;
    return 0;
}

int mig_refuse(struct mig_refusal *why, const char *fmt, ...)
{
    va_list ap;

    if (!why || why->nr == MIG_REASONS_MAX)
        return -ENOTSUP;
    va_start(ap, fmt);
    (void)vsnprintf(why->reasons[why->nr], sizeof(why->reasons[0]), fmt, ap);
    va_end(ap);
    why->nr++;
    return -ENOTSUP;
}

void mig_refusal_put(const struct mig_refusal *why, struct wr *w)
{
    wr_le16(w, (uint16_t)why->nr);
    for (unsigned i = 0; i < why->nr; i++) {
        size_t len = strlen(why->reasons[i]);

        wr_le16(w, (uint16_t)len);
        wr_bytes(w, why->reasons[i], len);
    }
}

int mig_refusal_get(const void *body, size_t len, struct mig_refusal *ret, struct err *err)
{
    struct rd r = {body, len, false};
    unsigned nr = rd_le16(&r);

    if (nr > MIG_REASONS_MAX)
        return err_set(err, -E2BIG, "REFUSE: %u reasons, at most %d are allowed", nr,
                       MIG_REASONS_MAX);
    memset(ret, 0, sizeof(*ret));
    for (unsigned i = 0; i < nr; i++) {
        size_t n = rd_le16(&r);
        const char *text = rd_bytes(&r, n);

        if (!text || n > MIG_REASON_MAX)
            return bad(err, "REFUSE: bad reason");
        for (size_t k = 0; k < n; k++)
            ret->reasons[i][k] = (char)(text[k] >= ' ' && text[k] <= '~' ? text[k] : '?');
        ret->nr++;
    }
    return rd_end(&r) < 0 ? bad(err, "REFUSE: bytes after the last reason") : 0;
}

int mig_lane_get(const void *body, size_t len, struct mig_lane_wire *ret, struct err *err)
{
    if (len != sizeof(*ret))
        return bad(err, "LANE: bad length");
    memcpy(ret, body, sizeof(*ret));
    return 0;
}

/* --- PAGES --------------------------------------------------------------- */

void mig_run_put(const struct mig_run *run, struct wr *w)
{
    wr_le64(w, run->first);
    wr_le32(w, run->region);
    wr_le32(w, run->nr);
    wr_le32(w, run->kind);
    wr_le32(w, 0);
}

int mig_pages_peek(const struct mig_pages_hdr *hdr, uint32_t len, size_t *ret_runs_len,
                   struct err *err)
{
    uint32_t nr = le32_get(hdr->nr_runs), payload = le32_get(hdr->payload_len);

    if (nr == 0 || nr > MIG_RUNS_MAX)
        return err_set(err, -E2BIG, "PAGES.nr_runs: %u, 1 to %d are allowed", nr, MIG_RUNS_MAX);
    if (payload > MIG_PAYLOAD_MAX)
        return err_set(err, -E2BIG, "PAGES.payload_len: %u, at most %d are allowed", payload,
                       MIG_PAYLOAD_MAX);
    if (le32_get(hdr->codec) != MIG_CODEC_RAW && le32_get(hdr->codec) != MIG_CODEC_ZSTD)
        return err_set(err, -ENOTSUP, "PAGES.codec: %u is not known here", le32_get(hdr->codec));
    if (len != sizeof(*hdr) + nr * sizeof(struct mig_run_wire) + payload)
        return bad(err, "PAGES: the length is not that of its parts");
    *ret_runs_len = nr * sizeof(struct mig_run_wire);
    return 0;
}

static int run_get(const struct mig_run_wire *w, const struct mig_layout *l, struct mig_run *ret,
                   struct err *err)
{
    struct mig_run run = {le64_get(w->first), le32_get(w->region), le32_get(w->nr), MIG_RUN_ZERO};
    uint32_t kind = le32_get(w->kind);
    uint64_t pages;

    if (run.region >= l->nr)
        return err_set(err, -EBADMSG, "PAGES: region %u of %u", run.region, l->nr);
    pages = l->regions[run.region].len >> PAGE_SHIFT_4K;
    if (run.nr == 0 || run.nr > pages || run.first > pages - run.nr)
        return err_set(err, -EBADMSG, "PAGES: pages %llu + %u outside region %u",
                       (unsigned long long)run.first, run.nr, run.region);
    if (kind != MIG_RUN_ZERO && kind != MIG_RUN_DATA)
        return err_set(err, -EBADMSG, "PAGES: run of unknown kind %u", kind);
    run.kind = kind == MIG_RUN_DATA ? MIG_RUN_DATA : MIG_RUN_ZERO;
    *ret = run;
    return 0;
}

int mig_pages_get(const struct mig_pages_hdr *hdr, const struct mig_run_wire *runs,
                  const struct mig_layout *layout, struct mig_pages *ret, struct err *err)
{
    uint64_t bytes = 0;
    int rc;

    ret->codec = le32_get(hdr->codec) == MIG_CODEC_ZSTD ? MIG_CODEC_ZSTD : MIG_CODEC_RAW;
    ret->payload_len = le32_get(hdr->payload_len);
    ret->nr_runs = le32_get(hdr->nr_runs);
    for (unsigned i = 0; i < ret->nr_runs; i++) {
        rc = run_get(&runs[i], layout, &ret->runs[i], err);
        if (rc < 0)
            return rc;
        if (ret->runs[i].kind == MIG_RUN_DATA)
            bytes += (uint64_t)ret->runs[i].nr << PAGE_SHIFT_4K;
    }
    if (bytes > MIG_PAYLOAD_MAX)
        return err_set(err, -E2BIG, "PAGES: more than %d bytes of pages", MIG_PAYLOAD_MAX);
    ret->data_len = (uint32_t)bytes;
    /* What is not smaller is not compressed, so that nothing is there twice. */
    if (ret->codec == MIG_CODEC_RAW ? bytes != ret->payload_len
                                    : ret->payload_len == 0 || ret->payload_len >= bytes)
        return bad(err, "PAGES.payload_len: not that of its runs");
    return 0;
}

/* --- Rounds, state, times ------------------------------------------------ */

void mig_round_end_put(const struct mig_round_end *e, struct wr *w)
{
    wr_le32(w, e->round);
    wr_le32(w, e->last ? MIG_ROUND_LAST : 0);
    wr_le64(w, e->data_pages);
    wr_le64(w, e->zero_pages);
}

int mig_round_end_get(const void *body, size_t len, struct mig_round_end *ret, struct err *err)
{
    struct rd r = {body, len, false};
    struct mig_round_end e = {.round = rd_le32(&r)};
    uint32_t flags = rd_le32(&r);

    e.data_pages = rd_le64(&r);
    e.zero_pages = rd_le64(&r);
    if (rd_end(&r) < 0)
        return bad(err, "ROUND_END: bad length");
    e.last = flags & MIG_ROUND_LAST;
    *ret = e;
    return 0;
}

int mig_round_done_get(const void *body, size_t len, uint32_t *ret_round, struct err *err)
{
    struct rd r = {body, len, false};
    uint32_t round = rd_le32(&r);

    (void)rd_le32(&r);
    if (rd_end(&r) < 0)
        return bad(err, "ROUND_DONE: bad length");
    *ret_round = round;
    return 0;
}

int mig_state_get(const void *body, size_t len, bool *ret_last, struct err *err)
{
    struct rd r = {body, len, false};
    uint32_t flags = rd_le32(&r);

    (void)rd_le32(&r);
    if (r.bad)
        return bad(err, "STATE: bad length");
    *ret_last = flags & MIG_STATE_LAST;
    return 0;
}

void mig_times_put(const struct mig_times *t, struct wr *w)
{
    wr_le64(w, t->pages_ns);
    wr_le64(w, t->load_ns);
    wr_le64(w, t->acquire_ns);
    wr_le64(w, t->start_ns);
}

int mig_times_get(const void *body, size_t len, struct mig_times *ret, struct err *err)
{
    struct rd r = {body, len, false};
    struct mig_times t = {.pages_ns = rd_le64(&r)};

    t.load_ns = rd_le64(&r);
    t.acquire_ns = rd_le64(&r);
    t.start_ns = rd_le64(&r);
    if (rd_end(&r) < 0)
        return bad(err, "RUNNING: bad length");
    *ret = t;
    return 0;
}
