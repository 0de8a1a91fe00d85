/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/loop.h"

/* The guest writes behind the compiler's back; that is no race of ours. */
#define GUEST_CODE __attribute__((no_sanitize("thread"), noinline))

static const uint64_t region_gpa[FAKE_GUEST_REGIONS] = {0, GIB(4)};

struct fake_config {
    uint64_t len[FAKE_GUEST_REGIONS];
    uint64_t nr_regions;
};

struct fake_state {
    uint64_t magic;
    uint64_t saves;
};

static const uint64_t state_magic = 0x73656c6379687263;

/* --- The log ------------------------------------------------------------- */

static uint64_t pages_of(const struct fake_guest *g, unsigned region)
{
    return g->cfg.len[region] >> PAGE_SHIFT_4K;
}

static int log_set(void *arg, unsigned region, bool on)
{
    struct fake_guest *g = arg;

    atomic_store(&g->log_on, on);
    /* As KVM_DIRTY_LOG_INITIALLY_SET. */
    for (uint64_t w = 0; w < (pages_of(g, region) + 63) / 64; w++)
        atomic_store(&g->log[region][w], on ? UINT64_MAX : 0);
    return 0;
}

static int log_get(void *arg, unsigned region, uint64_t *bits)
{
    struct fake_guest *g = arg;
    uint64_t pages = pages_of(g, region);

    if (!atomic_load(&g->log_on))
        atomic_fetch_add(&g->log_errors, 1);
    for (uint64_t w = 0; w < (pages + 63) / 64; w++)
        bits[w] |= atomic_load(&g->log[region][w]);
    if (g->cfg.never_clean && atomic_load(&g->running))
        bits[0] |= 2;
    if (pages % 64)
        bits[pages / 64] &= (UINT64_C(1) << pages % 64) - 1;
    return 0;
}

static int log_clear(void *arg, unsigned region, uint64_t first, uint32_t nr, const uint64_t *bits)
{
    struct fake_guest *g = arg;
    uint64_t pages = pages_of(g, region);

    if (!atomic_load(&g->log_on) || first % 64 || first + nr > pages ||
        (nr % 64 && first + nr != pages))
        atomic_fetch_add(&g->log_errors, 1);
    for (uint64_t w = 0; w < (nr + 63) / 64; w++)
        atomic_fetch_and(&g->log[region][first / 64 + w], ~bits[w]);
    return 0;
}

static const struct dirty_log_ops log_ops = {log_set, log_get, log_clear};

/* --- The guest's own doings ---------------------------------------------- */

GUEST_CODE static void write_guest(volatile uint8_t *p, uint8_t byte)
{
    *p = byte;
}

