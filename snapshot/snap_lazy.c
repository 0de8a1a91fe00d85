/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_lazy.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include "core/gmem.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/thread_slice.h"
#include "snapshot/snap_uffd.h"

enum {
    LAZY_BLOCK_PAGES = SNAP_BLOCK_PAGES,
    LAZY_WINDOW_BLOCKS = 8, /* most that one fault brings, where faults follow each other */
    LAZY_WINDOW_PAGES = LAZY_BLOCK_PAGES * LAZY_WINDOW_BLOCKS,
    LAZY_ZERO_PAGES = 512, /* zero pages put in place at once */
    LAZY_HANDLERS_MAX = 4,
    LAZY_NICE = 5, /* the background yields to the guest */
};

struct lazy_region {
    int fd; /* userfaultfd */
    unsigned index;
    const struct gmem_region *mem;
    uint64_t pages;
    _Atomic uint64_t *done;     /* one bit a block: its pages that are not zero are in place */
    _Atomic uint64_t next_miss; /* block behind the last one that was brought for a fault */
    _Atomic unsigned window;    /* blocks that fault brought */
};

struct lazy {
    struct gmem *gm;
    struct snap_lazy_params p;
    struct lazy_region regions[GMEM_REGIONS_MAX];
    unsigned nr_regions;
    int stop_fd; /* readable: the handlers end */
    atomic_bool quit;
    atomic_bool is_lost;
    pthread_t handlers[LAZY_HANDLERS_MAX];
    unsigned nr_handlers;
    pthread_t filler;
    uint64_t started_ns;
    _Atomic uint64_t faults, fetched, ahead, filled;
    pthread_mutex_t lock;        /* leaf */
    struct snap_touch order;     /* under it, while handlers run */
    pthread_mutex_t source_lock; /* for count_zero(), which others call; taken before none */
    bool is_closed;              /* under it */
};

/* A thread that brings pages. */
struct carrier {
    struct lazy *l;
    uint8_t *buf; /* LAZY_WINDOW_PAGES */
};

/* --- Blocks -------------------------------------------------------------------- */

static bool is_done(const struct lazy_region *r, uint64_t block)
{
    return atomic_load(&r->done[block / 64]) >> block % 64 & 1;
}

static void set_done(struct lazy_region *r, uint64_t block)
{
    atomic_fetch_or(&r->done[block / 64], UINT64_C(1) << block % 64);
}

static uint64_t nr_blocks(const struct lazy_region *r)
{
    return (r->pages + LAZY_BLOCK_PAGES - 1) / LAZY_BLOCK_PAGES;
}

static const uint8_t *page_addr(const struct lazy_region *r, uint64_t page)
{
    return r->mem->hva + (page << PAGE_SHIFT_4K);
}

static void lose(struct lazy *l, const struct err *err)
{
    if (!atomic_exchange(&l->is_lost, true))
        l->p.lost(l->p.arg, err);
}

/* Bring pages that are not zero. */
static int bring_run(struct carrier *c, struct lazy_region *r, uint64_t first, uint64_t nr,
                     struct err *err)
{
    const struct snap_lazy_source *s = &c->l->p.source;
    int rc = s->read(s->arg, r->index, first, nr, c->buf, err);

    if (rc < 0)
        return rc;
    rc = snap_uffd_copy(r->fd, page_addr(r, first), c->buf, nr << PAGE_SHIFT_4K);
    if (rc < 0)
        return err_set(err, rc, "memory zone %s: page %llu: %s", r->mem->id,
                       (unsigned long long)first, strerror(-rc));
    return 0;
}

/*
 * Bring blocks [@block, @block + @nr), as many as the buffer takes; zero pages stay missing.
 * Two threads may bring the same: whoever is second changes nothing.
 */
static int bring_blocks(struct carrier *c, struct lazy_region *r, uint64_t block, uint64_t nr,
                        _Atomic uint64_t *count, struct err *err)
{
    const struct snap_lazy_source *s = &c->l->p.source;
    uint64_t at = block * LAZY_BLOCK_PAGES, end = at + nr * LAZY_BLOCK_PAGES;

    if (end > r->pages)
        end = r->pages;
    while (at < end) {
        struct snap_lazy_run run;
        int rc = s->next(s->arg, r->index, at, &run, err);

        if (rc < 0)
            return rc;
        if (!run.nr || run.first >= end)
            break;
        if (run.nr > end - run.first)
            run.nr = end - run.first;
        rc = bring_run(c, r, run.first, run.nr, err);
        if (rc < 0)
            return rc;
        atomic_fetch_add(count, run.nr);
        at = run.first + run.nr;
    }
    for (uint64_t b = block; b < block + nr && b < nr_blocks(r); b++)
        set_done(r, b);
    return 0;
}

