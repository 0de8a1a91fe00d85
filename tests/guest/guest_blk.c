/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk: commands that wait, and a background job that keeps several requests in flight.
 *
 * A sector that was written holds 64 times one word, sector_word(seed, sector): cheap to write and
 * to check here, and easy to compute on the host.
 */
#include "guest_virtio.h"

enum {
    MAX_DISKS = 4,
    REQ_IN = 0,
    REQ_OUT = 1,
    REQ_FLUSH = 4,
    REQ_GET_ID = 8,
    REQ_DISCARD = 11,
    REQ_WRITE_ZEROES = 13,
    SECTOR = 512,
    SECTOR_WORDS = SECTOR / 8,
    MAX_SECTORS = 128, /* of one request */
    NR_SLOTS = 8,      /* slot 0: commands; the others: the background job */
    JOB_SECTORS = 8,
    TIMEOUT_US = 20000000,
};

#define F_RO           (1ull << 5)
#define F_BLK_SIZE     (1ull << 6)
#define F_FLUSH        (1ull << 9)
#define F_DISCARD      (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

struct blk_header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct blk_range {
    uint64_t sector;
    uint32_t nr_sectors, flags;
};

struct slot {
    struct vdesc indirect[3];
    struct blk_header header;
    volatile uint8_t status;
    bool busy;
    uint64_t block; /* background job only */
    uint8_t *data;
};

struct disk {
    struct vdev dev;
    struct vqueue queue;
    struct slot slots[NR_SLOTS];
    unsigned number;
    uint64_t nr_done;
    /* Background job: block i of nr_blocks, each of JOB_SECTORS, in order, again and again. */
    bool running;
    uint64_t sector, nr_blocks, index, sweep, nr_failed;
};

static struct vring rings[MAX_DISKS] BULK __attribute__((aligned(4096)));
static uint8_t slot_data[MAX_DISKS][NR_SLOTS - 1][PAGE_SIZE] BULK __attribute__((aligned(4096)));
static uint8_t command_data[MAX_SECTORS * SECTOR] BULK __attribute__((aligned(4096)));
static struct disk disks[MAX_DISKS];

static uint64_t sector_word(uint64_t seed, uint64_t sector)
{
    return seed * 0x9e3779b97f4a7c15ull ^ sector * 0xff51afd7ed558ccdull;
}

static struct disk *open_disk(unsigned number)
{
    struct disk *d = &disks[number];

    if (d->dev.up)
        return d;
    if (!virtio_find(VIRTIO_BLK, number, &d->dev))
        return NULL;
    d->number = number;
    d->queue.ring = &rings[number];
    for (unsigned i = 0; i < NR_SLOTS; i++) {
        d->slots[i].data = i == 0 ? command_data : slot_data[number][i - 1];
        d->slots[i].busy = false;
    }
    if (!virtio_start(&d->dev,
                      F_RO | F_BLK_SIZE | F_FLUSH | F_DISCARD | F_WRITE_ZEROES | F_INDIRECT |
                          F_EVENT_IDX,
                      &d->queue, 1) ||
        !virtio_ready(&d->dev))
        return NULL;
    return d;
}

/* Slot n owns descriptors 3n to 3n + 2, or with indirect descriptors number n. */
static void submit(struct disk *d, unsigned n, uint32_t type, uint64_t sector, uint32_t len)
{
    struct slot *s = &d->slots[n];
    bool indirect = d->dev.features & F_INDIRECT;
    struct vdesc *desc = indirect ? s->indirect : &d->queue.ring->desc[3 * n];
    uint16_t base = indirect ? 0 : (uint16_t)(3 * n), nr = 0;
    bool to_guest = type == REQ_IN || type == REQ_GET_ID;

    s->header = (struct blk_header){type, 0, sector};
    s->status = 0xff;
    s->busy = true;
    desc[nr] =
        (struct vdesc){gpa_of(&s->header), sizeof(s->header), DESC_NEXT, (uint16_t)(base + nr + 1)};
    nr++;
    if (len > 0) {
        desc[nr] = (struct vdesc){gpa_of(s->data), len, DESC_NEXT | (to_guest ? DESC_WRITE : 0),
                                  (uint16_t)(base + nr + 1)};
        nr++;
    }
    desc[nr] = (struct vdesc){gpa_of(&s->status), 1, DESC_WRITE, 0};
    nr++;
    if (indirect)
        d->queue.ring->desc[n] =
            (struct vdesc){gpa_of(desc), (uint32_t)(nr * sizeof(*desc)), DESC_INDIRECT, 0};
    vqueue_offer(&d->queue, indirect ? (uint16_t)n : base);
}

