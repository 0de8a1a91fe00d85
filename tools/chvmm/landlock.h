/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: the paths that a VM's process may open (--landlock).
 *
 * What is allowed follows from the configuration: kernel and initramfs, images, memory files, the
 * source of random numbers, consoles, the devices of the host that they need, and landlock_rules.
 */
#ifndef TOOLS_CHVMM_LANDLOCK_H
#define TOOLS_CHVMM_LANDLOCK_H

#include "core/config/vm_config.h"

/**
 * landlock_enter() - restrict the calling thread, and those it will make, for ever.
 * @cfg:         complete, with landlock_enable.
 * @socket_path: of the API, which is removed at the end; NULL: none.
 *
 * A path of the configuration that is not there is left to who opens it; one of landlock_rules is
 * an error.  What is open stays open.  A kernel that knows less of Landlock restricts less.
 *
 * Return: 0; -ENOTSUP for a kernel without Landlock; the kernel's errno with the path.
 * Threads: control, before the machine is built.
 */
CHECKED int landlock_enter(const struct vm_config *cfg, const char *socket_path, struct err *err);

#endif