/* --- Faults --------------------------------------------------------------------- */

/* How much to bring for a fault: more and more while each continues the one before. */
static uint64_t window_of(struct lazy_region *r, uint64_t block)
{
    unsigned window = 1;
    uint64_t n = 1;

    if (atomic_load(&r->next_miss) == block) {
        window = atomic_load(&r->window) * 2;
        if (window > LAZY_WINDOW_BLOCKS)
            window = LAZY_WINDOW_BLOCKS;
        if (window == 0)
            window = 1;
    }
    while (n < window && block + n < nr_blocks(r) && !is_done(r, block + n))
        n++;
    atomic_store(&r->window, window);
    atomic_store(&r->next_miss, block + n);
    return n;
}

static void note_touch(struct lazy *l, const struct lazy_region *r, uint64_t block, uint64_t nr)
{
    uint64_t first = block * LAZY_BLOCK_PAGES, pages = nr * LAZY_BLOCK_PAGES;
    struct snap_touch_run run = {.region = (uint8_t)r->index, .first = first};

    run.nr = (uint16_t)(pages < r->pages - first ? pages : r->pages - first);
    (void)pthread_mutex_lock(&l->lock);
    snap_touch_add(&l->order, &run);
    (void)pthread_mutex_unlock(&l->lock);
}

/* Put zeroes in place where a page whose block is done is zero.  @woken: not if it is not. */
static int bring_zero(struct carrier *c, struct lazy_region *r, uint64_t page, bool woken,
                      struct err *err)
{
    const struct snap_lazy_source *s = &c->l->p.source;
    uint64_t end = page + LAZY_ZERO_PAGES, nr = 1;
    struct snap_lazy_run run;
    int rc = s->next(s->arg, r->index, page, &run, err);

    if (rc < 0 || (woken && run.nr && run.first == page))
        return rc;
    if (end > r->pages)
        end = r->pages;
    if (run.nr && run.first < end)
        end = run.first;
    /* A zero page of private memory costs nothing; of shared memory it is a page. */
    if (!r->mem->shared && end > page)
        nr = end - page;
    rc = snap_uffd_zero(r->fd, page_addr(r, page), nr << PAGE_SHIFT_4K);
    return rc < 0 ? err_set(err, rc, "memory zone %s: page %llu: %s", r->mem->id,
                            (unsigned long long)page, strerror(-rc))
                  : 0;
}

static void serve_page(struct carrier *c, struct lazy_region *r, uint64_t page)
{
    uint64_t block = page / LAZY_BLOCK_PAGES;
    bool missing = !is_done(r, block);
    struct err err = {0};
    int rc = 0;

    atomic_fetch_add(&c->l->faults, 1);
    if (missing) {
        uint64_t nr = window_of(r, block);

        note_touch(c->l, r, block, nr);
        rc = bring_blocks(c, r, block, nr, &c->l->fetched, &err);
    }
    if (rc >= 0)
        rc = bring_zero(c, r, page, missing, &err);
    if (rc < 0)
        lose(c->l, &err);
}

static void serve_region(struct carrier *c, struct lazy_region *r)
{
    struct uffd_msg msg;
    uint64_t addr;

    /* One at a time, so that the other handlers find work too. */
    if (read(r->fd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg) || msg.event != UFFD_EVENT_PAGEFAULT)
        return;
    addr = msg.arg.pagefault.address - (uintptr_t)r->mem->hva;
    if (addr < r->mem->len)
        serve_page(c, r, addr >> PAGE_SHIFT_4K);
}

static void *handler_main(void *arg)
{
    struct lazy *l = arg;
    struct pollfd fds[GMEM_REGIONS_MAX + 1];
    struct carrier c = {.l = l, .buf = malloc((size_t)LAZY_WINDOW_PAGES << PAGE_SHIFT_4K)};

    log_thread_name("lazy-fault");
    thread_be_prompt();
    if (!c.buf) {
        log_debug("out of memory: one handler less");
        return NULL;
    }
    fds[0] = (struct pollfd){.fd = l->stop_fd, .events = POLLIN};
    for (unsigned i = 0; i < l->nr_regions; i++)
        fds[i + 1] = (struct pollfd){.fd = l->regions[i].fd, .events = POLLIN};
    for (;;) {
        if (poll(fds, l->nr_regions + 1, -1) < 0)
            continue;
        if (fds[0].revents)
            break;
        for (unsigned i = 0; i < l->nr_regions; i++)
            if (fds[i + 1].revents)
                serve_region(&c, &l->regions[i]);
    }
    free(c.buf);
    return NULL;
}

