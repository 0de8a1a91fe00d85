/* SPDX-License-Identifier: Apache-2.0 */
#include "core/thread_slice.h"

#include <stdint.h>

#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    PROMPT_SLICE_NS = 100000, /* the shortest that there is */
    DEFAULT_SLICE = 0,
};

/* sched_setattr(2); struct sched_attr of Linux 3.14, which the C library does not have. */
struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period; /* runtime: of SCHED_OTHER the slice, in ns */
};

static void set_slice(uint64_t ns)
{
    const int policy = sched_getscheduler(0);
    struct attr a = {.size = sizeof(a), .policy = (uint32_t)policy, .runtime = ns};

    if (policy != SCHED_OTHER && policy != SCHED_BATCH)
        return;
    errno = 0;
    a.nice = getpriority(PRIO_PROCESS, 0);
    if (errno == 0)
        (void)syscall(SYS_sched_setattr, 0, &a, 0);
}

void thread_be_prompt(void)
{
    set_slice(PROMPT_SLICE_NS);
}

void thread_be_patient(void)
{
    set_slice(DEFAULT_SLICE);
}
