/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any requests to a disk.  Each is answered or the device asks for a reset; the
 * pages that it changes are marked; the image keeps its size; a pause ends.
 *
 *     byte 0  bit 0: threads, bit 1: read-only
 *     1..4    feature bits
 *     then requests: header (16), number of segments, 5 bytes for each
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/wire.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_pci.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_virtio_driver.h"

enum {
    SLOT = 1,
    LOW = 0x40000,
    HIGH_GPA = 0x80000,
    HIGH = 0x2000,
    IMAGE = 64 << 10,
    HEADER = 0x8000, /* guest address of the header */
    QUEUE_SIZE = 16,
    REQUESTS = 32,
    SEGS = 6,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct fake_env *fe;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void make_memory(void)
{
    const struct gmem_backing backing = {.fd = -1};

    gmem_free(fe->env.gm);
    must(gmem_new(&fe->env.gm) == 0);
    must(gmem_add_region(fe->env.gm, 0, LOW, "low", &backing, NULL) >= 0);
    must(gmem_add_region(fe->env.gm, HIGH_GPA, HIGH, "high", &backing, NULL) >= 0);
}

static struct device *make_device(struct pci_bus *bus, int image, uint8_t flags)
{
    struct disk_params p = {
        .path = "image",
        .fd = dup(image),
        .engine = flags & 1 ? DISK_ENGINE_POOL : DISK_ENGINE_AUTO,
        .readonly = flags & 2,
        .depth = vblk_depth(1, QUEUE_SIZE),
    };
    struct vblk_config cfg = {
        .place = {.bus = bus, .slot = SLOT},
        .queue_size = QUEUE_SIZE,
        .readonly = flags & 2,
    };
    struct device *dev;

    must(disk_open(&p, &cfg.disk, NULL) == 0);
    must(device_new(&vblk_ops, &fe->env, "x", &cfg, &dev, NULL) == 0);
    return dev;
}

static void request(struct fvd *d, struct rd *r)
{
    const uint8_t *header = rd_bytes(r, 16);
    unsigned nr = rd_u8(r) % SEGS;
    struct fvd_seg segs[SEGS] = {
        {HEADER, 16, false}
    };

    if (!header)
        return;
    fvd_put(d, HEADER, header, 16);
    for (unsigned i = 1; i <= nr && i < SEGS; i++) {
        uint8_t flags = rd_u8(r);

        segs[i].gpa = (uint64_t)rd_le16(r) * 16 + (flags >> 4);
        segs[i].len = rd_le16(r);
        segs[i].writable = flags & 1;
        if (flags & 2)
            segs[i].len |= (uint32_t)flags << 24;
        if (flags & 4)
            segs[i].len = (segs[i].len + 511) & ~511u;
    }
    (void)fvd_add(d, 0, segs, nr + 1 < SEGS ? nr + 1 : SEGS);
}

static void run_device(struct device *dev, struct fvd *d, struct rd *r)
{
    for (unsigned i = 0; i < REQUESTS && r->left && !r->bad; i++) {
        struct state_buf a;
        unsigned changed;
        uint64_t gpa;

        request(d, r);
        fake_env_oracle_begin(fe);
        fvd_kick(d, 0);
        fvd_pump(d);
        must(dev->ops->quiesce(dev, loop_now_ns() + UINT64_C(10000000000), NULL) == 0);
        must(fake_env_oracle_check(fe, &changed, &gpa));
        a = device_check_save(dev);
        must(device_check_load(dev, a.data, a.len, NULL) == 0);
        state_buf_release(&a);
        device_check_resume(dev);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct pci_bus_config cfg = {
        .mmio32 = {0xc0000000, MIB(16)}
    };
    struct rd r = {.p = data, .left = len};
    int image = memfd_create("image", MFD_CLOEXEC);
    struct pci_bus *bus;
    struct device *dev;
    struct stat st;
    struct fvd d;

    must(ftruncate(image, IMAGE) == 0);
    if (!fe)
        fe = fake_env_new();
    make_memory();
    must(pci_bus_new(&cfg, &bus) == 0);
    dev = make_device(bus, image, rd_u8(&r));
    device_check_resume(dev);
    fvd_init(&d, fe, bus, SLOT);
    if (fvd_negotiate(&d, rd_le32(&r) & fvd_offered(&d))) {
        fvd_setup_queue(&d, 0, 0);
        fvd_driver_ok(&d);
        run_device(dev, &d, &r);
    }
    device_free(dev);
    pci_bus_free(bus);
    must(fstat(image, &st) == 0);
    must(st.st_size == IMAGE);
    (void)close(image);
    return 0;
}
