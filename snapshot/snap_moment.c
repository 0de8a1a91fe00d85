/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_moment.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include "core/dirty.h"
#include "core/gmem.h"
#include "core/log.h"
#include "core/page_present.h"
#include "core/page_scan.h"
#include "core/thread_slice.h"
#include "snapshot/snap_uffd.h"

enum {
    MOMENT_BLOCK_PAGES =
        512,            /* protected and released at once: 2 MiB, so that huge pages stay whole */
    MOMENT_FAULTS = 16, /* read from the kernel at once */
    MOMENT_AROUND = 16, /* pages kept aside by one fault, at most */
};

#define ASIDE_LEN ((size_t)SNAP_MOMENT_ASIDE_PAGES * PAGE_SIZE_4K)

struct area {
    const struct gmem_region *r; /* borrowed */
    uint64_t pages;
    uint64_t *absent; /* wanted, and was not there at the moment: zero */
    uint64_t *todo;   /* wanted, protected, and nobody has taken it yet */
};

/* A page that was written before its turn. */
struct aside {
    unsigned region;
    uint64_t page;
};

struct snap_moment {
    struct gmem *gm;
    int uffd, present_fd, quit_fd;
    pthread_t thread;
    bool started;
    struct area areas[GMEM_REGIONS_MAX];
    unsigned nr;

    pthread_mutex_t lock; /* below, and todo of every area */
    pthread_cond_t room;  /* a place aside is free, or nobody comes for them any more */
    unsigned head, tail;  /* of the ring: taken and put, counted since it was last empty */
    bool given_up;
    int rc; /* of the thread that waits for faults */
    struct aside aside[SNAP_MOMENT_ASIDE_PAGES];

    uint8_t *aside_data; /* SNAP_MOMENT_ASIDE_PAGES pages */
};

/* --- Bits ------------------------------------------------------------------- */

static bool bit_get(const uint64_t *bits, uint64_t i)
{
    return bits[i / 64] >> i % 64 & 1;
}

