/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, 5.2.
 *
 * Deviations: one segment to a discard or write zeroes request.
 *
 * Threads: completions come in on the loop's thread, as kicks do.
 */
#include "devices/virtio_blk.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/epoll.h>

#include "core/loop.h"
#include "core/wire.h"
#include "devices/virtio_pci.h"

/* --- Registers ------------------------------------------------------------- */

enum {
    HEADER_SIZE = 16,  /* of a request: type, priority, sector */
    SEGMENT_SIZE = 16, /* of a discard: sector, number, flags */

    QUEUE_SIZE_DEFAULT = 128,
    QUEUE_SIZE_MIN = 4, /* header, data, status */
    SEG_MAX = 1022,     /* data segments: the longest chain without header and status */
    SEG_OVERHEAD = 2,
    DISCARD_SECTORS_MAX = 128 << 11, /* 128 MiB: a bound on the time of one request */

    WRITEBACK_UNSET = 2, /* the driver has not chosen */
    BUDGET = 256,        /* requests of one kick */
};

struct vblk_req {
    struct disk_io io;
    uint32_t type;
    uint16_t queue;
    uint64_t start_ns;
    struct vblk_req *next; /* free */
    struct vq_chain chain;
    struct iovec iov[VQ_SEGS_MAX];
};

struct vblk_stat {
    uint64_t ops;
    uint64_t bytes;
    uint64_t total_us;
    uint64_t min_us;
    uint64_t max_us;
};

struct vblk {
    struct virtio_pci vp;

    /* State. */
    uint64_t capacity; /* sectors, as the driver was told */
    uint32_t blk_size; /* bytes, likewise */
    uint32_t physical_size;
    uint32_t io_min;
    uint32_t io_opt;
    uint8_t writeback;

    /* Fixed. */
    struct disk *disk; /* owned */
    bool readonly;
    uint32_t seg_max;
    char serial[VBLK_SERIAL_MAX];
    struct loop_source *completions;
    struct vblk_req *reqs; /* owned */
    unsigned depth;

    /* Derived. */
    struct vblk_req *free;
    unsigned in_flight;
    bool starved; /* a queue was left with requests in it for want of a free one */
    struct vblk_stat reads, writes;
};

static struct vblk *to_vblk(struct device *dev)
{
    assert(dev->ops == &vblk_ops);
    return container_of(dev, struct vblk, vp.vd.dev);
}

static struct vblk *vd_to_vblk(struct virtio_device *vd)
{
    return container_of(vd, struct vblk, vp.vd);
}

/* --- Completion -------------------------------------------------------------- */

static void count(struct vblk_stat *s, const struct vblk_req *r)
{
    uint64_t us = (loop_now_ns() - r->start_ns) / 1000;

    s->min_us = !s->ops || us < s->min_us ? us : s->min_us;
    s->max_us = us > s->max_us ? us : s->max_us;
    s->total_us += us;
    s->bytes += r->io.len;
    s->ops++;
}

static struct vblk_req *take_req(struct vblk *v)
{
    struct vblk_req *r = v->free;

    if (!r)
        return NULL;
    v->free = r->next;
    return r;
}

static void give_req(struct vblk *v, struct vblk_req *r)
{
    r->next = v->free;
    v->free = r;
}

/* Answer a request: @written bytes of data are in place, the status goes behind them. */
static void finish(struct vblk *v, struct vblk_req *r, uint8_t status, uint32_t written)
{
    struct virtqueue *vq = &v->vp.vd.queues[r->queue];
    uint32_t data = r->chain.in_len - 1;

    (void)vq_chain_write(vq, &r->chain, data, &status, 1);
    /* virtio 1.2, 2.7.8.2: len counts bytes "beginning at the first device-writable buffer" */
    vq_push(vq, r->chain.head, written == data ? r->chain.in_len : written);
    give_req(v, r);
}

