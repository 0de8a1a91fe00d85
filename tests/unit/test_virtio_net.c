/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network device and the tap behind it, in a network namespace of their
 * own; a packet socket is the host's network.  Skipped where that is not
 * allowed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "core/wire.h"
#include "devices/virtio_net.h"
#include "devices/virtio_pci.h"
#include "tests/fakes/device_check.h"
#include "tests/fakes/fake_virtio_driver.h"
#include "tests/fakes/golden.h"

enum {
    SLOT = 3,
    RX = 0x200000,
    TX = 0x300000,
    CTRL = 0x380000,
    RX_BUF = 2048,
    FRAME = 100,
    ETHERTYPE = 0x88b5, /* for experiments */
};

#define BIT(n)  (UINT64_C(1) << (n))
#define BASE    (BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_CTRL_VQ))
#define OFFLOAD (BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))

static const uint8_t guest_mac[TAP_MAC_LEN] = {0x2e, 1, 2, 3, 4, 5};
static const uint8_t host_mac[TAP_MAC_LEN] = {0x2e, 9, 9, 9, 9, 9};
static bool have_taps; /* written by main() only */

struct fix {
    struct fake_env *fe;
    struct pci_bus *bus;
    struct device *dev;
    struct fvd d;
    int wire; /* packet socket on the tap's interface; -1: none */
};

static struct tap *open_tap(unsigned nr_pairs)
{
    const struct tap_params p = {.name = "t0",
                                 .nr_pairs = nr_pairs,
                                 .host_mac = host_mac,
                                 .ip = "10.9.8.1",
                                 .mask = "255.255.255.0"};
    struct tap *tap;
    struct err err = {0};

    if (tap_open(&p, &tap, &err) < 0)
        fail_msg("%s", err.msg);
    return tap;
}

static int open_wire(const char *name)
{
    struct sockaddr_ll sll = {.sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE)};
    struct ifreq ifr = {0};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETHERTYPE));

    assert_true(fd >= 0);
    (void)snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    assert_int_equal(ioctl(fd, SIOCGIFINDEX, &ifr), 0);
    sll.sll_ifindex = ifr.ifr_ifindex;
    assert_int_equal(bind(fd, (struct sockaddr *)&sll, sizeof(sll)), 0);
    return fd;
}

static struct device *new_device(struct fix *f, struct pci_bus *bus, const struct vnet_config *more)
{
    struct vnet_config cfg = more ? *more : (struct vnet_config){0};
    struct device *dev;
    struct err err = {0};

    cfg.place = (struct pci_place){.bus = bus, .slot = SLOT};
    memcpy(cfg.mac, guest_mac, sizeof(cfg.mac));
    if (device_new(&vnet_ops, &f->fe->env, "_net1", &cfg, &dev, &err) < 0)
        fail_msg("%s", err.msg);
    return dev;
}

/* A device with or without a tap. */
static void bring_up(struct fix *f, const struct vnet_config *more, bool tap)
{
    struct vnet_config cfg = more ? *more : (struct vnet_config){0};

    if (tap)
        cfg.tap = open_tap(cfg.nr_pairs ? cfg.nr_pairs : 1);
    f->dev = new_device(f, f->bus, &cfg);
    device_check_resume(f->dev);
    fvd_init(&f->d, f->fe, f->bus, SLOT);
    if (tap)
        f->wire = open_wire("t0");
}

