/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI function: configuration space with a type 0 header, base address
 * registers for memory, capabilities.
 *
 * Part of a device, which initialises it, adds BARs and capabilities to it in
 * realize and attaches it to a bus (devices/pci_bus.h).  Guest accesses to the
 * configuration space come in through the bus; accesses to the memory behind a
 * BAR come to the device's read and write with the BAR's window number.
 *
 * The VMM plays the part of the firmware that would hand out addresses: after
 * reset the BARs hold the addresses given out when the function was attached,
 * memory decoding and bus mastering are on.  From then on the guest decides.
 */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H

#include "core/device.h"
#include "core/state.h"

struct pci_bus;
struct pci_func;

enum {
    PCI_SLOTS = 32,
    PCI_BARS = 6,
    PCI_CONFIG_SIZE = 256,
    PCI_DOORBELLS_MAX = 256,

    PCI_COMMAND_MEMORY = 1 << 1,
    PCI_COMMAND_MASTER = 1 << 2,
    PCI_COMMAND_INTX_DISABLE = 1 << 10,

    PCI_CAP_VENDOR = 0x09,
    PCI_CAP_MSIX = 0x11,
};

#define PCI_UNMAPPED UINT64_MAX

struct pci_identity {
    uint16_t vendor;
    uint16_t device;
    uint16_t subsystem_vendor;
    uint16_t subsystem;
    uint8_t revision;
    uint8_t class_code;
    uint8_t subclass;
    uint8_t prog_if;
};

/* What a function does beyond its header.  All called with dev->lock held; each may be NULL. */
struct pci_func_ops {
    /*
     * A read of @size bytes at @off inside a capability.  *val is what the
     * image holds and may be replaced.
     */
    void (*cap_read)(struct pci_func *f, unsigned off, unsigned size, uint32_t *val);
    /* A write inside a capability; the image itself never changes. */
    void (*cap_write)(struct pci_func *f, unsigned off, unsigned size, uint32_t val);
    /* The command register has changed. */
    void (*command_changed)(struct pci_func *f);
};

struct pci_bar {
    uint64_t size; /* bytes, a power of two >= 4096; 0: no BAR */
    uint64_t initial;
    unsigned win;
    bool is_64bit;
    /* Under the bus's lock: */
    uint64_t want;   /* address that the registers ask for, or PCI_UNMAPPED */
    uint64_t mapped; /* address at which the window is, or PCI_UNMAPPED */
};

/* A cell of a BAR of which a write only signals a descriptor. */
struct pci_doorbell {
    unsigned bar;
    uint64_t off;
    int fd; /* borrowed */
    bool registered;
};

struct pci_func {
    /* State. */
    uint16_t command;
    uint8_t interrupt_line;
    uint32_t bar_regs[PCI_BARS];

    /* Fixed once attached. */
    struct device *dev; /* the owner */
    const struct pci_func_ops *ops;
    uint8_t image[PCI_CONFIG_SIZE]; /* read-only registers */
    uint8_t last_cap;               /* offset of the last capability, 0 if none */
    uint8_t end_of_caps;            /* first free byte */
    struct pci_bar bars[PCI_BARS];
    struct pci_bus *bus;
    unsigned slot;

    /* Under the bus's lock. */
    struct pci_doorbell *doorbells; /* owned */
    unsigned nr_doorbells;
    unsigned users; /* accesses to configuration space that are under way */
};

extern const struct state_desc pci_func_state;

/**
 * pci_func_init() - an unattached function without BARs and capabilities.
 * @dev: the owner; borrowed for the life of the function.
 * @ops: static.
 *
 * Threads: control.
 */
void pci_func_init(struct pci_func *f, struct device *dev, const struct pci_func_ops *ops,
                   const struct pci_identity *id);

/**
 * pci_func_release() - detach and free; also half-initialised or all zero.
 *
 * Threads: control, the device is quiet and its lock is not held.
 */
void pci_func_release(struct pci_func *f);

/**
 * pci_func_add_bar() - claim memory.
 * @index:    0 to 5; a 64-bit BAR takes the next one too.
 * @size:     bytes, a power of two, at least 4 KiB.
 * @win:      number that the device's read and write get.
 *
 * Threads: control, before pci_bus_attach().
 */
void pci_func_add_bar(struct pci_func *f, unsigned index, uint64_t size, bool is_64bit,
                      unsigned win);

/**
 * pci_func_add_cap() - append a capability.
 * @id:   PCI_CAP_*.
 * @body: what follows the two bytes of id and link.
 * @len:  bytes of @body.
 *
 * Return: offset of the capability in configuration space; -ENOSPC.
 * Threads: control, before pci_bus_attach().
 */
CHECKED int pci_func_add_cap(struct pci_func *f, uint8_t id, const void *body, unsigned len);

/**
 * pci_func_add_doorbell() - have guest writes to a cell of a BAR signal a descriptor.
 * @fd: borrowed until pci_func_release().
 *
 * Where the machine cannot do it the writes come to the device as any other.
 *
 * Return: 0; -ENOMEM; -E2BIG past PCI_DOORBELLS_MAX.
 * Threads: control, before pci_bus_attach().
 */
CHECKED int pci_func_add_doorbell(struct pci_func *f, unsigned bar, uint64_t off, int fd);

/**
 * pci_func_reset() - power-on values; the windows move where they say.
 *
 * Threads: with dev->lock held.
 */
void pci_func_reset(struct pci_func *f);

/**
 * pci_func_resume() - the state may have been loaded: move the windows where it says.
 *
 * Threads: with dev->lock held.
 */
void pci_func_resume(struct pci_func *f);

/**
 * pci_func_is_master() - whether the guest lets the function reach memory and send messages.
 *
 * Return: true if so.
 * Threads: with dev->lock held.
 */
static inline bool pci_func_is_master(const struct pci_func *f)
{
    return f->command & PCI_COMMAND_MASTER;
}

/**
 * pci_func_read() - a read of configuration space.
 * @off:  0 to 4095, as from the guest; past the first 256 bytes all is zero.
 * @size: 1, 2 or 4, not crossing a dword.
 *
 * Return: the value.
 * Threads: with dev->lock held.
 */
uint32_t pci_func_read(struct pci_func *f, unsigned off, unsigned size);

/**
 * pci_func_write() - a write to configuration space.
 *
 * As pci_func_read().
 * Threads: with dev->lock held.
 */
void pci_func_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val);

#endif
