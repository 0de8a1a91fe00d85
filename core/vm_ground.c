/* SPDX-License-Identifier: Apache-2.0 */
#include "core/vm_ground.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "core/config/vm_config.h"
#include "core/gmem.h"
#include "core/log.h"
#include "core/vm_internal.h"

struct vm_ground {
    const struct vm_config *cfg; /* borrowed; NULL: not known */
    struct vm_config guess;      /* without @cfg, unless its memory's size is 0 */
    struct vm_ground_hint hint;
    pthread_t thread;
    bool going_on; /* the thread is to be joined */

    sem_t made; /* the two below are there, or made_rc says why not */
    struct kvm *kvm;
    struct gmem *gm;
    int made_rc;

    sem_t told; /* without @cfg and guess: the one below is known */
    bool is_told;
    struct gmem *to_map; /* NULL: none */

    atomic_bool enough; /* a machine took the ground, and does not want it populated */
    bool all;           /* it wants all of it populated */
    int populate_rc;
    struct err populate_err;

    int rc; /* at the end of the thread */
    struct err err;
};

static void wait_for(sem_t *sem)
{
    while (sem_wait(sem) < 0)
        ;
}

/* What to make memory from; NULL: it is made by who takes the ground. */
static const struct vm_config *made_from(const struct vm_ground *g)
{
    return g->cfg ? g->cfg : g->guess.memory.size ? &g->guess : NULL;
}

static void populate(struct vm_ground *g, struct gmem *gm)
{
    g->populate_rc = gmem_populate(gm, &g->enough, &g->populate_err);
    if (g->populate_rc < 0)
        log_warn("%s", g->populate_err.msg);
    else if (!atomic_load(&g->enough) && g->hint.populated)
        g->hint.populated(g->hint.arg);
}

static void *ground_main(void *arg)
{
    struct vm_ground *g = arg;
    const struct vm_config *from = made_from(g);
    struct kvm *kvm;
    struct gmem *gm;
    int rc;

    log_thread_name("ground");
    rc = kvm_open(&g->kvm, &g->err);
    if (rc >= 0 && from)
        rc = vm_build_memory(from, &g->gm, &g->err);
    if (rc >= 0 && g->hint.populate) {
        gmem_set_thp(g->gm, true);
        gmem_set_spare(g->gm, true);
    }
    g->made_rc = rc;
    kvm = g->kvm;
    gm = g->gm;
    (void)sem_post(&g->made); /* from here on they may be the machine's */
    if (!from) {
        wait_for(&g->told);
        gm = g->to_map;
    }
    if (rc >= 0 && gm)
        rc = kvm_map_memory(kvm, gm, &g->err);
    if (rc >= 0 && g->hint.populate)
        populate(g, gm);
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

int vm_ground_begin(const struct vm_config *cfg, const struct vm_ground_hint *hint,
                    struct vm_ground **ret_ground, struct err *err)
{
    struct vm_ground *g = calloc(1, sizeof(*g));
    int rc;

    if (!g)
        return err_set(err, -ENOMEM, "memory of the VM: out of memory");
    g->cfg = cfg;
    if (hint && !cfg && hint->size) {
        g->hint = *hint;
        g->guess.memory.size = hint->size;
    }
    (void)sem_init(&g->made, 0, 0);
    (void)sem_init(&g->told, 0, 0);
    rc = start(g, err);
    if (rc < 0) {
        vm_ground_free(g);
        return rc;
    }
    *ret_ground = g;
    return 0;
}

static void tell(struct vm_ground *g, struct gmem *to_map)
{
    if (g->is_told)
        return;
    g->is_told = true;
    g->to_map = to_map;
    (void)sem_post(&g->told);
}

int vm_ground_end(struct vm_ground *g, struct err *err)
{
    if (g->going_on)
        (void)pthread_join(g->thread, NULL);
    g->going_on = false;
    if (g->rc >= 0 && g->all && g->populate_rc < 0)
        return err_set(err, g->populate_rc, "%s", g->populate_err.msg);
    return g->rc < 0 ? err_set(err, g->rc, "%s", g->err.msg) : 0;
}

/* As vm_ground_guess(), whether or not it is to be populated. */
static uint64_t ordinary_size(const struct memory_config *m)
{
    bool is_special =
        m->mergeable || m->shared || m->hugepages || m->reserve || m->no_thp || m->nr_zones;

    return is_special ? 0 : m->size;
}

uint64_t vm_ground_guess(const struct vm_config *cfg)
{
    return cfg->memory.prefault ? 0 : ordinary_size(&cfg->memory);
}

static bool is_as_guessed(const struct vm_ground *g, const struct vm_config *cfg)
{
    uint64_t size = g->hint.populate ? ordinary_size(&cfg->memory) : vm_ground_guess(cfg);

    return size == g->guess.memory.size;
}

/* Start again: what was made ahead is of another machine. */
static int guessed_wrong(struct vm_ground **g, const struct vm_config *cfg, struct err *err)
{
    if ((*g)->hint.populate)
        log_info("the memory that was made ready is not what the VM has: it is made anew");
    vm_ground_free(steal_ptr(*g));
    return vm_ground_begin(cfg, NULL, g, err);
}

/* Memory is put behind all pages of a machine that is configured so, and no more behind others. */
static void settle_population(struct vm_ground *g, const struct vm_config *cfg)
{
    g->all = cfg->memory.prefault;
    if (g->all)
        gmem_set_spare(g->gm, false);
    else
        atomic_store(&g->enough, true);
}

int vm_ground_take(struct vm_ground **ground, const struct vm_config *cfg, struct kvm **ret_kvm,
                   struct gmem **ret_gm, struct err *err)
{
    struct vm_ground *g;
    int rc = 0;

    if (!*ground)
        rc = vm_ground_begin(cfg, NULL, ground, err);
    else if ((*ground)->guess.memory.size && !is_as_guessed(*ground, cfg))
        rc = guessed_wrong(ground, cfg, err);
    if (rc < 0)
        return rc;
    g = *ground;
    wait_for(&g->made);
    if (!made_from(g)) {
        /*
         * Not by the thread, which is older than the sandbox: a configuration that came from
         * elsewhere may name files.
         */
        if (g->made_rc >= 0)
            rc = vm_build_memory(cfg, &g->gm, err);
        tell(g, g->gm);
    }
    if (rc < 0)
        return rc;
    if (g->made_rc < 0)
        return vm_ground_end(g, err);
    if (g->hint.populate)
        settle_population(g, cfg);
    *ret_kvm = steal_ptr(g->kvm);
    *ret_gm = steal_ptr(g->gm);
    return 0;
}

void vm_ground_free(struct vm_ground *g)
{
    if (!g)
        return;
    tell(g, NULL);
    atomic_store(&g->enough, true);
    (void)!vm_ground_end(g, NULL);
    kvm_close(g->kvm);
    gmem_free(g->gm);
    (void)sem_destroy(&g->made);
    (void)sem_destroy(&g->told);
    free(g);
}
