/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, 4.1.
 *
 * Deviations: accesses to the common configuration may also be as wide as a
 * whole 64-bit field.
 */
#include "devices/virtio_pci.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "core/wire.h"

/* --- Registers ----------------------------------------------------------- */

enum {
    VENDOR_VIRTIO = 0x1af4,
    DEVICE_VIRTIO_BASE = 0x1040,
    REVISION_MODERN = 1,
    BAR = 0,

    /* What follows id and link of a vendor capability. */
    CAP_BODY = 14,
    WINDOW_BAR = 4, /* offsets in the capability */
    WINDOW_OFFSET = 8,
    WINDOW_LENGTH = 12,
    WINDOW_DATA = 16,
    WINDOW_END = 20,

    MSIX_CAP_CONTROL = 2,
};

_Static_assert(VPCI_NOTIFY_SIZE >= VIRTIO_QUEUES_MAX * VPCI_NOTIFY_STRIDE, "virtio 1.2, 4.1.4.4");
_Static_assert(MSIX_VECTORS_MAX >= VIRTIO_QUEUES_MAX + 1, "one vector a queue, one for changes");

static struct virtio_pci *to_vp(struct device *dev)
{
    return container_of(dev, struct virtio_pci, vd.dev);
}

static struct virtio_pci *vd_to_vp(struct virtio_device *vd)
{
    return container_of(vd, struct virtio_pci, vd);
}

/* --- Interrupts ---------------------------------------------------------- */

static void interrupt(struct virtio_device *vd, uint8_t isr, uint16_t vector)
{
    struct virtio_pci *vp = vd_to_vp(vd);

    vp->isr |= isr;
    msix_notify(&vp->msix, &vd->dev, vector);
}

static void config_interrupt(struct virtio_device *vd)
{
    interrupt(vd, VIRTIO_ISR_CONFIG, vd_to_vp(vd)->config_vector);
}

static const struct virtio_transport transport = {
    .interrupt = interrupt,
    .config_interrupt = config_interrupt,
};

/* --- Life cycle ---------------------------------------------------------- */

static void cap_read(struct pci_func *f, unsigned off, unsigned size, uint32_t *val);
static void cap_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val);

static void command_changed(struct pci_func *f)
{
    struct virtio_pci *vp = container_of(f, struct virtio_pci, pci);

    virtio_device_set_dma(&vp->vd, pci_func_is_master(f));
}

static const struct pci_func_ops func_ops = {
    .cap_read = cap_read,
    .cap_write = cap_write,
    .command_changed = command_changed,
};

/* virtio 1.2, 4.1.4: struct virtio_pci_cap without its first two bytes, and what follows it. */
static int add_virtio_cap(struct pci_func *f, uint8_t type, uint32_t off, uint32_t len,
                          unsigned extra)
{
    uint8_t body[CAP_BODY + 4] = {(uint8_t)(2 + CAP_BODY + extra), type, BAR};
    struct wr w = {.p = body + 6, .left = sizeof(body) - 6};

    wr_le32(&w, off);
    wr_le32(&w, len);
    wr_le32(&w, type == VIRTIO_PCI_CAP_NOTIFY_CFG ? VPCI_NOTIFY_STRIDE : 0);
    return pci_func_add_cap(f, PCI_CAP_VENDOR, body, CAP_BODY + extra);
}

static int add_msix_cap(struct virtio_pci *vp)
{
    uint8_t body[10];
    struct wr w = {.p = body, .left = sizeof(body)};

    wr_le16(&w, (uint16_t)(vp->msix.nr - 1));
    wr_le32(&w, VPCI_MSIX_TABLE | BAR);
    wr_le32(&w, VPCI_MSIX_PBA | BAR);
    return pci_func_add_cap(&vp->pci, PCI_CAP_MSIX, body, sizeof(body));
}

