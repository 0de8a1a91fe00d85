/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/pci_bus.h"

#include <errno.h>

#include "core/bus.h"

struct pci_bus {
    struct pci_bus_config cfg;
    pthread_mutex_t lock;   /* everything below; what pci.h says of each function */
    pthread_cond_t changed; /* users of a function became 0 */
    struct pci_func *slots[PCI_SLOTS];
};

int pci_bus_new(const struct pci_bus_config *cfg, struct pci_bus **ret_bus)
{
    struct pci_bus *bus = calloc(1, sizeof(*bus));

    if (!bus)
        return -ENOMEM;
    bus->cfg = *cfg;
    (void)pthread_mutex_init(&bus->lock, NULL);
    (void)pthread_cond_init(&bus->changed, NULL);
    *ret_bus = bus;
    return 0;
}

void pci_bus_free(struct pci_bus *bus)
{
    if (!bus)
        return;
    (void)pthread_cond_destroy(&bus->changed);
    (void)pthread_mutex_destroy(&bus->lock);
    free(bus);
}

/* --- Windows ------------------------------------------------------------- */

static void doorbells_set(struct pci_func *f, unsigned bar, bool on)
{
    const struct dev_env *env = f->dev->env;

    for (unsigned i = 0; i < f->nr_doorbells; i++) {
        struct pci_doorbell *d = &f->doorbells[i];

        if (d->bar != bar || d->registered == on)
            continue;
        /* Without it the write reaches the device's own handler. */
        d->registered =
            env->ops->ioeventfd(env->arg, d->fd, f->bars[bar].mapped + d->off, 0, on) >= 0 && on;
    }
}

static void unmap(struct pci_func *f, unsigned i)
{
    doorbells_set(f, i, false);
    bus_remove(f->dev->env->mmio, f->bars[i].mapped);
    f->bars[i].mapped = PCI_UNMAPPED;
}

static void map(struct pci_func *f, unsigned i)
{
    struct pci_bar *bar = &f->bars[i];

    if (bus_add(f->dev->env->mmio, bar->want, bar->size, f->dev, bar->win, NULL) < 0)
        return;
    bar->mapped = bar->want;
    doorbells_set(f, i, true);
}

/* First everything that moves away, then everything that has no place yet. */
static void remap_locked(struct pci_bus *bus)
{
    for (unsigned i = 0; i < PCI_SLOTS * PCI_BARS; i++) {
        struct pci_func *f = bus->slots[i / PCI_BARS];
        const struct pci_bar *bar = f ? &f->bars[i % PCI_BARS] : NULL;

        if (bar && bar->mapped != PCI_UNMAPPED && bar->mapped != bar->want)
            unmap(f, i % PCI_BARS);
    }
    for (unsigned i = 0; i < PCI_SLOTS * PCI_BARS; i++) {
        struct pci_func *f = bus->slots[i / PCI_BARS];
        const struct pci_bar *bar = f ? &f->bars[i % PCI_BARS] : NULL;

        if (bar && bar->mapped == PCI_UNMAPPED && bar->want != PCI_UNMAPPED)
            map(f, i % PCI_BARS);
    }
}

static uint64_t bar_address(const struct pci_func *f, unsigned i)
{
    const struct pci_bar *bar = &f->bars[i];
    uint64_t addr = f->bar_regs[i] & ~(uint32_t)(bar->size - 1);

    if (bar->is_64bit)
        addr |= (uint64_t)f->bar_regs[i + 1] << 32;
    return addr;
}

void pci_bus_remap(struct pci_func *f)
{
    bool decode = f->command & PCI_COMMAND_MEMORY;

    (void)pthread_mutex_lock(&f->bus->lock);
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (f->bars[i].size)
            f->bars[i].want = decode ? bar_address(f, i) : PCI_UNMAPPED;
    remap_locked(f->bus);
    (void)pthread_mutex_unlock(&f->bus->lock);
}

/* --- Addresses ----------------------------------------------------------- */

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b ? b - a < a_len : a - b < b_len;
}

/* The end of a BAR that uses, or has used, part of the range; 0 if none does. */
static uint64_t end_of_user(const struct pci_bus *bus, uint64_t base, uint64_t len)
{
    for (unsigned i = 0; i < PCI_SLOTS * PCI_BARS; i++) {
        const struct pci_func *f = bus->slots[i / PCI_BARS];
        const struct pci_bar *bar = f ? &f->bars[i % PCI_BARS] : NULL;

        if (!bar || !bar->size)
            continue;
        if (overlaps(base, len, bar->initial, bar->size))
            return bar->initial + bar->size;
        if (bar->want != PCI_UNMAPPED && overlaps(base, len, bar->want, bar->size))
            return bar->want + bar->size;
    }
    return 0;
}

