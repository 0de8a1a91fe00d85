/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input, output and error that nobody gave us.
 */
#ifndef CORE_STD_FDS_H
#define CORE_STD_FDS_H

#include "core/base.h"

/**
 * std_fds_fill() - have descriptors 0, 1 and 2 open, those that are closed for nothing.
 *
 * The next files that are opened would get their numbers, and a message on standard error would be
 * written into a pack or a disk.  Reading the one and writing the others fails as before: -EBADF.
 *
 * Return: 0; the kernel's errno.
 * Threads: main, before anything is opened.
 */
CHECKED int std_fds_fill(void);

#endif
