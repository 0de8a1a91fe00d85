/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The n-th allocation fails, n = 1, 2, ... until all goes well: reading,
 * checking and copying a configuration then say -ENOMEM and leak nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/config/vm_config.h"

static unsigned countdown; /* 0: none fails */

static bool fails(void)
{
    return countdown && !--countdown;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
    return fails() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *s)
{
    return fails() ? NULL : __real_strdup(s);
}

static int read_options(struct vm_config *cfg, struct err *err)
{
    static const struct {
        enum vm_option opt;
        const char *value;
    } rows[] = {
        {VM_OPT_KERNEL,      "/k"                                                         },
        {VM_OPT_CPUS,        "boot=2,features=[amx]"                                      },
        {VM_OPT_DISK,        "path=/a,serial=s"                                           },
        {VM_OPT_DISK,        "path=/b,id=b"                                               },
        {VM_OPT_NET,         "fd=[5,6]"                                                   },
        {VM_OPT_MEMORY_ZONE, "id=m,size=4K,file=/f"                                       },
        {VM_OPT_SERIAL,      "socket=/s"                                                  },
        {VM_OPT_PLATFORM,    "oem_strings=[a,b],uuid=11111111-2222-3333-4444-555555555555"},
    };
    int rc = 0;

    for (size_t i = 0; i < ARRAY_LEN(rows) && !rc; i++)
        rc = vm_config_from_option(cfg, rows[i].opt, rows[i].value, err);
    return rc ? rc : vm_config_complete(cfg, err);
}

static void test_reading_options(void **state)
{
    unsigned n = 0;
    int rc;

    (void)state;
    do {
        struct vm_config cfg = {0};
        struct err err = {0};

        countdown = ++n;
        rc = read_options(&cfg, &err);
        countdown = 0;
        if (rc && (rc != -ENOMEM || !strstr(err.msg, "out of memory")))
            fail_msg("allocation %u: %d %s", n, rc, err.msg);
        vm_config_release(&cfg);
    } while (rc);
    assert_true(n > 20);
}

static void test_copying(void **state)
{
    struct vm_config cfg = {0};
    unsigned n = 0;
    int rc;

    (void)state;
    assert_int_equal(read_options(&cfg, NULL), 0);
    do {
        struct vm_config copy = {0};

        countdown = ++n;
        rc = vm_config_copy(&cfg, &copy);
        countdown = 0;
        assert_true(!rc || (rc == -ENOMEM && !copy.payload.kernel && !copy.disks));
        vm_config_release(&copy);
    } while (rc);
    assert_true(n > 15);
    vm_config_release(&cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading_options),
        cmocka_unit_test(test_copying),
    };

    return cmocka_run_group_tests_name("config_oom", tests, NULL, NULL);
}
