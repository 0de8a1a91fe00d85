/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>

#include "core/wire.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_pci.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_virtio_driver.h"
#include "tests/fakes/golden.h"

enum {
    SLOT = 2,
    SIZE = 1 << 20,
    SECTORS = SIZE / 512,

    HEADER = 0x100000, /* guest addresses */
    STATUS = 0x101000,
    DATA = 0x200000,

    SEED = 0x5a, /* what the image is filled with */
};

#define BIT(n)   (UINT64_C(1) << (n))
#define FLUSH    BIT(VIRTIO_BLK_F_FLUSH)
#define WCE      BIT(VIRTIO_BLK_F_CONFIG_WCE)
#define DISCARDS (BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES))
#define RING     (BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))

struct fix {
    struct fake_env *fe;
    struct pci_bus *bus;
    struct device *dev;
    struct fvd d;
    char path[64];
    int fd;
    enum disk_engine engine;
};

static struct device *new_device(struct fix *f, struct pci_bus *bus, const struct vblk_config *more)
{
    struct vblk_config cfg = {0};
    struct disk_params p = {.path = f->path, .fd = -1, .engine = f->engine};
    struct device *dev;
    struct err err = {0};

    if (more)
        cfg = *more;
    cfg.place = (struct pci_place){.bus = bus, .slot = SLOT, .bars_below_4g = true};
    p.readonly = cfg.readonly;
    p.depth = vblk_depth(cfg.num_queues, cfg.queue_size);
    if (disk_open(&p, &cfg.disk, &err) < 0)
        fail_msg("%s", err.msg);
    if (device_new(&vblk_ops, &f->fe->env, "_disk0", &cfg, &dev, &err) < 0)
        fail_msg("%s", err.msg);
    return dev;
}

static void bring_up(struct fix *f, const struct vblk_config *cfg)
{
    device_free(f->dev);
    f->dev = new_device(f, f->bus, cfg);
    device_check_resume(f->dev);
    fvd_init(&f->d, f->fe, f->bus, SLOT);
}

static struct pci_bus *new_bus(void)
{
    const struct pci_bus_config cfg = {
        .mmio32 = {0xc0000000, MIB(16)}
    };
    struct pci_bus *bus;

    assert_int_equal(pci_bus_new(&cfg, &bus), 0);
    return bus;
}

static int setup_engine(void **state, enum disk_engine engine)
{
    struct fix *f = test_calloc(1, sizeof(*f));
    uint8_t *image = malloc(SIZE);

    assert_non_null(image);
    f->engine = engine;
    memset(image, SEED, SIZE);
    (void)snprintf(f->path, sizeof(f->path), "/var/tmp/chrysalis-blk-XXXXXX");
    f->fd = mkstemp(f->path);
    assert_true(f->fd >= 0);
    assert_int_equal(pwrite(f->fd, image, SIZE, 0), SIZE);
    free(image);
    f->fe = fake_env_new();
    f->bus = new_bus();
    bring_up(f, NULL);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_engine(state, DISK_ENGINE_AUTO);
}

static int setup_pool(void **state)
{
    return setup_engine(state, DISK_ENGINE_POOL);
}

static int teardown(void **state)
{
    struct fix *f = *state;

    device_free(f->dev);
    pci_bus_free(f->bus);
    fake_env_free(f->fe);
    (void)close(f->fd);
    (void)unlink(f->path);
    test_free(f);
    return 0;
}

/* --- Requests ---------------------------------------------------------------- */

static void put_header(struct fix *f, uint32_t type, uint64_t sector)
{
    uint8_t raw[16];
    struct wr w = {.p = raw, .left = sizeof(raw)};

    wr_le32(&w, type);
    wr_le32(&w, 0);
    wr_le64(&w, sector);
    fvd_put(&f->d, HEADER, raw, sizeof(raw));
    fvd_put(&f->d, STATUS, "\xff", 1);
}

/* Offer a request with one piece of data; it is not kicked. */
static void offer(struct fix *f, uint32_t type, uint64_t sector, uint32_t len, bool in)
{
    const struct fvd_seg segs[] = {
        {HEADER, 16,  false},
        {DATA,   len, in   },
        {STATUS, 1,   true },
    };

    put_header(f, type, sector);
    fvd_add(&f->d, 0, segs, 3);
}

