/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMBIOS: who made this machine and what it is called.  Types 0, 1, 3, 11 and
 * 127 behind a 64-bit entry point.  Spec: DMTF DSP0134, 3.6.
 */
#ifndef CORE_X86_SMBIOS_H
#define CORE_X86_SMBIOS_H

#include "core/err.h"

struct gmem;

enum {
    SMBIOS_OEM_STRINGS_MAX = 255,
};

/* platform.*; zero-initialised: the defaults.  All borrowed. */
struct smbios_config {
    const char *manufacturer;
    const char *product_name;
    const char *version;
    const char *serial_number;
    const char *sku_number;
    const char *family;
    const char *chassis_asset_tag;
    const char *const *oem_strings;
    unsigned nr_oem_strings;
    uint8_t uuid[16]; /* in the order of its text; all zero: not set */
};

/**
 * smbios_build() - make the entry point and the structures behind it.
 * @gpa: where they will lie.
 * @buf, @cap: memory of the caller.
 *
 * Return: bytes written; -E2BIG for strings that do not fit; -EINVAL for an
 * empty one, with the name of the option in @err.
 * Threads: any.
 */
CHECKED int smbios_build(const struct smbios_config *cfg, uint64_t gpa, uint8_t *buf, size_t cap,
                         struct err *err);

/**
 * smbios_write() - put them into guest memory at X86_SMBIOS_GPA.
 *
 * Return: 0; as smbios_build(); -EINVAL if there is no RAM.
 * Threads: control, with no vCPU running.
 */
CHECKED int smbios_write(struct gmem *gm, const struct smbios_config *cfg, struct err *err);

#endif
