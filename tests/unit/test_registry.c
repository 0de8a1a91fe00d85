/* SPDX-License-Identifier: Apache-2.0 */
/* What holds for every device that there is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "devices/cmos.h"
#include "devices/debugcon.h"
#include "devices/ged.h"
#include "devices/ioapic.h"
#include "devices/pci_root.h"
#include "devices/registry.h"
#include "devices/serial.h"
#include "devices/vmgenid.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/golden.h"

/* Configurations in which a device can be made without a host; others have their own tests. */
static const struct cmos_config cmos_cfg = {.ram_below_4g = MIB(512)};
static const struct debugcon_config debugcon_cfg = {.out_fd = -1};
static const struct serial_config serial_cfg = {
    .irq = 4, .port = {.out_fd = -1, .in_fd = -1, .listen_fd = -1}
};
static const struct ged_config ged_cfg = {.irq = 5};
static const struct ioapic_config ioapic_cfg = {0};
static const struct vmgenid_config vmgenid_cfg = {.gpa = 0xef000, .id = "generation zero"};

static const struct {
    const char *type;
    const void *cfg;
} simple[] = {
    {"acpi-pm-timer", NULL         },
    {"cmos",          &cmos_cfg    },
    {"debug-port",    NULL         },
    {"debugcon",      &debugcon_cfg},
    {"ged",           &ged_cfg     },
    {"ioapic",        &ioapic_cfg  },
    {"serial",        &serial_cfg  },
    {"vmgenid",       &vmgenid_cfg },
};

static void test_types_are_names_and_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < device_registry_len; i++) {
        const char *type = device_registry[i]->type;

        assert_non_null(type);
        assert_true(strlen(type) > 0 && strlen(type) <= STATE_NAME_MAX);
        assert_int_equal(strspn(type, "abcdefghijklmnopqrstuvwxyz0123456789-"), strlen(type));
        assert_ptr_equal(device_registry_find(type), device_registry[i]);
    }
    assert_null(device_registry_find("piix4"));
}

static void test_every_device_can_be_used(void **state)
{
    (void)state;
    for (size_t i = 0; i < device_registry_len; i++) {
        const struct device_ops *ops = device_registry[i];

        assert_true(ops->size >= sizeof(struct device));
        assert_non_null(ops->realize);
        assert_non_null(ops->reset);
        assert_non_null(ops->read);
        assert_non_null(ops->write);
        /* Who takes part in a pause must also take part in its end. */
        assert_true(!ops->quiesce || ops->resume);
    }
}

static void test_every_device_has_a_state_or_says_why_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < device_registry_len; i++) {
        const struct device_ops *ops = device_registry[i];
        struct err err = {0};

        if (!ops->state) {
            if (!ops->stateless || strlen(ops->stateless) < 20)
                fail_msg("%s has no state table and gives no reason", ops->type);
            continue;
        }
        assert_null(ops->stateless);
        assert_string_equal(ops->state->name, ops->type);
        assert_int_equal(ops->state->size, ops->size);
        if (state_desc_check(ops->state, &err) < 0)
            fail_msg("%s", err.msg);
    }
}

static void golden_name(const struct state_desc *desc, unsigned version, char *buf, size_t cap)
{
    (void)snprintf(buf, cap, "state/%s-v%u.cbor", desc->name, version);
}

static void check_golden_section(const struct state_desc *desc, unsigned version)
{
    struct state_section sec;
    const uint8_t *p;
    struct err err = {0};
    uint8_t *data;
    char name[128];
    size_t len;

    golden_name(desc, version, name, sizeof(name));
    data = golden_read(name, &len);
    if (!data)
        fail_msg("no golden file %s", name);
    p = data;
    if (state_section_next(&p, &len, &sec, &err) != 1)
        fail_msg("%s: %s", name, err.msg);
    assert_int_equal(len, 0);
    assert_string_equal(sec.type, desc->name);
    assert_int_equal(sec.version, version);
    free(data);
}

static void test_every_version_that_is_read_has_a_golden_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < device_registry_len; i++) {
        const struct state_desc *desc = device_registry[i]->state;

        for (unsigned v = desc ? desc->version_min : 1; desc && v <= desc->version; v++)
            check_golden_section(desc, v);
    }
}

/* Every golden file of the device loads; that of the present version is the reset state. */
static void check_reset_state(struct device *dev)
{
    const struct state_desc *desc = dev->ops->state;
    struct state_buf buf = device_check_save(dev);
    char name[128];

    golden_name(desc, desc->version, name, sizeof(name));
    golden_check(name, buf.data, buf.len);
    for (unsigned v = desc->version_min; v <= desc->version; v++) {
        struct err err = {0};
        uint8_t *data;
        size_t len;

        golden_name(desc, v, name, sizeof(name));
        data = golden_read(name, &len);
        assert_non_null(data);
        if (device_check_load(dev, data, len, &err) < 0)
            fail_msg("%s: %s", name, err.msg);
        free(data);
    }
    device_check_resume(dev);
    state_buf_release(&buf);
}

static void test_reset_states_are_the_golden_ones(void **state)
{
    struct fake_env *fe = fake_env_new();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(simple); i++) {
        const struct device_ops *ops = device_registry_find(simple[i].type);
        struct device *dev;

        assert_non_null(ops);
        dev = device_check_new(ops, &fe->env, simple[i].type, simple[i].cfg);
        check_reset_state(dev);
        device_free(dev);
    }
    fake_env_free(fe);
}

static void test_reset_state_of_the_pci_root_is_the_golden_one(void **state)
{
    const struct pci_bus_config bus_cfg = {
        .mmio32 = {.base = 0xc0000000, .len = MIB(640)}
    };
    struct fake_env *fe = fake_env_new();
    struct pci_root_config cfg;
    struct device *dev;

    (void)state;
    assert_int_equal(pci_bus_new(&bus_cfg, &cfg.bus), 0);
    dev = device_check_new(&pci_root_ops, &fe->env, "pci-root", &cfg);
    check_reset_state(dev);
    device_free(dev);
    pci_bus_free(cfg.bus);
    fake_env_free(fe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_are_names_and_unique),
        cmocka_unit_test(test_every_device_can_be_used),
        cmocka_unit_test(test_every_device_has_a_state_or_says_why_not),
        cmocka_unit_test(test_reset_states_are_the_golden_ones),
        cmocka_unit_test(test_reset_state_of_the_pci_root_is_the_golden_one),
        cmocka_unit_test(test_every_version_that_is_read_has_a_golden_file),
    };

    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
