/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net: answers ARP, ping and UDP echo, sends frames back that carry our own Ethernet type,
 * announces itself when the device asks for it.
 */
#include "guest_virtio.h"

enum {
    MAX_NICS = 2,
    NR_BUFFERS = 32,
    BUFFER_LEN = 2048,
    HEADER_LEN = 12, /* struct virtio_net_hdr */
    RX = 0,
    TX = 1,
    STATUS_LINK_UP = 1,
    STATUS_ANNOUNCE = 2,
    CTRL_ANNOUNCE = 3,
    ETH_TYPE_IP = 0x0800,
    ETH_TYPE_ARP = 0x0806,
    ETH_TYPE_OURS = 0x88b5, /* IEEE 802: local experimental */
    PROTO_ICMP = 1,
    PROTO_UDP = 17,
    UDP_ECHO_PORT = 7,
    /* Offsets in a frame without options. */
    ETH_DST = 0,
    ETH_SRC = 6,
    ETH_TYPE = 12,
    ARP_OP = 20,
    ARP_SHA = 22,
    ARP_SPA = 28,
    ARP_THA = 32,
    ARP_TPA = 38,
    IP_VERSION = 14,
    IP_PROTO = 23,
    IP_SRC = 26,
    IP_DST = 30,
    L4 = 34,
};

#define F_MTU      (1ull << 3)
#define F_MAC      (1ull << 5)
#define F_STATUS   (1ull << 16)
#define F_CTRL_VQ  (1ull << 17)
#define F_ANNOUNCE (1ull << 21)

struct nic {
    struct vdev dev;
    struct vqueue queues[2], control;
    uint8_t mac[6], ip[4];
    uint32_t tx_busy; /* one bit a buffer */
    uint64_t rx_frames, tx_frames, rx_bytes, tx_dropped, nr_pings, nr_arps, nr_announced, nr_ours;
    uint8_t peer_mac[6], arp_wanted[4];
    bool arp_answered;
};

static struct vring rings[MAX_NICS][3] BULK __attribute__((aligned(4096)));
static uint8_t rx_buffers[MAX_NICS][NR_BUFFERS][BUFFER_LEN] BULK __attribute__((aligned(4096)));
static uint8_t tx_buffers[MAX_NICS][NR_BUFFERS][BUFFER_LEN] BULK __attribute__((aligned(4096)));
static struct {
    uint8_t class, command, ack;
} control_message;
static struct nic nics[MAX_NICS];

static unsigned be16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void set_be16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static unsigned nic_number(const struct nic *nic)
{
    return (unsigned)(nic - nics);
}

/* ---- Sending ---- */

static void take_sent(struct nic *nic)
{
    struct vused_elem elem;

    while (vqueue_take(&nic->queues[TX], &elem)) {
        if (elem.id < NR_BUFFERS)
            nic->tx_busy &= ~(1u << elem.id);
    }
}

/* A buffer for a frame, or NULL when all are on their way. */
static uint8_t *new_frame(struct nic *nic, unsigned *ret_index)
{
    take_sent(nic);
    for (unsigned i = 0; i < NR_BUFFERS && i < nic->queues[TX].size; i++) {
        if (!(nic->tx_busy & 1u << i)) {
            *ret_index = i;
            memset(tx_buffers[nic_number(nic)][i], 0, HEADER_LEN);
            return tx_buffers[nic_number(nic)][i] + HEADER_LEN;
        }
    }
    nic->tx_dropped++;
    return NULL;
}

static void send_frame(struct nic *nic, unsigned index, unsigned len)
{
    struct vqueue *q = &nic->queues[TX];

    q->ring->desc[index] =
        (struct vdesc){gpa_of(tx_buffers[nic_number(nic)][index]), HEADER_LEN + len, 0, 0};
    nic->tx_busy |= 1u << index;
    nic->tx_frames++;
    vqueue_offer(q, (uint16_t)index);
    vqueue_kick(q);
}

