/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the subcommands that deal with running VMs share.
 */
#ifndef TOOLS_CHSNAP_CHSNAP_VM_H
#define TOOLS_CHSNAP_CHSNAP_VM_H

#include "tools/chsnap/chsnap.h"

enum {
    CHSNAP_SETS_MAX = 64,
    CHSNAP_RESTORE_MAX = 32768, /* bytes of a --restore option */
};

/* How a VM shall come back. */
struct chsnap_restore_opts {
    const char *mode; /* memory_restore_mode; NULL: its default */
    const char *sets[CHSNAP_SETS_MAX];
    unsigned nr_sets;
    bool changed_disks;
};

/* Options that restore and clone have both; NULL-terminated by the caller. */
#define CHSNAP_RESTORE_SHORTS "m:"
#define CHSNAP_RESTORE_LONGS                                                         \
    {"memory", required_argument, NULL, 'm'}, {"set", required_argument, NULL, 'S'}, \
    {                                                                                \
        "changed-disks", no_argument, NULL, 'C'                                      \
    }

#define CHSNAP_RESTORE_HELP                                                               \
    "  -m, --memory MODE        how memory comes back: auto, copy, ondemand, mapped\n"    \
    "      --set KEY=VALUE      what shall be different: disks.ID.path, net.ID.tap,\n"    \
    "                           net.ID.mac, serial.file, serial.socket, memory.shared,\n" \
    "                           platform.uuid and others (chvmm(1)); may be repeated\n"   \
    "      --changed-disks      also with disks that were written after the snapshot\n"

/**
 * chsnap_restore_opt() - take one of these options.
 * @opt: from chsnap_getopt().
 *
 * Return: CHSNAP_OK; CHSNAP_USAGE after a complaint; -1 if it is another option.
 * Threads: main.
 */
CHECKED int chsnap_restore_opt(struct chsnap *c, int opt, struct chsnap_restore_opts *opts);

/**
 * chsnap_restore_text() - the value of chvmm's --restore.
 * @url:    the snapshot.
 * @number: for the places in what is set.
 * @more:   further pairs, e.g. "resume=on,clone=on".
 *
 * Return: 0; -EINVAL, -E2BIG with @err.
 * Threads: main.
 */
CHECKED int chsnap_restore_text(const struct chsnap_restore_opts *opts, const char *url,
                                const char *more, unsigned number, char ret[CHSNAP_RESTORE_MAX],
                                struct err *err);

/**
 * chsnap_chvmm_path() - the chvmm beside this program, else what PATH finds.
 *
 * Return: @buf, or static.
 * Threads: main.
 */
const char *chsnap_chvmm_path(char *buf, size_t cap);

/**
 * chsnap_source_url() - the snapshot that is meant, as a URL that another process understands.
 * @args: what is left of the command line.
 *
 * Return: CHSNAP_OK, or the exit code after a complaint.
 * Threads: main.
 */
CHECKED int chsnap_source_url(struct chsnap *c, char **args, char *url, size_t cap);

#endif
