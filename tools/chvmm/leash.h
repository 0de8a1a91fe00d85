/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who started the process and has plans for its VM: until the VM is used, it ends with them.  A byte
 * from them has it run on; one that reaches many processes at once has all of them run on, or none.
 *
 * Threads: control.
 */
#ifndef TOOLS_CHVMM_LEASH_H
#define TOOLS_CHVMM_LEASH_H

#include "core/err.h"

struct vmm;

/**
 * leash_take() - end the process when the other side of a pipe or socket is closed.
 * @fd: taken on success.
 *
 * Return: 0; the kernel's errno, named in @err.
 */
CHECKED int leash_take(struct vmm *vmm, int fd, struct err *err);

/**
 * leash_drop() - from here on the VM is on its own; nothing happens where it was already.
 */
void leash_drop(struct vmm *vmm);

#endif
