/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast snapshots go into a store and come out of it.
 *
 *     bench_store [-m MIB] [-n RUNS] [-t THREADS] [-d DIRECTORY] [-i IMAGE]
 *
 * The memory is IMAGE, raw, or else made up: 42 % zero pages, the rest the
 * contents of programs and libraries of this machine, as a page cache holds
 * them.  Each run makes a fresh store in DIRECTORY and measures
 *
 *     put        everything into the empty store
 *     again      the same memory with 64 MiB touched, the parent known, no dirty log
 *     dirty      the same, told which pages changed
 *     idle       nothing changed, told so
 *     read       all of it into fresh memory, by as many threads as processors
 *     verify     every byte
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "store/store_reader.h"
#include "store/store_writer.h"

enum {
    RUNS_MAX = 100,
    TOUCHED_MIB = 64,
    NAME_MAX_LEN = 4096,
};

enum step {
    STEP_PUT,
    STEP_AGAIN,
    STEP_DIRTY,
    STEP_IDLE,
    STEP_READ,
    STEP_VERIFY,
    STEP_MAX,
};

static const char *const step_names[STEP_MAX] = {"put", "again", "dirty", "idle", "read", "verify"};

struct bench {
    uint64_t pages;
    unsigned runs, threads;
    const char *dir, *image;
    uint8_t *mem;
    double seconds[STEP_MAX][RUNS_MAX];
    double cpu[STEP_MAX][RUNS_MAX];
    uint64_t stored[STEP_MAX];
};

static void die(const char *what, const struct err *err)
{
    (void)fprintf(stderr, "bench_store: %s: %s\n", what, err ? err->msg : strerror(errno));
    exit(1);
}

/* ---- memory ---- */

static uint64_t fill_at, fill_end;
static uint8_t *fill_mem;

/* Four of ten pages are skipped, in runs of different length. */
static uint64_t next_page(void)
{
    uint64_t i = fill_at++;

    while (fill_at < fill_end && (fill_at * 2654435761U >> 6) % 1000 < 420)
        fill_at++;
    return i;
}

static int fill_from_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    FILE *f;
    uint8_t page[PAGE_SIZE_4K];

    (void)ftw;
    if (type != FTW_F || !S_ISREG(st->st_mode) || st->st_size < 16384)
        return fill_at >= fill_end;
    f = fopen(path, "rb");
    while (f && fill_at < fill_end && fread(page, sizeof(page), 1, f) == 1)
        memcpy(fill_mem + next_page() * PAGE_SIZE_4K, page, sizeof(page));
    if (f)
        (void)fclose(f);
    return fill_at >= fill_end;
}

static void make_memory(struct bench *b)
{
    b->mem = mmap(NULL, b->pages * PAGE_SIZE_4K, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b->mem == MAP_FAILED)
        die("memory", NULL);
    if (b->image) {
        FILE *f = fopen(b->image, "rb");

        if (!f || fread(b->mem, PAGE_SIZE_4K, b->pages, f) == 0)
            die(b->image, NULL);
        (void)fclose(f);
        return;
    }
    fill_mem = b->mem;
    fill_end = b->pages;
    (void)nftw("/usr/bin", fill_from_file, 32, FTW_PHYS);
    (void)nftw("/usr/lib", fill_from_file, 32, FTW_PHYS);
}

static uint64_t touch_first(const struct bench *b)
{
    return b->pages / 3;
}

static uint64_t touch_nr(const struct bench *b)
{
    uint64_t nr = MIB(TOUCHED_MIB) / PAGE_SIZE_4K;

    return nr < b->pages / 3 ? nr : b->pages / 3;
}

/* Dirty pages as a working guest does: a part of each page gets other contents. */
static void touch(struct bench *b, uint64_t salt)
{
    for (uint64_t i = touch_first(b); i < touch_first(b) + touch_nr(b); i++)
        for (size_t at = 0; at < PAGE_SIZE_4K; at += 64)
            *(uint64_t *)(void *)(b->mem + i * PAGE_SIZE_4K + at) = (i * 31 + at) * salt;
}

/* ---- steps ---- */

struct clocks {
    struct timespec wall;
    struct rusage cpu;
};

