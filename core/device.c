/* SPDX-License-Identifier: Apache-2.0 */
#include "core/device.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/state.h"

int device_new(const struct device_ops *ops, const struct dev_env *env, const char *id,
               const void *cfg, struct device **ret_dev, struct err *err)
{
    struct device *dev;
    int rc;

    /* A device that says nothing about its state does not exist. */
    assert(ops->state || ops->stateless);
    if (strlen(id) > DEVICE_ID_MAX)
        return err_set(err, -EINVAL, "device id %s: longer than %d bytes", id, DEVICE_ID_MAX);
    dev = calloc(1, ops->size);
    if (!dev)
        return err_set(err, -ENOMEM, "%s: out of memory", id);
    dev->ops = ops;
    dev->env = env;
    (void)snprintf(dev->id, sizeof(dev->id), "%s", id);
    (void)pthread_mutex_init(&dev->lock, NULL);
    device_lock(dev);
    rc = ops->realize(dev, cfg, err);
    if (rc >= 0)
        ops->reset(dev);
    device_unlock(dev);
    if (rc < 0) {
        device_free(dev);
        return rc;
    }
    *ret_dev = dev;
    return 0;
}

void device_free(struct device *dev)
{
    if (!dev)
        return;
    if (dev->ops->destroy)
        dev->ops->destroy(dev);
    if (dev->ops->state)
        state_release(dev->ops->state, dev);
    (void)pthread_mutex_destroy(&dev->lock);
    free(dev);
}

void device_guest_error(struct device *dev, const char *fmt, ...)
{
    va_list ap;

    dev->guest_errors++;
    va_start(ap, fmt);
    dev->env->ops->guest_error(dev->env->arg, dev, fmt, ap);
    va_end(ap);
}
