/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, 5.3.
 *
 * Deviations: of one request at most VCON_REQUEST_MAX bytes are written, the
 * rest is dropped.
 */
#include "devices/virtio_console.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_console.h>

#include "core/wire.h"
#include "devices/virtio_pci.h"

/* --- Registers ------------------------------------------------------------- */

enum {
    VCON_RX = 0,
    VCON_TX = 1,
    VCON_QUEUES = 2,
    VCON_QUEUE_SIZE = 256,
    VCON_REQUEST_MAX = 64 << 10, /* bytes */
    VCON_BUDGET = 64,            /* requests of one kick */
};

struct vcon {
    struct virtio_pci vp;

    /* State. */
    struct char_port port;
    uint16_t cols;
    uint16_t rows;

    struct vq_chain chain;
    uint64_t tx_bytes, rx_bytes;
};

static struct vcon *to_vcon(struct device *dev)
{
    assert(dev->ops == &vcon_ops);
    return container_of(dev, struct vcon, vp.vd.dev);
}

static struct vcon *vd_to_vcon(struct virtio_device *vd)
{
    return container_of(vd, struct vcon, vp.vd);
}

/* --- Input ------------------------------------------------------------------- */

/* Look at the driver's next buffer; false if there is none. */
static bool next_buffer(struct vcon *c)
{
    struct virtio_device *vd = &c->vp.vd;

    if (!virtio_device_pop(vd, VCON_RX, &c->chain))
        return false;
    if (c->chain.in_len)
        return true;
    vq_unpop(&vd->queues[VCON_RX]);
    virtio_device_fail(vd, "receive buffer of 0 bytes");
    return false;
}

static size_t vcon_room(struct device *dev)
{
    struct vcon *c = to_vcon(dev);

    if (!next_buffer(c))
        return 0;
    vq_unpop(&c->vp.vd.queues[VCON_RX]);
    return c->chain.in_len;
}

static void vcon_input(struct device *dev, const uint8_t *data, size_t len)
{
    struct vcon *c = to_vcon(dev);
    struct virtqueue *vq = &c->vp.vd.queues[VCON_RX];
    size_t n;

    /* The buffer may have shrunk since it was looked at: it is guest memory. */
    for (; len && next_buffer(c); len -= n) {
        n = vq_chain_write(vq, &c->chain, 0, data, len);
        vq_push(vq, c->chain.head, (uint32_t)n);
        c->rx_bytes += n;
        data += n;
    }
    virtio_device_signal(&c->vp.vd, VCON_RX);
    (void)vq_rearm(vq);
}

static const struct char_port_ops port_ops = {
    .room = vcon_room,
    .input = vcon_input,
};

/* --- Output ------------------------------------------------------------------- */

static void write_chain(struct vcon *c)
{
    size_t left = c->chain.out_len < VCON_REQUEST_MAX ? c->chain.out_len : VCON_REQUEST_MAX;

    for (unsigned i = 0; i < c->chain.nr_out && left; i++) {
        const struct vq_seg *s = &c->chain.segs[i];
        size_t n = s->len < left ? s->len : left;

        char_port_write(&c->port, s->hva, n);
        c->tx_bytes += n;
        left -= n;
    }
}

static bool vcon_process(struct virtio_device *vd, unsigned queue)
{
    struct vcon *c = vd_to_vcon(vd);
    struct virtqueue *vq = &vd->queues[queue];

    if (queue == VCON_RX) {
        (void)vq_rearm(vq);
        char_port_has_room(&c->port);
        return false;
    }
    for (unsigned i = 0; i < VCON_BUDGET && virtio_device_pop(vd, queue, &c->chain); i++) {
        write_chain(c);
        vq_push(vq, c->chain.head, 0);
    }
    virtio_device_signal(vd, queue);
    return vq_rearm(vq);
}

