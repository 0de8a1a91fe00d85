/* SPDX-License-Identifier: Apache-2.0 */
/* Text from outside.  Spec: Unicode 15, table 3-7; RFC 3629. */
#ifndef CORE_UTF8_H
#define CORE_UTF8_H

#include "core/base.h"

/**
 * utf8_ok() - whether bytes are a string that we pass around: UTF-8, no NUL.
 * @text, @len: any bytes.
 *
 * Return: true if so; also of nothing.
 * Threads: any.
 */
bool utf8_ok(const void *text, size_t len);

#endif
