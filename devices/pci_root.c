/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources: PCI Local Bus Specification 3.0, 3.2.2.3.2 (mechanism 1); PCI
 * Express Base Specification 3.0, 7.2.2 (memory-mapped).
 *
 * Deviation: one bus, function 0 only; everything else reads as all ones.
 */
#include "devices/pci_root.h"

#include <assert.h>
#include <errno.h>

/* --- Registers ----------------------------------------------------------- */

enum {
    PCI_ROOT_VENDOR = 0x8086,
    PCI_ROOT_DEVICE = 0x0d57,
    PCI_CLASS_BRIDGE = 0x06,

    PORT_ADDRESS = 0,
    PORT_DATA = 4,
};

#define CONFIG_ENABLE   UINT32_C(0x80000000)
#define CONFIG_WRITABLE UINT32_C(0x80fffffc)

struct pci_root {
    struct device dev;

    /* State. */
    uint32_t config_address;
    struct pci_func func;

    /* Fixed. */
    struct pci_bus *bus;
};

static struct pci_root *to_root(struct device *dev)
{
    assert(dev->ops == &pci_root_ops);
    return container_of(dev, struct pci_root, dev);
}

static const struct pci_func_ops func_ops = {0};

/* --- Life cycle ---------------------------------------------------------- */

static int pci_root_realize(struct device *dev, const void *cfg, struct err *err)
{
    static const struct pci_identity id = {
        .vendor = PCI_ROOT_VENDOR,
        .device = PCI_ROOT_DEVICE,
        .class_code = PCI_CLASS_BRIDGE,
    };
    const struct pci_root_config *conf = cfg;
    struct pci_root *r = to_root(dev);

    r->bus = conf->bus;
    pci_func_init(&r->func, dev, &func_ops, &id);
    return pci_bus_attach(r->bus, &r->func, 0, err);
}

static void pci_root_destroy(struct device *dev)
{
    pci_func_release(&to_root(dev)->func);
}

static void pci_root_reset(struct device *dev)
{
    struct pci_root *r = to_root(dev);

    r->config_address = 0;
    pci_func_reset(&r->func);
}

/* --- Guest access -------------------------------------------------------- */

/* Bus 0, function 0: the slot; PCI_SLOTS for all that is not there. */
static unsigned slot_of(unsigned bus, unsigned devfn)
{
    return bus || devfn & 7 ? PCI_SLOTS : devfn >> 3;
}

/* Slot 0 is reached directly: its lock is held already. */
static uint32_t config_read(struct pci_root *r, unsigned slot, unsigned off, unsigned size)
{
    if (slot == 0)
        return pci_func_read(&r->func, off, size);
    return pci_bus_config_read(r->bus, slot, off, size);
}

static void config_write(struct pci_root *r, unsigned slot, unsigned off, unsigned size,
                         uint32_t val)
{
    if (slot == 0)
        pci_func_write(&r->func, off, size, val);
    else
        pci_bus_config_write(r->bus, slot, off, size, val);
}

/* What an access names; false if it can name nothing. */
static bool decode(struct pci_root *r, unsigned win, uint64_t off, unsigned size,
                   unsigned *ret_slot, unsigned *ret_reg)
{
    uint32_t a = r->config_address;

    if (size > 4 || (off & 3) + size > 4) {
        device_guest_error(&r->dev, "configuration access of %u bytes at %#llx", size,
                           (unsigned long long)off);
        return false;
    }
    if (win == PCI_ROOT_WIN_ECAM) {
        *ret_slot = slot_of((unsigned)(off >> 20), off >> 12 & 0xff);
        *ret_reg = off & 0xfff;
        return true;
    }
    *ret_slot = slot_of(a >> 16 & 0xff, a >> 8 & 0xff);
    *ret_reg = (a & 0xfc) + (unsigned)(off & 3);
    return a & CONFIG_ENABLE;
}

static uint64_t pci_root_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    struct pci_root *r = to_root(dev);
    unsigned slot, reg;

    if (win == PCI_ROOT_WIN_PORTS && off < PORT_DATA)
        return off == PORT_ADDRESS && size == 4 ? r->config_address : UINT64_MAX;
    if (!decode(r, win, off, size, &slot, &reg))
        return UINT64_MAX;
    return config_read(r, slot, reg, size);
}

static void pci_root_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                           uint64_t val)
{
    struct pci_root *r = to_root(dev);
    unsigned slot, reg;

    if (win == PCI_ROOT_WIN_PORTS && off < PORT_DATA) {
        /* PCI 3.0, 3.2.2.3.2: only "a full DWORD write" is one to CONFIG_ADDRESS */
        if (off == PORT_ADDRESS && size == 4)
            r->config_address = (uint32_t)val & CONFIG_WRITABLE;
        return;
    }
    if (decode(r, win, off, size, &slot, &reg))
        config_write(r, slot, reg, size, (uint32_t)val);
}

/* --- State --------------------------------------------------------------- */

static const struct state_field pci_root_fields[] = {
    /* clang-format off */
    STATE(struct pci_root,        1, U32, config_address),
    STATE_STRUCT(struct pci_root, 1, &pci_func_state, func),
    /* clang-format on */
};

static int pci_root_check(const void *scratch, const void *live, struct err *err)
{
    const struct pci_root *r = scratch;

    (void)live;
    if (r->config_address & ~CONFIG_WRITABLE)
        return err_set(err, -EBADMSG, "config_address: %#x", r->config_address);
    return 0;
}

static const struct state_desc pci_root_state = {
    .name = "pci-root",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct pci_root),
    .fields = pci_root_fields,
    .nr_fields = ARRAY_LEN(pci_root_fields),
    .check = pci_root_check,
};

/* --- Ops table ----------------------------------------------------------- */

const struct device_ops pci_root_ops = {
    .type = "pci-root",
    .size = sizeof(struct pci_root),
    .realize = pci_root_realize,
    .destroy = pci_root_destroy,
    .reset = pci_root_reset,
    .read = pci_root_read,
    .write = pci_root_write,
    .state = &pci_root_state,
};
