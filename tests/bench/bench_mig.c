/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_mig: moves a guest without a machine between two processes and prints
 * how long that took, and for how long it stood still.
 *
 *     bench_mig [-m MIB] [-z PERCENT_DATA] [-r PAGES_ALIKE] [-d MB_PER_S] [-w WINDOW_MIB]
 *               [-l LANES] [-n RUNS] [-t unix|tcp|tls|all]
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "core/loop.h"
#include "tests/fakes/fake_guest.h"
#include "tests/fakes/fake_pki.h"

enum {
    RUNS_MAX = 101,
};

struct options {
    struct fake_guest_config guest;
    unsigned lanes;
    unsigned runs;
    const char *transport;
};

struct sample {
    double total_ms, blackout_ms, cpu_s, cpu_gb, gib_s;
    unsigned rounds;
};

static void must(bool ok, const char *what, const struct err *err)
{
    if (ok)
        return;
    (void)fprintf(stderr, "bench_mig: %s: %s\n", what, err ? err->msg : strerror(errno));
    exit(1);
}

/*
 * The destination is a child of this process: without its memory, whose tables it would have to
 * copy, and whose pages the guest would have to write to a copy of.  No move costs that.
 */
static void keep_from_children(const struct fake_guest *g)
{
    for (unsigned i = 0; i < gmem_nr_regions(g->gm); i++) {
        const struct gmem_region *r = gmem_region(g->gm, i);

        must(madvise(r->hva, r->len, MADV_DONTFORK) == 0, "madvise", NULL);
    }
}

