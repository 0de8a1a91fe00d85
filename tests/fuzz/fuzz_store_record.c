/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of a snapshot.  What is accepted encodes to the same bytes.
 */
#include <assert.h>

#include "store/store_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_record *rec;
    uint8_t *bytes;
    struct err err = {0};
    size_t len;

    if (store_record_decode(data, size, &rec, &err) < 0) {
        assert(err.msg[0]);
        return 0;
    }
    assert(store_record_encode(rec, &bytes, &len, NULL) == 0);
    assert(len == size && memcmp(bytes, data, len) == 0);
    free(bytes);
    store_record_free(rec);
    return 0;
}