static uint8_t status(struct fix *f)
{
    return *(uint8_t *)fvd_ptr(&f->d, STATUS, 1);
}

static uint8_t request(struct fix *f, uint32_t type, uint64_t sector, uint32_t len, bool in)
{
    uint16_t head;

    offer(f, type, sector, len, in);
    fvd_kick(&f->d, 0);
    (void)fvd_wait(&f->d, 0, &head);
    return status(f);
}

static void fill(struct fix *f, uint8_t byte, size_t len)
{
    memset(fvd_ptr(&f->d, DATA, len), byte, len);
}

static void assert_filled(const uint8_t *p, uint8_t byte, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(p[i], byte);
}

static void assert_on_disk(struct fix *f, uint64_t sector, uint8_t byte, size_t len)
{
    uint8_t *p = malloc(len);

    assert_non_null(p);
    assert_int_equal(pread(f->fd, p, len, (off_t)sector * 512), len);
    assert_filled(p, byte, len);
    free(p);
}

/* --- Identity ------------------------------------------------------------------ */

static void test_identity_and_configuration(void **state)
{
    struct fix *f = *state;
    const struct vblk_config cfg = {.num_queues = 4, .queue_size = 64};

    assert_int_equal(pci_bus_config_read(f->bus, SLOT, 2, 2), 0x1042);
    assert_int_equal(pci_bus_config_read(f->bus, SLOT, 0xa, 2), 0x0180);
    assert_int_equal(pci_bus_config_read(f->bus, SLOT, 0x10, 4), 0xc0000000); /* 32-bit */
    assert_int_equal(fvd_offered(&f->d) & ~DISCARDS,
                     BIT(32) | RING | FLUSH | WCE | BIT(VIRTIO_BLK_F_SEG_MAX) |
                         BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_TOPOLOGY));
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG, 8), SECTORS);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 12, 4), 126);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 20, 4), 512);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 24, 1), 3); /* 4096 = 512 << 3 */
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 32, 1), 1);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 34, 2), 1);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 40, 4), 1);
    bring_up(f, &cfg);
    assert_true(fvd_offered(&f->d) & BIT(VIRTIO_BLK_F_MQ));
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 34, 2), 4);
    assert_int_equal(fvd_read(&f->d, VIRTIO_PCI_COMMON_NUMQ, 2), 4);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 12, 4), 62);
}

/* --- Reads and writes -------------------------------------------------------------- */

static void test_read_is_marked_dirty(void **state)
{
    struct fix *f = *state;
    uint16_t head;

    fvd_start(&f->d, RING | FLUSH, 1, 0);
    offer(f, VIRTIO_BLK_T_IN, 7, 8192, true);
    fake_env_oracle_begin(f->fe);
    fvd_kick(&f->d, 0);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 8193);
    assert_int_equal(status(f), VIRTIO_BLK_S_OK);
    assert_filled(fvd_ptr(&f->d, DATA, 8192), SEED, 8192);
    assert_int_equal(fake_env_oracle_end(f->fe), 4); /* two of data, the status, the ring */
}

static void test_write_reaches_the_image(void **state)
{
    struct fix *f = *state;
    struct device_counter c[16];

    fvd_start(&f->d, RING | FLUSH, 1, 0);
    fill(f, 1, 4096);
    fake_env_oracle_begin(f->fe);
    assert_int_equal(request(f, VIRTIO_BLK_T_OUT, SECTORS - 8, 4096, false), VIRTIO_BLK_S_OK);
    assert_on_disk(f, SECTORS - 8, 1, 4096);
    assert_on_disk(f, SECTORS - 16, SEED, 4096);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS - 8, 512, true), VIRTIO_BLK_S_OK);
    assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
    assert_int_equal(f->dev->ops->counters(f->dev, c, 16), 10);
    assert_string_equal(c[0].name, "read_bytes");
    assert_int_equal(c[0].value, 512);
    assert_string_equal(c[5].name, "write_bytes");
    assert_int_equal(c[5].value, 4096);
    assert_int_equal(c[6].value, 1);
    assert_int_equal(f->dev->ops->counters(f->dev, c, 9), 0);
}

