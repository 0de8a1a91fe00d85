/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, 5.4.
 *
 * Deviations: a request gets at most VRNG_REQUEST_MAX bytes; a source that has
 * ended or fails is made up for by the kernel's generator.
 */
#include "devices/virtio_rng.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "core/loop.h"
#include "devices/virtio_pci.h"

/* --- Registers ------------------------------------------------------------- */

enum {
    VRNG_QUEUE = 0,
    VRNG_QUEUE_SIZE = 256,
    VRNG_REQUEST_MAX = 64 << 10, /* bytes */
    VRNG_BUDGET = 16,            /* requests of one kick */
};

struct vrng {
    struct virtio_pci vp; /* and there is no other state */

    /* Fixed. */
    int fd;
    struct loop_source *source; /* NULL: the fd is always ready, or there is none */

    struct vq_chain chain;
};

static struct vrng *to_vrng(struct device *dev)
{
    assert(dev->ops == &vrng_ops);
    return container_of(dev, struct vrng, vp.vd.dev);
}

static struct vrng *vd_to_vrng(struct virtio_device *vd)
{
    return container_of(vd, struct vrng, vp.vd);
}

/* --- Requests ---------------------------------------------------------------- */

/* Random bytes; 0 if the source has none yet. */
static size_t random_bytes(struct vrng *r, uint8_t *buf, size_t len)
{
    ssize_t n = r->fd >= 0 ? read(r->fd, buf, len) : 0;

    if (n < 0 && errno == EAGAIN && r->source)
        return 0;
    if (n <= 0)
        n = getrandom(buf, len, 0);
    return n > 0 ? (size_t)n : 0;
}

/* Fill what the chain has room for; bytes written, 0 if the source has none yet. */
static size_t fill(struct vrng *r)
{
    struct virtqueue *vq = &r->vp.vd.queues[VRNG_QUEUE];
    size_t done = 0, want = r->chain.in_len;
    uint8_t buf[1024];

    if (want > VRNG_REQUEST_MAX)
        want = VRNG_REQUEST_MAX;
    while (done < want) {
        size_t n = random_bytes(r, buf, want - done < sizeof(buf) ? want - done : sizeof(buf));

        if (!n)
            break;
        done += vq_chain_write(vq, &r->chain, done, buf, n);
    }
    explicit_bzero(buf, sizeof(buf));
    return done;
}

static bool vrng_process(struct virtio_device *vd, unsigned queue)
{
    struct vrng *r = vd_to_vrng(vd);
    struct virtqueue *vq = &vd->queues[queue];
    bool dry = false;

    for (unsigned i = 0; i < VRNG_BUDGET && !dry && virtio_device_pop(vd, queue, &r->chain); i++) {
        size_t n = fill(r);

        dry = !n && r->chain.in_len;
        if (dry)
            vq_unpop(vq);
        else
            vq_push(vq, r->chain.head, (uint32_t)n);
    }
    virtio_device_signal(vd, queue);
    if (r->source)
        loop_set_events(r->source, dry ? EPOLLIN : 0);
    return !dry && vq_rearm(vq);
}

static void on_readable(void *arg, uint32_t events)
{
    struct vrng *r = arg;

    (void)events;
    device_lock(&r->vp.vd.dev);
    loop_set_events(r->source, 0);
    if (r->vp.vd.live)
        virtio_device_kick(&r->vp.vd, VRNG_QUEUE);
    device_unlock(&r->vp.vd.dev);
}

static void vrng_stop(struct virtio_device *vd)
{
    struct vrng *r = vd_to_vrng(vd);

    if (r->source)
        loop_set_events(r->source, 0);
}

static const struct virtio_type vrng_type = {
    .id = 4,
    .pci_class = 0xff,
    .pci_subclass = 0xff,
    .stop = vrng_stop,
    .process = vrng_process,
};

/* --- Life cycle ---------------------------------------------------------------- */

static int watch(struct vrng *r, int fd, struct err *err)
{
    struct device *dev = &r->vp.vd.dev;
    int flags = fcntl(fd, F_GETFL);
    int rc;

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_set(err, -errno, "%s: src: %s", dev->id, strerror(errno));
    rc = loop_add_fd(dev->env->loop, fd, 0, on_readable, r, &r->source);
    /* A regular file, or a device that never waits. */
    if (rc == -EPERM)
        return 0;
    return rc < 0 ? err_set(err, rc, "%s: src: %s", dev->id, strerror(-rc)) : 0;
}

static int vrng_realize(struct device *dev, const void *cfg, struct err *err)
{
    static const uint16_t size = VRNG_QUEUE_SIZE;
    const struct vrng_config *conf = cfg;
    struct vrng *r = to_vrng(dev);
    int rc;

    r->fd = -1;
    rc = virtio_pci_realize(&r->vp, &vrng_type, &conf->place, &size, 1, err);
    if (rc >= 0 && conf->fd >= 0)
        rc = watch(r, conf->fd, err);
    if (rc >= 0)
        r->fd = conf->fd;
    return rc;
}

static void vrng_destroy(struct device *dev)
{
    struct vrng *r = to_vrng(dev);

    virtio_pci_destroy(&r->vp);
    loop_remove(r->source);
    if (r->fd >= 0)
        (void)close(r->fd);
}

/* --- State ----------------------------------------------------------------------- */

static const struct state_field vrng_fields[] = {
    STATE_STRUCT(struct vrng, 1, &virtio_pci_state, vp),
};

static const struct state_desc vrng_state = {
    .name = "virtio-rng",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct vrng),
    .fields = vrng_fields,
    .nr_fields = ARRAY_LEN(vrng_fields),
};

/* --- Ops table --------------------------------------------------------------------- */

const struct device_ops vrng_ops = {
    .type = "virtio-rng",
    .size = sizeof(struct vrng),
    .realize = vrng_realize,
    .destroy = vrng_destroy,
    VPCI_DEVICE_OPS,
    .state = &vrng_state,
};
