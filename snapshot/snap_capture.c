/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_capture.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/config/vm_config.h"
#include "core/dirty.h"
#include "core/gmem.h"
#include "core/log.h"
#include "core/loop.h"
#include "snapshot/snap_disks.h"
#include "snapshot/snap_moment.h"
#include "store/store_url.h"
#include "store/store_writer.h"

enum {
    CAPTURE_RUN_PAGES = 512,    /* given to the store at once: a leaf */
    CAPTURE_ROUNDS_MAX = 5,     /* while the guest runs */
    CAPTURE_SMALL_PAGES = 2048, /* few enough to be copied aside in the pause: 8 MiB */
    CAPTURE_ASIDE_RUNS = 2048,
    CAPTURE_PARENTS_MAX = 8, /* that are tried */
};

/* Pages that were copied in the pause, to be given to the store when the guest runs again. */
struct aside {
    unsigned nr_runs;
    uint64_t nr_pages;
    struct dirty_run runs[CAPTURE_ASIDE_RUNS];
    uint8_t data[CAPTURE_SMALL_PAGES * PAGE_SIZE_4K];
};

struct capture {
    struct vm *vm;
    struct gmem *gm;
    struct snap_progress *p;
    struct snap_track *track; /* borrowed; NULL: what was written before is not known */
    struct store_url url;
    int dir_fd; /* of a directory that is to hold this snapshot alone; -1 */
    struct store *store;
    struct store_writer *writer;
    struct dirty_consumer *dirty; /* where memory is copied in rounds */
    struct aside *aside;          /* owned; likewise */
    struct snap_moment *moment;   /* where it is protected */
    struct writer_chunk *chunk;   /* that its pages are copied into; NULL: none */
    struct state_buf state;
    char *disks; /* owned; snap_disks_describe() of the moment */
    bool paused_by_us;
    uint64_t paused_at_ns;
};

/* --- Beginning ---------------------------------------------------------------- */

static const char *vm_identity(const struct vm *vm)
{
    return vm_config(vm)->platform.system_uuid;
}

/* Where it is known what was written since the parent, all else is as it was there. */
static int keep_the_rest(struct capture *c, const char *parent, struct err *err)
{
    int rc = 0;

    if (!c->track)
        return 0;
    for (unsigned i = 0; i < gmem_nr_regions(c->gm); i++) {
        uint64_t nr = gmem_region(c->gm, i)->len >> PAGE_SHIFT_4K;

        if (!parent || strcmp(parent, c->track->since) != 0 || !store_writer_keeps(c->writer, i))
            dirty_mark(c->track->dirty, i, 0, nr);
        else if (rc >= 0)
            rc = store_writer_keep(c->writer, i, 0, nr, err);
    }
    return rc;
}

/* What this VM's last snapshot in the store is; false if it has none. */
static bool find_parent(const struct capture *c, char parent[STORE_DIGEST_HEX + 1])
{
    const char *vm = vm_identity(c->vm);

    return (c->track && c->track->since[0] &&
            store_resolve(c->store, c->track->since, parent, NULL) >= 0) ||
           (vm && store_newest(c->store, vm, parent, NULL) >= 0);
}

static bool is_cancelled(void *arg)
{
    const struct capture *c = arg;

    return snap_check(c->p, NULL) < 0;
}

static int begin_writer(struct capture *c, struct err *err)
{
    struct store_writer_region regions[GMEM_REGIONS_MAX];
    char parent[STORE_DIGEST_HEX + 1];
    struct err what = {0};
    struct store_writer_cfg cfg = {
        .name = c->url.snapshot[0] ? c->url.snapshot : NULL,
        .vm = vm_identity(c->vm),
        .nr_regions = gmem_nr_regions(c->gm),
        .regions = regions,
        .give_up = is_cancelled,
        .arg = c,
    };
    int rc = -ENOENT;

    for (unsigned i = 0; i < cfg.nr_regions; i++) {
        const struct gmem_region *r = gmem_region(c->gm, i);

        regions[i] = (struct store_writer_region){r->gpa, r->len >> PAGE_SHIFT_4K};
    }
    /* A parent may be removed before the writer holds it: then the next best is. */
    for (unsigned left = CAPTURE_PARENTS_MAX; rc == -ENOENT && left > 0; left--) {
        what = (struct err){0};
        cfg.parent = left > 1 && find_parent(c, parent) ? parent : NULL;
        rc = store_writer_begin(c->store, &cfg, &c->writer, &what);
        if (!cfg.parent)
            break;
    }
    if (rc < 0)
        return err_set(err, rc, "%s", what.msg);
    return keep_the_rest(c, cfg.parent, err);
}

