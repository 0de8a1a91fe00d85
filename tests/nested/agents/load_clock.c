/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches the clocks for anything but steady progress: CLOCK_MONOTONIC never goes back, the wall
 * clock keeps its distance to it, and no two samples are further apart than the guest was stopped
 * for.  SIGUSR1 starts a new window, so that a step of a scenario is measured alone.
 */
#include <signal.h>

#include "tests/nested/agents/load_status.h"

enum {
    SAMPLE_MS = 10,
    PAIR_NS = 1000000, /* two readings further apart than this say nothing of each other */
    REPORT_SAMPLES = 4,
};

static volatile sig_atomic_t new_window;

static void on_usr1(int sig)
{
    (void)sig;
    new_window = 1;
}

struct window {
    int64_t worst_gap_ns;
    int64_t first_distance_ns;
    int64_t worst_drift_ns;
    uint64_t backwards;
    uint64_t samples;
};

static void window_add_gap(struct window *w, int64_t gap_ns)
{
    if (gap_ns < 0)
        w->backwards++;
    if (gap_ns > w->worst_gap_ns)
        w->worst_gap_ns = gap_ns;
}

static void window_add_distance(struct window *w, int64_t distance_ns)
{
    int64_t drift_ns;

    if (!w->samples++)
        w->first_distance_ns = distance_ns;
    drift_ns = distance_ns - w->first_distance_ns;
    drift_ns = drift_ns < 0 ? -drift_ns : drift_ns;
    if (drift_ns > w->worst_drift_ns)
        w->worst_drift_ns = drift_ns;
}

int main(int argc, char **argv)
{
    int64_t last_ns = load_now_ns(CLOCK_MONOTONIC);
    struct window w = {0};

    if (argc != 2 || signal(SIGUSR1, on_usr1) == SIG_ERR) {
        fprintf(stderr, "usage: load_clock STATUS\n");
        return 2;
    }
    for (;;) {
        int64_t now_ns = load_now_ns(CLOCK_MONOTONIC);
        int64_t wall_ns = load_now_ns(CLOCK_REALTIME);
        int64_t after_ns = load_now_ns(CLOCK_MONOTONIC);

        if (new_window) {
            new_window = 0;
            w = (struct window){0};
        }
        window_add_gap(&w, now_ns - last_ns);
        window_add_gap(&w, after_ns - now_ns);
        if (after_ns - now_ns < PAIR_NS)
            window_add_distance(&w, wall_ns - now_ns);
        last_ns = after_ns;
        if (w.samples % REPORT_SAMPLES == 1)
            load_status(argv[1],
                        "wall_ns=%ld mono_ns=%ld worst_gap_ms=%ld worst_drift_ms=%ld backwards=%lu "
                        "samples=%lu",
                        wall_ns, now_ns, w.worst_gap_ns / 1000000, w.worst_drift_ns / 1000000,
                        w.backwards, w.samples);
        load_sleep_ms(SAMPLE_MS);
    }
}
