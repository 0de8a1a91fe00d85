/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_time.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"

enum {
    THREADS_MAX = 128,
    OVERTAKEN = 8,        /* of so many calls that wait for nothing, one gives the turn away */
    TURNS_MAX = 10000000, /* more is a run that never ends */
};

#define EPOCH_NS   UINT64_C(1000000000000)  /* the clock at the beginning: no moment is 0 */
#define LONGEST_NS UINT64_C(86400000000000) /* the same */
#define NEVER_NS   UINT64_MAX

struct thread {
    unsigned id;
    sem_t turn; /* posted by who gives it the turn */
    pthread_t pthread;
    void *(*fn)(void *);
    void *arg;
    bool done;

    bool waits;         /* for the first of those below */
    const void *object; /* a mutex, a condition, or a thread that ends; NULL: none */
    struct pollfd *fds; /* borrowed; NULL: none */
    nfds_t nr_fds;
    uint64_t deadline_ns;
};

/* Of who has the turn: nobody else looks at it. */
static struct {
    struct thread *threads[THREADS_MAX];
    unsigned nr_threads, next_id, seed;
    uint64_t now_ns, x, trace, turns;
} world;

static _Thread_local struct thread *self; /* NULL: lives in the machine's time */

int __real_poll(struct pollfd *fds, nfds_t nr, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t nr, int ms);
int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
int __real_clock_nanosleep(clockid_t clock, int flags, const struct timespec *ts,
                           struct timespec *left);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *ts,
                           struct timespec *left);
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __real_send(int fd, const void *data, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t len, int flags);
int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __real_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *m);
int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *m,
                                  const struct timespec *at);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *m,
                                  const struct timespec *at);
int __real_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_signal(pthread_cond_t *cond);
int __real_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
int __real_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __real_pthread_join(pthread_t pthread, void **ret);
int __wrap_pthread_join(pthread_t pthread, void **ret);

/* --- Whose turn it is ----------------------------------------------------- */

static unsigned draw(unsigned below)
{
    world.x = world.x * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)((world.x >> 33) % below);
}

static void give_up(const char *why)
{
    (void)fprintf(stderr, "fake_time: seed %u: %s, after %llu ns\n", world.seed, why,
                  (unsigned long long)fake_time_ns());
    for (unsigned i = 0; i < world.nr_threads; i++) {
        const struct thread *t = world.threads[i];

        if (!t->done)
            (void)fprintf(stderr, "  thread %u %s\n", t->id,
                          !t->waits   ? "runs"
                          : t->fds    ? "waits for descriptors"
                          : t->object ? "waits for another"
                                      : "sleeps");
    }
    abort();
}

static bool can_run(const struct thread *t)
{
    if (t->done)
        return false;
    return !t->waits || t->deadline_ns <= world.now_ns ||
           (t->fds && __real_poll(t->fds, t->nr_fds, 0) != 0);
}

/* All wait: the first moment that one of them waits for has come. */
static void jump(void)
{
    uint64_t first = NEVER_NS;

    for (unsigned i = 0; i < world.nr_threads; i++)
        if (!world.threads[i]->done && world.threads[i]->deadline_ns < first)
            first = world.threads[i]->deadline_ns;
    if (first == NEVER_NS)
        give_up("all threads wait for each other");
    world.now_ns = first;
}

static struct thread *pick(void)
{
    struct thread *ready[THREADS_MAX];

    if (++world.turns > TURNS_MAX || fake_time_ns() > LONGEST_NS)
        give_up("this never ends");
    for (;; jump()) {
        unsigned n = 0;

        for (unsigned i = 0; i < world.nr_threads; i++)
            if (can_run(world.threads[i]))
                ready[n++] = world.threads[i];
        if (n)
            return ready[draw(n)];
    }
}

static void await_turn(void)
{
    while (sem_wait(&self->turn) < 0)
        if (errno != EINTR)
            abort();
}

