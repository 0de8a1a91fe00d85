/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How soon a thread runs once it has something to do.
 *
 * Threads that somebody waits for and that work for microseconds (control, API, I/O, faults) share
 * processors with threads that work all the time (vCPUs, lanes, compression).  A thread that asks for
 * short slices takes the processor from one with longer ones as soon as it wakes, and gets no more of
 * it than before: Linux 6.12 and later.  Elsewhere this changes nothing.
 */
#ifndef CORE_THREAD_SLICE_H
#define CORE_THREAD_SLICE_H

/**
 * thread_be_prompt() - the calling thread works little and at once.
 *
 * Threads that it makes are so too.  One that has a real-time policy is left as it is.
 *
 * Threads: any.
 */
void thread_be_prompt(void);

/**
 * thread_be_patient() - the calling thread works for long: slices as they are by default.
 *
 * Threads: any.
 */
void thread_be_patient(void);

#endif
