/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_eager.h"

#include <errno.h>
#include <pthread.h>

#include "core/gmem.h"
#include "store/store_reader.h"

enum {
    EAGER_THREADS_MAX = 8,
};

/* What the threads share. */
struct walk {
    const struct store_record *rec;
    snap_chunk_fn *fn;
    void *arg;
    struct snap_progress *p;
    pthread_mutex_t lock; /* all below */
    unsigned region;
    uint64_t page;
    int rc;
    struct err err;
};

static bool next_chunk(struct walk *w, struct snap_chunk *ret)
{
    bool found = false;

    (void)pthread_mutex_lock(&w->lock);
    while (w->rc >= 0 && !found && w->region < w->rec->nr_regions) {
        uint64_t left = w->rec->regions[w->region].pages - w->page;

        if (left) {
            *ret = (struct snap_chunk){w->region, w->page,
                                       left < SNAP_CHUNK_PAGES ? left : SNAP_CHUNK_PAGES};
            w->page += ret->nr;
            found = true;
        } else {
            w->region++;
            w->page = 0;
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
    return found;
}

static void *walk_main(void *arg)
{
    struct walk *w = arg;
    struct snap_chunk chunk;

    while (next_chunk(w, &chunk)) {
        struct err err = {0};
        int rc = snap_check(w->p, &err);

        if (rc >= 0)
            rc = w->fn(w->arg, &chunk, &err);
        atomic_fetch_add(&w->p->pages_done, chunk.nr);
        if (rc >= 0)
            continue;
        (void)pthread_mutex_lock(&w->lock);
        if (w->rc >= 0) {
            w->rc = rc;
            w->err = err;
        }
        (void)pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

int snap_for_chunks(const struct store_record *rec, snap_chunk_fn *fn, void *arg,
                    struct snap_progress *p, struct err *err)
{
    struct walk w = {.rec = rec, .fn = fn, .arg = arg, .p = p, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[EAGER_THREADS_MAX];
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned want = cpus > EAGER_THREADS_MAX ? EAGER_THREADS_MAX : (unsigned)cpus, n = 0;

    /* This thread works too; fewer helpers than wanted are only slower. */
    while (n + 1 < want && pthread_create(&threads[n], NULL, walk_main, &w) == 0)
        n++;
    (void)walk_main(&w);
    while (n)
        (void)pthread_join(threads[--n], NULL);
    return w.rc < 0 ? err_set(err, w.rc, "%s", w.err.msg) : 0;
}

int snap_check_layout(const struct store_record *rec, const struct gmem *gm, struct err *err)
{
    if (rec->nr_regions != gmem_nr_regions(gm))
        return err_set(err, -EINVAL, "the snapshot has %u memory regions, the machine %u",
                       rec->nr_regions, gmem_nr_regions(gm));
    for (unsigned i = 0; i < rec->nr_regions; i++) {
        const struct gmem_region *g = gmem_region(gm, i);

        if (rec->regions[i].gpa != g->gpa || rec->regions[i].pages != g->len >> PAGE_SHIFT_4K)
            return err_set(err, -EINVAL, "memory region %u: the snapshot's is elsewhere", i);
    }
    return 0;
}

/* --- Into guest memory ------------------------------------------------------------ */

struct reading {
    struct store_snapshot *snapshot;
    struct gmem *gm;
};

static int read_chunk(void *arg, const struct snap_chunk *c, struct err *err)
{
    struct reading *r = arg;
    const struct gmem_region *g = gmem_region(r->gm, c->region);
    uint64_t gpa = g->gpa + (c->first << PAGE_SHIFT_4K), len = c->nr << PAGE_SHIFT_4K;
    struct iovec iov;
    int rc = gmem_pin_write(r->gm, gpa, len, &iov, 1);

    if (rc < 0)
        return rc;
    /* A file may come with contents: there, zeroes have to be written. */
    rc = (g->fresh ? store_snapshot_read_sparse : store_snapshot_read)(
        r->snapshot, c->region, c->first, c->nr, iov.iov_base, err);
    gmem_unpin_write(r->gm, gpa, len);
    return rc;
}

int snap_read_memory(struct store_snapshot *snapshot, struct gmem *gm, struct snap_progress *p,
                     struct err *err)
{
    struct reading r = {snapshot, gm};

    gmem_set_thp(gm, true);
    return snap_for_chunks(store_snapshot_info(snapshot)->rec, read_chunk, &r, p, err);
}