static double cpu_seconds(int who)
{
    struct rusage ru;

    (void)getrusage(who, &ru);
    return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
           (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

/* The destination's process: tells its port through a pipe, then takes the guest in. */
static void run_dest(const struct options *o, struct mig_dial *dial, int port_fd)
{
    struct mig_dest_params p = {.ops = &fake_dest_ops, .open = mig_open_by_accept};
    struct mig_listener *ls;
    struct mig_dest *dst;
    struct fake_guest g;
    struct err err = {0};
    unsigned port;

    fake_guest_expect(&g, &o->guest);
    must(mig_listen(dial, &ls, &err) == 0, "listen", &err);
    port = mig_listener_port(ls);
    must(write(port_fd, &port, sizeof(port)) == sizeof(port), "pipe", NULL);
    p.arg = &g;
    p.open_arg = ls;
    p.open_fd = mig_listener_fd(ls);
    p.tls = dial->tls;
    must(mig_dest_new(&p, &dst, &err) == 0, "destination", &err);
    must(mig_dest_run(dst, &err) == 0, "destination", &err);
    mig_dest_free(dst);
    mig_listener_close(ls);
    _exit(0);
}

static void run_once(const struct options *o, struct fake_guest *g, const char *transport,
                     const char *dir, struct sample *s)
{
    struct mig_source_params p = {.ops = &fake_source_ops,
                                  .arg = g,
                                  .gm = g->gm,
                                  .dirty = g->dirty,
                                  .open = mig_open_by_connect,
                                  .lanes = o->lanes,
                                  .limits = {.downtime_ns = 300000000}};
    struct mig_dial dial = {0};
    struct mig_tls *client = NULL, *server = NULL;
    struct mig_status st;
    struct mig_source *src;
    struct err err = {0};
    char url[300];
    int pipe_fd[2], status;
    double cpu = cpu_seconds(RUSAGE_SELF), kids = cpu_seconds(RUSAGE_CHILDREN);
    unsigned port;
    pid_t pid;

    (void)snprintf(url, sizeof(url), "unix:%s/sock", dir);
    must(mig_url_parse(strcmp(transport, "unix") == 0 ? url : "tcp:127.0.0.1:0", &dial.url, &err) ==
             0,
         "url", &err);
    if (strcmp(transport, "tls") == 0) {
        must(mig_tls_new(dir, MIG_TLS_CLIENT, &client, &err) == 0, "tls", &err);
        must(mig_tls_new(dir, MIG_TLS_SERVER, &server, &err) == 0, "tls", &err);
    }
    must(pipe(pipe_fd) == 0, "pipe", NULL);
    pid = fork();
    must(pid >= 0, "fork", NULL);
    dial.tls = server;
    if (pid == 0)
        run_dest(o, &dial, pipe_fd[1]);
    must(read(pipe_fd[0], &port, sizeof(port)) == sizeof(port), "pipe", NULL);
    (void)close(pipe_fd[0]);
    (void)close(pipe_fd[1]);
    (void)snprintf(dial.url.port, sizeof(dial.url.port), "%u", port & 0xffff);
    dial.tls = client;
    p.open_arg = &dial;
    must(mig_source_new(&p, &src, &err) == 0, "source", &err);
    must(mig_source_run(src, NULL, &err) == 0, "source", &err);
    mig_progress_read(mig_source_progress(src), &st);
    must(waitpid(pid, &status, 0) == pid && status == 0, "destination", NULL);
    s->total_ms = (double)st.took.total / 1e6;
    s->blackout_ms = (double)st.took.blackout / 1e6;
    s->gib_s = (double)st.wire_bytes / (double)st.took.rounds * 1e9 / (1 << 30);
    s->cpu_s = cpu_seconds(RUSAGE_SELF) - cpu + cpu_seconds(RUSAGE_CHILDREN) - kids;
    s->cpu_gb = s->cpu_s / ((double)o->guest.len[0] * o->guest.data_percent / 100 / 1e9);
    s->rounds = st.round;
    if (getenv("BENCH_MIG_VERBOSE")) {
        struct mig_round_log log[MIG_LOG_ROUNDS];
        unsigned n = mig_progress_rounds(mig_source_progress(src), log);

        for (unsigned i = 0; i < n; i++)
            printf("  round %u: %llu data, %llu zero pages in %.3f ms, %llu left: %s\n",
                   log[i].round, (unsigned long long)log[i].data_pages,
                   (unsigned long long)log[i].zero_pages, (double)log[i].took_ns / 1e6,
                   (unsigned long long)log[i].remaining, log[i].verdict.why);
        printf("  connect %.2f prepare %.2f rounds %.2f | pause %.3f harvest %.3f save %.3f send "
               "%.3f release %.3f commit %.3f (pages %.3f load %.3f acquire %.3f start %.3f)\n",
               (double)st.took.connect / 1e6, (double)st.took.prepare / 1e6,
               (double)st.took.rounds / 1e6, (double)st.took.pause / 1e6,
               (double)st.took.harvest / 1e6, (double)st.took.save / 1e6,
               (double)st.took.send / 1e6, (double)st.took.release / 1e6,
               (double)st.took.commit / 1e6, (double)st.took.pages / 1e6,
               (double)st.took.load / 1e6, (double)st.took.acquire / 1e6,
               (double)st.took.start / 1e6);
    }
    mig_source_free(src);
    mig_tls_free(client);
    mig_tls_free(server);
    /* The guest stays where it is, for the next run. */
    atomic_store(&g->running, true);
}

static int by_value(const void *a, const void *b)
{
    double x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

static void report(const char *name, const struct sample *s, unsigned n, size_t off,
                   const char *unit)
{
    double v[RUNS_MAX];

    for (unsigned i = 0; i < n; i++)
        memcpy(&v[i], (const char *)&s[i] + off, sizeof(double));
    qsort(v, n, sizeof(v[0]), by_value);
    printf("  %-12s min %9.2f  median %9.2f  max %9.2f %s\n", name, v[0], v[n / 2], v[n - 1], unit);
}

static void bench(const struct options *o, struct fake_guest *g, const char *transport,
                  const char *dir)
{
    struct sample s[RUNS_MAX];

    for (unsigned i = 0; i < o->runs; i++)
        run_once(o, g, transport, dir, &s[i]);
    printf("%s, %u lane(s), %u runs\n", transport, o->lanes, o->runs);
    report("total", s, o->runs, offsetof(struct sample, total_ms), "ms");
    report("blackout", s, o->runs, offsetof(struct sample, blackout_ms), "ms");
    report("rate", s, o->runs, offsetof(struct sample, gib_s), "GiB/s of data");
    report("cpu", s, o->runs, offsetof(struct sample, cpu_s), "s, both ends and the guest");
    report("cpu a GB", s, o->runs, offsetof(struct sample, cpu_gb), "s a GB that is not zero");
}

static void parse(int argc, char **argv, struct options *o)
{
    int c;

    while ((c = getopt(argc, argv, "m:z:r:d:w:l:n:t:")) >= 0) {
        unsigned long n = optarg ? strtoul(optarg, NULL, 10) : 0;

        if (c == 'm')
            o->guest.len[0] = MIB(n);
        else if (c == 'z')
            o->guest.data_percent = (unsigned)n;
        else if (c == 'r')
            o->guest.data_run = (unsigned)n;
        else if (c == 'd')
            o->guest.dirty_rate = n * 1000000 / PAGE_SIZE_4K;
        else if (c == 'w')
            o->guest.dirty_pages = MIB(n) >> PAGE_SHIFT_4K;
        else if (c == 'l')
            o->lanes = (unsigned)n;
        else if (c == 'n')
            o->runs = n < RUNS_MAX ? (unsigned)n : RUNS_MAX;
        else if (c == 't')
            o->transport = optarg;
        else
            exit(2);
    }
}

int main(int argc, char **argv)
{
    static const char *const transports[] = {"unix", "tcp", "tls"};
    struct options o = {
        .guest = {.len = {GIB(1)},
                  .data_percent = 58,
                  .data_run = 512,
                  .thp = true,
                  .dirty_rate = 100000000 / PAGE_SIZE_4K,
                  .dirty_pages = MIB(64) >> PAGE_SHIFT_4K,
                  .seed = 1},
        .lanes = 1,
        .runs = 5,
        .transport = "all"
    };
    char dir[] = "/tmp/bench_mig.XXXXXX";
    struct fake_pki *pki;
    struct fake_guest g;

    parse(argc, argv, &o);
    must(mkdtemp(dir) != NULL, "mkdtemp", NULL);
    pki = fake_pki_new("bench CA");
    fake_pki_write_dir(pki, dir);
    fake_guest_start(&g, &o.guest);
    keep_from_children(&g);
    for (unsigned i = 0; i < ARRAY_LEN(transports); i++)
        if (strcmp(o.transport, "all") == 0 || strcmp(o.transport, transports[i]) == 0)
            bench(&o, &g, transports[i], dir);
    fake_guest_release(&g);
    fake_pki_free(pki);
    fake_pki_remove_dir(dir);
    return 0;
}
