/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as what a snapshot says of its disks.  Refused: explained.
 * Accepted: as many sentences as disks that differ.
 */
#include <string.h>

#include "snapshot/snap_disks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void count(void *arg, const char *sentence)
{
    int *nr = arg;

    must(sentence[0]);
    ++*nr;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = calloc(1, len + 1);
    struct err err = {0};
    int nr = 0, rc;

    must(text);
    if (len)
        memcpy(text, data, len);
    rc = snap_disks_check(text, count, &nr, &err);
    if (rc < 0)
        must(err.code == rc && err.msg[0]);
    else
        must(rc == nr);
    free(text);
    return 0;
}
