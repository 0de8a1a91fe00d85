/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a signal does: SIGINT, SIGTERM and SIGHUP end the program in order, and soon; so does SIGPIPE,
 * in silence.
 *
 * The handler wakes a thread.  It takes the lock that steps which must be whole are done with,
 * undoes what would be left half-done, says what was stopped and in what state things are, and
 * has the process die by the signal.  The work itself is not asked: it may be in a wait for a
 * lock or for a disk.  A store needs no more than that, it is made for processes that die at
 * any time (docs/store-format.md 7).
 */
#include <stdarg.h>

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/chsnap/chsnap.h"

enum {
    OUTPUT_PATIENCE_MS = 600, /* for a reader to take what is being printed */
};

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

static struct {
    sem_t wake;
    atomic_int signal;    /* the first that came */
    atomic_bool printing; /* what the lock is held for */
    bool watched;
    bool progress; /* there may be half a line on the terminal */
    /* From here on under the lock. */
    pthread_mutex_t lock;
    const char *file;         /* to be removed; borrowed */
    chsnap_stop_fn *undo;     /* NULL: nothing to undo */
    void *undo_arg;           /* for it */
    char state[ERR_MSG_SIZE]; /* what is to be said of how things are */
} stop = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_signal(int sig)
{
    int none = 0;

    if (atomic_compare_exchange_strong(&stop.signal, &none, sig))
        (void)sem_post(&stop.wake);
}

/* Not by stdio, whose locks a thread that waits for its reader may hold. */
static void stop_say(int sig)
{
    char line[ERR_MSG_SIZE + 64];
    int n = snprintf(line, sizeof(line), "%schsnap: stopped by SIG%s: %s\n",
                     stop.progress ? "\r\033[K" : "", sigabbrev_np(sig), stop.state);

    if (n > 0 && write(STDERR_FILENO, line, strlen(line)) < 0)
        return;
}

/* What is half printed when its reader takes no more stays so. */
static void stop_lock(void)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += OUTPUT_PATIENCE_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    if (pthread_mutex_timedlock(&stop.lock, &until) != 0 && !atomic_load(&stop.printing))
        (void)pthread_mutex_lock(&stop.lock);
}

static void *stop_main(void *arg)
{
    int sig;

    (void)arg;
    while (sem_wait(&stop.wake) < 0)
        ;
    sig = atomic_load(&stop.signal);
    stop_lock();
    if (stop.undo)
        stop.undo(stop.undo_arg, stop.state, sizeof(stop.state));
    if (stop.file)
        (void)unlink(stop.file);
    if (sig != SIGPIPE) /* as any program that writes to nobody */
        stop_say(sig);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
    _exit(128 + sig);
}

/* A signal that is ignored stays so: whoever started us wants that. */
static int stop_watch(const struct chsnap *c)
{
    const struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction old;
    pthread_t thread;

    if (stop.watched)
        return 0;
    stop.progress = c->progress;
    if (sem_init(&stop.wake, 0, 0) < 0 || pthread_create(&thread, NULL, stop_main, NULL) != 0)
        return -1;
    (void)pthread_detach(thread);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(signals[i], &act, NULL);
    stop.watched = true;
    return 0;
}

void chsnap_stop_state(const struct chsnap *c, const char *fmt, ...)
{
    va_list ap;

    (void)pthread_mutex_lock(&stop.lock);
    va_start(ap, fmt);
    (void)vsnprintf(stop.state, sizeof(stop.state), fmt, ap);
    va_end(ap);
    (void)pthread_mutex_unlock(&stop.lock);
    /* Without a thread a signal ends the program as it would any. */
    (void)stop_watch(c);
}

void chsnap_stop_removing(const struct chsnap *c, uint64_t done, uint64_t total)
{
    chsnap_stop_state(c,
                      "at least %llu of %llu snapshots were removed, each of the others is whole",
                      (unsigned long long)done, (unsigned long long)total);
}

void chsnap_stop_undo(chsnap_stop_fn *undo, void *arg)
{
    (void)pthread_mutex_lock(&stop.lock);
    stop.undo = undo;
    stop.undo_arg = arg;
    (void)pthread_mutex_unlock(&stop.lock);
}

void chsnap_stop_file_locked(const char *temp, const char *name)
{
    stop.file = temp;
    if (name)
        (void)snprintf(stop.state, sizeof(stop.state), "%.200s %s", name,
                       temp ? "was not made" : "is whole");
}

void chsnap_stop_hold(void)
{
    (void)pthread_mutex_lock(&stop.lock);
}

void chsnap_stop_hold_output(void)
{
    chsnap_stop_hold();
    atomic_store(&stop.printing, true);
}

void chsnap_stop_release(void)
{
    atomic_store(&stop.printing, false);
    (void)pthread_mutex_unlock(&stop.lock);
}
