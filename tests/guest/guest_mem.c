/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory: page tables beyond 4 GiB, known contents, dirtying at a rate, digests.
 *
 * An emulating KVM runs half a million to a million instructions a second, and a string instruction
 * as many words: every loop here is about instructions a page.
 */
#include "guest.h"

enum {
    PTE_PRESENT_RW = 3,
    PTE_LARGE = 0x83,
    NR_TABLES = 64,
    PAGE_WORDS = PAGE_SIZE / 8,
    POOL_WORDS = 1 << 17, /* 1 MiB */
    TEXT_WORDS = 1 << 13, /* 64 KiB */
    GROUP_PAGES = 16,     /* pages of one kind lie together in runs of at least this many */
    MAX_FILLS = 16,
    MAX_BURST = 512, /* pages dirtied between two looks at the serial line */
};

#define GIB        (1ull << 30)
#define DIGEST_MUL 0x100000001b3ull
#define MIX_MUL    0x9e3779b97f4a7c15ull

enum fill_kind {
    FILL_ZERO,
    FILL_RANDOM,
    FILL_TEXT,
    FILL_SPARSE, /* four unequal words a page: unlike any real memory, but quick */
    FILL_MIX,    /* 42 % zero, 48 % text, 10 % random: what a Linux guest's memory is like */
};

static const char *const fill_names[] = {"zero", "random", "text", "sparse", "mix"};

struct fill {
    uint64_t start, nr_pages, seed;
    enum fill_kind kind;
};

enum dirty_pattern {
    DIRTY_SEQ,  /* the number of the sweep into the first word of every page, page after page */
    DIRTY_RAND, /* adds 1 to the first word of pages in a random order, with repetitions */
    DIRTY_FULL, /* sets all words of a page, page after page */
};

static const char *const dirty_names[] = {"seq", "rand", "full"};

struct dirty_job {
    bool running, used;
    enum dirty_pattern pattern;
    uint64_t start, nr_pages;
    uint64_t step, next;   /* TSC ticks; step 0: as fast as it goes */
    uint64_t index, sweep; /* the next page, and full sweeps so far */
    uint64_t count;        /* pages dirtied in all */
    uint64_t random;
};

extern uint64_t pml4[512], pdpt_low[512];

static uint64_t table_pool[NR_TABLES][512] BULK __attribute__((aligned(4096)));
static uint64_t pool[POOL_WORDS + PAGE_WORDS] BULK; /* incompressible */
static uint64_t text_pool[TEXT_WORDS + PAGE_WORDS] BULK;
static unsigned nr_tables;
static bool has_gib_pages, has_pools;
static struct fill fills[MAX_FILLS];
static unsigned nr_fills;
static struct dirty_job dirty;

/* ---- Page tables ---- */

static uint64_t *new_table(void)
{
    uint64_t *table;

    if (nr_tables == NR_TABLES)
        return NULL;
    table = table_pool[nr_tables++];
    set_words(table, 0, 512);
    return table;
}

static bool map_gib(uint64_t gpa)
{
    uint64_t *pdpt, *entry = &pml4[gpa >> 39 & 511];

    if (*entry == 0) {
        pdpt = new_table();
        if (!pdpt)
            return false;
        *entry = gpa_of(pdpt) | PTE_PRESENT_RW;
    }
    pdpt = at(*entry & ~(uint64_t)(PAGE_SIZE - 1));
    entry = &pdpt[gpa >> 30 & 511];
    if (*entry)
        return true;
    gpa &= ~(GIB - 1);
    if (has_gib_pages) {
        *entry = gpa | PTE_LARGE;
    } else {
        uint64_t *pd = new_table();

        if (!pd)
            return false;
        for (unsigned i = 0; i < 512; i++)
            pd[i] = (gpa + i * 2 * MIB) | PTE_LARGE;
        *entry = gpa_of(pd) | PTE_PRESENT_RW;
    }
    return true;
}

void *mem_map(uint64_t gpa, uint64_t len)
{
    uint64_t last = gpa + len - 1;

    if (len == 0 || last < gpa || last >= 1ull << 47)
        return NULL;
    for (uint64_t gib = gpa / GIB; gib <= last / GIB; gib++) {
        if (gib >= 4 && !map_gib(gib * GIB))
            return NULL;
    }
    return at(gpa);
}

