/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a snapshot costs in a store that has grown.
 *
 *     bench_store_growth [-p PAGES] [-n RUNS] [-d DIRECTORY]
 *
 * Fills a store with PAGES different pages (10 million unless told), 512 Ki a snapshot, and
 * measures as it grows, RUNS times each, the same incremental snapshot of 1 GiB of which
 * 64 MiB are new, told which, by who opens the store for it: elapsed time and processor time, which other
 * work on the machine disturbs less, until it is published; and how long closing takes, which nobody waits for.
 * Ratios are of the medians, against those of the empty store.
 */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "store/store_writer.h"

enum {
    RUNS_MAX = 25,
    PATH_LEN = 4096,
    FILL_PAGES = 1 << 19,
    FILL_NOISE = 32, /* bytes of a page of the filling that are not zero */
    VM_PAGES = 262144,
    TOUCHED = 16384,
    TOUCHED_NOISE = 1024,
};

struct growth {
    uint64_t target;
    unsigned runs;
    char path[PATH_LEN];
    uint8_t *mem; /* FILL_PAGES */
    uint64_t seed;
    double first, first_cpu; /* medians in the empty store, s */
};

static void die(const char *what, const struct err *err)
{
    (void)fprintf(stderr, "bench_store_growth: %s: %s\n", what, err ? err->msg : strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double now_cpu(void)
{
    struct rusage r;

    (void)getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static uint64_t mix(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

static void fill(struct growth *g, uint8_t *page, size_t noise)
{
    for (size_t i = 0; i < noise; i += 8) {
        uint64_t v = mix(&g->seed);

        memcpy(page + i, &v, sizeof(v));
    }
}

/* What a snapshot took, s. */
struct cost {
    double elapsed, cpu, closing;
};

static struct store *open_store(const struct growth *g)
{
    struct store *st;
    struct err err = {0};

    if (store_open(g->path, STORE_CREATE, &st, &err) < 0)
        die("open", &err);
    return st;
}

/* One snapshot: pages [0, @nr) given, the others of @pages as in @parent. */
static struct cost put(struct growth *g, uint64_t pages, uint64_t nr, const char *parent,
                       char *ret_id)
{
    const struct store_writer_region region = {.gpa = 0, .pages = pages};
    const struct store_writer_cfg cfg = {.parent = parent, .nr_regions = 1, .regions = &region};
    const struct store_publish what = {.config = "{}"};
    const double from = now(), from_cpu = now_cpu();
    struct store *st = open_store(g);
    struct store_writer *w;
    struct cost cost;
    struct err err = {0};
    int rc = store_writer_begin(st, &cfg, &w, &err);

    if (rc < 0)
        die("begin", &err);
    if (parent)
        rc = store_writer_keep(w, 0, 0, pages, &err);
    for (uint64_t i = 0; i < nr && rc == 0; i += 512)
        rc = store_writer_pages(w, 0, i, nr - i < 512 ? nr - i : 512, g->mem + i * PAGE_SIZE_4K,
                                &err);
    if (rc == 0)
        rc = store_writer_publish(w, &what, ret_id, &err);
    if (rc < 0)
        die("publish", &err);
    cost = (struct cost){.elapsed = now() - from, .cpu = now_cpu() - from_cpu};
    store_close(st);
    cost.closing = now() - from - cost.elapsed;
    return cost;
}

static void fill_store(struct growth *g)
{
    char id[STORE_DIGEST_HEX + 1];

    for (uint64_t i = 0; i < FILL_PAGES; i++)
        fill(g, g->mem + i * PAGE_SIZE_4K, FILL_NOISE);
    (void)put(g, FILL_PAGES, FILL_PAGES, NULL, id);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void measure(struct growth *g, char *vm)
{
    double seconds[RUNS_MAX], cpu[RUNS_MAX], closing[RUNS_MAX];
    struct store *st = open_store(g);
    struct store_stats s;
    struct err err = {0};

    if (store_stats(st, &s, &err) < 0)
        die("stats", &err);
    store_close(st);
    for (uint64_t i = 0; i < TOUCHED; i++)
        fill(g, g->mem + i * PAGE_SIZE_4K, TOUCHED_NOISE);
    /* What the filling has left to be written and checkpointed is not what is asked for. */
    (void)put(g, VM_PAGES, TOUCHED, vm, vm);
    sync();
    for (unsigned run = 0; run < g->runs; run++) {
        struct cost cost;

        for (uint64_t i = 0; i < TOUCHED; i++)
            fill(g, g->mem + i * PAGE_SIZE_4K, TOUCHED_NOISE);
        cost = put(g, VM_PAGES, TOUCHED, vm, vm);
        seconds[run] = cost.elapsed;
        cpu[run] = cost.cpu;
        closing[run] = cost.closing;
    }
    qsort(seconds, g->runs, sizeof(double), compare);
    qsort(cpu, g->runs, sizeof(double), compare);
    qsort(closing, g->runs, sizeof(double), compare);
    if (g->first == 0) {
        g->first = seconds[g->runs / 2];
        g->first_cpu = cpu[g->runs / 2];
    }
    (void)printf("%10llu %10.1f %10.1f %8.3f %8.3f %8.3f %6.2f %8.3f %6.2f %8.3f %8.3f\n",
                 (unsigned long long)s.pages, (double)s.bytes_packs / (double)MIB(1),
                 (double)s.bytes_index / (double)MIB(1), seconds[0], seconds[g->runs / 2],
                 seconds[g->runs - 1], seconds[g->runs / 2] / g->first, cpu[g->runs / 2],
                 cpu[g->runs / 2] / g->first_cpu, closing[g->runs / 2], closing[g->runs - 1]);
    (void)fflush(stdout);
    memset(g->mem, 0, (size_t)TOUCHED * PAGE_SIZE_4K);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void run(struct growth *g)
{
    char vm[STORE_DIGEST_HEX + 1];
    uint64_t next = 0;

    /* The VM itself: contents as of any other, all different. */
    for (uint64_t i = 0; i < VM_PAGES; i++)
        fill(g, g->mem + i * PAGE_SIZE_4K, FILL_NOISE);
    (void)put(g, VM_PAGES, VM_PAGES, NULL, vm);
    (void)printf("%10s %10s %10s %8s %8s %8s %6s %8s %6s %8s %8s\n", "pages", "packs MiB",
                 "index MiB", "min s", "median", "max", "ratio", "cpu s", "ratio", "closing",
                 "max");
    for (uint64_t filled = 0;; filled += FILL_PAGES) {
        if (filled >= next || filled >= g->target) {
            measure(g, vm);
            next = filled ? 2 * filled : FILL_PAGES;
        }
        if (filled >= g->target)
            break;
        fill_store(g);
    }
}

int main(int argc, char **argv)
{
    static struct growth g = {.target = 10000000, .runs = 9, .seed = 1};
    const char *dir = ".";
    int opt;

    while ((opt = getopt(argc, argv, "p:n:d:")) != -1) {
        unsigned long v = optarg ? strtoul(optarg, NULL, 10) : 0;

        if (opt == 'p' && v)
            g.target = v;
        else if (opt == 'n' && v && v <= RUNS_MAX)
            g.runs = (unsigned)v;
        else if (opt == 'd')
            dir = optarg;
        else
            return 2;
    }
    (void)snprintf(g.path, sizeof(g.path), "%s/growth.store", dir);
    (void)nftw(g.path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    g.mem = mmap(NULL, (size_t)FILL_PAGES * PAGE_SIZE_4K, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (g.mem == MAP_FAILED)
        die("memory", NULL);
    run(&g);
    (void)nftw(g.path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
