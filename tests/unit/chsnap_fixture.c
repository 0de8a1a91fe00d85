/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/chsnap_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

char output[OUTPUT_MAX];

int run(const char *fmt, ...)
{
    char command[4096];
    va_list ap;
    size_t len;
    FILE *f;
    int rc;

    va_start(ap, fmt);
    (void)vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    f = popen(command, "r"); /* NOLINT(cert-env33-c): a test's own words */
    assert_non_null(f);
    len = fread(output, 1, sizeof(output) - 1, f);
    output[len] = 0;
    rc = pclose(f);
    assert_true(WIFEXITED(rc));
    return WEXITSTATUS(rc);
}

void assert_says(const char *text)
{
    if (!strstr(output, text))
        print_error("\"%s\" is not in:\n%s\n", text, output);
    assert_non_null(strstr(output, text));
}

void snapshots_make(struct fixture *fx, struct image *img, uint64_t pages)
{
    struct err err = {0};
    struct store *st;

    fixture_make(fx);
    *img = image_make(pages, 1);
    st = fixture_open(fx);
    assert_ok(image_put(st, img, NULL, "a", NULL, &err), &err);
    for (uint64_t i = 0; i < pages; i += 2)
        image_touch(img, i, 7);
    assert_ok(image_put(st, img, "a", "b", NULL, &err), &err);
    store_close(st);
}

void snapshots_remove(struct fixture *fx, struct image *img)
{
    fixture_remove(fx);
    image_free(img);
}