void mem_init(void)
{
    has_gib_pages = cpu_has_1gib_pages();
    for (unsigned i = 0; i < boot.nr_ram; i++)
        mem_map(boot.ram[i].start, boot.ram[i].len);
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

bool mem_is_free_ram(uint64_t start, uint64_t len)
{
    if (len == 0 || start < MIB ||
        overlap(start, len, gpa_of(image_start), gpa_of(image_end) - gpa_of(image_start)) ||
        (boot.initrd.len && overlap(start, len, boot.initrd.start, boot.initrd.len)))
        return false;
    for (unsigned i = 0; i < boot.nr_ram; i++) {
        const struct range *ram = &boot.ram[i];

        if (start >= ram->start && len <= ram->len && start - ram->start <= ram->len - len)
            return true;
    }
    return false;
}

/* ---- Known contents ---- */

static uint64_t scramble(uint64_t value)
{
    value *= MIX_MUL;
    value ^= value >> 29;
    value *= 0xbf58476d1ce4e5b9ull;
    return value ^ value >> 32;
}

static void make_pools(void)
{
    uint64_t x = 0x2545f4914f6cdd1dull;

    if (has_pools)
        return;
    for (unsigned i = 0; i < ARRAY_LEN(pool); i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        pool[i] = x;
    }
    /* Words of 16 bytes out of a dictionary of 256. */
    for (unsigned i = 0; i < ARRAY_LEN(text_pool); i += 2) {
        uint64_t word = pool[i / 2] >> 56;

        text_pool[i] = pool[2 * word];
        text_pool[i + 1] = pool[2 * word + 1];
    }
    has_pools = true;
}

static enum fill_kind group_kind(const struct fill *fill, uint64_t group_hash)
{
    uint64_t percent;

    if (fill->kind != FILL_MIX)
        return fill->kind;
    percent = (group_hash >> 32) * 100 >> 32;
    return percent < 42 ? FILL_ZERO : percent < 90 ? FILL_TEXT : FILL_RANDOM;
}

/* The words that follow the first word of page number @page. */
static const uint64_t *page_words(enum fill_kind kind, uint64_t group_hash, uint64_t page)
{
    uint64_t off = group_hash + (page % GROUP_PAGES) * 7919;

    return kind == FILL_TEXT ? &text_pool[off % TEXT_WORDS] : &pool[off % POOL_WORDS];
}

static bool sparse_page(volatile uint64_t *page, uint64_t first, bool write)
{
    if (write) {
        page[0] = first;
        page[PAGE_WORDS / 4] = first + 1;
        page[PAGE_WORDS / 2] = first + 2;
        page[PAGE_WORDS - 1] = first + 3;
        return true;
    }
    return page[0] == first && page[PAGE_WORDS / 4] == first + 1 &&
           page[PAGE_WORDS / 2] == first + 2 && page[PAGE_WORDS - 1] == first + 3;
}

/* Writes the pages of @fill, or counts those that differ: the number of them. */
static uint64_t fill_apply(const struct fill *fill, bool write)
{
    uint64_t hash = 0, wrong = 0;
    enum fill_kind kind = FILL_ZERO;

    for (uint64_t i = 0; i < fill->nr_pages; i++) {
        uint64_t *page = at(fill->start + i * PAGE_SIZE);
        uint64_t first = (i + 1) * MIX_MUL ^ fill->seed;

        if (i % GROUP_PAGES == 0) {
            hash = scramble(fill->seed + i);
            kind = group_kind(fill, hash);
        }
        if (kind == FILL_SPARSE) {
            wrong += !sparse_page(page, first, write);
        } else if (kind == FILL_ZERO) {
            if (all_words(page, 0, PAGE_WORDS))
                continue;
            wrong++;
            if (write)
                set_words(page, 0, PAGE_WORDS);
        } else if (write) {
            page[0] = first;
            copy_words(page + 1, page_words(kind, hash, i) + 1, PAGE_WORDS - 1);
        } else {
            wrong += page[0] != first ||
                     !same_words(page + 1, page_words(kind, hash, i) + 1, PAGE_WORDS - 1);
        }
    }
    return wrong;
}

void mem_forget(uint64_t start, uint64_t len)
{
    for (unsigned i = 0; i < nr_fills;) {
        if (overlap(start, len, fills[i].start, fills[i].nr_pages * PAGE_SIZE))
            fills[i] = fills[--nr_fills];
        else
            i++;
    }
}

static bool arg_area(unsigned argc, char **argv, struct range *area)
{
    uint64_t at_mib, mib;

    if (!arg_u64(argc, argv, 1, "at_mib", &at_mib) || !arg_u64(argc, argv, 2, "mib", &mib))
        return false;
    *area = (struct range){at_mib * MIB, mib * MIB};
    if (at_mib < 1ull << 40 && mib < 1ull << 40 && mem_is_free_ram(area->start, area->len))
        return true;
    out("err %s: not free RAM\n", argv[0]);
    return false;
}

static void cmd_fill(unsigned argc, char **argv)
{
    struct range area;
    struct fill fill = {.seed = 1, .kind = FILL_MIX};
    uint64_t begin = rdtsc();

    if (!arg_area(argc, argv, &area))
        return;
    for (unsigned k = 0; argc > 3 && k < ARRAY_LEN(fill_names); k++) {
        if (same_text(argv[3], fill_names[k]))
            fill.kind = (enum fill_kind)k;
    }
    if (argc > 4 && !arg_u64(argc, argv, 4, "seed", &fill.seed))
        return;
    if (dirty.running && overlap(area.start, area.len, dirty.start, dirty.nr_pages * PAGE_SIZE)) {
        out("err fill: being dirtied\n");
        return;
    }
    mem_forget(area.start, area.len);
    if (nr_fills == MAX_FILLS) {
        out("err fill: too many areas\n");
        return;
    }
    if (fill.kind != FILL_ZERO && fill.kind != FILL_SPARSE)
        make_pools();
    fill.start = area.start;
    fill.nr_pages = area.len / PAGE_SIZE;
    fill_apply(&fill, true);
    fills[nr_fills++] = fill;
    out("ok pages=%u kind=%s us=%u\n", fill.nr_pages, fill_names[fill.kind],
        tsc_to_us(rdtsc() - begin));
}

static void cmd_verify(unsigned argc, char **argv)
{
    uint64_t wrong = 0, pages = 0, begin = rdtsc();

    (void)argc;
    (void)argv;
    for (unsigned i = 0; i < nr_fills; i++) {
        wrong += fill_apply(&fills[i], false);
        pages += fills[i].nr_pages;
    }
    out("%s areas=%u pages=%u wrong=%u us=%u\n", wrong ? "err verify:" : "ok", (uint64_t)nr_fills,
        pages, wrong, tsc_to_us(rdtsc() - begin));
}

/* ---- Dirtying ---- */

uint64_t sweep_words(volatile uint64_t *first, uint64_t nr_pages)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < nr_pages; i++) {
        sum += *first;
        *first = 0;
        first += PAGE_WORDS;
    }
    return sum;
}

