/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board: which device sits at which address, and who is wired to whom.
 *
 * Follows docs/platform.md.  The order of creation is the order of quiescing;
 * virtio devices come last, so that they are stopped after whoever kicks them.
 */
#ifndef DEVICES_BOARD_H
#define DEVICES_BOARD_H

#include "core/vm.h"

/* For vm_new(). */
extern const struct vm_board_ops board_ops;

/**
 * board_pty_path() - the pty behind the serial port or the console, for vm.info.
 * @board: from vm_board().
 * @id:    VM_ID_SERIAL, VM_ID_CONSOLE or VM_ID_DEBUG_CONSOLE.
 *
 * Return: borrowed; NULL if it is no pty.
 * Threads: any.
 */
const char *board_pty_path(void *board, const char *id);

#endif