/*
 * Fewer are only slower.  Without any, whoever touches a page waits for the background, which wakes
 * everybody at the end: that is a copy while the machine waits.
 */
static void start_handlers(struct lazy *l)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned want = cpus > LAZY_HANDLERS_MAX ? LAZY_HANDLERS_MAX : (unsigned)cpus;
    int rc = 0;

    if (want < 2)
        want = 2; /* one may wait for the disk */
    while (rc >= 0 && l->nr_handlers < want) {
        rc = -pthread_create(&l->handlers[l->nr_handlers], NULL, handler_main, l);
        if (rc >= 0)
            l->nr_handlers++;
    }
    if (!l->nr_handlers)
        log_debug("thread: %s: nothing is brought out of turn", strerror(-rc));
}

/* --- The background --------------------------------------------------------------- */

static bool go_on(const struct lazy *l)
{
    return !atomic_load(&l->quit) && !atomic_load(&l->is_lost);
}

/* Blocks of [@block, @end) that are not done, a window at most; false if there are none. */
static bool next_undone(const struct lazy_region *r, uint64_t end, uint64_t *block,
                        uint64_t *ret_nr)
{
    uint64_t b = *block, n = 0;

    while (b < end && is_done(r, b))
        b++;
    while (n < LAZY_WINDOW_BLOCKS && b + n < end && !is_done(r, b + n))
        n++;
    *block = b;
    *ret_nr = n;
    return n > 0;
}

static int fill_blocks(struct carrier *c, struct lazy_region *r, uint64_t block, uint64_t end,
                       _Atomic uint64_t *count, struct err *err)
{
    uint64_t nr;
    int rc = 0;

    while (rc >= 0 && go_on(c->l) && next_undone(r, end, &block, &nr))
        rc = bring_blocks(c, r, block, nr, count, err);
    return rc;
}

/* What an earlier run touched, in its order; only what this memory has of it. */
static int fill_order(struct carrier *c, struct err *err)
{
    struct lazy *l = c->l;
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < l->p.order.nr && go_on(l); i++) {
        const struct snap_touch_run *run = &l->p.order.runs[i];
        struct lazy_region *r;
        uint64_t end;

        if (run->region >= l->nr_regions)
            continue;
        r = &l->regions[run->region];
        if (run->first >= r->pages)
            continue;
        end = (run->first + run->nr + LAZY_BLOCK_PAGES - 1) / LAZY_BLOCK_PAGES;
        if (end > nr_blocks(r))
            end = nr_blocks(r);
        rc = fill_blocks(c, r, run->first / LAZY_BLOCK_PAGES, end, &l->ahead, err);
    }
    return rc;
}

static int fill_rest(struct carrier *c, struct err *err)
{
    const struct snap_lazy_source *s = &c->l->p.source;
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < c->l->nr_regions; i++) {
        struct lazy_region *r = &c->l->regions[i];
        uint64_t at = 0;

        while (rc >= 0 && at < r->pages && go_on(c->l)) {
            struct snap_lazy_run run;
            uint64_t end;

            rc = s->next(s->arg, i, at, &run, err);
            if (rc < 0 || !run.nr)
                break;
            end = (run.first + run.nr + LAZY_BLOCK_PAGES - 1) / LAZY_BLOCK_PAGES;
            rc = fill_blocks(c, r, run.first / LAZY_BLOCK_PAGES, end, &c->l->filled, err);
            at = end * LAZY_BLOCK_PAGES;
        }
    }
    return rc;
}

/* --- The end ---------------------------------------------------------------------- */