static int setup(void **state)
{
    const struct pci_bus_config cfg = {
        .mmio32 = {0xc0000000, MIB(16)},
          .mmio64 = {GIB(64),    MIB(16)}
    };
    struct fix *f = test_calloc(1, sizeof(*f));

    f->fe = fake_env_new();
    f->wire = -1;
    assert_int_equal(pci_bus_new(&cfg, &f->bus), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    device_free(f->dev);
    pci_bus_free(f->bus);
    fake_env_free(f->fe);
    if (f->wire >= 0)
        (void)close(f->wire);
    test_free(f);
    return 0;
}

/* --- Frames ------------------------------------------------------------------ */

static void make_frame(uint8_t frame[FRAME], const uint8_t *to, const uint8_t *from, uint8_t tag)
{
    memcpy(frame, to, TAP_MAC_LEN);
    memcpy(frame + TAP_MAC_LEN, from, TAP_MAC_LEN);
    frame[12] = ETHERTYPE >> 8;
    frame[13] = ETHERTYPE & 0xff;
    memset(frame + 14, tag, FRAME - 14);
}

/* Offer a transmit request with the header in a piece of its own. */
static void offer_tx(struct fix *f, unsigned queue, uint8_t tag)
{
    const struct fvd_seg segs[] = {
        {TX,      TAP_VNET_HDR_LEN, false},
        {TX + 64, FRAME,            false},
    };
    uint8_t frame[FRAME];

    make_frame(frame, host_mac, guest_mac, tag);
    memset(fvd_ptr(&f->d, TX, TAP_VNET_HDR_LEN), 0, TAP_VNET_HDR_LEN);
    fvd_put(&f->d, TX + 64, frame, sizeof(frame));
    fvd_add(&f->d, queue, segs, 2);
}

static void transmit(struct fix *f, unsigned queue, uint8_t tag)
{
    uint16_t head;

    offer_tx(f, queue, tag);
    fvd_kick(&f->d, queue);
    assert_int_equal(fvd_wait(&f->d, queue, &head), 0);
}

static void assert_on_wire(struct fix *f, uint8_t tag)
{
    struct pollfd pfd = {.fd = f->wire, .events = POLLIN};
    uint8_t frame[2048];

    assert_int_equal(poll(&pfd, 1, 2000), 1);
    assert_int_equal(recv(f->wire, frame, sizeof(frame), 0), FRAME);
    assert_memory_equal(frame + 6, guest_mac, 6);
    assert_int_equal(frame[FRAME - 1], tag);
}

static void send_from_wire(struct fix *f, uint8_t tag)
{
    uint8_t frame[FRAME];

    make_frame(frame, guest_mac, host_mac, tag);
    assert_int_equal(send(f->wire, frame, sizeof(frame), 0), FRAME);
}

static void offer_rx(struct fix *f, unsigned queue, unsigned i)
{
    const struct fvd_seg seg = {RX + i * RX_BUF, RX_BUF, true};

    fvd_add(&f->d, queue, &seg, 1);
}

/* The kernel says something of its own on a new interface now and then: look for ours. */
static uint8_t *wait_rx(struct fix *f, unsigned queue, uint8_t tag)
{
    for (unsigned i = 0; i < 100; i++) {
        uint16_t head;
        uint32_t len = fvd_wait(&f->d, queue, &head);
        uint8_t *buf = fvd_ptr(&f->d, RX + (uint64_t)head * RX_BUF, RX_BUF);

        if (len == TAP_VNET_HDR_LEN + FRAME && buf[len - 1] == tag &&
            buf[TAP_VNET_HDR_LEN + 12] == ETHERTYPE >> 8)
            return buf;
        offer_rx(f, queue, head);
        fvd_kick(&f->d, queue);
    }
    fail_msg("the frame does not arrive");
    return NULL;
}

static uint8_t control(struct fix *f, unsigned queue, const void *cmd, uint32_t len)
{
    const struct fvd_seg segs[] = {
        {CTRL,      len, false},
        {CTRL + 64, 1,   true },
    };

    fvd_put(&f->d, CTRL, cmd, len);
    fvd_put(&f->d, CTRL + 64, "\xee", 1);
    assert_int_equal(fvd_do(&f->d, queue, segs, 2), 1);
    return *(uint8_t *)fvd_ptr(&f->d, CTRL + 64, 1);
}

/* --- Without a tap ------------------------------------------------------------- */

static void test_identity_and_configuration(void **state)
{
    const struct vnet_config cfg = {.nr_pairs = 3, .mtu = 1400};
    struct fix *f = *state;

    bring_up(f, &cfg, false);
    assert_int_equal(pci_bus_config_read(f->bus, SLOT, 2, 2), 0x1041);
    assert_int_equal(pci_bus_config_read(f->bus, SLOT, 0xa, 2), 0x0200);
    assert_int_equal(fvd_offered(&f->d), UINT64_C(0x120637faf));
    assert_int_equal(fvd_read(&f->d, 18, 2), 7);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + i, 1), guest_mac[i]);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 8, 2), 3);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 10, 2), 1400);
}