static void send_arp(struct nic *nic, unsigned op, const uint8_t *to_mac, const uint8_t *to_ip)
{
    static const uint8_t head[] = {0x08, 0x06, 0, 1, 8, 0, 6, 4};
    unsigned index;
    uint8_t *f = new_frame(nic, &index);

    if (!f)
        return;
    memset(f, 0, 60);
    memset(f + ETH_DST, 0xff, 6);
    if (to_mac) {
        memcpy(f + ETH_DST, to_mac, 6);
        memcpy(f + ARP_THA, to_mac, 6);
    }
    memcpy(f + ETH_SRC, nic->mac, 6);
    memcpy(f + ETH_TYPE, head, sizeof(head));
    set_be16(f + ARP_OP, op);
    memcpy(f + ARP_SHA, nic->mac, 6);
    memcpy(f + ARP_SPA, nic->ip, 4);
    memcpy(f + ARP_TPA, to_ip, 4);
    send_frame(nic, index, 60);
}

static bool control_done(void *arg)
{
    struct vused_elem elem;
    struct nic *nic = arg;

    return vqueue_take(&nic->control, &elem);
}

/* virtio 1.2, 5.1.6.5.4: gratuitous packets, then the acknowledgement. */
static void announce(struct nic *nic)
{
    struct vqueue *q = &nic->control;

    send_arp(nic, 1, NULL, nic->ip);
    nic->nr_announced++;
    if (!q->ring || q->size == 0)
        return;
    control_message.class = CTRL_ANNOUNCE;
    control_message.command = 0;
    control_message.ack = 0xff;
    q->ring->desc[0] = (struct vdesc){gpa_of(&control_message), 2, DESC_NEXT, 1};
    q->ring->desc[1] = (struct vdesc){gpa_of(&control_message.ack), 1, DESC_WRITE, 0};
    vqueue_offer(q, 0);
    vqueue_kick(q);
    wait_for(control_done, nic, 1000000);
}

/* ---- Receiving ---- */

/* Turns the frame round: what came from the peer goes to it. */
static void send_back(struct nic *nic, const uint8_t *frame, unsigned len, bool is_ip)
{
    unsigned index;
    uint8_t *f = new_frame(nic, &index);

    if (!f)
        return;
    memcpy(f, frame, len);
    memcpy(f + ETH_DST, frame + ETH_SRC, 6);
    memcpy(f + ETH_SRC, nic->mac, 6);
    if (is_ip) {
        memcpy(f + IP_SRC, frame + IP_DST, 4);
        memcpy(f + IP_DST, frame + IP_SRC, 4);
    }
    if (is_ip && f[IP_PROTO] == PROTO_ICMP) {
        unsigned sum = be16(f + L4 + 2) + 0x0800; /* type 8 becomes 0 */

        f[L4] = 0;
        set_be16(f + L4 + 2, (sum & 0xffff) + (sum >> 16));
    } else if (is_ip) {
        memcpy(f + L4, frame + L4 + 2, 2);
        memcpy(f + L4 + 2, frame + L4, 2);
    }
    send_frame(nic, index, len);
}

static void receive_arp(struct nic *nic, const uint8_t *f)
{
    if (be16(f + ARP_OP) == 1 && memcmp(f + ARP_TPA, nic->ip, 4) == 0) {
        nic->nr_arps++;
        send_arp(nic, 2, f + ARP_SHA, f + ARP_SPA);
    } else if (be16(f + ARP_OP) == 2 && memcmp(f + ARP_SPA, nic->arp_wanted, 4) == 0) {
        memcpy(nic->peer_mac, f + ARP_SHA, 6);
        nic->arp_answered = true;
    }
}

static void receive_ip(struct nic *nic, const uint8_t *f, unsigned len)
{
    if (f[IP_VERSION] != 0x45 || memcmp(f + IP_DST, nic->ip, 4) != 0)
        return;
    if (f[IP_PROTO] == PROTO_ICMP && f[L4] == 8) {
        nic->nr_pings++;
        send_back(nic, f, len, true);
    } else if (f[IP_PROTO] == PROTO_UDP && be16(f + L4 + 2) == UDP_ECHO_PORT) {
        send_back(nic, f, len, true);
    }
}

static void receive(struct nic *nic, const uint8_t *f, unsigned len)
{
    unsigned type;

    nic->rx_frames++;
    nic->rx_bytes += len;
    if (len < 42)
        return;
    type = be16(f + ETH_TYPE);
    if (type == ETH_TYPE_ARP) {
        receive_arp(nic, f);
    } else if (type == ETH_TYPE_IP) {
        receive_ip(nic, f, len);
    } else if (type == ETH_TYPE_OURS && memcmp(f + ETH_DST, nic->mac, 6) == 0) {
        nic->nr_ours++;
        send_back(nic, f, len, false);
    }
}

