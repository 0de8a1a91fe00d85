/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_VIRTIO_H
#define GUEST_VIRTIO_H

/* Modern virtio over PCI, split queues, MSI-X; the block, net, rng and console drivers. */

#include "guest.h"

enum {
    VIRTIO_NET = 1,
    VIRTIO_BLK = 2,
    VIRTIO_CONSOLE = 3,
    VIRTIO_RNG = 4,
    QUEUE_MAX = 64,
    MAX_VDEVS = 16,
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
};

#define F_INDIRECT  (1ull << 28)
#define F_EVENT_IDX (1ull << 29)
#define F_VERSION_1 (1ull << 32)

struct vdesc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct vused_elem {
    uint32_t id, len;
};

/* The memory that driver and device share. */
struct vring {
    struct vdesc desc[QUEUE_MAX];
    uint16_t avail_flags;
    volatile uint16_t avail_idx;
    uint16_t avail_ring[QUEUE_MAX];
    volatile uint16_t used_event;
    uint16_t pad[1];
    volatile uint16_t used_flags;
    volatile uint16_t used_idx;
    struct vused_elem used_ring[QUEUE_MAX];
    volatile uint16_t avail_event;
    uint8_t pad2[PAGE_SIZE - 16 * QUEUE_MAX - 2 * QUEUE_MAX - 8 - 4 - 8 * QUEUE_MAX - 2];
};

_Static_assert(sizeof(struct vring) == PAGE_SIZE, "one page a queue");
_Static_assert(offsetof(struct vring, used_flags) % 4 == 0, "virtio 1.2, 2.7.1");

struct vqueue {
    struct vring *ring;
    uint16_t size, index;
    uint16_t kicked;    /* avail_idx at the last look whether to notify */
    uint16_t used_seen; /* used_idx up to where we have taken completions */
    volatile uint16_t *notify;
    bool event_idx;
    uint64_t nr_notified;
};

struct vdev {
    uint8_t slot;
    uint16_t type;
    unsigned vector;
    volatile uint8_t *common, *device; /* the two configuration structures */
    uint64_t notify_gpa;
    uint32_t notify_mul;
    uint64_t offered, features;
    uint16_t nr_queues;
    bool up;
};

/* guest_virtio.c */
unsigned virtio_find(uint16_t type, unsigned n, struct vdev *ret_dev); /* 1 if there is an n-th */
bool virtio_start(struct vdev *dev, uint64_t wanted, struct vqueue *queues, unsigned nr_queues);
bool virtio_ready(struct vdev *dev);
void virtio_reset(struct vdev *dev);
void vqueue_offer(struct vqueue *q, uint16_t head);
void vqueue_kick(struct vqueue *q);
bool vqueue_take(struct vqueue *q, struct vused_elem *ret_elem);
bool vqueue_has_used(const struct vqueue *q);
bool virtio_pending(void);
bool virtio_step(void); /* true: there is more to do at once */

/* The drivers: pending() with interrupts off, step() from the main loop. */
bool blk_pending(void);
bool blk_step(void);
bool net_pending(void);
bool net_step(void);
bool misc_pending(void);
bool misc_step(void);
extern const struct command blk_commands[], net_commands[], misc_commands[], scribble_commands[];

#endif
