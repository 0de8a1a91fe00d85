/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, 5.1.
 *
 * Deviations: no filters; receive buffers are not merged.
 *
 * Threads: the tap's readiness comes in on the loop's thread, as kicks do.
 */
#include "devices/virtio_net.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "core/loop.h"
#include "core/wire.h"
#include "devices/virtio_pci.h"

/* --- Registers ------------------------------------------------------------- */

#define BIT(n) (UINT64_C(1) << (n))

/* What the driver can switch off and on again. */
#define GUEST_OFFLOADS                                                                            \
    (BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) | \
     BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO))

#define OFFLOADS_UNSET UINT64_MAX /* the driver has not chosen */

enum {
    QUEUE_SIZE_DEFAULT = 256,
    QUEUE_SIZE_MIN = 2,
    BUDGET = 64,      /* frames of one turn */
    CTRL_BUDGET = 16, /* commands of one kick */
    NUM_BUFFERS = 10, /* offset in the header in front of a frame */
    FRAME_MIN = 60,   /* bytes, without checksum */
};

struct vnet;

struct vnet_pair {
    struct vnet *net;
    unsigned index;
    struct loop_source *source; /* NULL: no tap, or its interface is gone */
    bool rx_wanted;             /* there is room to receive */
    bool tx_blocked;            /* the tap takes nothing for now */
};

struct vnet {
    struct virtio_pci vp;

    /* State. */
    uint8_t mac[TAP_MAC_LEN];
    uint16_t mtu;
    bool link_up;
    bool announce; /* the driver was asked to announce itself */
    uint16_t curr_pairs;
    uint64_t guest_offloads;

    /* Fixed. */
    unsigned nr_pairs;
    struct vnet_pair *pairs; /* owned */
    struct tap *tap;         /* owned; NULL: none */

    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes, tx_dropped;
    struct vq_chain chain;
    struct iovec iov[VQ_SEGS_MAX];
};

static struct vnet *to_vnet(struct device *dev)
{
    assert(dev->ops == &vnet_ops);
    return container_of(dev, struct vnet, vp.vd.dev);
}

static struct vnet *vd_to_vnet(struct virtio_device *vd)
{
    return container_of(vd, struct vnet, vp.vd);
}

/* --- The tap ------------------------------------------------------------------ */

static unsigned rx_queue(const struct vnet_pair *p)
{
    return 2 * p->index;
}

static unsigned tx_queue(const struct vnet_pair *p)
{
    return 2 * p->index + 1;
}

/* Wait for what this pair can make use of. */
static void update_events(struct vnet_pair *p)
{
    const struct vnet *n = p->net;
    bool on = n->vp.vd.live && n->link_up && p->index < n->curr_pairs;

    if (p->source)
        loop_set_events(p->source, (on && p->rx_wanted ? EPOLLIN : 0u) |
                                       (on && p->tx_blocked ? EPOLLOUT : 0u));
}

static unsigned tun_flags(const struct vnet *n)
{
    static const struct {
        uint64_t feature;
        unsigned flag;
    } map[] = {
        {BIT(VIRTIO_NET_F_GUEST_CSUM), TUN_F_CSUM   },
        {BIT(VIRTIO_NET_F_GUEST_TSO4), TUN_F_TSO4   },
        {BIT(VIRTIO_NET_F_GUEST_TSO6), TUN_F_TSO6   },
        {BIT(VIRTIO_NET_F_GUEST_ECN),  TUN_F_TSO_ECN},
        {BIT(VIRTIO_NET_F_GUEST_UFO),  TUN_F_UFO    },
    };
    uint64_t offloads = n->vp.vd.driver_features & GUEST_OFFLOADS;
    unsigned flags = 0;

    if (n->guest_offloads != OFFLOADS_UNSET)
        offloads &= n->guest_offloads;
    for (size_t i = 0; i < ARRAY_LEN(map); i++)
        if (offloads & map[i].feature)
            flags |= map[i].flag;
    return flags;
}

/* Make the tap what was agreed with the driver. */
static int configure_tap(struct vnet *n)
{
    int rc = n->tap ? tap_set_offloads(n->tap, tun_flags(n)) : 0;

    if (rc >= 0 && n->tap)
        rc = tap_set_pairs(n->tap, n->curr_pairs);
    return rc;
}

/* --- Receiving ------------------------------------------------------------------ */