static int add_caps(struct virtio_pci *vp, struct err *err)
{
    struct pci_func *f = &vp->pci;
    int common = add_virtio_cap(f, VIRTIO_PCI_CAP_COMMON_CFG, VPCI_COMMON, VPCI_COMMON_SIZE, 0);
    int isr = add_virtio_cap(f, VIRTIO_PCI_CAP_ISR_CFG, VPCI_ISR, VPCI_ISR_SIZE, 0);
    int config = add_virtio_cap(f, VIRTIO_PCI_CAP_DEVICE_CFG, VPCI_CONFIG, VPCI_CONFIG_SIZE, 0);
    int notify = add_virtio_cap(f, VIRTIO_PCI_CAP_NOTIFY_CFG, VPCI_NOTIFY, VPCI_NOTIFY_SIZE, 4);
    int window = add_virtio_cap(f, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 4);
    int msix = add_msix_cap(vp);

    if (common < 0 || isr < 0 || config < 0 || notify < 0 || window < 0 || msix < 0)
        return err_set(err, -ENOSPC, "%s: no room for PCI capabilities", vp->vd.dev.id);
    vp->window_cap = (unsigned)window;
    vp->msix_cap = (unsigned)msix;
    return 0;
}

static int add_doorbells(struct virtio_pci *vp, struct err *err)
{
    for (unsigned i = 0; i < vp->vd.nr_queues; i++) {
        int rc =
            pci_func_add_doorbell(&vp->pci, BAR, VPCI_NOTIFY + (uint64_t)i * VPCI_NOTIFY_STRIDE,
                                  virtio_device_kick_fd(&vp->vd, i));

        if (rc < 0)
            return err_set(err, rc, "%s: queue %u: no doorbell", vp->vd.dev.id, i);
    }
    return 0;
}

int virtio_pci_realize(struct virtio_pci *vp, const struct virtio_type *type,
                       const struct pci_place *place, const uint16_t *sizes, unsigned nr,
                       struct err *err)
{
    const struct pci_identity id = {
        .vendor = VENDOR_VIRTIO,
        .device = (uint16_t)(DEVICE_VIRTIO_BASE + type->id),
        .subsystem_vendor = VENDOR_VIRTIO,
        .subsystem = (uint16_t)(DEVICE_VIRTIO_BASE + type->id),
        .revision = REVISION_MODERN,
        .class_code = type->pci_class,
        .subclass = type->pci_subclass,
    };
    int rc, slot = (int)place->slot;

    vp->vd.transport = &transport;
    pci_func_init(&vp->pci, &vp->vd.dev, &func_ops, &id);
    rc = virtio_device_init(&vp->vd, type, sizes, nr, err);
    if (rc < 0)
        return rc;
    msix_init(&vp->msix, nr + 1);
    pci_func_add_bar(&vp->pci, BAR, VPCI_BAR_SIZE, !place->bars_below_4g, BAR);
    rc = add_caps(vp, err);
    if (rc < 0)
        return rc;
    rc = add_doorbells(vp, err);
    if (rc < 0)
        return rc;
    if (!slot)
        slot = pci_bus_free_slot(place->bus, err);
    return slot < 0 ? slot : pci_bus_attach(place->bus, &vp->pci, (unsigned)slot, err);
}

void virtio_pci_destroy(struct virtio_pci *vp)
{
    pci_func_release(&vp->pci);
    virtio_device_release(&vp->vd);
}

/* What a write of 0 to the status register resets beyond the device. */
static void reset_transport(struct virtio_pci *vp)
{
    vp->isr = 0;
    vp->device_feature_select = 0;
    vp->driver_feature_select = 0;
    vp->queue_select = 0;
    vp->config_vector = MSIX_NO_VECTOR;
}

void virtio_pci_reset(struct device *dev)
{
    struct virtio_pci *vp = to_vp(dev);

    virtio_device_reset(&vp->vd);
    reset_transport(vp);
    msix_reset(&vp->msix);
    vp->window_bar = 0;
    vp->window_offset = 0;
    vp->window_length = 0;
    pci_func_reset(&vp->pci);
    virtio_device_set_dma(&vp->vd, pci_func_is_master(&vp->pci));
}

void virtio_pci_resume(struct device *dev)
{
    struct virtio_pci *vp = to_vp(dev);

    pci_func_resume(&vp->pci);
    vp->vd.may_dma = pci_func_is_master(&vp->pci);
    virtio_device_unpause(&vp->vd);
}

/* --- Common configuration ------------------------------------------------ */

static struct virtqueue *selected(struct virtio_pci *vp)
{
    return vp->queue_select < vp->vd.nr_queues ? &vp->vd.queues[vp->queue_select] : NULL;
}