static void complete(struct disk *d)
{
    struct vused_elem elem;

    while (vqueue_take(&d->queue, &elem)) {
        unsigned n = d->dev.features & F_INDIRECT ? elem.id : elem.id / 3;

        if (n >= NR_SLOTS)
            continue;
        d->slots[n].busy = false;
        d->nr_done++;
        if (n > 0)
            d->nr_failed += d->slots[n].status != 0;
    }
}

static bool command_done(void *arg)
{
    struct disk *d = arg;

    complete(d);
    return !d->slots[0].busy;
}

static bool job_drained(void *arg)
{
    struct disk *d = arg;

    complete(d);
    for (unsigned i = 1; i < NR_SLOTS; i++) {
        if (d->slots[i].busy)
            return false;
    }
    return true;
}

/* Return: the status byte of the device; 0xff for none in time. */
static unsigned request(struct disk *d, uint32_t type, uint64_t sector, uint32_t len)
{
    submit(d, 0, type, sector, len);
    vqueue_kick(&d->queue);
    if (!wait_for(command_done, d, TIMEOUT_US))
        return 0xff;
    return d->slots[0].status;
}

static bool command_failed(const char *what, unsigned status)
{
    if (status == 0)
        return false;
    out("err blk: %s: status %u%s\n", what, (uint64_t)status,
        status == 0xff ? " (no answer in time)" : "");
    return true;
}

/* ---- Commands ---- */

static void blk_info(struct disk *d)
{
    const volatile uint32_t *config =
        (const volatile uint32_t *)(const volatile void *)d->dev.device;

    out("ok sectors=%u features=0x%x offered=0x%x queue=%u queues=%u vector=0x%x irqs=%u done=%u "
        "notified=%u\n",
        config[0] | (uint64_t)config[1] << 32, d->dev.features, d->dev.offered,
        (uint64_t)d->queue.size, (uint64_t)d->dev.nr_queues, (uint64_t)d->dev.vector,
        (uint64_t)nr_interrupts[d->dev.vector], d->nr_done, d->queue.nr_notified);
}

static void blk_id(struct disk *d)
{
    char *id = (char *)d->slots[0].data;

    memset(id, 0, 21);
    if (command_failed("id", request(d, REQ_GET_ID, 0, 20)))
        return;
    out("ok id=%s\n", id);
}

static void blk_transfer(struct disk *d, unsigned argc, char **argv, bool write)
{
    uint64_t sector, nr, seed = 0, digest = 0;

    if (!arg_u64(argc, argv, 3, "sector", &sector) || !arg_u64(argc, argv, 4, "sectors", &nr) ||
        (write && !arg_u64(argc, argv, 5, "seed", &seed)))
        return;
    while (nr > 0) {
        uint32_t part = nr < MAX_SECTORS ? (uint32_t)nr : MAX_SECTORS;

        for (uint32_t i = 0; write && i < part; i++)
            set_words(command_data + i * SECTOR, sector_word(seed, sector + i), SECTOR_WORDS);
        if (!write)
            set_words(command_data, ~0ull, part * SECTOR_WORDS);
        if (command_failed(argv[2], request(d, write ? REQ_OUT : REQ_IN, sector, part * SECTOR)))
            return;
        if (!write)
            digest = digest * 31 + digest_words(command_data, part * SECTOR);
        sector += part;
        nr -= part;
    }
    if (write)
        out("ok\n");
    else
        out("ok digest=%0\n", digest);
}

