/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, 2.7 (split virtqueues).
 *
 * Deviations: a chain has at most VQ_DESCS_MAX descriptors, whatever the queue
 * size; descriptors of length 0 are skipped.
 *
 * Threads: with the device's lock held.
 */
#include "devices/virtqueue.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <string.h>

#include "core/wire.h"
#include "devices/msix.h"

/* --- Rings --------------------------------------------------------------- */

enum {
    DESC_SIZE = 16,
    USED_ELEM_SIZE = 8,

    AVAIL_FLAGS = 0,
    AVAIL_IDX = 2,
    AVAIL_RING = 4,
    USED_IDX = 2,
    USED_RING = 4,
};

struct wire_desc {
    le64 addr;
    le32 len;
    le16 flags;
    le16 next;
};
_Static_assert(sizeof(struct wire_desc) == DESC_SIZE, "virtio 1.2, 2.7.5");

struct wire_used_elem {
    le32 id;
    le32 len;
};
_Static_assert(sizeof(struct wire_used_elem) == USED_ELEM_SIZE, "virtio 1.2, 2.7.8");

static uint64_t used_event_gpa(const struct virtqueue *vq)
{
    return vq->avail_gpa + AVAIL_RING + UINT64_C(2) * vq->size;
}

static uint64_t avail_event_gpa(const struct virtqueue *vq)
{
    return vq->used_gpa + USED_RING + (uint64_t)USED_ELEM_SIZE * vq->size;
}

/* --- Life cycle ---------------------------------------------------------- */

void vq_init(struct virtqueue *vq, struct gmem *gm, uint16_t size_max)
{
    vq->gm = gm;
    vq->size_max = size_max;
    vq_reset(vq);
}

void vq_reset(struct virtqueue *vq)
{
    *vq = (struct virtqueue){
        .size = vq->size_max,
        .vector = MSIX_NO_VECTOR,
        .size_max = vq->size_max,
        .gm = vq->gm,
    };
}

static bool is_ram(struct gmem *gm, uint64_t gpa, uint64_t len)
{
    struct iovec iov[8];

    return gmem_iov(gm, gpa, len, iov, ARRAY_LEN(iov)) >= 0;
}

int vq_start(struct virtqueue *vq, uint64_t features)
{
    /* virtio 1.2, 2.7: alignment of the three parts, and their sizes with the event index */
    vq->live = false;
    if (vq->desc_gpa % 16 || vq->avail_gpa % 2 || vq->used_gpa % 4)
        return -EFAULT;
    if (!is_ram(vq->gm, vq->desc_gpa, (uint64_t)DESC_SIZE * vq->size) ||
        !is_ram(vq->gm, vq->avail_gpa, AVAIL_RING + 2u * vq->size + 2) ||
        !is_ram(vq->gm, vq->used_gpa, USED_RING + (uint64_t)USED_ELEM_SIZE * vq->size + 2))
        return -EFAULT;
    vq->event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1;
    vq->indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
    vq->signalled = vq->next_used;
    vq->signalled_valid = false;
    vq->live = true;
    return 0;
}

/* --- Chains -------------------------------------------------------------- */

/* A descriptor table that is being followed. */
struct walk {
    uint64_t table_gpa;
    uint32_t nr; /* descriptors in the table */
    uint32_t next;
    unsigned followed;
    bool indirect;
};

static int add_range(struct virtqueue *vq, struct vq_chain *c, uint64_t gpa, uint32_t len,
                     bool writable)
{
    unsigned used = c->nr_out + c->nr_in;
    struct iovec iov[GMEM_REGIONS_MAX];
    int n = writable ? gmem_pin_write(vq->gm, gpa, len, iov, ARRAY_LEN(iov))
                     : gmem_iov(vq->gm, gpa, len, iov, ARRAY_LEN(iov));

    if (n < 0)
        return n;
    if ((unsigned)n > VQ_SEGS_MAX - used)
        return -E2BIG;
    for (int i = 0; i < n; i++) {
        c->segs[used + (unsigned)i] =
            (struct vq_seg){.gpa = gpa, .hva = iov[i].iov_base, .len = (uint32_t)iov[i].iov_len};
        gpa += iov[i].iov_len;
    }
    if (writable)
        c->nr_in = (uint16_t)(c->nr_in + n);
    else
        c->nr_out = (uint16_t)(c->nr_out + n);
    return 0;
}

