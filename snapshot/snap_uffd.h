/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd: who touches memory that is not there, or writes to memory that is
 * protected, waits until somebody has seen to it.
 *
 * userfaultfd(2), ioctl_userfaultfd(2).
 */
#ifndef SNAPSHOT_SNAP_UFFD_H
#define SNAPSHOT_SNAP_UFFD_H

#include "core/err.h"

/**
 * snap_uffd_open() - a descriptor that also sees faults of the kernel.
 * @features: UFFD_FEATURE_*, or'ed.
 *
 * KVM touches guest memory on behalf of its vCPUs, so faults of user mode alone
 * are not enough: that takes CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1, or
 * access to /dev/userfaultfd.
 *
 * Return: a descriptor, non-blocking, owned by the caller; -EPERM with what would
 * help in @err; -ENOSYS; -EINVAL if the kernel does not have the features.
 * Threads: any.
 */
CHECKED int snap_uffd_open(uint64_t features, struct err *err);

/**
 * snap_uffd_watch_writes() - have writes to protected pages of a range reported.
 *
 * Return: as snap_uffd_register().
 * Threads: any.
 */
CHECKED int snap_uffd_watch_writes(int fd, const void *addr, uint64_t len, struct err *err);

/**
 * snap_uffd_protect() - protect pages against writing, or let go of them and wake who waits.
 * @addr, @len: in a range that is watched.
 *
 * Return: 0; the kernel's errno.
 * Threads: any.
 */
CHECKED int snap_uffd_protect(int fd, const void *addr, uint64_t len, bool on);

/**
 * snap_uffd_register() - have missing pages of a range reported.
 * @addr, @len: of this process, 4 KiB aligned; one mapping.
 *
 * Return: 0; -EINVAL for memory that cannot be served; -EBUSY if another
 * descriptor has it; the kernel's errno.
 * Threads: any.
 */
CHECKED int snap_uffd_register(int fd, const void *addr, uint64_t len, struct err *err);

/**
 * snap_uffd_unregister() - what is missing from now on is zero; whoever waits goes on.
 *
 * Return: 0; the kernel's errno.
 * Threads: any.
 */
CHECKED int snap_uffd_unregister(int fd, const void *addr, uint64_t len);

/**
 * snap_uffd_copy() - put pages in place and wake whoever waits for them.
 * @dst: in a range that is registered, or was.
 * @src: @len bytes.
 *
 * A page that is there already stays as it is.
 *
 * Return: 0; -ENOMEM and other errnos of the kernel.
 * Threads: any.
 */
CHECKED int snap_uffd_copy(int fd, const void *dst, const void *src, uint64_t len);

/**
 * snap_uffd_zero() - as snap_uffd_copy(), of pages of zeroes.
 *
 * Return: as snap_uffd_copy().
 * Threads: any.
 */
CHECKED int snap_uffd_zero(int fd, const void *dst, uint64_t len);

#endif
