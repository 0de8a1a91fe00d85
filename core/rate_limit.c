/* SPDX-License-Identifier: Apache-2.0 */
#include "core/rate_limit.h"

#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

bool rate_limit_take(struct rate_limit *rl)
{
    const uint64_t each = UINT64_C(1000000000) / rl->per_s;
    uint64_t now = now_ns(), full = atomic_load(&rl->full_ns), at;

    do {
        at = full > now ? full : now;
        if (at - now > (rl->burst - 1) * each)
            return false;
    } while (!atomic_compare_exchange_weak(&rl->full_ns, &full, at + each));
    return true;
}
