/* SPDX-License-Identifier: Apache-2.0 */
#include "core/decimal.h"

bool decimal_take(const char **at, uint64_t highest, uint64_t *ret)
{
    const char *p = *at;
    uint64_t n = 0;

    for (; *p >= '0' && *p <= '9'; p++) {
        unsigned digit = (unsigned)(*p - '0');

        if (digit > highest || n > (highest - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    if (p == *at)
        return false;
    *at = p;
    *ret = n;
    return true;
}

bool decimal_parse(const char *text, uint64_t lowest, uint64_t highest, uint64_t *ret)
{
    uint64_t n;

    if (!decimal_take(&text, highest, &n) || *text || n < lowest)
        return false;
    *ret = n;
    return true;
}
