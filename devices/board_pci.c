/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board's PCI bus and what is plugged into it.
 *
 * Slots are given in the order console, disks, networks, random numbers, as
 * Cloud Hypervisor does; a configured pci_device_id is kept free for its device.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/bus.h"
#include "core/x86/layout.h"
#include "devices/board_internal.h"
#include "devices/pci_root.h"
#include "devices/virtio_blk.h"

/* --- The bus ------------------------------------------------------------------- */

static int add_bus(struct board *b)
{
    const struct dev_env *env = vm_env(b->vm);
    const struct pci_bus_config cfg = {
        .mmio32 = {X86_MMIO32_GPA, X86_MMIO32_SIZE},
        .mmio64 = board_mmio64(b),
    };
    struct device *root = NULL;
    int rc = pci_bus_new(&cfg, &b->pci);
    const struct pci_root_config root_cfg = {.bus = b->pci};

    if (rc >= 0)
        rc = vm_add_device(b->vm, &pci_root_ops, "__pci_root", &root_cfg, &root, b->err);
    if (rc >= 0)
        rc = bus_add(env->pio, X86_PORT_PCI_CONFIG, PCI_ROOT_PORTS, root, PCI_ROOT_WIN_PORTS,
                     b->err);
    if (rc >= 0)
        rc = bus_add(env->mmio, X86_ECAM_GPA, PCI_ROOT_ECAM_SIZE, root, PCI_ROOT_WIN_ECAM, b->err);
    return rc;
}

static bool slot_is_asked_for(const struct vm_config *cfg, unsigned slot)
{
    for (unsigned i = 0; i < cfg->nr_disks; i++)
        if (cfg->disks[i].pci_device_id == slot)
            return true;
    for (unsigned i = 0; i < cfg->nr_nets; i++)
        if (cfg->nets[i].pci_device_id == slot)
            return true;
    return cfg->console.pci_device_id == slot || cfg->rng.pci_device_id == slot;
}

/* The slot for a device: its own wish, else the next one that nobody wishes for. */
static struct pci_place next_place(struct board *b, uint8_t wish)
{
    struct pci_place place = {.bus = b->pci, .slot = wish};

    while (!place.slot) {
        unsigned slot = ++b->last_slot;

        if (slot >= X86_PCI_SLOTS)
            break; /* 0: the bus says that it is full */
        if (!slot_is_asked_for(b->cfg, slot))
            place.slot = slot;
    }
    return place;
}

static void note_slot(struct board *b, const struct device *dev, struct pci_place place)
{
    if (place.slot < X86_PCI_SLOTS)
        b->slots[place.slot] = dev;
}

bool board_bdf(struct board *b, const struct device *dev, char *buf, size_t cap)
{
    for (unsigned slot = 1; slot < X86_PCI_SLOTS; slot++)
        if (b->slots[slot] == dev) {
            (void)snprintf(buf, cap, "0000:00:%02x.0", slot);
            return true;
        }
    return false;
}

/* --- Devices -------------------------------------------------------------------- */

static int add_disk(struct board *b, const struct disk_config *d, struct board_disk *bd)
{
    const struct disk_params params = {
        .path = d->path,
        .fd = -1,
        .readonly = d->readonly,
        .direct = d->direct,
        .lock_full = d->lock_granularity == DISK_LOCK_FULL,
        .engine = d->disable_io_uring ? DISK_ENGINE_POOL : DISK_ENGINE_AUTO,
        .depth = vblk_depth(d->num_queues, d->queue_size),
    };
    struct vblk_config cfg = {
        .place = next_place(b, d->pci_device_id),
        .serial = d->serial,
        .num_queues = d->num_queues,
        .queue_size = d->queue_size,
        .readonly = d->readonly,
        .no_sparse = d->no_sparse,
    };
    int rc = disk_open(&params, &cfg.disk, b->err);

    cfg.place.bars_below_4g = true;
    if (rc >= 0) {
        rc = vm_add_device(b->vm, &vblk_ops, d->id, &cfg, &bd->dev, b->err);
        if (rc < 0)
            disk_close(cfg.disk);
    }
    if (rc < 0)
        return err_prefix(b->err, rc, "disk %s", d->id);
    note_slot(b, bd->dev, cfg.place);
    return 0;
}

static int add_disks(struct board *b)
{
    int rc = 0;

    b->disks = calloc(b->cfg->nr_disks ? b->cfg->nr_disks : 1, sizeof(*b->disks));
    if (!b->disks)
        return err_set(b->err, -ENOMEM, "disks: out of memory");
    for (; rc >= 0 && b->nr_disks < b->cfg->nr_disks; b->nr_disks += rc >= 0)
        rc = add_disk(b, &b->cfg->disks[b->nr_disks], &b->disks[b->nr_disks]);
    return rc;
}

/* --- Wiring ------------------------------------------------------------------------ */

int board_add_pci(struct board *b)
{
    int rc = add_bus(b);

    if (rc >= 0)
        rc = add_disks(b);
    return rc;
}

/* --- Running ----------------------------------------------------------------------- */

int board_lock_disks(struct board *b, struct err *err)
{
    for (unsigned i = 0; i < b->nr_disks; i++) {
        int rc = disk_lock(vblk_disk(b->disks[i].dev), err);

        if (rc < 0) {
            board_unlock_disks(b);
            return err_prefix(err, rc, "disk %s", b->cfg->disks[i].id);
        }
    }
    return 0;
}

void board_unlock_disks(struct board *b)
{
    for (unsigned i = 0; i < b->nr_disks; i++)
        disk_unlock(vblk_disk(b->disks[i].dev));
}

void board_set_macs(struct board *b)
{
    (void)b;
}

void board_announce(void *board)
{
    (void)board;
}
