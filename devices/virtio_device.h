/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every virtio device has, whatever carries it: features, status, queues
 * and the moments at which a device may touch them.
 *
 * A device type is a `struct virtio_type` and a struct that begins with a
 * `struct virtio_pci` (devices/virtio_pci.h), which begins with this one.
 *
 *     realize -> reset -> [ driver: features, queues, DRIVER_OK ]
 *        -> start -> process* -> stop            stop: quiesce, reset, failure
 *
 * Queues are processed on the loop's thread, with the device's lock held: a
 * kick only signals a descriptor there, by ioeventfd or by a plain write to
 * the notification register.  A device is live between start and stop.
 *
 * Requests may be in flight when stop is called.  A reset by the driver is
 * then put off, with the status register still showing the old value, until
 * is_idle() says that none is; quiesce waits for the same.
 */
#ifndef DEVICES_VIRTIO_DEVICE_H
#define DEVICES_VIRTIO_DEVICE_H

#include "core/device.h"
#include "devices/virtqueue.h"

enum {
    VIRTIO_QUEUES_MAX = 255,
    VIRTIO_CONFIG_MAX = 128, /* bytes of a device's own configuration structure */
    VIRTIO_VERSION_1 = 32,   /* feature bits that every device has */

    VIRTIO_ISR_QUEUE = 1 << 0,
    VIRTIO_ISR_CONFIG = 1 << 1,
};

struct virtio_device;
struct wr;

/* A device type.  All called with dev->lock held. */
struct virtio_type {
    uint16_t id;
    uint8_t pci_class;
    uint8_t pci_subclass;

    /* Write the configuration structure, at most VIRTIO_CONFIG_MAX bytes.  NULL: there is none. */
    void (*config_read)(struct virtio_device *vd, struct wr *w);
    /* A driver's write to it, within VIRTIO_CONFIG_MAX.  NULL: read-only. */
    void (*config_write)(struct virtio_device *vd, unsigned off, unsigned size, uint64_t val);
    /* Whether a set of offered features can go together.  NULL: always. */
    bool (*accepts)(const struct virtio_device *vd, uint64_t features);
    /* Values of the type's own state after reset.  NULL: none. */
    void (*reset)(struct virtio_device *vd);
    /* The device became live: watch host descriptors.  All queues get kicked afterwards.  NULL: nothing. */
    void (*start)(struct virtio_device *vd);
    /* It is no longer: watch nothing, begin nothing.  NULL: nothing. */
    void (*stop)(struct virtio_device *vd);
    /* Finish what has ended; whether nothing is in flight any more.  NULL: never is anything. */
    bool (*is_idle)(struct virtio_device *vd);
    /* Take requests from a live queue; true if it stopped early and wants to be called again. */
    bool (*process)(struct virtio_device *vd, unsigned queue);
};

/* How interrupts leave. */
struct virtio_transport {
    void (*interrupt)(struct virtio_device *vd, uint8_t isr, uint16_t vector);
    void (*config_interrupt)(struct virtio_device *vd);
};

struct virtio_kick;

struct virtio_device {
    struct device dev;

    /* State. */
    uint8_t status;
    uint8_t config_generation;
    uint64_t driver_features; /* as written by the driver; agreed on once FEATURES_OK is set */
    uint32_t nr_queues;       /* fixed at birth, must match on load */
    struct virtqueue queues[VIRTIO_QUEUES_MAX];

    /* Fixed. */
    const struct virtio_type *type;
    const struct virtio_transport *transport;
    uint64_t features;         /* offered */
    struct virtio_kick *kicks; /* owned, one for each queue */

    /* Derived. */
    bool running;       /* between resume and quiesce */
    bool live;          /* between start and stop */
    bool reset_pending; /* waits for is_idle() */
    bool may_dma;       /* the transport lets the device reach memory */
};

extern const struct state_desc virtio_device_state;

/**
 * virtio_device_init() - queues, kicks and offered features.
 * @vd:     zeroed but for its struct device.
 * @sizes:  largest size of each queue, powers of two up to VQ_SIZE_MAX.
 * @nr:     1 to VIRTIO_QUEUES_MAX.
 *
 * Return: 0; -EINVAL for a bad size or number; the kernel's errno.  In any case
 * virtio_device_release() is owed.
 * Threads: control, with dev->lock held.
 */
