/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is told of migrations: the one that is going on, and the last ten.
 */
#ifndef TOOLS_CHVMM_PROGRESS_H
#define TOOLS_CHVMM_PROGRESS_H

#include "tools/chvmm/vmm.h"

enum {
    PROGRESS_KEPT = 10, /* migrations remembered */
};

/**
 * vmm_progress_json() - the migration that is going on, or the last one; {"phase": "idle"} for none.
 *
 * "history" has those that ended before, the oldest first.
 * Return: owned; NULL when out of memory.
 * Threads: control.
 */
struct json_object *vmm_progress_json(struct vmm *vmm);

/**
 * vmm_progress_keep() - a migration has ended: remember it.
 *
 * Threads: control.
 */
void vmm_progress_keep(struct vmm *vmm);

/**
 * vmm_progress_forget() - free what vmm_progress_keep() kept.
 *
 * Threads: control, at the end.
 */
void vmm_progress_forget(struct vmm *vmm);

#endif
