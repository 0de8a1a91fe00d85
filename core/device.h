/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device may ask of the machine, and what the machine asks of it.
 *
 * A device gets everything from its environment and its configuration: guest
 * memory, clock, interrupts, the I/O loop, back ends that are already open.  It
 * opens nothing, logs nothing and knows no other device, so that it runs in a
 * unit test without KVM and in a sandbox.  Tests supply their own environment
 * (tests/fakes/).
 *
 * Life of a device:
 *
 *     realize -> reset -> resume -> [ guest access, loop callbacks ]* -> quiesce
 *                  ^         ^                                             |
 *                  |         +--------------- state saved or loaded -------+
 *                  +--- machine reset ---------------------------------------
 *     destroy at any moment after realize, when quiet.
 *
 * Locks: the machine holds dev->lock around every callback below but quiesce
 * and destroy; a device takes it itself (device_lock()) only there and in
 * callbacks from its loop.
 */
#ifndef CORE_DEVICE_H
#define CORE_DEVICE_H

#include <stdarg.h>

#include <pthread.h>

#include "core/err.h"

struct bus;
struct device;
struct gmem;
struct loop;
struct state_desc;

enum {
    DEVICE_ID_MAX = 63, /* bytes of an id */
};

/* What a device may ask the machine as a whole to do.  Carried out later, by the control thread. */
enum machine_request {
    MACHINE_RESET,    /* the guest asked for a reboot */
    MACHINE_SHUTDOWN, /* the guest powered itself off (S5) */
};

/* The machine's services.  All of them may be called from any thread with dev->lock held. */
struct dev_env_ops {
    /* Guest time: nanoseconds since the VM was first started; stands still while it is paused. */
    uint64_t (*now_ns)(void *arg);
    /* Wall clock: nanoseconds since 1970 UTC. */
    int64_t (*wall_ns)(void *arg);
    /* Level of a legacy interrupt line (IOAPIC pin). */
    void (*irq_set)(void *arg, unsigned pin, bool level);
    /* Deliver a message-signalled interrupt. */
    void (*msi_send)(void *arg, uint64_t addr, uint32_t data);
    /* Count a guest access that the device's data sheet does not allow. */
    void (*guest_error)(void *arg, const struct device *dev, const char *fmt, va_list ap)
        PRINTF(3, 0);
    void (*request)(void *arg, enum machine_request what);
    /* Have KVM signal @fd when the guest writes @len bytes (0: any) at @gpa. */
    int (*ioeventfd)(void *arg, int fd, uint64_t gpa, unsigned len, bool on);
    /* Report an event: "virtio-device", "activated", the device's id. */
    void (*event)(void *arg, const char *source, const char *event, const char *id);
};

struct dev_env {
    const struct dev_env_ops *ops;
    void *arg;
    struct gmem *gm;   /* borrowed */
    struct loop *loop; /* the I/O loop that this device's callbacks run on; borrowed */
    struct bus *pio;   /* borrowed: for devices that move their own windows (PCI BARs) */
    struct bus *mmio;
};

struct device {
    const struct device_ops *ops;
    const struct dev_env *env; /* borrowed; outlives the device */
    char id[DEVICE_ID_MAX + 1];
    pthread_mutex_t lock;
    uint64_t guest_errors; /* counted by device_guest_error() */
};

/* One number of vm.counters. */
struct device_counter {
    const char *name;
    uint64_t value;
};

struct device_ops {
    const char *type;
    size_t size; /* of the struct whose first member is struct device */

    /* Check cfg, allocate, take the handles in it.  On failure nothing is kept. */
    CHECKED int (*realize)(struct device *dev, const void *cfg, struct err *err);
    /* Free everything; also after a failed realize.  May be NULL. */
    void (*destroy)(struct device *dev);
    /* Guest-visible power-on values. */
    void (*reset)(struct device *dev);
    /*
     * Stop touching guest memory and host I/O: finish what is in flight, or
     * leave it in the rings.  Called without dev->lock; bounded by
     * @deadline_ns (CLOCK_MONOTONIC): -ETIMEDOUT names the device, which then
     * goes on as if not asked.  May be NULL: nothing runs on its own.
     */
    CHECKED int (*quiesce)(struct device *dev, uint64_t deadline_ns, struct err *err);
    /* Rebuild what is derived from the state and run again.  May be NULL. */
    void (*resume)(struct device *dev);

    /* Guest access to window @win of the device (its own numbering), size 1, 2, 4 or 8. */
    uint64_t (*read)(struct device *dev, unsigned win, uint64_t off, unsigned size);
    void (*write)(struct device *dev, unsigned win, uint64_t off, unsigned size, uint64_t val);

    const struct state_desc *state; /* or NULL, and then: */
    const char *stateless;          /* why there is nothing to save */

    /* Fill at most @cap counters; return how many.  May be NULL. */
    unsigned (*counters)(struct device *dev, struct device_counter *out, unsigned cap);
};

/**
 * device_new() - allocate and realize a device.
 * @ops: static; must have a state table or a reason why it has none.
 * @env: borrowed; must outlive the device.
 * @id:  unique in the machine; copied.
 * @cfg: the configuration struct that @ops asks for; borrowed for the call.
 *
 * The device is in reset.
 *
 * Return: 0 and *@ret_dev, owned, to be given to device_free(); -EINVAL for an
 * id of more than DEVICE_ID_MAX bytes; -ENOMEM; or what realize returned.
 * Threads: control.
 */
CHECKED int device_new(const struct device_ops *ops, const struct dev_env *env, const char *id,
                       const void *cfg, struct device **ret_dev, struct err *err);

/**
 * device_free() - destroy and free.
 * @dev: taken, quiet; NULL is allowed.
 *
 * Threads: control.
 */
void device_free(struct device *dev);

/**
 * device_guest_error() - the guest did what the data sheet does not allow.
 *
 * Counted, and shown at debug level with a limit on the rate; never fails.
 * Threads: any, with dev->lock held.
 */
void device_guest_error(struct device *dev, const char *fmt, ...) PRINTF(2, 3);

static inline void device_lock(struct device *dev)
{
    (void)pthread_mutex_lock(&dev->lock);
}

static inline void device_unlock(struct device *dev)
{
    (void)pthread_mutex_unlock(&dev->lock);
}

#endif