static void common_image(struct virtio_pci *vp, uint8_t image[VPCI_COMMON_SIZE])
{
    const struct virtqueue *vq = selected(vp);
    struct virtio_device *vd = &vp->vd;
    struct wr w = {.p = image, .left = VPCI_COMMON_SIZE};
    uint8_t status = virtio_device_status(vd);
    uint32_t device_select = vp->device_feature_select, driver_select = vp->driver_feature_select;

    memset(image, 0, VPCI_COMMON_SIZE);
    wr_le32(&w, device_select);
    wr_le32(&w, device_select < 2 ? (uint32_t)(vd->features >> (32 * device_select)) : 0);
    wr_le32(&w, driver_select);
    wr_le32(&w, driver_select < 2 ? (uint32_t)(vd->driver_features >> (32 * driver_select)) : 0);
    wr_le16(&w, vp->config_vector);
    wr_le16(&w, (uint16_t)vd->nr_queues);
    wr_u8(&w, status);
    wr_u8(&w, vd->config_generation);
    wr_le16(&w, vp->queue_select);
    if (!vq)
        return;
    wr_le16(&w, vq->size);
    wr_le16(&w, vq->vector);
    wr_le16(&w, vq->enabled);
    wr_le16(&w, vp->queue_select); /* queue_notify_off */
    wr_le64(&w, vq->desc_gpa);
    wr_le64(&w, vq->avail_gpa);
    wr_le64(&w, vq->used_gpa);
}

static uint64_t common_read(struct virtio_pci *vp, uint64_t off, unsigned size)
{
    uint8_t image[VPCI_COMMON_SIZE];
    le64 v = {{0}};

    common_image(vp, image);
    memcpy(v.b, image + off, size);
    return le64_get(v);
}

static uint16_t checked_vector(struct virtio_pci *vp, uint64_t val)
{
    /* virtio 1.2, 4.1.5.1.2.1: a vector that cannot be mapped reads back as NO_VECTOR */
    if (val < vp->msix.nr || val == MSIX_NO_VECTOR)
        return (uint16_t)val;
    device_guest_error(&vp->vd.dev, "vector %#llx", (unsigned long long)val);
    return MSIX_NO_VECTOR;
}

/* One half, or the whole, of an address. */
static void write_address(uint64_t *addr, bool high, unsigned size, uint64_t val)
{
    if (size == 8)
        *addr = val;
    else if (high)
        *addr = (uint32_t)*addr | val << 32;
    else
        *addr = (*addr & ~UINT64_C(0xffffffff)) | val;
}

static bool queue_write_size(struct virtqueue *vq, uint64_t val)
{
    /* virtio 1.2, 4.1.4.3.2: "MUST NOT write a value which is not a power of 2" */
    if (!val || val & (val - 1) || val > vq->size_max)
        return false;
    vq->size = (uint16_t)val;
    return true;
}

/* A write to the registers of the selected queue; false if it is not allowed. */
static bool queue_write(struct virtio_pci *vp, uint64_t off, unsigned size, uint64_t val)
{
    struct virtqueue *vq = selected(vp);

    if (!vq)
        return false;
    if (off == VIRTIO_PCI_COMMON_Q_MSIX) {
        vq->vector = checked_vector(vp, val);
        return true;
    }
    if (vq->enabled || vp->vd.reset_pending)
        return false;
    switch (off) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        return queue_write_size(vq, val);
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        if (val == 1)
            virtio_device_enable_queue(&vp->vd, vp->queue_select);
        return val == 1;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        write_address(&vq->desc_gpa, off == VIRTIO_PCI_COMMON_Q_DESCHI, size, val);
        return true;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        write_address(&vq->avail_gpa, off == VIRTIO_PCI_COMMON_Q_AVAILHI, size, val);
        return true;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        write_address(&vq->used_gpa, off == VIRTIO_PCI_COMMON_Q_USEDHI, size, val);
        return true;
    default:
        return false;
    }
}

