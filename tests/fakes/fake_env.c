/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* --- The services --------------------------------------------------------- */

static uint64_t fake_now_ns(void *arg)
{
    return ((struct fake_env *)arg)->now_ns;
}

static int64_t fake_wall_ns(void *arg)
{
    return ((struct fake_env *)arg)->wall_ns;
}

static void fake_irq_set(void *arg, unsigned pin, bool level)
{
    struct fake_env *fe = arg;

    (void)pthread_mutex_lock(&fe->lock);
    if (fe->nr_irqs < FAKE_ENV_LOG_MAX)
        fe->irqs[fe->nr_irqs] = (struct fake_irq){.pin = pin, .level = level};
    fe->nr_irqs++;
    if (pin < FAKE_ENV_PINS)
        fe->irq_level[pin] = level;
    (void)pthread_mutex_unlock(&fe->lock);
    assert_true(pin < FAKE_ENV_PINS);
}

static void fake_msi_send(void *arg, uint64_t addr, uint32_t data)
{
    struct fake_env *fe = arg;

    (void)pthread_mutex_lock(&fe->lock);
    if (fe->nr_msis < FAKE_ENV_LOG_MAX)
        fe->msis[fe->nr_msis] = (struct fake_msi){.addr = addr, .data = data};
    fe->nr_msis++;
    (void)pthread_mutex_unlock(&fe->lock);
}

static void fake_guest_error(void *arg, const struct device *dev, const char *fmt, va_list ap)
    PRINTF(3, 0);

static void fake_guest_error(void *arg, const struct device *dev, const char *fmt, va_list ap)
{
    struct fake_env *fe = arg;

    (void)dev;
    (void)pthread_mutex_lock(&fe->lock);
    fe->guest_errors++;
    (void)vsnprintf(fe->guest_error, sizeof(fe->guest_error), fmt, ap);
    (void)pthread_mutex_unlock(&fe->lock);
}

static void fake_request(void *arg, enum machine_request what)
{
    struct fake_env *fe = arg;

    (void)pthread_mutex_lock(&fe->lock);
    if (fe->nr_requests < FAKE_ENV_LOG_MAX)
        fe->requests[fe->nr_requests] = what;
    fe->nr_requests++;
    (void)pthread_mutex_unlock(&fe->lock);
}

static bool fake_ioeventfd_is(const struct fake_ioeventfd *e, int fd, uint64_t gpa, unsigned len)
{
    return e->fd == fd && e->gpa == gpa && e->len == len;
}

static int fake_ioeventfd(void *arg, int fd, uint64_t gpa, unsigned len, bool on)
{
    struct fake_env *fe = arg;
    int rc = fe->ioeventfd_rc;
    unsigned i;

    (void)pthread_mutex_lock(&fe->lock);
    for (i = 0; i < fe->nr_ioeventfds; i++)
        if (fake_ioeventfd_is(&fe->ioeventfds[i], fd, gpa, len))
            break;
    if (on && i < fe->nr_ioeventfds)
        rc = -EEXIST;
    else if (!on && i == fe->nr_ioeventfds)
        rc = -ENOENT;
    else if (on && i == FAKE_ENV_LOG_MAX)
        rc = -ENOSPC;
    else if (!rc && on)
        fe->ioeventfds[fe->nr_ioeventfds++] =
            (struct fake_ioeventfd){.fd = fd, .gpa = gpa, .len = len};
    else if (!rc)
        fe->ioeventfds[i] = fe->ioeventfds[--fe->nr_ioeventfds];
    (void)pthread_mutex_unlock(&fe->lock);
    return rc;
}

static void fake_event(void *arg, const char *source, const char *event, const char *id)
{
    struct fake_env *fe = arg;
    struct fake_event *e;

    (void)pthread_mutex_lock(&fe->lock);
    if (fe->nr_events < FAKE_ENV_LOG_MAX) {
        e = &fe->events[fe->nr_events];
        (void)snprintf(e->source, sizeof(e->source), "%s", source);
        (void)snprintf(e->event, sizeof(e->event), "%s", event);
        (void)snprintf(e->id, sizeof(e->id), "%s", id);
    }
    fe->nr_events++;
    (void)pthread_mutex_unlock(&fe->lock);
}

