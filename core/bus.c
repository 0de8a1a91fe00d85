/* SPDX-License-Identifier: Apache-2.0 */
#include "core/bus.h"

#include <errno.h>

struct window {
    uint64_t base;
    uint64_t len;
    struct device *dev;
    unsigned win;
};

struct bus {
    uint64_t last;    /* highest address */
    struct gmem *ram; /* NULL: none */
    pthread_rwlock_t lock;
    struct window windows[BUS_WINDOWS_MAX]; /* ascending by base */
    unsigned nr;
};

int bus_new(uint64_t end, struct bus **ret_bus)
{
    struct bus *bus = calloc(1, sizeof(*bus));

    if (!bus)
        return -ENOMEM;
    bus->last = end - 1;
    (void)pthread_rwlock_init(&bus->lock, NULL);
    *ret_bus = bus;
    return 0;
}

void bus_free(struct bus *bus)
{
    if (!bus)
        return;
    (void)pthread_rwlock_destroy(&bus->lock);
    free(bus);
}

void bus_set_ram(struct bus *bus, struct gmem *gm)
{
    bus->ram = gm;
}

/* Index of the first window whose base is above addr. */
static unsigned above(const struct bus *bus, uint64_t addr)
{
    unsigned lo = 0, hi = bus->nr;

    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;

        if (bus->windows[mid].base > addr)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static int add_locked(struct bus *bus, const struct window *w, struct err *err)
{
    unsigned at = above(bus, w->base);
    const struct window *prev = at ? &bus->windows[at - 1] : NULL;
    const struct window *next = at < bus->nr ? &bus->windows[at] : NULL;

    if (prev && w->base - prev->base >= prev->len)
        prev = NULL;
    if (next && next->base - w->base >= w->len)
        next = NULL;
    if (prev || next) {
        return err_set(err, -EEXIST, "%s: window %#llx + %#llx overlaps one of %s", w->dev->id,
                       (unsigned long long)w->base, (unsigned long long)w->len,
                       prev ? prev->dev->id : next->dev->id);
    }
    if (bus->nr == BUS_WINDOWS_MAX)
        return err_set(err, -E2BIG, "%s: more than %d windows", w->dev->id, BUS_WINDOWS_MAX);
    for (unsigned i = bus->nr; i > at; i--)
        bus->windows[i] = bus->windows[i - 1];
    bus->windows[at] = *w;
    bus->nr++;
    return 0;
}

int bus_add(struct bus *bus, uint64_t base, uint64_t len, struct device *dev, unsigned win,
            struct err *err)
{
    struct window w = {base, len, dev, win};
    int rc;

    if (!len || base > bus->last || len - 1 > bus->last - base)
        return err_set(err, -EINVAL, "%s: bad window %#llx + %#llx", dev->id,
                       (unsigned long long)base, (unsigned long long)len);
    (void)pthread_rwlock_wrlock(&bus->lock);
    rc = add_locked(bus, &w, err);
    (void)pthread_rwlock_unlock(&bus->lock);
    return rc;
}

void bus_remove(struct bus *bus, uint64_t base)
{
    unsigned at;

    (void)pthread_rwlock_wrlock(&bus->lock);
    at = above(bus, base);
    if (at && bus->windows[at - 1].base == base) {
        bus->nr--;
        for (unsigned i = at - 1; i < bus->nr; i++)
            bus->windows[i] = bus->windows[i + 1];
    }
    (void)pthread_rwlock_unlock(&bus->lock);
}

/* The window that covers the whole access; false if there is none. */
static bool find(struct bus *bus, uint64_t addr, unsigned size, struct window *ret)
{
    bool found = false;
    unsigned at;

    (void)pthread_rwlock_rdlock(&bus->lock);
    at = above(bus, addr);
    if (at) {
        *ret = bus->windows[at - 1];
        found = addr - ret->base < ret->len && size <= ret->len - (addr - ret->base);
    }
    (void)pthread_rwlock_unlock(&bus->lock);
    return found;
}

static bool ram_read(struct bus *bus, uint64_t addr, unsigned size, uint64_t *ret_val)
{
    return bus->ram && gmem_copy_in(bus->ram, addr, ret_val, size) == 0;
}

static bool ram_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t val)
{
    return bus->ram && gmem_copy_out(bus->ram, addr, &val, size) == 0;
}

uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size)
{
    uint64_t mask = size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
    struct window w;
    uint64_t val;

    if (!find(bus, addr, size, &w)) {
        val = 0;
        return ram_read(bus, addr, size, &val) ? val : mask;
    }
    device_lock(w.dev);
    val = w.dev->ops->read(w.dev, w.win, addr - w.base, size);
    device_unlock(w.dev);
    return val & mask;
}

void bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t val)
{
    uint64_t mask = size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
    struct window w;

    if (!find(bus, addr, size, &w)) {
        (void)ram_write(bus, addr, size, val); /* elsewhere nobody listens */
        return;
    }
    device_lock(w.dev);
    w.dev->ops->write(w.dev, w.win, addr - w.base, size, val & mask);
    device_unlock(w.dev);
}
