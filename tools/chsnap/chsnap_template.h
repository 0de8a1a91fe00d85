/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts with a number in them: "/img/clone-{n}.img", "52:54:00:00:00:{n:02x}".
 */
#ifndef TOOLS_CHSNAP_CHSNAP_TEMPLATE_H
#define TOOLS_CHSNAP_CHSNAP_TEMPLATE_H

#include "core/err.h"

/**
 * chsnap_template_expand() - put a number into a text.
 * @text: {n} is the number; {n:05} with zeroes in front, {n:02x} in hexadecimal,
 *        widths 1 to 12.
 * @ret:  @cap bytes.
 *
 * Return: 0; -EINVAL for braces that are no such place; -E2BIG for a result that
 * does not fit; both with the text in @err.
 * Threads: any.
 */
CHECKED int chsnap_template_expand(const char *text, unsigned n, char *ret, size_t cap,
                                   struct err *err);

/**
 * chsnap_template_varies() - whether different numbers give different texts.
 *
 * Threads: any.
 */
bool chsnap_template_varies(const char *text);

#endif
