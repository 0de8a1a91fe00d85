/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_limits: how long this machine takes for what nobody can do without, and nothing besides.
 *
 *     bench_limits [-m MIB] [-l LANES] [-n RUNS] [-f FILE] [-d DIRECTORY] [-i]
 *
 * tcp and aes copy memory from one process to another: no pages, no rounds, no checks. Whoever
 * moves a guest between two processes does not take less. tcp: pages go to the sockets by
 * reference, as migration/mig_splice.c has them, and are received straight into memory that is
 * there. aes: records of 16 KiB are encrypted and decrypted by AES-256-GCM in between, without
 * TLS. zstd: the pages of a memory image that are not zero (-f) are compressed in pieces of 64 KiB
 * at level 1 with a small hash table, by a thread for each processor. keep: the 64 MiB of the
 * image that the guest of bench_snapshot writes to are digested, compressed and written to a file
 * in DIRECTORY, which is made durable, and then a page of another one is, as a commit that names
 * them would be. Beside all of these a process that never sleeps keeps a processor busy, as a
 * guest would, unless -i. slot: KVM makes a VM and learns of 1 and 8 GiB of memory that nobody has
 * touched. beat: of a thread of real-time priority that wakes every millisecond, while every
 * processor is kept busy, the longest time between two wakings in half a second.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "core/page_scan.h"
#include "migration/mig_splice.h"
#include "store/store_digest.h"

enum {
    RUNS_MAX = 101,
    LANES_MAX = 16,
    PIECE = 512 << 10, /* bytes of a call */
    RECORD = 16 << 10, /* what a record of TLS has at most */
    TAG = 16,
    RECORDS = PIECE / RECORD,
    SEGMENT = 64 << 10, /* bytes that are compressed at once */
    ZSTD_LEVEL = 1,
    ZSTD_HASH_LOG = 11, /* the quickest that is worth it: docs/decisions/0071 */
    KEPT_AT = 64 << 20, /* DIRTY_AT_MIB and DIRTY_MIB of bench_base.py */
    KEPT_LEN = 64 << 20,
    BEAT_NS = 1000000,
    BEATS = 500, /* of a window */
    WINDOWS = 100,
};

struct options {
    size_t len; /* of a lane */
    unsigned lanes, runs;
    const char *image; /* NULL: nothing is compressed */
    const char *dir;
    bool idle;
};

struct lane {
    pthread_t thread;
    bool encrypted, receives;
    int fd;
    uint8_t *data;
    size_t len;
    uint8_t wire[RECORDS * (RECORD + TAG)];
};

struct sample {
    double ms, cpu_gb;
};

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "bench_limits: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double cpu_seconds(int who)
{
    struct rusage ru;

    (void)getrusage(who, &ru);
    return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
           (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

/* --- One lane ------------------------------------------------------------ */

static void send_plain(struct lane *l)
{
    struct mig_splice s = MIG_SPLICE_NONE;

    must(mig_splice_open(&s) == 0, "pipe");
    for (size_t at = 0; at < l->len; at += PIECE) {
        struct iovec iov = {l->data + at, PIECE};

        while (iov.iov_len) {
            int64_t n = mig_splice_send(&s, l->fd, &iov, 1);

            must(n > 0, "splice");
            iov.iov_base = (uint8_t *)iov.iov_base + n;
            iov.iov_len -= (size_t)n;
        }
    }
    mig_splice_close(&s);
}

static void receive(int fd, uint8_t *to, size_t len)
{
    must(recv(fd, to, len, MSG_WAITALL) == (ssize_t)len, "recv");
}

/* The records of a piece, one way or the other; each has a nonce of its own. */
static void crypt_piece(EVP_CIPHER_CTX *ctx, struct lane *l, size_t at)
{
    for (size_t i = 0; i < RECORDS; i++) {
        uint8_t *clear = l->data + at + i * RECORD, *wire = l->wire + i * (RECORD + TAG);
        uint64_t nonce[2] = {at / RECORD + i};
        int n, rest;

        must(EVP_CipherInit_ex(ctx, NULL, NULL, NULL, (const uint8_t *)nonce, -1) == 1, "nonce");
        if (l->receives)
            must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, wire + RECORD) == 1, "tag");
        must(EVP_CipherUpdate(ctx, l->receives ? clear : wire, &n, l->receives ? wire : clear,
                              RECORD) == 1,
             "AES-256-GCM");
        must(EVP_CipherFinal_ex(ctx, wire + RECORD, &rest) == 1, "AES-256-GCM, end of a record");
        if (!l->receives)
            must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, wire + RECORD) == 1, "tag");
    }
}

