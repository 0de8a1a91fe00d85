/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "devices/ioapic.h"
#include "tests/fakes/device_check.h"

/* The last route that each pin was told. */
struct routes {
    unsigned calls;
    struct ioapic_route pin[IOAPIC_PINS];
};

static struct routes routes;

static void on_route(void *arg, unsigned pin, const struct ioapic_route *route)
{
    struct routes *r = arg;

    r->calls++;
    r->pin[pin] = *route;
}

static int setup(void **state)
{
    const struct ioapic_config cfg = {.route = on_route, .arg = &routes};

    memset(&routes, 0, sizeof(routes));
    *state = device_pair_new(&ioapic_ops, "ioapic", &cfg);
    return 0;
}

static int teardown(void **state)
{
    device_pair_free(*state);
    return 0;
}

static uint32_t get(struct device *dev, uint8_t reg)
{
    device_check_write(dev, 0, 0, 4, reg);
    return (uint32_t)device_check_read(dev, 0, 0x10, 4);
}

static void put(struct device *dev, uint8_t reg, uint32_t val)
{
    device_check_write(dev, 0, 0, 4, reg);
    device_check_write(dev, 0, 0x10, 4, val);
}

static void put_entry(struct device *dev, unsigned pin, uint64_t entry)
{
    put(dev, (uint8_t)(0x11 + 2 * pin), (uint32_t)(entry >> 32));
    put(dev, (uint8_t)(0x10 + 2 * pin), (uint32_t)entry);
}

static uint64_t get_entry(struct device *dev, unsigned pin)
{
    return (uint64_t)get(dev, (uint8_t)(0x11 + 2 * pin)) << 32 |
           get(dev, (uint8_t)(0x10 + 2 * pin));
}

#define LEVEL      (UINT64_C(1) << 15)
#define MASKED     (UINT64_C(1) << 16)
#define REMOTE_IRR (UINT64_C(1) << 14)
#define DEST(n)    ((uint64_t)(n) << 56)

static const struct device_row rows[] = {
    {"select the version",                 'w', 0, 0x00, 4, 0x01,       0},
    {"24 pins, 82093AA",                   'r', 0, 0x10, 4, 0x170011,   0},
    {"the select register reads back",     'r', 0, 0x00, 4, 0x01,       0},
    {"the version is read-only",           'w', 0, 0x10, 4, 0,          1},
    {"select the id",                      'w', 0, 0x00, 4, 0x00,       1},
    {"four bits of it can be written",     'w', 0, 0x10, 4, 0xf5a5a5a5, 1},
    {"and read",                           'r', 0, 0x10, 4, 0x05000000, 1},
    {"select the arbitration id",          'w', 0, 0x00, 4, 0x02,       1},
    {"it is the id",                       'r', 0, 0x10, 4, 0x05000000, 1},
    {"select the last entry's high half",  'w', 0, 0x00, 4, 0x3f,       1},
    {"reserved bits stay 0",               'w', 0, 0x10, 4, UINT32_MAX, 1},
    {"destination and its upper bits",     'r', 0, 0x10, 4, 0xfffe0000, 1},
    {"select the last entry's low half",   'w', 0, 0x00, 4, 0x3e,       1},
    {"masked after reset",                 'r', 0, 0x10, 4, 0x10000,    1},
    {"read-only and reserved bits stay 0", 'w', 0, 0x10, 4, UINT32_MAX, 1},
    {"all but those",                      'r', 0, 0x10, 4, 0x1afff,    1},
    {"a register past the last",           'w', 0, 0x00, 4, 0x40,       1},
    {"reads as all ones",                  'r', 0, 0x10, 4, UINT32_MAX, 2},
    {"and is not written",                 'w', 0, 0x10, 4, 0,          3},
    {"a register in the gap",              'w', 0, 0x00, 4, 0x03,       3},
    {"reads as all ones",                  'r', 0, 0x10, 4, UINT32_MAX, 4},
    {"a byte selects, too",                'w', 0, 0x00, 1, 0x01,       4},
    {"the window is 32 bits",              'r', 0, 0x10, 1, 0xff,       5},
    {"and nothing else",                   'w', 0, 0x10, 8, 0,          6},
    {"there is no EOI register",           'w', 0, 0x18, 4, 0x31,       7},
    {"nothing lies between",               'r', 0, 0x04, 4, UINT32_MAX, 8},
};

static void test_guest_access(void **state)
{
    struct device_pair *p = *state;

    device_check_rows(p->dev, rows, ARRAY_LEN(rows));
}