static void blk_verify(struct disk *d, unsigned argc, char **argv)
{
    uint64_t sector, nr, seed = 0, wrong = 0;
    bool zero;

    if (!arg_u64(argc, argv, 3, "sector", &sector) || !arg_u64(argc, argv, 4, "sectors", &nr))
        return;
    zero = argc > 5 && same_text(argv[5], "zero");
    if (!zero && !arg_u64(argc, argv, 5, "seed or zero", &seed))
        return;
    while (nr > 0) {
        uint32_t part = nr < MAX_SECTORS ? (uint32_t)nr : MAX_SECTORS;

        set_words(command_data, ~0ull, part * SECTOR_WORDS);
        if (command_failed("verify", request(d, REQ_IN, sector, part * SECTOR)))
            return;
        for (uint32_t i = 0; i < part; i++)
            wrong += !all_words(command_data + i * SECTOR, zero ? 0 : sector_word(seed, sector + i),
                                SECTOR_WORDS);
        sector += part;
        nr -= part;
    }
    out("%s wrong=%u\n", wrong ? "err blk:" : "ok", wrong);
}

static void blk_range(struct disk *d, unsigned argc, char **argv, uint32_t type)
{
    uint64_t sector, nr;

    if (!arg_u64(argc, argv, 3, "sector", &sector) || !arg_u64(argc, argv, 4, "sectors", &nr))
        return;
    *(struct blk_range *)(void *)command_data = (struct blk_range){sector, (uint32_t)nr, 0};
    if (!command_failed(argv[2], request(d, type, 0, sizeof(struct blk_range))))
        out("ok\n");
}

/*
 * Disk to memory and back, in large requests: known contents for any amount of memory, and a way to
 * give all of it to the host, at the speed of the device rather than of this processor.
 */
static void blk_memory(struct disk *d, unsigned argc, char **argv, bool store)
{
    uint64_t sector, gpa, len;

    if (!arg_u64(argc, argv, 3, "sector", &sector) || !arg_u64(argc, argv, 4, "address", &gpa) ||
        !arg_u64(argc, argv, 5, "bytes", &len))
        return;
    if (len % SECTOR || !mem_map(gpa, len) || (!store && !mem_is_free_ram(gpa, len))) {
        out("err blk: %s: not RAM to use, or not whole sectors\n", argv[2]);
        return;
    }
    if (!store)
        mem_forget(gpa, len);
    while (len > 0) {
        uint32_t part = len < MIB ? (uint32_t)len : (uint32_t)MIB;
        unsigned status;

        d->slots[0].data = at(gpa);
        status = request(d, store ? REQ_OUT : REQ_IN, sector, part);
        d->slots[0].data = command_data;
        if (command_failed(argv[2], status))
            return;
        sector += part / SECTOR;
        gpa += part;
        len -= part;
    }
    out("ok\n");
}

/* ---- The background job ---- */

/* Two writes to one block must never be in flight together. */
static bool block_busy(const struct disk *d, uint64_t block)
{
    for (unsigned n = 1; n < NR_SLOTS; n++) {
        if (d->slots[n].busy && d->slots[n].block == block)
            return true;
    }
    return false;
}

static void job_submit(struct disk *d)
{
    bool any = false;

    for (unsigned n = 1; n < NR_SLOTS; n++) {
        uint64_t sector = d->sector + d->index * JOB_SECTORS;

        if (d->slots[n].busy)
            continue;
        if (block_busy(d, d->index))
            break;
        d->slots[n].block = d->index;
        for (unsigned i = 0; i < JOB_SECTORS; i++)
            set_words(d->slots[n].data + i * SECTOR, sector_word(d->sweep + 1, sector + i),
                      SECTOR_WORDS);
        submit(d, n, REQ_OUT, sector, JOB_SECTORS * SECTOR);
        any = true;
        if (++d->index == d->nr_blocks) {
            d->index = 0;
            d->sweep++;
        }
    }
    if (any)
        vqueue_kick(&d->queue);
}

static void job_start(struct disk *d, unsigned argc, char **argv)
{
    uint64_t sector, nr;

    if (!arg_u64(argc, argv, 3, "sector", &sector) || !arg_u64(argc, argv, 4, "sectors", &nr))
        return;
    if (nr < JOB_SECTORS) {
        out("err blk: run: at least %u sectors\n", (uint64_t)JOB_SECTORS);
        return;
    }
    d->sector = sector;
    d->nr_blocks = nr / JOB_SECTORS;
    d->index = 0;
    d->sweep = 0;
    d->nr_failed = 0;
    d->running = true;
    out("ok blocks=%u\n", d->nr_blocks);
}

