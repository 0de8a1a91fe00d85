/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_virtio_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <string.h>

#include "core/wire.h"
#include "devices/virtio_pci.h"

enum {
    WAIT_MS = 10000,
};

/* --- Registers ------------------------------------------------------------ */

uint64_t fvd_read(struct fvd *d, uint64_t off, unsigned size)
{
    return bus_read(d->fe->env.mmio, d->bar + off, size);
}

void fvd_write(struct fvd *d, uint64_t off, unsigned size, uint64_t val)
{
    bus_write(d->fe->env.mmio, d->bar + off, size, val);
}

void fvd_init(struct fvd *d, struct fake_env *fe, struct pci_bus *bus, unsigned slot)
{
    uint32_t lo = pci_bus_config_read(bus, slot, 0x10, 4);

    *d = (struct fvd){.fe = fe, .bus = bus, .slot = slot, .next_gpa = FVD_RINGS_GPA};
    assert_int_equal(pci_bus_config_read(bus, slot, 0, 2), 0x1af4);
    d->bar = lo & ~15u;
    if (lo & 4)
        d->bar |= (uint64_t)pci_bus_config_read(bus, slot, 0x14, 4) << 32;
}

uint8_t fvd_status(struct fvd *d)
{
    return (uint8_t)fvd_read(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

uint64_t fvd_offered(struct fvd *d)
{
    uint64_t features;

    fvd_write(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
    features = fvd_read(d, VIRTIO_PCI_COMMON_DF, 4);
    fvd_write(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
    return features | fvd_read(d, VIRTIO_PCI_COMMON_DF, 4) << 32;
}

static bool status_is_zero(void *arg)
{
    return fvd_status(arg) == 0;
}

bool fvd_negotiate(struct fvd *d, uint64_t features)
{
    features |= UINT64_C(1) << VIRTIO_VERSION_1;
    fvd_write(d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    if (!fake_env_wait(d->fe, status_is_zero, d, WAIT_MS))
        fail_msg("the device does not complete a reset");
    fvd_write(d, VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    fvd_write(d, VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    for (unsigned i = 0; i < 2; i++) {
        fvd_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
        fvd_write(d, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(features >> (32 * i)));
    }
    fvd_write(d, VIRTIO_PCI_COMMON_STATUS, 1, fvd_status(d) | VIRTIO_CONFIG_S_FEATURES_OK);
    d->features = features;
    return fvd_status(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static void write_address(struct fvd *d, uint64_t off, uint64_t gpa)
{
    fvd_write(d, off, 4, (uint32_t)gpa);
    fvd_write(d, off + 4, 4, gpa >> 32);
}

void fvd_setup_queue(struct fvd *d, unsigned queue, uint16_t size)
{
    struct fvd_queue *q = &d->queues[queue];

    assert_true(queue < FVD_QUEUES_MAX);
    fvd_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
    if (size)
        fvd_write(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    size = (uint16_t)fvd_read(d, VIRTIO_PCI_COMMON_Q_SIZE, 2);
    *q = (struct fvd_queue){
        .size = size,
        .desc_gpa = fvd_alloc(d, 16u * size, 16),
        .avail_gpa = fvd_alloc(d, 6 + 2u * size, 2),
        .used_gpa = fvd_alloc(d, 6 + 8u * size, 4),
    };
    write_address(d, VIRTIO_PCI_COMMON_Q_DESCLO, q->desc_gpa);
    write_address(d, VIRTIO_PCI_COMMON_Q_AVAILLO, q->avail_gpa);
    write_address(d, VIRTIO_PCI_COMMON_Q_USEDLO, q->used_gpa);
    fvd_write(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, queue + 1);
    fvd_write(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    assert_int_equal(fvd_read(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
}

/* Walk the capabilities to the one of MSI-X. */
static unsigned find_msix(struct fvd *d)
{
    unsigned off = pci_bus_config_read(d->bus, d->slot, 0x34, 1);

    while (off && pci_bus_config_read(d->bus, d->slot, off, 1) != PCI_CAP_MSIX)
        off = pci_bus_config_read(d->bus, d->slot, off + 1, 1);
    assert_true(off);
    return off;
}

void fvd_driver_ok(struct fvd *d)
{
    unsigned cap = find_msix(d);
    unsigned vectors = (pci_bus_config_read(d->bus, d->slot, cap + 2, 2) & 0x7ff) + 1;

    for (unsigned i = 0; i < vectors; i++) {
        uint64_t entry = VPCI_MSIX_TABLE + 16u * i;

        fvd_write(d, entry, 4, FVD_MSI_ADDR);
        fvd_write(d, entry + 4, 4, 0);
        fvd_write(d, entry + 8, 4, FVD_MSI_DATA + i);
        fvd_write(d, entry + 12, 4, 0);
    }
    pci_bus_config_write(d->bus, d->slot, cap + 2, 2, MSIX_CTRL_ENABLE);
    fvd_write(d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    fvd_write(d, VIRTIO_PCI_COMMON_STATUS, 1, fvd_status(d) | VIRTIO_CONFIG_S_DRIVER_OK);
}

void fvd_start(struct fvd *d, uint64_t features, unsigned nr_queues, uint16_t size)
{
    assert_true(fvd_negotiate(d, features));
    d->next_gpa = FVD_RINGS_GPA;
    for (unsigned i = 0; i < nr_queues; i++)
        fvd_setup_queue(d, i, size);
    fvd_driver_ok(d);
    assert_int_equal(fvd_status(d), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                                        VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

/* --- Guest memory --------------------------------------------------------- */

void *fvd_ptr(struct fvd *d, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < gmem_nr_regions(d->fe->env.gm); i++) {
        const struct gmem_region *r = gmem_region(d->fe->env.gm, i);

        if (gpa - r->gpa < r->len && len <= r->len - (gpa - r->gpa))
            return r->hva + (gpa - r->gpa);
    }
    fail_msg("guest memory has no %llu bytes at 0x%llx", (unsigned long long)len,
             (unsigned long long)gpa);
    return NULL;
}

void fvd_put(struct fvd *d, uint64_t gpa, const void *src, size_t len)
{
    memcpy(fvd_ptr(d, gpa, len), src, len);
}

uint64_t fvd_alloc(struct fvd *d, uint64_t len, uint64_t align)
{
    uint64_t gpa = (d->next_gpa + align - 1) & ~(align - 1);

    memset(fvd_ptr(d, gpa, len), 0, len);
    d->next_gpa = gpa + len;
    return gpa;
}

static void put16(struct fvd *d, uint64_t gpa, uint16_t val)
{
    _Atomic uint16_t *p = fvd_ptr(d, gpa, sizeof(val));

    atomic_store_explicit(p, htole16(val), memory_order_release);
}

static uint16_t get16(struct fvd *d, uint64_t gpa)
{
    const _Atomic uint16_t *p = fvd_ptr(d, gpa, sizeof(uint16_t));

    return le16toh(atomic_load_explicit(p, memory_order_acquire));
}

/* --- Rings ---------------------------------------------------------------- */

void fvd_desc(struct fvd *d, uint64_t table_gpa, unsigned index, const struct fvd_seg *seg,
              uint16_t flags, uint16_t next)
{
    uint8_t raw[16];
    struct wr w = {.p = raw, .left = sizeof(raw)};

    wr_le64(&w, seg->gpa);
    wr_le32(&w, seg->len);
    wr_le16(&w, (uint16_t)(flags | (seg->writable ? VRING_DESC_F_WRITE : 0)));
    wr_le16(&w, next);
    fvd_put(d, table_gpa + 16u * index, raw, sizeof(raw));
}

void fvd_offer(struct fvd *d, unsigned queue, uint16_t head)
{
    struct fvd_queue *q = &d->queues[queue];

    put16(d, q->avail_gpa + 4 + 2u * (q->avail_idx % q->size), head);
    q->avail_idx++;
    /* Ask to be interrupted for each completion, whichever way was agreed on. */
    put16(d, q->avail_gpa + 4 + 2u * q->size, q->last_used);
    put16(d, q->avail_gpa + 2, q->avail_idx);
}

uint16_t fvd_add(struct fvd *d, unsigned queue, const struct fvd_seg *segs, unsigned nr)
{
    struct fvd_queue *q = &d->queues[queue];
    uint16_t head = q->next_desc;

    for (unsigned i = 0; i < nr; i++) {
        uint16_t next = (uint16_t)((q->next_desc + 1) % q->size);

        fvd_desc(d, q->desc_gpa, q->next_desc, &segs[i], i + 1 < nr ? VRING_DESC_F_NEXT : 0, next);
        q->next_desc = next;
    }
    fvd_offer(d, queue, head);
    return head;
}

uint16_t fvd_add_indirect(struct fvd *d, unsigned queue, const struct fvd_seg *segs, unsigned nr)
{
    struct fvd_queue *q = &d->queues[queue];
    struct fvd_seg table = {.gpa = fvd_alloc(d, 16u * nr, 16), .len = 16 * nr};
    uint16_t head = q->next_desc;

    for (unsigned i = 0; i < nr; i++)
        fvd_desc(d, table.gpa, i, &segs[i], i + 1 < nr ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1));
    fvd_desc(d, q->desc_gpa, head, &table, VRING_DESC_F_INDIRECT, 0);
    q->next_desc = (uint16_t)((head + 1) % q->size);
    fvd_offer(d, queue, head);
    return head;
}

void fvd_kick(struct fvd *d, unsigned queue)
{
    fake_env_mmio_write(d->fe, d->bar + VPCI_NOTIFY + VPCI_NOTIFY_STRIDE * queue, 2, queue);
}

bool fvd_used(struct fvd *d, unsigned queue, uint16_t *ret_head, uint32_t *ret_len)
{
    struct fvd_queue *q = &d->queues[queue];
    le32 elem[2];

    if (get16(d, q->used_gpa + 2) == q->last_used)
        return false;
    memcpy(elem, fvd_ptr(d, q->used_gpa + 4 + 8u * (q->last_used % q->size), sizeof(elem)),
           sizeof(elem));
    q->last_used++;
    assert_true(le32_get(elem[0]) < q->size);
    *ret_head = (uint16_t)le32_get(elem[0]);
    *ret_len = le32_get(elem[1]);
    return true;
}

struct waiting {
    struct fvd *d;
    unsigned queue;
    uint16_t head;
    uint32_t len;
};

static bool has_used(void *arg)
{
    struct waiting *w = arg;

    return fvd_used(w->d, w->queue, &w->head, &w->len);
}

uint32_t fvd_wait(struct fvd *d, unsigned queue, uint16_t *ret_head)
{
    struct waiting w = {.d = d, .queue = queue};

    bool done = false;

    for (unsigned i = 0; i < 2 && !done; i++) {
        fvd_pump(d);
        done = has_used(&w);
    }
    if (!done && !fake_env_wait(d->fe, has_used, &w, WAIT_MS))
        fail_msg("queue %u: the request does not complete, status 0x%x", queue, fvd_status(d));
    *ret_head = w.head;
    return w.len;
}

uint32_t fvd_do(struct fvd *d, unsigned queue, const struct fvd_seg *segs, unsigned nr)
{
    uint16_t head = fvd_add(d, queue, segs, nr), got;
    uint32_t len;

    fvd_kick(d, queue);
    len = fvd_wait(d, queue, &got);
    assert_int_equal(got, head);
    return len;
}

static void stop_loop(void *arg)
{
    loop_stop(arg);
}

void fvd_pump(struct fvd *d)
{
    /* Once for what is ready, once for what that made ready. */
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(loop_post(d->fe->env.loop, stop_loop, d->fe->env.loop), 0);
        assert_int_equal(loop_run(d->fe->env.loop), 0);
    }
}
