/* SPDX-License-Identifier: Apache-2.0 */
#include "core/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

enum {
    LOOP_BATCH = 32, /* events taken by one epoll_wait() */
};

struct loop_source {
    struct loop *loop;
    int fd;
    bool owns_fd; /* timers */
    loop_fd_fn *fd_fn;
    loop_fn *timer_fn;
    void *arg;
    bool dead; /* under loop->lock; freed after the batch that may still name it */
    struct loop_source *next_dead;
};

struct loop_call {
    loop_fn *fn;
    void *arg;
    bool wait; /* whoever waits owns it */
    bool done; /* under loop->lock */
    struct loop_call *next;
};

struct loop {
    int epoll_fd;
    int wake_fd;
    pthread_mutex_t lock; /* all below; a leaf */
    pthread_cond_t changed;
    bool running;
    bool stop;
    pthread_t thread;
    struct loop_source *current; /* whose callback runs */
    struct loop_source *dead;
    struct loop_call *first_call;
    struct loop_call **last_call;
};

uint64_t loop_now_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* --- Life cycle ---------------------------------------------------------- */

static void wake(struct loop *loop)
{
    uint64_t one = 1;

    /* Full counter: the loop is awake already. */
    if (write(loop->wake_fd, &one, sizeof(one)) < 0)
        return;
}

int loop_new(struct loop **ret_loop)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    int rc = 0;

    if (!loop)
        return -ENOMEM;
    (void)pthread_mutex_init(&loop->lock, NULL);
    (void)pthread_cond_init(&loop->changed, NULL);
    loop->last_call = &loop->first_call;
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->wake_fd < 0 || loop->epoll_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0)
        rc = -errno;
    if (rc < 0) {
        loop_free(loop);
        return rc;
    }
    *ret_loop = loop;
    return 0;
}

static void bury(struct loop_source *src)
{
    if (src->owns_fd)
        (void)close(src->fd);
    free(src);
}

static void bury_dead_locked(struct loop *loop)
{
    while (loop->dead) {
        struct loop_source *src = loop->dead;

        loop->dead = src->next_dead;
        bury(src);
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    bury_dead_locked(loop);
    while (loop->first_call) {
        struct loop_call *c = loop->first_call;

        loop->first_call = c->next;
        free(c);
    }
    if (loop->epoll_fd >= 0)
        (void)close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        (void)close(loop->wake_fd);
    (void)pthread_cond_destroy(&loop->changed);
    (void)pthread_mutex_destroy(&loop->lock);
    free(loop);
}

/* --- Sources ------------------------------------------------------------- */

static int add(struct loop_source *src, uint32_t events, struct loop_source **ret_src)
{
    struct epoll_event ev = {.events = events, .data.ptr = src};

    if (epoll_ctl(src->loop->epoll_fd, EPOLL_CTL_ADD, src->fd, &ev) < 0)
        return -errno;
    *ret_src = src;
    return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *arg,
                struct loop_source **ret_src)
{
    struct loop_source *src = calloc(1, sizeof(*src));
    int rc;

    if (!src)
        return -ENOMEM;
    *src = (struct loop_source){.loop = loop, .fd = fd, .fd_fn = fn, .arg = arg};
    rc = add(src, events, ret_src);
    if (rc < 0)
        free(src);
    return rc;
}

void loop_set_events(struct loop_source *src, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = src};

    /* Fails only for a descriptor that its owner closed too early. */
    (void)epoll_ctl(src->loop->epoll_fd, EPOLL_CTL_MOD, src->fd, &ev);
}

int loop_add_timer(struct loop *loop, loop_fn *fn, void *arg, struct loop_source **ret_src)
{
    struct loop_source *src = calloc(1, sizeof(*src));
    int rc;

    if (!src)
        return -ENOMEM;
    *src = (struct loop_source){.loop = loop, .owns_fd = true, .timer_fn = fn, .arg = arg};
    src->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    rc = src->fd < 0 ? -errno : add(src, EPOLLIN, ret_src);
    if (rc < 0) {
        if (src->fd >= 0)
            (void)close(src->fd);
        free(src);
    }
    return rc;
}

void loop_arm_timer(struct loop_source *timer, uint64_t deadline_ns)
{
    struct itimerspec its = {
        .it_value = {.tv_sec = (time_t)(deadline_ns / UINT64_C(1000000000)),
                     .tv_nsec = (long)(deadline_ns % UINT64_C(1000000000))},
    };

    (void)timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void loop_remove(struct loop_source *src)
{
    struct loop *loop;

    if (!src)
        return;
    loop = src->loop;
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, src->fd, NULL);
    (void)pthread_mutex_lock(&loop->lock);
    if (!loop->running) {
        (void)pthread_mutex_unlock(&loop->lock);
        bury(src);
        return;
    }
    src->dead = true;
    src->next_dead = loop->dead;
    loop->dead = src;
    if (!pthread_equal(loop->thread, pthread_self())) {
        wake(loop);
        while (loop->running && loop->current == src)
            (void)pthread_cond_wait(&loop->changed, &loop->lock);
    }
    (void)pthread_mutex_unlock(&loop->lock);
}

/* --- Calls from other threads -------------------------------------------- */

static void push_locked(struct loop *loop, struct loop_call *c)
{
    *loop->last_call = c;
    loop->last_call = &c->next;
    wake(loop);
}

int loop_post(struct loop *loop, loop_fn *fn, void *arg)
{
    struct loop_call *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->fn = fn;
    c->arg = arg;
    (void)pthread_mutex_lock(&loop->lock);
    push_locked(loop, c);
    (void)pthread_mutex_unlock(&loop->lock);
    return 0;
}

