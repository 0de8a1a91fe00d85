/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grammar of option values: "key=value,key=[a,b],flag".
 *
 *     value = pair *( "," pair )
 *     pair  = key "=" text / key              ; split at the first "="
 *     text  = anything; a comma inside "..." or [...] separates nothing
 *     list  = "[" [ item *( "," item ) ] "]"  ; or one item without brackets
 *
 * Blanks around keys and values are dropped.  Inside quotes brackets mean
 * nothing and "" is one quote.  An empty value ("tap=") is the same as none.
 *
 * Spec: docs/man/chvmm.1, OPTION VALUES.
 */
#ifndef CORE_CONFIG_OPTION_GRAMMAR_H
#define CORE_CONFIG_OPTION_GRAMMAR_H

#include "core/err.h"

enum option_limits {
    OPTION_TEXT_MAX = 64 << 10, /* bytes of a value */
    OPTION_PAIRS_MAX = 64,
};

/* Both point into the set that holds them; value is NULL for a key without "=" or with nothing
 * after it; has_equals tells these apart. */
struct option_pair {
    char *key;
    char *value;
    bool has_equals;
};

struct option_set {
    struct option_pair pairs[OPTION_PAIRS_MAX];
    unsigned nr;
    char *buf; /* owned */
};

/**
 * option_set_parse() - split a value into its pairs.
 * @text: any bytes, NUL-terminated.
 *
 * Values keep their quotes and brackets: option_text() or option_next() is the
 * next step.
 *
 * Return: 0 and *@ret_set, owned, to be given to option_set_release(); -EINVAL
 * for brackets or quotes that do not match, an empty or a repeated key; -E2BIG
 * over a limit; -ENOMEM.
 * Threads: any.
 */
CHECKED int option_set_parse(const char *text, struct option_set *ret_set, struct err *err);

/**
 * option_set_release() - free what the set owns.
 *
 * Threads: any.
 */
void option_set_release(struct option_set *set);

/**
 * option_text() - take the quotes off a value, in place.
 *
 * Return: @value, borrowed.
 * Threads: any.
 */
char *option_text(char *value);

/**
 * option_list() - start on a list: take off the brackets around it, in place.
 * @value: from an option_set; may be NULL, which is an empty list.
 *
 * Return: what option_next() walks; borrowed from @value; NULL if empty.
 * Threads: any.
 */
char *option_list(char *value);

/**
 * option_next() - the next piece of a list or a tuple, cut off in place.
 * @rest: what is left; NULL at the end.
 * @sep:  ',' for lists, '@' for tuples, ':' for topologies.
 *
 * Return: 1 and *@ret_item, trimmed, borrowed; 0 at the end; -EINVAL for
 * brackets or quotes that do not match.
 * Threads: any.
 */
CHECKED int option_next(char **rest, char sep, char **ret_item, struct err *err);

/**
 * option_toggle() - on, true, off, false, in any case of letters.
 *
 * Return: 0 and *@ret_v; -EINVAL.
 * Threads: any.
 */
CHECKED int option_toggle(const char *value, bool *ret_v);

/**
 * option_u64() - a decimal number, or a hexadecimal one after 0x.
 *
 * Return: 0 and *@ret_v; -EINVAL; -ERANGE if it is not in [@min, @max].
 * Threads: any.
 */
CHECKED int option_u64(const char *value, uint64_t min, uint64_t max, uint64_t *ret_v);

/**
 * option_size() - a number of bytes: decimal, then nothing, K, M, G or T (powers of 1024).
 *
 * Return: 0 and *@ret_v, below 2^63; -EINVAL; -ERANGE.
 * Threads: any.
 */
CHECKED int option_size(const char *value, uint64_t *ret_v);

#endif
