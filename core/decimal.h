/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of base ten in texts that others wrote: digits, and nothing that strtoull() takes besides.
 */
#ifndef CORE_DECIMAL_H
#define CORE_DECIMAL_H

#include "core/base.h"

/**
 * decimal_take() - the number that a text begins with.
 * @at:      moved behind its last digit; stays where there is none.
 * @highest: that is accepted.
 * @ret:     written only on success.
 *
 * Return: false if there is no digit, or the number is higher.  Threads: any.
 */
CHECKED bool decimal_take(const char **at, uint64_t highest, uint64_t *ret);

/**
 * decimal_parse() - a text that is a number and nothing else.
 *
 * Return: false if it is none, or not from @lowest to @highest.  Threads: any.
 */
CHECKED bool decimal_parse(const char *text, uint64_t lowest, uint64_t highest, uint64_t *ret);

#endif