/* Whether the caller has to make the call itself. */
static bool is_own_locked(const struct loop *loop)
{
    return !loop->running || pthread_equal(loop->thread, pthread_self());
}

int loop_call_begin(struct loop *loop, loop_fn *fn, void *arg, struct loop_call **ret_call)
{
    struct loop_call *c;

    *ret_call = NULL;
    (void)pthread_mutex_lock(&loop->lock);
    if (is_own_locked(loop)) {
        (void)pthread_mutex_unlock(&loop->lock);
        fn(arg);
        return 0;
    }
    c = calloc(1, sizeof(*c));
    if (c) {
        *c = (struct loop_call){.fn = fn, .arg = arg, .wait = true};
        push_locked(loop, c);
    }
    (void)pthread_mutex_unlock(&loop->lock);
    *ret_call = c;
    return c ? 0 : -ENOMEM;
}

bool loop_call_is_done(struct loop *loop, const struct loop_call *c)
{
    bool done;

    (void)pthread_mutex_lock(&loop->lock);
    done = !c || c->done;
    (void)pthread_mutex_unlock(&loop->lock);
    return done;
}

static void await_locked(struct loop *loop, const struct loop_call *c)
{
    while (!c->done)
        (void)pthread_cond_wait(&loop->changed, &loop->lock);
}

void loop_call_end(struct loop *loop, struct loop_call *c)
{
    if (!c)
        return;
    (void)pthread_mutex_lock(&loop->lock);
    await_locked(loop, c);
    (void)pthread_mutex_unlock(&loop->lock);
    free(c);
}

void loop_call(struct loop *loop, loop_fn *fn, void *arg)
{
    struct loop_call c = {.fn = fn, .arg = arg, .wait = true};
    bool is_own;

    (void)pthread_mutex_lock(&loop->lock);
    is_own = is_own_locked(loop);
    if (!is_own) {
        push_locked(loop, &c);
        await_locked(loop, &c);
    }
    (void)pthread_mutex_unlock(&loop->lock);
    if (is_own)
        fn(arg);
}

static void run_calls(struct loop *loop)
{
    struct loop_call *c;

    (void)pthread_mutex_lock(&loop->lock);
    while ((c = loop->first_call)) {
        loop->first_call = c->next;
        if (!loop->first_call)
            loop->last_call = &loop->first_call;
        (void)pthread_mutex_unlock(&loop->lock);
        c->fn(c->arg);
        (void)pthread_mutex_lock(&loop->lock);
        if (c->wait) {
            c->done = true;
            (void)pthread_cond_broadcast(&loop->changed);
        } else {
            free(c);
        }
    }
    (void)pthread_mutex_unlock(&loop->lock);
}

/* --- Dispatch ------------------------------------------------------------ */

static void dispatch(struct loop *loop, struct loop_source *src, uint32_t events)
{
    uint64_t expirations;

    (void)pthread_mutex_lock(&loop->lock);
    if (src->dead) {
        (void)pthread_mutex_unlock(&loop->lock);
        return;
    }
    loop->current = src;
    (void)pthread_mutex_unlock(&loop->lock);

    if (src->fd_fn)
        src->fd_fn(src->arg, events);
    else if (read(src->fd, &expirations, sizeof(expirations)) > 0)
        src->timer_fn(src->arg);

    (void)pthread_mutex_lock(&loop->lock);
    loop->current = NULL;
    (void)pthread_cond_broadcast(&loop->changed);
    (void)pthread_mutex_unlock(&loop->lock);
}

/* One round; true while the loop shall go on. */
static bool round_locked(struct loop *loop, struct epoll_event *evs, int n)
{
    uint64_t count;
    bool calls = false;

    (void)pthread_mutex_unlock(&loop->lock);
    for (int i = 0; i < n; i++) {
        if (evs[i].data.ptr)
            dispatch(loop, evs[i].data.ptr, evs[i].events);
        else
            calls = read(loop->wake_fd, &count, sizeof(count)) > 0;
    }
    if (calls)
        run_calls(loop);
    (void)pthread_mutex_lock(&loop->lock);
    bury_dead_locked(loop);
    return !loop->stop;
}

int loop_run(struct loop *loop)
{
    struct epoll_event evs[LOOP_BATCH];
    int rc = 0;

    (void)pthread_mutex_lock(&loop->lock);
    loop->running = true;
    loop->thread = pthread_self();
    while (!loop->stop) {
        int n;

        (void)pthread_mutex_unlock(&loop->lock);
        n = epoll_wait(loop->epoll_fd, evs, LOOP_BATCH, -1);
        rc = n < 0 && errno != EINTR ? -errno : 0;
        (void)pthread_mutex_lock(&loop->lock);
        if (rc < 0 || !round_locked(loop, evs, n))
            break;
    }
    /* Nobody waits for ever on a loop that has ended: what is asked for from now on runs there. */
    while (loop->first_call) {
        (void)pthread_mutex_unlock(&loop->lock);
        run_calls(loop);
        (void)pthread_mutex_lock(&loop->lock);
    }
    loop->running = false;
    loop->stop = false;
    (void)pthread_cond_broadcast(&loop->changed);
    (void)pthread_mutex_unlock(&loop->lock);
    return rc;
}

void loop_stop(struct loop *loop)
{
    (void)pthread_mutex_lock(&loop->lock);
    loop->stop = true;
    wake(loop);
    (void)pthread_mutex_unlock(&loop->lock);
}
