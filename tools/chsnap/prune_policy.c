/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chsnap/prune_policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PERIOD_MAX = 32,
};

static int item_compare(const void *a, const void *b)
{
    const struct prune_item *x = a, *y = b;
    int by_group = strcmp(x->group, y->group);

    if (by_group)
        return by_group;
    if (x->time_ns != y->time_ns)
        return x->time_ns > y->time_ns ? -1 : 1;
    return x->seq > y->seq ? -1 : x->seq < y->seq;
}

static size_t period_format(const struct tm *tm, enum prune_rule rule, char *ret)
{
    if (rule == PRUNE_HOURLY)
        return strftime(ret, PERIOD_MAX, "%Y-%m-%d %H %z", tm);
    if (rule == PRUNE_DAILY)
        return strftime(ret, PERIOD_MAX, "%Y-%m-%d", tm);
    return strftime(ret, PERIOD_MAX, "%G-%V", tm);
}

/* The name of the period that an item falls into; each item is a period of its own for LAST. */
static void item_period(const struct prune_item *item, enum prune_rule rule, char *ret)
{
    time_t t = (time_t)(item->time_ns / 1000000000U);
    struct tm tm;

    if (rule == PRUNE_LAST || !localtime_r(&t, &tm) || !period_format(&tm, rule, ret))
        (void)snprintf(ret, PERIOD_MAX, "#%llu", (unsigned long long)item->seq);
}

static void decide_rule(const struct prune_policy *policy, enum prune_rule rule,
                        struct prune_item *items, size_t nr)
{
    char period[PERIOD_MAX], last[PERIOD_MAX] = "";
    unsigned left = policy->keep[rule];

    for (size_t i = 0; i < nr; i++) {
        if (i && strcmp(items[i].group, items[i - 1].group) != 0) {
            left = policy->keep[rule];
            last[0] = 0;
        }
        item_period(&items[i], rule, period);
        if (!left || strcmp(period, last) == 0)
            continue;
        items[i].kept |= 1U << rule;
        left--;
        memcpy(last, period, sizeof(last));
    }
}

void prune_decide(const struct prune_policy *policy, struct prune_item *items, size_t nr)
{
    if (nr)
        qsort(items, nr, sizeof(items[0]), item_compare);
    for (enum prune_rule rule = PRUNE_LAST; rule < PRUNE_RULES; rule++)
        decide_rule(policy, rule, items, nr);
}
