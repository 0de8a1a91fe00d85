/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as rings.  A chain that is accepted lies in RAM and adds up; what
 * the device writes is marked; nothing loops.
 *
 *     byte 0  size: 1 << (n % 9)      byte 1  bit 0 event index, bit 1 indirect
 *     2, 3    both positions          then    guest memory from 0 on: descriptors,
 *                                             available ring, used ring, anything
 */
#include <linux/virtio_ring.h>
#include <string.h>

#include "devices/virtqueue.h"

enum {
    LOW = 0x10000,
    HIGH_GPA = 0x20000,
    HIGH = 0x1000,
    ROUNDS = 64,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct vq_chain chain;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool is_in_region(const struct gmem *gm, const struct vq_seg *s)
{
    for (unsigned i = 0; i < gmem_nr_regions(gm); i++) {
        const struct gmem_region *r = gmem_region(gm, i);

        if (s->gpa - r->gpa < r->len)
            return s->len <= r->len - (s->gpa - r->gpa) && s->hva == r->hva + (s->gpa - r->gpa);
    }
    return false;
}

static void check_chain(const struct gmem *gm, const struct virtqueue *vq)
{
    uint64_t out = 0, in = 0;

    must(chain.head < vq->size);
    must(chain.nr_out + chain.nr_in <= VQ_SEGS_MAX);
    for (unsigned i = 0; i < chain.nr_out + chain.nr_in; i++) {
        must(is_in_region(gm, &chain.segs[i]));
        *(i < chain.nr_out ? &out : &in) += chain.segs[i].len;
    }
    must(out == chain.out_len);
    must(in == chain.in_len);
}

static void use_chain(struct virtqueue *vq)
{
    struct iovec iov[VQ_SEGS_MAX];
    uint8_t buf[300];
    size_t n = vq_chain_read(&chain, 0, buf, sizeof(buf));

    must(n == (chain.out_len < sizeof(buf) ? chain.out_len : sizeof(buf)));
    must(vq_chain_out_iov(&chain, 0, iov, VQ_SEGS_MAX) == chain.nr_out);
    must(vq_chain_in_iov(&chain, 0, chain.in_len, iov, VQ_SEGS_MAX) == chain.nr_in);
    memset(buf, 0xa5, sizeof(buf));
    n = vq_chain_write(vq, &chain, chain.in_len / 2, buf, sizeof(buf));
    must(n <= chain.in_len);
    vq_push(vq, chain.head, (uint32_t)n);
    (void)vq_needs_signal(vq);
}

static void run(struct gmem *gm, const uint8_t *data, size_t len)
{
    struct virtqueue vq = {0};
    uint16_t start;

    vq_init(&vq, gm, 256);
    vq.size = (uint16_t)(1u << (data[0] % 9));
    memcpy(&start, data + 2, sizeof(start));
    vq.next_avail = vq.next_used = start;
    vq.avail_gpa = 16u * vq.size;
    vq.used_gpa = (vq.avail_gpa + 6 + 2u * vq.size + 3) & ~UINT64_C(3);
    must(gmem_copy_out(gm, 0, data + 4, len - 4) == 0);
    must(vq_start(&vq, (data[1] & 1 ? UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX : 0) |
                           (data[1] & 2 ? UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC : 0)) == 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint16_t before = vq.next_avail;
        int rc = vq_pop(&vq, &chain);

        must(vq.next_avail == (uint16_t)(before + (rc == 1)));
        if (rc != 1)
            break;
        check_chain(gm, &vq);
        use_chain(&vq);
    }
    (void)vq_rearm(&vq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct gmem_backing backing = {.fd = -1};
    struct gmem *gm;

    if (len < 4 || len > LOW)
        return 0;
    must(gmem_new(&gm) == 0);
    must(gmem_add_region(gm, 0, LOW, "low", &backing, NULL) >= 0);
    must(gmem_add_region(gm, HIGH_GPA, HIGH, "high", &backing, NULL) >= 0);
    run(gm, data, len);
    gmem_free(gm);
    return 0;
}