static struct clocks clocks_now(void)
{
    struct clocks c;

    (void)clock_gettime(CLOCK_MONOTONIC, &c.wall);
    (void)getrusage(RUSAGE_SELF, &c.cpu);
    return c;
}

static double cpu_of(const struct rusage *r)
{
    return (double)(r->ru_utime.tv_sec + r->ru_stime.tv_sec) +
           (double)(r->ru_utime.tv_usec + r->ru_stime.tv_usec) / 1e6;
}

static void note(struct bench *b, enum step step, unsigned run, const struct clocks *from)
{
    struct clocks to = clocks_now();

    b->seconds[step][run] = (double)(to.wall.tv_sec - from->wall.tv_sec) +
                            (double)(to.wall.tv_nsec - from->wall.tv_nsec) / 1e9;
    b->cpu[step][run] = cpu_of(&to.cpu) - cpu_of(&from->cpu);
}

static void put(struct bench *b, struct store *st, enum step step, unsigned run)
{
    const struct store_writer_region region = {.gpa = 0, .pages = b->pages};
    const struct store_writer_cfg cfg = {
        .parent = step == STEP_PUT ? NULL : step_names[step - 1],
        .name = step_names[step],
        .nr_regions = 1,
        .regions = &region,
        .threads = b->threads,
    };
    const struct store_publish what = {.config = "{}"};
    char id[STORE_DIGEST_HEX + 1];
    struct clocks from = clocks_now();
    struct store_writer *w;
    struct err err = {0};
    int rc = store_writer_begin(st, &cfg, &w, &err);

    if (rc < 0)
        die("begin", &err);
    if (step == STEP_DIRTY || step == STEP_IDLE)
        rc = store_writer_keep(w, 0, 0, b->pages, &err);
    if (rc == 0 && step == STEP_DIRTY)
        rc = store_writer_pages(w, 0, touch_first(b), touch_nr(b),
                                b->mem + touch_first(b) * PAGE_SIZE_4K, &err);
    for (uint64_t i = 0; i < b->pages && rc == 0 && step <= STEP_AGAIN; i += 512) {
        uint64_t n = b->pages - i < 512 ? b->pages - i : 512;

        rc = store_writer_pages(w, 0, i, n, b->mem + i * PAGE_SIZE_4K, &err);
    }
    if (rc == 0)
        rc = store_writer_publish(w, &what, id, &err);
    note(b, step, run, &from);
    if (rc < 0)
        die(step_names[step], &err);
}

struct reader {
    pthread_t thread;
    struct store_snapshot *snap;
    uint8_t *dst;
    uint64_t first, last, pages;
};

static void *read_part(void *arg)
{
    struct reader *r = arg;
    struct err err = {0};

    for (uint64_t i = r->first; i < r->last; i += 512) {
        uint64_t n = r->pages - i < 512 ? r->pages - i : 512;

        if (store_snapshot_read_sparse(r->snap, 0, i, n, r->dst + i * PAGE_SIZE_4K, &err) < 0)
            die("read", &err);
    }
    return NULL;
}

