/* SPDX-License-Identifier: Apache-2.0 */
#include "core/std_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int std_fds_fill(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        /* The lowest that is free is this one.  Children get it too: not closed by exec. */
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            return -errno;
    }
    return 0;
}
