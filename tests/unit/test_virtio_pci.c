/* SPDX-License-Identifier: Apache-2.0 */
/* The transport and what all devices share, with a device that inverts bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "core/wire.h"
#include "devices/virtio_pci.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_virtio_driver.h"

#define EVENT_IDX    (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define FEATURE_ODD  (UINT64_C(1) << 3) /* cannot go with FEATURE_EVEN */
#define FEATURE_EVEN (UINT64_C(1) << 4)

enum {
    ALL_OK = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
             VIRTIO_CONFIG_S_DRIVER_OK,
    SLOT = 5,
    BUF = 0x200000,
};

/* --- A device that inverts what it is given -------------------------------------- */

struct inv {
    struct virtio_pci vp;
    uint32_t knob; /* in its configuration structure */
    bool held;     /* requests stay in flight */
    unsigned nr_held;
    uint16_t heads[64];
    unsigned starts, stops;
    struct vq_chain chain;
};

static struct inv *to_inv(struct virtio_device *vd)
{
    return container_of(vd, struct inv, vp.vd);
}

static bool inv_process(struct virtio_device *vd, unsigned queue)
{
    struct inv *v = to_inv(vd);
    struct virtqueue *vq = &vd->queues[queue];

    while (virtio_device_pop(vd, queue, &v->chain)) {
        uint8_t b[256];
        size_t n = vq_chain_read(&v->chain, 0, b, sizeof(b));

        for (size_t i = 0; i < n; i++)
            b[i] = (uint8_t)~b[i];
        n = vq_chain_write(vq, &v->chain, 0, b, n);
        if (v->held)
            v->heads[v->nr_held++] = v->chain.head;
        else
            vq_push(vq, v->chain.head, (uint32_t)n);
    }
    virtio_device_signal(vd, queue);
    return vq_rearm(vq);
}

static void inv_let_go(struct inv *v)
{
    while (v->nr_held)
        vq_push(&v->vp.vd.queues[0], v->heads[--v->nr_held], 0);
    virtio_device_settle(&v->vp.vd);
}

static bool inv_is_idle(struct virtio_device *vd)
{
    return !to_inv(vd)->nr_held;
}

static void inv_config_read(struct virtio_device *vd, struct wr *w)
{
    wr_le32(w, to_inv(vd)->knob);
}

static void inv_config_write(struct virtio_device *vd, unsigned off, unsigned size, uint64_t val)
{
    if (off == 0 && size == 4)
        to_inv(vd)->knob = (uint32_t)val;
}

static bool inv_accepts(const struct virtio_device *vd, uint64_t features)
{
    (void)vd;
    return (features & (FEATURE_ODD | FEATURE_EVEN)) != (FEATURE_ODD | FEATURE_EVEN);
}

static void inv_start(struct virtio_device *vd)
{
    to_inv(vd)->starts++;
}

static void inv_stop(struct virtio_device *vd)
{
    to_inv(vd)->stops++;
}

static void inv_reset(struct virtio_device *vd)
{
    to_inv(vd)->knob = 0x12345678;
}

static const struct virtio_type inv_type = {
    .id = 63,
    .pci_class = 0xff,
    .pci_subclass = 0xff,
    .config_read = inv_config_read,
    .config_write = inv_config_write,
    .accepts = inv_accepts,
    .reset = inv_reset,
    .start = inv_start,
    .stop = inv_stop,
    .is_idle = inv_is_idle,
    .process = inv_process,
};

static int inv_realize(struct device *dev, const void *cfg, struct err *err)
{
    static const uint16_t sizes[] = {16, 8, 256};
    struct inv *v = container_of(dev, struct inv, vp.vd.dev);

    v->vp.vd.features =
        EVENT_IDX | UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC | FEATURE_ODD | FEATURE_EVEN;
    return virtio_pci_realize(&v->vp, &inv_type, cfg, sizes, ARRAY_LEN(sizes), err);
}

static void inv_destroy(struct device *dev)
{
    virtio_pci_destroy(&container_of(dev, struct inv, vp.vd.dev)->vp);
}

static const struct state_field inv_fields[] = {
    STATE_STRUCT(struct inv, 1, &virtio_pci_state, vp),
    STATE(struct inv, 1, U32, knob),
};

static const struct state_desc inv_state = {
    .name = "inv",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct inv),
    .fields = inv_fields,
    .nr_fields = ARRAY_LEN(inv_fields),
};