static void test_reset_masks_every_pin(void **state)
{
    struct device_pair *p = *state;

    put_entry(p->dev, 3, 0x31);
    put(p->dev, 0, 0x07000000);
    routes.calls = 0;
    ioapic_ops.reset(p->dev);
    assert_int_equal(get(p->dev, 0), 0);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_int_equal(get_entry(p->dev, pin), MASKED);
        assert_true(routes.pin[pin].masked);
    }
    assert_int_equal(routes.calls, IOAPIC_PINS);
}

static void test_edges_are_sent_once(void **state)
{
    struct device_pair *p = *state;

    put_entry(p->dev, 4, DEST(3) | 0x24);
    ioapic_set_line(p->dev, 4, true);
    ioapic_set_line(p->dev, 4, true);
    assert_int_equal(p->fe->nr_msis, 1);
    assert_int_equal(p->fe->msis[0].addr, 0xfee03000);
    assert_int_equal(p->fe->msis[0].data, 0x24);
    ioapic_set_line(p->dev, 4, false);
    assert_int_equal(p->fe->nr_msis, 1);
    ioapic_set_line(p->dev, 4, true);
    assert_int_equal(p->fe->nr_msis, 2);
    ioapic_eoi(p->dev, 0x24); /* means nothing to an edge */
    assert_int_equal(p->fe->nr_msis, 2);
    ioapic_set_line(p->dev, IOAPIC_PINS, true);
    assert_int_equal(p->fe->nr_msis, 2);
}

/* 82093AA 3.2.4: edges "signaled on a masked interrupt pin are ignored" */
static void test_edges_on_masked_pins_are_lost(void **state)
{
    struct device_pair *p = *state;

    put_entry(p->dev, 4, MASKED | 0x24);
    ioapic_set_line(p->dev, 4, true);
    put_entry(p->dev, 4, 0x24);
    assert_int_equal(p->fe->nr_msis, 0);
    ioapic_set_line(p->dev, 4, false);
    ioapic_set_line(p->dev, 4, true);
    assert_int_equal(p->fe->nr_msis, 1);
}

static void test_levels_are_sent_again_after_eoi(void **state)
{
    struct device_pair *p = *state;

    put_entry(p->dev, 9, LEVEL | DEST(1) | 0x29);
    ioapic_set_line(p->dev, 9, true);
    assert_int_equal(p->fe->nr_msis, 1);
    assert_int_equal(p->fe->msis[0].data, 0xc029);
    assert_true(get_entry(p->dev, 9) & REMOTE_IRR);
    ioapic_set_line(p->dev, 9, false);
    ioapic_set_line(p->dev, 9, true);
    assert_int_equal(p->fe->nr_msis, 1); /* not before the EOI */
    ioapic_eoi(p->dev, 0x30);
    assert_int_equal(p->fe->nr_msis, 1); /* nor for another's */
    ioapic_eoi(p->dev, 0x29);
    assert_int_equal(p->fe->nr_msis, 2); /* still high */
    ioapic_set_line(p->dev, 9, false);
    ioapic_eoi(p->dev, 0x29);
    assert_int_equal(p->fe->nr_msis, 2);
    assert_false(get_entry(p->dev, 9) & REMOTE_IRR);
}

static void test_levels_on_masked_pins_wait(void **state)
{
    struct device_pair *p = *state;

    put_entry(p->dev, 9, LEVEL | MASKED | 0x29);
    ioapic_set_line(p->dev, 9, true);
    assert_int_equal(p->fe->nr_msis, 0);
    put_entry(p->dev, 9, LEVEL | 0x29);
    assert_int_equal(p->fe->nr_msis, 1);
    /* Masked while it is being served: quiet after the EOI, until unmasked. */
    put_entry(p->dev, 9, LEVEL | MASKED | 0x29);
    ioapic_eoi(p->dev, 0x29);
    assert_int_equal(p->fe->nr_msis, 1);
    put_entry(p->dev, 9, LEVEL | 0x29);
    assert_int_equal(p->fe->nr_msis, 2);
}

/* What Linux does to get rid of a remote IRR that no EOI will clear. */
static void test_edge_mode_clears_remote_irr(void **state)
{
    struct device_pair *p = *state;

    put_entry(p->dev, 9, LEVEL | 0x29);
    ioapic_set_line(p->dev, 9, true);
    ioapic_set_line(p->dev, 9, false);
    put_entry(p->dev, 9, MASKED | 0x29);
    assert_int_equal(get_entry(p->dev, 9), MASKED | 0x29);
    put_entry(p->dev, 9, LEVEL | 0x29);
    ioapic_set_line(p->dev, 9, true);
    assert_int_equal(p->fe->nr_msis, 2);
}

