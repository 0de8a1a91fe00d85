/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An object with a state row of every kind, for the tests of the codec.
 * docs/state-format.md uses it as its example.
 */
#ifndef TESTS_FAKES_FAKE_THING_H
#define TESTS_FAKES_FAKE_THING_H

#include "core/state.h"

enum {
    THING_POINTS = 4,
    THING_LOG_MAX = 64,
};

struct thing_point {
    void *private_ptr; /* does not travel */
    uint16_t x;
    int64_t y;
    uint8_t *note; /* owned */
    uint32_t note_len;
};

struct thing {
    void *private_ptr; /* does not travel */
    uint8_t mode;
    uint16_t port;
    uint32_t flags;
    uint64_t base;
    int64_t bias;
    bool on;
    uint8_t ram[3];
    uint64_t regs[2];
    uint8_t uuid[4];
    char name[8];
    struct thing_point origin;
    struct thing_point corners[2];
    struct thing_point points[THING_POINTS];
    uint32_t nr_points;
    uint8_t *log; /* owned */
    uint32_t log_len;
};

extern const struct state_desc thing_point_state;
extern const struct state_desc thing_state;

/**
 * thing_fill() - an example with something in every member.
 * @thing: zeroed; to be given to state_release().
 *
 * Threads: any.
 */
void thing_fill(struct thing *thing);

#endif