static const struct device_ops inv_ops = {
    .type = "inv",
    .size = sizeof(struct inv),
    .realize = inv_realize,
    .destroy = inv_destroy,
    VPCI_DEVICE_OPS,
    .state = &inv_state,
};

/* --- Fixture ------------------------------------------------------------------------ */

struct fix {
    struct fake_env *fe;
    struct pci_bus *bus;
    struct device *dev;
    struct inv *inv;
    struct fvd d;
};

static void new_device(struct fix *f)
{
    const struct pci_place place = {.bus = f->bus, .slot = SLOT};
    struct err err = {0};

    if (device_new(&inv_ops, &f->fe->env, "inv", &place, &f->dev, &err) < 0)
        fail_msg("%s", err.msg);
    f->inv = container_of(f->dev, struct inv, vp.vd.dev);
}

static int setup(void **state)
{
    const struct pci_bus_config cfg = {
        .mmio32 = {0xc0000000, MIB(16)},
          .mmio64 = {GIB(64),    MIB(16)}
    };
    struct fix *f = test_calloc(1, sizeof(*f));

    f->fe = fake_env_new();
    assert_int_equal(pci_bus_new(&cfg, &f->bus), 0);
    new_device(f);
    device_check_resume(f->dev);
    fvd_init(&f->d, f->fe, f->bus, SLOT);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    device_free(f->dev);
    pci_bus_free(f->bus);
    fake_env_free(f->fe);
    test_free(f);
    return 0;
}

static void invert(struct fix *f, unsigned queue, uint8_t byte)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    uint8_t in[4];

    memset(in, byte, sizeof(in));
    fvd_put(&f->d, BUF, in, sizeof(in));
    assert_int_equal(fvd_do(&f->d, queue, segs, 2), 4);
    memset(in, ~byte, sizeof(in));
    assert_memory_equal(fvd_ptr(&f->d, BUF + 0x1000, 4), in, 4);
}

/* --- Identity and layout -------------------------------------------------------------- */

static uint32_t cfg(struct fix *f, unsigned off, unsigned size)
{
    return pci_bus_config_read(f->bus, SLOT, off, size);
}

static void test_identity(void **state)
{
    struct fix *f = *state;

    assert_int_equal(cfg(f, 0x00, 4), (0x1040 + 63) << 16 | 0x1af4);
    assert_int_equal(cfg(f, 0x08, 4), 0xffff0001);
    assert_int_equal(cfg(f, 0x2c, 4), (0x1040 + 63) << 16 | 0x1af4);
    assert_int_equal(cfg(f, 0x3d, 1), 0); /* no INTx */
    assert_int_equal(f->d.bar, GIB(64));
}

static void test_capabilities(void **state)
{
    static const struct {
        uint8_t type, len;
        uint32_t off, size;
    } want[] = {
        {VIRTIO_PCI_CAP_COMMON_CFG, 16, 0,      56    },
        {VIRTIO_PCI_CAP_ISR_CFG,    16, 0x2000, 1     },
        {VIRTIO_PCI_CAP_DEVICE_CFG, 16, 0x4000, 0x1000},
        {VIRTIO_PCI_CAP_NOTIFY_CFG, 20, 0x6000, 0x1000},
        {VIRTIO_PCI_CAP_PCI_CFG,    20, 0,      0     },
    };
    struct fix *f = *state;
    unsigned off = cfg(f, 0x34, 1);

    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_int_equal(cfg(f, off, 1), PCI_CAP_VENDOR);
        assert_int_equal(cfg(f, off + 2, 1), want[i].len);
        assert_int_equal(cfg(f, off + 3, 1), want[i].type);
        assert_int_equal(cfg(f, off + 4, 4), 0);
        assert_int_equal(cfg(f, off + 8, 4), want[i].off);
        assert_int_equal(cfg(f, off + 12, 4), want[i].size);
        if (want[i].type == VIRTIO_PCI_CAP_NOTIFY_CFG)
            assert_int_equal(cfg(f, off + 16, 4), 4);
        off = cfg(f, off + 1, 1);
    }
    assert_int_equal(cfg(f, off, 2), PCI_CAP_MSIX);
    assert_int_equal(cfg(f, off + 2, 2), 3); /* four vectors */
    assert_int_equal(cfg(f, off + 4, 4), 0x8000);
    assert_int_equal(cfg(f, off + 8, 4), 0x48000);
}