static const struct {
    const char *why;
    uint64_t entry;
    uint64_t addr;
    uint32_t data;
    bool masked;
} messages[] = {
  /* clang-format off */
    {"physical, fixed",          DEST(0) | 0x31,                         0xfee00000, 0x31,   false},
    {"physical, APIC 255",       DEST(255) | 0x31,                       0xfeeff000, 0x31,   false},
    {"logical, lowest priority", DEST(3) | 1 << 11 | 1 << 8 | 0x41,      0xfee03004, 0x141,  false},
    {"active low is the same",   DEST(1) | 1 << 13 | 0x50,               0xfee01000, 0x50,   false},
    {"NMI",                      DEST(1) | 4 << 8,                       0xfee01000, 0x400,  false},
    {"level, masked",            LEVEL | MASKED | 0x60,                  0xfee00000, 0xc060, true},
    {"upper destination bits",   DEST(1) | UINT64_C(3) << 49 | 0x70,     0xfee01060, 0x70,   false},
  /* clang-format on */
};

static void test_entries_become_messages(void **state)
{
    struct device_pair *p = *state;

    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        print_message("%s\n", messages[i].why);
        ioapic_set_line(p->dev, 7, false);
        fake_env_clear(p->fe);
        put_entry(p->dev, 7, messages[i].entry);
        assert_int_equal(routes.pin[7].addr, messages[i].addr);
        assert_int_equal(routes.pin[7].data, messages[i].data);
        assert_int_equal(routes.pin[7].masked, messages[i].masked);
        ioapic_set_line(p->dev, 7, true);
        assert_int_equal(p->fe->nr_msis, !messages[i].masked);
        if (messages[i].masked)
            continue;
        assert_int_equal(p->fe->msis[0].addr, messages[i].addr);
        assert_int_equal(p->fe->msis[0].data, messages[i].data);
    }
}

static void test_extint_is_not_sent(void **state)
{
    struct device_pair *p = *state;

    put_entry(p->dev, 0, 7 << 8);
    ioapic_set_line(p->dev, 0, true);
    assert_int_equal(p->fe->nr_msis, 0);
}

static void test_routes_are_told_when_they_change(void **state)
{
    struct device_pair *p = *state;

    routes.calls = 0;
    put(p->dev, 0x10, 0x31);
    assert_int_equal(routes.calls, 1);
    put(p->dev, 0x10, 0x31);
    assert_int_equal(routes.calls, 1);
    put(p->dev, 0x11, 0x01000000);
    assert_int_equal(routes.calls, 2);
}

static void test_state_survives_while_an_interrupt_is_served(void **state)
{
    struct device_pair *p = *state;

    put_entry(p->dev, 9, LEVEL | DEST(1) | 0x29);
    put_entry(p->dev, 4, 0x24);
    ioapic_set_line(p->dev, 9, true);
    ioapic_set_line(p->dev, 4, true);
    device_check_write(p->dev, 0, 0, 4, 0x22); /* selected, not yet accessed */
    device_check_round_trip(p->dev, p->fresh);
    fake_env_clear(p->fe);
    routes.calls = 0;
    device_check_resume(p->fresh);
    assert_int_equal(routes.calls, IOAPIC_PINS);
    assert_int_equal(routes.pin[9].data, 0xc029);
    assert_int_equal(p->fe->nr_msis, 0);
    assert_int_equal(device_check_read(p->fresh, 0, 0x10, 4), LEVEL | REMOTE_IRR | 0x29);
    ioapic_set_line(p->fresh, 4, true); /* its device says so again: no new edge */
    assert_int_equal(p->fe->nr_msis, 0);
    ioapic_eoi(p->fresh, 0x29);
    assert_int_equal(p->fe->nr_msis, 1);
}

static void test_bad_state_is_refused(void **state)
{
    struct device_pair *p = *state;
    char entries[28] = "\x98\x18\x19\x40\x00";

    put_entry(p->dev, 9, LEVEL | DEST(1) | 0x29);
    ioapic_set_line(p->dev, 9, true);
    device_check_bad_state(p->dev, p->fresh);
    device_check_refused(p->dev, "id", "\x10", 1, "id: 16 is over 15");
    device_check_refused(p->dev, "lines", "\x1a\x01\x00\x00\x00", 5,
                         "lines: 0x1000000 has more than 24 pins");
    device_check_refused(p->dev, "entries", entries, sizeof(entries), "entries[0]: 0x4000");
    entries[3] = 0x10;
    device_check_refused(p->dev, "entries", entries, sizeof(entries), "entries[0]: 0x1000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_masks_every_pin, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edges_are_sent_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edges_on_masked_pins_are_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels_are_sent_again_after_eoi, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels_on_masked_pins_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edge_mode_clears_remote_irr, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries_become_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_extint_is_not_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_routes_are_told_when_they_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_survives_while_an_interrupt_is_served, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_bad_state_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
