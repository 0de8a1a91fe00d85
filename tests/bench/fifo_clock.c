/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fifo_clock: notes when bytes come out of a FIFO, for benchmarks whose guest
 * writes to a serial port that leads there.
 *
 *     fifo_clock start FIFO PROGRAM ARGUMENT...
 *         starts the program; prints "first PID NS" when the first byte comes, NS
 *         counted from the instant before exec; ends the program when stdin ends.
 *     fifo_clock beats FIFO
 *         prints "first" when the first heartbeat (~) comes; when stdin ends, prints
 *         "NS COUNT" (CLOCK_MONOTONIC) for each read that had heartbeats in it, and "away FROM
 *         TO" for each time in which a processor did nothing for the most urgent thread on it:
 *         most often a hypervisor had taken it away.
 *
 * It asks for real-time priorities, one for the program that it starts and a higher one for itself:
 * on a machine that does other things too, times are those of the program and not of its waiting for
 * a processor.  "rt 1" in front of all says that it got them.
 */
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SAMPLES_MAX = 1 << 20,
    PROCESSORS_MAX = 64,
    AWAYS_MAX = 1 << 14,
    WATCH_NS = 1000000, /* how often each processor is looked at */
    LATE_NS = 1000000,  /* as late as this is noted */
};

struct sample {
    uint64_t ns;
    unsigned beats;
};

static struct sample samples[SAMPLES_MAX];
static unsigned nr_samples;

/* One processor's watch. */
struct watch {
    pthread_t thread;
    int processor;
    unsigned nr;
    struct {
        uint64_t from, to;
    } away[AWAYS_MAX];
};

static struct watch watches[PROCESSORS_MAX];
static atomic_int watching = 1;

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void must(int ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "fifo_clock: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int set_priority(int priority)
{
    struct sched_param rt = {.sched_priority = priority};

    return sched_setscheduler(0, SCHED_FIFO, &rt);
}

/* Wakes up every millisecond, before everything else on its processor. */
static void *watch_main(void *arg)
{
    struct watch *w = arg;
    uint64_t due = now_ns();
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)w->processor, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0 || set_priority(3) < 0)
        return NULL;
    while (watching) {
        struct timespec at;
        uint64_t now;

        due += WATCH_NS;
        at = (struct timespec){(time_t)(due / 1000000000), (long)(due % 1000000000)};
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        now = now_ns();
        if (now < due + LATE_NS)
            continue;
        if (w->nr < AWAYS_MAX) {
            w->away[w->nr].from = due;
            w->away[w->nr++].to = now;
        }
        due = now;
    }
    return NULL;
}

static int watch_start(void)
{
    int n = (int)sysconf(_SC_NPROCESSORS_ONLN);

    n = n < PROCESSORS_MAX ? n : PROCESSORS_MAX;
    for (int i = 0; i < n; i++) {
        watches[i].processor = i;
        must(pthread_create(&watches[i].thread, NULL, watch_main, &watches[i]) == 0, "thread");
    }
    return n;
}

static void watch_end(int n)
{
    watching = 0;
    for (int i = 0; i < n; i++) {
        (void)pthread_join(watches[i].thread, NULL);
        for (unsigned j = 0; j < watches[i].nr; j++)
            (void)printf("away %llu %llu\n", (unsigned long long)watches[i].away[j].from,
                         (unsigned long long)watches[i].away[j].to);
    }
}

static pid_t start(char **argv, uint64_t *started_ns)
{
    pid_t pid = fork();

    must(pid >= 0, "fork");
    if (pid)
        return pid;
    (void)set_priority(1);
    *started_ns = now_ns();
    (void)execvp(argv[0], argv);
    must(0, argv[0]);
    return 0;
}

/* Return: whether stdin has not ended. */
static int wait_input(int fifo)
{
    struct pollfd fds[] = {
        {.fd = fifo,         .events = POLLIN},
        {.fd = STDIN_FILENO, .events = POLLIN}
    };

    must(poll(fds, 2, -1) > 0, "poll");
    return !fds[1].revents;
}

static void note(uint64_t ns, const char *data, ssize_t len)
{
    unsigned beats = 0;

    for (ssize_t i = 0; i < len; i++)
        beats += data[i] == '~';
    if (!beats || nr_samples == SAMPLES_MAX)
        return;
    samples[nr_samples++] = (struct sample){ns, beats};
    if (nr_samples == 1)
        (void)puts("first");
}

int main(int argc, char **argv)
{
    uint64_t *started_ns =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int starts = argc > 3 && strcmp(argv[1], "start") == 0, seen = 0, watched = 0, fifo;
    char data[65536];
    pid_t pid = 0;

    if (!starts && !(argc == 3 && strcmp(argv[1], "beats") == 0))
        return 2;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)printf("rt %d\n", set_priority(2) == 0);
    fifo = open(argv[2], O_RDWR | O_NONBLOCK | O_CLOEXEC);
    must(started_ns != MAP_FAILED && fifo >= 0, argv[2]);
    if (starts)
        pid = start(argv + 3, started_ns);
    else
        watched = watch_start();
    while (wait_input(fifo)) {
        ssize_t n = read(fifo, data, sizeof(data));
        uint64_t ns = now_ns();

        if (n <= 0)
            continue;
        if (!starts)
            note(ns, data, n);
        else if (!seen++)
            (void)printf("first %d %llu\n", (int)pid, (unsigned long long)(ns - *started_ns));
    }
    if (starts) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    for (unsigned i = 0; i < nr_samples; i++)
        (void)printf("%llu %u\n", (unsigned long long)samples[i].ns, samples[i].beats);
    watch_end(watched);
    return 0;
}