static void test_registers_after_reset(void **state)
{
    static const struct {
        unsigned off, size;
        uint64_t val;
    } rows[] = {
        {VIRTIO_PCI_COMMON_DFSELECT,      4, 0         },
        {VIRTIO_PCI_COMMON_DF,            4, 0x30000018},
        {VIRTIO_PCI_COMMON_MSIX,          2, 0xffff    },
        {VIRTIO_PCI_COMMON_NUMQ,          2, 3         },
        {VIRTIO_PCI_COMMON_STATUS,        1, 0         },
        {VIRTIO_PCI_COMMON_CFGGENERATION, 1, 0         },
        {VIRTIO_PCI_COMMON_Q_SELECT,      2, 0         },
        {VIRTIO_PCI_COMMON_Q_SIZE,        2, 16        },
        {VIRTIO_PCI_COMMON_Q_MSIX,        2, 0xffff    },
        {VIRTIO_PCI_COMMON_Q_ENABLE,      2, 0         },
        {VIRTIO_PCI_COMMON_Q_NOFF,        2, 0         },
        {VIRTIO_PCI_COMMON_Q_DESCLO,      8, 0         },
        {VPCI_ISR,                        1, 0         },
        {VPCI_CONFIG,                     4, 0x12345678},
        {VPCI_CONFIG + 1,                 2, 0x3456    },
        {VPCI_CONFIG + 200,               4, 0         },
        {VPCI_NOTIFY,                     4, 0         },
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(fvd_read(&f->d, rows[i].off, rows[i].size), rows[i].val);
    assert_int_equal(fvd_offered(&f->d), UINT64_C(0x130000018));
    assert_int_equal(f->fe->guest_errors, 0);
    assert_int_equal(fvd_read(&f->d, 0x1000, 4), UINT32_MAX);
    assert_int_equal(fvd_read(&f->d, 54, 4), UINT32_MAX);
    assert_int_equal(f->fe->guest_errors, 2);
}

/* --- Negotiation ------------------------------------------------------------------------ */

static void test_features_are_a_subset(void **state)
{
    struct fix *f = *state;

    assert_true(fvd_negotiate(&f->d, 0));
    assert_true(fvd_negotiate(&f->d, EVENT_IDX | FEATURE_ODD));
    assert_false(fvd_negotiate(&f->d, 1));
    assert_false(fvd_negotiate(&f->d, UINT64_C(1) << 63));
    assert_false(fvd_negotiate(&f->d, FEATURE_ODD | FEATURE_EVEN));
    /* Without VERSION_1. */
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 3);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 11);
    assert_int_equal(fvd_status(&f->d), 3);
    /* DRIVER_OK before FEATURES_OK. */
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 7);
    assert_int_equal(fvd_status(&f->d), 3);
    assert_int_equal(f->inv->starts, 0);
}

static void test_features_are_fixed_once_agreed(void **state)
{
    struct fix *f = *state;

    assert_true(fvd_negotiate(&f->d, EVENT_IDX));
    fvd_write(&f->d, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_GF, 4, 0xffffffff);
    assert_int_equal(fvd_read(&f->d, VIRTIO_PCI_COMMON_GF, 4), EVENT_IDX);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_GFSELECT, 4, 7);
    assert_int_equal(fvd_read(&f->d, VIRTIO_PCI_COMMON_GF, 4), 0);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_DFSELECT, 4, 0xffffffff);
    assert_int_equal(fvd_read(&f->d, VIRTIO_PCI_COMMON_DF, 4), 0);
}

static void test_bits_of_status_cannot_be_cleared(void **state)
{
    struct fix *f = *state;

    fvd_start(&f->d, 0, 3, 0);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 1);
    assert_int_equal(fvd_status(&f->d), ALL_OK);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0xff);
    assert_int_equal(fvd_status(&f->d), ALL_OK | VIRTIO_CONFIG_S_FAILED);
    assert_int_equal(f->fe->guest_errors, 1);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(fvd_status(&f->d), 0);
    assert_int_equal(f->fe->nr_events, 2);
    assert_string_equal(f->fe->events[0].event, "activated");
    assert_string_equal(f->fe->events[1].event, "reset");
}

