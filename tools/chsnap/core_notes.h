/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The notes of a core file: what gdb and crash need to know of a vCPU.
 *
 * NT_PRSTATUS as Linux writes it for x86-64 (System V ABI, AMD64, and <sys/procfs.h>), and
 * the note "QEMU" of QEMU's dump-guest-memory with the system registers, from which crash
 * finds the page tables of a kernel with a randomised address.
 */
#ifndef TOOLS_CHSNAP_CORE_NOTES_H
#define TOOLS_CHSNAP_CORE_NOTES_H

#include "core/err.h"

/**
 * core_notes_make() - notes of all vCPUs.
 * @state:     @len bytes of device state; hostile.
 * @ret_notes: owned by the caller, for free().
 * @ret_cpus:  vCPUs found.
 *
 * A register that the state does not have is 0.
 * Return: 0; -EBADMSG if it is no state; -ENOENT if it has no vCPU; -ENOMEM.
 * Threads: any.
 */
CHECKED int core_notes_make(const uint8_t *state, size_t len, uint8_t **ret_notes, size_t *ret_len,
                            unsigned *ret_cpus, struct err *err);

#endif
