/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is to be known of a disk image before somebody uses it.
 */
#ifndef CORE_IMAGE_FILE_H
#define CORE_IMAGE_FILE_H

#include "core/base.h"

struct image_facts {
    uint64_t size;   /* bytes; of a block device too */
    uint64_t device; /* the file system's, or the block device itself */
    uint64_t inode;
};

/**
 * image_open() - open a raw image to look at it.
 * @flags: O_RDONLY or O_RDWR.
 *
 * Waits for nothing, locks nothing.
 *
 * Return: the descriptor, owned; -EINVAL for what is neither a file nor a block device; the
 * kernel's errno.
 * Threads: any.
 */
CHECKED int image_open(const char *path, int flags, struct image_facts *ret_facts);

/**
 * image_is_locked() - whether a lock is held that would be in the way of one's own.
 * @fd:       from image_open().
 * @readonly: one's own would be shared.
 *
 * Takes no lock and gives none up.  Locks through another descriptor of this process count: they
 * are in the way as well.
 *
 * Return: true if so.
 * Threads: any.
 */
CHECKED bool image_is_locked(int fd, bool readonly);

#endif