/* Width of the field that starts at @off; 0 if none does. */
static unsigned common_width(uint64_t off)
{
    static const struct {
        uint8_t off, width;
    } fields[] = {
        {VIRTIO_PCI_COMMON_DFSELECT,      4},
        {VIRTIO_PCI_COMMON_DF,            4},
        {VIRTIO_PCI_COMMON_GFSELECT,      4},
        {VIRTIO_PCI_COMMON_GF,            4},
        {VIRTIO_PCI_COMMON_MSIX,          2},
        {VIRTIO_PCI_COMMON_NUMQ,          2},
        {VIRTIO_PCI_COMMON_STATUS,        1},
        {VIRTIO_PCI_COMMON_CFGGENERATION, 1},
        {VIRTIO_PCI_COMMON_Q_SELECT,      2},
        {VIRTIO_PCI_COMMON_Q_SIZE,        2},
        {VIRTIO_PCI_COMMON_Q_MSIX,        2},
        {VIRTIO_PCI_COMMON_Q_ENABLE,      2},
        {VIRTIO_PCI_COMMON_Q_NOFF,        2},
        {VIRTIO_PCI_COMMON_Q_DESCLO,      8},
        {VIRTIO_PCI_COMMON_Q_DESCHI,      4},
        {VIRTIO_PCI_COMMON_Q_AVAILLO,     8},
        {VIRTIO_PCI_COMMON_Q_AVAILHI,     4},
        {VIRTIO_PCI_COMMON_Q_USEDLO,      8},
        {VIRTIO_PCI_COMMON_Q_USEDHI,      4},
    };

    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (fields[i].off == off)
            return fields[i].width;
    return 0;
}

static void common_write(struct virtio_pci *vp, uint64_t off, unsigned size, uint64_t val)
{
    struct virtio_device *vd = &vp->vd;
    unsigned width = common_width(off);

    /* virtio 1.2, 4.1.3.1: "the driver MUST use ... accesses ... of the width of the field", and
     * 32-bit ones for each half of 64-bit fields */
    if (!width || (size != width && !(width == 8 && size == 4))) {
        device_guest_error(&vd->dev, "write of %u bytes at %#llx of the common configuration", size,
                           (unsigned long long)off);
        return;
    }
    switch (off) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        vp->device_feature_select = (uint32_t)val;
        return;
    case VIRTIO_PCI_COMMON_GFSELECT:
        vp->driver_feature_select = (uint32_t)val;
        return;
    case VIRTIO_PCI_COMMON_GF:
        virtio_device_set_features(vd, vp->driver_feature_select, (uint32_t)val);
        return;
    case VIRTIO_PCI_COMMON_MSIX:
        vp->config_vector = checked_vector(vp, val);
        return;
    case VIRTIO_PCI_COMMON_STATUS:
        virtio_device_set_status(vd, (uint8_t)val);
        if (!val)
            reset_transport(vp);
        return;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        vp->queue_select = (uint16_t)val;
        return;
    default:
        if (!queue_write(vp, off, size, val))
            device_guest_error(&vd->dev, "queue %u: write of %#llx at %#llx", vp->queue_select,
                               (unsigned long long)val, (unsigned long long)off);
    }
}

/* --- Device configuration ------------------------------------------------ */

static uint64_t config_read(struct virtio_pci *vp, uint64_t off, unsigned size)
{
    uint8_t image[VIRTIO_CONFIG_MAX] = {0};
    struct wr w = {.p = image, .left = sizeof(image)};
    le64 v = {{0}};

    if (off >= sizeof(image) || size > sizeof(image) - off)
        return 0;
    if (vp->vd.type->config_read)
        vp->vd.type->config_read(&vp->vd, &w);
    memcpy(v.b, image + off, size);
    return le64_get(v);
}

static void config_write(struct virtio_pci *vp, uint64_t off, unsigned size, uint64_t val)
{
    if (off < VIRTIO_CONFIG_MAX && size <= VIRTIO_CONFIG_MAX - off && vp->vd.type->config_write)
        vp->vd.type->config_write(&vp->vd, (unsigned)off, size, val);
    else
        device_guest_error(&vp->vd.dev, "write of %u bytes at %#llx of the configuration", size,
                           (unsigned long long)off);
}

/* --- Guest access -------------------------------------------------------- */

/* virtio 1.2, 4.1.4.5: "reset on read" */
static uint64_t isr_read(struct virtio_pci *vp)
{
    uint8_t isr = vp->isr;

    vp->isr = 0;
    return isr;
}

