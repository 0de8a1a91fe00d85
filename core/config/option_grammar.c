/* SPDX-License-Identifier: Apache-2.0 */
#include "core/config/option_grammar.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static char *option_trim(char *s)
{
    size_t n;

    while (isspace((unsigned char)*s))
        s++;
    n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1]))
        n--;
    s[n] = 0;
    return s;
}

/* The first sep outside quotes and brackets, or the end; NULL if these do not match. */
static char *option_find(char *s, char sep)
{
    bool quoted = false;
    size_t depth = 0;

    for (; *s; s++) {
        if (*s == '"')
            quoted = !quoted;
        else if (quoted)
            continue;
        else if (*s == '[')
            depth++;
        else if (*s == ']' && !depth--)
            return NULL;
        else if (*s == sep && !depth)
            return s;
    }
    return quoted || depth ? NULL : s;
}

int option_next(char **rest, char sep, char **ret_item, struct err *err)
{
    char *s = *rest;
    char *end;

    if (!s)
        return 0;
    end = option_find(s, sep);
    if (!end) {
        (void)err_set(err, -EINVAL, "brackets or quotes do not match");
        return -EINVAL;
    }
    *rest = *end ? end + 1 : NULL;
    *end = 0;
    *ret_item = option_trim(s);
    return 1;
}

static int option_pair_add(struct option_set *set, char *text, struct err *err)
{
    struct option_pair *pair;
    char *equals;

    if (set->nr == OPTION_PAIRS_MAX)
        return err_set(err, -E2BIG, "more than %d keys", OPTION_PAIRS_MAX);
    pair = &set->pairs[set->nr];
    equals = strchr(text, '=');
    *pair = (struct option_pair){.has_equals = equals};
    if (equals) {
        *equals = 0;
        pair->value = option_trim(equals + 1);
        if (!*pair->value)
            pair->value = NULL;
    }
    pair->key = option_trim(text);
    if (!*pair->key)
        return err_set(err, -EINVAL, "a key is missing");
    for (unsigned i = 0; i < set->nr; i++)
        if (!strcmp(set->pairs[i].key, pair->key))
            return err_set(err, -EINVAL, "%.64s: is there twice", pair->key);
    set->nr++;
    return 0;
}

int option_set_parse(const char *text, struct option_set *ret_set, struct err *err)
{
    struct option_set set = {0};
    char *rest, *item = NULL;
    int rc;

    if (strlen(text) > OPTION_TEXT_MAX)
        return err_set(err, -E2BIG, "longer than %d bytes", OPTION_TEXT_MAX);
    set.buf = strdup(text);
    if (!set.buf)
        return err_set(err, -ENOMEM, "out of memory");
    rest = option_trim(set.buf);
    if (!*rest)
        rest = NULL;
    while ((rc = option_next(&rest, ',', &item, err)) > 0) {
        rc = option_pair_add(&set, item, err);
        if (rc)
            break;
    }
    if (rc) {
        option_set_release(&set);
        return rc;
    }
    *ret_set = set;
    return 0;
}

void option_set_release(struct option_set *set)
{
    free(set->buf);
    *set = (struct option_set){0};
}

char *option_text(char *value)
{
    bool quoted = false;
    char *out = value;

    for (const char *s = value; *s; s++) {
        if (*s == '"' && quoted && s[1] == '"')
            *out++ = *s++;
        else if (*s == '"')
            quoted = !quoted;
        else
            *out++ = *s;
    }
    *out = 0;
    return value;
}

char *option_list(char *value)
{
    size_t n = value ? strlen(value) : 0;

    if (n >= 2 && value[0] == '[' && value[n - 1] == ']') {
        value[n - 1] = 0;
        value = option_trim(value + 1);
    }
    return value && *value ? value : NULL;
}

int option_toggle(const char *value, bool *ret_v)
{
    if (!strcasecmp(value, "on") || !strcasecmp(value, "true"))
        *ret_v = true;
    else if (!strcasecmp(value, "off") || !strcasecmp(value, "false") || !*value)
        *ret_v = false;
    else
        return -EINVAL;
    return 0;
}

/* Digits of s up to *ret_end. */
static int option_digits(const char *s, unsigned base, uint64_t *ret_v, const char **ret_end)
{
    static const char digits[] = "0123456789abcdef";
    const char *start = s;
    uint64_t v = 0;

    for (; *s; s++) {
        int c = *s >= 'A' && *s <= 'F' ? *s - 'A' + 'a' : *s;
        const char *digit = memchr(digits, c, base);

        if (!digit)
            break;
        if (__builtin_mul_overflow(v, base, &v) ||
            __builtin_add_overflow(v, (uint64_t)(digit - digits), &v))
            return -ERANGE;
    }
    if (s == start)
        return -EINVAL;
    *ret_v = v;
    *ret_end = s;
    return 0;
}

int option_u64(const char *value, uint64_t min, uint64_t max, uint64_t *ret_v)
{
    bool hex = value[0] == '0' && (value[1] == 'x' || value[1] == 'X');
    const char *end = NULL;
    uint64_t v = 0;
    int rc = option_digits(hex ? value + 2 : value, hex ? 16 : 10, &v, &end);

    if (rc)
        return rc;
    if (*end)
        return -EINVAL;
    if (v < min || v > max)
        return -ERANGE;
    *ret_v = v;
    return 0;
}

int option_size(const char *value, uint64_t *ret_v)
{
    static const char units[] = "KMGT";
    const char *unit, *end = NULL;
    unsigned shift = 0;
    uint64_t v = 0;
    int rc = option_digits(value, 10, &v, &end);

    if (rc)
        return rc;
    if (*end) {
        unit = strchr(units, *end);
        if (!unit || end[1])
            return -EINVAL;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (v > (uint64_t)INT64_MAX >> shift)
        return -ERANGE;
    *ret_v = v << shift;
    return 0;
}