static void test_queue_registers(void **state)
{
    static const struct {
        const char *why;
        unsigned off, size;
        uint64_t write, read;
        unsigned errors;
    } rows[] = {
        {"not a power of two", VIRTIO_PCI_COMMON_Q_SIZE,     2, 7,      16,         1 },
        {"zero",               VIRTIO_PCI_COMMON_Q_SIZE,     2, 0,      16,         2 },
        {"too large",          VIRTIO_PCI_COMMON_Q_SIZE,     2, 32,     16,         3 },
        {"smaller",            VIRTIO_PCI_COMMON_Q_SIZE,     2, 4,      4,          3 },
        {"a vector",           VIRTIO_PCI_COMMON_Q_MSIX,     2, 3,      3,          3 },
        {"no such vector",     VIRTIO_PCI_COMMON_Q_MSIX,     2, 4,      0xffff,     4 },
        {"no such vector",     VIRTIO_PCI_COMMON_MSIX,       2, 4,      0xffff,     5 },
        {"wrong width",        VIRTIO_PCI_COMMON_Q_SIZE,     4, 8,      0xffff0004, 6 },
        {"inside a field",     VIRTIO_PCI_COMMON_Q_SIZE + 1, 1, 0,      0,          7 },
        {"read-only",          VIRTIO_PCI_COMMON_NUMQ,       2, 9,      3,          8 },
        {"read-only",          VIRTIO_PCI_COMMON_Q_NOFF,     2, 9,      0,          9 },
        {"low half",           VIRTIO_PCI_COMMON_Q_DESCLO,   4, 0x1000, 0x1000,     9 },
        {"high half",          VIRTIO_PCI_COMMON_Q_DESCHI,   4, 1,      1,          9 },
        {"both halves",        VIRTIO_PCI_COMMON_Q_DESCLO,   8, 0x2000, 0x2000,     9 },
        {"avail",              VIRTIO_PCI_COMMON_Q_AVAILLO,  4, 0x3000, 0x3000,     9 },
        {"used",               VIRTIO_PCI_COMMON_Q_USEDLO,   4, 0x4000, 0x4000,     9 },
        {"off again",          VIRTIO_PCI_COMMON_Q_ENABLE,   2, 0,      0,          10},
        {"on",                 VIRTIO_PCI_COMMON_Q_ENABLE,   2, 1,      1,          10},
        {"fixed now",          VIRTIO_PCI_COMMON_Q_SIZE,     2, 8,      4,          11},
        {"fixed now",          VIRTIO_PCI_COMMON_Q_USEDLO,   4, 0,      0x4000,     12},
        {"fixed now",          VIRTIO_PCI_COMMON_Q_ENABLE,   2, 0,      1,          13},
        {"not the vector",     VIRTIO_PCI_COMMON_Q_MSIX,     2, 0,      0,          13},
        {"another queue",      VIRTIO_PCI_COMMON_Q_SELECT,   2, 1,      1,          13},
        {"is different",       VIRTIO_PCI_COMMON_Q_NOFF,     2, 1,      1,          14},
        {"no such queue",      VIRTIO_PCI_COMMON_Q_SELECT,   2, 0xfffe, 0xfffe,     14},
        {"it has no size",     VIRTIO_PCI_COMMON_Q_SIZE,     2, 1,      0,          15},
        {"cannot be enabled",  VIRTIO_PCI_COMMON_Q_ENABLE,   2, 1,      0,          16},
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        print_message("row %zu: %s\n", i, rows[i].why);
        fvd_write(&f->d, rows[i].off, rows[i].size, rows[i].write);
        assert_int_equal(fvd_read(&f->d, rows[i].off, rows[i].size), rows[i].read);
        assert_int_equal(f->fe->guest_errors, rows[i].errors);
    }
}

/* --- Work ----------------------------------------------------------------------------------- */

