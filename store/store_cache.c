/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_cache.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>

enum cache_state {
    CACHE_EMPTY,
    CACHE_LOADING,
    CACHE_READY,
};

struct cache_slot {
    uint64_t key;
    enum cache_state state;
    unsigned users;
    uint64_t stamp; /* of the last use */
    void *obj;
};

struct store_cache {
    pthread_mutex_t lock; /* leaf; not held while loading */
    pthread_cond_t changed;
    uint64_t clock;
    size_t len;
    unsigned nr;
    struct cache_slot slots[];
};

int store_cache_new(unsigned nr, size_t len, struct store_cache **ret_c)
{
    struct store_cache *c = calloc(1, sizeof(*c) + nr * sizeof(c->slots[0]));

    if (!c)
        return -ENOMEM;
    c->nr = nr;
    c->len = len;
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->changed, NULL);
    *ret_c = c;
    return 0;
}

void store_cache_free(struct store_cache *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->nr; i++) {
        assert(c->slots[i].users == 0);
        free(c->slots[i].obj);
    }
    (void)pthread_cond_destroy(&c->changed);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

static struct cache_slot *cache_find_locked(struct store_cache *c, uint64_t key)
{
    for (unsigned i = 0; i < c->nr; i++)
        if (c->slots[i].state != CACHE_EMPTY && c->slots[i].key == key)
            return &c->slots[i];
    return NULL;
}

/* The slot to load into: an empty one, else the oldest that nobody uses, else none. */
static struct cache_slot *cache_victim_locked(struct store_cache *c)
{
    struct cache_slot *best = NULL;

    for (unsigned i = 0; i < c->nr; i++) {
        struct cache_slot *s = &c->slots[i];

        if (s->state == CACHE_EMPTY && !s->users)
            return s;
        if (s->state == CACHE_READY && !s->users && (!best || s->stamp < best->stamp))
            best = s;
    }
    return best;
}

/* The slot of the key, READY; or one that is ours to load, LOADING; or none for now. */
static struct cache_slot *cache_try_locked(struct store_cache *c, uint64_t key)
{
    struct cache_slot *s = cache_find_locked(c, key);

    if (s && s->state != CACHE_READY)
        return NULL; /* another thread is loading it */
    if (!s) {
        s = cache_victim_locked(c);
        if (!s)
            return NULL;
        s->key = key;
        s->state = CACHE_LOADING;
        s->users = 0;
    }
    s->users++;
    s->stamp = ++c->clock;
    return s;
}

int store_cache_get(struct store_cache *c, uint64_t key, store_cache_load_fn *load, void *arg,
                    const void **ret_obj, struct err *err)
{
    struct cache_slot *s;
    bool ready;
    int rc = 0;

    (void)pthread_mutex_lock(&c->lock);
    while (!(s = cache_try_locked(c, key)))
        (void)pthread_cond_wait(&c->changed, &c->lock);
    ready = s->state == CACHE_READY;
    if (!s->obj)
        s->obj = malloc(c->len);
    (void)pthread_mutex_unlock(&c->lock);
    if (ready) {
        *ret_obj = s->obj;
        return 0;
    }
    rc = s->obj ? load(arg, key, s->obj, err) : store_no_memory(err);
    (void)pthread_mutex_lock(&c->lock);
    s->state = rc < 0 ? CACHE_EMPTY : CACHE_READY;
    if (rc < 0)
        s->users = 0;
    else
        *ret_obj = s->obj;
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
    return rc < 0 ? rc : 0;
}

void store_cache_put(struct store_cache *c, const void *obj)
{
    (void)pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->nr; i++) {
        struct cache_slot *s = &c->slots[i];

        if (s->obj != obj)
            continue;
        assert(s->users > 0);
        if (--s->users == 0)
            (void)pthread_cond_broadcast(&c->changed);
        break;
    }
    (void)pthread_mutex_unlock(&c->lock);
}
