/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/x86/msrs.h"

static int position(const uint32_t *indices, int nr, uint32_t index)
{
    int at = -1;

    for (int i = 0; i < nr; i++) {
        if (indices[i] == index) {
            assert_int_equal(at, -1); /* each once */
            at = i;
        }
    }
    return at;
}

static struct kvm_msr_list *list_of(const uint32_t *indices, uint32_t nr)
{
    struct kvm_msr_list *l = calloc(1, sizeof(*l) + nr * sizeof(l->indices[0]));

    assert_non_null(l);
    l->nmsrs = nr;
    memcpy(l->indices, indices, nr * sizeof(indices[0]));
    return l;
}

static void test_order_of_restoring(void **state)
{
    static const uint32_t host[] = {0x6e0, 0x4b564d01, 0x10, 0x174, 0x12,  0x277,     0x1b,
                                    0x802, 0x277,      0x3b, 0xda0, 0x6e0, 0xc0000080};
    struct kvm_msr_list *list = list_of(host, ARRAY_LEN(host));
    uint32_t got[X86_MSRS_MAX];
    int nr = x86_msrs_select(list, got, NULL);

    (void)state;
    assert_true(nr > 0);
    assert_int_equal(position(got, nr, 0x174), 0);
    assert_int_equal(position(got, nr, 0x277), 1);
    assert_int_equal(position(got, nr, 0x3b), 2);
    assert_int_equal(position(got, nr, 0x6e0), nr - 1);
    assert_int_equal(position(got, nr, 0x12), nr - 2);
    assert_int_equal(position(got, nr, 0x4b564d01), nr - 3);
    assert_int_equal(position(got, nr, 0x10), nr - 4);
    /* State of others, or none. */
    assert_int_equal(position(got, nr, 0x1b), -1);
    assert_int_equal(position(got, nr, 0x802), -1);
    assert_int_equal(position(got, nr, 0xc0000080), -1);
    /* Not in KVM's list: MTRRs and machine check. */
    for (uint32_t i = 0x200; i < 0x210; i++)
        assert_true(position(got, nr, i) >= 0);
    for (uint32_t i = 0x268; i < 0x270; i++)
        assert_true(position(got, nr, i) >= 0);
    assert_true(position(got, nr, 0x2ff) >= 0);
    assert_true(position(got, nr, 0x400) >= 0);
    assert_true(position(got, nr, 0x47f) >= 0);
    assert_int_equal(position(got, nr, 0x480), -1);
    for (int i = 1; i < nr; i++)
        assert_true(x86_msr_class(got[i]) >= x86_msr_class(got[i - 1]));
    free(list);
}

static void test_too_many_are_refused(void **state)
{
    static uint32_t host[X86_MSRS_MAX];
    uint32_t got[X86_MSRS_MAX];
    struct kvm_msr_list *list;
    struct err err = {0};

    (void)state;
    for (uint32_t i = 0; i < X86_MSRS_MAX; i++)
        host[i] = 0x10000 + i;
    list = list_of(host, X86_MSRS_MAX);
    assert_int_equal(x86_msrs_select(list, got, &err), -E2BIG);
    assert_string_equal(err.msg, "msrs: more than 640");
    free(list);
}

static void test_names(void **state)
{
    static const struct {
        uint32_t index;
        const char *name;
    } rows[] = {
        {0x10,       "IA32_TSC"               },
        {0x6e0,      "IA32_TSC_DEADLINE"      },
        {0x4b564d01, "MSR_KVM_SYSTEM_TIME_NEW"},
        {0xc0000082, "LSTAR"                  },
        {0x200,      "IA32_MTRR_PHYSBASE0"    },
        {0x20f,      "IA32_MTRR_PHYSMASK7"    },
        {0x268,      "IA32_MTRR_FIX4K_C0000"  },
        {0x26f,      "IA32_MTRR_FIX4K_F8000"  },
        {0x400,      "IA32_MC0_CTL"           },
        {0x47f,      "IA32_MC31_MISC"         },
        {0x12345678, "msr 0x12345678"         },
    };
    char buf[X86_MSR_NAME_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_string_equal(x86_msr_name(rows[i].index, buf), rows[i].name);
}

static void test_a_refused_register_is_ignored_only_without_loss(void **state)
{
    static const struct {
        uint64_t saved;
        bool readable;
        uint64_t current;
        int rc;
        const char *msg;
    } rows[] = {
        {5, true,  5, 0,        ""                                                      },
        {0, false, 0, 0,        ""                                                      },
        {5, true,  6, -ENOTSUP, "IA32_XSS: 0x5 is not accepted by this host, it has 0x6"},
        {0, true,  6, -ENOTSUP, "IA32_XSS: 0 is not accepted by this host, it has 0x6"  },
        {5, false, 0, -ENOTSUP, "IA32_XSS: 0x5, this host does not have it"             },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct x86_msr_refusal r = {
            .saved = {0xda0, rows[i].saved},
            .readable = rows[i].readable,
            .current = rows[i].current,
        };
        struct err err = {0};

        assert_int_equal(x86_msr_may_ignore(&r, &err), rows[i].rc);
        assert_string_equal(err.msg, rows[i].msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_restoring),
        cmocka_unit_test(test_too_many_are_refused),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_a_refused_register_is_ignored_only_without_loss),
    };

    return cmocka_run_group_tests_name("x86/msrs", tests, NULL, NULL);
}
