/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as what a snapshot says of its disks.  Refused: explained.
 * Accepted: a sentence for each disk that differs, the same each time.
 */
#include <string.h>

#include "snapshot/snap_disks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static int check(const char *text, bool copied, struct snap_problems *why, struct err *err)
{
    char id[] = "_disk0", path[] = "/etc/passwd", set[] = "disks._disk0.path=/etc/passwd";
    struct disk_config disk = {.id = id, .path = path};
    const struct vm_config cfg = {.disks = &disk, .nr_disks = 1};
    char *items[] = {set};
    const struct snap_sets sets = {items, copied};
    const struct snap_disks_use use = {&cfg, &sets, copied};

    return snap_disks_check(text, &use, why, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = calloc(1, len + 1);

    must(text);
    if (len)
        memcpy(text, data, len);
    for (int copied = 0; copied < 2; copied++) {
        struct snap_problems why = {0}, again = {0};
        struct err err = {0};
        int rc = check(text, copied, &why, &err);

        if (rc < 0)
            must(err.code == rc && err.msg[0]);
        for (unsigned i = 0; i < why.nr; i++)
            must(why.text[i][0]);
        must(check(text, copied, &again, &err) == rc && again.nr == why.nr);
    }
    free(text);
    return 0;
}
