/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine is built on: its VM in KVM and its guest memory.
 *
 * Both take the kernel a while, a VM half a millisecond and a slot one a GiB, so a thread makes
 * them beside the start of the process, the making of processors and devices, and the coming of a
 * kernel or of a snapshot's memory, all of which can do without the slots.
 */
#ifndef CORE_VM_GROUND_H
#define CORE_VM_GROUND_H

#include <stdbool.h>

#include "core/base.h"

struct err;
struct vm_config;
struct vm_ground;

/* What can be said of a machine whose configuration is not known yet. */
struct vm_ground_hint {
    uint64_t size; /* what vm_ground_guess() will say of it, most likely; 0: no idea */

    /*
     * Memory is put behind all pages, until a machine takes the ground.  A machine that was not
     * configured so may give back what it did not need: gmem_has_spare().
     */
    bool populate;
    void (*populated)(void *arg); /* all of it is there; on a thread of its own; NULL: not told */
    void *arg;
};

/**
 * vm_ground_begin() - have the ground of a machine made.
 * @cfg: the machine's, borrowed as long as the ground or its machine is there; NULL: not known
 *       yet.
 * @hint: without @cfg; copied; NULL: no idea.  Without a size only the VM in KVM is made; the
 *       thread waits for memory to map.
 *
 * What goes wrong is said by the vm_new() that is given the ground, or by vm_boot() or
 * vm_load().  The thread takes no signals
 * and has the sandbox of the caller.
 *
 * Return: 0 and *@ret_ground, owned; -ENOMEM; the kernel's errno.
 * Threads: control.
 */
CHECKED int vm_ground_begin(const struct vm_config *cfg, const struct vm_ground_hint *hint,
                            struct vm_ground **ret_ground, struct err *err);

/**
 * vm_ground_guess() - how much memory, if it is memory like most.
 *
 * Return: bytes; 0 for memory that has files, zones or other properties.
 * Threads: any.
 */
uint64_t vm_ground_guess(const struct vm_config *cfg);

/**
 * vm_ground_free() - wait for the thread, and give back what no machine took.
 * @ground: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void vm_ground_free(struct vm_ground *ground);

#endif