static void test_features_follow_the_configuration(void **state)
{
    static const struct {
        struct vnet_config cfg;
        uint64_t missing;
    } rows[] = {
        {{.no_csum = true}, BIT(0) | BIT(1) | BIT(2) | BIT(7) | BIT(11) | BIT(10) | BIT(14)},
        {{.no_tso = true},  BIT(7) | BIT(8) | BIT(9) | BIT(11) | BIT(12) | BIT(13)         },
        {{.no_ufo = true},  BIT(10) | BIT(14)                                              },
        {{.mtu = 0},        BIT(VIRTIO_NET_F_MTU) | BIT(VIRTIO_NET_F_MQ)                   },
    };
    struct fix *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bring_up(f, &rows[i].cfg, false);
        assert_int_equal(fvd_offered(&f->d) & rows[i].missing, 0);
        device_free(f->dev);
        f->dev = NULL;
    }
}

static void test_features_that_need_others(void **state)
{
    static const uint64_t bad[] = {
        BIT(VIRTIO_NET_F_GUEST_TSO4),
        BIT(VIRTIO_NET_F_HOST_TSO6),
        BIT(VIRTIO_NET_F_GUEST_ANNOUNCE),
        BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_ECN),
        BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_ECN),
        BIT(VIRTIO_NET_F_MQ),
    };
    const struct vnet_config cfg = {.nr_pairs = 2};
    struct fix *f = *state;

    bring_up(f, &cfg, false);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(fvd_negotiate(&f->d, bad[i]));
    assert_true(fvd_negotiate(&f->d, fvd_offered(&f->d)));
}

static void test_frames_without_a_tap_are_lost(void **state)
{
    struct fix *f = *state;
    struct device_counter c[8];

    bring_up(f, NULL, false);
    fvd_start(&f->d, BASE, 3, 0);
    offer_rx(f, 0, 0);
    fvd_kick(&f->d, 0);
    transmit(f, 1, 1);
    vnet_announce(f->dev);
    assert_int_equal(f->dev->ops->counters(f->dev, c, 8), 5);
    assert_string_equal(c[4].name, "tx_dropped");
    assert_int_equal(c[4].value, 1);
    assert_int_equal(c[3].value, 0);
}

static void test_control_commands(void **state)
{
    static const struct {
        const char *why;
        uint8_t bytes[10];
        uint32_t len;
        uint8_t ack;
    } rows[] = {
        {"two pairs",                {4, 0, 2, 0},                   4,  0},
        {"three: too many",          {4, 0, 3, 0},                   4,  1},
        {"none",                     {4, 0, 0, 0},                   4,  1},
        {"cut short",                {4, 0, 2},                      3,  1},
        {"no such command",          {4, 1, 1, 0},                   4,  1},
        {"offloads off",             {5, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 10, 0},
        {"checksums on",             {5, 0, 2, 0, 0, 0, 0, 0, 0, 0}, 10, 0},
        {"not agreed on",            {5, 0, 0x80},                   10, 1},
        {"cut short",                {5, 0, 2, 0},                   4,  1},
        {"announced",                {3, 0},                         2,  0},
        {"promiscuous: not offered", {0, 0, 1},                      3,  1},
        {"unknown class",            {99, 0, 1},                     3,  1},
    };
    const struct vnet_config cfg = {.nr_pairs = 2};
    struct fix *f = *state;

    bring_up(f, &cfg, false);
    fvd_start(&f->d, BASE | OFFLOAD | BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_GUEST_ANNOUNCE), 5,
              0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        print_message("row %zu: %s\n", i, rows[i].why);
        assert_int_equal(control(f, 4, rows[i].bytes, rows[i].len), rows[i].ack);
    }
    /* Without MQ the control queue is the third, and there is no such command. */
    fvd_start(&f->d, BASE, 5, 0);
    assert_int_equal(control(f, 2, rows[0].bytes, 4), 1);
    assert_int_equal(control(f, 2, rows[9].bytes, 2), 1);
    fvd_kick(&f->d, 4);
    fvd_pump(&f->d);
    assert_int_equal(fvd_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

static void test_announcement_is_asked_for(void **state)
{
    const uint8_t ack[] = {3, 0};
    struct fix *f = *state;

    bring_up(f, NULL, false);
    fvd_start(&f->d, BASE | BIT(VIRTIO_NET_F_GUEST_ANNOUNCE), 3, 0);
    fake_env_clear(f->fe);
    vnet_announce(f->dev);
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(f->fe->msis[0].data, FVD_MSI_DATA);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 6, 2), 3);
    /* It survives a pause. */
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    device_check_round_trip(f->dev, f->dev);
    device_check_resume(f->dev);
    assert_int_equal(control(f, 2, ack, 2), 0);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 6, 2), 1);
}

