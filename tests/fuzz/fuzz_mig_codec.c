/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a compressed payload.  Refused: explained.  Accepted: as many
 * bytes as the runs have, and nothing may follow them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/mig_codec.h"
#include "migration/mig_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct mig_packer *p = NULL;
    const void *got = NULL;
    struct err err = {0};
    size_t want;
    int rc;

    if (len < 1 || len > MIG_PAYLOAD_MAX || mig_packer_new(&p) < 0)
        return 0;
    want = (size_t)(data[0] + 1) << PAGE_SHIFT_4K;
    memcpy(mig_packer_input(p), data + 1, len - 1);
    rc = mig_packer_unpack(p, len - 1, want, &got, &err);
    if (rc != 0 && (rc != -EBADMSG || !err.msg[0]))
        abort();
    if (rc == 0)
        for (size_t i = 0; i < want; i += 512)
            (void)*((const volatile uint8_t *)got + i);
    if (rc == 0) {
        memcpy((uint8_t *)mig_packer_input(p) + len - 1, data, 1);
        if (mig_packer_unpack(p, len, want, &got, NULL) != -EBADMSG)
            abort();
    }
    mig_packer_free(p);
    return 0;
}
