/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, chapters 2 and 3.
 */
#include "devices/virtio_device.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "core/loop.h"

enum {
    STATUS_KNOWN = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                   VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |
                   VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED,

    QUIESCE_POLL_MS = 1,
};

struct virtio_kick {
    struct virtio_device *vd;
    unsigned queue;
    int fd;
    struct loop_source *src;
};

/* --- Life cycle ---------------------------------------------------------- */

static void on_kick(void *arg, uint32_t events);

static int init_kick(struct virtio_device *vd, unsigned queue, struct err *err)
{
    struct virtio_kick *k = &vd->kicks[queue];
    int rc;

    k->vd = vd;
    k->queue = queue;
    k->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (k->fd < 0)
        return err_set(err, -errno, "%s: eventfd: %s", vd->dev.id, strerror(errno));
    rc = loop_add_fd(vd->dev.env->loop, k->fd, EPOLLIN, on_kick, k, &k->src);
    return rc < 0 ? err_set(err, rc, "%s: queue %u: %s", vd->dev.id, queue, strerror(-rc)) : 0;
}

int virtio_device_init(struct virtio_device *vd, const struct virtio_type *type,
                       const uint16_t *sizes, unsigned nr, struct err *err)
{
    int rc = 0;

    vd->type = type;
    vd->features |= UINT64_C(1) << VIRTIO_VERSION_1;
    vd->may_dma = true;
    if (!nr || nr > VIRTIO_QUEUES_MAX)
        return err_set(err, -EINVAL, "%s: num_queues: %u, must be 1 to %d", vd->dev.id, nr,
                       VIRTIO_QUEUES_MAX);
    vd->kicks = calloc(nr, sizeof(*vd->kicks));
    if (!vd->kicks)
        return err_set(err, -ENOMEM, "%s: out of memory", vd->dev.id);
    for (unsigned i = 0; i < nr; i++)
        vd->kicks[i].fd = -1;
    vd->nr_queues = nr;
    for (unsigned i = 0; i < nr && rc >= 0; i++) {
        if (!sizes[i] || sizes[i] & (sizes[i] - 1) || sizes[i] > VQ_SIZE_MAX)
            return err_set(err, -EINVAL, "%s: queue_size: %u is not a power of two up to %d",
                           vd->dev.id, sizes[i], VQ_SIZE_MAX);
        vq_init(&vd->queues[i], vd->dev.env->gm, sizes[i]);
        rc = init_kick(vd, i, err);
    }
    return rc;
}

void virtio_device_release(struct virtio_device *vd)
{
    for (unsigned i = 0; vd->kicks && i < vd->nr_queues; i++) {
        loop_remove(vd->kicks[i].src);
        if (vd->kicks[i].fd >= 0)
            (void)close(vd->kicks[i].fd);
    }
    free(vd->kicks);
    vd->kicks = NULL;
}

static void stop(struct virtio_device *vd)
{
    if (!vd->live)
        return;
    vd->live = false;
    if (vd->type->stop)
        vd->type->stop(vd);
}

/* Begin to serve, if everything that this takes is there. */
static void start(struct virtio_device *vd)
{
    if (vd->live || !vd->running || !vd->may_dma || vd->reset_pending)
        return;
    if ((vd->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) !=
        VIRTIO_CONFIG_S_DRIVER_OK)
        return;
    for (unsigned i = 0; i < vd->nr_queues; i++) {
        struct virtqueue *vq = &vd->queues[i];

        if (!vq->enabled || vq->live || vq_start(vq, vd->driver_features) >= 0)
            continue;
        virtio_device_fail(vd, "queue %u: rings at %#" PRIx64 " %#" PRIx64 " %#" PRIx64, i,
                           vq->desc_gpa, vq->avail_gpa, vq->used_gpa);
        return;
    }
    vd->live = true;
    if (vd->type->start)
        vd->type->start(vd);
    for (unsigned i = 0; i < vd->nr_queues; i++)
        if (vd->queues[i].live)
            virtio_device_kick(vd, i);
}

static bool is_idle(struct virtio_device *vd)
{
    return !vd->type->is_idle || vd->type->is_idle(vd);
}

void virtio_device_reset(struct virtio_device *vd)
{
    stop(vd);
    vd->reset_pending = false;
    vd->status = 0;
    vd->driver_features = 0;
    vd->config_generation = 0;
    for (unsigned i = 0; i < vd->nr_queues; i++)
        vq_reset(&vd->queues[i]);
    if (vd->type->reset)
        vd->type->reset(vd);
}

static void virtio_device_pause(struct virtio_device *vd)
{
    vd->running = false;
    stop(vd);
}

void virtio_device_unpause(struct virtio_device *vd)
{
    vd->running = true;
    /* Where they are may have been loaded. */
    for (unsigned i = 0; i < vd->nr_queues; i++)
        vd->queues[i].live = false;
    start(vd);
    if (!vd->live)
        return;
    for (unsigned i = 0; i < vd->nr_queues; i++)
        if (vd->queues[i].live)
            vd->transport->interrupt(vd, VIRTIO_ISR_QUEUE, vd->queues[i].vector);
}