/* One instruction a page: this is what makes a high rate possible in an emulator. */
static void store_to_16_pages(uint64_t *page, uint64_t value)
{
    __asm__ volatile(".set off, 0\n\t"
                     ".rept 16\n\t"
                     "movq %1, off(%0)\n\t"
                     ".set off, off + 4096\n\t"
                     ".endr"
                     :
                     : "r"(page), "r"(value)
                     : "memory");
}

static void dirty_seq(uint64_t n)
{
    while (n > 0) {
        uint64_t left = dirty.nr_pages - dirty.index;
        uint64_t *page = at(dirty.start + dirty.index * PAGE_SIZE);
        uint64_t part = 1;

        if (n >= 16 && left >= 16) {
            store_to_16_pages(page, dirty.sweep + 1);
            part = 16;
        } else {
            *page = dirty.sweep + 1;
        }
        n -= part;
        dirty.index += part;
        if (dirty.index == dirty.nr_pages) {
            dirty.index = 0;
            dirty.sweep++;
        }
    }
}

static void dirty_rand(uint64_t n)
{
    uint64_t random = dirty.random;

    for (; n > 0; n--) {
        uint64_t page;

        random = random * 6364136223846793005ull + 1442695040888963407ull;
        page = (uint64_t)((unsigned __int128)random * dirty.nr_pages >> 64);
        *(volatile uint64_t *)at(dirty.start + page * PAGE_SIZE) += 1;
    }
    dirty.random = random;
}