static int add_desc(struct virtqueue *vq, struct vq_chain *c, const struct wire_desc *d)
{
    bool writable = le16_get(d->flags) & VRING_DESC_F_WRITE;
    uint32_t *total = writable ? &c->in_len : &c->out_len;
    uint32_t len = le32_get(d->len);

    /* virtio 1.2, 2.7.4.2: "MUST place any device-writable descriptor elements after any
     * device-readable descriptor elements" */
    if (!writable && c->nr_in)
        return -EBADMSG;
    if (len > UINT32_MAX - *total)
        return -EBADMSG;
    *total += len;
    return len ? add_range(vq, c, le64_get(d->addr), len, writable) : 0;
}

static int enter_indirect(const struct virtqueue *vq, struct walk *w, const struct wire_desc *d)
{
    uint32_t len = le32_get(d->len);

    /* virtio 1.2, 2.7.5.3.1: not within an indirect table, not together with NEXT */
    if (!vq->indirect || w->indirect || le16_get(d->flags) & VRING_DESC_F_NEXT)
        return -EBADMSG;
    if (!len || len % DESC_SIZE)
        return -EBADMSG;
    *w = (struct walk){
        .table_gpa = le64_get(d->addr),
        .nr = len / DESC_SIZE,
        .followed = w->followed,
        .indirect = true,
    };
    return 0;
}

/* Follow one descriptor; 1 if the chain goes on. */
static int follow(struct virtqueue *vq, struct walk *w, struct vq_chain *c)
{
    struct wire_desc d;
    int rc;

    if (w->next >= w->nr || w->table_gpa > UINT64_MAX - (uint64_t)w->nr * DESC_SIZE)
        return -EBADMSG;
    /* Also ends a chain that bites its own tail. */
    if (w->followed++ == VQ_DESCS_MAX)
        return -E2BIG;
    rc = gmem_copy_in(vq->gm, w->table_gpa + (uint64_t)w->next * DESC_SIZE, &d, sizeof(d));
    if (rc < 0)
        return rc;
    if (le16_get(d.flags) & VRING_DESC_F_INDIRECT) {
        rc = enter_indirect(vq, w, &d);
        return rc < 0 ? rc : 1;
    }
    rc = add_desc(vq, c, &d);
    if (rc < 0)
        return rc;
    w->next = le16_get(d.next);
    return le16_get(d.flags) & VRING_DESC_F_NEXT ? 1 : 0;
}

static int read_chain(struct virtqueue *vq, uint16_t head, struct vq_chain *c)
{
    struct walk w = {.table_gpa = vq->desc_gpa, .nr = vq->size, .next = head};
    int rc;

    c->head = head;
    c->nr_out = c->nr_in = 0;
    c->out_len = c->in_len = 0;
    do
        rc = follow(vq, &w, c);
    while (rc == 1);
    return rc;
}

int vq_pop(struct virtqueue *vq, struct vq_chain *ret_chain)
{
    uint16_t idx, head, waiting;
    int rc;

    if (!vq->live)
        return 0;
    rc = gmem_load_le16(vq->gm, vq->avail_gpa + AVAIL_IDX, &idx);
    if (rc < 0)
        return rc;
    waiting = (uint16_t)(idx - vq->next_avail);
    if (!waiting)
        return 0;
    if (waiting > vq->size)
        return -EBADMSG;
    rc = gmem_load_le16(
        vq->gm, vq->avail_gpa + AVAIL_RING + UINT64_C(2) * (vq->next_avail % vq->size), &head);
    if (rc < 0)
        return rc;
    if (head >= vq->size)
        return -EBADMSG;
    rc = read_chain(vq, head, ret_chain);
    if (rc < 0)
        return rc;
    vq->next_avail++;
    return 1;
}

