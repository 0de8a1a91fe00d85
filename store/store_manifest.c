/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_manifest.h"

#include "store/store_segment.h"

static const uint8_t node_magic[4] = {'C', 'N', 'O', 'D'};

uint64_t store_manifest_nr_entries(uint64_t pages, unsigned level)
{
    for (; level; level--)
        pages = (pages + STORE_NODE_ENTRIES - 1) >> STORE_NODE_SHIFT;
    return pages;
}

unsigned store_manifest_root_level(uint64_t pages)
{
    unsigned level = 0;

    while (store_manifest_nr_entries(pages, level) > STORE_NODE_ENTRIES)
        level++;
    return level;
}

unsigned store_manifest_node_nr(uint64_t pages, unsigned level, uint64_t i)
{
    uint64_t left = store_manifest_nr_entries(pages, level) - (i << STORE_NODE_SHIFT);

    return left < STORE_NODE_ENTRIES ? (unsigned)left : STORE_NODE_ENTRIES;
}

bool store_node_is_zero(const struct store_node *n)
{
    for (unsigned i = 0; i < n->nr; i++)
        if (!store_digest_is_zero(&n->digest[i]))
            return false;
    return true;
}

size_t store_node_encode(const struct store_node *n, uint8_t *out)
{
    struct store_node_wire w = {
        .version = STORE_NODE_VERSION,
        .level = (uint8_t)n->level,
        .alg = STORE_ALG_SHA256,
        .nr = le16_make((uint16_t)n->nr),
    };
    size_t len = sizeof(w);

    memcpy(w.magic, node_magic, sizeof(w.magic));
    for (unsigned i = 0; i < n->nr; i++) {
        if (store_digest_is_zero(&n->digest[i]))
            continue;
        w.present[i / 8] = (uint8_t)(w.present[i / 8] | 1U << i % 8);
        memcpy(out + len, n->digest[i].b, STORE_DIGEST_LEN);
        len += STORE_DIGEST_LEN;
    }
    memcpy(out, &w, sizeof(w));
    return len;
}

static int node_check_header(const struct store_node_wire *w, unsigned level, unsigned nr,
                             struct err *err)
{
    uint8_t any = w->zero;

    if (memcmp(w->magic, node_magic, sizeof(w->magic)) != 0)
        return err_set(err, -EBADMSG, "node.magic: not a node");
    if (w->version != STORE_NODE_VERSION)
        return err_set(err, -ENOTSUP, "node.version: %u, this program knows %u", w->version,
                       STORE_NODE_VERSION);
    if (w->alg != STORE_ALG_SHA256)
        return err_set(err, -ENOTSUP, "node.alg: %u", w->alg);
    if (w->level != level)
        return err_set(err, -EBADMSG, "node.level: %u instead of %u", w->level, level);
    if (le16_get(w->nr) != nr)
        return err_set(err, -EBADMSG, "node.nr: %u instead of %u", le16_get(w->nr), nr);
    for (size_t i = 0; i < sizeof(w->zero2); i++)
        any |= w->zero2[i];
    for (unsigned i = nr; i < STORE_NODE_ENTRIES; i++)
        any |= (uint8_t)(w->present[i / 8] & 1U << i % 8);
    if (any)
        return err_set(err, -EBADMSG, "node.zero: not zero");
    return 0;
}

int store_node_decode(const uint8_t *bytes, size_t len, unsigned level, unsigned nr,
                      struct store_node *ret_node, struct err *err)
{
    struct rd r = {.p = bytes, .left = len};
    const struct store_node_wire *w = rd_bytes(&r, sizeof(*w));
    int rc;

    if (!w)
        return err_set(err, -EBADMSG, "node: cut off");
    rc = node_check_header(w, level, nr, err);
    if (rc < 0)
        return rc;
    ret_node->level = level;
    ret_node->nr = nr;
    memset(ret_node->digest, 0, sizeof(ret_node->digest));
    memset(ret_node->loc, 0, sizeof(ret_node->loc));
    for (unsigned i = 0; i < nr; i++) {
        const uint8_t *b;

        if (!(w->present[i / 8] & 1U << i % 8))
            continue;
        b = rd_bytes(&r, STORE_DIGEST_LEN);
        if (!b)
            break;
        ret_node->digest[i].alg = STORE_ALG_SHA256;
        memcpy(ret_node->digest[i].b, b, STORE_DIGEST_LEN);
    }
    if (rd_end(&r) < 0)
        return err_set(err, -EBADMSG, "node: wrong length");
    return 0;
}

static size_t hint_put(const struct store_hint_wire *w, uint8_t *out)
{
    if (!w->count)
        return 0;
    memcpy(out, w, sizeof(*w));
    return sizeof(*w);
}

size_t store_hints_encode(const struct store_node *leaf, uint8_t *out)
{
    struct store_hint_wire w = {0};
    uint64_t next = 0;
    size_t len = 0;

    for (unsigned i = 0; i < leaf->nr; i++) {
        if (store_digest_is_zero(&leaf->digest[i]))
            continue;
        if (w.count && leaf->loc[i] == next && store_loc_slot(next) != 0) {
            w.count++;
        } else {
            len += hint_put(&w, out + len);
            w = (struct store_hint_wire){.loc = le64_make(leaf->loc[i]), .count = 1};
        }
        next = leaf->loc[i] + 1;
    }
    return len + hint_put(&w, out + len);
}

static unsigned leaf_skip_zero(const struct store_node *leaf, unsigned i)
{
    while (i < leaf->nr && store_digest_is_zero(&leaf->digest[i]))
        i++;
    return i;
}

/* Spread one run over the pages from entry @i on; where the next begins, 0 if it is bad. */
static unsigned hint_take(struct rd *r, struct store_node *leaf, unsigned i)
{
    uint64_t loc = rd_le64(r);
    unsigned count = rd_u8(r);

    if (r->bad || count == 0 || store_loc_slot(loc) + count > STORE_SEGMENT_SLOTS ||
        store_loc_segment(loc) > STORE_SEGMENT_ID_MAX)
        return 0;
    for (; count; count--) {
        if (i == leaf->nr)
            return 0;
        leaf->loc[i] = loc++;
        i = leaf_skip_zero(leaf, i + 1);
    }
    return i;
}

bool store_hints_decode(const uint8_t *bytes, size_t len, struct store_node *leaf)
{
    struct rd r = {.p = bytes, .left = len};
    unsigned i = leaf_skip_zero(leaf, 0);

    while (r.left && i < leaf->nr) {
        i = hint_take(&r, leaf, i);
        if (i == 0)
            break;
    }
    if (!r.left && !r.bad && i == leaf->nr)
        return true;
    memset(leaf->loc, 0, sizeof(leaf->loc));
    return false;
}