static void sleep_ms(long ms)
{
    const struct timespec ts = {.tv_nsec = ms * 1000000};

    (void)nanosleep(&ts, NULL);
}

int virtio_device_quiesce(struct device *dev, uint64_t deadline_ns, struct err *err)
{
    struct virtio_device *vd = container_of(dev, struct virtio_device, dev);
    bool idle;

    device_lock(dev);
    virtio_device_pause(vd);
    while (!(idle = is_idle(vd)) && loop_now_ns() < deadline_ns) {
        device_unlock(dev);
        sleep_ms(QUIESCE_POLL_MS);
        device_lock(dev);
    }
    if (idle) {
        virtio_device_settle(vd);
    } else {
        /* Queues stay as they are: what is in flight is returned to them, whether this starts or not. */
        vd->running = true;
        start(vd);
    }
    device_unlock(dev);
    return idle ? 0 : err_set(err, -ETIMEDOUT, "%s: requests are still in flight", dev->id);
}

/* --- Status -------------------------------------------------------------- */

void virtio_device_settle(struct virtio_device *vd)
{
    const struct dev_env *env = vd->dev.env;

    if (!vd->reset_pending || !is_idle(vd))
        return;
    if (vd->status & VIRTIO_CONFIG_S_DRIVER_OK)
        env->ops->event(env->arg, "virtio-device", "reset", vd->dev.id);
    virtio_device_reset(vd);
}

uint8_t virtio_device_status(struct virtio_device *vd)
{
    virtio_device_settle(vd);
    return vd->status;
}

static void accept_features(struct virtio_device *vd)
{
    const uint64_t f = vd->driver_features;

    /* virtio 1.2, 2.2.2: "SHOULD accept any valid subset of features the driver accepts,
     * otherwise it MUST fail to set the FEATURES_OK device status bit" */
    if (f & ~vd->features || !(f >> VIRTIO_VERSION_1 & 1) ||
        (vd->type->accepts && !vd->type->accepts(vd, f))) {
        device_guest_error(&vd->dev, "features %#" PRIx64 " are not among %#" PRIx64, f,
                           vd->features);
    } else {
        vd->status |= VIRTIO_CONFIG_S_FEATURES_OK;
    }
}

static void driver_is_ready(struct virtio_device *vd)
{
    const struct dev_env *env = vd->dev.env;

    if (!(vd->status & VIRTIO_CONFIG_S_FEATURES_OK)) {
        device_guest_error(&vd->dev, "DRIVER_OK without FEATURES_OK");
        return;
    }
    vd->status |= VIRTIO_CONFIG_S_DRIVER_OK;
    env->ops->event(env->arg, "virtio-device", "activated", vd->dev.id);
    start(vd);
}

void virtio_device_set_status(struct virtio_device *vd, uint8_t val)
{
    uint8_t added;

    virtio_device_settle(vd);
    if (vd->reset_pending)
        return;
    added = (uint8_t)(val & ~vd->status);
    if (!val) {
        /* virtio 1.2, 2.4.1: status is 0 only when nothing touches memory any more */
        stop(vd);
        vd->reset_pending = true;
        virtio_device_settle(vd);
        return;
    }
    /* virtio 1.2, 2.1.1: "The driver MUST NOT clear a device status bit" */
    if (vd->status & ~val & ~VIRTIO_CONFIG_S_NEEDS_RESET)
        device_guest_error(&vd->dev, "status %#x after %#x", val, vd->status);
    vd->status |=
        added & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED);
    if (added & VIRTIO_CONFIG_S_FEATURES_OK)
        accept_features(vd);
    if (added & VIRTIO_CONFIG_S_DRIVER_OK)
        driver_is_ready(vd);
}

void virtio_device_set_features(struct virtio_device *vd, uint32_t select, uint32_t val)
{
    uint64_t shift = 32 * (uint64_t)select;

    if (vd->status & VIRTIO_CONFIG_S_FEATURES_OK || vd->reset_pending) {
        device_guest_error(&vd->dev, "features written after FEATURES_OK");
        return;
    }
    if (select > 1) {
        if (val)
            device_guest_error(&vd->dev, "feature word %u: %#x", select, val);
        return;
    }
    vd->driver_features &= ~(UINT64_C(0xffffffff) << shift);
    vd->driver_features |= (uint64_t)val << shift;
}

void virtio_device_enable_queue(struct virtio_device *vd, unsigned queue)
{
    struct virtqueue *vq = &vd->queues[queue];

    if (vq->enabled)
        return;
    vq->enabled = true;
    if (!vd->live)
        return;
    /* Late, but no harm is done. */
    if (vq_start(vq, vd->driver_features) < 0) {
        virtio_device_fail(vd, "queue %u: rings at %#" PRIx64 " %#" PRIx64 " %#" PRIx64, queue,
                           vq->desc_gpa, vq->avail_gpa, vq->used_gpa);
    } else {
        virtio_device_kick(vd, queue);
    }
}