/* virtio 1.2, 5.3.4 */
static void vcon_config_read(struct virtio_device *vd, struct wr *w)
{
    const struct vcon *c = vd_to_vcon(vd);

    wr_le16(w, c->cols);
    wr_le16(w, c->rows);
}

static const struct virtio_type vcon_type = {
    .id = 3,
    .pci_class = 0xff,
    .pci_subclass = 0xff,
    .config_read = vcon_config_read,
    .process = vcon_process,
};

/* --- Life cycle ----------------------------------------------------------------- */

static int vcon_realize(struct device *dev, const void *cfg, struct err *err)
{
    static const uint16_t sizes[VCON_QUEUES] = {VCON_QUEUE_SIZE, VCON_QUEUE_SIZE};
    const struct vcon_config *conf = cfg;
    struct vcon *c = to_vcon(dev);
    int rc;

    c->cols = conf->cols;
    c->rows = conf->rows;
    if (conf->cols && conf->rows)
        c->vp.vd.features = UINT64_C(1) << VIRTIO_CONSOLE_F_SIZE;
    rc = virtio_pci_realize(&c->vp, &vcon_type, &conf->place, sizes, VCON_QUEUES, err);
    return rc < 0 ? rc : char_port_init(&c->port, dev, &conf->port, &port_ops, err);
}

static void vcon_destroy(struct device *dev)
{
    struct vcon *c = to_vcon(dev);

    virtio_pci_destroy(&c->vp);
    char_port_release(&c->port);
}

static void vcon_resume(struct device *dev)
{
    virtio_pci_resume(dev);
    char_port_start(&to_vcon(dev)->port);
}

static int vcon_quiesce(struct device *dev, uint64_t deadline_ns, struct err *err)
{
    int rc = virtio_device_quiesce(dev, deadline_ns, err);

    if (rc >= 0)
        char_port_stop(&to_vcon(dev)->port);
    return rc;
}

void vcon_resize(struct device *dev, uint16_t cols, uint16_t rows)
{
    struct vcon *c = to_vcon(dev);

    device_lock(dev);
    if ((c->cols != cols || c->rows != rows) && c->vp.vd.features >> VIRTIO_CONSOLE_F_SIZE & 1) {
        c->cols = cols;
        c->rows = rows;
        virtio_device_config_changed(&c->vp.vd);
    }
    device_unlock(dev);
}

static unsigned vcon_counters(struct device *dev, struct device_counter *out, unsigned cap)
{
    const struct vcon *c = to_vcon(dev);
    const struct device_counter all[] = {
        {"rx_bytes",   c->rx_bytes    },
        {"tx_bytes",   c->tx_bytes    },
        {"tx_dropped", c->port.dropped},
    };
    unsigned i;

    for (i = 0; i < ARRAY_LEN(all) && i < cap; i++)
        out[i] = all[i];
    return i;
}

/* --- State ------------------------------------------------------------------------ */

static const struct state_field vcon_fields[] = {
    /* clang-format off */
    STATE_STRUCT(struct vcon, 1, &virtio_pci_state, vp),
    STATE_STRUCT(struct vcon, 1, &char_port_state, port),
    STATE(struct vcon,        1, U16, cols),
    STATE(struct vcon,        1, U16, rows),
    /* clang-format on */
};

static const struct state_desc vcon_state = {
    .name = "virtio-console",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct vcon),
    .fields = vcon_fields,
    .nr_fields = ARRAY_LEN(vcon_fields),
};

/* --- Ops table ---------------------------------------------------------------------- */

const struct device_ops vcon_ops = {
    .type = "virtio-console",
    .size = sizeof(struct vcon),
    .realize = vcon_realize,
    .destroy = vcon_destroy,
    .reset = virtio_pci_reset,
    .quiesce = vcon_quiesce,
    .resume = vcon_resume,
    .read = virtio_pci_read,
    .write = virtio_pci_write,
    .state = &vcon_state,
    .counters = vcon_counters,
};
