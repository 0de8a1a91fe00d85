/* SPDX-License-Identifier: Apache-2.0 */
/* A function, the bus and the host bridge together, as the guest sees them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "devices/pci_root.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_env.h"

enum {
    MMIO32 = 0xc0000000,
    ECAM = 0xe8000000,
    SIZE = 0x10000,
};

#define MMIO64 UINT64_C(0x1000000000)

/* --- A device with two BARs ------------------------------------------------ */

struct toy {
    struct device dev;
    struct pci_func pci;
    unsigned commands; /* command_changed calls */
    uint64_t last_write;
    unsigned last_win;
};

struct toy_config {
    struct pci_place place;
    int doorbell;
};

static const struct device_ops toy_ops;

static void toy_command_changed(struct pci_func *f)
{
    container_of(f, struct toy, pci)->commands++;
}

static const struct pci_func_ops toy_func_ops = {.command_changed = toy_command_changed};

static int toy_realize(struct device *dev, const void *cfg, struct err *err)
{
    static const struct pci_identity id = {.vendor = 0x1234, .device = 0x5678, .class_code = 0xff};
    const struct toy_config *conf = cfg;
    struct toy *t = container_of(dev, struct toy, dev);
    static const uint8_t cap[6] = {1, 2, 3, 4, 5, 6};

    pci_func_init(&t->pci, dev, &toy_func_ops, &id);
    pci_func_add_bar(&t->pci, 0, SIZE, true, 7);
    pci_func_add_bar(&t->pci, 2, 0x1000, false, 8);
    assert_int_equal(pci_func_add_cap(&t->pci, PCI_CAP_VENDOR, cap, 5), 0x40);
    assert_int_equal(pci_func_add_cap(&t->pci, PCI_CAP_VENDOR, cap, 6), 0x48);
    if (conf->doorbell >= 0)
        assert_int_equal(pci_func_add_doorbell(&t->pci, 0, 0x100, conf->doorbell), 0);
    return pci_bus_attach(conf->place.bus, &t->pci, conf->place.slot, err);
}

static void toy_destroy(struct device *dev)
{
    pci_func_release(&container_of(dev, struct toy, dev)->pci);
}

static void toy_reset(struct device *dev)
{
    pci_func_reset(&container_of(dev, struct toy, dev)->pci);
}

static void toy_resume(struct device *dev)
{
    pci_func_resume(&container_of(dev, struct toy, dev)->pci);
}

static uint64_t toy_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    (void)dev;
    (void)size;
    return win << 24 | off;
}

static void toy_write(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val)
{
    struct toy *t = container_of(dev, struct toy, dev);

    (void)off;
    (void)size;
    t->last_win = win;
    t->last_write = val;
}

static const struct state_field toy_fields[] = {
    STATE_STRUCT(struct toy, 1, &pci_func_state, pci),
};

static const struct state_desc toy_state = {
    .name = "toy",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct toy),
    .fields = toy_fields,
    .nr_fields = ARRAY_LEN(toy_fields),
};

static const struct device_ops toy_ops = {
    .type = "toy",
    .size = sizeof(struct toy),
    .realize = toy_realize,
    .destroy = toy_destroy,
    .reset = toy_reset,
    .resume = toy_resume,
    .read = toy_read,
    .write = toy_write,
    .state = &toy_state,
};

/* --- Fixture --------------------------------------------------------------- */

struct fix {
    struct fake_env *fe;
    struct pci_bus *bus;
    struct device *root;
    struct device *toys[2]; /* slots 3 and 4 */
    int doorbell;
};

static struct device *new_toy(struct fix *f, unsigned slot, int doorbell)
{
    struct toy_config cfg = {
        .place = {.bus = f->bus, .slot = slot},
          .doorbell = doorbell
    };
    struct device *dev;
    struct err err = {0};

    if (device_new(&toy_ops, &f->fe->env, slot == 3 ? "a" : "b", &cfg, &dev, &err) < 0)
        fail_msg("%s", err.msg);
    return dev;
}