static const struct dev_env_ops fake_ops = {
    .now_ns = fake_now_ns,
    .wall_ns = fake_wall_ns,
    .irq_set = fake_irq_set,
    .msi_send = fake_msi_send,
    .guest_error = fake_guest_error,
    .request = fake_request,
    .ioeventfd = fake_ioeventfd,
    .event = fake_event,
};

/* --- Life cycle ----------------------------------------------------------- */

struct fake_env *fake_env_new(void)
{
    static const struct {
        uint64_t gpa, len;
        const char *id;
    } regions[] = {
        {0,                 FAKE_ENV_RAM_LOW,      "low"     },
        {FAKE_ENV_RAM_LOW,  FAKE_ENV_RAM_ADJACENT, "adjacent"},
        {FAKE_ENV_GPA_HIGH, FAKE_ENV_RAM_HIGH,     "high"    },
    };
    const struct gmem_backing backing = {.fd = -1};
    struct fake_env *fe = calloc(1, sizeof(*fe));

    assert_non_null(fe);
    (void)pthread_mutex_init(&fe->lock, NULL);
    fe->env = (struct dev_env){.ops = &fake_ops, .arg = fe};
    assert_int_equal(gmem_new(&fe->env.gm), 0);
    for (size_t i = 0; i < ARRAY_LEN(regions); i++) {
        struct err err = {0};

        if (gmem_add_region(fe->env.gm, regions[i].gpa, regions[i].len, regions[i].id, &backing,
                            &err) < 0)
            fail_msg("guest memory: %s", err.msg);
    }
    assert_int_equal(loop_new(&fe->env.loop), 0);
    assert_int_equal(bus_new(0x10000, &fe->env.pio), 0);
    assert_int_equal(bus_new(0, &fe->env.mmio), 0);
    return fe;
}

void fake_env_free(struct fake_env *fe)
{
    if (!fe)
        return;
    for (unsigned i = 0; i < GMEM_REGIONS_MAX; i++)
        free(fe->shadow[i]);
    bus_free(fe->env.mmio);
    bus_free(fe->env.pio);
    loop_free(fe->env.loop);
    gmem_free(fe->env.gm);
    (void)pthread_mutex_destroy(&fe->lock);
    free(fe);
}

void fake_env_clear(struct fake_env *fe)
{
    (void)pthread_mutex_lock(&fe->lock);
    fe->nr_irqs = 0;
    fe->nr_msis = 0;
    fe->guest_errors = 0;
    fe->guest_error[0] = 0;
    fe->nr_requests = 0;
    fe->nr_events = 0;
    (void)pthread_mutex_unlock(&fe->lock);
}

/* --- The loop ------------------------------------------------------------- */

struct fake_wait {
    struct fake_env *fe;
    struct loop_source *timer;
    bool (*done)(void *arg);
    void *arg;
    uint64_t deadline_ns;
    bool result;
};

static void fake_wait_tick(void *arg)
{
    struct fake_wait *w = arg;
    uint64_t now_ns = loop_now_ns();

    w->result = w->done && w->done(w->arg);
    if (w->result || now_ns >= w->deadline_ns)
        loop_stop(w->fe->env.loop);
    else
        loop_arm_timer(w->timer, now_ns + 1000000);
}

bool fake_env_wait(struct fake_env *fe, bool (*done)(void *arg), void *arg, unsigned timeout_ms)
{
    struct fake_wait w = {
        .fe = fe,
        .done = done,
        .arg = arg,
        .deadline_ns = loop_now_ns() + (uint64_t)timeout_ms * 1000000,
    };

    if (done && done(arg))
        return true;
    assert_int_equal(loop_add_timer(fe->env.loop, fake_wait_tick, &w, &w.timer), 0);
    loop_arm_timer(w.timer, loop_now_ns() + 1);
    assert_int_equal(loop_run(fe->env.loop), 0);
    loop_remove(w.timer);
    return w.result;
}

