/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which CPUID registers say what a processor can do, how two of them compare,
 * and what the bits are called.
 */
#ifndef CORE_X86_CPUID_NAMES_H
#define CORE_X86_CPUID_NAMES_H

#include "core/base.h"

enum cpuid_reg {
    CPUID_EAX,
    CPUID_EBX,
    CPUID_ECX,
    CPUID_EDX,
};

/* When a guest with @src in a register can run on a host with @host in it. */
enum cpuid_rule {
    CPUID_SUBSET, /* every bit of src is in host */
    CPUID_LE,     /* the field of src is at most that of host */
    CPUID_EQUAL,  /* the field is the same in both */
};

/* A register that is compared; all others are free. */
struct cpuid_check {
    uint32_t function;
    uint32_t index;      /* first sub-leaf */
    uint32_t index_last; /* last sub-leaf */
    enum cpuid_reg reg;
    enum cpuid_rule rule;
    uint32_t mask;            /* the field; all ones: the register */
    const char *what;         /* name of the field; NULL for bits */
    const char *const *names; /* CPUID_SUBSET: 32 names, NULL where there is none */
};

/**
 * cpuid_checks() - every register that is compared, in ascending order.
 * @ret_nr: how many.
 *
 * Return: static.
 * Threads: any.
 */
const struct cpuid_check *cpuid_checks(size_t *ret_nr);

/**
 * cpuid_reg_name() - "eax" and so on.
 *
 * Return: static.
 * Threads: any.
 */
const char *cpuid_reg_name(enum cpuid_reg reg);

#endif
