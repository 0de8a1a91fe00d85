/* SPDX-License-Identifier: Apache-2.0 */
#include "core/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int image_open(const char *path, int flags, struct image_facts *ret_facts)
{
    auto_close int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    off_t size;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return -EINVAL;
    size = lseek(fd, 0, SEEK_END);
    if (size < 0)
        return -errno;
    *ret_facts = (struct image_facts){
        .size = (uint64_t)size,
        .device = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev,
        .inode = st.st_ino,
    };
    return steal_fd(&fd);
}

bool image_is_locked(int fd, bool readonly)
{
    struct flock fl = {.l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}