/* Take one frame into the chain; bytes with header, 0 if there is none now. */
static ssize_t receive(struct vnet *n, struct vnet_pair *p)
{
    struct virtqueue *vq = &n->vp.vd.queues[rx_queue(p)];
    const le16 one = le16_make(1);
    ssize_t len;
    int nr;

    nr = vq_chain_in_iov(&n->chain, 0, n->chain.in_len, n->iov, IOV_MAX);
    if (nr < 0)
        return nr;
    len = readv(tap_fd(n->tap, p->index), n->iov, nr);
    if (len < TAP_VNET_HDR_LEN)
        return 0;
    vq_chain_mark(vq, &n->chain, 0, (size_t)len);
    /* virtio 1.2, 5.1.6.4.1: without merged buffers "the device MUST set num_buffers to 1" */
    (void)vq_chain_write(vq, &n->chain, NUM_BUFFERS, &one, sizeof(one));
    return len;
}

static void receive_frames(struct vnet *n, struct vnet_pair *p)
{
    struct virtio_device *vd = &n->vp.vd;
    unsigned queue = rx_queue(p);
    struct virtqueue *vq = &vd->queues[queue];

    for (unsigned i = 0; i < BUDGET && p->source && virtio_device_pop(vd, queue, &n->chain); i++) {
        ssize_t len;

        if (n->chain.in_len < TAP_VNET_HDR_LEN || n->chain.out_len || n->chain.nr_in > IOV_MAX) {
            vq_unpop(vq);
            virtio_device_fail(vd, "receive buffer of %u bytes", n->chain.in_len);
            return;
        }
        len = receive(n, p);
        if (len <= 0) {
            vq_unpop(vq);
            break;
        }
        vq_push(vq, n->chain.head, (uint32_t)len);
        n->rx_frames++;
        n->rx_bytes += (uint64_t)len - TAP_VNET_HDR_LEN;
    }
    virtio_device_signal(vd, queue);
    p->rx_wanted = vq_has_work(vq) || vq_rearm(vq);
    update_events(p);
}

/* --- Transmitting ------------------------------------------------------------------ */

/* Send the frame in the chain; false if the tap takes nothing for now. */
static bool transmit(struct vnet *n, struct vnet_pair *p)
{
    int nr = vq_chain_out_iov(&n->chain, 0, n->iov, IOV_MAX);
    ssize_t len = -1;

    if (n->tap && n->link_up && nr > 0) {
        len = writev(tap_fd(n->tap, p->index), n->iov, nr);
        if (len < 0 && errno == EAGAIN && p->source)
            return false;
    }
    /* A frame that the kernel refuses is lost as on any wire. */
    if (len < TAP_VNET_HDR_LEN) {
        n->tx_dropped++;
        return true;
    }
    n->tx_frames++;
    n->tx_bytes += (uint64_t)len - TAP_VNET_HDR_LEN;
    return true;
}

static bool transmit_frames(struct vnet *n, struct vnet_pair *p)
{
    struct virtio_device *vd = &n->vp.vd;
    unsigned queue = tx_queue(p);
    struct virtqueue *vq = &vd->queues[queue];

    p->tx_blocked = false;
    for (unsigned i = 0; i < BUDGET && virtio_device_pop(vd, queue, &n->chain); i++) {
        if (n->chain.out_len < TAP_VNET_HDR_LEN) {
            vq_unpop(vq);
            virtio_device_fail(vd, "frame of %u bytes with its header", n->chain.out_len);
            return false;
        }
        if (!transmit(n, p)) {
            vq_unpop(vq);
            p->tx_blocked = true;
            break;
        }
        vq_push(vq, n->chain.head, 0);
    }
    virtio_device_signal(vd, queue);
    update_events(p);
    return !p->tx_blocked && vq_rearm(vq);
}

static void on_tap(void *arg, uint32_t events)
{
    struct vnet_pair *p = arg;
    struct vnet *n = p->net;

    device_lock(&n->vp.vd.dev);
    if (events & (EPOLLERR | EPOLLHUP)) {
        /* The interface was deleted; nothing will ever come again. */
        loop_remove(p->source);
        p->source = NULL;
    } else if (n->vp.vd.live && p->index < n->curr_pairs) {
        if (events & EPOLLIN)
            receive_frames(n, p);
        if (events & EPOLLOUT && n->vp.vd.live && transmit_frames(n, p))
            virtio_device_kick(&n->vp.vd, tx_queue(p));
    }
    device_unlock(&n->vp.vd.dev);
}

