/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues: the device's end.
 *
 * Everything in a ring is hostile.  A driver that breaks the rules makes
 * vq_pop() fail; the device then asks to be reset (virtio_fail()) and touches
 * the ring no more.
 *
 * The positions in the rings are state of ours, never read back from guest
 * memory.
 *
 *     vq_pop() -> read the device-readable bytes, write the others -> vq_push()
 */
#ifndef DEVICES_VIRTQUEUE_H
#define DEVICES_VIRTQUEUE_H

#include "core/gmem.h"
#include "core/state.h"

enum {
    VQ_SIZE_MAX = 32768,
    VQ_DESCS_MAX = 1024,             /* descriptors of one chain */
    VQ_SEGS_MAX = VQ_DESCS_MAX + 64, /* a descriptor may cross regions of guest memory */
};

struct virtqueue {
    /* State. */
    uint16_t size; /* entries, a power of two; as the driver chose */
    bool enabled;
    uint64_t desc_gpa;
    uint64_t avail_gpa;
    uint64_t used_gpa;
    uint16_t next_avail; /* free-running */
    uint16_t next_used;
    uint16_t vector; /* of MSI-X */

    /* Fixed. */
    uint16_t size_max;
    struct gmem *gm; /* borrowed */

    /* Derived. */
    bool live; /* vq_start() succeeded */
    bool event_idx;
    bool indirect;
    uint16_t signalled;   /* where next_used was when we last looked */
    bool signalled_valid; /* false: the driver's event index was not looked at yet */
};

/* A run of a chain's bytes in host memory. */
struct vq_seg {
    uint64_t gpa;
    uint8_t *hva;
    uint32_t len;
};

/* One request: the device-readable segments, then the device-writable ones. */
struct vq_chain {
    uint16_t head;
    uint16_t nr_out;
    uint16_t nr_in;
    uint32_t out_len; /* bytes */
    uint32_t in_len;
    struct vq_seg segs[VQ_SEGS_MAX];
};

extern const struct state_desc virtqueue_state;

/**
 * vq_init() - a queue in reset.
 * @gm:       borrowed for the life of the queue.
 * @size_max: a power of two up to VQ_SIZE_MAX.
 *
 * Threads: control.
 */
void vq_init(struct virtqueue *vq, struct gmem *gm, uint16_t size_max);

/**
 * vq_reset() - not enabled, largest size, no addresses, no vector.
 *
 * Threads: with dev->lock held.
 */
void vq_reset(struct virtqueue *vq);

/**
 * vq_start() - make an enabled queue ready for use where its state says.
 * @features: that the driver accepted.
 *
 * Return: 0; -EFAULT if a ring is misaligned or not all in RAM.
 * Threads: with dev->lock held.
 */
CHECKED int vq_start(struct virtqueue *vq, uint64_t features);

/**
 * vq_pop() - take the next request.
 * @ret_chain: all of it lies in RAM.  Its device-writable segments are pinned;
 *             vq_chain_mark() of what was written unpins them.  The caller
 *             owes vq_push() or vq_unpop().
 *
 * Return: 1 and a chain; 0 if there is none; -EBADMSG if the driver broke a
 * rule; -E2BIG for a chain longer than VQ_DESCS_MAX; -EFAULT for one outside
 * of RAM.
 * Threads: with dev->lock held.
 */
CHECKED int vq_pop(struct virtqueue *vq, struct vq_chain *ret_chain);

/**
 * vq_unpop() - leave the request that was popped last in the ring.
 * Threads: with dev->lock held.
 */
void vq_unpop(struct virtqueue *vq);

/**
 * vq_push() - return a request to the driver.
 * @head: of the chain; it must have been popped and not yet returned.
 * @len:  bytes written from the start of the device-writable part on.
 *
 * The written bytes must be marked before (vq_chain_mark()).
 * Threads: with dev->lock held.
 */
void vq_push(struct virtqueue *vq, uint16_t head, uint32_t len);

/**
 * vq_needs_signal() - whether the driver wants an interrupt for what was pushed since the last call.
 *
 * Return: true if so.
 * Threads: with dev->lock held.
 */
bool vq_needs_signal(struct virtqueue *vq);

/**
 * vq_rearm() - ask to be notified of the next request.
 *
 * Return: true if there is one already, which may come without notification.
 * Threads: with dev->lock held.
 */
bool vq_rearm(struct virtqueue *vq);

/**
 * vq_has_work() - whether a request waits, without asking for notification.
 *
 * Return: true if so; also if the ring is broken.
 * Threads: with dev->lock held.
 */
bool vq_has_work(struct virtqueue *vq);

/**
 * vq_chain_read() - copy from the device-readable bytes of a chain.
 * @off: bytes into them.
 *
 * Return: bytes copied: fewer than @len at the end.
 * Threads: with dev->lock held.
 */
size_t vq_chain_read(const struct vq_chain *c, size_t off, void *dst, size_t len);

/**
 * vq_chain_write() - copy to the device-writable bytes of a chain and mark them dirty.
 * @off: bytes into them.
 *
 * Return: bytes copied: fewer than @len at the end.
 * Threads: with dev->lock held.
 */
size_t vq_chain_write(struct virtqueue *vq, const struct vq_chain *c, size_t off, const void *src,
                      size_t len);

/**
 * vq_chain_mark() - bytes were written through the segments: mark them dirty.
 * @off, @len: bytes of the device-writable part.
 * Threads: with dev->lock held.
 */
void vq_chain_mark(struct virtqueue *vq, const struct vq_chain *c, size_t off, size_t len);

/**
 * vq_chain_out_iov() - the device-readable bytes as host memory, for writev() and its like.
 * @off: bytes to leave out at the start.
 *
 * Return: number of pieces; -E2BIG past @cap.
 * Threads: with dev->lock held.
 */
CHECKED int vq_chain_out_iov(const struct vq_chain *c, size_t off, struct iovec *iov, unsigned cap);

/**
 * vq_chain_in_iov() - device-writable bytes as host memory, for readv() and its like.
 * @off, @len: which.
 *
 * What is written there must be marked (vq_chain_mark()).
 *
 * Return: number of pieces; -E2BIG past @cap.
 * Threads: with dev->lock held.
 */
CHECKED int vq_chain_in_iov(const struct vq_chain *c, size_t off, size_t len, struct iovec *iov,
                            unsigned cap);

#endif
