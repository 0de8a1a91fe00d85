/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM as the configuration asks: zones one after another from address 0,
 * with a hole below 4 GiB for devices.
 */
#include "core/config/vm_config.h"
#include "core/gmem.h"
#include "core/vm_internal.h"
#include "core/x86/layout.h"

/* Lay a zone at *gpa and after; a zone that meets the hole goes on above it. */
static int add_zone(struct gmem *gm, uint64_t *gpa, uint64_t size, const char *id,
                    const struct gmem_backing *backing, struct err *err)
{
    struct gmem_backing b = *backing;

    while (size) {
        uint64_t room = *gpa < X86_MMIO32_GPA ? X86_MMIO32_GPA - *gpa : size;
        uint64_t len = size < room ? size : room;
        int rc = gmem_add_region(gm, *gpa, len, id, &b, err);

        if (rc < 0)
            return rc;
        size -= len;
        *gpa += len;
        if (*gpa == X86_MMIO32_GPA)
            *gpa = X86_RAM64_GPA;
        if (b.file)
            b.fd_offset += len;
    }
    return 0;
}

int vm_build_memory(const struct vm_config *cfg, struct gmem **ret_gm, struct err *err)
{
    const struct memory_config *m = &cfg->memory;
    struct gmem *gm = NULL;
    uint64_t gpa = 0;
    int rc = gmem_new(&gm);

    if (rc >= 0 && m->size) {
        const struct gmem_backing b = {
            .shared = m->shared,
            .hugepages = m->hugepages,
            .hugepage_size = m->hugepage_size,
            .fd = -1,
            .prefault = m->prefault,
            .reserve = m->reserve,
            .mergeable = m->mergeable,
            .thp = !m->no_thp,
        };

        rc = add_zone(gm, &gpa, m->size, "ram", &b, err);
    }
    for (unsigned i = 0; rc >= 0 && i < m->nr_zones; i++) {
        const struct memory_zone_config *z = &m->zones[i];
        const struct gmem_backing b = {
            .shared = z->shared,
            .hugepages = z->hugepages,
            .hugepage_size = z->hugepage_size,
            .file = z->file,
            .fd = -1,
            .prefault = z->prefault,
            .reserve = z->reserve,
            .mergeable = z->mergeable,
            .thp = !m->no_thp,
        };

        rc = add_zone(gm, &gpa, z->size, z->id, &b, err);
    }
    if (rc < 0) {
        gmem_free(gm);
        return rc;
    }
    *ret_gm = gm;
    return 0;
}
