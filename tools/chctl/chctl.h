/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chctl: the remote control of a VM.
 *
 * commands.c has the table of commands; each becomes one request, except
 * migration-progress --follow, which waits for the end, and --plot (follow.c).
 */
#ifndef TOOLS_CHCTL_CHCTL_H
#define TOOLS_CHCTL_CHCTL_H

#include <stdio.h>

#include "core/err.h"
#include "tools/chctl/http_client.h"

/* What the program ends with. */
enum chctl_exit {
    CHCTL_OK = 0,
    CHCTL_FAILED = 1, /* the VM refused, or is not there */
    CHCTL_USAGE = 2,
};

struct chctl_command;

/* A request that is ready to be sent. */
struct chctl_call {
    const struct chctl_command *command;
    char *body; /* owned; NULL: none */
    int *fds;   /* owned array of borrowed descriptors */
    unsigned nr_fds;
    bool follow;      /* migration-progress --follow */
    const char *plot; /* migration-progress --plot: borrowed; NULL: none */
};

/**
 * chctl_call_parse() - the command and its arguments.
 * @argv: from the command's name on.
 *
 * Return: 0 and *@ret_call, owned, to be given to chctl_call_release(); a
 * negative errno, with @err saying what is wrong with the command line.
 * Threads: main.
 */
CHECKED int chctl_call_parse(int argc, char *const argv[], struct chctl_call *ret_call,
                             struct err *err);

/**
 * chctl_call_release() - free what the call owns.
 *
 * Threads: main.
 */
void chctl_call_release(struct chctl_call *call);

/**
 * chctl_call_send() - ask the VM.
 * @ret_res: owned, to be given to http_response_release(); any status.
 *
 * Return: 0; a negative errno with @err saying why there is no answer.
 * Threads: main.
 */
CHECKED int chctl_call_send(const struct chctl_call *call, const char *socket_path,
                            struct http_response *ret_res, struct err *err);

/**
 * chctl_follow() - show a migration's progress on standard error until it is over.
 * @call: migration-progress.
 *
 * On a terminal one line that changes, otherwise a line for each phase and
 * round.  Prints the last answer on standard output, and draws it with @call->plot.
 *
 * Return: an exit code: CHCTL_OK if the migration was completed.
 * Threads: main.
 */
int chctl_follow(const struct chctl_call *call, const char *socket_path);

/**
 * chctl_plot() - draw a migration into a file.
 * @res: an answer of vm.migration-progress.
 *
 * Return: an exit code; a failure is said on standard error.
 * Threads: main.
 */
int chctl_plot(const char *path, const struct http_response *res);

/**
 * chctl_report() - print an answer: its body, or the chain of errors in it.
 *
 * Return: an exit code.
 * Threads: main.
 */
int chctl_report(const struct http_response *res);

/**
 * chctl_complain() - print a chain of errors of our own.
 *
 * Return: @exit_code.
 * Threads: main.
 */
int chctl_complain(int exit_code, const struct err *err);

/**
 * chctl_print_help() - what --help prints.
 * @name: a command; NULL: the whole.
 *
 * Return: 0; -ENOENT if there is no such command.
 * Threads: main.
 */
CHECKED int chctl_print_help(FILE *out, const char *name);

#endif
