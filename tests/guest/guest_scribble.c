/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest: any value at any port, register, configuration space and ring.
 *
 * Afterwards nothing of this guest need work any more; the host's side has to.
 */
#include "guest_virtio.h"

enum {
    KIND_PIO = 1 << 0,
    KIND_MMIO = 1 << 1,
    KIND_PCI = 1 << 2,
    KIND_RINGS = 1 << 3,
    KIND_ALL = KIND_PIO | KIND_MMIO | KIND_PCI | KIND_RINGS,
    NR_AREAS = 40,
    ECAM_LEN = 1 << 20,
    BATCH = 32, /* accesses between two looks at the clock */
    SCRATCH_GPA = 24 << 20,
    SCRATCH_LEN = 8 << 20,
};

struct area {
    uint64_t gpa, len;
};

static struct area areas[NR_AREAS];
static unsigned nr_areas;
static uint64_t random_state;
static uint64_t nr_done;
static struct vring bad_rings[2] BULK __attribute__((aligned(4096)));
static struct vqueue bad_queues[2];
static struct vdev bad_dev;

/* ---- Chance ---- */

static uint64_t chance(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull >> 16;
}

/* What is likely to be taken for something: commands, small, all ones, one bit, anything. */
static uint64_t value(void)
{
    uint64_t v = chance() ^ chance() << 32;

    /* Reset, power off, DRIVER_OK, bits of a line's and a modem's control. */
    static const uint8_t commands[] = {0x01, 0x34, 0xfe, 0x06, 0x0e, 0x0f, 0x83, 0x10, 0x8f};

    switch (chance() % 6) {
    case 0:
        return v & 0xff;
    case 4:
        return commands[v % ARRAY_LEN(commands)];
    case 1:
        return ~0ull;
    case 2:
        return 1ull << (v & 63);
    case 3:
        return 0;
    default:
        return v;
    }
}

/* ---- Ports ---- */

static const uint16_t ports[] = {
    0x20,  0x21,  0x40,  0x43,  0x60,  0x61,  0x64,  0x70,  0x71,  0x80,  0x8f,  0xa0,
    0xe9,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x402, 0x510, 0x511,
    0x600, 0x604, 0x608, 0x60c, 0xcf8, 0xcf9, 0xcfa, 0xcfc, 0xcfd, 0xcfe, 0xcff, 0xffff,
};

static void scribble_pio(void)
{
    uint16_t port = (uint16_t)(chance() % 4 ? ports[chance() % ARRAY_LEN(ports)] : chance());
    uint32_t v = (uint32_t)value();

    switch (chance() % 6) {
    case 0:
        outb(port, (uint8_t)v);
        break;
    case 1:
        outw(port, (uint16_t)v);
        break;
    case 2:
        outl(port, v);
        break;
    case 3:
        inb(port);
        break;
    case 4:
        inw(port);
        break;
    default:
        inl(port);
    }
}

/* ---- Memory-mapped registers ---- */

static void add_area(uint64_t gpa, uint64_t len)
{
    if (gpa && nr_areas < NR_AREAS && mem_map(gpa, len))
        areas[nr_areas++] = (struct area){gpa, len};
}

/* Where registers are before anything is scribbled over. */
static void find_areas(void)
{
    nr_areas = 0;
    for (unsigned slot = 0; slot < 32; slot++) {
        if ((pci_read(slot, 0) & 0xffff) == 0xffff)
            continue;
        pci_write(slot, 4, 6);
        add_area(pci_bar(slot, 0), 0x80000);
    }
    add_area(acpi_ioapic(), 0x1000);
    add_area(acpi_ecam(), ECAM_LEN);
    add_area(0xfed40000, 0x1000); /* nothing is there */
    add_area(0xc0000000, 0x1000);
    add_area(ged_address(), 0x10);
}

/* Half of the accesses go to the first registers: those have a meaning. */
static uint64_t offset(uint64_t len)
{
    static const uint32_t regions[] = {0, 0, 0x2000, 0x4000, 0x6000, 0x8000, 0x48000};
    uint64_t off = chance() % 2 ? chance() % len : chance() % 0x40;

    if (len > 0x48000 && chance() % 2)
        off = regions[chance() % ARRAY_LEN(regions)] + chance() % 0x40;
    return chance() % 8 ? off & ~3ull : off;
}

static void scribble_mmio(void)
{
    const struct area *a = &areas[chance() % nr_areas];
    uint64_t off = offset(a->len), v = value();
    volatile void *at_off;

    if (off + 8 > a->len)
        return;
    at_off = at(a->gpa + off);
    switch (chance() % 8) {
    case 0:
        *(volatile uint8_t *)at_off = (uint8_t)v;
        break;
    case 1:
        *(volatile uint16_t *)at_off = (uint16_t)v;
        break;
    case 2:
    case 3:
        *(volatile uint32_t *)at_off = (uint32_t)v;
        break;
    case 4:
        *(volatile uint64_t *)at_off = v;
        break;
    case 5:
        (void)*(volatile uint8_t *)at_off;
        break;
    case 6:
        (void)*(volatile uint32_t *)at_off;
        break;
    default:
        (void)*(volatile uint64_t *)at_off;
    }
}

/* ---- Configuration space ---- */

