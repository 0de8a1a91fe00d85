/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board's PCI bus and what is plugged into it.
 *
 * Slots are given in the order console, disks, networks, random numbers, as
 * Cloud Hypervisor does; a configured pci_device_id is kept free for its device.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/bus.h"
#include "core/x86/layout.h"
#include "devices/board_internal.h"
#include "devices/pci_root.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_console.h"
#include "devices/virtio_net.h"
#include "devices/virtio_rng.h"

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
    for (unsigned slot = 1; slot < X86_PCI_SLOTS; slot++) {
        if (b->slots[slot] == dev) {
            (void)snprintf(buf, cap, "0000:00:%02x.0", slot);
            return true;
        }
    }
    return false;
}

/* --- Devices -------------------------------------------------------------------- */

static int add_console(struct board *b)
{
    const struct console_config *c = &b->cfg->console;
    struct vcon_config cfg = {.place = next_place(b, c->pci_device_id)};
    struct device *dev = NULL;
    int rc;

    if (c->mode == CONSOLE_OFF)
        return 0;
    rc = char_backend_open("console", c, &b->console, b->err);
    if (rc < 0)
        return rc;
    cfg.port = (struct char_port_config){b->console.out_fd, b->console.in_fd, -1};
    rc = vm_add_device(b->vm, &vcon_ops, VM_ID_CONSOLE, &cfg, &dev, b->err);
    if (rc < 0)
        return rc;
    char_backend_taken(&b->console);
    note_slot(b, dev, cfg.place);
    return 0;
}

static int add_disk(struct board *b, const struct disk_config *d, struct device **ret_dev)
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
        rc = vm_add_device(b->vm, &vblk_ops, d->id, &cfg, ret_dev, b->err);
        if (rc < 0)
            disk_close(cfg.disk);
    }
    if (rc < 0)
        return err_prefix(b->err, rc, "disk %s", d->id);
    note_slot(b, *ret_dev, cfg.place);
    return 0;
}

static int add_disks(struct board *b)
{
    int rc = 0;

    b->disks = calloc(b->cfg->nr_disks ? b->cfg->nr_disks : 1, sizeof(struct device *));
    if (!b->disks)
        return err_set(b->err, -ENOMEM, "disks: out of memory");
    for (; rc >= 0 && b->nr_disks < b->cfg->nr_disks; b->nr_disks += rc >= 0)
        rc = add_disk(b, &b->cfg->disks[b->nr_disks], &b->disks[b->nr_disks]);
    return rc;
}

static int add_net(struct board *b, const struct net_config *n, struct device **ret_dev)
{
    struct vnet_config cfg = {
        .place = next_place(b, n->pci_device_id),
        .mtu = n->mtu,
        .nr_pairs = (uint16_t)(n->num_queues / 2),
        .queue_size = n->queue_size,
        .no_tso = n->no_offload_tso,
        .no_ufo = n->no_offload_ufo,
        .no_csum = n->no_offload_csum,
    };
    int rc;

    memcpy(cfg.mac, n->mac, sizeof(cfg.mac));
    rc = vm_add_device(b->vm, &vnet_ops, n->id, &cfg, ret_dev, b->err);
    if (rc >= 0)
        note_slot(b, *ret_dev, cfg.place);
    return rc;
}

static int add_nets(struct board *b)
{
    int rc = 0;

    b->nets = calloc(b->cfg->nr_nets ? b->cfg->nr_nets : 1, sizeof(struct device *));
    if (!b->nets)
        return err_set(b->err, -ENOMEM, "networks: out of memory");
    for (; rc >= 0 && b->nr_nets < b->cfg->nr_nets; b->nr_nets += rc >= 0)
        rc = add_net(b, &b->cfg->nets[b->nr_nets], &b->nets[b->nr_nets]);
    return rc;
}

