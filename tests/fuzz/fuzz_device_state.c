/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the saved state of any device.  Refused: explained, and the
 * device is as it was.  Accepted: the device runs with it, whatever it says,
 * and touches nothing that is not its own; then it saves and loads as ever.
 *
 * The first byte chooses the device; the rest is the section.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "devices/cmos.h"
#include "devices/debugcon.h"
#include "devices/ged.h"
#include "devices/ioapic.h"
#include "devices/pci_root.h"
#include "devices/registry.h"
#include "devices/serial.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_console.h"
#include "devices/virtio_net.h"
#include "devices/virtio_pci.h"
#include "devices/virtio_rng.h"
#include "devices/vmgenid.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_virtio_driver.h"

enum {
    SLOT = 1,
    QUEUES = 5,
    IMAGE = 1 << 20,
    LOW = 0x20000,
    HIGH_GPA = 0x30000,
    HIGH = 0x2000,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct fake_env *fe;
static struct pci_bus *bus, *other_bus;

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* --- The devices ----------------------------------------------------------- */

static const struct cmos_config cmos_cfg = {.ram_below_4g = MIB(512), .ram_above_4g = GIB(1)};
static const struct debugcon_config debugcon_cfg = {.out_fd = -1};
static const struct serial_config serial_cfg = {
    .irq = 4, .port = {.out_fd = -1, .in_fd = -1, .listen_fd = -1}
};
static const struct ged_config ged_cfg = {.irq = 5};
static const struct ioapic_config ioapic_cfg = {0};
static const struct vmgenid_config vmgenid_cfg = {.gpa = 0x1f000};

static const struct {
    const char *type;
    const void *cfg;   /* NULL: made by make_pci(), or none */
    unsigned nr_ports; /* length of window 0 that is tried */
} kinds[] = {
    {"serial",         &serial_cfg,   8   },
    {"cmos",           &cmos_cfg,     2   },
    {"ioapic",         &ioapic_cfg,   0x20},
    {"ged",            &ged_cfg,      1   },
    {"acpi-pm-timer",  NULL,          4   },
    {"debug-port",     NULL,          1   },
    {"debugcon",       &debugcon_cfg, 1   },
    {"vmgenid",        &vmgenid_cfg,  1   },
    {"pci-root",       NULL,          8   },
    {"virtio-blk",     NULL,          0   },
    {"virtio-net",     NULL,          0   },
    {"virtio-rng",     NULL,          0   },
    {"virtio-console", NULL,          0   },
};

/* A disk is opened for each device: it takes it. */
static struct disk *make_disk(void)
{
    struct disk_params p = {
        .path = "image",
        .fd = memfd_create("image", MFD_CLOEXEC),
        .engine = DISK_ENGINE_POOL,
        .depth = vblk_depth(1, 16),
    };
    struct disk *disk;

    must(ftruncate(p.fd, IMAGE) == 0);
    must(disk_open(&p, &disk, NULL) == 0);
    return disk;
}

static struct device *make_device(unsigned kind, struct pci_bus *on)
{
    const struct device_ops *ops = device_registry_find(kinds[kind].type);
    const struct pci_place place = {.bus = on, .slot = SLOT};
    const struct pci_root_config root = {.bus = on};
    const struct vnet_config net = {.place = place, .nr_pairs = 2, .mac = {2}};
    const struct vrng_config rng = {.place = place, .fd = -1};
    const struct vcon_config con = {.place = place, .port = CHAR_PORT_NONE, .cols = 80, .rows = 25};
    struct vblk_config blk = {.place = place, .queue_size = 16};
    const void *cfg = kinds[kind].cfg;

    if (ops == &vblk_ops) {
        blk.disk = make_disk();
        cfg = &blk;
    } else if (ops == &vnet_ops) {
        cfg = &net;
    } else if (ops == &vrng_ops) {
        cfg = &rng;
    } else if (ops == &vcon_ops) {
        cfg = &con;
    } else if (ops == &pci_root_ops) {
        cfg = &root;
    }
    return device_check_new(ops, &fe->env, "a", cfg);
}

static void make_machine(void)
{
    const struct pci_bus_config cfg = {
        .mmio32 = {0xc0000000, MIB(16)}
    };
    const struct gmem_backing backing = {.fd = -1};

    if (!fe)
        fe = fake_env_new();
    gmem_free(fe->env.gm);
    must(gmem_new(&fe->env.gm) == 0);
    must(gmem_add_region(fe->env.gm, 0, LOW, "low", &backing, NULL) >= 0);
    must(gmem_add_region(fe->env.gm, HIGH_GPA, HIGH, "high", &backing, NULL) >= 0);
    must(pci_bus_new(&cfg, &bus) == 0);
    must(pci_bus_new(&cfg, &other_bus) == 0);
}

/* --- What the guest does with it --------------------------------------------- */

static void use_ports(struct device *dev, unsigned nr)
{
    for (unsigned off = 0; off < nr; off++) {
        (void)device_check_read(dev, 0, off, 1);
        device_check_write(dev, 0, off, 1, 0x5a + off);
        (void)device_check_read(dev, 0, off, 4);
    }
    if (dev->ops == &ioapic_ops) {
        for (unsigned pin = 0; pin < 24; pin++)
            ioapic_set_line(dev, pin, true);
        ioapic_eoi(dev, 0x30);
    } else if (dev->ops == &ged_ops) {
        ged_raise(dev, 1);
    }
}

static void use_function(void)
{
    struct fvd d;
    unsigned changed;
    uint64_t gpa;

    for (unsigned off = 0; off < 256; off += 4)
        (void)pci_bus_config_read(bus, SLOT, off, 4);
    fvd_init(&d, fe, bus, SLOT);
    fake_env_oracle_begin(fe);
    for (unsigned q = 0; q < QUEUES; q++)
        fvd_kick(&d, q);
    fvd_pump(&d);
    must(fake_env_oracle_check(fe, &changed, &gpa));
    for (uint64_t off = 0; off < VPCI_BAR_SIZE; off += off < 128 ? 2 : 4096 - 128)
        (void)fvd_read(&d, off, 2);
}

static void pause_device(struct device *dev)
{
    if (dev->ops->quiesce)
        must(dev->ops->quiesce(dev, loop_now_ns() + UINT64_C(10000000000), NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    unsigned kind = len ? data[0] % ARRAY_LEN(kinds) : 0;
    struct state_buf before, after;
    struct device *dev, *fresh;
    struct err err = {0};
    int rc;

    if (!len)
        return 0;
    make_machine();
    dev = make_device(kind, bus);
    fresh = make_device(kind, other_bus);
    before = device_check_save(dev);
    rc = device_check_load(dev, data + 1, len - 1, &err);
    if (rc < 0) {
        must(err.code == rc && err.msg[0]);
        after = device_check_save(dev);
        must(before.len == after.len && !memcmp(before.data, after.data, after.len));
        state_buf_release(&after);
    } else {
        device_check_resume(dev);
        if (kinds[kind].nr_ports)
            use_ports(dev, kinds[kind].nr_ports);
        else
            use_function();
        pause_device(dev);
        device_check_round_trip(dev, fresh);
    }
    state_buf_release(&before);
    device_free(dev);
    device_free(fresh);
    pci_bus_free(bus);
    pci_bus_free(other_bus);
    return 0;
}