static int allocate(const struct pci_bus *bus, const struct pci_window *w, uint64_t size,
                    uint64_t *ret_addr)
{
    uint64_t addr = (w->base + size - 1) & ~(size - 1);

    while (addr >= w->base && addr - w->base <= w->len && size <= w->len - (addr - w->base)) {
        uint64_t end = end_of_user(bus, addr, size);

        if (!end) {
            *ret_addr = addr;
            return 0;
        }
        addr = (end + size - 1) & ~(size - 1);
    }
    return -ENOSPC;
}

static int allocate_bars_locked(struct pci_bus *bus, struct pci_func *f, struct err *err)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *bar = &f->bars[i];
        bool high = bar->is_64bit && bus->cfg.mmio64.len;
        const struct pci_window *w = high ? &bus->cfg.mmio64 : &bus->cfg.mmio32;
        int rc = bar->size ? allocate(bus, w, bar->size, &bar->initial) : 0;

        if (rc < 0)
            return err_set(err, rc, "%s: no %llu bytes of %s-bit PCI memory left", f->dev->id,
                           (unsigned long long)bar->size, high ? "64" : "32");
    }
    return 0;
}

/* --- Slots --------------------------------------------------------------- */

int pci_bus_free_slot(struct pci_bus *bus, struct err *err)
{
    int slot = -ENOSPC;

    (void)pthread_mutex_lock(&bus->lock);
    for (int i = 1; i < PCI_SLOTS && slot < 0; i++)
        if (!bus->slots[i])
            slot = i;
    (void)pthread_mutex_unlock(&bus->lock);
    return slot < 0 ? err_set(err, slot, "all %d PCI slots are taken", PCI_SLOTS - 1) : slot;
}

static int attach_locked(struct pci_bus *bus, struct pci_func *f, unsigned slot, struct err *err)
{
    int rc;

    if (slot >= PCI_SLOTS)
        return err_set(err, -EINVAL, "%s: PCI slot %u: the last is %d", f->dev->id, slot,
                       PCI_SLOTS - 1);
    if (bus->slots[slot])
        return err_set(err, -EEXIST, "%s: PCI slot %u is taken by %s", f->dev->id, slot,
                       bus->slots[slot]->dev->id);
    rc = allocate_bars_locked(bus, f, err);
    if (rc < 0)
        return rc;
    f->bus = bus;
    f->slot = slot;
    bus->slots[slot] = f;
    return 0;
}

int pci_bus_attach(struct pci_bus *bus, struct pci_func *f, unsigned slot, struct err *err)
{
    int rc;

    (void)pthread_mutex_lock(&bus->lock);
    rc = attach_locked(bus, f, slot, err);
    (void)pthread_mutex_unlock(&bus->lock);
    return rc;
}

void pci_bus_detach(struct pci_func *f)
{
    struct pci_bus *bus = f->bus;

    if (!bus)
        return;
    (void)pthread_mutex_lock(&bus->lock);
    for (unsigned i = 0; i < PCI_BARS; i++)
        f->bars[i].want = PCI_UNMAPPED;
    remap_locked(bus);
    bus->slots[f->slot] = NULL;
    while (f->users)
        (void)pthread_cond_wait(&bus->changed, &bus->lock);
    (void)pthread_mutex_unlock(&bus->lock);
    f->bus = NULL;
}

/* --- Configuration space ------------------------------------------------- */

static bool is_bad_access(unsigned off, unsigned size)
{
    return size > 4 || (off & 3) + size > 4;
}

/* The function in a slot, which stays until put(); NULL if there is none. */
static struct pci_func *get(struct pci_bus *bus, unsigned slot)
{
    struct pci_func *f;

    if (slot >= PCI_SLOTS)
        return NULL;
    (void)pthread_mutex_lock(&bus->lock);
    f = bus->slots[slot];
    if (f)
        f->users++;
    (void)pthread_mutex_unlock(&bus->lock);
    return f;
}

static void put(struct pci_bus *bus, struct pci_func *f)
{
    (void)pthread_mutex_lock(&bus->lock);
    f->users--;
    (void)pthread_cond_broadcast(&bus->changed);
    (void)pthread_mutex_unlock(&bus->lock);
}

uint32_t pci_bus_config_read(struct pci_bus *bus, unsigned slot, unsigned off, unsigned size)
{
    struct pci_func *f = is_bad_access(off, size) ? NULL : get(bus, slot);
    uint32_t val;

    if (!f)
        return UINT32_MAX;
    device_lock(f->dev);
    val = pci_func_read(f, off, size);
    device_unlock(f->dev);
    put(bus, f);
    return val;
}

void pci_bus_config_write(struct pci_bus *bus, unsigned slot, unsigned off, unsigned size,
                          uint32_t val)
{
    struct pci_func *f = is_bad_access(off, size) ? NULL : get(bus, slot);

    if (!f)
        return;
    device_lock(f->dev);
    pci_func_write(f, off, size, val);
    device_unlock(f->dev);
    put(bus, f);
}
