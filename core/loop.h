/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event loop: epoll, with timers and calls from other threads.
 *
 * Callbacks run on the thread that is inside loop_run(), one at a time.
 */
#ifndef CORE_LOOP_H
#define CORE_LOOP_H

#include "core/err.h"

struct loop;
struct loop_source;
struct loop_call;

typedef void loop_fd_fn(void *arg, uint32_t epoll_events);
typedef void loop_fn(void *arg);

/**
 * loop_new() - make a loop.
 *
 * Return: 0 and *@ret_loop, owned; the kernel's errno.
 * Threads: any.
 */
CHECKED int loop_new(struct loop **ret_loop);

/**
 * loop_free() - free the loop and what is registered with it; fds stay open.
 * @loop: taken, not running; NULL is allowed.
 *
 * Threads: the last user.
 */
void loop_free(struct loop *loop);

/**
 * loop_add_fd() - call back when a file descriptor is ready.
 * @fd:     borrowed until loop_remove().
 * @events: EPOLLIN, EPOLLOUT, ...; 0 to register silently.  Level-triggered.
 *
 * Return: 0 and *@ret_src, owned, to be given to loop_remove(); -ENOMEM; the
 * kernel's errno (-EPERM for a regular file).
 * Threads: any.
 */
CHECKED int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *arg,
                        struct loop_source **ret_src);

/**
 * loop_set_events() - change what a source waits for.
 *
 * Threads: any.
 */
void loop_set_events(struct loop_source *src, uint32_t events);

/**
 * loop_add_timer() - a timer, not yet armed (CLOCK_MONOTONIC).
 *
 * Return: as loop_add_fd().
 * Threads: any.
 */
CHECKED int loop_add_timer(struct loop *loop, loop_fn *fn, void *arg, struct loop_source **ret_src);

/**
 * loop_arm_timer() - fire once at a point of CLOCK_MONOTONIC; 0 disarms.
 *
 * Threads: any.
 */
void loop_arm_timer(struct loop_source *timer, uint64_t deadline_ns);

/**
 * loop_remove() - forget a source.
 * @src: taken; NULL is allowed.
 *
 * From the loop's own thread, or before it runs, or after it ended: the
 * callback never runs again once this returns.  From another thread: returns
 * when a running callback has ended; the caller must not hold a lock that the
 * callback takes.
 * Threads: any.
 */
void loop_remove(struct loop_source *src);

/**
 * loop_post() - run a function on the loop's thread, soon.
 *
 * Return: 0; -ENOMEM.
 * Threads: any, signal handlers excepted.
 */
CHECKED int loop_post(struct loop *loop, loop_fn *fn, void *arg);

/**
 * loop_call() - run a function on the loop's thread and wait until it returned.
 *
 * At once where the caller is that thread or the loop does not run.  It needs no memory: what has
 * to be given up can be.
 *
 * Threads: any that holds no lock the function takes.
 */
void loop_call(struct loop *loop, loop_fn *fn, void *arg);

/**
 * loop_call_begin() - loop_call() that does not wait.
 *
 * Return: 0 and *@ret_call, to be given to loop_call_end(), NULL where the function has run
 * already; -ENOMEM.
 * Threads: as loop_call().
 */
CHECKED int loop_call_begin(struct loop *loop, loop_fn *fn, void *arg, struct loop_call **ret_call);

/**
 * loop_call_is_done() - whether loop_call_end() would not wait.
 *
 * Threads: whoever began it.
 */
bool loop_call_is_done(struct loop *loop, const struct loop_call *call);

/**
 * loop_call_end() - wait until the function returned.
 * @call: taken; NULL is allowed.
 *
 * Threads: whoever began it.
 */
void loop_call_end(struct loop *loop, struct loop_call *call);

/**
 * loop_run() - dispatch until loop_stop().
 *
 * Return: 0; the kernel's errno.
 * Threads: one.
 */
CHECKED int loop_run(struct loop *loop);

/**
 * loop_stop() - have loop_run() return after the callback that is running.
 *
 * Threads: any.
 */
void loop_stop(struct loop *loop);

/**
 * loop_now_ns() - CLOCK_MONOTONIC in nanoseconds.
 *
 * Threads: any.
 */
uint64_t loop_now_ns(void);

#endif