static void test_requests_are_served_and_marked(void **state)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    struct fix *f = *state;
    uint16_t head;

    fvd_start(&f->d, EVENT_IDX, 3, 0);
    assert_int_equal(f->fe->nr_ioeventfds, 3);
    fvd_pump(&f->d);
    fake_env_clear(f->fe);
    fvd_add(&f->d, 1, segs, 2);
    fake_env_oracle_begin(f->fe);
    fvd_kick(&f->d, 1);
    assert_int_equal(fvd_wait(&f->d, 1, &head), 4);
    assert_int_equal(fake_env_oracle_end(f->fe), 2); /* the buffer, the used ring */
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(f->fe->msis[0].addr, FVD_MSI_ADDR);
    assert_int_equal(f->fe->msis[0].data, FVD_MSI_DATA + 2);
    assert_int_equal(fvd_read(&f->d, VPCI_ISR, 1), VIRTIO_ISR_QUEUE);
    assert_int_equal(fvd_read(&f->d, VPCI_ISR, 1), 0);
    for (unsigned i = 0; i < 40; i++)
        invert(f, i % 3, (uint8_t)i);
    assert_int_equal(f->fe->guest_errors, 0);
}

static void test_plain_notification_works_too(void **state)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    struct fix *f = *state;
    uint16_t head;

    fvd_start(&f->d, 0, 3, 0);
    fvd_add(&f->d, 0, segs, 2);
    fvd_write(&f->d, VPCI_NOTIFY, 2, 0);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 4);
    fvd_write(&f->d, VPCI_NOTIFY + 4 * 3, 4, 0); /* no such queue */
    fvd_write(&f->d, VPCI_NOTIFY + 0xffc, 4, 0);
    fvd_pump(&f->d);
    assert_int_equal(fvd_status(&f->d), ALL_OK);
}

static void test_kicks_before_driver_ok_are_not_lost(void **state)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    struct fix *f = *state;
    uint16_t head;

    assert_true(fvd_negotiate(&f->d, 0));
    fvd_setup_queue(&f->d, 0, 0);
    fvd_add(&f->d, 0, segs, 2);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(f->inv->starts, 0);
    fvd_driver_ok(&f->d);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 4);
    /* A queue that is enabled late serves as well. */
    fvd_setup_queue(&f->d, 1, 4);
    invert(f, 1, 7);
}

static void test_pci_window_reaches_the_bar(void **state)
{
    struct fix *f = *state;
    unsigned cap = cfg(f, 0x34, 1);

    while (cfg(f, cap + 3, 1) != VIRTIO_PCI_CAP_PCI_CFG)
        cap = cfg(f, cap + 1, 1);
    pci_bus_config_write(f->bus, SLOT, cap + 8, 4, VPCI_CONFIG);
    pci_bus_config_write(f->bus, SLOT, cap + 12, 4, 4);
    assert_int_equal(cfg(f, cap + 16, 4), 0x12345678);
    pci_bus_config_write(f->bus, SLOT, cap + 16, 4, 0xabcdef01);
    assert_int_equal(f->inv->knob, 0xabcdef01);
    pci_bus_config_write(f->bus, SLOT, cap + 12, 4, 2);
    assert_int_equal(cfg(f, cap + 16, 4), 0xef01);
    assert_int_equal(cfg(f, cap + 16, 1), 0x01);
    assert_int_equal(f->fe->guest_errors, 0);
    /* Nonsense. */
    pci_bus_config_write(f->bus, SLOT, cap + 8, 4, VPCI_CONFIG + 1);
    assert_int_equal(cfg(f, cap + 16, 4), 0);
    pci_bus_config_write(f->bus, SLOT, cap + 8, 4, 0xfffffffe);
    assert_int_equal(cfg(f, cap + 16, 4), 0);
    pci_bus_config_write(f->bus, SLOT, cap + 8, 4, 0);
    pci_bus_config_write(f->bus, SLOT, cap + 12, 4, 3);
    pci_bus_config_write(f->bus, SLOT, cap + 16, 4, 1);
    pci_bus_config_write(f->bus, SLOT, cap + 12, 4, 4);
    pci_bus_config_write(f->bus, SLOT, cap + 4, 1, 1);
    assert_int_equal(cfg(f, cap + 16, 4), 0);
    assert_int_equal(f->fe->guest_errors, 4);
}

static void test_bus_mastering_gates_the_queues(void **state)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    struct fix *f = *state;
    uint16_t head;
    uint32_t len;

    fvd_start(&f->d, 0, 3, 0);
    pci_bus_config_write(f->bus, SLOT, 4, 2, PCI_COMMAND_MEMORY);
    fvd_add(&f->d, 0, segs, 2);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_false(fvd_used(&f->d, 0, &head, &len));
    assert_int_equal(f->inv->stops, 1);
    pci_bus_config_write(f->bus, SLOT, 4, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 4);
}