static void offer_rx(struct nic *nic, unsigned index)
{
    struct vqueue *q = &nic->queues[RX];

    q->ring->desc[index] =
        (struct vdesc){gpa_of(rx_buffers[nic_number(nic)][index]), BUFFER_LEN, DESC_WRITE, 0};
    vqueue_offer(q, (uint16_t)index);
}

static void nic_poll(struct nic *nic)
{
    struct vused_elem elem;
    bool any = false;

    for (unsigned i = 0; i < NR_BUFFERS && vqueue_take(&nic->queues[RX], &elem); i++) {
        any = true;
        if (elem.id >= NR_BUFFERS)
            continue;
        if (elem.len > HEADER_LEN && elem.len <= BUFFER_LEN)
            receive(nic, rx_buffers[nic_number(nic)][elem.id] + HEADER_LEN, elem.len - HEADER_LEN);
        offer_rx(nic, elem.id);
    }
    if (any)
        vqueue_kick(&nic->queues[RX]);
    take_sent(nic);
}

/* Configuration: MAC, 6 bytes; status, 2; maximum queue pairs, 2; MTU, 2. */
static unsigned nic_status(const struct nic *nic)
{
    if (!(nic->dev.features & F_STATUS))
        return STATUS_LINK_UP;
    return *(const volatile uint16_t *)(const volatile void *)(nic->dev.device + 6);
}

bool net_pending(void)
{
    for (unsigned i = 0; i < MAX_NICS; i++) {
        if (nics[i].dev.up &&
            (vqueue_has_used(&nics[i].queues[RX]) || vqueue_has_used(&nics[i].queues[TX])))
            return true;
    }
    return false;
}

bool net_step(void)
{
    static uint32_t seen[MAX_NICS];

    for (unsigned i = 0; i < MAX_NICS; i++) {
        struct nic *nic = &nics[i];

        if (!nic->dev.up)
            continue;
        nic_poll(nic);
        if (nr_interrupts[nic->dev.vector] != seen[i]) {
            seen[i] = nr_interrupts[nic->dev.vector];
            if (nic->dev.features & F_ANNOUNCE && nic_status(nic) & STATUS_ANNOUNCE)
                announce(nic);
        }
    }
    return false;
}

/* ---- Commands ---- */

static bool parse_ip(const char *text, uint8_t ip[4])
{
    unsigned part = 0, value = 0;

    for (;; text++) {
        if (*text >= '0' && *text <= '9') {
            value = value * 10 + (unsigned)(*text - '0');
        } else if (*text == '.' || *text == 0) {
            if (part == 4 || value > 255)
                return false;
            ip[part++] = (uint8_t)value;
            value = 0;
            if (*text == 0)
                return part == 4;
        } else {
            return false;
        }
    }
}

static void print_mac(const char *before, const uint8_t *mac)
{
    out("%s%b:%b:%b:%b:%b:%b", before, (uint64_t)mac[0], (uint64_t)mac[1], (uint64_t)mac[2],
        (uint64_t)mac[3], (uint64_t)mac[4], (uint64_t)mac[5]);
}

static bool open_nic(struct nic *nic)
{
    struct vqueue queues[3] = {0};
    bool control;

    if (!virtio_find(VIRTIO_NET, nic_number(nic), &nic->dev))
        return false;
    for (unsigned i = 0; i < 3; i++)
        queues[i].ring = &rings[nic_number(nic)][i];
    if (!virtio_start(&nic->dev, F_MAC | F_STATUS | F_MTU | F_CTRL_VQ | F_ANNOUNCE | F_EVENT_IDX,
                      queues, 3))
        return false;
    /* F_MQ is not accepted, so that queue 2 is the control queue (virtio 1.2, 5.1.2). */
    control = nic->dev.features & F_CTRL_VQ && nic->dev.nr_queues >= 3;
    nic->queues[RX] = queues[RX];
    nic->queues[TX] = queues[TX];
    nic->control = control ? queues[2] : (struct vqueue){0};
    for (unsigned i = 0; i < 6; i++)
        nic->mac[i] = nic->dev.device[i];
    nic->tx_busy = 0;
    for (unsigned i = 0; i < NR_BUFFERS && i < nic->queues[RX].size; i++)
        offer_rx(nic, i);
    if (!virtio_ready(&nic->dev))
        return false;
    vqueue_kick(&nic->queues[RX]);
    return true;
}