static uint8_t status_of(int result)
{
    if (!result)
        return VIRTIO_BLK_S_OK;
    return result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static void complete(struct vblk *v, struct vblk_req *r)
{
    struct virtqueue *vq = &v->vp.vd.queues[r->queue];
    int result = r->io.result;
    uint32_t written = 0;

    v->in_flight--;
    if (r->type == VIRTIO_BLK_T_IN) {
        /* Also where it failed: part of it may have arrived. */
        vq_chain_mark(vq, &r->chain, 0, r->chain.in_len - 1);
        written = result ? 0 : r->chain.in_len - 1;
        count(&v->reads, r);
    } else if (r->type == VIRTIO_BLK_T_OUT) {
        count(&v->writes, r);
    }
    finish(v, r, status_of(result), written);
}

/* Take everything that has ended off the disk. */
static void reap(struct vblk *v)
{
    struct virtio_device *vd = &v->vp.vd;
    struct disk_io *io;

    while ((io = disk_reap(v->disk)))
        complete(v, container_of(io, struct vblk_req, io));
    for (unsigned i = 0; i < vd->nr_queues; i++) {
        virtio_device_signal(vd, i);
        if (v->starved && v->free && vd->live)
            virtio_device_kick(vd, i);
    }
    if (v->free)
        v->starved = false;
}

static void on_completion(void *arg, uint32_t events)
{
    struct vblk *v = arg;
    uint64_t n;

    (void)events;
    if (read(disk_event_fd(v->disk), &n, sizeof(n)) < 0)
        return;
    device_lock(&v->vp.vd.dev);
    reap(v);
    virtio_device_settle(&v->vp.vd);
    device_unlock(&v->vp.vd.dev);
}

static bool vblk_is_idle(struct virtio_device *vd)
{
    struct vblk *v = vd_to_vblk(vd);

    if (v->in_flight)
        reap(v);
    return !v->in_flight;
}

/* --- Requests -------------------------------------------------------------------- */

/* virtio 1.2, 5.2.5: how a write is to be treated */
static bool is_writeback(const struct vblk *v)
{
    const struct virtio_device *vd = &v->vp.vd;

    if (v->writeback != WRITEBACK_UNSET)
        return v->writeback;
    if (!(vd->status & VIRTIO_CONFIG_S_FEATURES_OK))
        return true;
    return virtio_device_has(vd, VIRTIO_BLK_F_FLUSH);
}

static void submit(struct vblk *v, struct vblk_req *r)
{
    r->start_ns = loop_now_ns();
    v->in_flight++;
    disk_submit(v->disk, &r->io);
}

static bool is_inside(const struct vblk *v, uint64_t sector, uint64_t nr)
{
    return sector <= v->capacity && nr <= v->capacity - sector;
}

static uint8_t begin_read_write(struct vblk *v, struct vblk_req *r, uint64_t sector)
{
    bool in = r->type == VIRTIO_BLK_T_IN;
    uint32_t len = in ? r->chain.in_len - 1 : r->chain.out_len - HEADER_SIZE;
    int n;

    if (len % DISK_SECTOR || !is_inside(v, sector, len / DISK_SECTOR) || (!in && v->readonly))
        return VIRTIO_BLK_S_IOERR;
    n = in ? vq_chain_in_iov(&r->chain, 0, len, r->iov, VQ_SEGS_MAX)
           : vq_chain_out_iov(&r->chain, HEADER_SIZE, r->iov, VQ_SEGS_MAX);
    if (n < 0)
        return VIRTIO_BLK_S_IOERR;
    r->io = (struct disk_io){
        .op = in ? DISK_READ : DISK_WRITE,
        .iov = r->iov,
        .nr_iov = (unsigned)n,
        .off = sector * DISK_SECTOR,
        .len = len,
        .durable = !in && !is_writeback(v),
    };
    submit(v, r);
    return VIRTIO_BLK_S_OK;
}

/* virtio 1.2, 5.2.6.2: segments of discard and write zeroes */
static uint8_t begin_discard(struct vblk *v, struct vblk_req *r)
{
    bool zeroes = r->type == VIRTIO_BLK_T_WRITE_ZEROES;
    unsigned feature = zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD;
    uint8_t raw[SEGMENT_SIZE];
    struct rd seg = {.p = raw, .left = sizeof(raw)};
    uint32_t nr, flags;
    uint64_t sector;

    if (!virtio_device_has(&v->vp.vd, feature))
        return VIRTIO_BLK_S_UNSUPP;
    if (r->chain.out_len != HEADER_SIZE + SEGMENT_SIZE || v->readonly ||
        vq_chain_read(&r->chain, HEADER_SIZE, raw, sizeof(raw)) != sizeof(raw))
        return VIRTIO_BLK_S_IOERR;
    sector = rd_le64(&seg);
    nr = rd_le32(&seg);
    flags = rd_le32(&seg);
    if (flags & ~(zeroes ? (uint32_t)VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0))
        return VIRTIO_BLK_S_UNSUPP;
    if (nr > DISCARD_SECTORS_MAX || !is_inside(v, sector, nr))
        return VIRTIO_BLK_S_IOERR;
    r->io = (struct disk_io){
        .op = zeroes ? DISK_ZERO : DISK_DISCARD,
        .off = sector * DISK_SECTOR,
        .len = (uint64_t)nr * DISK_SECTOR,
        .unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
        .durable = !is_writeback(v),
    };
    submit(v, r);
    return VIRTIO_BLK_S_OK;
}

static void get_id(struct vblk *v, struct vblk_req *r)
{
    struct virtqueue *vq = &v->vp.vd.queues[r->queue];
    uint32_t data = r->chain.in_len - 1;
    uint32_t len = data < VBLK_SERIAL_MAX ? data : VBLK_SERIAL_MAX;

    (void)vq_chain_write(vq, &r->chain, 0, v->serial, len);
    finish(v, r, VIRTIO_BLK_S_OK, len);
}

/* Begin or answer the request in @r->chain, which has a header and a byte for the status. */
static void begin(struct vblk *v, struct vblk_req *r)
{
    uint8_t raw[HEADER_SIZE] = {0}, status = VIRTIO_BLK_S_UNSUPP;
    struct rd header = {.p = raw, .left = sizeof(raw)};
    uint64_t sector;

    (void)vq_chain_read(&r->chain, 0, raw, sizeof(raw));
    r->type = rd_le32(&header);
    (void)rd_le32(&header);
    sector = rd_le64(&header);
    switch (r->type) {
    case VIRTIO_BLK_T_IN:
    case VIRTIO_BLK_T_OUT:
        status = begin_read_write(v, r, sector);
        break;
    case VIRTIO_BLK_T_FLUSH:
        r->io = (struct disk_io){.op = DISK_FLUSH};
        submit(v, r);
        return;
    case VIRTIO_BLK_T_GET_ID:
        get_id(v, r);
        return;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        status = begin_discard(v, r);
        break;
    default:
        break;
    }
    if (status != VIRTIO_BLK_S_OK)
        finish(v, r, status, 0);
}

static bool vblk_process(struct virtio_device *vd, unsigned queue)
{
    struct vblk *v = vd_to_vblk(vd);
    struct vblk_req *r = NULL;
    unsigned nr = 0;

    while (nr++ < BUDGET && (r = take_req(v)) && virtio_device_pop(vd, queue, &r->chain)) {
        r->queue = (uint16_t)queue;
        if (r->chain.out_len < HEADER_SIZE || !r->chain.in_len) {
            vq_unpop(&vd->queues[queue]);
            virtio_device_fail(vd, "request of %u and %u bytes", r->chain.out_len, r->chain.in_len);
            break;
        }
        begin(v, r);
        r = NULL;
    }
    v->starved = v->starved || !v->free;
    if (r)
        give_req(v, r);
    disk_kick(v->disk);
    virtio_device_signal(vd, queue);
    return v->free && vd->live && vq_rearm(&vd->queues[queue]);
}

/* --- Configuration ------------------------------------------------------------------ */

static unsigned log2_of(uint32_t n)
{
    unsigned bits = 0;

    while (n >>= 1)
        bits++;
    return bits;
}

/* virtio 1.2, 5.2.4 */
static void vblk_config_read(struct virtio_device *vd, struct wr *w)
{
    const struct vblk *v = vd_to_vblk(vd);
    const uint32_t align = v->blk_size / DISK_SECTOR;

    wr_le64(w, v->capacity);
    wr_le32(w, 0); /* size_max */
    wr_le32(w, v->seg_max);
    wr_le32(w, 0); /* geometry */
    wr_le32(w, v->blk_size);
    wr_u8(w, (uint8_t)log2_of(v->physical_size / v->blk_size));
    wr_u8(w, 0); /* alignment_offset */
    wr_le16(w, (uint16_t)(v->io_min / v->blk_size));
    wr_le32(w, v->io_opt / v->blk_size);
    wr_u8(w, is_writeback(v));
    wr_u8(w, 0);
    wr_le16(w, (uint16_t)vd->nr_queues);
    wr_le32(w, DISCARD_SECTORS_MAX);
    wr_le32(w, 1); /* max_discard_seg */
    wr_le32(w, align);
    wr_le32(w, DISCARD_SECTORS_MAX);
    wr_le32(w, 1); /* max_write_zeroes_seg */
    wr_u8(w, 1);   /* write_zeroes_may_unmap */
}

static void vblk_config_write(struct virtio_device *vd, unsigned off, unsigned size, uint64_t val)
{
    struct vblk *v = vd_to_vblk(vd);

    if (off == offsetof(struct virtio_blk_config, wce) && size == 1 && val <= 1 &&
        virtio_device_has(vd, VIRTIO_BLK_F_CONFIG_WCE))
        v->writeback = (uint8_t)val;
    else
        device_guest_error(&vd->dev, "write of %u bytes at %u of the configuration", size, off);
}

static void vblk_type_reset(struct virtio_device *vd)
{
    vd_to_vblk(vd)->writeback = WRITEBACK_UNSET;
}

static const struct virtio_type vblk_type = {
    .id = 2,
    .pci_class = 0x01,
    .pci_subclass = 0x80,
    .config_read = vblk_config_read,
    .config_write = vblk_config_write,
    .reset = vblk_type_reset,
    .is_idle = vblk_is_idle,
    .process = vblk_process,
};

/* --- Life cycle ------------------------------------------------------------------------ */

unsigned vblk_depth(uint16_t num_queues, uint16_t queue_size)
{
    unsigned nr = (num_queues ? num_queues : 1u) * (queue_size ? queue_size : QUEUE_SIZE_DEFAULT);

    return nr < VBLK_DEPTH_MAX ? nr : VBLK_DEPTH_MAX;
}

static uint64_t offered(const struct vblk *v, const struct vblk_config *conf, unsigned nr_queues)
{
    const struct disk_geometry *geo = disk_geometry(conf->disk);
    uint64_t f = 0;

    f |= UINT64_C(1) << VIRTIO_BLK_F_SEG_MAX;
    f |= UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE;
    f |= UINT64_C(1) << VIRTIO_BLK_F_FLUSH;
    f |= UINT64_C(1) << VIRTIO_BLK_F_TOPOLOGY;
    f |= UINT64_C(1) << VIRTIO_BLK_F_CONFIG_WCE;
    f |= UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
    f |= UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
    if (v->readonly)
        f |= UINT64_C(1) << VIRTIO_BLK_F_RO;
    if (nr_queues > 1)
        f |= UINT64_C(1) << VIRTIO_BLK_F_MQ;
    if (geo->can_discard && !v->readonly && !conf->no_sparse) {
        f |= UINT64_C(1) << VIRTIO_BLK_F_DISCARD;
        f |= UINT64_C(1) << VIRTIO_BLK_F_WRITE_ZEROES;
    }
    return f;
}

static void take_geometry(struct vblk *v, const struct disk_geometry *geo)
{
    v->capacity = geo->size / DISK_SECTOR;
    v->blk_size = geo->block_size;
    v->physical_size = geo->physical_size;
    v->io_min = geo->io_min;
    v->io_opt = geo->io_opt;
}

static int make_reqs(struct vblk *v, struct err *err)
{
    v->reqs = calloc(v->depth, sizeof(*v->reqs));
    if (!v->reqs)
        return err_set(err, -ENOMEM, "%s: out of memory", v->vp.vd.dev.id);
    for (unsigned i = v->depth; i--;)
        give_req(v, &v->reqs[i]);
    return 0;
}

static int vblk_realize(struct device *dev, const void *cfg, struct err *err)
{
    const struct vblk_config *conf = cfg;
    struct vblk *v = to_vblk(dev);
    uint16_t size = conf->queue_size ? conf->queue_size : QUEUE_SIZE_DEFAULT;
    unsigned nr = conf->num_queues ? conf->num_queues : 1;
    const char *serial = conf->serial ? conf->serial : dev->id;
    uint16_t sizes[VIRTIO_QUEUES_MAX];
    int rc;

    if (size < QUEUE_SIZE_MIN || nr > VIRTIO_QUEUES_MAX)
        return err_set(err, -EINVAL, "%s: %u queues of %u", dev->id, nr, size);
    for (unsigned i = 0; i < nr; i++)
        sizes[i] = size;
    v->readonly = conf->readonly;
    v->seg_max = size - SEG_OVERHEAD < SEG_MAX ? size - SEG_OVERHEAD : SEG_MAX;
    v->depth = vblk_depth((uint16_t)nr, size);
    memcpy(v->serial, serial, strnlen(serial, sizeof(v->serial)));
    take_geometry(v, disk_geometry(conf->disk));
    v->vp.vd.features = offered(v, conf, nr);
    rc = make_reqs(v, err);
    if (rc < 0)
        return rc;
    rc = virtio_pci_realize(&v->vp, &vblk_type, &conf->place, sizes, nr, err);
    if (rc < 0)
        return rc;
    rc = loop_add_fd(dev->env->loop, disk_event_fd(conf->disk), EPOLLIN, on_completion, v,
                     &v->completions);
    if (rc < 0)
        return err_set(err, rc, "%s: %s", dev->id, strerror(-rc));
    v->disk = conf->disk;
    return 0;
}

static void vblk_destroy(struct device *dev)
{
    struct vblk *v = to_vblk(dev);

    virtio_pci_destroy(&v->vp);
    loop_remove(v->completions);
    disk_close(v->disk);
    free(v->reqs);
}

struct disk *vblk_disk(struct device *dev)
{
    return to_vblk(dev)->disk;
}

int vblk_resized(struct device *dev, struct err *err)
{
    struct vblk *v = to_vblk(dev);
    int rc;

    device_lock(dev);
    rc = disk_refresh(v->disk, err);
    if (rc >= 0 && v->capacity != disk_geometry(v->disk)->size / DISK_SECTOR) {
        v->capacity = disk_geometry(v->disk)->size / DISK_SECTOR;
        virtio_device_config_changed(&v->vp.vd);
    }
    device_unlock(dev);
    return rc;
}

static unsigned put_counters(const struct vblk_stat *s, const char *const names[5],
                             struct device_counter *out)
{
    const uint64_t values[] = {s->bytes, s->ops, s->min_us, s->max_us,
                               s->ops ? s->total_us / s->ops : 0};

    for (unsigned i = 0; i < ARRAY_LEN(values); i++)
        out[i] = (struct device_counter){.name = names[i], .value = values[i]};
    return ARRAY_LEN(values);
}

/* Latencies are in microseconds. */
static unsigned vblk_counters(struct device *dev, struct device_counter *out, unsigned cap)
{
    static const char *const reads[] = {"read_bytes", "read_ops", "read_latency_min",
                                        "read_latency_max", "read_latency_avg"};
    static const char *const writes[] = {"write_bytes", "write_ops", "write_latency_min",
                                         "write_latency_max", "write_latency_avg"};
    const struct vblk *v = to_vblk(dev);
    unsigned n;

    if (cap < ARRAY_LEN(reads) + ARRAY_LEN(writes))
        return 0;
    n = put_counters(&v->reads, reads, out);
    return n + put_counters(&v->writes, writes, out + n);
}

/* --- State ------------------------------------------------------------------------------- */

static const struct state_field vblk_fields[] = {
    /* clang-format off */
    STATE_STRUCT(struct vblk, 1, &virtio_pci_state, vp),
    STATE(struct vblk,        1, U64, capacity),
    STATE(struct vblk,        1, U32, blk_size),
    STATE(struct vblk,        1, U32, physical_size),
    STATE(struct vblk,        1, U32, io_min),
    STATE(struct vblk,        1, U32, io_opt),
    STATE(struct vblk,        1, U8,  writeback),
    /* clang-format on */
};

static bool is_block_size(uint32_t n)
{
    return n >= DISK_SECTOR && !(n & (n - 1));
}

static int vblk_check(const void *scratch, const void *live, struct err *err)
{
    const struct vblk *v = scratch;
    const struct disk_geometry *geo = disk_geometry(((const struct vblk *)live)->disk);

    if (!is_block_size(v->blk_size))
        return err_set(err, -EBADMSG, "blk_size: %u", v->blk_size);
    if (!is_block_size(v->physical_size) || v->physical_size < v->blk_size)
        return err_set(err, -EBADMSG, "physical_size: %u", v->physical_size);
    if (v->writeback > WRITEBACK_UNSET)
        return err_set(err, -EBADMSG, "writeback: %u", v->writeback);
    if (v->capacity > geo->size / DISK_SECTOR) {
        return err_set(err, -ENOTSUP,
                       "capacity: the guest's disk has %" PRIu64
                       " sectors, this image has %" PRIu64,
                       v->capacity, geo->size / DISK_SECTOR);
    }
    if (v->blk_size < geo->block_size) {
        return err_set(err, -ENOTSUP,
                       "blk_size: the guest's disk has blocks of %u bytes, this image of %u",
                       v->blk_size, geo->block_size);
    }
    return 0;
}

static const struct state_desc vblk_state = {
    .name = "virtio-blk",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct vblk),
    .fields = vblk_fields,
    .nr_fields = ARRAY_LEN(vblk_fields),
    .check = vblk_check,
};

/* --- Ops table ----------------------------------------------------------------------------- */

const struct device_ops vblk_ops = {
    .type = "virtio-blk",
    .size = sizeof(struct vblk),
    .realize = vblk_realize,
    .destroy = vblk_destroy,
    VPCI_DEVICE_OPS,
    .state = &vblk_state,
    .counters = vblk_counters,
};