static void run_encrypted(struct lane *l)
{
    static const uint8_t key[32] = {1};
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

    must(ctx && EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, NULL, !l->receives) == 1,
         "AES-256-GCM");
    for (size_t at = 0; at < l->len; at += PIECE) {
        if (l->receives)
            receive(l->fd, l->wire, sizeof(l->wire));
        crypt_piece(ctx, l, at);
        if (!l->receives)
            must(send(l->fd, l->wire, sizeof(l->wire), 0) == sizeof(l->wire), "send");
    }
    EVP_CIPHER_CTX_free(ctx);
}

static void *lane_main(void *arg)
{
    struct lane *l = arg;

    if (l->encrypted)
        run_encrypted(l);
    else if (l->receives)
        for (size_t at = 0; at < l->len; at += PIECE)
            receive(l->fd, l->data + at, PIECE);
    else
        send_plain(l);
    return NULL;
}

/* --- One run ------------------------------------------------------------- */

static uint8_t *memory(const struct options *o)
{
    void *p =
        mmap(NULL, o->len * o->lanes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    must(p != MAP_FAILED, "memory");
    (void)madvise(p, o->len * o->lanes, MADV_HUGEPAGE);
    memset(p, 0x5a, o->len * o->lanes);
    return p;
}

static void run_lanes(const struct options *o, struct lane *lanes)
{
    for (unsigned i = 0; i < o->lanes; i++)
        must(pthread_create(&lanes[i].thread, NULL, lane_main, &lanes[i]) == 0, "thread");
    for (unsigned i = 0; i < o->lanes; i++)
        (void)pthread_join(lanes[i].thread, NULL);
}

/* A pair of connected sockets; a socketpair would not be tcp. */
static void connect_pair(int ret_fds[2])
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int ls = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof(to);

    must(ls >= 0 && bind(ls, (struct sockaddr *)&to, len) == 0 && listen(ls, 1) == 0 &&
             getsockname(ls, (struct sockaddr *)&to, &len) == 0,
         "listen");
    ret_fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(ret_fds[0] >= 0 && connect(ret_fds[0], (struct sockaddr *)&to, len) == 0, "connect");
    ret_fds[1] = accept(ls, NULL, NULL);
    must(ret_fds[1] >= 0, "accept");
    (void)close(ls);
}

/* The destination: says that its memory is there, waits for the lanes, says what it took. */
static void run_dest(const struct options *o, struct lane *lanes, int out)
{
    uint8_t *data = memory(o);
    double cpu = cpu_seconds(RUSAGE_SELF);

    for (unsigned i = 0; i < o->lanes; i++)
        lanes[i].data = data + i * o->len;
    must(write(out, "r", 1) == 1, "pipe");
    run_lanes(o, lanes);
    cpu = cpu_seconds(RUSAGE_SELF) - cpu;
    must(write(out, &cpu, sizeof(cpu)) == sizeof(cpu), "pipe");
    _exit(0);
}

