/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's virtio driver, driving a virtio-pci device through its BAR and
 * through rings in the guest memory of a fake_env.
 *
 * Rings and buffers are written as a guest would write them: without marking
 * anything dirty.  Write everything first, then fake_env_oracle_begin(), then
 * kick and wait, then fake_env_oracle_end().
 *
 * Everything fails the test that runs where the device does not behave.
 */
#ifndef TESTS_FAKES_FAKE_VIRTIO_DRIVER_H
#define TESTS_FAKES_FAKE_VIRTIO_DRIVER_H

#include "devices/pci_bus.h"
#include "tests/fakes/fake_env.h"

enum {
    FVD_QUEUES_MAX = 16,
    FVD_RINGS_GPA = 0x10000,   /* memory for rings, and fvd_alloc() after them */
    FVD_MSI_ADDR = 0xfee00000, /* of every vector; data is FVD_MSI_DATA + vector */
    FVD_MSI_DATA = 0x40,
};

struct fvd_queue {
    uint16_t size;
    uint64_t desc_gpa;
    uint64_t avail_gpa;
    uint64_t used_gpa;
    uint16_t next_desc; /* descriptors are handed out round and round */
    uint16_t avail_idx;
    uint16_t last_used;
};

struct fvd {
    struct fake_env *fe;
    struct pci_bus *bus;
    unsigned slot;
    uint64_t bar;      /* where it is now */
    uint64_t features; /* agreed on */
    uint64_t next_gpa;
    struct fvd_queue queues[FVD_QUEUES_MAX];
};

/* A piece of a request. */
struct fvd_seg {
    uint64_t gpa;
    uint32_t len;
    bool writable;
};

/**
 * fvd_init() - find the device in its slot.
 * @fe, @bus: borrowed.
 *
 * Threads: the test, as all of the functions below.
 */
void fvd_init(struct fvd *d, struct fake_env *fe, struct pci_bus *bus, unsigned slot);

/**
 * fvd_read() - a read of the BAR.
 *
 * Return: the value.
 */
uint64_t fvd_read(struct fvd *d, uint64_t off, unsigned size);

/**
 * fvd_write() - a write to the BAR, past any ioeventfd.
 */
void fvd_write(struct fvd *d, uint64_t off, unsigned size, uint64_t val);

/**
 * fvd_offered() - the feature bits of the device.
 *
 * Return: the bits.
 */
uint64_t fvd_offered(struct fvd *d);

/**
 * fvd_negotiate() - reset, acknowledge, accept features.
 * @features: as the driver wants them; VIRTIO_VERSION_1 is added.
 *
 * Return: true if the device kept FEATURES_OK.
 */
bool fvd_negotiate(struct fvd *d, uint64_t features);

/**
 * fvd_setup_queue() - put a queue into guest memory and enable it.
 * @size: entries, or 0 for what the device suggests.
 */
void fvd_setup_queue(struct fvd *d, unsigned queue, uint16_t size);

/**
 * fvd_driver_ok() - unmask MSI-X, point the vectors, say DRIVER_OK.
 */
void fvd_driver_ok(struct fvd *d);

/**
 * fvd_start() - all of it: negotiate, set every queue up, DRIVER_OK.
 */
void fvd_start(struct fvd *d, uint64_t features, unsigned nr_queues, uint16_t size);

/**
 * fvd_alloc() - guest memory that nobody uses, zeroed.
 * @align: a power of two.
 *
 * Return: its address.
 */
uint64_t fvd_alloc(struct fvd *d, uint64_t len, uint64_t align);

/**
 * fvd_ptr() - guest memory as the guest sees it.
 *
 * Return: host address of [@gpa, @gpa + @len), which lies in one region.
 */
void *fvd_ptr(struct fvd *d, uint64_t gpa, uint64_t len);

/**
 * fvd_put() - write guest memory as the guest would.
 */
void fvd_put(struct fvd *d, uint64_t gpa, const void *src, size_t len);

/**
 * fvd_desc() - write one descriptor.
 */
void fvd_desc(struct fvd *d, uint64_t table_gpa, unsigned index, const struct fvd_seg *seg,
              uint16_t flags, uint16_t next);

/**
 * fvd_offer() - put a head into the available ring and publish it.
 */
void fvd_offer(struct fvd *d, unsigned queue, uint16_t head);

/**
 * fvd_add() - offer a request made of direct descriptors.
 *
 * Return: its head.
 */
uint16_t fvd_add(struct fvd *d, unsigned queue, const struct fvd_seg *segs, unsigned nr);

/**
 * fvd_add_indirect() - offer a request whose descriptors are in a table of their own.
 *
 * Return: its head.
 */
uint16_t fvd_add_indirect(struct fvd *d, unsigned queue, const struct fvd_seg *segs, unsigned nr);

/**
 * fvd_kick() - notify, as KVM would pass it on.
 */
void fvd_kick(struct fvd *d, unsigned queue);

/**
 * fvd_used() - take the next completion, if there is one.
 *
 * Return: true and the request.
 */
bool fvd_used(struct fvd *d, unsigned queue, uint16_t *ret_head, uint32_t *ret_len);

/**
 * fvd_wait() - run the loop until a request completes.
 *
 * Return: bytes that the device says it wrote.
 */
uint32_t fvd_wait(struct fvd *d, unsigned queue, uint16_t *ret_head);

/**
 * fvd_do() - offer one request, kick, wait for it.
 *
 * Return: bytes that the device says it wrote.
 */
uint32_t fvd_do(struct fvd *d, unsigned queue, const struct fvd_seg *segs, unsigned nr);

/**
 * fvd_pump() - run the loop until it has done what it can do at once.
 */
void fvd_pump(struct fvd *d);

/**
 * fvd_status() - the status register.
 *
 * Return: its value.
 */
uint8_t fvd_status(struct fvd *d);

#endif
