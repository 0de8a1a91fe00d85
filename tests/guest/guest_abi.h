/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H

/* Constants shared by the assembly and the C of the test guest. */

#define BOOT_PVH     1
#define BOOT_LINUX32 2
#define BOOT_LINUX64 3

#define MAX_CPUS       64
#define AP_STACK_SHIFT 12
#define AP_TRAMPOLINE  0x8000

#endif
