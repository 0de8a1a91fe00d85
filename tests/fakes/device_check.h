/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks that every device undergoes: guest access as a table of rows,
 * state that survives, state that is refused.  All of them fail the test that
 * runs, and name what went wrong.
 */
#ifndef TESTS_FAKES_DEVICE_CHECK_H
#define TESTS_FAKES_DEVICE_CHECK_H

#include "core/device.h"
#include "core/state.h"
#include "tests/fakes/fake_env.h"

/* One guest access. */
struct device_row {
    const char *why;
    char op; /* 'r', or 'w' */
    unsigned win;
    uint64_t off;
    unsigned size;
    uint64_t val;    /* what must be read, or is written */
    unsigned errors; /* dev->guest_errors afterwards */
};

/* A device under test and another of its kind, in one environment. */
struct device_pair {
    struct fake_env *fe;
    struct device *dev;   /* reset and resumed */
    struct device *fresh; /* reset */
};

/**
 * device_pair_new() - both of them, from one configuration that takes no handles.
 *
 * Return: owned, to be given to device_pair_free().
 * Threads: the test.
 */
struct device_pair *device_pair_new(const struct device_ops *ops, const char *id, const void *cfg);

/**
 * device_pair_free() - free both and their environment.
 * @pair: taken; NULL is allowed.
 *
 * Threads: the test.
 */
void device_pair_free(struct device_pair *pair);

/**
 * device_check_new() - device_new() that cannot fail.
 *
 * Return: owned, to be given to device_free().
 * Threads: the test.
 */
struct device *device_check_new(const struct device_ops *ops, const struct dev_env *env,
                                const char *id, const void *cfg);

/**
 * device_check_read() - a guest read as the bus does it: locked, and cut to its size.
 *
 * Threads: any.
 */
uint64_t device_check_read(struct device *dev, unsigned win, uint64_t off, unsigned size);

/**
 * device_check_write() - a guest write as the bus does it.
 *
 * Threads: any.
 */
void device_check_write(struct device *dev, unsigned win, uint64_t off, unsigned size,
                        uint64_t val);

/**
 * device_check_rows() - do the accesses in order and compare.
 *
 * Threads: the test.
 */
void device_check_rows(struct device *dev, const struct device_row *rows, size_t nr);

/**
 * device_check_pause() - quiesce, with ten seconds for it.
 *
 * Threads: the test, not the device's loop.
 */
void device_check_pause(struct device *dev);

/**
 * device_check_resume() - resume, with the device locked.
 *
 * Threads: the test.
 */
void device_check_resume(struct device *dev);

/**
 * device_check_save() - the device's section.
 * @dev: quiet.
 *
 * Return: to be given to state_buf_release().
 * Threads: the test.
 */
struct state_buf device_check_save(struct device *dev);

/**
 * device_check_load() - stage and commit a section.
 * @dev: quiet; unchanged on failure.
 *
 * Return: what state_section_next() or state_stage() returned.
 * Threads: the test.
 */
CHECKED int device_check_load(struct device *dev, const uint8_t *data, size_t len, struct err *err);

/**
 * device_check_round_trip() - save, load into another, save: equal bytes.
 * @dev:   in the middle of something; quiet.
 * @fresh: of the same kind and configuration; has the state of @dev afterwards.
 *
 * Threads: the test.
 */
void device_check_round_trip(struct device *dev, struct device *fresh);

/**
 * device_check_bad_state() - every truncation is refused and changes nothing;
 * every changed bit is refused and changes nothing, or saves as the same bytes.
 * @dev:   quiet; only read.
 * @fresh: of the same kind and configuration; ends in some state that was accepted.
 *
 * Threads: the test.
 */
void device_check_bad_state(struct device *dev, struct device *fresh);

/**
 * device_check_refused() - an impossible value is refused by name and changes nothing.
 * @dev:   quiet; only read.
 * @field: key whose value is replaced.
 * @cbor:  the value, encoded; @cbor_len bytes.
 * @msg:   what the loader must say after the id and a point, e.g. "index: 200".
 *
 * Threads: the test.
 */
void device_check_refused(struct device *dev, const char *field, const char *cbor, size_t cbor_len,
                          const char *msg);

#endif