static void test_framing_is_free(void **state)
{
    struct fix *f = *state;
    /* The header in three pieces, data in odd ones across regions, the status with the data. */
    const struct fvd_seg out[] = {
        {HEADER,                 1,   false},
        {HEADER + 1,             14,  false},
        {HEADER + 15,            1,   false},
        {FAKE_ENV_RAM_LOW - 100, 511, false},
        {FAKE_ENV_GPA_HIGH + 3,  1,   false},
        {STATUS,                 1,   true },
    };
    const struct fvd_seg in[] = {
        {HEADER,                 16,  false},
        {FAKE_ENV_RAM_LOW - 100, 500, true },
        {FAKE_ENV_GPA_HIGH,      13,  true },
    };
    uint16_t head;

    fvd_start(&f->d, RING, 1, 0);
    put_header(f, VIRTIO_BLK_T_OUT, 3);
    memset(fvd_ptr(&f->d, FAKE_ENV_RAM_LOW - 100, 100), 2, 100);
    memset(fvd_ptr(&f->d, FAKE_ENV_RAM_LOW, 411), 2, 411);
    fvd_put(&f->d, FAKE_ENV_GPA_HIGH + 3, "\2", 1);
    fvd_add_indirect(&f->d, 0, out, ARRAY_LEN(out));
    fvd_kick(&f->d, 0);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 1);
    assert_int_equal(status(f), VIRTIO_BLK_S_OK);
    assert_on_disk(f, 3, 2, 512);
    assert_on_disk(f, 4, SEED, 512);

    put_header(f, VIRTIO_BLK_T_IN, 4);
    fvd_add(&f->d, 0, in, ARRAY_LEN(in));
    fake_env_oracle_begin(f->fe);
    fvd_kick(&f->d, 0);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 513);
    assert_int_equal(fake_env_oracle_end(f->fe), 4);
    assert_int_equal(*(uint8_t *)fvd_ptr(&f->d, FAKE_ENV_GPA_HIGH + 12, 1), VIRTIO_BLK_S_OK);
    assert_filled(fvd_ptr(&f->d, FAKE_ENV_GPA_HIGH, 12), SEED, 12);
}

