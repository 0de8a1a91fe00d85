/* SPDX-License-Identifier: Apache-2.0 */
#include "core/err.h"

#include <stdarg.h>

#include <stdio.h>
#include <string.h>

/* Here they are defined (core/err.h wraps them for the static analyzer). */
#undef err_set
#undef err_prefix

int err_set(struct err *err, int code, const char *fmt, ...)
{
    va_list ap;

    if (!err || err->code)
        return code;
    err->code = code;
    va_start(ap, fmt);
    (void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
    char old[ERR_MSG_SIZE];
    va_list ap;
    int n;

    if (!err)
        return code;
    if (!err->code)
        err->code = code;
    memcpy(old, err->msg, sizeof(old));
    va_start(ap, fmt);
    n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(err->msg) && old[0])
        (void)snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", old);
    return code;
}