static void test_requests_that_are_none_ask_for_a_reset(void **state)
{
    static const struct {
        unsigned queue;
        struct fvd_seg seg;
    } rows[] = {
        {0, {RX, 11, true}  }, /* no room for a header */
        {1, {TX, 11, false} }, /* no header */
        {1, {TX, 100, true} },
        {2, {CTRL, 2, false}}, /* no room for an answer */
        {2, {CTRL, 2, true} },
    };
    struct fix *f = *state;

    bring_up(f, NULL, have_taps);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bool needs_frame = rows[i].queue == 0;

        if (needs_frame && !have_taps)
            continue;
        fvd_start(&f->d, BASE, 3, 0);
        fvd_add(&f->d, rows[i].queue, &rows[i].seg, 1);
        fvd_kick(&f->d, rows[i].queue);
        fvd_pump(&f->d);
        if (needs_frame) {
            send_from_wire(f, 1);
            fvd_pump(&f->d);
        }
        assert_true(fvd_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
        assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
        device_check_round_trip(f->dev, f->dev);
        device_check_resume(f->dev);
    }
}

static void test_link(void **state)
{
    struct fix *f = *state;

    bring_up(f, NULL, false);
    fvd_start(&f->d, BASE, 3, 0);
    fake_env_clear(f->fe);
    vnet_set_link(f->dev, true);
    assert_int_equal(f->fe->nr_msis, 0);
    vnet_set_link(f->dev, false);
    assert_int_equal(f->fe->nr_msis, 1);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 6, 2), 0);
    vnet_set_mac(f->dev, host_mac);
    assert_int_equal(fvd_read(&f->d, VPCI_CONFIG + 5, 1), 9);
}

static void check_bad_state(struct fix *f)
{
    struct pci_bus *bus;
    struct device *fresh;

    assert_int_equal(pci_bus_new(
                         &(struct pci_bus_config){
                             .mmio32 = {0xd0000000, MIB(16)}
    },
                         &bus),
                     0);
    fresh = new_device(f, bus, &(struct vnet_config){.mtu = 1500});
    device_check_bad_state(f->dev, fresh);
    device_free(fresh);
    pci_bus_free(bus);
}

static void test_golden_state(void **state)
{
    struct fix *f = *state;
    struct state_buf buf;

    bring_up(f, &(struct vnet_config){.mtu = 1500}, false);
    fvd_start(&f->d, BASE | OFFLOAD, 3, 0);
    transmit(f, 1, 1);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    assert_int_equal(state_desc_check(vnet_ops.state, NULL), 0);
    check_bad_state(f);
    buf = device_check_save(f->dev);
    golden_check("state/virtio-net-v1.cbor", buf.data, buf.len);
    state_buf_release(&buf);
}

/* --- With a tap ------------------------------------------------------------------ */