static void test_odd_requests_are_answered(void **state)
{
    static const struct {
        const char *why;
        uint32_t type;
        uint64_t sector;
        uint32_t len;
        bool in;
        uint8_t status;
    } rows[] = {
        {"last sector",          VIRTIO_BLK_T_IN,      SECTORS - 1,      512,  true,  0},
        {"past the end",         VIRTIO_BLK_T_IN,      SECTORS,          512,  true,  1},
        {"nothing, at the end",  VIRTIO_BLK_T_IN,      SECTORS,          0,    true,  0},
        {"across the end",       VIRTIO_BLK_T_OUT,     SECTORS - 1,      1024, false, 1},
        {"sector wraps",         VIRTIO_BLK_T_OUT,     UINT64_MAX,       512,  false, 1},
        {"bytes wrap",           VIRTIO_BLK_T_IN,      UINT64_MAX / 512, 1024, true,  1},
        {"half a sector",        VIRTIO_BLK_T_IN,      0,                100,  true,  1},
        {"write to read buffer", VIRTIO_BLK_T_OUT,     0,                512,  true,  0},
        {"read to write buffer", VIRTIO_BLK_T_IN,      0,                512,  false, 0},
        {"unknown type",         77,                   0,                512,  true,  2},
        {"legacy barrier bit",   0x80000000,           0,                512,  true,  2},
        {"discard, not agreed",  VIRTIO_BLK_T_DISCARD, 0,                16,   false, 2},
        {"a MiB",                VIRTIO_BLK_T_IN,      0,                SIZE, true,  0},
    };
    struct fix *f = *state;

    fvd_start(&f->d, RING, 1, 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        print_message("row %zu: %s\n", i, rows[i].why);
        assert_int_equal(request(f, rows[i].type, rows[i].sector, rows[i].len, rows[i].in),
                         rows[i].status);
    }
    /* None of them changed anything. */
    assert_on_disk(f, 0, SEED, SIZE);
    assert_int_equal(fvd_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

static void test_requests_without_a_frame_ask_for_a_reset(void **state)
{
    static const struct {
        uint32_t header;
        bool status;
    } rows[] = {
        {16, false},
        {15, true },
        {0,  true },
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct fvd_seg segs[] = {
            {HEADER, rows[i].header, false         },
            {STATUS, 1,              rows[i].status},
        };

        fvd_start(&f->d, RING, 1, 0);
        fvd_add(&f->d, 0, segs, rows[i].status ? 2 : 1);
        fvd_kick(&f->d, 0);
        fvd_pump(&f->d);
        assert_true(fvd_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
        /* Such a state can be saved and loaded. */
        assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
        device_check_round_trip(f->dev, f->dev);
        device_check_resume(f->dev);
    }
    fvd_start(&f->d, RING, 1, 0);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true), 0);
}

static void test_more_requests_than_slots(void **state)
{
    struct fix *f = *state;
    const struct vblk_config cfg = {.num_queues = 2, .queue_size = 1024};
    unsigned done = 0;
    uint16_t head;

    bring_up(f, &cfg);
    fvd_start(&f->d, RING, 2, 0);
    put_header(f, VIRTIO_BLK_T_IN, 0);
    for (unsigned i = 0; i < 600; i++) {
        const struct fvd_seg segs[] = {
            {HEADER,                 16,  false},
            {DATA + i % 64 * 0x1000, 512, true },
            {STATUS,                 1,   true },
        };

        fvd_add_indirect(&f->d, i & 1, segs, 3);
    }
    fvd_kick(&f->d, 0);
    fvd_kick(&f->d, 1);
    while (done < 600) {
        (void)fvd_wait(&f->d, done & 1, &head);
        done++;
    }
    assert_int_equal(fvd_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

/* --- Other requests ------------------------------------------------------------------ */

static void test_get_id(void **state)
{
    struct fix *f = *state;
    const struct vblk_config cfg = {.serial = "a-serial-that-is-too-long"};

    fvd_start(&f->d, RING, 1, 0);
    assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 20, true), 0);
    assert_string_equal(fvd_ptr(&f->d, DATA, 20), "_disk0");
    bring_up(f, &cfg);
    fvd_start(&f->d, RING, 1, 0);
    fill(f, 0x7e, 40);
    fake_env_oracle_begin(f->fe);
    assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 30, true), 0);
    assert_memory_equal(fvd_ptr(&f->d, DATA, 30), "a-serial-that-is-too\x7e\x7e", 22);
    assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 3, true), 0);
}

static uint8_t discard(struct fix *f, uint32_t type, uint64_t sector, uint32_t nr, uint32_t flags)
{
    uint8_t raw[16];
    struct wr w = {.p = raw, .left = sizeof(raw)};

    wr_le64(&w, sector);
    wr_le32(&w, nr);
    wr_le32(&w, flags);
    fvd_put(&f->d, DATA, raw, sizeof(raw));
    return request(f, type, 0, 16, false);
}

static void test_discard_and_write_zeroes(void **state)
{
    static const struct {
        const char *why;
        uint32_t type;
        uint64_t sector;
        uint32_t nr, flags;
        uint8_t status;
    } rows[] = {
        {"zeroes",              VIRTIO_BLK_T_WRITE_ZEROES, 8,           8,          0, 0},
        {"a hole",              VIRTIO_BLK_T_WRITE_ZEROES, 16,          8,          1, 0},
        {"discard",             VIRTIO_BLK_T_DISCARD,      24,          8,          0, 0},
        {"discard has no flag", VIRTIO_BLK_T_DISCARD,      32,          8,          1, 2},
        {"unknown flag",        VIRTIO_BLK_T_WRITE_ZEROES, 32,          8,          2, 2},
        {"past the end",        VIRTIO_BLK_T_WRITE_ZEROES, SECTORS - 7, 8,          0, 1},
        {"wraps",               VIRTIO_BLK_T_DISCARD,      UINT64_MAX,  8,          0, 1},
        {"too much",            VIRTIO_BLK_T_DISCARD,      0,           UINT32_MAX, 0, 1},
        {"nothing",             VIRTIO_BLK_T_DISCARD,      0,           0,          0, 0},
    };
    const struct vblk_config no_sparse = {.no_sparse = true};
    struct fix *f = *state;

    if ((fvd_offered(&f->d) & DISCARDS) != DISCARDS)
        skip();
    fvd_start(&f->d, RING | DISCARDS, 1, 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        print_message("row %zu: %s\n", i, rows[i].why);
        assert_int_equal(discard(f, rows[i].type, rows[i].sector, rows[i].nr, rows[i].flags),
                         rows[i].status);
    }
    assert_on_disk(f, 0, SEED, 4096);
    assert_on_disk(f, 8, 0, 3 * 4096);
    assert_on_disk(f, 32, SEED, 4096);
    /* Two segments, or half of one, are not what was said to be possible. */
    assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 32, false), 1);
    assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 8, false), 1);
    bring_up(f, &no_sparse);
    assert_int_equal(fvd_offered(&f->d) & DISCARDS, 0);
}

