/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_limits: how long this machine takes for what nobody can do without, and nothing besides.
 *
 *     bench_limits [-m MIB] [-l LANES] [-n RUNS] [-f FILE] [-i]
 *
 * tcp and aes copy memory from one process to another: no pages, no rounds, no checks.  Whoever
 * moves a guest between two processes does not take less.  tcp: pages go to the sockets by reference, as migration/mig_splice.c has them, and are received
 * straight into memory that is there.  aes: records of 16 KiB are encrypted and decrypted by
 * AES-256-GCM in between, without TLS.  zstd: the pages of a memory image that are not zero (-f) are
 * compressed in pieces of 64 KiB at level 1, by a thread for each processor.  Beside all three a
 * process that never sleeps keeps a processor busy, as a guest would, unless -i.  slot: KVM makes
 * a VM and learns of 1 and 8 GiB of memory that nobody has touched.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
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

enum {
    RUNS_MAX = 101,
    LANES_MAX = 16,
    PIECE = 512 << 10, /* bytes of a call */
    RECORD = 16 << 10, /* what a record of TLS has at most */
    TAG = 16,
    RECORDS = PIECE / RECORD,
    SEGMENT = 64 << 10, /* bytes that are compressed at once */
};

struct options {
    size_t len; /* of a lane */
    unsigned lanes, runs;
    const char *image; /* NULL: nothing is compressed */
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
    size_t packed;
};

static struct image read_image(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct image m = {0};
    uint8_t *all;
    struct stat st;

    must(fd >= 0 && fstat(fd, &st) == 0, path);
    all = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    m.data = malloc((size_t)st.st_size);
    must(all != MAP_FAILED && m.data, "memory");
    for (size_t at = 0; at < (size_t)st.st_size; at += PAGE_SIZE_4K) {
        bool zero;

        if (page_scan_run(all + at, 1, &zero) && zero)
            continue;
        memcpy(m.data + m.len, all + at, PAGE_SIZE_4K);
        m.len += PAGE_SIZE_4K;
    }
    (void)munmap(all, (size_t)st.st_size);
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
    for (size_t i = p->first; i < p->image->len / SEGMENT; i += p->step) {
        size_t n =
            ZSTD_compressCCtx(ctx, out, sizeof(out), p->image->data + i * SEGMENT, SEGMENT, 1);

        must(!ZSTD_isError(n), "zstd");
        p->packed += n;
    }
    (void)ZSTD_freeCCtx(ctx);
    return NULL;
}

/* Return: bytes that are left. */
static size_t pack_once(const struct image *m, unsigned threads, struct sample *s)
{
    struct packer packers[LANES_MAX];
    double cpu = cpu_seconds(RUSAGE_SELF), begin = now_ms();
    size_t packed = 0;

    for (unsigned i = 0; i < threads; i++) {
        packers[i] = (struct packer){.image = m, .first = i, .step = threads};
        must(pthread_create(&packers[i].thread, NULL, packer_main, &packers[i]) == 0, "thread");
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(packers[i].thread, NULL);
        packed += packers[i].packed;
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

static void bench_pack(const struct options *o)
{
    unsigned threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    struct image m = read_image(o->image);
    double ms[RUNS_MAX], cpu[RUNS_MAX];
    size_t packed = 0;

    threads = threads < LANES_MAX ? threads : LANES_MAX;
    for (unsigned i = 0; i < o->runs; i++) {
        struct sample s;

        packed = pack_once(&m, threads, &s);
        ms[i] = s.ms;
        cpu[i] = s.cpu_gb;
    }
    printf("zstd, %zu MiB to %zu MiB by %u threads, %s, %u runs\n", m.len >> 20, packed >> 20,
           threads, beside(o), o->runs);
    report("total", "ms", ms, o->runs);
    report("processor", "s/GB", cpu, o->runs);
    free(m.data);
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
    struct options o = {.len = 592 << 20, .lanes = 4, .runs = 9};
    pid_t busy = -1;
    uint8_t *data;
    int c;

    while ((c = getopt(argc, argv, "m:l:n:f:i")) >= 0) {
        unsigned n = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;

        if (c == 'm')
            o.len = (size_t)n << 20;
        else if (c == 'l' && n && n <= LANES_MAX)
            o.lanes = n;
        else if (c == 'n' && n && n <= RUNS_MAX)
            o.runs = n;
        else if (c == 'f')
            o.image = optarg;
        else if (c == 'i')
            o.idle = true;
        else
            return 2;
    }
    o.len = o.len / o.lanes / PIECE * PIECE;
    data = memory(&o);
    must(madvise(data, o.len * o.lanes, MADV_DONTFORK) == 0, "madvise");
    if (!o.idle)
        busy = keep_busy();
    bench_copy(&o, data, false);
    bench_copy(&o, data, true);
    if (o.image)
        bench_pack(&o);
    if (busy > 0)
        (void)kill(busy, SIGKILL);
    bench_slot(&o);
    return 0;
}