/* --- Control ------------------------------------------------------------------------- */

static bool set_pairs(struct vnet *n, uint16_t nr)
{
    if (!virtio_device_has(&n->vp.vd, VIRTIO_NET_F_MQ) || !nr || nr > n->nr_pairs)
        return false;
    n->curr_pairs = nr;
    for (unsigned i = 0; i < n->nr_pairs; i++)
        update_events(&n->pairs[i]);
    return configure_tap(n) >= 0;
}

static bool set_guest_offloads(struct vnet *n, uint64_t offloads)
{
    uint64_t old = n->guest_offloads;

    if (!virtio_device_has(&n->vp.vd, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
        offloads & ~(n->vp.vd.driver_features & GUEST_OFFLOADS))
        return false;
    n->guest_offloads = offloads;
    if (configure_tap(n) >= 0)
        return true;
    n->guest_offloads = old;
    return false;
}

/* Carry out the command in the chain. */
static bool command(struct vnet *n)
{
    uint8_t raw[10];
    struct rd r = {.p = raw};
    uint8_t class_code, cmd;

    r.left = vq_chain_read(&n->chain, 0, raw, sizeof(raw));
    class_code = rd_u8(&r);
    cmd = rd_u8(&r);
    if (r.bad)
        return false;
    if (class_code == VIRTIO_NET_CTRL_MQ && cmd == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) {
        uint16_t nr = rd_le16(&r);

        return !r.bad && set_pairs(n, nr);
    }
    if (class_code == VIRTIO_NET_CTRL_GUEST_OFFLOADS && cmd == VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) {
        uint64_t offloads = rd_le64(&r);

        return !r.bad && set_guest_offloads(n, offloads);
    }
    if (class_code == VIRTIO_NET_CTRL_ANNOUNCE && cmd == VIRTIO_NET_CTRL_ANNOUNCE_ACK &&
        virtio_device_has(&n->vp.vd, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
        n->announce = false;
        return true;
    }
    return false;
}

static bool process_control(struct vnet *n, unsigned queue)
{
    struct virtio_device *vd = &n->vp.vd;
    struct virtqueue *vq = &vd->queues[queue];

    for (unsigned i = 0; i < CTRL_BUDGET && virtio_device_pop(vd, queue, &n->chain); i++) {
        uint8_t ack;

        if (!n->chain.in_len || n->chain.out_len < 2) {
            vq_unpop(vq);
            virtio_device_fail(vd, "command of %u and %u bytes", n->chain.out_len, n->chain.in_len);
            return false;
        }
        ack = command(n) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
        (void)vq_chain_write(vq, &n->chain, 0, &ack, 1);
        vq_push(vq, n->chain.head, 1);
    }
    virtio_device_signal(vd, queue);
    return vq_rearm(vq);
}

static bool vnet_process(struct virtio_device *vd, unsigned queue)
{
    struct vnet *n = vd_to_vnet(vd);
    /* virtio 1.2, 5.1.2: the control queue follows the pairs that the driver knows of */
    unsigned control = virtio_device_has(vd, VIRTIO_NET_F_MQ) ? 2 * n->nr_pairs : 2;
    struct vnet_pair *p;

    if (queue == control)
        return virtio_device_has(vd, VIRTIO_NET_F_CTRL_VQ) && process_control(n, queue);
    if (queue > control)
        return false;
    p = &n->pairs[queue / 2];
    if (queue & 1)
        return transmit_frames(n, p);
    p->rx_wanted = vq_has_work(&vd->queues[queue]) || vq_rearm(&vd->queues[queue]);
    update_events(p);
    return false;
}

/* --- Configuration --------------------------------------------------------------------- */

/* virtio 1.2, 5.1.4 */
static void vnet_config_read(struct virtio_device *vd, struct wr *w)
{
    const struct vnet *n = vd_to_vnet(vd);

    wr_bytes(w, n->mac, sizeof(n->mac));
    wr_le16(w, (uint16_t)((n->link_up ? VIRTIO_NET_S_LINK_UP : 0) |
                          (n->announce ? VIRTIO_NET_S_ANNOUNCE : 0)));
    wr_le16(w, (uint16_t)n->nr_pairs);
    wr_le16(w, n->mtu);
}

/* virtio 1.2, 5.1.3.1: which features need which */
static bool vnet_accepts(const struct virtio_device *vd, uint64_t f)
{
    static const struct {
        unsigned feature, needs;
    } rules[] = {
        {VIRTIO_NET_F_GUEST_TSO4,     VIRTIO_NET_F_GUEST_CSUM},
        {VIRTIO_NET_F_GUEST_TSO6,     VIRTIO_NET_F_GUEST_CSUM},
        {VIRTIO_NET_F_GUEST_UFO,      VIRTIO_NET_F_GUEST_CSUM},
        {VIRTIO_NET_F_HOST_TSO4,      VIRTIO_NET_F_CSUM      },
        {VIRTIO_NET_F_HOST_TSO6,      VIRTIO_NET_F_CSUM      },
        {VIRTIO_NET_F_HOST_UFO,       VIRTIO_NET_F_CSUM      },
        {VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_CTRL_VQ   },
        {VIRTIO_NET_F_MQ,             VIRTIO_NET_F_CTRL_VQ   },
    };

    (void)vd;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (f & BIT(rules[i].feature) && !(f & BIT(rules[i].needs)))
            return false;
    if (f & BIT(VIRTIO_NET_F_GUEST_ECN) &&
        !(f & (BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6))))
        return false;
    return !(f & BIT(VIRTIO_NET_F_HOST_ECN)) ||
           f & (BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6));
}