static void run_once(const struct options *o, uint8_t *data, bool encrypted, struct sample *s)
{
    static struct lane lanes[LANES_MAX], there[LANES_MAX];
    double cpu, cpu_there, begin;
    int fds[2], from[2];
    char ready;
    pid_t pid;

    for (unsigned i = 0; i < o->lanes; i++) {
        connect_pair(fds);
        lanes[i] = (struct lane){.encrypted = encrypted, .fd = fds[0], .len = o->len};
        there[i] =
            (struct lane){.encrypted = encrypted, .receives = true, .fd = fds[1], .len = o->len};
        lanes[i].data = data + i * o->len;
    }
    must(pipe(from) == 0, "pipe");
    pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0)
        run_dest(o, there, from[1]);
    must(read(from[0], &ready, 1) == 1, "pipe");
    cpu = cpu_seconds(RUSAGE_SELF);
    begin = now_ms();
    run_lanes(o, lanes);
    must(read(from[0], &cpu_there, sizeof(cpu_there)) == sizeof(cpu_there), "pipe");
    s->ms = now_ms() - begin;
    cpu = cpu_seconds(RUSAGE_SELF) - cpu + cpu_there;
    s->cpu_gb = cpu / ((double)(o->len * o->lanes) / 1e9);
    must(waitpid(pid, NULL, 0) == pid, "destination");
    (void)close(from[0]);
    (void)close(from[1]);
    for (unsigned i = 0; i < o->lanes; i++) {
        (void)close(lanes[i].fd);
        (void)close(there[i].fd);
    }
}

/* --- Compressing --------------------------------------------------------- */

/* Pages that are not zero, one behind the other. */
struct image {
    uint8_t *data;
    size_t len;
};

struct packer {
    pthread_t thread;
    const struct image *image;
    size_t first, step; /* segments */
    int fd;             /* they are digested too and go to this file; -1 */
    atomic_size_t *end; /* of the file */
    size_t packed;
};

/* The pages of [@from, @from + @len) of a file, or of all that follows, that are not zero. */
static struct image read_image(const char *path, size_t from, size_t len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct image m = {0};
    uint8_t *all;
    struct stat st;

    must(fd >= 0 && fstat(fd, &st) == 0 && (size_t)st.st_size > from, path);
    len = len < (size_t)st.st_size - from ? len : (size_t)st.st_size - from;
    all = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, (off_t)from);
    m.data = malloc(len);
    must(all != MAP_FAILED && m.data, "memory");
    for (size_t at = 0; at < len; at += PAGE_SIZE_4K) {
        bool zero;

        if (page_scan_run(all + at, 1, &zero) && zero)
            continue;
        memcpy(m.data + m.len, all + at, PAGE_SIZE_4K);
        m.len += PAGE_SIZE_4K;
    }
    (void)munmap(all, len);
    (void)close(fd);
    m.len = m.len / SEGMENT * SEGMENT;
    return m;
}

static void *packer_main(void *arg)
{
    static _Thread_local uint8_t out[ZSTD_COMPRESSBOUND(SEGMENT)];
    struct packer *p = arg;
    ZSTD_CCtx *ctx = ZSTD_createCCtx();

    must(ctx != NULL, "zstd");
    must(!ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, ZSTD_LEVEL)) &&
             !ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_hashLog, ZSTD_HASH_LOG)),
         "zstd");
    for (size_t i = p->first; i < p->image->len / SEGMENT; i += p->step) {
        const uint8_t *data = p->image->data + i * SEGMENT;
        struct store_digest digests[SEGMENT / PAGE_SIZE_4K];
        size_t n = ZSTD_compress2(ctx, out, sizeof(out), data, SEGMENT);

        must(!ZSTD_isError(n), "zstd");
        p->packed += n;
        if (p->fd < 0)
            continue;
        store_hash_items(data, PAGE_SIZE_4K, ARRAY_LEN(digests), digests);
        must(pwrite(p->fd, out, n, (off_t)atomic_fetch_add(p->end, n)) == (ssize_t)n, "write");
    }
    (void)ZSTD_freeCCtx(ctx);
    return NULL;
}

