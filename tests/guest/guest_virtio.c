/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport: virtio 1.2, 4.1 (PCI), 2.7 (split queues).
 */
#include "guest_virtio.h"

enum {
    CAP_VENDOR = 0x09,
    CAP_MSIX = 0x11,
    VCAP_COMMON = 1,
    VCAP_NOTIFY = 2,
    VCAP_DEVICE = 4,
    /* struct virtio_pci_common_cfg */
    C_DEVICE_FEATURE_SELECT = 0x00,
    C_DEVICE_FEATURE = 0x04,
    C_DRIVER_FEATURE_SELECT = 0x08,
    C_DRIVER_FEATURE = 0x0c,
    C_CONFIG_MSIX = 0x10,
    C_NUM_QUEUES = 0x12,
    C_STATUS = 0x14,
    C_QUEUE_SELECT = 0x16,
    C_QUEUE_SIZE = 0x18,
    C_QUEUE_MSIX = 0x1a,
    C_QUEUE_ENABLE = 0x1c,
    C_QUEUE_NOTIFY_OFF = 0x1e,
    C_QUEUE_DESC = 0x20,
    C_QUEUE_DRIVER = 0x28,
    C_QUEUE_DEVICE = 0x30,
    S_ACKNOWLEDGE = 1,
    S_DRIVER = 2,
    S_DRIVER_OK = 4,
    S_FEATURES_OK = 8,
    MSIX_ENABLE = 1u << 31,
    PCI_COMMAND_MEMORY_MASTER = 6,
    NO_VECTOR = 0xffff,
};

static unsigned nr_started;
static uint8_t vector_of_slot[32];

static uint8_t get8(const volatile uint8_t *base, unsigned off)
{
    return base[off];
}

static uint16_t get16(const volatile uint8_t *base, unsigned off)
{
    return *(const volatile uint16_t *)(const volatile void *)(base + off);
}

static uint32_t get32(const volatile uint8_t *base, unsigned off)
{
    return *(const volatile uint32_t *)(const volatile void *)(base + off);
}

static void set8(volatile uint8_t *base, unsigned off, uint8_t value)
{
    base[off] = value;
}

static void set16(volatile uint8_t *base, unsigned off, uint16_t value)
{
    *(volatile uint16_t *)(volatile void *)(base + off) = value;
}

static void set32(volatile uint8_t *base, unsigned off, uint32_t value)
{
    *(volatile uint32_t *)(volatile void *)(base + off) = value;
}

static void set64(volatile uint8_t *base, unsigned off, uint64_t value)
{
    set32(base, off, (uint32_t)value);
    set32(base, off + 4, (uint32_t)(value >> 32));
}

static void find_regions(struct vdev *dev)
{
    unsigned cap = 0;

    while ((cap = pci_find_cap(dev->slot, CAP_VENDOR, cap)) != 0) {
        unsigned type = pci_read(dev->slot, cap) >> 24;
        unsigned bar = pci_read(dev->slot, cap + 4) & 0xff;
        uint32_t off = pci_read(dev->slot, cap + 8), len = pci_read(dev->slot, cap + 12);
        uint64_t gpa;

        if (bar > 5 || (type != VCAP_COMMON && type != VCAP_NOTIFY && type != VCAP_DEVICE))
            continue;
        gpa = pci_bar(dev->slot, bar) + off;
        if (!mem_map(gpa, len))
            continue;
        if (type == VCAP_COMMON && !dev->common) {
            dev->common = at(gpa);
        } else if (type == VCAP_DEVICE && !dev->device) {
            dev->device = at(gpa);
        } else if (type == VCAP_NOTIFY && dev->notify_gpa == 0) {
            dev->notify_gpa = gpa;
            dev->notify_mul = pci_read(dev->slot, cap + 16);
        }
    }
}

unsigned virtio_find(uint16_t type, unsigned n, struct vdev *ret_dev)
{
    for (unsigned slot = 1; slot < 32; slot++) {
        uint32_t id = pci_read(slot, 0);

        if (id != ((0x1040u + type) << 16 | 0x1af4u) || n-- > 0)
            continue;
        *ret_dev = (struct vdev){.slot = (uint8_t)slot, .type = type};
        pci_write(slot, 4, PCI_COMMAND_MEMORY_MASTER);
        find_regions(ret_dev);
        return ret_dev->common && ret_dev->notify_gpa ? 1 : 0;
    }
    return 0;
}

/* Entry 0 is for configuration changes, entry 1 for all queues; both raise dev->vector. */
static bool msix_enable(struct vdev *dev)
{
    unsigned cap = pci_find_cap(dev->slot, CAP_MSIX, 0);
    volatile uint32_t *table;
    uint32_t where;

    if (!cap)
        return false;
    where = pci_read(dev->slot, cap + 4);
    table = mem_map(pci_bar(dev->slot, where & 7) + (where & ~7u), 32);
    if (!table)
        return false;
    if (vector_of_slot[dev->slot] == 0)
        vector_of_slot[dev->slot] = (uint8_t)(VECTOR_MSI + nr_started++);
    dev->vector = vector_of_slot[dev->slot];
    for (unsigned i = 0; i < 2; i++) {
        table[4 * i] = 0xfee00000u | lapic_id() << 12;
        table[4 * i + 1] = 0;
        table[4 * i + 2] = dev->vector;
        table[4 * i + 3] = 0;
    }
    pci_write(dev->slot, cap, (pci_read(dev->slot, cap) & 0x3fffffff) | MSIX_ENABLE);
    return true;
}