/* The access lies whole in [@base, @base + @len); then its offset in it. */
static bool inside(uint64_t off, unsigned size, uint64_t base, uint64_t len, uint64_t *ret_off)
{
    *ret_off = off - base;
    return off >= base && off - base < len && size <= len - (off - base);
}

uint64_t virtio_pci_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    struct virtio_pci *vp = to_vp(dev);
    uint64_t at;

    (void)win;
    if (inside(off, size, VPCI_COMMON, VPCI_COMMON_SIZE, &at))
        return common_read(vp, at, size);
    if (off == VPCI_ISR)
        return isr_read(vp);
    if (inside(off, size, VPCI_CONFIG, VPCI_CONFIG_SIZE, &at))
        return config_read(vp, at, size);
    if (inside(off, size, VPCI_NOTIFY, VPCI_NOTIFY_SIZE, &at))
        return 0;
    if (inside(off, size, VPCI_MSIX_TABLE, VPCI_MSIX_PBA - VPCI_MSIX_TABLE, &at))
        return msix_table_read(&vp->msix, dev, at, size);
    if (inside(off, size, VPCI_MSIX_PBA, VPCI_BAR_SIZE - VPCI_MSIX_PBA, &at))
        return msix_pba_read(&vp->msix, dev, at, size);
    device_guest_error(dev, "read of %u bytes at %#llx", size, (unsigned long long)off);
    return UINT64_MAX;
}

void virtio_pci_write(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val)
{
    struct virtio_pci *vp = to_vp(dev);
    uint64_t at;

    (void)win;
    if (inside(off, size, VPCI_COMMON, VPCI_COMMON_SIZE, &at)) {
        common_write(vp, at, size, val);
    } else if (inside(off, size, VPCI_CONFIG, VPCI_CONFIG_SIZE, &at)) {
        config_write(vp, at, size, val);
    } else if (inside(off, size, VPCI_NOTIFY, VPCI_NOTIFY_SIZE, &at)) {
        if (at / VPCI_NOTIFY_STRIDE < vp->vd.nr_queues)
            virtio_device_kick(&vp->vd, (unsigned)(at / VPCI_NOTIFY_STRIDE));
    } else if (inside(off, size, VPCI_MSIX_TABLE, VPCI_MSIX_PBA - VPCI_MSIX_TABLE, &at)) {
        msix_table_write(&vp->msix, dev, at, size, val);
    } else {
        device_guest_error(dev, "write of %u bytes at %#llx", size, (unsigned long long)off);
    }
}

/* --- Capabilities -------------------------------------------------------- */

/* virtio 1.2, 4.1.4.9: the window names an access that it can make, in a BAR that there is. */
static bool window_is_valid(const struct virtio_pci *vp)
{
    uint32_t len = vp->window_length;

    return vp->window_bar == BAR && (len == 1 || len == 2 || len == 4) &&
           !(vp->window_offset & (len - 1)) && vp->window_offset < VPCI_BAR_SIZE;
}

static uint32_t window_read(struct virtio_pci *vp)
{
    if (!window_is_valid(vp)) {
        device_guest_error(&vp->vd.dev, "PCI window: bar %u offset %#x length %u", vp->window_bar,
                           vp->window_offset, vp->window_length);
        return 0;
    }
    return (uint32_t)virtio_pci_read(&vp->vd.dev, BAR, vp->window_offset, vp->window_length);
}

static void window_write(struct virtio_pci *vp, uint32_t val)
{
    if (window_is_valid(vp))
        virtio_pci_write(&vp->vd.dev, BAR, vp->window_offset, vp->window_length, val);
    else
        device_guest_error(&vp->vd.dev, "PCI window: bar %u offset %#x length %u", vp->window_bar,
                           vp->window_offset, vp->window_length);
}

static uint32_t size_mask(unsigned size)
{
    return size == 4 ? UINT32_MAX : (UINT32_C(1) << (8 * size)) - 1;
}

/* The bytes of a register that an access of @size at @off sees or replaces. */
static uint32_t part(uint32_t reg, unsigned off, unsigned size)
{
    return reg >> (8 * (off & 3)) & size_mask(size);
}

static uint32_t merge(uint32_t reg, unsigned off, unsigned size, uint32_t val)
{
    unsigned shift = 8 * (off & 3);

    return (reg & ~(size_mask(size) << shift)) | (val & size_mask(size)) << shift;
}

