/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any sequence of guest accesses to the devices that need no host, with time,
 * lines, events, pauses and resets in between.  Whatever the guest has brought
 * about can be saved, and loads into a fresh device that saves the same bytes.
 *
 * The first byte chooses the device; then commands of one byte and what it needs.
 */
#include <string.h>

#include "devices/acpi_pm_timer.h"
#include "devices/cmos.h"
#include "devices/debugcon.h"
#include "devices/ged.h"
#include "devices/ioapic.h"
#include "devices/registry.h"
#include "devices/serial.h"
#include "devices/vmgenid.h"
#include "tests/fakes/device_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum {
    COMMANDS_MAX = 512,
};

static const struct cmos_config cmos_cfg = {.ram_below_4g = MIB(512), .ram_above_4g = GIB(1)};
static const struct debugcon_config debugcon_cfg = {.out_fd = -1};
static const struct serial_config serial_cfg = {
    .irq = 4, .port = {.out_fd = -1, .in_fd = -1, .listen_fd = -1}
};
static const struct ged_config ged_cfg = {.irq = 5};
static const struct ioapic_config ioapic_cfg = {0};
static const struct vmgenid_config vmgenid_cfg = {.gpa = 0xef000};

static const struct {
    const char *type;
    const void *cfg;
    unsigned len; /* of window 0 */
} kinds[] = {
    {"serial",        &serial_cfg,   8   },
    {"cmos",          &cmos_cfg,     2   },
    {"ioapic",        &ioapic_cfg,   0x20},
    {"ged",           &ged_cfg,      1   },
    {"acpi-pm-timer", NULL,          4   },
    {"acpi-shutdown", NULL,          1   },
    {"i8042",         NULL,          4   },
    {"debug-port",    NULL,          1   },
    {"debugcon",      &debugcon_cfg, 1   },
    {"vmgenid",       &vmgenid_cfg,  1   },
};

struct input {
    const uint8_t *p;
    size_t left;
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
        v |= (uint64_t)*in->p++ << 8 * i;
    return v;
}

/* Something that is not a guest access. */
static void outside(struct fake_env *fe, struct device *dev, unsigned what, struct input *in)
{
    switch (what) {
    case 0:
        fe->now_ns += take(in, 8) >> 8;
        break;
    case 1:
        fe->wall_ns = (int64_t)take(in, 8) >> 1;
        break;
    case 2:
        if (dev->ops == &ioapic_ops)
            ioapic_set_line(dev, (unsigned)take(in, 1) % 32, take(in, 1) & 1);
        else if (dev->ops == &ged_ops)
            ged_raise(dev, (uint8_t)take(in, 1));
        break;
    case 3:
        if (dev->ops == &ioapic_ops)
            ioapic_eoi(dev, (uint8_t)take(in, 1));
        break;
    case 4:
        device_check_pause(dev);
        device_check_resume(dev);
        break;
    default:
        dev->ops->reset(dev);
        break;
    }
}

static void command(struct fake_env *fe, struct device *dev, unsigned win_len, struct input *in)
{
    unsigned cmd = (unsigned)take(in, 1);
    unsigned size = 1u << (cmd >> 2 & 3);
    uint64_t off = (cmd >> 4) % win_len;

    /* The low bits: half of all commands write, a quarter reads, a quarter is something else. */
    if (win_len > 16)
        off = cmd & 0x80 ? 0x10 : 0;
    if ((cmd & 3) < 2)
        device_check_write(dev, 0, off, size, take(in, size));
    else if ((cmd & 3) == 2)
        (void)device_check_read(dev, 0, off, size);
    else
        outside(fe, dev, cmd >> 4, in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct input in = {.p = data, .left = len};
    unsigned kind = (unsigned)take(&in, 1) % ARRAY_LEN(kinds);
    const struct device_ops *ops = device_registry_find(kinds[kind].type);
    struct fake_env *fe = fake_env_new();
    struct device *dev = device_check_new(ops, &fe->env, "a", kinds[kind].cfg);
    struct device *fresh = device_check_new(ops, &fe->env, "b", kinds[kind].cfg);

    device_check_resume(dev);
    for (unsigned i = 0; i < COMMANDS_MAX && in.left; i++)
        command(fe, dev, kinds[kind].len, &in);
    device_check_pause(dev);
    if (ops->state)
        device_check_round_trip(dev, fresh);
    device_free(dev);
    device_free(fresh);
    fake_env_free(fe);
    return 0;
}
