/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden files: bytes that a released version wrote and every later one must
 * still write and read.  They lie under tests/golden/.
 *
 * A missing file fails the test, unless the environment has
 * CHRYSALIS_GOLDEN=write: then it is created.  A file that is there is never
 * rewritten; changing the format means a new version and a new file.
 */
#ifndef TESTS_FAKES_GOLDEN_H
#define TESTS_FAKES_GOLDEN_H

#include "core/base.h"

/**
 * golden_read() - read a golden file.
 * @name: path under tests/golden/.
 *
 * Return: its bytes, owned, to be given to free(); NULL if there is no such
 * file; fails the test if it cannot be read.
 * Threads: the test.
 */
uint8_t *golden_read(const char *name, size_t *ret_len);

/**
 * golden_check() - bytes must equal those of a golden file.
 *
 * Fails the test with the first offset that differs.
 * Threads: the test.
 */
void golden_check(const char *name, const void *data, size_t len);

#endif
