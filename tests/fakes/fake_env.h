/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An environment for devices under test: a clock that the test turns by hand,
 * logs of what the device asked for, a few MiB of guest memory and the dirty
 * oracle.
 *
 *     struct fake_env *fe = fake_env_new();
 *     device_new(&cmos_ops, &fe->env, "cmos", &cfg, &dev, &err);
 *     fake_env_oracle_begin(fe);
 *     ... guest accesses that make the device write guest memory ...
 *     assert_int_equal(fake_env_oracle_end(fe), 3);   3 pages changed, all marked
 *
 * Guest memory, so that ranges can cross regions and fall off the end:
 *
 *     region 0   0x0000000000   4 MiB
 *     region 1   0x0000400000   2 MiB, adjacent to region 0
 *     region 2   0x0100000000   2 MiB
 *
 * A failure of the fake itself fails the test that runs.
 * Threads: the logs may be written by any thread of a device; read the plain
 * members only when those threads are quiet, and use fake_env_wait() to get
 * there.
 */
#ifndef TESTS_FAKES_FAKE_ENV_H
#define TESTS_FAKES_FAKE_ENV_H

#include "core/bus.h"
#include "core/device.h"
#include "core/gmem.h"
#include "core/loop.h"

enum {
    FAKE_ENV_PINS = 64,      /* legacy interrupt lines */
    FAKE_ENV_LOG_MAX = 1024, /* entries kept of each log; later ones are only counted */
    FAKE_ENV_RAM_LOW = 4 << 20,
    FAKE_ENV_RAM_ADJACENT = 2 << 20,
    FAKE_ENV_RAM_HIGH = 2 << 20,
};

#define FAKE_ENV_GPA_HIGH UINT64_C(0x100000000)

struct fake_irq {
    unsigned pin;
    bool level;
};

struct fake_msi {
    uint64_t addr;
    uint32_t data;
};

struct fake_ioeventfd {
    int fd;
    uint64_t gpa;
    unsigned len;
};

struct fake_event {
    char source[32];
    char event[32];
    char id[DEVICE_ID_MAX + 1];
};

struct fake_env {
    struct dev_env env; /* what device_new() gets: &fe->env */

    /* Turned by the test. */
    uint64_t now_ns;
    int64_t wall_ns;
    int ioeventfd_rc; /* what the ioeventfd service answers; 0 */

    /* Everything below is written by the device; count may exceed FAKE_ENV_LOG_MAX. */
    pthread_mutex_t lock;
    bool irq_level[FAKE_ENV_PINS];
    unsigned nr_irqs; /* calls to irq_set, changes or not */
    struct fake_irq irqs[FAKE_ENV_LOG_MAX];
    unsigned nr_msis;
    struct fake_msi msis[FAKE_ENV_LOG_MAX];
    unsigned guest_errors;
    char guest_error[256]; /* the last one */
    unsigned nr_requests;
    enum machine_request requests[FAKE_ENV_LOG_MAX];
    unsigned nr_ioeventfds; /* registered now */
    struct fake_ioeventfd ioeventfds[FAKE_ENV_LOG_MAX];
    unsigned nr_events;
    struct fake_event events[FAKE_ENV_LOG_MAX];

    /* The oracle's copy of guest memory, one per region. */
    uint8_t *shadow[GMEM_REGIONS_MAX];
};

/**
 * fake_env_new() - an environment at time 0 with zeroed memory.
 *
 * Return: owned, to be given to fake_env_free(); fails the test otherwise.
 * Threads: the test.
 */
struct fake_env *fake_env_new(void);

/**
 * fake_env_free() - free it and its memory, loop and buses.
 * @fe: taken, no device left; NULL is allowed.
 *
 * Threads: the test.
 */
void fake_env_free(struct fake_env *fe);

/**
 * fake_env_clear() - forget what was logged; levels of lines and ioeventfds stay.
 *
 * Threads: the test, the device is quiet.
 */
void fake_env_clear(struct fake_env *fe);

/**
 * fake_env_wait() - run the loop until a condition holds.
 * @done:       asked before the loop runs and every millisecond; with fe->lock not held.
 * @timeout_ms: then it gives up.
 *
 * Return: what @done said last.
 * Threads: the test; no other thread runs the loop.
 */
bool fake_env_wait(struct fake_env *fe, bool (*done)(void *arg), void *arg, unsigned timeout_ms);

/**
 * fake_env_run_loop() - run the loop for some time, for what must not happen.
 *
 * Threads: as fake_env_wait().
 */
void fake_env_run_loop(struct fake_env *fe, unsigned ms);

/**
 * fake_env_nr_msis() - messages so far, readable while the device's threads run.
 *
 * Threads: any.
 */
unsigned fake_env_nr_msis(struct fake_env *fe);

/**
 * fake_env_mmio_write() - a guest write as KVM would treat it.
 *
 * Signals the ioeventfd that covers the access, if one is registered, and goes
 * to the bus otherwise.
 * Threads: any.
 */
void fake_env_mmio_write(struct fake_env *fe, uint64_t gpa, unsigned size, uint64_t val);

/**
 * fake_env_oracle_begin() - take a copy of guest memory and clear its dirty bits.
 *
 * Threads: the test, the device is quiet.
 */
void fake_env_oracle_begin(struct fake_env *fe);

/**
 * fake_env_oracle_check() - as fake_env_oracle_end(), and tell instead of failing.
 * @ret_changed: pages that changed.
 * @ret_gpa:     first page that changed and is not marked; set if there is one.
 *
 * Return: true if every page that changed is marked.
 * Threads: the test, the device is quiet.
 */
bool fake_env_oracle_check(struct fake_env *fe, unsigned *ret_changed, uint64_t *ret_gpa);

/**
 * fake_env_oracle_end() - every page that changed since must be marked dirty.
 *
 * Fails the test, naming the page, if one is not.
 *
 * Return: the number of pages that changed, so that a test can tell that its
 * operation wrote something at all.
 * Threads: the test, the device is quiet.
 */
unsigned fake_env_oracle_end(struct fake_env *fe);

#endif
