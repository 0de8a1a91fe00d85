/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The n-th call that changes a disk, or reads from it, goes wrong.
 *
 * io_fault.c defines write, pwrite, pread, fsync, fdatasync, ftruncate, unlink, mkdir
 * and their like, so that every call of the program, and of the libraries it is
 * linked with, comes by here.
 */
#ifndef TESTS_UNIT_IO_FAULT_H
#define TESTS_UNIT_IO_FAULT_H

enum io_fault_mode {
    IO_FAULT_NONE,
    IO_FAULT_KILL,  /* SIGKILL before the call */
    IO_FAULT_TORN,  /* SIGKILL; of a write the first half is done */
    IO_FAULT_EIO,   /* this call fails, later ones work */
    IO_FAULT_FULL,  /* this and all later calls that need space fail: ENOSPC */
    IO_FAULT_QUOTA, /* the same with EDQUOT */
    IO_FAULT_SHORT, /* this write does half of its work and says so */
    IO_FAULT_READ, /* calls that read are counted instead: this one fails with EIO, later ones work */
};

/* Begin to count; the @n-th call from now, beginning with 1, goes wrong. */
void io_fault_arm(enum io_fault_mode mode, long n);

/* Stop; returns how many calls there were. */
long io_fault_disarm(void);

#endif