static void stop_handlers(struct lazy *l)
{
    uint64_t one = 1;

    if (l->stop_fd < 0)
        return;
    if (write(l->stop_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        log_debug("eventfd: %s", strerror(errno));
    while (l->nr_handlers)
        (void)pthread_join(l->handlers[--l->nr_handlers], NULL);
}

/* All pages that are not zero are in place: from here on the kernel brings the zero ones. */
static int finish(struct lazy *l, struct err *err)
{
    for (unsigned i = 0; i < l->nr_regions; i++) {
        const struct lazy_region *r = &l->regions[i];
        int rc = snap_uffd_unregister(r->fd, r->mem->hva, r->mem->len);

        if (rc < 0)
            return err_set(err, rc, "memory zone %s: userfaultfd: %s", r->mem->id, strerror(-rc));
    }
    gmem_served_whole(l->gm);
    return 0;
}

/* The order of this run: that of an earlier one, then what had to be waited for all the same. */
static void close_source(struct lazy *l)
{
    struct snap_touch all = l->p.order;

    for (unsigned i = 0; i < l->order.nr; i++)
        snap_touch_add(&all, &l->order.runs[i]);
    l->p.order = (struct snap_touch){0};
    snap_touch_release(&l->order);
    (void)pthread_mutex_lock(&l->source_lock);
    l->is_closed = true;
    (void)pthread_mutex_unlock(&l->source_lock);
    l->p.source.close(l->p.source.arg, &all);
    snap_touch_release(&all);
}

static void tell_whole(const struct lazy *l)
{
    const struct snap_lazy_figures f = {
        .faults = l->faults,
        .fetched = l->fetched,
        .ahead = l->ahead,
        .filled = l->filled,
        .total_ns = loop_now_ns() - l->started_ns,
    };

    l->p.whole(l->p.arg, &f);
}

/* Also where the process has a real-time priority, which threads inherit. */
static void yield_to_guest(void)
{
    const struct sched_param param = {0};

    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &param);
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), LAZY_NICE);
}

static void *filler_main(void *arg)
{
    struct lazy *l = arg;
    struct carrier c = {.l = l, .buf = malloc((size_t)LAZY_WINDOW_PAGES << PAGE_SHIFT_4K)};
    struct err err = {0};
    bool whole;
    int rc = 0;

    log_thread_name("lazy-fill");
    thread_be_patient();
    /* Here, so that whoever restores goes on meanwhile; before the priority, which they inherit. */
    start_handlers(l);
    if (l->nr_handlers)
        yield_to_guest();
    rc = c.buf ? fill_order(&c, &err) : err_set(&err, -ENOMEM, "out of memory");
    if (rc >= 0)
        rc = fill_rest(&c, &err);
    free(c.buf);
    if (rc >= 0 && go_on(l))
        rc = finish(l, &err);
    if (rc < 0)
        lose(l, &err);
    whole = !gmem_is_served(l->gm);
    /* Lost: whoever waits goes on waiting, and what can still be read is still brought. */
    if (whole) {
        stop_handlers(l);
        close_source(l);
        gmem_set_thp(l->gm, true);
        tell_whole(l);
    }
    return NULL;
}

static void release(struct lazy *l)
{
    for (unsigned i = 0; i < l->nr_regions; i++) {
        struct lazy_region *r = &l->regions[i];

        if (r->fd >= 0)
            (void)close(r->fd);
        if (r->done)
            (void)munmap(r->done, (nr_blocks(r) + 63) / 64 * sizeof(uint64_t));
    }
    if (l->stop_fd >= 0)
        (void)close(l->stop_fd);
    snap_touch_release(&l->order);
    (void)pthread_mutex_destroy(&l->lock);
    (void)pthread_mutex_destroy(&l->source_lock);
    free(l);
}

/* gmem_free(): nobody touches the memory any more. */
static void stop(void *arg)
{
    struct lazy *l = arg;

    atomic_store(&l->quit, true);
    (void)pthread_join(l->filler, NULL);
    if (gmem_is_served(l->gm)) {
        stop_handlers(l);
        close_source(l);
    }
    release(l);
}

/* Zero in the source; gmem asks only about what nobody has written to. */
static uint64_t count_zero(void *arg, unsigned region, uint64_t first, uint64_t nr)
{
    struct lazy *l = arg;
    struct snap_lazy_run run;
    int rc = -ENOENT;

    (void)pthread_mutex_lock(&l->source_lock);
    if (!l->is_closed)
        rc = l->p.source.next(l->p.source.arg, region, first, &run, NULL);
    (void)pthread_mutex_unlock(&l->source_lock);
    if (rc < 0)
        return 0;
    return !run.nr || run.first - first > nr ? nr : run.first - first;
}