static uint64_t full_word(uint64_t index, uint64_t sweep)
{
    return (index + 1) * MIX_MUL ^ sweep;
}

static void dirty_full(uint64_t n)
{
    for (; n > 0; n--) {
        set_words(at(dirty.start + dirty.index * PAGE_SIZE),
                  full_word(dirty.index, dirty.sweep + 1), PAGE_WORDS);
        if (++dirty.index == dirty.nr_pages) {
            dirty.index = 0;
            dirty.sweep++;
        }
    }
}

/* How many pages are due.  After a gap of over 50 ms (a pause, a move) no attempt to catch up. */
static uint64_t pages_due(void)
{
    uint64_t now, due;

    if (dirty.step == 0)
        return MAX_BURST;
    now = rdtsc();
    if ((int64_t)(now - dirty.next) < 0)
        return 0;
    if (now - dirty.next > us_to_tsc(50000))
        dirty.next = now;
    due = (now - dirty.next) / dirty.step + 1;
    if (due > MAX_BURST)
        due = MAX_BURST;
    dirty.next += due * dirty.step;
    return due;
}

bool dirty_step(void)
{
    uint64_t due;

    if (!dirty.running)
        return false;
    due = pages_due();
    if (dirty.pattern == DIRTY_SEQ)
        dirty_seq(due);
    else if (dirty.pattern == DIRTY_RAND)
        dirty_rand(due);
    else
        dirty_full(due);
    dirty.count += due;
    return true;
}

static bool page_is_right(uint64_t i)
{
    const uint64_t *page = at(dirty.start + i * PAGE_SIZE);
    uint64_t sweep = dirty.sweep + (i < dirty.index);

    if (dirty.pattern == DIRTY_SEQ)
        return *page == sweep;
    return sweep == 0 ? *page == 0 : all_words(page, full_word(i, sweep), PAGE_WORDS);
}

static void dirty_check(void)
{
    uint64_t wrong = 0, sum = 0;

    if (!dirty.used) {
        out("err dirty: never started\n");
        return;
    }
    for (uint64_t i = 0; i < dirty.nr_pages; i++) {
        if (dirty.pattern == DIRTY_RAND)
            sum += *(volatile uint64_t *)at(dirty.start + i * PAGE_SIZE);
        else
            wrong += !page_is_right(i);
    }
    if (dirty.pattern == DIRTY_RAND)
        wrong = dirty.count - sum;
    out("%s pages=%u count=%u wrong=%u\n", wrong ? "err dirty:" : "ok", dirty.nr_pages, dirty.count,
        wrong);
}

static void dirty_start(unsigned argc, char **argv)
{
    struct range area;
    uint64_t mb_per_s;

    if (!arg_area(argc, argv, &area) || !arg_u64(argc, argv, 3, "mb_per_s", &mb_per_s))
        return;
    mem_forget(area.start, area.len);
    dirty = (struct dirty_job){.used = true, .random = 1};
    for (unsigned p = 0; argc > 4 && p < ARRAY_LEN(dirty_names); p++) {
        if (same_text(argv[4], dirty_names[p]))
            dirty.pattern = (enum dirty_pattern)p;
    }
    dirty.start = area.start;
    dirty.nr_pages = area.len / PAGE_SIZE;
    if (mb_per_s)
        dirty.step = clock_tsc_khz() * PAGE_SIZE / (mb_per_s * 1000);
    sweep_words(at(dirty.start), dirty.nr_pages);
    dirty.next = rdtsc();
    dirty.running = true;
    out("ok pages=%u pattern=%s\n", dirty.nr_pages, dirty_names[dirty.pattern]);
}

