/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM generation id.
 *
 * Source: Microsoft, "Virtual Machine Generation ID" (2018): the id lies in
 * memory that is not the operating system's, 8-byte aligned, in a page that
 * nothing else writes; a change is announced by an ACPI notification.
 */
#include "devices/vmgenid.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/gmem.h"
#include "core/state.h"

/* --- Registers ----------------------------------------------------------- */

struct vmgenid {
    struct device dev;

    /* Guest-visible state: exactly what vmgenid_fields describes. */
    uint64_t gpa;
    uint8_t id[VMGENID_LEN];
};

static struct vmgenid *to_genid(struct device *dev)
{
    assert(dev->ops == &vmgenid_ops);
    return container_of(dev, struct vmgenid, dev);
}

/* --- Life cycle ---------------------------------------------------------- */

static int vmgenid_realize(struct device *dev, const void *cfg, struct err *err)
{
    const struct vmgenid_config *conf = cfg;
    struct vmgenid *g = to_genid(dev);
    uint8_t page[PAGE_SIZE_4K];

    if (conf->gpa % PAGE_SIZE_4K)
        return err_set(err, -EINVAL, "%s: gpa 0x%llx is not a page", dev->id,
                       (unsigned long long)conf->gpa);
    if (gmem_copy_in(dev->env->gm, conf->gpa, page, sizeof(page)) < 0)
        return err_set(err, -EINVAL, "%s: gpa 0x%llx is not RAM", dev->id,
                       (unsigned long long)conf->gpa);
    g->gpa = conf->gpa;
    memcpy(g->id, conf->id, sizeof(g->id));
    return 0;
}

static void vmgenid_publish(const struct vmgenid *g)
{
    int rc = gmem_copy_out(g->dev.env->gm, g->gpa, g->id, sizeof(g->id));

    /* It is RAM: realize and the state's check have seen to that. */
    assert(rc == 0);
    (void)rc;
}

/* A reboot is not a copy: the id stays. */
static void vmgenid_reset(struct device *dev)
{
    vmgenid_publish(to_genid(dev));
}

void vmgenid_set(struct device *dev, const uint8_t id[VMGENID_LEN])
{
    struct vmgenid *g = to_genid(dev);

    device_lock(dev);
    memcpy(g->id, id, sizeof(g->id));
    vmgenid_publish(g);
    device_unlock(dev);
}

void vmgenid_get(struct device *dev, uint8_t ret_id[VMGENID_LEN])
{
    struct vmgenid *g = to_genid(dev);

    device_lock(dev);
    memcpy(ret_id, g->id, sizeof(g->id));
    device_unlock(dev);
}

/* --- Guest access -------------------------------------------------------- */

static uint64_t vmgenid_read(struct device *dev, unsigned win, uint64_t off, unsigned size)
{
    (void)dev;
    (void)win;
    (void)off;
    (void)size;
    return UINT64_MAX;
}

static void vmgenid_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                          uint64_t val)
{
    (void)dev;
    (void)win;
    (void)off;
    (void)size;
    (void)val;
}

/* --- State --------------------------------------------------------------- */

static const struct state_field vmgenid_fields[] = {
    /* clang-format off */
    /*                   since  kind    member */
    STATE(struct vmgenid,  1,   U64,    gpa),
    STATE(struct vmgenid,  1,   BYTES,  id),
    /* clang-format on */
};

/* The guest has learnt the address from its ACPI tables: it cannot move. */
static int vmgenid_check(const void *scratch, const void *live, struct err *err)
{
    const struct vmgenid *g = scratch;
    const struct vmgenid *now = live;

    if (g->gpa != now->gpa)
        return err_set(err, -EBADMSG, "gpa: 0x%llx, this machine has 0x%llx",
                       (unsigned long long)g->gpa, (unsigned long long)now->gpa);
    return 0;
}

static const struct state_desc vmgenid_state = {
    .name = "vmgenid",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct vmgenid),
    .fields = vmgenid_fields,
    .nr_fields = ARRAY_LEN(vmgenid_fields),
    .check = vmgenid_check,
};

const struct device_ops vmgenid_ops = {
    .type = "vmgenid",
    .size = sizeof(struct vmgenid),
    .realize = vmgenid_realize,
    .reset = vmgenid_reset,
    .read = vmgenid_read,
    .write = vmgenid_write,
    .state = &vmgenid_state,
};