static void test_configuration_changes_are_announced(void **state)
{
    struct fix *f = *state;

    fvd_start(&f->d, 0, 3, 0);
    fake_env_clear(f->fe);
    device_lock(f->dev);
    f->inv->knob = 1;
    virtio_device_config_changed(&f->inv->vp.vd);
    device_unlock(f->dev);
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(f->fe->msis[0].data, FVD_MSI_DATA);
    assert_int_equal(fvd_read(&f->d, VIRTIO_PCI_COMMON_CFGGENERATION, 1), 1);
    assert_int_equal(fvd_read(&f->d, VPCI_ISR, 1), VIRTIO_ISR_CONFIG);
}

/* --- Failure and reset ------------------------------------------------------------------------ */

static void test_broken_rings_ask_for_a_reset(void **state)
{
    struct fix *f = *state;

    fvd_start(&f->d, 0, 3, 0);
    fvd_offer(&f->d, 0, 16); /* no such descriptor */
    fake_env_clear(f->fe);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(fvd_status(&f->d), ALL_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(f->fe->msis[0].data, FVD_MSI_DATA);
    assert_string_equal(f->fe->guest_error, "queue 0: bad chain at 0: Bad message");
    /* Nothing is touched until the reset; the other queues rest as well. */
    fvd_add(&f->d, 1, &(struct fvd_seg){BUF, 4, true}, 1);
    fake_env_oracle_begin(f->fe);
    fvd_kick(&f->d, 1);
    fvd_pump(&f->d);
    assert_int_equal(fake_env_oracle_end(f->fe), 0);
    fvd_start(&f->d, 0, 3, 0);
    invert(f, 1, 9);
}

static void test_rings_outside_of_ram_ask_for_a_reset(void **state)
{
    struct fix *f = *state;

    assert_true(fvd_negotiate(&f->d, 0));
    fvd_write(&f->d, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0xffffffff);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    fvd_driver_ok(&f->d);
    assert_int_equal(fvd_status(&f->d), ALL_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_int_equal(f->inv->starts, 0);
}

static void test_reset_waits_for_requests_in_flight(void **state)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    struct fix *f = *state;

    fvd_start(&f->d, 0, 3, 0);
    f->inv->held = true;
    fvd_add(&f->d, 0, segs, 2);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(f->inv->nr_held, 1);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(fvd_status(&f->d), ALL_OK);
    /* Whatever the driver does in the meantime has no effect. */
    fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 1);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_GF, 4, 0);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    fvd_write(&f->d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 2);
    fvd_kick(&f->d, 1);
    fvd_pump(&f->d);
    assert_int_equal(fvd_status(&f->d), ALL_OK);
    device_lock(f->dev);
    inv_let_go(f->inv);
    device_unlock(f->dev);
    assert_int_equal(fvd_status(&f->d), 0);
    f->inv->held = false;
    fvd_start(&f->d, 0, 3, 0);
    invert(f, 0, 1);
    assert_int_equal(f->inv->starts, f->inv->stops + 1);
}

static void test_reset_at_any_moment(void **state)
{
    struct fix *f = *state;

    /* Bring it up as far as step says, then start over. */
    for (unsigned step = 0; step < 6; step++) {
        if (step > 0)
            assert_true(fvd_negotiate(&f->d, EVENT_IDX));
        for (unsigned q = 0; step > 1 && q < 3; q++)
            fvd_setup_queue(&f->d, q, step > 2 ? 4 : 0);
        if (step > 3)
            fvd_driver_ok(&f->d);
        if (step > 4)
            fvd_offer(&f->d, 2, 0xffff);
        fvd_kick(&f->d, 2);
        fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
        fvd_pump(&f->d);
        assert_int_equal(fvd_status(&f->d), 0);
        assert_int_equal(fvd_read(&f->d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
        fvd_start(&f->d, step & 1 ? EVENT_IDX : 0, 3, 0);
        for (unsigned q = 0; q < 3; q++)
            invert(f, q, (uint8_t)step);
    }
}

/* --- Pause, save, load ---------------------------------------------------------------------------- */

static void test_paused_devices_touch_nothing(void **state)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    struct fix *f = *state;
    uint16_t head;

    fvd_start(&f->d, EVENT_IDX, 3, 0);
    fvd_pump(&f->d);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    fvd_add(&f->d, 0, segs, 2);
    fake_env_clear(f->fe);
    fake_env_oracle_begin(f->fe);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(fake_env_oracle_end(f->fe), 0);
    assert_int_equal(f->fe->nr_msis, 0);
    /* Each queue is kicked and interrupts once, though none was kicked now. */
    device_check_resume(f->dev);
    assert_int_equal(f->fe->nr_msis, 3);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 4);
}

