/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/snap_uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#ifndef USERFAULTFD_IOC_NEW
/* linux/userfaultfd.h since 6.1: USERFAULTFD_IOC 0xAA, _USERFAULTFD_IOC_NEW 0x00. */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

static int open_device(void)
{
    auto_close int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int fd;

    if (dev < 0)
        return -errno;
    fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int snap_uffd_open(uint64_t features, struct err *err)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    auto_close int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    int rc = fd < 0 ? -errno : 0;

    if (rc == -EPERM) {
        fd = open_device();
        if (fd < 0) {
            return err_set(err, rc,
                           "userfaultfd: not permitted: it takes CAP_SYS_PTRACE, "
                           "vm.unprivileged_userfaultfd=1 or access to /dev/userfaultfd (%s)",
                           strerror(-fd));
        }
        rc = 0;
    }
    if (rc >= 0 && ioctl(fd, UFFDIO_API, &api) < 0)
        rc = -errno;
    if (rc < 0)
        return err_set(err, rc, "userfaultfd: %s", strerror(-rc));
    return steal_fd(&fd);
}

static struct uffdio_range range_of(const void *addr, uint64_t len)
{
    return (struct uffdio_range){.start = (uintptr_t)addr, .len = len};
}

int snap_uffd_register(int fd, const void *addr, uint64_t len, struct err *err)
{
    const uint64_t needed = UINT64_C(1) << _UFFDIO_COPY | UINT64_C(1) << _UFFDIO_ZEROPAGE;
    struct uffdio_register reg = {.range = range_of(addr, len),
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};

    if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
        return err_set(err, -errno, "userfaultfd: %s", strerror(errno));
    if ((reg.ioctls & needed) != needed)
        return err_set(err, -EINVAL, "userfaultfd: cannot fill this kind of memory");
    return 0;
}

int snap_uffd_watch_writes(int fd, const void *addr, uint64_t len, struct err *err)
{
    struct uffdio_register reg = {.range = range_of(addr, len), .mode = UFFDIO_REGISTER_MODE_WP};

    if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
        return err_set(err, -errno, "userfaultfd: %s", strerror(errno));
    if (!(reg.ioctls >> _UFFDIO_WRITEPROTECT & 1))
        return err_set(err, -EINVAL, "userfaultfd: cannot protect this kind of memory");
    return 0;
}

int snap_uffd_protect(int fd, const void *addr, uint64_t len, bool on)
{
    struct uffdio_writeprotect wp = {.range = range_of(addr, len),
                                     .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
    int rc;

    do {
        rc = ioctl(fd, UFFDIO_WRITEPROTECT, &wp) < 0 ? -errno : 0;
    } while (rc == -EAGAIN || rc == -EINTR);
    return rc;
}

static int wake(int fd, uint64_t addr, uint64_t len)
{
    struct uffdio_range range = {.start = addr, .len = len};

    return ioctl(fd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

/*
 * The kernel wakes those who wait before it lets go of the memory, and one who touches it again
 * between the two waits anew, without a lock of the whole address space: he is woken here.
 */
int snap_uffd_unregister(int fd, const void *addr, uint64_t len)
{
    struct uffdio_range range = range_of(addr, len);

    if (ioctl(fd, UFFDIO_UNREGISTER, &range) < 0)
        return -errno;
    return wake(fd, range.start, range.len);
}

/* One attempt; *ret_done: bytes put in place.  Return: 0; -EEXIST: the next page is there. */
static int try_copy(int fd, uint64_t dst, const uint8_t *src, uint64_t len, uint64_t *ret_done)
{
    struct uffdio_copy c = {.dst = dst, .src = (uintptr_t)src, .len = len};

    *ret_done = len;
    if (ioctl(fd, UFFDIO_COPY, &c) == 0)
        return 0;
    *ret_done = c.copy > 0 ? (uint64_t)c.copy : 0;
    return -errno;
}

static int try_zero(int fd, uint64_t dst, const uint8_t *src, uint64_t len, uint64_t *ret_done)
{
    struct uffdio_zeropage z = {
        .range = {.start = dst, .len = len}
    };

    (void)src;
    *ret_done = len;
    if (ioctl(fd, UFFDIO_ZEROPAGE, &z) == 0)
        return 0;
    *ret_done = z.zeropage > 0 ? (uint64_t)z.zeropage : 0;
    return -errno;
}

typedef int try_fn(int fd, uint64_t dst, const uint8_t *src, uint64_t len, uint64_t *ret_done);

/* Go on behind pages that are there, and after interruptions by changes of the address space. */
static int fill(int fd, uint64_t dst, const uint8_t *src, uint64_t len, try_fn *attempt)
{
    while (len) {
        uint64_t done;
        int rc = attempt(fd, dst, src, len, &done);

        if (rc == -EEXIST) {
            /* Whoever came first woke those who waited by then, not those who came since. */
            rc = wake(fd, dst, PAGE_SIZE_4K);
            done = PAGE_SIZE_4K;
        } else if (rc == -ENOENT || rc == -ESRCH) {
            return 0; /* no longer registered: all is in place */
        } else if (rc == -EAGAIN) {
            rc = 0;
        }
        if (rc < 0)
            return rc;
        dst += done;
        src = src ? src + done : NULL;
        len -= done;
    }
    return 0;
}

int snap_uffd_copy(int fd, const void *dst, const void *src, uint64_t len)
{
    return fill(fd, (uintptr_t)dst, src, len, try_copy);
}

int snap_uffd_zero(int fd, const void *dst, uint64_t len)
{
    return fill(fd, (uintptr_t)dst, NULL, len, try_zero);
}
