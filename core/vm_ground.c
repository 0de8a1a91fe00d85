/* SPDX-License-Identifier: Apache-2.0 */
#include "core/vm_ground.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>

#include "core/config/vm_config.h"
#include "core/gmem.h"
#include "core/log.h"
#include "core/vm_internal.h"

struct vm_ground {
    const struct vm_config *cfg; /* borrowed; NULL: KVM alone */
    pthread_t thread;
    bool going_on; /* the thread is to be joined */

    sem_t made; /* the two below are there, or made_rc says why not */
    struct kvm *kvm;
    struct gmem *gm;
    int made_rc;

    int rc; /* at the end of the thread */
    struct err err;
};

static void *ground_main(void *arg)
{
    struct vm_ground *g = arg;
    struct kvm *kvm;
    struct gmem *gm;
    int rc = 0;

    log_thread_name("ground");
    if (!g->kvm)
        rc = kvm_open(&g->kvm, &g->err);
    if (rc >= 0 && g->cfg)
        rc = vm_build_memory(g->cfg, &g->gm, &g->err);
    g->made_rc = rc;
    kvm = g->kvm;
    gm = g->gm;
    (void)sem_post(&g->made); /* from here on they may be the machine's */
    if (rc >= 0 && gm)
        rc = kvm_map_memory(kvm, gm, &g->err);
    g->rc = rc;
    return NULL;
}

static int start(struct vm_ground *g, struct err *err)
{
    sigset_t all, before;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = -pthread_create(&g->thread, NULL, ground_main, g);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc < 0)
        return err_set(err, rc, "thread for the memory: %s", strerror(-rc));
    g->going_on = true;
    return 0;
}

int vm_ground_begin(const struct vm_config *cfg, struct vm_ground **ret_ground, struct err *err)
{
    struct vm_ground *g = calloc(1, sizeof(*g));
    int rc;

    if (!g)
        return err_set(err, -ENOMEM, "memory of the VM: out of memory");
    *g = (struct vm_ground){.cfg = cfg};
    (void)sem_init(&g->made, 0, 0);
    rc = start(g, err);
    if (rc < 0) {
        vm_ground_free(g);
        return rc;
    }
    *ret_ground = g;
    return 0;
}

static void wait_made(struct vm_ground *g)
{
    while (sem_wait(&g->made) < 0)
        ;
}

int vm_ground_end(struct vm_ground *g, struct err *err)
{
    if (g->going_on)
        (void)pthread_join(g->thread, NULL);
    g->going_on = false;
    return g->rc < 0 ? err_set(err, g->rc, "%s", g->err.msg) : 0;
}

int vm_ground_take(struct vm_ground *g, const struct vm_config *cfg, struct kvm **ret_kvm,
                   struct gmem **ret_gm, struct err *err)
{
    wait_made(g);
    if (g->made_rc >= 0 && !g->gm) {
        /* Now that the configuration is known. */
        int rc = vm_ground_end(g, err);

        g->cfg = cfg;
        if (rc >= 0)
            rc = start(g, err);
        if (rc < 0)
            return rc;
        wait_made(g);
    }
    if (g->made_rc < 0)
        return vm_ground_end(g, err);
    *ret_kvm = steal_ptr(g->kvm);
    *ret_gm = steal_ptr(g->gm);
    return 0;
}

void vm_ground_free(struct vm_ground *g)
{
    if (!g)
        return;
    (void)!vm_ground_end(g, NULL);
    kvm_close(g->kvm);
    gmem_free(g->gm);
    (void)sem_destroy(&g->made);
    free(g);
}
