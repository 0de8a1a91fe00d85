/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the facts of a source.  Refused: explained, and nothing comes
 * of it.  Accepted: within every limit, every string ends.
 */
#include <string.h>

#include "tools/chvmm/facts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct facts *f = NULL;
    struct err err = {0};
    int rc = facts_parse((const char *)data, len, &f, &err);

    if (rc < 0) {
        must(!f && err.code == rc && err.msg[0]);
        return 0;
    }
    must(f->nr_disks <= FACTS_DISKS_MAX && f->nr_sections <= FACTS_SECTIONS_MAX);
    must(memchr(f->boot, 0, sizeof(f->boot)) != NULL);
    for (unsigned i = 0; i < f->nr_disks; i++)
        must(memchr(f->disks[i].id, 0, sizeof(f->disks[i].id)) != NULL);
    for (unsigned i = 0; i < f->nr_sections; i++)
        must(f->sections[i].version >= 1 && f->sections[i].version <= UINT16_MAX);
    free(f);
    return 0;
}
