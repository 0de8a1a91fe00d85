/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of a private mapping have memory of their own.
 *
 * A page of anonymous memory that was never written is zero, and looking at it
 * costs a page fault each.  The kernel tells which are there: by PAGEMAP_SCAN
 * since Linux 6.7, by reading /proc/self/pagemap before.
 */
#ifndef CORE_PAGE_PRESENT_H
#define CORE_PAGE_PRESENT_H

#include "core/base.h"

/**
 * page_present_open() - a handle to ask with.
 *
 * Return: a descriptor, owned by the caller, to be closed; or the kernel's errno.
 * Threads: any.
 */
CHECKED int page_present_open(void);

/**
 * page_present_next() - find the next run of pages that have memory of their own.
 * @fd:    of page_present_open().
 * @hva:   start of the mapping in this process, 4 KiB aligned.
 * @from:  first page to look at, counted from @hva.
 * @nr:    pages of the mapping; @from <= @nr.
 * @ret_first, @ret_nr: the run, within [@from, @nr).
 *
 * Pages in swap count; the kernel's shared zero page does not, where it tells
 * (PAGEMAP_SCAN).  Between the run and @from nothing was written.  What is
 * written meanwhile may be reported or not.
 *
 * Return: 1; 0 if there is none; or the kernel's errno.
 * Threads: any.
 */
CHECKED int page_present_next(int fd, const uint8_t *hva, uint64_t from, uint64_t nr,
                              uint64_t *ret_first, uint64_t *ret_nr);

/**
 * page_mapped_next() - find the next run of pages that are not missing: the kernel's shared zero
 * page, which a read puts in place, counts.
 *
 * As page_present_next().  Return: also -ENOTTY or -EINVAL where the kernel does not tell.
 * Threads: any.
 */
CHECKED int page_mapped_next(int fd, const uint8_t *hva, uint64_t from, uint64_t nr,
                             uint64_t *ret_first, uint64_t *ret_nr);

#endif
