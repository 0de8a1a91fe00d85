/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_restore.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/gmem.h"
#include "core/log.h"
#include "snapshot/snap_eager.h"
#include "snapshot/snap_image.h"
#include "store/store_reader.h"
#include "store/store_url.h"

struct snap {
    atomic_uint users; /* whoever opened it, and memory that is brought from it */
    char path[STORE_URL_PATH_MAX];
    struct store *store;
    struct store_snapshot *snapshot;
    uint8_t *state; /* description, then the machine's state */
    size_t state_len;
    size_t description_len; /* known after snap_describe() */
    struct snap_touch order;
    bool has_order; /* it was looked for */
    struct snap_ahead *ahead;
};

int snap_open(const char *url, struct snap **ret_snap, struct err *err)
{
    struct snap *s = calloc(1, sizeof(*s));
    char id[STORE_DIGEST_HEX + 1];
    struct store_url u;
    int rc = s ? store_url_parse(url, &u, err) : err_set(err, -ENOMEM, "out of memory");

    if (s)
        atomic_store(&s->users, 1);
    if (rc >= 0) {
        (void)snprintf(s->path, sizeof(s->path), "%s", u.path);
        rc = store_open(u.path, STORE_RDONLY, &s->store, err);
    }
    if (rc >= 0 && !u.snapshot[0])
        rc = store_newest(s->store, NULL, id, err);
    if (rc >= 0)
        rc = store_snapshot_open(s->store, u.snapshot[0] ? u.snapshot : id, &s->snapshot, err);
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
    if (!s || atomic_fetch_sub(&s->users, 1) > 1)
        return;
    snap_ahead_free(s->ahead);
    snap_touch_release(&s->order);
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

static const struct store_digest *snap_ram(const struct snap *s)
{
    return &store_snapshot_info(s->snapshot)->rec->ram;
}

const char *snap_disks(const struct snap *s)
{
    return store_snapshot_info(s->snapshot)->rec->disks;
}

/* --- Memory -------------------------------------------------------------------- */

const char *snap_memory_mode_name(enum snap_memory_mode mode)
{
    static const char *const names[] = {
        [SNAP_MEMORY_AUTO] = "auto",
        [SNAP_MEMORY_COPY] = "copy",
        [SNAP_MEMORY_LAZY] = "ondemand",
        [SNAP_MEMORY_MAPPED] = "mapped",
    };

    return names[mode];
}

static int lazy_next(void *arg, unsigned region, uint64_t from, struct snap_lazy_run *ret_run,
                     struct err *err)
{
    const struct snap *s = arg;
    struct store_run run;
    int rc = store_snapshot_next(s->snapshot, region, from, &run, err);

    if (rc >= 0)
        *ret_run = (struct snap_lazy_run){run.first, run.nr};
    return rc;
}

static int lazy_read(void *arg, unsigned region, uint64_t first, uint64_t nr, void *dst,
                     struct err *err)
{
    const struct snap *s = arg;

    return store_snapshot_read(s->snapshot, region, first, nr, dst, err);
}

static void lazy_close(void *arg, const struct snap_touch *order)
{
    struct snap *s = arg;
    struct err err = {0};

    /* Without it the next restore is a little slower: a store that is read only has none. */
    if (order->nr && snap_touch_save(s->path, snap_ram(s), order, &err) < 0)
        log_debug("%s", err.msg);
    snap_close(s);
}

static struct snap_lazy_source lazy_source(struct snap *s)
{
    return (struct snap_lazy_source){lazy_next, lazy_read, lazy_close, s};
}

static void find_order(struct snap *s)
{
    struct err ignored = {0};

    if (!s->has_order && snap_touch_load(s->path, snap_ram(s), &s->order, &ignored) < 0)
        log_debug("%s", ignored.msg);
    s->has_order = true;
}

void snap_look_ahead(struct snap *s, enum snap_memory_mode mode, bool (*enough)(void *arg),
                     void *arg)
{
    const struct snap_lazy_source source = lazy_source(s);
    auto_close int image = -1;

    if (mode == SNAP_MEMORY_AUTO)
        image = snap_image_open(s->path, s->snapshot, NULL);
    if ((mode != SNAP_MEMORY_AUTO && mode != SNAP_MEMORY_LAZY) || image >= 0)
        return;
    find_order(s);
    snap_ahead_free(s->ahead);
    s->ahead = snap_ahead_read(&source, &s->order, enough, arg);
}

static int load_lazy(struct snap *s, struct gmem *gm, const struct snap_load_params *how,
                     struct err *err)
{
    struct snap_lazy_params p = {
        .source = lazy_source(s),
        .ahead = s->ahead,
        .whole = how->whole,
        .lost = how->lost,
        .arg = how->arg,
    };
    int rc;

    find_order(s);
    p.order = s->order;
    atomic_fetch_add(&s->users, 1);
    rc = snap_lazy_start(gm, &p, err);
    if (rc < 0) {
        atomic_fetch_sub(&s->users, 1);
        return rc;
    }
    s->order = (struct snap_touch){0};
    snap_ahead_free(steal_ptr(s->ahead));
    return 0;
}

static int load_mapped(struct snap *s, struct gmem *gm, bool make, struct snap_progress *p,
                       struct err *err)
{
    int rc = snap_image_check(gm, err);
    auto_close int fd = -1;

    if (rc < 0)
        return rc;
    fd = make ? snap_image_make(s->path, s->store, s->snapshot, p, err)
              : snap_image_open(s->path, s->snapshot, err);
    return fd < 0 ? fd : snap_image_map(gm, fd, err);
}

/* What is quickest of what can be. */
static int load_auto(struct snap *s, struct gmem *gm, const struct snap_load_params *how,
                     struct snap_progress *p, struct snap_loaded *ret, struct err *err)
{
    struct err why = {0};

    ret->mode = SNAP_MEMORY_MAPPED;
    if (load_mapped(s, gm, false, p, &why) >= 0)
        return 0;
    ret->mode = SNAP_MEMORY_LAZY;
    why = (struct err){0};
    if (load_lazy(s, gm, how, &why) >= 0)
        return 0;
    ret->mode = SNAP_MEMORY_COPY;
    (void)snprintf(ret->why, sizeof(ret->why), "%s", why.msg);
    return snap_read_memory(s->snapshot, gm, p, err);
}

int snap_load_memory(struct snap *s, struct gmem *gm, const struct snap_load_params *how,
                     struct snap_progress *p, struct snap_loaded *ret, struct err *err)
{
    int rc = snap_check_layout(store_snapshot_info(s->snapshot)->rec, gm, err);

    *ret = (struct snap_loaded){.mode = how->mode};
    if (rc < 0)
        return rc;
    if (how->mode == SNAP_MEMORY_COPY)
        return snap_read_memory(s->snapshot, gm, p, err);
    if (how->mode == SNAP_MEMORY_LAZY)
        return load_lazy(s, gm, how, err);
    if (how->mode == SNAP_MEMORY_MAPPED)
        return load_mapped(s, gm, true, p, err);
    return load_auto(s, gm, how, p, ret, err);
}

int snap_load(struct snap *s, struct vm *vm, const struct snap_load_params *how,
              struct snap_progress *p, struct snap_loaded *ret, struct err *err)
{
    struct gmem *gm = vm_gmem(vm);
    int rc;

    snap_progress_begin(p, SNAP_PHASE_READ, gmem_size(gm) >> PAGE_SHIFT_4K);
    rc = snap_load_memory(s, gm, how, p, ret, err);
    atomic_store(&p->phase, SNAP_PHASE_LOAD);
    if (rc >= 0)
        rc = vm_load(vm, s->state + s->description_len, s->state_len - s->description_len, err);
    snap_progress_end(p);
    return rc;
}

int snap_expand(struct snap *s, struct snap_progress *p, struct err *err)
{
    auto_close int fd = -1;

    snap_progress_begin(p, SNAP_PHASE_READ, 0);
    fd = snap_image_make(s->path, s->store, s->snapshot, p, err);
    snap_progress_end(p);
    return fd < 0 ? fd : 0;
}
