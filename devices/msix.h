/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X: the vector table, the pending bits and the capability's control word.
 *
 * Part of a device: its owner decodes the accesses, msix_* keeps the meaning.
 * A vector that is masked when its event happens is remembered in the pending
 * bits and delivered when it is unmasked.
 */
#ifndef DEVICES_MSIX_H
#define DEVICES_MSIX_H

#include "core/device.h"
#include "core/state.h"

enum {
    MSIX_VECTORS_MAX = 256,
    MSIX_ENTRY_SIZE = 16, /* bytes of one vector in the table */
    MSIX_PBA_WORDS = MSIX_VECTORS_MAX / 64,
    MSIX_NO_VECTOR = 0xffff,

    MSIX_CTRL_MASK_ALL = 1 << 14, /* message control word */
    MSIX_CTRL_ENABLE = 1 << 15,
};

/* One vector, as in the table. */
struct msix_entry {
    uint32_t addr_lo;
    uint32_t addr_hi;
    uint32_t data;
    uint32_t ctrl; /* bit 0: masked */
};

struct msix {
    /* State. */
    bool enabled;
    bool mask_all;
    uint32_t nr; /* vectors: fixed at birth, must match on load */
    struct msix_entry entries[MSIX_VECTORS_MAX];
    uint64_t pending[MSIX_PBA_WORDS];
};

extern const struct state_desc msix_state;

/**
 * msix_init() - a capability with some vectors, in reset.
 * @nr: 1 to MSIX_VECTORS_MAX.
 *
 * Threads: control.
 */
void msix_init(struct msix *m, unsigned nr);

/**
 * msix_reset() - disabled, every vector masked, nothing pending.
 *
 * Threads: with dev->lock held.
 */
void msix_reset(struct msix *m);

/**
 * msix_notify() - an event for a vector: deliver it, or keep it pending.
 * @dev:    whose environment delivers; its lock is held.
 * @vector: MSIX_NO_VECTOR or anything past the table is ignored.
 *
 * Nothing happens while the capability is disabled.
 * Threads: with dev->lock held.
 */
void msix_notify(struct msix *m, struct device *dev, unsigned vector);

/**
 * msix_control_read() - the capability's message control word.
 *
 * Return: the word.
 * Threads: with dev->lock held.
 */
uint16_t msix_control_read(const struct msix *m);

/**
 * msix_control_write() - enable, mask; what became deliverable is delivered.
 * Threads: with dev->lock held.
 */
void msix_control_write(struct msix *m, struct device *dev, uint16_t val);

/**
 * msix_table_read() - a guest read of the vector table.
 * @off: bytes into the table; past its end reads as zero.
 *
 * Return: the value; all ones for an access that is neither 4 nor 8 aligned bytes.
 * Threads: with dev->lock held.
 */
uint64_t msix_table_read(const struct msix *m, struct device *dev, uint64_t off, unsigned size);

/**
 * msix_table_write() - a guest write to the vector table.
 * Threads: with dev->lock held.
 */
void msix_table_write(struct msix *m, struct device *dev, uint64_t off, unsigned size,
                      uint64_t val);

/**
 * msix_pba_read() - a guest read of the pending bits; writes have no effect.
 *
 * Return: as msix_table_read().
 * Threads: with dev->lock held.
 */
uint64_t msix_pba_read(const struct msix *m, struct device *dev, uint64_t off, unsigned size);

#endif