/* --- The beginning ---------------------------------------------------------------- */

static const char *why_not(const struct gmem_region *mem)
{
    struct statfs fs;

    if (!mem->fresh)
        return "it may hold something already";
    if (mem->fd < 0)
        return NULL;
    if (fstatfs(mem->fd, &fs) < 0)
        return strerrordesc_np(errno);
    if (fs.f_type == HUGETLBFS_MAGIC)
        return "it has huge pages";
    return fs.f_type == TMPFS_MAGIC ? NULL : "it is a file";
}

int snap_lazy_check(const struct gmem *gm, struct err *err)
{
    for (unsigned i = 0; i < gmem_nr_regions(gm); i++) {
        const struct gmem_region *mem = gmem_region(gm, i);
        const char *why = why_not(mem);

        if (why)
            return err_set(err, -ENOTSUP, "memory zone %s cannot be restored on demand: %s",
                           mem->id, why);
    }
    return 0;
}

static int add_region(struct lazy *l, unsigned i, struct err *err)
{
    struct lazy_region *r = &l->regions[i];
    void *bits;
    int rc;

    *r = (struct lazy_region){.fd = -1, .index = i, .mem = gmem_region(l->gm, i)};
    l->nr_regions = i + 1;
    r->pages = r->mem->len >> PAGE_SHIFT_4K;
    bits = mmap(NULL, (nr_blocks(r) + 63) / 64 * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bits == MAP_FAILED)
        return err_set(err, -ENOMEM, "memory zone %s: out of memory", r->mem->id);
    r->done = bits;
    r->fd = snap_uffd_open(0, err);
    if (r->fd < 0)
        return r->fd;
    /* Devices may have written when they were made: what is there would stay. */
    rc = gmem_discard(l->gm, i, err);
    if (rc < 0)
        return rc;
    rc = snap_uffd_register(r->fd, r->mem->hva, r->mem->len, err);
    return rc < 0 ? err_prefix(err, rc, "memory zone %s", r->mem->id) : 0;
}

/* What cannot be put in place stays missing, and is brought when it is touched. */
static void place_ahead(struct lazy *l)
{
    const struct snap_ahead_block *b;

    for (unsigned i = 0; (b = snap_ahead_block(l->p.ahead, i)); i++) {
        struct lazy_region *r = b->region < l->nr_regions ? &l->regions[b->region] : NULL;
        int rc = 0;

        if (!r || b->block >= nr_blocks(r))
            continue;
        for (unsigned k = 0; k < b->nr_runs && rc >= 0; k++) {
            rc = snap_uffd_copy(r->fd, page_addr(r, b->block * LAZY_BLOCK_PAGES + b->runs[k].at),
                                b->data + ((size_t)b->runs[k].at << PAGE_SHIFT_4K),
                                (size_t)b->runs[k].nr << PAGE_SHIFT_4K);
            atomic_fetch_add(&l->ahead, b->runs[k].nr);
        }
        if (rc >= 0)
            set_done(r, b->block);
    }
}

static int start(struct lazy *l, struct err *err)
{
    int rc = 0;

    l->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (l->stop_fd < 0)
        return err_set(err, -errno, "eventfd: %s", strerror(errno));
    gmem_set_thp(l->gm, false);
    for (unsigned i = 0; rc >= 0 && i < gmem_nr_regions(l->gm); i++)
        rc = add_region(l, i, err);
    if (rc >= 0) {
        place_ahead(l);
        rc = gmem_serve(l->gm, &(struct gmem_server){stop, count_zero, l});
    }
    if (rc < 0)
        return rc;
    rc = -pthread_create(&l->filler, NULL, filler_main, l);
    if (rc < 0) {
        gmem_unserve(l->gm);
        return err_set(err, rc, "thread: %s", strerror(-rc));
    }
    return 0;
}

int snap_lazy_start(struct gmem *gm, const struct snap_lazy_params *params, struct err *err)
{
    int rc = snap_lazy_check(gm, err);
    struct lazy *l;

    if (rc < 0)
        return rc;
    l = calloc(1, sizeof(*l));
    if (!l)
        return err_set(err, -ENOMEM, "out of memory");
    l->gm = gm;
    l->p = *params;
    l->started_ns = loop_now_ns();
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)pthread_mutex_init(&l->source_lock, NULL);
    rc = start(l, err);
    if (rc < 0) {
        stop_handlers(l);
        release(l);
    }
    return rc;
}