void fake_env_run_loop(struct fake_env *fe, unsigned ms)
{
    (void)fake_env_wait(fe, NULL, NULL, ms);
}

/* --- Guest side ----------------------------------------------------------- */

unsigned fake_env_nr_msis(struct fake_env *fe)
{
    unsigned nr;

    (void)pthread_mutex_lock(&fe->lock);
    nr = fe->nr_msis;
    (void)pthread_mutex_unlock(&fe->lock);
    return nr;
}

void fake_env_mmio_write(struct fake_env *fe, uint64_t gpa, unsigned size, uint64_t val)
{
    const uint64_t one = 1;
    int fd = -1;

    (void)pthread_mutex_lock(&fe->lock);
    for (unsigned i = 0; i < fe->nr_ioeventfds; i++) {
        const struct fake_ioeventfd *e = &fe->ioeventfds[i];

        if (e->gpa == gpa && (e->len == 0 || e->len == size))
            fd = e->fd;
    }
    (void)pthread_mutex_unlock(&fe->lock);
    if (fd >= 0)
        assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
    else
        bus_write(fe->env.mmio, gpa, size, val);
}

/* --- The dirty oracle ----------------------------------------------------- */

static uint64_t *oracle_drain(struct fake_env *fe, unsigned region, uint64_t pages)
{
    uint64_t *bits = calloc((pages + 63) / 64, sizeof(*bits));

    assert_non_null(bits);
    gmem_dirty_drain(fe->env.gm, region, bits);
    return bits;
}

void fake_env_oracle_begin(struct fake_env *fe)
{
    for (unsigned i = 0; i < gmem_nr_regions(fe->env.gm); i++) {
        const struct gmem_region *r = gmem_region(fe->env.gm, i);

        free(oracle_drain(fe, i, r->len >> PAGE_SHIFT_4K));
        if (!fe->shadow[i])
            fe->shadow[i] = malloc(r->len);
        assert_non_null(fe->shadow[i]);
        memcpy(fe->shadow[i], r->hva, r->len);
    }
}

static bool oracle_page_is_wrong(const struct fake_env *fe, unsigned region, uint64_t page,
                                 const uint64_t *bits, unsigned *changed)
{
    const struct gmem_region *r = gmem_region(fe->env.gm, region);
    uint64_t off = page << PAGE_SHIFT_4K;

    if (!memcmp(fe->shadow[region] + off, r->hva + off, PAGE_SIZE_4K))
        return false;
    (*changed)++;
    return !(bits[page / 64] >> (page % 64) & 1);
}

bool fake_env_oracle_check(struct fake_env *fe, unsigned *ret_changed, uint64_t *ret_gpa)
{
    unsigned changed = 0;
    bool ok = true;

    for (unsigned i = 0; i < gmem_nr_regions(fe->env.gm); i++) {
        const struct gmem_region *r = gmem_region(fe->env.gm, i);
        uint64_t pages = r->len >> PAGE_SHIFT_4K;
        uint64_t *bits = oracle_drain(fe, i, pages);

        assert_non_null(fe->shadow[i]);
        for (uint64_t p = 0; p < pages; p++) {
            if (!oracle_page_is_wrong(fe, i, p, bits, &changed) || !ok)
                continue;
            ok = false;
            *ret_gpa = r->gpa + (p << PAGE_SHIFT_4K);
        }
        free(bits);
    }
    *ret_changed = changed;
    return ok;
}

unsigned fake_env_oracle_end(struct fake_env *fe)
{
    unsigned changed;
    uint64_t gpa;

    if (!fake_env_oracle_check(fe, &changed, &gpa))
        fail_msg("page 0x%llx changed and is not marked dirty", (unsigned long long)gpa);
    return changed;
}