static void job_stop(struct disk *d)
{
    d->running = false;
    if (!wait_for(job_drained, d, TIMEOUT_US)) {
        out("err blk: stop: requests do not come back\n");
        return;
    }
    out("%s index=%u sweeps=%u failed=%u\n", d->nr_failed ? "err blk:" : "ok", d->index, d->sweep,
        d->nr_failed);
}

static void job_check(struct disk *d)
{
    uint64_t wrong = 0;

    for (uint64_t block = 0; block < d->nr_blocks; block++) {
        uint64_t sweep = d->sweep + (block < d->index);
        uint64_t sector = d->sector + block * JOB_SECTORS;

        if (sweep == 0)
            continue;
        set_words(command_data, ~0ull, JOB_SECTORS * SECTOR_WORDS);
        if (command_failed("check", request(d, REQ_IN, sector, JOB_SECTORS * SECTOR)))
            return;
        for (unsigned i = 0; i < JOB_SECTORS; i++)
            wrong +=
                !all_words(command_data + i * SECTOR, sector_word(sweep, sector + i), SECTOR_WORDS);
    }
    out("%s blocks=%u wrong=%u\n", wrong ? "err blk:" : "ok", d->nr_blocks, wrong);
}

bool blk_pending(void)
{
    for (unsigned i = 0; i < MAX_DISKS; i++) {
        if (disks[i].dev.up && vqueue_has_used(&disks[i].queue))
            return true;
    }
    return false;
}

bool blk_step(void)
{
    for (unsigned i = 0; i < MAX_DISKS; i++) {
        struct disk *d = &disks[i];

        if (!d->dev.up)
            continue;
        complete(d);
        if (d->running)
            job_submit(d);
    }
    return false;
}

static void blk_reset(struct disk *d)
{
    d->running = false;
    virtio_reset(&d->dev);
    out("ok\n");
}

static void blk_flush(struct disk *d)
{
    if (!command_failed("flush", request(d, REQ_FLUSH, 0, 0)))
        out("ok\n");
}

static void blk_do(struct disk *d, unsigned argc, char **argv)
{
    const char *what = argc > 2 ? argv[2] : "";

    if (same_text(what, "info"))
        blk_info(d);
    else if (same_text(what, "id"))
        blk_id(d);
    else if (same_text(what, "write") || same_text(what, "read"))
        blk_transfer(d, argc, argv, same_text(what, "write"));
    else if (same_text(what, "load") || same_text(what, "store"))
        blk_memory(d, argc, argv, same_text(what, "store"));
    else if (same_text(what, "verify"))
        blk_verify(d, argc, argv);
    else if (same_text(what, "flush"))
        blk_flush(d);
    else if (same_text(what, "discard"))
        blk_range(d, argc, argv, REQ_DISCARD);
    else if (same_text(what, "zero"))
        blk_range(d, argc, argv, REQ_WRITE_ZEROES);
    else if (same_text(what, "run"))
        job_start(d, argc, argv);
    else if (same_text(what, "stop"))
        job_stop(d);
    else if (same_text(what, "check"))
        job_check(d);
    else if (same_text(what, "reset"))
        blk_reset(d);
    else
        out("err blk: no command %s\n", what);
}

static void cmd_blk(unsigned argc, char **argv)
{
    struct disk *d;
    uint64_t number;

    if (!arg_u64(argc, argv, 1, "disk", &number))
        return;
    d = number < MAX_DISKS ? open_disk((unsigned)number) : NULL;
    if (!d) {
        out("err blk: no disk %u, or it does not start\n", number);
        return;
    }
    blk_do(d, argc, argv);
}

const struct command blk_commands[] = {
    {"blk",
     "disk info | id | read sector n | write sector n seed | verify sector n seed|zero | flush | "
     "discard sector n | zero sector n | load sector address bytes | store sector address bytes | "
     "run sector n | stop | check | reset", cmd_blk},
    {NULL,  NULL,                           NULL   },
};
