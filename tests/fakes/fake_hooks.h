/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks of a machine whose owner wants to know nothing; a vCPU that stops is told on standard error.
 */
#ifndef TESTS_FAKES_FAKE_HOOKS_H
#define TESTS_FAKES_FAKE_HOOKS_H

#include "core/vm.h"

extern const struct vm_hooks fake_hooks;

#endif