static void test_read_only(void **state)
{
    const struct vblk_config cfg = {.readonly = true};
    struct fix *f = *state;

    bring_up(f, &cfg);
    assert_true(fvd_offered(&f->d) & BIT(VIRTIO_BLK_F_RO));
    assert_int_equal(fvd_offered(&f->d) & DISCARDS, 0);
    fvd_start(&f->d, RING | FLUSH, 1, 0);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true), 0);
    assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 512, false), 1);
    assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false), 0);
    assert_on_disk(f, 0, SEED, 512);
}

static void test_cache_mode(void **state)
{
    static const struct {
        uint64_t features;
        uint8_t mode;
        bool writable;
    } rows[] = {
        {0,           0, false},
        {FLUSH,       1, false},
        {WCE,         0, true },
        {WCE | FLUSH, 1, true },
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        fvd_start(&f->d, rows[i].features, 1, 0);
        assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 32, 1), rows[i].mode);
        assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 512, false), 0);
        fvd_write(&f->d, VPCI_CONFIG + 32, 1, !rows[i].mode);
        assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 32, 1), rows[i].mode ^ rows[i].writable);
        assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 512, false), 0);
        fvd_write(&f->d, VPCI_CONFIG + 32, 1, 2);
        fvd_write(&f->d, VPCI_CONFIG, 4, 2);
    }
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG, 8), SECTORS);
}

static void test_resize(void **state)
{
    struct fix *f = *state;

    fvd_start(&f->d, RING, 1, 0);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS, 512, true), 1);
    fake_env_clear(f->fe);
    assert_int_equal(vblk_resized(f->dev, NULL), 0);
    assert_int_equal(f->fe->nr_msis, 0);
    assert_int_equal(ftruncate(f->fd, 2 * SIZE), 0);
    assert_int_equal(vblk_resized(f->dev, NULL), 0);
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG, 8), 2 * SECTORS);
    assert_int_equal(fvd_read(&f->d, VIRTIO_PCI_COMMON_CFGGENERATION, 1), 1);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS, 512, true), 0);
}

/* --- Pause, reset, state ---------------------------------------------------------------- */

static void offer_many(struct fix *f, unsigned nr)
{
    put_header(f, VIRTIO_BLK_T_IN, 0);
    for (unsigned i = 0; i < nr; i++) {
        const struct fvd_seg segs[] = {
            {HEADER,            16,    false},
            {DATA + i * 0x8000, 32768, true },
            {STATUS + i,        1,     true },
        };

        fvd_add(&f->d, 0, segs, 3);
    }
}

static void test_quiesce_finishes_what_is_in_flight(void **state)
{
    struct fix *f = *state;
    struct err err = {0};
    uint16_t head;
    uint32_t len;

    fvd_start(&f->d, RING, 1, 0);
    fvd_pump(&f->d);
    for (unsigned round = 0; round < 10; round++) {
        offer_many(f, 20);
        fake_env_oracle_begin(f->fe);
        fvd_kick(&f->d, 0);
        if (round & 1)
            fvd_pump(&f->d); /* begun, probably not ended */
        if (virtio_device_quiesce(f->dev, loop_now_ns() + UINT64_C(5000000000), &err) < 0)
            fail_msg("%s", err.msg);
        (void)fake_env_oracle_end(f->fe);
        device_check_round_trip(f->dev, f->dev);
        /* Nothing more happens until it goes on. */
        fake_env_oracle_begin(f->fe);
        fvd_pump(&f->d);
        assert_int_equal(fake_env_oracle_end(f->fe), 0);
        device_check_resume(f->dev);
        for (unsigned i = 0; i < 20; i++)
            if (!fvd_used(&f->d, 0, &head, &len))
                (void)fvd_wait(&f->d, 0, &head);
        assert_filled(fvd_ptr(&f->d, DATA + 19 * 0x8000, 32768), SEED, 32768);
    }
}

