/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a row of messages.  Refused: explained.  Accepted: within every
 * limit, and what is encoded again decodes to the same.
 */
#include <errno.h>
#include <string.h>

#include "migration/mig_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct mig_layout layout = {
    .nr = 2, .regions = {{0, MIB(1), "ram"}, {GIB(4), KIB(64), "high"}}
};

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void check(int rc, const struct err *err)
{
    must(rc <= 0);
    must(rc == 0 || (err->code == rc && err->msg[0]));
    must(rc == 0 || rc == -EBADMSG || rc == -E2BIG || rc == -ENOTSUP);
}

static void try_hello(const uint8_t *body, size_t len)
{
    struct mig_hello h, again;
    struct err err = {0};
    uint8_t buf[MIG_SMALL_MAX];
    struct wr w = {buf, sizeof(buf), false};
    int rc = mig_hello_get(body, len, &h, &err);

    check(rc, &err);
    if (rc < 0)
        return;
    must(h.nr_caps <= MIG_CAPS_MAX && h.lanes >= 1 && h.lanes <= MIG_LANES_MAX);
    mig_hello_put(&h, &w);
    must(!w.bad && sizeof(buf) - w.left == len);
    must(mig_hello_get(buf, len, &again, NULL) == 0 && again.nr_caps == h.nr_caps);
}

static void try_config(const uint8_t *body, size_t len)
{
    struct mig_config c, again;
    struct err err = {0};
    uint8_t buf[MIG_SMALL_MAX];
    struct wr w = {buf, sizeof(buf), false};
    int rc = mig_config_get(body, len, &c, &err);

    check(rc, &err);
    if (rc < 0)
        return;
    must(c.layout.nr >= 1 && c.layout.nr <= GMEM_REGIONS_MAX && c.len <= len);
    must(c.data + c.len == body + len);
    mig_layout_put(&c.layout, 0, &w);
    must(!w.bad && mig_config_get(buf, sizeof(buf) - w.left, &again, NULL) == 0);
    must(mig_layout_compare(&c.layout, &again.layout, NULL) == 0);
}

static void try_refusal(const uint8_t *body, size_t len)
{
    static struct mig_refusal why;
    struct err err = {0};
    int rc = mig_refusal_get(body, len, &why, &err);

    check(rc, &err);
    if (rc < 0)
        return;
    must(why.nr <= MIG_REASONS_MAX);
    for (unsigned i = 0; i < why.nr; i++)
        must(memchr(why.reasons[i], 0, sizeof(why.reasons[i])) != NULL);
}

static void try_pages(const uint8_t *body, size_t len)
{
    static struct mig_run_wire runs[MIG_RUNS_MAX];
    static struct mig_pages pages;
    struct mig_pages_hdr hdr;
    struct err err = {0};
    uint64_t data = 0;
    size_t runs_len;
    int rc;

    if (len < sizeof(hdr))
        return;
    memcpy(&hdr, body, sizeof(hdr));
    rc = mig_pages_peek(&hdr, (uint32_t)len, &runs_len, &err);
    check(rc, &err);
    if (rc < 0)
        return;
    must(runs_len <= sizeof(runs) && sizeof(hdr) + runs_len <= len);
    memcpy(runs, body + sizeof(hdr), runs_len);
    rc = mig_pages_get(&hdr, runs, &layout, &pages, &err);
    check(rc, &err);
    if (rc < 0)
        return;
    for (unsigned i = 0; i < pages.nr_runs; i++) {
        const struct mig_run *r = &pages.runs[i];

        must(r->region < layout.nr && r->nr > 0);
        must(r->first + r->nr <= layout.regions[r->region].len >> PAGE_SHIFT_4K);
        data += r->kind == MIG_RUN_DATA ? (uint64_t)r->nr << PAGE_SHIFT_4K : 0;
    }
    must(data == pages.data_len && pages.payload_len == len - sizeof(hdr) - runs_len);
    must(pages.codec == MIG_CODEC_ZSTD ? pages.payload_len < data : pages.payload_len == data);
}

static void try_small(unsigned type, const uint8_t *body, size_t len)
{
    struct mig_ready_wire ready;
    struct mig_lane_wire lane;
    struct mig_round_end end;
    struct mig_times times;
    struct err err = {0};
    uint32_t round;
    bool last;

    if (type == MIG_MSG_READY)
        check(mig_ready_get(body, len, &ready, &err), &err);
    else if (type == MIG_MSG_LANE)
        check(mig_lane_get(body, len, &lane, &err), &err);
    else if (type == MIG_MSG_ROUND_END)
        check(mig_round_end_get(body, len, &end, &err), &err);
    else if (type == MIG_MSG_ROUND_DONE)
        check(mig_round_done_get(body, len, &round, &err), &err);
    else if (type == MIG_MSG_STATE)
        check(mig_state_get(body, len, &last, &err), &err);
    else if (type == MIG_MSG_RUNNING)
        check(mig_times_get(body, len, &times, &err), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct rd r = {data, len, false};

    while (r.left >= sizeof(struct mig_msg_hdr)) {
        struct mig_msg_hdr hdr;
        struct err err = {0};
        const uint8_t *body;
        unsigned type;
        size_t n;
        int rc;

        memcpy(&hdr, rd_bytes(&r, sizeof(hdr)), sizeof(hdr));
        type = le16_get(hdr.type);
        n = le32_get(hdr.len);
        rc = mig_hdr_check(type, (uint32_t)n, &err);
        check(rc, &err);
        /* A length that lies leaves what is there for the decoders to refuse. */
        n = n < r.left ? n : r.left;
        body = rd_bytes(&r, n);
        if (type == MIG_MSG_HELLO)
            try_hello(body, n);
        else if (type == MIG_MSG_CONFIG)
            try_config(body, n);
        else if (type == MIG_MSG_REFUSE)
            try_refusal(body, n);
        else if (type == MIG_MSG_PAGES)
            try_pages(body, n);
        else
            try_small(type, body, n);
    }
    return 0;
}