static void read_all(struct bench *b, unsigned run)
{
    struct clocks from = clocks_now();
    struct reader readers[64] = {0};
    struct err err = {0};
    struct store_snapshot *snap;
    struct store *st;
    uint64_t share = (b->pages / b->threads + 511) / 512 * 512;
    uint8_t *dst = mmap(NULL, b->pages * PAGE_SIZE_4K, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char path[NAME_MAX_LEN];

    (void)snprintf(path, sizeof(path), "%s/bench.store", b->dir);
    if (store_open(path, 0, &st, &err) < 0 || store_snapshot_open(st, "idle", &snap, &err) < 0)
        die("read", &err);
    for (unsigned i = 0; i < b->threads; i++) {
        struct reader *r = &readers[i];

        *r = (struct reader){.snap = snap,
                             .dst = dst,
                             .first = i * share,
                             .last = (i + 1) * share,
                             .pages = b->pages};
        if (r->last > b->pages || i + 1 == b->threads)
            r->last = b->pages;
        if (pthread_create(&r->thread, NULL, read_part, r) != 0)
            die("thread", NULL);
    }
    for (unsigned i = 0; i < b->threads; i++)
        (void)pthread_join(readers[i].thread, NULL);
    note(b, STEP_READ, run, &from);
    if (memcmp(dst, b->mem, b->pages * PAGE_SIZE_4K) != 0)
        die("read: the memory is another", &err);
    (void)munmap(dst, b->pages * PAGE_SIZE_4K);
    store_snapshot_close(snap);
    store_close(st);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static uint64_t stored_of(struct store *st)
{
    struct store_stats s;
    struct err err = {0};

    if (store_stats(st, &s, &err) < 0)
        die("stats", &err);
    return s.bytes_packs + s.bytes_index;
}

static void run_once(struct bench *b, unsigned run)
{
    const struct store_verify_cfg cfg = {.data = true};
    struct store_verify_result res;
    char path[NAME_MAX_LEN];
    struct err err = {0};
    struct clocks from;
    struct store *st;
    uint64_t before = 0;

    (void)snprintf(path, sizeof(path), "%s/bench.store", b->dir);
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (store_open(path, STORE_CREATE, &st, &err) < 0)
        die("open", &err);
    for (enum step step = STEP_PUT; step <= STEP_IDLE; step++) {
        if (step == STEP_AGAIN || step == STEP_DIRTY)
            touch(b, run * 2 + step + 1);
        put(b, st, step, run);
        b->stored[step] = stored_of(st) - before;
        before += b->stored[step];
    }
    read_all(b, run);
    from = clocks_now();
    if (store_verify(st, &cfg, &res, &err) < 0 || res.problems)
        die("verify", &err);
    note(b, STEP_VERIFY, run, &from);
    store_close(st);
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- report ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void report(struct bench *b)
{
    uint64_t nonzero = 0;
    struct rusage ru;

    for (uint64_t i = 0; i < b->pages; i++) {
        const uint8_t *p = b->mem + i * PAGE_SIZE_4K;

        nonzero += p[0] || memcmp(p, p + 1, PAGE_SIZE_4K - 1) != 0;
    }
    (void)printf("%llu MiB, %.1f %% not zero, %u runs, %u threads\n",
                 (unsigned long long)(b->pages >> 8), 100.0 * (double)nonzero / (double)b->pages,
                 b->runs, b->threads);
    (void)printf("%-8s %9s %9s %9s %9s %12s\n", "step", "min s", "median s", "max s", "cpu s",
                 "stored MiB");
    for (enum step s = STEP_PUT; s < STEP_MAX; s++) {
        qsort(b->seconds[s], b->runs, sizeof(double), compare);
        qsort(b->cpu[s], b->runs, sizeof(double), compare);
        (void)printf("%-8s %9.3f %9.3f %9.3f %9.3f", step_names[s], b->seconds[s][0],
                     b->seconds[s][b->runs / 2], b->seconds[s][b->runs - 1],
                     b->cpu[s][b->runs / 2]);
        if (s <= STEP_IDLE)
            (void)printf(" %12.2f", (double)b->stored[s] / (double)MIB(1));
        (void)printf("\n");
    }
    (void)getrusage(RUSAGE_SELF, &ru);
    (void)printf("peak resident: %ld MiB\n", ru.ru_maxrss >> 10);
}

int main(int argc, char **argv)
{
    static struct bench b = {.pages = 262144, .runs = 5, .dir = "."};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int opt;

    b.threads = processors > 0 ? (unsigned)processors : 1;
    while ((opt = getopt(argc, argv, "m:n:t:d:i:")) != -1) {
        unsigned long v = optarg ? strtoul(optarg, NULL, 10) : 0;

        if (opt == 'm' && v)
            b.pages = v << 8;
        else if (opt == 'n' && v && v <= RUNS_MAX)
            b.runs = (unsigned)v;
        else if (opt == 't' && v && v <= 64)
            b.threads = (unsigned)v;
        else if (opt == 'd')
            b.dir = optarg;
        else if (opt == 'i')
            b.image = optarg;
        else
            return 2;
    }
    make_memory(&b);
    for (unsigned run = 0; run < b.runs; run++)
        run_once(&b, run);
    report(&b);
    return 0;
}
