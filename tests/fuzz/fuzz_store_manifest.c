/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node of a manifest and its hints.  Input: level, number of entries and length
 * of the node as one and two times two bytes, then the node, then the hints.
 * What is accepted encodes to the same bytes.
 */
#include <assert.h>

#include "store/store_manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[STORE_NODE_LEN_MAX], hints[STORE_HINTS_LEN_MAX];
    static struct store_node node;
    struct rd r = {.p = data, .left = size};
    unsigned level = rd_u8(&r) % STORE_LEVELS_MAX;
    unsigned nr = 1 + rd_le16(&r) % STORE_NODE_ENTRIES;
    size_t len = rd_le16(&r);
    const uint8_t *in;
    struct err err = {0};

    if (r.bad)
        return 0;
    len = len < r.left ? len : r.left;
    in = rd_bytes(&r, len);
    if (store_node_decode(in, len, level, nr, &node, &err) < 0) {
        assert(err.msg[0]);
        return 0;
    }
    assert(store_node_encode(&node, bytes) == len);
    assert(memcmp(bytes, in, len) == 0);
    if (store_hints_decode(r.p, r.left, &node)) {
        size_t n = store_hints_encode(&node, hints);

        /* Runs may have been cut finer than need be, so only the places must agree. */
        assert(n <= r.left);
        assert(store_hints_decode(hints, n, &node));
    }
    return 0;
}