static void test_frames_go_both_ways(void **state)
{
    struct fix *f = *state;
    struct device_counter c[8];
    uint8_t *buf;
    uint16_t head;

    if (!have_taps)
        skip();
    bring_up(f, NULL, true);
    fvd_start(&f->d, BASE, 3, 0);
    for (unsigned i = 0; i < 40; i++) {
        transmit(f, 1, (uint8_t)i);
        assert_on_wire(f, (uint8_t)i);
    }
    for (unsigned i = 0; i < 8; i++)
        offer_rx(f, 0, i);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    for (unsigned i = 0; i < 3; i++) {
        send_from_wire(f, (uint8_t)(100 + i));
        buf = wait_rx(f, 0, (uint8_t)(100 + i));
        assert_int_equal(buf[10], 1); /* num_buffers */
        assert_memory_equal(buf + TAP_VNET_HDR_LEN, guest_mac, 6);
    }
    /* Marked, whatever else the kernel sends. */
    fake_env_oracle_begin(f->fe);
    send_from_wire(f, 5);
    (void)fvd_wait(&f->d, 0, &head);
    assert_true(fake_env_oracle_end(f->fe) >= 2);
    assert_int_equal(f->dev->ops->counters(f->dev, c, 8), 5);
    assert_true(c[1].value >= 4);
    assert_int_equal(c[3].value, 40);
    assert_int_equal(c[2].value, 40 * FRAME);
}

static void test_frames_wait_for_buffers(void **state)
{
    struct fix *f = *state;

    if (!have_taps)
        skip();
    bring_up(f, NULL, true);
    fvd_start(&f->d, BASE, 3, 0);
    fvd_pump(&f->d);
    send_from_wire(f, 1);
    send_from_wire(f, 2);
    fvd_pump(&f->d);
    for (unsigned i = 0; i < 8; i++)
        offer_rx(f, 0, i);
    fvd_kick(&f->d, 0);
    (void)wait_rx(f, 0, 1);
    (void)wait_rx(f, 0, 2);
}

static void test_paused_devices_receive_nothing(void **state)
{
    struct fix *f = *state;

    if (!have_taps)
        skip();
    bring_up(f, NULL, true);
    fvd_start(&f->d, BASE, 3, 0);
    for (unsigned i = 0; i < 8; i++)
        offer_rx(f, 0, i);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    offer_tx(f, 1, 9);
    fake_env_oracle_begin(f->fe);
    send_from_wire(f, 7);
    fvd_kick(&f->d, 0);
    fvd_kick(&f->d, 1);
    fake_env_run_loop(f->fe, 20);
    assert_int_equal(fake_env_oracle_end(f->fe), 0);
    device_check_resume(f->dev);
    (void)wait_rx(f, 0, 7);
    assert_on_wire(f, 9);
}

static void test_guest_moves_with_its_tap(void **state)
{
    struct fix *f = *state;
    struct pci_bus *bus;
    struct device *other;
    struct tap *tap;
    struct err err = {0};
    int rarp, n;
    uint8_t frame[256];

    if (!have_taps)
        skip();
    bring_up(f, NULL, true);
    fvd_start(&f->d, BASE | OFFLOAD, 3, 0);
    for (unsigned i = 0; i < 8; i++)
        offer_rx(f, 0, i);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    assert_int_equal(pci_bus_new(
                         &(struct pci_bus_config){
                             .mmio32 = {0xd0000000, MIB(16)}
    },
                         &bus),
                     0);
    other = new_device(f, bus, NULL);
    assert_int_equal(virtio_device_quiesce(f->dev, 0, NULL), 0);
    device_check_round_trip(f->dev, other);
    /* The interface can be open once only. */
    vnet_drop_tap(f->dev);
    (void)close(f->wire);
    tap = open_tap(1);
    f->wire = open_wire("t0");
    rarp = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_RARP));
    assert_true(rarp >= 0);
    if (vnet_set_tap(other, tap, &err) < 0)
        fail_msg("%s", err.msg);
    device_free(f->dev);
    f->dev = NULL;
    device_check_resume(other);
    vnet_announce(other);
    n = (int)recv(rarp, frame, sizeof(frame), 0);
    assert_int_equal(n, 60);
    assert_memory_equal(frame, "\xff\xff\xff\xff\xff\xff", 6);
    assert_memory_equal(frame + 6, guest_mac, 6);
    assert_memory_equal(frame + 12, "\x80\x35\0\1\x08\0\6\4\0\3", 10);
    assert_memory_equal(frame + 22, guest_mac, 6);
    assert_memory_equal(frame + 32, guest_mac, 6);
    (void)close(rarp);
    send_from_wire(f, 3);
    (void)wait_rx(f, 0, 3);
    transmit(f, 1, 4);
    assert_on_wire(f, 4);
    device_free(other);
    pci_bus_free(bus);
}

