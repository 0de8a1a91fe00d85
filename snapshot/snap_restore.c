/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_restore.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "core/gmem.h"
#include "store/store_reader.h"
#include "store/store_url.h"

enum {
    RESTORE_CHUNK_PAGES = 2048, /* read by one thread at a time: four leaves, 8 MiB */
    RESTORE_THREADS_MAX = 8,
};

struct snap {
    struct store *store;
    struct store_snapshot *snapshot;
    uint8_t *state; /* description, then the machine's state */
    size_t state_len;
    size_t description_len; /* known after snap_describe() */
};

int snap_open(const char *url, struct snap **ret_snap, struct err *err)
{
    struct snap *s = calloc(1, sizeof(*s));
    char id[STORE_DIGEST_HEX + 1];
    struct store_url u;
    int rc = s ? store_url_parse(url, &u, err) : -ENOMEM;

    if (rc >= 0)
        rc = store_open(u.path, STORE_RDONLY, &s->store, err);
    if (rc >= 0)
        rc = u.snapshot[0] ? store_resolve(s->store, u.snapshot, id, err)
                           : store_newest(s->store, NULL, id, err);
    if (rc >= 0)
        rc = store_snapshot_open(s->store, id, &s->snapshot, err);
    if (rc >= 0)
        rc = store_snapshot_state(s->snapshot, &s->state, &s->state_len, err);
    if (rc < 0) {
        snap_close(s);
        return rc;
    }
    *ret_snap = s;
    return 0;
}

void snap_close(struct snap *s)
{
    if (!s)
        return;
    store_snapshot_close(s->snapshot);
    store_close(s->store);
    free(s->state);
    free(s);
}

int snap_describe(struct snap *s, struct vm_config *ret_cfg, struct cpu_model **ret_model,
                  struct err *err)
{
    const uint8_t *data = s->state;
    size_t len = s->state_len;
    int rc = vm_parse_description(&data, &len, ret_cfg, ret_model, err);

    s->description_len = s->state_len - len;
    return rc;
}

const char *snap_disks(const struct snap *s)
{
    return store_snapshot_info(s->snapshot)->rec->disks;
}

/* --- Memory -------------------------------------------------------------------- */

/* What the reading threads share. */
struct reading {
    struct store_snapshot *snapshot;
    struct gmem *gm;
    struct snap_progress *p;
    pthread_mutex_t lock; /* all below */
    unsigned region;
    uint64_t page;
    int rc;
    struct err err;
};

static bool next_chunk(struct reading *r, unsigned *region, uint64_t *first, uint64_t *nr)
{
    bool found = false;

    (void)pthread_mutex_lock(&r->lock);
    while (r->rc >= 0 && r->region < gmem_nr_regions(r->gm)) {
        uint64_t pages = gmem_region(r->gm, r->region)->len >> PAGE_SHIFT_4K;

        if (r->page < pages) {
            *region = r->region;
            *first = r->page;
            *nr = pages - r->page < RESTORE_CHUNK_PAGES ? pages - r->page : RESTORE_CHUNK_PAGES;
            r->page += *nr;
            found = true;
            break;
        }
        r->region++;
        r->page = 0;
    }
    (void)pthread_mutex_unlock(&r->lock);
    return found;
}

static int read_chunk(struct reading *r, unsigned region, uint64_t first, uint64_t nr,
                      struct err *err)
{
    const struct gmem_region *g = gmem_region(r->gm, region);
    uint64_t gpa = g->gpa + (first << PAGE_SHIFT_4K), len = nr << PAGE_SHIFT_4K;
    struct iovec iov;
    int rc = snap_check(r->p, err);

    if (rc >= 0)
        rc = gmem_pin_write(r->gm, gpa, len, &iov, 1);
    if (rc < 0)
        return rc;
    rc = store_snapshot_read_sparse(r->snapshot, region, first, nr, iov.iov_base, err);
    gmem_unpin_write(r->gm, gpa, len);
    atomic_fetch_add(&r->p->pages_done, nr);
    return rc;
}

static void *read_main(void *arg)
{
    struct reading *r = arg;
    uint64_t first, nr;
    unsigned region;

    while (next_chunk(r, &region, &first, &nr)) {
        struct err err = {0};
        int rc = read_chunk(r, region, first, nr, &err);

        if (rc >= 0)
            continue;
        (void)pthread_mutex_lock(&r->lock);
        if (r->rc >= 0) {
            r->rc = rc;
            r->err = err;
        }
        (void)pthread_mutex_unlock(&r->lock);
    }
    return NULL;
}

static int check_layout(const struct store_record *rec, const struct gmem *gm, struct err *err)
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

static int read_memory(struct snap *s, struct gmem *gm, struct snap_progress *p, struct err *err)
{
    struct reading r = {
        .snapshot = s->snapshot, .gm = gm, .p = p, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[RESTORE_THREADS_MAX];
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned want = cpus > RESTORE_THREADS_MAX ? RESTORE_THREADS_MAX : (unsigned)cpus, n = 0;

    /* This thread reads too; fewer helpers than wanted are only slower. */
    while (n + 1 < want && pthread_create(&threads[n], NULL, read_main, &r) == 0)
        n++;
    (void)read_main(&r);
    while (n)
        (void)pthread_join(threads[--n], NULL);
    if (r.rc < 0)
        return err_set(err, r.rc, "%s", r.err.msg);
    return 0;
}

int snap_load(struct snap *s, struct vm *vm, struct snap_progress *p, struct err *err)
{
    struct gmem *gm = vm_gmem(vm);
    int rc = check_layout(store_snapshot_info(s->snapshot)->rec, gm, err);

    snap_progress_begin(p, SNAP_PHASE_READ, gmem_size(gm) >> PAGE_SHIFT_4K);
    if (rc >= 0)
        rc = read_memory(s, gm, p, err);
    atomic_store(&p->phase, SNAP_PHASE_LOAD);
    if (rc >= 0)
        rc = vm_load(vm, s->state + s->description_len, s->state_len - s->description_len, err);
    snap_progress_end(p);
    return rc;
}
