/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng and virtio-console.
 */
#include "guest_virtio.h"

enum {
    CON_RX = 0,
    CON_TX = 1,
    CON_BUFFERS = 8,
    CON_LEN = 256,
    RNG_LEN = 256,
};

struct console {
    struct vdev dev;
    struct vqueue queues[2];
    bool echo;
    uint64_t rx_bytes, tx_bytes;
};

struct rng {
    struct vdev dev;
    struct vqueue queue;
    uint32_t len;
};

static struct vring rng_ring BULK __attribute__((aligned(4096)));
static struct vring console_rings[2] BULK __attribute__((aligned(4096)));
static uint8_t rng_data[RNG_LEN] BULK;
static char console_in[CON_BUFFERS][CON_LEN] BULK;
static char console_out[CON_LEN] BULK;
static struct rng rng;
static struct console console;

/* ---- rng ---- */

static bool rng_done(void *arg)
{
    struct vused_elem elem;
    struct rng *r = arg;

    if (!vqueue_take(&r->queue, &elem))
        return false;
    r->len = elem.len;
    return true;
}

static bool rng_open(void)
{
    if (rng.dev.up)
        return true;
    rng.queue.ring = &rng_ring;
    return virtio_find(VIRTIO_RNG, 0, &rng.dev) &&
           virtio_start(&rng.dev, F_EVENT_IDX, &rng.queue, 1) && virtio_ready(&rng.dev);
}

static void cmd_rng(unsigned argc, char **argv)
{
    uint64_t len;

    if (!arg_u64(argc, argv, 1, "bytes", &len))
        return;
    if (len == 0 || len > RNG_LEN || !rng_open()) {
        out("err rng: %s\n", rng.dev.up ? "from 1 to 256 bytes" : "no device");
        return;
    }
    memset(rng_data, 0, RNG_LEN);
    rng_ring.desc[0] = (struct vdesc){gpa_of(rng_data), (uint32_t)len, DESC_WRITE, 0};
    vqueue_offer(&rng.queue, 0);
    vqueue_kick(&rng.queue);
    if (!wait_for(rng_done, &rng, 5000000)) {
        out("err rng: no answer in time\n");
        return;
    }
    out("ok len=%u irqs=%u bytes=", (uint64_t)rng.len, (uint64_t)nr_interrupts[rng.dev.vector]);
    for (uint32_t i = 0; i < rng.len && i < RNG_LEN; i++)
        out("%b", (uint64_t)rng_data[i]);
    out("\n");
}

/* ---- console ---- */

static void console_offer(unsigned index)
{
    struct vqueue *q = &console.queues[CON_RX];

    q->ring->desc[index] = (struct vdesc){gpa_of(console_in[index]), CON_LEN, DESC_WRITE, 0};
    vqueue_offer(q, (uint16_t)index);
}

static bool console_open(void)
{
    if (console.dev.up)
        return true;
    for (unsigned i = 0; i < 2; i++)
        console.queues[i].ring = &console_rings[i];
    if (!virtio_find(VIRTIO_CONSOLE, 0, &console.dev) ||
        !virtio_start(&console.dev, F_EVENT_IDX, console.queues, 2))
        return false;
    for (unsigned i = 0; i < CON_BUFFERS && i < console.queues[CON_RX].size; i++)
        console_offer(i);
    if (!virtio_ready(&console.dev))
        return false;
    vqueue_kick(&console.queues[CON_RX]);
    return true;
}

static bool console_sent(void *arg)
{
    struct vused_elem elem;

    return vqueue_take(arg, &elem);
}

static bool console_write(const char *text, uint64_t len)
{
    struct vqueue *q = &console.queues[CON_TX];

    memcpy(console_out, text, len);
    q->ring->desc[0] = (struct vdesc){gpa_of(console_out), (uint32_t)len, 0, 0};
    vqueue_offer(q, 0);
    vqueue_kick(q);
    console.tx_bytes += len;
    return wait_for(console_sent, q, 2000000);
}

bool misc_pending(void)
{
    return console.dev.up && vqueue_has_used(&console.queues[CON_RX]);
}

bool misc_step(void)
{
    struct vused_elem elem;

    if (!console.dev.up || !vqueue_take(&console.queues[CON_RX], &elem))
        return false;
    if (elem.id < CON_BUFFERS && elem.len <= CON_LEN) {
        console.rx_bytes += elem.len;
        if (console.echo)
            console_write(console_in[elem.id], elem.len);
        console_offer(elem.id);
        vqueue_kick(&console.queues[CON_RX]);
    }
    return true;
}

static void cmd_console(unsigned argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (!console_open()) {
        out("err console: no device, or it does not start\n");
        return;
    }
    if (same_text(what, "echo")) {
        console.echo = !(argc > 2 && same_text(argv[2], "off"));
        out("ok\n");
    } else if (same_text(what, "stat")) {
        out("ok rx_bytes=%u tx_bytes=%u irqs=%u\n", console.rx_bytes, console.tx_bytes,
            (uint64_t)nr_interrupts[console.dev.vector]);
    } else if (same_text(what, "write") && argc > 2) {
        char line[CON_LEN];
        size_t len = strlen(argv[2]);

        if (len > CON_LEN - 1)
            len = CON_LEN - 1;
        memcpy(line, argv[2], len);
        line[len] = '\n';
        out(console_write(line, len + 1) ? "ok\n" : "err console: not taken in time\n");
    } else {
        out("err console: echo, write or stat\n");
    }
}

const struct command misc_commands[] = {
    {"rng",     "bytes",                          cmd_rng    },
    {"console", "echo [off] | write word | stat", cmd_console},
    {NULL,      NULL,                             NULL       },
};