static void note(uint64_t what)
{
    world.trace = (world.trace ^ what) * UINT64_C(1099511628211);
}

/* Until it comes back; for ever where this thread is done. */
static void give_turn(void)
{
    struct thread *next = pick();

    note(next->id);
    note(world.now_ns);
    if (next == self)
        return;
    if (sem_post(&next->turn) < 0)
        abort();
    if (!self->done)
        await_turn();
}

static void may_be_overtaken(void)
{
    if (draw(OVERTAKEN) == 0)
        give_turn();
}

/* --- Waiting -------------------------------------------------------------- */

static struct thread *begin_wait(uint64_t deadline_ns)
{
    self->waits = true;
    self->deadline_ns = deadline_ns;
    return self;
}

/* Return: whether nobody called wake() in time. */
static bool end_wait(void)
{
    bool timed_out;

    give_turn();
    timed_out = self->waits;
    self->waits = false;
    self->object = NULL;
    self->fds = NULL;
    self->deadline_ns = NEVER_NS;
    return timed_out;
}

static bool await_object(const void *object, uint64_t deadline_ns)
{
    begin_wait(deadline_ns)->object = object;
    return end_wait();
}

static void wake(const void *object, bool all)
{
    struct thread *sleepers[THREADS_MAX];
    unsigned n = 0;

    for (unsigned i = 0; i < world.nr_threads; i++)
        if (world.threads[i]->waits && world.threads[i]->object == object)
            sleepers[n++] = world.threads[i];
    if (n && !all) {
        sleepers[draw(n)]->waits = false;
        return;
    }
    for (unsigned i = 0; i < n; i++)
        sleepers[i]->waits = false;
}

static uint64_t ns_of(const struct timespec *ts)
{
    return (uint64_t)ts->tv_sec * UINT64_C(1000000000) + (uint64_t)ts->tv_nsec;
}

/* --- The C library: time and descriptors ---------------------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    if (!self || clock != CLOCK_MONOTONIC)
        return __real_clock_gettime(clock, ts);
    may_be_overtaken();
    *ts = (struct timespec){(time_t)(world.now_ns / UINT64_C(1000000000)),
                            (long)(world.now_ns % UINT64_C(1000000000))};
    return 0;
}

int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *ts,
                           struct timespec *left)
{
    if (!self || clock != CLOCK_MONOTONIC)
        return __real_clock_nanosleep(clock, flags, ts, left);
    (void)begin_wait(ns_of(ts) + (flags & TIMER_ABSTIME ? 0 : world.now_ns));
    (void)end_wait();
    return 0;
}

int __wrap_poll(struct pollfd *fds, nfds_t nr, int ms)
{
    uint64_t deadline;

    if (!self)
        return __real_poll(fds, nr, ms);
    may_be_overtaken();
    deadline = ms < 0 ? NEVER_NS : world.now_ns + (uint64_t)ms * 1000000;
    for (;;) {
        int n = __real_poll(fds, nr, 0);

        if (n != 0 || world.now_ns >= deadline)
            return n;
        begin_wait(deadline)->fds = fds;
        self->nr_fds = nr;
        (void)end_wait();
    }
}

/* The peer may have all of it before the next call. */
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    ssize_t n = __real_sendmsg(fd, msg, flags);
    int kept = errno;

    if (self)
        may_be_overtaken();
    errno = kept;
    return n;
}

ssize_t __wrap_send(int fd, const void *data, size_t len, int flags)
{
    ssize_t n = __real_send(fd, data, len, flags);
    int kept = errno;

    if (self)
        may_be_overtaken();
    errno = kept;
    return n;
}

/* --- The C library: threads ----------------------------------------------- */

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    int rc;

    if (!self)
        return __real_pthread_mutex_lock(m);
    may_be_overtaken();
    while ((rc = pthread_mutex_trylock(m)) == EBUSY)
        (void)await_object(m, NEVER_NS);
    return rc;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    int rc = __real_pthread_mutex_unlock(m);

    if (self) {
        wake(m, true);
        may_be_overtaken();
    }
    return rc;
}