static void vnet_type_reset(struct virtio_device *vd)
{
    struct vnet *n = vd_to_vnet(vd);

    n->announce = false;
    n->curr_pairs = 1;
    n->guest_offloads = OFFLOADS_UNSET;
}

static void vnet_start(struct virtio_device *vd)
{
    struct vnet *n = vd_to_vnet(vd);

    if (configure_tap(n) < 0)
        device_guest_error(&vd->dev, "the interface refuses what was agreed on");
    for (unsigned i = 0; i < n->nr_pairs; i++)
        update_events(&n->pairs[i]);
}

static void vnet_stop(struct virtio_device *vd)
{
    struct vnet *n = vd_to_vnet(vd);

    for (unsigned i = 0; i < n->nr_pairs; i++) {
        n->pairs[i].rx_wanted = false;
        n->pairs[i].tx_blocked = false;
        update_events(&n->pairs[i]);
    }
}

static const struct virtio_type vnet_type = {
    .id = 1,
    .pci_class = 0x02,
    .pci_subclass = 0x00,
    .config_read = vnet_config_read,
    .accepts = vnet_accepts,
    .reset = vnet_type_reset,
    .start = vnet_start,
    .stop = vnet_stop,
    .process = vnet_process,
};

/* --- Life cycle -------------------------------------------------------------------------- */

static uint64_t offered(const struct vnet_config *conf, unsigned nr_pairs)
{
    unsigned tun = conf->tap ? tap_offloads(conf->tap) : UINT32_MAX;
    uint64_t f = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_CTRL_VQ) |
                 BIT(VIRTIO_NET_F_GUEST_ANNOUNCE) | BIT(VIRTIO_RING_F_EVENT_IDX);

    if (conf->mtu)
        f |= BIT(VIRTIO_NET_F_MTU);
    if (nr_pairs > 1)
        f |= BIT(VIRTIO_NET_F_MQ);
    if (conf->no_csum || !(tun & TUN_F_CSUM))
        return f;
    f |= BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) |
         BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
    if (!conf->no_tso && tun & TUN_F_TSO4) {
        f |= BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
             BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
             BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN);
    }
    if (!conf->no_ufo && tun & TUN_F_UFO)
        f |= BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_GUEST_UFO);
    return f;
}

static int make_pairs(struct vnet *n, struct err *err)
{
    n->pairs = calloc(n->nr_pairs, sizeof(*n->pairs));
    if (!n->pairs)
        return err_set(err, -ENOMEM, "%s: out of memory", n->vp.vd.dev.id);
    for (unsigned i = 0; i < n->nr_pairs; i++) {
        n->pairs[i].net = n;
        n->pairs[i].index = i;
    }
    return 0;
}

static void unwatch(struct vnet *n)
{
    for (unsigned i = 0; n->pairs && i < n->nr_pairs; i++) {
        loop_remove(n->pairs[i].source);
        n->pairs[i].source = NULL;
    }
}

