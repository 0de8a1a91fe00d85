/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a signal does: SIGINT, SIGTERM and SIGHUP end the program in order, and soon; so does SIGPIPE,
 * in silence.
 *
 * A thread waits for them, all others have them blocked; SIGPIPE is of the thread that wrote, which
 * hands it on.  That thread takes the lock that steps which must be whole are done with, undoes
 * what would be left half-done, says what was stopped and in what state things are, and has the
 * process die by the signal.  The work itself is not asked: it may be in a wait for a lock or for
 * a disk.  A store needs no more than that, it is made for processes that die at any time
 * (docs/store-format.md 7).
 */
#include <stdarg.h>

#include <pthread.h>
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

static struct {
    atomic_bool taken;    /* a signal: the program ends by it */
    atomic_bool printing; /* what the lock is held for */
    bool watched;
    pthread_t thread;
    sigset_t set;    /* what it waits for */
    sigset_t before; /* what was blocked without it */
    bool progress;   /* there may be half a line on the terminal */
    /* From here on under the lock. */
    pthread_mutex_t lock;
    const char *file;         /* to be removed; borrowed */
    chsnap_stop_fn *undo;     /* NULL: nothing to undo */
    void *undo_arg;           /* for it */
    char state[ERR_MSG_SIZE]; /* what is to be said of how things are */
} stop = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_pipe(int sig)
{
    (void)pthread_kill(stop.thread, sig);
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
    int sig = SIGTERM;
    sigset_t this;

    (void)arg;
    (void)sigwait(&stop.set, &sig);
    atomic_store(&stop.taken, true);
    stop_lock();
    if (stop.undo)
        stop.undo(stop.undo_arg, stop.state, sizeof(stop.state));
    if (stop.file)
        (void)unlink(stop.file);
    if (sig != SIGPIPE) /* as any program that writes to nobody */
        stop_say(sig);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
    (void)sigemptyset(&this);
    (void)sigaddset(&this, sig); /* another may have come since */
    (void)pthread_sigmask(SIG_UNBLOCK, &this, NULL);
    _exit(128 + sig);
}

/* A signal that is ignored stays so: whoever started us wants that. */
static void watch_unless_ignored(int sig)
{
    struct sigaction old;

    if (sigaction(sig, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
        (void)sigaddset(&stop.set, sig);
}

static int stop_watch(const struct chsnap *c)
{
    const struct sigaction act = {.sa_handler = on_pipe, .sa_flags = SA_RESTART};
    sigset_t pipe;

    if (stop.watched)
        return 0;
    stop.progress = c->progress;
    (void)sigemptyset(&stop.set);
    watch_unless_ignored(SIGINT);
    watch_unless_ignored(SIGTERM);
    watch_unless_ignored(SIGHUP);
    watch_unless_ignored(SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &stop.set, &stop.before);
    if (pthread_create(&stop.thread, NULL, stop_main, NULL) != 0) {
        (void)pthread_sigmask(SIG_SETMASK, &stop.before, NULL);
        return -1;
    }
    (void)pthread_detach(stop.thread);
    stop.watched = true;
    if (sigismember(&stop.set, SIGPIPE)) {
        (void)sigemptyset(&pipe);
        (void)sigaddset(&pipe, SIGPIPE);
        (void)sigaction(SIGPIPE, &act, NULL);
        (void)pthread_sigmask(SIG_UNBLOCK, &pipe, NULL);
    }
    return 0;
}

void chsnap_stop_mask_before(sigset_t *ret)
{
    *ret = stop.before;
    if (!stop.watched)
        (void)pthread_sigmask(SIG_SETMASK, NULL, ret);
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

void chsnap_stop_done_locked(const char *state)
{
    stop.undo = NULL;
    (void)snprintf(stop.state, sizeof(stop.state), "%s", state);
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
    while (atomic_load(&stop.taken))
        (void)pause();
}
