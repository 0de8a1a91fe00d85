/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI bus: functions in slots, and the addresses of their memory.
 *
 * Owned by the machine, shared by the host bridge (devices/pci_root.h) and the
 * functions.  Only function 0 of each slot exists.
 *
 * A BAR whose address collides with another window is not decoded; it is as
 * soon as the other one is gone.
 *
 * Locks: the bus's own comes after every device's.  An access to configuration
 * space holds the host bridge's lock, then that of the function's device.
 */
#ifndef DEVICES_PCI_BUS_H
#define DEVICES_PCI_BUS_H

#include "devices/pci.h"

struct pci_window {
    uint64_t base; /* guest physical address */
    uint64_t len;  /* bytes; 0: no such window */
};

struct pci_bus_config {
    struct pci_window mmio32; /* addresses given out to 32-bit BARs; below 4 GiB */
    struct pci_window mmio64; /* to 64-bit BARs; without it they get from mmio32 */
};

/* Where a function goes: part of the configuration of every PCI device. */
struct pci_place {
    struct pci_bus *bus; /* borrowed; outlives the device */
    unsigned slot;       /* 1 to 31; 0: the first free one */
    bool bars_below_4g;  /* make 64-bit BARs 32-bit: firmware boots from it */
};

/**
 * pci_bus_new() - an empty bus.
 *
 * Return: 0 and *@ret_bus, owned, to be given to pci_bus_free(); -ENOMEM.
 * Threads: control.
 */
CHECKED int pci_bus_new(const struct pci_bus_config *cfg, struct pci_bus **ret_bus);

/**
 * pci_bus_free() - free a bus.
 * @bus: taken, with no function left; NULL is allowed.
 *
 * Threads: control.
 */
void pci_bus_free(struct pci_bus *bus);

/**
 * pci_bus_attach() - put a function into a slot and give its BARs addresses.
 * @slot: 0, for the host bridge, to 31.
 *
 * The addresses are the lowest in the window that no function has now or had
 * at its own start.  Nothing is decoded before pci_func_reset().
 *
 * Return: 0; -EEXIST if the slot is taken; -EINVAL past the last slot; -ENOSPC
 * if a window is full.
 * Threads: control.
 */
CHECKED int pci_bus_attach(struct pci_bus *bus, struct pci_func *f, unsigned slot, struct err *err);

/**
 * pci_bus_detach() - take a function out; its windows are gone when this returns.
 * @f: quiet; one that is not attached is ignored.  Its device's lock is not held.
 *
 * A handler that a vCPU has already entered may still run.
 * Threads: control.
 */
void pci_bus_detach(struct pci_func *f);

/**
 * pci_bus_free_slot() - the first free slot from 1 on.
 *
 * Return: the slot; -ENOSPC.
 * Threads: control.
 */
CHECKED int pci_bus_free_slot(struct pci_bus *bus, struct err *err);

/**
 * pci_bus_remap() - the function's registers have changed: move its windows.
 *
 * Threads: with the lock of the function's device held.
 */
void pci_bus_remap(struct pci_func *f);

/**
 * pci_bus_config_read() - a guest read of somebody's configuration space.
 * @slot: any value.  @off: 0 to 4095.
 *
 * Return: the value; all ones where there is nothing, or for an access that
 * crosses a dword.
 * Threads: vcpu, with no lock but the host bridge's.
 */
uint32_t pci_bus_config_read(struct pci_bus *bus, unsigned slot, unsigned off, unsigned size);

/**
 * pci_bus_config_write() - a guest write to somebody's configuration space.
 *
 * As pci_bus_config_read().
 * Threads: with dev->lock held.
 */
void pci_bus_config_write(struct pci_bus *bus, unsigned slot, unsigned off, unsigned size,
                          uint32_t val);

#endif