static int watch(struct vnet *n, const struct tap *tap, struct err *err)
{
    struct device *dev = &n->vp.vd.dev;

    if (tap_nr_pairs(tap) != n->nr_pairs)
        return err_set(err, -EINVAL, "%s: tap %s has %u pairs of queues, the device %u", dev->id,
                       tap_name(tap), tap_nr_pairs(tap), n->nr_pairs);
    for (unsigned i = 0; i < n->nr_pairs; i++) {
        int rc = loop_add_fd(dev->env->loop, tap_fd(tap, i), 0, on_tap, &n->pairs[i],
                             &n->pairs[i].source);

        if (rc < 0)
            return err_set(err, rc, "%s: tap %s: %s", dev->id, tap_name(tap), strerror(-rc));
    }
    return 0;
}

static int vnet_realize(struct device *dev, const void *cfg, struct err *err)
{
    const struct vnet_config *conf = cfg;
    struct vnet *n = to_vnet(dev);
    uint16_t size = conf->queue_size ? conf->queue_size : QUEUE_SIZE_DEFAULT;
    uint16_t sizes[2 * TAP_PAIRS_MAX + 1];
    unsigned nr = conf->nr_pairs ? conf->nr_pairs : 1;
    int rc;

    if (size < QUEUE_SIZE_MIN || nr > TAP_PAIRS_MAX)
        return err_set(err, -EINVAL, "%s: %u pairs of queues of %u", dev->id, nr, size);
    for (unsigned i = 0; i < 2 * nr + 1; i++)
        sizes[i] = size;
    n->nr_pairs = nr;
    n->link_up = true;
    n->mtu = conf->mtu;
    memcpy(n->mac, conf->mac, sizeof(n->mac));
    n->vp.vd.features = offered(conf, nr);
    rc = make_pairs(n, err);
    if (rc >= 0)
        rc = virtio_pci_realize(&n->vp, &vnet_type, &conf->place, sizes, 2 * nr + 1, err);
    if (rc >= 0 && conf->tap)
        rc = watch(n, conf->tap, err);
    if (rc >= 0)
        n->tap = conf->tap;
    return rc;
}

static void vnet_destroy(struct device *dev)
{
    struct vnet *n = to_vnet(dev);

    virtio_pci_destroy(&n->vp);
    unwatch(n);
    tap_close(n->tap);
    free(n->pairs);
}

/* --- Control by the machine ---------------------------------------------------------------- */

void vnet_drop_tap(struct device *dev)
{
    struct vnet *n = to_vnet(dev);
    struct loop_source *sources[TAP_PAIRS_MAX] = {0};

    /* A callback that runs now takes our lock: remove what it comes from without it. */
    device_lock(dev);
    for (unsigned i = 0; i < n->nr_pairs; i++) {
        sources[i] = n->pairs[i].source;
        n->pairs[i].source = NULL;
    }
    device_unlock(dev);
    for (unsigned i = 0; i < n->nr_pairs; i++)
        loop_remove(sources[i]);
    device_lock(dev);
    tap_close(n->tap);
    n->tap = NULL;
    device_unlock(dev);
}

/* The lock is held; on failure the sources that were added are left behind. */
static int attach_tap(struct vnet *n, struct tap *tap, struct err *err)
{
    struct device *dev = &n->vp.vd.dev;
    int rc = watch(n, tap, err);

    if (rc < 0)
        return rc;
    n->tap = tap;
    if (!n->vp.vd.live)
        return 0;
    rc = configure_tap(n);
    if (rc < 0) {
        n->tap = NULL;
        return err_set(err, -ENOTSUP, "%s: tap %s cannot do what was agreed with the guest: %s",
                       dev->id, tap_name(tap), strerror(-rc));
    }
    for (unsigned i = 0; i < n->vp.vd.nr_queues; i++)
        virtio_device_kick(&n->vp.vd, i);
    return 0;
}

int vnet_set_tap(struct device *dev, struct tap *tap, struct err *err)
{
    int rc;

    vnet_drop_tap(dev);
    device_lock(dev);
    rc = attach_tap(to_vnet(dev), tap, err);
    device_unlock(dev);
    if (rc < 0)
        vnet_drop_tap(dev);
    return rc;
}