static void bits_set(uint64_t *bits, uint64_t first, uint64_t nr, bool value)
{
    for (uint64_t p = first; p < first + nr;) {
        uint64_t bit = p % 64, left = first + nr - p, n = left < 64 - bit ? left : 64 - bit;
        uint64_t mask = (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << bit;

        bits[p / 64] = value ? bits[p / 64] | mask : bits[p / 64] & ~mask;
        p += n;
    }
}

/* End of the run of equal bits that starts at @from, at most @max. */
static uint64_t bits_run_end(const uint64_t *bits, uint64_t from, uint64_t max)
{
    bool value = bit_get(bits, from);
    uint64_t p = from;

    while (p < max) {
        uint64_t w = (value ? ~bits[p / 64] : bits[p / 64]) >> p % 64;

        if (w) {
            p += (uint64_t)__builtin_ctzll(w);
            break;
        }
        p = (p / 64 + 1) * 64;
    }
    return p < max ? p : max;
}

/* --- The kernel's side -------------------------------------------------------- */

static bool is_fit(const struct gmem_region *r)
{
    struct statfs fs;

    if (r->fd < 0)
        return !r->image;
    if (!r->shared)
        return false; /* what is not there is in the file, and need not be zero */
    return fstatfs(r->fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

static int open_uffd(struct snap_moment *m, struct err *err)
{
    uint64_t features = UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    int rc = 0;

    for (unsigned i = 0; i < m->nr; i++)
        if (m->areas[i].r->fd >= 0)
            features |= UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    m->uffd = snap_uffd_open(features, err);
    if (m->uffd < 0)
        return m->uffd;
    for (unsigned i = 0; i < m->nr && rc >= 0; i++) {
        const struct gmem_region *r = m->areas[i].r;

        rc = snap_uffd_watch_writes(m->uffd, r->hva, r->len, err);
        if (rc < 0)
            rc = err_prefix(err, rc, "memory zone %s", r->id);
    }
    return rc;
}

static int protect(struct snap_moment *m, const struct area *a, uint64_t first, uint64_t nr,
                   bool on)
{
    return snap_uffd_protect(m->uffd, a->r->hva + (first << PAGE_SHIFT_4K), nr << PAGE_SHIFT_4K,
                             on);
}

/* --- Faults ---------------------------------------------------------------------- */

static bool is_full(const struct snap_moment *m)
{
    return m->tail - m->head == SNAP_MOMENT_ASIDE_PAGES;
}

static void put_aside_locked(struct snap_moment *m, struct area *a, uint64_t page)
{
    unsigned at = m->tail++ % SNAP_MOMENT_ASIDE_PAGES;

    memcpy(m->aside_data + at * PAGE_SIZE_4K, a->r->hva + (page << PAGE_SHIFT_4K), PAGE_SIZE_4K);
    m->aside[at] = (struct aside){(unsigned)(a - m->areas), page};
    bits_set(a->todo, page, 1, false);
}

/*
 * Keep a page aside if it is still to be read, and those behind it, which are likely to be written to
 * next, as long as there is plenty of room: each has to be copied once, and a fault costs as much as
 * copying several.
 *
 * Return: how many from @page on need no protection any more.
 */
static uint64_t put_aside(struct snap_moment *m, struct area *a, uint64_t page)
{
    uint64_t end = a->pages - page < MOMENT_AROUND ? a->pages : page + MOMENT_AROUND, p = page;

    (void)pthread_mutex_lock(&m->lock);
    while (bit_get(a->todo, page) && is_full(m) && !m->given_up)
        (void)pthread_cond_wait(&m->room, &m->lock);
    end = bits_run_end(a->todo, page, end);
    if (!bit_get(a->todo, page) || m->given_up)
        p = end;
    while (p < end &&
           (p == page || m->tail - m->head < SNAP_MOMENT_ASIDE_PAGES - SNAP_MOMENT_ASIDE_PAGES / 4))
        put_aside_locked(m, a, p++);
    (void)pthread_mutex_unlock(&m->lock);
    return p - page;
}

static int serve(struct snap_moment *m, uint64_t address)
{
    for (unsigned i = 0; i < m->nr; i++) {
        struct area *a = &m->areas[i];
        uint64_t off = address - (uintptr_t)a->r->hva, page = off >> PAGE_SHIFT_4K;

        if (address >= (uintptr_t)a->r->hva && off < a->r->len)
            return protect(m, a, page, put_aside(m, a, page), false);
    }
    return 0;
}

static int serve_all(struct snap_moment *m)
{
    struct uffd_msg msgs[MOMENT_FAULTS];
    ssize_t n = read(m->uffd, msgs, sizeof(msgs));
    int rc = n < 0 && errno != EAGAIN && errno != EINTR ? -errno : 0;

    for (ssize_t i = 0; i < n / (ssize_t)sizeof(msgs[0]) && rc == 0; i++)
        if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
            rc = serve(m, msgs[i].arg.pagefault.address);
    return rc;
}

static void *fault_main(void *arg)
{
    struct snap_moment *m = arg;
    struct pollfd p[] = {
        {.fd = m->uffd,    .events = POLLIN},
        {.fd = m->quit_fd, .events = POLLIN},
    };
    int rc = 0;

    log_thread_name("snap-fault");
    thread_be_prompt();
    while (rc == 0 && !p[1].revents) {
        if (poll(p, ARRAY_LEN(p), -1) < 0)
            rc = errno == EINTR ? 0 : -errno;
        else if (p[0].revents)
            rc = serve_all(m);
    }
    (void)pthread_mutex_lock(&m->lock);
    m->rc = rc;
    (void)pthread_mutex_unlock(&m->lock);
    /* Nobody serves faults any more: nothing may be protected. */
    for (unsigned i = 0; rc < 0 && i < m->nr; i++)
        (void)protect(m, &m->areas[i], 0, m->areas[i].pages, false);
    return NULL;
}

/* --- Life cycle -------------------------------------------------------------------- */

static int alloc_areas(struct snap_moment *m, struct err *err)
{
    void *aside;

    m->nr = gmem_nr_regions(m->gm);
    if (gmem_is_served(m->gm))
        return err_set(err, -EBUSY, "memory is still being restored");
    for (unsigned i = 0; i < m->nr; i++) {
        struct area *a = &m->areas[i];
        size_t words;

        a->r = gmem_region(m->gm, i);
        a->pages = a->r->len >> PAGE_SHIFT_4K;
        words = (size_t)(a->pages + 63) / 64;
        if (!is_fit(a->r))
            return err_set(err, -ENOTSUP,
                           "memory zone %s: huge pages, or a file that is not shared", a->r->id);
        a->absent = calloc(words, sizeof(uint64_t));
        a->todo = calloc(words, sizeof(uint64_t));
        if (!a->absent || !a->todo)
            return err_set(err, -ENOMEM, "out of memory");
    }
    aside = mmap(NULL, ASIDE_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (aside == MAP_FAILED)
        return err_set(err, -ENOMEM, "out of memory");
    m->aside_data = aside; /* occupied as far as it is used */
    return 0;
}

static int open_all(struct snap_moment *m, struct err *err)
{
    m->present_fd = page_present_open();
    if (m->present_fd < 0)
        return err_set(err, m->present_fd, "/proc/self/pagemap: %s", strerror(-m->present_fd));
    m->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->quit_fd < 0)
        return err_set(err, -errno, "eventfd: %s", strerror(errno));
    return open_uffd(m, err);
}

int snap_moment_new(struct gmem *gm, struct snap_moment **ret_m, struct err *err)
{
    struct snap_moment *m = calloc(1, sizeof(*m));
    int rc;

    if (!m)
        return err_set(err, -ENOMEM, "out of memory");
    m->gm = gm;
    m->uffd = m->present_fd = m->quit_fd = -1;
    (void)pthread_mutex_init(&m->lock, NULL);
    (void)pthread_cond_init(&m->room, NULL);
    rc = alloc_areas(m, err);
    if (rc >= 0)
        rc = open_all(m, err);
    if (rc >= 0) {
        rc = -pthread_create(&m->thread, NULL, fault_main, m);
        m->started = rc == 0;
        if (rc < 0)
            (void)err_set(err, rc, "thread: %s", strerror(-rc));
    }
    if (rc < 0) {
        snap_moment_free(m);
        return rc;
    }
    *ret_m = m;
    return 0;
}

static void release_areas(struct snap_moment *m)
{
    for (unsigned i = 0; i < m->nr; i++) {
        const struct gmem_region *r = m->areas[i].r;

        /* Lets go of all writers, and of the protection.  Fails where nothing was registered. */
        (void)!snap_uffd_unregister(m->uffd, r->hva, r->len);
    }
}

void snap_moment_free(struct snap_moment *m)
{
    static const uint64_t one = 1;

    if (!m)
        return;
    (void)pthread_mutex_lock(&m->lock);
    m->given_up = true;
    (void)pthread_cond_broadcast(&m->room);
    (void)pthread_mutex_unlock(&m->lock);
    if (m->uffd >= 0)
        release_areas(m);
    if (m->started) {
        (void)!write(m->quit_fd, &one, sizeof(one));
        (void)pthread_join(m->thread, NULL);
    }
    for (unsigned i = 0; i < m->nr; i++) {
        free(m->areas[i].absent);
        free(m->areas[i].todo);
    }
    if (m->aside_data)
        (void)munmap(m->aside_data, ASIDE_LEN);
    for (unsigned i = 0; i < 3; i++) {
        int fd = (int[]){m->uffd, m->present_fd, m->quit_fd}[i];

        if (fd >= 0)
            (void)close(fd);
    }
    (void)pthread_mutex_destroy(&m->lock);
    (void)pthread_cond_destroy(&m->room);
    free(m);
}

/* --- The moment ---------------------------------------------------------------------- */

/* The next run of pages of an area that have memory: 1, 0, or a failure. */
static int next_present(const struct snap_moment *m, const struct area *a, uint64_t from,
                        uint64_t *ret_first, uint64_t *ret_nr)
{
    uint64_t hole, len = (a->pages - from) << PAGE_SHIFT_4K;
    off_t end;

    if (a->r->fd < 0)
        return page_present_next(m->present_fd, a->r->hva, from, a->pages, ret_first, ret_nr);
    if (from == a->pages ||
        page_scan_populated(a->r->fd, a->r->fd_offset + (from << PAGE_SHIFT_4K), len, &hole) == 0)
        return 0;
    *ret_first = from + (hole >> PAGE_SHIFT_4K);
    end = lseek(a->r->fd, (off_t)(a->r->fd_offset + (*ret_first << PAGE_SHIFT_4K)), SEEK_HOLE);
    *ret_nr = a->pages - *ret_first;
    if (end >= 0 && (uint64_t)end - a->r->fd_offset < a->r->len)
        *ret_nr = (((uint64_t)end - a->r->fd_offset) >> PAGE_SHIFT_4K) - *ret_first;
    return 1;
}

/*
 * Protect what is there of [@first, @end).  Pages that are not wanted, but lie near, are protected
 * with the others: one call for 2 MiB costs less than many for single pages.
 */
static int protect_present(struct snap_moment *m, struct area *a, uint64_t first, uint64_t end)
{
    uint64_t at, nr;
    int rc = 1;

    while (first < end && (rc = next_present(m, a, first, &at, &nr)) == 1 && at < end) {
        if (nr > end - at)
            nr = end - at;
        rc = protect(m, a, at, nr, true);
        if (rc < 0)
            return rc;
        for (uint64_t p = at, stop; p < at + nr; p = stop) {
            stop = bits_run_end(a->absent, p, at + nr);
            if (!bit_get(a->absent, p))
                continue;
            bits_set(a->absent, p, stop - p, false);
            bits_set(a->todo, p, stop - p, true);
        }
        first = at + nr;
    }
    return rc < 0 ? rc : 0;
}

/* Whether a page of the 2 MiB from @first on is wanted. */
static bool block_is_wanted(const struct area *a, uint64_t first)
{
    uint64_t left = a->pages - first,
             end = first + (left < MOMENT_BLOCK_PAGES ? left : MOMENT_BLOCK_PAGES);

    return bit_get(a->absent, first) || bits_run_end(a->absent, first, end) < end;
}

/* What is wanted is noted as absent at first; what is there moves on to what is to be done. */
static int take_area(struct snap_moment *m, struct area *a)
{
    uint64_t first = 0, end;
    int rc = 0;

    while (first < a->pages && rc == 0) {
        if (!bit_get(a->absent, first))
            first = bits_run_end(a->absent, first, a->pages);
        if (first == a->pages)
            break;
        first -= first % MOMENT_BLOCK_PAGES;
        end = first;
        while (end < a->pages && block_is_wanted(a, end))
            end += MOMENT_BLOCK_PAGES;
        end = end < a->pages ? end : a->pages;
        rc = protect_present(m, a, first, end);
        first = end;
    }
    return rc;
}

static int note_wanted(struct snap_moment *m, struct dirty_consumer *changed, struct err *err)
{
    struct dirty_run run;
    int rc = 0;

    for (unsigned i = 0; i < m->nr && !changed; i++)
        bits_set(m->areas[i].absent, 0, m->areas[i].pages, true);
    while (changed && (rc = dirty_take(changed, UINT64_MAX, true, &run, err)) == 1)
        bits_set(m->areas[run.region].absent, run.first, run.nr, true);
    return rc;
}

int snap_moment_take(struct snap_moment *m, struct dirty_consumer *changed, struct err *err)
{
    int rc;

    (void)pthread_mutex_lock(&m->lock);
    rc = note_wanted(m, changed, err);
    for (unsigned i = 0; i < m->nr && rc == 0; i++) {
        rc = take_area(m, &m->areas[i]);
        if (rc < 0)
            (void)err_set(err, rc, "memory zone %s: protecting it: %s", m->areas[i].r->id,
                          strerror(-rc));
    }
    (void)pthread_mutex_unlock(&m->lock);
    for (unsigned i = 0; rc < 0 && i < m->nr; i++)
        (void)protect(m, &m->areas[i], 0, m->areas[i].pages, false);
    return rc;
}

/* --- Reading -------------------------------------------------------------------------- */

/* The pages at the head of the ring that follow each other in memory and in the ring; 0: it is empty. */
static unsigned aside_run_locked(const struct snap_moment *m)
{
    unsigned at = m->head % SNAP_MOMENT_ASIDE_PAGES, max = SNAP_MOMENT_ASIDE_PAGES - at, nr = 1;
    const struct aside *a = &m->aside[at];

    if (m->head == m->tail)
        return 0;
    max = m->tail - m->head < max ? m->tail - m->head : max;
    while (nr < max && a[nr].region == a->region && a[nr].page == a->page + nr)
        nr++;
    return nr;
}

/*
 * Copy the run of equal kind that some pages begin with to where the sink wants them, as far as there is
 * room; zeroes are not copied.
 *
 * Return: pages in the run.
 */
static uint64_t copy_run(const uint8_t *pages, uint64_t nr, uint8_t *room, uint64_t room_nr,
                         bool *ret_zero)
{
    uint64_t n = page_scan_run(pages, nr < room_nr ? nr : room_nr, ret_zero);
    bool zero = true;

    if (!*ret_zero)
        memcpy(room, pages, n << PAGE_SHIFT_4K);
    else if (n < nr && page_scan_run(pages + (n << PAGE_SHIFT_4K), 1, &zero) && zero)
        n += page_scan_run(pages + (n << PAGE_SHIFT_4K), nr - n, &zero);
    return n;
}

/* Tell the sink of a run that was copied, or is zero. */
static int tell(const struct snap_moment_sink *sink, unsigned region, uint64_t first, uint64_t nr,
                bool zero, struct err *err)
{
    return (zero ? sink->zero : sink->pages)(sink->arg, region, first, nr, err);
}

/* Hand over what was kept aside. */
static int read_aside(struct snap_moment *m, const struct snap_moment_sink *sink, struct err *err)
{
    int rc = 0;

    while (rc == 0) {
        uint64_t nr, left;
        struct aside a;
        uint8_t *room;
        unsigned at;
        bool zero;

        (void)pthread_mutex_lock(&m->lock);
        nr = aside_run_locked(m);
        if (!nr)
            rc = m->rc < 0 ? err_set(err, m->rc, "userfaultfd: %s", strerror(-m->rc)) : 1;
        at = m->head % SNAP_MOMENT_ASIDE_PAGES;
        a = m->aside[at];
        (void)pthread_mutex_unlock(&m->lock);
        if (rc != 0)
            break;
        room = sink->room(sink->arg, &left);
        nr = copy_run(m->aside_data + at * PAGE_SIZE_4K, nr, room, left, &zero);
        rc = tell(sink, a.region, a.page, nr, zero, err);
        (void)pthread_mutex_lock(&m->lock);
        m->head += (unsigned)nr;
        if (m->head == m->tail)
            m->head = m->tail = 0; /* the same few pages again, while few are needed */
        (void)pthread_cond_signal(&m->room);
        (void)pthread_mutex_unlock(&m->lock);
    }
    return rc < 0 ? rc : 0;
}

/* Take the next run off an area; *@from becomes its first page.  Return: pages; 0: there is none. */
static uint64_t take_run(struct snap_moment *m, struct area *a, uint64_t *from, uint8_t *room,
                         uint64_t room_nr, bool *ret_zero)
{
    uint64_t first = *from, end = a->pages, nr = 0;

    (void)pthread_mutex_lock(&m->lock);
    if (!bit_get(a->todo, first))
        first = bits_run_end(a->todo, first, a->pages);
    if (first < end) {
        end = (first / MOMENT_BLOCK_PAGES + 1) * MOMENT_BLOCK_PAGES;
        end = bits_run_end(a->todo, first, end < a->pages ? end : a->pages);
        nr = copy_run(a->r->hva + (first << PAGE_SHIFT_4K), end - first, room, room_nr, ret_zero);
        bits_set(a->todo, first, nr, false);
    }
    (void)pthread_mutex_unlock(&m->lock);
    *from = first;
    return nr;
}

static int read_area(struct snap_moment *m, unsigned region, const struct snap_moment_sink *sink,
                     struct err *err)
{
    struct area *a = &m->areas[region];
    uint64_t from = 0, released = 0;
    int rc = 0;

    while (rc == 0 && from < a->pages) {
        uint64_t left, nr, end;
        uint8_t *room = sink->room(sink->arg, &left);
        bool zero = false;

        nr = take_run(m, a, &from, room, left, &zero);
        if (!nr)
            break;
        end = from + nr;
        /* Released in whole huge pages where that is possible: parts of one would split it. */
        if (end % MOMENT_BLOCK_PAGES == 0 || end == a->pages) {
            rc = protect(m, a, released, end - released, false);
            if (rc < 0)
                return err_set(err, rc, "memory zone %s: releasing it: %s", a->r->id,
                               strerror(-rc));
            released = end;
        }
        rc = tell(sink, region, from, nr, zero, err);
        from = end;
        if (rc == 0)
            rc = read_aside(m, sink, err);
    }
    if (rc == 0 && released < a->pages)
        rc = protect(m, a, released, a->pages - released, false);
    return rc;
}

static int read_absent(struct snap_moment *m, unsigned region, const struct snap_moment_sink *sink,
                       struct err *err)
{
    const struct area *a = &m->areas[region];
    int rc = 0;

    for (uint64_t first = 0, end; first < a->pages && rc == 0; first = end) {
        end = bits_run_end(a->absent, first, a->pages);
        if (bit_get(a->absent, first))
            rc = sink->zero(sink->arg, region, first, end - first, err);
    }
    return rc;
}

int snap_moment_read(struct snap_moment *m, const struct snap_moment_sink *sink, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < m->nr && rc == 0; i++)
        rc = read_absent(m, i, sink, err);
    for (unsigned i = 0; i < m->nr && rc == 0; i++)
        rc = read_area(m, i, sink, err);
    return rc == 0 ? read_aside(m, sink, err) : rc;
}