static void make_durable(int fd)
{
    must(fdatasync(fd) == 0, "fdatasync");
}

/* Into @fds[0], and then a page into @fds[1], unless they are -1.  Return: bytes that are left. */
static size_t pack_once(const struct image *m, unsigned threads, const int fds[2], struct sample *s)
{
    static const uint8_t page[PAGE_SIZE_4K] = {1};
    struct packer packers[LANES_MAX];
    double cpu = cpu_seconds(RUSAGE_SELF), begin = now_ms();
    atomic_size_t end = 0;
    size_t packed = 0;

    for (unsigned i = 0; i < threads; i++) {
        packers[i] =
            (struct packer){.image = m, .first = i, .step = threads, .fd = fds[0], .end = &end};
        must(pthread_create(&packers[i].thread, NULL, packer_main, &packers[i]) == 0, "thread");
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(packers[i].thread, NULL);
        packed += packers[i].packed;
    }
    if (fds[0] >= 0) {
        make_durable(fds[0]);
        must(write(fds[1], page, sizeof(page)) == sizeof(page), "write");
        make_durable(fds[1]);
    }
    s->ms = now_ms() - begin;
    s->cpu_gb = (cpu_seconds(RUSAGE_SELF) - cpu) / ((double)m->len / 1e9);
    return packed;
}

/* --- KVM ----------------------------------------------------------------- */

static double slot_once(size_t len)
{
    struct kvm_userspace_memory_region slot = {.memory_size = len};
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    double begin = now_ms();
    int dev = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm;

    must(p != MAP_FAILED && dev >= 0, "/dev/kvm");
    vm = ioctl(dev, KVM_CREATE_VM, 0);
    slot.userspace_addr = (uintptr_t)p;
    must(vm >= 0 && ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) == 0, "a slot");
    begin = now_ms() - begin;
    (void)close(vm);
    (void)close(dev);
    (void)munmap(p, len);
    return begin;
}

/* --- All of them --------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

static void report(const char *what, const char *unit, double *v, unsigned n)
{
    qsort(v, n, sizeof(v[0]), by_value);
    printf("  %-10s min %8.2f  median %8.2f  max %8.2f %s\n", what, v[0], v[n / 2], v[n - 1], unit);
}

static const char *beside(const struct options *o)
{
    return o->idle ? "alone" : "beside a busy process";
}

static void bench_copy(const struct options *o, uint8_t *data, bool encrypted)
{
    double ms[RUNS_MAX], cpu[RUNS_MAX];

    for (unsigned i = 0; i < o->runs; i++) {
        struct sample s;

        run_once(o, data, encrypted, &s);
        ms[i] = s.ms;
        cpu[i] = s.cpu_gb;
    }
    printf("%s, %zu MiB over %u connections, %s, %u runs\n", encrypted ? "aes" : "tcp",
           o->len * o->lanes >> 20, o->lanes, beside(o), o->runs);
    report("total", "ms", ms, o->runs);
    report("processor", "s/GB, both ends", cpu, o->runs);
}

/* A file that has no name any more. */
static int open_scratch(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    must(fd >= 0, dir);
    return fd;
}

static void bench_pack(const struct options *o, const struct image *m, bool keep)
{
    unsigned threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    double ms[RUNS_MAX], cpu[RUNS_MAX];
    size_t packed = 0;

    threads = threads < LANES_MAX ? threads : LANES_MAX;
    for (unsigned i = 0; i < o->runs; i++) {
        int fds[2] = {keep ? open_scratch(o->dir) : -1, keep ? open_scratch(o->dir) : -1};
        struct sample s;

        packed = pack_once(m, threads, fds, &s);
        ms[i] = s.ms;
        cpu[i] = s.cpu_gb;
        for (unsigned f = 0; keep && f < 2; f++)
            (void)close(fds[f]);
    }
    printf("%s, %zu MiB to %zu MiB by %u threads, %s, %u runs\n", keep ? "keep" : "zstd",
           m->len >> 20, packed >> 20, threads, beside(o), o->runs);
    report("total", "ms", ms, o->runs);
    report("processor", "s/GB", cpu, o->runs);
}