static void test_quiesce_has_a_deadline(void **state)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    struct fix *f = *state;
    struct err err = {0};

    fvd_start(&f->d, 0, 3, 0);
    f->inv->held = true;
    fvd_add(&f->d, 0, segs, 2);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(virtio_device_quiesce(f->dev, loop_now_ns() + 3000000, &err), -ETIMEDOUT);
    assert_string_equal(err.msg, "inv: requests are still in flight");
    /* It goes on. */
    device_lock(f->dev);
    inv_let_go(f->inv);
    device_unlock(f->dev);
    f->inv->held = false;
    f->d.queues[0].last_used++;
    invert(f, 0, 3);
}

/* A request stays in flight for longer than quiesce() waits, while @hinder keeps the device from starting. */
static void fail_to_quiesce(struct fix *f, void (*hinder)(struct fix *f))
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };

    fvd_start(&f->d, 0, 3, 0);
    f->inv->held = true;
    fvd_add(&f->d, 0, segs, 2);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    hinder(f);
    assert_int_equal(virtio_device_quiesce(f->dev, loop_now_ns() + 3000000, NULL), -ETIMEDOUT);
    device_lock(f->dev);
    inv_let_go(f->inv);
    device_unlock(f->dev);
    f->inv->held = false;
}

static void take_dma_away(struct fix *f)
{
    pci_bus_config_write(f->bus, SLOT, 4, 2, PCI_COMMAND_MEMORY);
}

static void break_the_rules(struct fix *f)
{
    device_lock(f->dev);
    virtio_device_fail(&f->inv->vp.vd, "broken");
    device_unlock(f->dev);
}

static void test_what_was_in_flight_when_quiesce_failed_is_returned(void **state)
{
    struct fix *f = *state;
    uint16_t head;
    uint32_t len;

    fail_to_quiesce(f, take_dma_away);
    assert_true(fvd_used(&f->d, 0, &head, &len));
    pci_bus_config_write(f->bus, SLOT, 4, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    invert(f, 0, 3);
}

/* What does not come back makes a state that is refused wherever it is loaded. */
static void test_a_device_that_failed_and_was_busy_can_be_moved(void **state)
{
    struct fix *f = *state;

    fail_to_quiesce(f, break_the_rules);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    device_check_round_trip(f->dev, f->dev);
}

static void test_load_into_a_fresh_device(void **state)
{
    const struct fvd_seg segs[] = {
        {BUF,          4, false},
        {BUF + 0x1000, 4, true },
    };
    struct fix *f = *state;
    struct fix other = {.fe = f->fe, .d = f->d};
    uint16_t head;

    fvd_start(&f->d, EVENT_IDX, 3, 0);
    for (unsigned i = 0; i < 21; i++)
        invert(f, 0, (uint8_t)i);
    fvd_write(&f->d, VPCI_CONFIG, 4, 99);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    /* Offered and kicked, not yet seen. */
    fvd_add(&f->d, 0, segs, 2);
    fvd_kick(&f->d, 0);
    assert_int_equal(state_desc_check(&inv_state, NULL), 0);

    /* The same slot and address, after the first is gone. */
    assert_int_equal(pci_bus_new(
                         &(struct pci_bus_config){
                             .mmio32 = {0xc0000000, MIB(16)},
                               .mmio64 = {GIB(65),    MIB(16)}
    },
                         &other.bus),
                     0);
    new_device(&other);
    device_check_bad_state(f->dev, other.dev);
    device_check_round_trip(f->dev, other.dev);
    device_free(f->dev);
    f->dev = NULL;
    fake_env_clear(f->fe);
    device_check_resume(other.dev);
    assert_int_equal(f->fe->nr_msis, 3);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 4);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG, 4), 99);
    invert(f, 0, 0x55);
    invert(f, 2, 0x56);
    device_free(other.dev);
    pci_bus_free(other.bus);
}