CHECKED int virtio_device_init(struct virtio_device *vd, const struct virtio_type *type,
                               const uint16_t *sizes, unsigned nr, struct err *err);

/**
 * virtio_device_release() - free what virtio_device_init() took.
 *
 * Threads: control, the device is quiet and dev->lock is not held.
 */
void virtio_device_release(struct virtio_device *vd);

/**
 * virtio_device_reset() - everything as after power-on; nothing may be in flight.
 *
 * Threads: with dev->lock held.
 */
void virtio_device_reset(struct virtio_device *vd);

/**
 * virtio_device_status() - the status register.
 *
 * Completes a reset that was put off, if it can now be.
 *
 * Return: its value; not 0 as long as a reset is not complete.
 * Threads: with dev->lock held.
 */
uint8_t virtio_device_status(struct virtio_device *vd);

/**
 * virtio_device_set_status() - a driver's write to the status register.
 * Threads: with dev->lock held.
 */
void virtio_device_set_status(struct virtio_device *vd, uint8_t val);

/**
 * virtio_device_set_features() - a driver's write to its half of the feature bits.
 * @select: which 32 bits; past 1 nothing can be set.
 * Threads: with dev->lock held.
 */
void virtio_device_set_features(struct virtio_device *vd, uint32_t select, uint32_t val);

/**
 * virtio_device_enable_queue() - the driver has set a queue up.
 * Threads: with dev->lock held.
 */
void virtio_device_enable_queue(struct virtio_device *vd, unsigned queue);

/**
 * virtio_device_set_dma() - the transport allows or forbids access to memory.
 * Threads: with dev->lock held.
 */
void virtio_device_set_dma(struct virtio_device *vd, bool on);

/**
 * virtio_device_unpause() - go on; every queue is kicked and interrupts once.
 *
 * For resume: the state may have been loaded in between.
 * Threads: with dev->lock held.
 */
void virtio_device_unpause(struct virtio_device *vd);

/**
 * virtio_device_quiesce() - device_ops.quiesce for every type.
 *
 * Return: 0; -ETIMEDOUT, and the device goes on.
 * Threads: any, without dev->lock.
 */
CHECKED int virtio_device_quiesce(struct device *dev, uint64_t deadline_ns, struct err *err);

/**
 * virtio_device_settle() - something that was in flight has ended: complete a reset that waited.
 * Threads: with dev->lock held.
 */
void virtio_device_settle(struct virtio_device *vd);

/**
 * virtio_device_fail() - the driver broke a rule: ask to be reset and touch nothing until then.
 * @fmt: what it did; counted as a guest error.
 * Threads: with dev->lock held.
 */
void virtio_device_fail(struct virtio_device *vd, const char *fmt, ...) PRINTF(2, 3);

/**
 * virtio_device_config_changed() - tell the driver that the configuration structure is different.
 * Threads: with dev->lock held.
 */
void virtio_device_config_changed(struct virtio_device *vd);

/**
 * virtio_device_kick() - have a queue processed soon, as if the driver had asked.
 *
 * Threads: any.
 */
void virtio_device_kick(struct virtio_device *vd, unsigned queue);

/**
 * virtio_device_kick_fd() - the descriptor that a notification signals.
 *
 * Return: an eventfd, borrowed.
 * Threads: any.
 */
int virtio_device_kick_fd(const struct virtio_device *vd, unsigned queue);

/**
 * virtio_device_pop() - vq_pop() that fails the device where the driver broke a rule.
 *
 * Return: true if there is a chain.
 * Threads: with dev->lock held.
 */
bool virtio_device_pop(struct virtio_device *vd, unsigned queue, struct vq_chain *ret_chain);

/**
 * virtio_device_signal() - interrupt for what was pushed to a queue, if the driver wants it.
 * Threads: with dev->lock held.
 */
void virtio_device_signal(struct virtio_device *vd, unsigned queue);

/**
 * virtio_device_has() - whether a feature was agreed on.
 * @bit: number of the feature bit.
 *
 * Return: true if so.
 */
static inline bool virtio_device_has(const struct virtio_device *vd, unsigned bit)
{
    return vd->driver_features >> bit & 1;
}

#endif
