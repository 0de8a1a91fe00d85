/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time that is not the machine's.  Threads run one at a time, and a seed says who is next wherever
 * one waits, or might be overtaken; the clock stands still as long as one can run.  When all wait,
 * it jumps to the first moment that one of them waits for.  So minutes pass in milliseconds, and a
 * seed replays both who ran and when.
 *
 * The seam is the C library, by -Wl,--wrap= (FAKE_TIME_WRAPS in tests/unit/CMakeLists.txt): the monotonic
 * clock, sleeps, poll(), mutexes, conditions, and threads.  What waits in any other call (a socket
 * that blocks, a pipe, epoll, a futex of its own) keeps the turn, and everybody hangs.
 */
#ifndef TESTS_FAKES_FAKE_TIME_H
#define TESTS_FAKES_FAKE_TIME_H

#include <stdint.h>

/*
 * From here on, for the caller and for all threads that it and they start.  The clock begins at the
 * same moment each time.
 */
void fake_time_begin(unsigned seed);

/* The machine's time again; every other thread was joined. */
void fake_time_end(void);

/* Since fake_time_begin(). */
uint64_t fake_time_ns(void);

/* Digest of who ran when, since fake_time_begin(). */
uint64_t fake_time_trace(void);

#endif
