/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each role of thread may do: an allow-list of system calls (seccomp), and the capabilities
 * that are left to it, whatever --seccomp says.
 *
 * The lists are in sandbox_rules.c with a reason a line.  They are compiled to
 * BPF when the program is built (sandbox_gen.c), so that a start pays for two
 * system calls and not for a compiler.
 *
 * A thread inherits the filter of the thread that made it, so the control
 * thread's list contains every other one.
 */
#ifndef TOOLS_CHVMM_SANDBOX_H
#define TOOLS_CHVMM_SANDBOX_H

#include "core/vm.h"

/* What happens at a system call that is not on the list (--seccomp). */
enum sandbox_mode {
    SANDBOX_KILL,  /* true: the process is killed */
    SANDBOX_LOG,   /* log: the kernel logs it and lets it pass */
    SANDBOX_ERRNO, /* errno: it fails with EPERM */
    SANDBOX_OFF,   /* false: no filter */
};

/**
 * sandbox_set_mode() - choose; before the first sandbox_enter().
 *
 * Threads: control, while it is the only one.
 */
void sandbox_set_mode(enum sandbox_mode mode);

/**
 * sandbox_enter() - restrict the calling thread, for ever: capabilities, then system calls.
 *
 * A kernel without seccomp ends the process with a message that names --seccomp false: a sandbox
 * that was asked for and is not there is no sandbox.
 * Threads: any, for itself.
 */
void sandbox_enter(enum thread_role role);

#endif
