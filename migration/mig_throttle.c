/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_throttle.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "core/log.h"
#include "core/loop.h"

enum {
    PERIOD_NS = 10000000, /* the guest is kept out for a part of each */
};

struct mig_throttle {
    mig_nap_fn *nap;
    void *arg;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* below */
    pthread_cond_t cond;
    unsigned percent;
    bool quit;
};

static void *throttle_main(void *arg)
{
    struct mig_throttle *t = arg;
    uint64_t begin = loop_now_ns();

    log_thread_name("mig-throttle");
    (void)pthread_mutex_lock(&t->lock);
    while (!t->quit) {
        struct timespec next;

        if (!t->percent) {
            (void)pthread_cond_wait(&t->cond, &t->lock);
            begin = loop_now_ns();
            continue;
        }
        t->nap(t->arg, begin + (uint64_t)PERIOD_NS / 100 * t->percent);
        begin += PERIOD_NS;
        if (begin < loop_now_ns())
            begin = loop_now_ns(); /* late: no use in catching up */
        next = (struct timespec){(time_t)(begin / 1000000000), (long)(begin % 1000000000)};
        while (!t->quit && t->percent &&
               pthread_cond_timedwait(&t->cond, &t->lock, &next) != ETIMEDOUT)
            ;
    }
    (void)pthread_mutex_unlock(&t->lock);
    return NULL;
}

int mig_throttle_new(mig_nap_fn *nap, void *arg, struct mig_throttle **ret_t)
{
    struct mig_throttle *t = calloc(1, sizeof(*t));
    pthread_condattr_t attr;

    if (!t)
        return -ENOMEM;
    t->nap = nap;
    t->arg = arg;
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&t->cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    *ret_t = t;
    return 0;
}

static void apply(struct mig_throttle *t, unsigned percent)
{
    (void)pthread_mutex_lock(&t->lock);
    t->percent = percent;
    if (!percent && t->started)
        t->nap(t->arg, 0);
    (void)pthread_cond_broadcast(&t->cond);
    (void)pthread_mutex_unlock(&t->lock);
}

int mig_throttle_set(struct mig_throttle *t, unsigned percent)
{
    if (percent && !t->started) {
        int rc = -pthread_create(&t->thread, NULL, throttle_main, t);

        if (rc < 0)
            return rc;
        t->started = true;
    }
    apply(t, percent);
    return 0;
}

void mig_throttle_off(struct mig_throttle *t)
{
    if (t)
        apply(t, 0);
}

void mig_throttle_free(struct mig_throttle *t)
{
    if (!t)
        return;
    apply(t, 0);
    (void)pthread_mutex_lock(&t->lock);
    t->quit = true;
    (void)pthread_cond_broadcast(&t->cond);
    (void)pthread_mutex_unlock(&t->lock);
    if (t->started)
        (void)pthread_join(t->thread, NULL);
    (void)pthread_cond_destroy(&t->cond);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}