static int await_cond(pthread_cond_t *cond, pthread_mutex_t *m, uint64_t deadline_ns)
{
    bool timed_out;

    (void)__real_pthread_mutex_unlock(m);
    wake(m, true);
    timed_out = await_object(cond, deadline_ns);
    (void)__wrap_pthread_mutex_lock(m);
    return timed_out ? ETIMEDOUT : 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *m)
{
    return self ? await_cond(cond, m, NEVER_NS) : __real_pthread_cond_wait(cond, m);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *m,
                                  const struct timespec *at)
{
    return self ? await_cond(cond, m, ns_of(at)) : __real_pthread_cond_timedwait(cond, m, at);
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
    if (!self)
        return __real_pthread_cond_signal(cond);
    wake(cond, false);
    may_be_overtaken();
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
    if (!self)
        return __real_pthread_cond_broadcast(cond);
    wake(cond, true);
    may_be_overtaken();
    return 0;
}

static struct thread *add_thread(void)
{
    struct thread *t = calloc(1, sizeof(*t));

    if (!t || world.nr_threads == THREADS_MAX || sem_init(&t->turn, 0, 0) < 0)
        abort();
    t->id = world.next_id++;
    t->deadline_ns = NEVER_NS;
    world.threads[world.nr_threads++] = t;
    return t;
}

/* The order of the others stays: it is part of what is replayed. */
static void remove_thread(unsigned at)
{
    struct thread *t = world.threads[at];

    for (world.nr_threads--; at < world.nr_threads; at++)
        world.threads[at] = world.threads[at + 1];
    (void)sem_destroy(&t->turn);
    free(t);
}

static void *thread_main(void *arg)
{
    void *ret;

    self = arg;
    await_turn();
    ret = self->fn(self->arg);
    self->done = true;
    wake(self, true);
    give_turn();
    return ret;
}

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg)
{
    struct thread *t;
    int rc;

    if (!self)
        return __real_pthread_create(ret, attr, fn, arg);
    t = add_thread();
    t->fn = fn;
    t->arg = arg;
    rc = __real_pthread_create(&t->pthread, attr, thread_main, t);
    if (rc != 0) {
        remove_thread(world.nr_threads - 1);
        return rc;
    }
    *ret = t->pthread;
    may_be_overtaken();
    return 0;
}

int __wrap_pthread_join(pthread_t pthread, void **ret)
{
    unsigned i = 0;
    int rc;

    if (!self)
        return __real_pthread_join(pthread, ret);
    while (i < world.nr_threads && !pthread_equal(world.threads[i]->pthread, pthread))
        i++;
    if (i == world.nr_threads)
        give_up("a stranger is joined");
    if (!world.threads[i]->done)
        (void)await_object(world.threads[i], NEVER_NS);
    rc = __real_pthread_join(pthread, ret);
    for (i = 0; !pthread_equal(world.threads[i]->pthread, pthread);)
        i++;
    remove_thread(i);
    return rc;
}

/* --- Interface ------------------------------------------------------------ */

void fake_time_begin(unsigned seed)
{
    /* Threads of a run that failed wait for their turn for ever, in memory of their own. */
    world.nr_threads = world.next_id = 0;
    world.now_ns = EPOCH_NS;
    world.seed = seed;
    world.x = seed * UINT64_C(2654435761) + 1;
    world.trace = UINT64_C(14695981039346656037);
    world.turns = 0;
    self = add_thread();
    self->pthread = pthread_self();
}

void fake_time_end(void)
{
    if (world.nr_threads != 1)
        give_up("threads are left");
    remove_thread(0);
    self = NULL;
}

uint64_t fake_time_ns(void)
{
    return world.now_ns - EPOCH_NS;
}

uint64_t fake_time_trace(void)
{
    return world.trace;
}
