/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An address space of devices: port I/O or memory-mapped I/O.
 *
 * A window is a range of addresses that belongs to one device.  Windows do not
 * overlap.  They may be added and removed while vCPUs run, also from inside a
 * device's own handler (a PCI BAR that the guest moves): the table is locked
 * only to look up, never while a handler runs.
 */
#ifndef CORE_BUS_H
#define CORE_BUS_H

#include "core/device.h"
#include "core/gmem.h"

enum {
    BUS_WINDOWS_MAX = 1024,
};

struct bus;

/**
 * bus_new() - an empty address space.
 * @end: first address past it, e.g. 0x10000 for ports; 0 means 2^64.
 *
 * Return: 0 and *@ret_bus, owned; -ENOMEM.
 * Threads: any.
 */
CHECKED int bus_new(uint64_t end, struct bus **ret_bus);

/**
 * bus_free() - free the table; the devices are not touched.
 * @bus: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void bus_free(struct bus *bus);

/**
 * bus_set_ram() - what answers where no window is: guest memory, where it is.
 * @gm: borrowed until bus_free(); NULL: nothing.
 *
 * Guest memory is KVM's business, not a bus's.  But a KVM that emulates an
 * instruction takes memory that it cannot read or write for a device, and a
 * signal that cuts short the fault of a page that userfaultfd serves is enough.
 *
 * Threads: before the first access.
 */
void bus_set_ram(struct bus *bus, struct gmem *gm);

/**
 * bus_add() - give a range to a device.
 * @base, @len: addresses; @len > 0.
 * @dev:        borrowed until bus_remove().
 * @win:        handed to the device's read and write.
 *
 * Return: 0; -EEXIST if it overlaps another window (named in @err); -EINVAL;
 * -E2BIG past BUS_WINDOWS_MAX.
 * Threads: any.
 */
CHECKED int bus_add(struct bus *bus, uint64_t base, uint64_t len, struct device *dev, unsigned win,
                    struct err *err);

/**
 * bus_remove() - take a range away.
 * @base: as given to bus_add(); unknown bases are ignored.
 *
 * A handler that another thread has already entered may still run.
 * Threads: any.
 */
void bus_remove(struct bus *bus, uint64_t base);

/**
 * bus_read() - a guest read of 1 to 8 bytes.
 *
 * Takes the device's lock around its handler.  An access that no window
 * covers whole reads as all ones, or as guest memory (bus_set_ram()).
 *
 * Return: the value, in the low @size bytes.
 * Threads: vcpu; any in tests.
 */
uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size);

/**
 * bus_write() - a guest write of 1 to 8 bytes; ignored where there is no window and no guest memory.
 *
 * Threads: vcpu; any in tests.
 */
void bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t val);

#endif