/* Nobody else writes to a directory that is to hold one snapshot. */
static int lock_directory(struct capture *c, struct err *err)
{
    c->dir_fd = open(c->url.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->dir_fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_set(err, -ENOTDIR, "Destination is not a directory: \"%s\"", c->url.path);
    if (c->dir_fd >= 0 && flock(c->dir_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(err, -EBUSY, "%s: another snapshot is being taken there", c->url.path);
    return err_set(err, -errno, "%s: %s", c->url.path, strerror(errno));
}

/* file:///dir is a store of one snapshot; Cloud Hypervisor refuses a directory that has one. */
static int check_self_contained(struct store *st, const char *path, struct err *err)
{
    struct store_stats stats;
    int rc = store_stats(st, &stats, err);

    if (rc >= 0 && stats.snapshots)
        return err_set(err, -EEXIST, "%s: there is a snapshot in this directory already", path);
    return rc;
}

static int open_store(struct capture *c, const char *url, struct err *err)
{
    int rc = store_url_parse(url, &c->url, err);

    if (rc >= 0 && c->url.self_contained)
        rc = lock_directory(c, err);
    if (rc < 0)
        return rc;
    rc = store_open(c->url.path, STORE_CREATE, &c->store, err);
    if (rc >= 0 && c->url.self_contained)
        rc = check_self_contained(c->store, c->url.path, err);
    return rc < 0 ? rc : begin_writer(c, err);
}

/* --- Memory ------------------------------------------------------------------- */

static int give_run(struct capture *c, const struct dirty_run *run, const uint8_t *data,
                    struct err *err)
{
    int rc = snap_check(c->p, err);

    if (rc >= 0)
        rc = store_writer_pages(c->writer, run->region, run->first, run->nr, data, err);
    if (rc >= 0)
        atomic_fetch_add(&c->p->pages_done, run->nr);
    return rc;
}

static const uint8_t *run_hva(const struct capture *c, const struct dirty_run *run)
{
    return gmem_region(c->gm, run->region)->hva + (run->first << PAGE_SHIFT_4K);
}

/* Give every page that is marked to the store, while the guest runs. */
static int copy_marked(struct capture *c, struct err *err)
{
    struct dirty_run run;
    int rc;

    while ((rc = dirty_take(c->dirty, CAPTURE_RUN_PAGES, false, &run, err)) > 0) {
        rc = give_run(c, &run, run_hva(c, &run), err);
        if (rc < 0)
            return rc;
    }
    return rc;
}

/* Copy every page that is marked aside; give those to the store for which there is no room. */
static int copy_aside(struct capture *c, struct err *err)
{
    struct aside *a = c->aside;
    struct dirty_run run;
    int rc;

    while ((rc = dirty_take(c->dirty, CAPTURE_RUN_PAGES, true, &run, err)) > 0) {
        if (a->nr_runs < CAPTURE_ASIDE_RUNS && run.nr <= CAPTURE_SMALL_PAGES - a->nr_pages) {
            memcpy(a->data + (a->nr_pages << PAGE_SHIFT_4K), run_hva(c, &run),
                   run.nr << PAGE_SHIFT_4K);
            a->runs[a->nr_runs++] = run;
            a->nr_pages += run.nr;
            continue;
        }
        rc = give_run(c, &run, run_hva(c, &run), err);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int give_aside(struct capture *c, struct err *err)
{
    const uint8_t *data = c->aside->data;
    int rc = 0;

    for (unsigned i = 0; i < c->aside->nr_runs && rc >= 0; i++) {
        const struct dirty_run *run = &c->aside->runs[i];

        rc = give_run(c, run, data, err);
        data += run->nr << PAGE_SHIFT_4K;
    }
    return rc;
}

/* Rounds while the guest runs, until what is left is little or does not get less. */
static int copy_live(struct capture *c, struct err *err)
{
    uint64_t before = UINT64_MAX;
    int rc = 0;

    for (unsigned round = 0; rc >= 0 && round < CAPTURE_ROUNDS_MAX; round++) {
        uint64_t left;

        atomic_fetch_add(&c->p->rounds, 1);
        rc = copy_marked(c, err);
        if (rc >= 0)
            rc = dirty_drain(vm_dirty(c->vm), err);
        left = dirty_count(c->dirty);
        if (left <= CAPTURE_SMALL_PAGES || left > before / 4 * 3)
            break;
        before = left;
        atomic_store(&c->p->pages_total, atomic_load(&c->p->pages_done) + left);
    }
    return rc;
}

/* --- The moment --------------------------------------------------------------- */

static int pause_vm(struct capture *c, struct err *err)
{
    if (vm_state(c->vm) != VM_RUNNING)
        return 0;
    c->paused_at_ns = loop_now_ns();
    if (vm_pause(c->vm, err) < 0)
        return err->code;
    c->paused_by_us = true;
    return 0;
}

static int resume_vm(struct capture *c, struct err *err)
{
    int rc;

    if (!c->paused_by_us)
        return 0;
    rc = vm_resume(c->vm, VM_CLOCK_ADVANCE, err);
    if (rc >= 0) {
        c->paused_by_us = false;
        atomic_store(&c->p->pause_ns, loop_now_ns() - c->paused_at_ns);
    }
    return rc;
}

static int save_state(struct capture *c, struct err *err)
{
    int rc = vm_describe(c->vm, &c->state, err);

    if (rc >= 0)
        rc = vm_save(c->vm, &c->state, err);
    /* As they are now: what is written from here on is not what its memory knows. */
    return rc < 0 ? rc : snap_disks_describe(vm_config(c->vm), &c->disks, err);
}

/* End of the time in which the guest stands still, whatever came of it. */
static int let_go(struct capture *c, int rc, struct err *err)
{
    if (rc >= 0)
        return resume_vm(c, err);
    if (resume_vm(c, NULL) < 0)
        (void)err_prefix(err, rc, "the VM stays paused");
    return rc;
}

/*
 * Every write until now is in the bitmap of who asks for it.  Where it is tracked what is written
 * after this snapshot, the pages are not reported a second time.
 */
static int catch_up(struct capture *c, struct err *err)
{
    int rc = dirty_drain(vm_dirty(c->vm), err);

    return c->track && rc >= 0 ? dirty_protect(vm_dirty(c->vm), err) : rc;
}

/* --- State at the end: memory in rounds ------------------------------------------ */

static int copy_stopped(struct capture *c, struct err *err)
{
    int rc = save_state(c, err);

    /* After the save, which may write guest memory. */
    if (rc >= 0)
        rc = catch_up(c, err);
    return rc < 0 ? rc : copy_aside(c, err);
}

static int copy_in_rounds(struct capture *c, struct err *err)
{
    struct snap_track *mine = NULL;
    int rc = c->track ? 0 : snap_track_new(vm_dirty(c->vm), &mine, err);

    if (rc < 0)
        return rc;
    c->aside = malloc(sizeof(*c->aside));
    if (!c->aside) {
        snap_track_free(mine);
        return err_set(err, -ENOMEM, "out of memory");
    }
    memset(c->aside, 0, sizeof(*c->aside)); /* there before the guest has to wait for it */
    c->dirty = c->track ? c->track->dirty : mine->dirty;
    atomic_store(&c->p->phase, SNAP_PHASE_COPY);
    if (vm_state(c->vm) == VM_RUNNING)
        rc = copy_live(c, err);
    if (rc >= 0)
        rc = pause_vm(c, err);
    atomic_store(&c->p->phase, SNAP_PHASE_STOPPED);
    if (rc >= 0)
        rc = copy_stopped(c, err);
    rc = let_go(c, rc, err);
    if (rc >= 0)
        rc = give_aside(c, err);
    snap_track_free(mine);
    return rc;
}

/* --- State at the moment asked: memory protected ----------------------------------- */

static uint8_t *chunk_at(void *arg, uint64_t *ret_nr)
{
    struct capture *c = arg;

    if (!c->chunk)
        c->chunk = store_writer_chunk(c->writer);
    return store_writer_chunk_at(c->chunk, ret_nr);
}

static int give_chunk(void *arg, unsigned region, uint64_t first, uint64_t nr, struct err *err)
{
    struct capture *c = arg;
    int rc = snap_check(c->p, err);

    if (rc >= 0)
        rc = store_writer_filled(c->writer, &c->chunk, region, first, nr, err);
    if (rc >= 0)
        atomic_fetch_add(&c->p->pages_done, nr);
    return rc;
}

static int give_zero(void *arg, unsigned region, uint64_t first, uint64_t nr, struct err *err)
{
    struct capture *c = arg;
    int rc = snap_check(c->p, err);

    if (rc >= 0)
        rc = store_writer_zero(c->writer, region, first, nr, err);
    atomic_fetch_add(&c->p->pages_done, nr);
    return rc;
}

static int copy_of_moment(struct capture *c, struct err *err)
{
    const struct snap_moment_sink sink = {
        .room = chunk_at, .pages = give_chunk, .zero = give_zero, .arg = c};
    int rc = catch_up(c, err); /* so that there is little to do for it in the pause */

    atomic_store(&c->p->phase, SNAP_PHASE_STOPPED);
    if (rc >= 0)
        rc = pause_vm(c, err);
    if (rc >= 0)
        rc = save_state(c, err);
    /* After the save, which may write guest memory. */
    if (rc >= 0)
        rc = catch_up(c, err);
    if (rc >= 0)
        rc = snap_moment_take(c->moment, c->track ? c->track->dirty : NULL, err);
    rc = let_go(c, rc, err);
    atomic_store(&c->p->phase, SNAP_PHASE_COPY);
    if (rc >= 0)
        rc = snap_moment_read(c->moment, &sink, err);
    store_writer_chunk_give(c->writer, steal_ptr(c->chunk));
    return rc;
}

/* A VM that stands still anyway is copied as it is. */
static bool wants_moment(struct capture *c, enum snap_mode mode, struct err *err)
{
    struct err why = {0};

    if (mode == SNAP_MODE_ROUNDS || (mode == SNAP_MODE_AUTO && vm_state(c->vm) != VM_RUNNING))
        return false;
    if (snap_moment_new(c->gm, &c->moment, &why) >= 0)
        return true;
    if (mode == SNAP_MODE_AUTO)
        log_info("snapshot: memory is copied in rounds: %s", why.msg);
    else
        *err = why;
    return false;
}

static int copy_all(struct capture *c, enum snap_mode mode, struct err *err)
{
    struct err why = {0};

    if (wants_moment(c, mode, &why))
        return copy_of_moment(c, err);
    if (why.code)
        return err_set(err, why.code, "mode: moment: %s", why.msg);
    return copy_in_rounds(c, err);
}

/* --- Publishing ---------------------------------------------------------------- */

static int publish(struct capture *c, struct snap_result *ret_result, struct err *err)
{
    struct store_counts counts = {0};
    struct store_publish what = {
        .state = c->state.data, .state_len = c->state.len, .ret_counts = &counts};
    auto_free char *config = NULL;
    size_t len;
    int rc = vm_config_to_text(vm_config(c->vm), &config, &len);

    /* What the snapshot's guest knows to be written must not get lost before the snapshot is. */
    if (rc >= 0)
        rc = vm_sync_disks(c->vm, err);
    if (rc >= 0)
        rc = snap_check(c->p, err);
    if (rc < 0)
        return rc;
    what.config = config;
    what.disks = c->disks;
    atomic_store(&c->p->phase, SNAP_PHASE_PUBLISH);
    rc = store_writer_publish(steal_ptr(c->writer), &what, ret_result->id, err);
    ret_result->bytes_stored = counts.bytes_stored;
    return rc;
}

/* All that may fail. */
static int capture(struct capture *c, const struct snap_capture_cfg *cfg,
                   struct snap_result *ret_result, struct err *err)
{
    int rc = open_store(c, cfg->url, err);

    if (rc >= 0)
        rc = copy_all(c, cfg->mode, err);
    if (rc < 0)
        return rc;
    snap_moment_free(steal_ptr(c->moment)); /* nobody needs to wait for what is left to do */
    return publish(c, ret_result, err);
}

int snap_capture(struct vm *vm, const struct snap_capture_cfg *cfg, struct snap_progress *p,
                 struct snap_result *ret_result, struct store **ret_store, struct err *err)
{
    struct capture c = {.vm = vm, .gm = vm_gmem(vm), .p = p, .track = *cfg->track, .dir_fd = -1};
    int rc = 0;

    snap_progress_begin(p, SNAP_PHASE_OPEN, gmem_size(c.gm) >> PAGE_SHIFT_4K);
    if (cfg->keep_track && !c.track)
        rc = snap_track_new(vm_dirty(vm), cfg->track, err);
    c.track = *cfg->track;
    if (rc >= 0)
        rc = capture(&c, cfg, ret_result, err);
    snap_moment_free(c.moment);
    store_writer_abort(c.writer);
    if (rc < 0)
        store_abandon(c.store);
    if (c.dir_fd >= 0)
        (void)close(c.dir_fd);
    state_buf_release(&c.state);
    free(c.aside);
    free(c.disks);
    snap_progress_end(p);
    /* What was taken off the track is in no snapshot, or nobody wants the next one. */
    if (rc < 0 || !cfg->keep_track)
        snap_track_free(steal_ptr(*cfg->track));
    if (rc < 0) {
        snap_capture_end(NULL);
        return rc;
    }
    *ret_store = c.store;
    if (*cfg->track)
        memcpy((*cfg->track)->since, ret_result->id, sizeof(ret_result->id));
    ret_result->pause_ns = atomic_load(&p->pause_ns);
    ret_result->total_ns = atomic_load(&p->total_ns);
    return 0;
}

void snap_capture_end(struct store *st)
{
    store_close(st);
    /* Tens of MiB in small pieces, which the library would keep for the next time. */
    (void)malloc_trim(0);
}