/* A reverse ARP request, which every switch on the way learns from. */
static void send_rarp(struct vnet *n)
{
    uint8_t frame[TAP_VNET_HDR_LEN + FRAME_MIN] = {0};
    struct wr w = {.p = frame + TAP_VNET_HDR_LEN, .left = FRAME_MIN};
    static const uint8_t broadcast[TAP_MAC_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t arp[] = {
        ETH_P_RARP >> 8,
        ETH_P_RARP & 0xff, /* type */
        0,
        1,
        8,
        0,
        6,
        4,
        0,
        3, /* Ethernet, IPv4, request reverse */
    };
    static const uint8_t no_address[4] = {0};

    wr_bytes(&w, broadcast, sizeof(broadcast));
    wr_bytes(&w, n->mac, sizeof(n->mac));
    wr_bytes(&w, arp, sizeof(arp));
    for (unsigned i = 0; i < 2; i++) {
        wr_bytes(&w, n->mac, sizeof(n->mac));
        wr_bytes(&w, no_address, sizeof(no_address));
    }
    /* Lost, perhaps, as any frame. */
    if (n->tap && write(tap_fd(n->tap, 0), frame, sizeof(frame)) < 0)
        return;
}

void vnet_announce(struct device *dev)
{
    struct vnet *n = to_vnet(dev);

    device_lock(dev);
    send_rarp(n);
    if (n->vp.vd.live && virtio_device_has(&n->vp.vd, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
        n->announce = true;
        virtio_device_config_changed(&n->vp.vd);
    }
    device_unlock(dev);
}

void vnet_set_link(struct device *dev, bool up)
{
    struct vnet *n = to_vnet(dev);

    device_lock(dev);
    if (n->link_up != up) {
        n->link_up = up;
        for (unsigned i = 0; i < n->nr_pairs; i++)
            update_events(&n->pairs[i]);
        virtio_device_config_changed(&n->vp.vd);
    }
    device_unlock(dev);
}

void vnet_set_mac(struct device *dev, const uint8_t *mac)
{
    struct vnet *n = to_vnet(dev);

    device_lock(dev);
    memcpy(n->mac, mac, sizeof(n->mac));
    virtio_device_config_changed(&n->vp.vd);
    device_unlock(dev);
}

static unsigned vnet_counters(struct device *dev, struct device_counter *out, unsigned cap)
{
    const struct vnet *n = to_vnet(dev);
    const struct device_counter all[] = {
        {"rx_bytes",   n->rx_bytes  },
        {"rx_frames",  n->rx_frames },
        {"tx_bytes",   n->tx_bytes  },
        {"tx_frames",  n->tx_frames },
        {"tx_dropped", n->tx_dropped},
    };

    if (cap < ARRAY_LEN(all))
        return 0;
    memcpy(out, all, sizeof(all));
    return ARRAY_LEN(all);
}

/* --- State ----------------------------------------------------------------------------------- */

static const struct state_field vnet_fields[] = {
    /* clang-format off */
    STATE_STRUCT(struct vnet, 1, &virtio_pci_state, vp),
    STATE(struct vnet,        1, BYTES, mac),
    STATE(struct vnet,        1, U16,   mtu),
    STATE(struct vnet,        1, BOOL,  link_up),
    STATE(struct vnet,        1, BOOL,  announce),
    STATE(struct vnet,        1, U16,   curr_pairs),
    STATE(struct vnet,        1, U64,   guest_offloads),
    /* clang-format on */
};

static int vnet_check(const void *scratch, const void *live, struct err *err)
{
    const struct vnet *n = scratch;

    if (!n->curr_pairs || n->curr_pairs > ((const struct vnet *)live)->nr_pairs)
        return err_set(err, -EBADMSG, "curr_pairs: %u", n->curr_pairs);
    if (n->guest_offloads != OFFLOADS_UNSET &&
        n->guest_offloads & ~(n->vp.vd.driver_features & GUEST_OFFLOADS))
        return err_set(err, -EBADMSG, "guest_offloads: %#" PRIx64, n->guest_offloads);
    return 0;
}

static const struct state_desc vnet_state = {
    .name = "virtio-net",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct vnet),
    .fields = vnet_fields,
    .nr_fields = ARRAY_LEN(vnet_fields),
    .check = vnet_check,
};

/* --- Ops table --------------------------------------------------------------------------------- */

const struct device_ops vnet_ops = {
    .type = "virtio-net",
    .size = sizeof(struct vnet),
    .realize = vnet_realize,
    .destroy = vnet_destroy,
    VPCI_DEVICE_OPS,
    .state = &vnet_state,
    .counters = vnet_counters,
};