static void test_reset_while_requests_are_in_flight(void **state)
{
    struct fix *f = *state;

    for (unsigned round = 0; round < 20; round++) {
        fvd_start(&f->d, round & 1 ? RING : 0, 1, 0);
        offer_many(f, 30);
        fvd_kick(&f->d, 0);
        if (round % 3)
            fvd_pump(&f->d);
        fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
        assert_true(fvd_negotiate(&f->d, 0));
        /* From here on memory is the guest's own. */
        fake_env_oracle_begin(f->fe);
        fvd_pump(&f->d);
        assert_int_equal(fake_env_oracle_end(f->fe), 0);
    }
    fvd_start(&f->d, RING, 1, 0);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true), 0);
}

static void test_load_into_a_fresh_device(void **state)
{
    struct fix *f = *state;
    struct pci_bus *bus = new_bus();
    struct device *other;
    uint16_t head;

    fvd_start(&f->d, RING | FLUSH | WCE, 1, 0);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(request(f, VIRTIO_BLK_T_IN, i, 512, true), 0);
    fvd_write(&f->d, VPCI_CONFIG + 32, 1, 0);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    offer(f, VIRTIO_BLK_T_IN, 1, 512, true);
    fvd_kick(&f->d, 0);
    other = new_device(f, bus, NULL);
    device_check_bad_state(f->dev, other);
    device_check_round_trip(f->dev, other);
    device_free(f->dev);
    f->dev = NULL;
    device_check_resume(other);
    (void)fvd_wait(&f->d, 0, &head);
    assert_int_equal(status(f), 0);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 32, 1), 0);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 2, 512, true), 0);
    device_free(other);
    pci_bus_free(bus);
}

static void test_state_must_fit_the_image(void **state)
{
    struct fix *f = *state;
    struct pci_bus *bus = new_bus();
    struct state_buf buf;
    struct device *other;
    struct err err = {0};

    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    buf = device_check_save(f->dev);
    assert_int_equal(ftruncate(f->fd, SIZE / 2), 0);
    other = new_device(f, bus, NULL);
    assert_int_equal(device_check_load(other, buf.data, buf.len, &err), -ENOTSUP);
    assert_string_equal(err.msg,
                        "_disk0.capacity: the guest's disk has 2048 sectors, this image has 1024");
    device_free(other);
    /* A larger one will do; the guest goes on with what it knows. */
    assert_int_equal(ftruncate(f->fd, SIZE * 2), 0);
    other = new_device(f, bus, NULL);
    assert_int_equal(device_check_load(other, buf.data, buf.len, NULL), 0);
    device_free(other);
    /* A feature in use that the other side does not have. */
    device_check_resume(f->dev);
    if (fvd_offered(&f->d) & DISCARDS) {
        const struct vblk_config cfg = {.no_sparse = true};

        fvd_start(&f->d, DISCARDS, 1, 0);
        assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
        state_buf_release(&buf);
        buf = device_check_save(f->dev);
        other = new_device(f, bus, &cfg);
        err = (struct err){0};
        assert_int_equal(device_check_load(other, buf.data, buf.len, &err), -ENOTSUP);
        assert_string_equal(err.msg, "_disk0.vp.vd.driver_features: the guest uses feature 13, "
                                     "which this device does not offer");
        device_free(other);
    }
    state_buf_release(&buf);
    pci_bus_free(bus);
}

static void test_golden_state(void **state)
{
    struct fix *f = *state;
    struct state_buf buf;

    fvd_start(&f->d, RING | FLUSH, 1, 0);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true), 0);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    assert_int_equal(state_desc_check(vblk_ops.state, NULL), 0);
    buf = device_check_save(f->dev);
    golden_check("state/virtio-blk-v1.cbor", buf.data, buf.len);
    state_buf_release(&buf);
}

/* --- All at once --------------------------------------------------------------------------- */

static void *run_loop(void *arg)
{
    assert_int_equal(loop_run(arg), 0);
    return NULL;
}

struct pauser {
    struct device *dev;
    _Atomic bool stop;
};

