/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chsnap/prune_policy.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/civil.h"

enum {
    NS_PER_S = 1000000000,
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

/*
 * The period that a moment falls into; later ones have greater numbers, but where a clock was put
 * back over midnight.
 */
static int64_t period_of(time_t t, enum prune_rule rule)
{
    struct tm tm;
    int64_t days;

    if (!localtime_r(&t, &tm))
        (void)gmtime_r(&t, &tm);
    /* When the hour began: one that a clock shows twice is two. */
    if (rule == PRUNE_HOURLY)
        return t - tm.tm_min * 60L - tm.tm_sec;
    days = civil_days(tm.tm_year + 1900, (unsigned)tm.tm_mon + 1, (unsigned)tm.tm_mday);
    /* 1970-01-01 was a Thursday. */
    return rule == PRUNE_DAILY ? days : (days + 3) / 7;
}

static void decide_rule(const struct prune_policy *policy, enum prune_rule rule,
                        struct prune_item *items, size_t nr)
{
    unsigned left = 0;
    int64_t last = 0;

    for (size_t i = 0; i < nr; i++) {
        int64_t period = period_of((time_t)(items[i].time_ns / NS_PER_S), rule);

        if (i == 0 || strcmp(items[i].group, items[i - 1].group) != 0) {
            left = policy->keep[rule];
            last = INT64_MAX;
        }
        if (!left || items[i].kept & PRUNE_KEPT_OF_FUTURE)
            continue;
        if (rule != PRUNE_LAST && period >= last)
            continue;
        items[i].kept |= 1U << rule;
        left--;
        last = period;
    }
}

void prune_decide(const struct prune_policy *policy, uint64_t now_ns, struct prune_item *items,
                  size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        if (items[i].time_ns > now_ns)
            items[i].kept |= PRUNE_KEPT_OF_FUTURE;
    if (nr)
        qsort(items, nr, sizeof(items[0]), item_compare);
    for (enum prune_rule rule = PRUNE_LAST; rule < PRUNE_RULES; rule++)
        decide_rule(policy, rule, items, nr);
}
