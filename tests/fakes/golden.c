/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    GOLDEN_MAX = 1 << 20, /* bytes of a file */
};

static void golden_path(const char *name, char *buf, size_t cap)
{
    (void)snprintf(buf, cap, "%s/tests/golden/%s", CHRYSALIS_SOURCE_DIR, name);
}

uint8_t *golden_read(const char *name, size_t *ret_len)
{
    char path[512];
    uint8_t *data;
    FILE *f;

    golden_path(name, path, sizeof(path));
    f = fopen(path, "rbe");
    if (!f) {
        assert_int_equal(errno, ENOENT);
        return NULL;
    }
    data = malloc(GOLDEN_MAX);
    assert_non_null(data);
    *ret_len = fread(data, 1, GOLDEN_MAX, f);
    assert_false(ferror(f));
    assert_true(*ret_len < GOLDEN_MAX);
    (void)fclose(f);
    return data;
}

static void golden_write(const char *name, const void *data, size_t len)
{
    char path[512];
    FILE *f;

    golden_path(name, path, sizeof(path));
    f = fopen(path, "wbxe");
    if (!f)
        fail_msg("%s: %s", path, strerror(errno));
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    print_message("wrote %s\n", path);
}

void golden_check(const char *name, const void *data, size_t len)
{
    const char *mode = getenv("CHRYSALIS_GOLDEN");
    const uint8_t *got = data;
    size_t want_len, same = 0;
    uint8_t *want = golden_read(name, &want_len);

    if (!want && mode && !strcmp(mode, "write")) {
        golden_write(name, data, len);
        return;
    }
    if (!want)
        fail_msg("no golden file %s; CHRYSALIS_GOLDEN=write creates it", name);
    while (same < len && same < want_len && got[same] == want[same])
        same++;
    if (same != len || same != want_len)
        fail_msg("%s: %zu bytes, golden %zu; they differ at offset %zu", name, len, want_len, same);
    free(want);
}
