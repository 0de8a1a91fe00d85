/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_pace.h"

enum {
    SAVED_NS = 2000000, /* a late thread may catch up on so much */
};

void mig_pace_init(struct mig_pace *p, uint64_t rate)
{
    *p = (struct mig_pace){.rate = rate};
    (void)pthread_mutex_init(&p->lock, NULL);
}

uint64_t mig_pace_take(struct mig_pace *p, uint64_t bytes, uint64_t now_ns)
{
    uint64_t at;

    if (!p->rate)
        return now_ns;
    (void)pthread_mutex_lock(&p->lock);
    if (p->free_ns + SAVED_NS < now_ns)
        p->free_ns = now_ns - SAVED_NS;
    at = p->free_ns;
    p->free_ns += (uint64_t)((unsigned __int128)bytes * 1000000000 / p->rate);
    (void)pthread_mutex_unlock(&p->lock);
    return at;
}