static void net_up(struct nic *nic, unsigned argc, char **argv)
{
    if (argc < 4 || !parse_ip(argv[3], nic->ip)) {
        out("err net: up: an address is wanted\n");
        return;
    }
    if (!nic->dev.up && !open_nic(nic)) {
        out("err net: no such device, or it does not start\n");
        return;
    }
    print_mac("ok mac=", nic->mac);
    out(" features=0x%x offered=0x%x\n", nic->dev.features, nic->dev.offered);
}

static void net_stat(struct nic *nic)
{
    out("ok rx=%u tx=%u rx_bytes=%u dropped=%u pings=%u arps=%u ours=%u announced=%u irqs=%u "
        "link=%u\n",
        nic->rx_frames, nic->tx_frames, nic->rx_bytes, nic->tx_dropped, nic->nr_pings, nic->nr_arps,
        nic->nr_ours, nic->nr_announced, (uint64_t)nr_interrupts[nic->dev.vector],
        (uint64_t)(nic_status(nic) & STATUS_LINK_UP));
}

static bool tx_room(void *arg)
{
    struct nic *nic = arg;

    take_sent(nic);
    return nic->tx_busy != UINT32_MAX;
}

static void net_send(struct nic *nic, unsigned argc, char **argv)
{
    uint64_t count, len, sent = 0;

    if (!arg_u64(argc, argv, 3, "frames", &count) || !arg_u64(argc, argv, 4, "bytes", &len))
        return;
    if (len < 60 || len > 1514) {
        out("err net: send: from 60 to 1514 bytes\n");
        return;
    }
    for (; sent < count && wait_for(tx_room, nic, 1000000); sent++) {
        unsigned index;
        uint8_t *f = new_frame(nic, &index);

        if (!f)
            break;
        memset(f + ETH_DST, 0xff, 6);
        memcpy(f + ETH_SRC, nic->mac, 6);
        set_be16(f + ETH_TYPE, ETH_TYPE_OURS);
        memset(f + 14, (int)(sent & 0xff), len - 14);
        set_be16(f + 14, (unsigned)sent & 0xffff);
        send_frame(nic, index, (unsigned)len);
    }
    out("%s sent=%u\n", sent == count ? "ok" : "err net:", sent);
}

static bool arp_answered(void *arg)
{
    struct nic *nic = arg;

    nic_poll(nic);
    return nic->arp_answered;
}

static void net_arp(struct nic *nic, unsigned argc, char **argv)
{
    if (argc < 4 || !parse_ip(argv[3], nic->arp_wanted)) {
        out("err net: arp: an address is wanted\n");
        return;
    }
    nic->arp_answered = false;
    for (unsigned i = 0; i < 3 && !nic->arp_answered; i++) {
        send_arp(nic, 1, NULL, nic->arp_wanted);
        wait_for(arp_answered, nic, 1000000);
    }
    if (!nic->arp_answered) {
        out("err net: arp: no answer\n");
        return;
    }
    print_mac("ok mac=", nic->peer_mac);
    out("\n");
}

static void cmd_net(unsigned argc, char **argv)
{
    const char *what = argc > 2 ? argv[2] : "";
    struct nic *nic;
    uint64_t number;

    if (!arg_u64(argc, argv, 1, "device", &number))
        return;
    if (number >= MAX_NICS) {
        out("err net: no device %u\n", number);
        return;
    }
    nic = &nics[number];
    if (same_text(what, "up")) {
        net_up(nic, argc, argv);
    } else if (!nic->dev.up) {
        out("err net: not up\n");
    } else if (same_text(what, "stat")) {
        net_stat(nic);
    } else if (same_text(what, "send")) {
        net_send(nic, argc, argv);
    } else if (same_text(what, "arp")) {
        net_arp(nic, argc, argv);
    } else if (same_text(what, "announce")) {
        announce(nic);
        out("ok\n");
    } else if (same_text(what, "down")) {
        virtio_reset(&nic->dev);
        out("ok\n");
    } else {
        out("err net: no command %s\n", what);
    }
}

const struct command net_commands[] = {
    {"net", "device up address | stat | send frames bytes | arp address | announce | down",
     cmd_net                                                                                    },
    {NULL,  NULL,                                                                           NULL},
};