void vq_unpop(struct virtqueue *vq)
{
    vq->next_avail--;
}

void vq_push(struct virtqueue *vq, uint16_t head, uint32_t len)
{
    struct wire_used_elem e = {.id = le32_make(head), .len = le32_make(len)};
    uint64_t gpa = vq->used_gpa + USED_RING + (uint64_t)USED_ELEM_SIZE * (vq->next_used % vq->size);

    if (!vq->live)
        return;
    /* Neither can fail: the ring was checked when it was started. */
    if (gmem_copy_out(vq->gm, gpa, &e, sizeof(e)) < 0)
        return;
    vq->next_used++;
    (void)!gmem_store_le16(vq->gm, vq->used_gpa + USED_IDX, vq->next_used);
}

/* --- Notification -------------------------------------------------------- */

bool vq_needs_signal(struct virtqueue *vq)
{
    uint16_t old = vq->signalled, word = 0;
    bool valid = vq->signalled_valid;

    if (!vq->live || vq->next_used == old)
        return false;
    vq->signalled = vq->next_used;
    vq->signalled_valid = true;
    /* Our used index before the driver's word: pairs with the driver's barrier after it wrote it. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!vq->event_idx)
        return gmem_load_le16(vq->gm, vq->avail_gpa + AVAIL_FLAGS, &word) >= 0 &&
               !(word & VRING_AVAIL_F_NO_INTERRUPT);
    if (!valid)
        return true;
    /* virtio 1.2, 2.7.7.2 */
    return gmem_load_le16(vq->gm, used_event_gpa(vq), &word) >= 0 &&
           vring_need_event(word, vq->next_used, old);
}

bool vq_has_work(struct virtqueue *vq)
{
    uint16_t idx;

    return vq->live && gmem_load_le16(vq->gm, vq->avail_gpa + AVAIL_IDX, &idx) >= 0 &&
           idx != vq->next_avail;
}

bool vq_rearm(struct virtqueue *vq)
{
    if (!vq->live)
        return false;
    if (vq->event_idx) {
        (void)!gmem_store_le16(vq->gm, avail_event_gpa(vq), vq->next_avail);
        /* Our word before the driver's index: pairs with the driver's barrier after it wrote it. */
        atomic_thread_fence(memory_order_seq_cst);
    }
    return vq_has_work(vq);
}

/* --- Bytes of a chain ---------------------------------------------------- */

/* The part of a run of segments that [off, off + len) covers, one piece a call. */
struct cursor {
    const struct vq_seg *seg;
    const struct vq_seg *end;
    size_t off; /* into seg */
    size_t left;
};

static struct cursor cursor_make(const struct vq_chain *c, bool in, size_t off, size_t len)
{
    const struct vq_seg *first = c->segs + (in ? c->nr_out : 0);

    return (struct cursor){
        .seg = first,
        .end = first + (in ? c->nr_in : c->nr_out),
        .off = off,
        .left = len,
    };
}

static bool cursor_next(struct cursor *cur, uint8_t **ret_hva, uint64_t *ret_gpa, size_t *ret_len)
{
    while (cur->seg != cur->end && cur->off >= cur->seg->len) {
        cur->off -= cur->seg->len;
        cur->seg++;
    }
    if (cur->seg == cur->end || !cur->left)
        return false;
    *ret_hva = cur->seg->hva + cur->off;
    *ret_gpa = cur->seg->gpa + cur->off;
    *ret_len = cur->seg->len - cur->off;
    if (*ret_len > cur->left)
        *ret_len = cur->left;
    cur->left -= *ret_len;
    cur->off += *ret_len;
    return true;
}