static void *pause_and_resume(void *arg)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    struct pauser *p = arg;

    while (!p->stop) {
        if (virtio_device_quiesce(p->dev, loop_now_ns() + UINT64_C(5000000000), NULL) == 0)
            device_check_resume(p->dev);
        (void)nanosleep(&moment, NULL);
    }
    return NULL;
}

/* Another thread runs the loop: look again and again. */
static void spin_until_used(struct fix *f)
{
    uint64_t deadline_ns = loop_now_ns() + UINT64_C(10000000000);
    uint16_t head;
    uint32_t len;

    while (!fvd_used(&f->d, 0, &head, &len))
        if (loop_now_ns() > deadline_ns)
            fail_msg("a request does not complete");
}

static void test_vcpu_loop_and_control_at_once(void **state)
{
    struct fix *f = *state;
    struct pauser p = {.dev = f->dev};
    pthread_t loop, pauser;

    fvd_start(&f->d, RING | FLUSH, 1, 0);
    assert_int_equal(pthread_create(&loop, NULL, run_loop, f->fe->env.loop), 0);
    assert_int_equal(pthread_create(&pauser, NULL, pause_and_resume, &p), 0);
    for (unsigned i = 1; i <= 300; i++) {
        offer(f, i % 3 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i, 4096, i % 3);
        fvd_kick(&f->d, 0);
        if (i % 50 == 0) {
            /* In the middle of it. */
            fvd_write(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
            while (fvd_status(&f->d))
                (void)sched_yield();
            fvd_start(&f->d, RING | FLUSH, 1, 0);
            continue;
        }
        spin_until_used(f);
        assert_int_equal(status(f), VIRTIO_BLK_S_OK);
        if (i % 20 == 0) {
            pci_bus_config_write(f->bus, SLOT, 4, 2, 0);
            pci_bus_config_write(f->bus, SLOT, 4, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        }
    }
    p.stop = true;
    (void)pthread_join(pauser, NULL);
    loop_stop(f->fe->env.loop);
    (void)pthread_join(loop, NULL);
    assert_int_equal(fvd_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

static void test_bad_configurations(void **state)
{
    static const struct vblk_config rows[] = {
        {.queue_size = 2},
        {.queue_size = 100},
        {.num_queues = 256},
    };
    struct fix *f = *state;
    struct disk_params p = {.path = f->path, .fd = -1, .depth = 4};

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct vblk_config cfg = rows[i];
        struct pci_bus *bus = new_bus();
        struct device *dev;
        struct err err = {0};

        cfg.place.bus = bus;
        assert_int_equal(disk_open(&p, &cfg.disk, NULL), 0);
        assert_int_equal(device_new(&vblk_ops, &f->fe->env, "x", &cfg, &dev, &err), -EINVAL);
        assert_true(err.msg[0]);
        disk_close(cfg.disk); /* still ours */
        pci_bus_free(bus);
    }
}

#define BOTH(t)                                          \
    cmocka_unit_test_setup_teardown(t, setup, teardown), \
    {                                                    \
#t " (threads)", t, setup_pool, teardown, NULL,  \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity_and_configuration, setup, teardown),
        BOTH(test_read_is_marked_dirty),
        BOTH(test_write_reaches_the_image),
        BOTH(test_framing_is_free),
        BOTH(test_odd_requests_are_answered),
        cmocka_unit_test_setup_teardown(test_requests_without_a_frame_ask_for_a_reset, setup,
                                        teardown),
        BOTH(test_more_requests_than_slots),
        cmocka_unit_test_setup_teardown(test_get_id, setup, teardown),
        BOTH(test_discard_and_write_zeroes),
        BOTH(test_read_only),
        BOTH(test_cache_mode),
        cmocka_unit_test_setup_teardown(test_resize, setup, teardown),
        BOTH(test_quiesce_finishes_what_is_in_flight),
        BOTH(test_reset_while_requests_are_in_flight),
        BOTH(test_load_into_a_fresh_device),
        cmocka_unit_test_setup_teardown(test_state_must_fit_the_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_golden_state, setup, teardown),
        BOTH(test_vcpu_loop_and_control_at_once),
        cmocka_unit_test_setup_teardown(test_bad_configurations, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtio_blk", tests, NULL, NULL);
}