static int setup(void **state)
{
    const struct pci_bus_config bus_cfg = {
        .mmio32 = {MMIO32, 0x40000 },
        .mmio64 = {MMIO64, 0x100000},
    };
    struct fix *f = test_calloc(1, sizeof(*f));
    struct pci_root_config cfg;

    f->fe = fake_env_new();
    assert_int_equal(pci_bus_new(&bus_cfg, &f->bus), 0);
    cfg.bus = f->bus;
    assert_int_equal(device_new(&pci_root_ops, &f->fe->env, "pci", &cfg, &f->root, NULL), 0);
    assert_int_equal(
        bus_add(f->fe->env.pio, 0xcf8, PCI_ROOT_PORTS, f->root, PCI_ROOT_WIN_PORTS, NULL), 0);
    assert_int_equal(
        bus_add(f->fe->env.mmio, ECAM, PCI_ROOT_ECAM_SIZE, f->root, PCI_ROOT_WIN_ECAM, NULL), 0);
    f->doorbell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    f->toys[0] = new_toy(f, 3, f->doorbell);
    f->toys[1] = new_toy(f, 4, -1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    device_free(f->toys[0]);
    device_free(f->toys[1]);
    device_free(f->root);
    pci_bus_free(f->bus);
    fake_env_free(f->fe);
    (void)close(f->doorbell);
    test_free(f);
    return 0;
}

static uint64_t ecam(unsigned slot, unsigned reg)
{
    return ECAM + (slot << 15) + reg;
}

static uint32_t cfg_read(struct fix *f, unsigned slot, unsigned reg, unsigned size)
{
    return (uint32_t)bus_read(f->fe->env.mmio, ecam(slot, reg), size);
}

static void cfg_write(struct fix *f, unsigned slot, unsigned reg, unsigned size, uint32_t val)
{
    bus_write(f->fe->env.mmio, ecam(slot, reg), size, val);
}

static uint32_t port_read(struct fix *f, uint32_t address, unsigned port, unsigned size)
{
    bus_write(f->fe->env.pio, 0xcf8, 4, address);
    return (uint32_t)bus_read(f->fe->env.pio, port, size);
}

/* Who answers at an address: 7 or 8 for a BAR, 0xff for nobody. */
static unsigned who(struct fix *f, uint64_t addr)
{
    return (unsigned)(bus_read(f->fe->env.mmio, addr, 4) >> 24);
}

/* --- Tests ----------------------------------------------------------------- */

static void test_both_ways_reach_configuration_space(void **state)
{
    static const struct {
        const char *why;
        uint32_t address;
        unsigned port, size;
        uint32_t val;
    } rows[] = {
        {"the host bridge",             0x80000000, 0xcfc, 4, 0x0d578086},
        {"its class",                   0x80000008, 0xcfc, 4, 0x06000000},
        {"slot 3",                      0x80001800, 0xcfc, 4, 0x56781234},
        {"a word of it",                0x80001800, 0xcfe, 2, 0x5678    },
        {"a byte of it",                0x80001800, 0xcfd, 1, 0x12      },
        {"low address bits are not",    0x80001803, 0xcfc, 4, 0x56781234},
        {"not enabled",                 0x00001800, 0xcfc, 4, UINT32_MAX},
        {"nobody in slot 5",            0x80002800, 0xcfc, 4, UINT32_MAX},
        {"no function 1",               0x80001900, 0xcfc, 4, UINT32_MAX},
        {"no bus 1",                    0x80011800, 0xcfc, 4, UINT32_MAX},
        {"across the end of the dword", 0x80001800, 0xcfe, 4, UINT32_MAX},
        {"first capability",            0x80001834, 0xcfc, 1, 0x40      },
        {"it has a link",               0x80001840, 0xcfc, 4, 0x02014809},
        {"the next ends the list",      0x80001848, 0xcfc, 4, 0x02010009},
        {"status says so",              0x80001804, 0xcfe, 2, 0x0010    },
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        print_message("row %zu: %s\n", i, rows[i].why);
        assert_int_equal(port_read(f, rows[i].address, rows[i].port, rows[i].size), rows[i].val);
    }
    assert_int_equal(cfg_read(f, 0, 0, 4), 0x0d578086);
    assert_int_equal(cfg_read(f, 3, 2, 2), 0x5678);
    assert_int_equal(cfg_read(f, 3, 0x100, 4), 0); /* no extended capability */
    assert_int_equal(cfg_read(f, 3, 0xffc, 4), 0);
    assert_int_equal(cfg_read(f, 9, 0, 4), UINT32_MAX);
    assert_true(bus_read(f->fe->env.mmio, ecam(3, 0), 8) == UINT64_MAX);
}

static void test_address_latch_takes_whole_dwords_only(void **state)
{
    struct fix *f = *state;

    bus_write(f->fe->env.pio, 0xcf8, 4, UINT32_MAX);
    assert_int_equal(bus_read(f->fe->env.pio, 0xcf8, 4), 0x80fffffc);
    bus_write(f->fe->env.pio, 0xcfb, 1, 1); /* what Linux does to probe */
    bus_write(f->fe->env.pio, 0xcf9, 1, 6);
    bus_write(f->fe->env.pio, 0xcf8, 2, 0);
    assert_int_equal(bus_read(f->fe->env.pio, 0xcf8, 4), 0x80fffffc);
    assert_int_equal(bus_read(f->fe->env.pio, 0xcf8, 2), 0xffff);
}

static void test_addresses_are_handed_out(void **state)
{
    struct fix *f = *state;
    struct err err = {0};
    struct toy_config cfg = {
        .place = {.bus = f->bus, .slot = 3},
          .doorbell = -1
    };
    struct device *dev;

    assert_int_equal(cfg_read(f, 3, 0x10, 4), (uint32_t)MMIO64 | 4);
    assert_int_equal(cfg_read(f, 3, 0x14, 4), MMIO64 >> 32);
    assert_int_equal(cfg_read(f, 3, 0x18, 4), MMIO32);
    assert_int_equal(cfg_read(f, 4, 0x10, 4), (uint32_t)(MMIO64 + SIZE) | 4);
    assert_int_equal(cfg_read(f, 4, 0x18, 4), MMIO32 + 0x1000);
    assert_int_equal(who(f, MMIO64 + SIZE), 7);
    assert_int_equal(who(f, MMIO32 + 0x1000), 8);
    assert_int_equal(pci_bus_free_slot(f->bus, NULL), 1);
    assert_int_equal(device_new(&toy_ops, &f->fe->env, "c", &cfg, &dev, &err), -EEXIST);
    assert_string_equal(err.msg, "c: PCI slot 3 is taken by a");
    cfg.place.slot = 32;
    assert_int_equal(device_new(&toy_ops, &f->fe->env, "c", &cfg, &dev, NULL), -EINVAL);
    /* A place that was left is used again. */
    device_free(f->toys[0]);
    assert_int_equal(who(f, MMIO64), 0xff);
    f->toys[0] = new_toy(f, 3, -1);
    assert_int_equal(cfg_read(f, 3, 0x18, 4), MMIO32);
}

static void test_full_windows_are_refused(void **state)
{
    struct fix *f = *state;
    struct device *more[16];
    struct err err = {0};
    int rc = 0;
    unsigned n;

    for (n = 0; n < ARRAY_LEN(more) && rc >= 0; n++) {
        struct toy_config cfg = {
            .place = {.bus = f->bus, .slot = 5 + n},
              .doorbell = -1
        };

        rc = device_new(&toy_ops, &f->fe->env, "c", &cfg, &more[n], &err);
    }
    assert_int_equal(rc, -ENOSPC);
    assert_string_equal(err.msg, "c: no 65536 bytes of 64-bit PCI memory left");
    assert_int_equal(n - 1, 14); /* 1 MiB holds 16 */
    while (--n)
        device_free(more[n - 1]);
}

static void test_bars_are_sized_and_moved(void **state)
{
    struct fix *f = *state;

    cfg_write(f, 3, 0x04, 2, 0);
    assert_int_equal(who(f, MMIO64), 0xff);
    cfg_write(f, 3, 0x10, 4, UINT32_MAX);
    cfg_write(f, 3, 0x14, 4, UINT32_MAX);
    cfg_write(f, 3, 0x18, 4, UINT32_MAX);
    cfg_write(f, 3, 0x1c, 4, UINT32_MAX);
    assert_int_equal(cfg_read(f, 3, 0x10, 4), (uint32_t)-SIZE | 4);
    assert_int_equal(cfg_read(f, 3, 0x14, 4), UINT32_MAX);
    assert_int_equal(cfg_read(f, 3, 0x18, 4), 0xfffff000);
    assert_int_equal(cfg_read(f, 3, 0x1c, 4), 0); /* not implemented */
    cfg_write(f, 3, 0x10, 4, 0xd0010000);
    cfg_write(f, 3, 0x14, 4, 0);
    cfg_write(f, 3, 0x1a, 2, 0xd002); /* a word of it */
    cfg_write(f, 3, 0x18, 2, 0x3000);
    assert_int_equal(who(f, 0xd0010000), 0xff);
    cfg_write(f, 3, 0x04, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(who(f, 0xd0010000), 7);
    assert_int_equal(who(f, 0xd0023000), 8);
    assert_int_equal(who(f, MMIO64), 0xff);
    /* While decoding, halves move one at a time. */
    cfg_write(f, 3, 0x14, 4, 2);
    assert_int_equal(who(f, 0xd0010000), 0xff);
    assert_int_equal(who(f, UINT64_C(0x2d0010000)), 7);
    device_lock(f->toys[0]);
    toy_reset(f->toys[0]);
    device_unlock(f->toys[0]);
    assert_int_equal(who(f, MMIO64), 7);
}

static void test_collisions_resolve_themselves(void **state)
{
    struct fix *f = *state;

    /* Over the other device's, over the host bridge's window, at the very top. */
    cfg_write(f, 3, 0x18, 4, MMIO32 + 0x1000);
    assert_int_equal(who(f, MMIO32), 0xff);
    bus_write(f->fe->env.mmio, MMIO32 + 0x1000, 4, 77);
    assert_int_equal(container_of(f->toys[1], struct toy, dev)->last_write, 77);
    cfg_write(f, 4, 0x18, 4, ECAM);
    assert_int_equal(cfg_read(f, 0, 0, 4), 0x0d578086);
    bus_write(f->fe->env.mmio, MMIO32 + 0x1000, 4, 78);
    assert_int_equal(container_of(f->toys[0], struct toy, dev)->last_write, 78);
    cfg_write(f, 4, 0x10, 4, UINT32_MAX);
    cfg_write(f, 4, 0x14, 4, UINT32_MAX);
    assert_int_equal(who(f, -(uint64_t)SIZE), 7);
    /* Two that swap places. */
    cfg_write(f, 3, 0x18, 4, 0xd0000000);
    cfg_write(f, 4, 0x18, 4, 0xd0001000);
    cfg_write(f, 3, 0x18, 4, 0xd0001000);
    cfg_write(f, 4, 0x18, 4, 0xd0000000);
    bus_write(f->fe->env.mmio, 0xd0001000, 4, 1);
    bus_write(f->fe->env.mmio, 0xd0000000, 4, 2);
    assert_int_equal(container_of(f->toys[0], struct toy, dev)->last_write, 1);
    assert_int_equal(container_of(f->toys[1], struct toy, dev)->last_write, 2);
}

static void test_doorbells_follow_the_bar(void **state)
{
    struct fix *f = *state;
    uint64_t n;

    assert_int_equal(f->fe->nr_ioeventfds, 1);
    assert_int_equal(f->fe->ioeventfds[0].gpa, MMIO64 + 0x100);
    cfg_write(f, 3, 0x04, 2, 0);
    assert_int_equal(f->fe->nr_ioeventfds, 0);
    cfg_write(f, 3, 0x10, 4, 0xd0000000);
    cfg_write(f, 3, 0x14, 4, 0);
    cfg_write(f, 3, 0x04, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(f->fe->ioeventfds[0].gpa, 0xd0000100);
    fake_env_mmio_write(f->fe, 0xd0000100, 2, 0);
    assert_int_equal(read(f->doorbell, &n, sizeof(n)), sizeof(n));
    /* A machine that cannot do it: the write arrives as any other. */
    f->fe->ioeventfd_rc = -ENOSPC;
    cfg_write(f, 3, 0x04, 2, 0);
    f->fe->nr_ioeventfds = 0;
    cfg_write(f, 3, 0x04, 2, PCI_COMMAND_MEMORY);
    fake_env_mmio_write(f->fe, 0xd0000100, 2, 5);
    assert_int_equal(container_of(f->toys[0], struct toy, dev)->last_write, 5);
    f->fe->ioeventfd_rc = 0;
}

static void test_only_some_bits_can_be_written(void **state)
{
    struct fix *f = *state;

    for (unsigned reg = 0; reg < 256; reg++)
        if (reg != 4 && reg != 5)
            cfg_write(f, 3, reg, 1, 0xff);
    assert_int_equal(cfg_read(f, 3, 0x00, 4), 0x56781234);
    assert_int_equal(cfg_read(f, 3, 0x08, 4), 0xff000000);
    assert_int_equal(cfg_read(f, 3, 0x0c, 4), 0);
    assert_int_equal(cfg_read(f, 3, 0x34, 4), 0x40);
    assert_int_equal(cfg_read(f, 3, 0x3c, 4), 0xff);
    assert_int_equal(cfg_read(f, 3, 0x40, 4), 0x02014809);
    cfg_write(f, 3, 0x04, 4, UINT32_MAX);
    assert_int_equal(cfg_read(f, 3, 0x04, 4), 0x00100406);
    cfg_write(f, 3, 0x05, 1, 0);
    assert_int_equal(cfg_read(f, 3, 0x04, 2), 0x0006);
    assert_int_equal(container_of(f->toys[0], struct toy, dev)->commands, 2);
}

static void test_state_round_trip(void **state)
{
    struct fix *f = *state;
    struct pci_bus *bus;
    struct device *root;
    struct pci_root_config cfg;

    (void)port_read(f, 0x80001810, 0xcfc, 4);
    assert_int_equal(pci_bus_new(&(struct pci_bus_config){0}, &bus), 0);
    cfg.bus = bus;
    assert_int_equal(device_new(&pci_root_ops, &f->fe->env, "pci", &cfg, &root, NULL), 0);
    device_check_bad_state(f->root, root);
    device_check_round_trip(f->root, root);
    assert_int_equal(root->ops->read(root, PCI_ROOT_WIN_PORTS, 0, 4), 0x80001810);
    device_free(root);
    pci_bus_free(bus);

    /* Where the guest had put it is where it is after a load. */
    cfg_write(f, 4, 0x04, 2, 0);
    cfg_write(f, 3, 0x18, 4, 0xd0005000);
    cfg_write(f, 3, 0x3c, 1, 11);
    f->toys[0]->id[0] = 'b';
    device_check_bad_state(f->toys[0], f->toys[1]);
    device_check_round_trip(f->toys[0], f->toys[1]);
    assert_int_equal(cfg_read(f, 4, 0x18, 4), 0xd0005000);
    cfg_write(f, 3, 0x04, 2, 0);
    device_lock(f->toys[1]);
    toy_resume(f->toys[1]);
    device_unlock(f->toys[1]);
    bus_write(f->fe->env.mmio, 0xd0005000, 4, 3);
    assert_int_equal(container_of(f->toys[1], struct toy, dev)->last_write, 3);
}

static void test_impossible_states_are_refused(void **state)
{
    struct fix *f = *state;
    struct toy *t = container_of(f->toys[0], struct toy, dev);
    struct pci_func *pci = &t->pci;
    struct {
        const char *why;
        uint32_t *reg;
        uint32_t val;
    } rows[] = {
        {"b.pci.bar_regs[0]: 0 is not one of this BAR",          &pci->bar_regs[0], 0         },
        {"b.pci.bar_regs[0]: 0x1004 is not one of this BAR",     &pci->bar_regs[0], 0x1004    },
        {"b.pci.bar_regs[3]: 0x1 is not one of this BAR",        &pci->bar_regs[3], 1         },
        {"b.pci.bar_regs[2]: 0xc0000004 is not one of this BAR", &pci->bar_regs[2], MMIO32 | 4},
    };

    t->dev.id[0] = 'b';
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint32_t old = *rows[i].reg;
        struct state_buf buf;
        struct err err = {0};

        *rows[i].reg = rows[i].val;
        buf = device_check_save(f->toys[0]);
        assert_int_equal(device_check_load(f->toys[1], buf.data, buf.len, &err), -EBADMSG);
        assert_string_equal(err.msg, rows[i].why);
        *rows[i].reg = old;
        state_buf_release(&buf);
    }
    assert_int_equal(cfg_read(f, 4, 0x18, 4), MMIO32 + 0x1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_ways_reach_configuration_space, setup, teardown),
        cmocka_unit_test_setup_teardown(test_address_latch_takes_whole_dwords_only, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_addresses_are_handed_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_windows_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bars_are_sized_and_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_collisions_resolve_themselves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_doorbells_follow_the_bar, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_some_bits_can_be_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_impossible_states_are_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
