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
 *         "NS COUNT" (CLOCK_MONOTONIC) for each read that had heartbeats in it.
 *
 * It asks for real-time priorities, one for the program that it starts and a higher one for itself:
 * on a machine that does other things too, times are those of the program and not of its waiting for
 * a processor.  "rt 1" in front of all says that it got them.
 */
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SAMPLES_MAX = 1 << 20,
};

struct sample {
    uint64_t ns;
    unsigned beats;
};

static struct sample samples[SAMPLES_MAX];
static unsigned nr_samples;

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
    int starts = argc > 3 && strcmp(argv[1], "start") == 0, seen = 0, fifo;
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
    return 0;
}
