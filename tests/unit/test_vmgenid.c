/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/gmem.h"
#include "devices/vmgenid.h"
#include "tests/fakes/device_check.h"

#define GPA UINT64_C(0xef000)

static const uint8_t first[VMGENID_LEN] = "first generation";
static const uint8_t second[VMGENID_LEN] = "second generatio";

static int setup(void **state)
{
    struct vmgenid_config cfg = {.gpa = GPA};

    memcpy(cfg.id, first, sizeof(first));
    *state = device_pair_new(&vmgenid_ops, "vmgenid", &cfg);
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

static void assert_guest_sees(struct device_pair *p, const uint8_t *id)
{
    uint8_t got[VMGENID_LEN];

    assert_int_equal(gmem_copy_in(p->fe->env.gm, GPA, got, sizeof(got)), 0);
    assert_memory_equal(got, id, sizeof(got));
}

static void test_first_id_is_the_configured_one(void **state)
{
    struct device_pair *p = *state;
    uint8_t id[VMGENID_LEN];

    assert_guest_sees(p, first);
    vmgenid_get(p->dev, id);
    assert_memory_equal(id, first, sizeof(id));
}

static void test_new_id_is_in_memory_and_marked_dirty(void **state)
{
    struct device_pair *p = *state;
    uint8_t id[VMGENID_LEN];

    fake_env_oracle_begin(p->fe);
    vmgenid_set(p->dev, second);
    assert_int_equal(fake_env_oracle_end(p->fe), 1);
    assert_guest_sees(p, second);
    vmgenid_get(p->dev, id);
    assert_memory_equal(id, second, sizeof(id));
}

static void test_reset_keeps_the_id_and_restores_its_page(void **state)
{
    struct device_pair *p = *state;

    vmgenid_set(p->dev, second);
    assert_int_equal(gmem_fill(p->fe->env.gm, GPA, 0, VMGENID_LEN), 0);
    fake_env_oracle_begin(p->fe);
    vmgenid_ops.reset(p->dev);
    assert_int_equal(fake_env_oracle_end(p->fe), 1);
    assert_guest_sees(p, second);
}

static void test_it_has_no_registers(void **state)
{
    static const struct device_row rows[] = {
        {"all ones", 'r', 0, 0, 4, UINT32_MAX, 0},
        {"ignored",  'w', 0, 0, 4, 0,          0},
    };
    struct device_pair *p = *state;

    device_check_rows(p->dev, rows, ARRAY_LEN(rows));
}

static void test_bad_places_are_refused(void **state)
{
    static const struct {
        uint64_t gpa;
        const char *msg;
    } rows[] = {
        {GPA + 8,            "g: gpa 0xef008 is not a page"        },
        {UINT64_C(0x600000), "g: gpa 0x600000 is not RAM"          },
        {UINT64_MAX - 0xfff, "g: gpa 0xfffffffffffff000 is not RAM"},
    };
    struct device_pair *p = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct vmgenid_config cfg = {.gpa = rows[i].gpa};
        struct device *dev;
        struct err err = {0};

        assert_int_equal(device_new(&vmgenid_ops, &p->fe->env, "g", &cfg, &dev, &err), -EINVAL);
        assert_string_equal(err.msg, rows[i].msg);
    }
}

static void test_id_survives_a_move(void **state)
{
    struct device_pair *p = *state;
    uint8_t id[VMGENID_LEN];

    vmgenid_set(p->dev, second);
    device_check_round_trip(p->dev, p->fresh);
    vmgenid_get(p->fresh, id);
    assert_memory_equal(id, second, sizeof(id));
}

static void test_bad_state_is_refused(void **state)
{
    struct device_pair *p = *state;

    device_check_bad_state(p->dev, p->fresh);
    device_check_refused(p->dev, "gpa", "\x19\x10\x00", 3, "gpa: 0x1000, this machine has 0xef000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_first_id_is_the_configured_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_id_is_in_memory_and_marked_dirty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_keeps_the_id_and_restores_its_page, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_it_has_no_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_places_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_id_survives_a_move, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_state_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("vmgenid", tests, NULL, NULL);
}
