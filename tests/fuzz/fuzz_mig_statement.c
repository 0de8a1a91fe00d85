/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as a statement.  Refused: explained, and nothing is decided.
 * Believed: it is what the destination would say, to the letter.
 */
#include <errno.h>
#include <string.h>

#include "migration/mig_statement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    enum mig_outcome outcome = (enum mig_outcome) - 1;
    uint8_t secret[MIG_SECRET_SIZE];
    char text[128], mine[MIG_STATEMENT_SIZE];
    struct err err = {0};
    int rc;

    for (unsigned i = 0; i < sizeof(secret); i++)
        secret[i] = (uint8_t)i;
    if (len >= sizeof(text))
        return 0;
    memcpy(text, data, len);
    text[len] = 0;
    rc = mig_statement_check(text, secret, &outcome, &err);
    if (rc < 0) {
        must(err.code == rc && err.msg[0] && (rc == -EINVAL || rc == -EACCES));
        must(outcome == (enum mig_outcome) - 1);
        return 0;
    }
    must(outcome == MIG_OUTCOME_TAKEN || outcome == MIG_OUTCOME_NEVER);
    mig_statement_make(secret, outcome, mine);
    must(strcmp(mine, text) == 0);
    return 0;
}