void virtio_reset(struct vdev *dev)
{
    set8(dev->common, C_STATUS, 0);
    for (unsigned i = 0; i < 10000 && get8(dev->common, C_STATUS) != 0; i++)
        ;
    dev->up = false;
}

static bool negotiate(struct vdev *dev, uint64_t wanted)
{
    volatile uint8_t *c = dev->common;

    virtio_reset(dev);
    set8(c, C_STATUS, S_ACKNOWLEDGE);
    set8(c, C_STATUS, S_ACKNOWLEDGE | S_DRIVER);
    set32(c, C_DEVICE_FEATURE_SELECT, 0);
    dev->offered = get32(c, C_DEVICE_FEATURE);
    set32(c, C_DEVICE_FEATURE_SELECT, 1);
    dev->offered |= (uint64_t)get32(c, C_DEVICE_FEATURE) << 32;
    dev->features = dev->offered & (wanted | F_VERSION_1);
    set32(c, C_DRIVER_FEATURE_SELECT, 0);
    set32(c, C_DRIVER_FEATURE, (uint32_t)dev->features);
    set32(c, C_DRIVER_FEATURE_SELECT, 1);
    set32(c, C_DRIVER_FEATURE, (uint32_t)(dev->features >> 32));
    set8(c, C_STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    return get8(c, C_STATUS) & S_FEATURES_OK && dev->features & F_VERSION_1;
}

/* q->ring is the caller's; one page, any contents. */
static bool queue_start(struct vdev *dev, struct vqueue *q, unsigned index)
{
    volatile uint8_t *c = dev->common;
    struct vring *ring = q->ring;

    set16(c, C_QUEUE_SELECT, (uint16_t)index);
    q->index = (uint16_t)index;
    q->size = get16(c, C_QUEUE_SIZE);
    if (q->size == 0)
        return false;
    if (q->size > QUEUE_MAX) {
        q->size = QUEUE_MAX;
        set16(c, C_QUEUE_SIZE, q->size);
    }
    set_words(ring, 0, PAGE_SIZE / 8);
    q->kicked = 0;
    q->used_seen = 0;
    q->nr_notified = 0;
    q->event_idx = dev->features & F_EVENT_IDX;
    q->notify = at(dev->notify_gpa + (uint64_t)get16(c, C_QUEUE_NOTIFY_OFF) * dev->notify_mul);
    set16(c, C_QUEUE_MSIX, 1);
    if (get16(c, C_QUEUE_MSIX) == NO_VECTOR)
        return false;
    set64(c, C_QUEUE_DESC, gpa_of(ring->desc));
    set64(c, C_QUEUE_DRIVER, gpa_of(&ring->avail_flags));
    set64(c, C_QUEUE_DEVICE, gpa_of(&ring->used_flags));
    set16(c, C_QUEUE_ENABLE, 1);
    return true;
}

bool virtio_start(struct vdev *dev, uint64_t wanted, struct vqueue *queues, unsigned nr_queues)
{
    if (!negotiate(dev, wanted) || !msix_enable(dev))
        return false;
    dev->nr_queues = get16(dev->common, C_NUM_QUEUES);
    set16(dev->common, C_CONFIG_MSIX, 0);
    for (unsigned i = 0; i < nr_queues && i < dev->nr_queues; i++) {
        if (!queue_start(dev, &queues[i], i))
            return false;
    }
    return true;
}

bool virtio_ready(struct vdev *dev)
{
    set8(dev->common, C_STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
    dev->up = true;
    return get8(dev->common, C_STATUS) & S_DRIVER_OK;
}

/* ---- Queues; rings are made smaller than QUEUE_MAX only by a device with smaller queues ---- */

void vqueue_offer(struct vqueue *q, uint16_t head)
{
    struct vring *ring = q->ring;

    ring->avail_ring[ring->avail_idx % q->size] = head;
    __asm__ volatile("" : : : "memory");
    ring->avail_idx++;
}

void vqueue_kick(struct vqueue *q)
{
    uint16_t new = q->ring->avail_idx, old = q->kicked, event;
    bool wanted;

    /* A full barrier that any KVM can run: the device must see avail_idx before we look. */
    __asm__ volatile("lock addl $0, (%%rsp)" : : : "memory");
    /* The used event index and avail event lie behind rings of the real size. */
    event = *(volatile uint16_t *)(volatile void *)&q->ring->used_ring[q->size];
    if (q->event_idx)
        wanted = (uint16_t)(new - event - 1) < (uint16_t)(new - old);
    else
        wanted = !(q->ring->used_flags & 1);
    q->kicked = new;
    if (wanted) {
        q->nr_notified++;
        *q->notify = q->index;
    }
}

bool vqueue_has_used(const struct vqueue *q)
{
    return q->ring && q->size && q->ring->used_idx != q->used_seen;
}

bool vqueue_take(struct vqueue *q, struct vused_elem *ret_elem)
{
    if (!vqueue_has_used(q))
        return false;
    *ret_elem = q->ring->used_ring[q->used_seen % q->size];
    q->used_seen++;
    if (q->event_idx) {
        *(volatile uint16_t *)(volatile void *)&q->ring->avail_ring[q->size] = q->used_seen;
        __asm__ volatile("lock addl $0, (%%rsp)" : : : "memory");
    }
    return true;
}

bool virtio_pending(void)
{
    return blk_pending() || net_pending() || misc_pending();
}

bool virtio_step(void)
{
    bool busy = false;

    busy |= blk_step();
    busy |= net_step();
    busy |= misc_step();
    return busy;
}