static void test_states_that_cannot_be_are_refused(void **state)
{
    struct fix *f = *state;
    struct virtio_pci *vp = &f->inv->vp;
    struct virtio_device *vd = &vp->vd;
    struct virtqueue *vq = &vd->queues[1];
    const struct virtio_pci good = f->inv->vp;
    static const struct {
        const char *what;
        int rc;
    } rows[] = {
        {"inv.vp.vd.status: 0x10",                                                                -EBADMSG},
        {"inv.vp.vd.status: 0x4",                                                                 -EBADMSG},
        {"inv.vp.vd.driver_features: the guest uses feature 5, which this device does not offer",
         -ENOTSUP                                                                                         },
        {"inv.vp.vd.driver_features: 0x100000018",                                                -EBADMSG},
        {"inv.vp.vd.queues: 2, this device has 3",                                                -ENOTSUP},
        {"inv.vp.vd.queues[1].size: 5 is not a power of two",                                     -EBADMSG},
        {"inv.vp.vd.queues[1].size: 512, this device's queue has at most 8",                      -ENOTSUP},
        {"inv.vp.vd.queues[1].next_used: 0, but next_avail is 1",                                 -EBADMSG},
        {"inv.vp.vd.queues[1].next_avail: 1, but the queue is off",                               -EBADMSG},
        {"inv.vp.isr: 0x4",                                                                       -EBADMSG},
        {"inv.vp.config_vector: 4",                                                               -EBADMSG},
        {"inv.vp.vd.queues[1].vector: 65534",                                                     -EBADMSG},
        {"inv.vp.pci.command: 0x1",                                                               -EBADMSG},
    };

    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct state_buf buf, before, after;
        struct err err = {0};

        print_message("row %u: %s\n", i, rows[i].what);
        before = device_check_save(f->dev);
        switch (i) {
        case 0:
            vd->status = 0x10;
            break;
        case 1:
            vd->status = 4;
            break;
        case 2:
            vd->status = 8;
            vd->driver_features = UINT64_C(1) << 32 | 1 << 5;
            break;
        case 3:
            vd->status = 8;
            vd->driver_features = UINT64_C(1) << 32 | FEATURE_ODD | FEATURE_EVEN;
            break;
        case 4:
            vd->nr_queues = 2;
            break;
        case 5:
            vq->size = 5;
            break;
        case 6:
            vq->size = 512;
            break;
        case 7:
            vq->next_avail = 1;
            break;
        case 8:
            vq->next_avail = vq->next_used = 1;
            break;
        case 9:
            vp->isr = 4;
            break;
        case 10:
            vp->config_vector = 4;
            break;
        case 11:
            vq->vector = 0xfffe;
            break;
        default:
            vp->pci.command = 1;
        }
        buf = device_check_save(f->dev);
        /* Only what the table describes was changed. */
        f->inv->vp.vd.status = good.vd.status;
        f->inv->vp.vd.driver_features = good.vd.driver_features;
        f->inv->vp.vd.nr_queues = good.vd.nr_queues;
        *vq = good.vd.queues[1];
        f->inv->vp.isr = good.isr;
        f->inv->vp.config_vector = good.config_vector;
        f->inv->vp.pci.command = good.pci.command;
        assert_int_equal(device_check_load(f->dev, buf.data, buf.len, &err), rows[i].rc);
        assert_string_equal(err.msg, rows[i].what);
        after = device_check_save(f->dev);
        assert_int_equal(before.len, after.len);
        assert_memory_equal(before.data, after.data, before.len);
        state_buf_release(&buf);
        state_buf_release(&before);
        state_buf_release(&after);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_capabilities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_registers_after_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_features_are_a_subset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_features_are_fixed_once_agreed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bits_of_status_cannot_be_cleared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_are_served_and_marked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plain_notification_works_too, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kicks_before_driver_ok_are_not_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pci_window_reaches_the_bar, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bus_mastering_gates_the_queues, setup, teardown),
        cmocka_unit_test_setup_teardown(test_configuration_changes_are_announced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broken_rings_ask_for_a_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rings_outside_of_ram_ask_for_a_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_waits_for_requests_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_at_any_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paused_devices_touch_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quiesce_has_a_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_in_flight_when_quiesce_failed_is_returned,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_device_that_failed_and_was_busy_can_be_moved, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_load_into_a_fresh_device, setup, teardown),
        cmocka_unit_test_setup_teardown(test_states_that_cannot_be_are_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtio_pci", tests, NULL, NULL);
}
