/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/io_fault.h"

#include <stdarg.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static enum io_fault_mode fault_mode;
static long fault_at;
static atomic_long fault_calls;

void io_fault_arm(enum io_fault_mode mode, long n)
{
    atomic_store(&fault_calls, 0);
    fault_at = n;
    fault_mode = mode;
}

long io_fault_disarm(void)
{
    fault_mode = IO_FAULT_NONE;
    return atomic_load(&fault_calls);
}

static void die(void)
{
    (void)kill(getpid(), SIGKILL);
    for (;;)
        (void)pause();
}

enum call_kind {
    CALL_WRITE,
    CALL_GROW, /* needs space: makes a name or a longer file */
    CALL_OTHER,
    CALL_READ,
};

/* Count a call; true if it is to fail with errno set. */
static bool fault(enum call_kind kind)
{
    enum io_fault_mode mode = fault_mode;
    long n;

    if (mode == IO_FAULT_NONE || (mode == IO_FAULT_READ) != (kind == CALL_READ))
        return false;
    n = atomic_fetch_add(&fault_calls, 1) + 1;
    if (n < fault_at)
        return false;
    if (mode == IO_FAULT_KILL || (mode == IO_FAULT_TORN && kind != CALL_WRITE))
        die();
    if ((mode == IO_FAULT_EIO || mode == IO_FAULT_READ) && n == fault_at) {
        errno = EIO;
        return true;
    }
    if ((mode == IO_FAULT_FULL || mode == IO_FAULT_QUOTA) && kind != CALL_OTHER) {
        errno = mode == IO_FAULT_FULL ? ENOSPC : EDQUOT;
        return true;
    }
    return false;
}

/* How much of a write is done: all of it, or half if that is the fault. */
static size_t amount(size_t len)
{
    bool now = atomic_load(&fault_calls) == fault_at;
    bool half = now && (fault_mode == IO_FAULT_TORN || fault_mode == IO_FAULT_SHORT);

    return half && len > 1 ? len / 2 : len;
}

static void after_write(void)
{
    if (fault_mode == IO_FAULT_TORN && atomic_load(&fault_calls) == fault_at)
        die();
}

ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
    return fault(CALL_READ) ? -1 : syscall(SYS_pread64, fd, buf, len, off);
}

ssize_t pread64(int fd, void *buf, size_t len, off_t off)
{
    return pread(fd, buf, len, off);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    ssize_t n;

    if (fault(CALL_WRITE))
        return -1;
    n = syscall(SYS_write, fd, buf, amount(len));
    after_write();
    return n;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
    ssize_t n;

    if (fault(CALL_WRITE))
        return -1;
    n = syscall(SYS_pwrite64, fd, buf, amount(len), off);
    after_write();
    return n;
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t off)
{
    return pwrite(fd, buf, len, off);
}

/* As the C library's, it does not set errno. */
int posix_fallocate(int fd, off_t off, off_t len)
{
    if (fault(CALL_GROW))
        return errno;
    return syscall(SYS_fallocate, fd, 0, off, len) < 0 ? errno : 0;
}

int posix_fallocate64(int fd, off_t off, off_t len)
{
    return posix_fallocate(fd, off, len);
}

int fsync(int fd)
{
    return fault(CALL_OTHER) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fault(CALL_OTHER) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate(int fd, off_t len)
{
    return fault(CALL_OTHER) ? -1 : (int)syscall(SYS_ftruncate, fd, len);
}

int ftruncate64(int fd, off_t len)
{
    return ftruncate(fd, len);
}

int unlink(const char *path)
{
    return fault(CALL_OTHER) ? -1 : (int)syscall(SYS_unlink, path);
}

int unlinkat(int dir, const char *path, int flags)
{
    return fault(CALL_OTHER) ? -1 : (int)syscall(SYS_unlinkat, dir, path, flags);
}

int rename(const char *from, const char *to)
{
    return fault(CALL_OTHER) ? -1 : (int)syscall(SYS_rename, from, to);
}

int mkdir(const char *path, mode_t mode)
{
    return fault(CALL_GROW) ? -1 : (int)syscall(SYS_mkdir, path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
    return fault(CALL_GROW) ? -1 : (int)syscall(SYS_mkdirat, dir, path, mode);
}
