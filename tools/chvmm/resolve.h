/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.migration-resolve: how a person decides a migration that neither end
 * could.  docs/migration-protocol.md 6.1.
 */
#ifndef TOOLS_CHVMM_RESOLVE_H
#define TOOLS_CHVMM_RESOLVE_H

#include "core/config/action_config.h"
#include "migration/mig_statement.h"
#include "tools/chvmm/vmm.h"

enum {
    RESOLVE_REMEMBERED = 16, /* migrations that ended here, the latest */
};

/**
 * resolve_remember() - a migration to this process has ended.
 * @secret:  copied.
 * @outcome: final.
 * @may_be_asked: mig_dest_may_be_asked().
 *
 * Out of memory it is forgotten, and logged.
 * Threads: control.
 */
void resolve_remember(struct vmm *vmm, const uint8_t *secret, enum mig_outcome outcome,
                      bool may_be_asked);

/**
 * resolve_may_be_asked() - whether a source may need what is remembered here.
 *
 * Threads: control.
 */
bool resolve_may_be_asked(const struct vmm *vmm);

/**
 * resolve_state() - what this process will swear to of a migration to it.
 * @id:          which; NULL: the last.
 * @ret_text:    the statement.
 *
 * Return: 0 and *@ret_outcome; -ENOENT where none is remembered.
 * Threads: control.
 */
CHECKED int resolve_state(const struct vmm *vmm, const char *id, enum mig_outcome *ret_outcome,
                          char ret_text[MIG_STATEMENT_SIZE], struct err *err);

/**
 * resolve_forget() - free what is remembered.
 *
 * Threads: control, at the end.
 */
void resolve_forget(struct vmm *vmm);

/* How the disks of a VM looked when they were let go of. */
struct disk_stamps;

/**
 * disk_stamps_take() - look at every disk that can be written.
 *
 * Return: owned; NULL when out of memory.
 * Threads: any.
 */
struct disk_stamps *disk_stamps_take(const struct vm_config *cfg);

/**
 * disk_stamps_check() - whether nobody has written to a file since.
 * @stamps: NULL is an error.
 *
 * A block device has no time of its last write: nothing is known of it.
 *
 * Return: 0; -EBUSY with the disk in @err; -ENOMEM for NULL.
 * Threads: any.
 */
CHECKED int disk_stamps_check(const struct disk_stamps *stamps, struct err *err);

/**
 * disk_stamps_free() - free.
 * @stamps: taken; NULL is allowed.
 *
 * Threads: any.
 */
void disk_stamps_free(struct disk_stamps *stamps);

#endif
