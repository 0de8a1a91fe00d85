/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <string.h>

#include "devices/virtio_pci.h"
#include "devices/virtio_rng.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_virtio_driver.h"
#include "tests/fakes/golden.h"

enum {
    SLOT = 1,
    DATA = 0x200000,
};

struct fix {
    struct fake_env *fe;
    struct pci_bus *bus;
    struct device *dev;
    struct fvd d;
    int pipe[2];
};

static void bring_up(struct fix *f, int fd)
{
    const struct vrng_config cfg = {
        .place = {.bus = f->bus, .slot = SLOT},
          .fd = fd
    };
    struct err err = {0};

    device_free(f->dev);
    if (device_new(&vrng_ops, &f->fe->env, "__rng", &cfg, &f->dev, &err) < 0)
        fail_msg("%s", err.msg);
    device_check_resume(f->dev);
    fvd_init(&f->d, f->fe, f->bus, SLOT);
    fvd_start(&f->d, 0, 1, 0);
}

static int setup(void **state)
{
    const struct pci_bus_config cfg = {
        .mmio32 = {0xc0000000, MIB(16)}
    };
    struct fix *f = test_calloc(1, sizeof(*f));

    f->fe = fake_env_new();
    assert_int_equal(pci_bus_new(&cfg, &f->bus), 0);
    assert_int_equal(pipe(f->pipe), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    device_free(f->dev);
    pci_bus_free(f->bus);
    fake_env_free(f->fe);
    (void)close(f->pipe[1]);
    test_free(f);
    return 0;
}

static bool is_filled(struct fix *f, uint64_t gpa, size_t len)
{
    const uint8_t *p = fvd_ptr(&f->d, gpa, len);
    unsigned zeroes = 0;

    for (size_t i = 0; i < len; i++)
        zeroes += !p[i];
    return zeroes < len / 16;
}

static void test_bytes_are_random_and_marked(void **state)
{
    const struct fvd_seg segs[] = {
        {DATA,              100,  true},
        {FAKE_ENV_GPA_HIGH, 5000, true},
    };
    struct fix *f = *state;
    uint16_t head;

    bring_up(f, -1);
    assert_int_equal(pci_bus_config_read(f->bus, SLOT, 2, 2), 0x1044);
    assert_int_equal(pci_bus_config_read(f->bus, SLOT, 0xa, 2), 0xffff);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG, 4), 0);
    fvd_add(&f->d, 0, segs, 2);
    fake_env_oracle_begin(f->fe);
    fvd_kick(&f->d, 0);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 5100);
    assert_int_equal(fake_env_oracle_end(f->fe), 4);
    assert_true(is_filled(f, DATA, 100));
    assert_true(is_filled(f, FAKE_ENV_GPA_HIGH, 5000));
}

static void test_requests_are_bounded(void **state)
{
    const struct fvd_seg huge = {DATA, 1 << 20, true}, none = {DATA, 8, false};
    struct fix *f = *state;

    bring_up(f, -1);
    assert_int_equal(fvd_do(&f->d, 0, &huge, 1), 64 << 10);
    assert_int_equal(fvd_do(&f->d, 0, &none, 1), 0);
}

static void test_source_is_waited_for(void **state)
{
    const struct fvd_seg seg = {DATA, 8, true};
    struct fix *f = *state;
    uint16_t head;
    uint32_t len;

    bring_up(f, f->pipe[0]);
    fvd_add(&f->d, 0, &seg, 1);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_false(fvd_used(&f->d, 0, &head, &len));
    /* A pause in the meantime loses nothing. */
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    device_check_round_trip(f->dev, f->dev);
    assert_int_equal(write(f->pipe[1], "abcdefgh", 8), 8);
    fvd_pump(&f->d);
    assert_false(fvd_used(&f->d, 0, &head, &len));
    device_check_resume(f->dev);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 8);
    assert_memory_equal(fvd_ptr(&f->d, DATA, 8), "abcdefgh", 8);
    /* Less than was asked for is as good. */
    fvd_add(&f->d, 0, &seg, 1);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(write(f->pipe[1], "xyz", 3), 3);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 3);
    assert_memory_equal(fvd_ptr(&f->d, DATA, 8), "xyzdefgh", 8);
    /* At its end the kernel helps out. */
    (void)close(f->pipe[1]);
    f->pipe[1] = -1;
    assert_int_equal(fvd_do(&f->d, 0, &seg, 1), 8);
}

static void test_file_as_source(void **state)
{
    const struct fvd_seg seg = {DATA, 64, true};
    struct fix *f = *state;

    (void)close(f->pipe[0]);
    bring_up(f, open("/dev/urandom", O_RDONLY | O_CLOEXEC));
    assert_int_equal(fvd_do(&f->d, 0, &seg, 1), 64);
    assert_true(is_filled(f, DATA, 64));
}

static void test_reset_while_waiting(void **state)
{
    const struct fvd_seg seg = {DATA, 8, true};
    struct fix *f = *state;

    bring_up(f, f->pipe[0]);
    for (unsigned i = 0; i < 5; i++) {
        fvd_add(&f->d, 0, &seg, 1);
        fvd_kick(&f->d, 0);
        fvd_pump(&f->d);
        fvd_start(&f->d, 0, 1, 0);
    }
    assert_int_equal(write(f->pipe[1], "12345678", 8), 8);
    fake_env_oracle_begin(f->fe);
    fvd_pump(&f->d);
    assert_int_equal(fake_env_oracle_end(f->fe), 0);
    assert_int_equal(fvd_do(&f->d, 0, &seg, 1), 8);
}

static void check_bad_state(struct fix *f)
{
    struct vrng_config cfg = {.fd = -1};
    struct device *fresh;

    assert_int_equal(pci_bus_new(
                         &(struct pci_bus_config){
                             .mmio32 = {0xd0000000, MIB(16)}
    },
                         &cfg.place.bus),
                     0);
    fresh = device_check_new(&vrng_ops, &f->fe->env, "__rng", &cfg);
    device_check_bad_state(f->dev, fresh);
    device_free(fresh);
    pci_bus_free(cfg.place.bus);
}

static void test_golden_state(void **state)
{
    struct fix *f = *state;
    struct state_buf buf;

    bring_up(f, -1);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    assert_int_equal(state_desc_check(vrng_ops.state, NULL), 0);
    check_bad_state(f);
    buf = device_check_save(f->dev);
    golden_check("state/virtio-rng-v1.cbor", buf.data, buf.len);
    state_buf_release(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes_are_random_and_marked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_source_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_as_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_while_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_golden_state, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtio_rng", tests, NULL, NULL);
}