void virtio_device_set_dma(struct virtio_device *vd, bool on)
{
    vd->may_dma = on;
    if (on)
        start(vd);
    else
        stop(vd);
}

void virtio_device_fail(struct virtio_device *vd, const char *fmt, ...)
{
    char what[160];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    device_guest_error(&vd->dev, "%s", what);
    if (vd->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    vd->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    stop(vd);
    /* virtio 1.2, 2.1.2: "If DRIVER_OK is set, after it sets DEVICE_NEEDS_RESET, the device MUST
     * send a device configuration change notification" */
    if (vd->status & VIRTIO_CONFIG_S_DRIVER_OK)
        vd->transport->config_interrupt(vd);
}

void virtio_device_config_changed(struct virtio_device *vd)
{
    vd->config_generation++;
    if (vd->status & VIRTIO_CONFIG_S_DRIVER_OK)
        vd->transport->config_interrupt(vd);
}

/* --- Queues -------------------------------------------------------------- */

static void on_kick(void *arg, uint32_t events)
{
    struct virtio_kick *k = arg;
    struct virtio_device *vd = k->vd;
    uint64_t count;

    (void)events;
    if (read(k->fd, &count, sizeof(count)) < 0)
        return;
    device_lock(&vd->dev);
    /* A kick that comes too early is made up for by start(). */
    if (vd->live && vd->queues[k->queue].live && vd->type->process(vd, k->queue) && vd->live)
        virtio_device_kick(vd, k->queue);
    device_unlock(&vd->dev);
}

void virtio_device_kick(struct virtio_device *vd, unsigned queue)
{
    uint64_t one = 1;

    /* Full counter: it is kicked already. */
    if (write(vd->kicks[queue].fd, &one, sizeof(one)) < 0)
        return;
}

int virtio_device_kick_fd(const struct virtio_device *vd, unsigned queue)
{
    return vd->kicks[queue].fd;
}

bool virtio_device_pop(struct virtio_device *vd, unsigned queue, struct vq_chain *ret_chain)
{
    struct virtqueue *vq = &vd->queues[queue];
    int rc = vd->live ? vq_pop(vq, ret_chain) : 0;

    if (rc < 0)
        virtio_device_fail(vd, "queue %u: bad chain at %u: %s", queue, vq->next_avail,
                           strerror(-rc));
    return rc == 1;
}

void virtio_device_signal(struct virtio_device *vd, unsigned queue)
{
    struct virtqueue *vq = &vd->queues[queue];

    if (vq_needs_signal(vq))
        vd->transport->interrupt(vd, VIRTIO_ISR_QUEUE, vq->vector);
}

/* --- State --------------------------------------------------------------- */

static const struct state_field virtio_device_fields[] = {
    /* clang-format off */
    STATE(struct virtio_device,      1, U8,  status),
    STATE(struct virtio_device,      1, U8,  config_generation),
    STATE(struct virtio_device,      1, U64, driver_features),
    STATE_LIST(struct virtio_device, 1, &virtqueue_state, queues, nr_queues),
    /* clang-format on */
};

static int check_features(const struct virtio_device *vd, const struct virtio_device *live,
                          struct err *err)
{
    uint64_t missing = vd->driver_features & ~live->features;

    for (unsigned bit = 0; bit < 64; bit++) {
        if (missing >> bit & 1) {
            return err_set(err, -ENOTSUP,
                           "driver_features: the guest uses feature %u, which this device does "
                           "not offer",
                           bit);
        }
    }
    if (!(vd->driver_features >> VIRTIO_VERSION_1 & 1) ||
        (live->type->accepts && !live->type->accepts(live, vd->driver_features)))
        return err_set(err, -EBADMSG, "driver_features: %#" PRIx64, vd->driver_features);
    return 0;
}

static int virtio_device_check(const void *scratch, const void *live, struct err *err)
{
    const struct virtio_device *vd = scratch, *l = live;

    if (vd->nr_queues != l->nr_queues)
        return err_set(err, -ENOTSUP, "queues: %u, this device has %u", vd->nr_queues,
                       l->nr_queues);
    if (vd->status & ~STATUS_KNOWN ||
        (vd->status & VIRTIO_CONFIG_S_DRIVER_OK && !(vd->status & VIRTIO_CONFIG_S_FEATURES_OK)))
        return err_set(err, -EBADMSG, "status: %#x", vd->status);
    return vd->status & VIRTIO_CONFIG_S_FEATURES_OK ? check_features(vd, l, err) : 0;
}

const struct state_desc virtio_device_state = {
    .name = "virtio_device",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct virtio_device),
    .fields = virtio_device_fields,
    .nr_fields = ARRAY_LEN(virtio_device_fields),
    .check = virtio_device_check,
};