static void bench_image(const struct options *o)
{
    struct image all = read_image(o->image, 0, SIZE_MAX);
    struct image kept = read_image(o->image, KEPT_AT, KEPT_LEN);

    bench_pack(o, &all, false);
    bench_pack(o, &kept, true);
    free(all.data);
    free(kept.data);
}

static void bench_slot(const struct options *o)
{
    printf("slot, %u runs\n", o->runs);
    for (unsigned gib = 1; gib <= 8; gib += 7) {
        double ms[RUNS_MAX];

        for (unsigned i = 0; i < o->runs; i++)
            ms[i] = slot_once((size_t)gib << 30);
        report(gib == 1 ? "1 GiB" : "8 GiB", "ms", ms, o->runs);
    }
}

/* Return: milliseconds, the longest of a window. */
static double longest_beat(struct timespec *next)
{
    double longest = 0, last = now_ms();

    for (unsigned i = 0; i < BEATS; i++) {
        double now;

        next->tv_nsec += BEAT_NS;
        if (next->tv_nsec >= 1000000000) {
            next->tv_nsec -= 1000000000;
            next->tv_sec++;
        }
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL);
        now = now_ms();
        longest = now - last > longest ? now - last : longest;
        last = now;
    }
    return longest;
}

static void bench_beat(void)
{
    const struct sched_param urgent = {.sched_priority = 50};
    double ms[WINDOWS];
    struct timespec next;

    if (sched_setscheduler(0, SCHED_FIFO, &urgent) < 0) {
        printf("beat: not measured: %s\n", strerror(errno));
        return;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &next);
    for (unsigned i = 0; i < WINDOWS; i++)
        ms[i] = longest_beat(&next);
    printf("beat, every processor busy, %u windows of %u beats\n", WINDOWS, BEATS);
    report("longest", "ms", ms, WINDOWS);
    printf("  %-10s %12.2f ms\n", "99th", ms[WINDOWS - 2]);
}

static pid_t keep_busy(void)
{
    pid_t pid = fork();

    must(pid >= 0, "fork");
    if (pid > 0)
        return pid;
    for (volatile uint64_t n = 0;;)
        n++;
}

int main(int argc, char **argv)
{
    struct options o = {.len = 592 << 20, .lanes = 4, .runs = 9, .dir = "."};
    pid_t busy[LANES_MAX];
    unsigned processors = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    uint8_t *data;
    int c;

    while ((c = getopt(argc, argv, "m:l:n:f:d:i")) >= 0) {
        unsigned n = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;

        if (c == 'm')
            o.len = (size_t)n << 20;
        else if (c == 'l' && n && n <= LANES_MAX)
            o.lanes = n;
        else if (c == 'n' && n && n <= RUNS_MAX)
            o.runs = n;
        else if (c == 'f')
            o.image = optarg;
        else if (c == 'd')
            o.dir = optarg;
        else if (c == 'i')
            o.idle = true;
        else
            return 2;
    }
    o.len = o.len / o.lanes / PIECE * PIECE;
    data = memory(&o);
    must(madvise(data, o.len * o.lanes, MADV_DONTFORK) == 0, "madvise");
    if (!o.idle)
        busy[0] = keep_busy();
    bench_copy(&o, data, false);
    bench_copy(&o, data, true);
    if (o.image)
        bench_image(&o);
    if (!o.idle)
        (void)kill(busy[0], SIGKILL);
    bench_slot(&o);
    processors = processors < LANES_MAX ? processors : LANES_MAX;
    for (unsigned i = 0; i < processors; i++)
        busy[i] = keep_busy();
    bench_beat();
    for (unsigned i = 0; i < processors; i++)
        (void)kill(busy[i], SIGKILL);
    return 0;
}
