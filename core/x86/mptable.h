/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MP table: processors and interrupts for an OS that runs without ACPI
 * (Linux: acpi=off).  Spec: Intel MultiProcessor Specification 1.4, chapter 4.
 */
#ifndef CORE_X86_MPTABLE_H
#define CORE_X86_MPTABLE_H

#include "core/err.h"

struct gmem;

enum {
    MPTABLE_APIC_IDS = 255, /* ids below it can be said: 8 bits, 255 means all */
};

/**
 * mptable_build() - make the configuration table.
 * @apic_ids, @nr_cpus: the processors that are there, the one that boots first;
 *            those with ids from MPTABLE_APIC_IDS on are left out.
 * @buf, @cap: memory of the caller.
 *
 * Return: bytes written; -E2BIG for more processors than fit.
 * Threads: any.
 */
CHECKED int mptable_build(const uint32_t *apic_ids, unsigned nr_cpus, uint8_t *buf, size_t cap,
                          struct err *err);

/**
 * mptable_write() - put it into guest memory at X86_MPTABLE_GPA, and the pointer
 * to it at X86_MP_POINTER_GPA.
 *
 * Return: 0; as mptable_build(); -EINVAL if there is no RAM.
 * Threads: control, with no vCPU running.
 */
CHECKED int mptable_write(struct gmem *gm, const uint32_t *apic_ids, unsigned nr_cpus,
                          struct err *err);

#endif
