/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that is put into guest memory: a kernel, an initramfs.
 *
 * The file is read with pread(), never mapped: it may shrink while it is read,
 * which is an error here and would be a signal there.
 */
#ifndef CORE_X86_IMAGE_H
#define CORE_X86_IMAGE_H

#include "core/err.h"

struct gmem;

struct x86_image {
    int fd;           /* borrowed */
    uint64_t size;    /* bytes, when it was looked at */
    const char *what; /* "kernel", "initramfs": the option that named it */
};

/**
 * x86_image_init() - look at an open file.
 * @fd:   borrowed; must stay open as long as @img is used.
 * @what: static.
 *
 * Return: 0; -EINVAL if it is not a regular file or is empty; fstat()'s errno.
 * Threads: any.
 */
CHECKED int x86_image_init(struct x86_image *img, int fd, const char *what, struct err *err);

/**
 * x86_image_read() - bytes of the file into host memory.
 * @off, @len: bytes, any value: taken from the file itself.
 * @field:     what is being read, for the error.
 *
 * Return: 0; -EBADMSG if the range is not all in the file; pread()'s errno.
 * Threads: any.
 */
CHECKED int x86_image_read(const struct x86_image *img, uint64_t off, void *dst, size_t len,
                           const char *field, struct err *err);

/**
 * x86_image_load() - bytes of the file straight into guest memory.
 * @off, @len: bytes, any value.
 * @gpa:       where to; any value.
 *
 * Return: 0; -EBADMSG if the range is not all in the file; -EINVAL if it does
 * not fit in RAM; pread()'s errno.  On failure guest memory may hold a part.
 * Threads: any.
 */
CHECKED int x86_image_load(const struct x86_image *img, uint64_t off, uint64_t len, struct gmem *gm,
                           uint64_t gpa, struct err *err);

#endif
