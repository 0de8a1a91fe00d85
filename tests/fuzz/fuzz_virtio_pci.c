/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any program of register accesses, guest memory and requests against a whole
 * device.  Nothing breaks, the pages that it changes are marked, and at any
 * moment its state can be saved, is accepted, and comes out the same.
 *
 *     byte 0  device     then operations: see step()
 */
#include <stdio.h>
#include <string.h>

#include "core/wire.h"
#include "devices/virtio_console.h"
#include "devices/virtio_net.h"
#include "devices/virtio_pci.h"
#include "devices/virtio_rng.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_virtio_driver.h"

enum {
    SLOT = 1,
    LOW = 0x20000,
    HIGH_GPA = 0x30000,
    HIGH = 0x2000,
    STEPS = 100,
    PAUSES = 6, /* of one program: they take long */
    QUEUES = 5,
    QUEUE_SIZE = 8,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct fake_env *fe;
static struct pci_bus *bus;
static struct device *dev;
static struct fvd driver;
static unsigned pauses;

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* --- Machine --------------------------------------------------------------- */

static void make_memory(void)
{
    const struct gmem_backing backing = {.fd = -1};

    gmem_free(fe->env.gm);
    must(gmem_new(&fe->env.gm) == 0);
    must(gmem_add_region(fe->env.gm, 0, LOW, "low", &backing, NULL) >= 0);
    must(gmem_add_region(fe->env.gm, HIGH_GPA, HIGH, "high", &backing, NULL) >= 0);
}

static void make_device(unsigned which)
{
    const struct pci_place place = {.bus = bus, .slot = SLOT};
    const struct vnet_config net = {.place = place, .nr_pairs = 2, .mac = {2}};
    const struct vrng_config rng = {.place = place, .fd = -1};
    const struct vcon_config con = {.place = place, .port = CHAR_PORT_NONE, .cols = 80, .rows = 25};
    int rc;

    if (which % 3 == 0)
        rc = device_new(&vnet_ops, &fe->env, "x", &net, &dev, NULL);
    else if (which % 3 == 1)
        rc = device_new(&vrng_ops, &fe->env, "x", &rng, &dev, NULL);
    else
        rc = device_new(&vcon_ops, &fe->env, "x", &con, &dev, NULL);
    must(rc == 0);
    device_check_resume(dev);
    fvd_init(&driver, fe, bus, SLOT);
}

/* --- Operations -------------------------------------------------------------- */

static void find_bar(void)
{
    driver.bar = pci_bus_config_read(bus, SLOT, 0x10, 4) & ~15u;
    driver.bar |= (uint64_t)pci_bus_config_read(bus, SLOT, 0x14, 4) << 32;
}

/* Bring the device up as a good driver would, with whichever features. */
static void start(uint64_t features, unsigned nr_queues, bool ok)
{
    pci_bus_config_write(bus, SLOT, 0x04, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    pci_bus_config_write(bus, SLOT, 0x10, 4, 0xc0000000);
    pci_bus_config_write(bus, SLOT, 0x14, 4, 0);
    find_bar();
    driver.next_gpa = FVD_RINGS_GPA;
    if (!fvd_negotiate(&driver, features & fvd_offered(&driver)))
        return;
    for (unsigned i = 0; i < nr_queues && i < fvd_read(&driver, 18, 2); i++)
        fvd_setup_queue(&driver, i, QUEUE_SIZE);
    if (ok)
        fvd_driver_ok(&driver);
}

static void add(struct rd *r)
{
    unsigned queue = rd_u8(r) % QUEUES, nr = 1 + rd_u8(r) % 4;
    struct fvd_seg segs[4];

    for (unsigned i = 0; i < nr; i++) {
        uint8_t flags = rd_u8(r);

        segs[i] = (struct fvd_seg){
            .gpa = (uint64_t)rd_le16(r) * 16,
            .len = rd_le16(r),
            .writable = flags & 1,
        };
        if (flags & 2)
            segs[i].len |= (uint32_t)flags << 24;
    }
    if (driver.queues[queue].size)
        (void)fvd_add(&driver, queue, segs, nr);
}

static void pause_and_go_on(void)
{
    struct state_buf a, b;

    if (++pauses > PAUSES)
        return;
    must(dev->ops->quiesce(dev, loop_now_ns() + 1000000000, NULL) == 0);
    a = device_check_save(dev);
    must(device_check_load(dev, a.data, a.len, NULL) == 0);
    b = device_check_save(dev);
    must(a.len == b.len);
    must(!memcmp(a.data, b.data, a.len));
    state_buf_release(&a);
    state_buf_release(&b);
    device_check_resume(dev);
}

static void check_dirty(void)
{
    unsigned changed;
    uint64_t gpa;

    must(fake_env_oracle_check(fe, &changed, &gpa));
}

static void put_memory(struct rd *r)
{
    uint64_t gpa = rd_le16(r);
    uint8_t n = rd_u8(r);
    const void *p = rd_bytes(r, n);

    if (p)
        fvd_put(&driver, gpa, p, n);
}

static void step(struct rd *r)
{
    uint8_t op = rd_u8(r);
    uint64_t off;

    switch (op % 10) {
    case 0: /* anywhere in the BAR */
        off = rd_le32(r) % VPCI_BAR_SIZE;
        fvd_write(&driver, off, 1u << (op / 10 % 4), rd_le64(r));
        break;
    case 1:
        (void)fvd_read(&driver, rd_le32(r) % VPCI_BAR_SIZE, 1u << (op / 10 % 4));
        break;
    case 2: /* the common configuration, with its own widths */
        off = rd_u8(r) % (unsigned)VPCI_COMMON_SIZE;
        fvd_write(&driver, off, off >= 32 || off < 16 ? 4 : 2, rd_le32(r));
        break;
    case 3:
        off = rd_u8(r);
        pci_bus_config_write(bus, SLOT, (unsigned)off, 1u << (op / 10 % 3), rd_le32(r));
        find_bar();
        break;
    case 4:
        (void)pci_bus_config_read(bus, SLOT, rd_le16(r), 1u << (op / 10 % 3));
        break;
    case 5:
        put_memory(r);
        break;
    case 6:
        off = rd_u8(r);
        start(rd_le64(r), (unsigned)(off % 6), !(off & 0x80));
        break;
    case 7:
        add(r);
        break;
    case 8:
        fake_env_oracle_begin(fe);
        fvd_kick(&driver, rd_u8(r) % QUEUES);
        fvd_pump(&driver);
        check_dirty();
        break;
    default:
        fake_env_oracle_begin(fe);
        pause_and_go_on();
        check_dirty();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct pci_bus_config cfg = {
        .mmio32 = {0xc0000000, MIB(16)}
    };
    struct rd r = {.p = data, .left = len};

    pauses = 0;
    if (!fe)
        fe = fake_env_new();
    make_memory();
    must(pci_bus_new(&cfg, &bus) == 0);
    make_device(rd_u8(&r));
    for (unsigned i = 0; i < STEPS && r.left && !r.bad; i++)
        step(&r);
    fake_env_oracle_begin(fe);
    fvd_pump(&driver);
    check_dirty();
    device_free(dev);
    pci_bus_free(bus);
    must(fe->nr_ioeventfds == 0);
    return 0;
}