static void test_pairs_of_queues(void **state)
{
    const struct vnet_config cfg = {.nr_pairs = 2};
    const uint8_t two[] = {4, 0, 2, 0}, one[] = {4, 0, 1, 0};
    struct fix *f = *state;

    if (!have_taps)
        skip();
    bring_up(f, &cfg, true);
    fvd_start(&f->d, BASE | BIT(VIRTIO_NET_F_MQ), 5, 0);
    assert_int_equal(control(f, 4, two, 4), 0);
    transmit(f, 3, 1);
    assert_on_wire(f, 1);
    transmit(f, 1, 2);
    assert_on_wire(f, 2);
    assert_int_equal(control(f, 4, one, 4), 0);
    for (unsigned i = 0; i < 8; i++)
        offer_rx(f, 0, i);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    /* All of them come to the first queue now. */
    for (uint8_t tag = 0; tag < 4; tag++) {
        send_from_wire(f, tag);
        (void)wait_rx(f, 0, tag);
    }
    assert_int_equal(control(f, 4, two, 4), 0);
    /* A driver that knows of one pair only. */
    fvd_start(&f->d, BASE, 5, 0);
    transmit(f, 1, 3);
    assert_on_wire(f, 3);
}

static void test_deleted_interface_is_survived(void **state)
{
    struct fix *f = *state;
    struct tap *tap;

    if (!have_taps)
        skip();
    bring_up(f, NULL, true);
    fvd_start(&f->d, BASE, 3, 0);
    offer_rx(f, 0, 0);
    fvd_kick(&f->d, 0);
    fvd_pump(&f->d);
    if (system("ip link del t0") != 0)
        skip();
    fvd_pump(&f->d);
    transmit(f, 1, 1);
    (void)close(f->wire);
    tap = open_tap(1);
    f->wire = open_wire("t0");
    assert_int_equal(vnet_set_tap(f->dev, tap, NULL), 0);
    transmit(f, 1, 2);
    assert_on_wire(f, 2);
}