size_t vq_chain_read(const struct vq_chain *c, size_t off, void *dst, size_t len)
{
    struct cursor cur = cursor_make(c, false, off, len);
    uint8_t *to = dst, *hva;
    uint64_t gpa;
    size_t n;

    while (cursor_next(&cur, &hva, &gpa, &n)) {
        memcpy(to, hva, n);
        to += n;
    }
    return len - cur.left;
}

size_t vq_chain_write(struct virtqueue *vq, const struct vq_chain *c, size_t off, const void *src,
                      size_t len)
{
    struct cursor cur = cursor_make(c, true, off, len);
    const uint8_t *from = src;
    uint8_t *hva;
    uint64_t gpa;
    size_t n;

    while (cursor_next(&cur, &hva, &gpa, &n)) {
        memcpy(hva, from, n);
        gmem_unpin_write(vq->gm, gpa, n);
        from += n;
    }
    return len - cur.left;
}

void vq_chain_mark(struct virtqueue *vq, const struct vq_chain *c, size_t off, size_t len)
{
    struct cursor cur = cursor_make(c, true, off, len);
    uint8_t *hva;
    uint64_t gpa;
    size_t n;

    while (cursor_next(&cur, &hva, &gpa, &n))
        gmem_unpin_write(vq->gm, gpa, n);
}

static int fill_iov(struct cursor *cur, struct iovec *iov, unsigned cap)
{
    uint8_t *hva;
    uint64_t gpa;
    unsigned i = 0;
    size_t n;

    while (cursor_next(cur, &hva, &gpa, &n)) {
        if (i == cap)
            return -E2BIG;
        iov[i++] = (struct iovec){.iov_base = hva, .iov_len = n};
    }
    return (int)i;
}

int vq_chain_out_iov(const struct vq_chain *c, size_t off, struct iovec *iov, unsigned cap)
{
    struct cursor cur = cursor_make(c, false, off, SIZE_MAX);

    return fill_iov(&cur, iov, cap);
}

int vq_chain_in_iov(const struct vq_chain *c, size_t off, size_t len, struct iovec *iov,
                    unsigned cap)
{
    struct cursor cur = cursor_make(c, true, off, len);

    return fill_iov(&cur, iov, cap);
}

/* --- State --------------------------------------------------------------- */

static const struct state_field virtqueue_fields[] = {
    /* clang-format off */
    STATE(struct virtqueue, 1, U16,  size),
    STATE(struct virtqueue, 1, BOOL, enabled),
    STATE(struct virtqueue, 1, U64,  desc_gpa),
    STATE(struct virtqueue, 1, U64,  avail_gpa),
    STATE(struct virtqueue, 1, U64,  used_gpa),
    STATE(struct virtqueue, 1, U16,  next_avail),
    STATE(struct virtqueue, 1, U16,  next_used),
    STATE(struct virtqueue, 1, U16,  vector),
    /* clang-format on */
};

static int vq_check(const void *scratch, const void *live, struct err *err)
{
    const struct virtqueue *vq = scratch;
    uint16_t size_max = ((const struct virtqueue *)live)->size_max;

    if (!vq->size || vq->size & (vq->size - 1))
        return err_set(err, -EBADMSG, "size: %u is not a power of two", vq->size);
    if (vq->size > size_max)
        return err_set(err, -ENOTSUP, "size: %u, this device's queue has at most %u", vq->size,
                       size_max);
    /* A quiet device holds no request. */
    if (vq->next_avail != vq->next_used)
        return err_set(err, -EBADMSG, "next_used: %u, but next_avail is %u", vq->next_used,
                       vq->next_avail);
    if (!vq->enabled && vq->next_avail)
        return err_set(err, -EBADMSG, "next_avail: %u, but the queue is off", vq->next_avail);
    return 0;
}

const struct state_desc virtqueue_state = {
    .name = "virtqueue",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct virtqueue),
    .fields = virtqueue_fields,
    .nr_fields = ARRAY_LEN(virtqueue_fields),
    .check = vq_check,
};
