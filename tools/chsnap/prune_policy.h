/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which snapshots a retention policy keeps.  Knows no store: times go in, decisions
 * come out.
 */
#ifndef TOOLS_CHSNAP_PRUNE_POLICY_H
#define TOOLS_CHSNAP_PRUNE_POLICY_H

#include "core/base.h"

enum prune_rule {
    PRUNE_LAST,
    PRUNE_HOURLY,
    PRUNE_DAILY,
    PRUNE_WEEKLY, /* ISO 8601 weeks, Monday first */
    PRUNE_RULES,
};

enum {
    PRUNE_KEPT_BY_TAG = 1U << PRUNE_RULES, /* decided by the caller */
    PRUNE_KEPT_OF_FUTURE = PRUNE_KEPT_BY_TAG << 1,
};

struct prune_policy {
    unsigned keep[PRUNE_RULES]; /* how many; 0: the rule keeps nothing */
};

/* One snapshot. */
struct prune_item {
    const char *group; /* snapshots of different groups do not know each other; borrowed */
    uint64_t time_ns;  /* since 1970 */
    uint64_t seq;      /* order of publication, for equal times */
    unsigned kept;     /* 1 << enum prune_rule for each rule that keeps it, PRUNE_KEPT_... */
};

/**
 * prune_decide() - apply a policy.
 * @now_ns: since 1970.
 * @items:  @nr of them; put into order, newest first, group by group.
 *
 * Each rule keeps the newest snapshot of each of the last so many periods (hours, days,
 * weeks of the local time zone) that have one, in each group.
 *
 * What is later than now was taken by a clock that was wrong, then or now: it is kept, and counts
 * for no rule, or else it would be the newest for as long, and those taken since would go.
 *
 * Threads: main.
 */
void prune_decide(const struct prune_policy *policy, uint64_t now_ns, struct prune_item *items,
                  size_t nr);

#endif