/* Write a byte as the guest does: not through gmem, noted in the log. */
static void fake_guest_poke(struct fake_guest *g, unsigned region, uint64_t off, uint8_t byte)
{
    write_guest(gmem_region(g->gm, region)->hva + off, byte);
    atomic_fetch_or(&g->log[region][off >> 18], UINT64_C(1) << (off >> PAGE_SHIFT_4K) % 64);
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

static void dirty_some(struct fake_guest *g, uint64_t *x, uint64_t nr)
{
    uint64_t window = g->cfg.dirty_pages ? g->cfg.dirty_pages : pages_of(g, 0);

    (void)pthread_mutex_lock(&g->lock);
    for (uint64_t i = 0; i < nr && atomic_load(&g->running); i++) {
        uint64_t r = next_random(x);
        uint64_t page = g->cfg.dirty_first + r % window;

        fake_guest_poke(g, 0, (page << PAGE_SHIFT_4K) + (r >> 40) % PAGE_SIZE_4K,
                        (uint8_t)(r >> 32));
    }
    (void)pthread_mutex_unlock(&g->lock);
}

static void *guest_main(void *arg)
{
    struct fake_guest *g = arg;
    unsigned every_us = g->cfg.dirty_every_us ? g->cfg.dirty_every_us : 200;
    const struct timespec nap = {0, (long)every_us * 1000};
    uint64_t x = g->cfg.seed * 2654435761U + 88172645463325252, begin = loop_now_ns(), done = 0;

    while (!atomic_load(&g->quit)) {
        uint64_t due =
            (uint64_t)((unsigned __int128)g->cfg.dirty_rate * (loop_now_ns() - begin) / 1000000000);

        if (due > done && atomic_load(&g->running) &&
            loop_now_ns() >= atomic_load(&g->nap_until_ns))
            dirty_some(g, &x, due - done > 4096 ? 4096 : due - done);
        done = due;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    }
    return NULL;
}

/* --- Life cycle ---------------------------------------------------------- */

static void make_memory(struct fake_guest *g)
{
    struct gmem_backing b = {.fd = -1, .shared = g->cfg.shared, .thp = g->cfg.thp};
    struct err err = {0};

    assert_int_equal(gmem_new(&g->gm), 0);
    for (unsigned i = 0; i < FAKE_GUEST_REGIONS && g->cfg.len[i]; i++)
        if (gmem_add_region(g->gm, region_gpa[i], g->cfg.len[i], i ? "high" : "ram", &b, &err) < 0)
            fail_msg("%s", err.msg);
    gmem_set_thp(g->gm, true);
}

static void fill(struct fake_guest *g)
{
    unsigned alike = g->cfg.data_run ? g->cfg.data_run : 1;
    uint64_t x = g->cfg.seed + 1;
    bool data = false;

    for (unsigned i = 0; i < gmem_nr_regions(g->gm); i++) {
        uint64_t *p = (uint64_t *)(void *)gmem_region(g->gm, i)->hva;

        for (uint64_t page = 0; page < pages_of(g, i); page++, p += PAGE_SIZE_4K / 8) {
            if (page % alike == 0)
                data = next_random(&x) % 100 < g->cfg.data_percent;
            if (!data)
                continue;
            for (unsigned k = 0; k < PAGE_SIZE_4K / 8; k += 8)
                p[k] = next_random(&x);
        }
    }
}

void fake_guest_expect(struct fake_guest *g, const struct fake_guest_config *cfg)
{
    memset(g, 0, sizeof(*g));
    g->cfg = *cfg;
    (void)pthread_mutex_init(&g->lock, NULL);
}

void fake_guest_start(struct fake_guest *g, const struct fake_guest_config *cfg)
{
    fake_guest_expect(g, cfg);
    make_memory(g);
    fill(g);
    for (unsigned i = 0; i < gmem_nr_regions(g->gm); i++) {
        g->log[i] = calloc((size_t)(pages_of(g, i) + 63) / 64, sizeof(uint64_t));
        assert_non_null(g->log[i]);
    }
    assert_int_equal(dirty_new(g->gm, &log_ops, g, &g->dirty), 0);
    atomic_store(&g->running, true);
    atomic_store(&g->holds_locks, true);
    if (cfg->dirty_rate) {
        assert_int_equal(pthread_create(&g->thread, NULL, guest_main, g), 0);
        g->has_thread = true;
    }
}

void fake_guest_release(struct fake_guest *g)
{
    atomic_store(&g->quit, true);
    if (g->has_thread)
        (void)pthread_join(g->thread, NULL);
    dirty_free(g->dirty);
    gmem_free(g->gm);
    for (unsigned i = 0; i < FAKE_GUEST_REGIONS; i++)
        free(g->log[i]);
    (void)pthread_mutex_destroy(&g->lock);
}

bool fake_guest_equal(struct fake_guest *a, struct fake_guest *b)
{
    if (!a->gm || !b->gm || gmem_nr_regions(a->gm) != gmem_nr_regions(b->gm))
        return false;
    for (unsigned i = 0; i < gmem_nr_regions(a->gm); i++)
        if (a->cfg.len[i] != b->cfg.len[i] ||
            memcmp(gmem_region(a->gm, i)->hva, gmem_region(b->gm, i)->hva, a->cfg.len[i]) != 0)
            return false;
    return true;
}

/* --- Operations ---------------------------------------------------------- */

static int op(struct fake_guest *g, enum fake_op which, struct err *err)
{
    const struct timespec nap = {g->op_delay_us / 1000000, (long)(g->op_delay_us % 1000000) * 1000};

    atomic_fetch_add(&g->calls[which], 1);
    if (g->op_delay_us)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    if (g->on_op)
        g->on_op(g->on_op_arg, which);
    if (atomic_load(&g->fail_op) == which)
        return err_set(err, -EIO, "operation %d was made to fail", which);
    return 0;
}

static void append(struct state_buf *buf, const void *data, size_t len)
{
    uint8_t *p = realloc(buf->data, buf->len + len);

    assert_non_null(p);
    memcpy(p + buf->len, data, len);
    buf->data = p;
    buf->len += len;
    buf->cap = buf->len;
}

static int do_describe(void *arg, struct state_buf *config, struct err *err)
{
    struct fake_guest *g = arg;
    struct fake_config c = {.nr_regions = gmem_nr_regions(g->gm)};

    memcpy(c.len, g->cfg.len, sizeof(c.len));
    append(config, &c, sizeof(c));
    return op(g, FAKE_OP_DESCRIBE, err);
}

static int do_pause(void *arg, struct err *err)
{
    struct fake_guest *g = arg;
    int rc = op(g, FAKE_OP_PAUSE, err);

    if (rc < 0)
        return rc;
    atomic_store(&g->running, false);
    (void)pthread_mutex_lock(&g->lock); /* what is being written is written */
    (void)pthread_mutex_unlock(&g->lock);
    return 0;
}

/* A head, and padding in parts of its own. */
static int put_state(struct fake_guest *g, const struct state_sink *sink, struct err *err)
{
    struct fake_state s = {state_magic, ++g->saves};
    uint8_t pad[4096];
    int rc = sink->put(sink->arg, (const uint8_t *)&s, sizeof(s), err);

    memset(pad, 0x5a, sizeof(pad));
    for (uint64_t left = g->state_pad; left && rc >= 0;) {
        size_t n = left < sizeof(pad) ? left : sizeof(pad);

        rc = sink->put(sink->arg, pad, n, err);
        left -= n;
    }
    return rc;
}

static int do_save(void *arg, const struct state_sink *sink, struct err *err)
{
    struct fake_guest *g = arg;
    int rc = put_state(g, sink, err);
    uint64_t page = 1 + g->saves % 3;

    if (rc < 0)
        return rc;
    if (g->quiet_save)
        return op(g, FAKE_OP_SAVE, err);
    /* Saving touches guest memory, as the VMM. */
    write_guest(gmem_region(g->gm, 0)->hva + page * PAGE_SIZE_4K + 5, (uint8_t)(0x80 + g->saves));
    gmem_mark(g->gm, page * PAGE_SIZE_4K + 5, 1);
    return op(g, FAKE_OP_SAVE, err);
}

static int do_release(void *arg, struct err *err)
{
    struct fake_guest *g = arg;

    atomic_store(&g->holds_locks, false);
    return op(g, FAKE_OP_RELEASE, err);
}

static int do_reclaim(void *arg, struct err *err)
{
    struct fake_guest *g = arg;
    int rc = op(g, FAKE_OP_RECLAIM, err);

    if (rc >= 0)
        atomic_store(&g->holds_locks, true);
    return rc;
}

static int do_resume(void *arg, struct err *err)
{
    struct fake_guest *g = arg;
    int rc = op(g, FAKE_OP_RESUME, err);

    if (rc >= 0)
        atomic_store(&g->running, true);
    return rc;
}

static void do_committed(void *arg)
{
    (void)op(arg, FAKE_OP_COMMITTED, NULL);
}

static int do_facts(void *arg, char **ret_text, size_t *ret_len, struct err *err)
{
    const struct fake_guest *g = arg;

    *ret_text = g->facts ? strdup(g->facts) : NULL;
    *ret_len = g->facts ? strlen(g->facts) : 0;
    return g->facts && !*ret_text ? err_set(err, -ENOMEM, "out of memory") : 0;
}

static void do_nap(void *arg, uint64_t until_ns)
{
    struct fake_guest *g = arg;

    atomic_store(&g->nap_until_ns, until_ns);
    atomic_fetch_add(&g->naps, until_ns != 0);
}

const struct mig_source_ops fake_source_ops = {
    .facts = do_facts,
    .nap = do_nap,
    .describe = do_describe,
    .pause = do_pause,
    .save = do_save,
    .release = do_release,
    .reclaim = do_reclaim,
    .resume = do_resume,
    .committed = do_committed,
};

static void make_ready(struct fake_guest *g)
{
    const atomic_bool enough = false;

    assert_int_equal(gmem_populate(g->gm, &enough, NULL), 0);
    gmem_set_spare(g->gm, true);
}

static int do_build(void *arg, const uint8_t *config, size_t len, struct gmem **ret_gm,
                    struct mig_refusal *why, struct err *err)
{
    struct fake_guest *g = arg;
    struct fake_config c;
    int rc = op(g, FAKE_OP_BUILD, err);

    if (rc < 0)
        return rc;
    if (atomic_load(&g->bad_config)) {
        (void)mig_refuse(why, "cpu: cpuid.7.0.ebx.avx512f is missing here");
        return mig_refuse(why, "disk _disk0: no such file");
    }
    if (len != sizeof(c))
        return err_set(err, -EBADMSG, "config: %zu bytes", len);
    memcpy(&c, config, sizeof(c));
    make_memory(g);
    if (g->ready)
        make_ready(g);
    *ret_gm = g->gm;
    return 0;
}

/* The head of the state is a part, and so is each byte of its padding. */
static int do_stage(void *arg, const uint8_t *state, size_t len, bool last, size_t *ret_used,
                    struct err *err)
{
    struct fake_guest *g = arg;
    struct fake_state s;
    int rc = op(g, FAKE_OP_STAGE, err);

    if (rc < 0)
        return rc;
    *ret_used = 0;
    if (!g->staged) {
        if (len < sizeof(s))
            return last ? err_set(err, -EBADMSG, "state: %zu bytes", len) : 0;
        memcpy(&s, state, sizeof(s));
        if (s.magic != state_magic)
            return err_set(err, -EBADMSG, "state: bad magic");
        g->staged = s.saves;
        *ret_used = sizeof(s);
    }
    for (; *ret_used < len; ++*ret_used)
        if (state[*ret_used] != 0x5a)
            return err_set(err, -EBADMSG, "state: byte %zu", *ret_used);
    return 0;
}

static int do_load(void *arg, struct err *err)
{
    struct fake_guest *g = arg;
    int rc = op(g, FAKE_OP_LOAD, err);

    if (rc >= 0)
        g->loaded = g->staged;
    return rc;
}

static int do_acquire(void *arg, struct err *err)
{
    struct fake_guest *g = arg;
    int rc = op(g, FAKE_OP_ACQUIRE, err);

    if (rc >= 0)
        atomic_store(&g->holds_locks, true);
    return rc;
}

static int do_start(void *arg, struct err *err)
{
    struct fake_guest *g = arg;
    int rc = op(g, FAKE_OP_START, err);

    if (rc >= 0)
        atomic_store(&g->running, true);
    return rc;
}

static void do_discard(void *arg)
{
    struct fake_guest *g = arg;

    (void)op(g, FAKE_OP_DISCARD, NULL);
    assert_false(atomic_load(&g->running));
    atomic_store(&g->holds_locks, false);
}

static int hear_facts(void *arg, const char *text, size_t len, struct err *err)
{
    struct fake_guest *g = arg;

    if (len >= sizeof(g->facts_heard))
        return err_set(err, -E2BIG, "facts: too many");
    memcpy(g->facts_heard, text, len);
    g->facts_heard[len] = 0;
    return 0;
}

const struct mig_dest_ops fake_dest_ops = {
    .facts = hear_facts,
    .build = do_build,
    .stage = do_stage,
    .load = do_load,
    .acquire = do_acquire,
    .start = do_start,
    .discard = do_discard,
};