static int add_rng(struct board *b)
{
    const struct rng_config *r = &b->cfg->rng;
    struct vrng_config cfg = {.place = next_place(b, r->pci_device_id), .fd = -1};
    struct device *dev = NULL;
    struct stat st;
    int rc = 0;

    /* The kernel's own generator needs no descriptor. */
    if (strcmp(r->src, "/dev/urandom") != 0) {
        cfg.fd = open(r->src, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        rc = cfg.fd < 0 || fstat(cfg.fd, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? -EISDIR : 0;
    }
    if (rc >= 0)
        rc = vm_add_device(b->vm, &vrng_ops, VM_ID_RNG, &cfg, &dev, b->err);
    else
        rc = err_set(b->err, rc, "rng.src: %s: %s", r->src, strerror(-rc));
    if (rc < 0) {
        if (cfg.fd >= 0)
            (void)close(cfg.fd);
        return rc;
    }
    note_slot(b, dev, cfg.place);
    return 0;
}

int board_add_pci(struct board *b)
{
    int rc = add_bus(b);

    if (rc >= 0)
        rc = add_console(b);
    if (rc >= 0)
        rc = add_disks(b);
    if (rc >= 0)
        rc = add_nets(b);
    if (rc >= 0)
        rc = add_rng(b);
    return rc;
}

/* --- What only one host may hold ---------------------------------------------------- */

static int lock_disks(struct board *b, struct err *err)
{
    for (unsigned i = 0; i < b->nr_disks; i++) {
        int rc = disk_lock(vblk_disk(b->disks[i]), err);

        if (rc < 0)
            return err_prefix(err, rc, "disk %s", b->cfg->disks[i].id);
    }
    return 0;
}

static int open_tap(const struct net_config *n, struct device *dev, struct err *err)
{
    auto_free int *fds = NULL;
    struct tap_params params = {
        .name = n->tap,
        .nr_pairs = n->num_queues / 2U,
        .ip = n->ip,
        .mask = n->mask,
        .host_mac = n->has_host_mac ? n->host_mac : NULL,
        .mtu = n->mtu,
    };
    struct tap *tap = NULL;
    int rc;

    /* Descriptors that were handed over stay the configuration's, for the next boot. */
    if (n->nr_fds && n->fds[0] < 0)
        return err_set(err, -EINVAL, "net %s: its taps have to be handed over (net_fds)", n->id);
    if (n->nr_fds) {
        fds = calloc(n->nr_fds, sizeof(*fds));
        for (unsigned i = 0; fds && i < n->nr_fds; i++)
            fds[i] = fcntl(n->fds[i], F_DUPFD_CLOEXEC, 3);
        params.fds = fds;
    }
    rc = n->nr_fds && !fds ? -ENOMEM : tap_open(&params, &tap, err);
    if (rc < 0) {
        for (unsigned i = 0; fds && i < n->nr_fds; i++)
            if (fds[i] >= 0)
                (void)close(fds[i]);
        return rc;
    }
    rc = vnet_set_tap(dev, tap, err);
    if (rc < 0)
        tap_close(tap);
    return rc;
}

int board_acquire(void *board, struct err *err)
{
    struct board *b = board;
    int rc = lock_disks(b, err);

    if (rc >= 0)
        rc = char_backend_publish(&b->serial, err);
    for (unsigned i = 0; rc >= 0 && i < b->nr_nets; i++) {
        rc = open_tap(&b->cfg->nets[i], b->nets[i], err);
        if (rc < 0)
            (void)err_prefix(err, rc, "net %s", b->cfg->nets[i].id);
    }
    if (rc < 0)
        board_release(b);
    return rc;
}

void board_release(void *board)
{
    struct board *b = board;

    char_backend_hide(&b->serial);
    for (unsigned i = 0; i < b->nr_nets; i++)
        vnet_drop_tap(b->nets[i]);
    for (unsigned i = 0; i < b->nr_disks; i++)
        disk_unlock(vblk_disk(b->disks[i]));
}

int board_sync(void *board, struct err *err)
{
    const struct board *b = board;
    int rc = 0;

    for (unsigned i = 0; i < b->nr_disks && rc >= 0; i++)
        rc = disk_sync(vblk_disk(b->disks[i]), err);
    return rc;
}

/* --- Identity and place --------------------------------------------------------------- */

void board_set_macs(struct board *b)
{
    for (unsigned i = 0; i < b->nr_nets; i++)
        vnet_set_mac(b->nets[i], b->cfg->nets[i].mac);
}

void board_announce(void *board)
{
    const struct board *b = board;

    for (unsigned i = 0; i < b->nr_nets; i++)
        vnet_announce(b->nets[i]);
}
