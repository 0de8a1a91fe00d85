/* SPDX-License-Identifier: Apache-2.0 */
#include "core/utf8.h"

/* Bytes of the code point at @s; 0 if there is none, or U+0000. */
static size_t sequence_len(const uint8_t *s, size_t left)
{
    /* first byte, bytes, and the range of the second byte */
    static const struct {
        uint8_t first, last, len, lo, hi;
    } rows[] = {
        {0x01, 0x7f, 1, 0,    0   },
        {0xc2, 0xdf, 2, 0x80, 0xbf},
        {0xe0, 0xe0, 3, 0xa0, 0xbf},
        {0xe1, 0xec, 3, 0x80, 0xbf},
        {0xed, 0xed, 3, 0x80, 0x9f},
        {0xee, 0xef, 3, 0x80, 0xbf},
        {0xf0, 0xf0, 4, 0x90, 0xbf},
        {0xf1, 0xf3, 4, 0x80, 0xbf},
        {0xf4, 0xf4, 4, 0x80, 0x8f},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (s[0] < rows[i].first || s[0] > rows[i].last)
            continue;
        if (rows[i].len > left)
            return 0;
        if (rows[i].len > 1 && (s[1] < rows[i].lo || s[1] > rows[i].hi))
            return 0;
        for (size_t k = 2; k < rows[i].len; k++)
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        return rows[i].len;
    }
    return 0;
}

bool utf8_ok(const void *text, size_t len)
{
    const uint8_t *s = text;

    while (len) {
        /* ASCII, which nearly everything is, in one comparison. */
        size_t n = (uint8_t)(s[0] - 1) < 0x7f ? 1 : sequence_len(s, len);

        if (!n)
            return false;
        s += n;
        len -= n;
    }
    return true;
}
