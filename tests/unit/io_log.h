/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program does to the files under a directory, written down, and what a disk may
 * have of it after the power was cut.
 *
 * io_log.c defines open, write, pwrite, fsync, fdatasync, ftruncate, unlink and mkdir, so that
 * every call of the program, and of the libraries it is linked with, comes by here.
 *
 * The model: contents and length of a file are on the disk once it was fsynced; of later
 * writes each may be there, be missing, or be there in some of its sectors of 512 bytes, in
 * any order. A name that appeared or went is so on the disk once the directory was fsynced;
 * of later changes of one directory, a beginning is. Files called *-shm are never there.
 */
#ifndef TESTS_UNIT_IO_LOG_H
#define TESTS_UNIT_IO_LOG_H

#include "core/base.h"

/* Begin to write down what happens under @root, which is on the disk as it is. */
void io_log_start(const char *root);

/* Stop; returns how many calls there were. */
size_t io_log_stop(void);

/*
 * Make what the disk may have if the power was cut after the first @nr calls.
 * @base: the directory as it was at the start.
 * @to:   is made.
 * @seed: decides what became of what was not safe; 0: nothing of it is there.
 */
void io_log_replay(const char *base, const char *to, size_t nr, uint64_t seed);

#endif
