/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at the contents of guest pages, at the speed of memory.
 *
 * The guest may write to a page while it is looked at: the answer is then
 * about some mix of old and new bytes, and the page's dirty bit will be set.
 */
#ifndef CORE_PAGE_SCAN_H
#define CORE_PAGE_SCAN_H

#include "core/base.h"

/**
 * page_scan_run() - length of the run of equal kind at the start of some pages.
 * @pages: @nr pages, > 0, at any alignment; only read.
 * @ret_zero: whether the run is of zero pages, or of pages with data.
 *
 * Reading memory that was never touched maps the kernel's zero page, and in a
 * memfd allocates a page: page_scan_populated() tells where that would be.
 *
 * Return: pages in the run, 1..@nr.
 * Threads: any.
 */
uint64_t page_scan_run(const uint8_t *pages, uint64_t nr, bool *ret_zero);

/**
 * page_scan_populated() - find the next part of a shared file that has memory behind it.
 * @fd:   memfd or file that is mapped; -1 says that there is none.
 * @off:  bytes, where the pages start in the file.
 * @len:  bytes.
 * @ret_hole: bytes at the start that are a hole and read as zero without being
 *            touched; 0 where @fd is -1 or the file system cannot tell.
 *
 * Return: bytes after the hole, up to @len, that may hold data.
 * Threads: any.
 */
uint64_t page_scan_populated(int fd, uint64_t off, uint64_t len, uint64_t *ret_hole);

#endif
