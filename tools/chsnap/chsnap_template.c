/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chsnap/chsnap_template.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    WIDTH_MAX = 12,
};

/* "{n}", "{n:05}", "{n:02x}" at the start of @text.  Return: its length; 0 for none. */
static size_t place(const char *text, int *ret_width, bool *ret_hex)
{
    const char *p = text;

    *ret_width = 0;
    *ret_hex = false;
    if (strncmp(p, "{n", 2) != 0)
        return 0;
    p += 2;
    if (*p == ':') {
        p++;
        if (*p != '0')
            return 0;
        while (isdigit((unsigned char)*p) && *ret_width <= WIDTH_MAX)
            *ret_width = *ret_width * 10 + (*p++ - '0');
        if (*ret_width < 1 || *ret_width > WIDTH_MAX)
            return 0;
        *ret_hex = *p == 'x';
        p += *ret_hex;
    }
    return *p == '}' ? (size_t)(p + 1 - text) : 0;
}

int chsnap_template_expand(const char *text, unsigned n, char *ret, size_t cap, struct err *err)
{
    size_t len = 0;

    for (const char *p = text; *p;) {
        char number[WIDTH_MAX + 2];
        const char *piece = p;
        size_t piece_len = 1, skip = 1;

        if (*p == '{' || *p == '}') {
            int width;
            bool hex;

            skip = place(p, &width, &hex);
            if (!skip)
                return err_set(err, -EINVAL, "%s: braces hold a number: {n}, {n:03}, {n:02x}",
                               text);
            piece_len = (size_t)snprintf(number, sizeof(number), hex ? "%0*x" : "%0*u", width, n);
            piece = number;
        }
        if (piece_len >= cap - len)
            return err_set(err, -E2BIG, "%s: is too long", text);
        memcpy(ret + len, piece, piece_len);
        len += piece_len;
        p += skip;
    }
    ret[len] = 0;
    return 0;
}

bool chsnap_template_varies(const char *text)
{
    return strstr(text, "{n") != NULL;
}
