/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets of the kernel loaders share: a small machine and any
 * bytes as a kernel file.
 */
#ifndef TESTS_FUZZ_FUZZ_BOOT_H
#define TESTS_FUZZ_FUZZ_BOOT_H

#include "core/x86/boot_internal.h"

typedef int (*fuzz_boot_loader)(struct x86_boot *boot, struct x86_boot_entry *ret_entry,
                                struct err *err);

/**
 * fuzz_boot_try() - load bytes as a kernel and judge what came of it.
 *
 * Aborts if a refusal is not explained, an accepted kernel starts outside RAM,
 * or a page was written that is not marked dirty.
 *
 * Threads: one.
 */
void fuzz_boot_try(fuzz_boot_loader load, const uint8_t *data, size_t len);

#endif
