/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of first touch.  What is accepted encodes to the same bytes.
 */
#include <assert.h>

#include "snapshot/snap_touch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_digest ram = {.alg = STORE_ALG_SHA256};
    struct snap_touch t = {0};
    struct err err = {0};
    uint8_t *bytes;
    size_t len;

    if (snap_touch_decode(data, size, NULL, &t, &err) < 0) {
        assert(err.msg[0]);
        assert(!t.runs && !t.nr);
        return 0;
    }
    memcpy(ram.b, data + SNAP_TOUCH_HDR_LEN - STORE_DIGEST_LEN, STORE_DIGEST_LEN);
    assert(snap_touch_encode(&t, &ram, &bytes, &len) == 0);
    assert(len == size && memcmp(bytes, data, len) == 0);
    free(bytes);
    snap_touch_release(&t);
    return 0;
}
