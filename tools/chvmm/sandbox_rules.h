/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allow-lists, for the generator.
 */
#ifndef TOOLS_CHVMM_SANDBOX_RULES_H
#define TOOLS_CHVMM_SANDBOX_RULES_H

#include <stdint.h>

#include "core/base.h"

enum {
    SANDBOX_CONTROL = 1 << 0,
    SANDBOX_VCPU = 1 << 1,
    SANDBOX_IO = 1 << 2,
    SANDBOX_WORKER = 1 << 3,
    SANDBOX_API = 1 << 4,
};

struct sandbox_rule {
    const char *syscall;
    unsigned roles;
    const char *why;
};

extern const struct sandbox_rule sandbox_rules[];
extern const size_t sandbox_nr_rules;

/* ioctl() of a vCPU or I/O thread is allowed for these requests only. */
struct sandbox_ioctl {
    uint32_t request;
    unsigned roles;
    const char *why;
};

extern const struct sandbox_ioctl sandbox_ioctls[];
extern const size_t sandbox_nr_ioctls;

#endif