static void cap_read(struct pci_func *f, unsigned off, unsigned size, uint32_t *val)
{
    struct virtio_pci *vp = container_of(f, struct virtio_pci, pci);
    unsigned in_window = off - vp->window_cap;
    uint32_t reg;

    if ((off & ~3u) == vp->msix_cap) {
        /* Id and link come from the image, the control word from its owner. */
        memcpy(&reg, f->image + vp->msix_cap, sizeof(reg));
        reg = (le32toh(reg) & 0xffff) | (uint32_t)msix_control_read(&vp->msix) << 16;
        *val = part(reg, off, size);
        return;
    }
    if (off < vp->window_cap)
        return;
    switch (in_window & ~3u) {
    case WINDOW_BAR:
        *val = part(vp->window_bar, off, size);
        return;
    case WINDOW_OFFSET:
        *val = part(vp->window_offset, off, size);
        return;
    case WINDOW_LENGTH:
        *val = part(vp->window_length, off, size);
        return;
    case WINDOW_DATA:
        *val = part(window_read(vp), off, size);
        return;
    default:
        return;
    }
}

static void cap_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val)
{
    struct virtio_pci *vp = container_of(f, struct virtio_pci, pci);
    unsigned in_window = off - vp->window_cap;
    uint32_t reg;

    if ((off & ~3u) == vp->msix_cap) {
        reg = merge((uint32_t)msix_control_read(&vp->msix) << 16, off, size, val);
        msix_control_write(&vp->msix, &vp->vd.dev, (uint16_t)(reg >> 16));
        return;
    }
    if (off < vp->window_cap)
        return;
    switch (in_window & ~3u) {
    case WINDOW_BAR:
        vp->window_bar = (uint8_t)merge(vp->window_bar, off, size, val);
        return;
    case WINDOW_OFFSET:
        vp->window_offset = merge(vp->window_offset, off, size, val);
        return;
    case WINDOW_LENGTH:
        vp->window_length = merge(vp->window_length, off, size, val);
        return;
    case WINDOW_DATA:
        window_write(vp, val);
        return;
    default:
        return;
    }
}

/* --- State --------------------------------------------------------------- */

static const struct state_field virtio_pci_fields[] = {
    /* clang-format off */
    STATE_STRUCT(struct virtio_pci, 1, &virtio_device_state, vd),
    STATE_STRUCT(struct virtio_pci, 1, &pci_func_state, pci),
    STATE_STRUCT(struct virtio_pci, 1, &msix_state, msix),
    STATE(struct virtio_pci,        1, U8,  isr),
    STATE(struct virtio_pci,        1, U32, device_feature_select),
    STATE(struct virtio_pci,        1, U32, driver_feature_select),
    STATE(struct virtio_pci,        1, U16, queue_select),
    STATE(struct virtio_pci,        1, U16, config_vector),
    STATE(struct virtio_pci,        1, U8,  window_bar),
    STATE(struct virtio_pci,        1, U32, window_offset),
    STATE(struct virtio_pci,        1, U32, window_length),
    /* clang-format on */
};

static bool is_vector(const struct virtio_pci *vp, uint16_t vector)
{
    return vector < vp->msix.nr || vector == MSIX_NO_VECTOR;
}

static int virtio_pci_check(const void *scratch, const void *live, struct err *err)
{
    const struct virtio_pci *vp = scratch;

    (void)live;
    if (vp->isr & ~(VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG))
        return err_set(err, -EBADMSG, "isr: %#x", vp->isr);
    if (!is_vector(vp, vp->config_vector))
        return err_set(err, -EBADMSG, "config_vector: %u", vp->config_vector);
    for (unsigned i = 0; i < vp->vd.nr_queues; i++)
        if (!is_vector(vp, vp->vd.queues[i].vector))
            return err_set(err, -EBADMSG, "vd.queues[%u].vector: %u", i, vp->vd.queues[i].vector);
    return 0;
}

const struct state_desc virtio_pci_state = {
    .name = "virtio_pci",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct virtio_pci),
    .fields = virtio_pci_fields,
    .nr_fields = ARRAY_LEN(virtio_pci_fields),
    .check = virtio_pci_check,
};