static void scribble_pci(void)
{
    unsigned slot = (unsigned)(chance() % 10), reg = (unsigned)chance() & 0xfc;
    uint64_t ecam = acpi_ecam();

    if (chance() % 2)
        reg &= 0x7c;
    if (chance() % 3 == 0)
        pci_read(slot, reg);
    else if (ecam && chance() % 2)
        *(volatile uint32_t *)at(ecam + ((uint64_t)slot << 15) + reg) = (uint32_t)value();
    else
        pci_write(slot, reg, (uint32_t)value());
}

/* ---- Rings ---- */

static uint64_t buffer(void)
{
    switch (chance() % 8) {
    case 0:
        return value();
    case 1:
        return boot.ram_bytes - chance() % 64; /* across the end, if there is no hole */
    case 2:
        return 0xfee00000;
    case 3:
        return areas[chance() % nr_areas].gpa;
    default:
        return SCRATCH_GPA + chance() % SCRATCH_LEN;
    }
}

static uint32_t length(void)
{
    static const uint32_t lengths[] = {0, 1, 7, 16, 17, 511, 512, 4096, 65536, 1u << 31, ~0u};

    return lengths[chance() % ARRAY_LEN(lengths)];
}

/* A device that is set up by the book, so that what is in its rings is looked at. */
static bool start_some_device(void)
{
    static const uint16_t types[] = {VIRTIO_BLK, VIRTIO_NET, VIRTIO_RNG, VIRTIO_CONSOLE};
    uint16_t type = types[chance() % ARRAY_LEN(types)];

    if (!virtio_find(type, 0, &bad_dev))
        return false;
    for (unsigned i = 0; i < 2; i++)
        bad_queues[i] = (struct vqueue){.ring = &bad_rings[i]};
    return virtio_start(&bad_dev, ~0ull, bad_queues,
                        type == VIRTIO_BLK || type == VIRTIO_RNG ? 1 : 2) &&
           virtio_ready(&bad_dev);
}

static void scribble_rings(void)
{
    unsigned i = (unsigned)chance() % 2;
    struct vqueue *q = &bad_queues[i];
    struct vring *ring = q->ring;

    if (!bad_dev.up || chance() % 64 == 0) {
        if (!start_some_device())
            bad_dev.up = false;
        return;
    }
    if (!ring || !q->size || !q->notify)
        return;
    for (unsigned k = 0; k < 8; k++)
        ring->desc[chance() % q->size] =
            (struct vdesc){buffer(), length(), (uint16_t)(chance() % 8 ? chance() % 8 : chance()),
                           (uint16_t)(chance() % 8 ? chance() % q->size : chance())};
    /* Headers of requests and tables of indirect descriptors are found there. */
    for (unsigned k = 0; k < 16; k++)
        *(volatile uint64_t *)at(SCRATCH_GPA + (chance() % SCRATCH_LEN & ~15ull)) =
            chance() % 2 ? chance() % 16ull : buffer();
    for (unsigned k = 0; k < 4; k++)
        ring->avail_ring[chance() % q->size] =
            (uint16_t)(chance() % 16 ? chance() % q->size : chance());
    ring->avail_flags = (uint16_t)(chance() & 1);
    ring->avail_idx = (uint16_t)(chance() % 16 ? ring->avail_idx + 1u : chance());
    *q->notify = (uint16_t)(chance() % 8 ? i : chance());
}

/* ---- The command ---- */

static void scribble_once(unsigned kinds)
{
    static void (*const ways[])(void) = {scribble_pio, scribble_mmio, scribble_pci, scribble_rings};
    unsigned way = (unsigned)(chance() % ARRAY_LEN(ways));

    while (!(kinds >> way & 1))
        way = (way + 1) % ARRAY_LEN(ways);
    ways[way]();
    nr_done++;
}

static void cmd_scribble(unsigned argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned kinds;
    } names[] = {
        {"pio",   KIND_PIO  },
        {"mmio",  KIND_MMIO },
        {"pci",   KIND_PCI  },
        {"rings", KIND_RINGS},
        {"all",   KIND_ALL  }
    };
    uint64_t seed, ms, end;
    unsigned kinds = 0;

    for (unsigned i = 0; argc > 1 && i < ARRAY_LEN(names); i++)
        if (same_text(names[i].name, argv[1]))
            kinds = names[i].kinds;
    if (!kinds) {
        out("err scribble: pio, mmio, pci, rings or all\n");
        return;
    }
    if (!arg_u64(argc, argv, 2, "seed", &seed) || !arg_u64(argc, argv, 3, "ms", &ms))
        return;
    find_areas();
    random_state = seed * 0x9e3779b97f4a7c15ull | 1;
    bad_dev.up = false;
    nr_done = 0;
    irq_off();
    end = rdtsc() + us_to_tsc(ms * 1000);
    while (rdtsc() < end)
        for (unsigned i = 0; i < BATCH; i++)
            scribble_once(kinds);
    serial_restart();
    irq_on();
    out("ok scribbled=%u\n", nr_done);
}

const struct command scribble_commands[] = {
    {"scribble", "pio|mmio|pci|rings|all seed ms", cmd_scribble},
    {NULL,       NULL,                             NULL        },
};