static void test_hostile_frames_are_dropped(void **state)
{
    static const uint8_t headers[][TAP_VNET_HDR_LEN] = {
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        {1,    1,    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, /* checksum outside */
        {0,    1,    0,    0,    0,    0,    0,    0,    0,    0   }, /* segments of nothing */
    };
    struct fix *f = *state;
    const struct fvd_seg empty = {TX, TAP_VNET_HDR_LEN, false};

    if (!have_taps)
        skip();
    bring_up(f, NULL, true);
    fvd_start(&f->d, BASE, 3, 0);
    for (unsigned i = 0; i < ARRAY_LEN(headers); i++) {
        uint16_t head;

        offer_tx(f, 1, 1);
        fvd_put(&f->d, TX, headers[i], TAP_VNET_HDR_LEN);
        fvd_kick(&f->d, 1);
        assert_int_equal(fvd_wait(&f->d, 1, &head), 0);
    }
    assert_int_equal(fvd_do(&f->d, 1, &empty, 1), 0);
    assert_int_equal(fvd_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    transmit(f, 1, 2);
    assert_on_wire(f, 2);
}

/* --- The tap alone ------------------------------------------------------------------ */

static void test_tap_settings(void **state)
{
    struct tap_params p = {
        .name = "t%d", .nr_pairs = 1, .mtu = 1300, .ip = "fd00::1", .mask = "ffff:ffff::"};
    struct ifreq ifr = {0};
    struct tap *tap, *again;
    struct err err = {0};
    int sock, fds[2];

    (void)state;
    if (!have_taps)
        skip();
    if (tap_open(&p, &tap, &err) < 0)
        fail_msg("%s", err.msg);
    assert_string_equal(tap_name(tap), "t0");
    assert_true(tap_offloads(tap) & TUN_F_TSO4);
    sock = socket(AF_INET, SOCK_DGRAM, 0);
    memcpy(ifr.ifr_name, "t0", 3);
    assert_int_equal(ioctl(sock, SIOCGIFMTU, &ifr), 0);
    assert_int_equal(ifr.ifr_mtu, 1300);
    assert_int_equal(ioctl(sock, SIOCGIFFLAGS, &ifr), 0);
    assert_true(ifr.ifr_flags & IFF_UP);
    (void)close(sock);
    p.name = "t0";
    assert_int_equal(tap_open(&p, &again, NULL), -EBUSY);
    p.nr_pairs = 2;
    assert_int_equal(tap_open(&p, &again, NULL), -EINVAL);
    p.nr_pairs = 1;
    tap_close(tap);

    /* Bad values are named. */
    p.ip = "10.0.0.300";
    p.mask = NULL;
    err = (struct err){0};
    assert_int_equal(tap_open(&p, &tap, &err), -EINVAL);
    assert_string_equal(err.msg, "tap t0: 10.0.0.300 is not an IPv4 address");
    p.ip = "fd00::1";
    p.mask = "ff00:ff::";
    assert_int_equal(tap_open(&p, &tap, NULL), -EINVAL);
    p = (struct tap_params){.name = "a-name-of-17-char", .nr_pairs = 1};
    assert_int_equal(tap_open(&p, &tap, NULL), -EINVAL);
    p = (struct tap_params){.nr_pairs = 128};
    assert_int_equal(tap_open(&p, &tap, NULL), -EINVAL);

    /* Descriptors: of a tap, and of something else. */
    fds[0] = open("/dev/null", O_RDWR);
    p = (struct tap_params){.nr_pairs = 1, .fds = fds};
    err = (struct err){0};
    assert_int_equal(tap_open(&p, &tap, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "is not a tap"));
    (void)close(fds[0]); /* still ours */
    fds[0] = open("/dev/net/tun", O_RDWR);
    ifr = (struct ifreq){.ifr_name = "t5", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    assert_int_equal(ioctl(fds[0], TUNSETIFF, &ifr), 0);
    assert_int_equal(tap_open(&p, &tap, NULL), 0);
    assert_string_equal(tap_name(tap), "t5");
    assert_int_equal(tap_fd(tap, 0), fds[0]);
    assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
    tap_close(tap);
    fds[0] = open("/dev/net/tun", O_RDWR);
    ifr = (struct ifreq){.ifr_name = "t5", .ifr_flags = IFF_TUN | IFF_NO_PI};
    assert_int_equal(ioctl(fds[0], TUNSETIFF, &ifr), 0);
    assert_int_equal(tap_open(&p, &tap, NULL), -EINVAL);
    (void)close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity_and_configuration, setup, teardown),
        cmocka_unit_test_setup_teardown(test_features_follow_the_configuration, setup, teardown),
        cmocka_unit_test_setup_teardown(test_features_that_need_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frames_without_a_tap_are_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_control_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_announcement_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_that_are_none_ask_for_a_reset, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_link, setup, teardown),
        cmocka_unit_test_setup_teardown(test_golden_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frames_go_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frames_wait_for_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paused_devices_receive_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_guest_moves_with_its_tap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pairs_of_queues, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deleted_interface_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_frames_are_dropped, setup, teardown),
        cmocka_unit_test(test_tap_settings),
    };
    int fd = unshare(CLONE_NEWNET) < 0 ? -1 : open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    have_taps = fd >= 0;
    if (have_taps)
        (void)close(fd);
    else
        print_message("no taps here (%s): the tests with one are skipped\n", strerror(errno));
    return cmocka_run_group_tests_name("virtio_net", tests, NULL, NULL);
}
