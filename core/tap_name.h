/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is to be known of a tap by its name before somebody opens it.
 */
#ifndef CORE_TAP_NAME_H
#define CORE_TAP_NAME_H

#include "core/base.h"

enum tap_name_is {
    TAP_NAME_FREE,  /* nothing has it: it will be made; or a tap that no process has */
    TAP_NAME_BUSY,  /* a process has it open, and its interface is up */
    TAP_NAME_OTHER, /* an interface of another kind */
};

/**
 * tap_name_look() - what has a name now.
 * @name: of an interface; what the kernel would take for none is free.
 *
 * Threads: any.
 */
enum tap_name_is tap_name_look(const char *name);

#endif
