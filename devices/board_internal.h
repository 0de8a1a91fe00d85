/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the board, for devices/board*.c.
 */
#ifndef DEVICES_BOARD_INTERNAL_H
#define DEVICES_BOARD_INTERNAL_H

#include "core/config/vm_config.h"
#include "core/kvm.h"
#include "core/vm.h"
#include "core/x86/layout.h"
#include "devices/char_backend.h"
#include "devices/pci_bus.h"

struct board {
    struct vm *vm;               /* borrowed */
    const struct vm_config *cfg; /* borrowed */
    unsigned phys_bits;
    struct err *err; /* of the build that is going on */

    struct device *ioapic; /* these belong to the machine */
    struct device *ged;
    struct device *genid;
    struct kvm_ioapic_route routes[KVM_IOAPIC_PINS]; /* what KVM knows; under the IOAPIC's lock */

    struct pci_bus *pci;
    unsigned last_slot;                        /* given out without being asked for */
    const struct device *slots[X86_PCI_SLOTS]; /* who sits where */
    struct device **disks;
    unsigned nr_disks;
    struct device **nets;
    unsigned nr_nets;

    struct char_backend serial;
    struct char_backend console;
    struct char_backend debug_console;
};

/**
 * board_mmio64() - the 64-bit PCI window.
 *
 * Threads: control.
 */
struct pci_window board_mmio64(const struct board *b);

/**
 * board_add_pci() - the PCI bus and every virtio device (devices/board_pci.c).
 *
 * Return: 0; what the devices return.
 * Threads: control, while building.
 */
CHECKED int board_add_pci(struct board *b);

/**
 * board_bdf() - "0000:00:03.0" of a device that is on the PCI bus.
 *
 * Return: false if it is not.
 * Threads: control.
 */
bool board_bdf(struct board *b, const struct device *dev, char *buf, size_t cap);

/**
 * board_add_consoles() - serial port, debug console, and the back ends (devices/board_console.c).
 *
 * Return: 0; as char_backend_open() and the devices.
 * Threads: control, while building.
 */
CHECKED int board_add_consoles(struct board *b);

/**
 * board_acquire() - lock every disk image, open every tap, have the serial port's socket.
 *
 * Return: 0; -EAGAIN names the disk that somebody else uses; tap_open()'s; then
 * nothing is held.
 * Threads: control or worker.
 */
CHECKED int board_acquire(void *board, struct err *err);

/**
 * board_release() - unlock and close what board_acquire() took.
 *
 * Threads: control or worker.
 */
void board_release(void *board);

/**
 * board_sync() - have every completed write to a disk be on stable storage.
 *
 * Return: 0; disk_sync()'s.
 * Threads: control, or a worker that the VM was lent to.
 */
CHECKED int board_sync(void *board, struct err *err);

/**
 * board_set_macs() - give every network device the MAC of the configuration.
 *
 * Threads: control or worker, while paused.
 */
void board_set_macs(struct board *b);

/**
 * board_announce() - have every network device announce itself.
 *
 * Threads: any.
 */
void board_announce(void *board);

/**
 * board_write_tables(), board_write_smbios() - ACPI and SMBIOS, SMBIOS alone, into guest memory (devices/board_tables.c).
 *
 * Return: 0; as acpi_write() and smbios_write().
 * Threads: control, with the vCPUs parked.
 */
CHECKED int board_write_smbios(const struct board *b, struct err *err);
CHECKED int board_write_tables(void *board, uint64_t *ret_rsdp_gpa, struct err *err);

#endif