static void cmd_dirty(unsigned argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (same_text(what, "stop") || same_text(what, "stat")) {
        if (same_text(what, "stop"))
            dirty.running = false;
        out("ok running=%u count=%u sweeps=%u\n", (uint64_t)dirty.running, dirty.count,
            dirty.sweep);
    } else if (same_text(what, "check")) {
        dirty_check();
    } else {
        dirty_start(argc, argv);
    }
}

/* ---- Digests ---- */

uint64_t digest_words(const void *data, uint64_t len)
{
    const uint64_t *words = data;
    uint64_t digest = len, left = len / 8, tail = 0;

    for (; left >= 8; left -= 8, words += 8) {
        digest = (digest ^ words[0]) * DIGEST_MUL;
        digest = (digest ^ words[1]) * DIGEST_MUL;
        digest = (digest ^ words[2]) * DIGEST_MUL;
        digest = (digest ^ words[3]) * DIGEST_MUL;
        digest = (digest ^ words[4]) * DIGEST_MUL;
        digest = (digest ^ words[5]) * DIGEST_MUL;
        digest = (digest ^ words[6]) * DIGEST_MUL;
        digest = (digest ^ words[7]) * DIGEST_MUL;
    }
    for (; left > 0; left--)
        digest = (digest ^ *words++) * DIGEST_MUL;
    if (len % 8) {
        memcpy(&tail, words, len % 8);
        digest = (digest ^ tail) * DIGEST_MUL;
    }
    return digest;
}

/* One word out of each eighth of every page, at an offset that moves from page to page. */
static uint64_t sample_range(uint64_t digest, uint64_t start, uint64_t end)
{
    for (uint64_t page = start; page < end; page += PAGE_SIZE) {
        const uint64_t *words = (const uint64_t *)at(page) + (page / PAGE_SIZE & 63);

        digest = (digest ^ words[0]) * DIGEST_MUL;
        digest = (digest ^ words[64]) * DIGEST_MUL;
        digest = (digest ^ words[128]) * DIGEST_MUL;
        digest = (digest ^ words[192]) * DIGEST_MUL;
        digest = (digest ^ words[256]) * DIGEST_MUL;
        digest = (digest ^ words[320]) * DIGEST_MUL;
        digest = (digest ^ words[384]) * DIGEST_MUL;
        digest = (digest ^ words[448]) * DIGEST_MUL;
    }
    return digest;
}

/* All RAM but the guest's own image, which changes by the act of looking. */
static uint64_t sample_ram(uint64_t *ret_pages)
{
    uint64_t digest = 0, pages = 0, own = gpa_of(image_start), own_end = gpa_of(image_end);

    for (unsigned i = 0; i < boot.nr_ram; i++) {
        uint64_t start = (boot.ram[i].start + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
        uint64_t end = (boot.ram[i].start + boot.ram[i].len) & ~(uint64_t)(PAGE_SIZE - 1);

        if (start <= own && own_end <= end) {
            digest = sample_range(digest, start, own);
            pages += (own - start) / PAGE_SIZE;
            start = own_end;
        }
        digest = sample_range(digest, start, end);
        pages += (end - start) / PAGE_SIZE;
    }
    *ret_pages = pages;
    return digest;
}

static void cmd_digest(unsigned argc, char **argv)
{
    uint64_t start, len, pages, digest, begin = rdtsc();

    if (argc == 1) {
        digest = sample_ram(&pages);
        out("ok digest=%0 pages=%u us=%u\n", digest, pages, tsc_to_us(rdtsc() - begin));
        return;
    }
    if (!arg_u64(argc, argv, 1, "address", &start) || !arg_u64(argc, argv, 2, "bytes", &len))
        return;
    if (!mem_map(start, len)) {
        out("err digest: cannot reach it\n");
        return;
    }
    out("ok digest=%0\n", digest_words(at(start), len));
}

const struct command mem_commands[] = {
    {"fill",   "at_mib mib [zero|random|text|sparse|mix] [seed]",           cmd_fill  },
    {"verify", "",                                                          cmd_verify},
    {"dirty",  "at_mib mib mb_per_s [seq|rand|full] | stop | stat | check", cmd_dirty },
    {"digest", "[address bytes]",                                           cmd_digest},
    {NULL,     NULL,                                                        NULL      },
};
