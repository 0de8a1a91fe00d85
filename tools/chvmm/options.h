/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of chvmm: Cloud Hypervisor's, plus nothing.
 */
#ifndef TOOLS_CHVMM_OPTIONS_H
#define TOOLS_CHVMM_OPTIONS_H

#include <stdio.h>

#include "core/config/action_config.h"
#include "core/config/vm_config.h"
#include "core/log.h"

enum chvmm_seccomp {
    CHVMM_SECCOMP_KILL, /* the default: a forbidden call ends the process */
    CHVMM_SECCOMP_OFF,
    CHVMM_SECCOMP_LOG,   /* the call is made, the kernel logs it */
    CHVMM_SECCOMP_ERRNO, /* the call fails */
};

enum chvmm_exit {
    CHVMM_EXIT_OK = 0,
    CHVMM_EXIT_FAILED = 1,
    CHVMM_EXIT_USAGE = 2,
};

struct chvmm_options {
    bool has_vm;             /* a payload was given: config is complete, boot it */
    struct vm_config config; /* the machine of --kernel */

    bool has_restore; /* never together with has_vm */
    struct restore_config restore;

    char *api_socket_path;    /* NULL: none */
    int api_socket_fd;        /* a listening socket, or -1 */
    char *event_monitor_path; /* NULL: none */
    int event_monitor_fd;     /* or -1 */
    int end_with_fd;          /* or -1 */

    enum chvmm_seccomp seccomp;
    char *log_file; /* NULL: standard error */
    enum log_level log_level;
    bool no_shutdown; /* stay after the guest powered itself off */
};

/**
 * chvmm_options_parse() - read the command line.
 * @argv: as given to main().
 * @out:  --help and --version are printed here; standard output, or a test's own.
 *
 * Opens and looks at nothing but the command line.
 *
 * Return: 0 and *@ret_opts, owned, to be given to chvmm_options_release(); 1 if
 * help or version was printed and there is nothing else to do (exit with
 * CHVMM_EXIT_OK); a negative errno with @err naming the option (exit with
 * CHVMM_EXIT_USAGE).
 * Threads: the first.
 */
CHECKED int chvmm_options_parse(int argc, char *const argv[], FILE *out,
                                struct chvmm_options *ret_opts, struct err *err);

/**
 * chvmm_options_release() - free what the options own; file descriptors stay open.
 *
 * Threads: any.
 */
void chvmm_options_release(struct chvmm_options *opts);

#endif
