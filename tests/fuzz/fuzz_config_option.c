/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as option values: lines "<letter><value>", the letter says which
 * option.  Refused: explained.  Accepted, and complete: its JSON is accepted
 * too and means the same.
 */
#include <string.h>

#include "core/config/vm_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* Return: false if a value was refused. */
static bool read_lines(char *text, struct vm_config *cfg)
{
    char *rest = text, *line;
    struct err err = {0};
    int rc = 0;

    while (!rc && (line = strsep(&rest, "\n"))) {
        unsigned opt = (unsigned char)line[0] - 'a';

        if (!line[0] || opt > VM_OPT_PLATFORM)
            continue;
        rc = vm_config_from_option(cfg, (enum vm_option)opt, line + 1, &err);
        must(rc <= 0 && (!rc || (err.code && err.msg[0])));
    }
    return !rc;
}

static void try_json(const struct vm_config *cfg)
{
    char *first = NULL, *second = NULL;
    size_t first_len = 0, second_len = 0;
    struct vm_config again = {0};
    struct err err = {0};

    must(vm_config_to_text(cfg, &first, &first_len) == 0);
    must(vm_config_from_text(first, first_len, &again, &err) == 0);
    must(vm_config_to_text(&again, &second, &second_len) == 0);
    must(first_len == second_len && !memcmp(first, second, first_len));
    vm_config_release(&again);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct vm_config cfg = {0};
    struct err err = {0};
    char *text = malloc(len + 1);
    int rc = 0;

    if (!text)
        abort();
    memcpy(text, data, len);
    text[len] = 0;
    if (read_lines(text, &cfg)) {
        if (!cfg.payload.kernel)
            must(vm_config_set_string(&cfg.payload.kernel, "/k") == 0);
        rc = vm_config_complete(&cfg, &err);
        must(!rc || (err.code && err.msg[0]));
        if (!rc)
            try_json(&cfg);
    }
    vm_config_release(&cfg);
    free(text);
    return 0;
}
