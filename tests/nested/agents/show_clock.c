/* SPDX-License-Identifier: Apache-2.0 */
/* The wall clock in nanoseconds, for who wants to know between which moments it was read. */
#include "tests/nested/agents/load_status.h"

int main(void)
{
    printf("%ld\n", load_now_ns(CLOCK_REALTIME));
    return 0;
}
