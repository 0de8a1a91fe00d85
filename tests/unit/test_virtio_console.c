/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/virtio_console.h"
#include "devices/virtio_pci.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_virtio_driver.h"
#include "tests/fakes/golden.h"

enum {
    SLOT = 1,
    RX = 0x200000,
    TX = 0x300000,
};

struct fix {
    struct fake_env *fe;
    struct pci_bus *bus;
    struct device *dev;
    struct fvd d;
    int end; /* the terminal's end of the line */
};

static struct device *new_device(struct fix *f, struct pci_bus *bus, int fd)
{
    const struct vcon_config cfg = {
        .place = {.bus = bus,    .slot = SLOT   },
        .port = { .in_fd = fd, .out_fd = fd, .listen_fd = -1},
        .cols = 80,
        .rows = 25,
    };
    struct device *dev;
    struct err err = {0};

    if (device_new(&vcon_ops, &f->fe->env, "__console", &cfg, &dev, &err) < 0)
        fail_msg("%s", err.msg);
    return dev;
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

static int setup(void **state)
{
    struct fix *f = test_calloc(1, sizeof(*f));
    int ends[2];

    f->fe = fake_env_new();
    f->bus = new_bus();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    f->end = ends[0];
    f->dev = new_device(f, f->bus, ends[1]);
    device_check_resume(f->dev);
    fvd_init(&f->d, f->fe, f->bus, SLOT);
    fvd_start(&f->d, 1, 2, 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    device_free(f->dev);
    pci_bus_free(f->bus);
    fake_env_free(f->fe);
    (void)close(f->end);
    test_free(f);
    return 0;
}

static void say(struct fix *f, const char *text)
{
    const struct fvd_seg seg = {TX, (uint32_t)strlen(text), false};

    fvd_put(&f->d, TX, text, strlen(text));
    assert_int_equal(fvd_do(&f->d, 1, &seg, 1), 0);
}

static void assert_heard(struct fix *f, const char *text)
{
    char buf[256] = {0};

    fvd_pump(&f->d);
    assert_int_equal(read(f->end, buf, sizeof(buf)), strlen(text));
    assert_string_equal(buf, text);
}

static void offer_rx(struct fix *f, unsigned i, uint32_t len)
{
    const struct fvd_seg seg = {RX + i * 0x1000, len, true};

    fvd_add(&f->d, 0, &seg, 1);
}

static void test_identity_and_size(void **state)
{
    struct fix *f = *state;

    assert_int_equal(pci_bus_config_read(f->bus, SLOT, 2, 2), 0x1043);
    assert_int_equal(fvd_offered(&f->d), UINT64_C(0x100000001));
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG, 4), 25 << 16 | 80);
    fake_env_clear(f->fe);
    vcon_resize(f->dev, 80, 25);
    assert_int_equal(f->fe->nr_msis, 0);
    vcon_resize(f->dev, 132, 50);
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG, 4), 50 << 16 | 132);
}

static void test_output(void **state)
{
    const struct fvd_seg segs[] = {
        {TX,                   2, false},
        {FAKE_ENV_RAM_LOW - 1, 2, false},
        {TX + 2,               1, false},
    };
    struct fix *f = *state;

    say(f, "hello");
    assert_heard(f, "hello");
    fvd_put(&f->d, TX, "abe", 3);
    fvd_put(&f->d, FAKE_ENV_RAM_LOW - 1, "c", 1);
    fvd_put(&f->d, FAKE_ENV_RAM_LOW, "d", 1);
    assert_int_equal(fvd_do(&f->d, 1, segs, 3), 0);
    assert_heard(f, "abcde");
}

static void test_huge_output_is_cut(void **state)
{
    const struct fvd_seg segs[] = {
        {0, FAKE_ENV_RAM_LOW, false},
        {0, FAKE_ENV_RAM_LOW, false},
    };
    struct fix *f = *state;
    struct device_counter c[4];

    assert_int_equal(fvd_do(&f->d, 1, segs, 2), 0);
    assert_int_equal(f->dev->ops->counters(f->dev, c, 4), 3);
    assert_string_equal(c[1].name, "tx_bytes");
    assert_int_equal(c[1].value, 64 << 10);
}

static void test_input(void **state)
{
    struct fix *f = *state;
    uint16_t head;

    /* Before there is a buffer, into small ones, across the end of one. */
    assert_int_equal(write(f->end, "typed", 5), 5);
    fvd_pump(&f->d);
    offer_rx(f, 0, 3);
    offer_rx(f, 1, 100);
    fake_env_oracle_begin(f->fe);
    fvd_kick(&f->d, 0);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 3);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 2);
    assert_int_equal(fake_env_oracle_end(f->fe), 3);
    assert_memory_equal(fvd_ptr(&f->d, RX, 3), "typ", 3);
    assert_memory_equal(fvd_ptr(&f->d, RX + 0x1000, 2), "ed", 2);
    /* And when there is one. */
    offer_rx(f, 2, 100);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(write(f->end, "more", 4), 4);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 4);
    assert_memory_equal(fvd_ptr(&f->d, RX + 0x2000, 4), "more", 4);
}

static void test_useless_buffers_ask_for_a_reset(void **state)
{
    struct fix *f = *state;

    fvd_add(&f->d, 0, &(struct fvd_seg){RX, 10, false}, 1);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(write(f->end, "x", 1), 1);
    fvd_pump(&f->d);
    assert_true(fvd_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
    fvd_start(&f->d, 1, 2, 0);
    say(f, "alive");
    assert_heard(f, "alive");
}

static void test_pause_save_load_go_on(void **state)
{
    struct fix *f = *state;
    struct pci_bus *bus = new_bus();
    struct device *other;
    uint16_t head;
    int ends[2];

    offer_rx(f, 0, 10);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(f->dev->ops->quiesce(f->dev, loop_now_ns() + 1000000000, NULL), 0);
    assert_int_equal(write(f->end, "in", 2), 2);
    fvd_add(&f->d, 1, &(struct fvd_seg){TX, 3, false}, 1);
    fvd_put(&f->d, TX, "out", 3);
    fake_env_oracle_begin(f->fe);
    fvd_kick(&f->d, 1);
    fvd_pump(&f->d);
    assert_int_equal(fake_env_oracle_end(f->fe), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    other = new_device(f, bus, ends[1]);
    device_check_bad_state(f->dev, other);
    device_check_round_trip(f->dev, other);
    device_free(f->dev);
    f->dev = NULL;
    (void)close(f->end);
    f->end = ends[0];
    device_check_resume(other);
    assert_int_equal(fvd_wait(&f->d, 1, &head), 0);
    assert_heard(f, "out");
    assert_int_equal(write(f->end, "new", 3), 3);
    assert_int_equal(fvd_wait(&f->d, 0, &head), 3);
    device_free(other);
    pci_bus_free(bus);
}

static void test_golden_state(void **state)
{
    struct fix *f = *state;
    struct state_buf buf;

    say(f, "x");
    assert_int_equal(f->dev->ops->quiesce(f->dev, loop_now_ns() + 1000000000, NULL), 0);
    assert_int_equal(state_desc_check(vcon_ops.state, NULL), 0);
    buf = device_check_save(f->dev);
    golden_check("state/virtio-console-v1.cbor", buf.data, buf.len);
    state_buf_release(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity_and_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_huge_output_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_useless_buffers_ask_for_a_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_save_load_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_golden_state, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtio_console", tests, NULL, NULL);
}
